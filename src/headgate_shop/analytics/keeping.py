"""Changes of sums written to the database, and what is known of each order.

Everything here runs in a transaction of its caller's: with the inbox in it, a message changes the
sums once, however often it comes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headgate_shop.analytics import tables
from headgate_shop.analytics.companions import KEPT
from headgate_shop.analytics.reckoning import Line, Seen, Sold, Sums, day_of, lines_of
from headgate_shop.base.counting import Change, after
from headgate_shop.base.rows import insert_new_of, upsert

__all__ = ["Counted", "categories_of", "learn", "orders_heard", "plain", "see", "write"]

MOST_IDS: Final = 500


async def orders_heard(
    connection: AsyncConnection, heard: Sequence[tuple[Change, Mapping[str, Any]]]
) -> list[tuple[int, Sold]]:
    """Note what has become of orders. Answers of each the sign with which it goes into the sums,
    and what it is.
    """
    told = {str(data["order_id"]): data for _, data in heard}
    rows = await _orders(connection, list(told))
    new = {order_id: data for order_id, data in told.items() if order_id not in rows}
    if new:
        fresh = await _fresh(connection, new)
        made = await insert_new_of(connection, tables.orders, list(fresh.values()), "order_id")
        rows |= {order_id: fresh[order_id] for order_id in made}
        if len(made) < len(new):  # another process has heard of them at this moment
            rows |= await _orders(connection, [one for one in new if one not in made])
    found: list[tuple[int, Sold]] = []
    changed: dict[str, dict[str, Any]] = {}
    for change, data in heard:
        row = rows[str(data["order_id"])]
        is_paid, is_cancelled, sign = after(
            change, is_paid=row["is_paid"], is_cancelled=row["is_cancelled"]
        )
        if (is_paid, is_cancelled) != (row["is_paid"], row["is_cancelled"]):
            row["is_paid"], row["is_cancelled"] = is_paid, is_cancelled
            changed[row["order_id"]] = {
                "key": row["order_id"],
                "paid": is_paid,
                "off": is_cancelled,
            }
        found.append((sign, Sold(row["at"], row["total"], lines_of(row["lines"], {}))))
    if changed:
        table = tables.orders
        await connection.execute(
            sa.update(table)
            .where(table.c.order_id == sa.bindparam("key"))
            .values(is_paid=sa.bindparam("paid"), is_cancelled=sa.bindparam("off")),
            [changed[one] for one in sorted(changed)],
        )
    return found


async def _orders(connection: AsyncConnection, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    table = tables.orders
    query = sa.select(table).where(table.c.order_id.in_(ids)).order_by(table.c.order_id)
    rows = await connection.execute(query.with_for_update())
    return {row["order_id"]: dict(row) for row in rows.mappings()}


async def _fresh(
    connection: AsyncConnection, new: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Rows for orders that nobody has heard of, neither paid nor cancelled yet."""
    lines = await _lines(connection, new)
    users = {one for data in new.values() if isinstance(one := data.get("user_id"), str) and one}
    table = tables.erased
    query = sa.select(table.c.user_id).where(table.c.user_id.in_(sorted(users)))
    gone = set((await connection.scalars(query)).all()) if users else set()
    return {
        order_id: {
            "order_id": order_id,
            "user_id": data.get("user_id") if data.get("user_id") in users - gone else None,
            "at": float(data["at"]),
            "total": int(data["total"]),
            "currency": str(data.get("currency", "EUR")),
            "lines": [plain(line) for line in lines[order_id]],
            "is_paid": False,
            "is_cancelled": False,
        }
        for order_id, data in new.items()
    }


async def _lines(
    connection: AsyncConnection, new: Mapping[str, Mapping[str, Any]]
) -> dict[str, tuple[Line, ...]]:
    names = {
        str(line["product_id"]): str(line.get("name") or "")
        for data in new.values()
        for line in data["lines"]
    }
    known = await categories_of(connection, list(names))
    lines = {order_id: lines_of(data["lines"], known) for order_id, data in new.items()}
    unheard = {
        line.product_id: {
            "product_id": line.product_id,
            "name": names[line.product_id] or line.product_id,
            "category": line.category,
            "is_there": True,
        }
        for some in lines.values()
        for line in some
        if line.product_id not in known
    }
    await upsert(connection, tables.products, list(unheard.values()), present="keep")
    return lines


def plain(line: Line) -> dict[str, Any]:
    return {
        "product_id": line.product_id,
        "quantity": line.quantity,
        "price": line.price,
        "category": line.category,
    }


async def categories_of(connection: AsyncConnection, ids: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    wanted = sorted(set(ids))
    for start in range(0, len(wanted), MOST_IDS):
        query = sa.select(tables.products.c.product_id, tables.products.c.category).where(
            tables.products.c.product_id.in_(wanted[start : start + MOST_IDS])
        )
        found.update((row[0], row[1]) for row in await connection.execute(query))
    return found


async def learn(connection: AsyncConnection, data: Mapping[str, Any], *, is_there: bool) -> None:
    """What products tell of one: a new name, another category, or that it is gone."""
    product_id = str(data["product_id"])
    if not is_there:
        gone = tables.products.c.product_id == product_id
        await connection.execute(sa.update(tables.products).where(gone).values(is_there=False))
        return
    row = {
        "product_id": product_id,
        "name": str(data.get("name") or product_id),
        "category": str(data.get("category") or ""),
        "is_there": True,
    }
    await upsert(connection, tables.products, [row], present="replace")


@dataclass(frozen=True, slots=True)
class Counted:
    """How many events, and how many sessions were new on their day: at these steps, or at all."""

    events: int
    carts: int
    checkouts: int
    visits: int


async def see(connection: AsyncConnection, events: Sequence[Seen], sums: Sums) -> Counted:
    """Take events into the sums; a session counts once a day for each step, and as a visit."""
    named = [one for one in events if one.session]
    visits = {(day_of(one.at), one.session): Seen("visit", one.at, one.session) for one in named}
    keys = {_key(one) for one in (*visits.values(), *named)}
    new = sorted(keys - await _counted_sessions(connection, keys))
    rows = [{"day": day, "session": session, "step": step} for day, session, step in new]
    await upsert(connection, tables.sessions, rows, present="keep")
    first = set(new)
    for one in (*(visit for visit in visits.values() if _key(visit) in first), *events):
        sums.see(one, is_first=_key(one) in first)
        first.discard(_key(one))
    steps = [step for _, _, step in new]
    return Counted(len(events), steps.count("cart"), steps.count("checkout"), steps.count("visit"))


def _key(seen: Seen) -> tuple[str, str, str]:
    return day_of(seen.at), seen.session, seen.step


async def _counted_sessions(
    connection: AsyncConnection, keys: set[tuple[str, str, str]]
) -> set[tuple[str, str, str]]:
    table = tables.sessions
    found: set[tuple[str, str, str]] = set()
    names = sorted({session for _, session, _ in keys})
    days = sorted({day for day, _, _ in keys})
    for start in range(0, len(names), MOST_IDS):
        query = sa.select(table.c.day, table.c.session, table.c.step).where(
            table.c.day.in_(days), table.c.session.in_(names[start : start + MOST_IDS])
        )
        found.update((row[0], row[1], row[2]) for row in await connection.execute(query))
    return found


async def write(connection: AsyncConnection, sums: Sums, *, make_room: bool = True) -> None:
    """Add the changes to what stands there."""
    for table, keys, columns, changes in (
        (tables.sales_hours, ("day", "hour"), ("orders", "units", "revenue"), sums.hours),
        (
            tables.product_days,
            ("day", "product_id"),
            ("orders", "units", "revenue", "views", "carts"),
            sums.products,
        ),
        (tables.category_days, ("day", "category"), ("units", "revenue"), sums.categories),
        (tables.funnel_hours, ("day", "hour", "step"), ("events", "sessions"), sums.funnel),
    ):
        changed: Mapping[Any, list[int]] = changes
        rows = [
            dict(zip(keys, key, strict=True)) | dict(zip(columns, change, strict=True))
            for key, change in changed.items()
        ]
        await upsert(connection, table, rows, present="add")
    baskets = [{"product_id": one, "times": times} for one, times in sums.baskets.items()]
    await upsert(connection, tables.baskets, baskets, present="add")
    await _write_pairs(connection, sums, make_room)


async def _write_pairs(connection: AsyncConnection, sums: Sums, make_room: bool) -> None:
    rows = [
        {"product_id": one, "other_id": other, "times": times}
        for (one, other), times in sums.pairs.items()
    ]
    await upsert(connection, tables.pairs, rows, present="add")
    if any(times < 0 for times in sums.pairs.values()):
        # A pair that had made room and is taken away now would be below zero.
        ones = sorted({one for one, _ in sums.pairs})
        await connection.execute(
            sa.delete(tables.pairs).where(
                tables.pairs.c.times <= 0, tables.pairs.c.product_id.in_(ones)
            )
        )
    if not make_room:
        return
    fresh: dict[str, set[str]] = {}
    for one, other in sums.pairs:
        fresh.setdefault(one, set()).add(other)
    table = tables.pairs
    full = await connection.scalars(
        sa.select(table.c.product_id)
        .where(table.c.product_id.in_(sorted(fresh)))
        .group_by(table.c.product_id)
        .having(sa.func.count() > KEPT)
    )
    for one in sorted(full):
        await _make_room(connection, one, fresh[one])


async def _make_room(connection: AsyncConnection, product_id: str, new: set[str]) -> None:
    """Forget the weakest beyond KEPT, but not who came just now: else nobody new could stay."""
    table = tables.pairs
    query = sa.select(table.c.other_id, table.c.times).where(table.c.product_id == product_id)
    there = [(row[0], row[1]) for row in await connection.execute(query)]
    there.sort(key=lambda one: (one[0] in new, one[1], one[0]))
    weak = [other for other, _ in there[: len(there) - KEPT]]
    await connection.execute(
        sa.delete(table).where(table.c.product_id == product_id, table.c.other_id.in_(weak))
    )
