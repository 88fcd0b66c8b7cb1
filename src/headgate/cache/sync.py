"""Where the second layer lives, and how others than its own event loop reach it.

Theory of operation. The connections of a layer belong to one event loop, its home. That is the loop
in which the cache was started or first used; for a program of threads it is a loop of the cache's
own, in one background thread that is made when it is first needed and ends with the process. Calls
from the home loop are plain awaits. Calls from other loops and threads are handed over.

If the home has ended (a program that calls `asyncio.run` more than once) the layer is opened anew
in the next one. The child of a fork does the same.

A plain function that is called in the thread of the home loop would wait for what it keeps from
running: to it the layer is away. It works with the memory and its loader, as it does whenever the
layer is away.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

from headgate.cache.layer import Layer, LayerAway

__all__ = ["Home", "on_fork"]

T = TypeVar("T")

_BOUND_S: Final = 5.0
"""No thread waits longer for the layer, whatever its loop does; it has closer bounds itself."""


class Home:
    def __init__(self, make: Callable[[], Layer], on_new: Callable[[Layer], None]) -> None:
        self._make = make
        self._on_new = on_new
        self.layer = make()
        self._on_new(self.layer)
        self._is_used = False
        self._lock = threading.RLock()
        self.loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._started: asyncio.Task[None] | None = None
        self._is_up = False
        """It has been started where it is."""

    def _is_here(self, loop: asyncio.AbstractEventLoop | None) -> bool:
        """Whether this loop is the home, which it becomes if there is no other."""
        if loop is not None and self.loop is loop:
            return True
        with self._lock:
            home = self.loop
            if home is not None and home is loop:
                return True
            if home is not None and not home.is_closed() and home.is_running():
                return False
            if loop is None:
                loop, self._thread = own_loop()
                self._settle(loop)
                return False
            self._settle(loop)
            return True

    def _settle(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._started = None
        self._is_up = False
        if self._is_used:
            # The old one's connections have gone with their loop.
            self.layer = self._make()
            self._on_new(self.layer)
        self._is_used = True

    @property
    def is_settled(self) -> bool:
        """Whether the layer has been started where it is, so that what it says of itself holds."""
        loop, started = self.loop, self._started
        return loop is not None and loop.is_running() and started is not None and started.done()

    async def _ready(self) -> Layer:
        """In the home loop: start the layer once, whoever of its callers is cancelled."""
        started = self._started
        if started is None:
            loop = asyncio.get_running_loop()
            started = self._started = loop.create_task(self.layer.start(), name="cache layer start")
        if not started.done():
            await asyncio.wait((started,))
        if started.cancelled():
            self._started = None
            raise LayerAway("it was stopped while it started")
        if (error := started.exception()) is not None:
            self._started = None
            raise error
        if self._started is started:
            self._is_up = True
        return self.layer

    async def _at_home(self, make: Callable[[Layer], Awaitable[T]]) -> T:
        if not self._is_up:
            await self._ready()
        return await make(self.layer)

    def call(self, make: Callable[[Layer], Awaitable[T]]) -> Awaitable[T]:
        """From any event loop. No coroutine between a caller and the layer where none is needed."""
        if self._is_here(asyncio.get_running_loop()):
            return make(self.layer) if self._is_up else self._at_home(make)
        return asyncio.wrap_future(self._hand_over(make))

    def call_from_thread(self, make: Callable[[Layer], Awaitable[T]]) -> T:
        """From a thread without a loop; blocks, within a bound."""
        here = running_loop()
        if here is not None and (self.loop is here or self.loop is None):
            raise LayerAway("called in the thread of its own event loop, which cannot wait for it")
        self._is_here(None)
        future = self._hand_over(make)
        try:
            answer: T = future.result(_BOUND_S)
            return answer
        except TimeoutError:
            if future.done() and not future.cancelled():
                raise  # the layer's own
            future.cancel()
            raise LayerAway(f"its event loop did not come to it within {_BOUND_S:g}s") from None

    def _hand_over(self, make: Callable[[Layer], Awaitable[T]]) -> Any:
        loop = self.loop
        if loop is None or loop.is_closed():
            raise LayerAway("its event loop has ended")
        work = self._at_home(make)
        try:
            return asyncio.run_coroutine_threadsafe(work, loop)
        except RuntimeError:
            work.close()
            raise LayerAway("its event loop has ended") from None

    def spawn(self, make: Callable[[Layer], Awaitable[Any]]) -> None:
        """Have it done, without waiting: from the thread of the home loop."""
        loop = self.loop
        if loop is not None and not loop.is_closed():
            self._hand_over(make).add_done_callback(_ignore)

    async def start(self) -> None:
        if self._is_here(asyncio.get_running_loop()):
            await self._ready()
        else:
            await self.call(_nothing)

    async def close(self) -> None:
        if self.loop is None or self.loop.is_closed() or not self._is_used:
            return
        own = self._thread

        async def end(layer: Layer) -> None:
            await layer.close()

        try:
            await self.call(end)
        except LayerAway:
            pass
        self._stop(own)

    def close_from_thread(self) -> None:
        if self.loop is None or self.loop.is_closed() or not self._is_used:
            return
        own = self._thread
        try:
            self.call_from_thread(lambda layer: layer.close())
        except LayerAway:
            pass
        self._stop(own)

    def _stop(self, own: threading.Thread | None) -> None:
        loop = self.loop
        self.loop = None
        self._started = None
        self._is_up = False
        self._thread = None
        if own is not None and loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(loop.stop)
            if own is not threading.current_thread():
                own.join(_BOUND_S)

    def forget(self) -> None:
        """In the child of a fork: nothing of the parent's loop is of use, or may be touched."""
        self._lock = threading.RLock()
        self.loop = None
        self._thread = None
        self._started = None
        self._is_up = False
        if self._is_used:
            self._is_used = False
            self.layer = self._make()
            self._on_new(self.layer)


def own_loop() -> tuple[asyncio.AbstractEventLoop, threading.Thread]:
    """A loop in a thread that ends with the process."""
    loop = asyncio.new_event_loop()
    ready = threading.Event()

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.call_soon(ready.set)
        try:
            loop.run_forever()
        finally:
            loop.close()

    thread = threading.Thread(target=run, name="headgate cache", daemon=True)
    thread.start()
    ready.wait(_BOUND_S)
    return loop, thread


async def _nothing(layer: Layer) -> None:
    pass


def _ignore(done: Any) -> None:
    if not done.cancelled():
        done.exception()


def running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def drive(work: Coroutine[Any, Any, T]) -> T:
    """Run what never really waits, as it was given the ports of a thread."""
    try:
        work.send(None)
    except StopIteration as end:
        value: T = end.value
        return value
    work.close()
    raise RuntimeError("a loader of a plain function answered with something to be awaited")


_forked: weakref.WeakSet[Any] = weakref.WeakSet()


def on_fork(owner: Any) -> None:
    """Have `owner.forked()` called in the child of a fork."""
    _forked.add(owner)


def _in_child() -> None:
    for owner in list(_forked):
        owner.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
