"""The ASGI middleware under a real server, over real sockets."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route

from headgate.resilience import DeadlineMiddleware, hop_headers, remaining

pytestmark = pytest.mark.integration


class App:
    """A service, and what has become of its handlers."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.ended: asyncio.Queue[str] = asyncio.Queue()
        self.go_on = asyncio.Event()
        routes = [
            Route("/hang", self.hang, methods=["GET", "POST"]),
            Route("/echo", self.echo, methods=["POST"]),
            Route("/stream", self.stream),
            Route("/after", self.after),
            Route("/told", self.told),
        ]
        self.app = Starlette(routes=routes, middleware=[Middleware(DeadlineMiddleware)])

    async def hang(self, request):
        self.started.set()
        try:
            await asyncio.sleep(3600.0)
        except asyncio.CancelledError:
            self.ended.put_nowait("cancelled")
            raise

    async def echo(self, request):
        return PlainTextResponse(await request.body())

    async def stream(self, request):
        async def pieces():
            try:
                yield b"piece"
                self.started.set()
                await asyncio.sleep(3600.0)
            finally:
                self.ended.put_nowait("stream ended")

        return StreamingResponse(pieces())

    async def after(self, request):
        async def background():
            await self.go_on.wait()
            self.ended.put_nowait("background done")

        return PlainTextResponse("ok", background=BackgroundTask(background))

    async def told(self, request):
        return JSONResponse({"left": remaining(), "headers": hop_headers()})


@asynccontextmanager
async def served(app):
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical", lifespan="off")
    server = uvicorn.Server(config)
    task = asyncio.get_running_loop().create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = server.force_exit = True
        await task


async def request(port, text, body=b""):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"{text} HTTP/1.1\r\nhost: a\r\ncontent-length: {len(body)}\r\n"
    return reader, writer, head


async def asked(port, what, *headers, body=b""):
    """The whole response, on a connection that is closed after it."""
    reader, writer, head = await request(port, what, body)
    head += "".join(f"{header}\r\n" for header in (*headers, "connection: close"))
    writer.write(head.encode() + b"\r\n" + body)
    response = await reader.read()
    writer.close()
    await writer.wait_closed()
    return response


def run(dialogue):
    async def main():
        app = App()
        async with asyncio.timeout(30.0), served(app.app) as port:
            await dialogue(app, port)

    asyncio.run(main())


@pytest.mark.parametrize("path", ["/hang", "/stream"])
def test_the_work_for_a_caller_that_hangs_up_is_cancelled(path):
    async def dialogue(app, port):
        _, writer, head = await request(port, f"GET {path}")
        writer.write(head.encode() + b"\r\n")
        await app.started.wait()
        writer.close()
        assert await app.ended.get() in ("cancelled", "stream ended")

    run(dialogue)


def test_a_caller_may_hang_up_with_its_body_half_sent():
    async def dialogue(app, port):
        _, writer, _ = await request(port, "POST /hang")
        writer.write(b"POST /hang HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nhalf")
        await app.started.wait()
        writer.close()
        assert await app.ended.get() == "cancelled"

    run(dialogue)


def test_the_time_of_the_caller_ends_the_handler():
    async def dialogue(app, port):
        response = await asked(port, "GET /hang", "x-headgate-deadline: 50")
        assert response.startswith(b"HTTP/1.1 504 ")
        assert b"application/problem+json" in response
        assert await app.ended.get() == "cancelled"

    run(dialogue)


def test_bodies_pass_through_whole():
    async def dialogue(app, port):
        body = bytes(range(256)) * 4000
        response = await asked(port, "POST /echo", body=body)
        assert response.startswith(b"HTTP/1.1 200 ")
        assert response.endswith(body)

    run(dialogue)


def test_background_tasks_run_to_their_end_although_the_caller_has_gone():
    async def dialogue(app, port):
        response = await asked(port, "GET /after", "x-headgate-deadline: 1000")
        assert response.endswith(b"ok")
        app.go_on.set()
        assert await app.ended.get() == "background done"

    run(dialogue)


def test_requests_on_one_connection_do_not_see_each_others_deadline():
    async def dialogue(app, port):
        reader, writer, head = await request(port, "GET /told")
        writer.write(f"{head}x-headgate-deadline: 5000\r\n\r\n".encode())
        first = await reader.readuntil(b"}}")
        assert b'"left":4.' in first
        writer.write(f"{head}x-headgate-attempt: 1/2\r\nconnection: close\r\n\r\n".encode())
        second = await reader.read()
        assert b'{"left":null,"headers":{"x-headgate-attempt":"1/2"}}' in second
        writer.close()

    run(dialogue)
