"""A service that is an ASGI app in the test's own process."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from contextvars import Context
from time import monotonic
from typing import Any, Final
from urllib.parse import quote

from headgate.errors import UpstreamFailed
from headgate.testing.mesh_fakes import FakeAnswer, FakeRequest

__all__ = ["AppService"]

_LIFESPAN_S: Final = 30.0


class AppService:
    """Made by `FakeMesh.app`."""

    def __init__(self, name: str, app: Any) -> None:
        self.name = name
        self.app = app
        self.calls: list[FakeRequest] = []
        self._lifespan: asyncio.Task[None] | None = None
        self._told: asyncio.Queue[str] | None = None
        self._ends = asyncio.Event()
        self._state: dict[str, Any] = {}

    async def answer(self, request: FakeRequest, deadline: float | None) -> FakeAnswer:
        """Run the app for one request. What it raises is a broken connection, as from a server."""
        self.calls.append(request)
        loop = asyncio.get_running_loop()
        # In a task of its own: what surrounds the caller is nothing that another process could see.
        task = loop.create_task(self._serve(request), name=f"app {self.name}", context=Context())
        left_s = None if deadline is None else max(0.0, deadline - monotonic())
        try:
            done, _ = await asyncio.wait((task,), timeout=left_s)
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait((task,))
            raise
        if not done:
            task.cancel()
            await asyncio.wait((task,))
            raise UpstreamFailed("timeout", f"{self.name}: the app took too long")
        error = task.exception()
        if error is not None:
            if isinstance(error, AssertionError):
                raise error
            raise UpstreamFailed("reset", f"{self.name}: the app raised {error!r}") from error
        return task.result()

    async def _serve(self, request: FakeRequest) -> FakeAnswer:
        status = 0
        headers: list[tuple[str, str]] = []
        body = bytearray()
        is_sent = False
        gone = asyncio.Event()

        async def receive() -> MutableMapping[str, Any]:
            nonlocal is_sent
            if is_sent:
                await gone.wait()
                return {"type": "http.disconnect"}
            is_sent = True
            return {"type": "http.request", "body": request.body, "more_body": False}

        async def send(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers.extend(
                    (name.decode("latin-1"), value.decode("latin-1"))
                    for name, value in message.get("headers", ())
                )
            elif message["type"] == "http.response.body":
                body.extend(message.get("body", b""))

        await self.app(self._scope(request), receive, send)
        if not status:
            raise RuntimeError("the app has not answered")
        return FakeAnswer(status, tuple(headers), bytes(body))

    def _scope(self, request: FakeRequest) -> dict[str, Any]:
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": "http",
            "path": request.path,
            "raw_path": quote(request.path).encode(),
            "query_string": request.query.encode(),
            "root_path": "",
            "headers": [
                (b"host", self.name.encode()),
                (b"content-length", str(len(request.body)).encode()),
                *(
                    (name.encode("latin-1"), value.encode("latin-1"))
                    for name, value in request.headers.items()
                ),
            ],
            "client": ("127.0.0.1", 1),
            "server": (self.name, 80),
            "state": dict(self._state),
        }

    # -- its lifespan --------------------------------------------------------------------------

    async def start(self) -> None:
        """Its start, as a server would run it. An app without one is fine."""
        if self._lifespan is not None:
            return
        self._told = asyncio.Queue()
        loop = asyncio.get_running_loop()
        self._lifespan = loop.create_task(
            self._live(self._told), name=f"lifespan {self.name}", context=Context()
        )
        said = await self._next()
        if said.startswith("failed"):
            raise RuntimeError(f"{self.name} does not start: {said}")

    async def stop(self) -> None:
        task, self._lifespan = self._lifespan, None
        if task is None:
            return
        self._ends.set()
        if not task.done():
            await self._next()
        task.cancel()
        await asyncio.wait((task,))
        self._ends = asyncio.Event()

    async def _next(self) -> str:
        if self._told is None:
            return ""
        async with asyncio.timeout(_LIFESPAN_S):
            return await self._told.get()

    async def _live(self, told: asyncio.Queue[str]) -> None:
        is_begun = False

        async def receive() -> MutableMapping[str, Any]:
            nonlocal is_begun
            if not is_begun:
                is_begun = True
                return {"type": "lifespan.startup"}
            await self._ends.wait()
            return {"type": "lifespan.shutdown"}

        async def send(message: MutableMapping[str, Any]) -> None:
            kind = str(message["type"])
            if kind.endswith("failed"):
                told.put_nowait(f"failed {message.get('message', '')}")
            else:
                told.put_nowait(kind)

        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self._state,
        }
        try:
            await self.app(scope, receive, send)
        except Exception:  # noqa: BLE001 - by the standard: it has no lifespan
            told.put_nowait("none")
        else:
            told.put_nowait("ended")
