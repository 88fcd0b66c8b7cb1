"""The gateway for tests that talk to it over real sockets: one worker on a thread of its own.

A thread and not a process, so that a test starts in milliseconds and sees what the worker's event
loop complains about: an exception in a callback fails no request, so `errors` is where it shows.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Coroutine
from typing import Any

import uvloop

from headgate.gateway.worker import Worker


class RunningGateway:
    """One worker, serving `document` on a free port of 127.0.0.1 for each of its listeners.

    The binds in the document are names here (`"127.0.0.1:0"` will do for one listener); `port`
    tells what they became.
    """

    def __init__(self, document: dict[str, Any]) -> None:
        self.errors: list[str] = []
        self._sockets: dict[str, list[socket.socket]] = {}
        self._ready = threading.Event()
        self._failed: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        self._loop.set_exception_handler(self._note)
        self._worker: Worker | None = None
        self._generation = 0
        self._thread = threading.Thread(target=self._run, name="gateway", daemon=True)
        self._thread.start()
        self.apply(document)

    @property
    def worker(self) -> Worker:
        if self._worker is None:
            raise RuntimeError("the worker has not started")
        return self._worker

    def port(self, bind: str | None = None) -> int:
        bind = bind or next(iter(self._sockets))
        port: int = self._sockets[bind][0].getsockname()[1]
        return port

    def apply(self, document: dict[str, Any]) -> None:
        """Start or reload; raises what the worker raises."""
        for listener in document["listeners"]:
            bind = listener["bind"]
            if bind not in self._sockets:
                self._sockets[bind] = [socket.create_server(("127.0.0.1", 0), backlog=1024)]
        self._generation += 1
        self.call(self._apply(document, self._generation))

    def call(self, work: Coroutine[Any, Any, Any], timeout_s: float = 10.0) -> Any:
        """Run a coroutine on the worker's loop and return its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout_s)

    def close(self) -> None:
        if self._thread.is_alive():
            if self._worker is not None:
                self.call(self._worker.drain(0.2))
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
            self._loop.close()
        for sockets in self._sockets.values():
            for sock in sockets:
                sock.close()

    # -- on the thread -------------------------------------------------------------------------

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    async def _apply(self, document: dict[str, Any], generation: int) -> None:
        if self._worker is None:
            self._worker = Worker(0, lambda message: None)
        await self._worker.apply(document, self._sockets, generation)

    def _note(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.errors.append(f"{context.get('message')}: {error!r}")


def proxy_document(upstream_port: int, **more: Any) -> dict[str, Any]:
    """One listener, one service, and a route that sends everything to it."""
    return {
        "listeners": [{"bind": "127.0.0.1:0"}],
        "services": {"upstream": {"instances": [f"http://127.0.0.1:{upstream_port}"]}},
        "routes": [{"name": "all", "to": "upstream"}],
        "access_log": {"format": "off"},
        "admin": {"bind": "off"},
        **more,
    }
