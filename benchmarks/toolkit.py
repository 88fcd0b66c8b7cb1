"""What the toolkit costs a call, beside libraries that do the same: `make bench-toolkit`.

    python -m benchmarks.toolkit [--repeats 11] [--only breaker]

The primitives of `headgate.resilience` (`toolkit_resilience`) and of `headgate.cache`
(`toolkit_cache`) run in one process, in turns, on the clock of the thread (`toolkit_measure`). Then
a hundred callers ask for one cold key (`toolkit_stampede`), the second layer is measured on a Redis
of its own (`cache_redis`), and hit ratios are found, in a process whose hashes are the same each
time (`hit_ratios`, which writes docs/cache-hit-ratios.md). Prints tables in Markdown, writes
`benchmarks/results/toolkit.json`, and says whether the claims hold.

A library that is not installed is left out and named; the extra `dev` has them all.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import shutil
import sys
import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from benchmarks import (
    cache_redis,
    hit_ratios,
    machine,
    toolkit_cache,
    toolkit_logs,
    toolkit_metrics,
    toolkit_resilience,
    toolkit_stampede,
    toolkit_tracing,
)
from benchmarks.toolkit_measure import HEADGATE, run

RESULTS: Final = Path(__file__).parent / "results" / "toolkit.json"
PRIMITIVES: Final = (
    *toolkit_resilience.PRIMITIVES,
    *toolkit_cache.PRIMITIVES,
    *toolkit_logs.PRIMITIVES,
    *toolkit_metrics.PRIMITIVES,
    *toolkit_tracing.PRIMITIVES,
)

PEERS: Final = (
    "limits",
    "throttled-py",
    "pyrate-limiter",
    "pybreaker",
    "purgatory",
    "aiobreaker",
    "hyx",
    "tenacity",
    "stamina",
    "backoff",
    "cachetools",
    "cashews",
    "aiocache",
    "theine",
    "dogpile.cache",
    "redis",
    "structlog",
    "python-json-logger",
    *toolkit_metrics.PEERS,
)


@dataclass(frozen=True, slots=True)
class Claim:
    """What Headgate is held to, in nanoseconds added to a plain call."""

    text: str
    primitive: str
    below_ns: float


CLAIMS: Final = (
    Claim("a limiter costs under 1 us", "rate limit, one key", 1000.0),
    Claim("a limiter costs under 1 us, decorated", "rate limit, decorated", 1000.0),
    Claim("a shared limiter costs under 2 us from its lease", "rate limit, shared", 2000.0),
    Claim("a breaker costs under 0.6 us", "breaker, plain function", 600.0),
    Claim("a breaker costs under 0.6 us, async", "breaker, async function", 600.0),
    Claim("a retry that is not needed costs under 1 us", "retry, plain function", 1000.0),
    Claim("a retry that is not needed costs under 1 us, async", "retry, async function", 1000.0),
    Claim("a hit in memory costs under 0.3 us", "cache in memory, hit", 300.0),
    Claim(
        "a hit of a cached async function costs under 3 us",
        "cached async function with a key, hit",
        3000.0,
    ),
    Claim(
        "a hit of a cached async function with the default key costs under 3 us",
        "cached async function, default key, hit",
        3000.0,
    ),
    Claim("a labelled count costs under 0.3 us", "counter, labelled", 300.0),
    Claim("an observation of a histogram costs under 0.4 us", "histogram, bound", 400.0),
    Claim("a span that is not sampled costs under 1 us", "span, not sampled", 1000.0),
    Claim("a root span that is not sampled costs under 1 us", "root span, not sampled", 1000.0),
    Claim("a root span that is recorded costs under 4 us", "root span, recorded", 4000.0),
)
REDIS_BELOW_US: Final = 20.0
"""A command of a hundred at once to the second layer."""
ZIPF_BELOW: Final = 0.02
"""What the hit ratio may lack of W-TinyLFU's."""


def judged(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    ours = {row["primitive"]: row["added_ns"] for row in results if row["contender"] == HEADGATE}
    return [
        {
            "claim": claim.text,
            "found": f"{ours[claim.primitive] / 1000:.2f} us",
            "holds": ours[claim.primitive] < claim.below_ns,
        }
        for claim in CLAIMS
        if claim.primitive in ours
    ]


def judged_stampede(found: list[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    ours = [row for row in found if row["contender"].startswith(HEADGATE)]
    if ours:
        loads, errors = (max(int(row[what]) for row in ours) for what in ("loads", "errors"))
        yield {
            "claim": "100 callers of a cold key, also when the first is cancelled: one load, "
            "no errors",
            "found": f"{loads} and {errors}",
            "holds": loads == 1 and errors == 0,
        }


def judged_redis(found: list[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    for row in found:
        if row["contender"] == "headgate get" and row["at_once"] == max(cache_redis.AT_ONCE):
            yield {
                "claim": f"a get from Redis, one of 100 at once, takes under {REDIS_BELOW_US:g} us",
                "found": f"{row['us']:.1f} us",
                "holds": row["us"] < REDIS_BELOW_US,
            }


def judged_ratios(found: dict[str, Any] | None) -> Iterable[dict[str, Any]]:
    if found:
        lacks = max(0.0, -found["zipf_least"])
        yield {
            "claim": f"on zipf loads the hit ratio is at most {ZIPF_BELOW} below W-TinyLFU's",
            "found": f"{lacks:.3f} below, at worst",
            "holds": lacks <= ZIPF_BELOW,
        }


def versions() -> dict[str, str]:
    found = {}
    for name in ("headgate", *PEERS):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def table(results: list[dict[str, Any]]) -> str:
    lines = [
        "| primitive | library | added to a call, ns (least-most) | times Headgate |",
        "|---|---|---:|---:|",
    ]
    last = ""
    for row in results:
        shown = "" if row["primitive"] == last else row["primitive"]
        last = row["primitive"]
        spread = f"{row['added_ns']:,.0f} ({row['low_ns']:,.0f}-{row['high_ns']:,.0f})"
        lines.append(f"| {shown} | {row['contender']} | {spread} | {row['ratio']:.1f} |")
    return "\n".join(lines)


def claims_table(claims: list[dict[str, Any]]) -> str:
    lines = ["| claim | found | holds |", "|---|---:|---|"]
    lines += [
        f"| {one['claim']} | {one['found']} | {'yes' if one['holds'] else 'NO'} |" for one in claims
    ]
    return "\n".join(lines)


def stampede(missing: set[str]) -> list[dict[str, Any]]:
    found = asyncio.run(toolkit_stampede.run(5, missing))
    print(f"\n{toolkit_stampede.table(found)}")
    return found


def redis(repeats: int, missing: set[str]) -> list[dict[str, Any]]:
    if not (shutil.which("redis-server") or shutil.which("valkey-server")):
        missing.add("redis-server")
        return []
    with cache_redis.own_redis() as (url, _):
        found = asyncio.run(cache_redis.measure(url, repeats, missing))
    print(f"\n{cache_redis.table(found)}")
    return found


def others_busy() -> float:
    """By how many programs besides this one the processors were asked for in the last minute."""
    return round(max(0.0, os.getloadavg()[0] - 1.0), 1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--only", default="", help="primitives whose name contains this")
    parser.add_argument("--no-write", action="store_true", help="leave the results alone")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")  # of the libraries compared
    chosen = [one for one in PRIMITIVES if asked.only in one.name]
    missing: set[str] = set()
    results: list[dict[str, Any]] = []
    for primitive in chosen:
        results += asyncio.run(run(primitive, asked.repeats, missing))
    print(table(results))
    busy = others_busy()
    claims = judged(results)
    cold: list[dict[str, Any]] = []
    second: list[dict[str, Any]] = []
    ratios: dict[str, Any] | None = None
    if asked.only in "stampede":
        cold = stampede(missing)
        claims += judged_stampede(cold)
    if asked.only in "redis":
        second = redis(asked.repeats, missing)
        claims += judged_redis(second)
    if not asked.only and not asked.no_write:
        hit_ratios.in_own_process()
        ratios = json.loads(hit_ratios.RESULTS.read_text())
        claims += judged_ratios(ratios)
    print()
    print(claims_table(claims))
    if missing:
        print(f"\nnot installed: {', '.join(sorted(missing))}", file=sys.stderr)
    if not asked.only and not asked.no_write:
        written = {
            "date": time.strftime("%Y-%m-%d"),
            "machine": machine.describe(),
            "python": platform.python_version(),
            "repeats": asked.repeats,
            "others_busy": busy,
            "versions": versions(),
            "results": results,
            "stampede": cold,
            "redis": second,
            "claims": claims,
        }
        RESULTS.write_text(json.dumps(written, indent=1) + "\n")
    return 0 if all(one["holds"] for one in claims) else 1


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
