"""What a cache did, counted by layer, key family and tag.

Theory of operation. A family is what keys of one kind have in common: the template of a decorator,
or what stands before the first colon of a plain key. There are at most `FAMILIES_MAX`, and tags
likewise are counted by their part before the first colon, at most `TAGS_MAX` of those; all further
ones are counted together under `other`, so that keys made by an attacker cost no memory.

Whoever serves hits keeps the family at hand and adds one to a slot: nothing is looked up, made or
locked. Two threads that add at the same moment may lose one of the two. Times go into a histogram
of fixed buckets, each twice the one before, so a quantile is right within its bucket.

The counters only grow; rates are for whoever reads them. A cache has one of these (`cache.stats()`,
and for metrics `exposition`); `hear` counts the events of one elsewhere.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from headgate.cache.events import OTHER, CacheEvent, family_of

__all__ = [
    "BOUNDS_S",
    "FAMILIES_MAX",
    "OTHER",
    "TAGS_MAX",
    "FamilyStats",
    "Histogram",
    "LayerStats",
    "Row",
    "Stats",
    "TagStats",
    "Times",
    "family_of",
]

FAMILIES_MAX: Final = 200
TAGS_MAX: Final = 200
LAYERS_MAX: Final = 8

BOUNDS_S: Final = tuple(1e-6 * 2.0**step for step in range(26))
"""From 1 us to 33 s; the last bucket is all above."""


@dataclass(frozen=True, slots=True)
class Times:
    count: int
    sum_s: float
    p50_s: float
    p90_s: float
    p99_s: float
    max_s: float


class Histogram:
    __slots__ = ("buckets", "count", "max_s", "sum_s")

    def __init__(self) -> None:
        self.buckets = [0] * (len(BOUNDS_S) + 1)
        self.count = 0
        self.sum_s = 0.0
        self.max_s = 0.0

    def add(self, took_s: float) -> None:
        self.buckets[bisect_left(BOUNDS_S, took_s)] += 1
        self.count += 1
        self.sum_s += took_s
        self.max_s = max(self.max_s, took_s)

    def quantile(self, share: float) -> float:
        """The upper end of the bucket it falls in; 0 where nothing was counted."""
        sought = share * self.count
        seen = 0
        for at, count in enumerate(self.buckets):
            seen += count
            if count and seen >= sought:
                return min(BOUNDS_S[at], self.max_s) if at < len(BOUNDS_S) else self.max_s
        return 0.0

    def times(self) -> Times:
        return Times(
            self.count,
            self.sum_s,
            self.quantile(0.5),
            self.quantile(0.9),
            self.quantile(0.99),
            self.max_s,
        )


_FAMILY: Final = (
    "hits",
    "stale",
    "misses",
    "layer_hits",
    "loads",
    "load_failures",
    "joined",
    "early",
    "sets",
    "deletes",
    "evictions",
)


class FamilyStats:
    """Of the keys of one family. To count a hit: `family.hits += 1`."""

    __slots__ = (*_FAMILY, "load_times", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.hits = 0
        """Served fresh from memory."""
        self.stale = 0
        """Served stale, for whatever reason."""
        self.misses = 0
        """Not in memory."""
        self.layer_hits = 0
        """Found in the second layer."""
        self.loads = 0
        self.load_failures = 0
        self.joined = 0
        """Waited for a load that another had begun."""
        self.early = 0
        self.sets = 0
        self.deletes = 0
        self.evictions = 0
        self.load_times = Histogram()

    @property
    def hit_ratio(self) -> float:
        asked = self.hits + self.stale + self.misses
        served = min(self.hits + self.stale + self.layer_hits, asked)
        return served / asked if asked else 0.0


_LAYER: Final = ("hits", "misses", "failures")


class LayerStats:
    """Of a second layer: `redis` or `file`. Memory counts for itself."""

    __slots__ = (*_LAYER, "name", "times")

    def __init__(self, name: str) -> None:
        self.name = name
        self.hits = 0
        self.misses = 0
        self.failures = 0
        self.times = Histogram()


_TAG: Final = ("kept", "invalidations", "dropped")


class TagStats:
    __slots__ = (*_TAG, "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.kept = 0
        """Values that were kept under it."""
        self.invalidations = 0
        self.dropped = 0
        """Values that it struck while they were loaded."""


@dataclass(frozen=True, slots=True)
class Row:
    """One number for whoever gathers metrics."""

    name: str
    labels: tuple[tuple[str, str], ...]
    value: float


class Stats:
    __slots__ = ("_families", "_layers", "_tags")

    def __init__(self) -> None:
        self._families: dict[str, FamilyStats] = {}
        self._layers: dict[str, LayerStats] = {}
        self._tags: dict[str, TagStats] = {}

    def family(self, name: str) -> FamilyStats:
        """The family of this name; keep it at hand where hits are served."""
        found = self._families.get(name)
        if found is not None:
            return found
        if len(self._families) >= FAMILIES_MAX or not name:
            name = OTHER
        return self._families.setdefault(name, FamilyStats(name))

    def family_of_key(self, key: str) -> FamilyStats:
        return self.family(family_of(key))

    def layer(self, name: str) -> LayerStats:
        found = self._layers.get(name)
        if found is not None:
            return found
        if len(self._layers) >= LAYERS_MAX:
            name = OTHER
        return self._layers.setdefault(name, LayerStats(name))

    def tag(self, tag: str) -> TagStats:
        """Of the tag's part before its first colon: `product:42` is counted under `product`."""
        name = family_of(tag)
        found = self._tags.get(name)
        if found is not None:
            return found
        if len(self._tags) >= TAGS_MAX:
            name = OTHER
        return self._tags.setdefault(name, TagStats(name))

    def hear(self, event: CacheEvent) -> None:
        """Count what a cache tells: `cache.on_event(stats.hear)`."""
        self.count(event.what, event.key, event.family, event.layer, event.took_s, event.tags)

    def count(
        self,
        what: str,
        key: str = "",
        family: str = "",
        layer: str = "",
        took_s: float = 0.0,
        tags: tuple[str, ...] = (),
    ) -> None:
        slot = _OF_TAG.get(what) if tags else None
        if slot is not None:
            for tag in tags:
                _add(self.tag(tag), slot)
        slot = _OF_LAYER.get(what) if layer else None
        if slot is not None:
            counted = self.layer(layer)
            _add(counted, slot)
            if took_s:
                counted.times.add(took_s)
        slot = _OF_FAMILY.get(what)
        if slot is not None:
            of = self.family(family) if family else self.family_of_key(key)
            _add(of, slot)
            if what == "load":
                of.load_times.add(took_s)

    def snapshot(self) -> dict[str, dict[str, dict[str, float]]]:
        """By layer, family and tag, as JSON has it; the most used families first."""
        families = sorted(self._families.values(), key=lambda each: -(each.hits + each.misses))
        return {
            "layers": {
                each.name: _said(each, _LAYER) | _shown(each.times)
                for each in list(self._layers.values())
            },
            "families": {
                each.name: _said(each, _FAMILY)
                | {"hit_ratio": each.hit_ratio}
                | _shown(each.load_times)
                for each in families
            },
            "tags": {each.name: _said(each, _TAG) for each in list(self._tags.values())},
        }

    def rows(self) -> Iterator[Row]:
        """Counters for metrics, named without a prefix; times as `_seconds_sum` and `_count`, and
        `_bucket` with its upper bound in `le`, cumulative.
        """
        for layer in list(self._layers.values()):
            labels = (("layer", layer.name),)
            yield from _rows("layer", labels, layer, _LAYER)
            yield from _bucket_rows("layer_seconds", labels, layer.times)
        for family in list(self._families.values()):
            labels = (("family", family.name),)
            yield from _rows("family", labels, family, _FAMILY)
            yield from _bucket_rows("load_seconds", labels, family.load_times)
        for tag in list(self._tags.values()):
            yield from _rows("tag", (("tag", tag.name),), tag, _TAG)


# What an event of a cache adds one to.
_OF_FAMILY: Final = {
    "hit": "hits",
    "miss": "misses",
    "layer_hit": "layer_hits",
    "stale": "stale",
    "load": "loads",
    "load_failed": "load_failures",
    "joined": "joined",
    "early": "early",
    "set": "sets",
    "deleted": "deletes",
    "evicted": "evictions",
}
_OF_LAYER: Final = {
    "layer_hit": "hits",
    "layer_miss": "misses",
    "layer_away": "failures",
    "layer_failed": "failures",
}
_OF_TAG: Final = {
    "load": "kept",
    "set": "kept",
    "invalidated": "invalidations",
    "dropped": "dropped",
}


def _add(counted: object, slot: str) -> None:
    setattr(counted, slot, getattr(counted, slot) + 1)


def _said(counted: object, names: Iterable[str]) -> dict[str, float]:
    return {name: getattr(counted, name) for name in names}


def _shown(histogram: Histogram) -> dict[str, float]:
    times = histogram.times()
    return {name: getattr(times, name) for name in Times.__slots__}


def _rows(
    kind: str, labels: tuple[tuple[str, str], ...], counted: object, names: Iterable[str]
) -> Iterator[Row]:
    for name in names:
        yield Row(f"{kind}_{name}", labels, float(getattr(counted, name)))


def _bucket_rows(
    name: str, labels: tuple[tuple[str, str], ...], histogram: Histogram
) -> Iterator[Row]:
    if not histogram.count:
        return
    seen = 0
    for bound, count in zip(BOUNDS_S, histogram.buckets, strict=False):
        seen += count
        yield Row(f"{name}_bucket", (*labels, ("le", f"{bound:g}")), float(seen))
    yield Row(f"{name}_bucket", (*labels, ("le", "+Inf")), float(histogram.count))
    yield Row(f"{name}_sum", labels, histogram.sum_s)
    yield Row(f"{name}_count", labels, float(histogram.count))
