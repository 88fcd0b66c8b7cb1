"""Workers told of purges: those that answer, are silent, die, come late or do not read."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from headgate.cache.invalidation import Invalidation
from headgate.control import caching_edge
from headgate.control.caching_edge import BACKLOG_MAX, OWED_MAX, Edge
from tests.control.caching_parts import Link, Shop


def tag(name: str, stamp: int = 5) -> Invalidation:
    return Invalidation(tags=(name,), stamp=stamp)


def edge_of(shop: Shop) -> Edge:
    return Edge(lambda: shop.links, lambda: shop.workers)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(20):
            return await work

    return asyncio.run(bounded())


async def eventually(what: Any) -> None:
    while not what():
        await asyncio.sleep(0.001)


def test_all_workers_act_and_what_they_struck_adds_up():
    one, two = Link(0, held=3), Link(1, held=4)
    done = run(edge_of(Shop(one, two)).strike(tag("a")))
    assert (done.told, done.of, done.responses, done.silent) == (2, 2, 7, ())
    assert one.heard == two.heard == [tag("a")]


@pytest.mark.parametrize("mood", ["silent", "fails", "garbles"])
def test_a_worker_that_does_not_answer_well_is_named(mood: str):
    one, two = Link(0), Link(7)
    two.mood = mood
    done = run(edge_of(Shop(one, two)).strike(tag("a")))
    assert (done.told, done.of, done.silent) == (1, 2, (7,))


def test_a_worker_that_says_no_number_counts_for_nothing():
    one = Link(0)
    one.mood = "lies"
    assert run(edge_of(Shop(one)).strike(tag("a"))).responses == 0


def test_a_worker_that_dies_in_the_middle_holds_nothing():
    async def whole() -> None:
        one, two = Link(0), Link(1)
        two.mood = "dies"
        work = asyncio.create_task(edge_of(Shop(one, two)).strike(tag("a")))
        await two.asked.wait()
        two.go.set()
        done = await work
        assert (done.told, done.of, done.silent) == (1, 1, ())

    run(whole())


def test_what_nobody_was_there_to_hear_is_told_to_the_next_worker():
    async def whole() -> None:
        shop = Shop()
        edge = edge_of(shop)
        shop.workers = [{"index": 0, "pid": None, "state": "waiting"}]
        done = await edge.strike(tag("a", 5))
        assert (done.told, done.of) == (0, 0)
        edge.hear(tag("b", 6))
        late, later = Link(0), Link(1)
        shop.links = {late.pid: late}
        edge.linked(late, 6)
        await eventually(lambda: len(late.heard) == 2)
        assert late.heard == [tag("a", 5), tag("b", 6)]
        edge.linked(later, 6)
        await asyncio.sleep(0)
        assert later.heard == []
        assert late.clock == later.clock == 6  # what they fetch is newer than all before
        edge.close()

    run(whole())


def test_what_is_owed_stays_owed_when_the_next_worker_dies_too():
    async def whole() -> None:
        shop = Shop()
        edge = edge_of(shop)
        edge.hear(tag("a"))
        one, two = Link(0), Link(0)
        one.mood = "dies"
        one.go.set()
        edge.linked(one, 5)
        await one.asked.wait()
        await asyncio.sleep(0)
        edge.linked(two, 5)
        await eventually(lambda: two.heard == [tag("a")])

    run(whole())


def test_too_much_that_is_owed_becomes_everything():
    async def whole() -> None:
        shop = Shop()
        edge = edge_of(shop)
        for stamp in range(1, OWED_MAX + 2):
            edge.hear(tag("a", stamp))
        late = Link(0)
        edge.linked(late, OWED_MAX + 1)
        await eventually(lambda: late.heard)
        (said,) = late.heard
        assert (said.everything, said.stamp) == ("responses", OWED_MAX + 1)

    run(whole())


def test_a_control_that_was_just_started_waits_for_its_links():
    async def whole() -> None:
        one = Link(0)
        shop = Shop()
        edge = edge_of(shop)
        work = asyncio.create_task(edge.strike(tag("a")))
        await asyncio.sleep(0)
        shop.workers = Shop(one).workers
        await asyncio.sleep(0)
        assert not work.done()
        shop.links = {one.pid: one}
        done = await work
        assert (done.told, done.of) == (1, 1)

    run(whole())


def test_a_worker_that_serves_and_never_gets_a_link_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(caching_edge, "LINKED_S", 0.05)
    one, lost = Link(0), Link(3)
    shop = Shop(one, lost)
    del shop.links[lost.pid]
    done = run(edge_of(shop).strike(tag("a")))
    assert (done.told, done.of, done.silent) == (1, 2, (3,))


def test_a_worker_that_does_not_read_forgets_all_when_it_reads_again():
    async def whole() -> None:
        one, stuck = Link(0), Link(1)
        stuck.backlog = BACKLOG_MAX
        edge = edge_of(Shop(one, stuck))
        edge.hear(tag("a", 5))
        edge.hear(tag("b", 6))
        done = await edge.strike(tag("c", 7))
        assert (done.told, done.silent) == (1, (1,))
        assert stuck.heard == []
        stuck.backlog = 0
        edge.hear(tag("d", 8))
        await eventually(lambda: stuck.heard)
        (said,) = stuck.heard
        assert (said.everything, said.stamp) == ("responses", 8)
        edge.hear(tag("e", 9))
        assert stuck.heard[1:] == [tag("e", 9)]

    run(whole())


def test_a_worker_that_ends_while_it_does_not_read_is_forgotten():
    async def whole() -> None:
        stuck = Link(1)
        stuck.backlog = BACKLOG_MAX
        shop = Shop(stuck)
        edge = edge_of(shop)
        edge.hear(tag("a"))
        shop.links.clear()
        await eventually(lambda: len(asyncio.all_tasks()) == 1)

    run(whole())


def test_what_is_held_is_asked_of_all_and_those_that_fail_are_counted():
    one, two, three = Link(0), Link(1), Link(2)
    one.rows = [{"key": "a"}]
    two.rows = [{"key": "a"}, "nonsense"]  # type: ignore[list-item]  # of a broken worker
    three.mood = "silent"
    found, told, of = run(edge_of(Shop(one, two, three)).inspect("/a"))
    assert found == [(0, {"key": "a"}), (1, {"key": "a"})]
    assert (told, of) == (2, 3)
