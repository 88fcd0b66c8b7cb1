"""What a sidecar is started with. It travels in a memfd and never on a command line: the tokens in
it are secrets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from headgate.mesh.sidecar.document import Beside

__all__ = ["Settings"]


@dataclass(frozen=True, slots=True)
class Settings:
    beside: Beside
    file: str = ""
    """The gateway's file, where it is at hand; else control is asked for what it says."""
    control: str = ""
    """URL of the admin API; empty: nobody is asked, registered with or told."""
    token: str = field(default="", repr=False)
    """Of the role `service`."""
    ca_file: str = ""
    join_token: str = field(default="", repr=False)
    join_token_file: str = ""
    registers: bool = True
    id: str = ""
    """Of this instance, in the registry."""
    url: str = ""
    """Where others reach the inbound listener; empty: found out."""
    version: str = ""
    weight: int = 1
    health: str = ""
    """A path of the process that answers 2xx when it is well; empty: that it accepts connections
    is enough."""
    settle_s: float = 1.0
    """Between leaving the registry and accepting nothing more: callers hear of it meanwhile."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of_json(cls, content: Mapping[str, Any]) -> Settings:
        return cls(**{**content, "beside": Beside(**content["beside"])})
