"""A cache beside everything else that a route may ask for: what each of them counts, and when."""

from __future__ import annotations

import json
from time import monotonic
from typing import Any

import pytest

from tests.gateway.caching.rig import BEHIND, FRESH, ask, asked, cached, dated, filled, serve
from tests.gateway.given_back import assert_all_given_back
from tests.gateway.h2_client import Client
from tests.gateway.rig import (
    DEAD,
    NO_WAIT,
    Gateway,
    get,
    request,
    response,
    wait_until,
)

pytestmark = pytest.mark.integration


def outcomes(gateway: Gateway) -> dict[str, int]:
    said: dict[str, int] = gateway.on_loop(
        lambda: gateway.worker._caching.snapshot()["routes"]["all"]
    )
    return {name: count for name, count in said.items() if count}


# -- what is counted


def test_every_request_has_one_outcome(start, instance):
    gateway = start(cached(instance))
    client = filled(gateway, instance)  # miss
    for _ in range(4):
        ask(client)  # hit
    client.send(request("POST", "/other", body=b"x"))  # pass
    serve(instance, response(b"done"), mark=b"\r\n\r\nx")
    client.answer()
    ask(client, "/none", "Cache-Control: only-if-cached")  # refused
    waiting = [asked(gateway, "/shared") for _ in range(3)]  # miss, collapsed
    serve(instance, response(b"shared", FRESH))
    for each in waiting:
        each.answer()
    waiting = [asked(gateway, "/own") for _ in range(2)]  # miss, alone
    for _ in waiting:
        serve(instance, response(b"own", "Cache-Control: private"))
    for each in waiting:
        each.answer()
    assert_all_given_back(gateway)
    said = outcomes(gateway)
    assert said.pop("stored") == 2
    assert said == {"miss": 3, "hit": 4, "pass": 1, "refused": 1, "collapsed": 2, "alone": 1}
    assert sum(said.values()) == 12


def test_those_who_share_a_failure_are_counted_once_each(start, instance):
    gateway = start(cached(instance))
    waiting = [asked(gateway) for _ in range(3)]
    peer = instance.accept()
    peer.until(b"\r\n\r\n")
    peer.send(b"nonsense\r\n\r\n")
    assert [each.answer()[0].status for each in waiting] == [502] * 3
    assert outcomes(gateway) == {"miss": 1, "collapsed": 2}
    assert_all_given_back(gateway)


def test_the_log_tells_which_instance_answered_and_how_often_it_was_asked(start, pair, tmp_path):
    said = cached(*pair, retry=NO_WAIT)
    pair[0].sock.close()
    log = tmp_path / "access.log"
    gateway = start({**said, "access_log": {"format": "json", "path": str(log)}})
    first, second = asked(gateway), asked(gateway)
    serve(pair[1], response(b"12345", FRESH))
    assert [first.answer()[1], second.answer()[1]] == [b"12345"] * 2
    ask(first)

    def lines() -> list[dict[str, Any]]:
        text = log.read_text() if log.exists() else ""
        return [json.loads(line) for line in text.splitlines()]

    wait_until(lambda: len(lines()) == 3)
    told = lines()
    assert [line["status"] for line in told] == [200] * 3
    assert [line["bytes_out"] for line in told] == [5] * 3
    home = pair[1].url
    assert [line.get("instance") or "" for line in told] == [home, home, ""]
    assert [bool(line.get("error")) for line in told] == [False] * 3
    assert all(line["upstream_ms"] is not None for line in told[:2])
    assert told[2].get("upstream_ms") is None
    assert_all_given_back(gateway)


def test_explain_tells_of_a_hit_what_there_is_to_tell(start, instance):
    gateway = start({**cached(instance), "explain_token": "let-me-see-0123456789"})
    line = "x-headgate-explain: let-me-see-0123456789"
    client = gateway.client()
    client.send(get("/", line))
    serve(instance, response(b"kept", FRESH, dated()))
    assert "instance=" in client.answer()[0].get("x-headgate-explain")
    for _ in range(3):
        head, body = ask(client, "/", line)
        assert body == b"kept"
        assert "route=" in head.get("x-headgate-explain")
        assert "instance=" not in head.get("x-headgate-explain")
    assert "x-headgate-explain" not in ask(client)[0]


@pytest.mark.parametrize("how", ["fill", "validation"])
def test_the_price_of_a_response_is_paid_once(start, instance, how):
    limit = {"rate": "10/h", "cost": {"header": "x-cost"}, "by": "header:x-tenant"}
    gateway = start(cached(instance, limit=limit))
    if how == "validation":
        lines = ("Cache-Control: max-age=1", "Age: 100", 'ETag: "a"')
        filled(gateway, instance, *lines, asks=("x-tenant: z",))
    first, second = asked(gateway, "/", "x-tenant: a"), asked(gateway, "/", "x-tenant: b")
    if how == "fill":
        serve(instance, response(b"kept", FRESH, "x-cost: 10"))
    else:
        new = f'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\n{FRESH}\r\nx-cost: 10\r\n\r\n'
        serve(instance, new.encode())
    for client in (first, second):
        head, body = client.answer()
        assert (body, "x-cost" in head) == (b"kept", False)
    statuses = {name: ask(first, "/", f"x-tenant: {name}")[0].status for name in "ab"}
    assert statuses == {"a": 429, "b": 200}
    assert_all_given_back(gateway)


# -- trouble


def test_an_open_breaker_leaves_what_is_stale(start, instance):
    breaker = {"failure_rate": "1%", "window": 100, "minimum_calls": 3, "reset_after": "1h"}
    said = cached(instance)
    said["services"]["upstream"]["breaker"] = breaker
    gateway = start(said)
    client = filled(gateway, instance, "Cache-Control: max-age=0, stale-if-error=60")
    for _ in range(2):
        client.send(get("/other"))
        serve(instance, response(b"", status="500 Oops"))
        client.answer()
    head, body = ask(client)
    assert (head.status, body) == (200, b"kept")
    assert ask(client, "/none")[0].status == 503
    assert instance.accepted[0].is_quiet()
    assert_all_given_back(gateway)


@pytest.mark.parametrize("cause", ["full", "dead", "no-instance"])
def test_whatever_refuses_a_fill_leaves_what_is_stale(start, instance, cause):
    said = cached(instance, concurrency={"limit": 1, "queue": 0} if cause == "full" else False)
    gateway = start(said)
    client = filled(gateway, instance, "Cache-Control: max-age=0, stale-if-error=60")
    busy = None
    if cause == "full":
        busy = asked(gateway, "/busy")
    else:
        said["services"]["upstream"]["instances"] = [DEAD] if cause == "dead" else []
        if cause == "dead":
            gateway.apply(said)
        else:
            instance.accepted[0].close()
            instance.sock.close()
    waiting = [client, gateway.client(), gateway.client()]
    for each in waiting:
        each.send(get("/"))
    for each in waiting:
        head, body = each.answer()
        assert (head.status, body) == (200, b"kept")
    if busy is not None:
        busy.reset()
    assert_all_given_back(gateway)


def test_the_level_stale_serves_what_is_held_whatever_its_age(start, instance):
    said = cached(instance, rules={"trouble_ttl": "60s"})
    gateway = start({**said, "degrade": {}})
    client = filled(gateway, instance, "Cache-Control: max-age=1", "Age: 100", 'ETag: "a"')
    degrade = gateway.worker._states.degrade
    gateway.on_loop(lambda: degrade.set("hand", 1, monotonic(), "a test"))
    for _ in range(3):
        head, body = ask(client)
        assert (body, "; hit; ttl=" in head.get("cache-status")) == (b"kept", True)
    assert instance.accepted[0].is_quiet()
    client.send(get("/silent"))
    serve(instance, response(b"says nothing"))
    assert client.answer()[1] == b"says nothing"
    assert "; hit" in ask(client, "/silent")[0].get("cache-status")
    gateway.on_loop(lambda: degrade.set("hand", 0, monotonic(), "a test"))
    client.send(get("/"))
    serve(instance, response(b"newer", FRESH))
    assert client.answer()[1] == b"newer"


def test_a_clients_own_deadline_ends_its_waiting_and_not_the_fill(start, instance):
    gateway = start(cached(instance))
    hasty = asked(gateway, "/", "x-headgate-deadline: 50")
    patient = asked(gateway)
    peer = instance.accept()
    assert b"deadline" not in peer.until(b"\r\n\r\n")
    assert hasty.answer()[0].status == 504
    peer.send(response(b"kept", FRESH))
    assert patient.answer()[1] == b"kept"
    assert instance.is_left_alone()
    assert_all_given_back(gateway)


def test_the_time_of_a_fill_is_that_of_the_one_who_asked(start, instance):
    """Its service's time-out is told to a breaker, and to everybody who waits."""
    gateway = start(cached(instance, timeout="300ms"))
    waiting = [asked(gateway) for _ in range(3)]
    peer = instance.accept()
    peer.until(b"\r\n\r\n")
    assert [each.answer()[0].status for each in waiting] == [504] * 3
    assert peer.is_closed()
    assert gateway.count("headgate_timeouts_total", kind="upstream") == 1
    assert_all_given_back(gateway)


def test_many_stale_keys_at_once_are_made_anew_within_a_bound(start, instance, monkeypatch):
    from headgate.gateway.caching import caching

    monkeypatch.setattr(caching, "_BEHIND_MAX", 3)
    gateway = start(cached(instance))
    client = gateway.client()
    for number in range(6):
        client.send(get(f"/{number}"))
        serve(instance, response(b"kept", BEHIND, dated()))
        client.answer()
    for number in range(6):
        assert ask(client, f"/{number}")[1] == b"kept"
    assert gateway.in_flight == 3
    peers = [instance.accepted[0], instance.accept(), instance.accept()]
    assert instance.is_left_alone()
    for peer in peers:
        peer.until(b"\r\n\r\n")
    for peer in peers:
        peer.send(response(b"newer", FRESH, dated()))
    wait_until(lambda: gateway.in_flight == 0)
    assert [ask(client, f"/{number}")[1] for number in range(3)] == [b"newer"] * 3
    assert_all_given_back(gateway)


def test_a_fill_behind_that_hangs_holds_up_nobody_for_long(start, instance):
    rules = {"collapse_wait": "100ms"}
    gateway = start(cached(instance, rules=rules))
    client = filled(gateway, instance, BEHIND)
    for _ in range(3):
        assert ask(client)[1] == b"kept"
    slow = instance.accepted[0]
    slow.until(b"\r\n\r\n")
    head, body = ask(client, "/", "Cache-Control: only-if-cached")
    assert (head.status, body) == (200, b"kept")
    client.send(get("/", "Cache-Control: max-age=0"))
    quick = instance.accept()
    quick.until(b"\r\n\r\n")
    quick.send(response(b"alone", FRESH))
    assert client.answer()[1] == b"alone"
    slow.send(response(b"newer", FRESH, dated()))
    wait_until(lambda: gateway.in_flight == 0)
    assert ask(client)[1] == b"newer"
    assert_all_given_back(gateway)


@pytest.mark.parametrize("ends", ["answered", "left"])
def test_a_fill_is_hedged_as_the_route_says(start, pair, ends):
    gateway = start(cached(*pair, hedge={"after": "20ms"}))
    waiting = [asked(gateway) for _ in range(3)]
    peers = [one.accept() for one in pair]
    for peer in peers:
        peer.until(b"\r\n\r\n")
    if ends == "left":
        for each in waiting:
            each.reset()
    else:
        peers[1].send(response(b"shared", FRESH))
        assert [each.answer()[1] for each in waiting] == [b"shared"] * 3
    assert peers[0].is_closed()
    if ends == "left":
        assert peers[1].is_closed()
    assert_all_given_back(gateway)


def test_a_try_of_a_fill_that_takes_too_long_is_repeated_for_all(start, pair):
    said = cached(*pair, retry=NO_WAIT, timeout={"total": "20s", "per_try": "100ms"})
    gateway = start(said)
    waiting = [asked(gateway) for _ in range(2)]
    peers = [one.accept() for one in pair]
    for peer in peers:
        peer.until(b"\r\n\r\n")
    peers[-1].try_send(response(b"second", FRESH))
    statuses = {each.answer()[0].status for each in waiting}
    assert len(statuses) == 1
    assert_all_given_back(gateway)


# -- reloads and the end


@pytest.mark.parametrize("change", ["route", "cache", "rules", "service"])
def test_a_reload_in_the_middle_of_a_fill_harms_nobody(start, pair, change):
    said = cached(pair[0])
    gateway = start(said)
    waiting = [asked(gateway), asked(gateway)]
    peer = pair[0].accept()
    peer.until(b"\r\n\r\n")
    peer.send(f"HTTP/1.1 200 OK\r\n{FRESH}\r\nContent-Length: 6\r\n\r\nxyz".encode())
    for each in waiting:
        each.until(b"xyz")
    new = json.loads(json.dumps(said))
    match change:
        case "route":
            new["routes"] = [{"name": "other", "match": {"path": "/other"}, "to": "upstream"}]
        case "cache":
            new["routes"][0]["cache"] = False
        case "rules":
            new["routes"][0]["cache"] = {"key": {"query": "none"}, "collapse": False}
        case "service":
            new["services"] = {"new": {"instances": [pair[1].url]}}
            new["routes"][0]["to"] = "new"
    gateway.apply(new)
    peer.send(b"uvw")
    assert [each.exactly(3) for each in waiting] == [b"uvw"] * 2
    wait_until(lambda: gateway.in_flight == 0)
    assert gateway.errors == []
    client = gateway.client()
    client.send(get("/"))
    if change == "route":
        assert client.answer()[0].status == 404
        return
    if change == "service":
        serve(pair[1], response(b"other"))
    else:
        peer.until(b"\r\n\r\n")
        peer.send(response(b"other"))
    assert client.answer()[1] == b"other"


def test_who_reads_is_let_finish_when_the_gateway_ends(start, instance):
    gateway = start(cached(instance))
    waiting = [asked(gateway), asked(gateway)]
    peer = instance.accept()
    peer.until(b"\r\n\r\n")
    peer.send(f"HTTP/1.1 200 OK\r\n{FRESH}\r\nContent-Length: 6\r\n\r\nxyz".encode())
    for each in waiting:
        each.until(b"xyz")
    gateway.on_loop(lambda: [listener.drain() for listener in gateway.worker._listeners.values()])
    peer.send(b"uvw")
    for each in waiting:
        assert each.exactly(3) == b"uvw"
    assert gateway.errors == []


def test_an_unsafe_method_over_http2_forgets_as_well(start, instance):
    gateway = start(cached(instance))
    with Client(gateway.port()) as client:
        peer = None
        for method, body in (("GET", b"old"), ("PUT", b"done"), ("GET", b"new")):
            sent = b"x" if method == "PUT" else b""
            stream = client.ask(method, authority="h.example", body=sent)
            peer = peer or instance.accept()
            peer.until(b"\r\n\r\n" if method == "GET" else b"0\r\n\r\n")
            peer.send(response(body, FRESH, dated()))
            assert client.wait(stream).body == body
        assert client.wait(client.ask(authority="h.example")).body == b"new"
    assert_all_given_back(gateway)
