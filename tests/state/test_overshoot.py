"""Two gateways on one Redis, uneven load: what passed, against the bound that `lease.py` states."""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from headgate.policy.limiter.lease import LeaseRules
from headgate.policy.limiter.rules import Algorithm, LimitRules
from tests.state.redis_server import RedisServer
from tests.state.test_redis import run, shared, until
from tests.state.worker import Worker, most_in_window, worst_excess

pytestmark = pytest.mark.integration

LIMIT = 80
PERIOD_S = 0.4
PER_S = LIMIT / PERIOD_S
WAITS_S = 0.05  # a hit passes that much later than it was charged, at most
LOAD_S = 1.2


def both(one: Worker, two: Worker) -> list[float]:
    return sorted(one.passed + two.passed)


@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize(
    "algorithm", ["gcra", "token_bucket", "sliding_log", "sliding_window", "fixed_window"]
)
def test_no_more_passes_than_the_bound_and_hardly_less(
    redis_server: RedisServer, algorithm: Algorithm, share: float
):
    rules = LimitRules(limit=LIMIT, period_s=PERIOD_S, algorithm=algorithm)
    lease = LeaseRules(share=share, ttl_s=0.2)

    async def main() -> None:
        async with shared(redis_server) as a, shared(redis_server) as b:
            await until(lambda: a.holders == 2)
            one, two = Worker(a, rules, lease), Worker(b, rules, lease)
            await asyncio.gather(
                one.load(4 * PER_S, LOAD_S, random.Random(1)),
                two.load(PER_S, LOAD_S, random.Random(2)),
            )
            passed = both(one, two)
            ahead = LIMIT * share + PER_S * WAITS_S
            if algorithm in {"gcra", "token_bucket"}:
                assert worst_excess(passed, LIMIT, PER_S) <= ahead
            elif algorithm == "sliding_log":
                assert most_in_window(passed, PERIOD_S) <= LIMIT + ahead
            else:  # twice the limit fits around an edge, and what was leased before it
                assert most_in_window(passed, PERIOD_S) <= 2 * LIMIT + ahead
            assert len(passed) <= LIMIT + PER_S * LOAD_S + LIMIT + ahead
            assert len(passed) >= PER_S * LOAD_S * (0.9 - share)
            assert one.refused
            assert one.passed
            assert two.passed

    run(main)


def test_a_fixed_window_is_exact_in_every_window_of_the_home(redis_server: RedisServer):
    """Counted by Redis itself: what is charged less what came back, a window at a time."""
    rules = LimitRules(limit=40, period_s=3600.0, algorithm="fixed_window")

    async def main() -> None:
        async with shared(redis_server) as a, shared(redis_server) as b:
            await until(lambda: a.holders == 2)
            one = Worker(a, rules, LeaseRules(share=0.5, ttl_s=0.1))
            two = Worker(b, rules, LeaseRules(share=0.5, ttl_s=0.1))
            await asyncio.gather(
                one.load(300.0, 1.0, random.Random(1)), two.load(60.0, 1.0, random.Random(2))
            )
            assert len(both(one, two)) <= 40
            assert len(both(one, two)) >= 38

    run(main)


def test_seats_are_never_more_than_the_limit(redis_server: RedisServer):
    rules = LimitRules(limit=12, algorithm="concurrency")
    under_way = most = served = 0

    async def main() -> None:
        nonlocal under_way, most, served

        async def visit(worker: Worker, rng: random.Random) -> None:
            nonlocal under_way, most, served
            if await worker.hit():
                under_way += 1
                most = max(most, under_way)
                await asyncio.sleep(rng.uniform(0.002, 0.02))
                under_way -= 1
                served += 1
                worker.leased.refund("k", 1, time.monotonic())

        async def load(worker: Worker, visitors: int, rng: random.Random) -> None:
            ends = time.monotonic() + 1.5

            async def visitor() -> None:
                while time.monotonic() < ends:
                    await visit(worker, rng)
                    await asyncio.sleep(rng.uniform(0.0, 0.005))

            async with asyncio.TaskGroup() as group:
                group.create_task(worker._turns(ends))
                for _ in range(visitors):
                    group.create_task(visitor())

        async with shared(redis_server) as a, shared(redis_server) as b:
            await until(lambda: a.holders == 2)
            lease = LeaseRules(share=0.5, ttl_s=0.2)
            one, two = Worker(a, rules, lease), Worker(b, rules, lease)
            await asyncio.gather(load(one, 20, random.Random(1)), load(two, 6, random.Random(2)))

    run(main)
    assert most <= 12
    assert most >= 10
    assert served > 100


def test_while_redis_is_frozen_each_spends_its_share_and_there_is_no_burst_when_it_is_back(
    redis_server: RedisServer,
):
    rules = LimitRules(limit=LIMIT, period_s=PERIOD_S)
    lease = LeaseRules(share=0.1, ttl_s=0.2)

    async def main() -> None:
        async with (
            shared(redis_server, deadline_s=0.1) as a,
            shared(redis_server, deadline_s=0.1) as b,
        ):
            await until(lambda: a.holders == 2)
            one, two = Worker(a, rules, lease), Worker(b, rules, lease)

            async def weather() -> tuple[float, float]:
                await asyncio.sleep(0.8)
                redis_server.freeze()
                frozen = time.monotonic()
                await asyncio.sleep(1.2)
                redis_server.thaw()
                await until(lambda: not a.is_away and not b.is_away)
                return frozen, time.monotonic()

            _, _, (frozen, back) = await asyncio.gather(
                one.load(3 * PER_S, 3.2, random.Random(1)),
                two.load(3 * PER_S, 3.2, random.Random(2)),
                weather(),
            )
            assert one.alone
            assert two.alone
            passed = both(one, two)
            ahead = LIMIT * 0.1 + PER_S * WAITS_S
            # The shares are the limit once more, full when the home goes away: and no more than that.
            assert worst_excess(passed, 2 * LIMIT, PER_S) <= ahead
            for worker in (one, two):
                alone = [at for at in worker.passed if frozen + 0.1 <= at <= back]
                assert worst_excess(alone, LIMIT / 2, PER_S / 2) <= ahead
                assert len(alone) >= PER_S / 2 * (back - frozen - 0.1) * 0.7
            after = [at for at in passed if at >= back]
            assert worst_excess(after, LIMIT / 2, PER_S) <= ahead

    run(main)
