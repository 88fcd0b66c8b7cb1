"""Names looked up by the system, without the loop's own threads.

The system's resolver cannot be told to stop. A look-up that hangs keeps its thread; here it is a
daemon, one for each name, and whoever asks for the same name meanwhile waits for that one. The
loop's default executor, which the rest of a service lives on, is never taken.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

__all__ = ["addresses_of"]

_under_way: dict[tuple[str, int, int], asyncio.Future[list[str]]] = {}


async def addresses_of(host: str, port: int) -> list[str]:
    """In the order of the system's preference. Raises OSError."""
    loop = asyncio.get_running_loop()
    key = (host, port, id(loop))
    found = _under_way.get(key)
    if found is None:
        found = loop.create_future()
        found.add_done_callback(_seen)
        _under_way[key] = found
        thread = threading.Thread(
            target=_look_up, args=(loop, key, found), name=f"name {host}", daemon=True
        )
        thread.start()
    return await asyncio.shield(found)


def _look_up(
    loop: asyncio.AbstractEventLoop, key: tuple[str, int, int], told: asyncio.Future[list[str]]
) -> None:
    answer: Any
    try:
        rows = socket.getaddrinfo(key[0], key[1], type=socket.SOCK_STREAM)
        answer = list(dict.fromkeys(str(row[4][0]) for row in rows))
    except (OSError, UnicodeError) as error:
        answer = error if isinstance(error, OSError) else OSError("this is no name of a host")

    def tell() -> None:
        _under_way.pop(key, None)
        if told.done():
            return
        if isinstance(answer, OSError):
            told.set_exception(answer)
        else:
            told.set_result(answer)

    try:
        loop.call_soon_threadsafe(tell)
    except RuntimeError:
        _under_way.pop(key, None)


def _seen(future: asyncio.Future[list[str]]) -> None:
    if not future.cancelled():
        future.exception()
