"""Traces in the control process: what comes in, what is answered, what goes wrong; the command."""

from __future__ import annotations

import asyncio
import gzip
import json
import sqlite3
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from headgate.cli.traces import drawn, listed, statements_listed
from headgate.config import Config
from headgate.control.admin.guard import Guard
from headgate.control.admin.problem import install
from headgate.control.admin.traces import MAX_BODY, add_traces
from headgate.control.observing import Surroundings
from headgate.control.observing.traces import Traces
from headgate.observe import new_rows
from headgate.observe.tracing.otlp import encode
from headgate.observe.tracing.record import UNDECIDED, SpanRecord
from headgate.observe.tracing.search import TraceQuery, find

pytestmark = pytest.mark.integration
PROTOBUF = {"content-type": "application/x-protobuf"}
JSON = {"content-type": "application/json"}


def span(trace=1, number=1, parent=0, **more):
    more.setdefault("service", "users")
    return SpanRecord(
        f"{trace:032x}",
        f"{number:016x}",
        f"{parent:016x}" if parent else "",
        more.pop("name", "GET /users"),
        "server",
        more.pop("start", 1_700_000_000.0 + trace),
        more.pop("duration", 0.1),
        **more,
    )


def department(folder: Path, **more: Any) -> Traces:
    return Traces(cast("Surroundings", SimpleNamespace(state_dir=folder)), **more)


class Rig:
    def __init__(self, folder: Path) -> None:
        self.traces = department(folder)
        api = FastAPI()
        install(api)
        router = APIRouter()
        add_traces(router, self)
        api.include_router(router)
        self.app = Guard(api, token=lambda: "secret", own_host="", is_local=False)

    def run(self, work: Any, config: Config | None = None) -> Any:
        async def whole() -> Any:
            self.traces.start()
            self.traces.take(config or Config())
            transport = httpx.ASGITransport(app=cast("Any", self.app))
            headers = {"authorization": "Bearer secret"}
            try:
                async with (
                    asyncio.timeout(40),
                    httpx.AsyncClient(
                        transport=transport, base_url="http://127.0.0.1", headers=headers
                    ) as client,
                ):
                    return await work(client)
            finally:
                await self.traces.close()

        return asyncio.run(whole())


@pytest.fixture
def rig(tmp_path):
    return Rig(tmp_path)


async def post(client, spans, **headers):
    return await client.post("/v1/traces", content=encode(spans), headers={**PROTOBUF, **headers})


def test_spans_of_workers_and_services_make_one_trace(rig):
    async def work(client):
        own = [span(1, 1, name="gateway", service="gateway", duration=0.5).to_json()]
        rig.traces.heard(0, {"event": "spans", "spans": [*own, ["nonsense"], None], "dropped": 3})
        got = await post(client, [span(1, 2, 1, name="load", status="error")])
        assert (got.status_code, got.content) == (200, b"")
        await rig.traces.settled()
        found = (await client.get("/api/traces")).json()
        assert [one["trace_id"] for one in found["traces"]] == [f"{1:032x}"]
        assert found["traces"][0]["spans"] == 2
        assert found["traces"][0]["name"] == "gateway"
        tree = (await client.get(f"/api/traces/{1:032x}/tree")).json()
        assert [node["depth"] for node in tree["nodes"]] == [0, 1]
        assert tree["services"] == ["gateway", "users"]
        spans = (await client.get(f"/api/traces/{1:032x}")).json()
        assert [one["name"] for one in spans] == ["gateway", "load"]
        services = (await client.get("/api/traces/services")).json()
        assert [one["service"] for one in services] == ["gateway", "users"]
        rows = new_rows()
        rig.traces.rows_into(rows)
        assert rows["headgate_traces_spans_total"] == [
            (["stored"], 2),
            (["dropped"], 0),
            (["refused"], 2),
            (["unwanted"], 0),
        ]
        shown = drawn(tree, with_attributes=True)
        assert "* gateway" in shown
        assert "*   load" in shown
        assert "failed" in shown
        assert f"{1:032x}" in listed(found["traces"])
        assert list(rig.traces.worries()) == []

    rig.run(work)


def test_searches_page_and_refuse_what_is_no_question(rig):
    async def work(client):
        rig.traces.put(
            [span(n, duration=n / 100, attributes={"tier": "gold"}) for n in range(1, 8)]
        )
        await rig.traces.settled()
        seen, cursor = [], ""
        while cursor is not None:
            got = await client.get("/api/traces", params={"limit": 3, "cursor": cursor})
            seen += [int(one["trace_id"], 16) for one in got.json()["traces"]]
            cursor = got.json()["next"]
        assert seen == [7, 6, 5, 4, 3, 2, 1]
        for params, count in (
            ({"min_duration": "50ms"}, 3),
            ({"attribute": "tier=gold", "service": "users"}, 7),
            ({"attribute": "tier=lead"}, 0),
            ({"since": "1700000005"}, 3),
            ({"until": "2023-11-14T22:13:23Z"}, 3),
            ({"since": "1h"}, 0),
            ({"errors": "true"}, 0),
            ({"q": "users"}, 7),
        ):
            got = await client.get("/api/traces", params=params)
            assert (params, len(got.json()["traces"])) == (params, count)
        for params in (
            {"status": "9xx"},
            {"attribute": "tier"},
            {"min_duration": "soon"},
            {"since": "yesterday"},
            {"since": "9999999999999"},
            {"since": "-"},
            {"cursor": "xyz"},
            {"cursor": "WzEsMl0"},
            {"cursor": "W251bGwsMV0"},
            {"limit": "0"},
        ):
            got = await client.get("/api/traces", params=params)
            assert (params, got.status_code in {200, 422}) == (params, True)
        assert (await client.get("/api/traces/xyz")).status_code == 422
        assert (await client.get(f"/api/traces/{99:032x}/tree")).status_code == 404

    rig.run(work)


def test_batches_come_in_both_forms_and_faulty_ones_are_refused(rig):
    async def work(client):
        packed = gzip.compress(encode([span(1)]))
        got = await client.post(
            "/v1/traces", content=packed, headers={**PROTOBUF, "content-encoding": "gzip"}
        )
        assert got.status_code == 200
        document = {
            "resourceSpans": [
                {
                    "resource": {
                        "attributes": [{"key": "service.name", "value": {"stringValue": "js"}}]
                    },
                    "scopeSpans": [
                        {
                            "spans": [
                                {
                                    "traceId": f"{2:032X}",
                                    "spanId": f"{7:016x}",
                                    "name": "click",
                                    "kind": "SPAN_KIND_CLIENT",
                                    "startTimeUnixNano": "1700000000000000000",
                                    "endTimeUnixNano": "1700000001000000000",
                                },
                                {"traceId": "0", "spanId": "1"},
                            ]
                        }
                    ],
                }
            ]
        }
        got = await client.post("/v1/traces", content=json.dumps(document), headers=JSON)
        assert got.json()["partialSuccess"]["rejectedSpans"] == "1"
        got = await post(
            client, [span(3), SpanRecord("0" * 32, "1" * 16, "", "x", "server", 1.0, 1.0)]
        )
        told = ExportTraceServiceResponse.FromString(got.content)
        assert told.partial_success.rejected_spans == 1
        await rig.traces.settled()
        found = (await client.get("/api/traces")).json()["traces"]
        assert {int(one["trace_id"], 16): one["service"] for one in found} == {
            1: "users",
            2: "js",
            3: "users",
        }
        bomb = gzip.compress(b"\0" * (MAX_BODY + 1000))
        for status, content, headers in (
            (400, b"\xff\xff", PROTOBUF),
            (400, b"[1]", JSON),
            (400, b"\xff{", JSON),
            (400, b"no gzip", {**PROTOBUF, "content-encoding": "gzip"}),
            (400, packed[:-10], {**PROTOBUF, "content-encoding": "gzip"}),
            (413, bomb, {**PROTOBUF, "content-encoding": "gzip"}),
            (413, b"\0" * (5 * 1024 * 1024), PROTOBUF),
            (415, b"", {"content-type": "text/plain"}),
            (415, b"", {**PROTOBUF, "content-encoding": "br"}),
            (401, b"", {**PROTOBUF, "authorization": "Bearer no"}),
        ):
            got = await client.post("/v1/traces", content=content, headers=headers)
            assert (status, len(content), got.status_code) == (status, len(content), status)

    rig.run(work)


def test_off_takes_nothing_and_says_so(rig):
    async def work(client):
        assert (await post(client, [span()])).status_code == 404
        got = await client.get("/api/traces")
        assert got.status_code == 404
        assert "tracing.store" in got.json()["detail"]
        assert not rig.traces.path.exists()

    rig.run(work, Config.model_validate({"tracing": False}))


def test_undecided_spans_are_stored_with_those_that_are_kept(rig):
    async def work(client):
        await post(
            client,
            [span(1, 2, 1, attributes={UNDECIDED: True}), span(2, attributes={UNDECIDED: True})],
        )
        rig.traces.heard(0, {"event": "spans", "spans": [span(1, 1).to_json()]})
        await rig.traces.settled()
        found = (await client.get("/api/traces")).json()["traces"]
        assert [(int(one["trace_id"], 16), one["spans"]) for one in found] == [(1, 2)]

    rig.run(work)


def test_a_full_queue_drops_and_counts(tmp_path):
    traces = department(tmp_path, queue_batches=2)
    traces.take(Config())  # no thread takes anything out
    assert [traces.put([span(n)]) for n in (1, 2, 3)] == [True, False, False]
    assert traces.dropped == 2


def test_a_spoilt_store_is_put_aside_and_the_rest_goes_on(rig):
    rig.traces.path.parent.mkdir()
    rig.traces.path.write_bytes(b"no database at all" * 500)

    async def work(client):
        assert (await post(client, [span()])).status_code == 200
        await rig.traces.settled()
        assert len((await client.get("/api/traces")).json()["traces"]) == 1
        worry = next(iter(rig.traces.worries()))
        assert "spoilt" in worry
        assert list(rig.traces.path.parent.glob("*.spoilt-*"))

    rig.run(work)


def test_a_store_that_cannot_be_written_is_a_worry_until_it_can(rig, monkeypatch):
    async def work(client):
        await post(client, [span(1)])
        await rig.traces.settled()

        def full(_spans):
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(rig.traces._store, "put", full)
            await post(client, [span(2), span(3)])
            await rig.traces.settled()
        assert "disk is full" in next(iter(rig.traces.worries()))
        assert rig.traces.dropped == 2
        assert len((await client.get("/api/traces")).json()["traces"]) == 1
        await post(client, [span(4)])
        await rig.traces.settled()
        assert list(rig.traces.worries()) == []
        assert rig.traces.stored == 2

    rig.run(work)


def test_no_folder_is_a_worry_and_control_goes_on(rig):
    rig.traces.path.parent.write_text("a file where the folder should be")

    async def work(client):
        await post(client, [span(1)])
        await rig.traces.settled()
        assert "not kept" in next(iter(rig.traces.worries()))
        assert (await client.get("/api/traces")).status_code == 404
        assert rig.traces.dropped == 1

    rig.run(work)


def test_traces_outlive_a_restart_and_a_reload_takes_effect(tmp_path):
    async def work(client):
        first.traces.put([span(1, start=time.time())])
        await first.traces.settled()
        smaller = Config.model_validate({"tracing": {"store": {"size": "2MB"}}})
        first.traces.take(smaller)
        first.traces.put([span(2, start=time.time())])
        await first.traces.settled()
        store = first.traces._store
        assert store is not None and store.rules.max_bytes == 2 * 1024 * 1024

    first = Rig(tmp_path)
    first.run(work)

    async def again(client):
        found = await second.traces.ask(lambda db: find(db, TraceQuery()))
        assert len(found.traces) == 2

    second = Rig(tmp_path)
    second.run(again)


def test_statements_of_a_route_are_added_up(rig):
    async def work(client):
        said = {"db.query.text": "SELECT n FROM t WHERE id = 1", "db.system.name": "sqlite"}
        own = span(1, 1, name="gateway", service="gateway", attributes={"headgate.route": "pay"})
        await post(client, [own, *(span(1, 2 + n, 1, attributes=said) for n in range(6))])
        await rig.traces.settled()
        found = (await client.get("/api/traces/queries", params={"route": "pay"})).json()
        assert [(one["calls"], one["repeated"], one["system"]) for one in found] == [
            (6, 6, "sqlite")
        ]
        assert "ran 6 times under one span" in statements_listed(found)
        assert (await client.get("/api/traces/queries", params={"route": "x"})).json() == []
        assert (await client.get("/api/traces/queries", params={"since": "?"})).status_code == 422

    rig.run(work)


def test_what_services_say_is_not_for_the_terminal(rig):
    tree = {
        "trace_id": "1" * 32,
        "start": 0.0,
        "duration_s": 0.0,
        "services": ["a\x1b[31m"],
        "nodes": [
            {
                "span": {
                    "name": "x\x1b]0;y\x07" * 20,
                    "start": 0.0,
                    "duration_s": 5.0,
                    "status": "error",
                    "service": "\n",
                    "kind": "server",
                    "attributes": {"k\r": "v\x9b"},
                    "events": [{"at": 0.0, "name": "e\t", "attributes": {}}],
                },
                "depth": 500,
                "self_s": 0.0,
                "is_critical": False,
                "is_torn": True,
                "children": [],
            }
        ],
    }
    shown = drawn(tree, with_attributes=True)
    assert not {"\x1b", "\x07", "\r", "\x9b", "\t"} & set(shown)
