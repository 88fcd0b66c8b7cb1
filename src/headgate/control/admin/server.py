"""One listener of the admin API: uvicorn on a socket that the supervisor opened."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Generator
from typing import cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn._types import ASGIApplication

from headgate.control.admin.peer import PeerProtocol

__all__ = ["AdminServer"]

MAX_CONNECTIONS = 200
HEAD_BYTES = 64 * 1024


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield  # signals are the process's business: it serves on several sockets


class AdminServer:
    def __init__(self, app: ASGIApp) -> None:
        config = uvicorn.Config(
            cast("ASGIApplication", app),
            http=PeerProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            log_level="warning",
            server_header=False,
            proxy_headers=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=2,
            h11_max_incomplete_event_size=HEAD_BYTES,
        )
        self._server = _Server(config)
        self._task: asyncio.Task[None] | None = None

    async def start(self, sock: socket.socket) -> None:
        """Serve on the socket; it is closed when serving ends."""
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._server.serve(sockets=[sock]), name="admin")
        # uvicorn tells of its start by a flag, and has no event.
        while not self._server.started and not self._task.done():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        if self._task.done():
            self._task.result()

    def stop(self) -> None:
        """Stop accepting; requests in flight are finished."""
        self._server.should_exit = True

    async def wait_stopped(self, timeout_s: float) -> None:
        if self._task is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await asyncio.shield(self._task)
