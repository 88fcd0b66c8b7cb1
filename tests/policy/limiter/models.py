"""The limiters once more, as naive as can be: exact fractions, whole histories, no tricks."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from math import floor

from headgate.policy.limiter import LimitRules

NEVER = None


@dataclass
class Answer:
    allowed: bool
    remaining: int
    reset: Fraction
    retry: Fraction | None


class Model:
    """One key."""

    def __init__(self, rules: LimitRules):
        self.limit = rules.limit
        self.capacity = rules.capacity
        self.period = Fraction(rules.period_s)

    def peek(self, now: Fraction, cost: int) -> Answer:
        raise NotImplementedError

    def charge(self, cost: int, now: Fraction) -> None:
        raise NotImplementedError

    def refund(self, cost: int, now: Fraction) -> None:
        raise NotImplementedError

    def hit(self, now: Fraction, cost: int) -> Answer:
        answer = self.peek(now, cost)
        if answer.allowed and cost:
            self.charge(cost, now)
            after = self.peek(now, 0)
            return Answer(True, after.remaining, after.reset, Fraction(0))
        return answer


class Bucket(Model):
    """GCRA and the token bucket: what was used leaks out at an even rate."""

    def __init__(self, rules):
        super().__init__(rules)
        self.rate = self.limit / self.period
        self.used = Fraction(0)
        self.at = Fraction(0)

    def leak(self, now):
        self.used = max(Fraction(0), self.used - (now - self.at) * self.rate)
        self.at = now

    def peek(self, now, cost):
        self.leak(now)
        over = self.used + cost - self.capacity
        allowed = not cost or over <= 0
        retry = Fraction(0) if allowed else NEVER if cost > self.capacity else over / self.rate
        left = max(0, floor(self.capacity - self.used))
        return Answer(allowed, left, self.used / self.rate, retry)

    def charge(self, cost, now):
        self.leak(now)
        self.used = min(self.used + cost, max(self.used, Fraction(2 * self.capacity)))

    def refund(self, cost, now):
        self.leak(now)
        self.used = max(Fraction(0), self.used - cost)


@dataclass
class Windows(Model):
    """All counts of all windows."""

    rules: LimitRules
    counts: dict[int, int] = field(default_factory=dict)

    def __post_init__(self):
        Model.__init__(self, self.rules)

    def charge(self, cost, now):
        window = floor(now / self.period)
        used = self.counts.get(window, 0)
        self.counts[window] = min(used + cost, max(used, 2 * self.limit))

    def refund(self, cost, now):
        window = floor(now / self.period)
        self.counts[window] = max(0, self.counts.get(window, 0) - cost)


class Fixed(Windows):
    def peek(self, now, cost):
        window = floor(now / self.period)
        used = self.counts.get(window, 0)
        end = (window + 1) * self.period - now
        allowed = not cost or used + cost <= self.limit
        retry = Fraction(0) if allowed else NEVER if cost > self.limit else end
        return Answer(allowed, max(0, self.limit - used), end if used else Fraction(0), retry)


class Sliding(Windows):
    def weight(self, now):
        window = floor(now / self.period)
        part = (window + 1) - now / self.period
        return self.counts.get(window, 0) + self.counts.get(window - 1, 0) * part

    def peek(self, now, cost):
        window = floor(now / self.period)
        used, last = self.counts.get(window, 0), self.counts.get(window - 1, 0)
        end = (window + 1) * self.period
        weight = self.weight(now)
        allowed = not cost or weight + cost <= self.limit
        reset = end + self.period - now if used else end - now if last else Fraction(0)
        retry: Fraction | None = Fraction(0)
        if not allowed:
            retry = NEVER if cost > self.limit else self.solve(now, cost)
        return Answer(allowed, max(0, floor(self.limit - weight)), reset, retry)

    def solve(self, now, cost):
        """The weight falls in straight lines with a bend at each edge: look at both lines."""
        window = floor(now / self.period)
        for begin, end in (
            (now, (window + 1) * self.period),
            ((window + 1) * self.period, (window + 2) * self.period),
        ):
            number = floor(begin / self.period)
            last, used = self.counts.get(number - 1, 0), self.counts.get(number, 0)
            room = self.limit - cost - used
            if last == 0:
                if room >= 0:
                    return begin - now
            elif room >= 0:
                at = (number + 1) * self.period - room * self.period / last
                if at < end:
                    return max(at, begin) - now
        return (window + 2) * self.period - now


class Log(Model):
    def __init__(self, rules):
        super().__init__(rules)
        self.times: list[Fraction] = []

    def live(self, now):
        return [at for at in self.times if at > now - self.period]

    def peek(self, now, cost):
        live = self.live(now)
        used = len(live)
        allowed = not cost or used + cost <= self.limit
        reset = live[-1] + self.period - now if live else Fraction(0)
        retry: Fraction | None = Fraction(0)
        if not allowed:
            retry = NEVER
            if cost <= self.limit:
                retry = live[used + cost - self.limit - 1] + self.period - now
        return Answer(allowed, max(0, self.limit - used), reset, retry)

    def charge(self, cost, now):
        live = self.live(now)
        self.times = live + [now] * min(cost, 2 * self.limit - len(live))

    def refund(self, cost, now):
        live = self.live(now)
        self.times = live[: max(0, len(live) - cost)]


class Seats(Model):
    used = 0

    def peek(self, now, cost):
        allowed = not cost or self.used + cost <= self.limit
        guess = self.period
        retry = Fraction(0) if allowed else NEVER if cost > self.limit else guess
        left = max(0, self.limit - self.used)
        return Answer(allowed, left, guess if self.used else Fraction(0), retry)

    def charge(self, cost, now):
        self.used = min(self.used + cost, max(self.used, 2 * self.limit))

    def refund(self, cost, now):
        self.used = max(0, self.used - cost)


MODELS = {
    "gcra": Bucket,
    "token_bucket": Bucket,
    "fixed_window": Fixed,
    "sliding_window": Sliding,
    "sliding_log": Log,
    "concurrency": Seats,
}
