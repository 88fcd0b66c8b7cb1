"""RFC 9113 by sections: what a server of ours answers to each breach, and to each odd but legal move.

A case is a function from a peer to frames. Before it, streams 1 (open, its request unfinished),
3 (half-closed by the peer) and 5 (closed) exist.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from headgate.wire.h2 import PREFACE, H2Limits, ServerConnection, frames
from headgate.wire.h2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PRIORITIZED,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
)
from tests.wire.h2.dialogue import GET, POST, Peer, Recorder, code_of, read_frames

Case = Callable[[Peer], bytes]


def prepared() -> Peer:
    peer = Peer()
    peer.send(peer.headers(1, POST, end=False), peer.headers(3), peer.headers(5))
    peer.answer(5)
    return peer


def setting(key: int, value: int) -> bytes:
    return frames.settings({key: value})


CONNECTION_ERRORS: dict[str, tuple[str, Case]] = {
    "4.2 DATA larger than allowed": ("FRAME_SIZE_ERROR", lambda p: p.data(1, b"x" * 16_385)),
    "4.2 HEADERS larger than allowed": (
        "FRAME_SIZE_ERROR",
        lambda p: frame(HEADERS, 5, 7, b"x" * 16_385),
    ),
    "4.2 unknown frame larger than allowed": (
        "FRAME_SIZE_ERROR",
        lambda p: frame(0xEE, 0, 0, b"x" * 16_385),
    ),
    "4.3 block that does not decode": (
        "COMPRESSION_ERROR",
        lambda p: frame(HEADERS, 5, 7, b"\x80"),
    ),
    "4.3 block that ends too early": ("COMPRESSION_ERROR", lambda p: frame(HEADERS, 5, 7, b"\x40")),
    "4.3 block that does not decode on a closed stream": (
        "COMPRESSION_ERROR",
        lambda p: frame(HEADERS, 5, 5, b"\x80"),
    ),
    "4.3 frame between the pieces of a block": (
        "PROTOCOL_ERROR",
        lambda p: frame(HEADERS, 1, 7, p.block()) + frames.ping(b"12345678"),
    ),
    "4.3 unknown frame between the pieces of a block": (
        "PROTOCOL_ERROR",
        lambda p: frame(HEADERS, 1, 7, p.block()) + frame(0xEE, 0, 7, b""),
    ),
    "4.3 HEADERS of another stream between the pieces": (
        "PROTOCOL_ERROR",
        lambda p: frame(HEADERS, 1, 7, p.block()) + p.headers(9),
    ),
    "5.1 idle: DATA": ("PROTOCOL_ERROR", lambda p: p.data(7, b"x")),
    "5.1 idle: RST_STREAM": ("PROTOCOL_ERROR", lambda p: frames.rst_stream(7, 8)),
    "5.1 idle: WINDOW_UPDATE": ("PROTOCOL_ERROR", lambda p: frames.window_update(7, 1)),
    "5.1 idle: CONTINUATION": ("PROTOCOL_ERROR", lambda p: frame(CONTINUATION, 4, 7, p.block())),
    "5.1 closed: DATA": ("STREAM_CLOSED", lambda p: p.data(5, b"x")),
    "5.1 closed: HEADERS": ("STREAM_CLOSED", lambda p: p.headers(5)),
    "5.1 closed: CONTINUATION": ("PROTOCOL_ERROR", lambda p: frame(CONTINUATION, 4, 5, p.block())),
    "5.1 reset by the peer: DATA": (
        "STREAM_CLOSED",
        lambda p: frames.rst_stream(1, 8) + p.data(1, b"x"),
    ),
    "5.1 reset by the peer: HEADERS": (
        "STREAM_CLOSED",
        lambda p: frames.rst_stream(1, 8) + p.headers(1),
    ),
    "5.1.1 even stream id": ("PROTOCOL_ERROR", lambda p: p.headers(8)),
    "5.1.1 stream id that was passed over": (
        "PROTOCOL_ERROR",
        lambda p: p.headers(11) + p.headers(9),
    ),
    "6.1 DATA on stream 0": ("PROTOCOL_ERROR", lambda p: p.data(0, b"x")),
    "6.1 DATA with as much padding as payload": (
        "PROTOCOL_ERROR",
        lambda p: p.data(1, b"\x04xxx", flags=PADDED),
    ),
    "6.1 padded DATA without pad length": (
        "FRAME_SIZE_ERROR",
        lambda p: p.data(1, b"", flags=PADDED),
    ),
    "6.2 HEADERS on stream 0": ("PROTOCOL_ERROR", lambda p: p.headers(0)),
    "6.2 HEADERS on stream 0, block unfinished": (
        "PROTOCOL_ERROR",
        lambda p: frame(HEADERS, 1, 0, p.block()),
    ),
    "6.2 HEADERS with too much padding": (
        "PROTOCOL_ERROR",
        lambda p: frame(HEADERS, 5 | PADDED, 7, b"\xff" + p.block()),
    ),
    "6.2 HEADERS too short for its priority": (
        "FRAME_SIZE_ERROR",
        lambda p: frame(HEADERS, 5 | PRIORITIZED, 7, b"\0\0\0"),
    ),
    "6.2 padding that reaches into the priority": (
        "PROTOCOL_ERROR",
        lambda p: frame(HEADERS, 5 | PADDED | PRIORITIZED, 7, b"\x03\0\0\0\0\0\0\0"),
    ),
    "6.3 PRIORITY on stream 0": ("PROTOCOL_ERROR", lambda p: frame(PRIORITY, 0, 0, b"\0" * 5)),
    "6.4 RST_STREAM on stream 0": ("PROTOCOL_ERROR", lambda p: frames.rst_stream(0, 8)),
    "6.4 RST_STREAM of a wrong size": (
        "FRAME_SIZE_ERROR",
        lambda p: frame(RST_STREAM, 0, 1, b"\0" * 3),
    ),
    "6.5 SETTINGS on a stream": ("PROTOCOL_ERROR", lambda p: frame(SETTINGS, 0, 1, b"")),
    "6.5 SETTINGS of a wrong size": (
        "FRAME_SIZE_ERROR",
        lambda p: frame(SETTINGS, 0, 0, b"\0" * 5),
    ),
    "6.5 SETTINGS ACK with a payload": (
        "FRAME_SIZE_ERROR",
        lambda p: frame(SETTINGS, ACK, 0, b"\0" * 6),
    ),
    "6.5.2 ENABLE_PUSH of 2": ("PROTOCOL_ERROR", lambda p: setting(2, 2)),
    "6.5.2 INITIAL_WINDOW_SIZE of 2^31": ("FLOW_CONTROL_ERROR", lambda p: setting(4, 2**31)),
    "6.5.2 MAX_FRAME_SIZE below 2^14": ("PROTOCOL_ERROR", lambda p: setting(5, 16_383)),
    "6.5.2 MAX_FRAME_SIZE above 2^24-1": ("PROTOCOL_ERROR", lambda p: setting(5, 2**24)),
    "RFC 8441 3: ENABLE_CONNECT_PROTOCOL of 2": ("PROTOCOL_ERROR", lambda p: setting(8, 2)),
    "6.6 PUSH_PROMISE": (
        "PROTOCOL_ERROR",
        lambda p: frame(PUSH_PROMISE, 4, 1, b"\0\0\0\2" + p.block()),
    ),
    "6.7 PING on a stream": ("PROTOCOL_ERROR", lambda p: frame(PING, 0, 1, b"12345678")),
    "6.7 PING of a wrong size": ("FRAME_SIZE_ERROR", lambda p: frame(PING, 0, 0, b"1234567")),
    "6.8 GOAWAY on a stream": ("PROTOCOL_ERROR", lambda p: frame(GOAWAY, 0, 1, b"\0" * 8)),
    "6.8 GOAWAY too short": ("FRAME_SIZE_ERROR", lambda p: frame(GOAWAY, 0, 0, b"\0" * 7)),
    "6.9 WINDOW_UPDATE by 0 on the connection": (
        "PROTOCOL_ERROR",
        lambda p: frames.window_update(0, 0),
    ),
    "6.9 WINDOW_UPDATE of a wrong size": (
        "FRAME_SIZE_ERROR",
        lambda p: frame(WINDOW_UPDATE, 0, 0, b"\0\0\1"),
    ),
    "6.9.1 connection window beyond 2^31-1": (
        "FLOW_CONTROL_ERROR",
        lambda p: frames.window_update(0, 2**31 - 1),
    ),
    "6.9.1 DATA beyond the connection's window": (
        "FLOW_CONTROL_ERROR",
        lambda p: b"".join(
            p.headers(i, POST, end=False) + p.data(i, b"x" * 16_384) * 16 for i in range(7, 19, 2)
        ),
    ),
    "6.9.2 INITIAL_WINDOW_SIZE that lifts a stream beyond 2^31-1": (
        "FLOW_CONTROL_ERROR",
        lambda p: frames.window_update(1, 2**31 - 1 - 65_535) + setting(4, 2**31 - 1),
    ),
    "6.10 CONTINUATION without HEADERS": (
        "PROTOCOL_ERROR",
        lambda p: frame(CONTINUATION, 4, 1, b""),
    ),
    "6.10 CONTINUATION after a whole block": (
        "PROTOCOL_ERROR",
        lambda p: p.headers(7) + frame(CONTINUATION, 4, 7, b""),
    ),
    "6.10 CONTINUATION on another stream": (
        "PROTOCOL_ERROR",
        lambda p: frame(HEADERS, 1, 7, p.block()) + frame(CONTINUATION, 4, 9, b""),
    ),
    "6.10 CONTINUATION on stream 0": (
        "PROTOCOL_ERROR",
        lambda p: frame(HEADERS, 1, 7, p.block()) + frame(CONTINUATION, 4, 0, b""),
    ),
    "6.10 DATA between the pieces": (
        "PROTOCOL_ERROR",
        lambda p: frame(HEADERS, 1, 7, p.block()) + p.data(1, b"x"),
    ),
    "RFC 9218 7.1 PRIORITY_UPDATE on a stream": (
        "PROTOCOL_ERROR",
        lambda p: frame(0x10, 0, 1, b"\0\0\0\1u=1"),
    ),
    "RFC 9218 7.1 PRIORITY_UPDATE for stream 0": (
        "PROTOCOL_ERROR",
        lambda p: frame(0x10, 0, 0, b"\0\0\0\0u=1"),
    ),
    "RFC 7541 2.3.3 index beyond the tables": (
        "COMPRESSION_ERROR",
        lambda p: frame(HEADERS, 5, 7, b"\xff\x7f"),
    ),
    "RFC 7541 4.2 table beyond the setting": (
        "COMPRESSION_ERROR",
        lambda p: frame(HEADERS, 5, 7, b"\x3f\xe2\x1f" + p.block()),
    ),
    "RFC 7541 6.3 table size at the end of a block": (
        "COMPRESSION_ERROR",
        lambda p: frame(HEADERS, 5, 7, p.block() + b"\x20"),
    ),
}


@pytest.mark.parametrize("name", CONNECTION_ERRORS)
def test_connection_error(name):
    code, case = CONNECTION_ERRORS[name]
    peer = prepared()
    sent = peer.send(case(peer))
    assert peer.fault() == code
    assert sent[-1][0] == "GOAWAY"
    assert code_of(sent[-1]) == code
    assert peer.conn.is_closed
    assert peer.send(peer.headers(99), frames.ping(b"12345678")) == []


def request(*extra: tuple[bytes, bytes], drop: bytes = b"", **change: bytes):
    """A GET with pseudo-fields left out or changed, and fields added."""
    fields = [(name, change.get(name[1:].decode(), value)) for name, value in GET if name != drop]
    return (*fields, *extra)


def on_new(
    *extra: tuple[bytes, bytes], drop: bytes = b"", end: bool = True, **change: bytes
) -> Case:
    return lambda p: p.headers(7, request(*extra, drop=drop, **change), end=end)


STREAM_ERRORS: dict[str, tuple[int, str, Case]] = {
    "5.1 half-closed: DATA": (3, "STREAM_CLOSED", lambda p: p.data(3, b"x")),
    "5.1 half-closed: HEADERS": (3, "STREAM_CLOSED", lambda p: p.headers(3)),
    "6.3 PRIORITY of a wrong size": (
        1,
        "FRAME_SIZE_ERROR",
        lambda p: frame(PRIORITY, 0, 1, b"\0" * 4),
    ),
    "6.9 WINDOW_UPDATE by 0": (1, "PROTOCOL_ERROR", lambda p: frames.window_update(1, 0)),
    "6.9.1 stream window beyond 2^31-1": (
        1,
        "FLOW_CONTROL_ERROR",
        lambda p: frames.window_update(1, 2**31 - 1),
    ),
    "6.9.1 DATA beyond the stream's window": (
        1,
        "FLOW_CONTROL_ERROR",
        lambda p: b"".join(p.data(1, b"x" * 16_384) for _ in range(17)),
    ),
    "RFC 7540 5.3.1 a stream that depends on itself": (
        1,
        "PROTOCOL_ERROR",
        lambda p: frame(PRIORITY, 0, 1, b"\0\0\0\1\0"),
    ),
    "RFC 7540 5.3.1 the same in HEADERS": (
        7,
        "PROTOCOL_ERROR",
        lambda p: frame(HEADERS, 5 | PRIORITIZED, 7, b"\0\0\0\7\0" + p.block()),
    ),
    "8.1 second HEADERS that do not end the stream": (
        1,
        "PROTOCOL_ERROR",
        lambda p: p.headers(1, [(b"x-a", b"1")], end=False),
    ),
    "8.1 pseudo-field in trailers": (
        1,
        "PROTOCOL_ERROR",
        lambda p: p.headers(1, [(b":method", b"GET")]),
    ),
    "8.1 connection field in trailers": (
        1,
        "PROTOCOL_ERROR",
        lambda p: p.headers(1, [(b"connection", b"x")]),
    ),
    "8.1.1 body shorter than content-length": (
        7,
        "PROTOCOL_ERROR",
        lambda p: (
            p.headers(7, [*POST, (b"content-length", b"5")], end=False)
            + p.data(7, b"four", end=True)
        ),
    ),
    "8.1.1 body longer than content-length": (
        7,
        "PROTOCOL_ERROR",
        lambda p: p.headers(7, [*POST, (b"content-length", b"1")], end=False) + p.data(7, b"four"),
    ),
    "8.1.1 several DATA frames that differ from content-length": (
        7,
        "PROTOCOL_ERROR",
        lambda p: (
            p.headers(7, [*POST, (b"content-length", b"1")], end=False)
            + p.data(7, b"t")
            + p.data(7, b"t", end=True)
        ),
    ),
    "8.1.1 content-length without DATA": (7, "PROTOCOL_ERROR", on_new((b"content-length", b"1"))),
    "8.1.1 trailers after too few bytes": (
        7,
        "PROTOCOL_ERROR",
        lambda p: (
            p.headers(7, [*POST, (b"content-length", b"5")], end=False)
            + p.headers(7, [(b"x-a", b"1")])
        ),
    ),
    "8.1.1 content-length that is no number": (
        7,
        "PROTOCOL_ERROR",
        on_new((b"content-length", b"+0")),
    ),
    "8.1.1 empty content-length": (7, "PROTOCOL_ERROR", on_new((b"content-length", b""))),
    "8.1.1 content-length list": (7, "PROTOCOL_ERROR", on_new((b"content-length", b"0, 0"))),
    "8.1.1 two content-lengths": (
        7,
        "PROTOCOL_ERROR",
        on_new((b"content-length", b"0"), (b"content-length", b"0")),
    ),
    "8.2.1 upper-case name": (7, "PROTOCOL_ERROR", on_new((b"X-TEST", b"ok"))),
    "8.2.1 empty name": (7, "PROTOCOL_ERROR", on_new((b"", b"ok"))),
    "8.2.1 space in a name": (7, "PROTOCOL_ERROR", on_new((b"x test", b"ok"))),
    "8.2.1 colon in a name": (7, "PROTOCOL_ERROR", on_new((b"x:test", b"ok"))),
    "8.2.1 control in a name": (7, "PROTOCOL_ERROR", on_new((b"x\ntest", b"ok"))),
    "8.2.1 NUL in a value": (7, "PROTOCOL_ERROR", on_new((b"x-test", b"a\0b"))),
    "8.2.1 CR in a value": (7, "PROTOCOL_ERROR", on_new((b"x-test", b"a\rb"))),
    "8.2.1 LF in a value": (7, "PROTOCOL_ERROR", on_new((b"x-test", b"a\nb: c"))),
    "8.2.1 value that begins with a space": (7, "PROTOCOL_ERROR", on_new((b"x-test", b" a"))),
    "8.2.1 value that ends with a tab": (7, "PROTOCOL_ERROR", on_new((b"x-test", b"a\t"))),
    "8.2.2 connection": (7, "PROTOCOL_ERROR", on_new((b"connection", b"keep-alive"))),
    "8.2.2 keep-alive": (7, "PROTOCOL_ERROR", on_new((b"keep-alive", b"1"))),
    "8.2.2 proxy-connection": (7, "PROTOCOL_ERROR", on_new((b"proxy-connection", b"close"))),
    "8.2.2 transfer-encoding": (7, "PROTOCOL_ERROR", on_new((b"transfer-encoding", b"chunked"))),
    "8.2.2 upgrade": (7, "PROTOCOL_ERROR", on_new((b"upgrade", b"websocket"))),
    "8.2.2 te other than trailers": (7, "PROTOCOL_ERROR", on_new((b"te", b"trailers, deflate"))),
    "8.3 unknown pseudo-field": (7, "PROTOCOL_ERROR", on_new((b":test", b"ok"))),
    "8.3 response's pseudo-field": (7, "PROTOCOL_ERROR", on_new((b":status", b"200"))),
    "8.3 pseudo-field after a field": (
        7,
        "PROTOCOL_ERROR",
        lambda p: p.headers(7, [*GET[:3], (b"x-a", b"1"), GET[3]]),
    ),
    "8.3.1 empty :path": (7, "PROTOCOL_ERROR", on_new(path=b"")),
    "8.3.1 no :method": (7, "PROTOCOL_ERROR", on_new(drop=b":method")),
    "8.3.1 no :scheme": (7, "PROTOCOL_ERROR", on_new(drop=b":scheme")),
    "8.3.1 no :path": (7, "PROTOCOL_ERROR", on_new(drop=b":path")),
    "8.3.1 neither :authority nor host": (7, "PROTOCOL_ERROR", on_new(drop=b":authority")),
    "8.3.1 two :method": (7, "PROTOCOL_ERROR", on_new((b":method", b"GET"))),
    "8.3.1 two :scheme": (7, "PROTOCOL_ERROR", on_new((b":scheme", b"http"))),
    "8.3.1 two :path": (7, "PROTOCOL_ERROR", on_new((b":path", b"/"))),
    "8.3.1 two :authority": (7, "PROTOCOL_ERROR", on_new((b":authority", b"example.org"))),
    "8.3.1 :method with a space": (7, "PROTOCOL_ERROR", on_new(method=b"GET /x HTTP/1.1")),
    "8.3.1 :path without a slash": (7, "PROTOCOL_ERROR", on_new(path=b"x")),
    "8.3.1 :path with a space": (7, "PROTOCOL_ERROR", on_new(path=b"/ HTTP/1.1")),
    "8.3.1 :path with a line break": (7, "PROTOCOL_ERROR", on_new(path=b"/\r\nx: y")),
    "8.3.1 * for GET": (7, "PROTOCOL_ERROR", on_new(path=b"*")),
    "8.3.1 strange :scheme": (7, "PROTOCOL_ERROR", on_new(scheme=b"gopher")),
    "8.3.1 :scheme with a slash": (7, "PROTOCOL_ERROR", on_new(scheme=b"http://x/")),
    "8.3.1 user info in :authority": (7, "PROTOCOL_ERROR", on_new(authority=b"me@example.org")),
    "8.3.1 path in :authority": (7, "PROTOCOL_ERROR", on_new(authority=b"example.org/x")),
    "8.3.1 empty :authority": (7, "PROTOCOL_ERROR", on_new(authority=b"")),
    "8.3.1 :authority and host that differ": (
        7,
        "PROTOCOL_ERROR",
        on_new((b"host", b"example.com")),
    ),
    "8.3.1 two hosts": (
        7,
        "PROTOCOL_ERROR",
        on_new((b"host", b"example.org"), (b"host", b"example.org")),
    ),
    "8.5 CONNECT with :path": (7, "PROTOCOL_ERROR", on_new(method=b"CONNECT", drop=b":scheme")),
    "8.5 CONNECT with :scheme": (7, "PROTOCOL_ERROR", on_new(method=b"CONNECT", drop=b":path")),
    "8.5 CONNECT without :authority": (
        7,
        "PROTOCOL_ERROR",
        lambda p: p.headers(7, [(b":method", b"CONNECT"), (b"host", b"example.org")]),
    ),
    "RFC 8441 4: :protocol without CONNECT": (
        7,
        "PROTOCOL_ERROR",
        on_new((b":protocol", b"websocket")),
    ),
    "RFC 8441 4: extended CONNECT without :path": (
        7,
        "PROTOCOL_ERROR",
        on_new((b":protocol", b"websocket"), method=b"CONNECT", drop=b":path"),
    ),
}


@pytest.mark.parametrize("name", STREAM_ERRORS)
def test_stream_error(name):
    stream_id, code, case = STREAM_ERRORS[name]
    peer = prepared()
    sent = peer.send(case(peer))
    assert peer.fault() is None
    resets = [f for f in sent if f[0] == "RST_STREAM"]
    assert [(f[2], code_of(f)) for f in resets] == [(stream_id, code)]
    # The connection goes on, and what was under way on that stream does no harm.
    sent = peer.send(peer.data(stream_id, b"late"), peer.headers(99), frames.ping(b"12345678"))
    assert [f[0] for f in sent] == ["PING"]
    assert peer.made[-1].stream_id == 99
    assert peer.made[-1].names == ["request"]
    for stream in peer.made:
        if stream.stream_id == stream_id:
            assert stream.names[-1] == "reset" or "request" not in stream.names


LEGAL: dict[str, tuple[list[str], Case]] = {
    "4.1 unknown frame types": ([], lambda p: frame(0xEE, 0xFF, 1, b"x" * 100)),
    "4.1 the reserved bit": (["PING"], lambda p: frame(PING, 0, 0x8000_0000, b"12345678")),
    "4.1 unknown flags": (["PING"], lambda p: frame(PING, 0xFE, 0, b"12345678")),
    "5.1 idle: PRIORITY": ([], lambda p: frame(PRIORITY, 0, 77, b"\0\0\0\1\0")),
    "5.1 half-closed: WINDOW_UPDATE": ([], lambda p: frames.window_update(3, 1)),
    "5.1 half-closed: PRIORITY": ([], lambda p: frame(PRIORITY, 0, 3, b"\0\0\0\1\0")),
    "5.1 half-closed: RST_STREAM": ([], lambda p: frames.rst_stream(3, 8)),
    "5.1 closed: PRIORITY": ([], lambda p: frame(PRIORITY, 0, 5, b"\0\0\0\1\0")),
    "5.1 closed: WINDOW_UPDATE": ([], lambda p: frames.window_update(5, 1)),
    "5.1 closed: RST_STREAM": ([], lambda p: frames.rst_stream(5, 8)),
    "6.2 block in pieces": (
        [],
        lambda p: (
            frame(HEADERS, 1, 7, b"\x82")
            + frame(CONTINUATION, 0, 7, b"\x86")
            + frame(CONTINUATION, 0, 7, b"")
            + frame(CONTINUATION, 4, 7, b"\x84\x41\x01a")
        ),
    ),
    "6.2 priority and padding": (
        [],
        lambda p: frame(
            HEADERS, 5 | PADDED | PRIORITIZED, 7, b"\x02\0\0\0\1\0" + p.block() + b"\0\0"
        ),
    ),
    "6.2 padding alone, block in a CONTINUATION": (
        [],
        lambda p: frame(HEADERS, 1 | PADDED, 7, b"\x02\0\0") + frame(CONTINUATION, 4, 7, p.block()),
    ),
    "6.5 SETTINGS": (["SETTINGS"], lambda p: setting(4, 100)),
    "6.5 unknown settings": (["SETTINGS"], lambda p: setting(0xFFFF, 7)),
    "6.5.3 the last of several values counts": (
        ["SETTINGS"],
        lambda p: frame(SETTINGS, 0, 0, setting(4, 1)[9:] + setting(4, 2**31 - 1)[9:]),
    ),
    "6.7 PING": (["PING"], lambda p: frames.ping(b"12345678")),
    "6.7 PING ACK that nobody asked for": ([], lambda p: frames.ping(b"12345678", ack=True)),
    "6.8 GOAWAY": (["PING"], lambda p: frames.goaway(0, 0, b"bye") + frames.ping(b"12345678")),
    "7 unknown error code in RST_STREAM": ([], lambda p: frames.rst_stream(1, 0xFFFF_FFFF)),
    "7 unknown error code in GOAWAY": ([], lambda p: frames.goaway(0, 0xFFFF_FFFF)),
    "8.1 trailers": ([], lambda p: p.headers(1, [(b"x-a", b"1")])),
    "8.1.1 no body where content-length is 0": ([], on_new((b"content-length", b"0"))),
    "8.2.2 te: trailers": ([], on_new((b"te", b"trailers"))),
    "8.3.1 host instead of :authority": ([], on_new((b"host", b"example.org"), drop=b":authority")),
    "8.3.1 host that says the same": ([], on_new((b"host", b"Example.org"))),
    "8.3.1 OPTIONS *": ([], on_new(method=b"OPTIONS", path=b"*")),
    "8.5 CONNECT": (
        [],
        lambda p: p.headers(7, [(b":method", b"CONNECT"), (b":authority", b"a:1")], end=False),
    ),
    "RFC 8441 4: extended CONNECT": (
        [],
        on_new((b":protocol", b"websocket"), method=b"CONNECT", end=False),
    ),
    "RFC 9218 7.1 PRIORITY_UPDATE": ([], lambda p: frame(0x10, 0, 0, b"\0\0\0\7u=1")),
}


@pytest.mark.parametrize("name", LEGAL)
def test_legal(name):
    answered, case = LEGAL[name]
    peer = prepared()
    assert [f[0] for f in peer.send(case(peer))] == answered
    assert peer.fault() is None
    assert [f[0] for f in peer.send(peer.headers(99), frames.ping(b"12345678"))] == ["PING"]
    assert peer.made[-1].names == ["request"]


# -- 3.4 the preface ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "first",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSX",
        PREFACE + frames.ping(b"12345678"),
        PREFACE + frames.SETTINGS_ACK,
        PREFACE + frame(HEADERS, 5, 1, b"\x82\x86\x84"),
    ],
)
def test_a_connection_begins_with_the_preface_and_settings(first):
    conn = ServerConnection(H2Limits(), Recorder, 0.0)
    conn.take()
    for byte in first:
        conn.feed(bytes((byte,)), 0.0)
    assert conn.is_closed
    assert code_of(read_frames(conn.take())[-1]) == "PROTOCOL_ERROR"


def test_the_server_speaks_first_and_acknowledges():
    peer = Peer()
    assert [f[:3] for f in peer.greeting] == [
        ("SETTINGS", 0, 0),
        ("WINDOW_UPDATE", 0, 0),
        ("SETTINGS", ACK, 0),
    ]
    told = dict(frames.unpack_setting(peer.greeting[0][3]))
    assert told[frames.MAX_CONCURRENT_STREAMS] == 128
    assert told[frames.ENABLE_CONNECT_PROTOCOL] == 1
    assert not peer.conn.settings_acked
    peer.send(frames.SETTINGS_ACK)
    assert peer.conn.settings_acked


# -- 5.1.2 concurrency -------------------------------------------------------------------------


def test_streams_beyond_the_limit_are_refused_and_a_place_is_free_after_an_answer():
    peer = Peer(H2Limits(max_streams=2))
    sent = peer.send(peer.headers(1), peer.headers(3), peer.headers(5))
    assert [(f[0], f[2], code_of(f)) for f in sent] == [("RST_STREAM", 5, "REFUSED_STREAM")]
    peer.answer(1)
    assert peer.send(peer.headers(7)) == []
    assert [s.stream_id for s in peer.made] == [1, 3, 7]


# -- 6.8 a graceful end ------------------------------------------------------------------------


def test_draining_names_the_last_stream_after_a_round_trip():
    peer = prepared()
    peer.conn.drain()
    sent = peer.sent()
    # In this order for the sake of clients on the h2 library, which take no PING after a GOAWAY.
    assert [f[0] for f in sent] == ["PING", "GOAWAY"]
    assert sent[1][3][:4] == b"\x7f\xff\xff\xff"
    peer.send(peer.headers(7))  # was under way
    sent = peer.send(frames.ping(sent[0][3], ack=True))
    assert sent == [("GOAWAY", 0, 0, b"\0\0\0\7\0\0\0\0")]
    assert peer.send(peer.headers(9), peer.data(9, b"late")) == []
    assert peer.made[-1].stream_id == 7
    assert [f[0] for f in peer.answer(7)] == ["HEADERS", "DATA"]


# -- the memory of field blocks is not led astray ---------------------------------------------


def test_the_same_block_means_the_same_request_whether_it_ends_the_stream_or_not():
    peer = Peer()
    peer.send(peer.headers(1), peer.headers(3), peer.headers(5, end=False), peer.headers(7))
    assert [s.told[0][2] for s in peer.made] == [True, True, False, True]


def test_cookies_are_joined():
    """RFC 9113 8.2.3."""
    peer = Peer()
    peer.send(peer.headers(1, [*GET, (b"cookie", b"a=1"), (b"x", b"y"), (b"cookie", b"b=2")]))
    fields = peer.made[0].told[0][1]
    assert fields.headers == ((b"cookie", b"a=1; b=2"), (b"x", b"y"))


def test_an_oversize_head_is_told_to_the_owner():
    peer = Peer(H2Limits(list_bytes=1000))
    peer.send(peer.headers(1, [*GET, (b"x-a", b"x" * 2000)]), peer.headers(3))
    assert peer.made[0].names == ["oversize"]
    assert peer.made[1].names == ["request"]


def test_empty_data_frame_ends_a_stream():
    peer = prepared()
    peer.send(peer.data(1, b"abc"), frame(DATA, END_STREAM, 1, b""))
    assert peer.made[0].told[-1] == ("data", b"", True)
    assert peer.made[0].body == b"abc"


def test_flags_of_a_block_in_pieces_come_from_its_first_frame():
    peer = Peer()
    peer.send(
        frame(HEADERS, 0, 1, peer.block()) + frame(CONTINUATION, END_HEADERS | END_STREAM, 1, b"")
    )
    assert peer.made[0].told[0][2] is False
