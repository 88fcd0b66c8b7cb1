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

import functools
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar, cast, get_args

from headgate.policy.limiter.lease import FailMode, LeasedSnapshot, LeaseRules
from headgate.policy.limiter.rules import LimitRules, Verdict
from headgate.policy.limiter.ruleset import Decision
from headgate.resilience.calls import is_async, is_one_of, name_of, refuse_generators
from headgate.resilience.keys import KeyOf, key_of
from headgate.resilience.limit import cost_of
from headgate.resilience.settings import Duration
from headgate.resilience.shared_hits import SharedHits, let_through, verdict_of

if TYPE_CHECKING:
    from headgate.resilience.shared import Shared

__all__ = ["Hold", "SharedLimit", "SharedLimitSnapshot", "make_shared"]

P = ParamSpec("P")
R = TypeVar("R")

_LONGEST_RULE: Final = 200


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


class SharedLimit(SharedHits):
    """Made by `limit(..., home=home)`."""

    # ---- one hit

    async def try_hit(self, key: Hashable = "", cost: int = 1) -> Verdict:
        """Take it if it is there; the verdict says so."""
        got = await self._settled(self._start(key, cost))
        return got if got.allowed or not self._shadow else self._shadowed(got)

    async def hit(self, key: Hashable = "", cost: int = 1) -> Verdict:
        """Take it, or raise RateLimited."""
        if self._is_by or key.__class__ is not str:
            key = self._text(key)
        now = self._clock()
        lock = self._lock
        lock.acquire()  # `with` takes twice the time
        try:
            got: Any = self._first(key, now, cost)  # told apart by class: isinstance() is dear
            if got.__class__ is not Verdict:
                got = self._ask(got, key, now, cost)
        finally:
            lock.release()
        if got.__class__ is Verdict and got.allowed:
            verdict: Verdict = got
            return verdict
        return await self._settled_or_refused(got)

    async def wait(
        self, key: Hashable = "", cost: int = 1, most: Duration | None = None
    ) -> Verdict:
        """Take it, if need be later and in turn."""
        return self.shown(await self._take_in_turn(key, cost, most))

    def try_hit_blocking(self, key: Hashable = "", cost: int = 1) -> Verdict:
        """`try_hit` for plain code, in a thread without an event loop."""
        verdict = verdict_of(self._try_blocking(key, cost))
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
            return cast("Callable[P, R]", self._limited(awaited, make_key, make_cost))

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

    def _limited(
        self,
        function: Callable[P, Awaitable[R]],
        make_key: KeyOf,
        make_cost: Callable[[tuple[Any, ...], Mapping[str, Any]], int],
    ) -> Callable[P, Awaitable[R]]:
        """The common case: `hit` and the call in one frame."""
        clock, first, ask, text = self._clock, self._first, self._ask, self._text
        acquire, release = self._lock.acquire, self._lock.release
        is_by = self._is_by
        fixed = self._cost if isinstance(self._cost, int) else None

        @functools.wraps(function)
        async def limited_async(*args: P.args, **kwargs: P.kwargs) -> R:
            key = make_key(args, kwargs)
            if is_by or key.__class__ is not str:
                key = text(key)
            cost = make_cost(args, kwargs) if fixed is None else fixed
            now = clock()
            acquire()
            try:
                got: Any = first(key, now, cost)
                if got.__class__ is not Verdict:
                    got = ask(got, key, now, cost)
            finally:
                release()
            if got.__class__ is not Verdict or not got.allowed:
                await self._settled_or_refused(got)
            return await function(*args, **kwargs)

        return limited_async

    # ---- a hit that ends later

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
        verdict = verdict_of(decision)
        return verdict if verdict.allowed or not self._shadow else let_through(verdict)


def make_shared(
    name: str,
    rules: Sequence[LimitRules],
    home: Shared,
    rule: str | Sequence[str] | None,
    *,
    lease: LeaseRules,
    **settings: Any,
) -> SharedLimit:
    """What `limit` answers where it is given a home."""
    if lease.fail not in get_args(FailMode):
        raise ValueError(
            f"limit {name}: when_away={lease.fail!r}: write one of {', '.join(get_args(FailMode))}"
        )
    if rule is None and name == "limit":
        raise ValueError('limit: say what the ledger is to call it, as in rule="orders"')
    ids = _ids(rule if rule is not None else name, len(rules))
    return SharedLimit(
        ids[0] if name == "limit" else name, home, *rules, ids=ids, lease=lease, **settings
    )


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
