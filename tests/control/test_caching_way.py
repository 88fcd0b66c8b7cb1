"""An invalidation on its way: stamp, workers, services, other gateways, audit log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from headgate.cache.invalidation import Invalidation
from headgate.cache.layer import Invalidated, LayerAway
from headgate.control import caching as caching_module
from headgate.control.caching import AT_WORK_MAX, BURST, TOPIC, Busy, Caching
from headgate.control.caching_audit import SAID_MAX, PurgeBook, in_words
from headgate.control.caching_edge import Edge
from headgate.control.state_dir import StateDir
from headgate.errors import HeadgateError
from tests.control.caching_parts import Board, Link, MemoryLayer, Records, Shop, Space

PRODUCT = Invalidation(tags=("product:42",))
URL = "redis://127.0.0.1:1/0"


class Machine:
    """One gateway, without its processes."""

    def __init__(self, folder: Path, space: Space | None = None, workers: int = 2) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.links = [Link(index) for index in range(workers)]
        self.shop = Shop(*self.links)
        self.records = Records()
        self.board = Board()
        self.space = space
        self.now = 0.0
        self.layer: MemoryLayer | None = None
        edge = Edge(lambda: self.shop.links, lambda: self.shop.workers)
        self.caching = Caching(
            edge,
            StateDir(folder),
            self.records,
            self.board,
            open_layer=self.open,
            clock=lambda: self.now,
        )

    def open(self, url: str) -> Any:
        assert self.space is not None, url
        self.layer = MemoryLayer(self.space)
        return self.layer

    async def reach(self) -> None:
        self.caching.take(URL)
        await eventually(lambda: self.layer is not None and self.layer.is_started)

    async def purge(self, invalidation: Invalidation = PRODUCT) -> Any:
        return await self.caching.purge(invalidation, actor="uid:1000 (ann)", origin="unix pid 7")


def run(work: Coroutine[Any, Any, Any]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(30):
            return await work

    return asyncio.run(bounded())


async def eventually(what: Callable[[], Any]) -> None:
    while not what():
        await asyncio.sleep(0.001)


def heard_by(machine: Machine) -> list[list[Invalidation]]:
    return [link.heard for link in machine.links]


def test_a_purge_without_redis_reaches_workers_pollers_and_the_audit_log(tmp_path: Path):
    async def whole() -> None:
        machine = Machine(tmp_path / "a")
        before = machine.caching.news.stamp
        done = await machine.purge()
        at = PRODUCT.at(done.stamp)
        assert heard_by(machine) == [[at], [at]]
        assert machine.caching.news.since(before).news == (at,)
        assert (done.others, done.struck.responses, done.is_whole) == ("none", 6, True)
        (row,) = machine.records.rows
        assert (row.action, row.actor, row.origin) == (
            "cache.purged",
            "uid:1000 (ann)",
            "unix pid 7",
        )
        assert (row.target, row.outcome) == ("tags: product:42", "ok")
        assert row.detail == {
            "stamp": done.stamp,
            "soft": False,
            "tags": 1,
            "responses": 6,
            "workers": 2,
            "of": 2,
            "others": "none",
        }
        assert machine.board.said == []
        await machine.caching.close()

    run(whole())


def test_two_purges_at_once_have_two_stamps_and_both_reach_all(tmp_path: Path):
    async def whole() -> None:
        machine = Machine(tmp_path / "a")
        before = machine.caching.news.stamp
        for link in machine.links:
            link.mood = "waits"
        both = [
            asyncio.create_task(machine.purge(Invalidation(tags=(name,)))) for name in ("a", "b")
        ]
        await machine.links[0].asked.wait()
        for link in machine.links:
            link.go.set()
        one, two = await asyncio.gather(*both)
        assert one.stamp < two.stamp
        for heard in heard_by(machine):
            assert [each.tags for each in heard] == [("a",), ("b",)]
        assert [each.stamp for each in machine.caching.news.since(before).news] == [
            one.stamp,
            two.stamp,
        ]
        await machine.caching.close()

    run(whole())


def test_stamps_grow_over_a_new_start_and_pollers_that_missed_nothing_hear_no_gap(tmp_path: Path):
    async def whole() -> None:
        machine = Machine(tmp_path / "a")
        first = await machine.purge()
        # killed: nothing is closed
        again = Machine(tmp_path / "a")
        told = again.caching.news.since(first.stamp)
        assert (told.gap, told.news) == (False, ())
        assert again.caching.news.since(first.stamp - 1).gap
        second = await again.purge()
        assert second.stamp > first.stamp
        assert len(again.caching.news.since(first.stamp).news) == 1

    run(whole())


def test_a_purge_whose_client_has_left_is_brought_to_its_end(tmp_path: Path):
    async def whole() -> None:
        machine = Machine(tmp_path / "a")
        machine.links[1].mood = "waits"
        work = asyncio.create_task(machine.purge())
        await machine.links[1].asked.wait()
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        machine.links[1].go.set()
        await eventually(lambda: machine.records.rows)
        assert [len(heard) for heard in heard_by(machine)] == [1, 1]
        assert machine.records.rows[0].detail["workers"] == 2

    run(whole())


def test_a_worker_that_is_silent_makes_the_purge_incomplete_and_the_log_says_which(tmp_path: Path):
    async def whole() -> None:
        machine = Machine(tmp_path / "a")
        machine.links[1].mood = "silent"
        done = await machine.purge()
        assert not done.is_whole
        (row,) = machine.records.rows
        assert (row.outcome, row.detail["silent"]) == ("failed", [1])

    run(whole())


def test_too_many_purges_are_refused_and_say_when_to_come_again(tmp_path: Path):
    async def whole() -> None:
        machine = Machine(tmp_path / "a", workers=1)
        for _ in range(int(BURST)):
            await machine.purge()
        with pytest.raises(Busy) as busy:
            await machine.purge()
        assert 0 < busy.value.retry_after_s < 1
        machine.now += 1.0
        await machine.purge()
        machine.now += 1000.0
        machine.links[0].mood = "waits"
        many = [asyncio.create_task(machine.purge()) for _ in range(AT_WORK_MAX)]
        await machine.links[0].asked.wait()
        await asyncio.sleep(0)
        with pytest.raises(Busy):
            await machine.purge()
        machine.links[0].go.set()
        await asyncio.gather(*many)
        await machine.purge()

    run(whole())


# -- with a Redis


def test_a_purge_reaches_other_gateways_and_services_and_what_they_say_reaches_us(tmp_path: Path):
    async def whole() -> None:
        space = Space()
        here, there = Machine(tmp_path / "a", space), Machine(tmp_path / "b", space)
        await here.reach()
        await there.reach()
        service = MemoryLayer(space)
        await service.start()
        heard: list[Invalidation] = []
        service.listen(heard.append)
        done = await here.purge()
        assert (done.others, done.is_whole) == ("told", True)
        assert heard == [PRODUCT.at(space.stamp)]
        for machine in (here, there):
            for said in heard_by(machine):
                assert [each.tags for each in said] == [("product:42",)]
        assert here.board.said == [(TOPIC, PRODUCT.at(done.stamp).to_json())]
        assert there.board.said == []
        (row,) = there.records.rows
        assert (row.action, row.actor, row.origin) == ("cache.invalidated", "service", "redis")

        before = here.caching.news.stamp
        await service.invalidate(Invalidation(tags=("user:7",), by="shop"))
        for machine in (here, there):
            for said in heard_by(machine):
                assert said[-1].tags == ("user:7",)
                assert said[-1].stamp > said[-2].stamp
        (told,) = here.caching.news.since(before).news
        assert told.tags == ("user:7",)
        assert here.records.rows[-1].actor == "shop"
        await here.caching.close()
        assert here.layer is not None
        assert here.layer.is_closed

    run(whole())


def test_workers_of_other_machines_hear_the_stamp_of_redis_and_not_ours(tmp_path: Path):
    async def whole() -> None:
        space = Space()
        machine = Machine(tmp_path / "a", space)
        await machine.reach()
        machine.caching._stamps.heard(50_000)  # of a clock that was further
        done = await machine.purge()
        assert done.stamp == 50_001
        ((_, said),) = machine.board.said
        assert said["stamp"] == space.stamp == 1001

    run(whole())


def test_keys_that_services_set_go_to_those_who_poll_alone(tmp_path: Path):
    async def whole() -> None:
        space = Space()
        machine = Machine(tmp_path / "a", space)
        await machine.reach()
        before = machine.caching.news.stamp
        service = MemoryLayer(space)
        await service.invalidate(Invalidation(keys=("user:7",)))
        (told,) = machine.caching.news.since(before).news
        assert told.keys == ("user:7",)
        assert heard_by(machine) == [[], []]
        assert machine.records.rows == []
        await service.invalidate(Invalidation(keys=("user:7",), tags=("user:7",)))
        assert [len(said) for said in heard_by(machine)] == [1, 1]

    run(whole())


def test_while_redis_is_away_the_workers_are_told_and_the_rest_is_queued(tmp_path: Path):
    async def whole() -> None:
        space = Space()
        machine = Machine(tmp_path / "a", space)
        await machine.reach()
        space.is_away = True
        done = await machine.purge()
        assert (done.others, done.is_whole, done.struck.told) == ("queued", False, 2)
        assert done.why == "Redis is away"
        assert [len(said) for said in heard_by(machine)] == [1, 1]
        assert machine.records.rows[-1].outcome == "ok"
        assert machine.records.rows[-1].detail["others"] == "queued"
        assert machine.caching.snapshot()["layer"]["queued"] == 1

    run(whole())


def test_a_redis_that_hangs_does_not_keep_the_workers_waiting_and_they_are_told_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(caching_module, "AT_ONCE_S", 0.01)

    async def whole() -> None:
        space = Space()
        machine = Machine(tmp_path / "a", space)
        await machine.reach()
        space.go.clear()
        work = asyncio.create_task(machine.purge())
        await eventually(lambda: all(heard_by(machine)))
        assert not work.done()
        space.go.set()
        done = await work
        assert done.others == "told"
        for said in heard_by(machine):
            assert [each.tags for each in said] == [("product:42",)] * 2
            assert said[1].stamp > said[0].stamp

    run(whole())


def test_a_redis_that_never_answers_is_said_to_be_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(caching_module, "AT_ONCE_S", 0.01)
    monkeypatch.setattr(caching_module, "LAYER_S", 0.02)

    async def whole() -> None:
        space = Space()
        machine = Machine(tmp_path / "a", space)
        await machine.reach()
        space.go.clear()
        done = await machine.purge()
        assert (done.others, done.struck.told) == ("away", 2)
        assert "has not answered" in done.why

    run(whole())


@pytest.mark.parametrize(
    ("error", "why"),
    [(LayerAway("it is full"), "it is full"), (RuntimeError("bug"), "RuntimeError")],
    ids=["away", "fault"],
)
def test_a_layer_that_fails_keeps_no_worker_from_being_told(
    tmp_path: Path, error: Exception, why: str, monkeypatch: pytest.MonkeyPatch
):
    async def fails(_self: MemoryLayer, _invalidation: Invalidation) -> Invalidated:
        raise error

    monkeypatch.setattr(MemoryLayer, "invalidate", fails)

    async def whole() -> None:
        machine = Machine(tmp_path / "a", Space())
        await machine.reach()
        done = await machine.purge()
        assert (done.others, done.struck.told) == ("away", 2)
        assert why in done.why

    run(whole())


def test_when_news_may_have_been_missed_all_is_forgotten_and_pollers_hear_of_a_gap(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    async def whole() -> None:
        machine = Machine(tmp_path / "a", Space())
        await machine.reach()
        before = machine.caching.news.stamp
        assert machine.layer is not None
        (gap,) = machine.layer.gaps
        gap()
        assert caplog.records == []  # the first contact: nobody could have heard
        gap()
        assert len(caplog.records) == 1
        for said in heard_by(machine):
            assert [each.everything for each in said] == ["responses"] * 2
        assert machine.caching.news.since(before).gap
        assert [row.action for row in machine.records.rows] == ["cache.forgotten"] * 2

    run(whole())


def test_a_reload_to_another_state_leaves_the_old_one(tmp_path: Path):
    async def whole() -> None:
        space = Space()
        machine = Machine(tmp_path / "a", space)
        await machine.reach()
        old = machine.layer
        assert old is not None
        machine.caching.take(URL)
        machine.caching.take(URL + "?other")
        await eventually(lambda: machine.layer is not old and machine.layer.is_started)  # type: ignore[union-attr]  # there is one
        assert old.is_closed
        assert (old.listeners, old.gaps) == ([], [])
        machine.caching.take("memory")
        await eventually(lambda: machine.caching.snapshot()["layer"] is None)
        assert (await machine.purge()).others == "none"

    run(whole())


def test_a_purge_during_a_reload_ends_all_the_same(tmp_path: Path):
    async def whole() -> None:
        space = Space()
        machine = Machine(tmp_path / "a", space)
        await machine.reach()
        space.go.clear()
        work = asyncio.create_task(machine.purge())
        await asyncio.sleep(0)
        machine.caching.take("memory")
        await eventually(lambda: machine.caching.snapshot()["layer"] is None)
        space.go.set()
        done = await work
        assert done.struck.told == 2

    run(whole())


def test_a_layer_that_cannot_be_opened_leaves_this_machine_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    async def whole() -> None:
        machine = Machine(tmp_path / "a")

        def refuse(_url: str) -> Any:
            raise HeadgateError("install headgate[redis]")

        machine.caching._open_layer = refuse
        machine.caching.take(URL)
        await eventually(lambda: "this machine alone" in caplog.text)
        assert "headgate[redis]" in caplog.text
        assert (await machine.purge()).others == "none"

    run(whole())


# -- in the audit log


def test_invalidations_in_masses_are_counted_after_the_first_of_a_minute():
    async def whole() -> None:
        records = Records()
        book = PurgeBook(records)
        for _ in range(SAID_MAX + 100):
            book.heard(PRODUCT)
        assert len(records.rows) == SAID_MAX
        book.close()
        (last,) = records.rows[SAID_MAX:]
        assert last.detail == {"count": 100}
        assert "100 more, such as tags: product:42" in last.target

    run(whole())


def test_what_is_said_of_a_purge_is_short_and_fit_for_a_terminal():
    many = Invalidation(tags=tuple(f"t{n}" for n in range(900)), keys=("a\x1b[31m",))
    assert in_words(many) == "tags: t0, t1, t2, t3, t4 and 895 more; keys: a?[31m"
    assert in_words(Invalidation(everything="all")) == "everything: all"
