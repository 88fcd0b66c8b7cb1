"""Checks: one run for many who ask, time-outs that end, holds, grace, the three questions."""

from __future__ import annotations

import asyncio
import logging
import threading
import time

import pytest

from headgate.observe import Registry, health

PATIENCE_S = 20.0


def made(**more) -> health.Checks:
    more.setdefault("registry", Registry())
    return health.Checks("orders", version="1.4.2", **more)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def until(what) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not what():
            await asyncio.sleep(0.005)


def test_a_hundred_probes_cause_one_check():
    async def main():
        checks, runs, go = made(), [], asyncio.Event()

        @checks.check("database", critical=True, every="1h", timeout="20s")
        async def database():
            runs.append(1)
            await go.wait()

        probes = [asyncio.create_task(checks.readiness()) for _ in range(100)]
        await until(lambda: runs)
        probes[0].cancel()  # the one that began it goes away
        await asyncio.sleep(0)
        go.set()
        found = await asyncio.gather(*probes[1:])
        assert all(each.is_fine for each in found)
        assert (await checks.readiness()).is_fine
        assert len(runs) == 1

    asyncio.run(main())


def test_a_result_is_good_for_its_time():
    async def main():
        clock, runs = Clock(), []
        checks = made(mono=clock)
        checks.add("a", lambda: runs.append(1), every="10s")
        await checks.report()
        clock.now += 9.9
        await checks.report()
        assert len(runs) == 1
        clock.now += 0.2
        await checks.report()
        assert len(runs) == 2

    asyncio.run(main())


@pytest.mark.parametrize(
    ("act", "status", "why"),
    [
        (lambda: None, "ok", ""),
        (lambda: True, "ok", ""),
        (lambda: False, "failing", "False"),
        (lambda: health.degraded("slow"), "degraded", "slow"),
        (lambda: 1 / 0, "failing", "ZeroDivisionError"),
        (lambda: (_ for _ in ()).throw(health.Degraded("soon")), "degraded", "soon"),
        (lambda: (_ for _ in ()).throw(health.Failing("gone")), "failing", "gone"),
        (lambda: (_ for _ in ()).throw(SystemExit(3)), "failing", "SystemExit"),
        (lambda: "fine", "failing", "str"),
        (lambda: asyncio.sleep(0), "failing", "async def"),
    ],
    ids=range(10),
)
def test_what_a_plain_function_says_is_understood(act, status, why):
    async def main():
        checks = made()
        checks.add("a", act)
        (found,) = (await checks.report()).checks
        assert found.status == status
        assert why in found.why

    asyncio.run(main())


def test_a_coroutine_over_its_time_is_ended():
    async def main():
        checks, ended = made(), []

        @checks.check("slow", critical=True, timeout="20ms")
        async def slow():
            try:
                await asyncio.sleep(3600)
            finally:
                ended.append(1)

        found = await checks.readiness()
        assert not found.is_fine
        assert "no answer within 20ms" in found.reasons[0]
        assert ended == [1]

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["thread", "task"])
def test_one_that_hangs_is_not_started_again_until_it_comes_back(kind):
    async def main():
        clock, runs = Clock(), []
        checks = made(mono=clock)
        hangs, loop_hangs = threading.Event(), asyncio.Event()

        def on_thread():
            runs.append(1)
            hangs.wait(PATIENCE_S)

        async def as_task():
            runs.append(1)
            while not loop_hangs.is_set():
                try:
                    await loop_hangs.wait()
                except asyncio.CancelledError:
                    continue

        checks.add("a", on_thread if kind == "thread" else as_task, timeout="20ms", every="1s")
        assert "no answer" in (await checks.report()).reasons[0]
        for _ in range(3):
            clock.now += 2
            assert "not come back" in (await checks.report()).reasons[0]
        assert len(runs) == 1
        hangs.set()
        loop_hangs.set()
        await until(lambda: not checks._runs.is_hung("a"))
        clock.now += 2
        assert (await checks.report()).status == "ok"
        assert len(runs) == 2

    asyncio.run(main())


def test_threads_are_bounded():
    async def main():
        checks, hangs = made(places=2), threading.Event()
        for number in range(4):
            checks.add(f"c{number}", lambda: hangs.wait(PATIENCE_S), timeout="50ms")
        before = threading.active_count()
        report = await checks.report()
        assert threading.active_count() <= before + 2
        assert sum("no thread is free" in why for why in report.reasons) == 2
        hangs.set()
        await until(lambda: threading.active_count() <= before)

    asyncio.run(main())


def test_a_hung_check_does_not_keep_the_process_alive():
    import subprocess
    import sys

    code = (
        "import asyncio, time\n"
        "from headgate.observe import health\n"
        "checks = health.Checks('a')\n"
        "checks.add('hangs', lambda: time.sleep(3600), timeout='10ms')\n"
        "print(asyncio.run(checks.report()).status)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "degraded"


def test_only_critical_checks_decide_whether_it_is_ready():
    async def main():
        checks = made()
        checks.add("mail", lambda: False)
        assert (await checks.readiness()).is_fine
        assert (await checks.report()).status == "degraded"
        checks.add("database", lambda: False, critical=True)
        assert not (await checks.readiness()).is_fine
        assert (await checks.report()).status == "failing"
        assert checks.liveness().is_fine
        checks.give_up("the pool is torn")
        assert checks.liveness().reasons == ("the pool is torn",)

    asyncio.run(main())


def test_holds_and_draining_take_it_out():
    async def main():
        checks = made()
        checks.add("database", lambda: True, critical=True)
        first = checks.not_ready("warming")
        with checks.not_ready("migrating"):
            assert (await checks.readiness()).reasons == ("warming", "migrating")
            assert not (await checks.startup()).is_fine
        assert (await checks.readiness()).reasons == ("warming",)
        first.release()
        first.release()
        assert (await checks.startup()).is_fine
        checks.drain()
        assert (await checks.readiness()).reasons == ("draining",)
        assert (await checks.startup()).is_fine  # it has started, whatever comes

    asyncio.run(main())


def test_at_the_start_a_failure_is_no_alarm_until_the_grace_is_over(caplog):
    async def main():
        clock = Clock()
        well: list[int] = []
        checks = made(mono=clock, start_grace="30s")
        checks.add("database", lambda: bool(well), critical=True, every="1s")
        with caplog.at_level(logging.WARNING, "headgate.health"):
            found = await checks.readiness()
        assert (found.is_fine, found.status, caplog.records) == (False, "unknown", [])
        clock.now += 31
        assert (await checks.readiness()).status == "failing"
        assert not (await checks.startup()).is_fine
        clock.now += 2
        well.append(1)
        assert (await checks.startup()).is_fine
        well.clear()
        clock.now += 2
        assert (await checks.startup()).is_fine
        assert not (await checks.readiness()).is_fine

    asyncio.run(main())


def test_a_change_is_logged_once(caplog):
    async def main():
        clock, well = Clock(), [1]
        checks = made(mono=clock)
        checks.add("database", lambda: bool(well), critical=True, every="1s")
        for state in ([1], [], [], [1]):
            well[:] = state
            clock.now += 2
            await checks.report()

    with caplog.at_level(logging.INFO, "headgate.health"):
        asyncio.run(main())
    assert [(each.levelname, each.status) for each in caplog.records] == [
        ("ERROR", "failing"),
        ("INFO", "ok"),
    ]


def test_metrics_tell_status_and_duration():
    async def main():
        registry = Registry()
        checks = made(registry=registry)
        checks.add("a", lambda: health.degraded("x"))
        checks.add("b", lambda: False)
        await checks.readiness()
        await checks.report()
        return {
            family.name: dict(family.numbers)
            for family in registry.own()
            if family.name in {"health_check_status", "health_ready"}
        }

    found = asyncio.run(main())
    assert found["health_check_status"] == {("a",): 0.5, ("b",): 0.0}
    assert found["health_ready"] == {(): 1.0}


def test_in_the_background_checks_run_without_being_asked():
    async def main():
        runs = []
        checks = made()
        checks.add("a", lambda: runs.append(1), every="50ms")
        async with checks:
            await until(lambda: len(runs) >= 3)
            checks.add("late", lambda: runs.append(100), every="50ms")
            await until(lambda: 100 in runs)
            checks.remove("late")
        assert [each.name for each in checks.known()] == ["a"]

    asyncio.run(main())


def test_one_set_of_checks_serves_several_loops_in_turn():
    checks, runs = made(), []

    async def slowly():
        runs.append(1)
        await asyncio.sleep(0.01)

    checks.add("a", slowly, every="50ms")
    for _ in range(3):
        assert asyncio.run(checks.report()).is_fine
        time.sleep(0.06)
    assert len(runs) == 3


@pytest.mark.parametrize(
    ("name", "more", "words"),
    [
        ("", {}, "needs a name"),
        ("x" * 200, {}, "needs a name"),
        ("twice", {}, "already a check"),
        ("a", {"timeout": "0s"}, "no time at all"),
        ("a", {"every": "1ms"}, "too often"),
    ],
    ids=range(5),
)
def test_what_cannot_be_a_check_is_refused_at_once(name, more, words):
    checks = made()
    checks.add("twice", lambda: None)
    with pytest.raises(ValueError, match=words):
        checks.add(name, lambda: None, **more)
