"""Single flight: one load of a key at a time, and everybody who wants it waits for that one.

Theory of operation. A flight is the load and the place where its outcome is put; it is not the
caller that began it. Whoever wants the value waits by a future (or an event, in a thread) of his
own, which the end of the flight wakes: so no waiter's cancellation can reach the load or another
waiter, nothing is left behind by a waiter who goes, and an exception is handed out from one place
and never reported as unretrieved. The outcome is read from the flight, not carried by the futures.

Waiters may sit in other event loops and threads than the load.

A flight notes the stamp and version of the barriers at which its load began. Who joins later than
an invalidation must not get what was read before it: `Flights.join` starts another one where that
is known, and where it is not (tags are known only with the value) the waiter finds out when he gets
it. The older flight goes on for those who waited before.

A load may need other keys. What each waits for is noted (`waits_on`), and who would close a circle
is told so instead of waiting for ever. An editor must keep the check and the note in one lock.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

from headgate.cache.errors import LoadReentered
from headgate.cache.sync import on_fork

if TYPE_CHECKING:
    from headgate.cache.held import Held

__all__ = ["Flight", "Flights"]


class _Graph:
    """What waits for what is changed under this lock."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def forked(self) -> None:
        self.lock = threading.Lock()


_GRAPH = _Graph()
on_fork(_GRAPH)


class Flight:
    __slots__ = (
        "deadline",
        "error",
        "held",
        "is_behind",
        "is_done",
        "is_superseded",
        "is_void",
        "key",
        "loop",
        "of",
        "old",
        "on_alone",
        "stamp",
        "task",
        "thread",
        "trace",
        "version",
        "waits_on",
        "_lock",
        "_waiting",
    )

    def __init__(self, of: Flights, key: str, stamp: int, version: int) -> None:
        self.of = of
        self.key = key
        self.stamp = stamp
        self.version = version
        self.held: Held | None = None
        self.old: Held | None = None
        """What there was before, if the second layer had it."""
        self.error: BaseException | None = None
        self.trace: TracebackType | None = None
        self.is_done = False
        self.is_void = False
        """It came to no outcome through no fault of the loader: ask again."""
        self.is_superseded = False
        """The key was set or deleted meanwhile: what comes is for the waiters only."""
        self.is_behind = False
        """Nobody waits for it from the start."""
        self.deadline: float | None = None
        """Monotonic: of a load in a thread, which its waiters must give up."""
        self.task: asyncio.Task[None] | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.thread = threading.get_ident()
        self.on_alone: Callable[[Flight], None] | None = None
        self.waits_on: list[Flight] = []
        self._waiting: dict[Any, asyncio.AbstractEventLoop | None] = {}
        self._lock = threading.Lock()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def can_end(self, here: asyncio.AbstractEventLoop | None) -> bool:
        """Whether it makes sense to wait for it here: not if its loop stands still."""
        loop = self.loop
        if loop is None:
            # In a thread; this one cannot wait for itself.
            return self.thread != threading.get_ident() or here is not None
        if here is loop:
            return True
        return loop.is_running() and self.thread != threading.get_ident()

    async def wait(self, after_s: float | None = None) -> bool:
        """Wait for the end; False if the time is over before."""
        if self.is_done:
            return True
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()
        with self._lock:
            if self._has_ended():
                return True
            self._waiting[future] = loop
        timer = (
            None if after_s is None else loop.call_later(max(0.0, after_s), _tell, future, False)
        )
        try:
            return await future
        finally:
            if timer is not None:
                timer.cancel()
            self._left(future)

    def wait_in_thread(self, after_s: float | None = None) -> bool:
        if self.is_done:
            return True
        event = threading.Event()
        with self._lock:
            if self._has_ended():
                return True
            self._waiting[event] = None
        try:
            return event.wait(after_s)
        finally:
            self._left(event)

    def _has_ended(self) -> bool:
        return self.is_done

    def _left(self, waiter: Any) -> None:
        with self._lock:
            self._waiting.pop(waiter, None)
            is_alone = not self._waiting and not self.is_done and not self.is_behind
        if is_alone and self.on_alone is not None:
            self.on_alone(self)

    def end(
        self,
        held: Held | None = None,
        error: BaseException | None = None,
        *,
        is_void: bool = False,
    ) -> bool:
        """Put the outcome where everybody finds it, and wake them. False: there was one already."""
        with self._lock:
            if self.is_done:
                return False
            self.held = held
            self.error = error
            self.trace = None if error is None else error.__traceback__
            self.is_void = is_void
            self.is_done = True
            waiting, self._waiting = self._waiting, {}
        here = _running_loop()
        for waiter, loop in waiting.items():
            if loop is None:
                waiter.set()
            elif loop is here:
                _tell(waiter, True)
            else:
                try:
                    loop.call_soon_threadsafe(_tell, waiter, True)
                except RuntimeError:
                    pass  # its loop is closed: nobody waits there any more
        return True

    def outcome(self) -> Held:
        """What was loaded, or the exception, to each as if it were his own."""
        if self.error is not None:
            # Every raise lengthens the traceback of the one exception that all get.
            raise self.error.with_traceback(self.trace)
        if self.held is None:
            raise RuntimeError("a flight that has not ended was asked for its outcome")
        return self.held


def _tell(future: asyncio.Future[bool], is_done: bool) -> None:
    if not future.done():
        future.set_result(is_done)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def check_entry(of: Flights, key: str, chain: tuple[Flight, ...]) -> None:
    """LoadReentered if this code runs in the midst of loading this very key."""
    for at, each in enumerate(chain):
        if each.key == key and each.of is of and not each.is_done:
            raise LoadReentered(key, tuple(one.key for one in chain[at:]))


@contextmanager
def waiting_in(chain: tuple[Flight, ...], flight: Flight) -> Iterator[None]:
    """Wait for a flight in the midst of those loads; LoadReentered if that would be for ever."""
    inner = [each for each in chain if not each.is_done]
    if not inner:
        yield
        return
    with _GRAPH.lock:
        if _reaches(flight, set(inner)):
            raise LoadReentered(flight.key, tuple(each.key for each in inner))
        inner[-1].waits_on.append(flight)
    try:
        yield
    finally:
        with _GRAPH.lock:
            inner[-1].waits_on.remove(flight)


def _reaches(flight: Flight, goals: set[Flight]) -> bool:
    seen: set[Flight] = set()
    ahead = [flight]
    while ahead:
        at = ahead.pop()
        if at in goals:
            return True
        if at not in seen and not at.is_done:
            seen.add(at)
            ahead.extend(at.waits_on)
    return False


class Flights:
    """The loads of one cache that are on their way. As many as there are callers, at most."""

    def __init__(self) -> None:
        self._by_key: dict[str, Flight] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._by_key)

    def get(self, key: str) -> Flight | None:
        return self._by_key.get(key)

    def join(
        self, key: str, make: Callable[[], Flight], may_join: Callable[[Flight], bool]
    ) -> tuple[Flight, bool]:
        """The flight for this key, and whether it is new and must be started."""
        with self._lock:
            found = self._by_key.get(key)
            if found is not None and not found.is_done and may_join(found):
                return found, False
            flight = self._by_key[key] = make()
            return flight, True

    def leave(self, flight: Flight) -> None:
        """It is not joined any more."""
        with self._lock:
            if self._by_key.get(flight.key) is flight:
                del self._by_key[flight.key]

    def supersede(self, key: str) -> None:
        """The key was set or deleted: what is on its way is older."""
        with self._lock:
            found = self._by_key.pop(key, None)
            if found is not None:
                found.is_superseded = True

    def all(self) -> list[Flight]:
        with self._lock:
            return list(self._by_key.values())
