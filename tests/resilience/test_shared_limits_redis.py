"""Shared limits in a real Redis: several processes, a gateway, and a Redis that goes and comes."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hmac
import json
import random
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from headgate.policy.limiter import Ask, LeaseRules, LimitRules
from headgate.resilience import RateLimited, deadline, limit
from headgate.resilience.shared import Shared
from headgate.resilience.shared_limit import SharedLimit
from headgate.state.home import HomeAway, LimitAsk
from headgate.state.redis import RedisShared
from tests.control.serving import Instance, serving
from tests.resilience.shared_limits_worker import (
    PATIENT,
    SEATS,
    Load,
    hold_seats,
    process,
    run_all,
    until,
)
from tests.state.redis_server import RedisServer
from tests.state.worker import most_in_window, worst_excess

pytestmark = pytest.mark.integration

WAITS_S = 0.15  # a hit passes that much later than it was charged, at most, on a busy machine
SECRET = "s" * 40


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.stop()


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def patient() -> None:
        async with asyncio.timeout(50):
            await main()

    asyncio.run(patient())


async def left(server: RedisServer, rule: str, rules: LimitRules, key: str = "k") -> int:
    """What Redis has left of it."""
    home = RedisShared(server.url, deadline_s=2.0, holder=False)
    await home.start()
    try:
        while True:
            with contextlib.suppress(HomeAway):
                (grant,) = await home.take([LimitAsk(rule, rules, Ask(key, 0, 0))])
                return grant.remaining
            await asyncio.sleep(0.01)
    finally:
        await home.close()


# ---- several processes


@pytest.mark.parametrize(
    ("rate", "capacity", "period_s", "algorithm"),
    [
        ("200/1s", 200, 1.0, "gcra"),
        ("120/500ms", 120, 0.5, "sliding_log"),
        ("40/1h", 40, 3600.0, "fixed_window"),
    ],
    ids=["gcra", "log", "window"],
)
def test_processes_with_uneven_load_stay_within_the_bound(
    redis_server: RedisServer, rate: str, capacity: int, period_s: float, algorithm: str
):
    per_s = capacity / period_s
    busy = max(per_s, 100.0)
    lease = LeaseRules(share=0.2, ttl_s=0.3)
    loads = [
        Load(
            redis_server.url,
            (rate,),
            busy * part,
            1.5,
            3,
            seed,
            {"algorithm": algorithm, "lease": lease},
        )
        for seed, part in enumerate((2.0, 0.6, 0.1))
    ]
    by_process = run_all(loads)
    passed = sorted(at for each in by_process for at in each)
    ahead = capacity * 0.2 + per_s * WAITS_S
    if algorithm == "gcra":
        assert worst_excess(passed, capacity, per_s) <= ahead
        assert len(passed) >= per_s * 1.5 * 0.5
    elif algorithm == "sliding_log":
        assert most_in_window(passed, period_s) <= capacity + ahead
        assert len(passed) >= per_s * 1.5 * 0.5
    else:  # exact, in each window of Redis' clock
        assert capacity * 0.9 <= len(passed) <= capacity
    assert sum(map(bool, by_process)) >= 2


def test_a_small_limit_is_exact_over_processes(redis_server: RedisServer):
    loads = [
        Load(redis_server.url, ("10/24h",), per_s, 1.0, 3, seed, {})
        for seed, per_s in enumerate((60.0, 20.0, 20.0))
    ]
    assert sum(len(each) for each in run_all(loads)) == 10


def test_the_seats_of_a_process_that_died_come_back(redis_server: RedisServer):
    with process(hold_seats, redis_server.url, 3) as (other, pipe):
        assert pipe.poll(30)

        async def main() -> None:
            home = Shared(redis_server.url, deadline=PATIENT)
            bound = limit("3/s", algorithm="concurrency", home=home, rule="seats", **SEATS)
            async with home:
                await asyncio.sleep(1.5)  # longer than seats are lent for: it says that it lives
                assert not (await bound.try_hit()).allowed
                other.kill()
                killed = time.monotonic()
                while not (await bound.try_hit()).allowed:
                    assert time.monotonic() - killed < 20
                    await asyncio.sleep(0.05)

        run(main)


def test_what_is_not_spent_goes_back_at_the_end(redis_server: RedisServer):
    home = Shared(redis_server.url, deadline=PATIENT)
    bound = limit("10000/24h", home=home, rule="r", lease=LeaseRules(ttl_s=60.0))

    async def main() -> None:
        async with home:
            for _ in range(30):
                for _ in range(20):
                    await bound.hit("k")
                await asyncio.sleep(0.01)
            assert bound.snapshot().leased[0].unspent > 0
        assert 10000 - 600 <= await left(redis_server, "r", bound.rules[0]) <= 10000 - 599

    run(main)


def test_plain_code_counts_with_everybody_else(redis_server: RedisServer):
    homes = [Shared(redis_server.url, deadline=PATIENT) for _ in range(2)]
    plain, other = (limit("5/h", home=home, rule="r", by="user") for home in homes)

    @limit("5/h", home=homes[0], rule="r", by="user", key="{user}")
    def work(user: str) -> str:
        return user

    with homes[0]:
        assert work("ann") == "ann"
        assert plain.hit_blocking("ann").remaining == 3

        async def main() -> None:
            async with homes[1]:
                assert [(await other.try_hit("ann")).allowed for _ in range(4)] == [
                    True,
                    True,
                    True,
                    False,
                ]

        run(main)
        with pytest.raises(RateLimited):
            work("ann")


# ---- with the gateway


def token(user: str) -> str:
    def part(value: bytes) -> str:
        return base64.urlsafe_b64encode(value).rstrip(b"=").decode()

    said = f"{part(json.dumps({'alg': 'HS256', 'typ': 'JWT'}).encode())}." + part(
        json.dumps({"sub": user, "exp": int(time.time()) + 3600}).encode()
    )
    return f"{said}.{part(hmac.digest(SECRET.encode(), said.encode(), 'sha256'))}"


def test_a_service_and_the_gateway_count_a_user_together(redis_server: RedisServer, tmp_path: Path):
    with Instance("one") as one:
        config = {
            "state": redis_server.url,
            "services": {"users": {"instances": [one.url]}},
            "routes": [{"name": "users", "match": {"path": "/users/"}, "to": "users"}],
            "auth": {"default": "jwt", "jwt": {"secret": SECRET, "audience": "*"}},
            "limit": {"rate": "10/24h", "by": "user", "name": "api"},
        }
        with serving(tmp_path, **config) as gateway:
            visitors = list(gateway.visitors().values())

            def ask(number: int, user: str) -> int:
                visitor = visitors[number % len(visitors)]
                return visitor.status("/users/1", authorization=f"Bearer {token(user)}")

            async def main() -> None:
                home = Shared(redis_server.url, deadline=PATIENT)
                bound = limit("10/24h", by="user", home=home, rule="global/api")
                (rules,) = bound.rules
                async with home:
                    await until(lambda: home.holders == 3)  # two workers, and we

                    async def once(number: int) -> bool:
                        if number % 3:
                            return (await bound.try_hit("ann")).allowed
                        status = await asyncio.to_thread(ask, number // 3, "ann")
                        assert status in {200, 429}
                        return status == 200

                    assert all([await once(number) for number in (0, 3, 1)])
                    used = 10 - await left(redis_server, "global/api", rules, "user=ann")
                    assert 3 <= used <= 4  # a worker may have leased one, while it thought it alone
                    passed = 3
                    began = time.monotonic()
                    number = 0
                    while time.monotonic() - began < 1.5 or (passed < 10 and number < 500):
                        passed += await once(number)
                        number += 1
                        await asyncio.sleep(0.02)
                    assert passed == 10
                    # Others have their own.
                    assert (await bound.hit("bob")).remaining == 9
                    assert await asyncio.to_thread(ask, 0, "bob") == 200

            run(main)


# ---- Redis goes and comes


async def load(bound: SharedLimit, per_s: float, for_s: float, seed: int) -> list[float]:
    rng = random.Random(seed)
    passed: list[float] = []

    async def hit() -> None:
        if (await bound.try_hit("k")).allowed:
            passed.append(time.monotonic())

    ends = time.monotonic() + for_s
    at = time.monotonic()
    async with asyncio.TaskGroup() as group:
        while at < ends:
            at += rng.expovariate(per_s)
            await asyncio.sleep(max(0.0, at - time.monotonic()))
            group.create_task(hit())
    return passed


@pytest.mark.parametrize("mode", ["local", "open", "closed"])
def test_a_frozen_redis_is_done_without_and_nothing_bursts_when_it_is_back(
    redis_server: RedisServer, mode: str
):
    capacity, period_s = 80, 0.4
    per_s = capacity / period_s
    lease = LeaseRules(share=0.1, ttl_s=0.2)
    homes = [Shared(redis_server.url, deadline="100ms") for _ in range(2)]
    both = [
        limit(f"{capacity}/400ms", home=home, rule="r", when_away=mode, lease=lease)  # type: ignore[call-overload]  # a str
        for home in homes
    ]

    async def weather() -> tuple[float, float]:
        await asyncio.sleep(0.8)
        redis_server.freeze()
        frozen = time.monotonic()
        await asyncio.sleep(1.2)
        redis_server.thaw()
        await until(lambda: not homes[0].is_away and not homes[1].is_away)
        return frozen, time.monotonic()

    async def main() -> None:
        async with homes[0], homes[1]:
            await until(lambda: all(home.holders == 2 for home in homes))
            *loads, (frozen, back) = await asyncio.gather(
                load(both[0], 2 * per_s, 3.2, 1), load(both[1], 2 * per_s, 3.2, 2), weather()
            )
            ahead = capacity * 0.1 + per_s * WAITS_S
            first, last = frozen + 0.3, back - 0.05  # the deadline, once, and who waited in it
            for passed in loads:
                alone = [at for at in passed if first <= at <= last]
                if mode == "closed":
                    assert not alone
                elif mode == "open":
                    assert len(alone) > 2 * per_s * (last - first) * 0.6
                else:
                    assert worst_excess(alone, capacity / 2, per_s / 2) <= ahead
                    assert len(alone) >= per_s / 2 * (last - first) * 0.5
            passed = sorted(loads[0] + loads[1])
            after = [at for at in passed if at >= back + 0.15]  # a turn later
            # What was spent alone counts; what `open` let pass, and `closed` kept back, does not.
            most = capacity / 2 if mode == "local" else capacity
            assert worst_excess(after, most, per_s) <= ahead
            assert len(after) >= per_s * 0.3

    try:
        run(main)
    finally:
        redis_server.thaw()


def test_a_redis_that_was_killed_is_found_again(redis_server: RedisServer):
    home = Shared(redis_server.url, deadline="200ms")
    bound = limit("10/h", home=home, rule="r", when_away="local")
    closed = limit("10/h", home=home, rule="c", when_away="closed")

    async def main() -> None:
        async with home:
            for _ in range(4):
                await bound.hit("k")
            redis_server.kill()
            await until(lambda: home.is_away)
            assert not (await closed.try_hit("k")).allowed
            began = time.monotonic()
            got = [(await bound.try_hit("k")).allowed for _ in range(300)]
            assert sum(got) <= 10
            assert time.monotonic() - began < 3.0  # nobody waits for what is known to be away
            redis_server.start()
            await until(lambda: not home.is_away)
            await until(lambda: not bound.snapshot().leased[0].is_away)
            await asyncio.sleep(0.7)
            # This Redis has forgotten all but what it was told since.
            assert await left(redis_server, "r", bound.rules[0]) == 10 - sum(got)
            assert (await closed.try_hit("k")).allowed

    run(main)


def test_a_service_starts_without_redis_and_finds_it_later(redis_server: RedisServer):
    redis_server.kill()
    home = Shared(redis_server.url, deadline="200ms", expect=5)
    bound = limit("10/h", home=home, rule="r")

    async def main() -> None:
        async with home:
            assert sum([(await bound.try_hit("k")).allowed for _ in range(10)]) == 2
            redis_server.start()
            await until(lambda: not home.is_away)
            assert home.holders == 1
            await until(lambda: not bound.snapshot().leased[0].is_away)
            await asyncio.sleep(0.7)
            assert await left(redis_server, "r", bound.rules[0]) == 8

    run(main)


def test_who_gives_up_waiting_for_a_frozen_redis_has_taken_nothing(redis_server: RedisServer):
    home = Shared(redis_server.url, deadline="1s")
    bound = limit("10/24h", home=home, rule="r", when_away="open")
    seats = limit("3/s", algorithm="concurrency", home=home, rule="seats")

    async def main() -> None:
        async with home:
            await bound.hit("k")
            redis_server.freeze()
            loop = asyncio.get_running_loop()
            tasks = [loop.create_task(bound.hit("k", cost)) for cost in (1, 2, 3)]
            tasks.append(loop.create_task(seats.hit("k", 2)))
            await asyncio.sleep(0.05)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            assert all(task.cancelled() for task in tasks)
            began = time.monotonic()
            with pytest.raises(TimeoutError):
                async with deadline("50ms"):
                    await bound.hit("k")
            assert time.monotonic() - began < 1.2
            redis_server.thaw()
            await asyncio.sleep(1.5)
            assert not home.is_away
            assert await left(redis_server, "r", bound.rules[0]) == 9
            assert await left(redis_server, "seats", seats.rules[0]) == 3

    try:
        run(main)
    finally:
        redis_server.thaw()
