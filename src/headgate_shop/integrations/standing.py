"""Where each connector stands: its cursor, its counts, its last faults, and its uptime by day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headgate_shop.base.rows import upsert
from headgate_shop.integrations import tables
from headgate_shop.integrations.connectors import Outgoing, Pulled, Pushed

__all__ = [
    "begin",
    "counts",
    "days_of",
    "faults_of",
    "iso",
    "note_fault",
    "note_time",
    "retry_refused",
    "settle",
    "standing",
    "switch",
    "take_in",
    "waiting",
]

FAULTS_KEPT: Final = 20
DAYS_KEPT: Final = 90
FAULT_LENGTH: Final = 500
SEEN_MAX_S: Final = 90.0
"""Longer than this between two looks, nobody knows what was in between."""


async def begin(connection: AsyncConnection, names: Sequence[str]) -> None:
    rows = [
        {
            "name": name,
            "enabled": True,
            "cursor": "",
            "pushed": 0,
            "pulled": 0,
            "last_sync_at": None,
            "last_ok_at": None,
            "failures": 0,
        }
        for name in names
    ]
    await upsert(connection, tables.connectors, rows, present="keep")


async def standing(connection: AsyncConnection, name: str) -> Mapping[str, Any]:
    query = sa.select(tables.connectors).where(tables.connectors.c.name == name)
    return dict((await connection.execute(query)).mappings().one())


async def switch(connection: AsyncConnection, name: str, *, enabled: bool) -> None:
    await connection.execute(
        sa.update(tables.connectors).where(tables.connectors.c.name == name).values(enabled=enabled)
    )


async def waiting(
    connection: AsyncConnection, name: str, most: int
) -> tuple[list[Outgoing], dict[str, int]]:
    """What has waited longest, with the version of each."""
    table = tables.outgoing
    rows = (
        await connection.execute(
            sa.select(table)
            .where(table.c.connector == name, table.c.state == "waiting")
            .order_by(table.c.queued_at, table.c.key)
            .limit(most)
        )
    ).mappings()
    found, versions = [], {}
    for row in rows:
        found.append(Outgoing(row["key"], row["kind"], row["payload"], row["remote_id"]))
        versions[row["key"]] = row["version"]
    return found, versions


async def settle(
    connection: AsyncConnection,
    name: str,
    pushed: Sequence[Pushed],
    versions: Mapping[str, int],
    wall: float,
) -> None:
    """Note what became of each. What has changed since goes on waiting."""
    table = tables.outgoing
    sent = 0
    for one in pushed:
        is_this = sa.and_(table.c.connector == name, table.c.key == one.key)
        if one.remote_id is not None:
            await connection.execute(
                sa.update(table).where(is_this).values(remote_id=one.remote_id)
            )
        values: dict[str, Any] = {"attempts": table.c.attempts + 1}
        if one.refused:
            values |= {"state": "refused", "error": one.refused[:FAULT_LENGTH]}
        else:
            values |= {"state": "sent", "sent_at": wall, "payload": None, "error": None}
            sent += 1
        await connection.execute(
            sa.update(table).where(is_this, table.c.version == versions[one.key]).values(**values)
        )
    await connection.execute(
        sa.update(tables.connectors)
        .where(tables.connectors.c.name == name)
        .values(pushed=tables.connectors.c.pushed + sent)
    )


async def take_in(connection: AsyncConnection, name: str, pulled: Pulled, wall: float) -> int:
    """A page and the cursor behind it: both or neither. Answers how many were new."""
    table = tables.incoming
    ids = [record.remote_id for record in pulled.records]
    known = await connection.execute(
        sa.select(table.c.remote_id).where(table.c.connector == name, table.c.remote_id.in_(ids))
    )
    there = {row[0] for row in known}
    rows = {
        (record.kind, record.remote_id): {
            "connector": name,
            "kind": record.kind,
            "remote_id": record.remote_id,
            "at": wall,
            "data": dict(record.data),
        }
        for record in pulled.records
    }
    await upsert(connection, table, list(rows.values()), present="replace")
    new = len(set(ids) - there)
    connectors = tables.connectors
    await connection.execute(
        sa.update(connectors)
        .where(connectors.c.name == name)
        .values(cursor=pulled.cursor, pulled=connectors.c.pulled + new)
    )
    return new


async def retry_refused(connection: AsyncConnection, name: str) -> int:
    """What the partner refused waits again: somebody has mended the cause."""
    table = tables.outgoing
    done = await connection.execute(
        sa.update(table)
        .where(table.c.connector == name, table.c.state == "refused")
        .values(state="waiting")
    )
    return int(done.rowcount)


async def note_fault(connection: AsyncConnection, name: str, text: str, wall: float) -> None:
    table = tables.faults
    await connection.execute(
        sa.insert(table).values(connector=name, at=wall, text=text[:FAULT_LENGTH])
    )
    kept = (
        sa.select(table.c.id)
        .where(table.c.connector == name)
        .order_by(table.c.id.desc())
        .limit(FAULTS_KEPT)
    )
    ids = [row[0] for row in await connection.execute(kept)]
    await connection.execute(
        sa.delete(table).where(table.c.connector == name, table.c.id < min(ids))
    )


async def note_time(
    connection: AsyncConnection,
    name: str,
    *,
    is_up: bool,
    since: float | None,
    wall: float,
    calls: int,
    failures: int,
) -> None:
    """The time since the last look was as this look has found it."""
    seconds = wall - since if since is not None and 0 < wall - since <= SEEN_MAX_S else 0.0
    row = {
        "connector": name,
        "day": _day(wall),
        "up_s": seconds if is_up else 0.0,
        "down_s": 0.0 if is_up else seconds,
        "calls": calls,
        "failures": failures,
    }
    await upsert(connection, tables.days, [row], present="add")
    oldest = _day(wall - DAYS_KEPT * 86400)
    await connection.execute(
        sa.delete(tables.days).where(tables.days.c.connector == name, tables.days.c.day < oldest)
    )
    values: dict[str, Any] = {"last_sync_at": wall, "failures": 0, "last_ok_at": wall}
    if not is_up:
        values = {"last_sync_at": wall, "failures": tables.connectors.c.failures + 1}
    await connection.execute(
        sa.update(tables.connectors).where(tables.connectors.c.name == name).values(**values)
    )


async def counts(connection: AsyncConnection, name: str) -> dict[str, int]:
    table = tables.outgoing
    rows = await connection.execute(
        sa.select(table.c.state, sa.func.count())
        .where(table.c.connector == name)
        .group_by(table.c.state)
    )
    found = {"waiting": 0, "refused": 0, "sent": 0}
    found.update((row[0], row[1]) for row in rows)
    return found


async def faults_of(connection: AsyncConnection, name: str) -> list[dict[str, Any]]:
    table = tables.faults
    rows = await connection.execute(
        sa.select(table.c.at, table.c.text)
        .where(table.c.connector == name)
        .order_by(table.c.id.desc())
    )
    return [{"at": iso(row[0]), "error": row[1]} for row in rows]


async def days_of(connection: AsyncConnection, name: str, most: int) -> list[dict[str, Any]]:
    table = tables.days
    rows = await connection.execute(
        sa.select(table).where(table.c.connector == name).order_by(table.c.day.desc()).limit(most)
    )
    found = []
    for row in rows.mappings():
        seen = row["up_s"] + row["down_s"]
        found.append(
            {
                "day": row["day"],
                "uptime": round(row["up_s"] / seen, 5) if seen else None,
                "seen_s": round(seen, 1),
                "calls": row["calls"],
                "failures": row["failures"],
            }
        )
    return found[::-1]


def iso(at: float | None) -> str | None:
    return datetime.fromtimestamp(at, UTC).isoformat() if at is not None else None


def _day(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%d")
