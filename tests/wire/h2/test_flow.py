"""Flow control both ways, turns between streams, and what is held for a slow reader."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headgate.wire.h2 import ErrorCode, H2Limits, frames
from tests.wire.h2.dialogue import POST, Peer, code_of

LIMITS = H2Limits(stream_window=100_000, connection_window=200_000)


def body_of(sent, stream_id):
    return b"".join(f[3] for f in sent if f[0] == "DATA" and f[2] == stream_id)


def ends(sent):
    return [f[2] for f in sent if f[0] in ("DATA", "HEADERS") and f[1] & 1]


def respond(peer, stream_id, body, *, end=True):
    stream = peer.conn.streams[stream_id]
    went = peer.conn.send_response(stream, 200, (), b"", body, end=end)
    return went, peer.sent()


# -- receiving ---------------------------------------------------------------------------------


def test_no_window_is_given_back_before_the_owner_has_taken_the_body():
    peer = Peer(LIMITS)
    peer.send(peer.headers(1, POST, end=False))
    for _ in range(6):
        assert peer.send(peer.data(1, b"x" * 16_000)) == []
    stream = peer.made[0]
    peer.conn.consume(stream, 40_000)
    assert peer.sent() == []  # not worth a frame yet
    peer.conn.consume(stream, 20_000)
    assert [(f[0], f[2], f[3]) for f in peer.sent()] == [("WINDOW_UPDATE", 1, b"\0\0\xea\x60")]
    peer.conn.consume(stream, 36_000)
    # 200,000 are announced for the connection: the step is half of that.
    assert peer.sent() == []


def test_the_connection_gets_back_what_a_reset_stream_still_owed():
    peer = Peer(LIMITS)
    peer.send(peer.headers(1, POST, end=False), *[peer.data(1, b"x" * 16_000)] * 6)
    peer.send(frames.rst_stream(1, 8))
    peer.send(peer.headers(3, POST, end=False), *[peer.data(3, b"x" * 16_000)] * 6)
    assert peer.fault() is None
    sent = peer.send(frames.rst_stream(3, 8))
    assert ("WINDOW_UPDATE", 0, 0, (192_000).to_bytes(4, "big")) in sent


def test_data_on_a_stream_that_we_reset_is_credited_at_once():
    peer = Peer(LIMITS)
    peer.send(peer.headers(1, POST, end=False))
    peer.conn.reset(peer.made[0], ErrorCode.CANCEL)
    peer.sent()
    for _ in range(100):
        peer.send(peer.data(1, b"x" * 16_000))
    assert peer.fault() is None
    assert peer.made[0].body == b""


def test_padding_is_credited_without_the_owner():
    peer = Peer(LIMITS)
    peer.send(peer.headers(1, POST, end=False))
    for _ in range(500):
        peer.send(peer.data(1, b"\xfa" + b"x" + b"\0" * 250, flags=frames.PADDED))
        peer.conn.consume(peer.made[0], 1)
    assert peer.fault() is None
    assert len(peer.made[0].body) == 500


def test_no_window_update_for_a_stream_that_has_ended():
    peer = Peer(LIMITS)
    peer.send(peer.headers(1, POST, end=False), *[peer.data(1, b"x" * 16_000)] * 5)
    peer.send(peer.data(1, b"x", end=True))
    peer.conn.consume(peer.made[0], 80_001)
    assert [f for f in peer.sent() if f[2] == 1] == []


# -- sending -----------------------------------------------------------------------------------


def test_a_body_beyond_the_window_waits_and_the_owner_is_told():
    peer = Peer(settings={frames.INITIAL_WINDOW_SIZE: 10})
    peer.send(peer.headers(1))
    went, sent = respond(peer, 1, b"0123456789abcdef", end=False)
    assert not went
    assert body_of(sent, 1) == b"0123456789"
    sent = peer.send(frames.window_update(1, 3))
    assert body_of(sent, 1) == b"abc"
    assert peer.made[0].names == ["request"]
    sent = peer.send(frames.window_update(1, 100))
    assert body_of(sent, 1) == b"def"
    assert peer.made[0].names[-1] == "writable"
    assert peer.conn.send_data(peer.made[0], b"more", end=True)
    assert ends(peer.sent()) == [1]


def test_the_end_waits_behind_the_body():
    peer = Peer(settings={frames.INITIAL_WINDOW_SIZE: 0})
    peer.send(peer.headers(1))
    respond(peer, 1, b"abc")
    assert peer.conn.streams
    sent = peer.send(frames.window_update(1, 3))
    assert [(f[0], f[1], f[3]) for f in sent] == [("DATA", 1, b"abc")]
    assert not peer.conn.streams


def test_trailers_wait_behind_the_body():
    peer = Peer(settings={frames.INITIAL_WINDOW_SIZE: 2})
    peer.send(peer.headers(1))
    respond(peer, 1, b"abc", end=False)
    peer.conn.send_trailers(peer.made[0], ((b"x-a", b"1"),))
    assert peer.sent() == []
    sent = peer.send(frames.window_update(1, 1))
    assert [f[:2] for f in sent] == [("DATA", 0), ("HEADERS", 5)]
    assert list(peer.decoder.decode(sent[1][3], raw=True))[-1] == (b"x-a", b"1")


def test_an_end_without_body_needs_no_window():
    peer = Peer(settings={frames.INITIAL_WINDOW_SIZE: 0})
    peer.send(peer.headers(1))
    respond(peer, 1, b"", end=False)
    assert peer.conn.send_data(peer.made[0], b"", end=True)
    assert ends(peer.sent()) == [1]


def test_a_window_can_become_negative():
    """RFC 9113 6.9.2."""
    peer = Peer()
    peer.send(peer.headers(1))
    respond(peer, 1, b"x" * 100, end=False)
    peer.send(frames.settings({frames.INITIAL_WINDOW_SIZE: 50}))
    assert peer.made[0].send_window == -50
    assert not peer.conn.send_data(peer.made[0], b"y" * 10, end=True)
    assert peer.sent() == []
    assert peer.send(frames.window_update(1, 50)) == []
    assert body_of(peer.send(frames.window_update(1, 50)), 1) == b"y" * 10


def test_an_end_passes_through_a_negative_window():
    peer = Peer()
    peer.send(peer.headers(1))
    respond(peer, 1, b"x" * 100, end=False)
    peer.send(frames.settings({frames.INITIAL_WINDOW_SIZE: 0}))
    peer.conn.send_data(peer.made[0], b"", end=True)
    assert ends(peer.sent()) == [1]


def test_a_larger_initial_window_lets_waiting_bodies_go():
    peer = Peer(settings={frames.INITIAL_WINDOW_SIZE: 1})
    peer.send(peer.headers(1), peer.headers(3))
    respond(peer, 1, b"abc")
    respond(peer, 3, b"abc")
    sent = peer.send(frames.settings({frames.INITIAL_WINDOW_SIZE: 3}))
    assert sorted(ends(sent)) == [1, 3]


def test_streams_take_turns_when_the_connection_is_narrow():
    peer = Peer(settings={frames.INITIAL_WINDOW_SIZE: 2**31 - 1})
    peer.send(peer.headers(1), peer.headers(3), peer.headers(5))
    respond(peer, 1, b"x" * 200_000)
    respond(peer, 3, b"y" * 200_000)
    respond(peer, 5, b"z")
    assert not peer.made[2].is_gone
    sent = peer.send(frames.window_update(0, 3 * 16_384))
    assert [f[2] for f in sent] == [1, 3, 5, 1]
    assert peer.made[2].is_gone


def test_a_stream_that_may_not_send_does_not_hold_up_the_others():
    peer = Peer(settings={frames.INITIAL_WINDOW_SIZE: 0})
    peer.send(peer.headers(1), peer.headers(3))
    respond(peer, 1, b"abc")
    respond(peer, 3, b"abc")
    assert ends(peer.send(frames.window_update(3, 3))) == [3]


def test_frames_are_as_large_as_the_peer_allows_but_not_larger_than_a_turn():
    peer = Peer(settings={frames.INITIAL_WINDOW_SIZE: 2**31 - 1, frames.MAX_FRAME_SIZE: 1 << 20})
    peer.send(peer.headers(1), frames.window_update(0, 1 << 20))
    _, sent = respond(peer, 1, b"x" * 100_000)
    assert [len(f[3]) for f in sent if f[0] == "DATA"] == [32_768, 32_768, 32_768, 1_696]


def test_a_blocked_transport_stops_bodies_but_not_heads():
    peer = Peer()
    peer.send(peer.headers(1))
    peer.conn.is_blocked = True
    went, sent = respond(peer, 1, b"abc", end=False)
    assert not went
    assert [f[0] for f in sent] == ["HEADERS"]
    peer.conn.unblock()
    assert body_of(peer.sent(), 1) == b"abc"
    assert peer.made[0].names[-1] == "writable"


def test_a_reset_throws_away_what_waits():
    peer = Peer(settings={frames.INITIAL_WINDOW_SIZE: 0})
    peer.send(peer.headers(1))
    respond(peer, 1, b"abc", end=False)
    peer.send(frames.rst_stream(1, 8))
    assert peer.made[0].told[-1] == ("reset", 8, True)
    assert peer.send(frames.settings({frames.INITIAL_WINDOW_SIZE: 100}))[0][0] == "SETTINGS"
    assert peer.conn.send_data(peer.made[0], b"late", end=True)
    assert peer.sent() == []


def test_the_rest_of_a_request_can_be_declined_after_the_answer():
    peer = Peer(settings={frames.INITIAL_WINDOW_SIZE: 1})
    peer.send(peer.headers(1, POST, end=False))
    peer.made[0].stop_after = True
    respond(peer, 1, b"ab")
    sent = peer.send(frames.window_update(1, 1))
    assert [f[0] for f in sent] == ["DATA", "RST_STREAM"]
    assert code_of(sent[1]) == "NO_ERROR"


@given(
    st.lists(st.tuples(st.integers(0, 2), st.binary(max_size=50_000)), max_size=12),
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 40_000)), max_size=30),
    st.integers(0, 70_000),
)
def test_bodies_arrive_whole_whatever_the_windows_do(writes, updates, initial):
    """And no frame exceeds a window: the peer keeps its own books."""
    peer = Peer(settings={frames.INITIAL_WINDOW_SIZE: initial})
    ids = [1, 3, 5]
    peer.send(*(peer.headers(i) for i in ids))
    windows = dict.fromkeys(ids, initial) | {0: 65_535}
    got = dict.fromkeys(ids, b"")
    finished: list[int] = []

    def book(sent):
        for f in sent:
            if f[0] == "DATA":
                for key in (0, f[2]):
                    windows[key] -= len(f[3])
                    assert windows[key] >= 0 or not f[3]
                got[f[2]] += f[3]
            if f[0] in ("DATA", "HEADERS") and f[1] & 1:
                finished.append(f[2])

    for i in ids:
        book(respond(peer, i, b"", end=False)[1])
    steps = [("write", w) for w in writes] + [("open", u) for u in updates]
    for n in range(max(len(writes), len(updates))):
        for kind, step in steps[n : n + 1] + steps[len(writes) + n : len(writes) + n + 1]:
            if kind == "write":
                peer.conn.send_data(peer.made[step[0]], step[1], end=False)
                book(peer.sent())
            else:
                which = [0, *ids][step[0]]
                windows[which] += step[1]
                book(peer.send(frames.window_update(which, step[1])))
    for stream in peer.made:
        peer.conn.send_data(stream, b"", end=True)
    book(peer.sent())
    for which in (0, *ids):
        if which and peer.made[ids.index(which)].is_gone:
            continue
        windows[which] += 10_000_000
        book(peer.send(frames.window_update(which, 10_000_000)))
    for n, i in enumerate(ids):
        assert got[i] == b"".join(data for which, data in writes if which == n)
    assert sorted(finished) == ids
    assert not peer.conn.streams
