"""The body of a response on its way from a connection to whoever reads it.

Theory of operation
-------------------
The connection feeds, one reader takes. Beyond HIGH bytes the connection is told to read no more,
and below LOW to go on, so a slow reader holds a bounded piece. `end` and `fail` come once; what
was fed before a failure is still read, so that nobody takes a cut-off body for a whole one.

A body that is dropped unread would hold its connection for ever: `Stream`, which the response owns
and the connection does not know, aborts it when it is collected.
"""

from __future__ import annotations

import asyncio
import contextlib
import warnings
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from headgate.mesh.http.connection import Connection
    from headgate.wire.message import ResponseHead

HIGH: Final = 256 * 1024
LOW: Final = 64 * 1024


class Incoming:
    """A body that has not come whole."""

    __slots__ = (
        "_connection",
        "_failure",
        "_is_paused",
        "loop",
        "_pieces",
        "_waiter",
        "bytes_held",
        "head",
        "is_done",
    )

    def __init__(
        self, loop: asyncio.AbstractEventLoop, connection: Connection, head: ResponseHead
    ) -> None:
        self.loop = loop
        self._connection: Connection | None = connection
        self.head = head
        self._pieces: deque[bytes] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._failure: BaseException | None = None
        self._is_paused = False
        self.bytes_held = 0
        self.is_done = False
        """Nothing more will come."""

    # -- from the connection -------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        self._pieces.append(data)
        self.bytes_held += len(data)
        self._wake()

    def pause_when_full(self) -> None:
        if self.bytes_held > HIGH and not self._is_paused and self._connection is not None:
            self._is_paused = True
            self._connection.pause()

    def end(self) -> None:
        self.is_done = True
        self._connection = None
        self._wake()

    def fail(self, failure: BaseException) -> None:
        if not self.is_done:
            self._failure = failure
            self.end()

    # -- from the reader -----------------------------------------------------------------------

    def drain(self) -> bytes:
        """Everything that has come."""
        whole = b"".join(self._pieces)
        self._pieces.clear()
        self.bytes_held = 0
        return whole

    async def next(self) -> bytes:
        """The next piece; empty at the end."""
        pieces = self._pieces
        while not pieces:
            if self.is_done:
                if self._failure is not None:
                    raise self._failure
                return b""
            if self._waiter is not None:
                raise RuntimeError("this response is being read by another task")
            self._waiter = waiter = self.loop.create_future()
            try:
                await waiter
            finally:
                self._waiter = None
        piece = pieces.popleft()
        self.bytes_held -= len(piece)
        if self._is_paused and self.bytes_held < LOW and self._connection is not None:
            self._is_paused = False
            self._connection.resume()
        return piece

    def abort(self) -> None:
        """Nobody reads on."""
        connection = self._connection
        if connection is not None:
            self.fail(RuntimeError("the response was closed before it was read to its end"))
            connection.cancel()
        self.drain()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


class Stream:
    """A response's hold on its body."""

    __slots__ = ("incoming",)

    def __init__(self, incoming: Incoming) -> None:
        self.incoming = incoming

    def __del__(self) -> None:
        incoming = self.incoming
        if incoming.is_done or incoming.loop.is_closed():
            return
        # The collector may run in any thread.
        with contextlib.suppress(RuntimeError):
            incoming.loop.call_soon_threadsafe(incoming.abort)
        warnings.warn(
            "a streamed response was neither read to its end nor closed",
            ResourceWarning,
            stacklevel=2,
        )
