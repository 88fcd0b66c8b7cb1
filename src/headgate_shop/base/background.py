"""Work that goes on beside the requests, for as long as a service serves."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from types import TracebackType
from typing import ClassVar, Self

__all__ = ["Background"]


class Background(ABC):
    """Runs `_run` in a task of its own while it is entered; give it to `Service.opened`.

    It is cancelled at the end, and waited for, so that nothing of it outlives the service. What
    fails in it is its own affair: a task that has ended by an error does nothing any more.
    """

    task_name: ClassVar[str]
    _task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.get_running_loop().create_task(self._run(), name=self.task_name)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    @abstractmethod
    async def _run(self) -> None:
        """Until it is cancelled."""
