"""Policies of traffic under attack: every ending at every moment, and odd messages."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import threading
from time import monotonic, sleep
from typing import Any

import pytest

from headgate.gateway.filters import Filter, Reply, Request, Response
from headgate.testing import EchoServer
from tests.gateway.given_back import assert_all_given_back, held
from tests.gateway.rig import (
    DEAD,
    NO_WAIT,
    Closed,
    Gateway,
    Head,
    Instance,
    Peer,
    document,
    first_of,
    get,
    request,
    response,
    wait_until,
    with_service,
)

pytestmark = pytest.mark.integration

BUSY = "503 Busy"


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
        wait_until(lambda n=at: gateway.count("headgate_concurrency_waiting") == n)  # type: ignore[misc]  # bound now
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


# -- filters and bodies


class Upper(Filter):
    """Changes a body piece by piece."""

    def on_request_body(self, request: Request, chunk: bytes, last: bool) -> bytes:
        return chunk.upper()


class SlowUpper(Filter):
    """The same, taking its time."""

    async def _later(self, chunk: bytes) -> bytes:
        await asyncio.sleep(0.01)
        return chunk.upper()

    def on_request_body(self, request: Request, chunk: bytes, last: bool):
        return self._later(chunk)


class Gatherer(Upper):
    request_body_max = 10_000


class Counter(Filter):
    """Tells how many responses it has seen."""

    def on_response(self, request: Request, response: Response) -> None:
        seen = int(str(request.state.get("seen", 0))) + 1
        request.state["seen"] = seen
        response.headers.set("x-seen", str(seen))


COUNTER = {"use": f"{__name__}:Counter"}


FRAMINGS = [
    (which, framing)
    for which in ("Upper", "SlowUpper", "Gatherer")
    for framing in ("length", "chunked", "late", "late chunked")
]


@pytest.mark.parametrize(("which", "framing"), FRAMINGS)
@pytest.mark.parametrize("how", ["status", "reset"])
def test_a_body_that_filters_change_goes_along_again(start, pair, which, how, framing):
    plugins = [{"use": f"{__name__}:{which}"}, COUNTER]
    service = {"retry": {**NO_WAIT, "methods": ["PUT"]}, "timeout": {"first_byte": "4s"}}
    gateway = start(document(*pair, service=service, route={"plugins": plugins, "compress": True}))
    with gateway.client() as client:
        if framing == "chunked":
            client.send(b"PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
            client.send(b"3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n")
        elif framing == "length":
            client.send(request("PUT", "/", body=b"abcdef"))
        elif framing == "late":
            client.send(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n\r\nabc")
            sleep(0.05)
            client.send(b"def")
        else:
            client.send(b"PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
            client.send(b"3\r\nabc\r\n")
            sleep(0.05)
            client.send(b"3\r\ndef\r\n0\r\n\r\n")
        peer, other = first_of(pair)
        asked(peer, b"ABCDEF")
        if how == "status":
            peer.send(response(b"no", "Connection: close", status=BUSY))
        else:
            peer.reset()
        peer = other.accept()
        asked(peer, b"ABCDEF")
        peer.send(response(b"yes"))
        head, body = client.answer()
    assert (head.status, body, head.get("x-seen")) == (200, b"yes", "1")
    assert_all_given_back(gateway)


def asked(peer: Peer, body: bytes) -> bytes:
    """Take one request with this body, of a length or chunked; its head."""
    head = Head(peer.until(b"\r\n\r\n"))
    if "content-length" in head:
        assert int(head.get("content-length") or 0) == len(body)
        assert peer.exactly(len(body)) == body
    else:
        assert peer.chunked() == body
    return head.raw


def test_expecting_to_be_told_to_go_on_works_across_tries(start, instance):
    gateway = start(document(instance, service={"retry": {**NO_WAIT, "methods": ["PUT"]}}))
    with gateway.client() as client:
        client.send(
            b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\nExpect: 100-continue\r\n\r\n"
        )
        peer = instance.accept()
        assert b"expect: 100-continue" in peer.until(b"\r\n\r\n")
        peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert client.head().status == 100
        client.send(b"abcdef")
        assert peer.exactly(6) == b"abcdef"
        peer.send(response(b"no", status=BUSY))
        peer.until(b"\r\n\r\n")
        assert peer.exactly(6) == b"abcdef"
        peer.send(b"HTTP/1.1 100 Continue\r\n\r\n" + response(b"yes"))
        assert client.answer()[1] == b"yes"
    assert_all_given_back(gateway)


def test_a_refusal_before_the_body_is_asked_for_is_tried_again(start, instance):
    gateway = start(document(instance, service={"retry": {**NO_WAIT, "methods": ["PUT"]}}))
    with gateway.client() as client:
        client.send(
            b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\nExpect: 100-continue\r\n\r\n"
        )
        peer = instance.accept()
        peer.until(b"\r\n\r\n")
        peer.send(response(b"no", status=BUSY))
        assert peer.is_closed()
        peer = instance.accept()
        peer.until(b"\r\n\r\n")
        peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert client.head().status == 100
        client.send(b"abcdef")
        assert peer.exactly(6) == b"abcdef"
        peer.send(response(b"yes"))
        assert client.answer()[1] == b"yes"
    assert_all_given_back(gateway)


class Trouble(Filter):
    """Answers or raises where it is told to."""

    def on_request(self, request: Request) -> Reply | None:
        return self._maybe(request, "request")

    def on_response(self, request: Request, response: Response) -> Reply | None:
        return self._maybe(request, "response")

    def on_end(self, request: Request, outcome: object) -> None:
        self._maybe(request, "end")

    def _maybe(self, request: Request, where: str) -> Reply | None:
        match request.headers.get(f"x-{where}"):
            case "raise":
                raise ValueError("on purpose")
            case "reply":
                return Reply(418, b"short and stout")
        return None


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("x-request: raise", 500),
        ("x-request: reply", 418),
        ("x-response: raise", 500),
        ("x-response: reply", 418),
        ("x-end: raise", 200),
    ],
)
def test_a_plugin_that_answers_or_raises_leaves_nothing_taken(start, echo, line, status):
    route = {
        "plugins": [{"use": f"{__name__}:Trouble"}],
        "limit": [{"concurrency": 2}, {"rate": "100/h"}],
        "concurrency": {"limit": 2, "queue": 2},
        "retry": NO_WAIT,
        "hedge": {"after": "500ms"},
        "timeout": {"per_try": "2s", "total": "5s"},
        "mirror": "shadow",
        "fallback": {"respond": "instead", "when": ["failed"]},
    }
    said = with_service(document(echo.url, route=route), "shadow", echo.url)
    said["services"]["upstream"]["breaker"] = True
    gateway = start(said)
    for _ in range(4):
        head, _ = gateway.ask(request("POST", "/", line, body=b"x"))
        assert head.status == status
    assert_all_given_back(gateway)


# -- breakers and ejection

OPENS = {"minimum_calls": 1, "window": 1, "failure_rate": "100%", "reset_after": "200ms"}


def test_all_instances_with_open_breakers_turn_away_and_come_back(start, pair):
    service = {"breaker": {**OPENS, "per": "instance"}, "balance": {"panic": "0%"}}
    gateway = start(document(*pair, service=service))
    for _ in range(2):
        with gateway.client() as client:
            client.send(get())
            peer, _ = first_of(pair)
            peer.until(b"\r\n\r\n")
            peer.send(response(b"no", "Connection: close", status="500 Broken"))
            assert client.answer()[0].status == 500
    head, _ = gateway.ask(get())
    assert (head.status, head.get("retry-after")) == (503, "1")
    assert all(one.is_left_alone(0.05) for one in pair)
    sleep(0.3)
    with gateway.client() as client:
        client.send(get())
        peer, _ = first_of(pair)
        peer.until(b"\r\n\r\n")
        peer.send(response(b"well again"))
        assert client.answer()[1] == b"well again"
    assert_all_given_back(gateway)


def test_a_few_instances_that_are_well_are_found_among_many_that_are_not(start, pair):
    sick = [f"http://127.0.0.1:{port}" for port in range(1, 9)]
    service = {"breaker": {**OPENS, "per": "instance", "reset_after": "60s"}}
    gateway = start(document(*sick, *pair, service=service))

    def fall_ill() -> None:
        for url, breaker in gateway.worker._states.services["upstream"].breakers.items():
            if url in sick:
                breaker.force_open(monotonic())

    gateway.on_loop(fall_ill)
    stop = threading.Event()

    def serve(one: Instance) -> None:
        while not stop.is_set():
            with contextlib.suppress(AssertionError):
                peer = one.accept(wait_s=0.1)
                peer.until(b"\r\n\r\n")
                peer.send(response(b"ok", "Connection: close"))

    threads = [threading.Thread(target=serve, args=(one,), daemon=True) for one in pair]
    for thread in threads:
        thread.start()
    try:
        seen = [gateway.ask(get())[0].status for _ in range(40)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert seen == [200] * 40
    assert_all_given_back(gateway)


@pytest.mark.parametrize("per", ["service", "instance"])
def test_a_trial_whose_client_leaves_gives_its_place_to_the_next(start, instance, per):
    service = {"breaker": {**OPENS, "per": per, "trial_calls": 1}}
    gateway = start(document(instance, service=service))
    with gateway.client() as client:
        client.send(get())
        peer = instance.accept()
        peer.until(b"\r\n\r\n")
        peer.send(response(b"no", "Connection: close", status="500 Broken"))
        assert client.answer()[0].status == 500
    sleep(0.3)
    for _ in range(3):
        client = gateway.client()
        client.send(get())
        instance.accept().until(b"\r\n\r\n")
        client.reset()
        gateway.assert_settles()
    with gateway.client() as client:
        client.send(get())
        peer = instance.accept()
        peer.until(b"\r\n\r\n")
        peer.send(response(b"well again"))
        assert client.answer()[1] == b"well again"
    wait_until(lambda: gateway.count("headgate_breaker_state", state="closed") == 1)
    assert_all_given_back(gateway)


def test_the_only_instance_is_never_put_out(start, instance):
    gateway = start(document(instance, service={"outlier": {"errors": 1, "eject": "60s"}}))
    for _ in range(5):
        with gateway.client() as client:
            client.send(get())
            peer = instance.accept()
            peer.until(b"\r\n\r\n")
            peer.reset()
            assert client.answer()[0].status == 502
    assert gateway.count("headgate_instance_usable", service_instance=instance.url) == 1
    assert_all_given_back(gateway)


def test_a_connection_that_went_stale_is_nobodys_failure(start, instance):
    breaker = {"minimum_calls": 2, "window": 2, "failure_rate": "50%"}
    gateway = start(document(instance, service={"breaker": breaker}))
    peer = None
    with gateway.client() as client:
        for _ in range(4):
            client.send(get())
            if peer is not None:
                # The kept connection is closed under the request, which goes on another.
                peer.until(b"\r\n\r\n")
                peer.close()
            peer = instance.accept()
            peer.until(b"\r\n\r\n")
            peer.send(response(b"ok"))
            assert client.answer()[1] == b"ok"
    assert gateway.count("headgate_breaker_state", state="open") == 0
    assert_all_given_back(gateway)


# -- split, filters and affinity together


def test_split_affinity_and_filters_work_together(start):
    with EchoServer("0") as zero, EchoServer("1") as one, EchoServer("2") as two:
        affinity = {"cookie": "hg", "secret": "s" * 32}
        said = document(zero.url, one.url, service={"affinity": affinity})
        with_service(said, "green", two.url, affinity={**affinity, "cookie": "hg2"})
        said["routes"][0].update(
            to={"upstream": "100%", "green": "0%"},
            split={"sticky": "cookie", "cookie": {"canary": {"1": "green"}}},
            plugins=[COUNTER],
            retry=NO_WAIT,
        )
        gateway = start(said)
        head, body = gateway.ask(get())
        cookies = [line.partition(";")[0] for line in head.all("set-cookie")]
        assert [cookie.partition("=")[0] for cookie in cookies] == ["headgate-visitor", "hg"]
        home = json.loads(body)["service"]
        for _ in range(5):
            head, body = gateway.ask(get("/", f"cookie: {'; '.join(cookies)}"))
            assert json.loads(body)["service"] == home
            assert "set-cookie" not in head
        head, body = gateway.ask(get("/", f"cookie: {'; '.join(cookies)}; canary=1"))
        assert json.loads(body)["service"] == "2"
        assert [c.partition("=")[0] for c in head.all("set-cookie")] == ["hg2"]
        assert_all_given_back(gateway)


@pytest.mark.parametrize(
    "value",
    [
        "a\x7fb",
        "\xe9\xff",
        'x"; Path=/evil; Domain=evil.example',
        "x" * 7,
        "x" * 65,
        "x" * 7000,
        "a%0d%0aset-cookie: evil=1",
        "....",
        "..A",
        "A" * 16 + ".ffffffffffff." + "A" * 22,
        "A" * 16 + ".-1." + "A" * 22,
        "\xff" * 16 + ".1." + "\xff" * 22,
    ],
)
def test_no_cookie_of_a_client_comes_back_in_ours(start, echo, value):
    said = document(echo.url, service={"affinity": {"cookie": "hg", "secret": "s" * 32}})
    said["routes"][0].update(to={"upstream": "100%"}, split={"sticky": "cookie"})
    gateway = start(said)
    with gateway.client() as client:
        client.send(get("/", f"cookie: headgate-visitor={value}; hg={value}"))
        head, _ = client.answer()
    assert head.status in (200, 400)
    for cookie in head.all("set-cookie"):
        assert "evil" not in cookie
        assert len(cookie) < 200
    assert_all_given_back(gateway)


def test_what_is_ours_to_say_between_hops_is_not_the_clients(start, instance):
    gateway = start(document(instance, service={"retry": NO_WAIT}))
    with gateway.client() as client:
        client.send(
            get(
                "/",
                "x-headgate-attempt: 1/9",
                "X-Headgate-Attempt: 1/9",
                "x-headgate-no-retry: 1",
                "x-headgate-deadline: 60000",
                "x-headgate-deadline: 1",
                "x-headgate-explain: guess",
            )
        )
        peer = instance.accept()
        said = Head(peer.until(b"\r\n\r\n"))
        assert said.all("x-headgate-attempt") == ["1/3"]
        assert "x-headgate-no-retry" not in said
        assert "x-headgate-explain" not in said
        assert "x-headgate-deadline" not in said
        peer.send(response(b"no", "x-headgate-attempt: 1/9", status=BUSY))
        peer.until(b"\r\n\r\n")
        peer.send(response(b"yes"))
        assert client.answer()[1] == b"yes"
    assert_all_given_back(gateway)


# -- messages without a body, old clients, slow ones


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("status", ["200 OK", "204 No Content", "304 Not Modified", "404 No"])
def test_answers_without_a_body_pass_through_policies(start, instance, method, status):
    route = {
        "retry": {**NO_WAIT, "when": {"status": ["404", "503"]}},
        "hedge": {"after": "3s"},
        "concurrency": {"limit": 1},
        "limit": {"concurrency": 1},
        "fallback": {"when": ["304"], "respond": {"status": 200, "body": "from the file"}},
    }
    gateway = start(document(instance, route=route))
    is_bare = method == "HEAD" or status[:3] in ("204", "304")
    length = "" if status[:3] in ("204", "304") else "Content-Length: 4\r\n"
    answer = f"HTTP/1.1 {status}\r\n{length}\r\n".encode() + (b"" if is_bare else b"body")
    with gateway.client() as client:
        client.send(request(method, "/1") + request(method, "/2"))
        peer = instance.accept()
        for _ in range(2):
            for _ in range(3 if status.startswith("404") else 1):
                peer.until(b"\r\n\r\n")
                peer.send(answer)
            head = client.head()
            assert head.status == (200 if status.startswith("304") else int(status[:3]))
            if method == "GET" and head.status != 204:
                client.exactly(int(head.get("content-length") or 0))
        assert client.is_quiet()
    assert_all_given_back(gateway)


def test_time_spent_in_our_own_line_is_not_the_instances_failure(start, instance):
    service = {
        "pool": {"connections": 1, "queue_timeout": "9s"},
        "breaker": {"minimum_calls": 1, "window": 4, "failure_rate": "1%"},
    }
    timeout = {"total": "3s"}
    gateway = start(document(instance, service=service, route={"timeout": timeout}))
    first, second = gateway.client(), gateway.client()
    first.send(get("/1"))
    peer = instance.accept()
    peer.until(b"\r\n\r\n")
    peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    first.head()
    sleep(0.2)
    second.send(get("/2"))
    wait_until(lambda: gateway.pool.waiting == 1)
    for _ in range(6):
        sleep(0.4)
        peer.try_send(b"1\r\nx\r\n")
    assert second.answer()[0].status == 504
    assert gateway.count("headgate_breaker_state", state="open") == 0
    first.close()
    assert_all_given_back(gateway)


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_a_client_with_a_large_body_that_leaves_between_tries_is_missed(start, instance, how):
    retry = {**NO_WAIT, "wait": "20s", "wait_max": "20s", "methods": ["PUT"], "body": "1MB"}
    gateway = start(document(instance, service={"retry": retry}))
    client = gateway.client()
    client.send(request("PUT", "/", body=b"x" * 300_000))
    peer = instance.accept()
    peer.until(b"x" * 300_000)
    peer.send(response(b"no", status=BUSY))
    sleep(0.1)
    client.leave(how)
    assert_all_given_back(gateway)
    assert instance.is_left_alone()


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_client_that_is_done_asking_waits_for_its_fallback(start, version):
    gateway = start(document(DEAD, route={"fallback": {"respond": "instead"}, "retry": NO_WAIT}))
    with gateway.client() as client:
        client.send(f"GET / HTTP/{version}\r\nHost: h\r\n\r\n".encode())
        client.end()
        head, body = client.answer()
    assert (head.status, body) == (200, b"instead")
    assert_all_given_back(gateway)


def test_nothing_is_tried_again_once_the_answer_has_begun(start, pair):
    service = {"retry": NO_WAIT, "hedge": {"after": "9s"}, "timeout": {"per_try": "300ms"}}
    gateway = start(document(*pair, service=service))
    with gateway.client() as client:
        client.send(get())
        peer, other = first_of(pair)
        peer.until(b"\r\n\r\n")
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b"x" * 10)
        client.until(b"x" * 10)
        sleep(0.4)  # the limit of a try is for its head
        peer.send(b"y" * 10)
        client.until(b"y" * 10)
        peer.reset()
        assert client.to_end() == b""
    assert other.is_left_alone()
    assert_all_given_back(gateway)


# -- everything at once


class Rascal:
    """An instance that treats each request as it likes."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.instance = Instance(backlog=256)
        self.url = self.instance.url
        self.stop = False
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        self.stop = True
        for thread in self._threads:
            thread.join()
        self.instance.close()

    def _accept(self) -> None:
        while not self.stop:
            try:
                peer = self.instance.accept(wait_s=0.1)
            except AssertionError:
                continue
            thread = threading.Thread(target=self._serve, args=(peer,))
            thread.start()
            self._threads.append(thread)

    def _serve(self, peer: Peer) -> None:
        peer.sock.settimeout(0.1)
        try:
            while self._one(peer):
                pass
        except (Closed, OSError, ValueError):
            pass
        finally:
            peer.close()

    def _one(self, peer: Peer) -> bool:
        while b"\r\n\r\n" not in peer.data:
            if self.stop:
                return False
            with contextlib.suppress(AssertionError):
                if not peer.more():
                    return False
        head = peer.head()
        mood = self.rng.random()
        if mood < 0.06:
            peer.reset()
            return False
        with contextlib.suppress(AssertionError):
            if "content-length" in head:
                peer.exactly(int(head.get("content-length") or 0))
            elif "transfer-encoding" in head:
                peer.chunked()
        sleep(self.rng.choice([0, 0, 0.005, 0.03, 0.08]))
        if head.line.startswith("HEAD"):
            return peer.try_send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
        if mood < 0.12:
            peer.reset()
            return False
        if mood < 0.30:
            return peer.try_send(response(b"no", status=BUSY))
        if mood < 0.36:
            peer.try_send(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort")
            return False
        if mood < 0.40:
            peer.try_send(b"nonsense\r\n\r\n")
            return False
        if mood < 0.50:
            peer.try_send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
            sleep(0.01)
            return peer.try_send(b"5\r\nsecnd\r\n0\r\n\r\n")
        if mood < 0.55:
            peer.try_send(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")
            return False
        return peer.try_send(response(b"x" * self.rng.choice([0, 10, 100_000])))


def rough(gateway: Gateway, seed: int, counts: list[int]) -> None:
    """A client that asks for all kinds of things and seldom waits for all of the answer."""
    rng = random.Random(seed)
    for _ in range(100):
        with gateway.client() as client, contextlib.suppress(Closed, OSError, ValueError):
            client.sock.settimeout(8)
            method = rng.choice(["GET", "GET", "HEAD", "POST", "PUT"])
            path = rng.choice(["/a", "/b", "/c"])
            lines = [
                line
                for line in (
                    f"x-headgate-deadline: {rng.choice([0, 5, 40, 5000])}",
                    "cookie: canary=1",
                    "x-chaos: 1",
                    "authorization: anna",
                )
                if rng.random() < 0.25
            ]
            body = b"y" * rng.choice([1, 500, 90_000]) if method in ("POST", "PUT") else b""
            asked = request(method, path, *lines, body=body)
            if rng.random() < 0.2:
                client.send(asked[: rng.randrange(len(asked))])
                sleep(rng.random() * 0.02)
                client.leave(rng.choice(["fin", "rst"]))
                continue
            client.send(asked * rng.choice([1, 1, 1, 3]))
            if rng.random() < 0.3:
                sleep(rng.random() * 0.06)
                client.leave(rng.choice(["fin", "rst"]))
                continue
            head = client.head()
            counts[0] += 1
            assert head.status >= 200 or head.status == 100


@pytest.fixture
def rascals():
    made = [Rascal(seed) for seed in range(3)]
    yield made
    for rascal in made:
        rascal.close()


@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_is_left_after_a_storm(start, rascals, seed):
    one, two, three = (rascal.url for rascal in rascals)
    retry = {**NO_WAIT, "wait": "3ms", "methods": ["GET", "HEAD", "PUT"], "body": "70KB"}

    def said(limit: int) -> dict[str, Any]:
        made = document(one, two, *([DEAD] if limit % 2 else []), response_time=limit % 3 == 0)
        made["services"] = {
            "upstream": {
                "instances": made["services"]["upstream"]["instances"],
                "retry": retry,
                "outlier": {"errors": 3, "eject": "100ms", "eject_max": "200ms"},
                "affinity": {"cookie": "hg", "secret": "s" * 32},
                "breaker": {"per": "instance", "window": 10, "minimum_calls": 5,
                            "failure_rate": "80%", "reset_after": "50ms"},
            },
            "green": {"instances": [two, three], "breaker": {"window": 10, "minimum_calls": 10,
                                                             "reset_after": "50ms"}},
            "spare": {"instances": [three]},
        }  # fmt: skip
        fallback = {"when": ["open", "failed", "timeout", "full", "shed", "503"]}
        made["routes"] = [
            {
                "name": "a",
                "match": {"path": "/a"},
                "to": {"upstream": "70%", "green": "30%"},
                "split": {"sticky": "cookie", "cookie": {"canary": {"1": "green"}}},
                "hedge": {"after": "10ms", "most": 2},
                "limit": [{"concurrency": limit * 4, "name": "seats"}, {"rate": "100/s"}],
                "concurrency": {"limit": limit, "queue": limit, "queue_timeout": "100ms"},
                "fallback": {**fallback, "service": "spare"},
                "mirror": {"to": "spare", "queue": 3},
                "timeout": {"per_try": "60ms", "total": "300ms"},
            },
            {
                "name": "b",
                "match": {"path": "/b"},
                "to": "upstream",
                "plugins": [GATEKEEPER, COUNTER],
                "concurrency": {"limit": limit, "queue": 2, "adaptive": "aimd"},
                "fault": {"delay": "10ms", "abort": 418, "abort_share": "20%",
                          "header": {"x-chaos": "1"}},
                "fallback": {**fallback, "respond": "instead"},
                "timeout": {"per_try": "60ms"},
            },
            {"name": "c", "match": {"path": "/c"}, "to": "green", "hedge": {"after": "5ms"},
             "retry": retry, "fallback": {**fallback, "service": "spare"}},
        ]  # fmt: skip
        return made

    gateway = start(said(2))
    counts = [0]
    clients = [
        threading.Thread(target=rough, args=(gateway, seed * 100 + at, counts), daemon=True)
        for at in range(12)
    ]
    for client in clients:
        client.start()
    limit = 2
    while any(client.is_alive() for client in clients):
        limit = limit % 5 + 1
        gateway.apply(said(limit))
        sleep(0.03)
    assert counts[0] > 300
    assert_all_given_back(gateway)
