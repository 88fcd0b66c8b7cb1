"""Who asks: request ids, traces, forwarding headers, and whose word is taken for them."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.gateway.rig import document, get, request, response

pytestmark = pytest.mark.integration

TRUSTED: dict[str, Any] = {"trusted_proxies": ["127.0.0.0/8"]}
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def ask(start, instance):
    """Ask with some headers; what the instance saw and what the client got."""

    def asked(*lines, made=(), target="/", **more):
        gateway = start(document(instance, **more))
        with gateway.client() as client:
            client.send(get(target, *lines))
            upstream = instance.accept()
            seen = upstream.head()
            upstream.send(response(b"ok", *made))
            return seen, client.answer()[0]

    return asked


# -- request id


def test_an_id_is_made(ask):
    seen, head = ask()
    assert re.fullmatch("[0-9a-f]{32}", seen.get("x-request-id") or "")
    assert head.all("x-request-id") == seen.all("x-request-id")


def test_a_service_that_answers_an_id_too_is_not_heard_twice(ask):
    seen, head = ask(made=("X-Request-Id: theirs", "X-Response-Time: 1s", "X-Other: kept"))
    assert head.all("x-request-id") == seen.all("x-request-id")
    assert len(head.all("x-response-time")) == 1
    assert head.get("x-other") == "kept"


def test_a_strangers_id_is_replaced(ask):
    seen, head = ask("X-Request-Id: mine")
    assert len(seen.all("x-request-id")) == 1
    assert seen.get("x-request-id") != "mine"
    assert head.get("x-request-id") == seen.get("x-request-id")


def test_a_trusted_peers_id_is_taken(ask):
    seen, head = ask("X-Request-Id: abc/123", **TRUSTED)
    assert seen.all("x-request-id") == ["abc/123"]
    assert head.get("x-request-id") == "abc/123"


@pytest.mark.parametrize("bad", ["with space", "x" * 129, ""])
def test_a_trusted_peers_bad_id_is_replaced(ask, bad):
    seen, head = ask(f"X-Request-Id: {bad}", **TRUSTED)
    assert re.fullmatch("[0-9a-f]{32}", seen.get("x-request-id") or "")
    assert head.all("x-request-id") == seen.all("x-request-id")


def test_the_id_may_have_another_name(ask):
    seen, head = ask("X-Correlation: theirs", request_id={"header": "X-Correlation"})
    assert len(seen.all("x-correlation")) == 1
    assert seen.get("x-correlation") != "theirs"
    assert "x-request-id" not in seen
    assert head.get("x-correlation") == seen.get("x-correlation")


def test_every_request_of_a_connection_has_its_own(start, instance):
    gateway = start(document(instance))
    ids = set()
    with gateway.client() as client:
        for _ in range(600):
            client.send(get())
            upstream = instance.accepted[0] if instance.accepted else instance.accept()
            ids.add(upstream.head().get("x-request-id"))
            upstream.send(response())
            client.answer()
    assert len(ids) == 600


# -- trace


def test_a_valid_trace_passes_where_none_are_made(ask):
    seen, _ = ask(f"traceparent: {TRACE}", "tracestate: a=1", tracing=False)
    assert seen.all("traceparent") == [TRACE]
    assert seen.get("tracestate") == "a=1"


@pytest.mark.parametrize("more", [{}, {"tracing": False}], ids=["on", "off"])
def test_a_trace_begins_where_there_is_none(ask, more):
    seen, _ = ask(**more)
    assert len(seen.all("traceparent")) == 1
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-0[0-3]", seen.get("traceparent") or "")


@pytest.mark.parametrize(
    "bad",
    [
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        "nonsense",
        f"{TRACE}\r\ntraceparent: {TRACE}",
    ],
)
@pytest.mark.parametrize("more", [{}, {"tracing": False}], ids=["on", "off"])
def test_an_invalid_trace_is_replaced_with_its_state(ask, bad, more):
    seen, _ = ask(f"traceparent: {bad}", "tracestate: a=1", **more)
    assert len(seen.all("traceparent")) == 1
    assert seen.get("traceparent") not in bad
    assert "tracestate" not in seen


# -- forwarding headers


SPOOFED = (
    "X-Forwarded-For: 6.6.6.6",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: evil.example",
    "X-Forwarded-Port: 1",
    "X-Real-IP: 6.6.6.6",
    "Forwarded: for=6.6.6.6",
)


def test_a_strangers_word_is_replaced(ask):
    seen, _ = ask(*SPOOFED)
    assert seen.all("x-forwarded-for") == ["127.0.0.1"]
    assert seen.all("x-forwarded-proto") == ["http"]
    assert seen.all("x-forwarded-host") == ["h.example"]
    assert "6.6.6.6" not in seen.raw.decode()
    assert "evil" not in seen.raw.decode()


def test_a_trusted_peers_word_is_continued(ask):
    seen, _ = ask(
        "X-Forwarded-For: 192.0.2.7", "X-Forwarded-Proto: https", "X-Forwarded-Host: shop.example",
        **TRUSTED,
    )  # fmt: skip
    assert seen.get("x-forwarded-for") == "192.0.2.7, 127.0.0.1"
    assert seen.all("x-forwarded-proto") == ["https"]
    assert seen.all("x-forwarded-host") == ["shop.example"]


def test_one_client_cannot_get_anothers_forwarding_from_the_cache(start, instance):
    """Heads that look alike share what is prepared for them; the client's address is not in it."""
    gateway = start(document(instance, **TRUSTED))
    asked = get("/same", "X-Forwarded-For: 192.0.2.7")
    with gateway.client() as client:
        for _ in range(3):
            client.send(asked)
            upstream = instance.accepted[0] if instance.accepted else instance.accept()
            assert upstream.head().get("x-forwarded-for") == "192.0.2.7, 127.0.0.1"
            upstream.send(response())
            client.answer()


def test_forwarding_can_be_said_the_standard_way(ask):
    seen, _ = ask(forwarded={"x_forwarded": False, "forwarded": True})
    assert "x-forwarded-for" not in seen
    said = seen.get("forwarded") or ""
    assert "for=127.0.0.1" in said
    assert "proto=http" in said


def test_via_names_us(ask):
    seen, _ = ask("Via: 1.0 before")
    assert seen.get("via") == "1.0 before, 1.1 headgate"


def test_headers_named_by_connection_end_here(ask):
    seen, head = ask(
        "Connection: X-Secret, close", "X-Secret: 1", "X-Kept: 2", "Keep-Alive: 5",
        "Proxy-Authorization: x", "TE: gzip",
        made=("Connection: X-Inner", "X-Inner: 1", "X-Outer: 2", "Keep-Alive: timeout=5"),
    )  # fmt: skip
    for name in ("x-secret", "keep-alive", "proxy-authorization", "te", "connection"):
        assert name not in seen
    assert seen.get("x-kept") == "2"
    for name in ("x-inner", "keep-alive"):
        assert name not in head
    assert head.get("x-outer") == "2"


# -- the client's address decides


def by_address(instance, **more):
    said = document(instance, **more)
    said["routes"] = [
        {"name": "inside", "match": {"client_ip": "10.0.0.0/8"}, "respond": {"body": "inside"}},
        {"name": "others", "respond": {"body": "others"}},
    ]
    return said


@pytest.mark.parametrize(
    "trusted, forwarded, expected",
    [
        (True, "10.1.2.3", b"inside"),
        (True, "10.1.2.3, 192.0.2.1", b"others"),
        (True, "192.0.2.1, 10.1.2.3", b"inside"),
        (True, None, b"others"),
        (False, "10.1.2.3", b"others"),
    ],
)
def test_client_ip_is_the_one_that_trusted_peers_vouch_for(
    start, instance, trusted, forwarded, expected
):
    gateway = start(by_address(instance, **(TRUSTED if trusted else {})))
    lines = [f"X-Forwarded-For: {forwarded}"] if forwarded else []
    with gateway.client() as client:
        for _ in range(2):  # the second time from the cache, if it is cached
            client.send(get("/", *lines))
            assert client.answer()[1] == expected


def test_host_can_be_the_instances_or_a_literal(start, instance):
    for host, expected in (
        ("preserve", "h.example"),
        ("instance", f"127.0.0.1:{instance.port}"),
        ("app.internal", "app.internal"),
    ):
        gateway = start(document(instance, service={"host": host}))
        with gateway.client() as client:
            client.send(get())
            upstream = instance.accept()
            assert upstream.head().all("host") == [expected]
            upstream.send(response())
            client.answer()


def test_a_problem_names_the_request(start, instance):
    gateway = start(document(instance, route={"match": {"path": "/known/", "methods": ["GET"]}}))
    head, body = gateway.ask(get("/unknown"))
    assert head.status == 404
    assert json.loads(body)["request_id"] == head.get("x-request-id")
    head, body = gateway.ask(request("DELETE", "/known/"))
    assert head.status == 405
    assert head.get("allow") == "GET, HEAD"
    assert json.loads(body)["source"] == "client"
