"""Authentication and access at a running gateway: who is let in, and what the service is told."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from headgate.gateway import doors
from headgate.gateway.filters import Filter, Request
from headgate.testing import EchoServer
from tests.gateway.rig import document, get, request, response

pytestmark = pytest.mark.integration

SECRET = "a secret that is long enough for it"
JWT = {"jwt": {"secret": SECRET, "audience": "*", "algorithms": "HS256"}}


class Sees(Filter):
    """Tells the service what a plugin sees of who asks."""

    def on_request(self, request: Request) -> None:
        who = request.identity.subject if request.identity is not None else "nobody"
        request.headers.set("x-seen", who)
        request.headers.set("x-credentials", "yes" if "authorization" in request.headers else "no")


class Wall:
    """The clock on the wall, which a test may set."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def wall(monkeypatch):
    made = Wall()
    monkeypatch.setattr(doors, "_wall", made)
    return made


def bearer(**claims: Any) -> str:
    made = jwt.encode({"exp": time.time() + 600, **claims}, SECRET, algorithm="HS256")
    return f"authorization: Bearer {made}"


def asked(gateway, echo: EchoServer, *lines: str, path: str = "/") -> str:
    """The request as the service gets it."""
    client = gateway.client()
    client.send(get(path, *lines))
    assert client.answer()[0].status == 200
    seen = echo.seen[-1]
    rows = [f"{name}: {value}" for name, value in seen.headers]
    return "\r\n".join([f"{seen.method} {seen.target} HTTP/1.1", *rows, ""])


def refused(gateway, *lines: str, path: str = "/") -> tuple[Any, dict[str, Any]]:
    client = gateway.client()
    client.send(get(path, *lines))
    head, body = client.answer()
    return head, json.loads(body)


def guarded(upstream, route: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    made = document(upstream, route={"auth": "jwt", **(route or {})})
    return {**made, "auth": {**JWT, **more}}


def test_a_token_is_asked_for_and_never_reaches_the_service(start, echo):
    gateway = start(guarded(echo.url))
    head, problem = refused(gateway)
    assert (head.status, problem["source"]) == (401, "client")
    assert head.get("www-authenticate").startswith("Bearer ")
    seen = asked(gateway, echo, bearer(sub="ann", roles=["user"]))
    assert "authorization" not in seen.lower()
    assert "x-auth-subject: ann\r\n" in seen
    assert "x-auth-roles: user\r\n" in seen
    assert "x-auth-method: jwt\r\n" in seen


def test_a_kept_head_is_answered_for_the_same_person_only(start, echo):
    gateway = start(guarded(echo.url))
    ann, bob = bearer(sub="ann"), bearer(sub="bob")
    for line, who in ((ann, "ann"), (bob, "bob"), (ann, "ann"), (ann, "ann"), (bob, "bob")):
        assert f"x-auth-subject: {who}\r\n" in asked(gateway, echo, line)


@pytest.mark.parametrize("path", ["/open/", "/guarded/"])
def test_nobody_can_say_who_they_are_by_themselves(start, echo, path):
    made = document(echo.url)
    made["routes"] = [
        {"match": {"path": "/open/"}, "to": "s"},
        {"match": {"path": "/guarded/"}, "to": "s", "auth": "jwt"},
    ]
    made["services"] = {"s": made["services"].popitem()[1]}
    gateway = start({**made, "auth": JWT})
    forged = ("x-auth-subject: root", "X-AUTH-ROLES: admin", "x_auth_subject: root")
    seen = asked(gateway, echo, bearer(sub="ann"), *forged, path=path).lower()
    assert "root" not in seen
    assert "admin" not in seen


def test_a_trusted_proxy_can_say_nothing_of_who_asks_either(start, echo):
    made = {**guarded(echo.url), "trusted_proxies": ["127.0.0.1"]}
    gateway = start(made)
    seen = asked(gateway, echo, bearer(sub="ann"), "x-auth-roles: admin")
    assert "admin" not in seen


def test_a_bad_token_is_refused_also_where_nobody_has_to_show_one(start, echo):
    use = {"methods": "jwt", "anonymous": True}
    gateway = start(guarded(echo.url, {"auth": use}))
    assert "x-auth-subject" not in asked(gateway, echo)
    assert "x-auth-subject: ann" in asked(gateway, echo, bearer(sub="ann"))
    head, _ = refused(gateway, bearer(sub="ann") + "x")
    assert head.status == 401
    assert 'error="invalid_token"' in head.get("www-authenticate")


def test_a_bad_token_is_nobody_where_anonymous_is_always(start, echo):
    gateway = start(guarded(echo.url, {"auth": {"methods": "jwt", "anonymous": "always"}}))
    assert "x-auth-subject" not in asked(gateway, echo)
    assert "x-auth-subject: ann" in asked(gateway, echo, bearer(sub="ann"))
    for bad in (bearer(sub="ann") + "x", "authorization: Bearer nonsense"):
        seen = asked(gateway, echo, bad)
        assert "x-auth-subject" not in seen
        assert "authorization" not in seen.lower(), "what does not hold does not go on either"


def test_a_token_that_ends_while_a_connection_lasts_is_refused(start, instance, wall):
    gateway = start(guarded(instance))
    line = bearer(sub="ann", exp=wall.now + 60)
    client = gateway.client()
    client.send(get("/", line))
    peer = instance.accept()
    for again in (True, False):
        peer.until(b"\r\n\r\n")
        peer.send(response(b"ok"))
        assert client.answer()[0].status == 200
        if again:
            client.send(get("/", line))
    wall.now += 120
    client.send(get("/", line))
    assert client.answer()[0].status == 401


def test_roles_decide(start, echo):
    gateway = start(guarded(echo.url, {"allow": {"roles": ["admin"]}}))
    assert "x-auth-subject: ann" in asked(gateway, echo, bearer(sub="ann", roles=["admin"]))
    for _ in range(2):
        head, problem = refused(gateway, bearer(sub="bob", roles=["user"]))
        assert head.status == 403
        assert "admin" not in json.dumps(problem)


def test_a_subject_reaches_its_own_path_alone(start, echo):
    route = {"match": {"path": "/users/{id}"}, "allow": {"params": {"id": "subject"}}}
    gateway = start(guarded(echo.url, route))
    assert "GET /users/ann " in asked(gateway, echo, bearer(sub="ann"), path="/users/ann")
    assert refused(gateway, bearer(sub="ann"), path="/users/bob")[0].status == 403


def test_limits_count_by_user(start, echo):
    gateway = start(guarded(echo.url, {"limit": {"rate": "1/h", "by": "user"}}))
    asked(gateway, echo, bearer(sub="ann"))
    asked(gateway, echo, bearer(sub="bob"))
    assert refused(gateway, bearer(sub="ann", jti="other"))[0].status == 429


def test_plugins_know_who_asks_and_see_no_credentials(start, echo):
    gateway = start(guarded(echo.url, {"plugins": [{"use": f"{__name__}:Sees"}]}))
    for _ in range(2):
        seen = asked(gateway, echo, bearer(sub="ann"))
        assert "x-seen: ann\r\n" in seen
        assert "x-credentials: no\r\n" in seen


def test_credentials_are_passed_on_where_that_is_said(start, echo):
    use = {"methods": "jwt", "pass_credentials": True}
    gateway = start(guarded(echo.url, {"auth": use}))
    assert "authorization: bearer" in asked(gateway, echo, bearer(sub="ann")).lower()


def test_deny_by_default_shuts_what_says_nothing(start, instance):
    made = guarded(instance, deny_by_default=True)
    del made["routes"][0]["auth"]
    gateway = start(made)
    assert refused(gateway)[0].status == 403


def test_a_body_is_kept_while_nobody_has_said_who_asks(start, instance):
    gateway = start(guarded(instance, {"limit": "100/s"}))
    client = gateway.client()
    client.send(request("POST", "/", bearer(sub="ann"), body=b"all of it"))
    assert b"all of it" in instance.accept().until(b"all of it")


def test_a_fallback_leads_nobody_around_the_entrance(start, instance):
    route = {
        "fallback": {"when": ["shed", "timeout"], "respond": {"body": "for members"}},
        "flag": "f",
    }
    made = guarded(instance, route)
    gateway = start({**made, "degrade": {"flags": {"f": "off"}}})
    assert refused(gateway)[0].status == 401
    client = gateway.client()
    client.send(get("/", bearer(sub="ann")))
    assert client.answer()[1] == b"for members"


def test_the_service_gets_a_token_that_it_can_verify(start, echo, tmp_path: Path):
    identity = {"headers": {}, "token": {"audience": "users"}}
    made = {**guarded(echo.url, identity=identity), "state_dir": str(tmp_path)}
    gateway = start(made)
    line = bearer(sub="ann", roles=["user"])
    _, first, second = (asked(gateway, echo, line) for _ in range(3))
    shown = [
        row.partition(": ")[2]
        for row in first.split("\r\n")
        if row.startswith("x-headgate-identity")
    ]
    assert shown and shown[0] in second
    key = load_pem_private_key((tmp_path / "identity-key.pem").read_bytes(), None)
    assert isinstance(key, Ed25519PrivateKey)
    claims = jwt.decode(shown[0], key.public_key(), algorithms=["EdDSA"], audience="users")
    assert (claims["sub"], claims["roles"]) == ("ann", ["user"])
    assert claims["exp"] - claims["iat"] == 60


def test_a_trusted_proxy_tells_whether_the_client_is_encrypted(start, echo):
    route = {"allow": {"tls": True}, "secure_headers": True}
    made = document(echo.url, route=route)
    told = "x-forwarded-proto: https"
    gateway = start({**made, "trusted_proxies": ["127.0.0.1"]})
    client = gateway.client()
    client.send(get("/", told, "x-forwarded-for: 192.0.2.7"))
    head, _ = client.answer()
    assert head.status == 200
    assert "strict-transport-security" in head
    client.send(get("/"))
    head, _ = client.answer()
    assert head.status == 403
    assert "strict-transport-security" not in head
    other = start(made)
    client = other.client()
    client.send(get("/", told))
    assert client.answer()[0].status == 403


def test_a_preflight_belongs_to_the_request_that_it_announces(start, echo):
    made = document(echo.url)
    cors = {"origins": ["https://app.example"], "methods": ["PUT"], "credentials": True}
    made["routes"] = [
        {"match": {"path": "/items/", "methods": ["GET", "PUT"]}, "to": "upstream", "auth": "jwt"},
        {"match": {"path": "/"}, "to": "upstream"},
    ]
    made["routes"][0]["cors"] = cors
    gateway = start({**made, "auth": JWT})
    lines = ("origin: https://app.example", "access-control-request-method: PUT")
    client = gateway.client()
    client.send(request("OPTIONS", "/items/1", *lines))
    head, _ = client.answer()
    assert (head.status, head.get("access-control-allow-origin")) == (204, "https://app.example")
    assert "PUT" in (head.get("access-control-allow-methods") or "")
    assert not echo.seen
    # The answer to the request itself may be read by the page, also when it is a refusal.
    client.send(request("PUT", "/items/1", lines[0], body=b"x"))
    head, _ = client.answer()
    assert (head.status, head.get("access-control-allow-origin")) == (401, "https://app.example")
    # What is no preflight goes its own way.
    client.send(request("OPTIONS", "/items/1"))
    assert client.answer()[0].status == 200
    assert echo.seen[-1].method == "OPTIONS"
