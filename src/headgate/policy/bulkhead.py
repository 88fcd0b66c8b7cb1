"""A bound on how many calls are under way at once, with a bounded line before it.

Theory of operation. `enter` gives a `Seat`, a `Queued` ticket, or says no. Every seat ends in
exactly one `leave`; every ticket in line ends in exactly one of being admitted (it is in what
`leave`, `set_limit` and the like return, with its seat), `expire`, eviction, or `forget`. Seats
name the generation that issued them: one given twice, or from before a `reset`, is counted as
late and changes nothing.

Priorities run from 0, critical, to 4, background (`shed.PRIORITIES`). Each may fill its share of
the limit, so a part can be kept free for what matters. The line is ordered by priority, then by
arrival. When it is full, a newcomer takes the place of the newest of the least important, if that
one is less important than itself; the one evicted is named in the newcomer's ticket. Under
constant load from above the least important time out: that is what priorities mean.

The invariant is that nobody in line could be let in: whatever frees a seat or raises the limit
lets in whom it can, in order. A newcomer that finds room therefore passes nobody who is as
important. Shrinking the limit below what is under way takes nothing away; it lets nobody in until
enough have left. A ticket past its time may still be admitted until `expire` has collected it.

The lines are ordered dicts: entering, leaving, forgetting and evicting take constant time.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from headgate.policy.adaptive import AdaptiveLimit, Outcome
from headgate.policy.answers import Rejected

__all__ = ["Bulkhead", "BulkheadRules", "BulkheadSnapshot", "Queued", "Seat"]

_PRIORITIES = 5
_NORMAL = 2
_LEFT = -1  # the generation of a seat that has been given back


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkheadRules:
    limit: int = 100
    queue: int = 0
    """Places in line; with none, what finds no seat is rejected at once."""
    queue_timeout_s: float = 1.0
    shares: tuple[float, ...] = (1.0,) * _PRIORITIES
    """For each priority, critical first, how much of the limit may be taken when it enters."""

    def problems(self) -> tuple[str, ...]:
        return tuple(self._problems())

    def _problems(self) -> Iterator[str]:
        if self.limit < 1:
            yield f"limit={self.limit} would let nothing through"
        if self.queue < 0:
            yield f"queue={self.queue} must not be negative"
        if self.queue and not (self.queue_timeout_s > 0.0 and math.isfinite(self.queue_timeout_s)):
            yield f"queue_timeout_s={self.queue_timeout_s:g}: nobody could stand in line"
        if len(self.shares) != _PRIORITIES:
            yield f"shares names {len(self.shares)} priorities; there are {_PRIORITIES}"
        elif not all(0.0 < share <= 1.0 for share in self.shares):
            yield f"shares {self.shares} must be above 0 and at most 1"
        elif list(self.shares) != sorted(self.shares, reverse=True):
            yield f"shares {self.shares} give a lower priority more than a higher one"


class Seat:
    """The right to be under way."""

    __slots__ = ("at", "generation", "in_flight")

    def __init__(self, generation: int, at: float, in_flight: int) -> None:
        self.generation = generation
        self.at = at
        self.in_flight = in_flight
        """What was under way when this one was let in, itself included."""


class Queued:
    """A place in line."""

    __slots__ = ("at", "evicted", "priority", "rejected", "seat", "until", "who")

    def __init__(self, who: object, priority: int, at: float, until: float) -> None:
        self.who = who
        self.priority = priority
        self.at = at
        self.until = until
        self.seat: Seat | None = None
        """Set once it has been admitted."""
        self.rejected: Rejected | None = None
        """Set once it has been evicted or its time is up."""
        self.evicted: Queued | None = None
        """Who has lost its place to this one: its `who` is to be told its `rejected`."""


@dataclass(frozen=True, slots=True)
class BulkheadSnapshot:
    name: str
    limit: int
    in_flight: int
    queue: int
    waiting: int
    admitted: int
    queued: int
    rejected: int
    evicted: int
    timed_out: int
    late: int
    """Seats given back twice, or from before a reset: a fault of whoever holds them."""
    mean_s: float


class Bulkhead:
    __slots__ = (
        "_adaptive",
        "_admitted",
        "_caps",
        "_evicted",
        "_generation",
        "_late",
        "_limit",
        "_lines",
        "_mean_s",
        "_queued",
        "_rejected",
        "_rules",
        "_timed_out",
        "in_flight",
        "name",
        "waiting",
    )

    def __init__(
        self, name: str, rules: BulkheadRules, now: float, adaptive: AdaptiveLimit | None = None
    ) -> None:
        """With `adaptive` its limit is in force, and `leave` tells it of every call."""
        self.name = name
        self._rules = _sound(rules)
        self._adaptive = adaptive
        self._generation = 0
        self.in_flight = 0
        self.waiting = 0
        self._lines: tuple[OrderedDict[Queued, None], ...] = tuple(
            OrderedDict() for _ in range(_PRIORITIES)
        )
        self._mean_s = 0.0
        self._admitted = self._queued = self._rejected = 0
        self._evicted = self._timed_out = self._late = 0
        self._limit = 0
        self._caps: list[int] = []
        self._resize(rules.limit if adaptive is None else adaptive.limit)

    @property
    def limit(self) -> int:
        return self._limit

    def enter(self, now: float, who: object, priority: int = _NORMAL) -> Seat | Queued | Rejected:
        """`who` is handed back in the ticket when its turn has come."""
        in_flight = self.in_flight
        if in_flight < self._caps[priority]:
            self.in_flight = in_flight = in_flight + 1
            self._admitted += 1
            return Seat(self._generation, now, in_flight)
        return self._line_up(now, who, priority)

    def leave(
        self, seat: Seat, now: float, took_s: float | None = None, outcome: Outcome = "ok"
    ) -> tuple[Queued, ...]:
        """Give a seat back; those who have got one by that, with their seats.

        `took_s` is from the seat on, and worked out from `now` where it is not given.
        """
        if seat.generation != self._generation:
            self._late += 1
            return ()
        seat.generation = _LEFT
        self.in_flight -= 1
        if outcome != "ignored":
            if took_s is None:
                took_s = now - seat.at
            mean_s = self._mean_s
            self._mean_s = mean_s + (took_s - mean_s) * 0.05 if mean_s else took_s
            if self._adaptive is not None:
                limit = self._adaptive.record(took_s, seat.in_flight, outcome, now)
                if limit is not None:
                    self._resize(limit)
        return self._let_in(now) if self.waiting else ()

    def forget(self, queued: Queued, now: float) -> tuple[Queued, ...]:
        """Whoever waited has gone. If it has just been admitted, its seat goes to the next."""
        if queued.seat is not None:
            return self.leave(queued.seat, now, outcome="ignored")
        if self._lines[queued.priority].pop(queued, _NOBODY) is None:
            self.waiting -= 1
        return ()

    def expire(self, now: float) -> tuple[Queued, ...]:
        """Those whose time in line is up, each with its `rejected`."""
        if not self.waiting:
            return ()
        over: list[Queued] = []
        for line in self._lines:
            while line and (queued := next(iter(line))).until <= now:
                del line[queued]
                self.waiting -= 1
                self._timed_out += 1
                queued.rejected = self._rejection("queue_timeout")
                over.append(queued)
        return tuple(over)

    def set_limit(self, limit: int, now: float) -> tuple[Queued, ...]:
        """Move the limit; those who are let in by that."""
        if limit < 1:
            raise ValueError(f"bulkhead {self.name}: limit={limit} would let nothing through")
        self._resize(limit)
        return self._let_in(now)

    def reset(self, now: float) -> tuple[Queued, ...]:
        """Take all seats for empty, as when their holders are known to be lost."""
        self._generation += 1
        self.in_flight = 0
        return self._let_in(now)

    def take_rules(self, rules: BulkheadRules, now: float) -> tuple[Queued, ...]:
        """Seats, the line and what is known of durations are kept; an adaptive limit stays.

        Times in line are counted anew from each arrival. Returned are those who are let in, with
        their seat, and those for whom a shorter line has no place, with their `rejected`.
        """
        self._rules = _sound(rules)
        for line in self._lines:
            for queued in line:
                queued.until = queued.at + rules.queue_timeout_s
        self._resize(rules.limit if self._adaptive is None else self._adaptive.limit)
        settled = list(self._let_in(now))
        while self.waiting > rules.queue:
            settled.append(self._evict())
        return tuple(settled)

    def snapshot(self, now: float) -> BulkheadSnapshot:
        return BulkheadSnapshot(
            self.name,
            self._limit,
            self.in_flight,
            self._rules.queue,
            self.waiting,
            self._admitted,
            self._queued,
            self._rejected,
            self._evicted,
            self._timed_out,
            self._late,
            self._mean_s,
        )

    def _line_up(self, now: float, who: object, priority: int) -> Queued | Rejected:
        rules = self._rules
        evicted: Queued | None = None
        if self.waiting >= rules.queue:
            if not rules.queue:
                self._rejected += 1
                return self._rejection("full")
            if not any(self._lines[priority + 1 :]):
                self._rejected += 1
                return self._rejection("queue_full")
            evicted = self._evict()
        queued = Queued(who, priority, now, now + rules.queue_timeout_s)
        queued.evicted = evicted
        self._lines[priority][queued] = None
        self.waiting += 1
        self._queued += 1
        return queued

    def _evict(self) -> Queued:
        """Send away the newest of the least important: it has waited the least for nothing."""
        line = next(line for line in reversed(self._lines) if line)
        queued, _ = line.popitem()
        self.waiting -= 1
        self._evicted += 1
        queued.rejected = self._rejection("evicted")
        return queued

    def _let_in(self, now: float) -> tuple[Queued, ...]:
        if not self.waiting:
            return ()
        admitted: list[Queued] = []
        for line, cap in zip(self._lines, self._caps, strict=True):
            while line and self.in_flight < cap:
                queued, _ = line.popitem(last=False)
                self.waiting -= 1
                self.in_flight += 1
                self._admitted += 1
                queued.seat = Seat(self._generation, now, self.in_flight)
                admitted.append(queued)
        return tuple(admitted)

    def _resize(self, limit: int) -> None:
        self._limit = limit
        self._caps = [math.ceil(limit * share - 1e-9) for share in self._rules.shares]

    def _rejection(self, reason: str) -> Rejected:
        """With the time in which the line as it stands will have been served."""
        wait_s = self._mean_s * (self.waiting + 1) / self._limit
        return Rejected("concurrency", reason, wait_s)


_NOBODY = object()


def _sound(rules: BulkheadRules) -> BulkheadRules:
    if problems := rules.problems():
        raise ValueError("; ".join(problems))
    return rules
