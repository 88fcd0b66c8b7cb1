"""Services first, then the edge: who is waited for, and who is told again."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from headgate.cache.invalidation import Invalidation
from headgate.control import caching_order
from headgate.control.caching_news import News
from headgate.control.caching_order import AGAIN, BETWEEN_S, FORGET_S, KNOWN_MAX, Order


class Way:
    def __init__(self) -> None:
        self.now = 1000.0
        self.news = News(100)
        self.again: list[Invalidation] = []
        self.order = Order(self.news, self.again.append, lambda: self.now)

    def add(self, stamp: int, *tags: str, **more: Any) -> Invalidation:
        told = Invalidation(tags=tags, stamp=stamp, **more)
        self.news.add(told)
        return told

    def polls(self, name: str, since: int | None) -> None:
        """It asks and waits."""
        self.order.came(name, since)
        self.order.waits(name)

    def got(self, name: str) -> None:
        self.order.waits(name, is_over=True)

    @property
    def tags(self) -> list[tuple[str, ...]]:
        return [said.tags or (said.everything,) for said in self.again]


def run(work: Coroutine[Any, Any, Any]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(30):
            return await work

    return asyncio.run(bounded())


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_a_purge_waits_until_all_who_poll_have_come_back():
    async def whole() -> None:
        way = Way()
        for name in ("a", "b"):
            way.polls(name, 100)
        told = way.add(101, "x")
        work = asyncio.ensure_future(way.order.services(told))
        await turns()
        for name in ("a", "b"):
            assert not work.done()
            way.got(name)
            way.polls(name, 101)
            await turns()
        assert await work == 0
        assert way.again == []

    run(whole())


def test_nobody_waits_for_who_asked_nor_for_the_nameless_nor_for_urls():
    async def whole() -> None:
        way = Way()
        way.polls("a", 100)
        way.polls("", 100)
        assert await way.order.services(way.add(101, "x", by="a")) == 0
        way.polls("b", 101)
        assert await way.order.services(way.add(102, urls=("/x",))) == 0
        assert await way.order.services(way.add(103, everything="responses")) == 0

    run(whole())


def test_who_is_late_is_not_waited_for_for_long_and_the_edge_is_told_again(monkeypatch: Any):
    monkeypatch.setattr(caching_order, "SERVICES_S", 0.0)

    async def whole() -> None:
        way = Way()
        way.polls("a", 100)
        assert await way.order.services(way.add(101, "x")) == 1
        assert await way.order.services(way.add(102, "y", soft=True)) == 1
        assert await way.order.services(way.add(103, "z", "x")) == 1
        way.got("a")
        way.polls("a", 102)  # it was told in two parts
        assert way.tags == [("x",), ("y",)]
        assert [said.soft for said in way.again] == [False, True]
        assert {said.by for said in way.again} == {AGAIN}
        way.polls("a", 103)
        assert way.tags[2:] == [("z", "x")]
        way.polls("a", 103)
        assert len(way.again) == 3
        assert await way.order.services(way.add(104, "w", by="a")) == 0

    run(whole())


def test_who_is_away_is_not_waited_for_but_the_edge_is_told_again_when_it_is_back():
    async def whole() -> None:
        way = Way()
        way.polls("a", 100)
        way.got("a")
        way.now += BETWEEN_S + 0.1
        assert await way.order.services(way.add(101, "x")) == 1
        way.now += 300
        way.order.came("a", 100)
        assert way.again == []
        way.order.came("a", 101)
        assert way.tags == [("x",)]

    run(whole())


def test_who_has_missed_more_than_is_known_makes_the_edge_forget_everything():
    async def whole() -> None:
        way = Way()
        way.polls("a", 100)
        way.got("a")
        way.now += BETWEEN_S + 0.1
        await way.order.services(way.add(101, "x"))
        way.news.lost(200)
        way.order.came("a", 101)
        way.order.came("a", 200)
        assert way.tags[-1] == ("responses",)

    run(whole())


def test_one_who_comes_with_an_old_position_after_a_restart_is_behind():
    way = Way()
    way.add(101, "x")
    way.add(102, "y")
    way.order.came("a", 101)
    assert way.again == []
    way.order.came("a", 102)
    assert way.tags == [("y",)]
    way.order.came("new", None)
    way.order.came("from elsewhere", 10**15)
    way.order.came("new", 102)
    assert len(way.again) == 1


def test_what_goes_by_redis_is_told_again_in_few_messages(monkeypatch: Any):
    monkeypatch.setattr(caching_order, "ECHOES_S", (0.0, 0.0))

    async def whole() -> None:
        way = Way()
        way.polls("a", 100)
        for number in range(900):
            way.order.echo(way.add(101 + number, f"t{number}", f"u{number}"))
        way.order.echo(way.add(5000, urls=("/x",)))
        way.polls("b", 1000)
        while not way.again:
            await asyncio.sleep(0.001)
        assert sorted(map(len, way.tags)) == [800, 800, 1000, 1000]  # by both
        # Who polls and has not come back by then is behind.
        way.order.came("a", 1000)
        assert sorted(map(len, way.tags)) == [800, 800, 800, 1000, 1000, 1000]
        way.order.close()

    run(whole())


def test_too_many_names_become_everything(monkeypatch: Any):
    monkeypatch.setattr(caching_order, "NAMES_MAX", 10)
    monkeypatch.setattr(caching_order, "ECHOES_S", (0.0, 0.0))

    async def whole() -> None:
        way = Way()
        for number in range(40):
            way.order.echo(way.add(101 + number, f"t{number}"))
        while not way.again:
            await asyncio.sleep(0.001)
        assert way.tags[0] == ("responses",)
        way.order.close()

    run(whole())


def test_those_who_poll_are_bounded_and_forgotten():
    way = Way()
    for number in range(KNOWN_MAX + 50):
        way.order.came(f"s{number}", 100)
    assert len(way.order._known) == KNOWN_MAX
    way.now += FORGET_S + 1
    way.order.came("new", 100)
    assert list(way.order._known) == ["new"]


def test_a_purge_that_is_cancelled_while_it_waits_leaves_nothing_behind():
    async def whole() -> None:
        way = Way()
        way.polls("a", 100)
        work = asyncio.ensure_future(way.order.services(way.add(101, "x")))
        await turns()
        work.cancel()
        await turns()
        assert work.cancelled()
        way.got("a")
        way.polls("a", 101)
        assert await way.order.services(way.add(102, "y", by="a")) == 0

    run(whole())
