"""OPTIONS and TRACE that count their hops (RFC 9110 7.6.2)."""

from __future__ import annotations

import pytest

from tests.gateway.h2_client import Client
from tests.gateway.rig import document, response

pytestmark = pytest.mark.integration


def said(instance, **route):
    found = document(instance, route=route)
    found["routes"].insert(
        0, {"name": "ours", "match": {"path": "/ours/"}, "respond": {"status": 200, "body": "ours"}}
    )
    # TRACE goes to services only where a route names it.
    traced = {"path": "/", "methods": ["OPTIONS", "TRACE"]}
    found["routes"].append({"name": "traced", "match": traced, "to": "upstream", **route})
    return found


def lines(method, target="/", *values):
    fields = "".join(f"max-forwards: {value}\r\n" for value in values)
    return f"{method} {target} HTTP/1.1\r\nhost: h\r\n{fields}\r\n".encode()


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE"])
def test_it_goes_on_with_one_less(start, instance, method):
    gateway = start(said(instance))
    for value, sent in (("5", "4"), ("1", "0"), ("10", "9")):
        for _ in range(2):  # the second time out of memory
            with gateway.client() as client:
                client.send(lines(method, "/", value))
                upstream = instance.accepted[-1] if instance.accepted else instance.accept()
                head = upstream.head()
                assert head.all("max-forwards") == [sent]
                upstream.send(response())
                assert client.answer()[0].status == 200


def test_options_ends_here_with_the_last_hop(start, instance):
    gateway = start(said(instance))
    for target in ("/", "/a/b?c", "*"):
        for _ in range(2):
            head, body = gateway.ask(lines("OPTIONS", target, "0"))
            assert (head.status, body) == (204, b"")
            assert "OPTIONS" in (head.get("allow") or "")
    assert instance.is_left_alone()


def test_trace_ends_here_with_the_last_hop_and_shows_nothing(start, instance):
    gateway = start(said(instance))
    asked = lines("TRACE", "/", "0").replace(b"\r\n\r\n", b"\r\nauthorization: secret\r\n\r\n")
    head, body = gateway.ask(asked)
    assert head.status == 405
    assert head.get("allow")
    assert b"secret" not in head.raw + body
    assert instance.is_left_alone()


@pytest.mark.parametrize("values", [("x",), ("-1",), ("0", "1"), ("",)])
def test_what_is_no_number_is_refused(start, instance, values):
    gateway = start(said(instance))
    assert gateway.ask(lines("OPTIONS", "/", *values))[0].status == 400
    assert instance.is_left_alone()


def test_other_methods_pass_as_they_came(start, instance):
    gateway = start(said(instance))
    with gateway.client() as client:
        client.send(lines("GET", "/", "0"))
        upstream = instance.accept()
        assert upstream.head().get("max-forwards") == "0"
        upstream.send(response())
        assert client.answer()[0].status == 200


def test_a_route_that_answers_here_answers_as_ever(start, instance):
    gateway = start(said(instance))
    head, body = gateway.ask(lines("OPTIONS", "/ours/x", "0"))
    assert (head.status, body) == (200, b"ours")


def test_with_filters_and_over_http2(start, instance):
    found = said(instance, headers={"request": {"set": {"x-a": "1"}}}, compress=True)
    gateway = start(found)
    with Client(gateway.port()) as client:
        stream = client.ask("OPTIONS", "/x", ((b"max-forwards", b"3"),))
        upstream = instance.accept()
        head = upstream.head()
        assert head.get("max-forwards") == "2"
        assert head.get("x-a") == "1"
        upstream.send(response())
        assert client.wait(stream).status == 200
        stream = client.wait(client.ask("OPTIONS", "/x", ((b"max-forwards", b"0"),)))
        assert stream.status == 204
    gateway.assert_settles()
