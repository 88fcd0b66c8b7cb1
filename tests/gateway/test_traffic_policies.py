"""Limits, concurrency, splits, mirrors, affinity, faults and flags at a running gateway."""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from time import monotonic
from typing import Any

import pytest

from headgate.gateway.filters import Filter, Request
from headgate.security.identity import Identity
from headgate.testing import EchoServer
from tests.gateway.rig import document, get, request, response, wait_until

pytestmark = pytest.mark.integration


@pytest.fixture
def echoes():
    with EchoServer("0") as zero, EchoServer("1") as one, EchoServer("2") as two:
        yield [zero, one, two]


class WhoAmI(Filter):
    """Believes a header: stands for authentication."""

    def on_request(self, request: Request) -> None:
        who = request.headers.get("x-user")
        if who is not None:
            name, _, tier = who.partition(";")
            request.identity = Identity(name, tier=tier)


WHO = {"use": f"{__name__}:WhoAmI"}


# -- limits


@pytest.mark.parametrize(
    "algorithm", ["gcra", "token_bucket", "sliding_window", "sliding_log", "fixed_window"]
)
def test_what_is_beyond_the_limit_is_told_when_to_come_back(start, echo, algorithm):
    limit = {"rate": "3/h", "algorithm": algorithm}
    gateway = start(document(echo.url, route={"limit": limit}))
    with gateway.client() as client:
        left = []
        for _ in range(3):
            client.send(get())
            head, _ = client.answer()
            assert head.status == 200
            left += re.findall(r";r=(\d+);t=", head.get("ratelimit") or "")
        assert left == ["2", "1", "0"]
        client.send(get())
        head, body = client.answer()
    assert head.status == 429
    # A sliding window forgets the last one only while the next goes on.
    assert 1 <= int(head.get("retry-after") or 0) <= 2 * 3600
    assert json.loads(body)["source"] == "client"
    assert gateway.count("headgate_limit_decisions_total", outcome="allowed") == 3
    assert gateway.count("headgate_limit_decisions_total", outcome="refused") == 1
    gateway.assert_settles()


def test_every_key_has_a_count_of_its_own(start, echo):
    gateway = start(document(echo.url, route={"limit": {"rate": "1/h", "by": "header:x-tenant"}}))
    with gateway.client() as client:
        seen = []
        for tenant in ("a", "b", "a", "b"):
            client.send(get("/", f"x-tenant: {tenant}"))
            seen.append(client.answer()[0].status)
    assert seen == [200, 200, 429, 429]


def test_a_request_without_the_key_is_counted_by_its_address(start, echo):
    gateway = start(document(echo.url, route={"limit": {"rate": "1/h", "by": "header:x-tenant"}}))
    with gateway.client() as client:
        seen = []
        for _ in range(2):
            client.send(get())
            seen.append(client.answer()[0].status)
    assert seen == [200, 429]


def test_of_several_limits_a_refused_request_charges_none(start, echo):
    limits = [{"rate": "2/h", "by": "ip"}, {"rate": "1/h", "by": "header:x-tenant"}]
    gateway = start(document(echo.url, route={"limit": limits}))
    with gateway.client() as client:
        seen = []
        for tenant in ("a", "a", "a", "b", "c"):
            client.send(get("/", f"x-tenant: {tenant}"))
            seen.append(client.answer()[0].status)
    assert seen == [200, 429, 429, 200, 429]


def test_tiers_have_limits_of_their_own(start, echo):
    limit = {"rate": "1/h", "by": "user", "tiers": {"gold": "3/h"}}
    gateway = start(document(echo.url, route={"limit": limit, "plugins": [WHO]}))
    with gateway.client() as client:
        seen = []
        for who in ("anna;gold",) * 4 + ("ben",) * 2:
            client.send(get("/", f"x-user: {who}"))
            seen.append(client.answer()[0].status)
    assert seen == [200, 200, 200, 429, 200, 429]


def test_shadow_counts_and_refuses_nobody(start, echo):
    gateway = start(document(echo.url, route={"limit": {"rate": "1/h", "shadow": True}}))
    with gateway.client() as client:
        for _ in range(3):
            client.send(get())
            head, _ = client.answer()
            assert head.status == 200
            assert "ratelimit" not in head
    assert gateway.count("headgate_limit_decisions_total", outcome="shadowed") == 2


def test_a_response_may_name_its_price(start, instance):
    limit = {"rate": "10/h", "cost": {"header": "x-cost"}}
    gateway = start(document(instance, route={"limit": limit}))
    with gateway.client() as client:
        client.send(get())
        peer = instance.accept()
        peer.until(b"\r\n\r\n")
        peer.send(response(b"dear", "x-cost: 10"))
        assert client.answer()[0].status == 200
        client.send(get())
        assert client.answer()[0].status == 429


def test_what_should_not_count_is_given_back(start, instance):
    limit = {"rate": "1/h", "refund": {"status": ["500-599"]}}
    gateway = start(document(instance, route={"limit": limit}))
    with gateway.client() as client:
        peer = None
        for status in ("500 Broken", "200 OK"):
            client.send(get())
            peer = peer or instance.accept()
            peer.until(b"\r\n\r\n")
            peer.send(response(b"", status=status))
            assert client.answer()[0].status == int(status[:3])
        client.send(get())
        assert client.answer()[0].status == 429


def test_a_reload_forgets_no_count(start, echo):
    said = document(echo.url, route={"limit": {"rate": "2/h"}})
    gateway = start(said)
    assert gateway.ask(get())[0].status == 200
    gateway.apply({**said, "response_time": False})
    assert gateway.ask(get())[0].status == 200
    assert gateway.ask(get())[0].status == 429


# -- concurrency


def test_who_finds_no_seat_waits_in_line_and_then_is_turned_away(start, instance):
    seats = {"limit": 1, "queue": 1, "queue_timeout": "10s"}
    gateway = start(document(instance, route={"concurrency": seats}))
    first, second, third = (gateway.client() for _ in range(3))
    first.send(get("/1"))
    peer = instance.accept()
    peer.until(b"\r\n\r\n")
    second.send(get("/2"))
    wait_until(lambda: gateway.count("headgate_concurrency_waiting") == 1)
    third.send(get("/3"))
    head, _ = third.answer()
    assert (head.status, "retry-after" in head) == (503, True)
    peer.send(response(b"one"))
    assert first.answer()[1] == b"one"
    assert b"GET /2 " in peer.until(b"\r\n\r\n")
    peer.send(response(b"two"))
    assert second.answer()[1] == b"two"
    gateway.assert_settles()
    assert gateway.count("headgate_concurrency_in_flight") == 0


def test_a_wait_in_line_ends(start, instance):
    seats = {"limit": 1, "queue": 1, "queue_timeout": "50ms"}
    gateway = start(document(instance, route={"concurrency": seats}))
    first, second = gateway.client(), gateway.client()
    first.send(get("/1"))
    instance.accept().until(b"\r\n\r\n")
    second.send(get("/2"))
    assert second.answer()[0].status == 503


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_a_client_that_leaves_the_line_takes_no_seat(start, instance, how):
    seats = {"limit": 1, "queue": 5, "queue_timeout": "10s"}
    gateway = start(document(instance, route={"concurrency": seats}))
    first, second, third = (gateway.client() for _ in range(3))
    first.send(get("/1"))
    peer = instance.accept()
    peer.until(b"\r\n\r\n")
    second.send(request("POST", "/2", body=b"held while waiting"))
    wait_until(lambda: gateway.count("headgate_concurrency_waiting") == 1)
    third.send(request("POST", "/3", body=b"kept"))
    wait_until(lambda: gateway.count("headgate_concurrency_waiting") == 2)
    second.leave(how)
    wait_until(lambda: gateway.count("headgate_concurrency_waiting") == 1)
    peer.send(response(b"one"))
    assert first.answer()[1] == b"one"
    assert b"POST /3 " in peer.until(b"kept")
    peer.send(response(b"three"))
    assert third.answer()[1] == b"three"
    gateway.assert_settles()
    assert gateway.count("headgate_concurrency_in_flight") == 0


def test_a_client_that_leaves_its_seat_gives_it_to_the_next(start, instance):
    seats = {"limit": 1, "queue": 5, "queue_timeout": "10s"}
    gateway = start(document(instance, route={"concurrency": seats}))
    first, second = gateway.client(), gateway.client()
    first.send(get("/1"))
    instance.accept().until(b"\r\n\r\n")
    second.send(get("/2"))
    wait_until(lambda: gateway.count("headgate_concurrency_waiting") == 1)
    first.reset()
    peer = instance.accept()
    peer.until(b"\r\n\r\n")
    peer.send(response(b"two"))
    assert second.answer()[1] == b"two"
    gateway.assert_settles()


# -- splitting


def split(echoes: list[EchoServer], to: Any, **route: Any) -> dict[str, Any]:
    said = document(echoes[0].url, route=route)
    said["services"] = {
        name: {"instances": [server.url]}
        for name, server in zip(("blue", "green", "spare"), echoes, strict=True)
    }
    said["routes"][0]["to"] = to
    return said


def names(gateway, count: int, *lines: str) -> Counter[str]:
    """Which echo servers answered, and how often."""
    seen: Counter[str] = Counter()
    with gateway.client() as client:
        for _ in range(count):
            client.send(get("/", *lines))
            head, body = client.answer()
            assert head.status == 200
            seen[json.loads(body)["service"]] += 1
    return seen


def test_shares_of_requests_go_to_their_services(start, echoes):
    gateway = start(split(echoes, {"blue": "75%", "green": "25%"}))
    seen = names(gateway, 400)
    assert set(seen) == {"0", "1"}
    assert 250 < seen["0"] < 350
    for name, service in (("0", "blue"), ("1", "green")):
        assert gateway.count("headgate_http_requests_total", service=service) == seen[name]


def test_a_sticky_key_stays_with_its_service(start, echoes):
    gateway = start(
        split(echoes, {"blue": "50%", "green": "50%"}, split={"sticky": "header:x-user"})
    )
    for user in range(20):
        assert len(names(gateway, 5, f"x-user: {user}")) == 1


def test_a_pinned_header_goes_where_it_says(start, echoes):
    gateway = start(
        split(
            echoes,
            {"blue": "100%", "green": "0%"},
            split={"header": {"x-canary": {"1": "green"}}},
        )
    )
    assert set(names(gateway, 5, "x-canary: 1")) == {"1"}
    assert set(names(gateway, 5)) == {"0"}


# -- mirrors


def test_a_copy_goes_to_the_mirror_and_its_answer_nowhere(start, instance, other):
    said = document(instance, route={"mirror": {"to": "shadow"}})
    said["services"]["shadow"] = {"instances": [other.url]}
    gateway = start(said)
    with gateway.client() as client:
        client.send(request("POST", "/orders", body=b"one order"))
        peer = instance.accept()
        peer.until(b"one order")
        peer.send(response(b"real"))
        assert client.answer()[1] == b"real"
        copy = other.accept()
        assert b"POST /orders " in copy.until(b"one order")
        copy.send(response(b"never seen", status="500 Broken"))
        client.send(get("/next"))
        peer.until(b"\r\n\r\n")
        peer.send(response(b"real again"))
        assert client.answer()[1] == b"real again"
        copy.until(b"GET /next")
        copy.reset()
    gateway.assert_settles()


def test_a_mirror_that_does_not_answer_fills_its_bound_and_no_more(start, echo, instance):
    said = document(echo.url, route={"mirror": {"to": "shadow", "queue": 2}})
    said["services"]["shadow"] = {"instances": [instance.url]}
    gateway = start(said)
    assert sum(names(gateway, 6).values()) == 6
    assert gateway.count("headgate_policy_events_total", event="mirrored") == 2
    assert gateway.count("headgate_policy_events_total", event="mirrors_dropped") == 4


# -- affinity


def test_a_cookie_brings_a_client_back_to_its_instance(start, echoes):
    urls = [server.url for server in echoes]
    said = document(*urls, service={"affinity": {"cookie": "hg", "secret": "s" * 32}})
    gateway = start(said)
    head, body = gateway.ask(get())
    cookie = (head.get("set-cookie") or "").partition(";")[0]
    assert cookie.startswith("hg=")
    home = json.loads(body)["service"]
    assert str(echoes[int(home)].port) not in cookie
    assert set(names(gateway, 6, f"cookie: {cookie}")) == {home}
    # It survives a reload, and a client whose instance is gone gets a new home.
    gateway.apply({**said, "response_time": False})
    assert set(names(gateway, 3, f"cookie: {cookie}")) == {home}
    rest = [server.url for at, server in enumerate(echoes) if at != int(home)]
    gateway.apply(document(*rest, service={"affinity": {"cookie": "hg", "secret": "s" * 32}}))
    head, body = gateway.ask(get("/", f"cookie: {cookie}"))
    assert head.status == 200
    assert "set-cookie" in head


def test_a_forged_cookie_is_no_more_than_none(start, echoes):
    urls = [server.url for server in echoes]
    gateway = start(document(*urls, service={"affinity": {"cookie": "hg", "secret": "s" * 32}}))
    head, _ = gateway.ask(get("/", "cookie: hg=AAAA.BBBB.CCCC"))
    assert head.status == 200
    assert "set-cookie" in head


# -- balancing and health


@pytest.mark.parametrize(
    "by",
    ["round_robin", "least_connections", "power_of_two", "peak_ewma", "consistent_hash", "random"],
)
def test_every_balancer_serves(start, echoes, by):
    urls = [server.url for server in echoes]
    gateway = start(document(*urls, service={"balance": {"by": by}}))
    seen = names(gateway, 60)
    assert len(seen) == (1 if by == "consistent_hash" else 3)
    gateway.assert_settles()


def test_an_instance_that_keeps_failing_is_left_out(start, echo, instance):
    gateway = start(
        document(
            instance.url,
            echo.url,
            service={"outlier": {"errors": 3, "eject": "30s"}, "balance": {"panic": "0%"}},
        )
    )
    stop = threading.Event()

    def fail() -> None:
        while not stop.is_set():
            try:
                peer = instance.accept(wait_s=0.2)
                peer.until(b"\r\n\r\n")
                peer.send(response(b"", "connection: close", status="500 Broken"))
            except AssertionError:
                continue

    failing = threading.Thread(target=fail)
    failing.start()
    try:
        with gateway.client() as client:
            seen = []
            for _ in range(40):
                client.send(get())
                seen.append(client.answer()[0].status)
    finally:
        stop.set()
        failing.join()
    assert seen.count(500) == 3
    assert gateway.count("headgate_instance_usable", service_instance=instance.url) == 0


def test_an_instance_that_starts_down_waits_for_its_first_check(start, echo, instance):
    said = document(echo.url, instance.url, service={"health": {"path": "/", "start": "down"}})
    gateway = start(said)
    head, body = gateway.ask(get())
    assert head.status == 503
    assert "no instance" in json.loads(body)["detail"]
    heard = {"service": "upstream", "instance": echo.url, "up": True, "why": "passed"}
    gateway.on_loop(lambda: gateway.worker._states.news._on_health(heard))
    assert {gateway.ask(get())[0].status for _ in range(4)} == {200}


# -- faults and flags


def test_a_fault_aborts_and_delays_its_share(start, echo):
    fault = {"delay": "80ms", "delay_share": "100%", "abort": 418, "abort_share": "100%"}
    gateway = start(document(echo.url, route={"fault": fault}))
    began = monotonic()
    assert gateway.ask(get())[0].status == 418
    assert monotonic() - began > 0.07  # the loop keeps time in whole milliseconds
    gateway.assert_settles()


def test_a_fault_by_header_hits_only_those_that_carry_it(start, echo):
    fault = {"abort": 500, "abort_share": "100%", "header": {"x-chaos": "yes"}}
    gateway = start(document(echo.url, route={"fault": fault}))
    assert gateway.ask(get())[0].status == 200
    assert gateway.ask(get("/", "x-chaos: yes"))[0].status == 500


def test_a_client_that_leaves_during_a_delay_leaves_nothing(start, echo):
    gateway = start(document(echo.url, route={"fault": {"delay": "10s", "delay_share": "100%"}}))
    client = gateway.client()
    client.send(get())
    wait_until(lambda: gateway.in_flight == 1)
    client.reset()
    gateway.assert_settles()


def test_a_feature_that_is_off_answers_with_its_fallback(start, echo):
    said = document(
        echo.url, route={"flag": "hints", "fallback": {"respond": {"status": 200, "body": "[]"}}}
    )
    said["degrade"] = {"flags": {"hints": "off"}}
    gateway = start(said)
    assert gateway.ask(get())[1] == b"[]"
    said["degrade"] = {"flags": {"hints": "on"}}
    gateway.apply(said)
    assert json.loads(gateway.ask(get())[1])["path"] == "/"
