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

from headgate.control.admin.client_certificates import AdminTls
from headgate.control.admin.peer import PeerProtocol

__all__ = ["AdminServer"]

MAX_CONNECTIONS = 8192  # each service of a fleet may watch the registry, and beats besides
HEAD_BYTES = 64 * 1024


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield  # signals are the process's business: it serves on several sockets


class AdminServer:
    """Serves one application on one socket. TLS is there or not from the start on; what it shows is
    renewed behind the context. To change from one to the other is another server on the same
    socket, so a second descriptor of it is kept.
    """

    def __init__(self, app: ASGIApp, tls: AdminTls | None = None) -> None:
        self.tls = tls
        self._socket: socket.socket | None = None
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
            ssl_context_factory=None if tls is None else (lambda _config, _default: tls.context),
        )
        self._server = _Server(config)
        self._task: asyncio.Task[None] | None = None

    async def start(self, sock: socket.socket) -> None:
        """Serve on the socket; it is closed when serving ends."""
        sock.setblocking(False)
        self._socket = sock.dup()
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
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def hand_over(self) -> socket.socket | None:
        """The socket, for another server on it; then stop."""
        found, self._socket = self._socket, None
        self.stop()
        return found

    async def wait_stopped(self, timeout_s: float) -> None:
        if self._task is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await asyncio.shield(self._task)
