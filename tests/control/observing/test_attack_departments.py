"""Departments under attack: storms of lines and spans, rules that are slow, disks that hang."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fastapi import APIRouter, FastAPI

from headgate.config import Config
from headgate.config.alerting import AlertsSpec
from headgate.config.history import HistorySpec
from headgate.control.admin import problem
from headgate.control.admin.alerts import add_alerts
from headgate.control.admin.problem import Problem
from headgate.control.admin.turns import Turns
from headgate.control.observing.alerts import Alerts
from headgate.control.observing.history import History
from headgate.control.observing.logs import Logs, TooManySearches
from headgate.control.observing.observing import Department, Observing, Surroundings
from headgate.control.observing.traces import QUEUE_SPANS, Traces
from headgate.observe import Merged, Rows, new_rows
from headgate.observe.logs.search import Query, stored_of
from headgate.observe.query.syntax import Select
from headgate.observe.tracing.record import SpanRecord
from tests.control.observing.test_alerts_api import Client

pytestmark = pytest.mark.integration

PATIENCE_S = 20.0
WALL = 1_800_000_000.0


async def _refresh() -> None:
    return None


def around(folder: Path) -> Surroundings:
    return Surroundings(
        folder, _refresh, lambda: Merged({}, {}), lambda: ("ok", []), lambda *_a, **_k: None
    )


async def until(what: Any) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not what():
            await asyncio.sleep(0.01)


# -- all of them -----------------------------------------------------------------------------


class Broken:
    name = "broken"

    def start(self) -> None:
        """Begins."""

    def take(self, config: Config) -> None:
        """Takes."""

    async def close(self) -> None:
        """Ends."""

    def worries(self) -> Any:
        yield "first"
        raise RuntimeError("second")

    def rows_into(self, rows: Rows) -> None:
        raise RuntimeError("no figures")


class Well(Broken):
    name = "well"

    def worries(self) -> Any:
        return ["of mine"]

    def rows_into(self, rows: Rows) -> None:
        rows["headgate_workers"].append(([], 1))


def test_health_and_metrics_answer_whatever_a_department_does():
    both = Observing((cast("Department", Broken()), cast("Department", Well())))
    said = list(both.worries())
    assert any("broken: cannot say what worries it: second" in each for each in said)
    assert "of mine" in said
    assert "broken" in both.worries_by_name()
    rows = new_rows()
    both.rows_into(rows)
    assert rows["headgate_workers"] == [([], 1)]


# -- lines -----------------------------------------------------------------------------------


def test_of_a_storm_a_watcher_sees_the_newest_and_how_many_it_did_not_see(tmp_path):
    async def go() -> None:
        logs = Logs(around(tmp_path))
        rows = [stored_of(WALL, 20, f'{{"message":"line {n}"}}') for n in range(20_000)]
        seen: list[Any] = []

        async def watch() -> None:
            async for one in logs.tail(Query(text="line")):
                seen.append(one)

        task = asyncio.get_running_loop().create_task(watch())
        await asyncio.sleep(0)
        logs.take_in(rows, 0)
        await until(lambda: seen and not isinstance(seen[-1], int) and seen[-1] is rows[-1])
        lost = sum(one for one in seen if isinstance(one, int))
        shown = [one for one in seen if not isinstance(one, int)]
        assert shown == rows[-len(shown) :]
        assert lost + len(shown) == len(rows)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(go())


@pytest.mark.parametrize(
    "event",
    [
        {"lines": 5},
        {"lines": [[float("inf"), 20, "{}"], [WALL, float("inf"), "{}"], [WALL, 20, "{"], 7]},
        {"lines": None, "dropped": float("inf")},
        {"lines": [[WALL, 20, '{"message":"\ud800"}']]},
    ],
    ids=["number", "infinite", "dropped", "surrogate"],
)
def test_a_torn_event_of_a_worker_does_no_harm(tmp_path, event):
    Logs(around(tmp_path)).heard(0, event)


def test_searches_beyond_a_bound_are_refused_at_once(tmp_path, monkeypatch):
    async def go() -> None:
        logs = Logs(around(tmp_path))
        hold = threading.Event()

        def find(*_a: Any, **_k: Any) -> None:
            hold.wait(PATIENCE_S)

        monkeypatch.setattr(logs, "store", SimpleNamespace(find=find))
        asked = [logs.find(Query(), limit=1, after=None) for _ in range(16)]
        tasks = [asyncio.ensure_future(one) for one in asked]
        await asyncio.sleep(0)
        with pytest.raises(TooManySearches):
            await logs.find(Query(), limit=1, after=None)
        # Others have threads of control left meanwhile.
        assert await asyncio.to_thread(lambda: 1) == 1
        hold.set()
        await asyncio.gather(*tasks)

    asyncio.run(go())


# -- spans -----------------------------------------------------------------------------------


def test_spans_that_wait_are_bounded_by_their_number(tmp_path):
    traces = Traces(around(tmp_path))
    traces.take(Config.model_validate({"tracing": {"sample": "100%"}, **SMALL}))
    spans = [
        SpanRecord(f"{n:032x}", f"{n:016x}", "", "n", "server", WALL, 0.1, "ok", "s", {}, ())
        for n in range(1, 5001)
    ]
    taken = [traces.put(spans) for _ in range(12)]  # no thread runs that would take them
    assert taken == [True] * (QUEUE_SPANS // 5000) + [False] * (12 - QUEUE_SPANS // 5000)
    assert traces.dropped == 5000 * taken.count(False)


SMALL = {
    "listeners": [{"bind": "127.0.0.1:1"}],
    "routes": [{"name": "r", "match": {"path": "/"}, "respond": {"body": "x"}}],
}


def test_what_services_send_is_read_one_at_a_time_and_the_ninth_comes_again():
    async def go() -> None:
        turns, hold = Turns(), threading.Event()
        running: list[int] = []
        most: list[int] = []

        def work() -> None:
            running.append(1)
            most.append(len(running))
            hold.wait(PATIENCE_S)
            running.pop()

        tasks = [asyncio.ensure_future(turns.run(work)) for _ in range(8)]
        await until(lambda: most)
        with pytest.raises(Problem) as refused:
            await turns.run(work)
        assert refused.value.status == 503
        hold.set()
        await asyncio.gather(*tasks)
        assert set(most) == {1}

    asyncio.run(go())


# -- the history -----------------------------------------------------------------------------


def test_other_rules_of_the_history_do_not_wait_for_a_disk_that_hangs(tmp_path):
    hold = threading.Event()

    async def go() -> None:
        history = History(around(tmp_path))
        history.start()
        history.take(config(every="1s"))
        first = history.store
        close = first.close

        def slow() -> None:
            hold.wait(PATIENCE_S)
            close()

        first.close = slow  # type: ignore[method-assign]
        history.take(config(every="2s"))
        history.take(config(every="3s"))
        assert not hold.is_set()  # we are here, and it hangs still
        assert history.store is not first
        hold.set()
        await history.close()

    def config(**more: Any) -> Config:
        return Config.model_construct(history=HistorySpec(**more), services={})

    asyncio.run(go())


# -- alerts ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class S:
    value: float
    labels: dict[str, str] = field(default_factory=dict)


def test_rules_that_take_too_long_come_less_often_and_leave_threads_to_the_others(tmp_path):
    def ask(expr: Any, _at: float) -> list[S]:
        if isinstance(expr, Select) and expr.name == "slow":
            time.sleep(0.3)
        return [S(1.0)]

    rules = {f"slow{n}": {"expr": "slow", "warning": 5} for n in range(8)}
    rules["quick"] = {"expr": "quick", "warning": 5}
    said = AlertsSpec.model_validate(
        {"every": "0.05s", "timeout": "0.1s", "built_in": False, "rules": rules}
    )

    async def go() -> None:
        alerts = Alerts(around(tmp_path), ask, turn_s=0.02)
        alerts.start()
        alerts.take(SimpleNamespace(alerts=said))  # type: ignore[arg-type]
        try:
            watched = alerts.watching.rules
            await until(lambda: all(watched[f"slow{n}"].cut_short >= 2 for n in range(8)))
            before = watched["quick"].evaluations
            await until(lambda: watched["quick"].evaluations >= before + 10)
            assert not watched["quick"].judge.error
        finally:
            await alerts.close()

    asyncio.run(go())


def test_a_list_of_alerts_goes_in_pages_in_which_each_alert_is_once(tmp_path):
    department = Alerts(around(tmp_path), lambda _expr, _at: [])
    spec = AlertsSpec.model_validate(
        {"rules": {"q": {"expr": "x", "warning": 10, "for": 0}}, "built_in": False}
    )
    department.take(SimpleNamespace(alerts=spec))  # type: ignore[arg-type]
    samples = [S(15.0, {"queue": f"{n} \u00fc" * 40}) for n in range(23)]
    department.watching.rules["q"].judge.judge(samples, time.time())
    router, app = APIRouter(), FastAPI()
    add_alerts(router, cast("Any", SimpleNamespace(alerts=department, auditing=None)))
    app.include_router(router)
    problem.install(app)
    seen: list[str] = []
    client = Client(app)
    path: str | None = "/api/alerts?limit=5"
    while path is not None:
        answer = client.get(path)
        said = answer.json()
        assert said["total"] == 23
        seen += [one["id"] for one in said["alerts"]]
        path = f"/api/alerts?limit=5&cursor={said['next']}" if said["next"] else None
        assert (path is None) == ("link" not in answer.headers)
    assert client.get("/api/alerts?cursor=%FF").status_code == 422
    assert len(seen) == len(set(seen)) == 23
