"""Fills from a service that speaks HTTP/2, where a head need not end what it ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from headgate.wire.h2 import ErrorCode
from tests.gateway.caching.rig import ask
from tests.gateway.given_back import assert_all_given_back
from tests.gateway.h2_instance import Instance, Served
from tests.gateway.rig import Gateway, document, get, wait_until

pytestmark = pytest.mark.integration

FRESH = ((b"cache-control", b"max-age=60"),)
STALE = ((b"cache-control", b"max-age=0"), (b"etag", b'"a"'))


def over_h2(service: Instance, **rules: Any) -> dict[str, Any]:
    url = f"http://127.0.0.1:{service.port}"
    return document(url, route={"cache": rules or True}, service={"http": "2"})


def waiting(gateway: Gateway, count: int) -> None:
    wait_until(lambda: gateway.in_flight == count)


def answering(*answers: Callable[[Served], None]) -> Callable[[Served], None]:
    left = list(answers)

    def act(served: Served) -> None:
        if served.ended and not served.was_reset and left:
            left.pop(0)(served)

    return act


def old(served: Served) -> None:
    served.answer(200, b"kept", STALE)


def new(served: Served) -> None:
    served.answer(200, b"newer", FRESH)


def test_a_validation_whose_head_ends_nothing_is_over_all_the_same(start):
    def unended(served: Served) -> None:
        served.answer(304, b"", (*FRESH, (b"etag", b'"a"')), end=False)

    with Instance(answering(old, unended)) as service:
        gateway = start(over_h2(service))
        client = gateway.client()
        assert ask(client)[1] == b"kept"
        assert ask(client)[1] == b"kept"
        assert "; hit" in ask(client)[0].get("cache-status")
        wait_until(lambda: gateway.in_flight == 0)
        wait_until(lambda: service.requests[1].was_reset is not None)
        assert_all_given_back(gateway)


def test_a_304_about_another_response_that_ends_late_spoils_nothing(start):
    def unended(served: Served) -> None:
        served.answer(304, b"", ((b"etag", b'"z"'),), end=False)

        def end() -> None:
            if served.was_reset is None:
                served.conn.codec.send_data(served, b"", end=True)

        served.conn.instance.later(0.05, end, served.conn)

    def slow(served: Served) -> None:
        served.answer(200, b"new", FRESH, end=False)
        codec = served.conn.codec
        later = served.conn.instance.later
        later(0.2, lambda: codec.send_data(served, b"er", end=True), served.conn)

    with Instance(answering(old, unended, slow)) as service:
        gateway = start(over_h2(service))
        client = gateway.client()
        assert ask(client)[1] == b"kept"
        assert ask(client)[1] == b"newer"
        head, body = ask(client)
        assert (body, "; hit" in head.get("cache-status")) == (b"newer", True)
        assert [each.header(b"if-none-match") is not None for each in service.requests] == [
            False,
            True,
            False,
        ]
        assert_all_given_back(gateway)


def test_trailers_and_resets_of_the_service(start):
    def broken(served: Served) -> None:
        served.answer(200, b"abc", FRESH, end=False)
        codec = served.conn.codec
        served.conn.instance.later(
            0.05, lambda: codec.reset(served, ErrorCode.INTERNAL_ERROR), served.conn
        )

    def trailers(served: Served) -> None:
        served.answer(200, b"abc", FRESH, end=False)
        served.conn.codec.send_trailers(served, ((b"x-sum", b"9"),))

    with Instance(answering(broken, trailers)) as service:
        gateway = start(over_h2(service))
        client = gateway.client()
        client.send(get("/"))
        assert client.head().status == 200
        client.to_end()
        client = gateway.client()
        assert ask(client)[1] == b"abc"
        head, body = ask(client)
        assert (body, "; hit" in head.get("cache-status")) == (b"abc", True)
        assert_all_given_back(gateway)


def test_all_who_wait_leave_and_the_stream_is_cancelled(start):
    with Instance(answering()) as service:
        gateway = start(over_h2(service))
        clients = [gateway.client() for _ in range(3)]
        for number, client in enumerate(clients):
            client.send(get("/"))
            waiting(gateway, number + 2)
        wait_until(lambda: service.requests)
        for client in clients:
            client.reset()
        wait_until(lambda: service.requests[0].was_reset is not None)
        assert_all_given_back(gateway)
