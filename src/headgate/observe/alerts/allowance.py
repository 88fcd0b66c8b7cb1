"""How much one receiver is told in an hour, and the digest of what was held back.

Theory of operation. A receiver takes `per_hour` notifications in any hour. Those over it are held
and become one digest when there is room again; of each alert the digest has the newest state, so
nothing is lost and nothing is old. Tests and acknowledgements pass. What is held is bounded by
alerts, not by notifications: over `_MOST_HELD` the lowest levels that have ended go first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from headgate.observe.alerts.alert import Alert
from headgate.observe.alerts.notification import Notification
from headgate.observe.alerts.rules import RANK

__all__ = ["Allowances"]

_HOUR_S: Final = 3600.0
_MOST_HELD: Final = 500


class Allowances:
    def __init__(self, per_hour: Mapping[str, int]) -> None:
        self.per_hour = dict(per_hour)
        self._sent: dict[str, list[float]] = {}
        self._held: dict[str, dict[str, Alert]] = {}
        self._first: dict[str, Notification] = {}
        self.held_back = 0
        self.dropped = 0

    def admit(self, said: Sequence[Notification], now: float) -> list[Notification]:
        """Those that may go now, digests of earlier ones among them."""
        passed = []
        for receiver in list(self._held):
            if self._has_room(receiver, now):
                passed.append(self._digest(receiver, now))
        for each in said:
            if each.kind in ("test", "acknowledged", "heartbeat"):
                passed.append(each)
            elif each.receiver not in self._held and self._has_room(each.receiver, now):
                self._count(each.receiver, now)
                passed.append(each)
            else:
                self._hold(each)
        return passed

    def _has_room(self, receiver: str, now: float) -> bool:
        most = self.per_hour.get(receiver, 0)
        if not most:
            return True
        sent = [at for at in self._sent.get(receiver, ()) if 0 <= now - at < _HOUR_S]
        self._sent[receiver] = sent
        return len(sent) < most

    def _count(self, receiver: str, now: float) -> None:
        if self.per_hour.get(receiver, 0):
            self._sent.setdefault(receiver, []).append(now)

    def _hold(self, said: Notification) -> None:
        held = self._held.setdefault(said.receiver, {})
        self._first.setdefault(said.receiver, said)
        self.held_back += 1
        for alert in said.alerts:
            held.pop(alert.id, None)
            held[alert.id] = alert
        while len(held) > _MOST_HELD:
            del held[
                min(
                    held, key=lambda ident: (held[ident].state == "firing", RANK[held[ident].level])
                )
            ]
            self.dropped += 1

    def _digest(self, receiver: str, now: float) -> Notification:
        held = self._held.pop(receiver)
        first = self._first.pop(receiver)
        self._count(receiver, now)
        alerts = sorted(
            held.values(), key=lambda each: (each.state != "firing", -RANK[each.level], each.rule)
        )
        return replace(
            first,
            id=f"{first.id}-digest",
            dedup=f"{first.dedup[:24]}-digest",
            kind="digest",
            at=now,
            group={},
            alerts=tuple(alerts),
            note=f"more than {self.per_hour.get(receiver, 0)} notifications in an hour: the newest"
            " state of the alerts held back",
        )

    def shift(self, by_s: float) -> None:
        self._sent = {name: [at + by_s for at in sent] for name, sent in self._sent.items()}

    def dump(self) -> dict[str, Any]:
        return {
            "sent": {name: list(sent) for name, sent in self._sent.items()},
            "held": {
                name: [each.to_json() for each in held.values()]
                for name, held in self._held.items()
            },
            "first": {name: each.to_json() for name, each in self._first.items()},
        }

    def restore(self, said: Mapping[str, Any]) -> None:
        self._sent = {str(n): [float(at) for at in sent] for n, sent in said["sent"].items()}
        for name, first in said["first"].items():
            held = [Alert.of_json(each) for each in said["held"].get(name, ())]
            if held:
                self._first[name] = Notification.of_json(first)
                self._held[name] = {each.id: each for each in held}
