"""The department of logs: from workers, control and services into the store and past the tail."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import time
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI

from headgate.config import Config
from headgate.config.logs import LoggingSpec, LogSinkSpec, LogStoreSpec
from headgate.control import process_logs
from headgate.control.admin.logs import add_logs
from headgate.control.admin.problem import Problem
from headgate.control.observing.logs import Logs
from headgate.control.observing.observing import Surroundings
from headgate.observe import new_rows
from headgate.observe.logs.installing import process_logging
from headgate.observe.logs.rules import StoreRules
from headgate.observe.logs.search import Query
from tests.observe.logs.given_back import logging_given_back

pytestmark = pytest.mark.integration


@pytest.fixture
def surroundings(tmp_path):
    async def refresh():
        pass

    def no_rows() -> Any:
        return None

    return Surroundings(tmp_path, refresh, no_rows, lambda: ("ok", []), lambda *_, **__: None)


@pytest.fixture
def own_process():
    with logging_given_back():
        yield process_logging()
        process_logging().remove()


def config(**said):
    return Config(logging=LoggingSpec(**said))


def running(surroundings, talk, **said):
    """Run `talk(department, client)` with a department and its endpoints."""
    published = []

    async def work():
        logs = Logs(surroundings, lambda *args, **kw: published.append((args, kw)))
        logs.start()
        logs.take(config(**said))
        router = APIRouter()

        held: Any = SimpleNamespace(logs=logs)
        add_logs(router, held)
        app = FastAPI()
        app.include_router(router)

        @app.exception_handler(Problem)
        async def told(_request, problem):
            from fastapi.responses import JSONResponse

            return JSONResponse({"detail": str(problem)}, problem.status)

        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://h") as client:
            try:
                await talk(logs, client)
            finally:
                await logs.close()

    asyncio.run(work())
    return published


def settle(logs):
    return asyncio.to_thread(logs.store.settle, 20)


def said_by_worker(**said):
    line = {"message": "upstream is gone", "logger": "headgate.gateway", **said}
    return {"event": "logs", "lines": [[time.time(), 40, json.dumps(line)]], "dropped": 2}


def test_lines_of_workers_are_found_and_counted(surroundings, own_process):
    async def talk(logs, client):
        logs.heard(0, said_by_worker(trace_id="ab" * 16, route="pay"))
        logs.heard(
            0, {"event": "logs", "lines": [[1], ["x", "y", "z"], [1, 20, "["]], "dropped": "?"}
        )
        await settle(logs)
        got = (await client.get("/api/logs", params={"trace_id": "AB" * 16})).json()
        assert [row["line"]["message"] for row in got["lines"]] == ["upstream is gone"]
        assert got["next"] is None and got["complete"]
        rows = new_rows()
        logs.rows_into(rows)
        assert [["worker", "heard"], 1] in [list(row) for row in rows["headgate_logs_stored_total"]]
        assert [["worker", "dropped"], 5] in [
            list(row) for row in rows["headgate_logs_stored_total"]
        ]

    running(surroundings, talk)


def test_what_control_says_is_found_too(surroundings, own_process):
    async def talk(logs, client):
        logging.getLogger("headgate.control").warning("the disk is nearly full")
        logs._own.turn()
        await settle(logs)
        got = (await client.get("/api/logs", params={"text": "nearly", "level": "warning"})).json()
        assert got["lines"][0]["line"]["logger"] == "headgate.control"

    running(surroundings, talk)


def test_services_send_lines_and_secrets_are_taken_out(surroundings, own_process):
    from headgate.security.redact import Redactor, redact_logs

    async def talk(logs, client):
        redact_logs(Redactor())
        logs.take(config())
        body = b'{"message":"in","service":"shop","password":"hunter2hunter2","level":"error"}\nx\n'
        got = await client.post(
            "/api/logs", content=gzip.compress(body), headers={"content-encoding": "gzip"}
        )
        assert got.json() == {"taken": 1, "refused": 1}
        otlp = {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"body": {"stringValue": "o"}}]}]}]}
        assert (await client.post("/v1/logs", json=otlp)).json() == {}
        await settle(logs)
        text = (await client.get("/api/logs")).text
        assert "hunter2" not in text
        got = (await client.get("/api/logs", params={"service": "shop"})).json()
        assert got["lines"][0]["line"]["level"] == "error"

    running(surroundings, talk)


@pytest.mark.parametrize(
    ("path", "content", "headers", "status"),
    [
        ("/v1/logs", b"{", {"content-type": "application/json"}, 400),
        ("/v1/logs", b"\xff", {"content-type": "application/x-protobuf"}, 400),
        ("/v1/logs", b"", {"content-type": "text/plain"}, 415),
        ("/api/logs", b"nonsense", {}, 400),
        ("/api/logs", b"x", {"content-encoding": "gzip"}, 400),
        ("/api/logs", gzip.compress(b"{}")[:-4], {"content-encoding": "gzip"}, 400),
        ("/api/logs", gzip.compress(b" " * 20_000_000), {"content-encoding": "gzip"}, 413),
        ("/api/logs", b"x", {"content-encoding": "br"}, 415),
        ("/api/logs", b"{}\n" * 10_001, {}, 413),
    ],
    ids=["json", "protobuf", "kind", "lines", "gzip", "cut", "bomb", "br", "many"],
)
def test_what_cannot_be_read_is_refused(surroundings, own_process, path, content, headers, status):
    async def talk(_logs, client):
        got = await client.post(path, content=content, headers=headers)
        assert got.status_code == status, got.text

    running(surroundings, talk, store=False)


@pytest.mark.parametrize(
    "params",
    [{"level": "loud"}, {"since": "yesterday-ish"}, {"cursor": "1;2"}, {"limit": "0"}],
    ids=["level", "since", "cursor", "limit"],
)
def test_what_is_no_question_is_refused(surroundings, own_process, params):
    async def talk(_logs, client):
        assert (await client.get("/api/logs", params=params)).status_code == 422

    running(surroundings, talk)


def test_levels_are_set_everywhere_and_end(surroundings, own_process):
    async def talk(logs, client):
        order = {"logger": "test.logs", "level": "debug", "for": "10min"}
        got = (await client.put("/api/logs/levels", json=order)).json()
        assert got["levels"]["test.logs"] == "debug"
        assert 590 < got["orders"][0]["remaining_s"] <= 600
        assert logging.getLogger("test.logs.below").getEffectiveLevel() == 10
        for wrong in (
            {"level": "loud"},
            {"level": "info", "for": "soon"},
            {"level": "info", "for": 0},
        ):
            assert (await client.put("/api/logs/levels", json=wrong)).status_code == 422
        got = (await client.put("/api/logs/levels", json={"logger": "test.logs"})).json()
        assert got["orders"] == []

    published = running(surroundings, talk)
    (topic, message), kw = published[0]
    assert (topic, kw) == (process_logs.LEVELS_TOPIC, {"retain": "levels"})
    assert message["orders"][0]["logger"] == "test.logs"
    assert published[-1][0][1] == {"orders": []}


def test_a_worker_takes_up_orders_that_hold_and_no_others(own_process):
    wall = time.time()
    process_logs.hear_levels(
        {
            "orders": [
                {"logger": "test.a", "level": 10, "until": wall + 60},
                {"logger": "test.b", "level": 10, "until": wall - 1},
                {"logger": "test.c", "level": 40, "until": None},
            ]
        }
    )
    effective = own_process.levels.effective()
    assert effective["test.a"] == 10 and effective["test.c"] == 40 and "test.b" not in effective
    process_logs.hear_levels({"orders": []})
    assert "test.a" not in own_process.levels.effective()


def test_the_tail_has_what_answers_the_question(surroundings, own_process):
    async def talk(logs, _client):
        seen = []

        async def watch():
            async for row in logs.tail(Query(text="gone", level=40)):
                seen.append(row)
                if len(seen) == 2:
                    return

        watcher = asyncio.create_task(watch())
        while not logs._watchers:
            await asyncio.sleep(0)
        logs.heard(0, said_by_worker())
        logs.heard(0, said_by_worker(message="other"))
        logs.heard(0, said_by_worker())
        async with asyncio.timeout(20):
            await watcher
        del watcher
        while logs._watchers:
            await asyncio.sleep(0.01)

    running(surroundings, talk, store=False)


def test_a_sink_that_cannot_be_had_is_said_and_ends_nothing(own_process):
    spec = LoggingSpec(sinks=(LogSinkSpec(kind="loki", url="nowhere"),))
    process_logs.take(spec)
    assert list(own_process.snapshot()) == ["stderr"]


def test_the_feed_is_bounded_and_says_what_it_lost(own_process, tmp_path):
    told: list[dict[str, Any]] = []
    feed = process_logs.Feed(told.append)
    feed.take(StoreRules())
    sink = LogSinkSpec(kind="file", path=str(tmp_path / "feed.log"))
    process_logs.take(LoggingSpec(repeats=False, sinks=(sink,)))
    for _ in range(3000):
        logging.getLogger("test.feed").info("x" * 1000)
    for _ in range(10):
        feed.turn()
    process_logging().listen(0, None)
    lines = sum(len(event["lines"]) for event in told)
    dropped = sum(event["dropped"] for event in told)
    assert lines + dropped == 3000 and dropped > 1000
    assert all(len(json.dumps(event)) < 400_000 for event in told)


@pytest.mark.parametrize(("is_on", "kept"), [(True, 2), (False, 0)])
def test_lines_of_the_access_log_are_taken_if_they_can_be_searched(own_process, is_on, kept):
    told: list[dict[str, Any]] = []
    feed = process_logs.Feed(told.append)
    feed.take(StoreRules(is_on=is_on))
    feed.access(b'{"status":502,"path":"/b"}\n')
    feed.access(b'{"status":499,"error":"client_gone"}\n')
    feed.access(b'1.2.3.4 - - "GET / HTTP/1.1" 500\n')
    feed.turn()
    process_logging().listen(0, None)
    assert sum(len(event["lines"]) for event in told) == kept


def test_the_store_follows_the_file(surroundings, own_process):
    async def talk(logs, _client):
        first = logs.store
        logs.take(config())
        assert logs.store is first
        logs.take(config(store=LogStoreSpec(size=2_000_000)))
        assert logs.store is not first
        logs.take(config(store=False))
        assert logs.store is None

    running(surroundings, talk)


def test_a_line_at_a_terminal_cannot_move_the_cursor():
    from headgate.cli.logs import text_of

    line = {
        "time": "2026-01-31T12:00:00.123456Z",
        "level": "error",
        "logger": "a",
        "message": "x\x1b[2Jy\nforged",
        "path": "/\r",
        "error": {"stack": "one\ntwo\x07"},
    }
    assert text_of(line, colours=True) == (
        "\x1b[31m2026-01-31T12:00:00.123 ERROR    a: x?[2Jy?forged path=/?"
        "\n    one\n    two?\x1b[0m"
    )
    assert "GET /x 502" in text_of({"method": "GET", "path": "/x", "status": 502})
