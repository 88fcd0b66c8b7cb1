"""Times that do not count: planned work, once or every week.

Theory of operation. A budget is about what was promised; in times that were announced nothing is
promised, so what happens in them is neither good nor bad. All times become spans of wall time;
spans that overlap are put together first, so that nothing is left out twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

__all__ = ["Exclusion", "Span", "Weekly", "spans_in"]

Pair = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Span:
    """From a moment to another."""

    start: float
    end: float
    why: str = ""

    def within(self, start: float, end: float) -> Iterator[Pair]:
        if self.start < end and self.end > start:
            yield max(self.start, start), min(self.end, end)


@dataclass(frozen=True, slots=True)
class Weekly:
    """Hours of some days of the week. Of hours over midnight the day is that of their beginning."""

    days: frozenset[int]
    from_minute: int
    to_minute: int
    zone: str = "UTC"
    why: str = ""

    def within(self, start: float, end: float) -> Iterator[Pair]:
        zone = ZoneInfo(self.zone)
        day = datetime.fromtimestamp(start, zone).date() - timedelta(days=1)
        last = datetime.fromtimestamp(end, zone).date()
        over = self.to_minute <= self.from_minute
        while day <= last:
            if day.weekday() in self.days:
                begins = _moment(day, self.from_minute, zone)
                ends = _moment(day + timedelta(days=over), self.to_minute, zone)
                if begins < end and ends > start and ends > begins:
                    yield max(begins, start), min(ends, end)
            day += timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Exclusion:
    """A span that somebody has said while the gateway runs. Without `slo` it is for all."""

    id: str
    slo: str
    start: float
    end: float
    why: str
    author: str
    created: float

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def of_json(cls, said: Any) -> Exclusion:
        """Raises KeyError, TypeError, ValueError."""
        made = cls(
            str(said["id"]),
            str(said["slo"]),
            float(said["start"]),
            float(said["end"]),
            str(said["why"]),
            str(said["author"]),
            float(said["created"]),
        )
        if not made.start < made.end < 1e11:
            raise ValueError("ends before it begins")
        return made

    def within(self, start: float, end: float) -> Iterator[Pair]:
        yield from Span(self.start, self.end).within(start, end)


def spans_in(
    closed: Iterable[Span | Weekly | Exclusion], start: float, end: float
) -> tuple[Pair, ...]:
    """All times that do not count, in order and apart from each other."""
    found = sorted(pair for each in closed for pair in each.within(start, end))
    merged: list[Pair] = []
    for low, high in found:
        if merged and low <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return tuple(merged)


def _moment(day: date, minute: int, zone: ZoneInfo) -> float:
    """By way of UTC, so that 24:00 and hours that a change of clocks leaves out are moments."""
    whole = datetime(day.year, day.month, day.day, tzinfo=zone) if minute < 1440 else None
    if whole is None:
        day += timedelta(days=1)
        minute -= 1440
        whole = datetime(day.year, day.month, day.day, tzinfo=zone)
    local = whole.replace(hour=minute // 60, minute=minute % 60)
    return local.astimezone(UTC).timestamp()
