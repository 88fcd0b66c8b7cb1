"""What services are told, and what they are not: forged names, and credentials in odd places."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jwt as pyjwt
import pytest

from tests.gateway.entrance_rig import bearer, guarded, status, token
from tests.gateway.given_back import assert_all_given_back
from tests.gateway.rig import get, response, wait_until

pytestmark = pytest.mark.integration


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
    plugin = {"plugins": [{"use": "tests.gateway.entrance_rig:Looks"}]}
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
        route["plugins"] = [{"use": "tests.gateway.entrance_rig:Looks"}]
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
        route["plugins"] = [{"use": "tests.gateway.entrance_rig:Looks"}]
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
