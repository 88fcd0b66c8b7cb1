"""The entrance over HTTP/2: streams beside each other, bodies before answers, odd fields."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from headgate.wire.h2 import ErrorCode
from headgate.wire.h2.hpack_static import NeverIndexed
from tests.gateway.entrance_rig import JWT, Form, Slow, token, use_methods
from tests.gateway.given_back import assert_all_given_back
from tests.gateway.h2_client import Client, Told
from tests.gateway.h2_instance import Instance as H2Instance
from tests.gateway.rig import document, wait_until

pytestmark = pytest.mark.integration


@pytest.fixture
def slow(monkeypatch):
    return use_methods(monkeypatch, Slow)


def guarded(upstream: str, route: dict[str, Any] | None = None, jwt: dict[str, Any] | None = None,
            **more: Any) -> dict[str, Any]:  # fmt: skip
    made = document(upstream, route={"auth": "jwt", **(route or {})}, **more)
    return {**made, "auth": {"jwt": {**JWT, **(jwt or {})}}}


def is_answered(stream: Told) -> bool:
    return stream.head is not None or stream.is_over


def auth(**claims: Any) -> tuple[bytes, bytes]:
    return b"authorization", b"Bearer " + token(**claims).encode()


def test_streams_of_one_connection_are_each_their_own(start, echo):
    gateway = start(guarded(echo.url))
    fields = {name: auth(sub=name) for name in ("ann", "bob", "cid")}
    with Client(gateway.port()) as client:
        asked = []
        for number in range(60):
            name = ("ann", "bob", "cid", "")[number % 4]
            asked.append((name, client.ask("GET", f"/{name}", (fields[name],) if name else ())))
        for name, stream in asked:
            assert client.wait(stream).status == (200 if name else 401)
    assert {(seen.target, seen.get("x-auth-subject")) for seen in echo.seen} == {
        (f"/{name}", name) for name in fields
    }
    assert_all_given_back(gateway)


def test_the_same_fields_never_indexed_are_the_same_person(start, echo):
    gateway = start(guarded(echo.url))
    name, value = auth(sub="ann")
    other = auth(sub="bob")
    with Client(gateway.port()) as client:
        for _ in range(3):
            for field, who in (
                ((name, value), "ann"),
                ((name, NeverIndexed(value)), "ann"),
                (other, "bob"),
                ((name, NeverIndexed(other[1])), "bob"),
            ):
                assert client.get("/", field).status == 200
                assert echo.seen[-1].get("x-auth-subject") == who


def test_no_body_reaches_anybody_before_it_is_known_who_asks(start, instance, slow):
    gateway = start(guarded(instance.url))
    with Client(gateway.port()) as client:
        stream = client.ask("POST", "/", ((b"x-user", b"ann"),), b"x" * 30_000, end=False)
        slow["jwt"].wait_asked()
        assert instance.is_left_alone(0.05)
        client.send(stream, b"y" * 1000, end=True)
        gateway.on_loop(slow["jwt"].let_go)
        peer = instance.accept()
        seen = peer.until(b"y" * 1000)
        assert b"x" * 30_000 + b"y" * 1000 in seen
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        assert client.wait(stream).status == 200
    assert_all_given_back(gateway)


def test_a_body_that_is_refused_does_not_stop_the_others(start, echo):
    gateway = start(guarded(echo.url))
    with Client(gateway.port()) as client:
        for _ in range(5):
            stream = client.ask("POST", "/", (), b"x" * 60_000, end=False)
            client.until(partial(is_answered, stream))
            assert stream.status == 401
            client.send(stream, b"x" * 100)
            assert client.get("/", auth(sub="ann")).status == 200
    assert_all_given_back(gateway)


def test_streams_that_are_reset_while_asked_take_nothing_along(start, instance, slow):
    gateway = start(guarded(instance.url, {"concurrency": {"limit": 2}}))
    with Client(gateway.port()) as client:
        for end in (True, False):
            for _ in range(5):
                stream = client.ask("POST", "/", ((b"x-user", b"ann"),), b"abc", end=end)
                slow["jwt"].wait_asked()
                client.codec.reset(stream, ErrorCode.CANCEL)
                client.flush()
                wait_until(lambda: gateway.in_flight == 0)
        gateway.on_loop(slow["jwt"].let_go)
        wait_until(lambda: slow["jwt"].waiting == 0)
        assert instance.is_left_alone(0.05)
    assert_all_given_back(gateway)


def test_a_connection_that_ends_while_its_streams_are_asked_leaves_nothing(start, instance, slow):
    gateway = start(guarded(instance.url))
    client = Client(gateway.port())
    for number in range(20):
        client.ask("GET", f"/{number}", ((b"x-user", b"ann"),))
    for _ in range(20):
        slow["jwt"].wait_asked()
    client.close()
    wait_until(lambda: gateway.in_flight == 0)
    gateway.on_loop(slow["jwt"].let_go)
    wait_until(lambda: slow["jwt"].waiting == 0)
    assert instance.is_left_alone(0.05)
    assert_all_given_back(gateway)


FORGED = [
    (b"x-auth-subject", b"root"),
    (b"x_auth_subject", b"root"),
    (b"x-auth_roles", b"root"),
    (b"x-forwarded-access-token", b"root"),
    (b"x-headgate-identity", b"root"),
]


@pytest.mark.parametrize("trusted", [False, True], ids=["stranger", "proxy"])
def test_nobody_says_who_they_are_in_fields_or_trailers(start, instance, echo, trusted):
    more: dict[str, Any] = {"trusted_proxies": ["127.0.0.1"]} if trusted else {}
    made = guarded(instance.url, **more)
    made["auth"]["identity"] = {"token": {}, "headers": {"x-auth-subject": "subject"}}
    made["auth"]["identity"].pop("token")
    gateway = start(made)
    with Client(gateway.port()) as client:
        for forged in (FORGED[:1], FORGED[:4]):
            stream = client.ask("POST", "/", (auth(sub="ann"), *forged), b"x", end=False)
            client.codec.send_trailers(stream, (*forged, (b"x-sum", b"7")))
            client.flush()
            peer = instance.accept()
            seen = peer.until(b"x-sum: 7\r\n")
            assert b"x-auth-subject: ann" in seen
            for name in (b"x-auth-subject: root", b"x_auth_subject", b"access-token"):
                assert name not in seen
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            assert client.wait(stream).status == 200


@pytest.mark.parametrize(
    "field",
    [
        (b":x-auth-subject", b"root"),
        (b"X-Auth-Subject", b"root"),
        (b"x-auth-subject ", b"root"),
        (b"x-auth-subject:", b"root"),
        (b":path", b"/open"),
        (b":authority", b"inner.example"),
        (b"connection", b"x-auth-subject"),
    ],
    ids=["pseudo", "capitals", "blank", "colon", "second-path", "second-authority", "connection"],
)
def test_a_name_that_is_none_ends_the_stream(start, instance, field):
    gateway = start(guarded(instance.url))
    with Client(gateway.port()) as client:
        stream = client.ask("GET", "/", (auth(sub="ann"), field))
        client.wait(stream)
        assert stream.reset is not None or stream.status == 400
    assert instance.is_left_alone(0.05)


def test_a_host_field_that_contradicts_the_authority_decides_nothing(start, instance):
    made = guarded(instance.url)
    made["routes"] = [
        {"match": {"host": "open.example"}, "to": "upstream", "auth": False},
        {"match": {"host": "localhost"}, "to": "upstream", "auth": "jwt"},
    ]
    gateway = start(made)
    with Client(gateway.port()) as client:
        stream = client.wait(client.ask("GET", "/", ((b"host", b"open.example"),)))
        assert stream.reset is not None or stream.status in {400, 401}
    assert instance.is_left_alone(0.05)


def test_cookies_in_pieces_are_found_and_taken_out(start, echo):
    gateway = start(guarded(echo.url, jwt={"cookies": "tok"}))
    shown = token(sub="ann").encode()
    with Client(gateway.port()) as client:
        for _ in range(3):
            fields = ((b"cookie", b"a=1"), (b"cookie", b"tok=" + shown), (b"cookie", b"b=2"))
            assert client.get("/", *fields).status == 200
            seen = echo.seen[-1]
            assert shown.decode() not in str(seen)
            assert seen.get("x-auth-subject") == "ann"
        twice = ((b"cookie", b"tok=" + shown), (b"cookie", b"tok=" + shown[:-2]))
        assert client.get("/", *twice).status in {400, 401}


@pytest.mark.parametrize("method", ["CONNECT", "TRACE", "OPTIONS", "HEAD"])
def test_no_method_leads_around(start, instance, method):
    gateway = start(guarded(instance.url, {"upgrade": ["websocket"]}))
    with Client(gateway.port()) as client:
        stream = client.wait(client.ask(method, "/", ()))
        assert stream.reset is not None or stream.status in {400, 401, 405, 501}
        tunnel = client.ask("CONNECT", "/", ((b"sec-websocket-version", b"13"),), end=False,
                            protocol="websocket")  # fmt: skip
        client.until(lambda: tunnel.head is not None or tunnel.is_over)
        assert tunnel.reset is not None or tunnel.status == 401
    assert instance.is_left_alone(0.05)
    assert_all_given_back(gateway)


def test_a_tunnel_is_told_who_asks_and_gets_no_credentials(start, instance):
    gateway = start(guarded(instance.url, {"upgrade": ["websocket"]}, jwt={"query": "t"}))
    with Client(gateway.port()) as client:
        client.ask("CONNECT", f"/?t={token(sub='ann')}&a=1",
                   ((b"sec-websocket-version", b"13"), (b"x-auth-subject", b"root")), end=False,
                   protocol="websocket")  # fmt: skip
        seen = instance.accept().until(b"\r\n\r\n")
        assert seen.startswith(b"GET /?a=1 HTTP/1.1\r\n")
        assert b"x-auth-subject: ann" in seen
        assert b"root" not in seen


def test_a_form_for_a_method_comes_over_streams_too(start, instance, monkeypatch):
    use_methods(monkeypatch, lambda name: Form(name, 300_000))
    gateway = start(guarded(instance.url))
    with Client(gateway.port()) as client:
        for size in (0, 1, 70_000, 300_000):
            stream = client.ask("POST", "/form", (), b"x" * size)
            client.wait(stream)
            assert (stream.status, bytes(stream.body)) == (200, b"%d" % size)
        stream = client.ask("POST", "/form", (), b"x" * 300_001)
        assert client.wait(stream).status == 413
        assert client.wait(client.ask("POST", "/form", (), b"abc")).status == 200
    assert_all_given_back(gateway)


@pytest.mark.parametrize("plugin", [False, True], ids=["plain", "plugin"])
def test_a_service_over_streams_is_told_who_asks_and_gets_no_credentials(start, plugin):
    with H2Instance(lambda served: served.answer() if served.ended else None) as service:
        made = guarded(f"http://127.0.0.1:{service.port}", jwt={"query": "t"})
        made["services"]["upstream"]["http"] = "2"
        if plugin:
            made["routes"][0]["plugins"] = [{"use": "tests.gateway.test_doors:Sees"}]
        gateway = start(made)
        forged = ((b"x-auth-subject", b"root"), (b"x_auth_roles", b"root"))
        with Client(gateway.port()) as client:
            for name in ("ann", "bob", "ann", "ann", "bob"):
                shown = token(sub=name)
                stream = client.ask("POST", f"/?t={shown}&a=1", forged, b"abc", end=False)
                client.codec.send_trailers(stream, (*forged, (b"x-sum", b"7")))
                client.flush()
                assert client.wait(stream).status == 200
                got = service.requests[-1]
                assert got.path == "/?a=1"
                assert got.header(b"x-auth-subject") == name.encode()
                assert got.trailers == ((b"x-sum", b"7"),)
                assert got.fields is not None
                assert b"root" not in {value for _, value in got.fields.headers}
        assert_all_given_back(gateway)
