"""Limiters, breakers, retries, bulkheads and time-outs, for `make bench-toolkit`: who is compared.

Each function imports its library and answers what is called once a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any, Final

from benchmarks.toolkit_measure import HEADGATE, Primitive, of, work, work_async

_BIG: Final = 1_000_000_000


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
    import aiobreaker  # type: ignore[import-untyped]  # it has no types

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
