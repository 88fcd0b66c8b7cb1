"""Requests from code that is not async, over any sender."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self

from headgate.mesh.http.blocking import LoopThread, loop_thread
from headgate.mesh.http.sender import Direct

if TYPE_CHECKING:
    from headgate.mesh.http.exchange import Timeouts
    from headgate.mesh.http.headers import Headers
    from headgate.mesh.http.response import Response
    from headgate.mesh.http.sender import Sender
    from headgate.wire.message import Header


class BlockingClient:
    """The same as its sender, for threads. May be shared by them."""

    def __init__(self, sender: Sender | None = None) -> None:
        self._sender = sender or Direct()
        self._thread: LoopThread | None = None

    def send(
        self,
        origin: str,
        method: str,
        target: bytes,
        headers: Sequence[Header] = (),
        body: bytes | Iterable[bytes] | None = None,
        *,
        deadline: float | None = None,
        timeouts: Timeouts | None = None,
        stream: bool = False,
    ) -> BlockingResponse:
        """As `Sender.send`. An iterable of bytes is read in the calling thread."""
        thread = self._loop_thread()
        if body is None or isinstance(body, bytes):
            got = thread.run(
                self._sender.send(
                    origin,
                    method,
                    target,
                    headers,
                    body,
                    deadline=deadline,
                    timeouts=timeouts,
                    stream=stream,
                )
            )
        else:
            got = self._send_pieces(
                thread, body, origin, method, target, headers, deadline, timeouts, stream=stream
            )
        return BlockingResponse(got, thread)

    def close(self) -> None:
        self._loop_thread().run(self._sender.aclose())

    async def aclose(self) -> None:
        """In the loop's own thread; `close` is for all others."""
        await self._sender.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _loop_thread(self) -> LoopThread:
        thread = loop_thread()
        if thread is not self._thread:
            # The first call, or the first in the child of a fork.
            self._thread = thread
            thread.users.add(self)
        return thread

    def _send_pieces(
        self,
        thread: LoopThread,
        body: Iterable[bytes],
        origin: str,
        method: str,
        target: bytes,
        headers: Sequence[Header],
        deadline: float | None,
        timeouts: Timeouts | None,
        *,
        stream: bool,
    ) -> Response:
        handing = Handing()

        async def start() -> asyncio.Task[Response]:
            task = asyncio.get_running_loop().create_task(
                self._sender.send(
                    origin,
                    method,
                    target,
                    headers,
                    handing,
                    deadline=deadline,
                    timeouts=timeouts,
                    stream=stream,
                )
            )
            # However the call ends, nobody takes pieces any more.
            task.add_done_callback(lambda _: handing.close())
            return task

        async def answer(task: asyncio.Task[Response]) -> Response:
            try:
                return await task
            except asyncio.CancelledError:
                task.cancel()
                raise

        task = thread.run(start())
        try:
            for piece in body:
                if not thread.run(handing.put(piece)):
                    break
            else:
                thread.submit(handing.finish)
        except BaseException:
            thread.submit(task.cancel)
            raise
        return thread.run(answer(task))


class Handing:
    """A body's pieces from one thread to the loop, one at a time."""

    def __init__(self) -> None:
        self._piece: bytes | None = None
        self._is_closed = False
        self._is_whole = False
        self._changed: asyncio.Future[None] | None = None

    async def put(self, piece: bytes) -> bool:
        """Hand a piece over and wait until it is taken; False if nobody wants any more."""
        if piece:
            self._piece = piece
        self._tell()
        while self._piece is not None and not self._is_closed:
            await self._change()
        return not self._is_closed

    def finish(self) -> None:
        """That was all."""
        self._is_whole = True
        self._tell()

    async def aclose(self) -> None:
        self.close()

    def close(self) -> None:
        self._is_closed = True
        self._tell()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while self._piece is None:
            if self._is_closed or self._is_whole:
                raise StopAsyncIteration
            await self._change()
        piece, self._piece = self._piece, None
        self._tell()
        return piece

    async def _change(self) -> None:
        if self._changed is None:
            self._changed = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._changed)

    def _tell(self) -> None:
        changed, self._changed = self._changed, None
        if changed is not None and not changed.done():
            changed.set_result(None)


class BlockingResponse:
    """A response read without `await`."""

    def __init__(self, response: Response, thread: LoopThread) -> None:
        self._response = response
        self._thread = thread

    @property
    def status(self) -> int:
        return self._response.status

    @property
    def reason(self) -> str:
        return self._response.reason

    @property
    def name(self) -> str:
        return self._response.name

    @property
    def headers(self) -> Headers:
        return self._response.headers

    @property
    def raw_headers(self) -> tuple[Header, ...]:
        return self._response.raw_headers

    @property
    def raw_content(self) -> bytes | None:
        return self._response.raw_content

    @property
    def content(self) -> bytes:
        return self._response.content

    @property
    def text(self) -> str:
        return self._response.text

    @property
    def is_success(self) -> bool:
        return self._response.is_success

    @property
    def is_error(self) -> bool:
        return self._response.is_error

    def json(self) -> Any:
        return self._response.json()

    def raise_for_status(self) -> Self:
        self._response.raise_for_status()
        return self

    def read(self, bytes_max: float | None = None) -> bytes:
        return self._thread.run(self._response.read(bytes_max))

    def iter_raw(self) -> Iterator[bytes]:
        """The body as it comes, still encoded."""
        return self._iterate(self._response.aiter_raw())

    def iter_bytes(self) -> Iterator[bytes]:
        """The body as it comes, decoded."""
        return self._iterate(self._response.aiter_bytes())

    def close(self) -> None:
        """End it. A connection that has not delivered the whole body is closed."""
        if self._response.raw_content is None:
            self._thread.run(self._response.aclose())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _iterate(self, pieces: AsyncGenerator[bytes, None]) -> Iterator[bytes]:
        async def one() -> bytes | None:
            return await anext(pieces, None)

        try:
            while (piece := self._thread.run(one())) is not None:
                yield piece
        finally:
            self._thread.run(pieces.aclose())

    def __repr__(self) -> str:
        return repr(self._response)
