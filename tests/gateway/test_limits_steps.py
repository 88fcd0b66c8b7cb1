"""Limits before the first attempt: with a shared home that is slow, away or broken, and without."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import threading
from collections.abc import Sequence
from time import monotonic, sleep
from typing import Any

import pytest

from headgate.policy.limiter.lease import Grant
from headgate.state.home import HomeAway, LimitAsk
from headgate.state.memory import MemoryShared
from tests.gateway.given_back import assert_all_given_back, held
from tests.gateway.rig import (
    Closed,
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

SEATS = {"concurrency": 2, "name": "seats"}


class Home(MemoryShared):
    """A shared home whose pace a test sets."""

    fault: BaseException | None = None
    stuck: asyncio.Event | None = None
    asked = 0

    def stick(self) -> None:
        self.stuck = asyncio.Event()

    def go_on(self) -> None:
        stuck, self.stuck = self.stuck, None
        if stuck is not None:
            stuck.set()

    async def take(self, asks: Sequence[LimitAsk]) -> list[Grant]:
        self.asked += 1
        stuck = self.stuck
        if stuck is not None:
            await stuck.wait()
        if self.fault is not None:
            raise type(self.fault)(*self.fault.args)
        return await super().take(asks)


def shared(start, said: dict[str, Any], *, is_stuck: bool = False) -> tuple[Gateway, Home]:
    """A worker of several, and the home that they share."""
    gateway = start({**said, "routes": [{"name": "none", "respond": 204}], "workers": 2})

    def begin() -> Home:
        home = Home()
        gateway.worker._homes.hub = home
        if is_stuck:
            home.stick()
        return home

    home: Home = gateway.on_loop(begin)
    gateway.apply({**said, "workers": 2})
    return gateway, home


# -- a home that takes its time


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("limits", [[SEATS], [{"rate": "5/h"}, SEATS], [SEATS, {"rate": "5/h"}]])
def test_a_client_that_leaves_while_the_home_is_asked_holds_nothing(start, instance, how, limits):
    gateway, home = shared(start, document(instance, route={"limit": limits}), is_stuck=True)
    client = gateway.client()
    client.send(request("POST", "/", body=b"order"))
    wait_until(lambda: home.asked)
    client.leave(how)
    gateway.assert_settles()
    gateway.on_loop(home.go_on)
    assert_all_given_back(gateway)
    assert instance.is_left_alone()


def test_what_comes_of_a_body_while_the_home_is_asked_goes_along(start, instance):
    said = document(instance, route={"limit": "5/h", "retry": {"methods": ["PUT"], "wait": "1ms"}})
    gateway, home = shared(start, said, is_stuck=True)
    with gateway.client() as client:
        client.send(
            b"PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n"
        )
        wait_until(lambda: home.asked)
        client.send(b"5\r\nsecnd\r\n0\r\nx-sum: 42\r\n\r\n")
        sleep(0.1)
        gateway.on_loop(home.go_on)
        peer = instance.accept()
        for answer in (response(b"no", status="503 Busy"), response(b"yes")):
            peer.until(b"\r\n\r\n")
            assert peer.chunked() == b"firstsecnd"
            assert b"x-sum: 42" in peer.trailer
            peer.send(answer)
        assert client.answer()[1] == b"yes"
    assert_all_given_back(gateway)


def test_pipelined_requests_are_answered_in_order_though_each_asks_the_home(start, echo):
    gateway, home = shared(start, document(echo.url, route={"limit": "5/h"}), is_stuck=True)
    with gateway.client() as client:
        client.send(get("/1") + get("/2") + request("POST", "/3", body=b"x") + get("/4"))
        wait_until(lambda: home.asked)
        gateway.on_loop(home.go_on)
        paths = [json.loads(client.answer()[1])["path"] for _ in range(4)]
    assert paths == ["/1", "/2", "/3", "/4"]
    assert_all_given_back(gateway)


@pytest.mark.parametrize("after", ["same", "faster", "other algorithm", "none", "other route"])
def test_a_reload_while_the_home_is_asked_answers_all_the_same(start, echo, after):
    said = document(echo.url, route={"limit": [{"rate": "5/h"}, SEATS]})
    gateway, home = shared(start, said, is_stuck=True)
    limits: dict[str, Any] = {
        "same": [{"rate": "5/h"}, SEATS],
        "faster": [{"rate": "50/h"}, {**SEATS, "concurrency": 9}],
        "other algorithm": [{"rate": "5/h", "algorithm": "sliding_log"}],
        "none": False,
        "other route": "1/h",
    }
    with gateway.client() as client:
        client.send(get())
        wait_until(lambda: home.asked)
        route = {"limit": limits[after]}
        if after == "other route":
            route["name"] = "another"
        gateway.apply({**document(echo.url, route=route), "workers": 2})
        gateway.on_loop(home.go_on)
        assert client.answer()[0].status == 200
    assert_all_given_back(gateway)
    assert gateway.ask(get())[0].status == 200


def test_a_body_beyond_the_route_is_refused_while_the_home_is_asked(start, instance):
    said = document(instance, route={"limit": [SEATS], "body_limit": "1KB"})
    gateway, home = shared(start, said, is_stuck=True)
    with gateway.client() as client:
        client.send(
            b"PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n"
        )
        wait_until(lambda: home.asked)
        client.send(b"7d0\r\n" + b"x" * 2000 + b"\r\n")
        assert client.answer()[0].status == 413
    gateway.on_loop(home.go_on)
    assert_all_given_back(gateway)
    assert instance.is_left_alone()


# -- a home that fails


def test_a_home_that_is_away_leaves_the_decision_to_the_worker(start, echo):
    gateway, home = shared(start, document(echo.url, route={"limit": [{"rate": "5/h"}, SEATS]}))
    home.fault = HomeAway("gone")
    assert gateway.ask(get())[0].status == 200
    assert_all_given_back(gateway)


def test_a_home_that_breaks_costs_only_its_request(start, echo):
    gateway, home = shared(start, document(echo.url, route={"limit": [SEATS, {"rate": "5/h"}]}))
    home.fault = RuntimeError("a bug")
    for _ in range(3):
        head, body = gateway.ask(get())
        assert head.status == 500
        assert json.loads(body)["source"] == "gateway"
    wait_until(lambda: not held(gateway))
    home.fault = None
    assert gateway.ask(get())[0].status == 200
    wait_until(lambda: not held(gateway))
    assert gateway.in_flight == 0


def test_what_is_refunded_can_be_spent_at_once_also_at_the_shared_home(start, instance):
    limit = {"rate": "2/h", "refund": "5xx"}
    gateway, _ = shared(start, document(instance, route={"limit": limit}))
    with gateway.client() as client:
        peer: Peer | None = None
        # So little is shared that each hit asks the home; nothing is kept here for the next.
        for status in ("500 No", "503 No", "500 No", "500 No", "200 OK", "200 OK"):
            client.send(get())
            peer = peer or instance.accept()
            peer.until(b"\r\n\r\n")
            peer.send(response(b"said", status=status))
            assert client.answer()[0].status == int(status[:3])
        client.send(get())
        assert client.answer()[0].status == 429
    assert_all_given_back(gateway)


# -- several rules


def test_a_refusal_gives_back_only_what_was_charged(start, instance):
    limits = [
        {"rate": "2/h", "name": "watched", "shadow": True},
        {"rate": "1/h", "name": "strict", "by": "header:x-tenant"},
    ]
    gateway = start(document(instance, route={"limit": limits}))

    with gateway.client() as client:
        client.send(get("/", "x-tenant: a"))
        peer = instance.accept()
        for tenant in ("b", ""):
            peer.until(b"\r\n\r\n")
            peer.send(response(b"ok"))
            assert client.answer()[0].status == 200
            if tenant:
                client.send(get("/", f"x-tenant: {tenant}"))
    # The watched limit is used up: it refuses in silence, and what it refused it did not charge.
    for _ in range(5):
        with gateway.client() as client:
            client.send(get("/", "x-tenant: a"))
            assert client.answer()[0].status == 429
    limit = gateway.worker._states.limits["route/all/watched"]
    assert gateway.on_loop(lambda: (limit.allowed, limit.shadowed)) == (2, 5)
    assert gateway.on_loop(lambda: limit._own.peek("127.0.0.1", monotonic(), 0).remaining) == 0
    assert_all_given_back(gateway)


def test_a_watched_limit_of_seats_frees_no_seat_of_others(start, instance):
    limits = [
        {"concurrency": 1, "name": "watched", "shadow": True},
        {"rate": "1/h", "name": "strict"},
    ]
    gateway = start(document(instance, route={"limit": limits}))
    with gateway.client() as holder, gateway.client() as client:
        holder.send(get())
        peer = instance.accept()
        peer.until(b"\r\n\r\n")
        client.send(get())
        assert client.answer()[0].status == 429
        assert held(gateway) == {"route/all/watched": 1}
        peer.send(response(b"ok"))
        assert holder.answer()[0].status == 200
    assert_all_given_back(gateway)


# -- where limits stand


@pytest.mark.parametrize(
    ("route", "status"),
    [({"respond": "hello"}, 200), ({"redirect": {"to": "/b", "status": 302}}, 302)],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_a_route_without_a_service_has_its_limits_too(start, route, status, method):
    said = document("http://127.0.0.1:1", route={**route, "limit": ["3/h", SEATS]})
    del said["routes"][0]["to"]
    gateway = start(said)
    with gateway.client() as client:
        seen = []
        for _ in range(4):
            client.send(request(method, "/", body=b"x" if method == "POST" else b""))
            head = client.head()
            seen.append(head.status)
            assert "ratelimit" in head
            if method != "HEAD":
                client.exactly(int(head.get("content-length") or 0))
        assert client.is_quiet()
    assert seen == [status] * 3 + [429]
    assert_all_given_back(gateway)


def test_a_seat_is_given_back_at_every_kind_of_ending(start, instance):
    gateway = start(document(instance, route={"limit": [SEATS]}))
    endings = [
        response(b"ok"),
        response(b"", status="204 No Content"),
        b"HTTP/1.1 304 Not Modified\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"not HTTP at all",
        b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
        b"",
    ]
    for ending in endings:
        with gateway.client() as client:
            client.send(get())
            peer = instance.accept()
            peer.until(b"\r\n\r\n")
            peer.send(ending)
            peer.end()
            client.to_end() if b"2 " in ending[:20] else client.more()
        peer.close()
        wait_until(lambda: not held(gateway))
    assert_all_given_back(gateway)


def test_http_1_0_is_limited_like_the_rest(start, echo):
    gateway = start(document(echo.url, route={"limit": ["2/h", SEATS]}))
    seen = []
    for _ in range(3):
        head, _ = gateway.ask(b"GET / HTTP/1.0\r\nHost: h\r\n\r\n")
        seen.append(head.status)
    assert seen == [200, 200, 429]
    assert_all_given_back(gateway)


def test_a_flood_of_keys_is_held_in_little_memory(start, echo):
    gateway = start(document(echo.url, route={"limit": {"rate": "1/s", "by": "header:x-key"}}))
    with gateway.client() as client:
        for at in range(300):
            client.send(get("/", f"x-key: {at}" + "k" * 6000))
            assert client.answer()[0].status == 200
    limit = gateway.worker._states.limits["route/all/header:x-key"]

    def longest() -> int:
        return max(len(str(key)) for shard in limit._own._shards for key in shard)

    assert gateway.on_loop(longest) < 100
    assert_all_given_back(gateway)


def test_an_instance_cannot_lower_what_its_price_says_beyond_what_was_charged(start, instance):
    limit = {"rate": "3/h", "cost": {"header": "x-cost"}}
    gateway = start(document(instance, route={"limit": limit}))
    peer = None
    for said in ("-5", "999999999999", "1e3", "", "0x3", "1, 2", "\xb2"):
        with gateway.client() as client:
            client.send(get())
            peer = peer or instance.accept()
            peer.until(b"\r\n\r\n")
            peer.send(response(b"ok", f"x-cost: {said}"))
            head, _ = client.answer()
            assert head.status == 200
            assert "x-cost" not in head
        gateway.on_loop(
            lambda: gateway.worker._states.limits["route/all/ip"]._own.clear("127.0.0.1")
        )
    assert_all_given_back(gateway)


def test_a_queue_counts_from_where_it_begins(start, instance: Instance):
    # A delay before the line is no time in it.
    route = {
        "fault": {"delay": "700ms"},
        "concurrency": {"limit": 1, "queue": 1, "queue_timeout": "600ms"},
    }
    gateway = start(document(instance, route=route))
    first, second = gateway.client(), gateway.client()
    first.send(get("/1"))
    peer = instance.accept()
    second.send(get("/2"))
    peer.until(b"\r\n\r\n")
    wait_until(lambda: gateway.count("headgate_concurrency_waiting") == 1)
    sleep(0.35)
    peer.send(response(b"one"))
    assert first.answer()[1] == b"one"
    peer.until(b"\r\n\r\n")
    peer.send(response(b"two"))
    assert second.answer()[1] == b"two"
    assert_all_given_back(gateway)


def test_no_seat_is_lost_while_the_home_comes_and_goes(start, echo):
    limits = [{"rate": "1000/s"}, {"concurrency": 6, "name": "seats"}]
    gateway, home = shared(start, document(echo.url, route={"limit": limits}))
    faults = [None, HomeAway("gone"), RuntimeError("a bug"), None]
    seen: set[int] = set()

    def visit(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(40):
            with gateway.client() as client, contextlib.suppress(Closed, OSError):
                client.send(get("/delay/0.01"))
                if rng.random() < 0.4:
                    sleep(rng.random() * 0.02)
                    client.leave(rng.choice(["fin", "rst"]))
                    continue
                seen.add(client.answer()[0].status)

    visitors = [threading.Thread(target=visit, args=(at,), daemon=True) for at in range(8)]
    for visitor in visitors:
        visitor.start()
    rng = random.Random(0)
    while any(visitor.is_alive() for visitor in visitors):
        gateway.on_loop(home.go_on)
        home.fault = rng.choice(faults)
        if rng.random() < 0.3:
            gateway.on_loop(home.stick)
        sleep(0.02)
    home.fault = None
    gateway.on_loop(home.go_on)
    assert 200 in seen
    assert seen <= {200, 429, 500}
    gateway.assert_settles()
    wait_until(lambda: not held(gateway))
