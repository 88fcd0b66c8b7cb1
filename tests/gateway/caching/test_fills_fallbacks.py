"""Fallbacks of those who read a fill, and bodies on a route with a cache."""

from __future__ import annotations

import pytest

from tests.gateway.caching.rig import (
    FRESH,
    HALF,
    ask,
    asked,
    cached,
    fills,
    serve,
)
from tests.gateway.given_back import assert_all_given_back
from tests.gateway.rig import (
    NO_WAIT,
    request,
    response,
    wait_until,
    with_service,
)

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "begun"])
def test_a_status_leads_to_the_fallback_service(start, pair, whole):
    said = cached(pair[0], fallback={"when": ["5xx"], "service": "spare"})
    gateway = start(with_service(said, "spare", pair[1]))
    client = asked(gateway)
    peer = pair[0].accept()
    peer.until(b"\r\n\r\n")
    broken = b"HTTP/1.1 503 Busy\r\nContent-Length: 900000\r\n\r\nxyz"
    peer.send(response(b"xyz", status="503 Busy") if whole else broken)
    serve(pair[1], response(b"spare", FRESH))
    head, body = client.answer()
    assert (head.status, body) == (200, b"spare")
    if not whole:
        assert peer.is_closed()
    assert_all_given_back(gateway)
    assert fills(gateway) == 0


def test_a_kept_status_leads_to_the_fallback_as_well(start, instance):
    fallback = {"when": [404], "respond": {"status": 203, "body": "instead"}}
    gateway = start(cached(instance, rules={"ttl_by_status": {404: "60s"}}, fallback=fallback))
    client = asked(gateway)
    serve(instance, response(b"none", status="404 Not Found"))
    assert (client.answer()[0].status, instance.accepted[0].is_quiet()) == (203, True)
    for _ in range(3):
        assert ask(client)[0].status == 203
    assert instance.accepted[0].is_quiet()
    assert_all_given_back(gateway)


def test_a_clients_own_deadline_leads_to_the_fallback_and_not_back(start, pair):
    """What the fill brings later is for nobody."""
    said = cached(pair[0], fallback={"when": ["timeout"], "service": "spare"})
    gateway = start(with_service(said, "spare", pair[1]))
    slow = asked(gateway)
    hasty = asked(gateway, "/", "x-headgate-deadline: 50")
    peer = pair[0].accept()
    peer.until(b"\r\n\r\n")
    assert hasty.answer()[0].status == 504
    peer.send(response(b"first", FRESH))
    assert slow.answer()[1] == b"first"
    assert_all_given_back(gateway)


def test_who_joins_late_and_falls_back_is_not_asked_for_twice(start, pair):
    """Its waiting for others is over when the fallback begins."""
    rules = {"ttl_by_status": {404: "60s"}, "collapse_wait": "50ms"}
    said = cached(pair[0], rules=rules, fallback={"when": [404], "service": "spare"})
    gateway = start(with_service(said, "spare", pair[1]))
    first = asked(gateway)
    peer = pair[0].accept()
    peer.until(b"\r\n\r\n")
    peer.send(HALF.replace(b"200 OK", b"404 Not Found"))
    spare = pair[1].accept()
    spare.until(b"\r\n\r\n")
    late = asked(gateway)
    other = pair[1].accept()
    other.until(b"\r\n\r\n")
    assert pair[1].is_left_alone(0.3)
    assert pair[0].is_left_alone(0)
    for each in (spare, other):
        assert each.is_quiet(0)
        each.send(response(b"spare"))
    assert [first.answer()[1], late.answer()[1]] == [b"spare"] * 2
    peer.send(b"uvw")
    assert_all_given_back(gateway)


def test_a_body_that_comes_in_the_line_for_a_seat_is_whole_at_the_second_attempt(start, instance):
    said = cached(
        instance,
        concurrency={"limit": 1, "queue": 5, "queue_timeout": "20s"},
        retry={**NO_WAIT, "when": {"status": ["503"]}, "methods": ["POST"]},
    )
    gateway = start(said)
    busy = asked(gateway, "/busy")
    peer = instance.accept()
    peer.until(b"\r\n\r\n")
    client = gateway.client()
    client.send(b"POST / HTTP/1.1\r\nHost: h.example\r\nContent-Length: 9\r\n\r\none")
    wait_until(lambda: gateway.in_flight == 3)
    client.send(b" order")
    wait_until(lambda: client.is_quiet(0.05))
    peer.send(response(b"done", FRESH))
    assert busy.answer()[1] == b"done"
    for status in ("503 Busy", "200 OK"):
        peer.until(b"\r\n\r\n")
        assert peer.exactly(9) == b"one order"
        assert peer.is_quiet(0.05)
        peer.send(response(b"fine", status=status))
    assert client.answer()[1] == b"fine"
    assert_all_given_back(gateway)


def test_a_body_goes_to_the_fallback_once_where_no_seat_is_free(start, pair):
    said = cached(
        pair[0],
        concurrency={"limit": 1},
        fallback={"when": ["full"], "service": "spare"},
        retry={**NO_WAIT, "when": {"status": ["503"]}, "methods": ["POST"]},
    )
    gateway = start(with_service(said, "spare", pair[1]))
    busy = asked(gateway, "/busy")
    pair[0].accept().until(b"\r\n\r\n")
    client = gateway.client()
    client.send(request("POST", "/", body=b"one order"))
    peer = pair[1].accept()
    for status in ("503 Busy", "200 OK"):
        peer.until(b"\r\n\r\n")
        assert peer.exactly(9) == b"one order"
        assert peer.is_quiet(0.05)
        peer.send(response(b"spare", status=status))
    assert client.answer()[1] == b"spare"
    busy.reset()
    assert_all_given_back(gateway)
