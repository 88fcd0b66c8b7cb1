"""Who may do what over real sockets: tokens with roles, TLS and client certificates, foreign pages,
bounds; and what an attacker gets.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import http.client
import json
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from headgate.control.admin.tokens import digest_of
from tests.control.running import Gateway, wait_until

pytestmark = pytest.mark.integration

VIEWER = "viewer-token-of-the-file"
OPERATOR = "operator-token-of-the-file"
INGEST = "ingest-token-of-the-file"
CONSOLE = "https://console.example"
TOKENS = [
    {"name": "reader", "role": "viewer", "hash": digest_of(VIEWER)},
    {"name": "ops", "role": "operator", "token": OPERATOR},
    {"name": "service", "role": "ingest", "token": INGEST},
]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    gateway = Gateway(tmp_path_factory.mktemp("access"))
    admin = {"bind": f"127.0.0.1:{gateway.admin_port}", "tokens": TOKENS, "origins": CONSOLE}
    gateway.write("hello", admin={**admin, "failures": "100/1min"}, watch=False)
    try:
        gateway.start()
        yield gateway
    finally:
        gateway.stop()


class Got:
    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self.status = answer.status
        self.headers = {name.lower(): value for name, value in answer.getheaders()}
        self.body = answer.read()

    @property
    def content(self) -> Any:
        return json.loads(self.body)


def ask(
    gateway: Gateway,
    method: str,
    path: str,
    token: str | None = "",
    body: Any = None,
    context: ssl.SSLContext | None = None,
    **headers: str,
) -> Got:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if token is not None:
        sent["authorization"] = f"Bearer {token or gateway.state.token()}"
    connection: http.client.HTTPConnection
    if context is None:
        connection = http.client.HTTPConnection("127.0.0.1", gateway.admin_port, timeout=30)
    else:
        connection = http.client.HTTPSConnection(
            "127.0.0.1", gateway.admin_port, timeout=30, context=context
        )
    with contextlib.closing(connection):
        payload = json.dumps(body) if body is not None else None
        sent.setdefault("content-type", "application/json")
        connection.request(method, path, payload, sent)
        return Got(connection.getresponse())


@pytest.mark.parametrize(
    ("method", "path", "token", "status"),
    [
        ("GET", "/api/workers", VIEWER, 200),
        ("HEAD", "/api/workers", VIEWER, 200),
        ("GET", "/api/v1/workers", VIEWER, 200),
        ("POST", "/api/reload", VIEWER, 403),
        ("POST", "/api/v1/reload", VIEWER, 403),
        ("GET", "/api/tokens", OPERATOR, 403),
        ("GET", "/api/v1/tokens", OPERATOR, 403),
        ("HEAD", "/api/tokens", OPERATOR, 403),
        ("PUT", "/api/config", OPERATOR, 403),
        ("GET", "/api/audit", VIEWER, 403),
        ("GET", "/api/audit", OPERATOR, 200),
        ("GET", "/api/workers", INGEST, 403),
        ("GET", "/api/health", INGEST, 200),
        ("POST", "/api/logs/reopen", OPERATOR, 200),
        ("GET", "/api/tokens", "", 200),
        ("GET", "//api/tokens", OPERATOR, 404),
        ("GET", "/api/%74okens", OPERATOR, 403),
        ("GET", "/api/v1/v1/tokens", OPERATOR, 404),
        ("GET", "/api/v1/../tokens", OPERATOR, 404),
        ("GET", "/api/tokens/", OPERATOR, 403),
        ("GET", "/api/tokens%0A", OPERATOR, 400),
        ("PUT", "/api/config%0A", OPERATOR, 400),
        ("PUT", "/api/v1/config%0a", OPERATOR, 400),
        ("GET", "/api/config/history%2F1", VIEWER, 200),
    ],
    ids=lambda one: str(one)[:24],
)
def test_a_role_opens_what_it_says_and_no_more(gateway, method, path, token, status):
    got = ask(gateway, method, path, token)
    assert got.status == status
    if status >= 400 and method != "HEAD":
        assert got.headers["content-type"] == "application/problem+json"


def test_seven_endpoints_answer_as_named(gateway: Gateway):
    names = ("/api/health", "/metrics", "/api/metrics/summary", "/api/gateway/stats")
    for path in (*names, "/api/mesh/stats", "/api/cache/stats", "/api/queue/stats"):
        assert ask(gateway, "GET", path, VIEWER).status == 200, path
    gateway.get()
    mesh = ask(gateway, "GET", "/api/mesh/stats", VIEWER).content
    assert {"id": "clients", "kind": "clients"}.items() <= mesh["nodes"][0].items()


def test_a_token_is_made_shown_once_used_audited_and_revoked(gateway: Gateway):
    made = ask(gateway, "POST", "/api/tokens", body={"name": "ci", "role": "operator"})
    assert made.status == 201
    token = made.content["token"]
    who = ask(gateway, "GET", "/api/whoami", token).content
    assert who == {"name": "token/ci", "role": "operator", "kind": "token"}
    assert ask(gateway, "POST", "/api/logs/reopen", token).status == 200
    listed = ask(gateway, "GET", "/api/tokens")
    assert token not in listed.body.decode()
    row = next(one for one in listed.content["tokens"] if one["name"] == "ci")
    assert row["last_used"] is not None
    entry = ask(gateway, "GET", "/api/audit?actor=token/ci").content["entries"][0]
    assert (entry["target"], entry["outcome"]) == ("/api/logs/reopen", "ok")
    for path in (gateway.state.path / "audit").rglob("*"):
        assert not path.is_file() or token.encode() not in path.read_bytes()
    assert ask(gateway, "DELETE", f"/api/tokens/{row['id']}").status == 200
    assert ask(gateway, "GET", "/api/whoami", token).status == 401


def test_the_commands_make_list_and_revoke(gateway: Gateway):
    made = gateway.command("tokens", "make", "by-command", "--role", "viewer", "--expires", "1d")
    assert made.returncode == 0, made.stderr
    assert ask(gateway, "GET", "/api/workers", made.stdout.strip()).status == 200
    assert "by-command" in gateway.command("tokens", "list").stdout
    assert gateway.command("tokens", "revoke", "by-command").returncode == 0
    assert ask(gateway, "GET", "/api/workers", made.stdout.strip()).status == 401
    assert gateway.command("tokens", "revoke", "reader").returncode == 1


def test_pages_of_other_origins_change_nothing_even_with_a_token(gateway: Gateway):
    def post(**headers: Any) -> Got:
        return ask(gateway, "POST", "/api/logs/reopen", **headers)

    assert post(origin="http://evil.example").status == 403
    assert post(sec_fetch_site="cross-site").status == 403
    assert post(origin=f"http://127.0.0.1:{gateway.admin_port}").status == 200
    allowed = post(origin=CONSOLE)
    assert allowed.status == 200
    assert allowed.headers["access-control-allow-origin"] == CONSOLE
    read = ask(gateway, "GET", "/api/workers", origin="http://evil.example")
    assert "access-control-allow-origin" not in read.headers


def test_a_preflight_is_answered_for_named_origins_only(gateway: Gateway):
    asked: dict[str, Any] = {"access_control_request_method": "POST"}
    good = ask(gateway, "OPTIONS", "/api/reload", None, origin=CONSOLE, **asked)
    assert good.status == 204
    assert "authorization" in good.headers["access-control-allow-headers"]
    bad = ask(gateway, "OPTIONS", "/api/reload", None, origin="https://e.example", **asked)
    assert bad.status == 403


def test_options_and_wrong_methods_say_what_there_is(gateway: Gateway):
    got = ask(gateway, "OPTIONS", "/api/config", VIEWER)
    assert got.status == 204
    assert {"GET", "HEAD", "PUT"} <= set(got.headers["allow"].split(", "))
    wrong = ask(gateway, "DELETE", "/api/workers")
    assert wrong.status == 405
    assert wrong.headers["content-type"] == "application/problem+json"
    assert wrong.headers["allow"] == "GET"


# -- under attack ----------------------------------------------------------------------------


def raw(gateway: Gateway, data: bytes, *, half: bool = False) -> bytes:
    with socket.create_connection(("127.0.0.1", gateway.admin_port), timeout=30) as sock:
        found = b""
        with contextlib.suppress(OSError):  # it may have hung up before it has read all
            sock.sendall(data)
            if half:
                sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(OSError):
            while part := sock.recv(65536):
                found += part
                if b"\r\n\r\n" in found and not half:
                    break
        return found


def head(gateway: Gateway, extra: str, path: str = "/api/explain") -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer "
        f"{gateway.state.token()}\r\ncontent-type: application/json\r\n{extra}\r\n\r\n"
    ).encode()


@pytest.mark.parametrize(
    ("extra", "body", "statuses"),
    [
        ("content-length: 1000000", b"{", (413,)),
        ("x-large: " + "x" * 70_000, b"", (400, 431)),
        ("\r\n".join(f"x-{n}: {'y' * 90}" for n in range(400)), b"", (400, 431)),
        ("content-length: -1", b"", (400,)),
        ("content-length: 3\r\ncontent-length: 4", b"{}  ", (400,)),
        ("content-length: 60000", b"[" * 60_000, (400, 422)),
        ("content-length: 2", b"\xff\xfe", (400, 422)),
        ("content-length: 4", b"null", (422,)),
    ],
    ids=["length", "head", "heads", "minus", "two", "deep", "bytes", "null"],
)
def test_what_is_malformed_is_refused(gateway, extra, body, statuses):
    if "1000000" in extra:
        body = b"x" * 1_000_000
    said = raw(gateway, head(gateway, extra) + body)
    assert int(said.split()[1]) in statuses


def test_a_client_that_closes_its_half_is_forgotten(gateway: Gateway):
    raw(gateway, head(gateway, "content-length: 100"), half=True)
    raw(gateway, b"GET /api/health HTTP/1.1\r\nhost: loc", half=True)
    assert ask(gateway, "GET", "/api/health", None).status == 200


def test_slow_bodies_hold_nobody_up(gateway: Gateway):
    with contextlib.ExitStack() as stack:
        for _ in range(30):
            sock = socket.create_connection(("127.0.0.1", gateway.admin_port), timeout=30)
            stack.enter_context(sock)
            sock.sendall(head(gateway, "content-length: 100") + b"{")
        began = time.monotonic()
        assert ask(gateway, "GET", "/api/health", None).status == 200
        assert time.monotonic() - began < 20


def test_ten_thousand_tokens_are_not_looked_at(gateway: Gateway):
    """All but the first hundred are turned away, the right one too; the socket still answers."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.admin_port, timeout=30)
    statuses = set()
    with contextlib.closing(connection):
        for number in range(300):
            fields = {"authorization": f"Bearer guess-{number}"}
            connection.request("GET", "/api/workers", headers=fields)
            answer = connection.getresponse()
            answer.read()
            statuses.add(answer.status)
    assert statuses == {401, 429}
    got = ask(gateway, "GET", "/api/workers")
    assert got.status == 429
    assert int(got.headers["retry-after"]) >= 1
    assert len(gateway.workers()) == 2
    assert ask(gateway, "GET", "/api/health", None).status == 200


# -- TLS -------------------------------------------------------------------------------------


class Authority:
    """A certificate authority for a test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test authority")])
        self.path = self._write("ca", self._sign(self._name, self._key, is_authority=True), None)

    def _sign(self, subject: x509.Name, key: Any, *, is_authority: bool = False) -> Any:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=30))
            .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    def issue(self, name: str) -> Path:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        return self._write(name, self._sign(subject, key), key)

    def _write(self, name: str, certificate: Any, key: Any) -> Path:
        path = self.folder / f"{name}.pem"
        text = certificate.public_bytes(serialization.Encoding.PEM)
        if key is not None:
            text += key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        path.write_bytes(text)
        return path


def test_a_reload_brings_tls_and_client_certificates_and_takes_them_away(gateway, tmp_path):
    authority = Authority(tmp_path)
    admin = {"bind": f"127.0.0.1:{gateway.admin_port}", "tokens": TOKENS}
    tls = {
        "certificate": "local",
        "client_ca_file": str(authority.path),
        "client_certificate": "ask",
        "clients": [{"subject": "ops", "role": "operator"}],
    }
    gateway.write("hello", admin={**admin, "tls": tls}, watch=False)
    gateway.admin.ask("POST", "/api/reload", timeout_s=60)

    def context(name: str | None) -> ssl.SSLContext:
        made = ssl.create_default_context()
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
        if name is not None:
            made.load_cert_chain(authority.issue(name))
        return made

    def speaks_tls() -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return ask(gateway, "GET", "/api/health", None, context=context(None)).status == 200
        return False

    wait_until(speaks_tls)
    who = ask(gateway, "GET", "/api/whoami", None, context=context("ops"))
    assert who.content == {"name": "certificate/ops", "role": "operator", "kind": "certificate"}
    assert ask(gateway, "GET", "/api/tokens", None, context=context("ops")).status == 403
    assert ask(gateway, "GET", "/api/workers", None, context=context("other")).status == 401
    assert ask(gateway, "GET", "/api/workers", VIEWER, context=context("other")).status in {
        200,
        429,
    }
    with pytest.raises((OSError, http.client.HTTPException)):
        ask(gateway, "GET", "/api/health", None)

    wrong = {**tls, "client_ca_file": str(tmp_path / "none.pem")}
    gateway.write("hello", admin={**admin, "tls": wrong}, watch=False)
    done = gateway.command("reload")
    assert done.returncode == 1
    assert "client_ca_file" in done.stderr
    assert speaks_tls()

    gateway.write("hello", admin=admin, watch=False)
    gateway.admin.ask("POST", "/api/reload", timeout_s=60)

    def speaks_plain() -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return ask(gateway, "GET", "/api/health", None).status == 200
        return False

    wait_until(speaks_plain)
