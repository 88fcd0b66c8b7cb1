"""What is written and what is struck, and what becomes of both while Redis is away.

Theory of operation. What cannot be said now waits (`pending`). Invalidations come first: until they
are told, the layer counts as away, for what it holds may be what they strike. Then barriers that
were told but not yet raised everywhere, then writes, each judged anew.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from typing import Any, Final

from headgate.cache.barriers import Standing
from headgate.cache.entry import Entry
from headgate.cache.invalidation import Invalidation
from headgate.cache.layer import Invalidated, LayerAway, Lease
from headgate.cache.redis.link import Command, Link
from headgate.cache.redis.names import digits
from headgate.cache.redis.node import Node
from headgate.cache.redis.pending import Write
from headgate.cache.redis.rim import Rim, call_of, wall_now
from headgate.cache.redis.router import Ask, Router
from headgate.cache.redis.scripts import PUT, SAY, STRIKE_KEY, STRIKE_NAME

__all__ = ["Telling"]

WIDE_MAX: Final = 1000
STRIKES_MAX: Final = 1000
_AT_ONCE: Final = 64

log = logging.getLogger("headgate.cache")


class Telling(Rim):
    # ---- writing

    async def put(self, items: Mapping[str, Entry], lease: Lease | None = None) -> None:
        wall = wall_now()
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

    async def _write(self, writes: Mapping[str, Write], *, again: bool = False) -> bool:
        """Whether Redis was reached; if not, they wait."""
        asks: list[Ask] = []
        sent: list[tuple[str, Write]] = []
        wall = wall_now()
        is_dead = self.barriers.judge
        for key, write in writes.items():
            if is_dead(key, write.tags, write.stamp) is Standing.DEAD:
                self.counts["struck"] += 1
            elif write.ends > wall:
                sent.append((key, write))
        try:
            router = self._at_hand() or await self._here()
            for key, write in sent:
                asks.append(self._put_ask(router, key, write, wall))
            replies = await router.ask(asks).future if asks else []
        except LayerAway:
            for key, write in sent:
                if not again:
                    self._pending.write(key, write)
                else:
                    self._pending.put_back(key, write)
            self._mend()
            return False
        for (key, _), reply in zip(sent, replies, strict=True):
            self._pending.forget(key)
            if reply == 0:
                self.counts["struck"] += 1
            elif reply == -1:
                self.counts["lease_lost"] += 1
            elif isinstance(reply, Exception):
                self.counts["refused"] += 1
                log.debug("an entry was refused: %s", self._place.words(reply))
        return True

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
        return name, call_of(PUT, keys, *words)

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
        return call_of(SAY, keys, text, self._heard.epoch, WIDE_MAX, self._id, *_wide_fields(said))

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
            asks.append((keys[0], call_of(STRIKE_KEY, keys, stamp, soft, self._late_ms)))
        those = [names.of("t", tag) for tag in told.tags]
        those += [names.of("u", url) for url in told.urls if not _is_wide(url)]
        for name in those:
            asks.append((name, call_of(STRIKE_NAME, [name], stamp, soft, self._keep_ms + 60_000)))
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
                some = self._pending.some_writes(_AT_ONCE)
                is_done = not some or await self._write(some, again=True)
            except LayerAway:
                is_done = False
            if not is_done:
                await asyncio.sleep(0.05 + 0.05 * self._rng.random())


def _is_wide(url: str) -> bool:
    """Whether it names more than one: a pattern, or a path at any host."""
    return "*" in url or url.startswith("/")


def _wide_fields(said: Invalidation) -> list[bytes]:
    letter = "s" if said.soft else "h"
    fields = [f"{letter}*{pattern}" for pattern in said.patterns]
    fields += [f"{letter}u{url}" for url in said.urls if _is_wide(url)]
    if said.everything:
        fields.append(f"{letter}!{said.everything}")
    return [field.encode("utf-8", "surrogatepass") for field in fields]
