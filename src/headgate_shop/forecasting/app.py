"""Forecasting: how much of each product will be sold, and what is running out."""

from __future__ import annotations

import logging
import math
import time
from typing import Annotated, Any, Final

from fastapi import Depends, FastAPI, Path, Query

from headgate.cache import Cache
from headgate.errors import HeadgateError
from headgate.kit import Problem
from headgate.kit.fastapi import current_user
from headgate.mesh import Mesh
from headgate_shop.base.service import Service
from headgate_shop.base.settings import Settings
from headgate_shop.forecasting import reading
from headgate_shop.forecasting.choosing import HORIZON
from headgate_shop.forecasting.keeping import Keeping, day_of
from headgate_shop.forecasting.reckoning import Reckoning
from headgate_shop.queue import Inbox, open_queue

__all__ = ["app"]

HISTORY_DAYS: Final = 90

log = logging.getLogger("headgate_shop.forecasting")

ProductId = Annotated[str, Path(pattern=r"^[A-Za-z0-9._:-]{1,64}$")]


def app(settings: Settings, *, mesh: Mesh | None = None) -> FastAPI:
    service = Service(settings, "Forecasting: what will be sold", mesh=mesh)
    api = service.api
    database = service.database()
    cache = Cache(settings.cache or None, namespace="forecasting")
    service.opened(cache)
    reckoning = Reckoning(database, _wall)
    queue = open_queue(settings.queue_url(), service=settings.room)
    Keeping(database, Inbox(database), heard=reckoning.heard).subscribe(queue)
    service.opened(reckoning)
    service.opened(queue)
    service.checks.add("queue", queue.ping)
    others = service.mesh()
    admin = [Depends(current_user(roles=("admin",)))]

    @cache.cached("stock", ttl="5s", stale_while_revalidate="10s", negative=())
    async def available() -> dict[str, int]:
        answer = await others.service("products").get("/internal/books", timeout="3s")
        answer.raise_for_status()
        items = answer.json()["items"]
        return {str(row["product_id"]): int(row["available"]) for row in items}

    async def stock() -> reading.Stock:
        try:
            return reading.Stock(await available())
        except (HeadgateError, KeyError, TypeError, ValueError) as error:
            log.warning("the stock is not known: %s", error)
            return reading.Stock({}, "products does not say what is in stock")

    @api.get("/api/admin/forecasts", dependencies=admin)
    async def forecasts(
        running_out: bool = False,
        within: Annotated[int, Query(ge=1, le=HORIZON)] = 14,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
        cursor: Annotated[str, Query(max_length=200)] = "",
    ) -> dict[str, Any]:
        """What sells most, or (`running_out`) what may be sold out within so many days."""
        if running_out:
            known = await stock()
            async with database.reading() as connection:
                items = await reading.running_out(connection, known, within, limit, day_of(_wall()))
            shown: dict[str, Any] = {"items": items, "next": None, "within_days": within}
            return shown | ({"degraded": known.trouble} if known.trouble else {})
        async with database.reading() as connection:
            items, more = await reading.page(connection, limit, _place(cursor))
        return {"items": items, "next": f"{more[0]!r}~{more[1]}" if more else None}

    @api.get("/api/admin/forecasts/{product_id}", dependencies=admin)
    async def forecast(
        product_id: ProductId,
        days: Annotated[int, Query(ge=1, le=HORIZON)] = 14,
        history: Annotated[int, Query(ge=1, le=365)] = HISTORY_DAYS,
    ) -> dict[str, Any]:
        """Each day from today on: what is expected, and between which bounds it will lie."""
        async with database.reading() as connection:
            found = await reading.forecast_of(
                connection, product_id, days, history, day_of(_wall())
            )
        if found is None:
            raise Problem(
                404, f"nothing is known of a product {product_id}", code="unknown_product"
            )
        return found

    @api.get("/internal/users/{user_id}/export", include_in_schema=False)
    async def export(user_id: str) -> dict[str, Any]:
        """Sales by day name nobody."""
        return {}

    @api.delete("/internal/users/{user_id}", include_in_schema=False)
    async def erase(user_id: str) -> dict[str, int]:
        return {"erased": 0}

    return service.finish()


def _place(cursor: str) -> tuple[float, str] | None:
    if not cursor:
        return None
    week, _, product_id = cursor.partition("~")
    try:
        if math.isfinite(place := float(week)):
            return place, product_id
    except ValueError:
        pass
    raise Problem(422, "cursor is not one of those that this list gives", code="bad_cursor")


def _wall() -> float:
    return time.time()  # noqa: TID251 - a day is that of the calendar
