"""Many single calls, gathered into few calls of a handler that takes a list.

    @batched(max_size=50)
    async def users(ids: list[int]) -> dict[int, User]: ...

    user = await users.load(42)          # one of perhaps fifty that go together

Theory of operation. Callers join an item, one for each key; items wait, in order, until a batch
takes them; a batch is one call of the handler, in a task of its own. When does a batch go?

- Nothing is under way: at the end of this turn of the loop, so that what is asked for in one go
  goes together, and a single caller hardly waits.
- Something is under way: when the batch is full, or after a wait. The wait is what filling the
  batch would take at the pace at which items come, and `max_wait` at most; when they come so
  slowly that not even one more is to be expected by then, there is nothing to wait for.
- `max_batches` are under way: as soon as one has ended. So the slower the handler and the more
  the callers, the larger the batches.

With `target` the size follows how long the handler takes: a batch above the target shrinks it by
a fifth, a full one below lets it grow by a tenth.

Who leaves hurts nobody else. Each caller waits on a future of its own; an item that all its callers
have left is dropped before it is sent; a batch that all have left is cancelled, as a call of one's
own would be. The handler runs in an empty context, for it works for many: no caller's deadline,
trace or request is its own.

What an editor must not break: nothing is awaited between looking and acting, and the counts move
in `_settle`, `_leave` and `_join` only. What follows a batch is done in a callback of its task and
not in the task, because a task that is cancelled before its first step never runs at all.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeAlias, TypeVar

from headgate.errors import HeadgateError
from headgate.resilience.errors import CallTimedOut, Refused
from headgate.resilience.settings import Clock, Duration, Event, OnEvent, checked, given, seconds

__all__ = [
    "BatchFailed",
    "BatchRules",
    "BatchSize",
    "Batcher",
    "BatcherClosed",
    "BatcherFull",
    "BatcherSnapshot",
    "batched",
]

K = TypeVar("K")
V = TypeVar("V")

Answers: TypeAlias = Sequence[V | BaseException] | Mapping[K, V | BaseException]
"""In the order of the keys, or by key; an exception stands for the failure of its item alone."""
Handler: TypeAlias = Callable[[list[K]], Awaitable[Answers[V, K]]]

_SMOOTHING: Final = 0.1
_GAP_MOST: Final = 4.0  # of the longest wait: a night without calls is forgotten by the tenth call


class BatcherFull(Refused):
    """As many callers wait as may."""


class BatcherClosed(Refused):
    """It takes no more calls."""


class BatchFailed(HeadgateError):
    """The handler did not answer for an item, or not in a form that can be told apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRules:
    max_size: int = 100
    max_wait_s: float = 0.005
    """What an item waits for others at most, while batches are under way but not too many."""
    max_batches: int = 4
    """Under way at once."""
    max_waiting: int = 10_000
    """Callers, those of batches under way included; who comes then is refused."""
    target_s: float | None = None
    """With it the size follows how long the handler takes."""
    timeout_s: float | None = None
    """What the handler may take for a batch."""

    def problems(self) -> tuple[str, ...]:
        found = []
        for name in ("max_size", "max_batches", "max_waiting"):
            if getattr(self, name) < 1:
                found.append(f"{name}={getattr(self, name)} must be at least 1")
        if not 0.0 <= self.max_wait_s < float("inf"):
            found.append(f"max_wait_s={self.max_wait_s:g} is no time to wait")
        for name in ("target_s", "timeout_s"):
            value = getattr(self, name)
            if value is not None and not value > 0.0:
                found.append(f"{name}={value:g} must be above 0")
        if self.target_s and self.timeout_s and self.target_s >= self.timeout_s:
            found.append(
                f"target_s={self.target_s:g} is not below timeout_s={self.timeout_s:g}, "
                "so batches would time out before they are found too large"
            )
        return tuple(found)


class BatchSize:
    """How large a batch may be. Pure."""

    __slots__ = ("_exact", "_most", "_target_s")

    def __init__(self, most: int, target_s: float | None) -> None:
        self._most = most
        self._target_s = target_s
        self._exact = float(most if target_s is None else max(1, most // 4))

    @property
    def limit(self) -> int:
        return int(self._exact)

    def took(self, items: int, took_s: float) -> None:
        if self._target_s is None:
            return
        if took_s > self._target_s:
            self._exact = max(1.0, min(self._exact, items) * 0.8)
        elif items >= self.limit:
            self._exact = min(float(self._most), self._exact * 1.1 + 0.1)


@dataclass(frozen=True, slots=True)
class BatcherSnapshot:
    name: str
    callers: int
    waiting: int
    """Items not yet sent."""
    running: int
    size: int
    """What a batch may hold now."""
    batches: int
    items: int
    coalesced: int
    """Callers that shared the item of another."""
    dropped: int
    """Items that all their callers had left before they were sent."""
    rejected: int
    failed: int
    """Batches."""


class _Item:
    __slots__ = ("batch", "callers", "is_dropped", "key")

    def __init__(self, key: Any) -> None:
        self.key = key
        self.callers: dict[asyncio.Future[Any], None] = {}
        self.batch: _Batch | None = None
        self.is_dropped = False


class _Batch:
    __slots__ = ("at", "items", "live", "task")

    def __init__(self, items: list[_Item], at: float) -> None:
        self.items = items
        self.live = len(items)
        """Items that somebody still waits for."""
        self.at = at
        self.task: asyncio.Task[Any] | None = None


class Batcher(Generic[K, V]):
    """Made by `batched()`, or directly from a handler. Belongs to one event loop at a time."""

    def __init__(
        self,
        handler: Handler[K, V],
        rules: BatchRules | None = None,
        *,
        name: str = "",
        coalesce: bool = True,
        on_event: OnEvent | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        """Without `coalesce` every call is an item of its own, for what must be done each time."""
        self.name = name or getattr(handler, "__name__", "batch")
        self.rules = rules = rules or BatchRules()
        checked(f"batcher {self.name}", rules.problems())
        self.on_event = on_event
        self._handler = handler
        self._coalesce = coalesce
        self._clock = clock
        self._size = BatchSize(rules.max_size, rules.target_s)
        self._context = Context()
        self._is_closed = False
        self._batches = self._items = self._coalesced = 0
        self._dropped = self._rejected = self._failed = 0
        self._gap_s = rules.max_wait_s
        """What lies between two items, on average."""
        self._item_at = clock()
        self._took_s = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: OrderedDict[object, _Item] = OrderedDict()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._callers = 0
        self._due_at = 0.0
        """When the wait of what is waiting is over."""
        self._timer: asyncio.TimerHandle | None = None
        self._is_soon = False
        """The end of the turn is being waited for."""
        self._is_turn = False
        """It has come."""

    # ---- calls

    async def load(self, key: K) -> V:
        """The handler's answer for this key. Raises what it answered or raised instead."""
        item, future = self._join(key)
        try:
            return await future
        except BaseException:
            self._leave(item, future)
            raise

    async def close(self) -> None:
        """Take no more calls; send what waits at once, and return when all has been answered."""
        self._is_closed = True
        self._next()
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def snapshot(self) -> BatcherSnapshot:
        return BatcherSnapshot(
            self.name,
            self._callers,
            len(self._waiting),
            len(self._tasks),
            self._size.limit,
            self._batches,
            self._items,
            self._coalesced,
            self._dropped,
            self._rejected,
            self._failed,
        )

    # ---- callers come and go

    def _join(self, key: K) -> tuple[_Item, asyncio.Future[V]]:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._move_to(loop)
        if self._is_closed:
            raise BatcherClosed(self.name, "closed", 0.0)
        if self._callers >= self.rules.max_waiting:
            self._refuse()
        future: asyncio.Future[V] = loop.create_future()
        self._callers += 1
        item = self._waiting.get(key) if self._coalesce else None
        if item is not None:
            item.callers[future] = None
            self._coalesced += 1
            return item, future
        item = _Item(key)
        item.callers[future] = None
        self._waiting[key if self._coalesce else item] = item
        now = self._clock()
        gap_s = min(now - self._item_at, _GAP_MOST * self.rules.max_wait_s)
        self._gap_s += _SMOOTHING * (gap_s - self._gap_s)
        self._item_at = now
        if len(self._waiting) == 1:
            self._due_at = now + self._wait_s()
        self._next()
        return item, future

    def _leave(self, item: _Item, future: asyncio.Future[V]) -> None:
        """A caller has ended without its answer, or together with it."""
        loop = future.get_loop()
        if future not in item.callers or loop is not self._loop or loop.is_closed():
            return
        del item.callers[future]
        self._callers -= 1
        if item.callers:
            return
        batch = item.batch
        if batch is None:
            if not item.is_dropped:
                self._drop(item)
                del self._waiting[item.key if self._coalesce else item]
            return
        batch.live -= 1
        if not batch.live and batch.task is not None:
            batch.task.cancel()

    def _drop(self, item: _Item) -> None:
        item.is_dropped = True
        self._dropped += 1

    def _refuse(self) -> None:
        self._rejected += 1
        rounds = 1 + len(self._waiting) / (self._size.limit * self.rules.max_batches)
        after_s = self._took_s * rounds
        if self.on_event is not None:
            self.on_event(Event("batch", self.name, "rejected", "full", after_s))
        raise BatcherFull(self.name, f"{self._callers} callers wait already", after_s)

    # ---- batches

    def _wait_s(self) -> float:
        """How long waiting for more is worth it."""
        most_s = self.rules.max_wait_s
        return 0.0 if self._gap_s > most_s else min(most_s, self._gap_s * self._size.limit)

    def _next(self) -> None:
        """Send what is to go now, and see to it that the rest goes later."""
        while self._waiting and len(self._tasks) < self.rules.max_batches:
            is_full = len(self._waiting) >= self._size.limit
            if not is_full and not self._is_closed and not self._is_turn:
                if not self._tasks:
                    self._later(0.0)
                    return
                wait_s = self._due_at - self._clock()
                if wait_s > 0.0:
                    self._later(wait_s)
                    return
            self._is_turn = False
            self._send()

    def _later(self, wait_s: float) -> None:
        """Look again then. A timer that turns out too early looks once more, that is all."""
        if self._loop is None:
            return
        if wait_s <= 0.0:
            if not self._is_soon:
                self._is_soon = True
                self._loop.call_soon(self._turn, context=self._context)
        elif self._timer is None:
            self._timer = self._loop.call_later(wait_s, self._ring, context=self._context)

    def _turn(self) -> None:
        """The turn of the loop is over in which the first item came."""
        self._is_soon = False
        self._is_turn = True
        self._next()
        self._is_turn = False

    def _ring(self) -> None:
        self._timer = None
        self._next()

    def _send(self) -> None:
        items: list[_Item] = []
        while self._waiting and len(items) < self._size.limit:
            _, item = self._waiting.popitem(last=False)
            if all(future.cancelled() for future in item.callers):
                self._drop(item)  # their tasks have not come to run yet
            else:
                items.append(item)
        now = self._clock()
        self._due_at = now  # what is left has waited
        if not items:
            return
        batch = _Batch(items, now)
        for item in items:
            item.batch = batch
        self._batches += 1
        self._items += len(items)
        batch.task = asyncio.get_running_loop().create_task(
            self._run([item.key for item in items]),
            name=f"headgate-batch-{self.name}",
            context=Context(),
        )
        self._tasks.add(batch.task)
        batch.task.add_done_callback(lambda task: self._done(batch, task), context=self._context)

    async def _run(self, keys: list[K]) -> Answers[V, K]:
        timeout_s = self.rules.timeout_s
        if timeout_s is None:
            return await self._handler(keys)
        timer = asyncio.timeout(timeout_s)
        try:
            async with timer:
                return await self._handler(keys)
        except TimeoutError as error:
            if timer.expired():
                raise CallTimedOut(self.name, timeout_s) from error
            raise

    def _done(self, batch: _Batch, task: asyncio.Task[Answers[V, K]]) -> None:
        now = self._clock()
        if len(self._tasks) >= self.rules.max_batches:
            self._due_at = now  # what waited for a place has waited enough
        self._tasks.discard(task)
        error: BaseException | None
        if task.cancelled():
            error = BatchFailed(f"{self.name}: the call for this batch was cancelled")
        else:
            error = task.exception()
        if error is None:
            took_s = now - batch.at
            self._took_s += _SMOOTHING * (took_s - self._took_s) if self._took_s else took_s
            self._size.took(len(batch.items), took_s)
            error = self._share_out(batch.items, task.result())
        is_news = error is not None and batch.live
        if error is not None:
            for item in batch.items:
                self._settle(item, error)
        self._next()
        if is_news:
            self._failed += 1
            if self.on_event is not None:
                self.on_event(Event("batch", self.name, "failed", repr(error)))

    def _share_out(self, items: list[_Item], answers: Answers[V, K]) -> BatchFailed | None:
        """Give each item its answer; if it cannot be told which is whose, say why."""
        if isinstance(answers, Mapping):
            for item in items:
                try:
                    answer: Any = answers[item.key]
                except Exception:  # noqa: BLE001 - a mapping of somebody's own making
                    answer = BatchFailed(f"{self.name}: no answer for {item.key!r}")
                self._settle(item, answer)
            return None
        if isinstance(answers, (str, bytes)) or not isinstance(answers, Sequence):
            wrong = f"a {type(answers).__name__}, neither a list nor a dict"
            return BatchFailed(f"{self.name}: the handler returned {wrong}")
        if len(answers) != len(items):
            wrong = f"{len(answers)} answers for {len(items)} items"
            return BatchFailed(f"{self.name}: the handler returned {wrong}")
        for item, answer in zip(items, answers, strict=True):
            self._settle(item, answer)
        return None

    def _settle(self, item: _Item, answer: object) -> None:
        """Hand an answer, or an exception, to all callers of an item."""
        if isinstance(answer, (StopIteration, asyncio.CancelledError)):
            # The first cannot be raised from a future; the second would look to the caller as if
            # it had been cancelled itself.
            kind = type(answer).__name__
            answer = BatchFailed(f"{self.name}: the handler answered {kind} for {item.key!r}")
        for future in item.callers:
            self._callers -= 1
            if future.done():
                continue  # cancelled; its task has not come to run yet
            if isinstance(answer, BaseException):
                future.set_exception(answer)
            else:
                future.set_result(answer)
        item.callers.clear()

    # ---- loops

    def _move_to(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin with a new event loop; what was left behind in a closed one is lost with it."""
        if self._loop is not None:
            if not self._loop.is_closed() and (self._callers or self._tasks):
                raise RuntimeError(f"batcher {self.name} is in use by another event loop")
            self._waiting.clear()
            self._tasks.clear()
            self._callers = 0
            self._timer = None
            self._is_soon = False
        self._loop = loop


def batched(
    *,
    name: str = "",
    max_size: int | None = None,
    max_wait: Duration | None = None,
    max_batches: int | None = None,
    max_waiting: int | None = None,
    target: Duration | None = None,
    timeout: Duration | None = None,
    coalesce: bool = True,
    rules: BatchRules | None = None,
    on_event: OnEvent | None = None,
    clock: Clock = time.monotonic,
) -> Callable[[Handler[K, V]], Batcher[K, V]]:
    """Make a batcher of an async function that takes a list of keys."""
    rules = rules or BatchRules(
        **given(
            max_size=max_size,
            max_wait_s=seconds("max_wait", max_wait),
            max_batches=max_batches,
            max_waiting=max_waiting,
            target_s=seconds("target", target),
            timeout_s=seconds("timeout", timeout),
        )
    )

    def make(handler: Handler[K, V]) -> Batcher[K, V]:
        return Batcher(handler, rules, name=name, coalesce=coalesce, on_event=on_event, clock=clock)

    return make
