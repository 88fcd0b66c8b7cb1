"""An HTTP/1.1 service that answers with what it received, for demos and for tests.

    async with EchoServer("users") as echo:         # in an event loop
        ...
    with EchoServer("users") as echo:               # from a plain test: runs in a thread of its own
        requests.get(echo.url + "/anything")

What each path answers stands in `_PATHS` at the end of the file; every other path answers with a
JSON description of the request. It is made to be clear and strict, not to be fast: use a real
server as the upstream of a benchmark.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
import ssl
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from headgate.testing.echo_wire import (
    HEAD_MAX,
    PIECE,
    Answer,
    BadRequest,
    Body,
    Head,
    read_head,
    serve_websocket,
)

ECHO_MAX = 64 * 1024
SEEN_MAX = 1000
SIZE_MAX = 1 << 40


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as it arrived; `EchoServer.seen` keeps the newest of them."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    connection: int

    def get(self, name: str) -> str | None:
        values = [value for key, value in self.headers if key == name]
        return ", ".join(values) if values else None


class EchoServer:
    """One echo service on one address; an async context manager and a plain one.

    `port=0` takes a free port; `unix` takes the path of a Unix socket instead. As a plain context
    manager it runs an event loop in a thread of its own, so that blocking tests can use it.
    """

    def __init__(
        self,
        name: str = "echo",
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        unix: str | Path | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.name = name
        self.host, self.port, self.unix, self._tls = host, port, unix, tls
        self.seen: deque[Seen] = deque(maxlen=SEEN_MAX)
        self.connections = 0  # ever accepted; also the number of the newest one
        self._open: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._thread: threading.Thread | None = None
        self._leave: Callable[[], object] = lambda: None

    @property
    def url(self) -> str:
        """Where it answers, as the file names it: `http://host:port` or `unix:/path`."""
        if self.unix is not None:
            return f"unix:{self.unix}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self._tls else 'http'}://{host}:{self.port}"

    @property
    def open_connections(self) -> int:
        return len(self._open)

    # ---- life

    async def start(self) -> None:
        if self.unix is not None:
            self._server = await asyncio.start_unix_server(
                self._serve, str(self.unix), limit=HEAD_MAX, ssl=self._tls
            )
            return
        self._server = await asyncio.start_server(
            self._serve, self.host, self.port, limit=HEAD_MAX, ssl=self._tls, backlog=1024
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close the listener and every connection at once; an echo owes nobody an answer."""
        if self._server is None:
            return
        self._server.close()
        while self._open:  # a connection accepted just before may still start its task
            tasks = list(self._open)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        await self.stop()

    def __enter__(self) -> Self:
        started: threading.Event = threading.Event()
        failed: list[BaseException] = []

        async def live() -> None:
            leave = asyncio.Event()
            loop = asyncio.get_running_loop()
            self._leave = lambda: loop.call_soon_threadsafe(leave.set)
            await self.start()
            started.set()
            await leave.wait()
            await self.stop()

        def thread() -> None:
            try:
                asyncio.run(live())
            except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
                failed.append(error)
            finally:
                started.set()

        self._thread = threading.Thread(target=thread, name=f"echo-{self.name}", daemon=True)
        self._thread.start()
        started.wait()
        if failed:
            raise failed[0]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._leave()
        if self._thread is not None:
            self._thread.join()

    # ---- a connection

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - start_server always runs us in a task
        self._open.add(task)
        self.connections += 1
        try:
            await self._converse(self.connections, reader, writer)
        except (ConnectionError, TimeoutError, ssl.SSLError):
            pass  # the client has gone
        except asyncio.CancelledError:
            # stop() wants the connection gone. asyncio reports a cancelled handler as an error
            # (bpo-31033), so the cancellation ends here, at the top of the task.
            pass
        finally:
            self._open.discard(task)
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _converse(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        is_last = False
        while not is_last:
            try:
                head = await read_head(reader)
                if head is None:
                    return
                self.seen.append(Seen(head.method, head.target, head.headers, number))
                body = Body(head, reader, writer)
                answer = Answer(head, writer, self.name)
                turn = _Turn(self, head, body, answer, reader, writer, number)
                is_last = not await _answer(turn) or answer.is_last
                if is_last or body.is_awaited:
                    return
                await body.drain()
            except BadRequest as fault:
                text = json.dumps({"service": self.name, "error": str(fault)}).encode() + b"\n"
                refusal = Answer(Head("GET", "/", "HTTP/1.1", ()), writer, self.name)
                refusal.is_last = is_last = True
                await refusal.whole(fault.status, text, "application/json")


# ---- what the paths answer


@dataclass(slots=True)
class _Turn:
    server: EchoServer
    head: Head
    body: Body
    answer: Answer
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    number: int


async def _answer(turn: _Turn) -> bool:
    """Answer one request; False when the connection cannot go on."""
    for pattern, respond in _PATHS:
        if match := pattern.fullmatch(turn.head.path):
            return await respond(turn, *match.groups())
    return await _describe(turn)


async def _describe(turn: _Turn, status: int = 200) -> bool:
    digest, kept = hashlib.sha256(), bytearray()
    async for piece in turn.body.pieces():
        digest.update(piece)
        if len(kept) <= ECHO_MAX:
            kept += piece
    peer = turn.writer.get_extra_info("peername")
    headers: dict[str, str] = {}
    for name, value in turn.head.headers:
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    said: dict[str, object] = {
        "service": turn.server.name,
        "method": turn.head.method,
        "path": turn.head.path,
        "query": turn.head.query,
        "headers": headers,
        "body_bytes": turn.body.count,
        "client": f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "unix",
        "connection": turn.number,
    }
    if turn.body.trailers:
        said["trailers"] = dict(turn.body.trailers)
    if 0 < turn.body.count <= ECHO_MAX:
        said["body"] = kept.decode("utf-8", "replace")
    elif turn.body.count:
        said["body_sha256"] = digest.hexdigest()
    text = json.dumps(said, indent=2).encode() + b"\n"
    await turn.answer.whole(status, text, "application/json")
    return True


async def _delay(turn: _Turn, seconds: str) -> bool:
    await asyncio.sleep(float(seconds))
    return await _describe(turn)


async def _status(turn: _Turn, code: str) -> bool:
    status = int(code)
    if not 200 <= status <= 599:
        raise BadRequest(f"{code} is no final status")
    return await _describe(turn, status)


async def _bytes(turn: _Turn, count: str) -> bool:
    left = int(count)
    if left > SIZE_MAX:
        raise BadRequest("more than a terabyte")
    turn.answer.start(200, {"content-type": "application/octet-stream"}, left)
    piece = bytes(range(256)) * (PIECE // 256)
    while left and turn.head.method != "HEAD":
        await turn.answer.send(piece[: min(left, PIECE)])
        left -= min(left, PIECE)
    await turn.answer.end()
    return True


async def _stream(turn: _Turn, count: str) -> bool:
    tick_s = turn.head.argument("tick", 0.1)
    turn.answer.start(200, {"content-type": "text/plain; charset=utf-8"})
    for number in range(int(count)):
        if number:
            await asyncio.sleep(tick_s)
        await turn.answer.send(b"piece %d\n" % number)
    await turn.answer.end()
    return True


async def _sse(turn: _Turn) -> bool:
    tick_s, count = turn.head.argument("tick", 1.0), int(turn.head.argument("n", 5))
    headers = {"content-type": "text/event-stream", "cache-control": "no-cache"}
    turn.answer.start(200, headers)
    for number in range(count):
        if number:
            await asyncio.sleep(tick_s)
        await turn.answer.send(b'id: %d\nevent: tick\ndata: {"n": %d}\n\n' % (number, number))
    await turn.answer.end()
    return True


async def _drip(turn: _Turn, count: str) -> bool:
    tick_s = turn.head.argument("tick", 0.1)
    turn.answer.start(200, {"content-type": "text/plain"}, int(count))
    for number in range(int(count)):
        if number:
            await asyncio.sleep(tick_s)
        await turn.answer.send(b"%d" % (number % 10))
    await turn.answer.end()
    return True


async def _upload(turn: _Turn) -> bool:
    digest = hashlib.sha256()
    async for piece in turn.body.pieces():
        digest.update(piece)
    said = {"bytes": turn.body.count, "sha256": digest.hexdigest()}
    await turn.answer.whole(200, json.dumps(said).encode() + b"\n", "application/json")
    return True


async def _close(turn: _Turn) -> bool:
    return False


async def _health(turn: _Turn) -> bool:
    await turn.answer.whole(200, b'{"status": "up"}\n', "application/json")
    return True


async def _websocket(turn: _Turn) -> bool:
    if not turn.head.lists("upgrade", "websocket"):
        raise BadRequest("/ws wants a WebSocket handshake", 426)
    await serve_websocket(turn.head, turn.reader, turn.writer)
    return False


_PATHS: tuple[tuple[re.Pattern[str], Callable[..., Awaitable[bool]]], ...] = (
    (re.compile(r"/delay/([0-9]{1,4}(?:\.[0-9]{1,6})?)"), _delay),  # the description, later
    (re.compile(r"/status/([0-9]{3})"), _status),  # the description, with this status
    (re.compile(r"/bytes/([0-9]{1,13})"), _bytes),  # so many bytes, with Content-Length
    (re.compile(r"/stream/([0-9]{1,6})"), _stream),  # chunked, one piece a tick (?tick=0.1)
    (re.compile(r"/drip/([0-9]{1,6})"), _drip),  # Content-Length, one byte a tick
    (re.compile(r"/sse"), _sse),  # server-sent events (?n=5&tick=1)
    (re.compile(r"/upload"), _upload),  # counts and hashes a body of any size
    (re.compile(r"/close"), _close),  # closes without an answer
    (re.compile(r"/health(?:/ready|/live)?"), _health),
    (re.compile(r"/ws"), _websocket),  # sends every WebSocket frame back
)
