"""Resources that are costly to open (connections, sessions, processes): kept, bounded, lent.

    pool = Pool(connect, close=lambda c: c.close(), check=ping, max_size=20)
    async with pool.lend() as connection: ...

Theory of operation. `acquire` gives a lease at once where it can: of the idle resources the newest,
so that in quiet times the others grow old and go. Else the caller stands in line, and a resource is
opened, or one that has long been idle is checked, for the line and not for the caller: the first
that is ready goes to the first in line. Who leaves the line therefore harms nobody, and what was
being opened for it is kept for the next. There are never idle resources while somebody waits.

Every lease ends in exactly one `release`; `lend` sees to that. A resource comes back

- whole: it is lent again, until its lifetime is over (each has one a little shorter than the
  last, so that they do not all end at once);
- in doubt, when an exception has ended the block: it is checked before it is lent again, or closed
  if there is no check;
- broken, when the task was cancelled in the block (it may be in the middle of an answer), or the
  caller says so: it is closed.

`size` counts all there are, also those being opened, checked and closed: never more than
`max_size`. Opening, checking and closing run in tasks of the pool, each with a time-out; what
follows is done in callbacks of the tasks, which come also when one is cancelled before it began.

What an editor must not break: nothing is awaited between taking from one place and putting into
another, so a cancellation finds each resource in exactly one.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import random
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context
from functools import partial
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar

from headgate.resilience.errors import CallTimedOut, DeadlineExceeded
from headgate.resilience.hop import remaining
from headgate.resilience.pool_rules import (
    PoolClosed,
    PoolFull,
    PoolOpenFailed,
    PoolRules,
    PoolSnapshot,
    PoolTimedOut,
)
from headgate.resilience.settings import Clock, Duration, Event, OnEvent, checked, seconds

__all__ = [
    "Lease",
    "Pool",
    "PoolClosed",
    "PoolFull",
    "PoolOpenFailed",
    "PoolRules",
    "PoolSnapshot",
    "PoolTimedOut",
]

R = TypeVar("R")

_SWEEP_MOST_S: Final = 30.0
_SWEEP_LEAST_S: Final = 0.05


class _Entry(Generic[R]):
    __slots__ = ("idle_since", "in_doubt", "is_used", "resource", "until")

    def __init__(self, resource: R, until: float, now: float) -> None:
        self.resource = resource
        self.until = until
        self.idle_since = now
        self.in_doubt = False
        self.is_used = False


class Lease(Generic[R]):
    """The right to use a resource until it is released."""

    __slots__ = ("_entry", "at", "is_held")

    def __init__(self, entry: _Entry[R], at: float) -> None:
        self._entry = entry
        self.at = at
        self.is_held = True

    @property
    def resource(self) -> R:
        return self._entry.resource


class _Loan(Generic[R]):
    """`async with pool.lend()`."""

    __slots__ = ("_lease", "_pool", "_timeout")

    def __init__(self, pool: Pool[R], timeout: Duration | None) -> None:
        self._pool = pool
        self._timeout = timeout
        self._lease: Lease[R] | None = None

    async def __aenter__(self) -> R:
        if self._lease is not None:
            raise RuntimeError("a loan is entered once; ask the pool for another")
        self._lease = await self._pool.acquire(self._timeout)
        return self._lease.resource

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._lease is not None:
            in_doubt = isinstance(error, Exception)
            broken = error is not None and not in_doubt
            self._pool.release(self._lease, broken=broken, in_doubt=in_doubt)


class Pool(Generic[R]):
    """Belongs to one event loop at a time. Opens nothing before it is asked or entered."""

    def __init__(
        self,
        open: Callable[[], Awaitable[R]],  # noqa: A002 - what it does
        *,
        close: Callable[[R], Awaitable[object] | object] | None = None,
        check: Callable[[R], Awaitable[object]] | None = None,
        rules: PoolRules | None = None,
        name: str = "pool",
        rng: random.Random | None = None,
        on_event: OnEvent | None = None,
        clock: Clock = time.monotonic,
        **settings: Any,
    ) -> None:
        """`check` finds a resource broken by raising or by returning False.

        `settings` are those of `PoolRules`, for a pool that needs only one or two.
        """
        if rules is not None and settings:
            raise TypeError("give rules or single settings, not both")
        self.name = name
        self.rules = rules = rules or PoolRules(**settings)
        checked(f"pool {name}", rules.problems())
        self.on_event = on_event
        self._open = open
        self._close = close
        self._check = check
        self._rng = rng or random.Random()
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closed = False
        self._idle: deque[_Entry[R]] = deque()
        """The newest at the right."""
        self._lent: dict[Lease[R], None] = {}
        self._waiting: OrderedDict[asyncio.Future[Lease[R]], None] = OrderedDict()
        self._tasks: dict[asyncio.Task[Any], None] = {}
        """Opening and checking."""
        self._closing: set[asyncio.Task[None]] = set()
        self._size = self._opening = self._checking = 0
        self._opened = self._reused = self._closed = 0
        self._open_failed = self._check_failed = self._close_failed = 0
        self._timed_out = self._rejected = self._late = 0
        self._is_growing = False
        self._sweeper: asyncio.TimerHandle | None = None
        self._emptied: asyncio.Event | None = None

    # ---- lending

    def lend(self, timeout: Duration | None = None) -> _Loan[R]:
        """A resource for the length of an `async with`."""
        return _Loan(self, timeout)

    async def acquire(self, timeout: Duration | None = None) -> Lease[R]:
        """A lease, to be given to `release` exactly once. `timeout` instead of that of the rules.

        Raises PoolTimedOut, DeadlineExceeded, PoolFull, PoolClosed, or what opening raised.
        """
        self._enter_loop()
        if self._is_closed:
            raise PoolClosed(self.name, "closed", 0.0)
        idle = self._idle
        if idle:
            now = self._clock()
            entry = idle[-1]
            if now < entry.until and not self._must_check(entry, now):
                idle.pop()
                return self._lease(entry, now)
        return await self._wait(timeout)

    def release(self, lease: Lease[R], *, broken: bool = False, in_doubt: bool = False) -> None:
        """Give a resource back. `in_doubt`: check it first, or close it if there is no check."""
        if not lease.is_held:
            self._late += 1
            return
        lease.is_held = False
        del self._lent[lease]
        if self._loop is None or self._loop.is_closed():
            return  # what is collected after the end of its loop cannot even be closed
        entry = lease._entry  # noqa: SLF001 - the two are one
        if self._is_closed or broken or (in_doubt and self._check is None):
            self._end(entry)
            return
        entry.in_doubt = in_doubt
        entry.idle_since = self._clock()
        self._place(entry)

    async def close(self, timeout: Duration = 30.0) -> None:
        """Lend nothing more; wait until all is given back, and close it.

        What is not given back after `timeout` is closed under the hands of who holds it.
        """
        self._is_closed = True
        if self._loop is None:
            return
        for future in self._waiting:
            if not future.done():
                future.set_exception(PoolClosed(self.name, "closed", 0.0))
        self._waiting.clear()
        if self._sweeper is not None:
            self._sweeper.cancel()
        while self._idle:
            self._end(self._idle.pop())
        for task in self._tasks:
            task.cancel()
        if await self._is_empty_within(seconds("timeout", timeout) or 0.0):
            return
        for lease in list(self._lent):
            lease.is_held = False
            del self._lent[lease]
            self._end(lease._entry)  # noqa: SLF001
        await self._is_empty_within(self.rules.close_timeout_s)

    async def __aenter__(self) -> Self:
        self._enter_loop()
        self._sweep()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def snapshot(self) -> PoolSnapshot:
        oldest = next(iter(self._lent), None)
        return PoolSnapshot(
            self.name,
            self.rules.max_size,
            self._size,
            len(self._idle),
            len(self._lent),
            self._opening,
            self._checking,
            len(self._closing),
            len(self._waiting),
            0.0 if oldest is None else self._clock() - oldest.at,
            self._opened,
            self._reused,
            self._closed,
            self._open_failed,
            self._check_failed,
            self._close_failed,
            self._timed_out,
            self._rejected,
            self._late,
        )

    # ---- the line

    async def _wait(self, timeout: Duration | None) -> Lease[R]:
        # Those for whom something is being got ready do not count: they wait for nobody else.
        ready = self._opening + self._checking + len(self._idle)
        in_line = len(self._waiting) - ready - (self.rules.max_size - self._size)
        if in_line >= self.rules.max_waiting:
            self._rejected += 1
            self._tell("rejected", "full")
            raise PoolFull(self.name, f"{in_line} wait already", 0.0)
        loop = asyncio.get_running_loop()
        wait_s = self.rules.acquire_timeout_s
        if timeout is not None:
            wait_s = seconds("timeout", timeout) or 0.0
        left_s = remaining()
        is_deadline = left_s is not None and left_s < wait_s
        if left_s is not None and is_deadline:
            wait_s = left_s
        future: asyncio.Future[Lease[R]] = loop.create_future()
        self._waiting[future] = None
        self._grow()
        timer = loop.call_later(wait_s, self._give_up, future, wait_s, is_deadline)
        try:
            return await future
        except BaseException:
            if future.done() and not future.cancelled() and future.exception() is None:
                # It was served, and cancelled at that very moment.
                self.release(future.result())
            raise
        finally:
            timer.cancel()
            self._waiting.pop(future, None)

    def _give_up(self, future: asyncio.Future[Lease[R]], after_s: float, is_deadline: bool) -> None:
        self._waiting.pop(future, None)
        if future.done():
            return
        self._timed_out += 1
        state = f"{len(self._lent)} of {self.rules.max_size} lent, {self._opening} being opened"
        self._tell("timed_out", state)
        future.set_exception(
            DeadlineExceeded() if is_deadline else PoolTimedOut(self.name, after_s, state)
        )

    def _grow(self) -> None:
        """Get as much ready as people wait for, so far as there may be more."""
        if self._is_growing:
            return  # called from below; the loop under way looks again
        self._is_growing = True
        try:
            while len(self._waiting) > self._opening + self._checking:
                if self._idle:
                    self._place(self._idle.pop())
                elif self._size < self.rules.max_size:
                    self._start_opening()
                else:
                    break
        finally:
            self._is_growing = False

    def _place(self, entry: _Entry[R], *, is_proven: bool = False) -> None:
        """Put a resource that is in nobody's hands where it belongs."""
        now = self._clock()
        if self._is_closed or now >= entry.until:
            self._end(entry)
            return
        while self._waiting:
            if not is_proven and self._must_check(entry, now):
                self._start_checking(entry)
                return
            future, _ = self._waiting.popitem(last=False)
            if not future.done():  # cancelled; its task has not come to run yet
                future.set_result(self._lease(entry, now))
                return
        if entry.in_doubt:
            self._idle.appendleft(entry)  # the last to be asked for: it has to be checked first
        else:
            self._idle.append(entry)
        self._arm()

    def _must_check(self, entry: _Entry[R], now: float) -> bool:
        if self._check is None:
            return False
        return entry.in_doubt or now - entry.idle_since >= self.rules.check_after_s

    def _lease(self, entry: _Entry[R], now: float) -> Lease[R]:
        if entry.is_used:
            self._reused += 1
        entry.is_used = True
        lease = Lease(entry, now)
        self._lent[lease] = None
        return lease

    def _fail_line(self, error: BaseException) -> None:
        """Opening has failed: one caller's bad luck, or news for all if there is nothing else."""
        everybody = self._size == 0
        while self._waiting:
            future, _ = self._waiting.popitem(last=False)
            if not future.done():
                future.set_exception(error)
                if not everybody:
                    return

    # ---- opening, checking, closing

    def _start_opening(self) -> None:
        self._size += 1
        self._opening += 1
        what = f"{self.name}: opening"
        task = self._spawn(_timed(self._open, self.rules.open_timeout_s, what), "open")
        self._tasks[task] = None
        task.add_done_callback(self._opened_one, context=Context())

    def _opened_one(self, task: asyncio.Task[R]) -> None:
        self._tasks.pop(task, None)
        self._opening -= 1
        error: BaseException | None
        if task.cancelled():
            error = PoolOpenFailed(f"{self.name}: opening was cancelled")
        else:
            error = task.exception()
        if error is None:
            now = self._clock()
            shorter = 1.0 - self.rules.lifetime_jitter * self._rng.random()
            self._opened += 1
            until = now + self.rules.max_lifetime_s * shorter
            self._place(_Entry(task.result(), until, now), is_proven=True)
        else:
            self._size -= 1
            if not self._is_closed:
                self._open_failed += 1
                self._fail_line(error)
        self._settle_down()
        if error is not None and not self._is_closed:
            self._tell("open_failed", repr(error))

    def _start_checking(self, entry: _Entry[R]) -> None:
        if self._check is None:
            return
        self._checking += 1
        check = partial(self._check, entry.resource)
        what = f"{self.name}: the check"
        task = self._spawn(_timed(check, self.rules.check_timeout_s, what), "check")
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._checked_one(entry, done), context=Context())

    def _checked_one(self, entry: _Entry[R], task: asyncio.Task[object]) -> None:
        self._tasks.pop(task, None)
        self._checking -= 1
        why = ""
        if task.cancelled():
            why = "cancelled"
        elif (error := task.exception()) is not None:
            why = repr(error)
        elif task.result() is False:
            why = "the check said no"
        if why:
            self._check_failed += 1
            self._end(entry)
        else:
            entry.in_doubt = False
            entry.idle_since = self._clock()
            self._place(entry, is_proven=True)
        self._settle_down()
        if why and not self._is_closed:
            self._tell("check_failed", why)

    def _end(self, entry: _Entry[R]) -> None:
        """Close a resource; it counts until that is done."""
        self._closed += 1
        closed: object = None
        if self._close is not None:
            try:
                closed = self._close(entry.resource)
            except Exception:  # noqa: BLE001 - whatever it is, the resource is given up
                self._close_failed += 1
        if not inspect.isawaitable(closed):
            self._size -= 1
            self._settle_down()
            return
        what = f"{self.name}: closing"
        awaited = closed
        task = self._spawn(_timed(lambda: awaited, self.rules.close_timeout_s, what), "close")
        self._closing.add(task)
        task.add_done_callback(self._ended_one, context=Context())

    def _ended_one(self, task: asyncio.Task[None]) -> None:
        self._closing.discard(task)
        self._size -= 1
        if task.cancelled() or task.exception() is not None:
            self._close_failed += 1
        self._settle_down()

    def _spawn(self, work: Coroutine[Any, Any, Any], what: str) -> asyncio.Task[Any]:
        # An empty context: what is opened outlives the caller for whom it is opened.
        return asyncio.get_running_loop().create_task(
            work, name=f"headgate-pool-{self.name}-{what}", context=Context()
        )

    def _settle_down(self) -> None:
        """Something has changed: open for those who still wait, or tell who waits for the end."""
        if not self._is_closed:
            self._grow()
        elif self._size == 0 and self._emptied is not None:
            self._emptied.set()

    async def _is_empty_within(self, wait_s: float) -> bool:
        if self._emptied is None:
            self._emptied = asyncio.Event()
        if self._size == 0:
            return True
        try:
            async with asyncio.timeout(wait_s):
                await self._emptied.wait()
        except TimeoutError:
            return False
        return True

    # ---- sweeping

    def _arm(self) -> None:
        if self._sweeper is None and self._loop is not None and not self._is_closed:
            rules = self.rules
            every_s = min(rules.max_idle_s, rules.max_lifetime_s) / 4
            every_s = min(_SWEEP_MOST_S, max(_SWEEP_LEAST_S, every_s))
            self._sweeper = self._loop.call_later(every_s, self._sweep, context=Context())

    def _sweep(self) -> None:
        """Close what is too old or too long idle, and keep `min_idle` ready."""
        self._sweeper = None
        if self._is_closed:
            return
        now = self._clock()
        kept = deque[_Entry[R]]()
        over: list[_Entry[R]] = []
        for entry in reversed(self._idle):
            is_spare = len(kept) >= self.rules.min_idle
            if now >= entry.until or (is_spare and now - entry.idle_since >= self.rules.max_idle_s):
                over.append(entry)
            else:
                kept.appendleft(entry)
        self._idle = kept
        for entry in over:
            self._end(entry)
        ready = len(self._idle) + self._opening + self._checking - len(self._waiting)
        for _ in range(min(self.rules.min_idle - ready, self.rules.max_size - self._size)):
            self._start_opening()
        if self._size or self.rules.min_idle:
            self._arm()

    # ---- the rest

    def _tell(self, what: str, why: str) -> None:
        if self.on_event is not None:
            self.on_event(Event("pool", self.name, what, why))

    def _enter_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if loop is self._loop:
            return
        if self._loop is not None:
            if not self._loop.is_closed() and self._size:
                raise RuntimeError(f"pool {self.name} is in use by another event loop")
            # What was opened in a loop that is closed cannot even be closed any more.
            for lease in self._lent:
                lease.is_held = False
            self._idle.clear()
            self._lent.clear()
            self._waiting.clear()
            self._tasks.clear()
            self._closing.clear()
            self._size = self._opening = self._checking = 0
            self._sweeper = self._emptied = None
        self._loop = loop


async def _timed(work: Callable[[], Awaitable[Any]], most_s: float, what: str) -> Any:
    timer = asyncio.timeout(None if most_s == math.inf else most_s)
    try:
        async with timer:
            return await work()
    except TimeoutError as error:
        if timer.expired():
            raise CallTimedOut(what, most_s) from error
        raise
