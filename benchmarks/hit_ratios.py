"""How often the first layer of `headgate.cache` hits, beside LRU, exact LFU and W-TinyLFU.

    python -m benchmarks.hit_ratios             # a table, and docs/images/cache-hit-ratios.svg
    python -m benchmarks.hit_ratios --quick     # a fifth of the requests, no plot

Every policy gets the same keys and loads what it misses; a key costs one place. The loads are
generated here from fixed seeds. `W-TinyLFU` is a plain reference, with an exact count in place of
the sketch, so it is if anything better than what runs elsewhere; `adaptive` moves its window by
climbing, as Caffeine does. `theine` is measured if it is installed.
"""

from __future__ import annotations

import argparse
import importlib
import random
from bisect import bisect_left
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from itertools import accumulate
from pathlib import Path
from typing import Any

from headgate.cache.eviction import Shelf

REQUESTS = 200_000
SIZES = (250, 1000, 4000)
KEYS = 50_000
PLOT = Path(__file__).resolve().parent.parent / "docs" / "images" / "cache-hit-ratios.svg"


def zipf(keys: int, skew: float, many: int, seed: int) -> list[int]:
    rng = random.Random(seed)
    sums = list(accumulate(1 / rank**skew for rank in range(1, keys + 1)))
    return [bisect_left(sums, rng.random() * sums[-1]) for _ in range(many)]


def scan_and_zipf(many: int) -> list[int]:
    """Half of it asks for each key once and never again."""
    popular, fresh = iter(zipf(KEYS, 0.9, many, 2)), 10**6
    found: list[int] = []
    while len(found) < many:
        found += [next(popular) for _ in range(min(5000, many // 10))]
        found += range(fresh, fresh + 5000)
        fresh += 5000
    return found[:many]


def shifting(many: int) -> list[int]:
    """Every tenth of the time, other keys are the popular ones."""
    part = many // 10
    return [key + turn * 10**6 for turn in range(10) for key in zipf(KEYS, 0.9, part, 10 + turn)]


def recent(many: int) -> list[int]:
    """The newer, the more asked for: a feed. A quarter of the requests brings something new."""
    return [10**6 + at // 4 - back for at, back in enumerate(zipf(3000, 0.8, many, 5))]


def mix(many: int) -> list[int]:
    """Popular, then recent, then a loop, then a scan."""
    part = many // 4
    loop = [7 * 10**6 + at % 1200 for at in range(part)]
    return [*zipf(KEYS, 0.9, part, 1), *recent(part), *loop, *scan_and_zipf(part)]


LOADS: dict[str, Callable[[int], list[int]]] = {
    "zipf 0.7": lambda many: zipf(KEYS, 0.7, many, 1),
    "zipf 0.9": lambda many: zipf(KEYS, 0.9, many, 1),
    "zipf 1.1": lambda many: zipf(KEYS, 1.1, many, 1),
    "scan + zipf": scan_and_zipf,
    "loop of 1,200": lambda many: [at % 1200 for at in range(many)],
    "shifting zipf": shifting,
    "recent": recent,
    "mix": mix,
}


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


def measure(requests: int) -> dict[str, dict[int, dict[str, float]]]:
    found: dict[str, dict[int, dict[str, float]]] = {}
    by = policies()
    for load, make in LOADS.items():
        keys = [str(key) for key in make(requests)]
        found[load] = {size: {name: run(keys, size) for name, run in by.items()} for size in SIZES}
    return found


def print_table(found: dict[str, dict[int, dict[str, float]]]) -> None:
    names = list(next(iter(found["mix"].values())))
    print(f"| load | places | {' | '.join(names)} |")
    print(f"|---|---:|{'---:|' * len(names)}")
    for load, rows in found.items():
        for size, row in rows.items():
            print(f"| {load} | {size:,} | {' | '.join(f'{row[name]:.3f}' for name in names)} |")


def draw(found: dict[str, dict[int, dict[str, float]]], file: Path) -> None:
    from matplotlib import pyplot as plt

    import benchmarks.plots  # noqa: F401 - it sets how plots are written

    colours = {
        "headgate": "#d1495b",
        "LRU": "#8a8f98",
        "exact LFU": "#2e6f9e",
        "W-TinyLFU": "#3f7d4e",
        "W-TinyLFU adaptive": "#93b89c",
        "theine": "#7a4fa3",
    }
    figure, grid = plt.subplots(2, 4, figsize=(11, 5), sharex=True)
    for axes, (load, rows) in zip(grid.flat, found.items(), strict=True):
        for name in next(iter(rows.values())):
            axes.plot(
                list(rows),
                [row[name] for row in rows.values()],
                marker="o",
                markersize=3,
                linewidth=2.2 if name == "headgate" else 1.1,
                zorder=3 if name == "headgate" else 2,
                color=colours[name],
                label=name,
            )
        axes.set_title(load, fontsize=9)
        axes.set_xscale("log")
        axes.set_xticks(list(rows), [f"{size:,}" for size in rows], minor=False)
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(labels), frameon=False)
    figure.supylabel("hit ratio")
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    is_quick = parser.parse_args().quick
    found = measure(REQUESTS // 5 if is_quick else REQUESTS)
    print_table(found)
    if not is_quick:
        draw(found, PLOT)
        print(f"\nplot: {PLOT}")


if __name__ == "__main__":
    main()
