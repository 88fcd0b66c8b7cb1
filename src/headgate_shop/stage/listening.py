"""An ASGI app on the loop that runs already, beside other things."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import uvicorn

__all__ = ["served"]


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals belong to the process, which ends us."""
        yield


@contextlib.asynccontextmanager
async def served(app: Any, host: str, port: int) -> AsyncIterator[None]:
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=1,
    )
    server = _Server(config)
    task = asyncio.get_running_loop().create_task(server.serve(), name="stage api")
    try:
        while not (server.started or task.done()):  # noqa: ASYNC110  it tells nobody
            await asyncio.sleep(0.01)
        yield
    finally:
        server.should_exit = True
        await task
