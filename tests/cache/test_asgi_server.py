"""The middleware under a real server, with the frameworks that people use, and a real client."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Response
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import StreamingResponse
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket
from websockets.sync.client import connect

from headgate.cache.asgi import CacheHeaders, CacheRule, tag_response

pytestmark = pytest.mark.integration


class Site:
    """What the handlers tell the test, and wait for from it."""

    def __init__(self) -> None:
        self.price = 10
        self.go_on = threading.Event()
        self.left = threading.Event()
        self.lifespan: list[str] = []


def application(site: Site, static: Path) -> Any:
    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        site.lifespan.append("up")
        yield
        site.lifespan.append("down")

    app = FastAPI(lifespan=lifespan)

    @app.get("/products/{number}")
    def product(number: int) -> dict[str, int]:  # in a thread of the framework's
        tag_response(f"product:{number}")
        return {"id": number, "price": site.price}

    @app.get("/me")
    async def me(response: Response) -> dict[str, str]:
        response.set_cookie("seen", "1")
        return {"name": "Ann"}

    @app.get("/events")
    async def events() -> StreamingResponse:
        async def said() -> AsyncIterator[bytes]:
            yield b"data: 1\n\n"
            await asyncio.to_thread(site.go_on.wait, 20)
            yield b"data: 2\n\n"

        return StreamingResponse(said(), media_type="text/event-stream")

    @app.get("/endless")
    async def endless() -> StreamingResponse:
        async def said() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"x" * 1000
                    await asyncio.sleep(0.001)
            finally:
                site.left.set()

        return StreamingResponse(said())

    @app.get("/fails")
    async def fails() -> None:
        raise RuntimeError("on purpose")

    @app.post("/products/{number}")
    async def change(number: int) -> dict[str, int]:
        return {"id": number}

    @app.websocket("/socket")
    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text("echo " + await socket.receive_text())
        await socket.close()

    app.mount("/static", StaticFiles(directory=static))

    async def through(request: Any, call_next: Any) -> Any:
        return await call_next(request)

    app.add_middleware(BaseHTTPMiddleware, dispatch=through)
    return CacheHeaders(app, rules=[CacheRule("public, max-age=60", path="/products/*")])


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Site, httpx.Client]]:
    (tmp_path / "app.3f2a9c1d.js").write_text("1")
    (tmp_path / "plain.txt").write_text("0123456789" * 100)
    made = Site()
    server = uvicorn.Server(
        uvicorn.Config(
            application(made, tmp_path), log_level="critical", lifespan="on", ws="websockets-sansio"
        )
    )
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()  # so that who comes before the server has begun is not refused
        port = listener.getsockname()[1]
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
                yield made, client
        finally:
            made.go_on.set()
            server.should_exit = True
            thread.join(30)
    assert made.lifespan == ["up", "down"]


def test_a_client_that_asks_again_gets_304_until_it_has_changed(site):
    made, client = site
    first = client.get("/products/42")
    assert first.json() == {"id": 42, "price": 10}
    assert first.headers["cache-control"] == "public, max-age=60"
    assert first.headers["cache-tag"] == "product:42"
    again = client.get("/products/42", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert "content-type" not in again.headers
    made.price = 11
    changed = client.get("/products/42", headers={"If-None-Match": first.headers["etag"]})
    assert changed.status_code == 200 and changed.json()["price"] == 11
    assert changed.headers["etag"] != first.headers["etag"]


def test_the_connection_is_kept_over_a_304(site):
    _, client = site
    tag = client.get("/products/1").headers["etag"]
    for _ in range(5):
        assert client.get("/products/1", headers={"If-None-Match": tag}).status_code == 304
    assert client.get("/products/1").status_code == 200


def test_what_is_personal_is_private(site):
    _, client = site
    assert client.get("/me").headers["cache-control"] == "private, no-cache"
    said = client.get("/products/1", headers={"Authorization": "Bearer x"})
    assert said.headers["cache-control"] == "private, no-cache"


def test_events_are_not_held_back(site):
    made, client = site
    with client.stream("GET", "/events") as answer:
        pieces = answer.iter_raw()
        assert next(pieces) == b"data: 1\n\n"
        made.go_on.set()
        assert b"".join(pieces) == b"data: 2\n\n"
    assert answer.headers["cache-control"] == "no-store" and "etag" not in answer.headers


def test_a_client_that_leaves_ends_the_stream(site):
    made, client = site
    with client.stream("GET", "/endless") as answer:
        next(answer.iter_raw())
    for _ in range(200):
        # A generator that was left between two of its steps ends when it is collected.
        gc.collect()
        if made.left.wait(0.1):
            break
    assert made.left.is_set()


def test_a_failing_handler_is_answered_by_whoever_stands_outside(site):
    _, client = site
    # The server ends the connection after an exception: the next request must not find it half open.
    assert client.get("/fails", headers={"Connection": "close"}).status_code == 500
    assert client.get("/products/1").status_code == 200


def test_files_keep_their_own_validators_and_ranges(site):
    _, client = site
    whole = client.get("/static/plain.txt")
    assert whole.headers["cache-control"] == "no-cache"
    for condition in (
        {"If-None-Match": whole.headers["etag"]},
        {"If-Modified-Since": whole.headers["last-modified"]},
    ):
        assert client.get("/static/plain.txt", headers=condition).status_code == 304
    part = client.get("/static/plain.txt", headers={"Range": "bytes=3-5"})
    assert (part.status_code, part.content) == (206, b"345")
    hashed = client.get("/static/app.3f2a9c1d.js")
    assert hashed.headers["cache-control"] == "public, max-age=31536000, immutable"
    missing = client.get("/static/none.3f2a9c1d.js")
    assert (missing.status_code, missing.headers["cache-control"]) == (404, "no-cache")


def test_head_is_answered_without_a_body(site):
    _, client = site
    answer = client.head("/static/plain.txt")
    assert answer.status_code == 200 and answer.headers["content-length"] == "1000"


def test_unsafe_methods_are_not_touched(site):
    _, client = site
    answer = client.post("/products/7", headers={"If-None-Match": "*"})
    assert answer.status_code == 200
    assert "etag" not in answer.headers and "cache-control" not in answer.headers


def test_websockets_pass(site):
    _, client = site
    with connect(str(client.base_url).replace("http", "ws") + "/socket") as talk:
        talk.send("hi")
        assert talk.recv(timeout=20) == "echo hi"
