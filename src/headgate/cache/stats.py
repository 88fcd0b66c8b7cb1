"""What a cache did, counted by layer, key family and tag.

Theory of operation. A family is what keys of one kind have in common: the template of a decorator
up to its first variable, or what stands before the first colon of a plain key. There are at most
`FAMILIES_MAX`, and tags likewise are counted by their part before the first colon, at most
`TAGS_MAX` of those; all further ones are counted together under `other`, so that keys made by an
attacker cost no memory.

Whoever serves hits keeps the family at hand and adds one to a slot: nothing is looked up, made or
locked. Two threads that add at the same moment may lose one of the two. Times go into a histogram
of fixed buckets, each twice the one before, so a quantile is right within its bucket.

The counters only grow; rates are for whoever reads them. `hear` takes the events of a cache, for
those who would rather pay two microseconds an event than be wired in.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from headgate.cache.events import CacheEvent

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
OTHER: Final = "other"
_NAME_MAX: Final = 100

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
    "loads",
    "load_failures",
    "joined",
    "early",
    "sets",
    "deletes",
    "evictions",
    "bytes_in",
)


class FamilyStats:
    """Of the keys of one family. To count a hit: `family.hits += 1`."""

    __slots__ = (*_FAMILY, "load_times", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.hits = 0
        """Served fresh, from whichever layer."""
        self.stale = 0
        """Served stale, for whatever reason."""
        self.misses = 0
        self.loads = 0
        self.load_failures = 0
        self.joined = 0
        """Waited for a load that another had begun."""
        self.early = 0
        self.sets = 0
        self.deletes = 0
        self.evictions = 0
        self.bytes_in = 0
        """Of values that were kept."""
        self.load_times = Histogram()

    @property
    def hit_ratio(self) -> float:
        served = self.hits + self.stale
        asked = served + self.misses
        return served / asked if asked else 0.0


_LAYER: Final = ("hits", "misses", "failures", "evictions", "bytes_in", "bytes_out")


class LayerStats:
    """Of one layer: `memory`, `redis`, `file`."""

    __slots__ = (*_LAYER, "name", "times")

    def __init__(self, name: str) -> None:
        self.name = name
        self.hits = 0
        self.misses = 0
        self.failures = 0
        self.evictions = 0
        self.bytes_in = 0
        self.bytes_out = 0
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


def family_of(name: str) -> str:
    """What stands before the first variable of a template or the first colon of a key."""
    for at, character in enumerate(name[:_NAME_MAX]):
        if character in ":{":
            return name[:at] or OTHER
    # A key without parts is its own family, if it is short; a digest is not.
    return name if 0 < len(name) <= 40 else OTHER


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

    def kept(self, family: FamilyStats, size: int, tags: Iterable[str]) -> None:
        family.bytes_in += size
        for tag in tags:
            self.tag(tag).kept += 1

    def hear(self, event: CacheEvent) -> None:
        """Count what a cache tells: `cache.on_event(stats.hear)`."""
        what = event.what
        if what in ("invalidated", "dropped"):
            for tag in event.tags:
                if what == "dropped":
                    self.tag(tag).dropped += 1
                else:
                    self.tag(tag).invalidations += 1
            return
        if what in _OF_LAYER:
            layer = self.layer(event.layer)
            slot = _OF_LAYER[what]
            setattr(layer, slot, getattr(layer, slot) + 1)
            if event.took_s:
                layer.times.add(event.took_s)
            return
        if what in _OF_MEMORY:
            memory = self.layer("memory")
            if event.layer in ("", "memory"):
                if what == "miss":
                    memory.misses += 1
                else:
                    memory.hits += 1
        slots = _OF_FAMILY.get(what)
        if slots is None:
            return
        family = self.family(event.family) if event.family else self.family_of_key(event.key)
        setattr(family, slots, getattr(family, slots) + 1)
        if what == "load":
            family.load_times.add(event.took_s)
            for tag in event.tags:
                self.tag(tag).kept += 1

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
    "stale": "stale",
    "load": "loads",
    "unchanged": "loads",
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
_OF_MEMORY: Final = frozenset({"hit", "stale", "miss"})


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
