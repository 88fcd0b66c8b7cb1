"""The whole catalogue as a file, written while it is read: no more is held than a few hundred rows.

Each batch is a read of its own. What is edited meanwhile stands there as it was or as it is, and
what is there all the time stands there once, because rows are walked by their numbers.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

import sqlalchemy as sa

from headgate_shop.base.database import Database
from headgate_shop.products.reading import goods_of
from headgate_shop.products.records import Format, to_csv, to_json_lines
from headgate_shop.products.shapes import Goods
from headgate_shop.products.tables import PRODUCTS, STOCK

__all__ = ["exported"]

BATCH: Final = 500


async def exported(database: Database, kind: Format) -> AsyncIterator[bytes]:
    columns = [PRODUCTS.c[name] for name in Goods.model_fields]
    on_shelf = sa.func.coalesce(STOCK.c.received - STOCK.c.sold, 0).label("on_shelf")
    last, is_first = 0, True
    while True:
        query = (
            sa.select(*columns, on_shelf)
            .select_from(PRODUCTS.outerjoin(STOCK, STOCK.c.product_id == PRODUCTS.c.id))
            .where(PRODUCTS.c.removed_ms.is_(None), PRODUCTS.c.number > last)
            .order_by(PRODUCTS.c.number)
            .limit(BATCH)
        )
        async with database.reading() as connection:
            rows = (await connection.execute(query)).all()
        several = [(goods_of(row), int(row.on_shelf)) for row in rows]
        pieces = to_json_lines(several) if kind == "jsonl" else to_csv(several, is_first=is_first)
        yield b"".join(pieces)
        if len(rows) < BATCH:
            return
        last, is_first = rows[-1].number, False
