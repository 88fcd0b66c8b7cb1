"""Who decides what stays: Headgate's shelf, and the references that it is compared with."""

from __future__ import annotations

import importlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import Any

from headgate.cache.eviction import Shelf


def by_headgate(keys: Sequence[str], size: int) -> float:
    shelf: Shelf[bool] = Shelf(size, 1 << 40)
    for key in keys:
        if shelf.get(key) is None:
            shelf.put(key, True, 1)
    return shelf.hits / len(keys)


def by_lru(keys: Sequence[str], size: int) -> float:
    kept: OrderedDict[str, None] = OrderedDict()
    hits = 0
    for key in keys:
        if key in kept:
            kept.move_to_end(key)
            hits += 1
        else:
            kept[key] = None
            if len(kept) > size:
                kept.popitem(last=False)
    return hits / len(keys)


def by_lfu(keys: Sequence[str], size: int) -> float:
    """Exact, and it remembers the count of every key for ever, kept or not."""
    counts: Counter[str] = Counter()
    kept: set[str] = set()
    order: list[tuple[int, int, str]] = []
    hits = 0
    for at, key in enumerate(keys):
        counts[key] += 1
        if key in kept:
            hits += 1
        else:
            while len(kept) >= size:
                count, _, victim = heappop(order)
                if victim in kept:
                    if counts[victim] == count:
                        kept.remove(victim)
                    else:
                        heappush(order, (counts[victim], at, victim))
            kept.add(key)
            heappush(order, (counts[key], at, key))
    return hits / len(keys)


class WTinyLfu:
    """Window LRU, segmented main LRU, admission by count; counts halved every ten per place."""

    def __init__(self, size: int, *, is_adaptive: bool) -> None:
        self.size, self.is_adaptive = size, is_adaptive
        self.share, self.step, self.before = 0.01, 0.0625, -1.0
        self.window: OrderedDict[str, None] = OrderedDict()
        self.trial: OrderedDict[str, None] = OrderedDict()
        self.safe: OrderedDict[str, None] = OrderedDict()
        self.counts: dict[str, int] = {}
        self.counted = self.hits = self.asked = self.asked_hits = 0

    @property
    def window_most(self) -> int:
        return max(1, int(self.size * self.share))

    def ask(self, key: str) -> None:
        self.count(key)
        self.asked += 1
        is_hit = True
        if key in self.window:
            self.window.move_to_end(key)
        elif key in self.safe:
            self.safe.move_to_end(key)
        elif key in self.trial:
            del self.trial[key]
            self.safe[key] = None
            if len(self.safe) > (self.size - self.window_most) * 0.8:
                self.trial[self.safe.popitem(last=False)[0]] = None
        else:
            is_hit = False
            self.window[key] = None
        self.hits += is_hit
        self.asked_hits += is_hit
        self.settle()
        if self.is_adaptive and self.asked >= 10 * self.size:
            self.climb()

    def count(self, key: str) -> None:
        self.counts[key] = min(15, self.counts.get(key, 0) + 1)
        self.counted += 1
        if self.counted >= 10 * self.size:
            self.counted //= 2
            self.counts = {each: many >> 1 for each, many in self.counts.items() if many > 1}

    def settle(self) -> None:
        while len(self.window) > self.window_most:
            new = self.window.popitem(last=False)[0]
            if len(self.window) + len(self.trial) + len(self.safe) < self.size:
                self.trial[new] = None
                continue
            room = self.trial or self.safe
            if not room:
                continue
            old = next(iter(room))
            if self.counts.get(new, 0) > self.counts.get(old, 0):
                del room[old]
                self.trial[new] = None
        while len(self.window) + len(self.trial) + len(self.safe) > self.size:
            (self.trial or self.safe).popitem(last=False)

    def climb(self) -> None:
        ratio, before = self.asked_hits / self.asked, self.before
        self.asked = self.asked_hits = 0
        self.before = ratio
        if before < 0:
            return
        if ratio < before:
            self.step = -self.step
        if abs(ratio - before) >= 0.05:
            self.step = 0.0625 if self.step > 0 else -0.0625
        else:
            self.step *= 0.98
        self.share = min(0.8, max(0.005, self.share + self.step))


def by_w_tinylfu(keys: Sequence[str], size: int, *, is_adaptive: bool = False) -> float:
    cache = WTinyLfu(size, is_adaptive=is_adaptive)
    for key in keys:
        cache.ask(key)
    return cache.hits / len(keys)


def by_theine(keys: Sequence[str], size: int) -> float:
    cache: Any = importlib.import_module("theine").Cache(size)
    hits = 0
    for key in keys:
        _, is_hit = cache.get(key)
        if is_hit:
            hits += 1
        else:
            cache.set(key, 1)
    return hits / len(keys)


def policies() -> dict[str, Callable[[Sequence[str], int], float]]:
    found: dict[str, Callable[[Sequence[str], int], float]] = {
        "headgate": by_headgate,
        "LRU": by_lru,
        "exact LFU": by_lfu,
        "W-TinyLFU": by_w_tinylfu,
        "W-TinyLFU adaptive": lambda keys, size: by_w_tinylfu(keys, size, is_adaptive=True),
    }
    try:
        importlib.import_module("theine")
    except ImportError:
        print("theine is not installed: it is missing from what follows\n")
    else:
        found["theine"] = by_theine
    return found
