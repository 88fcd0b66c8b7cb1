"""A gateway of real processes: its parts, its probes, and monitors that outlive its control."""

from __future__ import annotations

import http.client
import io
import json
import os
import signal
import threading
from contextlib import redirect_stderr, redirect_stdout
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from headgate.cli.app import main
from headgate.cli.monitors import sparkline, table
from headgate.control.client import Refused
from tests.control.running import Gateway, wait_until
from tests.ports import free_port

PART = pytest.mark.integration
NAMES = {"workers", "control", "config", "state", "audit", "certificates", "memory", "disk"}


class Provider(BaseHTTPRequestHandler):
    status = 200
    asked = 0

    def do_GET(self):
        type(self).asked += 1
        body = b'{"state": "ready"}'
        self.send_response(type(self).status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args):
        pass


@pytest.fixture(scope="module")
def provider():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join(20)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, provider):
    gateway = Gateway(tmp_path_factory.mktemp("monitors"))
    gateway.write(
        monitors=[
            {
                "name": "payments",
                "url": f"http://127.0.0.1:{provider}/health?key=s3cret",
                "every": "1h",
                "critical": True,
                "expect": {"json": {"state": "ready"}},
            },
            {"name": "mail", "tcp": f"127.0.0.1:{free_port()}", "every": "1h"},
            {"name": "quick", "tcp": f"127.0.0.1:{provider}", "every": "1s"},
        ]
    )
    gateway.start()
    yield gateway
    gateway.stop()


def command(gateway, *words) -> tuple[int, str]:
    out, told = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(told), pytest.raises(SystemExit) as ended:
        main(["monitors", *words, "--state-dir", str(gateway.state.path)])
    return int(ended.value.code or 0), out.getvalue() + told.getvalue()


def seen(gateway, name: str):
    return gateway.admin.ask("GET", f"/api/monitors/{name}").content


def openly(gateway, path: str, method: str = "GET"):
    connection = http.client.HTTPConnection("127.0.0.1", gateway.admin_port, timeout=15)
    try:
        connection.request(method, path)
        got = connection.getresponse()
        return got.status, got.read()
    finally:
        connection.close()


@PART
def test_probes_need_no_token_and_details_do(gateway):
    for name in ("live", "ready", "startup"):
        status, body = openly(gateway, f"/api/health/{name}")
        assert (status, json.loads(body)["status"]) == (200, "pass")
        assert openly(gateway, f"/api/health/{name}", "HEAD") == (200, b"")
    assert openly(gateway, "/api/health/details")[0] == 401
    assert openly(gateway, "/api/monitors")[0] == 401
    assert openly(gateway, "/api/health/ready/../details")[0] in {401, 404}


@PART
def test_every_part_has_its_status_and_since_when(gateway):
    def whole():
        found = gateway.admin.ask("GET", "/api/health/details").content
        parts = {each["name"]: each for each in found["components"]}
        return parts if parts["workers"]["status"] == "ok" else None

    parts = wait_until(whole)
    assert parts.keys() >= NAMES | {"history", "alerts", "logs", "traces", "machine", "monitors"}
    for name, part in parts.items():
        assert part["since"] is not None, name
        assert part["status"] in {"ok", "degraded"}, part
    assert parts["workers"]["critical"]
    assert parts["memory"]["value"] > 10_000_000


@PART
def test_what_monitors_find_is_asked_for_listed_and_counted(gateway):
    wait_until(lambda: seen(gateway, "payments")["status"] == "ok")
    wait_until(lambda: seen(gateway, "mail")["status"] == "failing")
    rows = {row["name"]: row for row in gateway.admin.listed("/api/monitors?days=7")}
    assert rows["mail"]["why"] == "connection refused"
    assert "s3cret" not in json.dumps(list(rows.values()))
    assert rows["payments"]["target"].endswith("/health")
    assert len(rows["payments"]["uptime_by_day"]) == 7
    text = gateway.admin.ask("GET", "/metrics").content
    assert 'headgate_monitor_up{monitor="payments",critical="true"} 1' in text
    assert 'headgate_monitor_up{monitor="mail",critical="false"} 0' in text
    with pytest.raises(Refused, match='did you mean "payments"'):
        seen(gateway, "payment")


@PART
def test_whoever_looks_hears_of_a_monitor_that_is_down(gateway):
    wait_until(lambda: seen(gateway, "mail")["status"] == "failing")
    connection = http.client.HTTPConnection("127.0.0.1", gateway.admin_port, timeout=15)
    try:
        token = {"authorization": f"Bearer {gateway.state.token()}"}
        # After an id of some other process: whatever has happened, also before we could ask.
        asked = {**token, "last-event-id": "0-0"}
        connection.request("GET", "/api/live/events", headers=asked)
        answer = connection.getresponse()
        while b"mail is down: connection refused" not in (line := answer.readline()):
            assert line
    finally:
        connection.close()


@PART
def test_a_check_now_by_command_tells_and_its_exit_code_too(gateway):
    before = Provider.asked
    code, said = command(gateway, "check", "payments")
    assert (code, said.split()[:2]) == (0, ["up", "payments"])
    assert Provider.asked == before + 1
    Provider.status = 503
    try:
        code, said = command(gateway, "check", "payments", "mail")
        assert code == 1
        assert "it answered 503" in said
        assert "2 of 2 are down" in said
        health = gateway.admin.ask("GET", "/api/health").content
        assert health["status"] == "degraded"
        assert "monitor payments is down: it answered 503" in health["reasons"]
    finally:
        Provider.status = 200
    assert command(gateway, "check", "payments")[0] == 0
    code, said = command(gateway)
    assert code == 0
    assert "payments" in said
    code, said = command(gateway, "show", "payments")
    assert "it answered 503" in said
    assert json.loads(command(gateway, "--json")[1])[0]["name"] == "mail"


@PART
def test_control_is_killed_and_what_was_known_is_there_again(gateway):
    wait_until(lambda: len(seen(gateway, "quick")["results"]) >= 3)
    database = gateway.state.path / "monitors" / "monitors.db"
    wait_until(lambda: database.exists() and database.stat().st_size > 0)

    def written():
        import sqlite3

        db = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
        try:
            return db.execute("SELECT count(*) FROM results WHERE monitor = 'quick'").fetchone()[0]
        except sqlite3.Error:
            return 0
        finally:
            db.close()

    wait_until(lambda: written() >= 3)
    pid = gateway.control_pid()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: gateway.control_pid() not in {0, pid})
    wait_until(lambda: gateway.health().get("workers_ready"))
    kept = wait_until(lambda: seen(gateway, "quick")["results"] or None)
    assert len(kept) >= 3
    assert written() >= 3
    days = seen(gateway, "quick")["by_day"][-2:]  # midnight may have passed
    assert sum(day["checks"] for day in days) >= 3
    assert any(day["unknown_s"] > 0 for day in days)


@PART
def test_a_reload_takes_monitors_up_and_a_fault_is_refused(gateway):
    config = json.loads(gateway.file.read_text())
    config["monitors"].append({"name": "late", "dns": "localhost"})
    gateway.file.write_text(json.dumps(config))
    gateway.admin.ask("POST", "/api/reload")
    wait_until(lambda: seen(gateway, "late")["status"] == "ok")
    config["monitors"].append({"name": "late", "dns": "localhost"})
    gateway.file.write_text(json.dumps(config))
    with pytest.raises(Refused, match="is the name of monitors"):
        gateway.admin.ask("POST", "/api/reload")
    assert seen(gateway, "late")["status"] == "ok"


# -- the table, without a gateway ------------------------------------------------------------------


def test_a_day_that_was_not_whole_is_seen():
    assert sparkline([1.0, None, 0.9999, 0.95, 0.5, 0.0]) == "█·▇▄▁▁"


def test_the_table_is_for_people():
    row = {
        "name": "pay", "status": "failing", "since": 100.0, "last_ms": 12.3, "p95_ms": None,
        "uptime": 0.9999999, "uptime_by_day": [1.0, None], "days": 2, "why": "gone",
    }  # fmt: skip
    heads, line, why = table([row], 700.0)
    assert heads.split()[:4] == ["MONITOR", "STATE", "FOR", "LAST"]
    assert line.split() == ["pay", "DOWN", "10", "min", "12", "ms", "-", "99.999%", "█·"]
    assert why == "pay: gone"
