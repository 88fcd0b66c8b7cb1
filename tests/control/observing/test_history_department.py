"""The department of history and its part of the admin API, with a control process made up."""

from __future__ import annotations

import asyncio
import threading
import time
from types import SimpleNamespace

import httpx
import pytest
from fastapi import FastAPI

from headgate.config import Config
from headgate.config.history import HistorySpec
from headgate.control.admin.history import add_history
from headgate.control.admin.problem import install
from headgate.control.observing import Surroundings
from headgate.control.observing.history import History, HistoryOff
from headgate.observe import METRICS, Carried, WorkerStats, new_rows
from headgate.observe.history import Family, Markers
from headgate.observe.query import parse

PATIENCE_S = 20.0


def surroundings(tmp_path) -> Surroundings:
    carried, stats = Carried(), WorkerStats("worker-0", "a")
    route = stats.route("all", "users")

    def merged():
        route.record("GET", 200, 0.01, 0.01, 0, 5)
        carried.take(stats.snapshot())
        return carried.merged()

    async def refresh() -> None:
        return None

    return Surroundings(
        state_dir=tmp_path,
        refresh=refresh,
        merged=merged,
        health=lambda: ("ok", []),
        record=lambda *_a, **_k: None,
    )


def config(**more) -> Config:
    return Config.model_construct(history=HistorySpec(**more), services={})


@pytest.fixture
def loop():
    made = asyncio.new_event_loop()
    thread = threading.Thread(target=made.run_forever)
    thread.start()
    yield made
    made.call_soon_threadsafe(made.stop)
    thread.join(PATIENCE_S)
    made.close()


@pytest.fixture
def history(tmp_path, loop):
    """One that lives on a loop of its own, as beside the API's threads."""
    made = History(surroundings(tmp_path))

    async def begin() -> None:
        made.start()
        made.mark(5.0, "config", "early", {"generation": 1})
        made.take(config())

    asyncio.run_coroutine_threadsafe(begin(), loop).result(PATIENCE_S)
    yield made
    asyncio.run_coroutine_threadsafe(made.close(), loop).result(PATIENCE_S)


@pytest.fixture
def client(history, loop):
    app = FastAPI()
    install(app)
    add_history(app.router, SimpleNamespace(history=history))
    return Client(app, loop)


class Client:
    def __init__(self, app: FastAPI, loop: asyncio.AbstractEventLoop) -> None:
        self.app = app
        self.loop = loop

    def ask(self, method: str, path: str, **more):
        async def run():
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
                return await client.request(method, path, **more)

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(PATIENCE_S)

    def get(self, path: str, **more):
        return self.ask("GET", path, **more)

    def post(self, path: str, **more):
        return self.ask("POST", path, **more)


def wait_until(what) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def asked(client, path, **fields):
    return client.get(path, params=fields)


def test_figures_are_taken_and_questions_answered_in_both_shapes(client, history):
    wait_until(lambda: history.store.figures.samples)
    wait_until(lambda: asked(client, "/api/query", query="time()").status_code == 200)
    name = "headgate_http_requests_total"
    wait_until(lambda: asked(client, "/api/query", query=name).json()["data"]["result"])
    for path in ("/api/query", "/api/history/query"):
        said = asked(client, path, query=name).json()
        assert said["status"] == "success"
        (row,) = said["data"]["result"]
        assert row["metric"]["route"] == "all"
        assert row["metric"]["__name__"] == name
        assert float(row["value"][1]) >= 1
    posted = client.post("/api/query", content=f"query={name}").json()
    assert posted["data"]["resultType"] == "vector"
    scalar = asked(client, "/api/query", query="1 + 1", time=5).json()["data"]
    assert scalar == {"resultType": "scalar", "result": [5.0, "2"]}
    over = asked(client, "/api/history/range", query=name, since="1m", step="1s").json()
    assert over["data"]["result"][0]["values"]
    text = asked(client, "/api/history/range", query=name, since="1m", format="csv").text
    assert text.startswith("time,__name__,code,method,route,service,value")
    series = client.get("/api/series", params={"match[]": name}).json()["data"]
    assert [one["code"] for one in series] == ["200"]
    assert "route" in client.get("/api/labels").json()["data"]
    assert client.get("/api/label/route/values").json()["data"] == ["all"]
    assert client.get("/api/metadata").json()["data"][name][0]["type"] == "counter"


@pytest.mark.parametrize(
    "fields",
    [
        {"query": "raet(x)"},
        {"query": ""},
        {"query": "x", "start": "never"},
        {"query": "x", "start": "9", "end": "8"},
        {"query": "x", "step": "-1"},
        {"query": "x", "step": "nan"},
        {"query": "x", "start": "0", "end": "4000000000", "step": "1"},
        {"query": "x", "since": "1 fortnight"},
        {"query": "x", "start": "1e999"},
    ],
    ids=range(9),
)
def test_a_question_that_is_none_is_a_problem_here_and_an_error_there(client, fields):
    problem = asked(client, "/api/history/range", **fields)
    assert problem.status_code == 422, problem.text
    error = asked(client, "/api/query_range", **fields)
    assert (error.status_code, error.json()["status"]) == (400, "error")


def test_a_name_that_is_unknown_is_an_empty_answer_with_a_hint(client, history):
    wait_until(lambda: history.store.figures.samples)
    wait_until(
        lambda: (
            "did you mean" in asked(client, "/api/query", query="headgate_http_request_total").text
        )
    )
    problem = asked(client, "/api/history/query", query="raet(x)").json()
    assert problem["position"] == 0
    assert 'did you mean "rate"' in problem["hint"]


def test_markers_are_kept_also_those_of_before_the_store(client):
    assert client.post("/api/markers", json={"text": "v2", "at": 9}).status_code == 201
    found = client.get("/api/markers", params={"start": 0, "end": 10}).json()
    assert [(one["kind"], one["text"]) for one in found] == [("config", "early"), ("deploy", "v2")]
    assert client.post("/api/markers", json={"text": "", "kind": "!"}).status_code == 422


def test_markers_of_the_loop_are_written_by_a_thread_before_the_end(tmp_path, monkeypatch):
    threads: list[str] = []
    real = Markers.write

    def write(markers: Markers) -> None:
        threads.append(threading.current_thread().name)
        real(markers)

    monkeypatch.setattr(Markers, "write", write)

    async def whole() -> None:
        made = History(surroundings(tmp_path))
        made.start()
        made.take(config())
        made.mark(7.0, "alert", "late", {})
        await made.close()

    asyncio.run(whole())
    assert set(threads) == {"markers"}
    assert [one.text for one in Markers(tmp_path / "history" / "markers.jsonl").held] == ["late"]


def test_what_services_send_is_asked_for_like_the_rest(client, history):
    point = {"asDouble": 1.5}
    metric = {"name": "shop.load", "gauge": {"dataPoints": [point]}}
    said = {"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]}
    assert client.post("/v1/metrics", json=said).json() == {}
    wait_until(lambda: asked(client, "/api/query", query="shop_load").json()["data"]["result"])
    bad = client.post("/v1/metrics", content=b"\xff\xff", headers={"content-type": "x/protobuf"})
    assert bad.status_code == 422
    many: dict[tuple[str, ...], float] = {(str(n),): 1.0 for n in range(30_000)}
    assert history.give("huge", [Family("big", "gauge", ("n",), many)]) == 30_000 - (20_000 - 1)


def figures_of(name: str, count: int) -> list[Family]:
    return [Family(name, "gauge", ("n",), {(str(n),): 1.0 for n in range(count)})]


def held_of(history: History) -> dict[str, int]:
    return {name: size for name, (_, _, size) in history._foreign.items()}


def test_who_came_first_does_not_keep_all_the_room(tmp_path):
    history = History(surroundings(tmp_path))
    assert history.give("otlp greedy", figures_of("big", 25_000)) == 5_000
    for n in range(4):
        assert history.give(f"scrape users {n}", figures_of("mine", 2_000), holds_s=60) == 0
    assert history.give("otlp modest", figures_of("small", 100)) == 0
    assert held_of(history) == {
        "otlp greedy": 11_900,
        **{f"scrape users {n}": 2_000 for n in range(4)},
        "otlp modest": 100,
    }
    for n in range(50):  # and many of one kind do not crowd out the other
        history.give(f"otlp {n}", figures_of("more", 400))
    assert sum(held_of(history).values()) <= 20_000
    assert sum(size for name, size in held_of(history).items() if "scrape" in name) == 8_000


def test_sources_that_have_no_share_are_not_remembered(tmp_path, monkeypatch):
    monkeypatch.setattr("headgate.control.observing.history._FOREIGN_SERIES", 10)
    history = History(surroundings(tmp_path))
    for n in range(100):
        history.give(f"otlp {n}", figures_of("one", 3))
    assert len(held_of(history)) <= 10
    assert sum(held_of(history).values()) <= 10
    assert history.give("scrape users", figures_of("mine", 5), holds_s=60) == 0


def test_no_history_is_said_and_worries_nobody(tmp_path):
    async def run() -> None:
        history = History(surroundings(tmp_path))
        history.start()
        history.take(Config.model_construct(history=False, services={}))
        with pytest.raises(HistoryOff):
            history.ask(parse("x"), 5.0)
        assert list(history.worries()) == []
        rows = new_rows()
        history.rows_into(rows)
        assert not any(rows.values())
        await history.close()

    asyncio.run(run())


def test_rows_are_of_the_table_and_a_disk_that_is_no_folder_is_a_worry(tmp_path):
    async def run() -> None:
        (tmp_path / "history").write_text("in the way")
        history = History(surroundings(tmp_path))
        history.start()
        history.take(config())
        for _ in range(400):
            if list(history.worries()):
                break
            await asyncio.sleep(0.05)
        assert any("in memory only" in worry for worry in history.worries())
        rows = new_rows()
        history.rows_into(rows)
        for name, family in rows.items():
            assert all(len(labels) == len(METRICS[name].labels) for labels, _ in family)
        await history.close()

    asyncio.run(run())
