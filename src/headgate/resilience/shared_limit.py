"""A limit whose count is shared: `SharedLimit`, made by `limit(..., home=home)`.

    orders = limit("100/min", by="user", home=home, rule="orders")

    await orders.hit("ann")              # RateLimited when used up
    async with orders.hold("ann", cost=5):
        ...                              # given back if that raises what `refund_on` names

Theory of operation. A hit is answered from the lease, or asks the ledger (`shared_ask.py`) and
waits for at most two of its deadlines, or until the deadline of the call (`DeadlineExceeded`).
While the ledger is away nobody asks: `when_away` decides, as in the gateway's file.

`shadow` never refuses. Its verdicts are allowed, and `retry_after_s` is above zero where the hit
would have been refused; then nothing was taken.

Plain functions wait with their thread, so they must not run where an event loop runs: whoever calls
one there is told so at once, and not only on the day that a lease is spent.
"""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from asyncio import events
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar, cast

from headgate.policy.limiter.lease import Ask, LeasedSnapshot, LeaseRules
from headgate.policy.limiter.rules import LimitRules, Verdict
from headgate.policy.limiter.ruleset import Decision, Pending, Rule, RuleSet
from headgate.resilience.calls import Errors, is_async, is_one_of, name_of, refuse_generators
from headgate.resilience.errors import DeadlineExceeded, RateLimited
from headgate.resilience.hop import remaining
from headgate.resilience.keys import Key, key_of
from headgate.resilience.limit import Cost, cost_of
from headgate.resilience.line import Lines
from headgate.resilience.settings import Duration, Event, OnEvent, seconds
from headgate.resilience.shared_ask import Asked
from headgate.resilience.shared_keys import By, plain_text, text_by
from headgate.units import MAX_DURATION_S

if TYPE_CHECKING:
    from headgate.resilience.shared import Shared

__all__ = ["Hold", "SharedLimit", "SharedLimitSnapshot", "make_shared"]

P = ParamSpec("P")
R = TypeVar("R")

_GRACE_S: Final = 0.05
_LONGEST_RULE: Final = 200
_SOON_S: Final = 0.001  # a refusal that is over by now is still one


@dataclass(frozen=True, slots=True)
class SharedLimitSnapshot:
    """What an operator may ask about a shared limit, as this process sees it."""

    name: str
    rules: tuple[LimitRules, ...]
    leased: tuple[LeasedSnapshot, ...]
    """Of each rate."""
    is_away: bool
    refused_total: int
    shadowed_total: int
    """Let through in shadow mode, though over the limit."""


class Hold:
    """`with` or `async with` around what a hit is for."""

    __slots__ = ("_cost", "_key", "_limit", "_taken")

    def __init__(self, limit: SharedLimit, key: Hashable, cost: int) -> None:
        self._limit = limit
        self._key = key
        self._cost = cost
        self._taken: Decision | None = None

    def __enter__(self) -> Verdict:
        self._refuse_twice()
        self._taken = taken = self._limit.take_blocking(self._key, self._cost)
        return self._limit.shown(taken)

    async def __aenter__(self) -> Verdict:
        self._refuse_twice()
        self._taken = taken = await self._limit.take(self._key, self._cost)
        return self._limit.shown(taken)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        taken, self._taken = self._taken, None
        if taken is not None:
            self._limit.end(taken, error)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, trace)

    def _refuse_twice(self) -> None:
        if self._taken is not None:
            raise RuntimeError(f"{self._limit.name}: one hold is for one call; make another")


class SharedLimit:
    """Made by `limit(..., home=home)`."""

    def __init__(
        self,
        name: str,
        home: Shared,
        *rules: LimitRules,
        ids: Sequence[str],
        lease: LeaseRules,
        by: By | None = None,
        key: Key = None,
        cost: Cost = 1,
        wait_s: float | None = None,
        shadow: bool = False,
        refund_on: Errors = (),
        on_event: OnEvent | None = None,
    ) -> None:
        if not rules:
            raise ValueError(f'limit {name}: no rate is given; write limit("10/s")')
        self._seats = any(one.algorithm == "concurrency" for one in rules)
        if self._seats and len(rules) > 1:
            raise ValueError(f"limit {name}: concurrency stands alone; use two limits")
        if self._seats and refund_on:
            raise ValueError(f"limit {name}: seats come back always; refund_on is for rates")
        try:
            self._text = plain_text if by is None else text_by(by)
            self._leased = tuple(
                home.leased(rule, one, lease) for rule, one in zip(ids, rules, strict=True)
            )
        except ValueError as error:
            raise ValueError(f"limit {name}: {error}") from None
        self.name = name
        self.home = home
        self.rules = rules
        self.on_event = on_event
        self._is_by = by is not None
        self._set = RuleSet([Rule(one.id, one.leased) for one in self._leased])
        self._first = self._leased[0].leased.hit if len(rules) == 1 else self._hit_all
        self._key = key
        self._cost = cost
        self._wait_s = wait_s
        self._shadow = shadow
        self._refund_on = refund_on
        self._bound_s = 2 * home.deadline_s + _GRACE_S
        self._lock = home.lock
        self._clock = home.clock
        self._lines = Lines(self._too_many)
        self._refused_total = 0
        self._shadowed_total = 0

    # ---- one hit

    async def try_hit(self, key: Hashable = "", cost: int = 1) -> Verdict:
        """Take it if it is there; the verdict says so."""
        if self._is_by or key.__class__ is not str:
            key = self._text(key)
        now = self._clock()
        lock = self._lock
        lock.acquire()  # `with` takes twice the time
        try:
            got: Any = self._first(key, now, cost)
            if got.__class__ is not Verdict:
                got = self._ask(got, key, now, cost)
        finally:
            lock.release()
        if got.__class__ is Verdict:
            verdict: Verdict = got
        else:
            if got.__class__ is Asked:
                got = await self._answer(got)
            verdict = _verdict_of(got)
        if verdict.allowed or not self._shadow:
            return verdict
        return self._shadowed(verdict)

    async def hit(self, key: Hashable = "", cost: int = 1) -> Verdict:
        """Take it, or raise RateLimited."""
        verdict = await self.try_hit(key, cost)
        if not verdict.allowed:
            raise self._refused(verdict)
        return verdict

    async def wait(
        self, key: Hashable = "", cost: int = 1, most: Duration | None = None
    ) -> Verdict:
        """Take it, if need be later and in turn."""
        return self.shown(await self._take_in_turn(key, cost, most))

    def try_hit_blocking(self, key: Hashable = "", cost: int = 1) -> Verdict:
        """`try_hit` for plain code, in a thread without an event loop."""
        verdict = _verdict_of(self._try_blocking(key, cost))
        return verdict if verdict.allowed or not self._shadow else self._shadowed(verdict)

    def hit_blocking(self, key: Hashable = "", cost: int = 1) -> Verdict:
        """`hit` for plain code, in a thread without an event loop."""
        verdict = self.try_hit_blocking(key, cost)
        if not verdict.allowed:
            raise self._refused(verdict)
        return verdict

    def wait_blocking(
        self, key: Hashable = "", cost: int = 1, most: Duration | None = None
    ) -> Verdict:
        """`wait` for plain code, in a thread without an event loop."""
        return self.shown(self._take_in_turn_blocking(key, cost, most))

    def hold(self, key: Hashable = "", cost: int = 1) -> Hold:
        """Take it by `with` or `async with`.

        Seats come back at the end, what a rate has taken only if the block raises what `refund_on`
        names.
        """
        return Hold(self, key, cost)

    def refund(self, key: Hashable = "", cost: int = 1) -> None:
        """Undo a hit; for concurrency: leave."""
        text = self._text(key)
        now = self._clock()
        with self._lock:
            for one in self._leased:
                one.leased.refund(text, cost, now)

    def peek(self, key: Hashable = "", cost: int = 1) -> Verdict:
        """What this process knows; a key that it has not hit lately looks full."""
        text = self._text(key)
        now = self._clock()
        with self._lock:
            verdicts = [one.leased.peek(text, now, cost) for one in self._leased]
        return min(verdicts, key=lambda one: (one.allowed, one.remaining, -one.retry_after_s))

    def snapshot(self) -> SharedLimitSnapshot:
        now = self._clock()
        with self._lock:
            leased = tuple(one.leased.snapshot(now) for one in self._leased)
        return SharedLimitSnapshot(
            self.name,
            self.rules,
            leased,
            self.home.is_away,
            self._refused_total,
            self._shadowed_total,
        )

    @property
    def refused_total(self) -> int:
        return self._refused_total

    @property
    def shadowed_total(self) -> int:
        return self._shadowed_total

    # ---- decorating

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate a function, plain or async."""
        refuse_generators(function, "a limit")
        if self._is_by and self._key is None:
            raise ValueError(
                f"limit {self.name}: by says what the caller is known by; say from which "
                f'argument of {name_of(function)} too, as in key="{{user_id}}"'
            )
        make_key = key_of(self._key, function)
        make_cost = cost_of(self._cost)
        take, end = self.take, self.end
        if is_async(function):
            awaited = cast("Callable[P, Awaitable[R]]", function)
            if self._seats or self._refund_on or self._wait_s is not None:

                @functools.wraps(function)
                async def held_async(*args: P.args, **kwargs: P.kwargs) -> R:
                    taken = await take(make_key(args, kwargs), make_cost(args, kwargs))
                    try:
                        result = await awaited(*args, **kwargs)
                    except BaseException as error:
                        end(taken, error)
                        raise
                    end(taken, None)
                    return result

                return cast("Callable[P, R]", held_async)
            hit = self.hit

            @functools.wraps(function)
            async def limited_async(*args: P.args, **kwargs: P.kwargs) -> R:
                await hit(make_key(args, kwargs), make_cost(args, kwargs))
                return await awaited(*args, **kwargs)

            return cast("Callable[P, R]", limited_async)

        @functools.wraps(function)
        def held(*args: P.args, **kwargs: P.kwargs) -> R:
            taken = self.take_blocking(make_key(args, kwargs), make_cost(args, kwargs))
            try:
                result = function(*args, **kwargs)
            except BaseException as error:
                end(taken, error)
                raise
            end(taken, None)
            return result

        return held

    # ---- a hit that ends later

    async def take(self, key: Hashable, cost: int) -> Decision:
        """Take it, in turn if this limit waits, or raise RateLimited; ends in `end`."""
        if self._wait_s is not None:
            return await self._take_in_turn(key, cost, None)
        return self._passed(await self._try(key, cost))

    def take_blocking(self, key: Hashable, cost: int) -> Decision:
        if self._wait_s is not None:
            return self._take_in_turn_blocking(key, cost, None)
        return self._passed(self._try_blocking(key, cost))

    def end(self, taken: Decision, error: BaseException | None) -> None:
        """What it was taken for is over."""
        if not taken.allowed:  # a shadow let it through
            return
        if self._seats:
            with self._lock:
                self._set.leave(taken, self._clock())
        elif error is not None and self._refund_on and is_one_of(error, self._refund_on):
            with self._lock:
                self._set.refund(taken, self._clock())

    def shown(self, decision: Decision) -> Verdict:
        """As the caller sees it."""
        verdict = _verdict_of(decision)
        return verdict if verdict.allowed or not self._shadow else _let_through(verdict)

    # ---- asking

    def _hit_all(self, key: str, now: float, cost: int) -> Verdict | Pending:
        count = len(self._leased)
        got = self._set.hit([key] * count, now, [cost] * count)
        return got if isinstance(got, Pending) else cast("Verdict", got.verdict)

    def _ask(self, got: Ask | Pending, key: str, now: float, cost: int) -> Asked | Decision:
        """With the lock held: bring it to the ledger, or decide without."""
        pending = got
        if isinstance(pending, Ask):
            pending = Pending([(0, pending)], [None], [key], [cost], now)
        asked = Asked(self.home, self._leased, self._set, pending)
        try:
            is_said = self.home.say(asked)
        except BaseException:
            asked.undo(None, now)
            raise
        if is_said:
            return asked
        if self.home.is_away:
            for one in self._leased:
                one.leased.away(now)
        return asked.decide(now)

    def _begin(self, key: Hashable, cost: int) -> Asked | Decision:
        text = self._text(key)
        now = self._clock()
        count = len(self._leased)
        with self._lock:
            got = self._set.hit([text] * count, now, [cost] * count)
            return self._ask(got, text, now, cost) if isinstance(got, Pending) else got

    async def _try(self, key: Hashable, cost: int) -> Decision:
        got = self._begin(key, cost)
        return await self._answer(got) if isinstance(got, Asked) else got

    def _try_blocking(self, key: Hashable, cost: int) -> Decision:
        if events._get_running_loop() is not None:  # noqa: SLF001  the other raises, which is dear
            raise RuntimeError(
                f"limit {self.name}: plain code must not wait for the shared ledger in the thread "
                "of an event loop; make the function async and await hit(), or call it by "
                "asyncio.to_thread()"
            )
        got = self._begin(key, cost)
        return self._answer_blocking(got) if isinstance(got, Asked) else got

    async def _answer(self, asked: Asked) -> Decision:
        wait_s = remaining(self._bound_s)
        try:
            async with asyncio.timeout(wait_s):
                return await asyncio.wrap_future(asked.answer)
        except TimeoutError:
            return self._late(asked, by_deadline=wait_s < self._bound_s)
        except BaseException:
            self._withdraw(asked)
            raise

    def _answer_blocking(self, asked: Asked) -> Decision:
        wait_s = remaining(self._bound_s)
        try:
            return asked.answer.result(wait_s)
        except TimeoutError:
            return self._late(asked, by_deadline=wait_s < self._bound_s)
        except BaseException:  # a signal
            self._withdraw(asked)
            raise

    def _late(self, asked: Asked, *, by_deadline: bool) -> Decision:
        with self._lock:
            if not asked.answer.cancel():
                return asked.answer.result()  # it came at the last moment
            if not by_deadline:
                return asked.decide(self._clock())
        raise DeadlineExceeded

    def _withdraw(self, asked: Asked) -> None:
        """Nobody waits any more."""
        with self._lock:
            if not asked.answer.cancel():
                decision = asked.answer.result()
                if decision.allowed:
                    now = self._clock()
                    self._set.leave(decision, now)
                    self._set.refund(decision, now)

    # ---- in turn

    async def _take_in_turn(self, key: Hashable, cost: int, most: Duration | None) -> Decision:
        place = (asyncio.get_running_loop(), self._text(key))
        line = self._lines.find(place)
        if line is None:
            taken = await self._try(key, cost)
            if taken.allowed or self._shadow:
                return self._passed(taken)
            line = self._lines.join(place, asyncio.Lock)
        over_at = self._over_at(most)
        try:
            try:
                async with asyncio.timeout(over_at - self._clock()):
                    await line.turn.acquire()
            except TimeoutError:
                raise self._refused(self.peek(key, cost)) from None
            try:
                while True:
                    taken = await self._try(key, cost)
                    if taken.allowed or self._shadow:
                        return self._passed(taken)
                    await asyncio.sleep(self._pause(_verdict_of(taken), over_at))
            finally:
                line.turn.release()
        finally:
            self._lines.leave(place, line)

    def _take_in_turn_blocking(self, key: Hashable, cost: int, most: Duration | None) -> Decision:
        place = (None, self._text(key))
        line = self._lines.find(place)
        if line is None:
            taken = self._try_blocking(key, cost)
            if taken.allowed or self._shadow:
                return self._passed(taken)
            line = self._lines.join(place, threading.Lock)
        over_at = self._over_at(most)
        try:
            if not line.turn.acquire(timeout=max(0.0, over_at - self._clock())):
                raise self._refused(self.peek(key, cost))
            try:
                while True:
                    taken = self._try_blocking(key, cost)
                    if taken.allowed or self._shadow:
                        return self._passed(taken)
                    time.sleep(self._pause(_verdict_of(taken), over_at))
            finally:
                line.turn.release()
        finally:
            self._lines.leave(place, line)

    def _over_at(self, most: Duration | None) -> float:
        most_s = seconds("most", most)
        if most_s is None:
            most_s = MAX_DURATION_S if self._wait_s is None else self._wait_s
        return self._clock() + remaining(most_s)

    def _pause(self, verdict: Verdict, over_at: float) -> float:
        """How long to sleep, if that is worth it."""
        if self._seats:
            raise ValueError(
                f"limit {self.name}: nobody knows when a seat comes free; wait in a bulkhead"
            )
        pause_s = max(verdict.retry_after_s, _SOON_S)
        if self._clock() + pause_s > over_at:
            raise self._refused(verdict)
        return pause_s

    # ---- refusing

    def _passed(self, decision: Decision) -> Decision:
        if not decision.allowed:
            verdict = _verdict_of(decision)
            if not self._shadow:
                raise self._refused(verdict)
            self._shadowed(verdict)
        return decision

    def _shadowed(self, verdict: Verdict) -> Verdict:
        self._shadowed_total += 1
        shown = _let_through(verdict)
        if self.on_event is not None:
            after_s = shown.retry_after_s
            self.on_event(Event("limit", self.name, "shadowed", "limit reached", after_s))
        return shown

    def _refused(self, verdict: Verdict) -> RateLimited:
        self._refused_total += 1
        after_s = verdict.retry_after_s
        if self.on_event is not None:
            self.on_event(Event("limit", self.name, "rejected", "limit reached", after_s))
        return RateLimited(self.name, "limit reached", after_s)

    def _too_many(self) -> RateLimited:
        self._refused_total += 1
        return RateLimited(self.name, "too many wait", 0.0)


def _verdict_of(decision: Decision) -> Verdict:
    return cast("Verdict", decision.verdict)  # every rule applies, so one of them decided


def _let_through(verdict: Verdict) -> Verdict:
    return replace(verdict, allowed=True, retry_after_s=max(verdict.retry_after_s, _SOON_S))


def make_shared(
    name: str,
    rules: Sequence[LimitRules],
    home: Shared,
    rule: str | Sequence[str] | None,
    **settings: Any,
) -> SharedLimit:
    """What `limit` answers where it is given a home."""
    if rule is None and name == "limit":
        raise ValueError('limit: say what the ledger is to call it, as in rule="orders"')
    ids = _ids(rule if rule is not None else name, len(rules))
    return SharedLimit(ids[0] if name == "limit" else name, home, *rules, ids=ids, **settings)


def _ids(rule: str | Sequence[str], count: int) -> list[str]:
    """A rule of the ledger for each rate; what follows the first is numbered as in the gateway."""
    if isinstance(rule, str):
        ids = [rule, *(f"{rule}-{number}" for number in range(2, count + 1))]
    else:
        ids = list(rule)
    if count and len(ids) != count:
        raise ValueError(f"limit: {count} rates need as many rules, not {len(ids)}")
    for one in ids:
        if not (0 < len(one) <= _LONGEST_RULE and one.isprintable() and " " not in one):
            raise ValueError(
                f"rule={one!r}: write a name without spaces, such as orders or global/api, of at "
                f"most {_LONGEST_RULE} characters"
            )
    if len(set(ids)) != len(ids):
        raise ValueError(f"rule={ids}: each rate needs a name of its own")
    return ids
