"""Servers in the test's own loop: one request of ASGI or WSGI, piece by piece, and a lifespan."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")

HERE = ("127.0.0.1", 40_000)
STRANGER = ("203.0.113.9", 40_000)


@dataclass
class Answer:
    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    pieces: int = 0
    is_complete: bool = False

    def __getitem__(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def json(self) -> Any:
        return json.loads(self.body)


def scope_of(
    method: str = "GET",
    path: str = "/",
    headers: Sequence[tuple[str, str]] = (),
    client: tuple[str, int] | None = HERE,
    **more: Any,
) -> dict[str, Any]:
    path, _, query = path.partition("?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers],
        "client": client,
        "server": ("test", 80),
        **more,
    }


async def ask(
    app: Any,
    method: str = "GET",
    path: str = "/",
    headers: Sequence[tuple[str, str]] = (),
    body: bytes | Sequence[bytes] = b"",
    leaves: asyncio.Event | None = None,
    answer: Answer | None = None,
    **more: Any,
) -> Answer:
    """One request. `leaves` is set when the client goes; pieces of `body` come one by one."""
    pieces = [body] if isinstance(body, bytes) else list(body)
    sent = 0
    answer = Answer() if answer is None else answer
    forever = asyncio.Event()

    async def receive() -> dict[str, Any]:
        nonlocal sent
        if sent < len(pieces):
            sent += 1
            return {
                "type": "http.request",
                "body": pieces[sent - 1],
                "more_body": sent < len(pieces),
            }
        await (leaves or forever).wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            assert not answer.status, "a response begins once"
            answer.status = message["status"]
            answer.headers = [
                (name.decode(), value.decode("latin-1")) for name, value in message["headers"]
            ]
        elif message["type"] == "http.response.body":
            assert answer.status, "the head comes first"
            assert not answer.is_complete, "nothing comes after the end"
            answer.body += message.get("body", b"")
            answer.pieces += 1
            answer.is_complete = not message.get("more_body", False)

    await app(scope_of(method, path, headers, **more), receive, send)
    return answer


class SteppedLoop(asyncio.SelectorEventLoop):
    """A loop whose time does not pass by itself: it is as late as the next timer, at once."""

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__()

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        scheduled: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        if not self._ready and scheduled:  # type: ignore[attr-defined]
            self._now = max(self._now, scheduled[0].when())
        super()._run_once()  # type: ignore[misc]


def run_stepped(work: Coroutine[Any, Any, T]) -> T:
    """As `asyncio.run`, and nobody waits for any timer."""
    with asyncio.Runner(loop_factory=SteppedLoop) as runner:
        return runner.run(work)


@asynccontextmanager
async def living(app: Any) -> AsyncIterator[dict[str, Any]]:
    """The app between its start and its end. RuntimeError says that it does not start."""
    told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    ends = asyncio.Event()
    has_begun = False

    async def receive() -> dict[str, Any]:
        nonlocal has_begun
        if not has_begun:
            has_begun = True
            return {"type": "lifespan.startup"}
        await ends.wait()
        return {"type": "lifespan.shutdown"}

    state: dict[str, Any] = {}
    scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": state}
    task = asyncio.ensure_future(app(scope, receive, told.put))
    first = asyncio.ensure_future(told.get())
    try:
        async with asyncio.timeout(30):
            await asyncio.wait((task, first), return_when=asyncio.FIRST_COMPLETED)
            if not first.done():
                await task  # raises what it died of
                raise RuntimeError("no lifespan")
            said = first.result()
            if said["type"] != "lifespan.startup.complete":
                await asyncio.wait((task,))
                task.exception()
                raise RuntimeError(f"does not start: {said}")
        yield state
        ends.set()
        async with asyncio.timeout(30):
            last = await told.get()
            await asyncio.wait((task,))
        assert last["type"] == "lifespan.shutdown.complete", last
    finally:
        first.cancel()
        task.cancel()
        await asyncio.wait((task,))


def ask_wsgi(
    app: Callable[..., Iterable[bytes]],
    method: str = "GET",
    path: str = "/",
    headers: Sequence[tuple[str, str]] = (),
    body: bytes = b"",
    client: str | None = "127.0.0.1",
    *,
    is_chunked: bool = False,
) -> Answer:
    """One request of a WSGI app, closed as a server has to."""
    path, _, query = path.partition("?")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "SERVER_NAME": "test",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
    }
    if client:
        environ["REMOTE_ADDR"] = client
    if body and not is_chunked:
        environ["CONTENT_LENGTH"] = str(len(body))
    for name, value in headers:
        key = name.upper().replace("-", "_")
        environ[key if key in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{key}"] = value
    answer = Answer()
    is_sent = False

    def start_response(status: str, fields: list[tuple[str, str]], exc_info: Any = None) -> Any:
        if exc_info is not None and is_sent:
            raise exc_info[1]
        assert exc_info is not None or not answer.status, "a response begins once"
        answer.status = int(status[:3])
        answer.headers = list(fields)
        return answer_write

    def answer_write(piece: bytes) -> None:
        answer.body += piece

    found = app(environ, start_response)
    try:
        for piece in found:
            is_sent = is_sent or bool(piece)
            answer.body += piece
            answer.pieces += 1
        answer.is_complete = True
    finally:
        close = getattr(found, "close", None)
        if close is not None:
            close()
    return answer
