"""Bulk import: a file is taken whole, then worked through in batches, and can be watched.

Theory of operation
-------------------
A file is written to the folder before its job is, and the job is what counts: it is waiting, then
running, then done or failed. A batch is one transaction: its products, their stock, their faults
and how far the job has come. A process that is killed leaves the job where its last batch ended,
and it goes on from there, in this process or another: a job is held by a lease, and a batch that
finds the job moved on by another holder is thrown away. So each record has its effect once.

A record that names a known id edits that product, else it makes one. A record that cannot be taken
is a fault of its line, and the others are taken all the same. `stock` is what was counted.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headgate_shop.base.background import Background
from headgate_shop.base.database import Database
from headgate_shop.base.rows import insert_new
from headgate_shop.products.editing import Editor, Missing, ensure_category, find
from headgate_shop.products.keeping import Purges, product_tags
from headgate_shop.products.records import Fault, Format, Record, read_records
from headgate_shop.products.shapes import instant
from headgate_shop.products.stock import Short, Stock
from headgate_shop.products.tables import FAULTS, JOBS, PRODUCTS

__all__ = ["FILE_MAX_BYTES", "Importer", "JobMissing"]

FILE_MAX_BYTES: Final = 8_000_000
BATCH: Final = 100
FAULTS_MAX: Final = 1000
SHOWN_MAX: Final = 200
LEASE_MS: Final = 30_000
LOOK_S: Final = 5.0

log = logging.getLogger("headgate_shop.products")


class JobMissing(Exception):
    """There is no such job."""


class _Lost(Exception):
    """Another process goes on with the job."""


class Importer(Background):
    """Works through what is waiting while it is entered."""

    task_name = "imports"

    def __init__(
        self, database: Database, editor: Editor, stock: Stock, purges: Purges, folder: Path
    ) -> None:
        self._database = database
        self._editor = editor
        self._stock = stock
        self._purges = purges
        self._folder = folder / "imports"
        self._name = secrets.token_hex(8)

    def place(self) -> tuple[str, Path]:
        """A new job's id, and where its file is to be written."""
        job_id = f"import-{secrets.token_hex(8)}"
        self._folder.mkdir(parents=True, exist_ok=True)
        return job_id, self._folder / job_id

    async def begin(self, job_id: str, kind: Format, size_bytes: int) -> None:
        """Its file is there, whole."""
        row = {
            "id": job_id,
            "state": "waiting",
            "format": kind,
            "size_bytes": size_bytes,
            "read_bytes": 0,
            "records": 0,
            "created": 0,
            "updated": 0,
            "faults": 0,
            "why": "",
            "worker": "",
            "lease_ms": 0,
            "created_ms": _now_ms(),
        }
        async with self._database.writing() as connection:
            await connection.execute(sa.insert(JOBS).values(row))
        self.wake()

    async def show(self, job_id: str) -> dict[str, Any]:
        async with self._database.reading() as connection:
            row = (
                await connection.execute(sa.select(JOBS).where(JOBS.c.id == job_id))
            ).one_or_none()
            if row is None:
                raise JobMissing
            faults = await connection.execute(
                sa.select(FAULTS.c.line, FAULTS.c.detail)
                .where(FAULTS.c.job_id == job_id)
                .order_by(FAULTS.c.line)
                .limit(SHOWN_MAX)
            )
            shown = [{"line": fault.line, "detail": fault.detail} for fault in faults]
        progress = 1.0 if row.state == "done" else row.read_bytes / max(1, row.size_bytes)
        return {
            "job": row.id,
            "state": row.state,
            "format": row.format,
            "progress": round(min(1.0, progress), 3),
            "records": row.records,
            "created": row.created,
            "updated": row.updated,
            "faults_total": row.faults,
            "faults": shown,
            "why": row.why,
            "created_at": instant(row.created_ms),
            "ended_at": None if row.ended_ms is None else instant(row.ended_ms),
        }

    # ---- at work

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await super().__aexit__(kind, error, trace)
        try:  # whoever comes next need not wait until our lease has run out
            async with self._database.writing() as connection:
                await connection.execute(
                    sa.update(JOBS).where(JOBS.c.worker == self._name).values(lease_ms=0)
                )
        except (OSError, sa.exc.SQLAlchemyError) as left:
            log.info("an import goes on when our lease is over: %s", left)

    async def _run(self) -> None:
        while not self.is_ending():
            try:
                while not self.is_ending() and (job := await self._claim()) is not None:
                    await self._work(job)
            except Exception as error:  # noqa: BLE001 - the database may be away for a while
                log.warning("imports go on later: %s", error)
            await self.rest(LOOK_S)

    async def _claim(self) -> Any:
        """The oldest job that nobody holds, now ours."""
        free = (
            sa.select(JOBS.c.id)
            .where(JOBS.c.state.in_(["waiting", "running"]), JOBS.c.lease_ms < _now_ms())
            .order_by(JOBS.c.created_ms)
            .limit(1)
        )
        async with self._database.reading() as connection:
            job_id = await connection.scalar(free)
        if job_id is None:
            return None
        async with self._database.writing() as connection:
            taken = (
                sa.update(JOBS)
                .where(
                    JOBS.c.id == job_id,
                    JOBS.c.state.in_(["waiting", "running"]),
                    JOBS.c.lease_ms < _now_ms(),
                )
                .values(state="running", worker=self._name, lease_ms=_now_ms() + LEASE_MS)
                .returning(*JOBS.c)
            )
            return (await connection.execute(taken)).one_or_none()

    async def _work(self, job: Any) -> None:
        path = self._folder / job.id
        try:
            found = read_records(path, job.format)
            # Those before are done; to read over them again takes no time worth saving.
            await asyncio.to_thread(_skip, found, job.records)
            done = job.records
            while batch := await asyncio.to_thread(lambda: list(islice(found, BATCH))):
                purge = await self._take(job.id, done, batch)
                done += len(batch)
                await self._purges.tell(purge)
                if self.is_ending():
                    return  # whoever comes next goes on here
            await self._end(job.id, "done", "")
        except _Lost:
            return
        except FileNotFoundError:
            await self._end(job.id, "failed", "its file is not there any more")
        await asyncio.to_thread(path.unlink, missing_ok=True)

    async def _take(self, job_id: str, done: int, batch: list[Record | Fault]) -> int:
        """One transaction; answers what it makes untrue."""
        now_ms = _now_ms()
        created = updated = 0
        faults: list[Fault] = []
        tags: set[str] = set()
        # In one order for everybody, so that two batches cannot wait for each other.
        ordered = sorted(
            batch, key=lambda one: one.draft.id or "" if isinstance(one, Record) else ""
        )
        async with self._database.writing() as connection:
            for one in ordered:
                if isinstance(one, Fault):
                    faults.append(one)
                    continue
                got = await self._take_one(connection, one, now_ms, tags)
                if isinstance(got, Fault):
                    faults.append(got)
                elif got:
                    created += 1
                else:
                    updated += 1
            await self._note(connection, job_id, faults)
            moved = (
                sa.update(JOBS)
                .where(JOBS.c.id == job_id, JOBS.c.worker == self._name, JOBS.c.records == done)
                .values(
                    records=done + len(batch),
                    read_bytes=batch[-1].end,
                    created=JOBS.c.created + created,
                    updated=JOBS.c.updated + updated,
                    faults=JOBS.c.faults + len(faults),
                    lease_ms=_now_ms() + LEASE_MS,
                )
            )
            if (await connection.execute(moved)).rowcount != 1:
                raise _Lost
            return await self._purges.note(connection, tags)

    async def _take_one(
        self, connection: AsyncConnection, record: Record, now_ms: int, tags: set[str]
    ) -> bool | Fault:
        """Whether it was new."""
        draft = record.draft
        product_id = draft.id or f"p-{secrets.token_hex(6)}"
        try:
            before = await find(connection, product_id, None)
        except Missing:
            before = None
            known = sa.select(PRODUCTS.c.id).where(PRODUCTS.c.id == product_id)
            if await connection.scalar(known) is not None:
                return Fault(record.line, f"id: {product_id} was removed", record.end)
        if record.has_stock and before is not None:
            try:
                # First of all: if it is refused, nothing of the record is kept.
                await self._stock.count(connection, product_id, draft.stock, now_ms)
            except Short as error:
                detail = f"stock: {draft.stock} is less than what is reserved ({error.short})"
                return Fault(record.line, detail, record.end)
            tags.add(f"stock:{product_id}")
        await ensure_category(connection, draft.category)
        if before is None:
            goods = await self._editor.insert(connection, product_id, draft, now_ms)
            if draft.stock:
                await self._stock.receive(connection, product_id, draft.stock, now_ms)
        else:
            goods = await self._editor.update(connection, before, draft, now_ms)
            tags.add(f"category:{before.category}")
        await self._editor.announce(connection, goods, now_ms)
        tags.update(product_tags(goods.id, goods.category))
        return before is None

    async def _note(self, connection: AsyncConnection, job_id: str, faults: list[Fault]) -> None:
        there = await connection.scalar(sa.select(sa.func.count()).where(FAULTS.c.job_id == job_id))
        for fault in faults[: max(0, FAULTS_MAX - int(there or 0))]:
            row = {"job_id": job_id, "line": fault.line, "detail": fault.detail[:1000]}
            await insert_new(connection, FAULTS, row)

    async def _end(self, job_id: str, state: str, why: str) -> None:
        async with self._database.writing() as connection:
            await connection.execute(
                sa.update(JOBS)
                .where(JOBS.c.id == job_id, JOBS.c.worker == self._name)
                .values(state=state, why=why, ended_ms=_now_ms())
            )


def _skip(found: Any, count: int) -> None:
    for _ in islice(found, count):
        pass


def _now_ms() -> int:
    return int(time.time() * 1000)  # noqa: TID251 - jobs outlive this process
