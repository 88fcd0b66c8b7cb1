"""How often the first layer of `headgate.cache` hits, beside LRU, exact LFU and W-TinyLFU.

    python -m benchmarks.hit_ratios             # docs/cache-hit-ratios.md and its plot
    python -m benchmarks.hit_ratios --quick     # a fifth of the requests, printed only

Every policy gets the same keys and loads what it misses; a key costs one place. The loads are
generated here from fixed seeds, and the process starts itself anew with a fixed seed for the hashes
of texts, so that the same numbers come out each time (theine has a random seed of its own, and may
differ in the third place). `W-TinyLFU` is a plain reference, with an exact count in place of the
sketch, so it is if anything better than what runs elsewhere; `adaptive` moves its window by
climbing, as Caffeine does. `theine` is measured if it is installed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
from bisect import bisect_left
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

from benchmarks.hit_ratios_page import (
    REFERENCES,
    Found,
    draw,
    found_of,
    is_zipf,
    least,
    page,
    table,
)
from benchmarks.hit_ratios_policies import policies

REQUESTS = 200_000
SIZES = (250, 1000, 4000)
KEYS = 50_000
ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "hit_ratios.json"
PAGE = ROOT / "docs" / "cache-hit-ratios.md"
PLOT = ROOT / "docs" / "images" / "cache-hit-ratios.svg"


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


def measure(requests: int) -> Found:
    found: Found = {}
    by = policies()
    for load, make in LOADS.items():
        keys = [str(key) for key in make(requests)]
        found[load] = {size: {name: run(keys, size) for name, run in by.items()} for size in SIZES}
    return found


def in_own_process(*options: str) -> None:
    """With hashes of texts that are the same each time."""
    subprocess.run(
        [sys.executable, "-m", "benchmarks.hit_ratios", *options],
        env={**os.environ, "PYTHONHASHSEED": "0"},
        cwd=ROOT,
        check=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    is_quick = parser.parse_args().quick
    if os.environ.get("PYTHONHASHSEED") != "0":
        in_own_process(*sys.argv[1:])
        return
    requests = REQUESTS // 5 if is_quick else REQUESTS
    found = measure(requests)
    print(table(found))
    if is_quick:
        return
    ratios = {
        load: {
            str(size): {name: round(ratio, 4) for name, ratio in row.items()}
            for size, row in rows.items()
        }
        for load, rows in found.items()
    }
    written = {
        "requests": requests,
        "keys": KEYS,
        "zipf_least": round(min(least(found, is_zipf, name)[0] for name in REFERENCES), 4),
        "ratios": ratios,
    }
    RESULTS.write_text(json.dumps(written, indent=1) + "\n")
    draw(found_of(written), PLOT)
    PAGE.write_text(page(written))
    print(f"\nwrote {PAGE}, {PLOT} and {RESULTS}")


if __name__ == "__main__":
    main()
