"""Keys, passwords and signatures at a running gateway: let in, told on, and never passed on."""

from __future__ import annotations

import base64
import json
import time

import pytest
from argon2 import PasswordHasher

from headgate.security.api_keys import hash_text, make_key
from headgate.security.signatures import sign
from tests.gateway.rig import document, get

pytestmark = pytest.mark.integration

KEY = make_key("alpha1234567", bytes(range(32)))
HASH = PasswordHasher(1, 16, 1).hash("open sesame")
SECRET = b"0123456789abcdef0123456789abcdef"
AUTH = {
    "api_key": {
        "query": "key",
        "keys": [
            {"id": "alpha1234567", "hash": hash_text(KEY), "consumer": "acme", "roles": ["a"]}
        ],
    },
    "basic": {"users": {"ann": HASH}},
    "signature": {"keys": {"partner": {"secrets": SECRET.decode()}}},
}


def guarded(upstream, methods):
    return {**document(upstream, route={"auth": methods}), "auth": AUTH}


def asked(gateway, echo, *lines, path="/"):
    client = gateway.client()
    client.send(get(path, *lines))
    head, _ = client.answer()
    assert head.status == 200
    seen = echo.seen[-1]
    rows = [f"{name}: {value}" for name, value in seen.headers]
    return "\n".join([f"{seen.method} {seen.target} HTTP/1.1", *rows, ""])


def refused(gateway, *lines, path="/"):
    client = gateway.client()
    client.send(get(path, *lines))
    head, body = client.answer()
    return head, json.loads(body)


def basic(password):
    return f"authorization: Basic {base64.b64encode(b'ann:' + password).decode()}"


def test_a_key_is_taken_from_header_and_query_and_ends_here(start, echo):
    gateway = start(guarded(echo.url, "api_key"))
    for _ in range(2):  # the second time from what was kept with the head
        seen = asked(gateway, echo, f"x-api-key: {KEY}")
        assert KEY not in seen
        assert "x-auth-consumer: acme\n" in seen
        assert "x-auth-roles: a\n" in seen
    seen = asked(gateway, echo, path=f"/?a=1&key={KEY}&b=2")
    assert KEY not in seen
    assert "?a=1&b=2 " in seen
    head, body = refused(gateway, f"x-api-key: {KEY[:-1]}")
    assert (head.status, "checksum" in body["detail"]) == (401, True)
    head, body = refused(gateway)
    assert head.get("www-authenticate") == 'ApiKey realm="api"'


def test_a_password_is_checked_beside_the_requests(start, echo):
    gateway = start(guarded(echo.url, ["api_key", "basic"]))
    for _ in range(2):
        seen = asked(gateway, echo, basic(b"open sesame"))
        assert "x-auth-subject: ann\n" in seen
        assert "authorization" not in seen.lower()
    head, _ = refused(gateway, basic(b"no"))
    assert head.status == 401
    assert [each.split()[0] for each in head.all("www-authenticate")] == ["ApiKey", "Basic"]
    assert "x-auth-consumer: acme\n" in asked(gateway, echo, f"x-api-key: {KEY}")


def test_a_signed_request_counts_once(start, echo):
    gateway = start(guarded(echo.url, "signature"))
    head = get("/a%2Fb?x=1").decode()
    host = next(
        line.partition(":")[2].strip() for line in head.split("\r\n") if line.lower().startswith("host:")
    )  # fmt: skip
    fields = sign(
        "GET",
        f"http://{host}/a%2Fb?x=1",
        key_id="partner",
        key=SECRET,
        created=int(time.time()),
        nonce="once",
    )
    lines = [f"{name}: {value}" for name, value in fields.items()]
    seen = asked(gateway, echo, *lines, path="/a%2Fb?x=1")
    assert "x-auth-subject: partner\n" in seen
    assert "signature" not in seen.lower().replace("x-auth-method: signature", "")
    answer, body = refused(gateway, *lines, path="/a%2Fb?x=1")
    assert (answer.status, "seen before" in body["detail"]) == (401, True)
