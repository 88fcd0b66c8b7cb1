"""Virtual time: an event loop that does not wait but moves its clock, and a way to cancel a task
at each of its awaits."""

from __future__ import annotations

import asyncio
import selectors
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")


class Time:
    """A clock and a sleep."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    async def sleep_async(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(seconds)

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        with asyncio.Runner(loop_factory=lambda: _Loop(self)) as runner:
            return runner.run(main)


class _Selector(selectors.DefaultSelector):
    def __init__(self, time: Time) -> None:
        super().__init__()
        self._time = time

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            # Nothing is ready and no timer is set: only a thread could still wake us.
            ready = super().select(5.0)
            if not ready:
                raise RuntimeError("everybody waits for ever")
            return ready
        self._time.now += max(0.0, timeout)
        return super().select(0)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self, time: Time) -> None:
        super().__init__(_Selector(time))
        self._time = time

    def time(self) -> float:
        return self._time.now


def cancelled_at(step: int, main: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
    """Run it, and cancel the task just after it has come to wait for the `step`th time."""

    @types.coroutine
    def stepped() -> Generator[Any, Any, T]:
        seen = 0
        error: BaseException | None = None
        while True:
            try:
                waits_for = main.send(None) if error is None else main.throw(error)
            except StopIteration as end:
                return end.value
            seen += 1
            if seen == step:
                task = asyncio.current_task()
                assert task is not None
                asyncio.get_running_loop().call_soon(task.cancel)
            error = None
            try:
                yield waits_for
            except BaseException as caught:
                error = caught

    async def run() -> T:
        return await stepped()

    return run()


async def cancel_at_each_step(
    make: Callable[[], Coroutine[Any, Any, Any]], after: Callable[[], object], most: int = 50
) -> int:
    """Cancel `make()` at its first await, its second, ... until it ends before; `after` checks
    that nothing is left each time. How many awaits there were."""
    for step in range(1, most):
        task = asyncio.get_running_loop().create_task(cancelled_at(step, make()))
        await asyncio.wait((task,))
        after()
        if not task.cancelled():
            task.result()
            return step - 1
    raise AssertionError("it never ended")
