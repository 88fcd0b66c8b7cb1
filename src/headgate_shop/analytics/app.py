"""Analytics: events in, figures out, and what is bought together."""

from __future__ import annotations

import time
from typing import Annotated, Any, Final, Literal

from fastapi import Depends, FastAPI, Path, Query
from sqlalchemy.ext.asyncio import AsyncConnection

from headgate.cache import Cache
from headgate.cache.asgi import CacheHeaders, CacheRule, tag_response
from headgate.kit import Problem
from headgate.kit.fastapi import current_user, limited
from headgate.mesh import Mesh
from headgate_shop.analytics import people, reading
from headgate_shop.analytics.events import Batch, Gathering, seen_of
from headgate_shop.analytics.figures import Figures
from headgate_shop.analytics.listening import Listening, prune
from headgate_shop.analytics.reckoning import day_of
from headgate_shop.analytics.span import last_days
from headgate_shop.base.background import Background, Every
from headgate_shop.base.database import Database
from headgate_shop.base.personal import personal_routes
from headgate_shop.base.service import Service
from headgate_shop.base.settings import Settings
from headgate_shop.queue import Inbox, open_queue

__all__ = ["app"]

UPKEEP_S: Final = 10.0
PRUNE_EVERY_S: Final = 3600.0
KEEP_SESSIONS_S: Final = 3 * 86400.0
HOURS_DAYS_MAX: Final = 14
CURRENCY: Final = "EUR"

Days = Annotated[int, Query(ge=1, le=366)]
ProductId = Annotated[str, Path(pattern=r"^[A-Za-z0-9._:-]{1,64}$")]


def app(settings: Settings, *, mesh: Mesh | None = None) -> FastAPI:
    service = Service(settings, "Analytics: figures of the shop", mesh=mesh)
    api = service.api
    database = service.database()
    cache = Cache(settings.cache or None)
    service.opened(cache)
    figures = Figures()
    listening = Listening(database, Inbox(database), cache, figures)
    gathering = Gathering(listening.write)
    service.opened(gathering)
    service.opened(listening.together)
    queue = open_queue(settings.queue_url(), service=settings.room)
    listening.subscribe(queue)
    service.opened(queue)
    service.checks.add("queue", queue.ping)
    service.opened(_upkeep(database, figures))
    api.add_middleware(
        CacheHeaders,
        rules=[
            CacheRule(
                "public, max-age=60, stale-while-revalidate=600",
                path="/api/products/*/recommendations",
            )
        ],
    )
    admin = [Depends(current_user(roles=("admin",)))]

    @api.post("/api/events", status_code=202, dependencies=[Depends(limited("20/s"))])
    async def take_events(batch: Batch) -> dict[str, int]:
        """Take what visitors did; it is in the figures within a second."""
        wall = _wall()
        if not gathering.try_add([seen_of(event, wall) for event in batch.events]):
            raise Problem(
                503,
                "more events are waiting than can be kept; send them again in a moment",
                code="full",
                headers={"retry-after": "2"},
            )
        return {"accepted": len(batch.events)}

    @cache.cached(
        "together:{product_id}:{most}",
        ttl="10min",
        stale_while_revalidate="1h",
        tags=["recommendations:{product_id}"],
    )
    async def together(product_id: str, most: int) -> list[dict[str, Any]]:
        since = day_of(_wall() - reading.POPULAR_DAYS * 86400)
        async with database.reading() as connection:
            return await reading.together(connection, product_id, most, since)

    @api.get("/api/products/{product_id}/recommendations")
    async def recommendations(
        product_id: ProductId, limit: Annotated[int, Query(ge=1, le=24)] = 8
    ) -> dict[str, Any]:
        """Products that are bought with this one, the most telling first."""
        tag_response("recommendations", f"product:{product_id}")
        return {"product_id": product_id, "items": await together(product_id, limit)}

    @api.get("/api/admin/analytics/summary", dependencies=admin)
    async def summary(days: Days = 7) -> dict[str, Any]:
        """The last days, today among them, beside as many days before."""
        span, past = last_days(days, _wall())
        async with database.reading() as connection:
            now = await reading.totals(connection, span)
            before = await reading.totals(connection, past)
            by_day = await reading.series(connection, span, "day")
        shown, compared = now.document(), before.document()
        return {
            "from": span.first,
            "to": span.last,
            "currency": CURRENCY,
            **shown,
            "before": compared,
            "change": {name: reading.change(shown[name], compared[name]) for name in shown},
            "days": by_day,
        }

    @api.get("/api/admin/analytics/sales", dependencies=admin)
    async def sales(
        by: Literal["day", "hour", "category"] = "day", days: Days = 30
    ) -> dict[str, Any]:
        if by == "hour" and days > HOURS_DAYS_MAX:
            raise Problem(
                422, f"by hour, days is {HOURS_DAYS_MAX} at most, not {days}", code="too_long"
            )
        span, _ = last_days(days, _wall())
        async with database.reading() as connection:
            items = (
                await reading.categories(connection, span)
                if by == "category"
                else await reading.series(connection, span, by)
            )
        return {"from": span.first, "to": span.last, "by": by, "currency": CURRENCY, "items": items}

    @api.get("/api/admin/analytics/funnel", dependencies=admin)
    async def funnel(days: Days = 7) -> dict[str, Any]:
        span, _ = last_days(days, _wall())
        async with database.reading() as connection:
            steps = await reading.funnel(connection, span)
        return {"from": span.first, "to": span.last, "steps": steps}

    @api.get("/api/admin/analytics/top", dependencies=admin)
    async def top(
        by: reading.By = "revenue",
        days: Days = 30,
        limit: Annotated[int, Query(ge=1, le=100)] = 10,
    ) -> dict[str, Any]:
        span, _ = last_days(days, _wall())
        async with database.reading() as connection:
            items = await reading.top(connection, span, by, limit)
        return {"from": span.first, "to": span.last, "by": by, "currency": CURRENCY, "items": items}

    async def forget(connection: AsyncConnection, user_id: str) -> int:
        return await people.erase(connection, user_id, _wall())

    api.include_router(personal_routes(database, people.export, forget))
    return service.finish()


def _upkeep(database: Database, figures: Figures) -> Background:
    pruned_at = -PRUNE_EVERY_S

    async def turn() -> None:
        nonlocal pruned_at
        if time.monotonic() - pruned_at >= PRUNE_EVERY_S:
            await prune(database, day_of(_wall() - KEEP_SESSIONS_S))
            pruned_at = time.monotonic()
        today, _ = last_days(1, _wall())
        async with database.reading() as connection:
            figures.today(await reading.totals(connection, today))

    return Every("figures of today", UPKEEP_S, turn)


def _wall() -> float:
    return time.time()  # noqa: TID251 - days and hours are those of the calendar
