"""What a head says once it has been read: length, persistence, host, upgrade, and what is left.

That bad heads are refused stands in the corpus; here it is what the good ones mean.
"""

from __future__ import annotations

import pytest

from headgate.wire.http1.head import (
    HeadLimits,
    body_follows,
    judge_partial,
    parse_request_head,
    parse_response_head,
    parse_trailers,
)
from headgate.wire.message import Refusal, RequestHead, ResponseHead

LIMITS = HeadLimits()


def ask(*lines, start="GET /p HTTP/1.1", limits=LIMITS, host=True):
    fields = ["Host: h.example", *lines] if host else list(lines)
    block = "\r\n".join([start, *fields, "", ""]).encode("latin-1")
    return parse_request_head(block, limits, "http")


def asked(*lines, **more) -> RequestHead:
    head = ask(*lines, **more)
    assert isinstance(head, RequestHead), head
    return head


def said(*lines, start="HTTP/1.1 200 OK") -> ResponseHead:
    head = parse_response_head("\r\n".join([start, *lines, "", ""]).encode("latin-1"), LIMITS)
    assert isinstance(head, ResponseHead), head
    return head


@pytest.mark.parametrize(
    "lines, length",
    [
        ([], 0),
        (["Content-Length: 0"], 0),
        (["Content-Length: 42"], 42),
        (["Content-Length:  42\t"], 42),
        (["Transfer-Encoding: chunked"], -1),
        (["Transfer-Encoding: CHUNKED"], -1),
    ],
)
def test_the_length_of_a_request(lines, length):
    assert asked(*lines).length == length


@pytest.mark.parametrize(
    "start, lines, length, chunked",
    [
        ("HTTP/1.1 200 OK", [], -1, False),
        ("HTTP/1.1 200 OK", ["Content-Length: 5"], 5, False),
        ("HTTP/1.1 200 OK", ["Transfer-Encoding: chunked"], -1, True),
        ("HTTP/1.1 204 No Content", [], 0, False),
        ("HTTP/1.1 304 Not Modified", ["Content-Length: 5"], 5, False),
        ("HTTP/1.1 103 Early Hints", ["Link: </a>"], 0, False),
        ("HTTP/1.0 200 OK", [], -1, False),
        ("HTTP/1.1 200", [], -1, False),
        ("HTTP/1.1 200 ", [], -1, False),
    ],
)
def test_the_length_of_a_response(start, lines, length, chunked):
    head = said(*lines, start=start)
    assert (head.length, head.chunked) == (length, chunked)


@pytest.mark.parametrize(
    "method, status, follows",
    [
        ("GET", 200, True),
        ("HEAD", 200, False),
        ("GET", 204, False),
        ("GET", 304, False),
        ("POST", 205, True),
        ("GET", 103, False),
        ("GET", 404, True),
    ],
)
def test_which_responses_have_a_body(method, status, follows):
    assert body_follows(method, status) is follows


@pytest.mark.parametrize(
    "version, lines, keeps",
    [
        ("1.1", [], True),
        ("1.1", ["Connection: close"], False),
        ("1.1", ["Connection: Keep-Alive, Close"], False),
        ("1.1", ["Connection: x", "Connection: close"], False),
        ("1.0", [], False),
        ("1.0", ["Connection: keep-alive"], True),
        ("1.0", ["Connection: keep-alive, close"], False),
    ],
)
def test_who_keeps_the_connection(version, lines, keeps):
    assert asked(*lines, start=f"GET / HTTP/{version}").keep_alive is keeps
    assert said(*lines, start=f"HTTP/{version} 200 OK").keep_alive is keeps


@pytest.mark.parametrize(
    "lines, upgrade",
    [
        (["Connection: Upgrade", "Upgrade: WebSocket"], "websocket"),
        (["Connection: keep-alive, upgrade", "Upgrade: websocket"], "websocket"),
        (["Upgrade: websocket"], None),
        (["Connection: upgrade"], None),
        (["Connection: upgrade", "Upgrade: websocket", "Content-Length: 1"], None),
        (["Connection: upgrade", "Upgrade: websocket", "Upgrade: h2c"], None),
    ],
)
def test_an_upgrade_has_to_be_said_twice(lines, upgrade):
    assert asked(*lines).upgrade == upgrade


def test_an_upgrade_of_an_http_10_client_is_none():
    assert (
        asked("Connection: upgrade", "Upgrade: websocket", start="GET / HTTP/1.0").upgrade is None
    )


@pytest.mark.parametrize(
    "start, lines, expects",
    [
        ("POST / HTTP/1.1", ["Expect: 100-continue", "Content-Length: 1"], True),
        ("POST / HTTP/1.1", ["Expect: 100-Continue", "Transfer-Encoding: chunked"], True),
        ("POST / HTTP/1.1", ["Expect: 100-continue"], False),
        ("POST / HTTP/1.0", ["Expect: 100-continue", "Content-Length: 1"], False),
    ],
)
def test_an_expectation_needs_a_body_and_http_11(start, lines, expects):
    assert asked(*lines, start=start).expects_continue is expects


@pytest.mark.parametrize(
    "start, host, authority, path",
    [
        ("GET /a HTTP/1.1", "Shop.Example:8080", "shop.example:8080", "/a"),
        ("GET http://other.example/b HTTP/1.1", "h", "other.example", "/b"),
        ("GET http://other.example HTTP/1.1", "h", "other.example", "/"),
        ("OPTIONS * HTTP/1.1", "h", "h", "*"),
        ("GET / HTTP/1.1", "[::1]:80", "[::1]:80", "/"),
    ],
)
def test_who_is_asked_for_what(start, host, authority, path):
    head = asked(f"Host: {host}", start=start, host=False)
    assert (head.authority, head.path) == (authority, path)


def test_an_http_10_client_need_not_name_a_host():
    head = asked(start="GET / HTTP/1.0", host=False)
    assert (head.authority, head.host) == ("", "")


def test_only_end_to_end_fields_are_left():
    head = asked(
        "Connection: X-Hop, Keep-Alive", "X-Hop: 1", "Keep-Alive: 5", "Proxy-Connection: x",
        "TE: trailers", "Transfer-Encoding: chunked", "HTTP2-Settings: x", "Expect: 100-continue",
        "X-Kept: Value", "x-kept: again",
    )  # fmt: skip
    assert head.headers == ((b"x-kept", b"Value"), (b"x-kept", b"again"))
    assert head.te_trailers
    assert head.get(b"x-kept") == b"Value, again"


@pytest.mark.parametrize("name", ["Host", "Content-Length", "Transfer-Encoding"])
def test_connection_cannot_name_away_what_frames_a_message(name):
    head = asked(f"Connection: {name}", "Content-Length: 3", start="POST / HTTP/1.1")
    assert head.length == 3
    assert head.authority == "h.example"


def test_bytes_beyond_ascii_stay_as_they_are():
    assert asked("X-Latin: caf\xe9").get(b"x-latin") == b"caf\xe9"


@pytest.mark.parametrize(
    "head, status",
    [
        (lambda: ask(start=f"GET /{'x' * 100} HTTP/1.1", limits=HeadLimits(url_bytes=100)), 414),
        (lambda: ask("X: " + "y" * 100, limits=HeadLimits(head_bytes=100)), 431),
        (lambda: ask("X: y", "X: y", limits=HeadLimits(field_count=2)), 431),
        (lambda: ask(start="GET / HTTP/2.0"), 505),
        (lambda: ask(start="get / HTTP/1.1"), 501),
        (lambda: ask("Expect: tea"), 417),
        (lambda: ask("Transfer-Encoding: gzip"), 501),
    ],
)
def test_the_status_of_a_refusal(head, status):
    found = head()
    assert isinstance(found, Refusal)
    assert found.status == status


@pytest.mark.parametrize(
    "data, status",
    [
        (b"GET / HTT", None),
        (b"GET / HTTP/1.1\r\nHost: h\r", None),
        (b"GET / HTTP/1.1\n", 400),
        (b"GET / HTTP/1.1\r\nX: a\rb", 400),
        (b"GET /" + b"x" * 9000, 414),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 10_000, 431),
    ],
)
def test_half_a_head_is_judged_already(data, status):
    refusal = judge_partial(data, LIMITS)
    assert (refusal.status if refusal else None) == status


def test_trailers_carry_no_framing_and_no_identity():
    block = (
        b"X-Sum: 1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nHost: h\r\n"
        b"Authorization: x\r\nX-Forwarded-For: y\r\nX-Request-Id: z\r\nSet-Cookie: a=b\r\n"
        b"Grpc-Status: 0\r\n\r\n"
    )
    assert parse_trailers(block, LIMITS) == ((b"x-sum", b"1"), (b"grpc-status", b"0"))


@pytest.mark.parametrize(
    "block", [b"X : 1\r\n\r\n", b"X: 1\n\r\n\r\n", b" X: 1\r\n\r\n", b": 1\r\n\r\n"]
)
def test_malformed_trailers_are_refused(block):
    assert isinstance(parse_trailers(block, LIMITS), Refusal)


def test_the_same_bytes_make_equal_heads():
    one, two = asked("X-A: 1", "Connection: X-B"), asked("X-A: 1", "Connection: X-B")
    for name in RequestHead.__slots__:
        assert getattr(one, name, None) == getattr(two, name, None)
