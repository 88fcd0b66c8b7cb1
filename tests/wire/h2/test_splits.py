"""The same bytes mean the same, however they are cut: whole, byte by byte, anywhere, with a tail."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.wire.h2 import PREFACE, H2Limits, ServerConnection, frames
from headgate.wire.h2.frames import CONTINUATION, HEADERS, frame
from tests.wire.h2.dialogue import POST, Peer, Recorder


def script() -> bytes:
    peer = Peer()
    return b"".join(
        [
            PREFACE,
            frames.settings({4: 10}),
            peer.headers(1, POST, end=False),
            frame(HEADERS, 1, 3, b"\x82"),
            frame(CONTINUATION, 0, 3, b"\x86\x84"),
            frame(CONTINUATION, 4, 3, b"\x41\x01a"),
            peer.data(1, b"one"),
            frames.ping(b"12345678"),
            peer.data(1, b"\x03two\0\0\0", flags=8),
            frames.window_update(0, 5),
            peer.headers(1, [(b"x-a", b"1")]),
            frames.rst_stream(3, 8),
            frame(0xEE, 1, 2, b"unknown"),
            peer.headers(5),
        ]
    )


def play(pieces):
    made: list[Recorder] = []

    def make():
        made.append(Recorder())
        return made[-1]

    conn = ServerConnection(H2Limits(), make, 0.0)
    out = b""
    for piece in pieces:
        conn.feed(piece, 0.0)
        out += conn.take()
    told = [
        [(e[0], *(x for x in e[1:] if isinstance(x, (bytes, int, tuple)))) for e in s.told]
        for s in made
    ]
    return out, told, conn.fault, bytes(conn._tail)


WHOLE = play([script()])


def test_the_script_does_what_it_should():
    _, told, fault, tail = WHOLE
    assert fault is None
    assert tail == b""
    assert [[e[0] for e in s] for s in told] == [
        ["request", "data", "data", "trailers"],
        ["request", "reset"],
        ["request"],
    ]


def test_byte_by_byte():
    data = script()
    assert play([data[i : i + 1] for i in range(len(data))]) == WHOLE


@pytest.mark.parametrize("size", [2, 3, 8, 9, 10, 17, 50])
def test_in_pieces(size):
    data = script()
    assert play([data[i : i + size] for i in range(0, len(data), size)]) == WHOLE


@given(st.lists(st.integers(0, len(script())), max_size=8).map(sorted))
def test_cut_anywhere(cuts):
    data = script()
    bounds = [0, *cuts, len(data)]
    assert play([data[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]) == WHOLE


@given(st.integers(0, 8))
def test_a_tail_waits_for_its_rest(size):
    tail = frames.ping(b"12345678")[:size]
    out, told, fault, rest = play([script() + tail])
    assert (out, told, fault, rest) == (*WHOLE[:3], tail)
