"""The circuit breaker for a service's own calls.

    users = breaker("users", failure_rate="50%", window=20, reset_after="30s")

    @users
    async def fetch(user_id): ...

    with users: ...                       # or async with
    users.call(function, argument)        # or await users.call_async(...)

Theory of operation. The rules are those of `headgate.policy.breaker`; here are the clock, a lock
(threads may share a breaker) and the exceptions. An exception of `failures` is a failure; any
other `Exception` is an answer, so a success. What says nothing about the callee leaves no trace
and gives its permit back: an exception of `ignore`, a call that was refused further in, and one
that was cancelled. But a cancelled call that had been out for longer than `slow` was slow,
whatever it would have answered; else callers with little patience would hide a callee that hangs.
"""

from __future__ import annotations

import asyncio
import functools
import random
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from types import TracebackType
from typing import Any, Final, ParamSpec, TypeVar, cast

from headgate.policy.answers import Rejected
from headgate.policy.breaker import (
    Breaker,
    BreakerMode,
    BreakerRules,
    BreakerSnapshot,
    BreakerState,
    Permit,
    Transition,
)
from headgate.resilience.calls import (
    Entries,
    Errors,
    is_async,
    is_one_of,
    refuse_coroutine,
    refuse_generators,
)
from headgate.resilience.errors import BreakerOpen, Refused
from headgate.resilience.settings import (
    Clock,
    Duration,
    Event,
    OnEvent,
    Share,
    given,
    not_both,
    seconds,
    share,
)
from headgate.resilience.settings import window as _window

__all__ = ["BREAKERS", "CircuitBreaker", "Registry", "breaker"]

P = ParamSpec("P")
R = TypeVar("R")

_WHAT: Final = {
    "open": "opened",
    "half_open": "half_opened",
    "closed": "closed",
    "forced_open": "forced_open",
    "disabled": "disabled",
    "metrics_only": "metrics_only",
}


class CircuitBreaker:
    """Made by `breaker()`."""

    def __init__(
        self,
        name: str,
        rules: BreakerRules,
        *,
        failures: Errors = Exception,
        ignore: Errors = (),
        failed_result: Callable[[Any], object] | None = None,
        on_event: OnEvent | None = None,
        clock: Clock = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self.name = name
        self.on_event = on_event
        self._failures = failures
        self._ignore = ignore
        self._failed_result = failed_result
        self._clock = clock
        # Reentrant: on_event may ask for a snapshot.
        self._lock = threading.RLock()
        self._core = Breaker(name, rules, clock(), rng or random.Random())
        self._core.on_change = self._changed
        self._entries = Entries[tuple[Permit, float]]()

    @property
    def rules(self) -> BreakerRules:
        return self._core.rules

    @property
    def state(self) -> BreakerState:
        return self._core.state_at(self._clock())

    # ---- calls

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate a function, plain or async."""
        refuse_generators(function, "a breaker")
        if is_async(function):
            made = self._wrapped_async(cast("Callable[P, Awaitable[Any]]", function))
            return cast("Callable[P, R]", made)
        core, clock, failed_result = self._core, self._clock, self._failed_result
        succeed, fail = core.succeed, core.fail
        # `with lock` takes twice the time of these.
        acquire, release = self._lock.acquire, self._lock.release

        @functools.wraps(function)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            permit = core.ready or self._admit()
            start = clock()
            try:
                result = function(*args, **kwargs)
                failed = failed_result is not None and failed_result(result)
            except BaseException as error:
                self._ended(permit, start, error)
                raise
            now = clock()
            acquire()
            try:
                (fail if failed else succeed)(permit, now, now - start)
            finally:
                release()
            return result

        return guarded

    def _wrapped_async(self, function: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
        core, clock, failed_result = self._core, self._clock, self._failed_result
        succeed, fail = core.succeed, core.fail
        # `with lock` takes twice the time of these.
        acquire, release = self._lock.acquire, self._lock.release

        @functools.wraps(function)
        async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            permit = core.ready or self._admit()
            start = clock()
            try:
                result = await function(*args, **kwargs)
                failed = failed_result is not None and failed_result(result)
            except BaseException as error:
                self._ended(permit, start, error)
                raise
            now = clock()
            acquire()
            try:
                (fail if failed else succeed)(permit, now, now - start)
            finally:
                release()
            return result

        return guarded

    def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        permit = self._core.ready or self._admit()
        start = self._clock()
        try:
            result = function(*args, **kwargs)
            refuse_coroutine(result, "breaker.call")
            failed = self._failed_result is not None and bool(self._failed_result(result))
        except BaseException as error:
            self._ended(permit, start, error)
            raise
        self._returned(permit, start, failed)
        return result

    async def call_async(
        self, function: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        permit = self._core.ready or self._admit()
        start = self._clock()
        try:
            result = await function(*args, **kwargs)
            failed = self._failed_result is not None and bool(self._failed_result(result))
        except BaseException as error:
            self._ended(permit, start, error)
            raise
        self._returned(permit, start, failed)
        return result

    def __enter__(self) -> None:
        permit = self._core.ready or self._admit()
        self._entries.push((permit, self._clock()))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        permit, start = self._entries.pop()
        if error is None:
            now = self._clock()
            with self._lock:
                self._core.succeed(permit, now, now - start)
        else:
            self._ended(permit, start, error)

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, trace)

    def check(self) -> None:
        """Raise BreakerOpen if a call now would be refused; takes no trial."""
        found = self.snapshot()
        if found.state == "forced_open" or found.retry_after_s > 0.0:
            raise BreakerOpen(self.name, found.state, found.retry_after_s)

    # ---- by hand

    def force_open(self, why: str = "forced open") -> None:
        with self._lock:
            self._core.force_open(self._clock(), why)

    def force_close(self, why: str = "forced closed") -> None:
        with self._lock:
            self._core.force_close(self._clock(), why)

    def disable(self, why: str = "disabled") -> None:
        with self._lock:
            self._core.disable(self._clock(), why)

    def metrics_only(self, why: str = "metrics only") -> None:
        with self._lock:
            self._core.metrics_only(self._clock(), why)

    def automatic(self, why: str = "automatic") -> None:
        with self._lock:
            self._core.automatic(self._clock(), why)

    def trip(self, for_s: float, reason: str) -> None:
        """Somebody else has found the callee down; open for so many seconds."""
        with self._lock:
            self._core.trip(self._clock(), for_s, reason)

    def take_rules(self, rules: BreakerRules) -> None:
        with self._lock:
            self._core.take_rules(rules, self._clock())

    def snapshot(self) -> BreakerSnapshot:
        with self._lock:
            return self._core.snapshot(self._clock())

    # ---- inside

    def _admit(self) -> Permit:
        """Ask, because the common permit is not there."""
        with self._lock:
            got = self._core.admit(self._clock())
        if isinstance(got, Rejected):
            if self.on_event is not None:
                told = Event("breaker", self.name, "rejected", got.reason, got.retry_after_s)
                self.on_event(told)
            raise BreakerOpen(self.name, got.reason, got.retry_after_s)
        return got

    def _returned(self, permit: Permit, start: float, failed: bool) -> None:
        now = self._clock()
        with self._lock:
            (self._core.fail if failed else self._core.succeed)(permit, now, now - start)

    def _ended(self, permit: Permit, start: float, error: BaseException) -> None:
        now = self._clock()
        took_s = now - start
        outcome: bool | None = None
        try:
            outcome = self._is_answer(error, took_s)
        finally:  # a judge of exceptions may be broken; the permit must not be lost by that
            self._end(permit, now, took_s, outcome)

    def _is_answer(self, error: BaseException, took_s: float) -> bool | None:
        """None: it says nothing."""
        if not isinstance(error, Exception):
            slow = took_s > self._core.rules.slow_s
            return True if slow and isinstance(error, asyncio.CancelledError) else None
        if isinstance(error, Refused) or is_one_of(error, self._ignore):
            return None
        return not is_one_of(error, self._failures)

    def _end(self, permit: Permit, now: float, took_s: float, outcome: bool | None) -> None:
        core = self._core
        with self._lock:
            if outcome is None:
                core.abandon(permit, now)
            elif outcome:
                core.succeed(permit, now, took_s)
            else:
                core.fail(permit, now, took_s)

    def _changed(self, moved: Transition) -> None:
        if self.on_event is not None:
            what = _WHAT[moved.after]
            self.on_event(Event("breaker", self.name, what, moved.why, moved.for_s))


class Registry:
    """All breakers of a process by name, for an admin page, a metric, a hand."""

    def __init__(self) -> None:
        self._all: dict[str, CircuitBreaker] = {}
        self._settings: dict[str, object] = {}
        self._lock = threading.Lock()

    def __getitem__(self, name: str) -> CircuitBreaker:
        try:
            return self._all[name]
        except KeyError:
            known = ", ".join(sorted(self._all)) or "none"
            raise KeyError(f'no breaker named "{name}"; there are: {known}') from None

    def __iter__(self) -> Iterator[CircuitBreaker]:
        return iter(tuple(self._all.values()))

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, name: object) -> bool:
        return name in self._all

    def add(self, made: CircuitBreaker, settings: object = None) -> CircuitBreaker:
        """The one of this name that is there already, if it was made with the same settings."""
        with self._lock:
            there = self._all.setdefault(made.name, made)
            if there is made:
                self._settings[made.name] = settings
            elif settings is None or self._settings[made.name] != settings:
                raise ValueError(
                    f'there is a breaker "{made.name}" with other settings; get that one with '
                    f'BREAKERS["{made.name}"], or name this one otherwise'
                )
            return there

    def remove(self, name: str) -> None:
        """Forget a breaker that is no longer used; for names made at run time."""
        with self._lock:
            self._all.pop(name, None)
            self._settings.pop(name, None)

    def force_open(self, name: str, why: str = "forced open") -> None:
        self[name].force_open(why)

    def force_close(self, name: str, why: str = "forced closed") -> None:
        self[name].force_close(why)

    def automatic(self, name: str, why: str = "automatic") -> None:
        self[name].automatic(why)

    def snapshot(self) -> dict[str, BreakerSnapshot]:
        return {made.name: made.snapshot() for made in self}


BREAKERS: Final = Registry()
"""Where `breaker()` puts what it makes."""


def breaker(
    name: str,
    *,
    failure_rate: Share | None = None,
    slow_rate: Share | None = None,
    slow: Duration | None = None,
    window: int | str | None = None,
    minimum_calls: int | None = None,
    trial_calls: int | None = None,
    trial_wait: Duration | None = None,
    reset_after: Duration | Callable[[int], float] | None = None,
    reset_growth: float | None = None,
    reset_max: Duration | None = None,
    jitter: Share | None = None,
    mode: BreakerMode | None = None,
    rules: BreakerRules | None = None,
    failures: Errors = Exception,
    ignore: Errors = (),
    failed_result: Callable[[Any], object] | None = None,
    on_event: OnEvent | None = None,
    registry: Registry | None = BREAKERS,
    clock: Clock = time.monotonic,
    rng: random.Random | None = None,
) -> CircuitBreaker:
    """The breaker of this name. The settings are those of `breaker:` in the file.

    `reset_after` may be a function of the number of opens in a row. `rules` gives all settings at
    once. Exceptions of `failures` count as failures, any others as answers, and those of `ignore`
    do not count at all; `failed_result` tells a bad result from a good one. Asked for again with
    the same settings, it is the same breaker; `registry=None` keeps it out of the registry.
    """
    settings = given(
        failure_rate=share("failure_rate", failure_rate),
        slow_rate=share("slow_rate", slow_rate),
        slow_s=seconds("slow", slow),
        minimum_calls=minimum_calls,
        trial_calls=trial_calls,
        trial_wait_s=seconds("trial_wait", trial_wait),
        reset_growth=reset_growth,
        reset_max_s=seconds("reset_max", reset_max),
        jitter=share("jitter", jitter),
        mode=mode,
        **_window(window),
        **_reset(reset_after),
    )
    not_both(f"breaker {name}", rules, settings)
    rules = rules or _rules(settings)
    made = CircuitBreaker(
        name,
        rules,
        failures=failures,
        ignore=ignore,
        failed_result=failed_result,
        on_event=on_event,
        clock=clock,
        rng=rng,
    )
    if registry is None:
        return made
    return registry.add(made, (rules, failures, ignore, failed_result, on_event, clock))


def _reset(after: Duration | Callable[[int], float] | None) -> dict[str, Any]:
    return {"reset_of": after} if callable(after) else {"reset_s": seconds("reset_after", after)}


def _rules(settings: dict[str, Any]) -> BreakerRules:
    """Defaults give way to what was said beside them."""
    calls = settings.get("window_calls")
    if calls is not None and "minimum_calls" not in settings:
        settings["minimum_calls"] = max(1, min(BreakerRules().minimum_calls, calls))
    if "reset_max_s" not in settings:
        longest = max(BreakerRules().reset_max_s, settings.get("reset_s", 0.0))
        settings["reset_max_s"] = longest
    return BreakerRules(**settings)
