"""Trying again.

    @retry(attempts=3, on=httpx.TransportError)
    async def fetch(): ...

    for attempt in retrying(attempts=5, on=OSError):      # or async for
        with attempt:                                      # or async with
            ...

Theory of operation. The rules are those of `headgate.policy.retry` and `headgate.policy.budget`.
A first try that succeeds costs the count in the budget and the note for `hop_headers()` which try
it is; all the rest is made only after a failure.

After a failure it is asked in this order, and the first no ends it: does the outcome ask for
another try (`on`, `on_result`), is one left, does the layer above not retry already, has no layer
below said that it is of no use, is the wait within `retry_after_max` and within the deadline, does
the budget allow it. When it ends, the last exception is raised as it is, or the last result
returned.

What is tried again by default: ConnectionError, TimeoutError, `headgate.errors.UpstreamFailed` of
the kinds that the gateway retries, and exceptions that carry a response with a status it retries
(`error.response.status_code`, `error.status`). Cancellation is never a failure.
"""

from __future__ import annotations

import asyncio
import functools
import random
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, ParamSpec, TypeAlias, TypeVar, cast

from headgate.policy.budget import BudgetSnapshot
from headgate.policy.retry import Jitter, RetryRules
from headgate.resilience.attempts import Attempt, Attempts
from headgate.resilience.budget import Budget
from headgate.resilience.calls import (
    Errors,
    is_async,
    is_one_of,
    name_of,
    refuse_coroutine,
    refuse_generators,
)
from headgate.resilience.hop import ATTEMPT
from headgate.resilience.settings import (
    Clock,
    Duration,
    OnEvent,
    Share,
    checked,
    given,
    not_both,
    seconds,
)
from headgate.resilience.tries import (
    Failed,
    Outcome,
    Returned,
    Tries,
    TryTimedOut,
    is_transient,
    refuse_per_try,
)

__all__ = ["Attempt", "Attempts", "Retry", "RetrySnapshot", "retry", "retrying"]

P = ParamSpec("P")
R = TypeVar("R")

Sleep: TypeAlias = Callable[[float], None]
SleepAsync: TypeAlias = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class RetrySnapshot:
    name: str
    retries_total: int
    gave_up_total: int
    """Calls that failed although another try was wanted."""
    budget: BudgetSnapshot | None


class Retry:
    """Made by `retry()`. All that one of these decorates shares its budget."""

    def __init__(
        self,
        name: str,
        rules: RetryRules,
        *,
        on: Errors | None = None,
        on_result: Callable[[Any], object] | None = None,
        budget: Budget | None = None,
        on_event: OnEvent | None = None,
        sleep: Sleep = time.sleep,
        sleep_async: SleepAsync = asyncio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        checked(f"retry {name}", rules.problems())
        self.name = name
        self.rules = rules
        self.budget = budget
        self.on_event = on_event
        self._on = on
        self._on_result = on_result
        self.sleep = sleep
        self.sleep_async = sleep_async
        self.rng = rng or random.Random()
        self.lock = threading.Lock()
        self.retries_total = 0
        self.gave_up_total = 0

    # ---- calls

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate a function, plain or async."""
        if not callable(function):
            raise TypeError("retry decorates a function; settings go by name: retry(attempts=3)")
        refuse_generators(function, "retry")
        if is_async(function):
            made = self._wrapped_async(cast("Callable[P, Awaitable[Any]]", function))
            return cast("Callable[P, R]", functools.update_wrapper(made, function))
        return functools.update_wrapper(self._wrapped(function), function)

    def _wrapped(self, function: Callable[P, R]) -> Callable[P, R]:
        refuse_per_try(self.rules, name_of(function))
        count, clock = _counting(self.budget)
        on_result, first = self._on_result, (1, self.rules.attempts)
        get, put = ATTEMPT.get, ATTEMPT.set

        def tried(*args: P.args, **kwargs: P.kwargs) -> R:
            count(clock())
            before = get()
            put(first)
            try:
                result = function(*args, **kwargs)
                if on_result is None or not on_result(result):
                    return result
            except Exception as error:  # noqa: BLE001 - judged, and raised if not retried
                outcome: Outcome = Failed(error)
            else:
                outcome = Returned(result)
            finally:
                put(before)
            return cast("R", self._again(outcome, function, args, kwargs))

        return tried

    def _wrapped_async(self, function: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
        count, clock = _counting(self.budget)
        on_result, first = self._on_result, (1, self.rules.attempts)
        get, put = ATTEMPT.get, ATTEMPT.set
        run = function if self.rules.per_try_s is None else self._timed(function)

        async def tried(*args: P.args, **kwargs: P.kwargs) -> R:
            count(clock())
            before = get()
            put(first)
            try:
                result = await run(*args, **kwargs)
                if on_result is None or not on_result(result):
                    return result
            except Exception as error:  # noqa: BLE001 - judged, and raised if not retried
                outcome: Outcome = Failed(error)
            else:
                outcome = Returned(result)
            finally:
                put(before)
            return cast("R", await self._again_async(outcome, run, args, kwargs))

        return tried

    def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        refuse_per_try(self.rules, name_of(function))

        def plain() -> R:
            result = function(*args, **kwargs)
            refuse_coroutine(result, "retry.call")
            return result

        return self._wrapped(plain)()

    async def call_async(
        self, function: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        return await self._wrapped_async(function)(*args, **kwargs)

    def attempts(self) -> Attempts:
        """To loop over."""
        return Attempts(self)

    def snapshot(self) -> RetrySnapshot:
        return RetrySnapshot(
            name=self.name,
            retries_total=self.retries_total,
            gave_up_total=self.gave_up_total,
            budget=None if self.budget is None else self.budget.snapshot(),
        )

    # ---- after a failure

    def _again(
        self, outcome: Outcome, function: Callable[..., Any], args: Any, kwargs: Any
    ) -> object:
        tries = Tries(self)
        before = ATTEMPT.get()
        try:
            while (wait_s := tries.next_wait(outcome)) is not None:
                self.sleep(wait_s)
                ATTEMPT.set((tries.made, self.rules.attempts))
                try:
                    result = function(*args, **kwargs)
                    if self._on_result is None or not self._on_result(result):
                        return result
                    outcome = Returned(result)
                except Exception as error:  # noqa: BLE001 - judged, and raised if not retried
                    outcome = Failed(error)
            return outcome.end()
        finally:
            ATTEMPT.set(before)
            del outcome  # it holds an exception, which holds this frame

    async def _again_async(
        self, outcome: Outcome, function: Callable[..., Awaitable[Any]], args: Any, kwargs: Any
    ) -> object:
        tries = Tries(self)
        before = ATTEMPT.get()
        try:
            while (wait_s := tries.next_wait(outcome)) is not None:
                await self.sleep_async(wait_s)
                ATTEMPT.set((tries.made, self.rules.attempts))
                try:
                    result = await function(*args, **kwargs)
                    if self._on_result is None or not self._on_result(result):
                        return result
                    outcome = Returned(result)
                except Exception as error:  # noqa: BLE001 - judged, and raised if not retried
                    outcome = Failed(error)
            return outcome.end()
        finally:
            ATTEMPT.set(before)
            del outcome

    def _timed(self, function: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
        per_try_s = self.rules.per_try_s or 0.0
        name = name_of(function)

        async def timed(*args: P.args, **kwargs: P.kwargs) -> R:
            timer = asyncio.timeout(per_try_s)
            try:
                async with timer:
                    return await function(*args, **kwargs)
            except TimeoutError as error:
                if timer.expired():
                    raise TryTimedOut(name, per_try_s) from error
                raise

        return timed

    def wants(self, error: BaseException) -> bool:
        """Whether this exception asks for another try."""
        if isinstance(error, TryTimedOut):
            return True
        if self._on is None:
            return is_transient(error, self.rules)
        return is_one_of(error, self._on)


def _counting(budget: Budget | None) -> tuple[Callable[[float], None], Clock]:
    """How a first try is counted."""
    if budget is None:
        return _uncounted, float
    return budget.core.count, budget.clock


def _uncounted(now: float) -> None:
    """There is no budget."""


# ---- making one


def retry(
    *,
    attempts: int | None = None,
    wait: Duration | None = None,
    wait_max: Duration | None = None,
    jitter: Jitter | None = None,
    on: Errors | None = None,
    on_result: Callable[[Any], object] | None = None,
    per_try: Duration | None = None,
    retry_after: bool | None = None,
    retry_after_max: Duration | None = None,
    budget: Budget | Share | bool = True,
    name: str = "retry",
    rules: RetryRules | None = None,
    on_event: OnEvent | None = None,
    clock: Clock = time.monotonic,
    sleep: Sleep = time.sleep,
    sleep_async: SleepAsync = asyncio.sleep,
    rng: random.Random | None = None,
) -> Retry:
    """The settings are those of `retry:` in the file; `attempts` counts all tries.

    `on` says which exceptions are tried again: a class, several, or a function of the exception.
    `on_result` says so of a result. `budget` is a share ("20%"), a Budget to share with others, or
    False for none.
    """
    settings = given(
        attempts=attempts,
        wait_s=seconds("wait", wait),
        wait_max_s=seconds("wait_max", wait_max),
        jitter=jitter,
        per_try_s=seconds("per_try", per_try),
        retry_after=retry_after,
        retry_after_max_s=seconds("retry_after_max", retry_after_max),
    )
    not_both(f"retry {name}", rules, settings)
    if "wait_s" in settings and "wait_max_s" not in settings:
        settings["wait_max_s"] = max(RetryRules().wait_max_s, settings["wait_s"])
    rules = rules or RetryRules(**settings)
    if isinstance(budget, bool):
        spending = Budget(clock=clock) if budget else None
    else:
        spending = budget if isinstance(budget, Budget) else Budget(budget, clock=clock)
    if spending is not None:
        checked(f"retry {name}", rules.problems_with(spending.rules))
    return Retry(
        name,
        rules,
        on=on,
        on_result=on_result,
        budget=spending,
        on_event=on_event,
        sleep=sleep,
        sleep_async=sleep_async,
        rng=rng,
    )


_LOOSE: Final = Budget()
"""The budget of loops that name none: each would otherwise have a fresh one."""


def retrying(policy: Retry | None = None, **settings: Any) -> Attempts:
    """Loop over the attempts of a Retry, or of one with these settings.

    With settings and without `budget`, all such loops of the process share one budget.
    """
    if policy is None:
        policy = retry(**{"budget": _LOOSE, **settings})
    elif settings:
        raise TypeError("give a Retry or settings, not both")
    return policy.attempts()
