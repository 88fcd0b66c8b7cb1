"""Something that is done to its end, also when whoever waits for it is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

__all__ = ["whole"]

T = TypeVar("T")


async def whole(asked: Awaitable[T]) -> T:
    """Wait for it; who is cancelled meanwhile is so when it is done.

    For what must not be cut in two, and has time-outs of its own. Cancelled a second time, it stops
    to wait.
    """

    async def ask() -> T:
        return await asked

    asking = asyncio.get_running_loop().create_task(ask(), name="to the end")
    try:
        return await asyncio.shield(asking)
    except asyncio.CancelledError:
        await asyncio.wait((asking,))
        if not asking.cancelled():
            asking.exception()  # nobody else asks for it
        raise
