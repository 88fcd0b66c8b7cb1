"""What a monitored thing was like, day by day: how long it was up, and how quickly it answered.

Theory of operation
-------------------
Days are those of UTC. Between two checks the first one's finding holds; if the second comes much
later than it should, it holds for as long as one round, and of the rest nothing is known. So is
all the time in which nobody looked: before the first check, and while this program did not run.
Unknown time is neither up nor down: uptime is `up / (up + down)`, and the days say of how much they
speak. Degraded time is up.

How long it was is measured by the monotonic clock and placed by the wall clock. After a restart
the monotonic clock of before means nothing, so the first check begins anew and the gap is unknown;
and a clock that is set makes nothing longer.

Response times are counted on a logarithmic scale (0.55 % error), successful checks alone: how long
a refusal took says nothing of those who got an answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from headgate.observe.health.outcome import Status
from headgate.observe.meters.sketch import Sketch

__all__ = ["DAY_S", "Day", "Uptime", "day_of", "pieces_by_day"]

DAY_S: Final = 86_400.0
_MOST_BINS: Final = 2000


def day_of(wall: float) -> int:
    """Days since 1970, in UTC."""
    return int(wall // DAY_S)


def pieces_by_day(start: float, end: float) -> Iterator[tuple[int, float]]:
    """(day, seconds) of a stretch of wall time."""
    while start < end:
        day = day_of(start)
        until = min(end, (day + 1) * DAY_S)
        yield day, until - start
        start = until


@dataclass(slots=True)
class Day:
    """One day of one monitor."""

    day: int
    up_s: float = 0.0
    """Degraded time included."""
    degraded_s: float = 0.0
    down_s: float = 0.0
    checks: int = 0
    failures: int = 0
    longest_s: float = 0.0
    times: Sketch = field(default_factory=Sketch)

    @property
    def date(self) -> str:
        return datetime.fromtimestamp(self.day * DAY_S, UTC).date().isoformat()

    @property
    def known_s(self) -> float:
        return self.up_s + self.down_s

    @property
    def uptime(self) -> float | None:
        """The share of the known time; None if nothing is known."""
        return self.up_s / self.known_s if self.known_s > 0 else None

    def unknown_s(self, now: float) -> float:
        """How much of the day, as far as it has gone, nobody looked."""
        gone_s = min(DAY_S, max(0.0, now - self.day * DAY_S))
        return max(0.0, gone_s - self.known_s)

    def hold(self, status: Status, seconds: float) -> None:
        # Never more than a day has, whatever clocks did.
        seconds = min(seconds, max(0.0, DAY_S - self.known_s))
        if status == "failing":
            self.down_s += seconds
        elif status != "unknown":
            self.up_s += seconds
            if status == "degraded":
                self.degraded_s += seconds

    def saw(self, status: Status, took_s: float) -> None:
        if status == "unknown":
            return
        self.checks += 1
        if status == "failing":
            self.failures += 1
            return
        self.longest_s = max(self.longest_s, took_s)
        self.times.put(took_s)

    def to_json(self) -> dict[str, Any]:
        return {
            "up": round(self.up_s, 3),
            "degraded": round(self.degraded_s, 3),
            "down": round(self.down_s, 3),
            "checks": self.checks,
            "failures": self.failures,
            "longest": round(self.longest_s, 6),
            "sum": round(self.times.sum, 6),
            "bins": sorted(self.times.bins.items()),
        }

    @classmethod
    def of_json(cls, day: int, said: Any) -> Day:
        """Raises ValueError, TypeError or KeyError on what it never wrote."""
        bins = {int(at): int(count) for at, count in said["bins"][:_MOST_BINS]}
        up_s, degraded_s, down_s = (
            min(DAY_S, max(0.0, float(said[name]))) for name in ("up", "degraded", "down")
        )
        made = cls(
            day,
            up_s,
            degraded_s,
            down_s,
            checks=max(0, int(said["checks"])),
            failures=max(0, int(said["failures"])),
            longest_s=max(0.0, float(said["longest"])),
        )
        made.times = Sketch(bins, 0, {}, float(said["sum"]))
        return made


class Uptime:
    """The days of one monitor, the newest `keep_days` of them."""

    def __init__(self, every_s: float, slack_s: float, keep_days: int = 90) -> None:
        self.every_s = every_s
        self.slack_s = slack_s
        """How much later than `every_s` a check may come and still be the next one."""
        self.keep_days = keep_days
        self.days: dict[int, Day] = {}
        self.changed: set[int] = set()
        """Days that were not written since."""
        self._status: Status = "unknown"
        self._mono: float | None = None

    def saw(self, status: Status, took_s: float, now: float, wall: float) -> None:
        """A check has ended; `now` is monotonic."""
        if self._mono is not None:
            self._hold(max(0.0, now - self._mono), wall)
        self._status, self._mono = status, now
        self._day(day_of(wall)).saw(status, took_s)
        self._forget(wall)

    def until(self, now: float, wall: float) -> None:
        """Count what has gone by since the last check, as far as it is known: at the end, say."""
        if self._mono is not None:
            self._hold(max(0.0, now - self._mono), wall)
            # The longest that the last finding holds is from the check on, not from here.
            self._status, self._mono = "unknown", None

    def pause(self) -> None:
        """Nobody looks from here on."""
        self._status, self._mono = "unknown", None

    def _hold(self, gone_s: float, wall: float) -> None:
        holds_s = gone_s
        if gone_s > self.every_s + self.slack_s:
            holds_s = min(gone_s, self.every_s)
        start = wall - gone_s
        for day, seconds in pieces_by_day(start, start + holds_s):
            self._day(day).hold(self._status, seconds)

    def _day(self, day: int) -> Day:
        self.changed.add(day)
        found = self.days.get(day)
        if found is None:
            found = self.days[day] = Day(day)
        return found

    def _forget(self, wall: float) -> None:
        oldest = day_of(wall) - self.keep_days
        for day in [each for each in self.days if each <= oldest]:
            del self.days[day]
            self.changed.discard(day)

    def over(self, days: int, wall: float) -> Day:
        """The last `days` days together."""
        first = day_of(wall) - days + 1
        whole = Day(first)
        for day in self.days.values():
            if first <= day.day <= day_of(wall):
                whole.up_s += day.up_s
                whole.degraded_s += day.degraded_s
                whole.down_s += day.down_s
                whole.checks += day.checks
                whole.failures += day.failures
                whole.longest_s = max(whole.longest_s, day.longest_s)
                whole.times.add(day.times)
        return whole
