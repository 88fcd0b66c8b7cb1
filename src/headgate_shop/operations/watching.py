"""Looks at the gateway, the stage and the shop's services for as long as somebody watches.

Theory of operation
-------------------
    live overview ----\
    live events -------+--> Board --> one stream for each watcher
    looks, every few s /

One set of looks serves all watchers; it begins with the first and ends `LINGER_S` after the last.
What cannot be asked is shown as not heard of, with the reason, and asked again; everything else
goes on. No look waits for another.

What the shop's services tell admins alone is asked in the name of whoever watches: with what the
gateway said of them, which holds for a minute. So a stream ends when that does, and the browser
comes back with the next (`app.live`); who is no admin any more is found out by then.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, Final

from headgate.errors import HeadgateError
from headgate.mesh import Mesh
from headgate_shop.base.background import Background, let_end
from headgate_shop.operations import view, words
from headgate_shop.operations.asking import Api, Away
from headgate_shop.operations.board import Board
from headgate_shop.operations.history import backfill, doing
from headgate_shop.queue import Queue

__all__ = ["Watch"]

WATCHERS: Final = 32
LINGER_S: Final = 20.0
AGAIN_S: Final = 2.0
TICK_MIN_S: Final = 0.25
"""A stream has at most so many messages: what changes faster comes together."""
HEARTBEAT_S: Final = 10.0

_logger = logging.getLogger(__name__)


class Watch(Background):
    """Looks, while it is entered and somebody watches."""

    task_name = "watch"

    def __init__(
        self,
        board: Board,
        gateway: Api | None,
        stage: Api | None,
        mesh: Mesh,
        queue: Queue,
        *,
        wall: Callable[[], float] = time.time,  # noqa: TID251 - when things happened, for people
    ) -> None:
        self._board = board
        self._gateway = gateway
        self._stage = stage
        self._mesh = mesh
        self._queue = queue
        self._wall = wall
        self._names = words.Names()
        self._sources: dict[str, dict[str, Any]] = {}
        self._seen: dict[str, Any] = {}
        """What the looks found last, for those that put several together."""
        self._credentials: dict[str, str] = {}
        self._credentials_until = 0.0
        self._watchers = 0
        self._changed = asyncio.Event()
        self._closed = False
        self._after = ""
        self._cache_before: Mapping[str, Any] | None = None
        self._hits: float | None = None

    # -- life ----------------------------------------------------------------------------------

    def end(self) -> None:
        self.close()
        super().end()

    def close(self) -> None:
        """End all streams, and let none begin: the service is about to end."""
        self._closed = True
        self.touch()

    # -- those who watch -----------------------------------------------------------------------

    def touch(self) -> None:
        """The board has changed: tell the streams."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def say(self, line: Mapping[str, Any]) -> None:
        self._board.say(line)
        self.touch()

    def put(self, name: str, value: Any) -> None:
        if self._board.put(name, value):
            self.touch()

    def now(self) -> float:
        """Unix time, as `until` counts."""
        return self._wall()

    @property
    def is_full(self) -> bool:
        return self._closed or self._watchers >= WATCHERS

    def enter(self, credentials: Mapping[str, str], until: float) -> None:
        """Somebody begins to watch. `until`, in Unix time, is how long `credentials` hold."""
        self._watchers += 1
        self._credentials, self._credentials_until = dict(credentials), until
        self.wake()

    def leave(self) -> None:
        self._watchers -= 1

    async def news(self, after: str, until: float) -> AsyncGenerator[tuple[str, Any] | None, None]:
        """What is new on the board, as `(id, news)`; None when nothing was for a while."""
        while not self._closed and self._wall() < until:
            found = self._board.since(after)
            if found is not None:
                after = found[0]
                yield found
                await asyncio.sleep(TICK_MIN_S)
                continue
            changed = self._changed
            try:
                async with asyncio.timeout(HEARTBEAT_S):
                    await changed.wait()
            except TimeoutError:
                yield None

    # -- looking -------------------------------------------------------------------------------

    async def _run(self) -> None:
        while not self.is_ending():
            if not self._watchers:
                await self.rest()
                continue
            loop = asyncio.get_running_loop()
            tasks = [loop.create_task(look, name="look") for look in self._looks()]
            try:
                await self._until_nobody_watches()
            finally:
                for task in tasks:
                    task.cancel()  # they ask others by HTTP, which may be broken off anywhere
                await let_end(tasks)

    async def _until_nobody_watches(self) -> None:
        last = time.monotonic()
        while not self.is_ending() and time.monotonic() - last < LINGER_S:
            await self.rest(1)
            if self._watchers:
                last = time.monotonic()

    def _looks(self) -> list[Any]:
        looks: list[Any] = [self._again("queue", 2.0, self._look_queue)]
        for name, every_s, look in (
            ("orders", 3.0, self._look_orders),
            ("sales", 3.0, self._look_sales),
            ("integrations", 5.0, self._look_integrations),
        ):
            looks.append(self._again(name, every_s, look))
        if self._stage is not None:
            looks.append(self._again("stage", 1.0, self._look_stage))
            looks.append(self._again("mails", 3.0, self._look_mails))
        if self._gateway is not None:
            looks.append(self._follow_overview(self._gateway))
            looks.append(self._follow_events(self._gateway))
            looks.append(self._again("gateway", 1.0, self._look_gateway))
            looks.append(self._again("history", 3.0, self._look_doing))
        return looks

    async def _again(self, name: str, every_s: float, look: Callable[[], Awaitable[None]]) -> None:
        while True:
            await self._once(name, look())
            await asyncio.sleep(every_s)

    async def _once(self, name: str, look: Awaitable[None]) -> None:
        """A look that fails is said, and never ends the others."""
        why = ""
        try:
            await look
        except (Away, HeadgateError, OSError) as error:
            why = str(error) or type(error).__name__
        except Exception as error:
            _logger.exception("%s could not be looked at", name)
            why = f"it was not understood ({type(error).__name__})"
        self._heard(name, why)

    def _heard(self, name: str, why: str) -> None:
        known = self._sources.get(name)
        if known is None or known["why"] != why:
            self._sources[name] = {"ok": not why, "why": why, "since": self._wall()}
            self.put("sources", {key: dict(value) for key, value in self._sources.items()})

    # -- the gateway ---------------------------------------------------------------------------

    async def _follow_overview(self, gateway: Api) -> None:
        await self._once("history", self._fill(gateway))
        while True:
            await self._once("overview", self._overview(gateway))
            await asyncio.sleep(AGAIN_S)

    async def _fill(self, gateway: Api) -> None:
        points = await backfill(gateway, self._wall())
        self._board.fill(points)
        self.touch()

    async def _overview(self, gateway: Api) -> None:
        async for event in gateway.live("/api/live/overview"):
            said = json.loads(event.data)
            if isinstance(said, dict) and "requests_per_s" in said:
                self._heard("overview", "")
                self._board.add_point(view.point(said, self._hits))
                self.put("in_flight", said.get("in_flight"))
                self.put("routes", [_route(row) for row in said.get("routes", ())][:12])
                self.touch()

    async def _follow_events(self, gateway: Api) -> None:
        while True:
            await self._once("events", self._events(gateway))
            await asyncio.sleep(AGAIN_S)

    async def _events(self, gateway: Api) -> None:
        async for event in gateway.live("/api/live/events", self._after):
            self._heard("events", "")
            self._after = event.id or self._after
            said = json.loads(event.data)
            if isinstance(said, dict):
                self._event(str(said.get("kind", event.kind)), said)

    def _event(self, kind: str, said: Mapping[str, Any]) -> None:
        if found := words.spoken(kind, said, self._names):
            self.say(found)

    async def _look_gateway(self) -> None:
        gateway = self._gateway
        if gateway is None:
            return
        services, registry, breakers, splits, alerts, calls, cache = await asyncio.gather(
            gateway.get("/api/services"),
            gateway.get("/api/registry/services"),
            gateway.get("/api/breakers"),
            gateway.get("/api/splits"),
            gateway.get("/api/alerts"),
            gateway.get("/api/mesh/calls"),
            gateway.get("/api/cache/stats"),
        )
        self._names.learn(services)
        self._seen.update(services=services, registry=registry, calls=calls)
        rows = view.breaker_rows(breakers, calls)
        shares = view.split_rows(splits)
        self._differ(breakers=rows, splits=shares)
        self.put("breakers", rows)
        self.put("splits", shares)
        self.put("alerts", view.alert_rows(alerts))
        self._cache(cache)
        self._put_services()

    def _cache(self, said: Mapping[str, Any]) -> None:
        total = said.get("total") or {}
        ratio = view.hit_ratio(self._cache_before, total)
        self._cache_before = total
        self._hits = ratio
        stores = said.get("stores") or ()
        self.put(
            "cache",
            {
                "stores": [
                    {
                        "kind": str(row.get("kind", "")),
                        "entries": row.get("entries"),
                        "bytes": row.get("bytes"),
                        "bytes_max": row.get("bytes_max"),
                        "away": row.get("away"),
                        "why": str(row.get("why", "")),
                    }
                    for row in stores
                ],
                "hit_ratio": total.get("hit_ratio"),
            },
        )

    async def _look_doing(self) -> None:
        if self._gateway is None:
            return
        found = await doing(self._gateway)
        for line in words.doing_of(self._wall(), self._seen.get("doing", found), found):
            self.say(line)
        self._seen["doing"] = found
        self.put("doing", found)

    def _put_services(self) -> None:
        seen = self._seen
        rows = view.service_rows(
            seen.get("services"), seen.get("registry"), seen.get("processes"), seen.get("calls")
        )
        self.put("services", rows)

    def _differ(self, **now: Any) -> None:
        """Say what is otherwise than at the look before; at the first one nothing is."""
        before = {name: self._seen.get(f"last {name}", value) for name, value in now.items()}
        self._seen.update({f"last {name}": value for name, value in now.items()})
        for line in words.between(self._wall(), before, now):
            self.say(line)

    # -- the stage and the shop ----------------------------------------------------------------

    async def _look_stage(self) -> None:
        if self._stage is None:
            return
        state = await self._stage.get("/state")
        processes = state.get("services") or []
        self._differ(processes=processes)
        self._seen["processes"] = processes
        self.put(
            "stage",
            {"traffic": state.get("traffic"), "redis": state.get("redis")},
        )
        self._put_services()

    async def _look_mails(self) -> None:
        if self._stage is not None:
            self.put("mails", await self._stage.get("/mails", limit=50))

    async def _look_queue(self) -> None:
        self.put("queue", _queue((await self._queue.stats()).document()))

    async def _look_orders(self) -> None:
        said = await self._ask("orders", "/api/admin/orders/totals")
        self.put("orders", view.order_rows(said))

    async def _look_sales(self) -> None:
        said = await self._ask("analytics", "/api/admin/analytics/summary?days=1")
        self.put("sales", view.sales(said))

    async def _look_integrations(self) -> None:
        said = await self._ask("integrations", "/api/admin/integrations")
        self.put("integrations", view.integration_rows(said))

    async def _ask(self, service: str, path: str) -> Any:
        """What a service tells admins, in the name of whoever watches."""
        if self._wall() >= self._credentials_until:
            raise Away("nobody watches whose word still holds")
        answer = await self._mesh.service(service).get(
            path, headers=self._credentials, timeout="4s"
        )
        answer.raise_for_status()
        return answer.json()


def _route(row: Mapping[str, Any]) -> dict[str, Any]:
    names = ("route", "service", "requests_per_s", "error_rate", "p95_ms")
    return {name: row.get(name) for name in names}


def _queue(said: Mapping[str, Any]) -> dict[str, Any]:
    names = ("ready", "delayed", "in_flight", "dead", "oldest_s", "done_per_s")
    return {
        "kind": said.get("kind"),
        **{name: said.get(name) for name in names},
        "groups": [
            {"group": row.get("group"), **{name: row.get(name) for name in names}}
            for row in said.get("groups", ())
        ],
    }
