"""What the client puts on the wire and makes of what comes, without a wire."""

# Fakes stand in for connections, pools and loops.
# mypy: disable-error-code="arg-type, union-attr, var-annotated, list-item, assignment, misc"
from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from time import monotonic, sleep

import brotli  # type: ignore[import-untyped]  # ships no types
import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from headgate.errors import UpstreamFailed
from headgate.mesh.http import BodyTooLarge, Headers, StatusError
from headgate.mesh.http.decoding import PIECE, decoder_for
from headgate.mesh.http.request import CHUNKED, host_line, render
from headgate.mesh.http.response import Response
from headgate.mesh.http.ticking import Ticking
from headgate.wire.connect import Endpoint
from headgate.wire.http1.head import HeadLimits, parse_request_head
from headgate.wire.message import RequestHead as Parsed
from headgate.wire.message import ResponseHead
from headgate.wire.wheel import NEVER

HOST = b"host: users:80\r\n"


def lines(*headers: tuple[bytes, bytes], method: str = "GET", length: int = 0) -> list[bytes]:
    block = render(method, b"/a", HOST, headers, length).block
    assert block.endswith(b"\r\n\r\n")
    return block[:-4].split(b"\r\n")


def test_a_head_has_its_host_first_and_the_fields_as_they_were_given():
    assert lines((b"X-One", b"1"), (b"two", b"")) == [
        b"GET /a HTTP/1.1",
        b"host: users:80",
        b"X-One: 1",
        b"two: ",
    ]


@pytest.mark.parametrize(
    ("method", "length", "headers", "wanted"),
    [
        ("GET", 0, (), None),
        ("DELETE", 0, (), None),
        ("POST", 0, (), b"content-length: 0"),
        ("GET", 5, (), b"content-length: 5"),
        ("PUT", 5, ((b"Content-Length", b"7"),), b"content-length: 5"),
        ("POST", CHUNKED, (), b"transfer-encoding: chunked"),
        ("POST", CHUNKED, ((b"Content-Length", b"7"),), b"content-length: 7"),
        (
            "POST",
            CHUNKED,
            ((b"Transfer-Encoding", b"gzip, chunked"),),
            b"transfer-encoding: chunked",
        ),
        ("POST", 3, ((b"transfer-encoding", b"chunked"),), b"content-length: 3"),
    ],
)
def test_framing_is_the_body_s_own_whatever_the_fields_say(method, length, headers, wanted):
    framing = [
        line
        for line in lines(*headers, method=method, length=length)
        if line.lower().startswith((b"content-length", b"transfer-encoding"))
    ]
    assert framing == ([wanted] if wanted else [])


def test_fields_of_the_connection_are_taken_out():
    got = lines(
        (b"Connection", b"keep-alive"),
        (b"Keep-Alive", b"timeout=5"),
        (b"Proxy-Connection", b"keep-alive"),
        (b"TE", b"trailers"),
        (b"Trailer", b"x"),
        (b"Expect", b"100-continue"),
    )
    assert got == [b"GET /a HTTP/1.1", b"host: users:80"]


def test_a_caller_may_end_the_connection_and_name_another_host():
    head = render(
        "GET", b"/", HOST, [(b"Host", b"orders"), (b"Connection", b"Keep-Alive, Close")], 0
    )
    assert not head.keep
    assert head.block == b"GET / HTTP/1.1\r\nHost: orders\r\nconnection: close\r\n\r\n"


@pytest.mark.parametrize(
    ("method", "target", "headers"),
    [
        ("GET", b"/", [(b"a", b"b\r\nc: d")]),
        ("GET", b"/", [(b"a", b"b\nc: d")]),
        ("GET", b"/", [(b"a", b"b\rc")]),
        ("GET", b"/", [(b"a", b"b\0")]),
        ("GET", b"/", [(b"a\r\nb", b"c")]),
        ("GET", b"/", [(b"a b", b"c")]),
        ("GET", b"/", [(b"a:", b"c")]),
        ("GET", b"/", [(b"", b"c")]),
        ("GET", b"/", [(b"host", b"a\r\nb: c")]),
        ("GET", b"/", [(b"content-length", b"1\r\nb: c")]),
        ("GET", b"/", [(b"content-length", b"-1")]),
        ("GET", b"/", [(b"upgrade", b"websocket")]),
        ("GET", b"/a b", []),
        ("GET", b"/a\r\nb", []),
        ("GET", b"/a#b", []),
        ("GET", b"/\xc3\xa4", []),
        ("GET", b"", []),
        ("GET", b"a", []),
        ("GET", b"http://a/", []),
        ("get", b"/", []),
        ("GET /x HTTP/1.1\r\nA", b"/", []),
        ("", b"/", []),
        ("CONNECT", b"/", []),
    ],
    ids=range(23),
)
def test_what_would_be_another_request_is_refused(method, target, headers):
    for _ in range(3):  # also when it is seen again
        with pytest.raises(ValueError, match=r".") as caught:
            render(method, target, HOST, headers, 0)
        assert "d" not in str(caught.value).split()


FIELD = st.tuples(st.binary(max_size=8), st.binary(max_size=12))


@given(st.text(max_size=5) | st.just("GET"), st.binary(max_size=9), st.lists(FIELD, max_size=4))
def test_a_head_is_refused_or_read_by_the_gateway_as_it_was_meant(method, target, fields):
    try:
        head = render(method, b"/" + target, b"host: h\r\n", fields, 0)
    except ValueError:
        return
    block = head.block
    assert block.count(b"\r\n\r\n") == 1
    assert block.count(b"\n") == block.count(b"\r") == block.count(b"\r\n")
    parsed = parse_request_head(block, HeadLimits(), "http")
    # The gateway is stricter about some targets and hosts; it never finds another request.
    if isinstance(parsed, Parsed):
        assert parsed.method == method
        assert {name for name, _ in parsed.headers} <= {name.lower() for name, _ in fields}


@pytest.mark.parametrize(
    ("endpoint", "is_tls", "wanted"),
    [
        (Endpoint("a", 80), False, b"a"),
        (Endpoint("a", 443), False, b"a:443"),
        (Endpoint("a", 443), True, b"a"),
        (Endpoint("::1", 8080), False, b"[::1]:8080"),
        (Endpoint(path="/run/a"), False, b"localhost"),
    ],
    ids=["plain", "odd", "tls", "v6", "unix"],
)
def test_the_host_of_an_instance(endpoint, is_tls, wanted):
    assert host_line(endpoint, is_tls=is_tls) == b"host: %b\r\n" % wanted


# ------------------------------------------------------------------------------------- responses


def response(
    raw: bytes = b"", *headers: tuple[bytes, bytes], status: int = 200, **more
) -> Response:
    head = ResponseHead(status, headers, length=len(raw))
    return Response(head, raw, None, "users:80", **more)


def test_headers_are_found_in_any_spelling_and_joined_where_they_may_be():
    got = Headers(((b"a", b"1"), (b"set-cookie", b"x=1"), (b"a", b"2"), (b"set-cookie", b"y=2")))
    assert got["A"] == "1, 2"
    assert got.get_list("Set-Cookie") == ["x=1", "y=2"]
    assert got.get("none") is None
    assert list(got) == ["a", "set-cookie"]
    assert len(got) == 2
    assert "x=1" not in repr(got)


def test_framing_is_told_as_it_was():
    assert response(b"abc").headers["content-length"] == "3"
    chunked = Response(ResponseHead(200, (), chunked=True), b"", None, "n")
    assert chunked.headers["transfer-encoding"] == "chunked"


@pytest.mark.parametrize(
    ("kind", "raw", "wanted"),
    [
        (b"text/plain; charset=latin-1", b"\xe4", "\xe4"),
        (b'text/plain; charset="UTF-8"; x=y', "\xe4".encode(), "\xe4"),
        (b"text/plain; charset=nonsense", "\xe4".encode(), "\xe4"),
        (b"text/plain; charset=\0", b"a", "a"),
        (b"text/plain; charset=zlib", b"a", "a"),
        (b"text/plain", b"\xff", "\ufffd"),
    ],
    ids=["latin", "quoted", "unknown", "nul", "no-text", "broken"],
)
def test_text_is_read_by_its_charset(kind, raw, wanted):
    assert response(raw, (b"content-type", kind)).text == wanted


def test_status_and_json():
    got = response(b'{"a": 1}')
    assert got.json() == {"a": 1}
    assert got.is_success
    assert got.raise_for_status() is got
    assert got.reason == "OK"
    lost = response(status=404)
    assert lost.is_error
    with pytest.raises(StatusError, match="users:80: answered 404 Not Found") as caught:
        lost.raise_for_status()
    assert caught.value.response is lost
    assert response(status=799).reason == ""


# ------------------------------------------------------------------------------------- deadlines


class Sleeper:
    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.wake = NEVER
        self.woken = 0

    def on_deadline(self, now: float) -> None:
        self.woken += 1
        self.deadline = NEVER


class Loop:
    """A loop whose timers a test fires."""

    def __init__(self) -> None:
        self.timers: list[Loop.Timer] = []

    class Timer:
        def __init__(self, wait_s: float, call: Callable[[], None]) -> None:
            self.wait_s = wait_s
            self.call = call
            self.is_cancelled = False

        def cancel(self) -> None:
            self.is_cancelled = True

    def call_later(self, wait_s: float, call: Callable[[], None]) -> Timer:
        self.timers.append(self.Timer(wait_s, call))
        return self.timers[-1]

    @property
    def waiting(self) -> list[Timer]:
        return [timer for timer in self.timers if not timer.is_cancelled]


def test_one_timer_goes_to_the_earliest_deadline_and_none_when_nobody_waits():
    loop = Loop()
    ticking = Ticking(loop)
    assert not loop.timers
    ticking.arm(Sleeper(monotonic() + 20))
    ticking.arm(Sleeper(monotonic() + 30))
    assert [round(timer.wait_s) for timer in loop.waiting] == [20]
    ticking.arm(Sleeper(monotonic() + 10))
    assert [round(timer.wait_s) for timer in loop.waiting] == [10]
    ticking.arm(Sleeper(monotonic() + 1e9))
    ticking.stop()
    assert not loop.waiting


def test_a_loop_that_was_held_up_reads_before_it_judges():
    loop = Loop()
    ticking = Ticking(loop)
    item = Sleeper(monotonic() - 5)
    ticking.arm(item)
    ticking._due -= 5
    loop.waiting[-1].call()
    assert item.woken == 0
    assert loop.timers[-1].wait_s < 0.01
    ticking._due -= 5
    sleep_until_due(item)
    loop.timers[-1].call()
    assert item.woken == 1


def sleep_until_due(item: Sleeper) -> None:
    while monotonic() < item.wake:
        sleep(0.005)


# -------------------------------------------------------------------------------------- decoding


def bare(data: bytes) -> bytes:
    packing = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packing.compress(data) + packing.flush()


PACKED = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstd.compress,
    "gzip, br": lambda data: brotli.compress(gzip.compress(data)),
    "Deflate , identity": bare,
}
TEXTS = st.binary(max_size=300) | st.integers(0, 3 * PIECE).map(lambda n: b"ab" * n)


@pytest.mark.parametrize("coding", PACKED)
@given(data=st.data())
def test_a_body_comes_out_as_it_went_in_however_it_is_cut(coding, data):
    text = data.draw(TEXTS)
    raw = PACKED[coding](text)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=5)))
    decoder = decoder_for(coding.encode(), "n")
    pieces = []
    for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True):
        pieces += decoder.feed(raw[start:end])
    decoder.end()
    assert b"".join(pieces) == text
    assert all(len(piece) <= 2 * PIECE for piece in pieces)


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_several_members_are_one_body(coding):
    raw = PACKED[coding](b"one") + PACKED[coding](b"two")
    for step in (1, 7, len(raw)):
        decoder = decoder_for(coding.encode(), "n")
        pieces = [p for at in range(0, len(raw), step) for p in decoder.feed(raw[at : at + step])]
        decoder.end()
        assert b"".join(pieces) == b"onetwo"


@pytest.mark.parametrize("coding", PACKED)
def test_a_body_that_breaks_off_is_not_taken_for_whole(coding):
    raw = PACKED[coding](json.dumps(list(range(500))).encode())
    with pytest.raises(UpstreamFailed, match="users:80: ") as caught:
        _ = response(raw[: len(raw) // 2], (b"content-encoding", coding.encode())).content
    assert caught.value.kind == "protocol"


@pytest.mark.parametrize("coding", PACKED)
def test_a_body_that_is_not_what_it_says_is_refused(coding):
    got = response(b"\xffno such thing" * 9, (b"content-encoding", coding.encode()))
    with pytest.raises(UpstreamFailed, match="users:80: ") as caught:
        _ = got.content
    assert caught.value.kind == "protocol"


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, br"])
def test_a_small_body_that_unpacks_to_a_large_one_is_bounded(coding):
    raw = PACKED[coding](bytes(5_000_000))
    assert len(raw) < 10_000
    got = response(raw, (b"content-encoding", coding.encode()), bytes_max=1_000_000)
    with pytest.raises(BodyTooLarge, match="larger than 1000000 bytes"):
        _ = got.content
    pieces = decoder_for(coding.encode(), "n").feed(raw)
    assert len(next(pieces)) <= 2 * PIECE


@pytest.mark.parametrize(
    "said", ["foo", "gzip, foo", "gzip," * 9 + "gzip", "identity", "", "x" * 99]
)
def test_an_unknown_coding_is_left_as_it_is(said):
    assert response(b"raw", (b"content-encoding", said.encode())).content == b"raw"


def test_no_body_needs_no_coding():
    assert response(b"", (b"content-encoding", b"gzip")).content == b""
