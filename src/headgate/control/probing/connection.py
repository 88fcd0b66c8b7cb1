"""A connection to an instance, for somebody who asks one thing and waits for the answer."""

from __future__ import annotations

import asyncio
from typing import Final

from headgate.errors import UpstreamFailed

__all__ = ["Connection"]

_CLOSE_S: Final = 0.25


class Connection(asyncio.Protocol):
    """Bytes out, pieces in. One task at a time may wait for it.

    Reading is never paused: who waits takes what has come in the next turn of the loop, and who
    has read enough closes.
    """

    def __init__(self) -> None:
        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._held = bytearray()
        self._is_over = False
        self._was_reset = False
        self._waiting: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None
        self.stage = "connected"
        """What is waited for; told when it does not come in time."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # connections of ours are streams

    def data_received(self, data: bytes) -> None:
        self._held += data
        self._wake()

    def eof_received(self) -> bool:
        self._is_over = True
        self._wake()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_over = True
        self._was_reset = isinstance(exc, ConnectionError)
        self._wake()
        if not self._closed.done():
            self._closed.set_result(None)

    def write(self, data: bytes) -> None:
        if data and self._transport is not None:
            self._transport.write(data)

    async def more(self) -> bytes:
        """Wait for the next piece; empty once there will be none. Raise UpstreamFailed("reset")."""
        while not self._held and not self._is_over:
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
        if self._was_reset and not self._held:
            raise UpstreamFailed("reset")
        data = bytes(self._held)
        self._held.clear()
        return data

    async def close(self, *, politely: bool) -> None:
        """End it, and return when it has ended. Politely: over TLS, say so to the instance."""
        transport = self._transport
        if transport is None:
            return
        try:
            if politely and transport.get_extra_info("ssl_object") is not None:
                transport.close()
                await asyncio.wait((self._closed,), timeout=_CLOSE_S)
        finally:
            transport.abort()
        await asyncio.wait((self._closed,), timeout=_CLOSE_S)

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
