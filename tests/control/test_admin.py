"""The admin API over real sockets: who may ask, and what is answered."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import socket
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.control.running import Gateway

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    gateway = Gateway(tmp_path_factory.mktemp("admin"))
    gateway.write(
        "hello",
        services={"users": {"instances": ["http://127.0.0.1:1"]}},
        routes=[
            {"name": "greeting", "match": {"path": "/"}, "respond": {"body": "hello"}},
            {"name": "users", "match": {"path": "/users", "methods": ["GET"]}, "to": "users"},
        ],
    )
    gateway.start()
    for _ in range(5):
        gateway.get()
    yield gateway
    gateway.stop()


@dataclass
class Got:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def content(self) -> Any:
        return json.loads(self.body)


def ask(
    gateway: Gateway,
    path: str,
    method: str = "GET",
    body: Any = None,
    token: str | None = "",
    **headers: str,
) -> Got:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.admin_port, timeout=30)
    try:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            sent["authorization"] = f"Bearer {token or gateway.state.token()}"
        payload = None
        if body is not None:
            payload = body if isinstance(body, bytes | str) else json.dumps(body)
            sent["content-type"] = "application/json"
        connection.request(method, path, payload, sent)
        got = connection.getresponse()
        named = {name.lower(): value for name, value in got.getheaders()}
        return Got(got.status, named, got.read())
    finally:
        connection.close()


ALL = [
    ("GET", "/metrics"),
    ("GET", "/api/metrics/summary"),
    ("GET", "/api/gateway/stats"),
    ("GET", "/api/config"),
    ("GET", "/api/workers"),
    ("GET", "/api/explain?url=/"),
    ("POST", "/api/explain"),
    ("POST", "/api/reload"),
    ("POST", "/api/drain"),
    ("POST", "/api/upgrade"),
    ("POST", "/api/logs/reopen"),
    ("GET", "/no/such/thing"),
]


@pytest.mark.parametrize(("method", "path"), ALL)
@pytest.mark.parametrize("token", [None, "wrong", "wrong" * 100])
def test_nothing_is_done_without_the_token(gateway: Gateway, method, path, token):
    got = ask(gateway, path, method, token=token)
    assert got.status == 401
    assert got.headers["content-type"] == "application/problem+json"
    assert got.headers["www-authenticate"].startswith("Bearer")
    assert got.content["status"] == 401
    assert gateway.process is not None
    assert gateway.process.poll() is None


def test_the_token_is_taken_from_one_header_only(gateway: Gateway):
    token = gateway.state.token()
    assert ask(gateway, "/api/workers").status == 200
    assert ask(gateway, "/api/workers", token=None, authorization=f"bearer {token}").status == 200
    assert ask(gateway, f"/api/workers?token={token}", token=None).status == 401
    assert ask(gateway, "/api/workers", token=None, authorization=f"Basic {token}").status == 401
    assert ask(gateway, "/api/workers", token=None, cookie=f"token={token}").status == 401
    assert ask(gateway, "/api/workers", token=f"{token}x").status == 401


def test_health_is_open(gateway: Gateway):
    got = ask(gateway, "/api/health", token=None)
    assert got.status == 200
    assert got.content["status"] == "ok"
    assert got.content["workers_ready"] == got.content["workers_wanted"] == 2


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:9900", "127.0.0.1.evil.example", ""]
)
def test_a_rebound_name_sees_nothing_without_the_token(gateway: Gateway, host: str):
    assert ask(gateway, "/api/health", token=None, host=host).status == 421
    assert ask(gateway, "/docs", token=None, host=host).status == 421


@pytest.mark.parametrize("host", ["localhost:1", "127.0.0.1", "[::1]:9900", "10.1.2.3:9900"])
def test_addresses_are_good_hosts(gateway: Gateway, host: str):
    assert ask(gateway, "/api/health", token=None, host=host).status == 200


def test_any_host_will_do_with_the_token(gateway: Gateway):
    assert ask(gateway, "/api/health", host="headgate-admin:9900").status == 200


def test_a_body_beyond_the_bound_is_refused(gateway: Gateway):
    got = ask(gateway, "/api/explain", "POST", body=b"x" * 70_000)
    assert got.status == 413
    assert got.headers["content-type"] == "application/problem+json"


def test_a_head_beyond_the_bound_is_refused(gateway: Gateway):
    assert ask(gateway, "/api/health", x_large="x" * 100_000).status in {400, 431}


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/nowhere", None, 404),
        ("DELETE", "/api/health", None, 405),
        ("POST", "/api/explain", {"url": 1}, 422),
        ("POST", "/api/explain", {"url": "/", "more": 1}, 422),
        ("POST", "/api/explain", "not json", 422),
        ("GET", "/api/explain", None, 422),
        ("GET", "/api/explain?url=ftp://x/", None, 422),
        ("GET", "/api/explain?url=/&header=nonsense", None, 422),
        ("GET", "/api/explain?url=/&client_ip=nobody", None, 422),
        ("GET", "/api/explain?url=/&method=G%20T", None, 422),
        ("GET", "/api/explain?url=/&listener=nowhere", None, 422),
    ],
)
def test_errors_are_problems(gateway: Gateway, method, path, body, status):
    got = ask(gateway, path, method, body)
    assert got.status == status
    assert got.headers["content-type"] == "application/problem+json"
    assert {"type", "title", "status", "detail"} <= got.content.keys()


def test_answers_are_not_kept_by_caches_nor_sniffed(gateway: Gateway):
    for path in ("/api/health", "/metrics", "/docs", "/nowhere"):
        headers = ask(gateway, path).headers
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"


def test_the_docs_need_nothing_from_elsewhere(gateway: Gateway):
    got = ask(gateway, "/docs", token=None)
    page = got.body.decode()
    described = ask(gateway, "/openapi.json", token=None).content
    for path in described["paths"]:
        assert path in page
    assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//""", page)
    assert "default-src 'none'" in got.headers["content-security-policy"]
    assert ask(gateway, "/", token=None).headers["location"] == "/docs"


def test_metrics_are_valid_and_complete(gateway: Gateway):
    got = ask(gateway, "/metrics")
    assert got.status == 200
    assert got.headers["content-type"].startswith("text/plain; version=0.0.4")
    text = got.body.decode()
    assert (
        'headgate_http_requests_total{route="echo",service="none",method="GET",code="200"} 5'
        in text
    )
    assert "headgate_workers 2" in text
    assert 'headgate_config_generation{process="control"}' in text
    promtool = shutil.which("promtool")
    if promtool:
        done = subprocess.run(
            [promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_statistics_add_up(gateway: Gateway):
    stats = ask(gateway, "/api/gateway/stats").content
    assert stats["requests"] == sum(worker["requests"] for worker in stats["workers"]) == 5
    (route,) = stats["routes"]
    assert route["statuses"] == {"200": 5}
    assert route["latency"]["p50_ms"] > 0
    assert stats["listeners"] == {f"127.0.0.1:{gateway.port}": f"127.0.0.1:{gateway.port}"}
    summary = ask(gateway, "/api/metrics/summary").content
    assert summary["requests"] == 5
    assert summary["error_rate"] == 0


def test_explain_answers_as_the_command_does(gateway: Gateway):
    got = ask(gateway, "/api/explain", "POST", {"url": "http://x/users/1", "headers": {"a": "b"}})
    assert got.status == 200
    assert got.content["route"] == "users"
    assert got.content["generation"] == 1
    query = "/api/explain?url=http://x/users/1&method=GET&header=a:%20b&client_ip=10.0.0.1"
    assert ask(gateway, query).content["route"] == "users"
    offline = gateway.command("explain", "GET", "http://x/users/1", "headgate.yaml", "-H", "a: b")
    assert offline.returncode == 0, offline.stderr
    assert offline.stdout.strip() == got.content["text"].strip()
    live = gateway.command("explain", "GET", "http://x/users/1", "--live", "-H", "a: b")
    assert live.stdout == offline.stdout
    shown = gateway.command("explain", "get", "/users/1", "--format", "json").stdout
    assert json.loads(shown)["route"] == "users"


def test_the_configuration_is_shown(gateway: Gateway):
    shown = ask(gateway, "/api/config").content
    assert shown["generation"] == 1
    assert shown["file"] == str(gateway.file)
    assert shown["document"]["routes"][0]["name"] == "greeting"


def test_the_socket_in_the_state_directory_asks_for_no_token_and_is_closed_to_others(
    gateway: Gateway,
):
    path = gateway.state.socket_path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert gateway.admin.ask("GET", "/api/workers").status == 200


def test_the_port_can_be_asked_with_the_token_from_the_environment(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
):
    url = f"http://127.0.0.1:{gateway.admin_port}"
    assert gateway.command("status", "--url", url).returncode == 0
    monkeypatch.setenv("HEADGATE_TOKEN", "wrong")
    done = gateway.command("status", "--url", url)
    assert done.returncode == 1
    assert "send the token" in done.stderr


def test_a_client_that_sends_half_a_body_holds_up_nobody(gateway: Gateway):
    token = gateway.state.token()
    with socket.create_connection(("127.0.0.1", gateway.admin_port)) as slow:
        slow.sendall(
            b"POST /api/explain HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n"
            b"authorization: Bearer " + str(token).encode() + b"\r\n\r\n{"
        )
        assert ask(gateway, "/api/health").status == 200
