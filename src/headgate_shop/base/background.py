"""Work that goes on beside the requests, for as long as a service serves.

Theory of operation
-------------------
A task that is cancelled in the middle of a statement costs a database connection, and may have
been in the middle of something that others wait for. So nothing here is cancelled that would end by
itself: at the end `is_ending` is set and whoever rests is woken; what is under way comes to its
end, and the task sees `is_ending` before it begins anything else. What has not ended after
`grace_s` is cancelled, and what does not end by that either is left behind with a line in the log:
a service ends, whatever its parts do.

That is the one rule for every task of a service. `let_end` is it for tasks of another kind.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection
from types import TracebackType
from typing import Any, ClassVar, Final, Self

from headgate_shop.base.whole import whole

__all__ = ["Background", "Every", "let_end"]

GRACE_S: Final = 8.0
CUT_S: Final = 5.0

log = logging.getLogger("headgate_shop")


class Background(ABC):
    """Runs `_run` in a task of its own while it is entered; give it to `Service.opened`.

    What fails in it is its own affair: a task that has ended by an error does nothing any more.
    """

    task_name: str = "background"
    grace_s: ClassVar[float] = GRACE_S
    _is_ending: bool = False
    _woken: asyncio.Event | None = None
    _ends: asyncio.Event | None = None
    _task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._is_ending = False
        self._woken, self._ends = asyncio.Event(), asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._run(), name=self.task_name)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()
        task, self._task = self._task, None
        others = self._others()
        await whole(let_end((task, *others) if task is not None else others, self.grace_s))

    def end(self) -> None:
        """Tell it to end, without waiting for that: for several at once."""
        self._is_ending = True
        for event in (self._woken, self._ends):
            if event is not None:
                event.set()

    def is_ending(self) -> bool:
        """Begin nothing more. Not an attribute: it changes while one awaits."""
        return self._is_ending

    def wake(self) -> None:
        """There is something to do: end the present rest, or the next one at once."""
        if self._woken is not None:
            self._woken.set()

    async def rest(self, longest_s: float | None = None, *, is_deaf: bool = False) -> None:
        """Until the time is over, or somebody wakes us, or the end comes. Deaf, a waking is left
        for the next rest: for when there is no use in trying before the time is over.
        """
        until = self._ends if is_deaf else self._woken
        if self.is_ending() or until is None:
            return
        try:
            async with asyncio.timeout(longest_s):
                await until.wait()
        except TimeoutError:
            pass
        if not is_deaf:
            until.clear()

    def _others(self) -> Collection[asyncio.Task[Any]]:
        """Tasks besides, which end by themselves too."""
        return ()

    @abstractmethod
    async def _run(self) -> None:
        """Until `is_ending`, which is to be looked at after every rest."""


class Every(Background):
    """Something that is done at the start and then again and again. A failure is logged, once until
    it is over; the next time is tried as ever.
    """

    def __init__(self, task_name: str, every_s: float, act: Callable[[], Awaitable[None]]) -> None:
        self.task_name = task_name
        self._every_s = every_s
        self._act = act

    async def _run(self) -> None:
        is_well = True
        while not self.is_ending():
            try:
                await self._act()
                is_well = True
            except Exception:
                if is_well:
                    log.warning("%s: not done this time", self.task_name, exc_info=True)
                is_well = False
            await self.rest(self._every_s)


async def let_end(tasks: Collection[asyncio.Task[Any]], grace_s: float = GRACE_S) -> None:
    """Wait for tasks that have been told to end. Returns in any case, a little after `grace_s`."""
    if not tasks:
        return
    _, late = await asyncio.wait(tasks, timeout=grace_s)
    if not late:
        return
    for task in late:
        task.cancel()
    _, left = await asyncio.wait(late, timeout=CUT_S)
    for task in left:
        log.error("%s does not end; it is left behind", task.get_name())
