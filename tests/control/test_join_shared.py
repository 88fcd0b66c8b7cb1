"""Join tokens and denials of several control processes, in one Redis."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis import Redis

from headgate.control import join_book
from headgate.control.join_book import FILE, KeptBook
from headgate.mesh.identity.joining import JoinBook, JoinToken
from headgate.mesh.identity.refusals import IdentityRefused
from headgate.security.service_identity.rules import IdentityRules
from tests.state.redis_server import RedisServer

pytestmark = pytest.mark.integration

WALL = 1_900_000_000.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    made = RedisServer(tmp_path_factory.mktemp("redis"))
    made.start()
    yield made
    made.stop()


@pytest.fixture
def redis(server: RedisServer) -> RedisServer:
    client = Redis.from_url(server.url)
    client.flushall()
    client.close()
    return server


@contextlib.asynccontextmanager
async def book(folder: Path, url: str) -> AsyncIterator[KeptBook]:
    made = KeptBook(folder, IdentityRules())
    await made.follow(url)
    try:
        yield made
    finally:
        await made.close()


def making(service: str = "orders", uses: int = 1):
    def make(found: JoinBook) -> tuple[str, JoinToken]:
        return found.make(
            service, wall=WALL, ends=WALL + 3600, by="ann", uses=uses, random=os.urandom
        )

    return make


def using(text: str, key: str):
    return lambda found: found.join(text, key, WALL)


def denying(what: str):
    return lambda found: found.deny("service", what, wall=WALL, by="ann", why="")


async def until(what) -> None:
    async with asyncio.timeout(30):
        while not what():
            await asyncio.sleep(0.01)


def test_a_token_that_one_made_is_good_once_at_any(tmp_path, redis):
    async def work() -> None:
        async with book(tmp_path / "a", redis.url) as one, book(tmp_path / "b", redis.url) as two:
            text, made = await one.change(making())
            assert (await two.find(text, WALL)).id == made.id
            await two.change(using(text, "k1"))
            assert (await one.change(using(text, "k1"))).uses_left == 0  # the answer was lost
            with pytest.raises(IdentityRefused, match="used already"):
                await one.change(using(text, "k2"))
            assert await two.change(lambda found: found.revoke(made.id)) is not None
            with pytest.raises(IdentityRefused, match="not known"):
                await one.change(using(text, "k1"))

    asyncio.run(work())


def test_of_many_at_once_a_token_lets_in_as_many_as_it_says(tmp_path, redis):
    async def work() -> None:
        async with contextlib.AsyncExitStack() as stack:
            books = [
                await stack.enter_async_context(book(tmp_path / name, redis.url))
                for name in ("a", "b", "c")
            ]
            text, _ = await books[0].change(making(uses=5))
            tried = [
                each.change(using(text, f"k{number}"))
                for number in range(4)
                for each in books
                if each is books[number % 3]
            ] + [books[number % 3].change(using(text, f"other{number}")) for number in range(8)]
            said = await asyncio.gather(*tried, return_exceptions=True)
            let_in = [each for each in said if isinstance(each, JoinToken)]
            assert len(let_in) == 5
            assert all(isinstance(each, JoinToken | IdentityRefused) for each in said), said

    asyncio.run(work())


def test_who_is_denied_by_one_is_denied_by_all_and_let_in_again(tmp_path, redis, monkeypatch):
    monkeypatch.setattr(join_book, "REFRESH_S", 0.02)

    async def work() -> None:
        async with book(tmp_path / "a", redis.url) as one, book(tmp_path / "b", redis.url) as two:
            await one.change(denying("orders"), without_redis=True)
            await until(two.book.denials)
            with pytest.raises(IdentityRefused, match="denied"):
                two.book.check("orders", "", "", WALL)
            assert await two.change(lambda found: found.allow("service", "orders")) is not None
            await until(lambda: not one.book.denials())
        # What was kept on the disk is a copy of it.
        assert json.loads((tmp_path / "a" / FILE).read_text())["denials"] == []

    asyncio.run(work())


def test_while_redis_is_away_nobody_joins_and_denials_hold_here_and_later_everywhere(
    tmp_path, redis, monkeypatch
):
    monkeypatch.setattr(join_book, "REFRESH_S", 0.02)

    async def work() -> None:
        async with book(tmp_path / "a", redis.url) as one, book(tmp_path / "b", redis.url) as two:
            text, _ = await one.change(making())
            redis.kill()
            with pytest.raises(IdentityRefused) as refused:
                await two.change(using(text, "k1"))
            assert refused.value.why == "unavailable"
            assert redis.url not in str(refused.value)  # strangers read it
            assert "nobody can join" in two.worry
            with pytest.raises(IdentityRefused):
                await one.change(lambda found: found.allow("service", "orders"))
            await one.change(denying("orders"), without_redis=True)
            with pytest.raises(IdentityRefused, match="denied"):
                one.book.check("orders", "", "", WALL)
            assert json.loads((tmp_path / "a" / FILE).read_text())["owed"] == [
                ["service", "orders"]
            ]
            redis.start()
            # It has lost its memory: the two put together what they know.
            await until(two.book.denials)
            await until(lambda: not one.worry and not two.worry)
            assert (await two.change(using(text, "k1"))).uses_left == 0
            with pytest.raises(IdentityRefused, match="used already"):
                await one.change(using(text, "k2"))
            await until(lambda: not json.loads((tmp_path / "a" / FILE).read_text())["owed"])

    asyncio.run(work())


def test_a_control_that_begins_to_share_brings_what_it_knew(tmp_path, redis):
    async def work() -> None:
        alone = KeptBook(tmp_path / "a", IdentityRules())
        text, _ = await alone.change(making())
        other = KeptBook(tmp_path / "b", IdentityRules())
        theirs, _ = await other.change(making("users"))
        await alone.follow(redis.url)
        await other.follow(redis.url)
        await other.change(using(text, "k1"))
        await alone.change(using(theirs, "k2"))
        await alone.follow("")
        assert alone.book.find(theirs, WALL).uses_left == 0  # alone again, it knows what it knew
        await alone.close()
        await other.close()

    asyncio.run(work())


def test_a_book_in_redis_that_is_spoilt_lets_nobody_in_and_is_told(tmp_path, redis):
    async def work() -> None:
        async with book(tmp_path / "a", redis.url) as one:
            text, _ = await one.change(making())
            client = Redis.from_url(redis.url)
            client.hset("headgate:{registry}:joining", mapping={"book": "{", "n": "99"})
            client.close()
            with pytest.raises(IdentityRefused) as refused:
                await one.change(using(text, "k1"))
            assert refused.value.why == "unavailable"
            assert "spoilt" in one.worry

    asyncio.run(work())


def test_of_two_tokens_the_one_that_is_used_up_further_counts():
    one, two = JoinBook(), JoinBook()
    text, made = making(uses=3)(one)
    two.take(one)
    one.join(text, "k1", WALL)
    two.join(text, "k2", WALL + 5)
    two.join(text, "k3", WALL + 6)
    one.merge(two)
    (token,) = one.tokens()
    assert (token.uses_left, token.used_at, token.keys) == (1, WALL + 6, ("k1", "k2", "k3"))
    assert token.id == made.id
    bounded = JoinBook(most_tokens=0, most_denials=0)
    bounded.merge(one)
    assert bounded.tokens() == []
