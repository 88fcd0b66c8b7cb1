"""Retries, per-try timeouts, hedging and fallbacks, played by hand on both ends."""

from __future__ import annotations

import json
import select

import pytest

from tests.gateway.rig import (
    NO_WAIT,
    PATIENCE_S,
    Instance,
    Peer,
    document,
    get,
    request,
    response,
    wait_until,
)

pytestmark = pytest.mark.integration


def serve(instance: Instance, *answers: bytes) -> list[bytes]:
    """Give these answers to the requests on the instance's connection; what was asked."""
    peer = instance.accepted[-1] if instance.accepted else instance.accept()
    asked = []
    for answer in answers:
        asked.append(peer.until(b"\r\n\r\n"))
        peer.send(answer)
    return asked


def in_turn(pair: list[Instance]) -> tuple[Peer, Instance]:
    """The connection of the instance that is asked first, and the other instance."""
    ready, _, _ = select.select([one.sock for one in pair], [], [], PATIENCE_S)
    first = next(one for one in pair if one.sock in ready)
    return first.accept(), next(one for one in pair if one is not first)


def test_an_answer_worth_another_try_is_not_shown(start, instance):
    gateway = start(document(instance, service={"retry": NO_WAIT}))
    with gateway.client() as client:
        client.send(get())
        asked = serve(instance, response(b"no", status="503 Busy"), response(b"yes"))
        head, body = client.answer()
    assert (head.status, body) == (200, b"yes")
    assert b"x-headgate-attempt: 1/3" in asked[0]
    assert b"x-headgate-attempt: 2/3" in asked[1]
    gateway.assert_settles()


def test_the_last_answer_is_shown_whatever_it_is(start, instance):
    gateway = start(document(instance, service={"retry": NO_WAIT}))
    with gateway.client() as client:
        client.send(get())
        serve(instance, *(response(b"%d" % n, status="503 Busy") for n in range(3)))
        head, body = client.answer()
    assert (head.status, body) == (503, b"2")


def test_a_post_is_not_asked_twice_unless_told(start, instance):
    gateway = start(document(instance, service={"retry": NO_WAIT}))
    with gateway.client() as client:
        client.send(request("POST", "/", body=b"order"))
        peer = instance.accept()
        peer.until(b"order")
        peer.send(response(b"no", status="503 Busy"))
        head, _ = client.answer()
    assert head.status == 503


def test_a_body_goes_along_again(start, instance):
    retry = {**NO_WAIT, "methods": ["POST"]}
    gateway = start(document(instance, service={"retry": retry}))
    with gateway.client() as client:
        client.send(request("POST", "/", "Expect-Nothing: 1", body=b"order-42"))
        peer = instance.accept()
        peer.until(b"order-42")
        peer.send(response(b"no", status="503 Busy"))
        peer.until(b"order-42")
        peer.send(response(b"yes"))
        assert client.answer()[1] == b"yes"


def test_a_body_beyond_the_bound_is_not_repeated(start, instance):
    retry = {**NO_WAIT, "methods": ["POST"], "body": "1KB"}
    gateway = start(document(instance, service={"retry": retry}))
    with gateway.client() as client:
        client.send(request("POST", "/", body=b"x" * 2000))
        peer = instance.accept()
        peer.until(b"x" * 2000)
        peer.send(response(b"no", status="503 Busy"))
        assert client.answer()[0].status == 503


def test_another_instance_is_asked_after_a_reset(start, pair):
    gateway = start(document(*pair, service={"retry": NO_WAIT}))
    with gateway.client() as client:
        client.send(get())
        first, other = in_turn(pair)
        first.until(b"\r\n\r\n")
        first.reset()
        serve(other, response(b"from the other"))
        assert client.answer()[1] == b"from the other"
    gateway.assert_settles()


def test_a_layer_above_that_retries_is_left_to_it(start, instance):
    gateway = start(document(instance, service={"retry": NO_WAIT}, trusted_proxies=["127.0.0.1"]))
    with gateway.client() as client:
        client.send(get("/", "x-headgate-attempt: 1/3"))
        serve(instance, response(b"no", status="503 Busy"))
        assert client.answer()[0].status == 503
    # From anybody else the header means nothing, and does not travel on.
    gateway.apply(document(instance, service={"retry": NO_WAIT}))
    with gateway.client() as client:
        client.send(get("/", "x-headgate-attempt: 2/9"))
        asked = serve(instance, response(b"no", status="503 Busy"), response(b"yes"))
        assert client.answer()[1] == b"yes"
    assert b"x-headgate-attempt: 1/3" in asked[0]
    assert b"2/9" not in asked[0]


def test_a_spent_budget_ends_retries_and_says_so(start, instance):
    retry = {**NO_WAIT, "budget": {"share": "1%", "floor": "1/10s"}}
    gateway = start(document(instance, service={"retry": retry}))
    with gateway.client() as client:
        client.send(get())
        serve(instance, *[response(b"no", status="503 Busy")] * 2)
        head, _ = client.answer()
    assert head.status == 503
    assert head.get("x-headgate-no-retry") == "1"


def test_a_slow_try_is_given_up_for_another(start, pair):
    gateway = start(document(*pair, service={"retry": NO_WAIT, "timeout": {"per_try": "400ms"}}))
    with gateway.client() as client:
        client.send(get())
        slow, other = in_turn(pair)
        slow.until(b"\r\n\r\n")
        serve(other, response(b"quick"))
        assert client.answer()[1] == b"quick"
        assert slow.is_closed()
    gateway.assert_settles()


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_a_client_that_leaves_between_tries_ends_them(start, instance, how):
    retry = {**NO_WAIT, "wait": "10s", "wait_max": "10s"}
    gateway = start(document(instance, service={"retry": retry}))
    client = gateway.client()
    client.send(get())
    serve(instance, response(b"no", status="503 Busy"))
    wait_until(lambda: gateway.worker._states.stats["all"] is not None)
    client.leave(how)
    gateway.assert_settles()
    assert instance.is_left_alone()


def test_retry_after_is_waited_for_or_the_answer_is_given(start, instance):
    retry = {**NO_WAIT, "retry_after_max": "1s"}
    gateway = start(document(instance, service={"retry": retry}))
    with gateway.client() as client:
        client.send(get())
        serve(instance, response(b"later", "Retry-After: 60", status="503 Busy"))
        head, _ = client.answer()
    assert (head.status, head.get("retry-after")) == (503, "60")


# -- hedging


def test_a_slow_instance_is_raced(start, pair):
    gateway = start(document(*pair, service={"hedge": {"after": "30ms"}}))
    with gateway.client() as client:
        client.send(get())
        slow, other = in_turn(pair)
        slow.until(b"\r\n\r\n")
        serve(other, response(b"second"))
        assert client.answer()[1] == b"second"
        assert slow.is_closed()
    gateway.assert_settles()


def test_a_hedge_that_fails_leaves_the_first_attempt_alone(start, pair):
    gateway = start(document(*pair, service={"hedge": {"after": "30ms"}}))
    with gateway.client() as client:
        client.send(get())
        slow, other = in_turn(pair)
        slow.until(b"\r\n\r\n")
        second = other.accept()
        second.until(b"\r\n\r\n")
        second.reset()
        slow.send(response(b"first after all"))
        assert client.answer()[1] == b"first after all"
    gateway.assert_settles()


def test_a_hedge_takes_the_place_of_a_first_attempt_that_fails(start, pair):
    gateway = start(document(*pair, service={"hedge": {"after": "30ms"}}))
    with gateway.client() as client:
        client.send(get())
        slow, other = in_turn(pair)
        slow.until(b"\r\n\r\n")
        second = other.accept()
        second.until(b"\r\n\r\n")
        slow.reset()
        second.send(response(b"x" * 100_000))
        assert client.answer()[1] == b"x" * 100_000
    gateway.assert_settles()


def test_a_client_that_leaves_takes_both_attempts_with_it(start, pair):
    gateway = start(document(*pair, service={"hedge": {"after": "30ms"}}))
    client = gateway.client()
    client.send(get())
    peers = [one.accept() for one in pair]
    for peer in peers:
        peer.until(b"\r\n\r\n")
    client.reset()
    assert all(peer.is_closed() for peer in peers)
    gateway.assert_settles()


# -- fallback


def test_a_fixed_fallback_answers_for_a_service_that_is_away(start):
    gateway = start(
        document(
            "http://127.0.0.1:1",
            route={"fallback": {"respond": {"body": "[]", "type": "application/json"}}},
        )
    )
    head, body = gateway.ask(get())
    assert (head.status, body) == (200, b"[]")
    gateway.assert_settles()


def test_another_service_answers_in_place_of_one_that_is_away(start, instance):
    said = document("http://127.0.0.1:1", route={"fallback": {"service": "spare"}})
    said["services"]["spare"] = {"instances": [instance.url]}
    gateway = start(said)
    with gateway.client() as client:
        client.send(get())
        serve(instance, response(b"spare"))
        assert client.answer()[1] == b"spare"
    gateway.assert_settles()


# -- breaker


def test_an_open_breaker_turns_away_and_says_when_to_come_back(start, instance):
    breaker = {"failure_rate": "50%", "window": 4, "minimum_calls": 2, "reset_after": "30s"}
    gateway = start(document(instance, service={"breaker": breaker}))
    with gateway.client() as client:
        peer = None
        for _ in range(2):
            client.send(get())
            peer = peer or instance.accept()
            peer.until(b"\r\n\r\n")
            peer.send(response(b"no", status="500 Broken"))
            assert client.answer()[0].status == 500
        client.send(get())
        head, body = client.answer()
    assert head.status == 503
    assert 25 <= int(head.get("retry-after") or 0) <= 34
    assert json.loads(body)["source"] == "gateway"
    assert gateway.count("headgate_breaker_state", state="open") == 1


# -- deadlines


def test_what_is_left_of_a_deadline_is_passed_on(start, instance):
    gateway = start(document(instance))
    with gateway.client() as client:
        client.send(get("/", "x-headgate-deadline: 5000"))
        asked = serve(instance, response())
        assert client.answer()[0].status == 200
    left = int(asked[0].split(b"x-headgate-deadline: ")[1].split(b"\r\n")[0])
    assert 4000 < left <= 5000


def test_a_deadline_that_runs_out_ends_the_work(start, instance):
    gateway = start(document(instance))
    with gateway.client() as client:
        client.send(get("/", "x-headgate-deadline: 100"))
        peer = instance.accept()
        peer.until(b"\r\n\r\n")
        assert client.answer()[0].status == 504
        assert peer.is_closed()
    gateway.assert_settles()
