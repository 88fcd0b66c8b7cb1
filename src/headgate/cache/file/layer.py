"""The second layer in a file: what a cache asks of it, each call as a job for the thread.

Theory of operation. When the file is away, `invalidate` holds in this process at once, and in the
file as soon as it can be written. A value that could not be kept is owed to the file as an
invalidation of its key, for what is there is older. A cancelled call is done all the same; a lease
that nobody waits for any more is given back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from math import isnan
from typing import Any, TypeVar

from headgate.cache.barriers import compiled
from headgate.cache.codecs import Unencodable
from headgate.cache.entry import Entry
from headgate.cache.file import entries, news
from headgate.cache.file.entries import Packed
from headgate.cache.file.jobs import Job
from headgate.cache.file.link import LATENCIES, Link
from headgate.cache.file.store import Store
from headgate.cache.invalidation import Invalidation
from headgate.cache.layer import Invalidated, LayerAway, LayerSnapshot, Lease

__all__ = ["FileLayer"]

_STAMP_MAX = 2**63 - 1
_COUNT_S = 0.1
"""So long others may hold a count that was read."""


class FileLayer(Link):
    kind = "file"

    async def get(self, keys: Sequence[str]) -> list[Entry | None]:
        if not keys:
            return []
        names = [news.to_blob(key) for key in keys]

        def run(store: Store) -> list[Entry | None]:
            wall, found = store.wall(), []
            for name in names:
                entry, dead = entries.read(store, name, wall, _COUNT_S)
                if entry is not None:
                    store.uses.was_used(name, wall)
                elif dead is not None:
                    store.uses.is_dead(dead)
                found.append(entry)
            return found

        answer: list[Entry | None] = await self._ask(Job(run, is_write=False))
        return answer

    async def put(self, items: Mapping[str, Entry], lease: Lease | None = None) -> None:
        # Packed here and now: whoever called may change the value as soon as this waits.
        packed = [self._packed(key, entry) for key, entry in items.items()]
        if not packed:
            return

        def run(store: Store) -> None:
            if lease is not None and news.is_overtaken(
                store.db, news.to_blob(lease.key), lease.fence
            ):
                return
            wall = store.wall()
            for item in packed:
                store.grow(entries.keep(store, item, wall))

        try:
            await self._ask(Job(run, is_write=True))
        except LayerAway:
            self._store.owed.add_keys(items)
            raise

    def _packed(self, key: str, entry: Entry) -> Packed:
        data = self._packer.encode(entry)
        if entry.stamp > _STAMP_MAX:
            raise Unencodable(f"its stamp is {entry.stamp}, beyond what a file can hold")
        self._bytes_out += len(data)
        return Packed(
            news.to_blob(key),
            data,
            entry.stamp,
            entry.made_at,
            entry.fresh_until,
            entry.usable_until,
            entry.tags,
        )

    async def touch(self, keys: Sequence[str], usable_until: float, fresh_until: float) -> int:
        names = [news.to_blob(key) for key in keys]
        ends = (usable_until, fresh_until)
        if any(map(isnan, ends)):
            raise ValueError("touch: the new end is no number")

        def run(store: Store) -> int:
            wall = store.wall()
            return sum(entries.touch(store, name, wall, ends) for name in names)

        answer: int = await self._ask(Job(run, is_write=True))
        return answer

    async def add(self, key: str, amount: int, ttl_s: float | None) -> int:
        """What was counted can be read with `get`, and a whole number that was kept is counted on
        from. TypeError if something else is there, OverflowError beyond 64 bits.
        """
        name = news.to_blob(key)

        def run(store: Store) -> int:
            count, grown = entries.add(store, name, store.wall(), amount, ttl_s)
            store.grow(grown)
            return count

        answer: int = await self._ask(Job(run, is_write=True))
        return answer

    async def invalidate(self, invalidation: Invalidation) -> Invalidated:
        """When this returns unqueued, it is in the file; every process that is coherent acts upon
        it within 100 ms.
        """
        if invalidation.is_empty:
            return Invalidated(self.barriers.stamp)

        def run(store: Store) -> Invalidation:
            return store.publish(invalidation)

        try:
            said: Invalidation = await self._ask(Job(run, is_write=True, is_lasting=True))
        except LayerAway:
            stamp = max(self.barriers.stamp + 1, invalidation.stamp, int(self._wall() * 1e6))
            local = invalidation.at(stamp)
            self.barriers.raise_for(local)
            self._store.owed.add(local)
            return Invalidated(stamp, is_queued=True)
        return Invalidated(said.stamp)

    async def lease(self, key: str, ttl_s: float) -> Lease | None:
        name = news.to_blob(key)

        def run(store: Store) -> Lease | None:
            got = news.lease(store.db, name, ttl_s, store.monotonic())
            return None if got is None else Lease(key, *got)

        answer: Lease | None = await self._ask(Job(run, is_write=True, undo=self._give_back))
        return answer

    def _give_back(self, lease: Lease | None) -> None:
        if lease is not None:
            try:
                job = self._ask(self._releasing(lease))
            except LayerAway:
                return  # it ends by itself
            job.add_done_callback(_forget)

    def _releasing(self, lease: Lease) -> Job:
        name = news.to_blob(lease.key)
        return Job(
            lambda store: news.release(store.db, name, lease.fence, store.monotonic()),
            is_write=True,
        )

    async def release(self, lease: Lease) -> None:
        await self._ask(self._releasing(lease))

    async def scan(self, pattern: str) -> AsyncIterator[str]:
        fits = compiled(pattern).fullmatch
        prefix = news.to_blob(pattern.partition("*")[0])
        after = b""
        while True:
            page = entries.Page(prefix, after)
            keys: list[tuple[bytes, bool]] = await self._ask(Job(page, is_write=False))
            for key, is_alive in keys:
                name = news.to_text(key)
                if is_alive and fits(name):
                    yield name
            if len(keys) < entries.PAGE:
                return
            after = keys[-1][0]

    def listen(self, hear: Callable[[Invalidation], None]) -> Callable[[], None]:
        return _added(self._hear, hear)

    def on_gap(self, hear: Callable[[], None]) -> Callable[[], None]:
        return _added(self._gaps, hear)

    def snapshot(self) -> LayerSnapshot:
        store = self._store
        took = sorted(self._latencies[: min(self._batches, LATENCIES)]) or [0.0]
        why = store.away or store.unwritable
        if self._is_stalled:
            why = f"no answer within {self._deadline_s:g} s"
        elif self._worker is None:
            why = "not started"
        return LayerSnapshot(
            kind=self.kind,
            place=store.path,
            is_away=self.is_away,
            why=why,
            for_s=max(self._monotonic() - store.since, 0.0),
            breaker="open" if why else "closed",
            commands=self._commands,
            batches=self._batches,
            failures=self._failures,
            queued=len(store.owed),
            dropped=store.owed.dropped,
            bytes_in=store.bytes_in,
            bytes_out=self._bytes_out,
            latency_p50_s=took[len(took) // 2],
            latency_p99_s=took[len(took) * 99 // 100],
        )


_Hear = TypeVar("_Hear")


def _added(known: dict[object, _Hear], hear: _Hear) -> Callable[[], None]:
    token = object()
    known[token] = hear

    def end() -> None:
        known.pop(token, None)

    return end


def _forget(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()
