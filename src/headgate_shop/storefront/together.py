"""Several questions at once: all the answers, or the first thing that was raised."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar, overload

__all__ = ["together"]

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")

Asked = Coroutine[Any, Any, A]


@overload
async def together(a: Asked[A], b: Asked[B], /) -> tuple[A, B]: ...
@overload
async def together(a: Asked[A], b: Asked[B], c: Asked[C], /) -> tuple[A, B, C]: ...
@overload
async def together(a: Asked[A], b: Asked[B], c: Asked[C], d: Asked[D], /) -> tuple[A, B, C, D]: ...


async def together(*asked: Asked[Any]) -> tuple[Any, ...]:
    """What one of them raises is raised here as it is, and the others are ended."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one, name="shop.page") for one in asked]
    except BaseExceptionGroup as several:
        first: BaseException = several
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from None
    return tuple(task.result() for task in tasks)
