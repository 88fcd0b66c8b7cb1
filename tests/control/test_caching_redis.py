"""Two machines and a service on one Redis, with the layer that services use."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headgate.cache.cache import Cache
from headgate.cache.invalidation import Invalidation
from headgate.control.caching import Caching
from headgate.control.caching_edge import Edge
from headgate.control.caching_order import AGAIN
from headgate.control.caching_position import Resuming
from headgate.control.state_dir import StateDir
from tests.control.caching_parts import Board, Link, Records, Shop
from tests.state.redis_server import RedisServer

pytestmark = pytest.mark.integration


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.stop()


class Machine:
    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.worker = Link(0)
        self.records = Records()
        shop = Shop(self.worker)
        edge = Edge(lambda: shop.links, lambda: shop.workers)
        self.caching = Caching(edge, StateDir(folder), self.records, Board())

    @property
    def tags(self) -> list[str]:
        return [
            tag
            for said in self.worker.heard
            if said.by != AGAIN
            for tag in said.tags or (said.everything or "urls",)
        ]

    async def reach(self, server: RedisServer) -> None:
        self.caching.take(server.url)
        await eventually(lambda: self.layer.get("is_away") is False)
        self.worker.heard.clear()

    @property
    def layer(self) -> dict[str, Any]:
        return self.caching.snapshot()["layer"] or {}

    async def purge(self, *tags: str) -> Any:
        return await self.caching.purge(Invalidation(tags=tags), actor="me")


async def eventually(what: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not what():
            await asyncio.sleep(0.005)


def test_operators_services_and_gateways_share_one_space_of_tags(
    tmp_path: Path, redis_server: RedisServer
):
    async def whole() -> None:
        here, there = Machine(tmp_path / "a"), Machine(tmp_path / "b")
        await here.reach(redis_server)
        await there.reach(redis_server)
        service = Cache(redis_server.url)
        await service.start()
        before = here.caching.news.stamp
        await service.set("product:42", "old", tags=["product:42"])
        await eventually(lambda: here.caching.news.since(before).news)
        assert here.worker.heard == []  # an object that was set is nothing to the workers
        assert [row.action for row in here.records.rows] == ["cache.forgotten"]
        done = await here.purge("product:42")
        assert (done.others, done.why, done.is_whole) == ("told", "", True)
        await eventually(lambda: there.tags == ["product:42"])
        assert here.tags == ["product:42"]
        while await service.get("product:42") is not None:
            await asyncio.sleep(0.002)  # a service hears of it some milliseconds later

        await service.invalidate(tags=["user:7"])
        await eventually(lambda: here.tags[1:] == there.tags[1:] == ["user:7"])
        for machine in (here, there):
            stamps = [said.stamp for said in machine.worker.heard]
            assert stamps == sorted(set(stamps))
            assert machine.records.rows[-1].action == "cache.invalidated"
        await service.close()
        await here.caching.close()
        await there.caching.close()

    asyncio.run(whole())


def test_while_redis_is_away_the_rest_is_queued_and_told_when_it_is_back(
    tmp_path: Path, redis_server: RedisServer
):
    async def whole() -> None:
        here, there = Machine(tmp_path / "a"), Machine(tmp_path / "b")
        await here.reach(redis_server)
        await there.reach(redis_server)
        redis_server.kill()
        done = await here.purge("a")
        assert done.others == "queued"
        assert here.tags == ["a"]
        assert here.layer["queued"] >= 1
        redis_server.start()
        # It may have forgotten what it had acknowledged, so there is a gap as well.
        await eventually(lambda: "a" in there.tags or "responses" in there.tags)
        await eventually(lambda: here.layer["queued"] == 0)
        await eventually(lambda: here.layer.get("is_away") is False)
        there.worker.heard.clear()
        assert (await here.purge("b")).others == "told"
        await eventually(lambda: there.tags[-1:] == ["b"])
        await here.caching.close()
        await there.caching.close()

    asyncio.run(whole())


def test_a_frozen_redis_keeps_no_purge_waiting_for_long(tmp_path: Path, redis_server: RedisServer):
    async def whole() -> None:
        here = Machine(tmp_path / "a")
        await here.reach(redis_server)
        redis_server.freeze()
        try:
            async with asyncio.timeout(5):
                done = await here.purge("a")
        finally:
            redis_server.thaw()
        assert done.others in {"queued", "away"}
        assert here.tags == ["a"]
        await here.caching.close()

    asyncio.run(whole())


def test_a_control_that_starts_again_goes_on_where_it_was(
    tmp_path: Path, redis_server: RedisServer
):
    async def whole() -> None:
        before = Machine(tmp_path / "a")
        await before.reach(redis_server)
        layer: Any = before.caching._layer
        await before.purge("a")
        await before.caching.close()
        service = Cache(redis_server.url)
        await service.start()
        await service.invalidate(tags=["meanwhile"])
        again = Machine(tmp_path / "a")
        again.caching.take(redis_server.url)
        if isinstance(layer, Resuming):
            await eventually(lambda: again.tags[-1:] == ["meanwhile"])
            assert "responses" not in again.tags
        else:
            await eventually(lambda: again.tags == ["responses"])
        await service.close()
        await again.caching.close()

    asyncio.run(whole())
