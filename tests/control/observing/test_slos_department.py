"""The department of budgets and its part of the admin API, over a history that was made up."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI

from headgate.cli.slo import bar, table
from headgate.config.budgets import SloSpec, generated_rules
from headgate.config.history import HistorySpec
from headgate.control.admin.capacity import add_capacity
from headgate.control.admin.problem import install
from headgate.control.admin.slos import add_slos
from headgate.control.observing import Surroundings
from headgate.control.observing.capacity import Capacity
from headgate.control.observing.history import HistoryOff
from headgate.control.observing.slos import Slos
from headgate.observe import METRICS, new_rows
from headgate.observe.histogram import SHOWN_BOUNDS
from headgate.observe.query import Series

NOW = 1_790_000_000.0
DAYS = 3
STEP = 60
_REQUESTS = "headgate_http_requests_total"
_DURATIONS = "headgate_http_request_duration_seconds"
_UPSTREAM = "headgate_upstream_duration_seconds"
EVIL = '<script>alert("x")</script>'


class Past:
    """A history of rows of the same moments."""

    def __init__(self) -> None:
        self.times = NOW - STEP * np.arange(DAYS * 86400 // STEP - 1, -1, -1.0)
        self.rows: list[Series] = []

    def add(self, name: str, values, **labels: str) -> None:
        line = np.broadcast_to(np.asarray(values, dtype=float), self.times.shape)
        self.rows.append(Series({"__name__": name, **labels}, self.times, line))

    def _meant(self, name, matchers):
        return [
            row
            for row in self.rows
            if row.labels["__name__"] == name and all(one.is_met(row.labels) for one in matchers)
        ]

    def series(self, name, matchers, start, end):
        return self._meant(name, matchers)

    def select(self, name, matchers, start, end, *, each_s=1.0):
        inside = (self.times >= start) & (self.times <= end)
        return [
            Series(row.labels, row.times[inside], row.values[inside])
            for row in self._meant(name, matchers)
            if inside.any()
        ]


def filled() -> Past:
    """Three days by the minute: about 1200 requests a minute of which two fail; all fail for ten
    minutes, twelve hours before the end. One in ten takes longer than 250 ms.
    """
    past = Past()
    ago = NOW - past.times
    rise = 600.0 * (1 + np.arange(len(ago)) % 3)
    share = np.where((ago >= 43_200) & (ago < 43_800), 1.0, 1 / 600)
    total = np.cumsum(rise)
    of = {"route": EVIL, "service": "shop"}
    past.add(_REQUESTS, np.cumsum(rise * (1 - share)), **of, method="GET", code="200")
    past.add(_REQUESTS, np.cumsum(rise * share), **of, method="GET", code="502")
    for name in (_DURATIONS, _UPSTREAM):
        for bound in SHOWN_BOUNDS:
            part = 0.0 if bound < 0.1 else 0.9 if bound < 0.5 else 1.0
            past.add(f"{name}_bucket", total * part, **of, le=f"{bound:g}")
        past.add(f"{name}_count", total, **of)
    past.add("headgate_workers", 2.0)
    for instance in ("http://a:1", "http://b:1"):
        past.add("headgate_instance_usable", 2.0, service="shop", service_instance=instance)
    past.add("headgate_connections", 100 + np.arange(len(ago)) / 9, listener="x")
    past.add("headgate_system_cpu_usage_ratio", 0.3)
    past.add("headgate_system_memory_total_bytes", 8e9)
    past.add("headgate_system_memory_available_bytes", 4e9)
    past.add("headgate_system_disk_total_bytes", 1e11, path="/d")
    past.add("headgate_system_disk_free_bytes", 4e10 - 1e10 * (DAYS - ago / 86400), path="/d")
    return past


@pytest.fixture(scope="module")
def store() -> Past:
    return filled()


def slo(**more) -> SloSpec:
    said = {
        "name": "shop",
        "route": EVIL,
        "availability": "99%",
        "latency": {"p95": "250ms", "p99": "1s"},
        "window": "2d",
        "description": EVIL,
    }
    return SloSpec.model_validate({**said, **more})


def config(*slos: SloSpec, capacity=None) -> SimpleNamespace:
    from headgate.config.budgets import CapacitySpec

    return SimpleNamespace(
        slos=slos,
        capacity=capacity if capacity is not None else CapacitySpec(),
        history=HistorySpec(every="60s"),
        routes=(SimpleNamespace(name=EVIL, slo=None),),
        services={"shop": SimpleNamespace(slo=None)},
        limits=SimpleNamespace(connections=1000),
    )


class Marks:
    def __init__(self, store) -> None:
        self.held = store
        self.said: list[tuple[str, str]] = []

    @property
    def store(self):
        if self.held is None:
            raise HistoryOff("there is no history")
        return self.held

    def mark(self, at, kind, text, attributes=None):
        self.said.append((kind, text))


class Book:
    def __init__(self) -> None:
        self.rows: list[Any] = []

    def record(self, *row, **more) -> None:
        self.rows.append((row, more))


@asynccontextmanager
async def running(tmp_path, store, said):
    around = Surroundings(tmp_path, None, None, None, None)  # type: ignore[arg-type]
    history = Marks(store)
    made = Slos(around, history, wall=lambda: NOW, turn_s=3600)  # type: ignore[arg-type]
    ahead = Capacity(around, history, wall=lambda: NOW, first_s=3600)  # type: ignore[arg-type]
    for one in (made, ahead):
        one.start()
        one.take(said)
    app = FastAPI()
    install(app)
    control = SimpleNamespace(slos=made, capacity=ahead, auditing=Book())
    add_slos(app.router, control)
    add_capacity(app.router, control)
    transport = httpx.ASGITransport(app)
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            yield SimpleNamespace(
                slos=made, capacity=ahead, client=client, history=history, book=control.auditing
            )
    finally:
        await made.close()
        await ahead.close()


def test_objectives_are_judged_and_excluded_time_corrects_them(tmp_path, store):
    async def run() -> None:
        async with running(tmp_path, store, config(slo())) as rig:
            (before,) = (await rig.client.get("/api/slos")).json()
            assert before["objectives"] == []
            await rig.slos.judge()
            (said,) = (await rig.client.get("/api/slos")).json()
            by_name = {one["name"]: one for one in said["objectives"]}
            assert list(by_name) == ["availability", "p95", "p99"]
            first = by_name["availability"]
            outage = 10 / (2 * 24 * 60)
            assert 1 - first["ratio"] == pytest.approx(1 / 600 + outage, rel=0.05)
            assert first["budget_left"] == pytest.approx(1 - (1 / 600 + outage) / 0.01, abs=0.02)
            assert first["burn"]["1h"] == pytest.approx(1 / 6, rel=0.02)
            assert first["burn"]["1d"] == pytest.approx(1 / 6 + 10 / 14.4, rel=0.06)
            assert "3d" not in first["burn"]
            assert first["known_share"] == pytest.approx(1, abs=0.01)
            assert by_name["p95"]["state"] == "missed"
            assert by_name["p95"]["budget_left"] == pytest.approx(-1, abs=0.02)
            assert by_name["p99"]["state"] == "met"
            assert said["quantiles_s"]["p50"] == pytest.approx(0.07, abs=0.04)

            order = {"slo": "shop", "start": NOW - 43_900, "end": NOW - 43_100, "why": "moved"}
            made = await rig.client.post("/api/slos/exclusions", json=order)
            assert made.status_code == 201
            await rig.slos.judge()
            (after,) = (await rig.client.get("/api/slos")).json()
            first = after["objectives"][0]
            assert 1 - first["ratio"] == pytest.approx(1 / 600, rel=0.05)
            assert first["excluded_s"] == 800
            assert rig.history.said == [("slo", "does not count: moved")]
            assert rig.book.rows[0][0][0] == "slo.excluded"

            detail = (await rig.client.get("/api/slos/shop")).json()
            assert len(detail["left"]["availability"]) > 100
            rows = new_rows()
            rig.slos.rows_into(rows)
            assert all(name in METRICS for name in rows if rows[name])
            burn = {tuple(key): value for key, value in rows["headgate_slo_burn_rate"]}
            assert burn["shop", "availability", "1h"] == pytest.approx(1 / 6, rel=0.02)

            # A restart would know of it; taken back, it counts again.
            ident = made.json()["id"]
            kept = json.loads((tmp_path / "slos" / "exclusions.json").read_text())
            assert [one["id"] for one in kept] == [ident]
            assert (tmp_path / "slos" / "exclusions.json").stat().st_mode & 0o777 == 0o600
            gone = await rig.client.delete(f"/api/slos/exclusions/{ident}")
            assert gone.json()["why"] == "moved"
            assert (await rig.client.get("/api/slos/exclusions")).json() == []

    asyncio.run(run())


def test_reports_are_pages_and_tables_and_escape_what_they_show(tmp_path, store):
    async def run() -> None:
        async with running(tmp_path, store, config(slo())) as rig:
            asked = {"period": "2d", "format": "html", "zone": "Europe/Berlin"}
            page = await rig.client.get("/api/slos/report", params=asked)
            assert page.status_code == 200, page.text
            assert "<script" not in page.text
            assert "&lt;script&gt;" in page.text
            assert page.text.count("<svg") >= 3
            assert "sandbox" in page.headers["content-security-policy"]
            assert "NaN" not in page.text
            text = (
                await rig.client.get("/api/slos/report", params={**asked, "format": "csv"})
            ).text
            lines = text.split("\r\n")
            assert lines[0].startswith("slo,of,objective,target")
            assert lines[1].split(",")[0] == "shop"
            said = (await rig.client.get("/api/slos/report", params={"period": "2d"})).json()
            (one,) = said["slos"]
            assert one["objectives"][0]["verdict"] == "met"
            assert one["objectives"][1]["verdict"] == "missed"
            assert len(one["objectives"][0]["days"]) == 3
            whole = sum(day["events"] for day in one["objectives"][0]["days"])
            assert whole == pytest.approx(one["objectives"][0]["events"])

    asyncio.run(run())


class Tags(HTMLParser):
    """Whether every tag that opens is closed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_well_formed(tmp_path, store):
    async def run() -> str:
        async with running(tmp_path, store, config(slo(), slo(name="idle", route="none"))) as rig:
            asked = {"period": "2d", "format": "html"}
            return (await rig.client.get("/api/slos/report", params=asked)).text

    tags = Tags()
    tags.feed(asyncio.run(run()))
    tags.close()
    assert tags.open == []


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/api/slos/nothing", None, 404),
        ("GET", "/api/slos/report?period=soon", None, 422),
        ("GET", "/api/slos/report?zone=Mars", None, 422),
        ("GET", "/api/slos/report?slo=nothing", None, 404),
        ("GET", "/api/slos/report?format=pdf", None, 422),
        ("POST", "/api/slos/exclusions", {}, 422),
        ("POST", "/api/slos/exclusions", {"for": "x"}, 422),
        ("POST", "/api/slos/exclusions", {"for": "1h", "end": 5}, 422),
        ("POST", "/api/slos/exclusions", {"start": 10, "end": 5}, 422),
        ("POST", "/api/slos/exclusions", {"start": 10, "end": 20}, 422),
        ("POST", "/api/slos/exclusions", {"for": "1h", "slo": "nothing"}, 404),
        ("DELETE", "/api/slos/exclusions/none", None, 404),
        ("GET", "/api/capacity", None, 404),
    ],
    ids=[
        "unknown", "period", "zone", "only", "form", "empty", "duration", "both", "backwards",
        "long-ago", "of-none", "no-such", "no-forecast",
    ],
)  # fmt: skip
def test_what_cannot_be_is_said(tmp_path, method, path, body, status):
    async def run() -> None:
        async with running(tmp_path, None, config(slo())) as rig:
            answer = await rig.client.request(method, path, json=body)
            assert answer.status_code == status, answer.text
            assert answer.json()["detail"]

    asyncio.run(run())


def test_without_a_history_it_is_a_worry_and_nothing_ends(tmp_path):
    async def run() -> None:
        async with running(tmp_path, None, config(slo())) as rig:
            await rig.slos.judge()
            assert list(rig.slos.worries()) == ["slos: there is no history to judge by"]
            assert await rig.capacity.look() is None
            assert list(rig.capacity.worries())
            assert (await rig.client.get("/api/slos/shop")).status_code == 404

    asyncio.run(run())


@pytest.mark.parametrize(
    "text", ["{", "[1]", '[{"id": "x"}]', "\xff", "[" * 100_000], ids=str.__len__
)
def test_a_spoilt_file_is_moved_aside_and_told(tmp_path, text):
    folder = tmp_path / "slos"
    folder.mkdir()
    (folder / "exclusions.json").write_bytes(text.encode("latin-1"))

    async def run() -> None:
        async with running(tmp_path, None, config(slo())) as rig:
            assert rig.slos.exclusions == {}
            assert list(rig.slos.worries())
            rig.slos.exclude("", NOW, NOW + 60, "", "ann")
            assert len(json.loads((folder / "exclusions.json").read_text())) == 1

    asyncio.run(run())


def test_a_reload_keeps_what_did_not_change(tmp_path, store):
    async def run() -> None:
        async with running(tmp_path, store, config(slo(), slo(name="other", latency=None))) as rig:
            await rig.slos.judge()
            assert set(rig.slos.standings) == {"shop", "other"}
            rig.slos.take(config(slo(), slo(name="other", latency=None, availability="98%")))
            assert set(rig.slos.standings) == {"shop"}

    asyncio.run(run())


def test_forecasts_say_when_the_disk_is_full_and_what_a_service_needs(tmp_path, store):
    async def run() -> None:
        async with running(tmp_path, store, config(slo())) as rig:
            assert await rig.capacity.look() is not None
            said = (await rig.client.get("/api/capacity")).json()
            lines = {(line["resource"], line["name"]): line for line in said["lines"]}
            disk = lines["disk", "/d"]
            # 1e10 is free at the end, and 1e10 a day is used up.
            assert disk["full"]["likely_s"] == pytest.approx(86400, rel=0.2)
            assert lines["cpu", ""]["now"] == pytest.approx(0.3)
            assert lines["memory", ""]["full"]["likely_s"] is None
            assert lines["connections", ""]["limit"] == 2000
            assert lines["requests", "service shop"]["now"] == pytest.approx(20, rel=0.6)
            assert lines["requests", f"route {EVIL}"]["points"]["middle"]
            (service,) = said["services"]
            assert service["instances"] == 2
            assert service["wanted"] >= 2
            assert not service["is_limit_seen"]
            rows = new_rows()
            rig.capacity.rows_into(rows)
            full = {tuple(key): value for key, value in rows["headgate_capacity_full_seconds"]}
            assert full["disk", "/d", "likely"] == pytest.approx(86400, rel=0.25)

            from headgate.cli.capacity import lines_of, plot

            shown = "\n".join(lines_of(said))
            assert "disk /d" in shown
            assert "at most" in shown
            drawn = "\n".join(plot(lines["requests", "service shop"], width=80))
            assert "█" in drawn
            few = (await rig.client.get("/api/capacity?resource=disk&points=false")).json()["lines"]
            assert [line["points"] for line in few] == [None]

    asyncio.run(run())


def test_rules_of_a_file_follow_from_its_promises():
    names = {rule.name for rule in generated_rules(config(slo(window="30d")))}  # type: ignore[arg-type]
    assert "slo-shop-availability-fast" in names
    assert not generated_rules(config(slo(alerts=False), capacity=False))  # type: ignore[arg-type]


def test_the_table_shows_what_is_left():
    objective = {
        "name": "availability", "target": 0.999, "ratio": 0.99996, "budget_left": 0.52,
        "burn": {"1h": 3.04, "6h": None}, "lasts_s": 86400.0 * 5, "state": "met",
    }  # fmt: skip
    said: list[dict[str, Any]] = [
        {"name": "shop", "objectives": [objective]},
        {"name": "new\x1b[31m", "objectives": []},
    ]
    lines = table(said)
    assert "99.996%" in lines[1]
    assert "██████" in lines[1]
    assert "52%" in lines[1]
    assert "3.0x / -" in lines[1]
    assert "5 d" in lines[1]
    assert "\x1b" not in "\n".join(lines)
    assert "not judged yet" in lines[2]
    assert bar(-1.0) == "░" * 12
    assert bar(1.0) == "█" * 12
    assert bar(None) == "·" * 12
    assert table([])[0].startswith("no objectives")
