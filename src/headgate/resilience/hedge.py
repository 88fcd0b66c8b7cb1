"""Asking twice when the first answer is late.

    @hedge(after="p95")                  # or after="50ms"
    async def fetch(product_id): ...

Theory of operation. The delay is that of `headgate.policy.hedge`: a fixed one, or the live
percentile of this function's own latency. Until that is known, calls are simply awaited. Then the
call runs in a task; if it has not ended after the delay and the budget allows it, a second one is
started beside it, and the first good answer wins. A failure counts only when there is nobody left
to wait for; then the first failure is raised.

No task outlives the call: whoever loses is cancelled and waited for, also when the caller itself
is cancelled. Only for what may be done twice, and for async functions: a thread cannot be stopped.
"""

from __future__ import annotations

import asyncio
import functools
import re
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, ParamSpec, TypeVar, cast

from headgate.policy.hedge import HedgeDelay, HedgeRules, HedgeSnapshot
from headgate.resilience.budget import Budget
from headgate.resilience.calls import is_async, name_of
from headgate.resilience.settings import (
    Clock,
    Duration,
    Event,
    OnEvent,
    Share,
    given,
    not_both,
    seconds,
)

__all__ = ["Hedge", "hedge"]

P = ParamSpec("P")
R = TypeVar("R")

_PERCENTILE: Final = re.compile(r"[pP]([0-9]{1,2}(?:\.[0-9]{1,3})?)")


class Hedge:
    """Made by `hedge()`; one for each callee, since it learns how long that one takes."""

    def __init__(
        self,
        name: str,
        rules: HedgeRules,
        *,
        budget: Budget | None = None,
        counts: bool = True,
        on_event: OnEvent | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        """`counts`: first tries are counted here, because no `retry` shares the budget."""
        self.name = name
        self.rules = rules
        self.budget = budget
        self.counts = counts
        self.on_event = on_event
        self.clock = clock
        self._lock = threading.Lock()
        self._core = HedgeDelay(rules, clock())

    def __call__(self, function: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
        if not is_async(function):
            raise TypeError(f"hedge cannot stop the plain function {name_of(function)}")

        @functools.wraps(function)
        async def hedged(*args: P.args, **kwargs: P.kwargs) -> R:
            return await self.call_async(function, *args, **kwargs)

        return hedged

    async def call_async(
        self, function: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        start = self.clock()
        if self.counts and self.budget is not None:
            self.budget.count()
        with self._lock:
            delay_s = self._core.delay_s(start)
        if delay_s is None:
            result = await function(*args, **kwargs)
            self.record(start)
            return result
        race = _Race(self, delay_s, functools.partial(function, *args, **kwargs))
        return cast("R", await race.run())

    def snapshot(self) -> HedgeSnapshot:
        with self._lock:
            return self._core.snapshot(self.clock())

    def sharing(self, budget: Budget) -> Hedge:
        """One that draws on the budget of a `retry` around it, which counts the first tries."""
        return Hedge(
            self.name,
            self.rules,
            budget=budget,
            counts=False,
            on_event=self.on_event,
            clock=self.clock,
        )

    def record(self, start: float) -> None:
        now = self.clock()
        with self._lock:
            self._core.record(now - start, now)

    def may(self) -> bool:
        return self.budget is None or self.budget.try_take()


class _Race:
    """The attempts of one call."""

    def __init__(self, policy: Hedge, delay_s: float, make: Callable[[], Awaitable[Any]]) -> None:
        self._policy = policy
        self._delay_s = delay_s
        self._make = make
        self._running: dict[asyncio.Task[Any], float] = {}

    async def run(self) -> Any:
        policy = self._policy
        more = policy.rules.most
        failed: BaseException | None = None
        try:
            self._start()
            while True:
                done, _ = await asyncio.wait(
                    self._running,
                    timeout=self._delay_s if more else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for task in done:
                    start = self._running.pop(task)
                    if task.cancelled():
                        failed = failed or asyncio.CancelledError()
                    elif (error := task.exception()) is not None:
                        failed = failed or error
                    else:
                        policy.record(start)
                        return task.result()
                if not self._running and failed is not None:
                    raise failed
                if not done:
                    more = self._one_more(more)
        finally:
            failed = None  # it holds this frame
            await self._end()

    def _one_more(self, more: int) -> int:
        """Start another if the budget allows; how many there may still be."""
        policy = self._policy
        if not policy.may():
            return 0
        self._start()
        if policy.on_event is not None:
            policy.on_event(Event("hedge", policy.name, "hedged", "late", self._delay_s))
        return more - 1

    def _start(self) -> None:
        start = self._policy.clock()
        loop = asyncio.get_running_loop()
        task = loop.create_task(_awaited(self._make), name=f"headgate-hedge-{self._policy.name}")
        self._running[task] = start

    async def _end(self) -> None:
        """Those who have lost have at least been out for so long: without them the percentile
        would sink.
        """
        if not self._running:
            return
        for task, start in self._running.items():
            if not task.done():
                task.cancel()
                self._policy.record(start)
        await asyncio.wait(self._running)
        for task in self._running:
            if not task.cancelled():
                task.exception()  # so that nobody logs it as never looked at


async def _awaited(make: Callable[[], Awaitable[R]]) -> R:
    return await make()


def hedge(
    *,
    after: Duration | None = None,
    most: int | None = None,
    minimum_calls: int | None = None,
    budget: Budget | Share | bool = True,
    name: str = "hedge",
    rules: HedgeRules | None = None,
    on_event: OnEvent | None = None,
    clock: Clock = time.monotonic,
) -> Hedge:
    """`after` is a percentile of the latency ("p95"), or a fixed time ("50ms").

    `budget` is a share ("20%"), the Budget of a `retry` for the same callee, or False for none.
    """
    settings = given(most=most, minimum_calls=minimum_calls)
    if isinstance(after, str) and (found := _PERCENTILE.fullmatch(after.strip())):
        settings["percentile"] = float(found[1]) / 100.0
    elif after is not None:
        settings["after_s"] = seconds("after", after)
    not_both(f"hedge {name}", rules, settings)
    rules = rules or HedgeRules(**settings)
    shared = isinstance(budget, Budget)
    if isinstance(budget, bool):
        spending = Budget(clock=clock) if budget else None
    else:
        spending = budget if isinstance(budget, Budget) else Budget(budget, clock=clock)
    return Hedge(name, rules, budget=spending, counts=not shared, on_event=on_event, clock=clock)
