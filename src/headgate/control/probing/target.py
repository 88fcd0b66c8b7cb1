"""What is checked, and how the answer of an instance is judged, over whatever it is carried."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from headgate.config.services import Endpoint, UpstreamTlsSpec
from headgate.policy.health import BODY_BYTES, HealthRules
from headgate.wire.following import FollowedTls

__all__ = ["USER_AGENT", "Target", "Verdict", "judge_body"]

USER_AGENT: Final = "headgate-health"

Verdict = tuple[bool, str]
"""Whether the check passed, and what was seen."""


@dataclass(frozen=True, slots=True)
class Target:
    """An instance and how it is checked."""

    service: str
    instance: str
    """Its URL, which is its id."""
    endpoint: Endpoint
    rules: HealthRules
    tls: UpstreamTlsSpec | FollowedTls = field(default_factory=UpstreamTlsSpec)
    http: Literal["auto", "1.1", "2"] = "auto"
    """The protocol spoken to the service. Over "2" a check of kind http is HTTP/2 as well."""

    @property
    def is_h2(self) -> bool:
        return self.rules.kind == "grpc" or (self.rules.kind == "http" and self.http == "2")

    @property
    def address(self) -> Endpoint:
        """Where the check connects to."""
        port = self.rules.port
        return self.endpoint if port is None else self.endpoint._replace(port=port)

    @property
    def authority(self) -> str:
        return self.rules.host or self.address.authority


def judge_body(
    body: bytearray, rules: HealthRules, status: int, *, is_whole: bool
) -> Verdict | None:
    """Judge a body as far as it has come. None: it needs more."""
    if rules.body is not None and rules.body.encode() in body[:BODY_BYTES]:
        return True, f"status {status}"
    if not is_whole and len(body) < BODY_BYTES:
        return None
    if rules.body is None:
        return True, f"status {status}"
    where = "" if is_whole and len(body) <= BODY_BYTES else " in its first 64 KB"
    return False, f"body lacks {rules.body!r}{where}"
