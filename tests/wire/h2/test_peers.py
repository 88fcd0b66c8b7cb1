"""Our client with our server, and each of them with the h2 library."""

from __future__ import annotations

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.wire.h2 import ClientConnection, ErrorCode, H2Limits, ServerConnection, frames
from headgate.wire.message import ResponseHead
from tests.wire.h2.dialogue import Recorder, connect, exchange, read_frames

FIELDS = ((b"x-a", b"1"), (b"x-b", b"2"))


def ask(client, method="GET", *, end=True, fields=FIELDS, expected=-1):
    stream = Recorder()
    stream.expected = expected
    block = client.encoder.encode_request(method, "http", "example.org", "/p?q", fields)
    client.open(stream, block, end=end)
    return stream


def head_of(stream) -> ResponseHead:
    return next(e[1] for e in stream.told if e[0] == "response")


def test_a_request_and_its_answer():
    client, server, made = connect()
    for _ in range(3):
        stream = ask(client, "POST", end=False)
        client.send_data(stream, b"body", end=False)
        client.send_trailers(stream, ((b"x-t", b"t"),))
        exchange(client, server)
        (up,) = [s for s in made if s.stream_id == stream.stream_id]
        assert up.names == ["request", "data", "trailers"]
        fields = up.told[0][1]
        assert (fields.method, fields.authority, fields.path) == ("POST", "example.org", "/p?q")
        assert fields.headers == FIELDS
        assert up.told[2][1] == ((b"x-t", b"t"),)
        server.send_informational(up, 103, ((b"link", b"</x>"),))
        server.send_response(up, 404, FIELDS, b"", b"no", end=False)
        server.send_trailers(up, ((b"x-u", b"u"),))
        exchange(client, server)
        assert stream.names == ["informational", "response", "data", "trailers"]
        assert head_of(stream).status == 404
        assert head_of(stream).headers == FIELDS
        assert stream.body == b"no"
        assert not client.streams
        assert not server.streams


def test_large_bodies_both_ways_with_a_reader_that_takes_them():
    client, server, made = connect()
    body = bytes(range(256)) * 8000
    stream = ask(client, "POST", end=False)
    client.send_data(stream, body, end=True)
    up = None
    while up is None or not up.told or up.told[-1][-1] is not True:
        exchange(client, server)
        up = made[0]
        server.consume(up, up.owed)
    assert up.body == body
    server.send_response(up, 200, (), b"", body, end=True)
    while not stream.told or stream.told[-1][-1] is not True:
        exchange(client, server)
        client.consume(stream, stream.owed)
    assert stream.body == body


def test_a_reader_that_takes_nothing_stops_the_writer():
    client, server, made = connect()
    stream = ask(client, "POST", end=False)
    assert not client.send_data(stream, b"x" * 3_000_000, end=True)
    exchange(client, server)
    assert len(made[0].body) == server.limits.stream_window


def test_streams_beyond_a_goaway_are_refused_for_another_try():
    client, server, made = connect()
    first, second = ask(client), ask(client)
    server.feed(client.take(), 0.0)
    server.goaway(ErrorCode.NO_ERROR, last=1)
    third = ask(client)
    client.feed(server.take(), 0.0)
    assert first.names == []
    assert second.names == third.names == ["refused"]
    assert client.room == 0
    server.send_response(made[0], 200, (), b"", b"ok", end=True)
    exchange(client, server)
    assert first.names == ["response", "data"]


def test_a_refused_stream_is_for_another_try():
    client, server, made = connect()
    stream = ask(client)
    exchange(client, server)
    server.reset(made[0], ErrorCode.REFUSED_STREAM)
    exchange(client, server)
    assert stream.names == ["refused"]


def test_a_reset_after_the_whole_answer_is_no_failure():
    """RFC 9113 8.1: the server need not hear the rest of the request."""
    client, server, made = connect()
    stream = ask(client, "POST", end=False)
    exchange(client, server)
    server.send_response(made[0], 413, (), b"", b"no", end=True)
    server.reset(made[0], ErrorCode.NO_ERROR)
    exchange(client, server)
    assert stream.names == ["response", "data"]
    assert stream.is_gone


def test_the_answer_to_head_has_no_body_whatever_it_announces():
    client, server, made = connect()
    stream = ask(client, "HEAD", expected=0)
    exchange(client, server)
    server.send_response(made[0], 200, ((b"content-length", b"99"),), b"", b"", end=True)
    exchange(client, server)
    assert stream.names == ["response"]
    assert head_of(stream).length == 99


BAD_ANSWERS = {
    "no :status": ([(b"x-a", b"1")], "PROTOCOL_ERROR"),
    ":status that is no number": ([(b":status", b"2xx")], "PROTOCOL_ERROR"),
    ":status 99": ([(b":status", b"099")], "PROTOCOL_ERROR"),
    ":status 101": ([(b":status", b"101")], "PROTOCOL_ERROR"),
    "two :status": ([(b":status", b"200"), (b":status", b"200")], "PROTOCOL_ERROR"),
    "a request's pseudo-field": ([(b":status", b"200"), (b":path", b"/")], "PROTOCOL_ERROR"),
    ":status after a field": ([(b"x-a", b"1"), (b":status", b"200")], "PROTOCOL_ERROR"),
    "upper-case name": ([(b":status", b"200"), (b"X-A", b"1")], "PROTOCOL_ERROR"),
    "line break in a value": ([(b":status", b"200"), (b"x-a", b"1\r\nx: y")], "PROTOCOL_ERROR"),
    "connection": ([(b":status", b"200"), (b"connection", b"close")], "PROTOCOL_ERROR"),
    "transfer-encoding": (
        [(b":status", b"200"), (b"transfer-encoding", b"chunked")],
        "PROTOCOL_ERROR",
    ),
    "two lengths": (
        [(b":status", b"200"), (b"content-length", b"0"), (b"content-length", b"0")],
        "PROTOCOL_ERROR",
    ),
    "1xx that ends": ([(b":status", b"103")], "PROTOCOL_ERROR"),
    "length without body": ([(b":status", b"200"), (b"content-length", b"1")], "PROTOCOL_ERROR"),
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_a_malformed_answer_ends_its_stream_only(name):
    fields, code = BAD_ANSWERS[name]
    client, server, made = connect()
    stream = ask(client)
    exchange(client, server)
    server.send_block(made[0], server.encoder.encode(tuple(fields)), end=True)
    client.feed(server.take(), 0.0)
    assert stream.told == [("reset", ErrorCode[code], False)]
    assert client.fault is None


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frames.frame(frames.PUSH_PROMISE, 4, 1, b"\0\0\0\2\x82"), "PROTOCOL_ERROR"),
        (frames.frame(frames.HEADERS, 5, 2, b"\x88"), "PROTOCOL_ERROR"),
        (frames.frame(frames.HEADERS, 5, 9, b"\x88"), "PROTOCOL_ERROR"),
        (frames.frame(frames.DATA, 0, 9, b"x"), "PROTOCOL_ERROR"),
        (frames.settings({frames.ENABLE_PUSH: 1}), "PROTOCOL_ERROR"),
        (frames.frame(0x10, 0, 0, b"\0\0\0\1"), "PROTOCOL_ERROR"),
        (frames.frame(frames.HEADERS, 5, 1, b"\x80"), "COMPRESSION_ERROR"),
    ],
)
def test_a_server_that_breaks_the_connection(data, code):
    client, server, _ = connect()
    ask(client)
    exchange(client, server)
    client.feed(data, 0.0)
    assert client.fault is not None
    assert client.fault.code.name == code


def test_body_for_a_bodiless_answer_is_a_fault():
    client, server, made = connect()
    stream = ask(client)
    exchange(client, server)
    server.send_response(made[0], 204, (), b"", b"body", end=True)
    exchange(client, server)
    assert stream.names == ["response", "reset"]


def test_room_follows_the_servers_limit():
    client, server, _ = connect()
    assert client.room == 128
    ask(client)
    assert client.room == 127
    client.feed(frames.settings({frames.MAX_CONCURRENT_STREAMS: 1}), 0.0)
    assert client.room == 0
    exchange(client, server)
    assert server.fault is None


# -- the h2 library as the other side ----------------------------------------------------------


def other_client():
    conn = h2.connection.H2Connection(
        h2.config.H2Configuration(client_side=True, header_encoding=None)
    )
    conn.initiate_connection()
    return conn


def other_server():
    conn = h2.connection.H2Connection(
        h2.config.H2Configuration(client_side=False, header_encoding=None)
    )
    conn.initiate_connection()
    return conn


@given(
    st.lists(
        st.tuples(
            st.binary(max_size=40_000),
            st.booleans(),
            st.lists(
                st.tuples(
                    st.sampled_from([b"x-a", b"set-cookie", b"via"]), st.sampled_from([b"1", b"22"])
                ),
                max_size=4,
            ),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_our_server_answers_another_client(requests):
    theirs = other_client()
    made: list[Recorder] = []

    def make():
        made.append(Recorder())
        return made[-1]

    ours = ServerConnection(H2Limits(), make, 0.0)
    for n, (body, trailers, fields) in enumerate(requests):
        stream_id = 2 * n + 1
        theirs.send_headers(
            stream_id,
            [
                (b":method", b"POST"),
                (b":scheme", b"http"),
                (b":authority", b"a"),
                (b":path", b"/%d" % n),
                *fields,
            ],
        )
        for start in range(0, len(body), 16_384):
            theirs.send_data(stream_id, body[start : start + 16_384])
        if trailers:
            theirs.send_headers(stream_id, [(b"x-t", b"1")], end_stream=True)
        else:
            theirs.end_stream(stream_id)
        ours.feed(theirs.data_to_send(), 0.0)
        stream = made[-1]
        assert stream.body == body
        ours.consume(stream, len(body))
        ours.send_response(stream, 200, tuple(fields), b"", body, end=not trailers)
        if trailers:
            ours.send_trailers(stream, ((b"x-u", b"2"),))
        got, ended = b"", False
        while not ended:
            for event in theirs.receive_data(ours.take()):
                if isinstance(event, h2.events.ResponseReceived):
                    assert tuple(event.headers) == ((b":status", b"200"), *fields)
                elif isinstance(event, h2.events.DataReceived):
                    got += event.data
                    theirs.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.StreamEnded):
                    ended = True
            ours.feed(theirs.data_to_send(), 0.0)
        assert got == body
    assert ours.fault is None
    assert not ours.streams


def test_another_client_accepts_our_reset_and_goaway():
    theirs = other_client()
    made: list[Recorder] = []

    def make():
        made.append(Recorder())
        return made[-1]

    ours = ServerConnection(H2Limits(), make, 0.0)
    request = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/")]
    theirs.send_headers(1, request, end_stream=True)
    ours.feed(theirs.data_to_send(), 0.0)
    ours.reset(made[0], ErrorCode.INTERNAL_ERROR)
    ours.goaway(ErrorCode.NO_ERROR)
    names = [type(e).__name__ for e in theirs.receive_data(ours.take())]
    assert "StreamReset" in names
    assert "ConnectionTerminated" in names


@given(st.lists(st.binary(max_size=40_000), min_size=1, max_size=5), st.booleans())
def test_our_client_asks_another_server(bodies, trailers):
    theirs = other_server()
    ours: ClientConnection[Recorder] = ClientConnection(H2Limits(), 0.0)
    for body in bodies:
        stream = ask(ours, "POST", end=False)
        sent = ours.send_data(stream, body, end=not trailers)
        if trailers:
            ours.send_trailers(stream, ((b"x-t", b"1"),))
        del sent
        got, ended = b"", False
        while not ended:
            for event in theirs.receive_data(ours.take()):
                if isinstance(event, h2.events.DataReceived):
                    got += event.data
                    theirs.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.StreamEnded):
                    ended = True
            ours.feed(theirs.data_to_send(), 0.0)
        assert got == body
        theirs.send_headers(stream.stream_id, [(b":status", b"200"), (b"x-a", b"1")])
        for start in range(0, len(body), 16_384):
            theirs.send_data(stream.stream_id, body[start : start + 16_384])
        theirs.end_stream(stream.stream_id)
        ours.feed(theirs.data_to_send(), 0.0)
        assert stream.body == body
        ours.consume(stream, len(body))
    assert ours.fault is None
    assert not ours.streams


def test_what_we_write_is_whole_frames():
    client, server, _ = connect()
    ask(client)
    assert [f[0] for f in read_frames(client.take())] == ["HEADERS"]
    del server
