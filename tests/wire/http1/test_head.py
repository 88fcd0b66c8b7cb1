"""What a head says once it has been read: length, persistence, host, upgrade, and what is left.

That bad heads are refused stands in the corpus; here it is what the good ones mean.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.wire.headcache import Sightings
from headgate.wire.http1 import fields
from headgate.wire.http1 import head as head_module
from headgate.wire.http1.head import (
    BAD_FIELD,
    BAD_HOST,
    BAD_LENGTH,
    BAD_METHOD,
    TWIN_FIELD,
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


# -- what is remembered ----------------------------------------------------------------------------


def everything_of(got):
    if isinstance(got, Refusal):
        return got.status, got.reason
    return [getattr(got, name) for name in got.__slots__]


LINES = [
    "Host: h.example", "Host: other.example:8080", "Host: h h", "Content-Length: 5", "Content-Length: 5x",
    "Transfer-Encoding: chunked", "Transfer-Encoding: gzip", "Connection: close", "Connection: keep-alive",
    "Connection: x-a", "Connection: upgrade", "Upgrade: websocket", "Expect: 100-continue", "Expect: x",
    "TE: trailers", "X-A: 1", "x-a: 2", "content_length: 5", "x_custom: 1", "Accept: */*", "bad line", " folded",
]  # fmt: skip
STARTS = ["GET /a?b HTTP/1.1", "POST / HTTP/1.0", "GET /%7Ea HTTP/1.1", "GET http://o/ HTTP/1.1"]
STARTS += ["OPTIONS * HTTP/1.1", "CONNECT /a HTTP/1.1", "get / HTTP/1.1", "HTTP/1.1 200 OK"]


@given(
    st.lists(
        st.tuples(st.sampled_from(STARTS), st.lists(st.sampled_from(LINES), max_size=5)), max_size=5
    )
)
def test_what_came_before_does_not_change_what_a_head_says(heads):
    blocks = ["\r\n".join([start, *lines, "", ""]).encode() for start, lines in heads]
    first = []
    for block in blocks:
        forget()
        first.append((read_all(block), block))
    for _ in range(3):
        for said, block in first:
            assert read_all(block) == said


def read_all(block):
    return [
        everything_of(parse_request_head(block, LIMITS, "http")),
        everything_of(parse_response_head(block, LIMITS)),
        parse_trailers(block, LIMITS) if block else None,
    ]


def forget():
    for kept in (
        fields._known,
        fields._known_frames,
        fields._known_names,
        head_module._rests,
        head_module._framings,
    ):
        kept.found.clear()
        kept._seen = Sightings()


@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_name_that_a_response_may_have_is_refused_in_a_request_after_it(times):
    for _ in range(times):
        assert said("content_length: 7").headers == ((b"content_length", b"7"),)
    assert ask("content_length: 7") is TWIN_FIELD


def test_limits_hold_for_known_heads():
    lines = [f"X-Known: {n}" for n in range(10)]
    for _ in range(3):
        asked(*lines, limits=HeadLimits(field_count=11))
    assert ask(*lines, limits=HeadLimits(field_count=10)).status == 431
    assert ask(*lines, limits=HeadLimits(head_bytes=20)).status == 431
    assert ask(*lines, "bad line", limits=HeadLimits(field_count=11)).status == 431
    assert ask(*lines, start="GET /long HTTP/1.1", limits=HeadLimits(url_bytes=4)).status == 414
    assert asked(*lines, start="GET /lon HTTP/1.1", limits=HeadLimits(url_bytes=4)).path == "/lon"


def test_the_version_is_not_remembered_with_the_fields():
    for _ in range(3):
        assert asked(start="GET / HTTP/1.0").keep_alive is False
        assert asked(start="GET / HTTP/1.1").keep_alive is True
        assert [asked(start=f"GET / HTTP/1.{n}").version for n in (0, 1)] == [10, 11]


def test_a_head_is_refused_for_its_first_fault():
    assert ask("Host: two", "bad line", "content_length: 7") is BAD_HOST
    assert ask("bad line", "Host: two") is BAD_FIELD
    assert ask("bad line", start="M" * 32 + " / HTTP/1.1") is BAD_FIELD
    assert ask("bad line", start="M" * 33 + " / HTTP/1.1") is BAD_METHOD
    assert ask("content_length: 7", "bad line") is TWIN_FIELD
    assert ask("Content-Length: 1", "content-length: 2", " folded") is BAD_LENGTH
    # Lengths are judged before the target, an odd Host after it.
    assert ask("Content-Length: x", start="GET /../a HTTP/1.1") is BAD_LENGTH
    assert (
        ask(start="GET /../a HTTP/1.1", host=False).reason
        == "the path is malformed or leaves the root"
    )
