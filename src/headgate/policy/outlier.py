"""Outlier ejection: an instance that does worse than it should is left out for a while.

Theory of operation
-------------------
Real traffic is the check. Three things eject, each of which may be off:

    errors in a row    judged at the error
    failure rate       judged at the end of an interval, with `minimum_requests` in the window
    latency            likewise: the mean of its successes is over `latency_floor_s` and more than
                       `latency_factor` times the median of its peers' means

Failures do not enter the mean, or an instance that fails at once would look like the fastest. A
window of the failure rate begins with an interval; while it lacks `minimum_requests` it goes on
over `_CARRIED` intervals, so that an instance with little traffic is judged too, if later.
Latencies are never carried over: instances are compared in the same moments only, since
everybody slows down together when a database does.

An ejection lasts `eject_s` times its number in a row, up to `eject_max_s`. The number falls by
one for every `eject_s` spent in, so after at most `eject_max_s` of good time the first one is
short again. Time alone brings back (`sweep`); every ejection has its end when it begins.

Only results of attempts that began while the instance was in, since it last came in, are
counted. What was sent before an ejection may end long after it, even after the return; it
neither prolongs the one nor causes the next. `_Member.fresh_from` holds the rule in one number:
the moment it came in, or infinity while it is out.

At most the share `max_ejected` is out at a time, rounded down, but one may be out wherever there
are two. Where the room does not suffice the worst are taken, and the others are counted as
`spared`; they are judged again at their next error or interval.

What an editor must not break: `record` of a success is a look-up and three assignments; nothing
but `sweep` at an interval's end looks at all members; `_out` holds exactly those who are out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from headgate.policy.in_words import span

__all__ = [
    "Ejected",
    "Outlier",
    "OutlierMember",
    "OutlierRules",
    "OutlierSnapshot",
    "Restored",
]

_CARRIED: Final = 6
"""How many intervals a window that lacks requests is carried on: one minute by default."""
_ROUNDING: Final = 1e-9
"""0.29 of 100 is a little less than 29 in binary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlierRules:
    """When an instance is ejected, for how long, and how many may be."""

    consecutive_errors: int | None = 5
    """None: errors in a row do not eject."""
    failure_rate: float | None = None
    """Share of failed requests in the window. None: not judged."""
    minimum_requests: int = 20
    """With fewer, neither rate nor latency is judged."""
    latency_factor: float | None = None
    """Times the median of the peers. None: not judged."""
    latency_floor_s: float = 0.1
    """A mean up to this is never too slow, whatever the peers do: 3 ms beside 1 ms is noise."""
    interval_s: float = 10.0
    eject_s: float = 30.0
    """The first ejection; the n-th in a row lasts n times as long."""
    eject_max_s: float = 300.0
    max_ejected: float = 0.5

    def most(self, members: int) -> int:
        """How many of so many instances may be out at a time."""
        if members < 2 or self.max_ejected <= 0.0:
            return 0
        return min(members, max(1, math.floor(members * self.max_ejected + _ROUNDING)))

    def problems(self) -> tuple[str, ...]:
        return tuple(self._find_problems())

    def _find_problems(self) -> Iterator[str]:
        if self.consecutive_errors is not None and self.consecutive_errors < 1:
            yield f"consecutive_errors={self.consecutive_errors} must be at least 1"
        if self.failure_rate is not None and not 0.0 < self.failure_rate <= 1.0:
            yield f"failure_rate={self.failure_rate:g} must be over 0 and at most 1 (100%)"
        if self.minimum_requests < 1:
            yield f"minimum_requests={self.minimum_requests} must be at least 1"
        if self.latency_factor is not None and not 1.0 < self.latency_factor < math.inf:
            yield (
                f"latency_factor={self.latency_factor:g} must be over 1: at 1 half of all "
                "instances are outliers at any time"
            )
        if not 0.0 <= self.latency_floor_s < math.inf:
            yield f"latency_floor_s={self.latency_floor_s:g} must not be negative"
        for name, seconds in (("interval_s", self.interval_s), ("eject_s", self.eject_s)):
            if not 0.0 < seconds < math.inf:
                yield f"{name}={seconds:g} must be over 0"
        if not self.eject_s <= self.eject_max_s < math.inf:
            yield f"eject_max_s={self.eject_max_s:g} is less than eject_s={self.eject_s:g}"
        if not 0.0 < self.max_ejected <= 1.0:
            yield f"max_ejected={self.max_ejected:g} must be over 0 and at most 1 (100%)"
        if (self.consecutive_errors, self.failure_rate, self.latency_factor) == (None, None, None):
            yield "neither errors, failure_rate nor latency is set: nothing is ever ejected"


@dataclass(frozen=True, slots=True)
class Ejected:
    id: str
    at: float
    until: float
    times: int
    """Its number in a row: 1 for the first."""
    why: str


@dataclass(frozen=True, slots=True)
class Restored:
    id: str
    at: float
    why: str


@dataclass(frozen=True, slots=True)
class OutlierMember:
    id: str
    is_ejected: bool
    why: str
    """Why it is out; for one that is in, why it was out last."""
    out_for_s: float
    back_in_s: float
    times: int
    """Ejections in a row, less what good time has taken off."""
    in_a_row: int
    requests: int
    """In the window of the failure rate, up to now."""
    failed: int
    mean_s: float
    """Of successes in this interval."""
    spared: int
    """How often it would have been ejected, had not enough others been out already."""
    is_spared: bool
    """Its errors in a row would have it out now."""

    @property
    def in_words(self) -> str:
        """For an operator: "out since 12 s: 5 errors in a row (connect), back in 18 s"."""
        if self.is_ejected:
            return f"out since {span(self.out_for_s)}: {self.why}, back in {span(self.back_in_s)}"
        if self.is_spared:
            return f"in after {self.in_a_row} errors in a row: no more instances may be out"
        if not self.requests:
            return "in, nothing counted lately"
        return f"in, {self.failed} of {self.requests} requests failed lately"


@dataclass(frozen=True, slots=True)
class OutlierSnapshot:
    ejected: int
    most: int
    """How many may be out."""
    members: tuple[OutlierMember, ...]


class _Member:
    __slots__ = (
        "carried",
        "failed",
        "fresh_from",
        "id",
        "in_a_row",
        "is_mixed",
        "kind",
        "out_since",
        "requests",
        "seconds",
        "spared",
        "times",
        "until",
        "why",
        "window_failed",
        "window_requests",
    )

    def __init__(self, member_id: str, fresh_from: float) -> None:
        self.id = member_id
        self.fresh_from = fresh_from
        self.in_a_row = 0
        self.kind = ""
        self.is_mixed = False
        # of this interval
        self.requests = 0
        self.failed = 0
        self.seconds = 0.0
        # of earlier intervals, while the window lacks requests
        self.window_requests = 0
        self.window_failed = 0
        self.carried = 0
        # of ejections
        self.times = 0
        self.out_since = 0.0
        self.until = 0.0
        self.why = ""
        self.spared = 0

    def forget(self) -> None:
        """Begin to count anew."""
        self.in_a_row = self.requests = self.failed = 0
        self.seconds = 0.0
        self.window_requests = self.window_failed = self.carried = 0

    def mean_s(self) -> float:
        succeeded = self.requests - self.failed
        return self.seconds / succeeded if succeeded else 0.0


class Outlier:
    """The instances of one service."""

    __slots__ = ("_interval_end", "_members", "_most", "_out", "_rules")

    def __init__(self, rules: OutlierRules, ids: Iterable[str], now: float) -> None:
        self._rules = rules
        self._members = {each: _Member(each, -math.inf) for each in ids}
        self._out: dict[str, _Member] = {}
        self._most = rules.most(len(self._members))
        self._interval_end = now + rules.interval_s

    def record(
        self, member_id: str, failed: bool, took_s: float, now: float, kind: str = ""
    ) -> Ejected | None:
        """Count an attempt that has ended; `kind` names its failure: "connect", "status 503"."""
        member = self._members.get(member_id)
        if member is None or now - took_s < member.fresh_from:
            return None
        member.requests += 1
        if not failed:
            member.seconds += took_s
            member.in_a_row = 0
            return None
        member.failed += 1
        if not member.in_a_row:
            member.is_mixed = False
        elif kind != member.kind:
            member.is_mixed = True
        member.kind = kind
        member.in_a_row += 1
        most = self._rules.consecutive_errors
        if most is None or member.in_a_row < most:
            return None
        return self._eject(member, self._say_errors(member), now)

    def sweep(self, now: float) -> list[Restored | Ejected]:
        """Bring back those whose time is over and, at its end, judge the interval.

        Call it about every 250 ms, also without any traffic.
        """
        news: list[Restored | Ejected] = []
        if self._out:
            over = [member for member in self._out.values() if member.until <= now]
            news.extend(self._bring_back(member, "its time was over", now) for member in over)
        if now >= self._interval_end:
            self._interval_end = now + self._rules.interval_s
            news.extend(self._judge(now))
        return news

    def is_ejected(self, member_id: str) -> bool:
        return member_id in self._out

    def eject(self, member_id: str, for_s: float, why: str, now: float) -> Ejected | None:
        """Leave one out on somebody else's word, such as another worker's.

        It is not counted as one of ours in a row. None: unknown, out already, or no room.
        """
        member = self._members.get(member_id)
        if member is None or member_id in self._out:
            return None
        return self._eject(member, why, now, min(for_s, self._rules.eject_max_s))

    def restore(self, member_id: str, why: str, now: float) -> Restored | None:
        """Bring one back before its time. None: it is not out."""
        member = self._out.get(member_id)
        return self._bring_back(member, why, now) if member is not None else None

    def update(self, ids: Iterable[str], now: float) -> list[Restored | Ejected]:
        """Take the instances of a reload; those that stay keep counts and ejections.

        When so few stay that too many would be out, those nearest to their end come back.
        """
        before = self._members
        self._members = {each: before.get(each) or _Member(each, now) for each in ids}
        for gone in self._out.keys() - self._members.keys():
            del self._out[gone]
        return self._fit(now)

    def take_rules(self, rules: OutlierRules, now: float) -> list[Restored | Ejected]:
        """Keep counts and ejections; these end within the new `eject_max_s`.

        What is counted is judged by the new rules from the next error or interval on.
        """
        self._rules = rules
        self._interval_end = min(self._interval_end, now + rules.interval_s)
        for member in self._out.values():
            member.until = min(member.until, now + rules.eject_max_s)
        return self._fit(now)

    def snapshot(self, now: float) -> OutlierSnapshot:
        return OutlierSnapshot(
            len(self._out),
            self._most,
            tuple(self._show(member, now) for member in self._members.values()),
        )

    # -- inside --------------------------------------------------------------------------------

    def _eject(
        self, member: _Member, why: str, now: float, for_s: float | None = None
    ) -> Ejected | None:
        if len(self._out) >= self._most:
            member.spared += 1
            return None
        rules = self._rules
        times = self._times(member, now)
        if for_s is None:
            times = min(times + 1, math.ceil(rules.eject_max_s / rules.eject_s))
            for_s = min(times * rules.eject_s, rules.eject_max_s)
        member.times = times
        member.why = why
        member.out_since = now
        member.until = now + for_s
        member.fresh_from = math.inf
        self._out[member.id] = member
        return Ejected(member.id, now, member.until, times, why)

    def _bring_back(self, member: _Member, why: str, now: float) -> Restored:
        del self._out[member.id]
        member.forget()
        member.fresh_from = now
        return Restored(member.id, now, why)

    def _fit(self, now: float) -> list[Restored | Ejected]:
        self._most = self._rules.most(len(self._members))
        surplus = len(self._out) - self._most
        if surplus <= 0:
            return []
        nearest = sorted(self._out.values(), key=lambda member: member.until)[:surplus]
        return [self._bring_back(member, "too few instances are left", now) for member in nearest]

    def _times(self, member: _Member, now: float) -> int:
        """Ejections in a row, of which good time takes off one after the other."""
        if not member.times or member.fresh_from == math.inf:
            return member.times
        return max(0, member.times - int((now - member.fresh_from) / self._rules.eject_s))

    def _judge(self, now: float) -> list[Ejected]:
        """Judge all members at the end of an interval, and begin the next."""
        found: list[tuple[float, _Member, str]] = []
        """How bad, who, why. Rates sort before latencies: failing is worse than being slow."""
        rules = self._rules
        inside = [member for member in self._members.values() if member.id not in self._out]
        if rules.failure_rate is not None:
            for member in inside:
                requests = member.window_requests + member.requests
                failed = member.window_failed + member.failed
                if requests >= rules.minimum_requests and failed >= (
                    rules.failure_rate * requests - _ROUNDING
                ):
                    why = f"{failed} of {requests} requests failed ({failed / requests:.0%})"
                    found.append((failed / requests, member, why))
        if rules.latency_factor is not None:
            bad = {member.id for _, member, _ in found}
            for ratio, member, why in self._slow(inside, rules.latency_factor):
                if member.id not in bad:
                    found.append((-1.0 / ratio, member, why))
        for member in inside:
            self._roll(member)
        found.sort(key=lambda each: -each[0])
        ejected = (self._eject(member, why, now) for _, member, why in found)
        return [each for each in ejected if each is not None]

    def _roll(self, member: _Member) -> None:
        """End its interval; the window goes on if it has too few requests to be judged."""
        requests = member.window_requests + member.requests
        member.carried += 1
        if requests >= self._rules.minimum_requests or member.carried >= _CARRIED:
            member.window_requests = member.window_failed = member.carried = 0
        else:
            member.window_requests = requests
            member.window_failed += member.failed
        member.requests = member.failed = 0
        member.seconds = 0.0

    def _slow(self, inside: list[_Member], factor: float) -> Iterator[tuple[float, _Member, str]]:
        """Find those whose mean is `factor` times the median of the others'."""
        least = self._rules.minimum_requests
        judged = [member for member in inside if member.requests - member.failed >= least]
        judged.sort(key=_Member.mean_s)
        means = [member.mean_s() for member in judged]
        peers = len(judged) - 1
        if peers < 1:
            return
        for place, member in enumerate(judged):
            mean_s = means[place]
            if mean_s <= self._rules.latency_floor_s:
                continue
            # The two in the middle of the sorted means without this one; the same if odd.
            low, high = (peers - 1) // 2, peers // 2
            median_s = (means[low + (low >= place)] + means[high + (high >= place)]) / 2.0
            if mean_s > factor * median_s:
                times = f"{mean_s / median_s:.1f} times" if median_s > 0.0 else "far over"
                why = f"{_ms(mean_s)} on average, {times} the {_ms(median_s)} of its peers"
                yield mean_s / max(median_s, _ROUNDING), member, why

    def _say_errors(self, member: _Member) -> str:
        text = "1 error" if member.in_a_row == 1 else f"{member.in_a_row} errors in a row"
        if not member.kind:
            return text
        return f"{text} ({'the last: ' if member.is_mixed else ''}{member.kind})"

    def _show(self, member: _Member, now: float) -> OutlierMember:
        is_ejected = member.id in self._out
        most = self._rules.consecutive_errors
        return OutlierMember(
            id=member.id,
            is_ejected=is_ejected,
            why=member.why,
            out_for_s=now - member.out_since if is_ejected else 0.0,
            back_in_s=max(0.0, member.until - now) if is_ejected else 0.0,
            times=self._times(member, now),
            in_a_row=member.in_a_row,
            requests=member.window_requests + member.requests,
            failed=member.window_failed + member.failed,
            mean_s=member.mean_s(),
            spared=member.spared,
            is_spared=not is_ejected and most is not None and member.in_a_row >= most,
        )


def _ms(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1.0 else f"{seconds * 1000:.0f} ms"
