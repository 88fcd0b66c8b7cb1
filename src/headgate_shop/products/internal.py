"""What the shop's own services ask of `products`: reservations, several products at once, books.

The gateway has no route to these.
"""

from __future__ import annotations

import time
from typing import Annotated, Any, Final

import sqlalchemy as sa
from fastapi import APIRouter, Path, Query
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from headgate.kit import Problem
from headgate_shop.base.database import Database
from headgate_shop.products.books import books
from headgate_shop.products.keeping import Purges
from headgate_shop.products.public import json_of
from headgate_shop.products.reading import Catalogue
from headgate_shop.products.shapes import ProductId, instant
from headgate_shop.products.stock import Differs, Ended, Gone, Line, Reservation, Short, Stock
from headgate_shop.products.tables import PRODUCTS

__all__ = ["routes"]

LINES_MAX: Final = 100
QUANTITY_MAX: Final = 1000
IDS_MAX: Final = 200
RESERVATION: Final = r"^[A-Za-z0-9._:-]{1,80}$"
Reserved = Annotated[str, Path(pattern=RESERVATION)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class LineIn(_Body):
    product_id: ProductId
    quantity: int = Field(ge=1, le=QUANTITY_MAX, strict=True)


class ReservationIn(_Body):
    reservation_id: str = Field(pattern=RESERVATION)
    lines: list[LineIn] = Field(min_length=1, max_length=LINES_MAX)
    ttl_s: float = Field(default=900, ge=1, le=86_400)


def routes(stock: Stock, catalogue: Catalogue, purges: Purges, database: Database) -> APIRouter:
    router = APIRouter(prefix="/internal", tags=["internal"])

    @router.post("/reservations", status_code=201)
    async def reserve(wanted: ReservationIn) -> JSONResponse:
        lines = [Line(line.product_id, line.quantity) for line in wanted.lines]
        try:
            made = await stock.reserve(wanted.reservation_id, lines, wanted.ttl_s, _now_ms())
        except Short as error:
            raise Problem(409, str(error), code="short", short=error.short) from error
        except Gone as error:
            raise Problem(409, str(error), code="gone", gone=error.gone) from error
        except Ended as error:
            raise _ended(wanted.reservation_id) from error
        except Differs as error:
            detail = f"the reservation {wanted.reservation_id} is there, for other lines"
            raise Problem(409, detail, code="differs") from error
        _moved(made)
        return json_of(_shown(made), 201)

    @router.post("/reservations/{reservation_id}/commit")
    async def commit(reservation_id: Reserved) -> JSONResponse:
        try:
            made = await stock.commit(reservation_id, _now_ms())
        except Ended as error:
            raise _ended(reservation_id) from error
        _moved(made)
        return json_of(_shown(made))

    @router.delete("/reservations/{reservation_id}")
    async def end(reservation_id: Reserved) -> JSONResponse:
        made = await stock.end(reservation_id, _now_ms())
        _moved(made)
        return json_of({"reservation_id": made.id, "state": made.state})

    @router.get("/products")
    async def several(ids: Annotated[str, Query(min_length=1, max_length=16_000)]) -> JSONResponse:
        wanted = [one for one in ids.split(",") if one and len(one) <= 64 and "\0" not in one]
        if len(wanted) > IDS_MAX:
            raise Problem(422, f"ids: {len(wanted)} of them, {IDS_MAX} at most", code="too_many")
        found = await catalogue.by_ids(wanted)
        return json_of({"items": [{**one.v1(), "available": count} for one, count in found]})

    @router.get("/catalogue")
    async def all_of_it(
        after: Annotated[str, Query(max_length=64)] = "",
        limit: Annotated[int, Query(ge=1, le=200)] = 100,
    ) -> JSONResponse:
        """Every product that is sold, in the order of ids: for whoever must tell of them all."""
        names = ("id", "name", "price", "category", "updated_ms")
        query = (
            sa.select(*(PRODUCTS.c[name] for name in names))
            .where(PRODUCTS.c.removed_ms.is_(None), PRODUCTS.c.id > after.replace("\0", ""))
            .order_by(PRODUCTS.c.id)
            .limit(limit)
        )
        async with database.reading() as connection:
            rows = (await connection.execute(query)).all()
        items = [
            {
                "id": row.id,
                "name": row.name,
                "price": row.price,
                "category": row.category,
                "updated_at_s": row.updated_ms / 1000,
            }
            for row in rows
        ]
        return json_of({"items": items, "next": rows[-1].id if len(rows) == limit else None})

    @router.get("/books")
    async def accounts() -> JSONResponse:
        found = await books(database)
        document: dict[str, Any] = {
            "balanced": all(one.balanced for one in found),
            "items": [one.shown() for one in found],
        }
        return json_of(document)

    @router.get("/users/{user_id}/export")
    async def export_user(user_id: str) -> JSONResponse:
        """Nothing here is about a person: reservations know an order, not who ordered."""
        return json_of({})

    @router.delete("/users/{user_id}")
    async def erase_user(user_id: str) -> JSONResponse:
        return json_of({"erased": True})

    def _moved(made: Reservation) -> None:
        purges.soon(f"stock:{line['product_id']}" for line in made.lines)

    return router


def _ended(reservation_id: str) -> Problem:
    detail = f"the reservation {reservation_id} is over, or never was"
    return Problem(409, detail, code="ended")


def _shown(made: Reservation) -> dict[str, Any]:
    return {
        "reservation_id": made.id,
        "state": made.state,
        "expires_at": instant(made.expires_ms),
        "lines": list(made.lines),
    }


def _now_ms() -> int:
    return int(time.time() * 1000)  # noqa: TID251 - reservations outlive this process
