"""Protection of a whole worker: turn away the least important, early and cheaply.

Theory of operation. A worker that is asked for more than it can do must refuse some of it, or
everybody's answer comes too late to be of use. What tells is delay that stands: the least delay
seen in an interval (as in CoDel, RFC 8289), for a burst makes delay too, but between bursts it
goes back to nothing. Two delays are watched, each with its target: how late the event loop's
timer comes (`tick`), and how long requests stand in the worker's own lines (`waited`).

- Open: everything is admitted. An interval in which a delay stood above its target starts to
  shed. An interval in which nobody waited says that there was no delay.
- Shedding: requests are admitted at a rate. Above the target the rate is what the worker was seen
  to finish, less what it takes to work off the delay within `drain_s`; but for a late loop no less
  than half of the most that it finished lately, for what does not end at that has another cause,
  and following it down would end in refusing nearly all. Below half of the target
  the rate grows, quickly up to what was last finished, beyond that slowly at first and then ever
  faster; in between it is held.
- Back to open after `calm_s` in which delays were below half of their targets and nothing was
  refused. With the load gone that is all it takes; nothing has to be waited for or switched.

How the rate is kept. At each tick it is shared out among the priorities by what they ask for, the
most important first: most get all or nothing, one a part. Beside that stands a bucket of tokens
that fills at the rate. Shares alone act too late when a load comes all at once, for by the time
of the next tick a late loop has admitted far too much. The bucket alone fails when the rate is a
little too high: it is then never empty, and everything is admitted. The lower the priority, the
more must be left in the bucket; the critical class may overdraw it by its whole depth.

What is asked for is what came in, not what the loop has got round to reading. While the loop
falls behind, what it reads between two ticks was sent in less time than lies between them, and
while it catches up in more; the difference of the two lags is the difference.

Besides, each priority may fill only its share of `max_in_flight`, whatever the delays: that is
the bound on memory.

A worker that had rest is not overloaded, however late its timer comes: somebody else has the
processor, and to refuse requests would not end the delay, so that ever more would be refused.
Whoever calls `tick` says whether it had (`is_busy`).

The sample of the lag that ends an interval begins the next as well, so one late tick alone (a
collection, a pause of the machine) is not a delay that stands. A loop that has far too much to do
does not come round to its timers any more; therefore `admit` looks whether the tick is overdue.

What an editor must not break: `admit` runs once a request. While the worker is fine it is two
comparisons and one addition. `tests/policy/test_overload_simulation.py` is what the constants were
tuned by.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from headgate.policy.answers import Rejected

__all__ = ["NORMAL", "PRIORITIES", "Priority", "ShedRules", "ShedSnapshot", "Shedder"]

Priority = Literal["critical", "high", "normal", "low", "background"]
PRIORITIES: Final[tuple[Priority, ...]] = ("critical", "high", "normal", "low", "background")
NORMAL: Final = 2

# How much of the rate may go to working off a delay. What waits for the loop has not been judged
# yet, and most of it will be refused at next to no cost. What stands in a line has to be served.
_DRAIN_LOOP: Final = 0.25
_DRAIN_QUEUE: Final = 0.9
_HEADROOM: Final = 0.98  # of what is finished; a worker used to the last drop has a long line
_FADING: Final = 0.98  # an interval: half of it after 7 s
_PEAK_PART: Final = 0.5  # of the most finished; a delay that this does not end, less will not
_GROWTH: Final = 1.5  # an interval, while the rate is below what was finished before
_GROWTH_BEYOND: Final = 0.0025  # for each calm interval: half as much again after 4 s, and in 14 s
# five-hundredfold, should the rate have collapsed with something that hung
_SAMPLE_S: Final = 0.05  # while the tick is overdue
_FLOORS: Final = (-1.0, 0.0, 0.25, 0.4, 0.5)  # shares of the bucket
_BUCKET_S: Final = 0.05  # a bucket holds what comes in this time
_BUCKET_MIN: Final = 8.0  # at low rates the floors must still be some tokens apart
_MEMORY_S: Final = 0.25  # over what time the demand of each priority is averaged


@dataclass(frozen=True, slots=True, kw_only=True)
class ShedRules:
    max_in_flight: int = 10_000
    shares: tuple[float, ...] = (1.0, 0.95, 0.9, 0.8, 0.7)
    """For each priority, critical first, how much of `max_in_flight` it may fill."""
    lag_target_s: float = 0.02
    """How late the event loop may run. Some 20 ms is where waiting begins to outweigh working."""
    queue_target_s: float = 0.1
    """How long requests may stand in the worker's own lines."""
    interval_s: float = 0.2
    """How long a delay must stand; several times the distance between two ticks."""
    drain_s: float = 1.0
    """In what time the delay is worked off."""
    calm_s: float = 1.0
    """How long all must be well before everything is admitted again."""
    least_per_s: float = 10.0
    """What is admitted at the very least, so that it shows when the trouble is over."""
    retry_after_s: float = 2.0
    """What those turned away are told."""

    def problems(self) -> tuple[str, ...]:
        return tuple(self._problems())

    def _problems(self) -> Iterator[str]:
        if self.max_in_flight < 1:
            yield f"max_in_flight={self.max_in_flight} would let nothing through"
        if len(self.shares) != len(PRIORITIES):
            yield f"shares names {len(self.shares)} priorities; there are {len(PRIORITIES)}"
        elif not all(0.0 < share <= 1.0 for share in self.shares):
            yield f"shares {self.shares} must be above 0 and at most 1"
        elif list(self.shares) != sorted(self.shares, reverse=True):
            yield f"shares {self.shares} give a lower priority more than a higher one"
        for name in ("lag_target_s", "queue_target_s", "interval_s", "drain_s", "least_per_s"):
            value: float = getattr(self, name)
            if not value > 0.0:
                yield f"{name}={value:g} must be above 0"
        for name in ("calm_s", "retry_after_s"):
            value = getattr(self, name)
            if not value >= 0.0:
                yield f"{name}={value:g} must not be negative"
        if self.calm_s > 25.0:
            yield f"calm_s={self.calm_s:g}: a worker should be back within 30 s after overload"


@dataclass(frozen=True, slots=True)
class ShedSnapshot:
    is_shedding: bool
    rate_per_s: float | None
    """What is admitted a second, None while everything is."""
    lag_s: float
    queue_s: float
    """The delays that stood in the last interval."""
    accepted: tuple[float, ...]
    """The share of each priority that is admitted, critical first."""
    rejected: tuple[int, ...]
    """Of each priority, ever."""
    since: float
    """When it began to shed, or was open again."""


class Shedder:
    __slots__ = (
        "_asked_per_s",
        "_calm_intervals",
        "_calm_s",
        "_caps",
        "_depth",
        "_due",
        "_finished_per_s",
        "_free_below",
        "_full",
        "_in_flight_before",
        "_interval_start",
        "_lag_s",
        "_last_lag_s",
        "_low_lag_s",
        "_low_queue_s",
        "_memory_s",
        "_queue_s",
        "_rate",
        "_rejected",
        "_rejected_before",
        "_rules",
        "_seen",
        "_shares",
        "_since",
        "_taken",
        "_sample_at",
        "_ticked_at",
        "_tick_due_at",
        "_overdue_at",
        "_peak_per_s",
        "_period_s",
        "_tokens",
        "_tokens_at",
        "_turned_away",
    )

    def __init__(self, rules: ShedRules, now: float) -> None:
        self._seen = [0] * len(PRIORITIES)
        """Asked for since the last tick."""
        self._asked_per_s = [0.0] * len(PRIORITIES)
        self._shares = [1.0] * len(PRIORITIES)
        self._memory_s = 0.0  # what was asked for before the shedding began counts for nothing
        self._due = [0.0] * len(PRIORITIES)
        self._rejected = [0] * len(PRIORITIES)
        self._rejected_before = 0
        self._taken = 0
        self._sample_at = now
        self._ticked_at = math.inf  # not yet, so that no period follows from the first tick
        self._period_s = math.inf
        self._tick_due_at = self._overdue_at = math.inf
        self._tokens = self._depth = 0.0
        self._tokens_at = now
        self._calm_intervals = 0
        self._last_lag_s = 0.0
        self._in_flight_before = 0
        self._interval_start = now
        self._low_lag_s = 0.0
        self._low_queue_s = math.inf
        self._lag_s = self._queue_s = 0.0
        self._rate: float | None = None
        self._finished_per_s = 0.0
        self._peak_per_s = 0.0
        """The most that was finished lately."""
        self._calm_s = 0.0
        self._since = now
        self.take_rules(rules, now)

    @property
    def is_shedding(self) -> bool:
        return self._rate is not None

    def admit(self, priority: int, now: float, in_flight: int) -> Rejected | None:
        """None: go on. `priority` is an index into PRIORITIES, `in_flight` the worker's count."""
        self._seen[priority] += 1
        if in_flight < self._free_below and now < self._overdue_at:
            return None
        if now >= self._overdue_at:
            self._sample(now, now - self._tick_due_at, in_flight)
            self._overdue_at = now + _SAMPLE_S
        return self._judge(priority, now, in_flight)

    def waited(self, queue_s: float, now: float) -> None:
        """A request has left the line (or had no need to wait: 0.0), served or not.

        Report those that went through at once as well. Delay stands when nobody gets through
        without it; where some do, one service is slow, and its bulkhead answers for that.
        """
        if queue_s < self._low_queue_s:  # noqa: PLR1730 - min() takes several times as long
            self._low_queue_s = queue_s

    def tick(self, now: float, lag_s: float, in_flight: int, *, is_busy: bool = True) -> None:
        """Call ten to twenty times a second, by a timer: `lag_s` is how late this very call comes.

        The next one is expected as long after this one as this one was due after the last. Not
        `is_busy` says that there was rest since then: what is late all the same is so for others.
        """
        period_s = now - lag_s - self._ticked_at
        if period_s > 0.0:
            self._period_s = period_s
        self._ticked_at = now
        self._tick_due_at = now + self._period_s
        self._overdue_at = self._tick_due_at + self._rules.lag_target_s
        self._sample(now, lag_s if is_busy else 0.0, in_flight)

    def take_rules(self, rules: ShedRules, now: float) -> None:
        """Whether it sheds, and at what rate, is kept."""
        if problems := rules.problems():
            raise ValueError("; ".join(problems))
        self._rules = rules
        self._caps = [math.ceil(rules.max_in_flight * share - 1e-9) for share in rules.shares]
        self._free_below = 0 if self.is_shedding else self._caps[-1]
        self._full = Rejected("shed", "in_flight", rules.retry_after_s)
        self._turned_away = Rejected("shed", "overload", rules.retry_after_s)

    def snapshot(self, now: float) -> ShedSnapshot:
        return ShedSnapshot(
            self.is_shedding,
            self._rate,
            self._lag_s,
            self._queue_s,
            tuple(self._shares),
            tuple(self._rejected),
            self._since,
        )

    def _judge(self, priority: int, now: float, in_flight: int) -> Rejected | None:
        if in_flight >= self._caps[priority]:
            self._rejected[priority] += 1
            return self._full
        rate = self._rate
        if rate is None:
            return None
        tokens = self._tokens + (now - self._tokens_at) * rate
        self._tokens_at = now
        if tokens > self._depth:  # noqa: PLR1730 - min() takes several times as long
            tokens = self._depth
        # Not drawn but dealt: of any hundred, exactly the share.
        due = self._due[priority] + self._shares[priority]
        if due < 1.0 or tokens - 1.0 < _FLOORS[priority] * self._depth:
            self._due[priority] = min(due, 1.0)
            self._tokens = tokens
            self._rejected[priority] += 1
            return self._turned_away
        self._due[priority] = due - 1.0
        self._tokens = tokens - 1.0
        return None

    def _sample(self, now: float, lag_s: float, in_flight: int) -> None:
        elapsed_s = now - self._sample_at
        if elapsed_s <= 0.0:
            return
        self._low_lag_s = min(self._low_lag_s, lag_s)
        self._taken += sum(self._seen)
        if now - self._interval_start >= self._rules.interval_s:
            self._decide(now, in_flight)
            self._low_lag_s = lag_s  # the sample belongs to the next interval as well
        if self._rate is not None:
            self._share_out(max(elapsed_s / 10, elapsed_s + self._last_lag_s - lag_s))
        self._last_lag_s = lag_s
        for at in range(len(PRIORITIES)):
            self._seen[at] = 0
        self._sample_at = now

    def _decide(self, now: float, in_flight: int) -> None:
        """The interval is over: set the rate anew."""
        rules = self._rules
        elapsed_s = now - self._interval_start
        self._lag_s = self._low_lag_s
        self._queue_s = 0.0 if self._low_queue_s == math.inf else self._low_queue_s
        rejected = sum(self._rejected) - self._rejected_before
        admitted = self._taken - rejected
        finished = max(0, admitted - (in_flight - self._in_flight_before))
        self._peak_per_s = max(finished / elapsed_s, self._peak_per_s * _FADING)
        late = self._lag_s / rules.lag_target_s
        long = self._queue_s / rules.queue_target_s
        if long > max(1.0, late):
            excess_s = self._queue_s - rules.queue_target_s
            self._hold_back(finished / elapsed_s, min(_DRAIN_QUEUE, excess_s / rules.drain_s), now)
        elif late > 1.0:
            # Calls that take long are admitted well before they finish, so at the beginning of an
            # overload few have: half of what the loop managed to take in is a lower bound.
            worked = max(finished, admitted / 2)
            excess_s = self._lag_s - rules.lag_target_s
            self._hold_back(worked / elapsed_s, min(_DRAIN_LOOP, excess_s / rules.drain_s), now)
            self._rate = max(self._rate or 0.0, self._peak_per_s * _PEAK_PART)
        elif self.is_shedding and max(late, long) < 0.5:
            self._let_go(elapsed_s, rejected, now)
        self._interval_start = now
        self._low_queue_s = math.inf
        self._rejected_before += rejected
        self._taken = 0
        self._in_flight_before = in_flight

    def _hold_back(self, finished_per_s: float, drain: float, now: float) -> None:
        """Admit what is finished, less the share `drain` of it to work off what has piled up."""
        if self._rate is None:
            self._since = now
            self._free_below = 0
            self._tokens = 0.0
            self._tokens_at = now
            self._memory_s = 0.0
            self._finished_per_s = finished_per_s
        else:
            self._finished_per_s += 0.15 * (finished_per_s - self._finished_per_s)
        self._calm_s = 0.0
        self._calm_intervals = 0
        rate = self._finished_per_s * _HEADROOM * (1.0 - drain)
        self._rate = max(self._rules.least_per_s, rate)

    def _let_go(self, elapsed_s: float, rejected: int, now: float) -> None:
        self._calm_s = 0.0 if rejected else self._calm_s + elapsed_s
        if not rejected and self._calm_s >= self._rules.calm_s:
            self._rate = None
            self._since = now
            self._free_below = self._caps[-1]
            self._shares = [1.0] * len(PRIORITIES)
            return
        rate = self._rate or 0.0
        finished_per_s = self._finished_per_s
        self._calm_intervals += 1
        if rate < finished_per_s:
            self._rate = min(rate * _GROWTH, finished_per_s)
        else:
            self._rate = rate * (1.0 + _GROWTH_BEYOND * self._calm_intervals)

    def _share_out(self, elapsed_s: float) -> None:
        """Fill the rate with what the priorities ask for, the most important first."""
        left = self._rate or 0.0
        self._depth = max(_BUCKET_MIN, left * _BUCKET_S)
        weight = elapsed_s / (elapsed_s + self._memory_s)
        self._memory_s = _MEMORY_S
        for at, seen in enumerate(self._seen):
            asked = self._asked_per_s[at]
            asked += weight * (seen / elapsed_s - asked)
            self._asked_per_s[at] = asked
            self._shares[at] = 1.0 if asked < left else left / asked if asked else 0.0
            left = max(0.0, left - asked)
