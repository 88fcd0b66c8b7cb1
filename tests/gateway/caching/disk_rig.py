"""Responses for the disk, a store that is opened and closed, and ways to wait for its thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from headgate.cache.barriers import Barriers
from headgate.cache.http.stored import Stored
from headgate.cache.http.vary import normal
from headgate.cache.invalidation import Invalidation
from headgate.gateway.caching.disk import DiskStore
from headgate.gateway.caching.disk_place import Place
from headgate.gateway.caching.store import Kept
from headgate.wire.message import Header

__all__ = [
    "MB",
    "WALL",
    "Barriers",
    "DiskStore",
    "Invalidation",
    "file_of",
    "opened",
    "response",
    "until",
    "written",
]

MB = 1024 * 1024
WALL = 1_000_000.0


def response(
    key: str,
    *tags: str,
    body: bytes = b"body",
    stamp: int = 0,
    fields: tuple[Header, ...] = (),
    names: tuple[bytes, ...] = (),
    at: float = WALL,
) -> Kept:
    stored = Stored(
        200,
        b"OK",
        ((b"content-type", b"text/html"), (b"x-raw", b"\xff\x80")),
        received_at=at,
        initial_age_s=0.0,
        fresh_s=60.0,
        etag=b'W/"1"',
        last_modified=5.0,
        vary=normal(names, fields),
        stripped_fields=frozenset({b"set-cookie"}),
        tags=tags,
    )
    return Kept(
        key,
        f"https://h/{key}",
        stored,
        body,
        ((b"x-trailer", b"1"),),
        stamp=stamp,
        keep_until=at + 3600.0,
    )


async def until(holds: Callable[[], Any]) -> None:
    """Wait for a thread to come round to it."""
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def opened(
    where: Path, bytes_max: int = 8 * MB, *, wall: float = WALL
) -> AsyncIterator[tuple[DiskStore, Barriers]]:
    # No bound that a busy machine could reach: what is late is a test of its own.
    store, barriers = (
        DiskStore(where, bytes_max, wall=lambda: wall, deadline_s=20),
        Barriers("responses"),
    )
    await store.start(barriers)
    try:
        yield store, barriers
    finally:
        await store.close()


async def written(store: DiskStore) -> None:
    await until(lambda: store.snapshot().queued == 0)
    # The batch that was taken last is over when the thread answers.
    assert await store.settle()


def file_of(where: Path) -> Path:
    path = Place(where).current()
    assert path is not None
    return path
