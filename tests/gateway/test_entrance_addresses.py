"""Addresses at the entrance: lists, bans, and who is behind whom."""

from __future__ import annotations

import socket
from pathlib import Path
from time import monotonic

import pytest

from headgate.config.guarding import BansSpec
from tests.gateway.entrance_rig import status
from tests.gateway.given_back import assert_all_given_back
from tests.gateway.rig import Peer, document, get, request, response

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("192.0.2.66", 403),
        ("::ffff:192.0.2.66", 403),
        ("::FFFF:C000:0242", 403),
        ("[::ffff:192.0.2.66]:80", 403),
        ("192.0.2.66:1234", 403),
        ("203.0.113.9, 192.0.2.66", 403),
        ("192.0.2.66, 203.0.113.9", 200),
        ("2001:db8::66", 403),
        ("2001:DB8:0:0::66", 403),
        ("192.0.2.1", 200),
    ],
)
def test_one_address_has_one_meaning(start, echo, said, found):
    route = {"addresses": {"deny": ["192.0.2.66", "2001:db8::66"]}}
    gateway = start(document(echo.url, route=route, trusted_proxies=["127.0.0.1"]))
    for _ in range(2):
        assert status(gateway, get("/", f"x-forwarded-for: {said}")) == found


def test_a_unix_socket_is_no_address(start, echo, tmp_path: Path):
    bind = f"unix:{tmp_path / 's'}"
    made = document(echo.url)
    made["listeners"] = [{"bind": bind}]
    made["bans"] = {
        "when": [{"kind": "status_404", "more_than": 1, "within": "1min", "ban": "1h"}],
        "loopback": True,
    }
    made["routes"] = [
        {"match": {"path": "/allow/"}, "to": "upstream", "addresses": {"allow": ["192.0.2.0/24"]}},
        {"match": {"path": "/deny/"}, "to": "upstream", "addresses": {"deny": ["192.0.2.0/24"]}},
    ]
    start(made)

    def ask(path: str) -> int:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(bind.removeprefix("unix:"))
        with Peer(sock) as peer:
            peer.send(get(path))
            return peer.answer()[0].status

    assert [ask("/none") for _ in range(5)] == [404] * 5
    assert (ask("/allow/"), ask("/deny/")) == (403, 200)


def test_who_is_banned_by_hand_is_shut_out_on_open_connections_too(start, echo):
    """Also where the file says nothing of bans, and behind a proxy that is trusted."""
    gateway = start(document(echo.url, trusted_proxies=["127.0.0.1"]))
    bans = gateway.worker._entrance.parts.bans
    client = gateway.client()
    for ip, found in (("192.0.2.1", 200), ("192.0.2.2", 200)):
        client.send(get("/", f"x-forwarded-for: {ip}"))
        assert client.answer()[0].status == found
    gateway.on_loop(lambda: bans.ban("192.0.2.1", 600.0, "a test", "hand", monotonic()))
    for ip, found in (("192.0.2.2", 200), ("192.0.2.1", 403)):
        client = gateway.client()
        client.send(get("/", f"x-forwarded-for: {ip}"))
        head, _ = client.answer()
        assert head.status == found
    assert int(head.get("retry-after") or 0) > 500


def test_a_ban_by_hand_ends_connections_that_are_open(start, instance):
    gateway = start(document(instance.url))
    bans = gateway.worker._entrance.parts.bans
    # This machine is exempt unless the file says otherwise.
    rules = BansSpec(when=(), loopback=True).rules(())
    idle, busy = gateway.client(), gateway.client()
    for client in (idle, busy):
        client.send(get("/"))
        with instance.accept() as peer:
            peer.until(b"\r\n\r\n")
            peer.send(response(b"ok", "Connection: close"))
        assert client.answer()[0].status == 200
    busy.send(request("POST", "/", "content-length: 10"))

    def ban() -> None:
        bans.take_rules(rules, monotonic())
        bans.ban("127.0.0.1", 600.0, "a test", "hand", monotonic())

    gateway.on_loop(ban)
    assert idle.is_closed()
    assert busy.is_closed()
    assert gateway.client().answer()[0].status == 403
    assert_all_given_back(gateway)


@pytest.mark.parametrize(
    "source", ["TCP4 192.0.2.66", "TCP6 ::ffff:192.0.2.66", "TCP6 ::ffff:c000:242"]
)
@pytest.mark.parametrize("rules", [True, False], ids=["rules", "by-hand-alone"])
def test_a_ban_holds_for_whom_a_proxy_introduces(start, echo, source, rules):
    made = document(echo.url, listener={"proxy_protocol": True}, trusted_proxies=["127.0.0.1"])
    if rules:
        made["bans"] = {"when": []}
    gateway = start(made)
    bans = gateway.worker._entrance.parts.bans
    words = source.split()
    line = f"PROXY {words[0]} {words[1]} {words[1]} 1234 80\r\n".encode()
    assert status(gateway, line + get("/")) == 200
    open_one = gateway.client()
    open_one.send(line + get("/"))
    assert open_one.answer()[0].status == 200
    gateway.on_loop(lambda: bans.ban("192.0.2.66", 600.0, "a test", "hand", monotonic()))
    for raw in (line, line + get("/")):
        with gateway.client() as client:
            client.send(raw)
            head, _ = client.answer()
            assert (head.status, head.get("connection")) == (403, "close")
    if rules:
        open_one.send(get("/"))
        assert open_one.answer()[0].status == 403
    else:
        assert open_one.is_closed()
    assert status(gateway, b"PROXY TCP4 192.0.2.67 192.0.2.1 1234 80\r\n" + get("/")) == 200
