"""Fills whose clients leave, at every moment: nobody else loses anything, and nothing goes on that
nobody wants.
"""

from __future__ import annotations

import pytest

from tests.gateway.caching.rig import (
    BEHIND,
    FRESH,
    ask,
    asked,
    cached,
    filled,
    fills,
    serve,
)
from tests.gateway.given_back import assert_all_given_back
from tests.gateway.rig import (
    get,
    response,
    wait_until,
)

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_an_answer_for_nobody_is_not_read_to_its_end(start, instance, how):
    """The first has left, the others ask for themselves: nobody wants this one."""
    gateway = start(cached(instance))
    first, second = asked(gateway), asked(gateway)
    peer = instance.accept()
    peer.until(b"\r\n\r\n")
    first.reset()
    wait_until(lambda: gateway.in_flight == 2)
    peer.send(b"HTTP/1.1 200 OK\r\nCache-Control: private\r\nContent-Length: 1000000\r\n\r\n")
    other = instance.accept()
    other.until(b"\r\n\r\n")
    assert peer.is_closed()
    other.send(response(b"own", "Cache-Control: private"))
    assert second.answer()[1] == b"own"
    second.leave(how)
    assert_all_given_back(gateway)
    assert fills(gateway) == 0


def test_what_comes_behind_and_is_not_kept_is_not_read_to_its_end(start, instance):
    gateway = start(cached(instance))
    client = filled(gateway, instance, BEHIND)
    assert ask(client)[1] == b"kept"
    peer = instance.accepted[0]
    peer.until(b"\r\n\r\n")
    peer.send(b"HTTP/1.1 200 OK\r\nCache-Control: private\r\nContent-Length: 1000000\r\n\r\n")
    assert peer.is_closed()
    assert_all_given_back(gateway)
    assert fills(gateway) == 0


def test_a_body_without_end_that_nobody_reads_is_called_off_at_the_bound(start, instance):
    gateway = start(cached(instance, rules={"body_max": "1KB"}))
    client = asked(gateway)
    peer = instance.accept()
    peer.until(b"\r\n\r\n")
    peer.send(f"HTTP/1.1 200 OK\r\n{FRESH}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    client.head()
    client.reset()
    wait_until(lambda: gateway.in_flight == 1)
    peer.try_send(b"800\r\n" + b"x" * 2048 + b"\r\n")
    assert peer.is_closed()
    assert_all_given_back(gateway)


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_all_leave_as_the_head_comes(start, instance, how):
    gateway = start(cached(instance))
    for _ in range(10):
        clients = [asked(gateway) for _ in range(3)]
        peer = instance.accepted[-1] if instance.accepted else instance.accept()
        if not peer.data and not peer.more():
            peer = instance.accept()
        peer.until(b"\r\n\r\n")
        for client in clients:
            client.leave(how)
        peer.try_send(response(b"x" * 100_000, "Cache-Control: private"))
        wait_until(lambda: gateway.in_flight == 0)
        peer.close()
        instance.accepted.clear()
    assert_all_given_back(gateway)
    assert fills(gateway) == 0


def test_a_client_leaves_a_fill_that_waits_for_a_seat(start, instance):
    said = cached(instance, concurrency={"limit": 1, "queue": 5, "queue_timeout": "20s"})
    gateway = start(said)
    busy = asked(gateway, "/busy")
    peer = instance.accept()
    peer.until(b"\r\n\r\n")
    waiting = asked(gateway)
    waiting.reset()
    wait_until(lambda: gateway.in_flight == 2)
    peer.send(response(b"done", FRESH))
    assert busy.answer()[1] == b"done"
    assert_all_given_back(gateway)
    assert peer.is_quiet()


def test_a_client_leaves_a_fill_that_waits_for_another_attempt(start, instance):
    retry = {
        "attempts": 5,
        "wait": "20s",
        "jitter": "none",
        "budget": "off",
        "when": {"status": ["503"]},
    }
    gateway = start(cached(instance, retry=retry))
    client = asked(gateway)
    serve(instance, response(b"", status="503 Busy"))
    wait_until(lambda: gateway.pool.idle == 1)
    client.reset()
    assert_all_given_back(gateway)


def test_a_client_leaves_a_fill_that_a_fault_delays(start, instance):
    gateway = start(cached(instance, fault={"delay": "20s"}))
    client = asked(gateway)
    client.reset()
    wait_until(lambda: gateway.in_flight == 0)
    assert instance.is_left_alone()


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_a_client_leaves_in_the_middle_of_a_large_hit(start, instance, how):
    body = b"x" * 900_000
    gateway = start(cached(instance))
    filled(gateway, instance, FRESH, body=body)
    for _ in range(5):
        client = gateway.client()
        client.send(get("/") * 20)
        client.exactly(10_000)
        client.leave(how)
    assert gateway.ask(get("/"))[1] == body
    assert_all_given_back(gateway)
    wait_until(lambda: gateway.clients == 1)
