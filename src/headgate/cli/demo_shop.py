"""The shop of `headgate demo --small`: it is traced, logs, and can be given a bad release.

Theory of operation
-------------------
A basket lies in a database that is a network away: each question takes `ROUND_TRIP_S`. Release 2.3
asks once for a basket with all its items. Release 2.4 asks for the basket, then for each item: a
mistake that no test finds while baskets are small. `PUT /release/2.4` to an instance stands in for
a deploy. Nothing else is staged: the spans, lines and figures are what really happened.

Two instances run in the process of the demo, each on a thread; their spans and lines go to the
gateway, whose store they are searched in.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from types import TracebackType
from typing import Any, Final, Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from headgate.observe import MetricsMiddleware, Registry, logs, metrics_app, trace
from headgate.observe.tracing import TracingMiddleware, setup, shutdown

__all__ = ["RELEASES", "ShopInstance", "observe_shop", "observe_shop_no_more"]

ROUND_TRIP_S: Final = 0.012
RELEASES: Final = ("2.3", "2.4")
BASKETS: Final = 20
ITEMS: Final = 30
_START_S: Final = 30.0

log = logs.get("shop.baskets")


def observe_shop(admin: str, token: str) -> None:
    """Send spans and lines of this process to the gateway, as the service `shop`."""
    bearer = {"authorization": f"Bearer {token}"}
    setup("shop", export=admin, headers=bearer, undecided=True)
    sink = logs.SinkRules(kind="otlp", url=admin, headers=tuple(bearer.items()))
    logs.setup("shop", sinks=[sink], levels={"uvicorn": "error"})


def observe_shop_no_more() -> None:
    """Before the gateway ends: nobody is there to send to then."""
    logs.shutdown()
    shutdown(timeout_s=1.0)


class Database:
    """SQLite, as far away as the databases of others are."""

    def __init__(self) -> None:
        self._connection = sqlite3.connect(":memory:", check_same_thread=False)
        self._connection.executescript(
            "create table items (basket int, line int, name text, cents int);"
        )
        rows = [
            (basket, line, f"article {line}", 100 * line)
            for basket in range(BASKETS)
            for line in range(1, ITEMS + 1)
        ]
        self._connection.executemany("insert into items values (?, ?, ?, ?)", rows)

    async def ask(self, statement: str, *values: int) -> list[Any]:
        said = {"db.system.name": "sqlite", "db.query.text": statement}
        with trace.span("SELECT items", said, kind="client"):
            await asyncio.sleep(ROUND_TRIP_S)
            return self._connection.execute(statement, values).fetchall()

    def close(self) -> None:
        self._connection.close()


class ShopInstance:
    """One instance, on a port of its own; a context manager."""

    def __init__(self, port: int = 0) -> None:
        self.release = RELEASES[0]
        self._database = Database()
        routes = [
            Route("/baskets/{number:int}", self._basket),
            Route("/release/{name}", self._deploy, methods=["PUT"]),
            Route("/health", self._health),
            Route("/metrics", metrics_app(registry := Registry())),
        ]
        # Both are in one process here; where each has its own, `observe.REGISTRY` is right.
        counted = MetricsMiddleware(Starlette(routes=routes), registry=registry)
        app = TracingMiddleware(counted, skip=["/health", "/metrics"])
        config = uvicorn.Config(
            app, port=port, log_config=None, access_log=False, lifespan="off", ws="none"
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, name="shop", daemon=True)

    @property
    def url(self) -> str:
        port = self._server.servers[0].sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}"

    def __enter__(self) -> Self:
        self._thread.start()
        until = time.monotonic() + _START_S
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > until:
                raise OSError("the shop of the demo does not start")
            time.sleep(0.01)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join()
        self._database.close()

    # ---- what it answers

    async def _basket(self, request: Request) -> Response:
        number = request.path_params["number"] % BASKETS
        trace.current.set({"shop.release": self.release})
        items, asked = await (self._one_by_one if self.release == "2.4" else self._at_once)(number)
        level = log.warning if asked > 1 else log.info
        level("basket %d took %d statements", number, asked, release=self.release)
        cents = sum(cents for _, cents in items)
        return JSONResponse({"basket": number, "items": len(items), "cents": cents})

    async def _at_once(self, number: int) -> tuple[list[Any], int]:
        found = await self._database.ask("select name, cents from items where basket = ?", number)
        return found, 1

    async def _one_by_one(self, number: int) -> tuple[list[Any], int]:
        lines = await self._database.ask("select line from items where basket = ?", number)
        found = []
        for (line,) in lines:
            found += await self._database.ask(
                "select name, cents from items where basket = ? and line = ?", number, line
            )
        return found, 1 + len(lines)

    async def _deploy(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in RELEASES:
            return Response(f"there are {' and '.join(RELEASES)}\n", 404)
        before, self.release = self.release, name
        log.info("release %s in place of %s", name, before)
        return Response(f"release {name} in place of {before}\n", media_type="text/plain")

    async def _health(self, request: Request) -> Response:
        return JSONResponse({"status": "up", "release": self.release})
