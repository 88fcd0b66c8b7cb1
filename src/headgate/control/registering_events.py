"""What people are told of the registry: live events, and entries of the audit log. Both bounded.

Theory of operation. A fleet that is rolled out changes the registry hundreds of times a second, and
whoever has a token of a service can make it change as often as they like. Neither may push out of
sight what else happened: the live events hold a thousand, and the audit log is on a disk. So what
happens to one service at once is one event; and in each second, or minute, a bounded number is told
one by one and the rest as a number. Pure: time is an argument.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from headgate.mesh.registry.model import Change

__all__ = ["Allowance", "Happened", "events_of"]

EVENTS_A_SECOND: Final = 10
ENTRIES_A_MINUTE: Final = 120


@dataclass(frozen=True, slots=True)
class Happened:
    text: str
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Allowance:
    """So many in each stretch of time; the others are counted."""

    most: int
    stretch_s: float
    _until: float = 0.0
    _used: int = 0
    _left_out: int = 0

    def take(self, now: float) -> bool:
        if now >= self._until:
            self._until = now + self.stretch_s
            self._used = 0
        self._used += 1
        if self._used > self.most:
            self._left_out += 1
            return False
        return True

    def left_out(self, now: float) -> int:
        """How many were left out of stretches that are over; each is answered once."""
        if now < self._until:
            return 0
        found, self._left_out = self._left_out, 0
        return found


def events_of(changes: Iterable[Change]) -> Iterator[Happened]:
    """One event for what happened to one service for one reason."""
    counts: Counter[tuple[str, str, str]] = Counter()
    one_of: dict[tuple[str, str, str], str] = {}
    for change in changes:
        instance = change.instance
        if instance.source == "file":
            continue  # the reload is told
        what: str = change.what
        if what == "changed":
            if instance.state == "up" and instance.health != "down":
                continue  # another weight or version
            what = instance.state if instance.state != "up" else "down"
        key = (instance.service, what, change.why)
        counts[key] += 1
        one_of[key] = instance.id
    for (service, what, why), count in counts.items():
        who = one_of[service, what, why] if count == 1 else f"{count} instances"
        yield Happened(
            f"{service}: {who} {what} ({why})", {"service": service, "what": what, "count": count}
        )
