"""Whether a connection begins with TLS, told from its first byte, which stays where it is.

A TLS client speaks first, with a handshake record, whose type is 22 (RFC 8446 5.1); no method of
HTTP/1 and not the preface of HTTP/2 begins with that. So one port can serve both.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final

__all__ = ["begins_with_tls"]

_HANDSHAKE: Final = b"\x16"


async def begins_with_tls(sock: socket.socket, timeout_s: float) -> bool | None:
    """What a freshly accepted, non-blocking socket begins with; None where nothing came in time, or
    where it broke. The socket stays the caller's.
    """
    loop = asyncio.get_running_loop()
    told: asyncio.Future[bool | None] = loop.create_future()

    def say(found: bool | None) -> None:
        if not told.done():
            told.set_result(found)

    def look() -> None:
        try:
            first = sock.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            say(None)
        else:
            say(first == _HANDSHAKE if first else None)

    late = loop.call_later(timeout_s, say, None)
    loop.add_reader(sock.fileno(), look)
    try:
        return await told
    finally:
        late.cancel()
        loop.remove_reader(sock.fileno())
