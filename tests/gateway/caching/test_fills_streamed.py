"""Bodies that many read at once: at their own pace while they are kept, at one pace beyond."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from headgate.wire.h2 import ErrorCode
from tests.gateway.caching.rig import FRESH, asked, cached, dated
from tests.gateway.given_back import assert_all_given_back
from tests.gateway.h2_client import LIMITS, Client
from tests.gateway.rig import Gateway, Peer, get, response, wait_until

pytestmark = pytest.mark.integration

CHUNKED = f"HTTP/1.1 200 OK\r\n{FRESH}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
PIECE = bytes(range(256)) * 64


class Sender:
    """Sends pieces of a chunked body as fast as they are taken, on a thread of its own."""

    def __init__(self, peer: Peer, pieces: int) -> None:
        self.sent = 0
        self._peer = peer
        self._pieces = pieces
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        for _ in range(self._pieces):
            if not self._peer.try_send(b"%x\r\n%b\r\n" % (len(PIECE), PIECE)):
                return
            self.sent += 1
        self._peer.try_send(b"0\r\n\r\n")

    def join(self) -> None:
        self._thread.join(20)
        assert not self._thread.is_alive()

    def wait_stalled(self) -> None:
        """Nothing more has been taken for a while."""
        seen = -1

        def is_stalled() -> bool:
            nonlocal seen
            before, seen = seen, self.sent
            self._thread.join(0.2)
            return before == self.sent == seen

        wait_until(is_stalled, 20)


def test_beyond_the_bound_the_service_is_as_fast_as_the_slowest(start, instance):
    gateway = start(cached(instance, rules={"body_max": "64KB"}))
    slow, quick = asked(gateway), asked(gateway)
    peer = instance.accept()
    peer.until(b"\r\n\r\n")
    peer.send(CHUNKED)
    heads = [slow.head(), quick.head()]
    assert [head.status for head in heads] == [200, 200]
    sender = Sender(peer, 2000)
    got: list[bytes] = []
    reading = threading.Thread(target=lambda: got.append(quick.chunked()))
    reading.start()
    sender.wait_stalled()
    assert sender.sent < 2000
    assert slow.chunked() == PIECE * 2000
    reading.join(20)
    assert got == [PIECE * 2000]
    sender.join()
    assert_all_given_back(gateway)


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_a_slow_reader_that_leaves_holds_up_nobody_any_more(start, instance, how):
    gateway = start(cached(instance, rules={"body_max": "64KB"}))
    slow, quick = asked(gateway), asked(gateway)
    peer = instance.accept()
    peer.until(b"\r\n\r\n")
    peer.send(CHUNKED)
    heads = [slow.head(), quick.head()]
    assert [head.status for head in heads] == [200, 200]
    sender = Sender(peer, 2000)
    got: list[bytes] = []
    reading = threading.Thread(target=lambda: got.append(quick.chunked()))
    reading.start()
    sender.wait_stalled()
    slow.leave(how)
    reading.join(20)
    assert got == [PIECE * 2000]
    sender.join()
    assert_all_given_back(gateway)


def test_while_it_is_kept_a_slow_reader_slows_nobody(start, instance):
    gateway = start(
        {**cached(instance, rules={"body_max": "64MB"}), "cache_store": {"memory": "1GB"}}
    )
    slow, quick = asked(gateway), asked(gateway)
    peer = instance.accept()
    peer.until(b"\r\n\r\n")
    peer.send(CHUNKED)
    heads = [slow.head(), quick.head()]
    assert [head.status for head in heads] == [200, 200]
    sender = Sender(peer, 1500)
    assert quick.chunked() == PIECE * 1500
    sender.join()
    wait_until(lambda: gateway.in_flight == 1)
    assert gateway.ask(get("/"))[1] == PIECE * 1500
    assert slow.chunked() == PIECE * 1500
    assert_all_given_back(gateway)


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_who_lags_behind_may_leave_after_the_end(start, instance, how):
    gateway = start(
        {**cached(instance, rules={"body_max": "64MB"}), "cache_store": {"memory": "1GB"}}
    )
    slow = asked(gateway)
    peer = instance.accept()
    peer.until(b"\r\n\r\n")
    peer.send(CHUNKED)
    assert slow.head().status == 200
    Sender(peer, 1500).join()
    wait_until(lambda: gateway.in_flight == 1)
    slow.leave(how)
    assert_all_given_back(gateway)
    assert gateway.ask(get("/"))[1] == PIECE * 1500


def test_streams_with_small_windows_read_a_fill_at_their_own_pace(start, instance):
    gateway = start(
        {**cached(instance, rules={"body_max": "64MB"}), "cache_store": {"memory": "1GB"}}
    )
    with Client(gateway.port(), limits=replace(LIMITS, stream_window=65_535)) as client:
        streams = [client.ask(authority="h.example") for _ in range(4)]
        streams[0].takes = streams[1].takes = False
        wait_until(lambda: gateway.in_flight == 5)
        peer = instance.accept()
        peer.until(b"\r\n\r\n")
        peer.send(CHUNKED)
        sender = Sender(peer, 200)
        for stream in streams[2:]:
            client.wait(stream)
            assert stream.body == PIECE * 200
        sender.join()
        client.until(lambda: len(streams[0].body) == len(streams[1].body) == 65_535)
        client.codec.reset(streams[1], ErrorCode.CANCEL)
        streams[0].takes = True
        client.codec.consume(streams[0], 65_535)
        client.flush()
        client.wait(streams[0])
        assert streams[0].body == PIECE * 200
    assert_all_given_back(gateway)


def test_who_comes_at_any_piece_gets_all_of_them(start, instance):
    gateway = start(cached(instance))
    clients = [asked(gateway)]
    peer = instance.accept()
    peer.until(b"\r\n\r\n")
    peer.send(CHUNKED)
    for number in range(1, 21):
        peer.send(b"4\r\np%03d\r\n" % number)
        taken = clients[-1].until(b"p%03d\r\n" % number)
        clients[-1].data = taken + clients[-1].data
        clients.append(asked(gateway))
    peer.send(b"0\r\n\r\n")
    whole = b"".join(b"p%03d" % number for number in range(1, 21))
    assert [client.answer()[1] for client in clients] == [whole] * 21
    assert gateway.ask(get("/"))[1] == whole
    assert instance.is_left_alone()
    assert_all_given_back(gateway)


def test_an_old_client_reads_along_until_the_end_of_its_connection(start, instance):
    gateway = start(cached(instance))
    new = asked(gateway)
    old = gateway.client()
    old.send(b"GET / HTTP/1.0\r\nHost: h.example\r\n\r\n")
    wait_until(lambda: gateway.in_flight == 3)
    peer = instance.accept()
    peer.until(b"\r\n\r\n")
    peer.send(CHUNKED + b"3\r\nabc\r\n")
    assert new.head().status == 200
    peer.send(b"3\r\ndef\r\n0\r\n\r\n")
    assert new.chunked() == b"abcdef"
    head, body = old.answer()
    assert (body, "transfer-encoding" in head) == (b"abcdef", False)
    assert_all_given_back(gateway)


def test_thousands_who_wait_and_leave_at_once_stall_nobody(start, instance):
    gateway = start(cached(instance))
    first = asked(gateway)
    peer = instance.accept()
    peer.until(b"\r\n\r\n")
    with Client(gateway.port(), limits=LIMITS) as client:
        streams = [client.ask(authority="h.example") for _ in range(100)]
        wait_until(lambda: gateway.in_flight == 102)
        for stream in streams:
            client.codec.reset(stream, ErrorCode.CANCEL)
        client.flush()
        wait_until(lambda: gateway.in_flight == 2)
    peer.send(response(b"kept", FRESH, dated()))
    assert first.answer()[1] == b"kept"
    assert_all_given_back(gateway)


def held_bytes(gateway: Gateway) -> int:
    count: int = gateway.on_loop(lambda: gateway.worker._caching._held_bytes)
    return count


def test_what_all_fills_hold_is_bounded(start, instance):
    """Beyond it a fill is a stream like any other, and is not kept."""
    gateway = start(cached(instance, rules={"body_max": "64MB"}))
    gateway.on_loop(lambda: setattr(gateway.worker._caching, "_held_max", 16 * 1024 * 1024))
    lagging = asked(gateway, "/lagging")
    peer = instance.accept()
    peer.until(b"\r\n\r\n")
    peer.send(CHUNKED)
    assert lagging.head().status == 200
    sender = Sender(peer, 3000)
    sender.wait_stalled()
    assert sender.sent < 3000
    assert held_bytes(gateway) < 18 * 1024 * 1024
    assert lagging.chunked() == PIECE * 3000
    sender.join()
    assert gateway.count("headgate_cache_total", outcome="no_room") == 1
    assert_all_given_back(gateway)
    assert held_bytes(gateway) == 0


@pytest.mark.parametrize("how", ["read", "fin", "rst"])
def test_what_fills_held_is_let_go(start, instance, how):
    gateway = start({**cached(instance, rules={"body_max": "1MB"})})
    clients = [asked(gateway) for _ in range(3)]
    peer = instance.accept()
    peer.until(b"\r\n\r\n")
    peer.send(response(b"x" * 900_000, FRESH)[:-10])
    for client in clients[1:]:
        client.head()
        client.leave(how) if how != "read" else None
    wait_until(lambda: held_bytes(gateway) > 800_000)
    peer.send(b"x" * 10)
    for client in clients if how == "read" else clients[:1]:
        client.until(b"x" * 10_000)
    wait_until(lambda: held_bytes(gateway) == 0)
