"""Limits that a client meets over HTTP/2 as it does over HTTP/1.1: slow bodies, many requests."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import httpx
import pytest

from headgate.testing import EchoServer
from headgate.wire.h2 import H2Limits
from tests.gateway.h2_client import Client
from tests.gateway.rig import document, wait_until

pytestmark = pytest.mark.integration

DRIP = {"min_rate": 2000, "min_rate_grace": "300ms", "body_timeout": "5s"}


@pytest.fixture(scope="module")
def echo():
    with EchoServer("users") as server:
        yield server


def limited(to, **limits):
    found = document(to, limits=limits)
    found["routes"].insert(
        0, {"name": "here", "match": {"path": "/here/"}, "respond": {"body": "from here"}}
    )
    return found


@contextlib.contextmanager
def served(start, to, **limits):
    gateway = start(limited(to, **limits))
    with Client(gateway.port()) as client:
        yield gateway, client
    gateway.assert_settles()


def hear(client, for_s):
    """Read what comes for a moment."""
    with contextlib.suppress(TimeoutError):
        client.read(for_s)


def drip(client, stream, for_s=6.0, piece=b"x", every_s=0.05):
    """Send body a little at a time until the stream is answered."""
    deadline = time.monotonic() + for_s
    while not stream.is_over and time.monotonic() < deadline:
        client.send(stream, piece)
        hear(client, every_s)


# -- slow bodies


def test_a_body_that_only_drips_is_408(start, echo):
    with served(start, echo.url, **DRIP) as (gateway, client):
        stream = client.ask("POST", "/x", end=False)
        drip(client, stream)
        assert stream.status == 408
        assert b"minimum rate" in bytes(stream.body)
        # The connection and its other streams are as good as before.
        assert client.get("/y").status == 200
        assert (
            gateway.count("headgate_protocol_refusals_total", side="downstream", reason="slow_body")
            == 1
        )


def test_a_quick_start_counts_for_the_whole_body(start, echo):
    with served(start, echo.url, **DRIP) as (_, client):
        stream = client.ask("POST", "/x", end=False)
        client.send(stream, b"x" * 20_000)  # ten seconds' worth
        drip(client, stream, for_s=0.8)
        assert not stream.is_over
        client.send(stream, b"", end=True)
        assert client.wait(stream).status == 200


def test_a_steady_body_is_let_through(start, echo):
    with served(start, echo.url, **DRIP) as (_, client):
        stream = client.ask("POST", "/x", end=False)
        drip(client, stream, for_s=1.0, piece=b"x" * 400)
        client.send(stream, b"", end=True)
        assert client.wait(stream).status == 200


def test_no_rate_is_asked_of_a_grpc_call(start, echo):
    with served(start, echo.url, **DRIP) as (_, client):
        stream = client.ask("POST", "/x", ((b"content-type", b"application/grpc"),), end=False)
        drip(client, stream, for_s=1.6)
        assert not stream.is_over
        client.send(stream, b"", end=True)
        assert client.wait(stream).status == 200


def test_a_client_that_is_held_up_is_not_slow(start, instance):
    """One upload that the service does not read uses up the connection's window."""
    # Or the kernel may take all of it on the instance's behalf.
    instance.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    found = limited(instance, **DRIP)
    found["listeners"][0]["http2"] = {"window": 65535}
    found["services"]["upstream"]["pool"] = {"connections": 8}
    gateway = start(found)
    large = H2Limits(stream_window=1 << 20, connection_window=1 << 21)
    with Client(gateway.port(), limits=large) as client:
        stuck = client.ask("POST", "/stuck", end=False)
        other = client.ask("POST", "/stuck", end=False)
        held = [instance.accept(), instance.accept()]
        for stream in (stuck, other):
            client.send(stream, b"x" * 8_000_000)
        slow = client.ask("POST", "/slow", end=False)
        upstream = instance.accept()
        upstream.head()
        client.send(slow, b"y" * 100)

        def is_shut():
            hear(client, 0.1)
            return gateway.on_loop(
                lambda: [
                    conn.codec.has_room
                    for listener in gateway.worker._listeners.values()
                    for conn in listener.connections
                ]
            ) == [False]

        wait_until(is_shut)
        deadline = time.monotonic() + 1.2  # several times the grace
        while time.monotonic() < deadline:
            hear(client, 0.1)
        assert not slow.is_over
        client.close()
    del held
    gateway.assert_settles()


# -- so many requests


def test_a_connection_says_goodbye_after_so_many_requests(start, echo):
    with served(start, echo.url, requests_per_connection=3) as (_, client):
        for _ in range(3):
            assert client.get("/x").status == 200
        client.until(lambda: not client.is_open)
        assert client.codec.peer_goaway == 5  # the third stream
        assert client.codec.peer_goaway_code == 0


def test_answers_of_the_gateways_own_count_as_well(start, echo):
    with served(start, echo.url, requests_per_connection=2) as (_, client):
        for _ in range(2):
            assert client.get("/here/").status == 200
        client.until(lambda: not client.is_open)
        assert client.codec.peer_goaway == 3


def test_a_goodbye_loses_nothing_that_is_in_flight(start, echo):
    with served(start, echo.url, requests_per_connection=2) as (_, client):
        streams = [client.ask("GET", "/delay/0.4") for _ in range(6)]
        assert [client.wait(stream).status for stream in streams] == [200] * 6
        client.until(lambda: not client.is_open)
        assert client.codec.peer_goaway == 11


def test_a_connection_that_is_never_idle_gets_its_goodbye_all_the_same(start, echo):
    with served(start, echo.url, requests_per_connection=2) as (_, client):
        long = client.ask("GET", "/delay/4")
        assert client.get("/x").status == 200
        began = time.monotonic()
        client.until(lambda: client.codec.peer_goaway is not None, 8)
        assert client.codec.peer_goaway_code == 0
        assert not long.is_over, time.monotonic() - began
        assert client.wait(long).status == 200
        client.until(lambda: not client.is_open)


def test_no_limit_is_no_goodbye(start, echo):
    with served(start, echo.url) as (_, client):
        for _ in range(50):
            assert client.get("/here/").status == 200
        assert client.codec.peer_goaway is None


def test_a_reload_may_lower_the_number_of_requests(start, echo):
    with served(start, echo.url, requests_per_connection=100) as (gateway, client):
        for _ in range(5):
            assert client.get("/here/").status == 200
        gateway.apply(limited(echo.url, requests_per_connection=2))
        assert client.get("/here/").status == 200
        client.until(lambda: not client.is_open)


def test_httpx_goes_on_over_a_new_connection(start, echo):
    gateway = start(limited(echo.url, requests_per_connection=3))
    statuses: list[int] = []

    def work():
        with httpx.Client(http1=False, http2=True, timeout=5) as client:
            statuses.extend(
                client.get(f"http://127.0.0.1:{gateway.port()}/x").status_code for _ in range(20)
            )

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(20)
    assert statuses == [200] * 20
    gateway.assert_settles()
