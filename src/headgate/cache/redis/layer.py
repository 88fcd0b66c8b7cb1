"""The second layer in Redis.

Theory of operation. An entry stands under its key, with the barriers of that key before it, so that
`put` and an invalidation of the key decide in one step; tags have a key each (`names`). Reading
takes one trip: the entries and the clock, in one batch with whatever else is asked in this turn of
the loop. The clock says whether the barriers known here are all there are; if not, what is missing
is read first. So what was invalidated anywhere before a `get` began is not served by it, on a
Cluster too, where entry, tag and clock may stand on three nodes.

    invalidate   a stamp is given out and told, in one step (`SAY`); then the barriers are raised
                 where the entries are. Whoever dies in between has told it all the same: readers
                 know it from the stream, and newcomers read its end.
    put          refused if the key, or on a single Redis a tag, was struck since the entry's stamp;
                 on a Cluster a struck tag is seen when the entry is read.
    away         reading raises LayerAway at once; writes wait (`pending`), and invalidations too,
                 which are told before anything is read again.

What Redis itself may lose: a failover to a replica that lags, or a restart, forgets what was
acknowledged. So a Redis process that was never met before is taken to have forgotten, and all older
entries are struck, unless `durable` says that it forgets nothing. A master that is cut off from its
replicas and yet reached by some goes on until Redis finds out (`min-replicas-to-write`).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from headgate.cache.barriers import Standing
from headgate.cache.codecs import Undecodable
from headgate.cache.entry import Entry
from headgate.cache.layer import LayerAway, Lease
from headgate.cache.redis.counting import Counting
from headgate.cache.redis.link import Command
from headgate.cache.redis.names import HEAD, read_barriers, read_head
from headgate.cache.redis.node import Node
from headgate.cache.redis.rim import call_of, wall_now
from headgate.cache.redis.router import Ask, Router
from headgate.cache.redis.scripts import LEASE, RELEASE, TOUCH

__all__ = ["RedisLayer"]

_SCAN_COUNT: Final = 500
_KNOWN_MAX: Final = 100_000
_OWED_MAX: Final = 1000


class RedisLayer(Counting):
    # ---- reading

    async def get(
        self, keys: Sequence[str], names: Sequence[str] | None = None
    ) -> list[Entry | None]:
        """`names`: by which entries are judged, where those are not their keys (URLs)."""
        if not keys:
            return []
        router = self._at_hand() or await self._here()
        heard = self._heard
        said = heard.said
        if self._family == "objects" and not router.is_cluster:
            wanted: list[bytes] = []
            for key in keys:
                wanted += self._names.entry_and_count(key)
            reads, future = router.read(wanted)
            replies = await future
            text, sent_at = reads.clock, reads.sent_at
        else:
            replies, text, sent_at = await self._read_apart(router, keys)
        if text is not None and text == heard.text:
            self._all_is_heard(sent_at)
        else:
            await self._settle(text, said, sent_at)
        wall = wall_now()
        found: list[Entry | None] = []
        unsure: list[int] = []
        for i, key in enumerate(keys if names is None else names):
            reply, count = replies[2 * i], replies[2 * i + 1]
            if count is not None and (counted := self._count_of(count)) is not None:
                found.append(counted)
            else:
                found.append(None if reply is None else self._read(key, reply, wall, i, unsure))
        if unsure:
            await self._look_up(router, names or keys, found, unsure)
        return found

    async def _read_apart(
        self, router: Router, keys: Sequence[str]
    ) -> tuple[list[Any], object, float]:
        """Each by a command of its own, as entry and count in turn; then the clock, and when it was
        asked. Responses may be long, and have no counts. On a Cluster a command of two keys is
        refused while their slot moves.
        """
        asks: list[Ask] = []
        may_count = self._family == "objects"
        for key in keys:
            name, counter = self._names.entry_and_count(key)
            asks.append((name, ("GET", name)))
            if may_count:
                asks.append((counter, ("GET", counter)))
        call = router.ask(asks, clock=True)
        *replies, text = await call.future
        if not may_count:
            replies = [each for reply in replies for each in (reply, None)]
        return replies, text, call.sent_at

    def _read(self, name: str, reply: Any, wall: float, i: int, unsure: list[int]) -> Entry | None:
        head = read_head(reply) if isinstance(reply, bytes) else None
        if head is None:
            if isinstance(reply, Exception) and not str(reply).startswith("WRONGTYPE"):
                raise LayerAway(self._place.words(reply))
            self.counts["undecodable"] += 1
            return None
        hard, soft, stamp = head
        if len(reply) == HEAD:
            return None
        if stamp < hard:
            self.counts["struck"] += 1
            return None
        try:
            entry = self._packer.decode(reply[HEAD:])
        except Undecodable:
            self.counts["undecodable"] += 1
            return None
        if entry.usable_until <= wall:
            return None
        entry.stamp = stamp
        standing = self._mirror.judge(name, entry.tags, stamp)
        if standing is Standing.DEAD:
            self.counts["struck"] += 1
            return None
        if standing is Standing.STALE or stamp < soft:
            _soften(entry)
        if stamp < self._since and (entry.tags or self._family == "responses"):
            unsure.append(i)
        else:
            entry.stamp = max(stamp, self._heard.clock)
        return entry

    async def _look_up(
        self,
        router: Router,
        names: Sequence[str],
        found: list[Entry | None],
        unsure: Sequence[int],
    ) -> None:
        """The barriers of tags and URLs from before our time."""
        clock, known = self._heard.clock, self._known
        wanted: dict[int, list[bytes]] = {}
        for i in unsure:
            entry = found[i]
            if entry is not None:
                wanted[i] = [self._names.of("t", tag) for tag in entry.tags]
                if self._family == "responses":
                    wanted[i].append(self._names.of("u", names[i]))
        barriers: dict[bytes, tuple[int, int] | None] = {}
        for each in wanted.values():
            barriers |= {name: known.get(name) for name in each}
        unknown = [name for name, stands in barriers.items() if stands is None]
        if unknown and not self._is_forgetful:
            gaps = self._gaps
            replies = await router.ask([(name, ("GET", name)) for name in unknown]).future
            for name, reply in zip(unknown, replies, strict=True):
                stands = barriers[name] = read_barriers(reply)
                if stands is not None and gaps == self._gaps and len(known) < _KNOWN_MAX:
                    known[name] = stands
        for i, each in wanted.items():
            entry = found[i]
            standing = [barriers[name] for name in each]
            if entry is None:
                continue
            if any(one is None or entry.stamp < one[0] for one in standing):
                self.counts["struck"] += 1
                found[i] = None
                continue
            if any(one is not None and entry.stamp < one[1] for one in standing):
                _soften(entry)
            entry.stamp = max(entry.stamp, clock)

    async def scan(self, pattern: str) -> AsyncIterator[str]:
        router = await self._here()
        fits = self._names.matching(pattern)
        for node in router.all_nodes():
            cursor: Any = b"0"
            while True:
                words = ("SCAN", cursor, "MATCH", fits, "COUNT", _SCAN_COUNT)
                cursor, found = await self._of_node(node, words)
                heads = await asyncio.gather(
                    *(self._of_node(node, ("GETRANGE", name, 0, HEAD)) for name in found)
                )
                for name, head in zip(found, heads, strict=True):
                    key = self._names.key_of(name)
                    if key is not None and self._lives(key, head):
                        yield key
                if cursor == b"0":
                    break

    def _lives(self, key: str, value: Any) -> bool:
        """As far as can be told without its tags."""
        head = read_head(value) if isinstance(value, bytes) and len(value) > HEAD else None
        if head is None or head[2] < head[0]:
            return False
        return self._mirror.judge(key, (), head[2]) is not Standing.DEAD

    async def _of_node(self, node: Node, words: Command) -> Any:
        (reply,) = await node.ask([words])
        if isinstance(reply, Exception):
            if str(reply).startswith(("WRONGTYPE", "MOVED", "ASK")):
                return 0
            raise LayerAway(self._place.words(reply))
        return reply

    # ---- changing what is there

    async def touch(self, keys: Sequence[str], usable_until: float, fresh_until: float) -> int:
        if not keys:
            return 0
        router = await self._here()
        names = [self._names.entry(key) for key in keys]
        entries = await self.get(keys)
        raw = await router.ask([(name, ("GET", name)) for name in names]).future
        wall, asks = wall_now(), []
        left_ms = max(1, round(min((usable_until - wall) * 1000, self._keep_ms)))
        for key, name, entry, value in zip(keys, names, entries, raw, strict=True):
            if entry is not None and (value is None or len(value) <= HEAD):
                counter = self._names.of("n", key)
                asks.append((counter, ("PEXPIRE", counter, left_ms)))
            if entry is None or not isinstance(value, bytes) or len(value) <= HEAD:
                continue
            try:
                now = self._packer.decode(value[HEAD:])
            except Undecodable:
                continue
            now.usable_until, now.fresh_until = usable_until, fresh_until
            data = self._packer.encode(now)
            asks.append((name, call_of(TOUCH, [name], value, data, left_ms, self._keep_ms)))
        if not asks:
            return 0
        replies = await router.ask(asks).future
        return sum(reply == 1 for reply in replies)

    # ---- leases

    async def lease(self, key: str, ttl_s: float) -> Lease | None:
        names = self._names
        keys = [names.of("l", key), names.of("f", key)]
        until = time.monotonic() + ttl_s
        ms = max(1, round(ttl_s * 1000))
        router = await self._here()
        self._leases += 1
        token = f"{self._id.decode()}-{self._leases}"
        try:
            (fence,) = await router.ask(
                [(keys[0], call_of(LEASE, keys, ms, self._late_ms, token))]
            ).future
        except (LayerAway, asyncio.CancelledError):
            # It may have been given all the same, and nobody is to wait for its end.
            self._give_back(keys[0], token, until)
            raise
        if isinstance(fence, Exception):
            raise LayerAway(self._place.words(fence))
        return Lease(key, fence, until) if fence else None

    async def release(self, lease: Lease) -> None:
        name = self._names.of("l", lease.key)
        try:
            await self._one((name, call_of(RELEASE, [name], str(lease.fence))))
        except LayerAway:
            self._give_back(name, str(lease.fence), lease.until)
        except asyncio.CancelledError:
            self._give_back(name, str(lease.fence), lease.until)
            raise

    def _give_back(self, name: bytes, token: str, until: float) -> None:
        owed = self._owed
        owed[name] = (token, until)
        if len(owed) > _OWED_MAX:
            del owed[next(iter(owed))]  # it ends by itself
        self._owes.set()

    async def _give_back_owed(self) -> None:
        # One task from the start: whoever is cancelled with its loop must not begin another.
        while True:
            await self._owes.wait()
            name, (token, until) = next(iter(self._owed.items()))
            is_over = time.monotonic() >= until
            if not is_over:
                with contextlib.suppress(LayerAway):
                    await self._one((name, call_of(RELEASE, [name], token)))
                    is_over = True
            if not is_over:
                await asyncio.sleep(0.02 + 0.02 * self._rng.random())
            elif self._owed.get(name) == (token, until):
                del self._owed[name]
                if not self._owed:
                    self._owes.clear()

    async def wait(self, key: str, most_s: float) -> bool:
        """Until nobody has the lease of this key; False if somebody still has it then."""
        name = self._names.of("l", key)
        until, pause_s = time.monotonic() + most_s, 0.004
        while await self._one((name, ("EXISTS", name))) == 1:
            left_s = until - time.monotonic()
            if left_s <= 0.0:
                return False
            await asyncio.sleep(min(left_s, pause_s * self._rng.uniform(0.7, 1.3)))
            pause_s = min(0.05, pause_s * 1.5)
        return True


def _soften(entry: Entry) -> None:
    entry.fresh_until = min(entry.fresh_until, entry.made_at)
