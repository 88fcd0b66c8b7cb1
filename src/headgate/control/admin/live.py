"""Live views: Server-Sent Events that a slow reader cannot make expensive.

Theory of operation
-------------------
    source --pump--> waiting (bounded) --send--> the client

The source runs as fast as it likes. What the client has not taken yet waits, up to a bound; beyond
it the oldest goes, and the client is told how many went by an event `dropped` before the next one.
A source that is `paced` is asked for more only when the client has taken what came before: it
bounds what waits itself, and nothing is dropped here. If it can be given a way straight to the
socket (`attach`), it may use it while nothing it has yielded is on its way: so what goes to
thousands at once costs a write each, and no task is woken.
A client that takes nothing at all for `STALL_S` is cut off. While nothing happens a comment is sent
now and then, so that proxies keep the connection and a client that has gone is noticed.

A client that comes back sends the id of the last event it saw; `stream` hands it to the source, if
that is a function. A stream ends after an hour at the latest and the client comes back by itself:
so a token that was withdrawn meanwhile is found out. All end when control ends.

On the wire: the format of the HTML standard, section 9.2.6.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from headgate.control.admin.problem import Problem

__all__ = ["Event", "Streams", "encode", "last_event_id", "stream", "streams_of"]

HEARTBEAT_S: Final = 15.0
STALL_S: Final = 60.0
LIFETIME_S: Final = 3600.0
RETRY_MS: Final = 3000
WAITING_MAX: Final = 500
WAITING_BYTES: Final = 1024 * 1024
STREAMS_MAX: Final = 64

log = logging.getLogger("headgate.control")


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `data` is text, or what JSON can hold."""

    data: Any
    event: str = ""
    """Its kind; the client's `message` if empty."""
    id: str = ""
    """What the client says it saw last when it comes back."""
    retry_ms: int | None = None


Source = AsyncIterator["Event | bytes"]


def encode(event: Event) -> bytes:
    lines: list[str] = []
    if event.retry_ms is not None:
        lines.append(f"retry: {event.retry_ms}")
    if event.event:
        lines.append(f"event: {_one_line(event.event)}")
    if event.id:
        lines.append(f"id: {_one_line(event.id)}")
    text = event.data
    if not isinstance(text, str):
        text = json.dumps(text, separators=(",", ":"), default=str)
    # Any of the three ends of line ends a field, so text with them is several fields.
    for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        lines.append(f"data: {line}")
    return ("\n".join(lines) + "\n\n").encode("utf-8", "replace")


def _one_line(text: str) -> str:
    """A NUL in an id makes a client ignore it; an end of line would begin another field."""
    return text.translate({10: " ", 13: " ", 0: " "})


def last_event_id(request: Request) -> str:
    """Where a client that comes back left off. Browsers send the header; a new tab cannot."""
    found = request.headers.get("last-event-id") or request.query_params.get("last_event_id", "")
    return found[:200]


class Streams:
    """All streams of a control process: their number, and their end."""

    def __init__(self, most: int = STREAMS_MAX) -> None:
        self._most = most
        self._ends: set[asyncio.Event] = set()
        self._is_closed = False
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._ends)

    @property
    def is_full(self) -> bool:
        return self._is_closed or len(self._ends) >= self._most

    @contextlib.contextmanager
    def seat(self) -> Any:
        end = asyncio.Event()
        if self._is_closed:
            end.set()
        self._ends.add(end)
        try:
            yield end
        finally:
            self._ends.discard(end)

    def close(self) -> None:
        """End all, and let none begin."""
        self._is_closed = True
        for end in self._ends:
            end.set()


def streams_of(request: Request) -> Streams:
    """Those of the app; made when it has none, as in a test of one endpoint."""
    state = request.app.state
    if not hasattr(state, "streams"):
        state.streams = Streams()
    found: Streams = state.streams
    return found


def stream(
    request: Request,
    source: Source | Callable[[str], Source],
    *,
    heartbeat_s: float = HEARTBEAT_S,
    stall_s: float = STALL_S,
    lifetime_s: float = LIFETIME_S,
    retry_ms: int = RETRY_MS,
    waiting: int = WAITING_MAX,
    headers: Mapping[str, str] | None = None,
    streams: Streams | None = None,
    is_paced: bool = False,
) -> Response:
    """An endpoint's answer: all that `source` yields, as it comes.

    `source` is an async iterator, or a function that makes one from the id of the last event that
    the client saw ("" at first). It is closed when the client goes. Bytes are sent as they are.
    `streams` are those that it is counted among, if not with all live views.
    """
    if streams is None:
        streams = streams_of(request)
    if streams.is_full:
        raise Problem(
            HTTPStatus.SERVICE_UNAVAILABLE, "as many live views as there may be are open already"
        )
    made = source(last_event_id(request)) if callable(source) else source
    return _Stream(
        streams,
        made,
        heartbeat_s,
        stall_s,
        lifetime_s,
        retry_ms,
        waiting,
        dict(headers or {}),
        is_paced=is_paced,
    )


class _Stream(Response):
    media_type = "text/event-stream"

    def __init__(
        self,
        streams: Streams,
        source: Source,
        heartbeat_s: float,
        stall_s: float,
        lifetime_s: float,
        retry_ms: int,
        waiting: int,
        headers: dict[str, str],
        *,
        is_paced: bool,
    ) -> None:
        # Proxies that gather answers (nginx) are asked not to.
        own = {"cache-control": "no-store", "x-accel-buffering": "no", **headers}
        self.status_code = 200
        self.background = None
        self.body = b""
        self.init_headers(own)
        self.raw_headers = [pair for pair in self.raw_headers if pair[0] != b"content-length"]
        self._streams = streams
        self._source = source
        self._heartbeat_s = heartbeat_s
        self._stall_s = stall_s
        self._lifetime_s = lifetime_s
        self._retry_ms = retry_ms
        self._most = max(1, waiting)
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._lost = 0
        self._news = asyncio.Event()
        self._taken = asyncio.Event()
        self._is_paced = is_paced
        self._is_over = False
        self._is_open = False
        """The body has begun and not ended."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state = scope.get("state", {})
        if (is_live := state.get("is_live")) is not None:
            is_live()
        if state.get("is_head"):
            await Response(headers=dict(self.headers))(scope, receive, send)
            return
        loop = asyncio.get_running_loop()
        self._attach(scope)
        with self._streams.seat() as end:
            beside = [
                loop.create_task(self._pump(), name="live source"),
                loop.create_task(self._listen(receive), name="live client"),
                loop.create_task(self._wait_end(end), name="live end"),
            ]
            lifetime = asyncio.timeout(self._lifetime_s)
            try:
                async with lifetime:
                    await self._send_all(send)
            except TimeoutError:
                self._is_open = False
                if not lifetime.expired():
                    # It takes nothing. What is in its buffers will never leave; nor will the
                    # connection, unless it is cut.
                    abort = state.get("abort")
                    if abort is not None:
                        abort()
                    return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(1):
                        await send({"type": "http.response.body", "body": b""})
            finally:
                self._is_open = False
                for task in beside:
                    task.cancel()
                await asyncio.gather(*beside, return_exceptions=True)
                close = getattr(self._source, "aclose", None)
                if close is not None:
                    with contextlib.suppress(Exception):
                        await close()

    def _attach(self, scope: Scope) -> None:
        attach = getattr(self._source, "attach", None)
        push: Callable[[bytes], bool] | None = scope.get("state", {}).get("push")
        if attach is None or push is None or scope.get("http_version") != "1.1":
            return  # before 1.1 a body has no pieces
        attach(lambda part: self._is_open and push(part))

    async def _send_all(self, send: Send) -> None:
        await send(
            {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        )
        await self._give(send, f"retry: {self._retry_ms}\n\n".encode())
        self._is_open = True
        while True:
            if self._lost:
                lost, self._lost = self._lost, 0
                await self._give(send, encode(Event({"count": lost}, "dropped")))
            while self._waiting:
                part = self._waiting.popleft()
                self._bytes -= len(part)
                await self._give(send, part)
                self._taken.set()
                if self._lost:
                    break
            if self._waiting or self._lost:
                continue
            if self._is_over:
                break
            try:
                async with asyncio.timeout(self._heartbeat_s):
                    await self._news.wait()
            except TimeoutError:
                await self._give(send, b": alive\n\n")
            self._news.clear()
        self._is_open = False
        await send({"type": "http.response.body", "body": b""})

    async def _give(self, send: Send, part: bytes) -> None:
        async with asyncio.timeout(self._stall_s):
            await send({"type": "http.response.body", "body": part, "more_body": True})

    async def _pump(self) -> None:
        try:
            async for found in self._source:
                part = found if isinstance(found, bytes) else encode(found)
                self._waiting.append(part)
                self._bytes += len(part)
                while len(self._waiting) > self._most or (
                    self._bytes > WAITING_BYTES and len(self._waiting) > 1
                ):
                    self._bytes -= len(self._waiting.popleft())
                    self._lost += 1
                    self._streams.dropped += 1
                self._news.set()
                if self._is_paced:
                    await self._taken.wait()
                    self._taken.clear()
        except Exception:
            said = {"message": "the source of this view broke; the log of control has more"}
            self._waiting.append(encode(Event(said, "error")))
            log.exception("a live view broke")
        self._is_over = True
        self._news.set()

    async def _listen(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._leave()

    async def _wait_end(self, end: asyncio.Event) -> None:
        await end.wait()
        self._leave()

    def _leave(self) -> None:
        self._waiting.clear()
        self._bytes = 0
        self._lost = 0
        self._is_over = True
        self._news.set()
