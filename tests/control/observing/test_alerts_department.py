"""The department as a whole: judged, decided, kept, sent, and what it says of itself."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from headgate.config.alerting import AlertsSpec
from headgate.control.observing.alerts import Alerts, NoSuchRule
from headgate.control.observing.observing import Surroundings
from headgate.errors import HeadgateError
from headgate.observe import new_rows
from headgate.observe.alerts.keeping import Keeper
from headgate.observe.alerts.matching import parse_matcher
from tests.observe.alerts.alert_peer import Peer

pytestmark = pytest.mark.integration
PATIENCE_S = 20.0


@dataclass(frozen=True)
class S:
    value: float
    labels: dict[str, str] = field(default_factory=dict)


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = Peer()
    yield made
    made.close()


def spec(url: str = "", **more: Any) -> AlertsSpec:
    return AlertsSpec.model_validate(
        {
            "every": "0.05s",
            "built_in": False,
            "rules": {"queue": {"expr": "x", "warning": 10, "critical": 20, "for": 0}},
            "route": {"group_wait": 0, "group_interval": 0},
            "receivers": {"ops": {"webhook": url}} if url else {},
            **more,
        }
    )


class Rig:
    def __init__(self, folder: Path, **said: Any) -> None:
        around = Surroundings(folder, lambda: None, lambda: None, lambda: ("ok", []), lambda: None)  # type: ignore[arg-type,return-value]
        self.samples: list[S] = []
        self.fault: Exception | None = None
        self.wait = 0.0
        self.marks: list[str] = []
        self.told: list[tuple[str, str, dict[str, Any]]] = []
        self.wall_by = 0.0
        self.alerts = Alerts(
            around,
            self.ask,
            lambda _at, _kind, text, _attributes: self.marks.append(text),
            tell=lambda kind, text, **more: self.told.append((kind, text, more)),
            wall=lambda: time.time() + self.wall_by,
            turn_s=0.02,
        )
        self._said = said

    def ask(self, _expr: Any, _at: float) -> list[S]:
        if self.wait:
            time.sleep(self.wait)
        if self.fault is not None:
            raise self.fault
        return list(self.samples)

    def take(self, said: AlertsSpec | bool) -> None:
        self.alerts.take(SimpleNamespace(alerts=said))  # type: ignore[arg-type]


def run(rig: Rig, said: AlertsSpec | bool, go: Callable[[], Any]) -> Any:
    async def whole() -> Any:
        rig.alerts.start()
        rig.take(said)
        try:
            return await go()
        finally:
            await rig.alerts.close()

    return asyncio.run(whole())


async def until(what: Callable[[], Any]) -> Any:
    async with asyncio.timeout(PATIENCE_S):
        while not (found := what()):
            await asyncio.sleep(0.01)
    return found


def bodies(peer: Peer) -> list[dict[str, Any]]:
    return [json.loads(body) for _, _, body in peer.got]


def test_an_alert_is_told_gets_worse_ends_and_is_kept_in_the_log(tmp_path, peer):
    rig = Rig(tmp_path)

    async def go() -> None:
        rig.samples = [S(15.0, {"q": "mail"})]
        await until(lambda: len(peer.got) == 1)
        rig.samples = [S(25.0, {"q": "mail"})]
        await until(lambda: len(peer.got) == 2)
        rig.samples = [S(1.0, {"q": "mail"})]
        await until(lambda: len(peer.got) == 3)
        await until(lambda: not len(rig.alerts.post.outbox))
        rows = await rig.alerts.told(limit=10)
        assert [row["outcome"] for row in rows] == ["sent"] * 3
        rows_into = new_rows()
        rig.alerts.rows_into(rows_into)
        assert rows_into["headgate_alerts_notifications_total"] == [(["ops/webhook", "sent"], 3)]
        assert not list(rig.alerts.worries())

    run(rig, spec(peer.url), go)
    got = bodies(peer)
    assert [each["status"] for each in got] == ["firing", "firing", "resolved"]
    levels = [each["alerts"][0]["labels"]["severity"] for each in got]
    assert levels == ["warning", "critical", "critical"]
    assert len({each["groupKey"] for each in got}) == 1
    assert [mark.partition(":")[0] for mark in rig.marks] == ["warning", "critical", "resolved"]
    assert {kind for kind, _, _ in rig.told} == {"alert"}
    assert [more["state"] for _, _, more in rig.told] == ["firing", "firing", "resolved"]
    assert rig.told[-1][1] == "resolved: queue (q=mail)"
    assert rig.told[-1][2]["labels"]["q"] == "mail"
    assert rig.told[-1][2]["alert"], "its id; the event has one of its own"
    assert "id" not in rig.told[-1][2]


def test_a_restart_sends_nothing_again_and_still_tells_the_end(tmp_path, peer):
    first = Rig(tmp_path)
    first.samples = [S(15.0)]

    async def fires() -> None:
        await until(lambda: len(peer.got) == 1)
        await until(lambda: not len(first.alerts.post.outbox))

    run(first, spec(peer.url), fires)
    second = Rig(tmp_path)
    second.samples = [S(15.0)]

    async def goes_on() -> None:
        await until(lambda: second.alerts.rules()[0]["evaluations"] > 5)
        assert len(peer.got) == 1
        second.samples = []
        await until(lambda: len(peer.got) == 2)

    run(second, spec(peer.url), goes_on)
    assert [each["status"] for each in bodies(peer)] == ["firing", "resolved"]


KILLED = """
    import asyncio, sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[3])
    from tests.control.observing.test_alerts_department import Rig, S, spec
    rig = Rig(Path(sys.argv[1]))
    rig.samples = [S(15.0)]
    async def go():
        rig.alerts.start()
        rig.take(spec(sys.argv[2]))
        await asyncio.sleep(60)
    asyncio.run(go())
"""


def test_killed_while_sending_it_is_sent_again_with_the_same_id(tmp_path, peer, repository):
    peer.is_hanging = True
    words = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path), peer.url]
    process = subprocess.Popen([*words, str(repository)])
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not peer.got and time.monotonic() < deadline:
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    peer.is_hanging = False
    peer.hangs.set()
    rig = Rig(tmp_path)
    rig.samples = [S(15.0)]

    async def go() -> None:
        await until(lambda: len(peer.got) == 2)
        await until(lambda: not len(rig.alerts.post.outbox))

    run(rig, spec(peer.url), go)
    first, again = bodies(peer)
    assert (first["id"], first["groupKey"]) == (again["id"], again["groupKey"])


def test_a_receiver_that_fails_is_tried_again_and_is_a_worry(tmp_path, peer):
    peer.answer = (503, {}, b"later")
    rig = Rig(tmp_path)
    rig.samples = [S(15.0)]

    async def go() -> None:
        await until(lambda: peer.got)
        worry = await until(lambda: list(rig.alerts.worries()))
        assert "503" in worry[0]
        assert peer.url not in worry[0]
        peer.answer = (200, {}, b"")
        for each in rig.alerts.post.outbox.entries():
            each.due = 0.0
        await until(lambda: not len(rig.alerts.post.outbox))
        assert not list(rig.alerts.worries())

    run(rig, spec(peer.url), go)
    assert len({each["id"] for each in bodies(peer)}) == 1


def test_a_slow_rule_is_cut_short_and_delays_no_other(tmp_path):
    rig = Rig(tmp_path)
    slow = {"expr": "y", "warning": 1, "for": 0}
    said = spec(
        timeout="0.05s", rules={"slow": slow, "queue": {"expr": "x", "warning": 10, "for": 0}}
    )

    def ask(expr: Any, _at: float) -> list[S]:
        if getattr(expr, "name", "") == "y":
            time.sleep(1.0)
        return [S(15.0)]

    rig.alerts.watching.ask = ask

    async def go() -> None:
        rules = lambda: {each["name"]: each for each in rig.alerts.rules()}  # noqa: E731
        await until(lambda: "longer than" in rules()["slow"]["error"])
        await until(lambda: rules()["queue"]["state"] == "firing")
        assert rules()["slow"]["state"] == "inactive"

    run(rig, said, go)


def test_what_cannot_be_asked_is_an_error_of_the_rule_and_no_end(tmp_path):
    rig = Rig(tmp_path)
    rig.samples = [S(15.0)]

    async def go() -> None:
        await until(lambda: rig.alerts.rules()[0]["state"] == "firing")
        rig.fault = HeadgateError("the history is away")
        await until(lambda: rig.alerts.rules()[0]["error"] == "the history is away")
        rig.fault = ValueError("odd")
        await until(lambda: "odd" in rig.alerts.rules()[0]["error"])
        assert rig.alerts.rules()[0]["state"] == "firing"

    run(rig, spec(), go)


def test_a_spoilt_store_is_moved_aside_and_told(tmp_path):
    folder = tmp_path / "alerts"
    folder.mkdir()
    (folder / "alerts.db").write_bytes(b"this is no database" * 500)
    rig = Rig(tmp_path)

    async def go() -> None:
        await until(lambda: any("spoilt" in each for each in rig.alerts.worries()))

    run(rig, spec(), go)
    assert list(folder.glob("alerts.db.spoilt-*"))
    assert (folder / "alerts.db").stat().st_mode & 0o777 == 0o600


def test_kept_state_that_makes_no_sense_is_left_out(tmp_path):
    keeper = Keeper(tmp_path / "alerts" / "alerts.db")
    keeper.open(0.0)
    keeper.write({"telling": {"groups": [{"odd": 1}]}, "rules": [1], "saved": {"at": "x"}})
    keeper.close()
    rig = Rig(tmp_path)
    rig.samples = [S(15.0)]

    async def go() -> None:
        await until(lambda: rig.alerts.rules()[0]["state"] == "firing")
        assert any("no sense" in each for each in rig.alerts.worries())

    run(rig, spec(), go)


def test_without_a_disk_it_is_told_all_the_same(tmp_path, peer, monkeypatch):
    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(Keeper, "write", full)
    rig = Rig(tmp_path)
    rig.samples = [S(15.0)]

    async def go() -> None:
        await until(lambda: peer.got)
        await until(lambda: any("full" in each for each in rig.alerts.worries()))

    run(rig, spec(peer.url), go)


@pytest.mark.parametrize("what", ["write", "open"])
def test_a_disk_that_hangs_holds_up_no_alert(tmp_path, peer, monkeypatch, what):
    released = threading.Event()
    real = getattr(Keeper, what)

    def hangs(*args: Any) -> Any:
        released.wait(PATIENCE_S * 3)
        return real(*args)

    monkeypatch.setattr(Keeper, what, hangs)
    rig = Rig(tmp_path)
    rig.alerts.store.patience_s = 0.05
    rig.samples = [S(15.0)]

    async def go() -> None:
        try:
            await until(lambda: len(peer.got) == 1)
            await until(lambda: any("not answer" in each for each in rig.alerts.worries()))
            rig.samples = [S(25.0)]
            await until(lambda: len(peer.got) == 2)
            if what == "write":
                with pytest.raises(HeadgateError, match="not answer"):
                    await rig.alerts.told(limit=10)
        finally:
            released.set()
            rig.alerts.store.patience_s = PATIENCE_S
        await until(lambda: not list(rig.alerts.worries()))
        await until(lambda: not len(rig.alerts.post.outbox))
        # What was told is written when the disk goes on; nothing of it is lost.
        async with asyncio.timeout(PATIENCE_S):
            while {row["outcome"] for row in await rig.alerts.told(limit=10)} != {"sent"}:
                await asyncio.sleep(0.01)

    run(rig, spec(peer.url), go)


def test_silences_acks_tests_and_the_switch(tmp_path, peer):
    rig = Rig(tmp_path)
    rig.samples = [S(15.0)]

    async def go() -> None:
        made = rig.alerts.silence(
            (parse_matcher("alertname=queue"),), None, time.time() + 60, "ann", "work"
        )
        await until(rig.alerts.muted)
        assert not peer.got
        with pytest.raises(HeadgateError, match="every alert"):
            rig.alerts.silence((parse_matcher("a!=b"),), None, time.time() + 60, "", "")
        with pytest.raises(HeadgateError, match="end after"):
            rig.alerts.silence((parse_matcher("a=b"),), None, 5.0, "", "")
        assert rig.alerts.unsilence(made.id) is made
        await until(lambda: len(peer.got) == 1)
        ident = rig.alerts.alerts()[0].id
        assert rig.alerts.acknowledge(ident, "ann", "") is not None
        assert rig.alerts.acknowledge("nothing", "ann", "") is None
        rows = await rig.alerts.test("ops")
        assert rows is not None and [row["ok"] for row in rows] == [True]
        assert await rig.alerts.test("nobody") is None
        rig.take(False)
        assert rig.alerts.rules() == []

    run(rig, spec(peer.url), go)
    assert bodies(peer)[-1]["kind"] == "test"


def test_a_clock_that_is_set_neither_ends_nor_repeats(tmp_path, peer):
    rig = Rig(tmp_path)
    rig.samples = [S(15.0)]

    def more_than(count: int) -> Callable[[], bool]:
        return lambda: bool(rig.alerts.rules()[0]["evaluations"] > count)

    async def go() -> None:
        await until(lambda: len(peer.got) == 1)
        for by in (-7200.0, 1e6):
            rig.wall_by += by
            count = rig.alerts.rules()[0]["evaluations"]
            await until(more_than(count + 3))
        assert len(peer.got) == 1
        assert rig.alerts.rules()[0]["state"] == "firing"

    run(rig, spec(peer.url), go)


def test_a_replay_says_when_it_would_have_fired(tmp_path):
    rig = Rig(tmp_path)

    async def go() -> None:
        now = time.time()
        rig.alerts.watching.ask = lambda _expr, at: [
            S(25.0 if now - 500 <= at < now - 300 else 1.0)
        ]
        made = await rig.alerts.replayed("queue", 1000.0, 10.0)
        (fired,) = made.firings
        assert fired.level == "critical"
        assert fired.peak == 25.0
        assert abs(fired.fired_at - (now - 500)) < 20
        assert abs(made.firing_s - 200) < 30
        assert made.notifications == 2
        with pytest.raises(NoSuchRule):
            await rig.alerts.replayed("nothing", 10.0, None)

    run(rig, spec(), go)


def test_a_sign_of_life_is_given_only_while_rules_are_judged(tmp_path, peer):
    rig = Rig(tmp_path)

    async def go() -> None:
        rig.fault = HeadgateError("no history")
        await until(lambda: rig.alerts.rules()[0]["evaluations"] > 5)
        assert peer.got == []
        rig.fault = None
        await until(lambda: len(peer.got) >= 2)
        assert {path for path, _, _ in peer.got} == {"/ping"}

    run(rig, spec(heartbeat={"url": f"{peer.url}/ping", "every": "0.05s"}), go)


def test_a_sign_of_life_that_hangs_holds_up_no_alert(tmp_path, peer):
    rig = Rig(tmp_path)
    pinged: list[str] = []

    async def hangs(url: str) -> str:
        pinged.append(url)
        await asyncio.Event().wait()
        return ""

    rig.alerts.post.sender.ping = hangs  # type: ignore[method-assign]

    async def go() -> None:
        await until(lambda: pinged)
        rig.samples = [S(15.0)]
        await until(lambda: len(peer.got) == 1)
        assert len(pinged) == 1

    run(rig, spec(peer.url, heartbeat={"url": f"{peer.url}/ping", "every": "0.05s"}), go)
