"""A wait in a policy's line ends with the time of the request, whoever set its end."""

from __future__ import annotations

import asyncio

import pytest

from headgate.gateway.filters import Filter, Request
from tests.gateway.rig import document, get, request, response, wait_until

pytestmark = pytest.mark.integration

LINE = {"limit": 1, "queue": 5, "queue_timeout": "30s"}


class Waits(Filter):
    """Takes longer than any request may."""

    async def on_request(self, request: Request) -> None:
        await asyncio.sleep(30)


def test_waiting_for_a_seat_counts_towards_the_total_time(start, instance):
    route = {"concurrency": LINE, "timeout": {"total": "300ms"}}
    gateway = start(document(instance, route=route))
    first, second = gateway.client(), gateway.client()
    first.send(get("/1"))
    instance.accept().until(b"\r\n\r\n")
    second.send(get("/2"))
    assert second.answer()[0].status == 504
    assert first.answer()[0].status == 504
    gateway.assert_settles()
    assert gateway.count("headgate_concurrency_waiting") == 0
    assert gateway.count("headgate_concurrency_in_flight") == 0


def test_a_deadline_of_the_client_holds_in_the_line(start, instance):
    gateway = start(document(instance, route={"concurrency": LINE}))
    first, second = gateway.client(), gateway.client()
    first.send(get("/1"))
    peer = instance.accept()
    peer.until(b"\r\n\r\n")
    second.send(request("POST", "/2", "x-headgate-deadline: 200", body=b"held"))
    assert second.answer()[0].status == 504
    assert gateway.count("headgate_concurrency_waiting") == 0
    peer.send(response(b"one"))
    assert first.answer()[1] == b"one"
    # The connection of the one who was out of time goes on.
    second.send(get("/3"))
    assert b"GET /3 " in peer.until(b"\r\n\r\n")
    peer.send(response(b"three"))
    assert second.answer()[1] == b"three"


def test_a_place_that_is_given_up_is_the_next_ones(start, instance):
    gateway = start(document(instance, route={"concurrency": LINE}))
    first, second, third = (gateway.client() for _ in range(3))
    first.send(get("/1"))
    peer = instance.accept()
    peer.until(b"\r\n\r\n")
    second.send(get("/2", "x-headgate-deadline: 150"))
    wait_until(lambda: gateway.count("headgate_concurrency_waiting") == 1)
    third.send(get("/3"))
    assert second.answer()[0].status == 504
    peer.send(response(b"one"))
    assert first.answer()[1] == b"one"
    assert b"GET /3 " in peer.until(b"\r\n\r\n")


def test_a_fallback_answers_who_was_out_of_time(start, instance):
    route = {
        "concurrency": LINE,
        "timeout": {"total": "200ms"},
        "fallback": {"when": "timeout", "respond": {"body": "later"}},
    }
    gateway = start(document(instance, route=route))
    first, second = gateway.client(), gateway.client()
    first.send(get("/1"))
    instance.accept().until(b"\r\n\r\n")
    second.send(get("/2"))
    assert second.answer()[1] == b"later"


def test_a_delay_on_purpose_ends_with_the_time(start, instance):
    route = {"fault": {"delay": "30s"}, "timeout": {"total": "100ms"}}
    gateway = start(document(instance, route=route))
    client = gateway.client()
    client.send(get("/"))
    assert client.answer()[0].status == 504
    gateway.assert_settles()


def test_a_hook_that_waits_ends_with_the_time(start, instance):
    plugins = [{"use": f"{__name__}:Waits"}]
    route = {"plugins": plugins, "timeout": {"total": "100ms"}}
    gateway = start(document(instance, route=route))
    client = gateway.client()
    client.send(get("/"))
    assert client.answer()[0].status == 504
    gateway.assert_settles()


def test_a_wait_without_an_end_is_not_cut_short(start, instance):
    gateway = start(document(instance, route={"fault": {"delay": "100ms"}}))
    client = gateway.client()
    client.send(request("POST", "/", body=b"kept"))
    peer = instance.accept()
    assert b"kept" in peer.until(b"kept")
    peer.send(response(b"ok"))
    assert client.answer()[1] == b"ok"
