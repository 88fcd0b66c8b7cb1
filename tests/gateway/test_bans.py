"""Bans, address lists and bots at a running gateway."""

from __future__ import annotations

from time import monotonic
from typing import Any

import pytest

from headgate.testing import EchoServer
from tests.gateway.rig import document, get, wait_until

pytestmark = pytest.mark.integration

BROWSER = (
    "user-agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "accept: text/html",
    "accept-language: en",
    "accept-encoding: gzip",
)


def banning(echo: EchoServer, *rules: dict[str, Any], **more: Any) -> dict[str, Any]:
    bans = {"when": list(rules), "loopback": True, **more}
    made = document(echo.url, route={"match": {"path": "/known/"}})
    return {**made, "bans": bans, "trusted_proxies": ["127.0.0.0/8"]}


def status(gateway, ip: str, path: str = "/known/", *lines: str) -> int:
    client = gateway.client()
    client.send(get(path, f"x-forwarded-for: {ip}", *lines))
    return client.answer()[0].status


def test_who_scans_for_paths_is_shut_out(start, echo):
    rule = {"kind": "status_404", "more_than": 5, "within": "1min", "ban": "10min"}
    gateway = start(banning(echo, rule))
    assert status(gateway, "192.0.2.1") == 200
    for number in range(6):
        assert status(gateway, "192.0.2.1", f"/wp-{number}") == 404
    assert status(gateway, "192.0.2.1") == 403
    assert status(gateway, "192.0.2.1", "/wp-7") == 403
    assert status(gateway, "192.0.2.2") == 200


def test_bad_tokens_count_and_a_missing_one_does_not(start, echo):
    rule = {"kind": "bad_credentials", "more_than": 3, "within": "1min", "ban": "10min"}
    made = banning(echo, rule)
    made["auth"] = {"default": "jwt", "jwt": {"secret": "s" * 40, "audience": "*"}}
    gateway = start(made)
    for _ in range(6):
        assert status(gateway, "192.0.2.1") == 401
    for _ in range(4):
        assert status(gateway, "192.0.2.1", "/known/", "authorization: Bearer a.b.c") == 401
    assert status(gateway, "192.0.2.1") == 403


def test_those_who_are_cut_off_are_counted_together(start, echo):
    """By address there would be as many counters as there are attackers."""
    rule = {"kind": "status_404", "more_than": 1, "within": "1min", "ban": "10min"}
    made = banning(echo, rule, answer="cut")
    made["routes"][0]["addresses"] = {"deny": ["198.51.100.0/24"], "answer": "cut"}
    gateway = start(made)
    for number in range(5):
        ip = f"192.0.2.{number}"
        for _ in range(2):
            assert status(gateway, ip, "/nowhere") == 404
        for address in (ip, f"198.51.100.{number}"):
            client = gateway.client()
            client.send(get("/known/", f"x-forwarded-for: {address}"))
            assert client.is_closed()
    rows = gateway.on_loop(gateway.worker.snapshot)["rows"]
    assert "192.0.2" not in str(rows)
    assert "198.51.100" not in str(rows)


def test_a_trusted_proxy_is_never_banned(start, echo):
    rule = {"kind": "status_404", "more_than": 1, "within": "1min", "ban": "10min"}
    gateway = start(banning(echo, rule))
    for _ in range(5):
        client = gateway.client()
        client.send(get("/nowhere"))
        assert client.answer()[0].status == 404


def test_a_ban_by_hand_shuts_the_door(start, echo):
    gateway = start({**document(echo.url), "bans": {"when": [], "loopback": True}})
    client = gateway.client()
    client.send(get("/"))
    assert client.answer()[0].status == 200
    bans = gateway.worker._entrance.parts.bans
    gateway.on_loop(lambda: bans.ban("127.0.0.1", 600.0, "a test", "hand", monotonic()))
    head, _ = gateway.client().answer()
    assert (head.status, head.get("connection")) == (403, "close")
    client.send(get("/"))
    assert client.answer()[0].status == 403
    gateway.on_loop(lambda: bans.lift("127.0.0.1", monotonic()))
    assert gateway.ask(get("/"))[0].status == 200


def test_lists_of_addresses_hold(start, echo):
    route = {"addresses": {"allow": ["192.0.2.0/24"], "deny": ["192.0.2.66"]}}
    gateway = start({**document(echo.url, route=route), "trusted_proxies": ["127.0.0.0/8"]})
    found = [status(gateway, ip) for ip in ("192.0.2.1", "192.0.2.66", "198.51.100.1")]
    assert found == [200, 403, 403]


def test_bots_are_refused_and_tagged(start, echo):
    route = {"bots": {"deny": ["tool"], "tag": "x-bot"}}
    gateway = start(document(echo.url, route=route))
    client = gateway.client()
    client.send(get("/", "user-agent: curl/8.5.0", "accept: */*"))
    assert client.answer()[0].status == 403
    client.send(get("/", *BROWSER, "x-bot: search"))
    assert client.answer()[0].status == 200
    assert echo.seen[-1].get("x-bot") == "browser"
    wait_until(lambda: gateway.count("headgate_guard_decisions_total") >= 1)
