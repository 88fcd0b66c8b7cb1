"""The two ways to run the one algorithm: in an event loop, or in a thread that may block.

What `core` awaits, it awaits of its ports. Those of a thread block and never suspend, so that a
plain function drives the same coroutines by hand (`sync.drive`). A load is a task of its own in a
loop; in a thread it is run by whoever began it, unless it must be bounded or nobody waits for it:
then by a daemon thread, of which there are at most THREADS_MAX.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import threading
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from headgate.cache.errors import LoadTimedOut
from headgate.cache.flight import Flight
from headgate.cache.layer import Layer
from headgate.cache.sync import Home, drive

if TYPE_CHECKING:
    from headgate.cache.core import Core
    from headgate.cache.loading import Ask

__all__ = ["LOOP", "THREAD", "THREADS_MAX", "Ports"]

T = TypeVar("T")

THREADS_MAX: Final = 32
"""Beyond this nothing is made anew behind, and what is bounded runs in its caller."""
_HARD_S: Final = 30.0


class Ports(Protocol):
    def layer(self, home: Home, make: Callable[[Layer], Awaitable[T]]) -> Awaitable[T]: ...

    async def behind(self, home: Home, make: Callable[[Layer], Awaitable[Any]]) -> None:
        """Nobody waits for this."""

    async def sleep(self, for_s: float) -> None: ...

    async def wait(self, flight: Flight, after_s: float | None) -> bool: ...

    async def result(self, value: Any) -> Any: ...

    def start(self, core: Core, flight: Flight, ask: Ask, chain: tuple[Flight, ...]) -> bool:
        """Begin the load; False if it cannot be begun now."""
        ...

    def limit(self, core: Core, flight: Flight, ask: Ask) -> Callable[[], None] | None:
        """See to it that it ends in time; the answer calls that off."""
        ...

    def here(self) -> asyncio.AbstractEventLoop | None: ...


class _LoopPorts:
    def layer(self, home: Home, make: Callable[[Layer], Awaitable[T]]) -> Awaitable[T]:
        return home.call(make)

    async def behind(self, home: Home, make: Callable[[Layer], Awaitable[Any]]) -> None:
        # The load's own task, which nobody waits for any more.
        await home.call(make)

    async def sleep(self, for_s: float) -> None:
        await asyncio.sleep(for_s)

    async def wait(self, flight: Flight, after_s: float | None) -> bool:
        return await flight.wait(after_s)

    async def result(self, value: Any) -> Any:
        return await value if inspect.isawaitable(value) else value

    def start(self, core: Core, flight: Flight, ask: Ask, chain: tuple[Flight, ...]) -> bool:
        loop = asyncio.get_running_loop()
        flight.loop = loop
        if ask.options.when_alone == "cancel":
            flight.on_alone = core.cancel_alone
        task = loop.create_task(
            core.fly(flight, ask, self, chain), name=f"headgate cache load {flight.key[:80]}"
        )
        flight.task = task
        core.tasks.add(task)
        task.add_done_callback(functools.partial(_landed, core, flight))
        return True

    def limit(self, core: Core, flight: Flight, ask: Ask) -> Callable[[], None] | None:
        after_s = ask.options.hard_timeout_s
        if after_s is None:
            after_s = _HARD_S
        loop, task = asyncio.get_running_loop(), flight.task

        def late() -> None:
            # Those who wait are let go at once, even if the loader does not let itself be stopped.
            core.give_up(flight, ask, LoadTimedOut(flight.key, after_s))
            if task is not None:
                task.cancel()

        return loop.call_later(after_s, late).cancel

    def here(self) -> asyncio.AbstractEventLoop | None:
        return asyncio.get_running_loop()


def _landed(core: Core, flight: Flight, task: asyncio.Task[None]) -> None:
    core.tasks.discard(task)
    flight.task = None
    if not flight.is_done:
        # Cancelled before its first step.
        core.flights.leave(flight)
        flight.end(is_void=True)
    if not task.cancelled():
        task.exception()


class _ThreadPorts:
    async def layer(self, home: Home, make: Callable[[Layer], Awaitable[T]]) -> T:
        return home.call_from_thread(make)

    async def behind(self, home: Home, make: Callable[[Layer], Awaitable[Any]]) -> None:
        home.spawn(make)

    async def sleep(self, for_s: float) -> None:
        time.sleep(for_s)  # noqa: ASYNC251 - a thread may

    async def wait(self, flight: Flight, after_s: float | None) -> bool:
        return flight.wait_in_thread(after_s)

    async def result(self, value: Any) -> Any:
        if inspect.iscoroutine(value):
            value.close()
            raise TypeError("a plain call cannot await what its loader answers; use the async call")
        return value

    def start(self, core: Core, flight: Flight, ask: Ask, chain: tuple[Flight, ...]) -> bool:
        flight.thread = threading.get_ident()
        hard_s = ask.options.hard_timeout_s
        is_apart = flight.is_behind or hard_s is not None or ask.options.soft_timeout_s is not None
        if is_apart and core.take_thread():
            if hard_s is not None:
                flight.deadline = core.now() + hard_s
            flight.thread = 0
            context = contextvars.copy_context()
            thread = threading.Thread(
                target=context.run,
                args=(_in_thread, core, flight, ask, chain),
                name="headgate cache load",
                daemon=True,
            )
            try:
                thread.start()
            except RuntimeError:
                core.give_thread()
            else:
                return True
            flight.deadline = None
            flight.thread = threading.get_ident()
        if flight.is_behind:
            return False
        drive(core.fly(flight, ask, self, chain))
        return True

    def limit(self, core: Core, flight: Flight, ask: Ask) -> Callable[[], None] | None:
        return None  # its waiters look at `deadline`

    def here(self) -> asyncio.AbstractEventLoop | None:
        return None


def _in_thread(core: Core, flight: Flight, ask: Ask, chain: tuple[Flight, ...]) -> None:
    try:
        drive(core.fly(flight, ask, THREAD, chain))
    finally:
        core.give_thread()


LOOP: Final[Ports] = _LoopPorts()
THREAD: Final[Ports] = _ThreadPorts()
