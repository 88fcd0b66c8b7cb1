"""Several control processes with one registry, in a Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from headgate.config import Config
from tests.control.test_registering_api import SERVICES, URL, USERS, registry
from tests.state.redis_server import RedisServer

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


def test_what_one_is_told_all_know(tmp_path, redis):
    async def work() -> None:
        home = {"registry": {"home": redis.url}}
        async with registry(tmp_path / "a", **home) as one, registry(tmp_path / "b", **home) as two:
            made = await one.put()
            assert made.status_code == 201
            fence = made.json()["fence"]
            await two.until(lambda: two.board.urls("users") == [URL])
            beaten = await two.client.post(f"{USERS}/a/beat", json={"fence": fence})
            assert beaten.status_code == 200
            again = await two.put(url="http://10.0.0.2:1")
            assert again.status_code == 200
            await one.until(lambda: one.board.urls("users") == ["http://10.0.0.2:1"])
            fenced = await one.client.post(f"{USERS}/a/beat", json={"fence": fence})
            assert fenced.status_code == 409
            assert (await one.get("stats"))["home"].startswith("redis://")
            left = await two.client.delete(f"{USERS}/a?fence={again.json()['fence']}&drain=0s")
            assert left.status_code == 200
            await one.until(lambda: one.board.urls("users") == [])

    asyncio.run(work())


def test_another_gateway_lets_nobody_into_a_service_that_is_closed_here(tmp_path, redis):
    closed = {"users": {"discover": {"directory": str(tmp_path)}}}

    async def work() -> None:
        home = {"registry": {"home": redis.url}}
        async with (
            registry(tmp_path / "a", **home) as one,
            registry(tmp_path / "b", services=closed, **home) as two,
        ):
            fence = (await one.put()).json()["fence"]
            await two.until(lambda: two.registry.book.find("users", "a"))
            await two.until(lambda: two.board.urls("users") == [])
            await one.client.delete(f"{USERS}/a?fence={fence}&drain=0s")

    asyncio.run(work())


def test_a_file_that_names_a_redis_later_ends_nobody(tmp_path, redis):
    async def work() -> None:
        async with registry(tmp_path) as rig:
            fence = (await rig.put()).json()["fence"]
            await rig.until(lambda: rig.board.urls("users") == [URL])
            said = {"services": SERVICES, "registry": {"home": redis.url}}
            rig.registry.take(Config.model_validate(said))
            await rig.until(lambda: rig.registry.home.redis is not None)
            await rig.until(lambda: rig.registry.home.is_kept)
            beaten = await rig.client.post(f"{USERS}/a/beat", json={"fence": fence})
            assert beaten.status_code == 200
            changes = (await rig.get("history?service=users"))["changes"]
            assert [change["what"] for change in changes if change["what"] == "went"] == []
            await rig.client.delete(f"{USERS}/a?fence={fence}&drain=0s")
            rig.registry.take(rig.config)
            await rig.until(lambda: rig.registry.home.redis is None)

    asyncio.run(work())


def test_a_redis_that_is_away_turns_nobody_away(tmp_path):
    async def work() -> None:
        async with registry(tmp_path, registry={"home": "redis://127.0.0.1:1/0"}) as rig:
            assert (await rig.put()).status_code == 201
            await rig.until(lambda: rig.board.urls("users") == [URL])
            assert any("is away" in worry for worry in rig.registry.worries())

    asyncio.run(work())
