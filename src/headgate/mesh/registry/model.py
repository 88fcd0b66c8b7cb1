"""What the registry says of an instance, as everybody exchanges it: values and their JSON.

Theory of operation. An instance belongs to one service and has an id that is unique there. Several
sources may name instances (itself, the file, DNS, a directory); each owns what it named. A lease is
held by whoever registered itself: `fence` grows with every registration of the same id, so that a
process that was taken for dead and comes back cannot speak for its successor.

Every change has a revision, one row of numbers for the whole registry. `epoch` names the row: a
registry that lost its memory begins another, and whoever watches asks for everything again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

__all__ = ["Change", "Health", "Instance", "Source", "State"]

Source = Literal["self", "file", "dns", "directory"]
State = Literal["up", "draining", "suspect"]
"""`suspect`: its lease is over, but so are those of most others at once; it is kept in use."""

Health = Literal["up", "degraded", "down"]
"""What it says of itself with its beats. One that is `down` keeps its lease and gets nothing."""

_NOTHING: Final[Mapping[str, str]] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    service: str
    id: str
    url: str
    """As in `instances` of the file: `http://host:port`, `https://host:port`, `unix:/path`."""
    zone: str = ""
    version: str = ""
    weight: int = 1
    priority: int = 0
    metadata: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    source: Source = "self"
    state: State = "up"
    fence: int = 0
    """Of the lease; 0 where nobody holds one."""
    revision: int = 0
    """Of its last change."""
    since: float = 0.0
    """When it came, in wall time."""
    health: Health = "up"

    @property
    def takes_requests(self) -> bool:
        """Whether new requests may go there, as far as the registry knows."""
        return self.state != "draining" and self.health != "down" and self.weight > 0

    def to_json(self) -> dict[str, Any]:
        return {
            "service": self.service,
            "id": self.id,
            "url": self.url,
            "zone": self.zone,
            "version": self.version,
            "weight": self.weight,
            "priority": self.priority,
            "metadata": dict(self.metadata),
            "source": self.source,
            "state": self.state,
            "fence": self.fence,
            "revision": self.revision,
            "since": self.since,
            "health": self.health,
        }

    @classmethod
    def of_json(cls, row: Mapping[str, Any]) -> Instance:
        """From our own `to_json`; fields of a newer version are passed over."""
        known = {name: row[name] for name in cls.__dataclass_fields__ if name in row}
        return cls(**known)


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that happened to one instance."""

    revision: int
    at: float
    """Wall time."""
    what: Literal["came", "changed", "went"]
    instance: Instance
    """As it is now; as it was last, if it went."""
    why: str = ""
    """In words: `registered`, `lease ran out`, `deregistered`, `dns no longer names it`."""

    def to_json(self) -> dict[str, Any]:
        return {
            "revision": self.revision,
            "at": self.at,
            "what": self.what,
            "instance": self.instance.to_json(),
            "why": self.why,
        }

    @classmethod
    def of_json(cls, row: Mapping[str, Any]) -> Change:
        return cls(
            row["revision"],
            row["at"],
            row["what"],
            Instance.of_json(row["instance"]),
            row.get("why", ""),
        )
