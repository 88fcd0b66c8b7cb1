"""One service in one process: bound first, so that it can say where it is, then served.

SIGTERM and Ctrl-C drain it: the registry is told, what is under way is finished.
"""

from __future__ import annotations

import contextlib
import importlib
import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import uvicorn
from fastapi import FastAPI

from headgate_shop.base.settings import Settings

__all__ = ["application", "bind", "serve"]

HOST: Final = "127.0.0.1"
BACKLOG: Final = 1024
DRAIN_S: Final = 10


def application(settings: Settings) -> FastAPI:
    """The app of a service: `app(settings)` of its package's `app.py`."""
    module = importlib.import_module(f"headgate_shop.{settings.room}.app")
    make: Callable[[Settings], FastAPI] = module.app
    return make(settings)


def bind(port: int) -> socket.socket:
    """A port on loopback, 0 for any free one.

    Somebody may hold it bound without listening, so that nobody else takes it while a service is
    started again: hence SO_REUSEPORT.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((HOST, port))
    except OSError:
        sock.close()
        raise
    return sock


def serve(settings: Settings, *, on_bound: Callable[[int], None] | None = None) -> bool:
    """Serve until a signal ends it. False when the app's own start failed."""
    with contextlib.closing(bind(settings.port)) as sock:
        port: int = sock.getsockname()[1]
        api = application(replace(settings, port=port))
        config = uvicorn.Config(
            api,
            host=HOST,
            port=port,
            backlog=BACKLOG,
            loop="uvloop",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,  # the gateway writes one, and spans say the rest
            server_header=False,
            proxy_headers=True,  # who asks is whom the gateway says
            forwarded_allow_ips=HOST,
            timeout_graceful_shutdown=DRAIN_S,
        )
        server = uvicorn.Server(config)
        if on_bound is not None:
            on_bound(port)
        server.run(sockets=[sock])
        return server.started
