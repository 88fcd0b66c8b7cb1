"""Messages that are handled several at a time, in one transaction, each as safely as by itself.

Theory of operation
-------------------
What a handler writes costs a transaction and a dozen statements, whether it is for one message or
for fifty. So `add` waits, with its message, for `gather_s` and for what else comes meanwhile;
`handle` does them all, and each `add` returns when that is on the disk. Until then the queue holds
every one of them as in flight: a process that is killed has done all of them or none.

When `handle` fails, each message is handled by itself, so that what is wrong with one is told of it
alone. Subscribe with a `concurrency` of several, or there is nothing to gather.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from headgate_shop.base.background import Background
from headgate_shop.queue.message import Message

__all__ = ["Together"]

MOST: Final = 64


class Together(Background):
    """Handles while it is entered: enter it before the queue, so that it ends after it."""

    def __init__(
        self,
        task_name: str,
        gather_s: float,
        handle: Callable[[Sequence[Message]], Awaitable[None]],
    ) -> None:
        self.task_name = task_name
        self._gather_s = gather_s
        self._handle = handle
        self._waiting: list[tuple[Message, asyncio.Future[None]]] = []

    async def add(self, message: Message) -> None:
        """Returns when it is done; raises what went wrong with it."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((message, done))
        self.wake()
        await done

    async def _run(self) -> None:
        while not self.is_ending():
            if not self._waiting:
                await self.rest()
            if len(self._waiting) < MOST:
                await self.rest(self._gather_s, is_deaf=True)
            some, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
            # Who has gone away meanwhile has lost the message to somebody else.
            some = [(message, done) for message, done in some if not done.done()]
            if some:
                await self._all(some)

    async def _all(self, some: Sequence[tuple[Message, asyncio.Future[None]]]) -> None:
        try:
            await self._handle([message for message, _ in some])
        except Exception as error:  # noqa: BLE001 - told to whoever waits
            if len(some) == 1:
                _settle(some[0][1], error)
                return
            for one in some:
                await self._all([one])
            return
        for _, done in some:
            _settle(done, None)


def _settle(done: asyncio.Future[None], error: Exception | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)
