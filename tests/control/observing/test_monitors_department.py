"""The department of monitors: what is told, what is kept, what survives, what harms nothing."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from contextlib import asynccontextmanager

import pytest

from headgate.config import Config
from headgate.config.model import DnsSpec
from headgate.config.monitoring import MonitorSpec
from headgate.control.observing import Surroundings
from headgate.control.observing.monitors import Monitors, NoSuchMonitor
from headgate.control.observing.monitors_probe import Look
from headgate.control.observing.monitors_store import KEEP_RESULTS, MonitorStore, Seen, Stood
from headgate.observe import METRICS, Merged, new_rows
from headgate.observe.health import Outcome, degraded, failing, ok
from headgate.observe.health.uptime import DAY_S, Day, day_of

PATIENCE_S = 20.0
NOON = 20_000 * DAY_S + DAY_S / 2


class NoNames:
    async def resolve(self, name: str) -> tuple[str, ...]:
        raise AssertionError(f"nobody looks up {name}: `ask` answers here")


class Clock:
    def __init__(self, at: float) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


class Latest(random.Random):
    def uniform(self, _low: float, high: float) -> float:
        return high


class World:
    """What monitors look at, and the clocks they go by."""

    def __init__(self, folder) -> None:
        self.folder = folder
        self.mono, self.wall = Clock(1000.0), Clock(NOON)
        self.answers: dict[str, Outcome] = {}
        self.asked: list[str] = []
        self.go = asyncio.Event()
        self.go.set()
        self.marks: list[str] = []

    def passes(self, seconds: float) -> None:
        self.mono.at += seconds
        self.wall.at += seconds

    async def ask(self, monitor, _looking) -> Look:
        self.asked.append(monitor.name)
        await self.go.wait()
        return Look(self.answers.get(monitor.name, ok()), 0.1, 200, self.wall.at + 9 * DAY_S)

    def make(self, **more) -> Monitors:
        around = Surroundings(
            state_dir=self.folder,
            refresh=lambda: asyncio.sleep(0),
            merged=Merged,
            health=lambda: ("ok", []),
            record=lambda *_a, **_k: None,
        )
        more.setdefault("ask", self.ask)
        return Monitors(
            around,
            NoNames(),
            lambda _at, _kind, text, _more: self.marks.append(text),
            mono=self.mono,
            wall=self.wall,
            rng=Latest(),
            flush_s=0.02,
            spread_s=3600.0,  # no look but those that the test asks for
            **more,
        )


def config(*monitors) -> Config:
    specs = tuple(MonitorSpec(**{"every": "1h", "url": "http://x/", **each}) for each in monitors)
    return Config.model_construct(monitors=specs, dns=DnsSpec(), services={})


@asynccontextmanager
async def running(world: World, *monitors, **more):
    made = world.make(**more)
    made.start()
    made.take(config(*monitors))
    try:
        yield made
    finally:
        await made.close()


async def until(what) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not what():
            await asyncio.sleep(0.005)


PAY = {"name": "pay", "critical": True}


def test_it_is_told_up_down_and_up_again(tmp_path):
    async def main():
        world = World(tmp_path)
        async with running(world, PAY, {"name": "mail"}) as made:
            for answer in (ok(), failing("connection refused"), degraded("slow"), ok()):
                world.answers["pay"] = answer
                world.passes(60)
                await made.check("pay")
            pay = made.get("pay")
            assert (pay.status, pay.why, pay.since) == ("ok", "", world.wall.at)
            assert world.marks == [
                "pay is down: connection refused",
                "pay is degraded: slow",
                "pay is up",
            ]
            day = made.days_of(pay, 1)[0]
            assert (day["up_s"], day["down_s"], day["degraded_s"]) == (120, 60, 60)
            assert day["uptime"] == pytest.approx(2 / 3, abs=1e-5)
            assert (day["checks"], day["failures"]) == (4, 1)
            with pytest.raises(NoSuchMonitor):
                await made.check("no")

    asyncio.run(main())


def test_fewer_failures_in_a_row_than_fall_are_degraded(tmp_path):
    async def main():
        world = World(tmp_path)
        async with running(world, {**PAY, "fall": 3}) as made:
            seen = []
            for answer in (failing("x"), failing("x"), failing("x"), ok(), failing("x")):
                world.answers["pay"] = answer
                world.passes(60)
                seen.append((await made.check("pay")).status)
            assert seen == ["degraded", "degraded", "failing", "ok", "degraded"]
            assert made.get("pay").why == "failure 1 of 3: x"

    asyncio.run(main())


def test_those_who_ask_at_once_get_one_look(tmp_path):
    async def main():
        world = World(tmp_path)
        async with running(world, PAY) as made:
            world.go.clear()
            asks = [asyncio.create_task(made.check("pay")) for _ in range(20)]
            await until(lambda: world.asked)
            asks[0].cancel()
            world.go.set()
            await asyncio.gather(*asks[1:])
            assert len(world.asked) == 1

    asyncio.run(main())


def test_a_look_that_never_ends_is_a_failure_and_is_not_started_again(tmp_path):
    async def main():
        world, held = World(tmp_path), asyncio.Event()

        async def hangs(monitor, _looking):
            world.asked.append(monitor.name)
            while not held.is_set():
                try:
                    await held.wait()
                except asyncio.CancelledError:
                    continue
            return Look(ok())

        async with running(world, {**PAY, "timeout": "20ms"}, ask=hangs) as made:
            assert "no answer" in (await made.check("pay")).why
            assert "not come back" in (await made.check("pay")).why
            assert len(world.asked) == 1
            held.set()

    asyncio.run(main())


def test_a_failure_noticed_much_too_late_does_not_count(tmp_path):
    async def main():
        world = World(tmp_path)

        async def held_up(_monitor, _looking):
            world.passes(30)  # the process was stopped
            await asyncio.sleep(3600)

        async with running(world, {**PAY, "timeout": "20ms"}, ask=held_up) as made:
            assert (await made.check("pay")).status == "unknown"
            assert (await made.check("pay")).status == "unknown"
            assert (await made.check("pay")).status == "failing"

    asyncio.run(main())


def test_a_look_that_raises_is_a_failure_with_its_kind(tmp_path):
    async def main():
        world = World(tmp_path)

        async def broken(_monitor, _looking):
            raise RecursionError

        async with running(world, PAY, ask=broken) as made:
            assert (await made.check("pay")).why == "RecursionError"

    asyncio.run(main())


def test_what_was_known_survives_and_the_gap_is_unknown(tmp_path):
    async def main():
        world = World(tmp_path)
        async with running(world, PAY) as made:
            await made.check("pay")
            world.passes(100)
            world.answers["pay"] = failing("gone")
            await made.check("pay")
            since = world.wall.at
            world.passes(10)
        world.passes(3600)
        world.mono.at = 5.0  # a process of its own has a clock of its own
        async with running(world, PAY) as made:
            await until(lambda: made.get("pay").results)
            pay = made.get("pay")
            assert (pay.status, pay.since) == ("failing", since)
            world.passes(20)
            await made.check("pay")
            assert pay.since == since
            day = made.days_of(pay, 1)[0]
            assert (day["up_s"], day["down_s"]) == (100, 10)
            assert day["unknown_s"] >= 3600
            assert [each.status for each in pay.results][:2] == ["ok", "failing"]
            assert made.state(pay, 30)["uptime_by_day"][:-1] == [None] * 29

    asyncio.run(main())


def test_a_reload_keeps_what_stays_and_a_changed_one_begins_anew(tmp_path):
    async def main():
        world = World(tmp_path)
        async with running(world, PAY, {"name": "mail"}) as made:
            await made.check("pay")
            pay, mail = made.get("pay"), made.get("mail")
            made.take(config({**PAY, "url": "http://y/"}, {"name": "mail"}, {"name": "new"}))
            assert made.names == ["pay", "mail", "new"]
            assert made.get("mail") is mail
            assert made.get("pay") is pay
            assert pay.monitor.target == "http://y/"
            assert len(pay.results) == 1
            made.take(config({"name": "new"}))
            assert made.names == ["new"]
            made.take(config({"name": "new"}, PAY))  # it is back, with its history
            assert len(made.get("pay").results) == 1

    asyncio.run(main())


def test_figures_have_their_rows(tmp_path):
    async def main():
        world = World(tmp_path)
        async with running(world, PAY, {"name": "mail"}) as made:
            world.answers["pay"] = failing("gone")
            await made.check("pay")
            world.passes(60)
            await made.check("pay")
            rows = new_rows()
            made.rows_into(rows)
            for name, family in rows.items():
                if family:
                    assert all(len(labels) == len(METRICS[name].labels) for labels, _ in family)
            assert rows["headgate_monitor_up"] == [(["pay", "true"], 0)]
            assert rows["headgate_monitor_uptime_ratio"] == [(["pay"], 0.0)]
            assert rows["headgate_monitor_certificate_expiry_seconds"][0][1] > 0
            assert list(made.worries()) == ["monitor pay is down: gone"]

    asyncio.run(main())


# -- the store -------------------------------------------------------------------------------------


def test_a_spoilt_store_is_moved_aside_and_said(tmp_path):
    async def main():
        world = World(tmp_path)
        folder = tmp_path / "monitors"
        folder.mkdir()
        (folder / "monitors.db").write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
        async with running(world, PAY) as made:
            await made.check("pay")
            assert any("spoilt" in why for why in made.worries())
            assert len(list(folder.glob("monitors.db.spoilt-*"))) == 1

    asyncio.run(main())


def test_without_a_place_for_its_store_it_goes_on_and_says_so(tmp_path):
    async def main():
        world = World(tmp_path)
        (tmp_path / "monitors").write_text("a file where the folder should be")
        async with running(world, PAY) as made:
            assert (await made.check("pay")).status == "ok"
            assert any("cannot be kept" in why for why in made.worries())
            (tmp_path / "monitors").unlink()
            await until(lambda: not list(made.worries()))
            world.passes(30)
            await made.check("pay")
        async with running(world, PAY) as made:
            await until(lambda: len(made.get("pay").results) == 2)

    asyncio.run(main())


def test_a_disk_that_is_full_loses_nothing_for_a_while(tmp_path, monkeypatch):
    async def main():
        world = World(tmp_path)
        async with running(world, PAY) as made:
            await made.check("pay")
            write, is_full = made._store.write, [True]

            def full(*rest):
                if is_full[0]:
                    raise sqlite3.OperationalError("database or disk is full")
                write(*rest)

            monkeypatch.setattr(made._store, "write", full)
            for _ in range(3):
                world.passes(30)
                await made.check("pay")
            await until(lambda: any("disk is full" in why for why in made.worries()))
            is_full[0] = False
            await until(lambda: not list(made.worries()))
        found = MonitorStore(tmp_path / "monitors/monitors.db").open(NOON)
        assert len(found.results["pay"]) == 4
        assert found.days["pay"][day_of(NOON)].up_s == 90

    asyncio.run(main())


def test_rows_that_cannot_be_read_are_left_out_one_by_one(tmp_path):
    path = tmp_path / "monitors.db"
    store = MonitorStore(path)
    store.open(NOON)
    today = day_of(NOON)
    good = Day(today, up_s=5.0, checks=1)
    store.write([("a", good)], [("a", Seen(NOON, "ok", 0.1))], [("a", Stood("ok", 1.0, ""))], today)
    store.close()
    db = sqlite3.connect(path)
    db.execute(
        "INSERT INTO days VALUES ('a', 5, '{\"up\": \"x\"}'), ('b', 5, '['), ('c', 'z', '{}')"
    )
    db.execute("INSERT INTO results VALUES (NULL, 'a', 'x', 'ok', 1, NULL, '')")
    db.execute("INSERT INTO results VALUES (NULL, 'a', 1, 'fine', 1, NULL, '')")
    db.execute("INSERT INTO stood VALUES ('b', 'fine', 1, '')")
    db.commit()
    db.close()
    again = MonitorStore(path)
    found = again.open(NOON)
    again.close()
    assert found.left_out == 6
    assert found.days["a"][today].up_s == 5.0
    assert [each.at for each in found.results["a"]] == [NOON]


def test_the_store_is_bounded(tmp_path):
    store = MonitorStore(tmp_path / "monitors.db")
    store.open(NOON)
    today = day_of(NOON)
    days = [("a", Day(number)) for number in range(today - 200, today + 30)]
    results = [("a", Seen(NOON + number, "ok", 0.1)) for number in range(KEEP_RESULTS + 300)]
    store.write(days, results, [("gone", Stood("ok", 1.0, ""))], today)
    store.close()
    found = MonitorStore(tmp_path / "monitors.db")
    kept = found.open(NOON)
    found.close()
    assert sorted(kept.days["a"]) == list(range(today - 89, today + 2))
    assert len(kept.results["a"]) == KEEP_RESULTS
    assert kept.stood == {}
    assert (tmp_path / "monitors.db").stat().st_mode & 0o777 == 0o600
