"""How a server of a test stops listening with nothing left open behind it."""

from __future__ import annotations

import asyncio
from typing import Final

__all__ = ["stop_listening"]

TURNS: Final = 6
"""Of the loop, from a connection accepted to its callback begun: three of them as of Python 3.13."""


async def stop_listening(server: asyncio.Server) -> None:
    """Accept nothing more, and close when what was accepted has begun to be served.

    Before Python 3.12 a connection that has been accepted when its server is closed, but has no
    transport yet, is lost with its socket open; the warning of that fails a test anywhere. And a
    callback that is cancelled before it has begun closes nothing.
    """
    loop = server.get_loop()
    for sock in server.sockets:
        loop.remove_reader(sock.fileno())
    for _ in range(TURNS):
        await asyncio.sleep(0)
    server.close()
