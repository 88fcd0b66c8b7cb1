"""Requests beside a client's own: copies for a mirror, and second attempts."""

from __future__ import annotations

import select
from time import sleep
from typing import Any

import pytest

from headgate.gateway.filters import Filter, Request
from tests.gateway.given_back import assert_all_given_back
from tests.gateway.rig import (
    DEAD,
    NO_WAIT,
    Gateway,
    Instance,
    document,
    first_of,
    get,
    request,
    response,
    wait_until,
    with_service,
)

pytestmark = pytest.mark.integration


def serve(instance: Instance, answer: bytes, mark: bytes = b"\r\n\r\n") -> bytes:
    """Answer one request on the instance's connection; what was asked."""
    peer = instance.accepted[-1] if instance.accepted else instance.accept()
    asked = peer.until(mark)
    peer.send(answer)
    return asked


def stat(gateway: Gateway, event: str) -> int:
    return gateway.count("headgate_policy_events_total", event=event)


def mirrored(start, pair: list[Instance], **shadow: Any) -> Gateway:
    said = document(pair[0], route={"mirror": {"to": "shadow", "queue": 2}})
    return start(with_service(said, "shadow", pair[1], **shadow))


# -- mirrors


class Louder(Filter):
    """Makes a body longer, and puts the user in."""

    request_body_max = 10_000

    def on_request(self, request: Request) -> None:
        request.length = -1
        request.headers.remove("authorization")
        request.headers.set("x-user", "anna")

    def on_request_body(self, request: Request, chunk: bytes, last: bool) -> bytes:
        return chunk * 3


class QuietlyLouder(Louder):
    """The same, without a word about the length."""

    def on_request(self, request: Request) -> None:
        request.headers.remove("authorization")
        request.headers.set("x-user", "anna")


@pytest.mark.parametrize("which", ["Louder", "QuietlyLouder"])
def test_a_copy_is_what_filters_have_made_of_the_request(start, pair, which):
    said = document(
        pair[0], route={"mirror": "shadow", "plugins": [{"use": f"{__name__}:{which}"}]}
    )
    gateway = start(with_service(said, "shadow", pair[1]))
    with gateway.client() as client:
        client.send(request("POST", "/", "authorization: secret", body=b"order"))
        serve(pair[0], response(b"real"), b"orderorderorder")
        assert client.answer()[1] == b"real"
    peer = pair[1].accept()
    head = peer.until(b"\r\n\r\n")
    assert b"content-length: 15" in head
    assert b"x-user: anna" in head
    assert b"secret" not in head
    assert peer.exactly(15) == b"orderorderorder"
    assert peer.is_quiet()
    peer.send(response(b"copy"))
    assert_all_given_back(gateway)


@pytest.mark.parametrize("which", ["Louder", "QuietlyLouder"])
def test_a_fallback_gets_what_filters_have_made_of_the_request(start, pair, which):
    said = document(
        pair[0],
        route={"fallback": {"service": "spare"}, "plugins": [{"use": f"{__name__}:{which}"}]},
    )
    gateway = start(with_service(said, "spare", pair[1]))
    with gateway.client() as client:
        client.send(request("POST", "/", "authorization: secret", body=b"order"))
        peer = pair[0].accept()
        peer.until(b"orderorderorder")
        peer.reset()
        peer = pair[1].accept()
        head = peer.until(b"\r\n\r\n")
        assert b"x-user: anna" in head
        assert b"secret" not in head
        if b"content-length" in head:
            assert b"content-length: 15" in head
            assert peer.exactly(15) == b"orderorderorder"
        else:
            assert peer.chunked() == b"orderorderorder"
        assert peer.is_quiet()
        peer.send(response(b"spare"))
        assert client.answer()[1] == b"spare"
    assert_all_given_back(gateway)


def test_a_copy_has_a_deadline_of_its_own(start, pair):
    gateway = mirrored(start, pair)
    with gateway.client() as client:
        client.send(get("/", "x-headgate-deadline: 200"))
        peer = pair[0].accept()
        peer.until(b"\r\n\r\n")
        assert client.answer()[0].status == 504
        # The client's patience is over; that says nothing about the shadow.
        copy = pair[1].accept()
        asked = copy.until(b"\r\n\r\n")
        assert b"x-headgate-deadline" not in asked
        assert not copy.is_closed(0.7)
        copy.send(response(b"copy"))
    assert_all_given_back(gateway)
    assert stat(gateway, "mirrored_failed") == 0


def test_a_copy_to_a_dead_service_costs_nobody_anything(start, pair):
    said = document(pair[0], route={"mirror": {"to": "shadow", "queue": 2}})
    gateway = start(with_service(said, "shadow", DEAD, breaker={"minimum_calls": 1, "window": 2}))
    with gateway.client() as client:
        for at in range(6):
            client.send(get())
            serve(pair[0], response(b"%d" % at))
            assert client.answer()[1] == b"%d" % at
            wait_until(lambda n=at + 1: stat(gateway, "mirrored_failed") == n)  # type: ignore[misc]  # bound now
    assert_all_given_back(gateway)
    assert stat(gateway, "mirrors_dropped") == 0


def test_a_streamed_failure_of_a_copy_is_counted(start, pair):
    gateway = mirrored(start, pair)
    with gateway.client() as client:
        client.send(get())
        serve(pair[0], response(b"real"))
        assert client.answer()[1] == b"real"
    copy = pair[1].accept()
    copy.until(b"\r\n\r\n")
    copy.send(b"HTTP/1.1 500 Broken\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    sleep(0.1)
    copy.send(b"0\r\n\r\n")
    wait_until(lambda: stat(gateway, "mirrored_failed") == 1)
    assert_all_given_back(gateway)


def test_an_answer_without_end_does_not_keep_a_copys_place(start, pair):
    gateway = mirrored(start, pair)
    with gateway.client() as client:
        client.send(get())
        serve(pair[0], response(b"real"))
        assert client.answer()[1] == b"real"
    copy = pair[1].accept()
    copy.until(b"\r\n\r\n")
    copy.send(b"HTTP/1.1 200 OK\r\n\r\n")
    assert not all(copy.try_send(b"x" * 1_000_000) for _ in range(64))
    assert_all_given_back(gateway)


def test_a_copy_that_is_under_way_outlives_a_reload(start, pair):
    gateway = mirrored(start, pair)
    with gateway.client() as client:
        client.send(get())
        serve(pair[0], response(b"real"))
        assert client.answer()[1] == b"real"
    copy = pair[1].accept()
    copy.until(b"\r\n\r\n")
    gateway.apply(document(pair[0]))
    copy.send(response(b"copy"))
    assert_all_given_back(gateway)


def test_half_a_request_is_not_copied(start, pair):
    gateway = mirrored(start, pair)
    with gateway.client() as client:
        client.send(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n" + b"x" * 10)
        pair[0].accept().until(b"x" * 10)
        client.reset()
    assert_all_given_back(gateway)
    assert pair[1].is_left_alone()


def test_a_body_beyond_the_bound_is_not_copied(start, pair):
    said = document(pair[0], route={"mirror": {"to": "shadow", "body": "1KB"}})
    gateway = start(with_service(said, "shadow", pair[1]))
    with gateway.client() as client:
        client.send(request("PUT", "/", body=b"x" * 2000))
        serve(pair[0], response(b"real"), b"x" * 2000)
        assert client.answer()[1] == b"real"
    assert_all_given_back(gateway)
    assert pair[1].is_left_alone()


# -- hedges


def test_each_route_hedges_by_its_own_rules(start, pair):
    said = document(*pair)
    said["routes"] = [
        {"name": "a", "match": {"path": "/a"}, "to": "upstream", "hedge": {"after": "20ms"}},
        {"name": "b", "match": {"path": "/b"}, "to": "upstream", "hedge": {"after": "9s"}},
    ]
    gateway = start(said)
    with gateway.client() as client:
        client.send(get("/a"))
        first, other = first_of(pair)
        first.until(b"\r\n\r\n")
        serve(other, response(b"second"))
        assert client.answer()[1] == b"second"
    assert_all_given_back(gateway)


def test_every_service_of_a_split_is_hedged(start, pair):
    said = with_service(document(DEAD), "green", *pair)
    said["routes"][0].update(to={"upstream": "0%", "green": "100%"}, hedge={"after": "20ms"})
    gateway = start(said)
    with gateway.client() as client:
        client.send(get())
        first, other = first_of(pair)
        first.until(b"\r\n\r\n")
        serve(other, response(b"second"))
        assert client.answer()[1] == b"second"
    assert_all_given_back(gateway)


def test_an_attempt_that_loses_a_race_is_remembered_as_slow(start, pair):
    gateway = start(document(*pair, service={"hedge": {"after": "30ms"}}))
    with gateway.client() as client:
        client.send(get())
        first, other = first_of(pair)
        first.until(b"\r\n\r\n")
        serve(other, response(b"second"))
        assert client.answer()[1] == b"second"

    def calls() -> float:
        delays = gateway.worker._states.services["upstream"].hedge_delays
        return sum(sum(delay._counts) for delay in delays.values())

    assert gateway.on_loop(calls) == pytest.approx(2.0, abs=0.01)
    assert_all_given_back(gateway)


def test_a_hedge_that_takes_over_has_a_limit_to_its_time(start, pair):
    service = {"hedge": {"after": "30ms"}, "timeout": {"per_try": "400ms"}}
    gateway = start(document(*pair, service=service))
    with gateway.client() as client:
        client.send(get())
        first, other = first_of(pair)
        first.until(b"\r\n\r\n")
        second = other.accept()
        second.until(b"\r\n\r\n")
        first.reset()
        assert client.answer()[0].status == 504
        assert second.is_closed()
    assert_all_given_back(gateway)


def test_a_retry_after_both_attempts_failed_goes_to_a_third(start):
    three = [Instance() for _ in range(3)]
    service = {"hedge": {"after": "30ms"}, "retry": NO_WAIT}
    gateway = start(document(*three, service=service))
    with gateway.client() as client:
        client.send(get())
        first, _ = first_of(three)
        first.until(b"\r\n\r\n")
        rest = [one for one in three if first not in one.accepted]
        second, third = first_of(rest)
        second.until(b"\r\n\r\n")
        first.reset()
        second.reset()
        serve(third, response(b"third"))
        assert client.answer()[1] == b"third"
    for one in three:
        one.close()
    assert_all_given_back(gateway)


@pytest.mark.parametrize("ends", [True, False])
def test_an_error_of_the_first_leaves_the_word_to_who_is_asked_beside_it(start, pair, ends):
    gateway = start(document(*pair, service={"hedge": {"after": "20ms"}, "breaker": True}))
    with gateway.client() as client:
        client.send(get())
        first, other = first_of(pair)
        first.until(b"\r\n\r\n")
        second = other.accept()
        second.until(b"\r\n\r\n")
        error = response(b"broken", status="503 Service Unavailable")
        first.send(error if ends else error[:-3])
        if ends:
            wait_until(lambda: any(said.idle for said in gateway.pools()))
        else:
            assert first.is_closed()  # nobody waits for the rest
        second.send(response(b"second"))
        assert client.answer()[1] == b"second"
    assert_all_given_back(gateway)


def test_the_last_error_is_the_answer_when_all_fail(start, pair):
    gateway = start(document(*pair, service={"hedge": {"after": "20ms"}}))
    with gateway.client() as client:
        client.send(get())
        first, other = first_of(pair)
        first.until(b"\r\n\r\n")
        second = other.accept()
        second.until(b"\r\n\r\n")
        first.send(response(b"one", status="503 Service Unavailable"))
        second.send(response(b"two", status="502 Bad Gateway"))
        head, body = client.answer()
        assert (head.status, body) in ((502, b"two"), (503, b"one"))
    assert_all_given_back(gateway)


def test_a_hedge_that_finds_no_instance_costs_nothing_of_the_budget(start, pair):
    service = {
        "hedge": {"after": "20ms"},
        "retry": {**NO_WAIT, "budget": {"share": "1%", "floor": "1/10s"}},
        "breaker": {"per": "instance", "minimum_calls": 1, "window": 1, "reset_after": "60s"},
        "balance": {"panic": "0%"},
    }
    gateway = start(document(*pair, service=service))

    def out() -> None:
        breakers = gateway.worker._states.services["upstream"].breakers
        breakers[pair[0].url].force_open(0.0)

    gateway.on_loop(out)
    with gateway.client() as client:
        client.send(get())
        peer = pair[1].accept()
        peer.until(b"\r\n\r\n")
        assert not select.select([peer.sock], [], [], 0.2)[0]
        gateway.on_loop(
            lambda: gateway.worker._states.services["upstream"].breakers[pair[0].url].automatic(0.0)
        )
        peer.send(response(b"no", status="503 Busy"))
        # There is a retry left in the budget, since no hedge was made.
        serve(pair[0], response(b"yes"))
        assert client.answer()[1] == b"yes"
    assert_all_given_back(gateway)


def test_an_instance_is_not_raced_with_itself(start, pair):
    gateway = start(document(pair[0], service={"hedge": {"after": "20ms"}}))
    with gateway.client() as client:
        client.send(get())
        peer = pair[0].accept()
        peer.until(b"\r\n\r\n")
        assert pair[0].is_left_alone()
        peer.send(response(b"ok"))
        assert client.answer()[1] == b"ok"
    assert_all_given_back(gateway)


def test_a_full_line_is_not_held_against_the_instance_of_a_hedge(start, pair):
    service = {
        "hedge": {"after": "50ms"},
        "pool": {"connections": 1, "queue_timeout": "300ms"},
        "breaker": {"per": "instance", "minimum_calls": 1, "window": 4, "failure_rate": "1%"},
    }
    gateway = start(document(*pair, service=service))
    clients = [gateway.client() for _ in range(2)]
    for client in clients:
        client.send(get())
    peers = [one.accept() for one in pair]
    for peer in peers:
        peer.until(b"\r\n\r\n")
    # Both places are taken: what hedges there are wait in line, and in vain.
    wait_until(lambda: stat(gateway, "hedges") == 2)
    wait_until(lambda: all(said.waiting == 0 for said in gateway.pools()))
    for peer in peers:
        peer.send(response(b"ok"))
    assert [client.answer()[0].status for client in clients] == [200, 200]
    assert gateway.count("headgate_breaker_state", state="open") == 0
    assert_all_given_back(gateway)


@pytest.mark.parametrize("moment", ["connecting", "both wait", "between head and body"])
def test_a_client_that_leaves_a_race_at_any_moment_leaves_nothing(start, pair, moment):
    unreachable = Instance(backlog=1) if moment == "connecting" else None
    gateway = start(document(*pair, service={"hedge": {"after": "30ms"}}))
    client = gateway.client()
    client.send(get())
    first, other = first_of(pair)
    first.until(b"\r\n\r\n")
    wait_until(lambda: stat(gateway, "hedges") == 1)
    if moment != "connecting":
        second = other.accept()
        second.until(b"\r\n\r\n")
        if moment == "between head and body":
            second.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b"x" * 10)
            client.until(b"x" * 10)
            assert first.is_closed()
    client.reset()
    assert_all_given_back(gateway)
    if unreachable is not None:
        unreachable.close()
