"""A queue with two groups, and a handler that remembers what it was given."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from headgate_shop.queue import Backoff, Message, Queue, open_queue

GROUPS = {"made": ("kitchen", "books"), "sent": ("kitchen",), "lost": ("kitchen",)}
PATIENCE_S = 30.0


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A test that is a coroutine function, run in a loop of its own."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


def queue_at(url: str, service: str = "kitchen", **options) -> Queue:
    options.setdefault("backoff", Backoff(0.01, 0.05))
    return open_queue(url, service=service, groups=GROUPS, **options)


class Heard:
    """`act` may fail, wait or look; a message counts once that has ended well."""

    def __init__(self, act: Callable[[Message], Awaitable[None]] | None = None) -> None:
        self.tries: list[Message] = []
        self.messages: list[Message] = []
        self._act = act
        self._more = asyncio.Event()

    async def __call__(self, message: Message) -> None:
        self.tries.append(message)
        self._more.set()
        if self._act is not None:
            await self._act(message)
        self.messages.append(message)
        self._more.set()

    @property
    def ids(self) -> list[str]:
        return [message.id for message in self.messages]

    async def until(self, count: int) -> None:
        await self._until(lambda: len(self.messages) >= count)

    async def until_tried(self, count: int) -> None:
        await self._until(lambda: len(self.tries) >= count)

    async def _until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not is_so():
                self._more.clear()
                await self._more.wait()


async def figures(queue: Queue, group: str = "kitchen") -> dict:
    """The figures of one group."""
    document = (await queue.stats()).document()
    return next(one for one in document["groups"] if one["group"] == group)


async def until(queue: Queue, group: str = "kitchen", **wanted: int) -> None:
    """Wait until the figures of a group are these."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = await figures(queue, group)
            if all(found[name] == value for name, value in wanted.items()):
                return
            await asyncio.sleep(0.01)
