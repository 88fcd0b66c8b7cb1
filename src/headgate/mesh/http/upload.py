"""A request's body while it is being sent, in pieces as fast as the instance takes them.

Theory of operation
-------------------
A body at hand that is too large for one write goes out by callbacks: a slice, and the next when
the transport has room again. One that the caller makes as it goes is sent by a task, since only a
task can wait for the caller's next piece while a response, a deadline or a reset may come; it runs
in the caller's context and ends with its exchange.

While it is the instance that is waited for, its silence is limited; while it is the caller's next
piece, only the call's own deadline is.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from headgate.mesh.http.request import CHUNKED
from headgate.wire.http1.body import chunk, last_chunk

if TYPE_CHECKING:
    from collections.abc import AsyncIterable

    from headgate.mesh.http.connection import Connection
    from headgate.mesh.http.exchange import Exchange

LARGE: Final = 16 * 1024
"""From here on a write of pieces is cheaper than joining them."""
SLICE: Final = 128 * 1024
WHOLE: Final = 2 * SLICE
"""Up to here a body is written at once."""


class Slices:
    """A body at hand."""

    __slots__ = ("_at", "_body", "_connection")

    def __init__(self, connection: Connection, body: bytes) -> None:
        self._connection = connection
        self._body = memoryview(body)
        self._at = 0

    def on_writable(self) -> None:
        conn = self._connection
        body = self._body
        while self._at < len(body):
            if conn.is_unwritable or conn.is_closing:
                return
            conn.transport.write(body[self._at : self._at + SLICE])
            self._at += SLICE
        conn.upload_ended()

    def end(self) -> None:
        """The exchange is over."""
        self._at = len(self._body)


class Pump:
    """A body that the caller makes as it goes."""

    __slots__ = ("_chunking", "_chunks", "_connection", "_ex", "_left", "_task", "_writable")

    def __init__(
        self,
        connection: Connection,
        ex: Exchange,
        chunks: AsyncIterable[bytes],
        tasks: set[asyncio.Task[None]],
        name: str,
    ) -> None:
        self._connection = connection
        self._ex = ex
        self._chunks = chunks
        self._chunking = ex.length == CHUNKED
        self._left = ex.length
        self._writable: asyncio.Future[None] | None = None
        self._task = ex.loop.create_task(self._send(), name=f"body to {name}", context=ex.context)
        tasks.add(self._task)
        self._task.add_done_callback(tasks.discard)

    def on_writable(self) -> None:
        writable = self._writable
        if writable is not None and not writable.done():
            writable.set_result(None)

    def end(self) -> None:
        """The exchange is over."""
        if self._task is not asyncio.current_task():
            self._task.cancel()

    async def _send(self) -> None:
        conn, ex = self._connection, self._ex
        try:
            async for piece in self._chunks:
                if conn.exchange is not ex:
                    return
                if piece:
                    self._write(piece)
                if conn.is_unwritable:
                    await self._wait_writable()
            if conn.exchange is ex:
                self._finish()
        except Exception as error:  # noqa: BLE001 - the caller's own, which it gets back
            conn.upload_failed(ex, error)
        finally:
            aclose = getattr(self._chunks, "aclose", None)
            if aclose is not None:
                await aclose()

    def _write(self, given: object) -> None:
        piece = given
        if not isinstance(piece, bytes):
            if not isinstance(piece, bytearray | memoryview):
                raise TypeError(f"a body must be made of bytes, not {type(piece).__name__}")
            piece = bytes(piece)  # the caller may go on writing into it
        transport = self._connection.transport
        if not self._chunking:
            self._left -= len(piece)
            if self._left < 0:
                raise ValueError("the body is longer than its content-length")
            transport.write(piece)
            if not self._left:
                # The instance may answer before the caller's iterator says that this was all.
                self._connection.request_sent()
        elif len(piece) < LARGE:
            transport.write(chunk(piece))
        else:
            transport.writelines([b"%x\r\n" % len(piece), piece, b"\r\n"])

    def _finish(self) -> None:
        if self._chunking:
            self._connection.transport.write(last_chunk())
        elif self._left:
            raise ValueError("the body is shorter than its content-length")
        self._connection.upload_ended()

    async def _wait_writable(self) -> None:
        self._writable = writable = self._ex.loop.create_future()
        try:
            await writable
        finally:
            self._writable = None


Upload = Slices | Pump
