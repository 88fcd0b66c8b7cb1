"""What one receiver is told at one time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from headgate.observe.alerts.alert import Alert
from headgate.observe.alerts.rules import RANK, Level

__all__ = ["Kind", "Notification"]

Kind = Literal["firing", "resolved", "acknowledged", "digest", "test", "heartbeat"]


@dataclass(frozen=True, slots=True)
class Notification:
    id: str
    """The same for every attempt, also those after a crash: a receiver may know it again."""
    dedup: str
    """The same for all notifications of one group from its first alert to its end."""
    kind: Kind
    receiver: str
    at: float
    group: Mapping[str, str]
    alerts: tuple[Alert, ...]
    """Those that fire, then those that ended since the last notification."""
    note: str = ""
    """What else a reader should know: an escalation, a repeat, who acknowledged."""

    @property
    def firing(self) -> tuple[Alert, ...]:
        return tuple(each for each in self.alerts if each.state == "firing")

    @property
    def resolved(self) -> tuple[Alert, ...]:
        return tuple(each for each in self.alerts if each.state != "firing")

    @property
    def level(self) -> Level:
        """The highest of those that fire, or that fired."""
        told = self.firing or self.alerts
        return max((each.level for each in told), key=RANK.__getitem__, default="info")

    @property
    def subject(self) -> str:
        """One line."""
        if self.kind == "test":
            return "[TEST] a test message from Headgate"
        if self.kind == "heartbeat":
            return "[ALIVE] Headgate judges its alerts"
        what = ", ".join(sorted({each.rule for each in self.alerts})[:3])
        one = self.alerts[0] if len(self.alerts) == 1 else None
        text = one.summary if one is not None else what
        if self.kind == "digest":
            return f"[DIGEST] {len(self.alerts)} alerts: {what}"
        if self.kind == "acknowledged":
            return f"[ACKNOWLEDGED] {text}"
        if self.kind == "resolved":
            return f"[RESOLVED] {text}"
        count = f":{len(self.firing)}" if len(self.firing) > 1 else ""
        flaps = " (flapping)" if any(each.is_flapping for each in self.firing) else ""
        return f"[{self.level.upper()}{count}] {text}{flaps}"

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "dedup": self.dedup,
            "kind": self.kind,
            "receiver": self.receiver,
            "at": self.at,
            "group": dict(self.group),
            "alerts": [each.to_json() for each in self.alerts],
            "note": self.note,
        }

    @classmethod
    def of_json(cls, said: Mapping[str, Any]) -> Notification:
        return cls(
            id=str(said["id"]),
            dedup=str(said["dedup"]),
            kind=cast("Kind", said["kind"]),
            receiver=str(said["receiver"]),
            at=float(said["at"]),
            group={str(k): str(v) for k, v in said["group"].items()},
            alerts=tuple(Alert.of_json(each) for each in said["alerts"]),
            note=str(said["note"]),
        )
