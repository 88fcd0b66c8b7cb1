"""The endpoints of alerts, with a department that judges nothing by itself."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI

from headgate.config.alerting import AlertsSpec
from headgate.control.admin import problem
from headgate.control.admin.alerts import add_alerts
from headgate.control.observing.alerts import Alerts
from headgate.control.observing.observing import Surroundings


@dataclass(frozen=True)
class S:
    value: float
    labels: dict[str, str] = field(default_factory=dict)


class Client:
    def __init__(self, app: FastAPI) -> None:
        self._app = app

    def request(self, method: str, path: str, json: Any = None) -> httpx.Response:
        async def go() -> httpx.Response:
            transport = httpx.ASGITransport(self._app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://gw") as client:
                return await client.request(method, path, json=json)

        return asyncio.run(go())

    def get(self, path: str) -> httpx.Response:
        return self.request("GET", path)

    def post(self, path: str, json: Any) -> httpx.Response:
        return self.request("POST", path, json)

    def delete(self, path: str) -> httpx.Response:
        return self.request("DELETE", path)


class Book:
    def __init__(self) -> None:
        self.actions: list[tuple[str, str]] = []

    def record(self, action: str, _actor: str, *, target: str = "", **_more: Any) -> None:
        self.actions.append((action, target))


@pytest.fixture
def rig(tmp_path):
    around = Surroundings(tmp_path, None, None, None, None)  # type: ignore[arg-type]
    department = Alerts(around, lambda _expr, _at: [S(15.0)])
    spec = AlertsSpec.model_validate(
        {"rules": {"queue": {"expr": "x", "warning": 10, "for": 0}}, "route": {"group_wait": 0}}
    )
    department.take(SimpleNamespace(alerts=spec))  # type: ignore[arg-type]
    watched = department.watching.rules["queue"]
    watched.judge.judge([S(15.0, {"q": "mail"}), S(5.0)], time.time())
    book = Book()
    app = FastAPI()
    router = APIRouter()
    add_alerts(router, SimpleNamespace(alerts=department, auditing=book))
    app.include_router(router)
    problem.install(app)
    return Client(app), department, book


def test_alerts_are_listed_and_narrowed(rig):
    client, _, _ = rig
    said = client.get("/api/alerts").json()
    assert (said["total"], said["counts"]) == (1, {"firing": 1})
    (one,) = said["alerts"]
    assert (one["rule"], one["level"], one["value"]) == ("queue", "warning", 15.0)
    assert client.get("/api/alerts?match=q%3Dmail").json()["total"] == 1
    assert client.get("/api/alerts?match=q%3Dother").json()["total"] == 0
    assert client.get("/api/alerts?state=pending").json()["total"] == 0
    assert client.get(f"/api/alerts/{one['id']}").json()["id"] == one["id"]


def test_rules_have_their_state(rig):
    said = {each["name"]: each for each in rig[0].get("/api/alerts/rules").json()}
    assert said["queue"]["state"] == "firing"
    assert said["cpu"]["built_in"]
    assert said["cpu"]["thresholds"] == {"warning": 0.7, "critical": 0.9}


def test_a_silence_comes_and_goes_and_is_in_the_book(rig):
    client, _, book = rig
    made = client.post("/api/alerts/silences", json={"matchers": ["q=mail"], "for": "5min"})
    assert made.status_code == 201
    ident = made.json()["id"]
    assert [each["id"] for each in client.get("/api/alerts/silences").json()] == [ident]
    assert client.get(f"/api/alerts/silences/{ident}").json()["active"]
    assert client.delete(f"/api/alerts/silences/{ident}").status_code == 200
    assert client.delete(f"/api/alerts/silences/{ident}").status_code == 404
    assert book.actions == [("alerts.silenced", ident), ("alerts.unsilenced", ident)]


def test_an_alert_is_acknowledged_by_name(rig):
    client, _, book = rig
    ident = client.get("/api/alerts").json()["alerts"][0]["id"]
    said = client.post(f"/api/alerts/{ident}/ack", json={"by": "ann"}).json()
    assert said["acknowledged_by"] == "ann"
    assert book.actions == [("alerts.acknowledged", ident)]


def test_a_replay_is_told(rig):
    said = rig[0].get("/api/alerts/rules/queue/replay?since=10min&step=10s").json()
    assert len(said["firings"]) == 1
    assert said["thresholds"] == {"warning": 10.0}


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/api/alerts?state=odd", None, 422),
        ("GET", "/api/alerts?match=%00", None, 422),
        ("GET", "/api/alerts/none", None, 404),
        ("GET", "/api/alerts/rules/none/replay", None, 404),
        ("GET", "/api/alerts/rules/queue/replay?since=forever", None, 422),
        ("GET", "/api/alerts/rules/queue/replay?since=9999d", None, 422),
        ("POST", "/api/alerts/none/ack", {}, 404),
        ("POST", "/api/alerts/test", {"receiver": "nobody"}, 404),
        ("POST", "/api/alerts/silences", {"matchers": []}, 422),
        ("POST", "/api/alerts/silences", {"matchers": ["a=~("]}, 422),
        ("POST", "/api/alerts/silences", {"matchers": ["a!=b"]}, 422),
        ("POST", "/api/alerts/silences", {"matchers": ["a=b"], "for": "0s"}, 422),
        ("POST", "/api/alerts/silences", {"matchers": ["a=b"], "starts": 1}, 422),
        ("POST", "/api/alerts/silences", {"matchers": ["a=b"], "more": 1}, 422),
        ("GET", "/api/alerts/notifications?limit=0", None, 422),
        ("GET", "/api/alerts/silences/none", None, 404),
    ],
)  # fmt: skip
def test_what_cannot_be_is_a_problem(rig, method, path, body, status):
    got = rig[0].request(method, path, json=body)
    assert got.status_code == status, got.text
    assert got.headers["content-type"] == "application/problem+json"


def test_without_a_store_there_are_no_notifications(rig):
    assert rig[0].get("/api/alerts/notifications").json() == {"notifications": [], "next": None}
