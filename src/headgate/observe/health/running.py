"""One run of one check: it ends in time, whatever the check does.

Theory of operation
-------------------
A coroutine runs as a task of its own, a plain function on a daemon thread of its own. Whoever waits
stops waiting when the time is over, and the run is told to end: the task is cancelled, a thread
cannot be. A run that goes on all the same is *hung*: as long as it does, the check fails and is not
started again, so that a database which never answers holds one thread and not one more each round.
Threads are daemons: a hung check does not keep the process from ending.

At most `places` threads are taken at once over all checks of one `Runs`. A check that finds no
place in its time fails and says so.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Final

from headgate.observe.health.outcome import (
    Degraded,
    Failing,
    Outcome,
    degraded,
    failing,
    outcome_of,
    said,
)
from headgate.units import format_duration

__all__ = ["PLACES", "Check", "Runs", "is_async"]

Check = Callable[[], Any]
"""Answers None, a bool or an `Outcome`, or an awaitable of one; raises when it fails."""

PLACES: Final = 16
_GRACE_S: Final = 0.05  # a cancelled task may end in order


def is_async(check: Check) -> bool:
    """Whether calling it is quick and gives something to await."""
    if inspect.iscoroutinefunction(check):
        return True
    return inspect.iscoroutinefunction(getattr(check, "__call__", None))  # noqa: B004


def _why(error: BaseException) -> str:
    text = said(error)
    kind = type(error).__name__
    return f"{kind}: {text}" if text else kind


def _fault(error: BaseException) -> Outcome:
    if isinstance(error, Degraded):
        return degraded(str(error) or "degraded")
    if isinstance(error, Failing):
        return failing(str(error) or "failing")
    return failing(_why(error))


class Runs:
    """Where checks run. `hung` says which of them have not come back."""

    def __init__(self, places: int = PLACES) -> None:
        self._places = places
        self._taken = 0
        self._lock = threading.Lock()
        self._hung: dict[str, Callable[[], bool]] = {}

    def is_hung(self, name: str) -> bool:
        """Whether an earlier run of it still goes on."""
        goes_on = self._hung.get(name)
        if goes_on is None:
            return False
        if goes_on():
            return True
        self._hung.pop(name, None)
        return False

    async def run(self, name: str, check: Check, timeout_s: float) -> Outcome:
        """Raises nothing but CancelledError."""
        if self.is_hung(name):
            return failing("an earlier run has not come back; it is not started again")
        if is_async(check):
            return await self._run_task(name, check, timeout_s)
        return await self._run_thread(name, check, timeout_s)

    async def _run_task(self, name: str, check: Check, timeout_s: float) -> Outcome:
        task = asyncio.get_running_loop().create_task(_awaited(check), name=f"check {name}")
        try:
            await asyncio.wait((task,), timeout=timeout_s)
            if not task.done():
                task.cancel()
                await asyncio.wait((task,), timeout=_GRACE_S)
                if not task.done():
                    self._hung[name] = lambda: not task.done()
                    task.add_done_callback(_forget)
                else:
                    _forget(task)
                return failing(f"no answer within {format_duration(timeout_s)}")
        except asyncio.CancelledError:
            task.cancel()
            task.add_done_callback(_forget)
            self._hung[name] = lambda: not task.done()
            raise
        if task.cancelled():
            return failing("it was cancelled from within")
        error = task.exception()
        if error is not None:
            if not isinstance(error, Exception):
                raise error
            return _fault(error)
        return outcome_of(task.result())

    async def _run_thread(self, name: str, check: Check, timeout_s: float) -> Outcome:
        with self._lock:
            is_full = self._taken >= self._places
            self._taken += not is_full
        if is_full:
            return failing(f"no thread is free: {self._places} checks have not come back")
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Outcome] = loop.create_future()
        context = contextvars.copy_context()
        is_over = threading.Event()

        def tell(outcome: Outcome) -> None:
            if not answered.done():
                answered.set_result(outcome)

        def work() -> None:
            try:
                try:
                    answer = context.run(check)
                    if inspect.iscoroutine(answer):
                        answer.close()
                        raise TypeError("a check that awaits is written with async def")
                    found = outcome_of(answer)
                except Exception as error:  # noqa: BLE001 - that is its answer
                    found = _fault(error)
                except BaseException as error:  # noqa: BLE001 - SystemExit on a thread of ours
                    found = failing(_why(error))
            finally:
                is_over.set()
                with self._lock:
                    self._taken -= 1
            try:
                loop.call_soon_threadsafe(tell, found)
            except RuntimeError:
                pass  # the loop has ended before the check did

        thread = threading.Thread(target=work, name=f"check {name}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the system has no more threads
            with self._lock:
                self._taken -= 1
            return failing(_why(error))
        try:
            await asyncio.wait((answered,), timeout=timeout_s)
        finally:
            if not answered.done() and not is_over.is_set():
                self._hung[name] = lambda: not is_over.is_set()
        if answered.done():
            return answered.result()
        answered.cancel()
        return failing(f"no answer within {format_duration(timeout_s)}")


async def _awaited(check: Callable[[], Awaitable[Any]]) -> Any:
    return await check()


def _forget(task: asyncio.Task[Any]) -> None:
    """Nobody waits for it any more; its error is no news."""
    if not task.cancelled():
        task.exception()
