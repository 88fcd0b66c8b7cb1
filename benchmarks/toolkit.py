"""What each primitive of `headgate.resilience` costs a call, beside libraries that do the same.

    python -m benchmarks.toolkit [--repeats 11] [--only breaker]

Everything runs in one process and in turns: each repeat measures every contender once, in an order
that shifts from repeat to repeat, so that a slow moment of the machine falls on all. Time is that
of the thread's CPU, which others on the machine do not add to. A row is the median of the repeats,
with the plain call of the same repeat taken off: what the primitive adds. The ratio is that to
Headgate's own way of doing the same. Prints a table in Markdown, writes
`benchmarks/results/toolkit.json`, and says whether the claims hold.

A library that is not installed is left out and named:

    pip install limits throttled-py pyrate-limiter pybreaker purgatory aiobreaker hyx tenacity \\
        stamina backoff
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from benchmarks import machine

RESULTS: Final = Path(__file__).parent / "results" / "toolkit.json"
HEADGATE: Final = "headgate"
PLAIN: Final = "plain call"
_BATCH_S: Final = 0.02
_BIG: Final = 1_000_000_000

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
)


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to do it. `make` imports the library and answers what is called once a time."""

    name: str
    make: Callable[[], Callable[[], Any]]


@dataclass(frozen=True, slots=True)
class Primitive:
    """What is compared; the plain call comes first and Headgate second."""

    name: str
    is_async: bool
    contenders: tuple[Contender, ...]


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
)


def work() -> int:
    return 1


async def work_async() -> int:
    return 1


# ---- rate limits


def ours_limit() -> Callable[[], Any]:
    from headgate.resilience import limit

    bound = limit("1000000000/h")
    return partial(bound.hit, "user-1")


def ours_limit_decorated() -> Callable[[], Any]:
    from headgate.resilience import limit

    @limit("1000000000/h", key="{user}")
    def limited(user: str) -> int:
        return 1

    return partial(limited, "user-1")


def ours_limit_shared() -> Callable[[], Any]:
    from headgate.policy.limiter import LeaseRules
    from headgate.resilience import limit
    from headgate.resilience.shared import Shared

    home = Shared.memory()
    home.start_thread()  # it has no part in what is measured, and ends with the program

    # A lease that is not spent between two batches: what asking costs is Redis' answer time.
    @limit("1000000000/h", key="{user}", home=home, rule="toolkit", lease=LeaseRules(ttl_s=600.0))
    async def limited(user: str) -> int:
        return 1

    return partial(limited, "user-1")


def limits_fixed() -> Callable[[], Any]:
    from limits import RateLimitItemPerHour, storage, strategies

    limiter = strategies.FixedWindowRateLimiter(storage.MemoryStorage())
    item = RateLimitItemPerHour(_BIG)
    return partial(limiter.hit, item, "user-1")


def limits_sliding() -> Callable[[], Any]:
    from limits import RateLimitItemPerHour, storage, strategies

    limiter = strategies.SlidingWindowCounterRateLimiter(storage.MemoryStorage())
    item = RateLimitItemPerHour(_BIG)
    return partial(limiter.hit, item, "user-1")


def throttled_gcra() -> Callable[[], Any]:
    from throttled import RateLimiterType, Throttled, per_hour, store

    limiter = Throttled(
        using=RateLimiterType.GCRA.value, quota=per_hour(_BIG), store=store.MemoryStore()
    )
    return partial(limiter.limit, "user-1")


def throttled_fixed() -> Callable[[], Any]:
    from throttled import RateLimiterType, Throttled, per_hour, store

    limiter = Throttled(
        using=RateLimiterType.FIXED_WINDOW.value, quota=per_hour(_BIG), store=store.MemoryStore()
    )
    return partial(limiter.limit, "user-1")


def pyrate() -> Callable[[], Any]:
    from pyrate_limiter import Duration, Limiter, Rate, StateBucket

    limiter = Limiter(StateBucket([Rate(_BIG, Duration.HOUR)]))  # GCRA
    return partial(limiter.try_acquire, "user-1", blocking=False)


# ---- breakers


def ours_breaker() -> Callable[[], Any]:
    from headgate.resilience import breaker

    return breaker("toolkit", registry=None)(work)


def ours_breaker_time() -> Callable[[], Any]:
    from headgate.resilience import breaker

    return breaker("toolkit", window="30s", registry=None)(work)


def ours_breaker_async() -> Callable[[], Any]:
    from headgate.resilience import breaker

    return breaker("toolkit", registry=None)(work_async)


def pybreaker_sync() -> Callable[[], Any]:
    import pybreaker

    wrapped: Callable[[], Any] = pybreaker.CircuitBreaker()(work)
    return wrapped


def purgatory_sync() -> Callable[[], Any]:
    from purgatory import SyncCircuitBreakerFactory

    wrapped: Callable[[], Any] = SyncCircuitBreakerFactory()("toolkit")(work)
    return wrapped


def purgatory_async() -> Callable[[], Any]:
    from purgatory import AsyncCircuitBreakerFactory

    wrapped: Callable[[], Any] = AsyncCircuitBreakerFactory()("toolkit")(work_async)
    return wrapped


def aiobreaker_sync() -> Callable[[], Any]:
    import aiobreaker

    guard = aiobreaker.CircuitBreaker(timeout_duration=timedelta(seconds=60))
    wrapped: Callable[[], Any] = guard(work)
    return wrapped


def aiobreaker_async() -> Callable[[], Any]:
    import aiobreaker

    guard = aiobreaker.CircuitBreaker(timeout_duration=timedelta(seconds=60))
    wrapped: Callable[[], Any] = guard(work_async)
    return wrapped


def hyx_breaker() -> Callable[[], Any]:
    from hyx.circuitbreaker import consecutive_breaker

    wrapped: Callable[[], Any] = consecutive_breaker()(work_async)
    return wrapped


# ---- retries


def ours_retry() -> Callable[[], Any]:
    from headgate.resilience import retry

    return retry(attempts=3)(work)


def ours_retry_async() -> Callable[[], Any]:
    from headgate.resilience import retry

    return retry(attempts=3)(work_async)


def tenacity_sync() -> Callable[[], Any]:
    import tenacity

    return tenacity.retry(stop=tenacity.stop_after_attempt(3))(work)


def tenacity_async() -> Callable[[], Any]:
    import tenacity

    return tenacity.retry(stop=tenacity.stop_after_attempt(3))(work_async)


def stamina_sync() -> Callable[[], Any]:
    import stamina

    return stamina.retry(on=OSError, attempts=3)(work)


def stamina_async() -> Callable[[], Any]:
    import stamina

    return stamina.retry(on=OSError, attempts=3)(work_async)


def backoff_sync() -> Callable[[], Any]:
    import backoff

    wrapped: Callable[[], Any] = backoff.on_exception(backoff.expo, OSError, max_tries=3)(work)
    return wrapped


def backoff_async() -> Callable[[], Any]:
    import backoff

    decorate = backoff.on_exception(backoff.expo, OSError, max_tries=3)
    wrapped: Callable[[], Any] = decorate(work_async)
    return wrapped


def hyx_retry() -> Callable[[], Any]:
    from hyx.retry import retry

    wrapped: Callable[[], Any] = retry(on=OSError, attempts=3)(work_async)
    return wrapped


# ---- bulkheads, time-outs, deadlines, all together


def ours_bulkhead_async() -> Callable[[], Any]:
    from headgate.resilience import bulkhead

    return bulkhead("toolkit", limit=10)(work_async)


def hyx_bulkhead() -> Callable[[], Any]:
    from hyx.bulkhead import bulkhead

    wrapped: Callable[[], Any] = bulkhead(max_concurrency=10, max_capacity=20)(work_async)
    return wrapped


def asyncio_semaphore() -> Callable[[], Any]:
    semaphore = asyncio.Semaphore(10)

    async def bounded() -> int:
        async with semaphore:
            return await work_async()

    return bounded


def ours_timeout() -> Callable[[], Any]:
    from headgate.resilience import timeout

    return timeout("5s")(work_async)


def asyncio_timeout() -> Callable[[], Any]:
    async def bounded() -> int:
        async with asyncio.timeout(5.0):
            return await work_async()

    return bounded


def asyncio_wait_for() -> Callable[[], Any]:
    async def bounded() -> int:
        return await asyncio.wait_for(work_async(), 5.0)

    return bounded


def hyx_timeout() -> Callable[[], Any]:
    from hyx.timeout import timeout

    wrapped: Callable[[], Any] = timeout(5.0)(work_async)
    return wrapped


def ours_together() -> Callable[[], Any]:
    from headgate.resilience import breaker, bulkhead, limit, policies, retry

    together = policies(
        retry=retry(attempts=3),
        breaker=breaker("toolkit", registry=None),
        limit=limit("1000000000/h"),
        bulkhead=bulkhead("toolkit", limit=10),
    )
    return together(work_async)


def peers_together() -> Callable[[], Any]:
    import stamina
    from hyx.bulkhead import bulkhead
    from hyx.circuitbreaker import consecutive_breaker
    from limits import RateLimitItemPerHour
    from limits.aio import storage, strategies

    limiter = strategies.FixedWindowRateLimiter(storage.MemoryStorage())
    item = RateLimitItemPerHour(_BIG)

    async def limited() -> int:
        await limiter.hit(item, "")
        return await work_async()

    seated = bulkhead(max_concurrency=10, max_capacity=20)(limited)
    guarded: Any = consecutive_breaker()(seated)
    return stamina.retry(on=OSError, attempts=3)(guarded)


def of(plain: Callable[[], Any], *others: tuple[str, Callable[[], Any]]) -> tuple[Contender, ...]:
    return (Contender(PLAIN, lambda: plain), *(Contender(name, make) for name, make in others))


PRIMITIVES: Final = (
    Primitive(
        "rate limit, one key",
        False,
        of(
            work,
            (HEADGATE, ours_limit),
            ("limits, fixed window", limits_fixed),
            ("limits, sliding counter", limits_sliding),
            ("throttled-py, GCRA", throttled_gcra),
            ("throttled-py, fixed window", throttled_fixed),
            ("pyrate-limiter, GCRA", pyrate),
        ),
    ),
    Primitive("rate limit, decorated", False, of(work, (HEADGATE, ours_limit_decorated))),
    Primitive("rate limit, shared", True, of(work_async, (HEADGATE, ours_limit_shared))),
    Primitive(
        "breaker, plain function",
        False,
        of(
            work,
            (HEADGATE, ours_breaker),
            ("headgate, window of seconds", ours_breaker_time),
            ("pybreaker", pybreaker_sync),
            ("purgatory", purgatory_sync),
            ("aiobreaker", aiobreaker_sync),
        ),
    ),
    Primitive(
        "breaker, async function",
        True,
        of(
            work_async,
            (HEADGATE, ours_breaker_async),
            ("purgatory", purgatory_async),
            ("aiobreaker", aiobreaker_async),
            ("hyx", hyx_breaker),
        ),
    ),
    Primitive(
        "retry, plain function",
        False,
        of(
            work,
            (HEADGATE, ours_retry),
            ("tenacity", tenacity_sync),
            ("stamina", stamina_sync),
            ("backoff", backoff_sync),
        ),
    ),
    Primitive(
        "retry, async function",
        True,
        of(
            work_async,
            (HEADGATE, ours_retry_async),
            ("tenacity", tenacity_async),
            ("stamina", stamina_async),
            ("backoff", backoff_async),
            ("hyx", hyx_retry),
        ),
    ),
    Primitive(
        "bulkhead, async function",
        True,
        of(
            work_async,
            (HEADGATE, ours_bulkhead_async),
            ("asyncio.Semaphore", asyncio_semaphore),
            ("hyx", hyx_bulkhead),
        ),
    ),
    Primitive(
        "time-out, async function",
        True,
        of(
            work_async,
            (HEADGATE, ours_timeout),
            ("asyncio.timeout", asyncio_timeout),
            ("asyncio.wait_for", asyncio_wait_for),
            ("hyx", hyx_timeout),
        ),
    ),
    Primitive(
        "retry, breaker, limit and bulkhead, async",
        True,
        of(
            work_async,
            (HEADGATE, ours_together),
            ("stamina, hyx, limits, hyx", peers_together),
        ),
    ),
)


# ---- measuring


def batch(call: Callable[[], Any], count: int) -> float:
    turns = range(count)
    start = time.thread_time()
    for _ in turns:
        call()
    return (time.thread_time() - start) / count * 1e9


async def batch_async(call: Callable[[], Awaitable[Any]], count: int) -> float:
    turns = range(count)
    start = time.thread_time()
    for _ in turns:
        await call()
    return (time.thread_time() - start) / count * 1e9


async def sized(primitive: Primitive, call: Callable[[], Any]) -> int:
    """How many calls make a batch; also warms it up."""
    count = 200
    while True:
        start = time.perf_counter()
        await measured(primitive, call, count)
        took_s = time.perf_counter() - start
        if took_s >= _BATCH_S / 4:
            return max(count, int(count * _BATCH_S / took_s))
        count *= 4


async def measured(primitive: Primitive, call: Callable[[], Any], count: int) -> float:
    if primitive.is_async:
        return await batch_async(call, count)
    return batch(call, count)


async def run(primitive: Primitive, repeats: int, missing: set[str]) -> Iterator[dict[str, Any]]:
    calls: dict[str, tuple[Callable[[], Any], int]] = {}
    for contender in primitive.contenders:
        try:
            call = contender.make()
            calls[contender.name] = call, await sized(primitive, call)
        except ImportError:
            missing.add(contender.name.split(",")[0])
    found: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for repeat in range(repeats):
        for at in range(len(names)):
            name = names[(at + repeat) % len(names)]
            call, count = calls[name]
            gc.collect()
            found[name].append(await measured(primitive, call, count))
    return rows(primitive, found)


def rows(primitive: Primitive, found: dict[str, list[float]]) -> Iterator[dict[str, Any]]:
    plain = found[PLAIN]
    added = {
        name: [ns - without for ns, without in zip(all_ns, plain, strict=True)]
        for name, all_ns in found.items()
    }
    ours = statistics.median(added[HEADGATE])
    for name, all_ns in added.items():
        if name == PLAIN:
            continue
        ns = statistics.median(all_ns)
        yield {
            "primitive": primitive.name,
            "contender": name,
            "added_ns": round(ns, 1),
            "low_ns": round(min(all_ns), 1),
            "high_ns": round(max(all_ns), 1),
            "plain_ns": round(statistics.median(plain), 1),
            "ratio": round(ns / ours, 2),
        }


def judged(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    ours = {row["primitive"]: row["added_ns"] for row in results if row["contender"] == HEADGATE}
    return [
        {
            "claim": claim.text,
            "below_ns": claim.below_ns,
            "added_ns": ours[claim.primitive],
            "holds": ours[claim.primitive] < claim.below_ns,
        }
        for claim in CLAIMS
        if claim.primitive in ours
    ]


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
    lines = ["| claim | found, ns | holds |", "|---|---:|---|"]
    lines += [
        f"| {one['claim']} | {one['added_ns']:,.0f} | {'yes' if one['holds'] else 'NO'} |"
        for one in claims
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--only", default="", help="primitives whose name contains this")
    parser.add_argument("--no-write", action="store_true", help="leave the results file alone")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")  # of the libraries compared
    chosen = [one for one in PRIMITIVES if asked.only in one.name]
    missing: set[str] = set()
    results: list[dict[str, Any]] = []
    for primitive in chosen:
        results += asyncio.run(run(primitive, asked.repeats, missing))
    claims = judged(results)
    print(table(results))
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
            "versions": versions(),
            "results": results,
            "claims": claims,
        }
        RESULTS.write_text(json.dumps(written, indent=1) + "\n")
    return 0 if all(one["holds"] for one in claims) else 1


if __name__ == "__main__":
    sys.exit(main())
