"""Floods end with ENHANCE_YOUR_CALM, within a bound; honest peers do not meet the bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.wire.h2 import Bucket, GuardLimits, H2Limits, frames
from headgate.wire.h2.frames import CONTINUATION, HEADERS, PRIORITY, frame
from headgate.wire.h2.guards import Leak
from tests.wire.h2.dialogue import GET, POST, Peer

SMALL = Bucket(burst=20, per_s=10)


def flood(peer: Peer, step, count: int = 2000) -> int:
    """How many steps are borne before the connection ends."""
    for n in range(count):
        if peer.conn.is_closed:
            assert peer.fault() == "ENHANCE_YOUR_CALM"
            return n
        peer.send(step(n))
    assert peer.fault() is None
    return count


def rapid_reset(peer):
    return lambda n: peer.headers(2 * n + 1) + frames.rst_stream(2 * n + 1, 8)


# MadeYouReset: each makes the server reset the stream after the request has begun.
MADE = {
    "window update by 0": lambda p, i: p.headers(i) + frames.window_update(i, 0),
    "window overflow": lambda p, i: p.headers(i) + frames.window_update(i, 2**31 - 1),
    "DATA after the end": lambda p, i: p.headers(i) + p.data(i, b"x"),
    "HEADERS after the end": lambda p, i: p.headers(i) + p.headers(i),
    "PRIORITY of a wrong size": lambda p, i: p.headers(i) + frame(PRIORITY, 0, i, b"\0\0\0"),
    "PRIORITY on itself": lambda p, i: (
        p.headers(i) + frame(PRIORITY, 0, i, frames._U32.pack(i) + b"\0")
    ),
    "too much body": lambda p, i: (
        p.headers(i, [*POST, (b"content-length", b"1")], end=False) + p.data(i, b"xx")
    ),
    "malformed head": lambda p, i: p.headers(i, [*GET, (b"connection", b"x")]),
    "malformed trailers": lambda p, i: (
        p.headers(i, POST, end=False) + p.headers(i, [(b":x", b"y")])
    ),
}


def test_rapid_reset_ends_the_connection():
    peer = Peer(resets=SMALL)
    assert flood(peer, rapid_reset(peer)) == 21


@pytest.mark.parametrize("name", MADE)
def test_made_you_reset_counts_like_rapid_reset(name):
    peer = Peer(resets=SMALL)
    assert flood(peer, lambda n: MADE[name](peer, 2 * n + 1)) == 21


def test_mixing_both_kinds_of_reset_does_not_help():
    peer = Peer(resets=SMALL)
    kinds = [rapid_reset(peer), lambda n: MADE["window update by 0"](peer, 2 * n + 1)]
    assert flood(peer, lambda n: kinds[n % 2](n)) == 21


def test_streams_beyond_the_limit_count_too():
    peer = Peer(H2Limits(max_streams=1, guards=GuardLimits(resets=SMALL)))
    peer.send(peer.headers(1))
    assert flood(peer, lambda n: peer.headers(2 * n + 3)) == 21


def test_streams_after_the_final_goaway_count_too():
    peer = Peer(resets=SMALL)
    peer.conn.drain()
    peer.conn.finish_drain()
    peer.sent()
    assert flood(peer, lambda n: peer.headers(2 * n + 1)) == 21
    assert peer.made == []


def test_defaults_bear_a_client_that_cancels_all_its_streams_at_once():
    peer = Peer()
    for n in range(128):
        peer.send(peer.headers(2 * n + 1))
    for n in range(128):
        peer.send(frames.rst_stream(2 * n + 1, 8))
    assert peer.fault() is None


def test_defaults_end_a_rapid_reset():
    peer = Peer()
    assert flood(peer, rapid_reset(peer), 10_000) < 300


def test_answered_requests_earn_resets():
    peer = Peer(resets=Bucket(burst=20, per_s=0, earned=0.25))
    for n in range(400):
        peer.send(peer.headers(2 * n + 1))
        if n % 10 == 0:
            peer.send(frames.rst_stream(2 * n + 1, 8))
        else:
            peer.answer(2 * n + 1)
    assert peer.fault() is None


@pytest.mark.parametrize(
    ("bucket", "step"),
    [
        ("control", lambda p, n: frames.ping(b"12345678")),
        ("control", lambda p, n: frames.ping(b"12345678", ack=True)),
        ("control", lambda p, n: frames.settings({})),
        ("control", lambda p, n: frames.settings({4: 1000 + n})),
        ("control", lambda p, n: frames.SETTINGS_ACK),
        ("control", lambda p, n: frame(PRIORITY, 0, 1, b"\0\0\0\0\0")),
        ("control", lambda p, n: frame(0x10, 0, 0, b"\0\0\0\1u=1")),
        ("control", lambda p, n: frame(0xEE, 0, 0, b"")),
        ("control", lambda p, n: frames.goaway(0, 0)),
        ("control", lambda p, n: frames.rst_stream(1, 8)),
        ("updates", lambda p, n: frames.window_update(0, 1)),
        ("updates", lambda p, n: frames.window_update(3, 1)),
        ("updates", lambda p, n: frames.window_update(1, 1)),
        ("empty", lambda p, n: p.data(3, b"")),
        ("empty", lambda p, n: p.data(3, b"\0", flags=frames.PADDED)),
        ("empty", lambda p, n: p.data(3, b"\x03xxx", flags=frames.PADDED)),
    ],
)
def test_floods_of_cheap_frames_end_the_connection(bucket, step):
    limits = GuardLimits(**{bucket: SMALL})  # type: ignore[arg-type]  # the table names them
    peer = Peer(H2Limits(guards=limits))
    peer.send(
        peer.headers(1, POST, end=False), frames.rst_stream(1, 8), peer.headers(3, POST, end=False)
    )
    borne = flood(peer, lambda n: step(peer, n))
    assert 19 <= borne <= 22


def test_many_settings_in_one_frame_weigh_more():
    peer = Peer(control=SMALL)
    many = frame(frames.SETTINGS, 0, 0, b"\0\4\0\0\0\1" * 2000)
    assert flood(peer, lambda n: many) == 1


def test_continuation_flood_ends_early():
    peer = Peer()
    peer.send(frame(HEADERS, 0, 1, peer.block()))
    borne = flood(peer, lambda n: frame(CONTINUATION, 0, 1, b"\x82"))
    assert borne == 33


def test_empty_continuations_end_early():
    peer = Peer(empty=SMALL, continuations=10_000)
    peer.send(frame(HEADERS, 0, 1, b""))
    assert flood(peer, lambda n: frame(CONTINUATION, 0, 1, b"")) == 20


def test_a_block_without_end_is_bounded_in_bytes():
    peer = Peer(block_bytes=50_000, continuations=10_000)
    peer.send(frame(HEADERS, 0, 1, b"\x82"))
    assert (
        flood(peer, lambda n: frame(CONTINUATION, 0, 1, b"\x00\x01a\x7f\x81\x7f" + b"x" * 16_000))
        == 4
    )
    assert peer.conn._block_bytes < 70_000


def test_a_header_bomb_ends_the_connection():
    peer = Peer()
    peer.send(frame(HEADERS, 5, 1, b"\x82\x86\x84\x41\x01a\x40\x01a\x7f\x81\x1e" + b"x" * 3968))
    peer.send(frame(HEADERS, 5, 3, b"\xbe" * 16_000))
    assert peer.fault() == "ENHANCE_YOUR_CALM"


def test_control_frames_do_not_pile_up_while_the_transport_takes_nothing():
    peer = Peer(control=Bucket(burst=10**9, per_s=0))
    peer.conn.is_blocked = True
    for _ in range(3000):
        peer.conn.feed(frames.ping(b"12345678"), peer.now)
    assert peer.fault() == "ENHANCE_YOUR_CALM"
    assert len(peer.conn.out) < 2100


def test_time_empties_the_buckets():
    peer = Peer(control=SMALL)
    for _ in range(300):
        peer.now += 0.2
        peer.send(frames.ping(b"12345678"))
    assert peer.fault() is None


def test_a_download_earns_its_window_updates_and_pings():
    peer = Peer(settings={4: 2**31 - 1}, updates=SMALL, control=Bucket(20, 0, 1))
    peer.send(peer.headers(1))
    peer.conn.send_response(peer.conn.streams[1], 200, (), b"", b"", end=False)
    limits = peer.conn.limits.guards
    assert limits.updates.earned == 0
    peer = Peer(settings={4: 2**31 - 1}, control=Bucket(20, 0, 1))
    peer.send(peer.headers(1))
    stream = peer.conn.streams[1]
    peer.conn.send_response(stream, 200, (), b"", b"", end=False)
    for _ in range(2000):
        peer.conn.send_data(stream, b"x" * 16_384, end=False)
        peer.send(
            frames.window_update(0, 16_384),
            frames.window_update(1, 16_384),
            frames.ping(b"12345678"),
        )
    assert peer.fault() is None


def test_a_body_dribbled_out_byte_by_byte_earns_nothing():
    peer = Peer(settings={4: 0}, updates=SMALL)
    peer.send(peer.headers(1))
    peer.answer(1, b"x" * 10_000)
    assert flood(peer, lambda n: frames.window_update(1, 1)) == 21


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(0, 5)), max_size=100))
def test_a_bucket_never_bears_more_than_it_says(steps):
    leak = Leak(Bucket(burst=10, per_s=2, earned=0.5))
    now = worked = taken = 0.0
    for wait, work in steps:
        now += wait
        worked += work
        if not leak.take(now, int(worked)):
            break
        taken += 1
        assert taken <= 10 + 2 * now + 0.5 * worked + 1e-6
