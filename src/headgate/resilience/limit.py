"""Rate limits for a service's own calls, or for those it makes.

    @limit("100/min", key="{user_id}")
    async def search(user_id, query): ...

    mails = limit("10/s", "1000/h", name="mails", wait=True)
    mails.hit()                          # RateLimited when used up
    await mails.wait_async()             # or in turn

Theory of operation. The limiters are those of `headgate.policy.limiter`; of several rates a call
is taken from all or from none. Idle keys are swept while others are hit: a share of the hits each
look at more keys than have been added since, so memory follows the keys that count.

Waiting is a line for each key (`line.py`), one for each event loop and one for plain threads.
Whoever would wait longer than `wait`, than the deadline allows, or finds `MOST_WAITING` before it,
gets RateLimited at once.

With `home` the limit is shared with other processes, and the answer is another class: `Shared` and
`SharedLimit` have the theory of that.
"""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeAlias, TypeVar, cast, overload

from headgate.policy.limiter import (
    Algorithm,
    FailMode,
    LeaseRules,
    LimiterSnapshot,
    LimitRules,
    Verdict,
    make,
)
from headgate.policy.limiter.ruleset import Decision, Rule, RuleSet
from headgate.resilience.calls import Errors, is_async, refuse_generators
from headgate.resilience.errors import RateLimited
from headgate.resilience.hop import remaining
from headgate.resilience.keys import Key, KeyOf, key_of
from headgate.resilience.line import MOST_WAITING, Lines
from headgate.resilience.settings import (
    Clock,
    Duration,
    Event,
    OnEvent,
    RateText,
    given,
    rate,
    seconds,
)
from headgate.units import MAX_DURATION_S

if TYPE_CHECKING:
    from headgate.resilience.shared import Shared
    from headgate.resilience.shared_keys import By
    from headgate.resilience.shared_limit import SharedLimit

__all__ = ["MOST_WAITING", "Limit", "limit"]

P = ParamSpec("P")
R = TypeVar("R")

Cost: TypeAlias = int | Callable[..., int]

_SWEEP_EVERY: Final = 1024
_SWEEP_KEYS: Final = 2048  # twice of what may have been added


class Limit:
    """Made by `limit()`."""

    def __init__(
        self,
        name: str,
        *rules: LimitRules,
        key: Key = None,
        cost: Cost = 1,
        wait_s: float | None = None,
        on_event: OnEvent | None = None,
        clock: Clock = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        sleep_async: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        if not rules:
            raise ValueError(f'limit {name}: no rate is given; write limit("10/s")')
        self._seats = any(one.algorithm == "concurrency" for one in rules)
        if self._seats and len(rules) > 1:
            raise ValueError(f"limit {name}: concurrency stands alone; use two limits")
        try:
            limiters = tuple(make(one) for one in rules)
        except ValueError as error:
            raise ValueError(f"limit {name}: {error}") from None
        self.name = name
        self.rules = rules
        self.on_event = on_event
        self._limiters = limiters
        self._first = limiters[0]
        self._set = RuleSet([Rule(name, one) for one in limiters])
        self._hit = self._first.hit if len(rules) == 1 else self._hit_all
        self._key = key
        self._cost = cost
        self._wait_s = wait_s
        self._clock = clock
        self._sleep = sleep
        self._sleep_async = sleep_async
        self._lock = threading.Lock()
        self._until_sweep = _SWEEP_EVERY
        self._lines = Lines(self._too_many)
        self._refused_total = 0

    # ---- one hit

    def try_hit(self, key: Hashable = "", cost: int = 1) -> Verdict:
        """Take it if it is there; the verdict says so, and never raises."""
        now = self._clock()
        lock = self._lock
        lock.acquire()  # `with` takes twice the time
        try:
            self._until_sweep -= 1
            if self._until_sweep <= 0:
                self._sweep(now)
            return self._hit(key, now, cost)
        finally:
            lock.release()

    def hit(self, key: Hashable = "", cost: int = 1) -> Verdict:
        """Take it, or raise RateLimited."""
        now = self._clock()
        lock = self._lock
        lock.acquire()
        try:
            self._until_sweep -= 1
            if self._until_sweep <= 0:
                self._sweep(now)
            verdict = self._hit(key, now, cost)
        finally:
            lock.release()
        if not verdict.allowed:
            raise self._refused(verdict)
        return verdict

    def peek(self, key: Hashable = "", cost: int = 1) -> Verdict:
        """What `try_hit` would answer; takes nothing."""
        now = self._clock()
        with self._lock:
            verdicts = [one.peek(key, now, cost) for one in self._limiters]
        return min(verdicts, key=lambda one: (one.allowed, one.remaining, -one.retry_after_s))

    def refund(self, key: Hashable = "", cost: int = 1) -> None:
        """Undo a hit; for concurrency: leave."""
        now = self._clock()
        with self._lock:
            for one in self._limiters:
                one.refund(key, cost, now)

    def clear(self, key: Hashable = "") -> None:
        """Forget a key, so that it has its whole limit."""
        with self._lock:
            for one in self._limiters:
                one.clear(key)

    def snapshot(self) -> tuple[LimiterSnapshot, ...]:
        """One for each rate."""
        now = self._clock()
        with self._lock:
            return tuple(one.snapshot(now) for one in self._limiters)

    @property
    def refused_total(self) -> int:
        return self._refused_total

    # ---- waiting

    def wait(self, key: Hashable = "", cost: int = 1, most: Duration | None = None) -> Verdict:
        """Take it, if need be later. Blocks the thread."""
        place = (None, key)
        line = self._lines.find(place)
        if line is None:
            verdict = self.try_hit(key, cost)
            if verdict.allowed:
                return verdict
            line = self._lines.join(place, threading.Lock)
        over_at = self._over_at(most)
        try:
            if not line.turn.acquire(timeout=max(0.0, over_at - self._clock())):
                raise self._refused(self.peek(key, cost))
            try:
                while not (verdict := self.try_hit(key, cost)).allowed:
                    self._sleep(self._pause(verdict, over_at))
                return verdict
            finally:
                line.turn.release()
        finally:
            self._lines.leave(place, line)

    async def wait_async(
        self, key: Hashable = "", cost: int = 1, most: Duration | None = None
    ) -> Verdict:
        """Take it, if need be later."""
        place = (asyncio.get_running_loop(), key)
        line = self._lines.find(place)
        if line is None:
            verdict = self.try_hit(key, cost)
            if verdict.allowed:
                return verdict
            line = self._lines.join(place, asyncio.Lock)
        over_at = self._over_at(most)
        try:
            timer = asyncio.timeout(over_at - self._clock())
            try:
                async with timer:
                    await line.turn.acquire()
            except TimeoutError:
                raise self._refused(self.peek(key, cost)) from None
            try:
                while not (verdict := self.try_hit(key, cost)).allowed:
                    await self._sleep_async(self._pause(verdict, over_at))
                return verdict
            finally:
                line.turn.release()
        finally:
            self._lines.leave(place, line)

    # ---- decorating

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate a function, plain or async."""
        refuse_generators(function, "a limit")
        make_key = key_of(self._key, function)
        make_cost = cost_of(self._cost)
        seats = self._seats
        if is_async(function):
            awaited = cast("Callable[P, Awaitable[R]]", function)
            waits = self._wait_s is not None

            @functools.wraps(function)
            async def limited_async(*args: P.args, **kwargs: P.kwargs) -> R:
                key, cost = make_key(args, kwargs), make_cost(args, kwargs)
                if waits:
                    await self.wait_async(key, cost)
                else:
                    self.hit(key, cost)
                if not seats:
                    return await awaited(*args, **kwargs)
                try:
                    return await awaited(*args, **kwargs)
                finally:
                    self.refund(key, cost)

            return cast("Callable[P, R]", limited_async)

        take = self.hit if self._wait_s is None else self.wait
        cost = self._cost
        if isinstance(cost, int) and not seats and self._wait_s is None:
            return self._limited(function, make_key, cost)

        @functools.wraps(function)
        def seated(*args: P.args, **kwargs: P.kwargs) -> R:
            key, cost = make_key(args, kwargs), make_cost(args, kwargs)
            take(key, cost)
            if not seats:
                return function(*args, **kwargs)
            try:
                return function(*args, **kwargs)
            finally:
                self.refund(key, cost)

        return seated

    def _limited(self, function: Callable[P, R], make_key: KeyOf, cost: int) -> Callable[P, R]:
        """The common case: `hit` and the call in one frame."""
        clock, hit = self._clock, self._hit
        acquire, release = self._lock.acquire, self._lock.release
        until_sweep = _SWEEP_EVERY

        @functools.wraps(function)
        def limited(*args: P.args, **kwargs: P.kwargs) -> R:
            nonlocal until_sweep
            key = make_key(args, kwargs)
            now = clock()
            acquire()
            try:
                until_sweep -= 1
                if not until_sweep:
                    until_sweep = _SWEEP_EVERY
                    self._sweep(now)
                verdict = hit(key, now, cost)
            finally:
                release()
            if not verdict.allowed:
                raise self._refused(verdict)
            return function(*args, **kwargs)

        return limited

    # ---- inside

    def _hit_all(self, key: Hashable, now: float, cost: int = 1) -> Verdict:
        keys = [key] * len(self._limiters)
        decided = cast("Decision", self._set.hit(keys, now, [cost] * len(keys)))
        return cast("Verdict", decided.verdict)

    def _sweep(self, now: float) -> None:
        self._until_sweep = _SWEEP_EVERY
        for one in self._limiters:
            one.sweep(now, _SWEEP_KEYS)

    def _refused(self, verdict: Verdict) -> RateLimited:
        self._refused_total += 1
        after_s = verdict.retry_after_s
        if self.on_event is not None:
            self.on_event(Event("limit", self.name, "rejected", "limit reached", after_s))
        return RateLimited(self.name, "limit reached", after_s)

    def _over_at(self, most: Duration | None) -> float:
        most_s = seconds("most", most)
        if most_s is None:
            most_s = MAX_DURATION_S if self._wait_s is None else self._wait_s
        return self._clock() + remaining(most_s)

    def _pause(self, verdict: Verdict, over_at: float) -> float:
        """How long to sleep, if that is worth it."""
        if self._clock() + verdict.retry_after_s > over_at:
            raise self._refused(verdict)
        return verdict.retry_after_s

    def _too_many(self) -> RateLimited:
        self._refused_total += 1
        return RateLimited(self.name, "too many wait", 0.0)


def cost_of(cost: Cost) -> Callable[[tuple[Any, ...], Mapping[str, Any]], int]:
    def make(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
        return cost if isinstance(cost, int) else cost(*args, **kwargs)

    return make


@overload
def limit(
    *rates: RateText,
    key: Key = None,
    cost: Cost = 1,
    wait: bool | Duration = False,
    algorithm: Algorithm | None = None,
    burst: int | None = None,
    max_keys: int | None = None,
    name: str = "limit",
    rules: LimitRules | None = None,
    on_event: OnEvent | None = None,
    clock: Clock = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    sleep_async: Callable[[float], Awaitable[None]] = asyncio.sleep,
    home: None = None,
) -> Limit: ...
@overload
def limit(
    *rates: RateText,
    key: Key = None,
    cost: Cost = 1,
    wait: bool | Duration = False,
    algorithm: Algorithm | None = None,
    burst: int | None = None,
    max_keys: int | None = None,
    name: str = "limit",
    rules: LimitRules | None = None,
    on_event: OnEvent | None = None,
    home: Shared,
    rule: str | Sequence[str] | None = None,
    by: By | None = None,
    when_away: FailMode = "local",
    lease: LeaseRules | None = None,
    shadow: bool = False,
    refund_on: Errors = (),
) -> SharedLimit: ...
def limit(
    *rates: RateText,
    key: Key = None,
    cost: Cost = 1,
    wait: bool | Duration = False,
    algorithm: Algorithm | None = None,
    burst: int | None = None,
    max_keys: int | None = None,
    name: str = "limit",
    rules: LimitRules | None = None,
    on_event: OnEvent | None = None,
    clock: Clock = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    sleep_async: Callable[[float], Awaitable[None]] = asyncio.sleep,
    home: Shared | None = None,
    rule: str | Sequence[str] | None = None,
    by: By | None = None,
    when_away: FailMode | None = None,
    lease: LeaseRules | None = None,
    shadow: bool = False,
    refund_on: Errors = (),
) -> Limit | SharedLimit:
    """So many calls in so much time; all of the rates hold.

    `key` and `cost` are made from the arguments of a decorated function. `wait` is True, or the
    longest wait; without it a call over the limit raises RateLimited.

    With `home` the count is shared under the name `rule` with all who use the same ledger. `by`
    says what `key` is, in words of the gateway's file, for limits that the gateway has too.
    `when_away` is what happens while the ledger does not answer. A `shadow` never refuses.
    `refund_on` names exceptions of the call that give back what it cost.
    """
    settings = given(algorithm=algorithm, burst=burst, max_keys=max_keys)
    made = [_rules(one, settings) for one in rates]
    if rules is not None:
        made.append(rules)
    wait_s: float | None = None
    if wait is True:
        wait_s = MAX_DURATION_S
    elif wait:
        wait_s = seconds("wait", wait)
    if wait_s is not None and any(one.algorithm == "concurrency" for one in made):
        raise ValueError(f"limit {name}: nobody knows when a seat comes free; wait in a bulkhead")
    if home is not None:
        from headgate.resilience.shared_limit import make_shared  # brings the leases: on use

        return make_shared(
            name,
            made,
            home,
            rule,
            lease=replace(lease or LeaseRules(), **given(fail=when_away)),
            by=by,
            key=key,
            cost=cost,
            wait_s=wait_s,
            shadow=shadow,
            refund_on=refund_on,
            on_event=on_event,
        )
    shared = given(rule=rule, by=by, when_away=when_away, lease=lease)
    shared |= {"shadow": True} if shadow else {}
    shared |= {"refund_on": refund_on} if refund_on else {}
    if shared:
        raise TypeError(
            f"limit {name}: {', '.join(sorted(shared))} only where the count is shared; "
            "give home=Shared(...) too"
        )
    return Limit(
        name,
        *made,
        key=key,
        cost=cost,
        wait_s=wait_s,
        on_event=on_event,
        clock=clock,
        sleep=sleep,
        sleep_async=sleep_async,
    )


def _rules(text: RateText, settings: dict[str, Any]) -> LimitRules:
    told = rate("limit", text)
    if told.count != int(told.count):
        raise ValueError(f"limit: {text} is no whole number of calls; write 1/2s for 0.5/s")
    return LimitRules(limit=int(told.count), period_s=told.per_s, **settings)
