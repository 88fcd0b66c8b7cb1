"""Any bytes, cut anywhere: a connection gives one answer or one failure, the same for every cut."""

# Fakes stand in for connections, pools and loops.
# mypy: disable-error-code="arg-type, union-attr, var-annotated, list-item, assignment, misc"
from __future__ import annotations

import asyncio
from math import inf
from time import monotonic

from hypothesis import example, given, settings
from hypothesis import strategies as st

from headgate.errors import UpstreamFailed
from headgate.mesh.http.connection import Connection
from headgate.mesh.http.exchange import Exchange, Timeouts
from headgate.mesh.http.request import RequestHead
from headgate.wire.headcache import HeadCache
from headgate.wire.http1.head import HeadLimits
from headgate.wire.wheel import NEVER

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
SEEDS = [
    OK,
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n1;a=b\r\nx\r\n0\r\nt: u\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\ncontent-length: 3\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\nuntil the end",
    b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
    OK + OK,
]
ALPHABET = [b"\r\n", b"\n", b"\r", b"\0", b" ", b":", b"0", b"9", b"ff", b";", b"\xff", b"chunked"]


class Wire:
    aborted = False

    def write(self, data: bytes) -> None:
        pass

    def abort(self) -> None:
        self.aborted = True

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class Pool:
    name = "users:80"

    def __init__(self) -> None:
        self.given = 0
        self.lost_count = 0

    def give(self, conn: Connection, now: float) -> None:
        self.given += 1

    def lost(self, conn: Connection) -> None:
        self.lost_count += 1

    def again(self, ex: Exchange) -> None:
        raise AssertionError("a connection that is new is not stale")


class Ticking:
    def arm(self, item: Connection) -> None:
        item.wake = NEVER


@st.composite
def bent(draw: st.DrawFn) -> bytes:
    """A response with a few bytes put in, taken out or put in the place of others."""
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        length = draw(st.integers(0, 3))
        data[at : at + length] = draw(st.sampled_from([b"", *ALPHABET]))
    return bytes(data)


def outcome(heads, data: bytes, cuts: list[int], method: str):
    """What the caller gets, and whether the connection is kept."""
    loop = asyncio.new_event_loop()
    try:
        future = loop.create_future()
        pool, wire = Pool(), Wire()
        conn = Connection(pool, Ticking(), heads, HeadLimits())
        conn.connection_made(wire)
        head = RequestHead(b"", 0, keep=True)
        ex = Exchange(future, method, head, None, inf, Timeouts(), 1000, is_stream=False)
        conn.start(ex, monotonic())
        for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            if end > start and not wire.aborted:
                conn.data_received(data[start:end])
        if not pool.given or wire.aborted:
            conn.connection_lost(None)
        kept = pool.given == 1 and not wire.aborted
        assert pool.given + pool.lost_count >= 1
        assert future.done()
        error = future.exception()
        if error is not None:
            assert isinstance(error, UpstreamFailed), error
            assert pool.given == 0
            return error.kind, "protocol" if error.kind == "protocol" else error.detail
        got = future.result()
        return got.status, got.raw_content, got.raw_headers, kept
    finally:
        loop.close()


@settings(max_examples=300)
@given(data=bent(), cuts=st.data(), method=st.sampled_from(["GET", "HEAD", "POST"]))
@example(data=OK, cuts=None, method="GET")
def test_however_a_response_is_cut_it_is_the_same_answer_or_the_same_failure(data, cuts, method):
    heads = HeadCache()
    whole = outcome(heads, data, [], method)
    places = [] if cuts is None else cuts.draw(st.lists(st.integers(0, len(data)), max_size=6))
    for parts in (sorted(places), list(range(1, len(data)))):
        cut = outcome(heads, data, parts, method)
        # Cut just after a response, what follows it comes on a connection that is idle.
        assert cut[:3] == whole[:3] or {cut[0], whole[0]} <= {"protocol", "reset"}
    for _ in range(2):  # by the way of a head that is known
        assert outcome(heads, data, [], method) == whole
