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
import json
import logging
import os
import random
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Mapping, Sequence
from math import inf
from typing import Any, Final, Literal

from headgate.cache.barriers import Standing
from headgate.cache.codecs import Packer, Undecodable
from headgate.cache.entry import Entry
from headgate.cache.invalidation import Invalidation
from headgate.cache.layer import Invalidated, LayerAway, LayerSnapshot, Lease
from headgate.cache.redis.coherence import Coherence
from headgate.cache.redis.link import Command, Link
from headgate.cache.redis.names import HEAD, Names, digits, read_barriers, read_head
from headgate.cache.redis.node import BREAKER, Node
from headgate.cache.redis.pending import Pending, Write
from headgate.cache.redis.router import Ask, Router
from headgate.cache.redis.scripts import (
    ADD,
    LEASE,
    PUT,
    RELEASE,
    SAY,
    STRIKE_KEY,
    STRIKE_NAME,
    TOUCH,
)
from headgate.policy.breaker import BreakerRules
from headgate.state.redis_place import place_of
from headgate.state.redis_script import Script

__all__ = ["RedisLayer"]

START_S: Final = 1.0
PLACE_TIMEOUT_S: Final = 1.0
WIDE_MAX: Final = 1000
STRIKES_MAX: Final = 1000
_AT_ONCE: Final = 64
_SCAN_COUNT: Final = 500

log = logging.getLogger("headgate.cache")


class RedisLayer(Coherence):
    kind = "redis"

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "headgate:cache",
        packer: Packer | None = None,
        family: Literal["objects", "responses"] = "objects",
        deadline_s: float = 0.05,
        lease_s: float = 0.1,
        keep_s: float = 30 * 86_400.0,
        late_s: float = 3600.0,
        value_bytes_max: int = 8 * 1024 * 1024,
        durable: bool = False,
        breaker: BreakerRules = BREAKER,
        pending: Pending | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """`deadline_s`: no call takes longer. `lease_s`: how long after an invalidation an old
        value may still be served by a process that Redis cannot reach. `keep_s`: no entry lives
        longer. `late_s`: what took longer to load is not kept. `durable`: Redis loses nothing that
        it has acknowledged, by restarts and failovers neither.
        """
        for name, span in (("deadline_s", deadline_s), ("lease_s", lease_s), ("late_s", late_s)):
            if not 0.0 < span < inf:
                raise ValueError(f"{name} is {span:g}: give seconds over 0")
        if not late_s <= keep_s <= 3650 * 86_400.0:
            raise ValueError(f"keep_s is {keep_s:g}: give at least late_s, and at most ten years")
        if value_bytes_max < 1:
            raise ValueError(f"value_bytes_max is {value_bytes_max}: give at least 1")
        super().__init__(Names(prefix), family, lease_s, durable)
        scheme, cluster, rest = url.partition("+cluster://")
        self._place = place_of(f"{scheme}://{rest}" if cluster else url, PLACE_TIMEOUT_S)
        self._packer = packer or Packer()
        self._deadline_s = deadline_s
        self._keep_ms = round(keep_s * 1000)
        self._late_ms = round(late_s * 1000)
        self._value_max = value_bytes_max
        self._rules = breaker
        self._rng = rng or random.Random()
        self._pending = pending or Pending()
        self._strikes: deque[Invalidation] = deque()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._mending: asyncio.Task[Any] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0
        self._is_closed = False
        self._since_at = time.monotonic()
        self.counts: Counter[str] = Counter()
        """struck, undecodable, oversized, lease_lost, refused: what was not kept or not served."""
        self._faults = _faults()

    # ---- life

    async def start(self) -> None:
        self._is_closed = False
        await self._begin(START_S)

    async def _begin(self, wait_s: float) -> None:
        if self._router is not None:
            if self._loop is asyncio.get_running_loop() and self._pid == os.getpid():
                return
            self._router.abandon()
            self._tasks.clear()
            self._mending = self._catching = None
        self._loop, self._pid = asyncio.get_running_loop(), os.getpid()
        self._router = router = Router(
            self._place,
            self._names.clock,
            deadline_s=self._deadline_s,
            rules=self._rules,
            rng=self._rng,
            join=self._join,
            gone=self._node_gone,
            faults=(*self._faults, LayerAway),
        )
        self._spawn(self._beat(), "cache redis beat")
        self._spawn(self._follow_news(), "cache redis news")
        await router.start(wait_s)

    async def close(self) -> None:
        router, self._router = self._router, None
        self._is_closed = True
        self._coherent_until = -inf
        if router is None:
            return
        if self._loop is not asyncio.get_running_loop() or self._pid != os.getpid():
            router.abandon()
            return
        alive = set(self._tasks)
        while alive:  # more than once: before Python 3.12 `wait_for` may swallow one
            for task in alive:
                task.cancel()
            _, alive = await asyncio.wait(alive, timeout=0.05)
        await router.close()

    def _spawn(self, what: Any, name: str) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(what, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    @property
    def is_away(self) -> bool:
        return (
            self._router is None or not self._router.home.is_here or self._pending.is_to_tell
        )

    async def _here(self, *, is_telling: bool = False) -> Router:
        router = self._router
        if router is None or self._loop is not asyncio.get_running_loop():
            if self._is_closed:
                raise LayerAway("the layer is closed")
            await self._begin(0.0)  # another loop than before, or another process
            router = self._router
        if router is None or not router.home.is_here:
            why = "closed" if router is None else router.home.why
            raise LayerAway(f"{self._place.text}: {why}"[:300])
        if self._pending.is_to_tell and not is_telling:
            raise LayerAway("what was invalidated here meanwhile is not told yet")
        return router

    # ---- reading

    async def get(
        self, keys: Sequence[str], names: Sequence[str] | None = None
    ) -> list[Entry | None]:
        """`names`: by which entries are judged, where those are not their keys (URLs)."""
        if not keys:
            return []
        router = await self._here()
        said = self._heard.said
        asks: list[Ask] = []
        for key in keys:
            name = self._names.entry(key)
            asks.append((name, ("GET", name)))
        call = router.ask(asks, clock=True)
        replies = await call.future
        await self._settle(replies[-1], said, call.sent_at)
        wall = time.time()
        found: list[Entry | None] = []
        unsure: list[int] = []
        for i, reply in enumerate(replies[:-1]):
            name = keys[i] if names is None else names[i]
            found.append(None if reply is None else self._read(name, reply, wall, i, unsure))
        if unsure:
            await self._look_up(router, names or keys, found, unsure)
        return found

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

    # ---- writing

    async def put(self, items: Mapping[str, Entry], lease: Lease | None = None) -> None:
        wall = time.time()
        fence = "" if lease is None else str(lease.fence)
        writes: dict[str, Write] = {}
        for key, entry in items.items():
            if entry.usable_until <= wall:
                continue
            data = self._packer.encode(entry)
            if len(data) > self._value_max:
                self.counts["oversized"] += 1
                continue
            writes[key] = Write(data, entry.stamp, entry.tags, entry.usable_until, fence)
        await self._write(writes)

    async def _write(self, writes: Mapping[str, Write]) -> None:
        asks: list[Ask] = []
        sent: list[tuple[str, Write]] = []
        wall = time.time()
        is_dead = self.barriers.judge
        for key, write in writes.items():
            if is_dead(key, write.tags, write.stamp) is Standing.DEAD:
                self.counts["struck"] += 1
            elif write.ends > wall:
                sent.append((key, write))
        try:
            router = await self._here()
            for key, write in sent:
                asks.append(self._put_ask(router, key, write, wall))
            replies = await router.ask(asks).future if asks else []
        except LayerAway:
            for key, write in sent:
                self._pending.write(key, write)
            self._mend()
            return
        for (key, _), reply in zip(sent, replies, strict=True):
            self._pending.forget(key)
            if reply == 0:
                self.counts["struck"] += 1
            elif reply == -1:
                self.counts["lease_lost"] += 1
            elif isinstance(reply, Exception):
                self.counts["refused"] += 1
                log.debug("an entry was refused: %s", self._place.words(reply))

    def _put_ask(self, router: Router, key: str, write: Write, wall: float) -> Ask:
        names = self._names
        name = names.entry(key)
        left_ms = self._keep_ms
        if write.ends - wall < self._keep_ms / 1000:
            left_ms = max(1, round((write.ends - wall) * 1000))
        keys = [name, names.of("f", key)]
        if not router.is_cluster:
            keys += [names.of("t", tag) for tag in write.tags]
        stamp = digits(write.stamp)
        words = (stamp, write.data, left_ms, write.fence, self._late_ms, self._keep_ms)
        return name, _call(PUT, keys, *words)

    async def touch(self, keys: Sequence[str], usable_until: float, fresh_until: float) -> int:
        if not keys:
            return 0
        router = await self._here()
        names = [self._names.entry(key) for key in keys]
        entries = await self.get(keys)
        raw = await router.ask([(name, ("GET", name)) for name in names]).future
        wall, asks = time.time(), []
        left_ms = max(1, round(min((usable_until - wall) * 1000, self._keep_ms)))
        for name, entry, value in zip(names, entries, raw, strict=True):
            if entry is None or not isinstance(value, bytes) or len(value) <= HEAD:
                continue
            try:
                now = self._packer.decode(value[HEAD:])
            except Undecodable:
                continue
            now.usable_until, now.fresh_until = usable_until, fresh_until
            data = self._packer.encode(now)
            asks.append((name, _call(TOUCH, [name], value, data, left_ms, self._keep_ms)))
        if not asks:
            return 0
        replies = await router.ask(asks).future
        return sum(reply == 1 for reply in replies)

    async def add(self, key: str, amount: int, ttl_s: float | None) -> int:
        name = self._names.of("n", key)
        ms = 0 if ttl_s is None else max(1, round(min(ttl_s * 1000, 2.0**52)))
        reply = await self._one((name, _call(ADD, [name], amount, ms)))
        if isinstance(reply, Exception):
            if "overflow" in str(reply) or "not an integer" in str(reply):
                raise OverflowError(f"{key!r} and {amount} do not fit into 64 bits")
            raise LayerAway(self._place.words(reply))
        return int(reply)

    async def _one(self, ask: Ask) -> Any:
        router = await self._here()
        (reply,) = await router.ask([ask]).future
        return reply

    # ---- leases

    async def lease(self, key: str, ttl_s: float) -> Lease | None:
        names = self._names
        keys = [names.of("l", key), names.of("f", key)]
        until = time.monotonic() + ttl_s
        ms = max(1, round(ttl_s * 1000))
        fence = await self._one((keys[0], _call(LEASE, keys, ms, self._late_ms)))
        if isinstance(fence, Exception):
            raise LayerAway(self._place.words(fence))
        return Lease(key, fence, until) if fence else None

    async def release(self, lease: Lease) -> None:
        name = self._names.of("l", lease.key)
        with contextlib.suppress(LayerAway):  # then it ends by itself
            await self._one((name, _call(RELEASE, [name], str(lease.fence))))

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

    # ---- invalidating

    async def invalidate(self, invalidation: Invalidation) -> Invalidated:
        said = Invalidation.from_json(invalidation.at(0).to_json())  # or ValueError
        if said.is_empty:
            return Invalidated(self.barriers.stamp)
        # To its end, whatever becomes of the caller: half an invalidation is none.
        return await asyncio.shield(self._spawn(self._tell(said), "cache redis invalidation"))

    async def _tell(self, said: Invalidation) -> Invalidated:
        try:
            router = await self._here()
            (reply,) = await router.ask([(self._names.clock, self._say_words(said))]).future
            told = self._told(said, reply)
        except LayerAway:
            return self._queue(said)
        try:
            await self._strike(router, told)
        except LayerAway:
            self._strike_later(told)
            return Invalidated(told.stamp, is_queued=True)
        return Invalidated(told.stamp)

    def _say_words(self, said: Invalidation) -> Command:
        names = self._names
        text = json.dumps(said.to_json(), separators=(",", ":"))
        keys = [names.clock, names.stream, names.wide]
        return _call(SAY, keys, text, self._heard.epoch, WIDE_MAX, self._id, *_wide_fields(said))

    def _told(self, said: Invalidation, reply: Any) -> Invalidation:
        if isinstance(reply, Exception):
            raise LayerAway(self._place.words(reply))
        if not isinstance(reply, bytes):
            self._lose_home("it has another history")
            raise LayerAway("the Redis of the cache has lost its memory")
        told = said.at(int(reply.partition(b" ")[0]))
        self.barriers.raise_for(told)
        self._mirror.raise_for(told)
        return told

    def _queue(self, said: Invalidation) -> Invalidated:
        # One more, not the time: a stamp ahead of Redis' clock would outlive its invalidations.
        here = said.at(self.barriers.stamp + 1)
        self.barriers.raise_for(here)
        self._mirror.raise_for(here)
        self._pending.invalidate(here)
        self._mend()
        return Invalidated(here.stamp, is_queued=True)

    async def _tell_pending(self, node: Node, link: Link) -> None:
        """Before anything is read again."""
        while True:
            waiting = self._pending.some_invalidations(_AT_ONCE)
            if not waiting:
                break
            replies = await node.handshake(link, [self._say_words(one) for one in waiting])
            for one, reply in zip(waiting, replies, strict=True):
                self._strike_later(self._told(one, reply))
                self._pending.told(one)
        self._mend()

    async def _strike(self, router: Router, told: Invalidation) -> None:
        """Raise the barriers where the entries are."""
        names, stamp, soft = self._names, digits(told.stamp), int(told.soft)
        asks: list[Ask] = []
        for key in told.keys:
            keys = [names.entry(key), names.of("n", key)]
            asks.append((keys[0], _call(STRIKE_KEY, keys, stamp, soft, self._late_ms)))
        those = [names.of("t", tag) for tag in told.tags]
        those += [names.of("u", url) for url in told.urls if "*" not in url]
        for name in those:
            asks.append((name, _call(STRIKE_NAME, [name], stamp, soft, self._keep_ms + 60_000)))
        if not asks:
            return
        for reply in await router.ask(asks).future:
            if isinstance(reply, Exception):
                raise LayerAway(self._place.words(reply))

    def _strike_later(self, told: Invalidation) -> None:
        self._strikes.append(told)
        if len(self._strikes) > STRIKES_MAX:
            self._strikes.clear()
            self._queue(Invalidation(everything="all", by="too many to tell"))
        self._mend()

    def _mend(self) -> None:
        if (self._mending is None or self._mending.done()) and (self._strikes or self._pending):
            self._mending = self._spawn(self._catch_up_writing(), "cache redis pending")

    async def _catch_up_writing(self) -> None:
        """What was put off: barriers, invalidations, then writes, each judged anew."""
        while self._strikes or self._pending:
            try:
                router = await self._here(is_telling=True)
                for one in self._pending.some_invalidations(_AT_ONCE):
                    (reply,) = await router.ask([(self._names.clock, self._say_words(one))]).future
                    self._strikes.append(self._told(one, reply))
                    self._pending.told(one)
                while self._strikes:
                    told = self._strikes[0]
                    await self._strike(router, told)
                    if self._strikes and self._strikes[0] is told:
                        self._strikes.popleft()
                await self._write(self._pending.some_writes(_AT_ONCE))
            except LayerAway:
                await asyncio.sleep(0.05 + 0.05 * self._rng.random())

    # ---- what operators ask

    def snapshot(self) -> LayerSnapshot:
        router = self._router
        nodes = [] if router is None else router.all_nodes()
        home = None if router is None else router.home
        links = [node.link for node in nodes if node.link is not None]
        times = sorted(took_s for node in nodes for took_s in node.times)
        is_away = self.is_away
        return LayerSnapshot(
            kind=self.kind,
            place=self._place.text,
            is_away=is_away,
            why=home.why if home is not None and is_away else "",
            for_s=time.monotonic() - (self._since_at if home is None else home.since),
            breaker="closed" if home is None else home.breaker.state,
            commands=sum(node.commands for node in nodes),
            batches=sum(node.batches for node in nodes),
            failures=sum(node.failures for node in nodes),
            queued=len(self._pending) + len(self._strikes),
            dropped=self._pending.dropped,
            bytes_in=sum(n.bytes_in for n in nodes) + sum(link.bytes_in for link in links),
            bytes_out=sum(n.bytes_out for n in nodes) + sum(link.bytes_out for link in links),
            latency_p50_s=times[len(times) // 2] if times else 0.0,
            latency_p99_s=times[len(times) * 99 // 100] if times else 0.0,
        )


_KNOWN_MAX: Final = 100_000


def _soften(entry: Entry) -> None:
    entry.fresh_until = min(entry.fresh_until, entry.made_at)


def _call(script: Script, keys: Sequence[bytes], *words: bytes | str | float) -> Command:
    return ("EVALSHA", script.sha, len(keys), *keys, *words)


def _wide_fields(said: Invalidation) -> list[bytes]:
    letter = "s" if said.soft else "h"
    fields = [f"{letter}*{pattern}" for pattern in said.patterns]
    fields += [f"{letter}u{url}" for url in said.urls if "*" in url]
    if said.everything:
        fields.append(f"{letter}!{said.everything}")
    return [field.encode("utf-8", "surrogatepass") for field in fields]


def _faults() -> tuple[type[Exception], ...]:
    """What may happen to a connection."""
    from redis.exceptions import RedisClusterException, RedisError

    return (RedisError, RedisClusterException, OSError, TimeoutError)
