"""Integrations: the connectors, how they are, and the switches of administrators."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated, Any, Final

from fastapi import Depends, FastAPI, Path
from pydantic import BaseModel, ConfigDict

from headgate.kit import Problem
from headgate.kit.fastapi import current_user
from headgate.mesh import Mesh
from headgate.observe import health
from headgate_shop.base.background import Every
from headgate_shop.base.database import Database
from headgate_shop.base.personal import personal_routes
from headgate_shop.base.service import Service
from headgate_shop.base.settings import Settings
from headgate_shop.integrations import keeping, standing
from headgate_shop.integrations.connectors import CONNECTORS
from headgate_shop.integrations.first_time import FirstTime
from headgate_shop.integrations.keeping import Keeping
from headgate_shop.integrations.syncing import Syncing
from headgate_shop.queue import Inbox, open_queue

__all__ = ["app"]

PRUNE_EVERY_S: Final = 6 * 3600.0
UPTIME_DAYS: Final = 30

Name = Annotated[str, Path(max_length=40)]


class Switch(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    enabled: bool


def app(settings: Settings, *, mesh: Mesh | None = None) -> FastAPI:
    service = Service(settings, "Integrations: other companies' systems", mesh=mesh)
    api = service.api
    database = service.database()
    others = service.mesh()
    syncings = {
        make.name: Syncing(
            make(settings.secret, lambda: others.service("partners")), database, _wall
        )
        for make in CONNECTORS
    }
    service.opened(_open(database, syncings))
    service.opened(FirstTime(database, lambda: others, _wall, lambda name: syncings[name].heard()))
    queue = open_queue(settings.queue_url(), service=settings.room)
    news = Keeping(database, Inbox(database), _wall, lambda name: syncings[name].heard())
    news.subscribe(queue)
    service.opened(queue)
    service.checks.add("queue", queue.ping)
    for syncing in syncings.values():
        service.checks.add(f"integration {syncing.connector.name}", _check(syncing))
    admin = [Depends(current_user(roles=("admin",)))]

    def found(name: str) -> Syncing:
        syncing = syncings.get(name)
        if syncing is None:
            known = ", ".join(syncings)
            raise Problem(
                404, f"there is no integration {name!r}; there are {known}", code="unknown"
            )
        return syncing

    @api.get("/api/admin/integrations", dependencies=admin)
    async def integrations() -> dict[str, Any]:
        async with database.reading() as connection:
            return {"items": [await _state(connection, one) for one in syncings.values()]}

    @api.get("/api/admin/integrations/{name}", dependencies=admin)
    async def integration(name: Name) -> dict[str, Any]:
        """With its last errors, and its uptime by day."""
        syncing = found(name)
        async with database.reading() as connection:
            return {
                **await _state(connection, syncing),
                "errors": await standing.faults_of(connection, name),
                "days": await standing.days_of(connection, name, UPTIME_DAYS),
            }

    @api.post("/api/admin/integrations/{name}/sync", status_code=202, dependencies=admin)
    async def sync(name: Name) -> dict[str, Any]:
        """Begin a round now. What the partner had refused is tried again."""
        syncing = found(name)
        async with database.writing() as connection:
            now = await standing.standing(connection, name)
            if not now["enabled"]:
                raise Problem(409, f"{name} is switched off", code="disabled")
            again = await standing.retry_refused(connection, name)
        syncing.ask()
        return {"started": True, "tried_again": again}

    @api.put("/api/admin/integrations/{name}", dependencies=admin)
    async def switch(name: Name, wanted: Switch) -> dict[str, Any]:
        """While it is off, what is to go out waits."""
        syncing = found(name)
        async with database.writing() as connection:
            await standing.switch(connection, name, enabled=wanted.enabled)
        syncing.ask()
        async with database.reading() as connection:
            return await _state(connection, syncing)

    api.include_router(personal_routes(database, keeping.export, keeping.erase))
    return service.finish()


async def _state(connection: Any, syncing: Syncing) -> dict[str, Any]:
    name = syncing.connector.name
    now: Mapping[str, Any] = await standing.standing(connection, name)
    today = await standing.days_of(connection, name, 1)
    state = "unknown"
    if not now["enabled"]:
        state = "off"
    elif syncing.is_running:
        state = "syncing"
    elif syncing.is_up is not None:
        state = "ok" if syncing.is_up else "failing"
    return {
        "name": name,
        "title": syncing.connector.title,
        "enabled": now["enabled"],
        "state": state,
        "trouble": syncing.trouble if now["enabled"] else "",
        "breaker": syncing.connector.line.breaker.state,
        "last_sync_at": standing.iso(now["last_sync_at"]),
        "last_ok_at": standing.iso(now["last_ok_at"]),
        "failures_in_a_row": now["failures"],
        "pushed": now["pushed"],
        "pulled": now["pulled"],
        "cursor": now["cursor"],
        "outgoing": await standing.counts(connection, name),
        "uptime_today": today[0]["uptime"] if today else None,
    }


def _check(syncing: Syncing) -> Callable[[], Any]:
    """A partner that is away is no reason to take this service out of traffic."""

    def check() -> Any:
        if syncing.is_up is False:
            return health.degraded(syncing.trouble[:200])
        return None

    return check


@asynccontextmanager
async def _open(database: Database, syncings: Mapping[str, Syncing]) -> AsyncIterator[None]:
    async def tidy() -> None:
        async with database.writing() as connection:
            await keeping.prune(connection, _wall())

    async with database.writing() as connection:
        await standing.begin(connection, list(syncings))
    async with AsyncExitStack() as stack:
        for syncing in syncings.values():
            await stack.enter_async_context(syncing)
        await stack.enter_async_context(Every("integrations tidy", PRUNE_EVERY_S, tidy))
        try:
            yield
        finally:
            for syncing in syncings.values():
                syncing.end()  # together, and then one after the other is waited for


def _wall() -> float:
    return time.time()  # noqa: TID251 - it is kept, and shown as a date
