"""A bound on how many calls are under way at once, with a line before it.

    @bulkhead("reports", limit=4, queue=20, queue_timeout="2s")
    async def report(): ...

    with reports: ...                    # or async with

Theory of operation. The rules are those of `headgate.policy.bulkhead`. Who gets no seat and finds
a place in line waits on a future (a task) or an event (a thread); seats go from whoever leaves to
whoever is next, across threads and event loops. The wait is bounded by `queue_timeout` and by the
deadline. A waiter that is cancelled leaves the line; if it had been given its seat at that moment,
the seat goes on to the next. With `adaptive` the limit follows the latency of the calls.
"""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import ParamSpec, TypeVar, cast

from headgate.policy.adaptive import AdaptiveLimit, AdaptiveRules, Outcome
from headgate.policy.answers import Rejected
from headgate.policy.bulkhead import Bulkhead as Core
from headgate.policy.bulkhead import BulkheadRules, BulkheadSnapshot, Queued, Seat
from headgate.policy.shed import PRIORITIES, Priority
from headgate.resilience.calls import Entries, is_async, refuse_coroutine, refuse_generators
from headgate.resilience.errors import BulkheadFull, Refused
from headgate.resilience.hop import remaining
from headgate.resilience.settings import (
    Clock,
    Duration,
    Event,
    OnEvent,
    given,
    not_both,
    seconds,
)

__all__ = ["Bulkhead", "bulkhead"]

P = ParamSpec("P")
R = TypeVar("R")


class _Task:
    """A task in line."""

    __slots__ = ("_future", "_loop", "_thread")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._future = self._loop.create_future()

    def wake(self) -> None:
        if threading.get_ident() == self._thread:
            self._set()
            return
        try:
            self._loop.call_soon_threadsafe(self._set)
        except RuntimeError:
            pass  # its loop is closed: nobody waits any more

    def _set(self) -> None:
        if not self._future.done():
            self._future.set_result(None)

    async def wait(self, most_s: float) -> None:
        timer = self._loop.call_later(most_s, self._set)
        try:
            await self._future
        finally:
            timer.cancel()


class _Thread:
    """A thread in line."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = threading.Event()

    def wake(self) -> None:
        self._event.set()

    def wait(self, most_s: float) -> None:
        self._event.wait(most_s)


class Bulkhead:
    """Made by `bulkhead()`."""

    def __init__(
        self,
        name: str,
        rules: BulkheadRules,
        *,
        priority: Priority = "normal",
        adaptive: AdaptiveRules | None = None,
        on_event: OnEvent | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self.name = name
        self.rules = rules
        self.on_event = on_event
        self._priority = PRIORITIES.index(priority)
        self._clock = clock
        # Reentrant: on_event may ask for a snapshot.
        self._lock = threading.RLock()
        now = clock()
        learning = None if adaptive is None else AdaptiveLimit(adaptive, now)
        try:
            self._core = Core(name, rules, now, learning)
        except ValueError as error:
            raise ValueError(f"bulkhead {name}: {error}") from None
        self._entries = Entries[Seat]()

    # ---- seats

    def enter(self, priority: Priority | None = None) -> Seat:
        """Take a seat, or wait for one; BulkheadFull if there is none. Blocks the thread."""
        now = self._clock()
        at = self._priority if priority is None else PRIORITIES.index(priority)
        lock = self._lock
        lock.acquire()
        try:
            got = self._core.enter(now, None, at)
            if isinstance(got, Seat):
                return got
            thread = _Thread()
            queued = self._lined_up(got, thread)
        finally:
            lock.release()
        most_s = queued.until - now
        wait_s = remaining(most_s)
        try:
            thread.wait(wait_s)
        except BaseException:  # an interrupt: the seat must not be lost
            self._forget(queued)
            raise
        return self._seated(queued, by_deadline=wait_s < most_s)

    async def enter_async(self, priority: Priority | None = None) -> Seat:
        """Take a seat, or wait for one; BulkheadFull if there is none."""
        now = self._clock()
        at = self._priority if priority is None else PRIORITIES.index(priority)
        lock = self._lock
        lock.acquire()
        try:
            got = self._core.enter(now, None, at)
            if isinstance(got, Seat):
                return got
            task = _Task()
            queued = self._lined_up(got, task)
        finally:
            lock.release()
        most_s = queued.until - now
        wait_s = remaining(most_s)
        try:
            await task.wait(wait_s)
        except BaseException:
            self._forget(queued)
            raise
        return self._seated(queued, by_deadline=wait_s < most_s)

    def leave(self, seat: Seat, outcome: Outcome = "ok") -> None:
        """Give the seat back. `dropped`: lost to overload or a time-out. `ignored`: no sign."""
        now = self._clock()
        lock = self._lock
        lock.acquire()  # `with` takes twice the time
        try:
            admitted = self._core.leave(seat, now, now - seat.at, outcome)
            if admitted:
                _wake(admitted)
        finally:
            lock.release()

    # ---- calls

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate a function, plain or async."""
        refuse_generators(function, "a bulkhead")
        enter, leave = self.enter, self.leave
        if is_async(function):
            awaited = cast("Callable[P, Awaitable[R]]", function)
            enter_async = self.enter_async

            @functools.wraps(function)
            async def bounded_async(*args: P.args, **kwargs: P.kwargs) -> R:
                seat = await enter_async()
                try:
                    result = await awaited(*args, **kwargs)
                except BaseException as error:
                    leave(seat, _outcome(error))
                    raise
                leave(seat)
                return result

            return cast("Callable[P, R]", bounded_async)

        @functools.wraps(function)
        def bounded(*args: P.args, **kwargs: P.kwargs) -> R:
            seat = enter()
            try:
                result = function(*args, **kwargs)
            except BaseException as error:
                leave(seat, _outcome(error))
                raise
            leave(seat)
            return result

        return bounded

    def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        with self:
            result = function(*args, **kwargs)
            refuse_coroutine(result, "bulkhead.call")
            return result

    async def call_async(
        self, function: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        async with self:
            return await function(*args, **kwargs)

    def __enter__(self) -> None:
        self._entries.push(self.enter())

    async def __aenter__(self) -> None:
        self._entries.push(await self.enter_async())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.leave(self._entries.pop(), "ok" if error is None else _outcome(error))

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, trace)

    # ---- by hand

    def set_limit(self, limit: int) -> None:
        with self._lock:
            _wake(self._core.set_limit(limit, self._clock()))

    def take_rules(self, rules: BulkheadRules) -> None:
        with self._lock:
            self.rules = rules
            _wake(self._core.take_rules(rules, self._clock()))

    def snapshot(self) -> BulkheadSnapshot:
        with self._lock:
            return self._core.snapshot(self._clock())

    # ---- inside

    def _lined_up(self, got: Queued | Rejected, waiter: _Task | _Thread) -> Queued:
        """With the lock held: nobody can be told of a place before it has its waiter."""
        if isinstance(got, Rejected):
            raise self._full(got)
        got.who = waiter
        if got.evicted is not None:
            _wake((got.evicted,))
        return got

    def _seated(self, queued: Queued, *, by_deadline: bool) -> Seat:
        """After the wait: the seat, or why there is none."""
        with self._lock:
            if queued.seat is not None:
                return queued.seat
            rejected = queued.rejected
            if rejected is None and by_deadline:
                self._core.forget(queued, self._clock())
                rejected = Rejected("concurrency", "deadline", 0.0)
            elif rejected is None:
                # Its time is up by the clock that woke it, which need not be ours to the last bit.
                _wake(self._core.expire(max(self._clock(), queued.until)))
                rejected = queued.rejected or Rejected("concurrency", "queue_timeout", 0.0)
            raise self._full(rejected)

    def _forget(self, queued: Queued) -> None:
        with self._lock:
            _wake(self._core.forget(queued, self._clock()))

    def _full(self, rejected: Rejected) -> BulkheadFull:
        if self.on_event is not None:
            reason, after_s = rejected.reason, rejected.retry_after_s
            self.on_event(Event("bulkhead", self.name, "rejected", reason, after_s))
        return BulkheadFull(self.name, rejected.reason, rejected.retry_after_s)


def _wake(settled: Sequence[Queued]) -> None:
    for queued in settled:
        cast("_Task | _Thread", queued.who).wake()


def _outcome(error: BaseException) -> Outcome:
    if isinstance(error, TimeoutError):
        return "dropped"
    if isinstance(error, Refused) or not isinstance(error, Exception):
        return "ignored"
    return "ok"


def bulkhead(
    name: str,
    *,
    limit: int | None = None,
    queue: int | None = None,
    queue_timeout: Duration | None = None,
    shares: tuple[float, ...] | None = None,
    priority: Priority = "normal",
    adaptive: AdaptiveRules | bool = False,
    rules: BulkheadRules | None = None,
    on_event: OnEvent | None = None,
    clock: Clock = time.monotonic,
) -> Bulkhead:
    """At most `limit` calls at once, `queue` more in line for up to `queue_timeout`.

    With `adaptive` the limit is learnt from the latency and `limit` is not read.
    """
    settings = given(
        limit=limit,
        queue=queue,
        queue_timeout_s=seconds("queue_timeout", queue_timeout),
        shares=shares,
    )
    not_both(f"bulkhead {name}", rules, settings)
    rules = rules or BulkheadRules(**settings)
    learning = AdaptiveRules() if adaptive is True else adaptive or None
    return Bulkhead(
        name, rules, priority=priority, adaptive=learning, on_event=on_event, clock=clock
    )
