"""The whole way: gateway, two services, stores, alerts; what one shows is found from the other."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest

from headgate.control.client import NothingRuns, Refused, Silent
from tests.control.running import ENV, wait_until
from tests.control.serving import Serving
from tests.ports import free_port

PATIENCE_S = 60.0
TOKEN = "sent-by-services-only"
FAILING = (
    'sum by (route) (rate(headgate_http_requests_total{code=~"5..", route!=""}[5s]))'
    ' / sum by (route) (rate(headgate_http_requests_total{route!=""}[5s]))'
)


class Hook:
    """Whoever is told of alerts."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        told = self.told

        class Taking(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                told.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Taking)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/alerts"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def of(self, status: str, rule: str) -> dict[str, Any] | None:
        for said in self.told:
            for alert in said["alerts"]:
                if (said["status"], alert["labels"]["alertname"]) == (status, rule):
                    return dict(alert)
        return None


class Way:
    """The gateway, the services behind it, and who is told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.gateway = Serving(folder)
        self.hook = Hook()
        self.ports = {"shop": free_port(), "stock": free_port()}
        self.services: list[subprocess.Popen[bytes]] = []
        self.access = folder / "access.log"

    def start(self) -> None:
        gateway = self.gateway
        admin = f"http://127.0.0.1:{gateway.admin_port}"
        gateway.write(
            admin={
                "bind": f"127.0.0.1:{gateway.admin_port}",
                "tokens": [
                    {
                        "name": "services",
                        "role": "ingest",
                        "hash": f"sha256:{hashlib.sha256(TOKEN.encode()).hexdigest()}",
                    }
                ],
            },
            services={"shop": f"http://127.0.0.1:{self.ports['shop']}"},
            routes=[
                {"name": "orders", "match": {"path": "/orders/"}, "to": "shop"},
                {"name": "fixed", "match": {"path": "/"}, "respond": {"body": "here"}},
            ],
            access_log={"format": "json", "path": str(self.access)},
            tracing={"sample": "100%"},
            logging={"store": {"access": "all"}},
            history={"scrape": [{"service": "shop", "every": "1s"}]},
            alerts={
                "every": "1s",
                "url": admin,
                "built_in": False,
                "rules": {
                    "orders-fail": {
                        "expr": FAILING,
                        "critical": "10%",
                        "unit": "percent",
                        "for": "0s",
                        "flapping": False,
                        "summary": "{route}: {value} of the requests fail",
                    }
                },
                "receivers": {"team": {"webhook": self.hook.url}},
                "route": {"to": "team", "group_wait": "0s", "group_interval": "1s"},
            },
        )
        env = {
            **ENV,
            "SHOP_ADMIN": admin,
            "SHOP_TOKEN": TOKEN,
            "SHOP_STOCK": f"http://127.0.0.1:{self.ports['stock']}",
        }
        gateway.start(wait=False)
        self.until(lambda: gateway.health().get("workers_ready") == 2)
        # Before that services would find nobody, and try again later and later.
        for name, port in self.ports.items():
            with (self.folder / f"{name}.log").open("wb") as out:
                command = [sys.executable, "-m", "tests.e2e.shop_services", name, str(port)]
                self.services.append(
                    subprocess.Popen(command, env=env, stdout=out, stderr=subprocess.STDOUT)
                )
        for port in self.ports.values():
            self.until(lambda port=port: not gateway.refuses(port))
        self.until(lambda: self.order()[0] == 200)

    def stop(self) -> None:
        for service in self.services:
            service.kill()
            service.wait()
        self.gateway.stop()
        self.hook.close()

    # ---- asking

    def until(self, what: Any) -> Any:
        for service in self.services:
            assert service.poll() is None, self.said()
        return wait_until(what, PATIENCE_S)

    def said(self) -> str:
        """What everybody has said, for a test that fails."""
        own = "\n".join((self.folder / f"{name}.log").read_text() for name in self.ports)
        return f"{self.gateway.said}\n{own}"

    def order(self, number: int = 7) -> tuple[int, str]:
        """Ask for an order; the status, and the id of the request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.gateway.port, timeout=30)
        try:
            connection.request("GET", f"/orders/{number}", headers={"connection": "close"})
            answer = connection.getresponse()
            answer.read()
            return answer.status, answer.headers["x-request-id"]
        finally:
            connection.close()

    def feel(self, status: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.ports["stock"], timeout=30)
        try:
            connection.request("PUT", f"/mood/{status}")
            assert connection.getresponse().status == 204
        finally:
            connection.close()

    def mark(self, text: str) -> None:
        """Say that there was a deploy, with the token that services have."""
        connection = http.client.HTTPConnection("127.0.0.1", self.gateway.admin_port, timeout=30)
        try:
            said = json.dumps({"kind": "deploy", "text": text})
            head = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
            connection.request("POST", "/api/markers", said, head)
            assert connection.getresponse().status == 201
        finally:
            connection.close()

    def ask(self, path: str, **query: Any) -> Any:
        """The admin API; nothing while control is away."""
        try:
            return self.gateway.ask(f"{path}?{urlencode(query)}" if query else path)
        except (NothingRuns, Silent, Refused, OSError):
            return None

    def line_of(self, request_id: str) -> dict[str, Any]:
        """The line of the access log of a request, once it is written."""

        def found() -> dict[str, Any] | None:
            for text in self.access.read_text().splitlines():
                if f'"{request_id}"' in text:
                    line: dict[str, Any] = json.loads(text)
                    return line
            return None

        line: dict[str, Any] = self.until(found)
        return line

    def whole_trace(self, trace_id: str) -> list[dict[str, Any]]:
        """All spans of a trace, once gateway, shop and stock have sent theirs."""

        def found() -> Any:
            spans = self.ask(f"/api/traces/{trace_id}")
            return spans if {each["service"] for each in spans or ()} >= EVERYBODY else None

        spans: list[dict[str, Any]] = self.until(found)
        return spans

    def value(self, expression: str) -> float | None:
        said = self.ask("/api/history/query", query=expression)
        rows = said["data"]["result"] if said else []
        return float(rows[0]["value"][1]) if rows else None


EVERYBODY = {"headgate", "shop", "stock"}


@pytest.fixture(scope="module")
def way(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Way]:
    made = Way(tmp_path_factory.mktemp("way"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def order(way: Way) -> dict[str, Any]:
    """The line of an order that was asked for, and is in no cache."""
    status, request_id = way.order(8)
    assert status == 200, way.said()
    return way.line_of(request_id)


def children(spans: list[dict[str, Any]], parent: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in spans if each["parent_id"] == parent["span_id"]}


def test_one_trace_leads_from_the_gateway_to_the_last_service(way, order):
    spans = way.whole_trace(order["trace_id"])
    (root,) = [each for each in spans if not each["parent_id"]]
    assert (root["service"], root["kind"], root["span_id"]) == (
        "headgate", "server", order["span_id"],
    )  # fmt: skip
    attempt = next(each for each in children(spans, root).values() if each["kind"] == "client")
    server = children(spans, attempt)["GET /orders/{number}"]
    assert (server["service"], server["kind"]) == ("shop", "server")
    below = children(spans, server)
    names = [each["name"] for each in spans]
    assert "cache load" in below, names
    (called,) = [each for each in below.values() if "/stock/" in str(each["attributes"])]
    assert called["kind"] == "client"
    last = children(spans, called)["GET /stock/{item}"]
    assert (last["service"], last["attributes"]["http.response.status_code"]) == ("stock", 200)
    asked = [each for each in spans if "db.system.name" in each["attributes"]]
    assert any("SELECT" in str(each["attributes"]).upper() for each in asked), names
    assert all(each["service"] == "shop" for each in asked)
    known = {each["span_id"] for each in spans}
    assert all(not each["parent_id"] or each["parent_id"] in known for each in spans)


def test_the_command_draws_the_tree(way, order):
    way.whole_trace(order["trace_id"])
    done = way.gateway.command("traces", "show", order["trace_id"])
    assert done.returncode == 0, done.stderr
    lines = [re.sub(r"\s+\d.*", "", line) for line in done.stdout.splitlines()]
    print(done.stdout)
    assert "headgate, shop, stock" in done.stdout.splitlines()[0]
    assert any(line.endswith("GET /orders/{number}") for line in lines)
    assert any(line.endswith("GET /stock/{item}") for line in lines)
    found = way.gateway.command("traces", "list", "--service", "stock", "--json")
    assert order["trace_id"] in [each["trace_id"] for each in json.loads(found.stdout)["traces"]]


def test_lines_of_all_are_found_from_the_trace(way, order):
    def found() -> Any:
        done = way.gateway.command("logs", "--trace", order["trace_id"], "--json")
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        whose = {line.get("service") for line in lines}
        paths = {line.get("path") for line in lines}
        return lines if {"shop", "stock"} <= whose and "/orders/8" in paths else None

    lines = way.until(found)
    said = {line.get("message"): line for line in lines}
    assert said["an order is asked for"]["order"] == 8
    assert said["counted"]["service"] == "stock"
    (access,) = [line for line in lines if line.get("path") == "/orders/8"]
    assert (access["request_id"], access["span_id"]) == (order["request_id"], order["span_id"])
    spans = {each["span_id"] for each in way.whole_trace(order["trace_id"])}
    assert {line["span_id"] for line in lines} <= spans


@pytest.mark.parametrize("whose", ["gateway", "shop"])
def test_an_exemplar_names_a_trace_that_is_kept(way, order, whose):
    port, token = way.gateway.admin_port, way.gateway.state.token()
    if whose == "shop":
        port, token = way.ports["shop"], ""

    def exemplars() -> list[str]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            asked = {"accept": "application/openmetrics-text", "authorization": f"Bearer {token}"}
            connection.request("GET", "/metrics", headers=asked)
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        assert answer.status == 200, text
        assert text.endswith("# EOF\n")
        return re.findall(r'# \{trace_id="([0-9a-f]{32})"', text)

    found = way.until(exemplars)
    assert way.until(lambda: way.ask(f"/api/traces/{found[-1]}"))


def test_the_history_has_figures_of_gateway_and_service(way, order):
    p95 = 'percentile(0.95, headgate_http_request_duration_seconds{route="orders"}, 5m)'
    way.until(lambda: way.order()[0] == 200 and (way.value(p95) or 0) > 0)
    viewed = 'max_over_time(shop_orders_viewed_total{service="shop", kind="web"}[5m])'
    way.until(lambda: (way.value(viewed) or 0) >= 2)
    done = way.gateway.command("history", p95, "--since", "1m")
    assert done.returncode == 0, done.stderr


def test_control_killed_hard_takes_nothing_with_it(way, order):
    way.whole_trace(order["trace_id"])
    before = way.gateway.control_pid()
    workers = sorted(way.gateway.worker_pids())
    os.kill(before, 9)
    status, request_id = way.order(7)  # while control is away
    assert status == 200
    way.until(lambda: way.gateway.control_pid() not in {0, before})
    way.until(lambda: sorted(way.gateway.worker_pids()) == workers)
    assert len(way.whole_trace(order["trace_id"])) >= 6
    line = way.line_of(request_id)
    way.whole_trace(line["trace_id"])  # the worker has kept its spans, the services sent again
    way.until(lambda: way.ask("/api/logs", trace_id=order["trace_id"])["lines"])
    viewed = "count_over_time(shop_orders_viewed_total[10m])"
    way.until(lambda: way.value(viewed))


def test_an_alert_leads_to_trace_and_lines_and_ends(way, order):
    way.until(lambda: (way.ask("/api/alerts", state="firing") or {"total": 1})["total"] == 0)
    way.hook.told.clear()
    way.mark("stock 2.0")
    way.feel(500)
    stop = threading.Event()

    def keep_asking() -> None:
        while not stop.wait(0.05):
            way.order(7)

    clients = threading.Thread(target=keep_asking)
    clients.start()
    try:
        fired = way.until(lambda: way.hook.of("firing", "orders-fail"))
        assert fired["labels"]["route"] == "orders"
        assert fired["labels"]["severity"] == "critical"
        listed = way.gateway.command("alerts")
        assert "of the requests fail" in listed.stdout, listed.stderr
        notes = fired["annotations"]
        assert {"link_alert", "link_history", "link_logs", "link_traces"} <= notes.keys()
        for name in sorted(each for each in notes if each.startswith("link_")):
            url = urlsplit(notes[name])
            said = way.gateway.ask(f"{url.path}?{url.query}")
            if name == "link_traces":
                assert any(each["errors"] for each in said["traces"]), said
            if name == "link_logs":
                assert any("stock does not answer" in str(each) for each in said["lines"]), said
            if name == "link_history":
                assert said["data"]["result"], said
        failed = way.gateway.command("traces", "list", "--errors", "--json")
        trace = json.loads(failed.stdout)["traces"][0]["trace_id"]
        spans = way.whole_trace(trace)
        wrong = {each["service"] for each in spans if each["status"] == "error"}
        assert wrong == EVERYBODY
        way.feel(200)
        way.until(lambda: way.hook.of("resolved", "orders-fail"))
    finally:
        stop.set()
        clients.join()
        way.feel(200)
    text = way.gateway.file.read_text()
    way.gateway.file.write_text(text.replace('"body": "here"', '"body": "mended"'))
    assert way.gateway.command("reload").returncode == 0
    marks = way.gateway.ask("/api/markers")
    while marks[0]["kind"] != "deploy":
        del marks[0]
    told = [f"{each['kind']} {each['text']}" for each in marks]
    alert = [each["text"].partition(":")[0] for each in marks if each["kind"] == "alert"]
    assert alert == ["critical", "resolved"], told
    assert [each["kind"] for each in marks][::3] == ["deploy", "config"], told
    assert 'respond.body "here" -> "mended"' in told[-1], told
