"""Hits that are at hand: the shortest way must never be a way around anything."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from time import monotonic
from typing import Any

import pytest

from headgate.wire.h2 import ErrorCode
from tests.gateway.caching.rig import FRESH, ask, cached, dated, filled, serve
from tests.gateway.entrance_rig import JWT, bearer
from tests.gateway.given_back import assert_all_given_back
from tests.gateway.h2_client import LIMITS, Client, Told
from tests.gateway.rig import Gateway, get, request, response, wait_until

pytestmark = pytest.mark.integration


def has_filled_its_window(stream: Told) -> bool:
    return len(stream.body) >= 65_535


def at_hand(gateway: Gateway) -> int:
    """Replies that hang on heads now."""
    count: int = gateway.on_loop(lambda: len(gateway.worker._caching._memos))
    return count


def test_hundreds_of_pipelined_hits_are_answered_in_order(start, instance):
    gateway = start(cached(instance))
    client = filled(gateway, instance)
    for _ in range(3):
        ask(client)
    client.send((get("/") + request("HEAD", "/")) * 1500)
    for _ in range(1500):
        assert client.answer()[1] == b"kept"
        assert client.head().get("content-length") == "4"
    assert gateway.count("headgate_cache_total", outcome="hit") == 3003
    assert_all_given_back(gateway)


def test_http10_and_connections_that_close_are_answered_as_they_ask(start, instance):
    gateway = start(cached(instance))
    filled(gateway, instance)
    old = b"GET / HTTP/1.0\r\nHost: h.example\r\n\r\n"
    for _ in range(3):
        client = gateway.client()
        client.send(old)
        head, body = client.answer()
        assert (body, head.get("connection")) == (b"kept", "close")
        assert client.is_closed()
        client = gateway.client()
        client.send(get("/", "Connection: close"))
        head, body = client.answer()
        assert (body, head.get("connection")) == (b"kept", "close")
        assert client.is_closed()
    assert instance.accepted[0].is_quiet()


def test_conditions_and_ranges_are_answered_again_and_again(start, instance):
    gateway = start(cached(instance))
    client = filled(gateway, instance, FRESH, 'ETag: "a"', body=b"0123456789")
    for _ in range(4):
        assert ask(client, "/", 'If-None-Match: "a"')[0].status == 304
        assert ask(client, "/", "Range: bytes=2-4")[1] == b"234"
        assert ask(client, "/", "Range: bytes=20-")[0].status == 416
        assert ask(client)[1] == b"0123456789"


def test_age_goes_on_and_freshness_ends(start, instance):
    gateway = start(cached(instance))
    client = filled(gateway, instance, "Cache-Control: max-age=2")
    seen: list[int] = []

    def is_over() -> bool:
        client.send(get("/"))
        wait_until(lambda: client.data or not client.is_quiet(0.002) or not peer.is_quiet(0.002))
        if not peer.is_quiet(0.002):
            return True
        head, _ = client.answer()
        seen.append(int(head.get("age") or -1))
        return False

    peer = instance.accepted[0]
    wait_until(is_over, 10)
    assert seen == sorted(seen)
    assert set(seen) in ({0, 1}, {0, 1, 2})
    assert seen[-1] <= 2
    peer.until(b"\r\n\r\n")
    peer.send(response(b"newer", FRESH))
    assert client.answer()[1] == b"newer"


def test_a_reload_that_asks_for_credentials_asks_at_once(start, instance):
    said = cached(instance)
    gateway = start(said)
    client = filled(gateway, instance)
    for _ in range(3):
        assert ask(client)[0].status == 200
    guarded = {**said, "auth": {"jwt": JWT}}
    guarded["routes"] = [{**said["routes"][0], "auth": "jwt"}]
    gateway.apply(guarded)
    for _ in range(3):
        assert ask(client)[0].status == 401
    gateway.apply(said)
    assert ask(client)[0].status == 200


def test_a_reload_that_takes_the_cache_away_takes_it_away(start, instance):
    said = cached(instance)
    gateway = start(said)
    client = filled(gateway, instance)
    for _ in range(3):
        assert ask(client)[1] == b"kept"
    gateway.apply({**said, "routes": [{"name": "all", "to": "upstream"}]})
    client.send(get("/"))
    serve(instance, response(b"asked"))
    head, body = client.answer()
    assert (body, "cache-status" in head) == (b"asked", False)


GUARDS: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {
    "auth": ({"auth": "jwt"}, {"auth": {"jwt": JWT}}, 401),
    "allow": ({"auth": "jwt", "allow": {"roles": ["admin"]}}, {"auth": {"jwt": JWT}}, 403),
    "addresses": (
        {"addresses": {"allow": ["192.0.2.0/24"]}},
        {"trusted_proxies": ["127.0.0.0/8"]},
        403,
    ),
    "bots": ({"bots": {"deny": ["tool"]}}, {}, 403),
    "limit": ({"limit": {"rate": "1/h", "by": "header:x-tenant"}}, {}, 429),
    "flag": ({"flag": "f"}, {"degrade": {"flags": {"f": "on"}}}, 200),
}


@pytest.mark.parametrize("guard", GUARDS)
def test_who_is_not_let_in_gets_nothing_that_is_held(start, instance, guard):
    """On every route that asks anything, the answer at hand is out of the question."""
    route, more, status = GUARDS[guard]
    said = cached(instance, **route)
    gateway = start({**said, **more})
    good: tuple[str, ...] = ("user-agent: Mozilla/5.0 (X11) Firefox/128.0", "accept: */*")
    bad: tuple[str, ...] = good
    match guard:
        case "auth" | "allow":
            good = (*good, bearer(sub="anna", roles=["admin"]))
            bad = (bearer(sub="ben", roles=["guest"]),) if guard == "allow" else ()
        case "addresses":
            good = (*good, "x-forwarded-for: 192.0.2.7")
            bad = (*bad, "x-forwarded-for: 198.51.100.7")
        case "bots":
            bad = ("user-agent: curl/8",)
        case "limit":
            good = (*good, "x-tenant: a")
            bad = good
    client = gateway.client()
    client.send(get("/", *good))
    serve(instance, response(b"inside", "Cache-Control: public, max-age=60", dated()))
    assert client.answer()[1] == b"inside"
    assert at_hand(gateway) == 0
    if guard != "limit":
        for _ in range(3):
            head, body = ask(client, "/", *good)
            assert (body, "; hit" in head.get("cache-status")) == (b"inside", True)
    assert at_hand(gateway) == 0
    for _ in range(3):
        assert ask(client, "/", *bad)[0].status == status
    assert instance.accepted[0].is_quiet()
    assert_all_given_back(gateway)


def test_who_is_banned_by_hand_gets_nothing_through_a_proxy(start, instance):
    gateway = start({**cached(instance), "trusted_proxies": ["127.0.0.0/8"], "bans": {"when": []}})
    client = gateway.client()
    client.send(get("/", "x-forwarded-for: 192.0.2.1"))
    serve(instance, response(b"kept", FRESH, dated()))
    assert client.answer()[1] == b"kept"
    for _ in range(3):
        assert ask(client, "/", "x-forwarded-for: 192.0.2.1")[1] == b"kept"
    bans = gateway.worker._entrance.parts.bans
    gateway.on_loop(lambda: bans.ban("192.0.2.1", 600.0, "a test", "hand", monotonic()))
    assert ask(client, "/", "x-forwarded-for: 192.0.2.1")[0].status == 403
    assert ask(client, "/", "x-forwarded-for: 192.0.2.2")[1] == b"kept"


def test_replies_are_taken_off_their_heads_in_time(start, instance):
    """A head may be kept for long, and must not hold what the store has let go."""
    gateway = start(cached(instance))
    client = gateway.client()
    for number in range(20):
        client.send(get(f"/{number}"))
        serve(instance, response(b"x" * 1000, FRESH, dated()))
        client.answer()
        for _ in range(3):
            ask(client, f"/{number}")
    assert at_hand(gateway) > 0
    wait_until(lambda: at_hand(gateway) == 0)

    def held() -> list[Any]:
        (listener,) = gateway.worker._listeners.values()
        heads = listener.site.heads
        found = [*heads.young.values(), *heads._old.values()]
        return [one.cached.reply for one in found if one.cached is not None]

    assert len(gateway.on_loop(held)) >= 20
    assert not any(gateway.on_loop(held))


def test_a_head_that_comes_but_once_has_nothing_kept_at_hand_for_it(start, instance):
    gateway = start(cached(instance))
    client = filled(gateway, instance)
    for number in range(20):
        assert ask(client, "/", f"x-number: {number}")[1] == b"kept"
        assert at_hand(gateway) == 0

    def is_kept_when_it_comes_again() -> bool:
        return ask(client, "/", "x-number: 7")[1] == b"kept" and at_hand(gateway) > 0

    wait_until(is_kept_when_it_comes_again)


def test_hits_over_http2_with_small_windows_and_many_streams(start, instance):
    body = bytes(range(256)) * 400
    gateway = start(cached(instance))
    filled(gateway, instance, FRESH, body=body)
    limits = replace(LIMITS, stream_window=65_535)
    with Client(gateway.port(), limits=limits) as client:
        streams = [client.ask(authority="h.example") for _ in range(30)]
        for stream in streams[::3]:
            stream.takes = False
        for stream in streams:
            if stream.takes:
                client.wait(stream)
                assert stream.body == body
        for stream in streams[::3]:
            client.until(partial(has_filled_its_window, stream))
            client.codec.reset(stream, ErrorCode.CANCEL)
        client.flush()
        assert client.wait(client.ask(authority="h.example")).body == body
    assert gateway.count("headgate_cache_total", outcome="hit") == 31
    assert_all_given_back(gateway)


def test_a_body_on_a_get_over_http2_goes_to_the_service(start, instance):
    gateway = start(cached(instance))
    filled(gateway, instance)
    with Client(gateway.port()) as client:
        for _ in range(3):
            assert client.wait(client.ask(authority="h.example")).body == b"kept"
        stream = client.ask(authority="h.example", body=b"fat")
        peer = instance.accepted[0]
        peer.until(b"fat")
        peer.send(response(b"other", FRESH))
        assert client.wait(stream).body == b"other"
        assert client.wait(client.ask(authority="h.example")).body == b"kept"
    assert_all_given_back(gateway)
