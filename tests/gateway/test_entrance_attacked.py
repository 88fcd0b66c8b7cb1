"""The entrance under attack: credentials in odd places, forged names, and ways around it."""

from __future__ import annotations

import json
import random
import re
import socket
import threading
from pathlib import Path
from time import monotonic
from typing import Any

import jwt as pyjwt
import pytest

from headgate.config.guarding import BansSpec
from headgate.errors import ConfigInvalid
from headgate.gateway.filters import Filter, Request
from headgate.testing import EchoServer
from tests.gateway.entrance_rig import JWT, Form, bearer, token, use_methods
from tests.gateway.given_back import assert_all_given_back
from tests.gateway.rig import Peer, document, get, request, response, wait_until

pytestmark = pytest.mark.integration


@pytest.fixture
def echo():
    with EchoServer() as server:
        yield server


@pytest.fixture
def second():
    with EchoServer("second") as server:
        yield server


class Looks(Filter):
    """Tells the service what a plugin can see of the query."""

    def on_request(self, request: Request) -> None:
        request.headers.set("x-query", request.query or "none")


class CannotStart(Filter):
    def start(self, parts: Any) -> None:
        raise RuntimeError("not today")


def guarded(upstream: str, route: dict[str, Any] | None = None, *, jwt: dict[str, Any] | None = None,
            identity: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:  # fmt: skip
    made = document(upstream, route={"auth": "jwt", **(route or {})}, **more)
    auth: dict[str, Any] = {"jwt": {**JWT, **(jwt or {})}}
    if identity is not None:
        auth["identity"] = identity
    return {**made, "auth": auth}


def status(gateway, raw: bytes) -> int:
    return gateway.ask(raw)[0].status


# -- what a service is told ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claims", "told"),
    [
        ({"roles": ["user,admin"]}, "x-auth-roles: user%2Cadmin"),
        ({"roles": ["b", "a"]}, "x-auth-roles: a,b"),
        ({"groups": ["cn=a,dc=b"]}, "x-auth-groups: cn=a%2Cdc=b"),
        ({"sub": "aü"}, "x-auth-subject: a%C3%BC"),
        ({"sub": "a%C3%BC"}, "x-auth-subject: a%25C3%25BC"),
        ({"sub": " root"}, "x-auth-subject: %20root"),
        ({"sub": "root "}, "x-auth-subject: root%20"),
        ({"sub": "ann bell, jr."}, "x-auth-subject: ann bell, jr."),
        ({"org": 42}, "x-org: 42"),
        ({"org": True}, "x-org: true"),
        ({"org": ["a", "b,c"]}, "x-org: a,b%2Cc"),
        ({"org": {"id": 1}}, "x-org: eyJpZCI6IDF9"),
    ],
    ids=lambda value: None if isinstance(value, str) else re.sub(r"\W+", "-", ascii(value)),
)
def test_no_two_names_look_alike_to_a_service(start, echo, claims, told):
    headers = {
        "x-auth-subject": "subject",
        "x-auth-roles": "roles",
        "x-auth-groups": "groups",
        "x-org": "claim.org",
    }
    gateway = start(guarded(echo.url, identity={"headers": headers}))
    assert status(gateway, get("/", bearer(**{"sub": "ann", **claims}))) == 200
    name, _, value = told.partition(": ")
    assert echo.seen[-1].get(name) == value


FORGED = [
    "x-auth-subject: root",
    "X-AUTH-SUBJECT: root",
    "x-auth_subject: root",
    "x_auth_subject: root",
    "X-Auth-Roles: root",
    "x-forwarded-access-token: root",
    "x-org_id: root",
    "x_org-id: root",
    "x-org-id: root",
    "x-headgate-identity: root",
]


@pytest.mark.parametrize("trusted", [False, True], ids=["stranger", "proxy"])
@pytest.mark.parametrize("path", ["/open/", "/guarded/", "/anonymous/"])
def test_no_spelling_of_an_identity_header_comes_through(
    start, echo, path, trusted, tmp_path: Path
):
    identity = {
        "headers": {"x-auth-subject": "subject", "x-auth-roles": "roles", "x_org_id": "tier"},
        "token": {},
    }
    made = guarded(echo.url, identity=identity, state_dir=str(tmp_path))
    made["routes"] = [
        {"match": {"path": "/open/"}, "to": "upstream"},
        {"match": {"path": "/guarded/"}, "to": "upstream", "auth": "jwt"},
        {
            "match": {"path": "/anonymous/"},
            "to": "upstream",
            "auth": {"methods": "jwt", "anonymous": True},
        },
    ]
    if trusted:
        made["trusted_proxies"] = ["127.0.0.1"]
    gateway = start(made)
    lines = [bearer(sub="ann")] if path != "/anonymous/" else []
    for _ in range(3):
        assert status(gateway, get(path, *lines, *FORGED)) == 200
        seen = echo.seen[-1].headers
        assert [field for field in seen if "root" in field[1]] == []
        assert len([1 for name, _ in seen if name == "x-auth-subject"]) == (path == "/guarded/")


@pytest.mark.parametrize("odd", ["x-auth-subject : root", "x-auth-subject\t: root", " x-a: b"])
def test_a_name_with_a_blank_is_no_header_at_all(start, instance, odd):
    gateway = start(guarded(instance.url))
    assert status(gateway, get("/", bearer(sub="ann"), odd)) == 400


def test_nobody_says_who_asks_behind_a_body(start, instance):
    gateway = start(guarded(instance.url, trusted_proxies=["127.0.0.1"]))
    for tail in (b"x-auth-subject: root", b"X_Auth_Roles: root", b"x-forwarded-access-token: root"):
        client = gateway.client()
        client.send(
            b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n%b\r\n\r\n1\r\nx\r\n0\r\n"
            b"%b\r\nx-sum: 7\r\n\r\n" % (bearer(sub="ann").encode(), tail)
        )
        peer = instance.accept()
        seen = peer.until(b"x-sum: 7\r\n\r\n")
        assert b"root" not in seen
        peer.send(response(b"ok", "Connection: close"))
        assert client.answer()[0].status == 200


# -- credentials end here --------------------------------------------------------------------------

SPELLINGS = ["access_token", "%61ccess_token", "access%5Ftoken", "%61%63cess_token"]


@pytest.mark.parametrize("passed", [False, True], ids=["ends-here", "passed-on"])
def test_a_redirect_tells_another_host_no_credentials(start, echo, passed):
    use = {"auth": {"methods": "jwt", "pass_credentials": passed}}
    made = guarded(echo.url, use, jwt={"query": "t"})
    del made["routes"][0]["to"]
    made["routes"][0]["redirect"] = "https://other.example{path}{query}"
    gateway = start(made)
    shown = token(sub="ann")
    for _ in range(3):
        for sent, left in (
            (f"?t={shown}&a=1", "?a=1"),
            (f"?t={shown}", ""),
            (f"?{shown}&%74={shown}", f"?{shown}"),
        ):
            head, _ = gateway.ask(get(f"/x{sent}"))
            assert head.get("location") == f"https://other.example/x{sent if passed else left}"


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_token_in_the_query_ends_here_in_every_spelling(start, echo, name):
    plugin = {"plugins": [{"use": f"{__name__}:Looks"}]}
    for more in ({}, plugin):
        gateway = start(guarded(echo.url, more, jwt={"query": "access_token"}))
        shown = token(sub="ann")
        for _ in range(3):
            assert status(gateway, get(f"/a?b=1&{name}={shown}&c=%20")) == 200
            seen = echo.seen[-1]
            assert seen.target == "/a?b=1&c=%20"
            assert shown not in str(seen.headers)
        assert status(gateway, get(f"/a?{name}={shown}")) == 200
        assert echo.seen[-1].target == "/a"


@pytest.mark.parametrize(
    ("sent", "left"),
    [
        ("cookie: tok={}", None),
        ("cookie: a=1; tok={}; b=2", "a=1; b=2"),
        ("cookie: a=1;tok={};b=2", "a=1;b=2"),
        ("cookie: \t tok={} ;; a=1", "a=1"),
        ("cookie: tok={}; ; ", None),
        ("Cookie: xtok=1; tok={}; tokx=2", "xtok=1; tokx=2"),
    ],
)
def test_a_token_in_a_cookie_ends_here_however_it_is_written(start, echo, sent, left):
    gateway = start(guarded(echo.url, jwt={"cookies": "tok"}))
    for _ in range(3):
        assert status(gateway, get("/", sent.format(token(sub="ann")))) == 200
        assert [value for name, value in echo.seen[-1].headers if name == "cookie"] == (
            [] if left is None else [left]
        )


def test_what_means_nothing_here_is_not_handed_on_either(start, echo):
    """A cookie of a session that is over tells nobody here who asks, but it is still a secret."""
    use = {"auth": {"methods": "jwt", "anonymous": True}}
    gateway = start(guarded(echo.url, use, jwt={"cookies": "tok", "query": "access_token"}))
    assert status(gateway, get("/", "cookie: tok=; a=1")) in {200, 401}
    assert status(gateway, get("/", "cookie: tok=stale; a=1")) in {200, 401}
    for seen in echo.seen:
        assert "tok" not in (seen.get("cookie") or "")
    assert status(gateway, get("/?access_token=stale")) == 401
    assert status(gateway, get("/?a=1")) == 200
    assert echo.seen[-1].target == "/?a=1"


@pytest.mark.parametrize(
    "lines",
    [
        ("authorization: Bearer {a}", "authorization: Bearer {b}"),
        ("authorization: Bearer {a}", "Authorization: Basic YTpi"),
        ("authorization: Bearer {a}, Bearer {b}",),
        ("authorization: Bearer {a}", "cookie: tok={b}"),
        ("cookie: tok={a}; tok={b}",),
        ("cookie: tok={a}", "cookie: tok={b}"),
    ],
    ids=["twice", "two-schemes", "list", "header-and-cookie", "one-cookie-twice", "two-cookies"],
)
def test_two_people_in_one_request_are_nobody(start, instance, lines):
    gateway = start(guarded(instance.url, jwt={"cookies": "tok"}))
    made = [line.format(a=token(sub="ann"), b=token(sub="bob")) for line in lines]
    for _ in range(3):
        assert status(gateway, get("/", *made)) in {400, 401}
    assert instance.is_left_alone(0.05)


WAYS: dict[str, dict[str, Any]] = {
    "to": {},
    "split": {"to": {"upstream": 0, "b": 1}},
    "fallback": {"fallback": {"when": [503], "service": "b"}, "to": "down"},
    "retry": {"retry": {"attempts": 3, "wait": "1ms"}, "to": "flaky"},
    "mirror": {"mirror": "b"},
    "rewrite": {"strip": True},
}


@pytest.mark.parametrize("plugin", [False, True], ids=["plain", "plugin"])
@pytest.mark.parametrize("way", WAYS)
def test_on_every_way_to_a_service_credentials_end_here(
    start, echo, second, instance, way, plugin, tmp_path: Path
):
    """And a service is told who asks by a token of its own, which no other service gets."""
    route = {**WAYS[way], "match": {"path": "/a/"}}
    if plugin:
        route["plugins"] = [{"use": f"{__name__}:Looks"}]
    made = guarded(
        echo.url, route, jwt={"query": "access_token"}, identity={"token": {}},
        state_dir=str(tmp_path),
    )  # fmt: skip
    made["services"]["b"] = {"instances": [second.url]}
    for name in ("down", "flaky"):
        made["services"][name] = {"instances": [instance.url]}
    names = {name for name in made["services"] if name not in {"down", "flaky"}}
    used = json.dumps(route)
    made["services"] = {
        name: spec
        for name, spec in made["services"].items()
        if name in names or f'"{name}"' in used
    }
    gateway = start(made)
    shown = token(sub="ann")
    for _ in range(3):
        client = gateway.client()
        client.send(get(f"/a/x?access_token={shown}&b=1", "x-auth-subject: root"))
        raw = b""
        if way in {"fallback", "retry"}:
            answers = [response(b"no", status="503 Unavailable")]
            answers += [response(b"ok")] if way == "retry" else []
            peer = instance.accept()
            for answer in answers:
                seen = peer.until(b"\r\n\r\n")
                raw += seen
                peer.send(answer)
            peer.close()
        assert client.answer()[0].status == 200
        if way == "mirror":
            wait_until(lambda: len(second.seen) == len(echo.seen))
        for service, server in (("upstream", echo), ("b", second)):
            for seen in server.seen:
                raw += repr(seen).encode()
                assert seen.get("x-auth-subject") == "ann"
                told = seen.get("x-headgate-identity") or ""
                claims = pyjwt.decode(told, options={"verify_signature": False})
                assert claims["aud"] == service
        assert shown.encode() not in raw
        assert b"root" not in raw
        assert raw


@pytest.mark.parametrize("plugin", [False, True], ids=["plain", "plugin"])
def test_a_second_attempt_beside_the_first_knows_who_asks_and_has_no_credentials(
    start, instance, other, plugin
):
    route: dict[str, Any] = {"hedge": {"after": "20ms"}}
    if plugin:
        route["plugins"] = [{"use": f"{__name__}:Looks"}]
    made = guarded(instance.url, route, jwt={"query": "access_token"})
    made["services"]["upstream"]["instances"] = [instance.url, other.url]
    gateway = start(made)
    shown = token(sub="ann")
    client = gateway.client()
    client.send(get(f"/?access_token={shown}&b=1", "x-auth-subject: root"))
    peers = [instance.accept(), other.accept()]
    for peer in peers:
        seen = peer.until(b"\r\n\r\n")
        assert seen.startswith(b"GET /?b=1 HTTP/1.1\r\n")
        assert b"x-auth-subject: ann\r\n" in seen
        assert shown.encode() not in seen
        assert b"root" not in seen
    peers[1].send(response(b"ok"))
    assert client.answer()[0].status == 200
    assert_all_given_back(gateway)


def test_a_copy_gets_no_credentials_even_where_they_are_passed_on(start, echo, second):
    use = {"auth": {"methods": "jwt", "pass_credentials": True}, "mirror": "b"}
    made = guarded(echo.url, use)
    made["services"]["b"] = {"instances": [second.url]}
    gateway = start(made)
    line = bearer(sub="ann")
    assert status(gateway, get("/", line)) == 200
    assert echo.seen[-1].get("authorization")
    wait_until(lambda: second.seen)
    assert second.seen[-1].get("authorization") is None
    assert second.seen[-1].get("x-auth-subject") == "ann"


# -- ways around -----------------------------------------------------------------------------------

AROUND: dict[str, dict[str, Any]] = {
    "cors": {"cors": {"origins": ["https://app.example"], "methods": ["PUT"]}},
    "fallback-text": {"fallback": {"respond": {"body": "inner"}}},
    "fallback-service": {"fallback": {"when": ["shed", "timeout", 503], "service": "b"}},
    "retry": {"retry": {"attempts": 3}},
    "mirror": {"mirror": "b"},
    "redirect": {"redirect": "https://inner.example{path}"},
    "respond": {"respond": {"body": "inner"}},
    "flag": {"flag": "off", "fallback": {"when": ["shed"], "respond": {"body": "inner"}}},
    "fault": {"fault": {"abort": 418}},
    "limit": {"limit": {"rate": "1/h", "by": "user"}},
    "concurrency": {"concurrency": {"limit": 1}},
    "plugin": {"plugins": [{"use": f"{__name__}:Looks"}]},
    "validation": {"validation": {"query": {"type": "object", "properties": {}}}},
    "websocket": {"upgrade": ["websocket"]},
}

ASKED: dict[str, bytes] = {
    "get": get("/x"),
    "head": request("HEAD", "/x"),
    "trace": request("TRACE", "/x"),
    "options": request("OPTIONS", "/x"),
    "options-all": request("OPTIONS", "*"),
    "preflight-alike": request("OPTIONS", "/x", "origin: https://evil.example"),
    "absolute": request("GET", "http://h.example/x"),
    "connect": b"CONNECT h.example:443 HTTP/1.1\r\nHost: h.example:443\r\n\r\n",
    "upgrade": get(
        "/x", "upgrade: websocket", "connection: upgrade", "sec-websocket-version: 13",
        "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
    ),
    "post": request("POST", "/x", body=b"x" * 100),
    "expect": request("POST", "/x", "expect: 100-continue", "content-length: 3"),
    "deadline": get("/x", "x-request-deadline: 1"),
    "garbage-token": get("/x", "authorization: Bearer a.b.c"),
    "empty-token": get("/x", "authorization:"),
    "method-override": get("/x", "x-http-method-override: OPTIONS", "x-original-url: /open"),
}  # fmt: skip


@pytest.mark.parametrize("policy", AROUND)
def test_nothing_leads_around_authentication(start, instance, other, policy):
    route = {**AROUND[policy]}
    made = guarded(instance.url, route)
    if {"redirect", "respond"} & route.keys():
        del made["routes"][0]["to"]
    made["services"]["b"] = {"instances": [other.url]}
    if "b" not in json.dumps(list(route.values())) or policy in {"cors", "flag"}:
        del made["services"]["b"]
    made["degrade"] = {"flags": {"off": "off"}}
    try:
        gateway = start(made)
    except ConfigInvalid as error:
        pytest.fail(f"{policy}: {error}")
    for name, raw in ASKED.items():
        client = gateway.client()
        client.send(raw)
        head = client.head()
        refused = {400, 401, 403, 405, 501} | ({204} if name == "options-all" else set())
        assert head.status in refused, (name, head)
        assert head.status != 100
        assert b"inner" not in head.raw
        client.close()
    assert instance.is_left_alone(0.05)
    assert other.is_left_alone(0.0)
    assert_all_given_back(gateway)


@pytest.mark.parametrize("policy", AROUND)
def test_nothing_leads_around_access(start, instance, other, policy):
    route = {**AROUND[policy], "allow": {"roles": ["admin"]}}
    made = guarded(instance.url, route)
    if {"redirect", "respond"} & route.keys():
        del made["routes"][0]["to"]
    made["services"]["b"] = {"instances": [other.url]}
    if "b" not in json.dumps(list(AROUND[policy].values())) or policy in {"cors", "flag"}:
        del made["services"]["b"]
    made["degrade"] = {"flags": {"off": "off"}}
    gateway = start(made)
    line = bearer(sub="bob", roles=["user"]).encode() + b"\r\n"
    for name, raw in ASKED.items():
        if "token" in name:
            continue
        head_end = raw.index(b"\r\n") + 2
        for _ in range(2):
            client = gateway.client()
            client.send(raw[:head_end] + line + raw[head_end:])
            head = client.head()
            refused = {400, 403, 405, 501} | ({204} if name == "options-all" else set())
            assert head.status in refused, (name, head)
            client.close()
    assert instance.is_left_alone(0.05)
    assert_all_given_back(gateway)


def test_a_preflight_says_nothing_of_what_is_behind(start, instance):
    cors = {"cors": {"origins": ["https://app.example"], "methods": ["PUT"]}}
    gateway = start(guarded(instance.url, cors))
    for lines in (
        ("origin: https://app.example", "access-control-request-method: PUT"),
        ("origin: https://evil.example", "access-control-request-method: PUT"),
        ("origin: https://app.example", "access-control-request-method: CONNECT"),
        ("origin: https://app.example", "access-control-request-method:"),
        ("origin: https://app.example", "origin: x", "access-control-request-method: PUT"),
        ("origin: a", "access-control-request-method: PUT", "access-control-request-method: GET"),
    ):
        for body in (b"", b"x" * 1000):
            head, _ = gateway.ask(request("OPTIONS", "/", *lines, body=body))
            assert head.status in {204, 401, 403}
    assert instance.is_left_alone(0.05)


PATHS = [
    "/users/bob",
    "/users/bo%62",
    "/users/%62ob",
    "/users/ann/../bob",
    "/users/ann/%2e%2e/bob",
    "/users/./bob",
    "//users/bob",
    "/users//bob",
    "/users/bob/",
    "/users/BOB",
    "/users/bob;ann",
    "/users/ann;/../bob",
    "/users/bob%00ann",
    "/users/bob%2f",
    "/users/ann%2f..%2fbob",
    "/users/ann%2fbob",
    "/users/bob%3Fann",
    "/users/%2562ob",
    "/users/..%2fusers%2fbob",
    "/users/ann%5c..%5cbob",
    "/users/bob#ann",
    "/users/bob?id=ann",
    "http://h.example/users/bob",
    "/%75sers/bob",
]


@pytest.mark.parametrize("path", PATHS)
def test_no_spelling_of_a_path_reaches_anothers(start, instance, path):
    made = guarded(instance.url)
    made["routes"] = [
        {
            "match": {"path": "/users/{id}"},
            "to": "upstream",
            "auth": "jwt",
            "allow": {"params": {"id": "subject"}},
        },
        {
            "match": {"path": "/users/"},
            "to": "upstream",
            "auth": "jwt",
            "allow": {"roles": "admin"},
        },
    ]
    gateway = start(made)
    for _ in range(2):
        client = gateway.client()
        client.send(get(path, bearer(sub="ann")))
        assert client.answer()[0].status in {400, 403, 404, 308, 301}
    assert instance.is_left_alone(0.05)


@pytest.mark.parametrize("path", ["/users/ann", "/users/%61nn", "/users/./ann", "/x/../users/ann"])
def test_every_spelling_of_ones_own_path_is_ones_own(start, echo, path):
    route = {"match": {"path": "/users/{id}"}, "allow": {"params": {"id": "subject"}}}
    gateway = start(guarded(echo.url, route))
    assert status(gateway, get(path, bearer(sub="ann"))) == 200
    assert echo.seen[-1].target == "/users/ann"


def test_a_service_says_whom_it_lets_in_on_every_way_to_it(start):
    """What one service asks must not be forgotten because a route names another one first."""
    for way in (
        {"to": {"a": 1, "b": 1}},
        {"to": "a", "fallback": {"when": [503], "service": "b"}},
        {"to": "a", "mirror": "b"},
        {"to": {"a": 1}, "split": {"header": {"x-b": {"1": "b"}}}},
    ):
        for said in ({"auth": "jwt"}, {"allow": {"roles": ["admin"]}}):
            made = document("http://127.0.0.1:1")
            made["services"] = {
                "a": {"instances": ["http://127.0.0.1:1"]},
                "b": {"instances": ["http://127.0.0.1:2"], **said},
            }
            made["routes"] = [{"name": "all", **way}]
            made["auth"] = {"jwt": JWT, "default": "jwt" if "allow" in said else None}
            if made["auth"]["default"] is None:
                del made["auth"]["default"]
            with pytest.raises(ConfigInvalid, match="services.b"):
                start(made)
            made["routes"][0].update({"auth": "jwt", "allow": {"roles": ["admin"]}})
            start(made).close()


# -- paths of a method's own -----------------------------------------------------------------------


def test_a_path_of_a_method_leads_to_no_service(start, instance, monkeypatch):
    """Also for who is known by another method of the route: the route did not ask for this path."""
    use_methods(monkeypatch, lambda name: Form(name) if name == "form" else None)
    route = {"match": {"path": "/inner/"}, "auth": ["jwt", "form"]}
    made = guarded(instance.url, route)
    made["auth"]["basic"] = {"name": "form", "users": {"a": BASIC}}
    gateway = start(made)
    assert status(gateway, get("/form", bearer(sub="ann"))) == 405
    assert status(gateway, get("/form")) == 405
    head, body = gateway.ask(request("POST", "/form", bearer(sub="ann"), body=b"abc"))
    assert (head.status, body) == (200, b"3")
    assert instance.is_left_alone(0.05)
    assert_all_given_back(gateway)


BASIC = "$2b$04$Ws8YVYZ1Hr1zUeT1yM/Xm.aoF5eVSgYHSzZRkQO3WdPYp5dTDuJVO"


def test_a_path_of_a_method_is_judged_by_the_route_that_would_take_it(start, instance, monkeypatch):
    """What guards one route of several with the same log-in is not what guards the others."""
    use_methods(monkeypatch, Form)
    made = guarded(instance.url)
    inner = {"addresses": {"allow": ["192.0.2.0/24"]}, "auth": "jwt", "to": "upstream"}
    made["routes"] = [
        {"match": {"host": "admin.example"}, **inner},
        {"match": {"host": "app.example"}, "auth": "jwt", "to": "upstream"},
        {"match": {"host": "inner.example"}, **inner},
        {"match": {"host": "open.example"}, "to": "upstream"},
    ]
    gateway = start(made)
    for _ in range(3):
        for host, found in (("app", 200), ("admin", 403), ("inner", 403), ("open", 403)):
            raw = request("POST", "/form", host=f"{host}.example", body=b"abc")
            assert status(gateway, raw) == found, host
    assert instance.is_left_alone(0.05)


def test_a_client_that_waits_to_be_told_to_send_is_told(start, instance, monkeypatch):
    use_methods(monkeypatch, Form)
    gateway = start(guarded(instance.url))
    client = gateway.client()
    client.send(request("POST", "/form", "expect: 100-continue", "content-length: 3"))
    assert client.head().status == 100
    client.send(b"abc")
    assert client.answer()[1] == b"3"


def test_a_long_body_for_a_method_is_read_to_its_end(start, instance, monkeypatch):
    most = 300_000
    use_methods(monkeypatch, lambda name: Form(name, most))
    gateway = start(guarded(instance.url))
    for size in (most, most + 1):
        client = gateway.client()
        body = b"x" * size
        client.send(request("POST", "/form", f"content-length: {size}"))
        sent = threading.Thread(target=client.try_send, args=(body,))
        sent.start()
        head, answer = client.answer()
        sent.join(8)
        assert (head.status, answer) == ((200, b"300000") if size == most else (413, answer))
    assert_all_given_back(gateway)


# -- what refusals say -----------------------------------------------------------------------------


def test_several_challenges_are_lines_of_their_own_and_nothing_is_echoed(start, instance):
    made = guarded(instance.url, {"auth": ["jwt", "keys", "people"]})
    made["auth"]["api_key"] = {"name": "keys", "header": "x-api-key", "keys": KEYS}
    made["auth"]["basic"] = {"name": "people", "users": {"a": BASIC}}
    gateway = start(made)
    head, body = gateway.ask(get("/"))
    challenges = head.all("www-authenticate")
    assert [each.split(" ")[0] for each in challenges] == ["Bearer", "ApiKey", "Basic"]
    for each in challenges:
        assert re.fullmatch(r'[A-Za-z]+ [a-z]+="[^"\\]*"(, ?[a-z_]+="[^"\\]*")*', each)
    for line in (
        "authorization: Bearer seekrit.seekrit.seekrit",
        "authorization: Basic c2Vla3JpdDpzZWVrcml0",
        "authorization: seekrit",
        "x-api-key: seekrit",
        "authorization: " + bearer(sub="seekrit", exp=1).split(" ", 1)[1],
    ):
        client = gateway.client()
        client.send(get("/?api_key=seekrit", line))
        head, body = client.answer()
        assert head.status in {400, 401}
        said = head.raw + body
        assert b"seekrit" not in said
        assert line.split()[-1].encode() not in said


KEYS = [{"id": "first", "hash": "sha256:" + "a" * 64, "consumer": "shop"}]


def test_the_log_tells_who_asks_and_never_how(start, echo, tmp_path: Path):
    log = tmp_path / "access.log"
    for form, name in (("json", "access_token"), ("combined", "access_token"), ("json", "t")):
        made = guarded(echo.url, jwt={"query": name, "cookies": "tok"})
        made["access_log"] = {"format": form, "path": str(log)}
        gateway = start(made)
        shown = token(sub="ann")
        signature = shown.rpartition(".")[2]
        for raw in (
            get(f"/a?{name}={shown}&b=1"),
            get(f"/a?%{ord(name[0]):x}{name[1:]}={shown}x"),
            get("/", f"cookie: tok={shown}", f"referer: https://h/?{name}={shown}"),
            get("/", f"authorization: Bearer {shown}"),
        ):
            gateway.ask(raw)
        gateway.close()
        text = log.read_text()
        assert "ann" in text
        assert signature not in text


# -- plans that cannot be taken up -----------------------------------------------------------------


def test_a_key_that_cannot_be_made_refuses_the_plan_before_anything_changes(start, echo, tmp_path):
    gateway = start(guarded(echo.url))
    line = bearer(sub="ann")
    assert status(gateway, get("/", line)) == 200
    blocked = tmp_path / "file"
    blocked.write_text("no directory")
    entrance = gateway.worker._entrance
    before = dict(entrance._methods)
    lines = dict(gateway.worker._lines)
    made = guarded("http://127.0.0.1:9", jwt={"claims": {"roles": "r"}}, identity={"token": {}})
    with pytest.raises(ConfigInvalid, match="sign"):
        gateway.apply({**made, "state_dir": str(blocked)})
    assert entrance._methods == before
    assert gateway.worker._lines == lines
    assert status(gateway, get("/", line)) == 200


def test_a_plugin_that_cannot_start_does_not_leave_half_a_plan(start, echo, caplog):
    gateway = start(guarded(echo.url))
    gateway.apply(guarded(echo.url, {"plugins": [{"use": f"{__name__}:CannotStart"}]}))
    assert "could not take up its work" in caplog.text
    assert status(gateway, get("/", bearer(sub="ann"))) == 200
    assert status(gateway, get("/")) == 401


# -- addresses -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("192.0.2.66", 403),
        ("::ffff:192.0.2.66", 403),
        ("::FFFF:C000:0242", 403),
        ("[::ffff:192.0.2.66]:80", 403),
        ("192.0.2.66:1234", 403),
        ("203.0.113.9, 192.0.2.66", 403),
        ("192.0.2.66, 203.0.113.9", 200),
        ("2001:db8::66", 403),
        ("2001:DB8:0:0::66", 403),
        ("192.0.2.1", 200),
    ],
)
def test_one_address_has_one_meaning(start, echo, said, found):
    route = {"addresses": {"deny": ["192.0.2.66", "2001:db8::66"]}}
    gateway = start(document(echo.url, route=route, trusted_proxies=["127.0.0.1"]))
    for _ in range(2):
        assert status(gateway, get("/", f"x-forwarded-for: {said}")) == found


def test_a_unix_socket_is_no_address(start, echo, tmp_path: Path):
    bind = f"unix:{tmp_path / 's'}"
    made = document(echo.url)
    made["listeners"] = [{"bind": bind}]
    made["bans"] = {
        "when": [{"kind": "status_404", "more_than": 1, "within": "1min", "ban": "1h"}],
        "loopback": True,
    }
    made["routes"] = [
        {"match": {"path": "/allow/"}, "to": "upstream", "addresses": {"allow": ["192.0.2.0/24"]}},
        {"match": {"path": "/deny/"}, "to": "upstream", "addresses": {"deny": ["192.0.2.0/24"]}},
    ]
    start(made)

    def ask(path: str) -> int:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(bind.removeprefix("unix:"))
        with Peer(sock) as peer:
            peer.send(get(path))
            return peer.answer()[0].status

    assert [ask("/none") for _ in range(5)] == [404] * 5
    assert (ask("/allow/"), ask("/deny/")) == (403, 200)


def test_who_is_banned_by_hand_is_shut_out_on_open_connections_too(start, echo):
    """Also where the file says nothing of bans, and behind a proxy that is trusted."""
    gateway = start(document(echo.url, trusted_proxies=["127.0.0.1"]))
    bans = gateway.worker._entrance.parts.bans
    client = gateway.client()
    for ip, found in (("192.0.2.1", 200), ("192.0.2.2", 200)):
        client.send(get("/", f"x-forwarded-for: {ip}"))
        assert client.answer()[0].status == found
    gateway.on_loop(lambda: bans.ban("192.0.2.1", 600.0, "a test", "hand", monotonic()))
    for ip, found in (("192.0.2.2", 200), ("192.0.2.1", 403)):
        client = gateway.client()
        client.send(get("/", f"x-forwarded-for: {ip}"))
        head, _ = client.answer()
        assert head.status == found
    assert int(head.get("retry-after") or 0) > 500


def test_a_ban_by_hand_ends_connections_that_are_open(start, instance):
    gateway = start(document(instance.url))
    bans = gateway.worker._entrance.parts.bans
    # This machine is exempt unless the file says otherwise.
    rules = BansSpec(when=(), loopback=True).rules(())
    idle, busy = gateway.client(), gateway.client()
    for client in (idle, busy):
        client.send(get("/"))
        with instance.accept() as peer:
            peer.until(b"\r\n\r\n")
            peer.send(response(b"ok", "Connection: close"))
        assert client.answer()[0].status == 200
    busy.send(request("POST", "/", "content-length: 10"))

    def ban() -> None:
        bans.take_rules(rules, monotonic())
        bans.ban("127.0.0.1", 600.0, "a test", "hand", monotonic())

    gateway.on_loop(ban)
    assert idle.is_closed()
    assert busy.is_closed()
    assert gateway.client().answer()[0].status == 403
    assert_all_given_back(gateway)


@pytest.mark.parametrize(
    "source", ["TCP4 192.0.2.66", "TCP6 ::ffff:192.0.2.66", "TCP6 ::ffff:c000:242"]
)
@pytest.mark.parametrize("rules", [True, False], ids=["rules", "by-hand-alone"])
def test_a_ban_holds_for_whom_a_proxy_introduces(start, echo, source, rules):
    made = document(echo.url, listener={"proxy_protocol": True}, trusted_proxies=["127.0.0.1"])
    if rules:
        made["bans"] = {"when": []}
    gateway = start(made)
    bans = gateway.worker._entrance.parts.bans
    words = source.split()
    line = f"PROXY {words[0]} {words[1]} {words[1]} 1234 80\r\n".encode()
    assert status(gateway, line + get("/")) == 200
    open_one = gateway.client()
    open_one.send(line + get("/"))
    assert open_one.answer()[0].status == 200
    gateway.on_loop(lambda: bans.ban("192.0.2.66", 600.0, "a test", "hand", monotonic()))
    for raw in (line, line + get("/")):
        with gateway.client() as client:
            client.send(raw)
            head, _ = client.answer()
            assert (head.status, head.get("connection")) == (403, "close")
    if rules:
        open_one.send(get("/"))
        assert open_one.answer()[0].status == 403
    else:
        assert open_one.is_closed()
    assert status(gateway, b"PROXY TCP4 192.0.2.67 192.0.2.1 1234 80\r\n" + get("/")) == 200


# -- by chance -------------------------------------------------------------------------------------

TARGETS = ["/", "/open", "//", "/a/../open", "/%6fpen", "/open/..;/x", "/open?x", "/open#", "*",
           "http://h.example/x", "http://open.example/", "https://h.example:443/", "/.//x", "\\x",
           "/x%0d%0ahost:open.example", "/open%2f..%2fx", "/;/open"]  # fmt: skip
HOSTS = ["h.example", "open.example", "H.EXAMPLE.", "h.example:80", "open.example:x", "", "[::1]"]
NAMES = ["authorization", "Authorization", "authorization ", "author\u00ef", "x-auth-subject",
         "proxy-authorization", "cookie", "content-length", "transfer-encoding", "connection",
         "upgrade", "expect", "x-forwarded-for", "x-http-method-override", "x-original-url",
         "x-rewrite-url", "forwarded", "host", "te", "trailer"]  # fmt: skip
VALUES = ["Bearer a.b.c", "Bearer", "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4ifQ.", "Basic OjE=",
          "root", "tok=x", "0", "3", "-1", "chunked", "identity, chunked", "keep-alive, x-user",
          "websocket", "h2c", "100-continue", "127.0.0.1", "/open", "open.example", "OPTIONS", "",
          "authorization", "GET /open HTTP/1.1"]  # fmt: skip


@pytest.mark.parametrize("seed", range(6))
def test_whatever_is_sent_nothing_passes_without_a_token(start, instance, other, seed):
    """Two routes and an open one: what is asked of the guarded ones never arrives, and the open
    one is reached by its own host alone.
    """
    draw = random.Random(seed)
    made = document(instance.url, trusted_proxies=["127.0.0.1"] if seed % 2 else [])
    made["services"]["open"] = {"instances": [other.url]}
    cors = {"origins": ["https://app.example"]}
    made["routes"] = [
        {"match": {"host": "open.example"}, "to": "open", "auth": False},
        {"match": {"path": "/x"}, "to": "upstream", "auth": "jwt", "cors": cors},
        {"to": "upstream", "auth": {"methods": "jwt", "anonymous": True},
         "allow": {"roles": ["admin"]}, "upgrade": ["websocket", "h2c"]},
    ]  # fmt: skip
    made["auth"] = {"jwt": JWT}
    gateway = start(made)
    for _ in range(60):
        raw = b""
        for _ in range(draw.choice([1, 1, 2, 3])):
            method = draw.choice(["GET", "HEAD", "POST", "OPTIONS", "TRACE", "CONNECT", "PUT"])
            lines = [
                f"{draw.choice(NAMES)}: {draw.choice(VALUES)}" for _ in range(draw.randint(0, 5))
            ]
            raw += request(method, draw.choice(TARGETS), *lines, host=draw.choice(HOSTS))
            raw += draw.choice([b"", b"", b"abc", b"0\r\n\r\n", b"GET /x HTTP/1.1\r\n\r\n"])
        client = gateway.client()
        client.try_send(raw)
        client.try_send(b"\r\n\r\n")
        client.end()
        wait_until(lambda: gateway.in_flight == 0 or not other.is_left_alone(0.0))
        while not other.is_left_alone(0.0):
            with other.accept() as peer:
                peer.sock.settimeout(1)
                seen = peer.data if b"\r\n\r\n" in peer.data else peer.until(b"\r\n\r\n")
                assert b"\r\nhost: open.example" in seen.lower()
        client.close()
        assert instance.is_left_alone(0.0), raw
    assert gateway.ask(request("GET", "/", host="h.example"))[0].status == 403
    gateway.assert_settles()
    assert instance.is_left_alone(0.1)
