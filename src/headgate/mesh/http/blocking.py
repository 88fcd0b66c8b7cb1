"""Calls from code that is not async: one loop in a thread of its own, shared by the process.

Theory of operation
-------------------
A caller hands a coroutine to the loop's thread and waits on a lock. Connections, pools and
policies are thus the same ones as in async code, and are touched by one thread only. The price is
two changes of thread a call; a connection of blocking sockets would save them and have every rule
of this package a second time.

The thread is started by the first call and ends with the interpreter. A process that forks leaves
its thread behind: the child starts its own, and never touches what belongs to its parent's loop
(`forks`).

The caller's context variables hold in its call, so traces and deadlines pass through. A caller that
is interrupted cancels its call.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import Any, Final, Generic, Protocol, TypeVar
from weakref import WeakSet

from headgate.mesh.http.forks import keep

T = TypeVar("T")

_LEAVING_S: Final = 5.0


class Closing(Protocol):
    """What has connections in the loop, and can end them."""

    async def aclose(self) -> None: ...


class _Call(Generic[T]):
    """One coroutine on its way through the loop's thread."""

    __slots__ = ("_context", "_coro", "_done", "_task", "error", "result")

    def __init__(self, coro: Coroutine[Any, Any, T]) -> None:
        self._coro = coro
        self._context = copy_context()
        self._done = threading.Lock()
        self._done.acquire()
        self._task: asyncio.Task[T] | None = None
        self.result: T | None = None
        self.error: BaseException | None = None

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._coro, name="call from a thread", context=self._context)
        self._task.add_done_callback(self._end)

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def wait(self) -> None:
        self._done.acquire()

    def give_up(self, why: BaseException) -> None:
        """There is no loop that would run it."""
        self._coro.close()
        self.error = why

    def _end(self, task: asyncio.Task[T]) -> None:
        if task.cancelled():
            self.error = RuntimeError("the loop's thread has ended")
        else:
            self.error = task.exception()
            if self.error is None:
                self.result = task.result()
        self._done.release()


class LoopThread:
    """An event loop in a daemon thread."""

    def __init__(self) -> None:
        self._loop = _new_loop()
        self.users: WeakSet[Closing] = WeakSet()
        """Closed before the loop is."""
        self._thread = threading.Thread(target=self._run, name="headgate-mesh", daemon=True)
        self._thread.start()

    def run(self, coro: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end and return its result. Not from the thread itself."""
        if threading.current_thread() is self._thread:
            coro.close()
            raise RuntimeError("a blocking call from the loop's own thread would wait for itself")
        call = _Call(coro)
        try:
            self._loop.call_soon_threadsafe(call.start)
        except RuntimeError as error:
            coro.close()
            raise RuntimeError("the interpreter is ending") from error
        try:
            call.wait()
        except BaseException:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(call.cancel)
            raise
        if call.error is not None:
            try:
                raise call.error
            finally:
                call.error = None  # it would hold this frame, and the frame it
        return call.result  # type: ignore[return-value]  # set when there is no error

    def submit(self, call: Callable[[], object]) -> None:
        """Let the loop's thread make a call; do not wait for it."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call)

    def close(self) -> None:
        """Cancel what runs, stop the loop and wait for the thread."""
        if not self._loop.is_closed():
            self.submit(self._loop.stop)
            self._thread.join(_LEAVING_S)

    def _run(self) -> None:
        loop = self._loop
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            loop.run_until_complete(self._close_users())
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            if tasks:
                loop.run_until_complete(asyncio.wait(tasks, timeout=_LEAVING_S / 2))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    async def _close_users(self) -> None:
        closing = [user.aclose() for user in list(self.users)]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LEAVING_S / 2):
                await asyncio.gather(*closing, return_exceptions=True)


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:  # where there is none
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


class _Process:
    """What this process has, and a child of it begins without."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.thread: LoopThread | None = None

    def after_fork(self) -> None:
        self.lock = threading.Lock()
        if self.thread is not None:
            keep(self.thread)
            self.thread = None

    def close(self) -> None:
        thread, self.thread = self.thread, None
        if thread is not None:
            thread.close()


_process: Final = _Process()
os.register_at_fork(after_in_child=_process.after_fork)
atexit.register(_process.close)


def loop_thread() -> LoopThread:
    """The process's thread, started on first use."""
    thread = _process.thread
    if thread is None:
        with _process.lock:
            thread = _process.thread
            if thread is None:
                thread = _process.thread = LoopThread()
    return thread
