"""Events that come in thousands, counted by kind and address.

Theory of operation. An attack makes as many events as requests; the log gets one entry for each
kind and address in a period, with a count and the first of them as an example. The number of pairs
is bounded: beyond it events are counted by kind alone, under the address "others", so that nothing
is lost without a number to show for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["Counted", "Tally", "brief"]

OTHERS: Final = "others"
_KINDS_MAX: Final = 100
_FIELDS_MAX: Final = 20
_VALUE_MAX: Final = 300


@dataclass(slots=True)
class Counted:
    kind: str
    address: str
    count: int
    first: float
    last: float
    example: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "address": self.address,
            "count": self.count,
            "first": self.first,
            "last": self.last,
            "example": dict(self.example),
        }


class Tally:
    def __init__(self, period_s: float, pairs_max: int = 1000) -> None:
        self._period_s = period_s
        self._pairs_max = pairs_max
        self._counts: dict[tuple[str, str], Counted] = {}
        self._since: float | None = None

    def __len__(self) -> int:
        return len(self._counts)

    def see(
        self,
        kind: str,
        address: str,
        example: Mapping[str, Any],
        *,
        now: float,
        wall: float,
        count: int = 1,
    ) -> None:
        """Count one event, or several of another tally."""
        if self._since is None:
            self._since = now
        key = (kind, address)
        found = self._counts.get(key)
        if found is None and len(self._counts) >= self._pairs_max:
            known = {kind for kind, _ in self._counts}
            key = (kind if kind in known or len(known) < _KINDS_MAX else OTHERS, OTHERS)
            found = self._counts.get(key)
        if found is None:
            self._counts[key] = Counted(*key, count, wall, wall, example)
        else:
            found.count += count
            found.last = max(found.last, wall)

    def take(self, now: float) -> list[Counted]:
        """What was counted, once the period is over; nothing before."""
        if self._since is None or now - self._since < self._period_s:
            return []
        return self.take_all()

    def take_all(self) -> list[Counted]:
        counted = list(self._counts.values())
        self._counts = {}
        self._since = None
        return counted


def brief(fields: Mapping[str, Any]) -> dict[str, Any]:
    """An example that has a bound, of what JSON can hold."""
    made: dict[str, Any] = {}
    for name, value in list(fields.items())[:_FIELDS_MAX]:
        is_plain = value is None or isinstance(value, bool | int | float)
        made[str(name)[:100]] = value if is_plain else str(value)[:_VALUE_MAX]
    return made
