"""The objects of all partners, in one table."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headgate_shop.base.database import Database
from headgate_shop.base.rows import upsert
from headgate_shop.partners import tables

__all__ = ["Store", "Stored"]

_table = tables.objects


@dataclass(frozen=True, slots=True)
class Stored:
    id: str
    number: int
    seq: int
    version: int
    at: float
    data: Mapping[str, Any]


class Store:
    def __init__(self, database: Database, partner: str) -> None:
        self._database = database
        self._partner = partner

    async def put(
        self,
        kind: str,
        id: str,  # noqa: A002 - as everybody calls it
        data: Mapping[str, Any],
        *,
        if_version: int | None = None,
        is_new: bool = False,
    ) -> Stored | None:
        """Keep it; None if it is there although it `is_new`, or is another than `if_version`."""
        async with self._database.writing() as connection:
            there = await self._find(connection, kind, id)
            if is_new and there is not None:
                return None
            if if_version is not None and (there is None or there.version != if_version):
                return None
            seq = await self._tick(connection)
            now = time.time()  # noqa: TID251 - partners date their objects
            row: dict[str, Any] = {
                "partner": self._partner,
                "kind": kind,
                "id": id,
                "number": there.number if there is not None else 1_000_000 + seq,
                "seq": seq,
                "version": there.version + 1 if there is not None else 1,
                "at": now,
                "data": dict(data),
            }
            await upsert(connection, _table, [row], present="replace")
            return Stored(id, row["number"], seq, row["version"], now, dict(data))

    async def _tick(self, connection: AsyncConnection) -> int:
        clock = tables.clocks
        await upsert(connection, clock, [{"partner": self._partner, "seq": 1}], present="add")
        query = sa.select(clock.c.seq).where(clock.c.partner == self._partner)
        return int(await connection.scalar(query) or 0)

    async def find(self, kind: str, id: str) -> Stored | None:  # noqa: A002
        async with self._database.reading() as connection:
            return await self._find(connection, kind, id)

    async def _find(
        self,
        connection: AsyncConnection,
        kind: str,
        id: str,  # noqa: A002
    ) -> Stored | None:
        query = sa.select(_table).where(self._is(kind), _table.c.id == id)
        row = (await connection.execute(query)).mappings().first()
        return _stored(row) if row is not None else None

    async def numbered(self, kind: str, number: int) -> Stored | None:
        """By the partner's own number."""
        query = sa.select(_table).where(self._is(kind), _table.c.number == number)
        async with self._database.reading() as connection:
            row = (await connection.execute(query)).mappings().first()
        return _stored(row) if row is not None else None

    async def page(self, kind: str, after: int, limit: int) -> Sequence[Stored]:
        """In the order in which they changed."""
        query = (
            sa.select(_table)
            .where(self._is(kind), _table.c.seq > after)
            .order_by(_table.c.seq)
            .limit(limit)
        )
        async with self._database.reading() as connection:
            return [_stored(row) for row in (await connection.execute(query)).mappings()]

    async def count(self, kind: str) -> int:
        query = sa.select(sa.func.count()).select_from(_table).where(self._is(kind))
        async with self._database.reading() as connection:
            return int(await connection.scalar(query) or 0)

    async def remove(self, kind: str, id: str) -> bool:  # noqa: A002
        async with self._database.writing() as connection:
            done = await connection.execute(
                sa.delete(_table).where(self._is(kind), _table.c.id == id)
            )
            return bool(done.rowcount)

    def _is(self, kind: str) -> sa.ColumnElement[bool]:
        return sa.and_(_table.c.partner == self._partner, _table.c.kind == kind)


def _stored(row: Mapping[Any, Any]) -> Stored:
    return Stored(row["id"], row["number"], row["seq"], row["version"], row["at"], row["data"])
