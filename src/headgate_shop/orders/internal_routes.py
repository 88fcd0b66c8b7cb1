"""What other services ask of orders. The gateway sends nobody here."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path

from headgate_shop.base.database import Database
from headgate_shop.orders import order_store, people, saga_store

__all__ = ["internal_routes"]

UserId = Annotated[str, Path(pattern=r"^[A-Za-z0-9._:-]{1,64}$")]


def internal_routes(database: Database) -> APIRouter:
    routes = APIRouter(prefix="/internal", include_in_schema=False)

    @routes.get("/books")
    async def books() -> dict[str, Any]:
        """What the books of the payments and of the stock must agree with, once `open` is 0."""
        async with database.reading() as connection:
            by_status = await order_store.totals(connection)
            steps = await saga_store.open_count(connection)
        return {
            "orders": by_status,
            "sales_total": sum(
                by_status[s]["total"] for s in ("paid", "shipped") if s in by_status
            ),
            "open": sum(steps.values()),
            "steps": steps,
            "currency": "EUR",
        }

    @routes.get("/users/{user_id}/export")
    async def export(user_id: UserId) -> dict[str, Any]:
        return await people.export(database, user_id)

    @routes.delete("/users/{user_id}")
    async def erase(user_id: UserId) -> dict[str, int]:
        return await people.erase(database, user_id)

    return routes
