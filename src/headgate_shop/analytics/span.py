"""The days that a figure is of, and those before to compare it with."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

__all__ = ["Span", "last_days"]


@dataclass(frozen=True, slots=True)
class Span:
    """From the beginning of `first` until the end of hour `hour` of `last`, in UTC."""

    first: str
    last: str
    hour: int

    def days(self) -> list[str]:
        found = [self.first]
        while found[-1] < self.last:
            following = datetime.fromisoformat(found[-1]) + timedelta(days=1)
            found.append(following.strftime("%Y-%m-%d"))
        return found

    def of_hours(self, day: sa.Column[str], hour: sa.Column[int]) -> sa.ColumnElement[bool]:
        """For tables by the hour."""
        until = sa.or_(day < self.last, sa.and_(day == self.last, hour <= self.hour))
        return sa.and_(day >= self.first, until)

    def of_days(self, day: sa.Column[str]) -> sa.ColumnElement[bool]:
        return sa.and_(day >= self.first, day <= self.last)


def last_days(count: int, wall: float) -> tuple[Span, Span]:
    """The `count` days of which today is the last, and as long a time before. Both end at the same
    hour: a morning is compared with a morning.
    """
    now = datetime.fromtimestamp(wall, UTC)
    spans = [
        Span(
            (now - timedelta(days=back + count - 1)).strftime("%Y-%m-%d"),
            (now - timedelta(days=back)).strftime("%Y-%m-%d"),
            now.hour,
        )
        for back in (0, count)
    ]
    return spans[0], spans[1]
