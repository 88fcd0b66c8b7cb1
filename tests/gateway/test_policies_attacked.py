"""Policies of traffic under attack: every ending at every moment, and odd messages."""

from __future__ import annotations

import json
import select
from time import monotonic, sleep
from typing import Any

import pytest

from headgate.gateway.filters import Filter, Reply, Request
from headgate.testing import EchoServer
from tests.gateway.given_back import assert_all_given_back, held
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
)

pytestmark = pytest.mark.integration

NO_WAIT: dict[str, Any] = {"attempts": 3, "wait": "1ms", "jitter": "none", "budget": "off"}
DEAD = "http://127.0.0.1:1"
BUSY = "503 Busy"


@pytest.fixture
def echo():
    with EchoServer() as server:
        yield server


@pytest.fixture
def pair():
    made = [Instance(), Instance()]
    yield made
    for one in made:
        one.close()


def with_service(said: dict[str, Any], name: str, *instances: Instance | str, **more: Any):
    """The document with a further service."""
    urls = [one if isinstance(one, str) else one.url for one in instances]
    said["services"][name] = {"instances": urls, **more}
    return said


def first_of(pair: list[Instance]) -> tuple[Peer, Instance]:
    """The connection of the instance that is asked first, and the other instance."""
    ready, _, _ = select.select([one.sock for one in pair], [], [], PATIENCE_S)
    first = next(one for one in pair if one.sock in ready)
    return first.accept(), next(one for one in pair if one is not first)


# -- fallback


def test_a_status_is_replaced_on_the_plainest_service(start, instance):
    fallback = {"when": ["5xx"], "respond": {"body": "[]"}}
    gateway = start(document(instance, route={"fallback": fallback}))
    with gateway.client() as client:
        client.send(get())
        peer = instance.accept()
        peer.until(b"\r\n\r\n")
        peer.send(response(b"broken", status="500 Broken"))
        head, body = client.answer()
    assert (head.status, body) == (200, b"[]")
    assert_all_given_back(gateway)


def test_a_fallback_service_forgets_the_instance_that_a_cookie_named(start, pair):
    said = document(
        pair[0],
        service={"affinity": {"cookie": "hg", "secret": "s" * 32}},
        route={"fallback": {"service": "spare"}},
    )
    breaker = {"window": 100, "minimum_calls": 100}
    gateway = start(with_service(said, "spare", pair[1], breaker=breaker))
    with gateway.client() as client:
        client.send(get())
        peer = pair[0].accept()
        peer.until(b"\r\n\r\n")
        peer.send(response(b"home"))
        cookie = (client.answer()[0].get("set-cookie") or "").partition(";")[0]
        assert cookie.startswith("hg=")
        pair[0].close()
        client.send(get("/", f"cookie: {cookie}"))
        peer = pair[1].accept()
        peer.until(b"\r\n\r\n")
        peer.send(response(b"spare"))
        head, body = client.answer()
    assert (head.status, body) == (200, b"spare")
    assert "set-cookie" not in head
    assert_all_given_back(gateway)


def test_a_failure_brings_nobody_back_to_the_instance_that_failed(start, instance):
    gateway = start(document(instance, service={"affinity": {"cookie": "hg", "secret": "s" * 32}}))
    with gateway.client() as client:
        client.send(get())
        peer = instance.accept()
        peer.until(b"\r\n\r\n")
        peer.reset()
        head, _ = client.answer()
    assert head.status == 502
    assert "set-cookie" not in head
    assert_all_given_back(gateway)


@pytest.mark.parametrize("cause", ["full", "flag"])
def test_a_fallback_service_gets_the_body_that_came_with_the_head(start, pair, cause):
    route: dict[str, Any] = {"fallback": {"service": "spare"}}
    if cause == "full":
        route["concurrency"] = {"limit": 1}
    else:
        route["flag"] = "hints"
    said = with_service(document(pair[0], route=route), "spare", pair[1])
    if cause == "flag":
        said["degrade"] = {"flags": {"hints": "off"}}
    gateway = start(said)
    other = gateway.client()
    if cause == "full":
        other.send(get("/holds-the-seat"))
        pair[0].accept().until(b"\r\n\r\n")
    with gateway.client() as client:
        client.send(request("POST", "/", body=b"one order"))
        peer = pair[1].accept()
        assert b"content-length: 9" in peer.until(b"\r\n\r\n")
        assert peer.exactly(9) == b"one order"
        peer.send(response(b"spare"))
        assert client.answer()[1] == b"spare"
    other.reset()
    assert_all_given_back(gateway)


def test_a_fallback_after_a_wait_in_line_gets_all_of_the_body(start, pair):
    route = {
        "fallback": {"service": "spare"},
        "concurrency": {"limit": 1, "queue": 1, "queue_timeout": "300ms"},
        "retry": {**NO_WAIT, "methods": ["PUT"]},
    }
    gateway = start(with_service(document(pair[0], route=route), "spare", pair[1]))
    other = gateway.client()
    other.send(get("/holds-the-seat"))
    pair[0].accept().until(b"\r\n\r\n")
    with gateway.client() as client:
        client.send(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nfirst")
        peer = pair[1].accept()
        peer.until(b"first")
        client.send(b"secnd")
        peer.until(b"secnd")
        peer.send(response(b"no", status=BUSY))
        peer.until(b"\r\n\r\n")
        assert peer.exactly(10) == b"firstsecnd"
        peer.send(response(b"yes"))
        assert client.answer()[1] == b"yes"
    other.reset()
    assert_all_given_back(gateway)


class Gatekeeper(Filter):
    """Drops what only we may say, and turns strangers away: stands for authentication."""

    def on_request(self, request: Request) -> Reply | None:
        request.headers.remove("x-user")
        if "authorization" not in request.headers:
            return Reply(401, b"who are you?")
        request.headers.set("x-user", "anna")
        return None


GATEKEEPER = {"use": f"{__name__}:Gatekeeper"}


@pytest.mark.parametrize("cause", ["full", "flag", "shed"])
def test_no_fallback_is_a_way_around_the_filters(start, pair, cause):
    route: dict[str, Any] = {
        "match": {"path": "/"},
        "fallback": {"service": "spare"},
        "plugins": [GATEKEEPER],
    }
    said = with_service(document(pair[0], route=route), "spare", pair[1])
    if cause == "full":
        said["routes"][0]["concurrency"] = {"limit": 1}
    elif cause == "flag":
        said["routes"][0]["flag"] = "hints"
        said["degrade"] = {"flags": {"hints": "off"}}
    else:
        said["shed"] = {"in_flight": 2}
    gateway = start(said)
    other = gateway.client()
    if cause != "flag":
        other.send(get("/holds-the-seat", "authorization: anna"))
        pair[0].accept().until(b"\r\n\r\n")
    with gateway.client() as client:
        client.send(get("/", "x-user: admin"))
        assert client.answer()[0].status == 401
        client.send(get("/", "x-user: admin", "authorization: anna"))
        peer = pair[1].accept()
        asked = peer.until(b"\r\n\r\n")
        assert b"x-user: anna" in asked
        assert b"admin" not in asked
        peer.send(response(b"spare"))
        assert client.answer()[1] == b"spare"
    other.reset()
    assert_all_given_back(gateway)


def test_a_fallback_service_that_fails_too_ends_in_an_error(start):
    said = document(DEAD, route={"fallback": {"service": "spare", "when": ["failed", "5xx"]}})
    gateway = start(with_service(said, "spare", "http://127.0.0.1:2"))
    head, _ = gateway.ask(request("POST", "/", body=b"order"))
    assert head.status == 502
    assert_all_given_back(gateway)


def test_no_fallback_service_gets_half_of_a_body(start, pair):
    said = document(pair[0], route={"fallback": {"service": "spare"}, "retry": {"body": "1KB"}})
    gateway = start(with_service(said, "spare", pair[1]))
    with gateway.client() as client:
        client.send(request("POST", "/", body=b"x" * 5000))
        peer = pair[0].accept()
        peer.until(b"x" * 5000)
        peer.reset()
        assert client.answer()[0].status == 502
    assert pair[1].is_left_alone()
    assert_all_given_back(gateway)


@pytest.mark.parametrize("status", [204, 304])
def test_a_fault_with_a_status_without_body_has_none(start, echo, status):
    gateway = start(document(echo.url, route={"fault": {"abort": status, "abort_share": "100%"}}))
    with gateway.client() as client:
        client.send(get("/1") + get("/2"))
        for _ in range(2):
            head = client.head()
            assert head.status == status
        assert client.is_quiet()
    assert_all_given_back(gateway)


def test_a_fault_that_breaks_off_leaves_nothing(start, echo):
    fault = {"abort": "reset", "abort_share": "100%", "delay": "20ms"}
    gateway = start(document(echo.url, route={"fault": fault}))
    with gateway.client() as client:
        client.send(request("POST", "/", body=b"order"))
        assert client.to_end() == b""
    assert_all_given_back(gateway)


# -- retries


def test_instances_beyond_the_number_of_tries_are_still_asked(start, instance):
    # Two are dead: a request that reached none of them goes on, retry policy or not.
    retry = {**NO_WAIT, "attempts": 2}
    gateway = start(document(DEAD, "http://127.0.0.1:2", instance, service={"retry": retry}))
    for _ in range(3):
        with gateway.client() as client:
            client.send(get())
            peer = instance.accepted[-1] if instance.accepted else instance.accept()
            asked = peer.until(b"\r\n\r\n")
            peer.send(response(b"here"))
            assert client.answer()[1] == b"here"
        assert b"x-headgate-attempt: " in asked
    assert_all_given_back(gateway)


def test_a_body_that_outgrows_the_bound_between_tries_still_goes_along_whole(start, instance):
    retry = {**NO_WAIT, "methods": ["PUT"], "body": "1KB", "wait": "300ms", "wait_max": "300ms"}
    gateway = start(document(instance, service={"retry": retry}))
    with gateway.client() as client:
        client.send(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 3000\r\n\r\n" + b"a" * 500)
        peer = instance.accept()
        peer.until(b"a" * 500)
        peer.send(response(b"no", status=BUSY))
        assert peer.is_closed()
        sleep(0.05)
        client.send(b"b" * 2500)
        again = instance.accept()
        again.until(b"\r\n\r\n")
        assert again.exactly(3000) == b"a" * 500 + b"b" * 2500
        again.send(response(b"whole"))
        assert client.answer()[1] == b"whole"
    assert_all_given_back(gateway)


def test_trailers_go_along_again(start, instance):
    gateway = start(document(instance, service={"retry": {**NO_WAIT, "methods": ["PUT"]}}))
    with gateway.client() as client:
        client.send(b"PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        peer = instance.accept()
        peer.until(b"abc\r\n")
        client.send(b"0\r\nx-sum: 42\r\n\r\n")
        assert b"x-sum: 42" in peer.until(b"\r\n\r\n")
        peer.send(response(b"no", status=BUSY))
        peer.until(b"\r\n\r\n")
        assert b"x-sum: 42" in peer.until(b"\r\n\r\n")
        peer.send(response(b"yes"))
        assert client.answer()[1] == b"yes"
    assert_all_given_back(gateway)


# -- concurrency


def test_a_reload_with_a_shorter_line_tells_those_it_has_no_place_for(start, instance):
    seats = {"limit": 1, "queue": 5, "queue_timeout": "30s"}
    gateway = start(document(instance, route={"concurrency": seats}))
    first, second, third = (gateway.client() for _ in range(3))
    first.send(get("/1"))
    peer = instance.accept()
    peer.until(b"\r\n\r\n")
    for at, client in enumerate((second, third), 1):
        client.send(get(f"/{at + 1}"))
        wait_until(lambda at=at: gateway.count("headgate_concurrency_waiting") == at)
    gateway.apply(document(instance, route={"concurrency": {**seats, "queue": 1}}))
    assert third.answer()[0].status == 503
    peer.send(response(b"one"))
    assert first.answer()[1] == b"one"
    assert b"GET /2 " in peer.until(b"\r\n\r\n")
    peer.send(response(b"two"))
    assert second.answer()[1] == b"two"
    assert_all_given_back(gateway)


def test_a_line_that_a_reload_has_dropped_still_ends(start, instance):
    seats = {"limit": 1, "queue": 5, "queue_timeout": "700ms"}
    gateway = start(document(instance, route={"concurrency": seats}))
    first, second = (gateway.client() for _ in range(2))
    first.send(get("/1"))
    peer = instance.accept()
    peer.until(b"\r\n\r\n")
    second.send(get("/2"))
    wait_until(lambda: gateway.count("headgate_concurrency_waiting") == 1)
    gateway.apply(document(instance))
    assert second.answer()[0].status == 503
    peer.send(response(b"one"))
    assert first.answer()[1] == b"one"
    assert_all_given_back(gateway)


def test_pipelined_requests_of_one_client_need_one_seat(start, instance):
    gateway = start(document(instance, route={"concurrency": {"limit": 1}}))
    with gateway.client() as client:
        client.send(get("/1") + get("/2") + get("/3"))
        peer = instance.accept()
        for at in range(3):
            peer.until(b"\r\n\r\n")
            peer.send(response(b"%d" % at))
            head, body = client.answer()
            assert (head.status, body) == (200, b"%d" % at)
    assert_all_given_back(gateway)


def test_pipelined_requests_of_one_client_need_one_place_of_a_limit(start, instance):
    gateway = start(document(instance, route={"limit": {"concurrency": 1}}))
    with gateway.client() as client:
        client.send(get("/1") + get("/2") + get("/3"))
        peer = instance.accept()
        for at in range(3):
            peer.until(b"\r\n\r\n")
            peer.send(response(b"%d" % at))
            head, body = client.answer()
            assert (head.status, body) == (200, b"%d" % at)
    assert_all_given_back(gateway)


# -- reloads under way


def test_a_request_that_waits_through_a_reload_goes_to_an_instance_it_brought(start, pair):
    seats = {"limit": 1, "queue": 5, "queue_timeout": "30s"}
    balance = {"by": "round_robin"}
    said = document(pair[0], DEAD, service={"balance": balance}, route={"concurrency": seats})
    gateway = start(said)
    first, second = (gateway.client() for _ in range(2))
    first.send(get("/1"))
    peer = pair[0].accept()
    peer.until(b"\r\n\r\n")
    second.send(get("/2"))
    wait_until(lambda: gateway.count("headgate_concurrency_waiting") == 1)
    gateway.apply(document(pair[1], service={"balance": balance}, route={"concurrency": seats}))
    peer.send(response(b"one"))
    assert first.answer()[1] == b"one"
    peer = pair[1].accept()
    peer.until(b"\r\n\r\n")
    peer.send(response(b"two"))
    assert second.answer()[1] == b"two"
    assert_all_given_back(gateway)


def test_a_request_that_waits_through_the_move_of_a_lone_instance_finds_it(start, pair):
    seats = {"limit": 1, "queue": 5, "queue_timeout": "30s"}
    gateway = start(document(pair[0], route={"concurrency": seats}))
    first, second = (gateway.client() for _ in range(2))
    first.send(get("/1"))
    peer = pair[0].accept()
    peer.until(b"\r\n\r\n")
    second.send(get("/2"))
    wait_until(lambda: gateway.count("headgate_concurrency_waiting") == 1)
    gateway.apply(document(pair[1], route={"concurrency": seats}))
    peer.send(response(b"one"))
    assert first.answer()[1] == b"one"
    peer = pair[1].accept()
    peer.until(b"\r\n\r\n")
    peer.send(response(b"two"))
    assert second.answer()[1] == b"two"
    assert_all_given_back(gateway)


def test_a_reload_that_removes_the_service_ends_what_waits_for_it(start, pair):
    seats = {"limit": 1, "queue": 5, "queue_timeout": "30s"}
    gateway = start(document(pair[0], DEAD, route={"concurrency": seats}))
    first, second = (gateway.client() for _ in range(2))
    first.send(get("/1"))
    peer = pair[0].accept()
    peer.until(b"\r\n\r\n")
    second.send(get("/2"))
    wait_until(lambda: gateway.count("headgate_concurrency_waiting") == 1)
    said = with_service(document(pair[1]), "another", pair[1])
    del said["services"]["upstream"]
    said["routes"][0]["to"] = "another"
    gateway.apply(said)
    peer.send(response(b"one"))
    assert first.answer()[1] == b"one"
    assert second.answer()[0].status in (502, 503)
    assert_all_given_back(gateway)


def test_a_retry_wait_outlives_a_reload_that_moves_the_instances(start, pair):
    retry = {**NO_WAIT, "wait": "400ms", "wait_max": "400ms"}
    gateway = start(document(pair[0], DEAD, service={"retry": retry}))
    with gateway.client() as client:
        client.send(get())
        peer = pair[0].accept()
        peer.until(b"\r\n\r\n")
        peer.send(response(b"no", status=BUSY))
        sleep(0.1)
        gateway.apply(document(pair[1], service={"retry": retry}))
        peer = pair[1].accept()
        peer.until(b"\r\n\r\n")
        peer.send(response(b"moved"))
        assert client.answer()[1] == b"moved"
    assert_all_given_back(gateway)


class Slow(Filter):
    """Takes its time with the request."""

    async def _wait(self) -> None:
        import asyncio

        await asyncio.sleep(0.5)

    def on_request(self, request: Request):
        return self._wait()


SLOW = {"use": f"{__name__}:Slow"}


def test_a_split_that_a_reload_has_widened_is_drawn_by_those_who_began_before(start, pair):
    route: dict[str, Any] = {"plugins": [SLOW], "to": {"upstream": "100%"}, "split": {}}
    gateway = start(document(pair[0], route=route))
    with gateway.client() as client:
        client.send(get())
        wait_until(lambda: gateway.in_flight == 1)
        wider = {**route, "to": {"upstream": "0%", "green": "100%"}}
        gateway.apply(with_service(document(pair[0], route=wider), "green", pair[1]))
        peer, _ = first_of(pair)
        peer.until(b"\r\n\r\n")
        peer.send(response(b"ok"))
        assert client.answer()[0].status == 200
    assert_all_given_back(gateway)


def test_a_flag_that_a_reload_has_dropped_harms_nobody_who_began_before(start, instance):
    said = document(instance, route={"plugins": [SLOW], "flag": "hints"})
    said["degrade"] = {"flags": {"hints": "on"}}
    gateway = start(said)
    with gateway.client() as client:
        client.send(get())
        wait_until(lambda: gateway.in_flight == 1)
        after = document(instance, route={"plugins": [SLOW], "flag": "others"})
        after["degrade"] = {"flags": {"others": "on"}}
        gateway.apply(after)
        peer = instance.accept()
        peer.until(b"\r\n\r\n")
        peer.send(response(b"ok"))
        assert client.answer()[0].status == 200
    assert_all_given_back(gateway)


# -- WebSocket

HANDSHAKE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"x-cost: 3\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


def open_tunnel(gateway: Gateway, instance: Instance) -> tuple[Peer, Peer]:
    client = gateway.client()
    client.send(get("/chat", *HANDSHAKE))
    peer = instance.accept()
    peer.until(b"\r\n\r\n")
    peer.send(SWITCH)
    head = client.head()
    assert head.status == 101
    assert head.get("upgrade") == "websocket"
    return client, peer


@pytest.mark.parametrize(
    "route",
    [
        {"retry": {**NO_WAIT, "when": {"headers": {"x-cost": "*"}}}},
        {"hedge": {"after": "20ms"}},
        {"limit": {"rate": "10/h", "cost": {"header": "x-cost"}}},
        {"limit": {"concurrency": 1}},
        {"concurrency": {"limit": 1}},
        {"fallback": {"when": ["1xx", "5xx", "failed"], "respond": "x"}},
        {"timeout": {"per_try": "200ms", "total": "400ms"}},
    ],
    ids=lambda route: next(iter(route)),
)
def test_a_tunnel_goes_through_policies_and_is_none_of_their_business(start, instance, route):
    gateway = start(document(instance, route=route))
    client, peer = open_tunnel(gateway, instance)
    client.send(b"ping")
    assert peer.exactly(4) == b"ping"
    sleep(0.6)
    peer.send(b"pong")
    assert client.exactly(4) == b"pong"
    if "concurrency" in json.dumps(route):
        assert gateway.ask(get())[0].status in (429, 503)
        assert held(gateway)
    client.close()
    assert peer.is_closed()
    peer.close()
    assert_all_given_back(gateway)


def test_a_slow_handshake_is_not_raced(start, pair):
    gateway = start(document(*pair, service={"hedge": {"after": "20ms"}}))
    client = gateway.client()
    client.send(get("/chat", *HANDSHAKE))
    peer, other = first_of(pair)
    peer.until(b"\r\n\r\n")
    assert other.is_left_alone()
    peer.send(SWITCH)
    assert client.head().status == 101
    client.send(b"ping")
    assert peer.exactly(4) == b"ping"
    client.close()
    peer.close()
    assert_all_given_back(gateway)


def test_a_tunnel_is_not_mirrored(start, pair):
    said = document(pair[0], route={"mirror": "shadow"})
    gateway = start(with_service(said, "shadow", pair[1]))
    client, peer = open_tunnel(gateway, pair[0])
    client.send(b"GET /smuggled HTTP/1.1\r\n\r\n")
    peer.until(b"\r\n\r\n")
    client.close()
    assert peer.is_closed()
    peer.close()
    assert_all_given_back(gateway)
    assert pair[1].is_left_alone()


# -- deadlines


def test_a_deadline_of_nothing_asks_nobody(start, instance):
    gateway = start(document(instance))
    for said in ("x-headgate-deadline: 0", "grpc-timeout: 0S", "grpc-timeout: 1n"):
        head, _ = gateway.ask(get("/", said))
        assert head.status == 504
    assert instance.is_left_alone()
    assert_all_given_back(gateway)


@pytest.mark.parametrize(
    "said",
    [
        "x-headgate-deadline: -1",
        "x-headgate-deadline: 99999999999999999999",
        "x-headgate-deadline: 9999999999",
        "x-headgate-deadline: 1e3",
        "x-headgate-deadline: 5, 0",
        "x-headgate-deadline:",
        "grpc-timeout: 99999999H",
        "grpc-timeout: x",
    ],
)
def test_a_deadline_that_makes_no_sense_is_none(start, instance, said):
    gateway = start(document(instance, service={"retry": NO_WAIT}))
    with gateway.client() as client:
        client.send(get("/", said))
        peer = instance.accept()
        peer.until(b"\r\n\r\n")
        peer.send(response(b"ok"))
        assert client.answer()[0].status == 200
    assert_all_given_back(gateway)


def test_an_impatient_client_does_not_open_the_breaker(start, instance):
    breaker = {"failure_rate": "1%", "window": 100, "minimum_calls": 1, "reset_after": "30s"}
    gateway = start(document(instance, service={"breaker": breaker}))
    for at in range(12):
        with gateway.client() as client:
            client.send(get("/", f"x-headgate-deadline: {30 + at}"))
            instance.accept().until(b"\r\n\r\n")
            assert client.answer()[0].status == 504
    assert gateway.count("headgate_breaker_state", state="open") == 0
    assert_all_given_back(gateway)


def test_the_total_ends_tries_also_while_they_wait(start, instance):
    retry = {**NO_WAIT, "attempts": 10, "wait": "50ms", "wait_max": "50ms"}
    timeout = {"per_try": "150ms", "total": "500ms"}
    gateway = start(document(instance, service={"retry": retry, "timeout": timeout}))
    began = monotonic()
    head, _ = gateway.ask(get())
    assert head.status == 504
    assert monotonic() - began < 2.0
    assert_all_given_back(gateway)
