"""What a rate limit costs: a hit, memory for a million keys, sweeping them; beside other libraries.

    python -m benchmarks.limiters [hits] [memory] [steps]

hits     nanoseconds a call: best of the rounds, rows interleaved, the cost of the loop taken off.
         Ours with `+ clock` reads the clock in each call, as the others do by themselves.
memory   bytes a key, the key's own text included: growth of the process, one process a row.
steps    the longest single step, in processor time: growing to a million keys, sweeping them, and
         keeping to `max_keys`. The collector is off, as good as it is in the gateway.

The others (`limits`, `throttled-py`, `pyrate-limiter`) are measured where they are installed.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from time import monotonic, perf_counter, thread_time
from typing import Any

from headgate.policy.limiter import (
    LIMITERS,
    Algorithm,
    Ask,
    LeaseRules,
    LimitRules,
    Rule,
    RuleSet,
    home_of,
    leased_of,
    make,
)
from headgate.policy.limiter.headers import LimitHeaders
from headgate.policy.limiter.keys import client_ip_key

ROUNDS = 9
CALLS = 20_000
KEYS = [f"10.0.{high}.{low}" for high in range(10) for low in range(100)]
MANY = 1_000_000
FEW = 200_000
"""Keys for the others: some take ten times as long."""

Loop = Callable[[list[str]], None]
AMPLE = 10**9
START = 1_000_000.0


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


# ---- what is measured: each row is a loop over keys


def ours() -> Iterator[tuple[str, Loop]]:
    for algorithm in LIMITERS:
        yield f"{algorithm} hit", hits(algorithm)
    for algorithm in LIMITERS:
        yield f"{algorithm} refused", refusals(algorithm)
    yield "gcra hit + clock", with_clock("gcra")
    yield "fixed_window hit + clock", with_clock("fixed_window")
    yield "gcra peek", peeks()
    yield "gcra hit + refund", refunds()
    yield "RuleSet of 3 gcra", sets()
    yield "Leased hit from the lease", leases()
    yield "Home grant (of 10)", grants()
    yield "headers, draft", headers("draft")
    yield "headers, draft and classic", headers("both")
    yield "client_ip_key, IPv4, known", ip_keys("192.0.2.7")
    yield "client_ip_key, IPv6, known", ip_keys("2001:db8:1:2:3:4:5:6")


def ample(algorithm: Algorithm) -> LimitRules:
    if algorithm == "sliding_log":  # short, so that the log has a length that is usual
        return LimitRules(limit=100, period_s=0.001, algorithm=algorithm)
    return LimitRules(limit=AMPLE, period_s=1_000.0, algorithm=algorithm)


def hits(algorithm: Algorithm) -> Loop:
    hit = make(ample(algorithm)).hit
    at = [START]

    def loop(keys: list[str]) -> None:
        now = at[0]
        for key in keys:
            hit(key, now)
        at[0] = now + 0.01

    return loop


def refusals(algorithm: Algorithm) -> Loop:
    hit = make(LimitRules(limit=1, period_s=1e6, algorithm=algorithm)).hit
    for key in KEYS:
        hit(key, START)

    def loop(keys: list[str]) -> None:
        for key in keys:
            hit(key, START)

    return loop


def with_clock(algorithm: Algorithm) -> Loop:
    hit = make(ample(algorithm)).hit

    def loop(keys: list[str]) -> None:
        for key in keys:
            hit(key, monotonic())

    return loop


def peeks() -> Loop:
    limiter = make(ample("gcra"))
    for key in KEYS:
        limiter.hit(key, START)

    def loop(keys: list[str]) -> None:
        peek = limiter.peek
        for key in keys:
            peek(key, START)

    return loop


def refunds() -> Loop:
    limiter = make(ample("gcra"))

    def loop(keys: list[str]) -> None:
        hit, refund = limiter.hit, limiter.refund
        for key in keys:
            hit(key, START)
            refund(key, 1, START)

    return loop


def sets() -> Loop:
    rules = RuleSet([Rule(name, make(ample("gcra"))) for name in "abc"])

    def loop(keys: list[str]) -> None:
        hit = rules.hit
        for key in keys:
            hit((key, key, key), START)

    return loop


def leases() -> Loop:
    rules = LimitRules(limit=AMPLE)
    leased, home = leased_of(rules, LeaseRules(share=1.0, ttl_s=1e6)), home_of(rules)
    for key in KEYS:
        for step in range(20):
            now = START + step * 1e-3
            got = leased.hit(key, now)
            if isinstance(got, Ask):
                leased.take(got, home.grant(key, AMPLE // 8, 1, "w", now), now)

    def loop(keys: list[str]) -> None:
        hit = leased.hit
        for key in keys:
            hit(key, START + 1)

    return loop


def grants() -> Loop:
    home = home_of(ample("gcra"))

    def loop(keys: list[str]) -> None:
        grant = home.grant
        for key in keys:
            grant(key, 10, 1, "worker", START)

    return loop


def headers(style: Any) -> Loop:
    lines = LimitHeaders("per minute", LimitRules(limit=100, period_s=60.0), style).lines
    verdict = make(LimitRules(limit=100, period_s=60.0)).hit("key", START)

    def loop(keys: list[str]) -> None:
        for _ in keys:
            lines(verdict)

    return loop


def ip_keys(ip: str) -> Loop:
    def loop(keys: list[str]) -> None:
        for _ in keys:
            client_ip_key(ip, 64)

    return loop


def others() -> Iterator[tuple[str, Loop]]:
    if number := installed("limits"):
        from limits import RateLimitItemPerHour, storage, strategies

        item = RateLimitItemPerHour(AMPLE)
        for name, kind in (
            ("fixed window", strategies.FixedWindowRateLimiter),
            ("sliding window", strategies.SlidingWindowCounterRateLimiter),
            ("moving window", strategies.MovingWindowRateLimiter),
        ):
            strategy = kind(storage.MemoryStorage())

            def limits_loop(keys: list[str], strategy: Any = strategy) -> None:
                hit = strategy.hit
                for key in keys:
                    hit(item, key)

            yield f"limits {number} {name}", limits_loop
    if number := installed("throttled-py"):
        import throttled

        quota = throttled.per_hour(AMPLE)
        for type_ in throttled.RateLimiterType:
            throttle = throttled.Throttled(
                using=type_.value,
                quota=quota,
                store=throttled.MemoryStore(options={"MAX_SIZE": 2 * MANY}),
            )

            def throttled_loop(keys: list[str], throttle: Any = throttle) -> None:
                limit = throttle.limit
                for key in keys:
                    limit(key)

            yield f"throttled-py {number} {type_.value}", throttled_loop
    if number := installed("pyrate-limiter"):
        import pyrate_limiter as pyrate

        rate = pyrate.Rate(AMPLE, 3_600_000)
        for name, bucket in (
            ("log, one key", pyrate.InMemoryBucket([rate])),
            ("gcra, one key", pyrate.StateBucket([rate], pyrate.GCRA())),
        ):
            limiter = pyrate.Limiter(bucket)

            def pyrate_loop(keys: list[str], limiter: Any = limiter) -> None:
                acquire = limiter.try_acquire
                for _ in keys:
                    acquire("key", blocking=False)

            yield f"pyrate-limiter {number} {name}", pyrate_loop


# ---- hits


def measure_hits() -> None:
    def empty(keys: list[str]) -> None:
        for _ in keys:
            pass

    keys = KEYS * (CALLS // len(KEYS))
    rows = [("", empty), *ours(), *others()]
    best = [float("inf")] * len(rows)
    for _ in range(ROUNDS):
        for at, (_, loop) in enumerate(rows):
            start = perf_counter()
            loop(keys)
            best[at] = min(best[at], perf_counter() - start)
    for (name, _), seconds in zip(rows[1:], best[1:], strict=True):
        print(f"{name:48} {(seconds - best[0]) / len(keys) * 1e9:8.0f} ns")


# ---- memory


def resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def fill(name: str) -> None:
    """In a process of its own: fill a limiter with keys and print what it took."""
    count = MANY if name in LIMITERS else FEW
    if name in LIMITERS:
        algorithm: Any = name
        rules = LimitRules(limit=100, period_s=3_600.0, algorithm=algorithm, max_keys=2 * MANY)
        hit = make(rules).hit
        before = resident()
        for at in range(count):
            hit(f"10.{at >> 16}.{at >> 8 & 255}.{at & 255}", START)
    else:
        loop = dict(others())[name]
        loop(["warm"])
        before = resident()
        for at in range(count):
            loop([f"10.{at >> 16}.{at >> 8 & 255}.{at & 255}"])
    print(f"{name:48} {(resident() - before) / count:8.0f} bytes a key, of {count:,}")


def measure_memory() -> None:
    names = [*LIMITERS, *(name for name, _ in others() if "one key" not in name)]
    for name in names:
        sys.stdout.flush()
        subprocess.run([sys.executable, "-m", "benchmarks.limiters", "fill", name], check=True)


# ---- steps


def measure_steps() -> None:
    gc.disable()
    for algorithm in LIMITERS:
        rules = LimitRules(limit=100, period_s=10.0, algorithm=algorithm, max_keys=MANY * 11 // 10)
        limiter = make(rules)
        hit, sweep = limiter.hit, limiter.sweep
        longest = total = 0.0
        for at in range(MANY):
            key = f"10.{at >> 16}.{at >> 8 & 255}.{at & 255}"
            start = thread_time()
            hit(key, 5.0)
            took = thread_time() - start
            longest = max(longest, took)
            total += took
        print(
            f"{algorithm:16} a new key: {total / MANY * 1e9:5.0f} ns, longest {longest * 1e3:5.2f} ms"
        )
        if algorithm == "concurrency":
            continue
        for what, now in (("all live", 5.05), ("all full", 5_000.0)):
            longest = total = 0.0
            calls = looked = gone = 0
            while looked < MANY and len(limiter):
                start = thread_time()
                removed = sweep(now)
                took = thread_time() - start
                longest = max(longest, took)
                total += took
                calls += 1
                gone += removed
                looked += 1_000
                if what == "all live" and calls == 100:
                    break
            print(
                f"{'':16} sweep, {what}: {total / calls * 1e6:5.0f} us a call, "
                f"longest {longest * 1e3:5.2f} ms, {gone:,} keys gone in {calls:,} calls"
            )
        # A flood at max_keys: each new key pushes another out.
        full = make(LimitRules(limit=100, period_s=1e6, algorithm=algorithm, max_keys=100_000))
        longest = total = 0.0
        for at in range(300_000):
            key = f"flood {at}"
            start = thread_time()
            full.hit(key, 5.0)
            took = thread_time() - start
            if at >= 100_000:
                longest = max(longest, took)
                total += took
        print(
            f"{'':16} a new key when full: {total / 2e5 * 1e9:5.0f} ns, longest {longest * 1e3:5.2f} ms"
        )


def main() -> None:
    if sys.argv[1:2] == ["fill"]:
        fill(sys.argv[2])
        return
    wanted = sys.argv[1:] or ["hits", "memory", "steps"]
    for name, measure in (
        ("hits", measure_hits),
        ("memory", measure_memory),
        ("steps", measure_steps),
    ):
        if name in wanted:
            print(f"-- {name}")
            measure()


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # some of the others leave threads behind
