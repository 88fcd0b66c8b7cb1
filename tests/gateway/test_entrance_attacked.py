"""The entrance under attack: ways around it, and what refusals say."""

from __future__ import annotations

import json
import random
import re
import threading
from pathlib import Path
from typing import Any

import pytest

from headgate.errors import ConfigInvalid
from headgate.gateway.filters import Filter
from tests.gateway.entrance_rig import JWT, Form, bearer, guarded, status, token, use_methods
from tests.gateway.given_back import assert_all_given_back
from tests.gateway.rig import document, get, request, wait_until

pytestmark = pytest.mark.integration


class CannotStart(Filter):
    def start(self, parts: Any) -> None:
        raise RuntimeError("not today")


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
    "plugin": {"plugins": [{"use": "tests.gateway.entrance_rig:Looks"}]},
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
    lines = list(gateway.worker._lines.values())
    made = guarded("http://127.0.0.1:9", jwt={"claims": {"roles": "r"}}, identity={"token": {}})
    with pytest.raises(ConfigInvalid, match="sign"):
        gateway.apply({**made, "state_dir": str(blocked)})
    assert entrance._methods == before
    assert list(gateway.worker._lines.values()) == lines
    assert status(gateway, get("/", line)) == 200


def test_a_plugin_that_cannot_start_does_not_leave_half_a_plan(start, echo, caplog):
    gateway = start(guarded(echo.url))
    gateway.apply(guarded(echo.url, {"plugins": [{"use": f"{__name__}:CannotStart"}]}))
    assert "could not take up its work" in caplog.text
    assert status(gateway, get("/", bearer(sub="ann"))) == 200
    assert status(gateway, get("/")) == 401


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
