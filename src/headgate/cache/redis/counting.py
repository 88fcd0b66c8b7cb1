"""Counts over all processes.

Theory of operation. A count is a plain number beside the entry of its key (`names`), so that Redis
adds by itself. What was put under the key as a whole number is counted on from: the first `add`
finds the entry in its way and is answered with it, reads it, and says what it begins with. From
then on the count stands before the entry; that is told as an invalidation of the key, since others
hold the number. Whatever strikes the key takes the count with it (`STRIKE_KEY`); patterns and tags
do not reach it.

Whoever reads a count may hold it as long as news may take, and no longer: adding is told to nobody.
"""

from __future__ import annotations

from typing import Any, Final

from headgate.cache.barriers import Standing
from headgate.cache.codecs import Undecodable
from headgate.cache.entry import FOREVER, Entry
from headgate.cache.invalidation import Invalidation
from headgate.cache.layer import LayerAway
from headgate.cache.redis.names import HEAD, read_head
from headgate.cache.redis.rim import call_of, wall_now
from headgate.cache.redis.scripts import ADD
from headgate.cache.redis.telling import Telling

__all__ = ["Counting"]

_TRIES: Final = 5


class Counting(Telling):
    async def add(self, key: str, amount: int, ttl_s: float | None) -> int:
        """OverflowError beyond 64 bits; TypeError where something else is kept."""
        keys = [self._names.of("n", key), self._names.entry(key)]
        ms = 0 if ttl_s is None else max(1, round(min(ttl_s * 1000, 2.0**52)))
        seen, begin, begin_ms = b"", "", 0
        for _ in range(_TRIES):
            reply = await self._one(
                (keys[0], call_of(ADD, keys, amount, ms, seen, begin, begin_ms))
            )
            if isinstance(reply, Exception):
                if "overflow" in str(reply) or "not an integer" in str(reply):
                    raise OverflowError(f"{key!r} and {amount} do not fit into 64 bits")
                raise LayerAway(self._place.words(reply))
            if reply[:1] != b"E":
                if begin:
                    await self._tell_of_count(key)
                return int(reply)
            seen = reply
            begin, begin_ms = self._number_in(key, reply)
        raise LayerAway(f"{key[:100]!r} is changed all the time")

    def _number_in(self, key: str, value: bytes) -> tuple[str, int]:
        """What an entry counts on from, and for how long; nothing if it is dead."""
        head = read_head(value)
        try:
            entry = self._packer.decode(value[HEAD:])
        except Undecodable:
            return "", 0
        wall = wall_now()
        if head is None or head[2] < head[0] or entry.usable_until <= wall:
            return "", 0
        if self._mirror.judge(key, entry.tags, head[2]) is Standing.DEAD:
            return "", 0
        if type(entry.value) is not int:
            raise TypeError(f"increment: what is under {key[:100]!r} is not a whole number")
        if entry.usable_until == FOREVER:
            return str(entry.value), 0
        left_ms = min((entry.usable_until - wall) * 1000, 2.0**52)
        return str(entry.value), max(1, round(left_ms))

    async def _tell_of_count(self, key: str) -> None:
        said = Invalidation(keys=(key,))
        try:
            (reply,) = (
                await (await self._here()).ask([(self._names.clock, self._say_words(said))]).future
            )
            self._told(said, reply)
        except LayerAway:
            self._queue(said)  # it takes the count with it, which a cache may forget

    def _count_of(self, reply: Any) -> Entry | None:
        """A count as an entry, for as long as it may be held."""
        if not isinstance(reply, bytes) or not reply.lstrip(b"-").isdigit():
            return None
        wall = wall_now()
        until = wall + self.lease_s
        return Entry(int(reply), wall, until, until, stamp=self._heard.clock)
