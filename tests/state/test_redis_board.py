"""News by Redis: heard by others, kept for those who come late, found again after a fault."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
from collections.abc import Mapping
from typing import Any

import pytest

from headgate.state.redis import RedisShared
from tests.state.redis_server import RedisServer
from tests.state.test_redis import run, shared, until

pytestmark = pytest.mark.integration

CHANNEL = "headgate:board"
RETAINED = "headgate:{board}:retained"


async def listening(server: RedisServer, *homes: RedisShared) -> None:
    """Until all hear each other, and have caught up."""
    count = len(homes)
    await until(lambda: server.say("PUBSUB", "NUMSUB", CHANNEL).endswith(b":%d\r\n" % count))
    for home in homes:
        heard = ears(home, "are you there")
        other = next(other for other in homes if other is not home)

        def is_heard(other: RedisShared = other, heard: list[int] = heard) -> bool:
            # Again and again: what is not retained may be lost while a connection is made.
            other.publish("are you there", {"n": 0})
            return bool(heard)

        await until(is_heard)


def ears(home: RedisShared, topic: str = "t") -> list[int]:
    heard: list[int] = []
    home.subscribe(topic, lambda message: heard.append(message["n"]))
    return heard


def test_news_reaches_the_others_and_not_its_publisher(redis_server: RedisServer):
    async def main() -> None:
        async with shared(redis_server) as one, shared(redis_server) as two:
            heard = [ears(one), ears(two), ears(two, "another topic")]
            await listening(redis_server, one, two)
            for n in range(20):
                one.publish("t", {"n": n}, retain=str(n) if n % 2 else None)
            two.publish("t", {"n": 20})
            await until(lambda: len(heard[1]) == 20 and heard[0])
            assert heard == [[20], list(range(20)), []]

    run(main)


def test_what_is_retained_is_heard_by_who_comes_later(redis_server: RedisServer):
    async def main() -> None:
        async with shared(redis_server) as one:
            one.publish("t", {"n": 1}, retain="a")
            one.publish("t", {"n": 2}, retain="a")
            one.publish("t", {"n": 3}, retain="b")
            one.publish("t", {"n": 4}, retain="c")
            one.publish("t", {"n": 5})
            one.forget("t", "c")
            await until(lambda: not one._outbox)
            async with shared(redis_server) as two:
                heard = ears(two)
                await until(lambda: len(heard) == 2)
                assert sorted(heard) == [2, 3]
                late = ears(two)
                assert sorted(late) == [2, 3]

    run(main)


def test_what_one_forgets_all_forget(redis_server: RedisServer):
    async def main() -> None:
        async with shared(redis_server) as one, shared(redis_server) as two:
            await listening(redis_server, one, two)
            one.publish("t", {"n": 1}, retain="a")
            await until(lambda: two.snapshot(0.0).retained == 1)
            two.forget("t", "a")
            await until(lambda: one.snapshot(0.0).retained == 0)

    run(main)


def test_what_two_publish_at_once_ends_the_same_for_all(redis_server: RedisServer):
    async def main() -> None:
        rng = random.Random(1)
        async with shared(redis_server) as one, shared(redis_server) as two:
            homes = (one, two)
            beliefs: dict[RedisShared, Mapping[str, Any]] = {}
            for home in homes:
                home.subscribe("t", functools.partial(beliefs.__setitem__, home))
            await listening(redis_server, one, two)
            for _ in range(40):
                for n in range(rng.randint(2, 5)):
                    home = rng.choice(homes)
                    beliefs[home] = {"n": rng.randrange(10**6), "of": n}
                    home.publish("t", beliefs[home], retain="a")
                    await asyncio.sleep(rng.choice([0.0, 0.0003]))
                await until(lambda: not one._echoes and not two._echoes)
                await until(lambda: len(beliefs) == 2 and beliefs[one] == beliefs[two])
            async with shared(redis_server) as three:
                heard = ears(three)
                await until(lambda: heard)
                assert beliefs[one]["n"] == heard[0]
                assert [ears(home) for home in homes] == [heard, heard]

    run(main)


def test_what_was_retained_while_redis_was_away_is_said_when_it_is_back(redis_server: RedisServer):
    async def main() -> None:
        async with shared(redis_server) as one, shared(redis_server) as two:
            heard = ears(two)
            await listening(redis_server, one, two)
            one.publish("t", {"n": 1}, retain="gone")
            await until(lambda: heard == [1])
            await asyncio.to_thread(redis_server.kill)
            await until(lambda: one.is_away and two.is_away)
            one.publish("t", {"n": 2}, retain="a")
            one.publish("t", {"n": 3})
            one.forget("t", "gone")
            await asyncio.to_thread(redis_server.start)
            await until(lambda: 2 in heard)
            assert 3 not in heard
            await until(lambda: two.snapshot(0.0).retained == 1)
            assert one.snapshot(0.0).dropped == 1

    run(main)


def test_a_redis_that_lost_everything_is_told_again_what_is_retained(redis_server: RedisServer):
    async def main() -> None:
        async with shared(redis_server) as one, shared(redis_server) as two:
            await listening(redis_server, one, two)
            one.publish("t", {"n": 1}, retain="a")
            await until(lambda: two.snapshot(0.0).retained == 1)
            await asyncio.to_thread(redis_server.kill)
            await asyncio.to_thread(redis_server.start)
            await until(lambda: redis_server.say("HEXISTS", RETAINED, "t\0a") == b":1\r\n")
            async with shared(redis_server) as three:
                heard = ears(three)
                await until(lambda: heard == [1])

    run(main)


def test_what_others_changed_while_a_listener_was_cut_off_is_caught_up_with(
    redis_server: RedisServer,
):
    async def main() -> None:
        async with shared(redis_server) as one, shared(redis_server) as two:
            heard = ears(two)
            await listening(redis_server, one, two)
            for n, key in enumerate("abc"):
                one.publish("t", {"n": n}, retain=key)
            await until(lambda: heard == [0, 1, 2])
            await asyncio.sleep(0.01)
            redis_server.say("CLIENT", "KILL", "TYPE", "pubsub")
            one.publish("t", {"n": 7}, retain="b")
            await until(lambda: 7 in heard)
            await listening(redis_server, one, two)
            assert heard == [0, 1, 2, 7]  # what it knew already is not told again

    run(main)


def test_a_word_whose_echo_was_lost_does_not_make_us_deaf(redis_server: RedisServer):
    async def main() -> None:
        async with shared(redis_server) as one, shared(redis_server) as two:
            heard = ears(one)
            await listening(redis_server, one, two)
            redis_server.say("CLIENT", "KILL", "TYPE", "pubsub")
            one.publish("t", {"n": 1}, retain="a")
            await until(lambda: not one._outbox)
            await listening(redis_server, one, two)
            two.publish("t", {"n": 2}, retain="a")
            await until(lambda: heard == [2])

    run(main)


def test_what_is_no_news_of_ours_is_passed_over(redis_server: RedisServer):
    async def main() -> None:
        async with shared(redis_server) as one, shared(redis_server) as two:
            heard = ears(two)
            await listening(redis_server, one, two)
            for text in ("", "nonsense", "[1]", "{}", '{"from":"x","topic":1}', "\udcff"):
                redis_server.say("PUBLISH", CHANNEL, text.encode("utf-8", "replace").decode())
            redis_server.say("HSET", RETAINED, "field", "nonsense")
            one.publish("t", {"n": 1})
            await until(lambda: heard == [1])
            async with shared(redis_server) as three:
                heard = ears(three)
                one.publish("t", {"n": 2}, retain="a")
                await until(lambda: set(heard) == {2})

    run(main)


def test_a_full_table_takes_no_more_and_says_so(
    redis_server: RedisServer,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("headgate.state.redis_board.RETAINED_MAX", 2)

    async def main() -> None:
        async with shared(redis_server) as one:
            for n in range(4):
                one.publish("t", {"n": n}, retain=str(n))
            one.publish("t", {"n": 5}, retain="1")
            await until(lambda: not one._outbox)
            assert redis_server.say("HLEN", RETAINED) == b":3\r\n"  # and the mark that it was used
            assert not one.is_away

    run(main)
    assert caplog.text.count("is not kept") == 2


class Way:
    """A way to Redis on which connections can be lost without a word."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._lost: asyncio.Event = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> str:
        self._server = await asyncio.start_server(self._come, "127.0.0.1", 0)
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"

    def lose(self) -> None:
        """Carry nothing any more for those that are there; new ones go through."""
        self._lost.set()
        self._lost = asyncio.Event()

    async def _come(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        lost = self._lost
        loop = asyncio.get_running_loop()
        for source, sink in ((reader, back), (there, writer)):
            task = loop.create_task(self._carry(source, sink, lost))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, lost: asyncio.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                if not lost.is_set():
                    sink.write(data)
        sink.close()

    async def close(self) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


def test_a_listener_whose_connection_is_dead_finds_out_and_comes_back(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("headgate.state.redis_board.PING_S", 0.1)

    async def main() -> None:
        way = Way(redis_server.port)
        url = await way.open()
        async with shared(redis_server) as one, shared(url) as two:
            heard = ears(two)
            await listening(redis_server, one, two)
            await asyncio.sleep(0.5)  # pinged, and answered
            one.publish("t", {"n": 1})
            await until(lambda: heard == [1])
            way.lose()
            one.publish("t", {"n": 2}, retain="a")
            await until(lambda: heard == [1, 2])
            await until(lambda: not two.is_away)
        await way.close()

    run(main)


def test_what_is_younger_here_is_not_overwritten_by_what_is_found(redis_server: RedisServer):
    async def main() -> None:
        async with shared(redis_server) as one, shared(redis_server) as two:
            await listening(redis_server, one, two)
            one.publish("t", {"n": 1}, retain="a")
            await until(lambda: two.snapshot(0.0).retained == 1)
            heard = ears(two)
            two._is_away = True
            two.publish("t", {"n": 2}, retain="a")
            two.publish("t", {"n": 3}, retain="b")
            await two._catch_up()
            assert [kept.message["n"] for kept in two._news.kept()] == [2, 3]
            assert heard == [1]

    run(main)
