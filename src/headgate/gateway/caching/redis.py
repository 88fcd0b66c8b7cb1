"""Responses in Redis: one set for several machines.

Theory of operation. It stands on the layer that services use (`cache.redis`), which judges by the
barriers in Redis, has a breaker, and answers within its deadline or not at all. Control tells Redis
of invalidations and every worker of what is told there; so this store tells Redis nothing of them,
but judges what it finds by the barriers of its worker too. What an unsafe method changed (`forget`)
is told by the worker that saw it.

    responses:<digest of the key>            the response; or, if it varies, the names it varies by
    responses:<digest>:<digest of the rest>  one of those that vary

So what varies takes a second trip. A key has one set of names here, that of the last response.

Writes wait in a queue bounded in number and bytes, and are dropped beyond that, while Redis is
away, and where a response is larger than `value_bytes_max`. `redis_clock` says which stamp they
carry.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from headgate.cache.barriers import Standing
from headgate.cache.entry import FOREVER, Entry
from headgate.cache.http.vary import normal
from headgate.cache.invalidation import ITEMS_MAX, TEXT_MAX, Invalidation
from headgate.cache.layer import LayerAway
from headgate.gateway.caching.lower import LowerSnapshot
from headgate.gateway.caching.packing import Spoilt, digest_of, pack, unpack
from headgate.gateway.caching.redis_clock import Readings

if TYPE_CHECKING:
    from collections.abc import Callable

    from headgate.cache.barriers import Barriers
    from headgate.cache.redis import RedisLayer
    from headgate.gateway.caching.variants import Kept
    from headgate.wire.message import Header

__all__ = ["VALUE_BYTES_MAX", "RedisStore", "open_redis"]

VALUE_BYTES_MAX: Final = 1024 * 1024
DEADLINE_S: Final = 0.05
QUEUED_MAX: Final = 1000
QUEUED_BYTES_MAX: Final = 32 * 1024 * 1024
READS_MAX: Final = 1000
_BATCH: Final = 16
_BATCH_BYTES: Final = 1024 * 1024
_FORGOTTEN_MAX: Final = 10_000
_CLOSE_S: Final = 1.0

_ONE: Final = b"R"
_VARIES: Final = b"V"

log: Final = logging.getLogger("headgate.cache")


def open_redis(
    url: str,
    *,
    prefix: str = "headgate:cache",
    deadline_s: float = DEADLINE_S,
    value_bytes_max: int = VALUE_BYTES_MAX,
    durable: bool = False,
) -> RedisStore:
    """`prefix` is that of the services' caches: they share clock and tags with the gateway."""
    from headgate.cache.codecs import Codec
    from headgate.cache.redis import open_layer

    layer = open_layer(
        url,
        prefix=prefix,
        codec=Codec("response", bytes, bytes),
        zstd_above=None,  # mostly compressed already, or small; and it would be done on the loop
        family="responses",
        deadline_s=deadline_s,
        value_bytes_max=2 * value_bytes_max,
        durable=durable,
    )
    return RedisStore(layer, deadline_s=deadline_s, value_bytes_max=value_bytes_max)


class RedisStore:
    kind = "redis"

    def __init__(
        self,
        layer: RedisLayer,
        *,
        deadline_s: float = DEADLINE_S,
        value_bytes_max: int = VALUE_BYTES_MAX,
        wall: Callable[[], float] = time.time,  # noqa: TID251 - HTTP dates
    ) -> None:
        self._layer = layer
        self._deadline_s = deadline_s
        self._value_max = value_bytes_max
        self._wall = wall
        self._barriers: Barriers | None = None
        self._readings = Readings()
        self._queue: deque[Kept] = deque()
        self._queued_bytes = 0
        self._forgotten: dict[str, None] = {}
        self._writing: asyncio.Task[None] | None = None
        self._reads = 0
        self._is_closed = False
        self._hits = self._misses = self._writes = self._dropped = 0
        self._struck = self._spoilt = self._failures = 0

    async def start(self, barriers: Barriers) -> None:
        self._barriers = barriers
        await self._layer.start()
        self._note()

    async def close(self) -> None:
        self._is_closed = True
        writing = self._writing
        if writing is not None:
            # Not wait_for: that would end with the task's error.
            await asyncio.wait([writing], timeout=_CLOSE_S)
            writing.cancel()
        await self._layer.close()

    def _note(self) -> None:
        self._readings.note(self._layer.barriers.stamp, self._wall())

    # Reading

    async def find(self, key: str, fields: tuple[Header, ...], url: str = "") -> Kept | None:
        barriers = self._barriers
        if barriers is None or self._layer.is_away or self._reads >= READS_MAX:
            self._misses += 1
            return None
        # What is adopted is no newer than this worker's clock was before it was read.
        stamp = barriers.stamp
        self._reads += 1
        try:
            async with asyncio.timeout(self._deadline_s):
                kept = await self._find(key, fields, url)
        except (LayerAway, TimeoutError):
            self._failures += 1
            kept = None
        except Spoilt:
            self._spoilt += 1
            kept = None
        except Exception:  # whatever it is, the request goes upstream
            self._failures += 1
            log.exception("responses in Redis: unexpected while reading")
            kept = None
        finally:
            self._reads -= 1
        self._note()
        if kept is not None:
            kept = self._judged(kept, barriers, stamp)
        if kept is None:
            self._misses += 1
        else:
            self._hits += 1
        return kept

    async def _find(self, key: str, fields: tuple[Header, ...], url: str) -> Kept | None:
        name = _name_of(key)
        entry = await self._get(name, url)
        if entry is None:
            return None
        if entry.value[:1] == _VARIES:
            name = _variant_name(name, normal(_read_names(entry.value[1:]), fields))
            entry = await self._get(name, url)
            if entry is None:
                return None
        if entry.value[:1] != _ONE:
            raise Spoilt("of another kind")
        kept = unpack(entry.value[1:])
        if kept.url != url:
            # It was judged by another name than its own.
            url = kept.url
            entry = await self._get(name, url)
            if entry is None:
                return None
            kept = unpack(entry.value[1:])
        names = tuple(field for field, _ in kept.stored.vary)
        fits = normal(names, fields) == kept.stored.vary
        if kept.key != key or kept.url != url or not fits:
            return None
        kept.is_soft_struck |= entry.fresh_until <= entry.made_at
        return kept

    async def _get(self, name: str, url: str) -> Entry | None:
        (entry,) = await self._layer.get([name], names=[url or name])
        if entry is not None and not isinstance(entry.value, bytes):
            raise Spoilt("of another kind")
        return entry

    def _judged(self, kept: Kept, barriers: Barriers, stamp: int) -> Kept | None:
        standing = barriers.judge(kept.url, kept.stored.tags, kept.stamp)
        if standing is Standing.DEAD:
            self._struck += 1
            return None
        kept.is_soft_struck |= standing is Standing.STALE
        # Another machine's clock may be ahead of ours.
        kept.stamp = min(kept.stamp, stamp)
        return kept

    # Writing

    def put(self, kept: Kept) -> None:
        self._note()
        is_large = kept.size > self._value_max
        is_full = len(self._queue) >= QUEUED_MAX
        if is_large or is_full or self._queued_bytes + kept.size > QUEUED_BYTES_MAX:
            self._dropped += 1
        elif self._layer.is_away or self._is_closed or not self._stamp_of(kept):
            self._dropped += 1
        else:
            self._queue.append(kept)
            self._queued_bytes += kept.size
            self._write_on()

    def _stamp_of(self, kept: Kept) -> int:
        stored = kept.stored
        return self._readings.before(stored.received_at - stored.initial_age_s)

    def remove(self, kept: Kept) -> None:
        self.forget((kept.url,))

    def invalidate(self, invalidation: Invalidation) -> None:
        """Control has told Redis; and what waits here may have been struck."""
        self._drop_struck()

    def _drop_struck(self) -> None:
        barriers = self._barriers
        if barriers is None or not self._queue:
            return
        alive = [kept for kept in self._queue if self._is_alive(kept, barriers)]
        self._queue = deque(alive)
        self._queued_bytes = sum(kept.size for kept in alive)

    def _is_alive(self, kept: Kept, barriers: Barriers) -> bool:
        standing = barriers.judge(kept.url, kept.stored.tags, kept.stamp)
        return standing is not Standing.DEAD

    def forget(self, urls: tuple[str, ...], *, is_news: bool = False) -> None:
        gone = frozenset(urls)
        self._queue = deque(kept for kept in self._queue if kept.url not in gone)
        self._queued_bytes = sum(kept.size for kept in self._queue)
        if is_news or self._is_closed:
            return
        # One that is too long to be told is told as what begins like it.
        short = (url if len(url) <= TEXT_MAX else f"{url[: TEXT_MAX - 1]}*" for url in urls)
        self._forgotten.update(dict.fromkeys(filter(None, short)))
        self._write_on()

    def _write_on(self) -> None:
        if self._writing is None or self._writing.done():
            loop = asyncio.get_running_loop()
            self._writing = loop.create_task(self._write(), name="responses to Redis")

    async def _write(self) -> None:
        while self._forgotten or self._queue:
            try:
                if self._forgotten:
                    await self._tell_forgotten()
                else:
                    await self._layer.put(self._take())
            except LayerAway:
                self._failures += 1
            except Exception:  # the next writes need the task
                self._failures += 1
                log.exception("responses in Redis: unexpected while writing")

    async def _tell_forgotten(self) -> None:
        if len(self._forgotten) > _FORGOTTEN_MAX:
            self._forgotten.clear()
            asked = Invalidation(everything="responses", by="more URLs changed than can be told")
        else:
            # A `*` in a URL means itself; what it strikes besides is lost, and no harm is done.
            urls = tuple(self._forgotten)[:ITEMS_MAX]
            for url in urls:
                del self._forgotten[url]
            asked = Invalidation(urls=urls, by="unsafe method")
        # While Redis is away the layer keeps it, and tells it before anything is read again.
        await self._layer.invalidate(asked)

    def _take(self) -> dict[str, Entry]:
        items: dict[str, Entry] = {}
        size = 0
        while self._queue and len(items) < _BATCH and size < _BATCH_BYTES:
            kept = self._queue.popleft()
            self._queued_bytes -= kept.size
            size += kept.size
            self._writes += 1
            stamp, vary = self._stamp_of(kept), kept.stored.vary
            name = _name_of(kept.key)
            if vary:
                names = json.dumps([field.decode("latin-1") for field, _ in vary]).encode()
                items[name] = _entry(_VARIES + names, kept, stamp)
                name = _variant_name(name, vary)
            items[name] = _entry(_ONE + pack(kept), kept, stamp)
        return items

    async def settle(self) -> bool:
        """Control has told Redis, or will be the one to say that it could not."""
        return not self._layer.is_away

    def snapshot(self) -> LowerSnapshot:
        said = self._layer.snapshot()
        counts = self._layer.counts
        return LowerSnapshot(
            kind="redis",
            place=said.place,
            is_away=said.is_away,
            why=said.why,
            entries=-1,
            bytes=-1,
            bytes_max=-1,
            hits=self._hits,
            misses=self._misses,
            writes=self._writes,
            evictions=0,
            struck=self._struck + counts["struck"],
            queued=len(self._queue) + len(self._forgotten) + said.queued,
            dropped=self._dropped + said.dropped + counts["oversized"],
            spoilt=self._spoilt + counts["undecodable"],
            failures=self._failures + said.failures,
        )


def _entry(value: bytes, kept: Kept, stamp: int) -> Entry:
    """`fresh_until` says nothing of its freshness here, only whether a soft barrier struck it."""
    made_at = kept.stored.received_at
    return Entry(
        value,
        made_at,
        made_at if kept.is_soft_struck else FOREVER,
        kept.keep_until,
        stamp=stamp,
        tags=kept.stored.tags,
    )


def _name_of(key: str) -> str:
    return "responses:" + digest_of(key.encode("utf-8", "surrogatepass")).hex()


def _variant_name(name: str, vary: tuple[Header, ...]) -> str:
    return f"{name}:{digest_of(*(part for field in vary for part in field)).hex()}"


def _read_names(said: bytes) -> tuple[bytes, ...]:
    try:
        names: Any = json.loads(said)
        return tuple(name.encode("latin-1") for name in names)
    except (ValueError, TypeError, AttributeError, RecursionError) as wrong:
        raise Spoilt("of another kind") from wrong
