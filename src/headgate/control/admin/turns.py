"""What services send is read one at a time.

A body of some megabytes takes a second of a processor. Several at once would share the interpreter
with each other and with the loop, which then answers late whatever is asked; so they wait for each
other, and when many wait already the next is told to come again, as OTLP knows it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, TypeVar

from headgate.control.admin.problem import Problem

__all__ = ["Turns"]

_WAITING: Final = 8
T = TypeVar("T")


class Turns:
    def __init__(self, most: int = _WAITING) -> None:
        self._most = most
        self._waiting = 0
        self._place = asyncio.Semaphore(1)

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """The work on a thread, when it is its turn; a Problem where too many wait."""
        if self._waiting >= self._most:
            raise Problem(503, "too much is sent at once; send it again later")
        self._waiting += 1
        try:
            async with self._place:
                return await asyncio.to_thread(work, *arguments)
        finally:
            self._waiting -= 1
