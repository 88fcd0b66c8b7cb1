"""Several controls on one Redis: one knows what the other was told, and Redis may go and come."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from headgate.mesh.registry import store_redis
from headgate.mesh.registry.book import Asked, Book, Held, Lost, Refused
from headgate.mesh.registry.model import Change
from headgate.mesh.registry.redis_script import keys
from headgate.mesh.registry.store_redis import RedisHome
from headgate.policy.registering import RegistryRules
from tests.state.redis_server import RedisServer

pytestmark = pytest.mark.integration
PATIENCE_S = 20.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    it = RedisServer(tmp_path_factory.mktemp("redis"))
    it.start()
    yield it
    it.stop()


@pytest.fixture
def redis(server: RedisServer) -> Iterator[RedisServer]:
    if server.process is None or server.process.poll() is not None:
        server.start()
    server.say("FLUSHALL")
    yield server
    server.thaw()


class Control:
    """A book and its home; time is ours to push."""

    def __init__(
        self, redis: RedisServer, name: str, deadline_s: float = 5.0, **rules: Any
    ) -> None:
        self.told: list[tuple[str, str, str]] = []
        self.ahead_s = 0.0
        self.book = Book(name, RegistryRules(**{"protect_last": False, **rules}), self._on_change)
        self.home = RedisHome(
            redis.url,
            self.book,
            flush_s=0.02,
            pull_s=0.04,
            deadline_s=deadline_s,
            rng=random.Random(name),
            clock=self.now,
        )

    def now(self) -> float:
        return asyncio.get_running_loop().time() + self.ahead_s

    def _on_change(self, changes: Sequence[Change]) -> None:
        self.told += [(each.what, each.instance.id, each.why) for each in changes]

    async def register(self, name: str, **more: Any) -> Held:
        more.setdefault("url", f"http://{name}:1")
        return await self.home.register(Asked("users", name, **more))

    async def beat(self, name: str, fence: int, **more: Any) -> Held | Lost:
        return await self.home.beat("users", name, fence, **more)

    @property
    def states(self) -> dict[str, str]:
        return {each.id: each.state for each in self.book.of("users")}


@asynccontextmanager
async def controls(
    redis: RedisServer, count: int = 2, **rules: Any
) -> AsyncIterator[list[Control]]:
    async with AsyncExitStack() as stack, asyncio.timeout(PATIENCE_S * 2):
        found = [Control(redis, f"c{n}", **rules) for n in range(count)]
        for each in found:
            await each.home.start()
            stack.push_async_callback(each.home.close)
        yield found


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():
            await asyncio.sleep(0.005)


def test_what_one_control_is_told_all_know(redis: RedisServer) -> None:
    async def main() -> None:
        async with controls(redis, 3) as (a, b, c):
            held = await a.register("u1", zone="z", metadata={"é": "ü"}, ttl_s=7)
            assert held.created
            assert a.states == {"u1": "up"}
            await until(lambda: b.states == c.states == {"u1": "up"})
            there = b.book.lease("users", "u1")
            assert there is not None
            assert (there.fence, there.ttl_s) == (held.fence, 7.0)
            assert dict(there.instance.metadata) == {"é": "ü"}
            again = await b.register("u1", url="http://u1:2")
            assert not again.created
            assert again.fence > held.fence
            await until(lambda: a.told[-1] == ("changed", "u1", "registered again"))
            got = await a.beat("u1", held.fence)
            assert isinstance(got, Lost)
            assert got.why == "fenced"
            assert isinstance(await c.beat("u1", again.fence), Held)
            assert (await c.beat("nobody", 1)) == Lost(
                "unknown", "no lease of users/nobody is known; register again"
            )
            with pytest.raises(Refused):
                await a.register("bad name")

    asyncio.run(main())


def test_leaving_and_health_are_heard_by_all_in_one_order(redis: RedisServer) -> None:
    async def main() -> None:
        async with controls(redis) as (a, b):
            held = await a.register("u1")
            await until(lambda: bool(b.states))
            got = await b.beat("u1", held.fence, health="degraded")
            assert isinstance(got, Held)
            assert got.instance.health == "degraded"
            left = await b.home.leave("users", "u1", held.fence, 30.0)
            assert isinstance(left, Held)
            assert left.instance.state == "draining"
            await until(lambda: a.states == {"u1": "draining"})
            assert isinstance(await a.beat("u1", held.fence, health="degraded"), Held)
            left = await a.home.leave("users", "u1", held.fence, 0)
            assert isinstance(left, Held)
            assert a.states == {}
            await until(lambda: b.states == {})
            assert (
                [each[2] for each in a.told]
                == [each[2] for each in b.told]
                == [
                    "registered",
                    "says it is degraded",
                    "draining",
                    "deregistered",
                ]
            )
            assert b.book.statistics().counts.left == 1  # it was asked there
            assert isinstance(await a.home.leave("users", "u1", held.fence, 0), Lost)

    asyncio.run(main())


def test_who_beats_at_one_control_is_not_silent_to_the_others(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_redis, "_STOOD_STILL_S", 1e9)

    async def main() -> None:
        async with controls(redis) as (a, b):
            held = await a.register("u1")
            await until(lambda: bool(b.states))
            read = b.home._pulled_ms + 300
            await until(lambda: b.home._pulled_ms > read)
            b.ahead_s = 25.0  # it is silent to b, and about to run out
            silent = lambda: b.book.claims("users", b.now())[0].silent_s or 0.0  # noqa: E731
            assert silent() > 20
            assert isinstance(await a.beat("u1", held.fence), Held)
            await until(lambda: silent() < 20)
            assert [each[0] for each in b.told] == ["came"]

    asyncio.run(main())


def test_who_is_silent_everywhere_is_ended_once(redis: RedisServer) -> None:
    async def main() -> None:
        async with controls(redis) as (a, b):
            await a.register("u1", ttl_s=1)
            await a.register("u2", ttl_s=30)
            await until(lambda: a.states == b.states == {"u2": "up"})
            for each in (a, b):
                assert each.told[-1][:2] == ("went", "u1")
                assert each.told[-1][2].startswith("lease ran out")
            ended = a.book.statistics().counts.expired + b.book.statistics().counts.expired
            assert ended == 1

    asyncio.run(main())


def test_a_control_that_hears_less_than_the_others_ends_nobody(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_redis, "_STOOD_STILL_S", 1e9)

    async def main() -> None:
        async with controls(redis) as (a, b):
            await a.register("u1")
            await until(lambda: bool(b.states))
            b.home._pulled_ms = 10**15  # it hears of nobody's beats
            b.ahead_s = 1000.0
            looks = b.book.next_turn()
            await until(lambda: b.book.next_turn() != looks)
            await asyncio.sleep(0.1)
            assert a.states == b.states == {"u1": "up"}

    asyncio.run(main())


def test_most_silent_at_once_are_suspect_at_all_controls_until_heard(redis: RedisServer) -> None:
    async def main() -> None:
        async with controls(redis) as (a, b):
            fences = [(await a.register(f"u{n}", ttl_s=1)).fence for n in range(4)]
            await until(lambda: [*a.states.values()] == ["suspect"] * 4)
            await until(lambda: b.states == a.states)
            for n, fence in enumerate(fences):
                got = await b.beat(f"u{n}", fence)
                assert isinstance(got, Held)
                assert got.instance.state == "up"
            assert ("changed", "u3", "heard again") in b.told
            await until(lambda: ("changed", "u3", "heard again") in a.told)
            assert not [each for each in a.told if each[0] == "went"]

    asyncio.run(main())


def test_while_redis_is_away_nobody_is_turned_away_or_ended(redis: RedisServer) -> None:
    async def main() -> None:
        async with controls(redis) as (a, b):
            old = await a.register("u1")
            gone = await a.register("u2")
            await until(lambda: len(b.states) == 2)
            redis.kill()
            await until(lambda: bool(a.home.away and b.home.away))
            assert "is away" in a.home.worry
            assert isinstance(await b.beat("u1", old.fence), Held)
            new = await a.register("u3")
            again = await a.register("u1", url="http://u1:9")
            assert again.fence > old.fence
            assert isinstance(await a.home.leave("users", "u2", gone.fence, 0), Held)
            a.ahead_s = b.ahead_s = 500.0
            await asyncio.sleep(0.1)
            assert sorted(a.states) == ["u1", "u3"]
            assert sorted(b.states) == ["u1", "u2"]
            redis.start()  # and it has lost everything
            await until(lambda: not a.home.away and not b.home.away)
            await until(lambda: sorted(a.states) == sorted(b.states))
            await until(lambda: b.book.of("users")[0].url != "http://u1:1")
            assert a.home.worry == ""
            for each in (a, b):
                # u2 left while nobody could be told: of that b's memory knows nothing.
                assert {"u1", "u3"} <= set(each.states)
                held = each.book.lease("users", "u1")
                assert held is not None
                assert held.fence == again.fence
                assert held.instance.url == "http://u1:9"
            assert isinstance(await b.beat("u3", new.fence), Held)
            after = await b.register("u1")
            assert after.fence > again.fence

    asyncio.run(main())


def test_who_was_registered_elsewhere_meanwhile_is_not_overruled(redis: RedisServer) -> None:
    async def main() -> None:
        async with controls(redis) as (a, b):
            await a.register("u1")
            await until(lambda: bool(b.states))
            a.home._go_away("a test")
            a.home._find = lambda: asyncio.sleep(3600)  # type: ignore[method-assign]  # it cannot come back
            mine = await a.register("u1", url="http://mine:1")
            theirs = await b.register("u1", url="http://theirs:1")
            assert mine.fence > theirs.fence  # by its clock, which is not to decide
            del a.home._find
            for task in a.home._tasks[:1]:
                task.cancel()
            a.home._tasks.append(asyncio.create_task(a.home._follow()))
            await until(lambda: not a.home.away)
            await until(
                lambda: [e.url for e in a.book.of("users")] == [e.url for e in b.book.of("users")]
            )

    asyncio.run(main())


def test_a_redis_that_stands_still_costs_one_deadline(redis: RedisServer) -> None:
    async def main() -> None:
        async with controls(redis, 1, deadline_s=0.5) as (a,):
            await a.register("u1")
            redis.freeze()
            held = await a.register("u2")
            assert a.home.away
            assert sorted(a.states) == ["u1", "u2"]
            redis.thaw()
            await until(lambda: not a.home.away and not a.home._held)
            assert isinstance(await a.beat("u2", held.fence), Held)
            assert sorted(a.states) == ["u1", "u2"]

    asyncio.run(main())


def test_memory_that_is_lost_under_a_living_connection_is_filled_again(redis: RedisServer) -> None:
    async def main() -> None:
        async with controls(redis) as (a, b):
            fences = {n: (await a.register(n)).fence for n in ("u1", "u2")}
            await until(lambda: len(b.states) == 2)
            redis.say("FLUSHALL")
            await until(lambda: a.home.resyncs > 1 and b.home.resyncs > 1)
            await until(lambda: not a.home.away and not b.home.away)
            await until(lambda: len(a.states) == len(b.states) == 2)
            assert isinstance(await b.beat("u1", fences["u1"]), Held)
            assert {n.rpartition(":")[2] for n in redis.key_names()} == {
                "leases", "fences", "beats", "log", "meta",
            }  # fmt: skip

    asyncio.run(main())


def test_a_control_that_starts_later_knows_all_and_what_it_remembered_falsely_is_gone(
    redis: RedisServer,
) -> None:
    async def main() -> None:
        async with controls(redis, 1) as (a,):
            await a.register("u1")
            late = Control(redis, "late")
            late.book.register(Asked("users", "ghost", "http://g:1"), late.now(), 5.0)
            await late.home.start()
            assert late.states == {"u1": "up"}
            assert late.told[-1] == ("went", "ghost", "it ended elsewhere")
            await late.home.close()
            assert late.home.away == "closed"

    asyncio.run(main())


def test_a_gap_in_the_log_is_seen(redis: RedisServer) -> None:
    async def main() -> None:
        async with controls(redis, 1) as (a,):
            await a.register("u1")
            redis.say("HINCRBY", keys("headgate")[4], "n", "1")
            await a.register("u2")
            await until(lambda: sorted(a.states) == ["u1", "u2"])
            assert a.home.resyncs == 2

    asyncio.run(main())


@pytest.mark.parametrize("said", ["{", "null", '{"instance": {}}', "[" * 10_000])
def test_what_is_none_of_ours_is_passed_over(redis: RedisServer, said: str) -> None:
    async def main() -> None:
        async with controls(redis, 1) as (a,):
            await a.register("u1")
            leases, fences, *_ = keys("headgate")
            redis.say("HSET", leases, "users/x", said)
            redis.say("HSET", fences, "users/x", "7")
            late = Control(redis, "late")
            await late.home.start()
            assert late.states == {"u1": "up"}
            assert late.home.unreadable == 1
            await late.home.close()

    asyncio.run(main())


def test_a_redis_that_is_not_there_is_no_error(tmp_path: Path) -> None:
    async def main() -> None:
        nowhere = RedisServer(tmp_path)
        async with controls(nowhere, 1) as (a,):
            held = await a.register("u1")
            assert a.home.away
            assert isinstance(await a.beat("u1", held.fence), Held)
            nowhere.start()
            try:
                await until(lambda: not a.home.away and not a.home._held)
                assert any(n.endswith(":leases") for n in nowhere.key_names())
            finally:
                nowhere.stop()

    asyncio.run(main())


@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_all_controls_and_redis_agree_in_the_end(
    redis: RedisServer, seed: int
) -> None:
    rng = random.Random(seed)
    fences: dict[str, int] = {}

    async def act(control: Control) -> None:
        name = f"u{rng.randrange(6)}"
        what = rng.choices(("register", "beat", "ill", "leave", "drain", "cut"), (4, 4, 2, 2, 1, 1))
        if what == ["register"]:
            url = f"http://h{rng.randrange(4)}:1"
            fences[name] = (await control.register(name, url=url)).fence
        elif what == ["cut"]:
            redis.say("CLIENT", "KILL", "TYPE", "normal")
        elif name in fences:
            fence = fences[name]
            if what == ["beat"]:
                await control.beat(name, fence)
            elif what == ["ill"]:
                await control.beat(name, fence, health=rng.choice(("up", "down")))
            else:
                await control.home.leave("users", name, fence, 0 if what == ["leave"] else 60)

    async def main() -> None:
        async with controls(redis, 3) as found:
            for _ in range(40):
                await asyncio.gather(*(act(control) for control in found))
                await asyncio.sleep(rng.choice((0, 0, 0.005)))

            def seen(control: Control) -> list[tuple[Any, ...]]:
                return sorted(
                    (r.instance.id, r.instance.url, r.instance.state, r.instance.health, r.instance.fence)
                    for r in control.book.leases()
                )  # fmt: skip

            def is_settled() -> bool:
                return not any(each.home.away or each.home._held for each in found)

            await until(is_settled)
            await until(lambda: seen(found[0]) == seen(found[1]) == seen(found[2]))
            late = Control(redis, "late")
            await late.home.start()
            assert seen(late) == seen(found[0])
            await late.home.close()
            for each in found:
                assert each.home.unreadable == 0

    asyncio.run(main())


def test_a_control_that_stood_still_does_not_take_others_for_dead(redis: RedisServer) -> None:
    async def main() -> None:
        async with controls(redis, 1) as (a,):
            await a.register("u1")
            looks = a.book.next_turn()
            a.ahead_s = 1000.0
            await until(lambda: a.book.next_turn() != looks)
            (seen,) = a.book.claims("users", a.now())
            assert seen.silent_s is not None
            assert seen.silent_s < 500

    asyncio.run(main())


def test_one_id_registered_at_two_controls_while_redis_is_away_has_one_holder(
    redis: RedisServer,
) -> None:
    async def main() -> None:
        async with controls(redis) as (a, b):
            await a.register("u1")
            await until(lambda: bool(b.states))
            redis.kill()
            await until(lambda: bool(a.home.away and b.home.away))
            held = [await each.register("u1", url=f"http://{n}:1") for n, each in ((1, a), (2, b))]
            assert held[0].fence != held[1].fence
            redis.start()
            await until(lambda: not any(each.home.away or each.home._held for each in (a, b)))
            winner = max(held, key=lambda each: each.fence)

            def fences() -> set[int]:
                return {row.instance.fence for each in (a, b) for row in each.book.leases()}

            await until(lambda: fences() == {winner.fence})
            for each in (a, b):
                got = [await each.beat("u1", one.fence) for one in held]
                assert [isinstance(one, Held) for one in got] == [one is winner for one in held]

    asyncio.run(main())
