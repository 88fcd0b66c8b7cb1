"""How far what passed is from what one limiter would let pass: the arithmetic, without processes.

Theory of operation
-------------------
Of each request it is known when it was sent and when its answer was there; the decision fell
somewhere between. `single` is what one limiter, asked at the times of sending, would have let pass.
`excess` is what passed beyond the limiter's own line at the worst moment, and counts only what is
certain: a request belongs to a stretch of time if it was sent and answered within it. So the true
figure may be a little larger, by what was under way at the ends of the stretch, never smaller.

For `gcra` and `token_bucket` the line is `burst + rate x t` for every stretch of t seconds; for
`sliding_log` the limit in every period; for `fixed_window` the limit in each window of the home's
clock; for `sliding_window` the limit in its own count, which weighs the last window and this one.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Sequence
from typing import NamedTuple

from headgate.policy.limiter import make
from headgate.policy.limiter.rules import LimitRules


class Asked(NamedTuple):
    """One request; times by one clock, on which windows begin at multiples of the period."""

    sent: float
    got: float
    passed: bool


def single(asked: Sequence[Asked], rules: LimitRules) -> list[Asked]:
    """The same requests as one limiter would have decided them."""
    limiter = make(rules)
    return [
        Asked(each.sent, each.got, limiter.hit("key", each.sent).allowed) for each in sorted(asked)
    ]


def excess(asked: Sequence[Asked], rules: LimitRules) -> float:
    """How many passed beyond the line at the worst moment, for certain; 0 if none did."""
    passed = sorted(each for each in asked if each.passed)
    if not passed:
        return 0.0
    match rules.algorithm:
        case "gcra" | "token_bucket":
            found = _beyond_rate(passed, rules.limit / rules.period_s) - rules.capacity
        case "sliding_log":
            found = _most_within(passed, rules.period_s) - rules.limit
        case "fixed_window":
            found = max(_by_window(passed, rules.period_s).values(), default=0) - rules.limit
        case "sliding_window":
            found = _most_weighed(passed, rules.period_s) - rules.limit
        case _:
            raise ValueError(f"{rules.algorithm} is counted at the service")
    return max(0.0, found)


def bound(rules: LimitRules, share: float, workers: int) -> float:
    """What `headgate.policy.limiter.lease` promises to stay within, beyond the line."""
    if workers == 1 or rules.algorithm in ("fixed_window", "concurrency"):
        return 0.0
    return workers * int(rules.capacity * share / workers)


def _beyond_rate(passed: Sequence[Asked], rate: float) -> float:
    """The most by which any stretch has more than its seconds times the rate."""
    most = 0.0
    ends: list[float] = []
    # From the last to the first: `ends` is when those that were sent no sooner were answered.
    for each in reversed(passed):
        insort(ends, each.got)
        began = each.sent
        for at, end in enumerate(ends, 1):
            beyond = at - rate * (end - began)
            if beyond > most:  # noqa: PLR1730  millions of times
                most = beyond
    return most


def _most_within(passed: Sequence[Asked], period_s: float) -> int:
    ends: list[float] = []
    most = 0
    for each in reversed(passed):
        insort(ends, each.got)
        most = max(most, bisect_right(ends, each.sent + period_s))
    return most


def _by_window(passed: Sequence[Asked], period_s: float) -> dict[int, int]:
    counts: dict[int, int] = {}
    for each in passed:
        number = int(each.sent // period_s)
        if int(each.got // period_s) == number:
            counts[number] = counts.get(number, 0) + 1
    return counts


def _most_weighed(passed: Sequence[Asked], period_s: float) -> float:
    whole = _by_window(passed, period_s)
    counts: dict[int, int] = {}
    most = 0.0
    for each in sorted(passed, key=lambda one: one.got):
        number = int(each.sent // period_s)
        if int(each.got // period_s) != number:
            continue
        counts[number] = counts.get(number, 0) + 1
        left = (number + 1) * period_s - each.got
        most = max(most, counts[number] + whole.get(number - 1, 0) * left / period_s)
    return most
