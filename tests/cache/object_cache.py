"""What the tests of the object cache share: a memory without bounds, a layer in this process."""

from __future__ import annotations

import asyncio
import fnmatch
import threading

from headgate.cache import Cache, Invalidated
from headgate.cache.barriers import Barriers, Standing
from headgate.cache.layer import LayerAway, LayerSnapshot, Lease
from headgate.cache.stamps import LocalStamps


class PlainMemory:
    """The first layer with no bounds at all."""

    def __init__(self):
        self.held = {}

    def get(self, key, now_wall):
        entry = self.held.get(key)
        if entry is None:
            return None
        if now_wall >= entry.usable_until:
            self.held.pop(key, None)
            return None
        return entry

    def put(self, key, entry):
        self.held[key] = entry

    def delete(self, key):
        self.held.pop(key, None)

    def clear(self):
        self.held.clear()

    def scan(self, glob):
        return [key for key in list(self.held) if fnmatch.fnmatchcase(key, glob)]


class Clock:
    """Wall clock and monotonic clock that stand still until they are moved."""

    def __init__(self, at=1_000_000.0):
        self.at = at

    def __call__(self):
        return self.at

    def move(self, by_s):
        self.at += by_s


class Place:
    """Where several layers keep their entries: what Redis would be."""

    def __init__(self, wall):
        self.entries = {}
        self.counters = {}
        self.leases = {}
        self.fence = 0
        self.barriers = Barriers()
        self.stamps = LocalStamps(wall)
        self.layers = []
        self.wall = wall
        self.lock = threading.RLock()


class PlaceLayer:
    """A second layer: keeps the protocol, in this process, with switches for what goes wrong."""

    kind = "place"

    def __init__(self, place):
        self.place = place
        self.barriers = Barriers()
        self.is_away = False
        self.coherent = True
        self.is_silent = False
        self.hears = []
        self.gap_hears = []
        self.calls = []
        self.started = 0
        self.closed = 0
        self.loop = None
        self.late = 0.0
        place.layers.append(self)

    def is_coherent(self, now):
        return self.coherent and not self.is_away

    async def _step(self, name):
        self.calls.append(name)
        if self.loop is not None:
            assert asyncio.get_running_loop() is self.loop, "not in the layer's own loop"
        await asyncio.sleep(self.late)
        if self.is_away:
            raise LayerAway("switched off")

    async def start(self):
        self.started += 1
        self.loop = asyncio.get_running_loop()

    async def close(self):
        self.closed += 1

    async def get(self, keys):
        await self._step("get")
        found = []
        for key in keys:
            entry = self.place.entries.get(key)
            if (
                entry is not None
                and self.place.barriers.judge(key, entry.tags, entry.stamp) is Standing.DEAD
            ):
                entry = None
            if entry is not None and entry.usable_until <= self.place.wall():
                entry = None
            found.append(entry)
        return found

    async def put(self, items, lease=None):
        await self._step("put")
        for key, entry in items.items():
            if lease is not None and self.place.leases.get(key) != lease:
                continue
            if self.place.barriers.judge(key, entry.tags, entry.stamp) is not Standing.DEAD:
                self.place.entries[key] = entry

    async def touch(self, keys, usable_until, fresh_until):
        await self._step("touch")
        count = 0
        for key in keys:
            if key in self.place.entries:
                self.place.entries[key].usable_until = usable_until
                self.place.entries[key].fresh_until = fresh_until
                count += 1
        return count

    async def add(self, key, amount, ttl_s):
        await self._step("add")
        with self.place.lock:
            self.place.counters[key] = self.place.counters.get(key, 0) + amount
            return self.place.counters[key]

    async def invalidate(self, invalidation):
        await self._step("invalidate")
        struck = invalidation.at(self.place.stamps.next(self.place.barriers.stamp))
        self.place.barriers.raise_for(struck)
        for layer in self.place.layers:
            if layer.is_silent:
                continue
            layer.barriers.raise_for(struck)
            if layer is not self:
                for hear in layer.hears:
                    hear(struck)
        return Invalidated(struck.stamp)

    async def lease(self, key, ttl_s):
        await self._step("lease")
        if key in self.place.leases:
            return None
        self.place.fence += 1
        lease = self.place.leases[key] = Lease(key, self.place.fence, 0.0)
        return lease

    async def release(self, lease):
        await self._step("release")
        if self.place.leases.get(lease.key) == lease:
            del self.place.leases[lease.key]

    async def scan(self, pattern):
        for key in list(self.place.entries):
            if fnmatch.fnmatchcase(key, pattern):
                yield key

    def listen(self, hear):
        self.hears.append(hear)
        return lambda: self.hears.remove(hear)

    def on_gap(self, hear):
        self.gap_hears.append(hear)
        return lambda: self.gap_hears.remove(hear)

    def gap(self):
        for hear in self.gap_hears:
            hear()

    def snapshot(self):
        return LayerSnapshot(
            "place",
            "here",
            self.is_away,
            "switched off" if self.is_away else "",
            0.0,
            "closed",
            len(self.calls),
            0,
            0,
            0,
            0,
            0,
            0,
            0.0,
            0.0,
        )


def memory_cache(**settings):
    settings.setdefault("memory", PlainMemory())
    return Cache(**settings)


def layered(place, **settings):
    """A cache over this place, and its layer."""
    made = []

    def make():
        made.append(PlaceLayer(place))
        return made[-1]

    cache = memory_cache(layer=make, **settings)
    return cache, made
