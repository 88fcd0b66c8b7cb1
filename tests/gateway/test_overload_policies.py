"""What happens to requests for which there is no room: in line, turned away, and elsewhere."""

from __future__ import annotations

import select
from time import monotonic, sleep
from typing import Any

import pytest

from tests.gateway.given_back import assert_all_given_back
from tests.gateway.rig import (
    PATIENCE_S,
    Gateway,
    Instance,
    Peer,
    document,
    get,
    request,
    response,
    wait_until,
    with_service,
)

pytestmark = pytest.mark.integration

HOUR = {"rate": "2/h", "by": "ip", "name": "hourly"}


def serve(instance: Instance, body: bytes, *, keep: Peer | None = None) -> Peer:
    peer = keep or instance.accept()
    peer.until(b"\r\n\r\n")
    peer.send(response(body))
    return peer


# -- no way around limits --------------------------------------------------------------------------


@pytest.mark.parametrize("cause", ["shed", "flag", "level"])
def test_a_fallback_service_is_asked_within_the_limits_of_the_route(start, pair, cause):
    route: dict[str, Any] = {"fallback": {"service": "spare"}, "limit": HOUR}
    said = with_service(document(pair[0], route=route), "spare", pair[1])
    if cause == "shed":
        said["shed"] = {"in_flight": 2}
    elif cause == "flag":
        said["routes"][0]["flag"] = "hints"
        said["degrade"] = {"flags": {"hints": "off"}}
    else:
        said["routes"][0]["importance"] = "low"
        said["degrade"] = {"levels": [{"name": "usual"}, {"name": "worse", "measures": ["shed"]}]}
    gateway = start(said)
    holder = gateway.client()
    if cause == "shed":
        holder.send(get("/holds"))
        pair[0].accept().until(b"\r\n\r\n")
    if cause == "level":
        gateway.on_loop(lambda: gateway.worker._states.degrade.set("hand", 1, monotonic(), "tests"))
    left = 1 if cause == "shed" else 2
    with gateway.client() as client:
        peer: Peer | None = None
        for _ in range(left):
            client.send(get())
            peer = serve(pair[1], b"spare", keep=peer)
            head, body = client.answer()
            assert (head.status, body) == (200, b"spare")
            assert "hourly" in (head.get("ratelimit") or "")
        client.send(request("POST", "/", body=b"one more"))
        head, _ = client.answer()
        assert head.status == 429
        assert int(head.get("retry-after") or 0) > 0
        # Nobody is asked what is refused, and the connection goes on.
        assert peer is not None
        assert peer.is_quiet()
        client.send(get())
        assert client.answer()[0].status == 429
    holder.reset()
    assert_all_given_back(gateway)


def test_a_text_in_place_of_a_failure_is_not_limited(start, instance):
    route = {"fallback": {"respond": {"body": "later"}}, "limit": HOUR, "flag": "hints"}
    said = document(instance, route=route)
    said["degrade"] = {"flags": {"hints": "off"}}
    gateway = start(said)
    assert [gateway.ask(get())[1] for _ in range(4)] == [b"later"] * 4


def test_a_fallback_after_the_limits_is_not_counted_twice(start, pair):
    route = {
        "fallback": {"service": "spare"},
        "limit": {**HOUR, "rate": "10/h"},
        "concurrency": {"limit": 1},
    }
    gateway = start(with_service(document(pair[0], route=route), "spare", pair[1]))
    holder = gateway.client()
    holder.send(get("/holds"))
    pair[0].accept().until(b"\r\n\r\n")
    with gateway.client() as client:
        client.send(get())
        serve(pair[1], b"spare")
        head, _ = client.answer()
    assert "r=8" in (head.get("ratelimit") or "")
    holder.reset()
    assert_all_given_back(gateway)


# -- waits for a seat are waits --------------------------------------------------------------------


def _states(gateway: Gateway) -> Any:
    return gateway.worker._states


def sheds(gateway: Gateway) -> Any:
    return gateway.on_loop(lambda: _states(gateway).shedder.snapshot(monotonic()))


@pytest.mark.parametrize("ends", ["seat", "timeout"])
def test_a_worker_in_which_everybody_waits_for_a_seat_is_overloaded(start, instance, ends):
    line = {"limit": 1, "queue": 5, "queue_timeout": "30s" if ends == "seat" else "400ms"}
    # Not for being late itself: the machine of a test may be slow.
    gateway = start(document(instance, route={"concurrency": line}, shed={"lag": "1min"}))
    before = sheds(gateway)
    assert not before.is_shedding
    first, second = gateway.client(), gateway.client()
    first.send(get("/1"))
    peer = instance.accept()
    peer.until(b"\r\n\r\n")
    wait_until(lambda: sheds(gateway).since == before.since)
    second.send(get("/2"))
    wait_until(lambda: gateway.count("headgate_concurrency_waiting") == 1)
    if ends == "seat":
        sleep(0.4)  # in line, for longer than `queue` of shed
        peer.send(response(b"one"))
        assert first.answer()[1] == b"one"
        serve(instance, b"two", keep=peer)
        assert second.answer()[1] == b"two"
    else:
        assert second.answer()[0].status == 503
    # It has begun to shed; by now it may have ended that too.
    wait_until(lambda: sheds(gateway).since != before.since)
    first.close()
    gateway.assert_settles()


# -- an open breaker that nobody asks ---------------------------------------------------------------


BREAKER = {"window": "4 calls", "minimum_calls": 4, "reset_after": "300ms"}


def broken(gateway: Gateway, instance: Instance) -> Peer:
    """Fail until the breaker is open; the connection to the instance."""
    with gateway.client() as client:
        client.send(get())
        peer = instance.accept()
        for _ in range(4):
            peer.until(b"\r\n\r\n")
            peer.send(response(b"no", status="500 No"))
            assert client.answer()[0].status == 500
            client.send(get())
        assert client.answer()[0].status in (200, 503)
    return peer


def state_of(gateway: Gateway) -> tuple[str, str]:
    """As the admin API and as the metrics have it."""

    def told() -> tuple[str, str]:
        snapshot = gateway.worker.snapshot()
        rows = snapshot["rows"]["headgate_breaker_state"]
        (is_now,) = [labels[-1] for labels, value in rows if value]
        breaker = _states(gateway).services["upstream"].breaker
        return breaker.snapshot(monotonic()).state, is_now

    found: tuple[str, str] = gateway.on_loop(told)
    return found


def test_an_open_breaker_without_traffic_does_not_look_open_for_ever(start, instance):
    gateway = start(document(instance, service={"breaker": {**BREAKER, "reset_after": "1s"}}))
    broken(gateway, instance)
    wait_until(lambda: state_of(gateway) == ("half_open", "half_open"))


def test_a_level_that_keeps_all_calls_away_ends_with_the_time_of_the_breaker(start, instance):
    route = {"fallback": {"respond": {"body": "worse"}}}
    said = document(instance, service={"breaker": BREAKER}, route=route)
    said["degrade"] = {
        "hold": "100ms",
        "levels": [
            {"name": "usual"},
            {"name": "worse", "measures": ["static"], "when": {"open": ["upstream"]}},
        ],
    }
    gateway = start(said)
    peer = broken(gateway, instance)
    # Nobody is asked meanwhile; all the same the end comes, and with it a trial.
    with gateway.client() as client:

        def is_tried() -> bool:
            client.send(get())
            ready, _, _ = select.select([client.sock, peer.sock], [], [], PATIENCE_S)
            if peer.sock in ready:
                return True
            assert client.answer()[1] == b"worse"
            return False

        wait_until(is_tried)
        peer.until(b"\r\n\r\n")
        peer.send(response(b"well"))
        assert client.answer()[1] == b"well"
