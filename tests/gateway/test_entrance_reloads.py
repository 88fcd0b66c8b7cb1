"""Reloads while people come in: nobody is turned away, told wrong, or kept in memory."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from headgate.errors import ConfigInvalid
from headgate.gateway.parts import WorkerParts
from tests.gateway.entrance_rig import JWT, bearer, foreign
from tests.gateway.given_back import assert_all_given_back
from tests.gateway.rig import Closed, document, get, wait_until

pytestmark = pytest.mark.integration


def guarded(upstream: str, said: dict[str, Any] | None = None, /, **route: Any) -> dict[str, Any]:
    made = document(upstream, route={"auth": "jwt", **route})
    return {**made, "auth": {"jwt": JWT, **(said or {})}}


def kinds(upstream: str, folder: Path) -> list[dict[str, Any]]:
    """Plans that let the same person in, each by other means."""
    keys = folder / "keys.yaml"
    keys.write_text(
        "keys:\n- {id: first, hash: 'sha256:" + "a" * 64 + "', consumer: shop}\n", encoding="utf-8"
    )
    lists = folder / "list.txt"
    lists.write_text("192.0.2.0/24\n")
    renamed = guarded(upstream, {"jwt": {**JWT, "name": "tokens"}}, auth="tokens")
    return [
        guarded(upstream),
        guarded(upstream, {"jwt": {**JWT, "leeway": "7s"}}),
        renamed,
        guarded(upstream, {"api_key": {"name": "keys", "file": str(keys)}}, auth=["keys", "jwt"]),
        guarded(upstream, bots={"deny": ["tool"]}, addresses={"deny_file": str(lists)}),
        guarded(upstream, plugins=[{"use": "tests.gateway.test_doors:Sees"}]),
        {**guarded(upstream, {"identity": {"token": {}}}), "state_dir": str(folder)},
        {
            **guarded(upstream, cors={"origins": ["https://a.example"]}, csrf=True),
            "bans": {"when": [{"kind": "status_404", "more_than": 9, "within": "1s", "ban": "1s"}]},
        },
        guarded(upstream, injection=True, allow={"subjects": ["ann"]}),
        guarded(upstream, {"default": {"methods": "jwt", "anonymous": True}}),
    ]


def test_a_storm_of_reloads_turns_nobody_away_and_leaves_nothing_behind(start, echo, tmp_path):
    plans = kinds(echo.url, tmp_path)
    gateway = start(plans[0])
    stop = threading.Event()
    found: list[int] = []
    wrong: list[str] = []

    def come(number: int) -> None:
        line = bearer(sub="ann", jti=str(number))
        client = gateway.client()
        while not stop.is_set():
            client.send(get(f"/{number}", line))
            try:
                found.append(client.answer()[0].status)
            except Closed as error:
                wrong.append(str(error))
                return

    people = [threading.Thread(target=come, args=(number,)) for number in range(3)]
    for each in people:
        each.start()
    sizes: list[tuple[int, ...]] = []
    try:
        for turn in range(4):
            for plan in plans if turn % 2 == 0 else reversed(plans):
                gateway.apply(plan)
            gateway.apply(plans[0])
            sizes.append(gateway.on_loop(lambda: size_of(gateway)))
    finally:
        stop.set()
        for each in people:
            each.join(8)
    assert wrong == []
    assert set(found) == {200}
    assert {seen.get("x-auth-subject") for seen in echo.seen} == {"ann"}
    assert all(seen.get("authorization") is None for seen in echo.seen)

    def settled() -> bool:
        now = gateway.on_loop(lambda: size_of(gateway))
        return all(a <= b for a, b in zip(now, sizes[0], strict=True))

    wait_until(settled)
    assert_all_given_back(gateway)


def size_of(gateway) -> tuple[int, ...]:
    """Tasks beside those of connections, and what parts hold."""
    parts = gateway.worker._entrance.parts
    return (
        len(asyncio.all_tasks()),
        len(parts._hearers),
        len(parts._kept),
        len(gateway.worker._entrance._methods),
        len(gateway.worker._entrance._loans),
    )


BROKEN: dict[str, dict[str, Any]] = {
    "no-file": {"api_key": {"name": "keys", "file": "/nowhere/keys.yaml"}},
    "not-a-key": {"jwt": {**JWT, "secret": None, "keys_file": "/etc/hostname"}},
    "no-identity-key": {"identity": {"token": {"key_file": "/etc/hostname"}}},
    "short": {"jwt": {**JWT, "secret": "short"}},
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_plan_that_is_refused_changes_nothing(start, echo, broken):
    gateway = start(guarded(echo.url))
    line = bearer(sub="ann")
    client = gateway.client()
    for _ in range(5):
        made = guarded(echo.url, {k: v for k, v in BROKEN[broken].items() if v is not None})
        if made["auth"]["jwt"].get("secret", "") is None:
            del made["auth"]["jwt"]["secret"]
            del made["auth"]["jwt"]["algorithms"]
        before = gateway.on_loop(lambda: size_of(gateway))
        with pytest.raises(ConfigInvalid):
            gateway.apply(made)
        assert gateway.on_loop(lambda: size_of(gateway)) == before
        client.send(get("/", line))
        assert client.answer()[0].status == 200
        assert gateway.ask(get("/"))[0].status == 401


def test_an_address_shut_out_stays_so_over_reloads(start, echo, tmp_path):
    made = {**guarded(echo.url), "bans": {"when": [], "loopback": True},
            "trusted_proxies": ["127.0.0.1"]}  # fmt: skip
    gateway = start(made)
    bans = gateway.worker._entrance.parts.bans
    raw = get("/", bearer(sub="ann"), "x-forwarded-for: 192.0.2.1")
    gateway.on_loop(lambda: bans.ban("192.0.2.1", 600.0, "a test"))
    for reload in (made, {**made, "bans": False}, made):
        gateway.apply(reload)
        for _ in range(3):
            assert gateway.ask(raw)[0].status == 403


# -- what is lent ----------------------------------------------------------------------------------


class Board:
    def __init__(self) -> None:
        self.hearers: list[tuple[str, Any]] = []

    def publish(self, topic: str, message: Any, *, retain: str | None = None) -> None:
        for known, hear in list(self.hearers):
            if known == topic:
                hear(message)

    def subscribe(self, topic: str, hear: Any) -> Any:
        pair = (topic, hear)
        self.hearers.append(pair)
        return lambda: self.hearers.remove(pair) if pair in self.hearers else None

    def forget(self, topic: str, retain: str) -> None: ...


def test_boards_that_come_and_go_hold_nobody():
    hub = Board()
    heard: list[Any] = []
    parts = WorkerParts(lambda work: work.close(), lambda: hub)
    parts.listen(hub)
    loan = parts.lend()
    loan.subscribe("t", heard.append)
    for _ in range(30):
        redis = Board()
        parts.listen(redis)
        redis.publish("t", {"from": "redis"})
        parts.leave(redis)
        assert redis.hearers == []
    hub.publish("t", {"from": "hub"})
    assert len(heard) == 31
    assert len(parts._hearers[0]._ends) == 1
    loan.end()
    assert (hub.hearers, parts._hearers) == ([], [])


def test_who_asks_to_hear_after_the_loan_is_over_hears_nothing():
    """A task of a filter may outlive the plan that it was for."""
    hub = Board()
    parts = WorkerParts(lambda work: work.close(), lambda: hub)
    parts.listen(hub)
    loan = parts.lend()
    loan.end()
    loan.subscribe("t", lambda message: None)
    assert (hub.hearers, parts._hearers) == ([], [])


def test_what_nobody_asks_for_any_more_is_let_go_and_closed():
    closed = []

    class Thing:
        def close(self) -> None:
            closed.append(self)

    parts = WorkerParts(lambda work: work.close(), lambda: None)
    stays, goes = parts.lend(), parts.lend()
    parts.begin()
    kept = stays.keep(("a",), Thing)
    gone = goes.keep(("b",), Thing)
    parts.settle()
    parts.begin()
    stays.renew()
    goes.end()
    parts.settle()
    assert closed == [gone]
    assert stays.keep(("a",), Thing) is kept


# -- methods that go while somebody waits for them -------------------------------------------------


@pytest.mark.parametrize("goes", ["changed", "removed"])
def test_who_waits_for_keys_of_a_method_that_goes_is_answered(start, echo, instance, goes):
    """The keys are slow, and the plan that wants them is replaced meanwhile."""
    jwt = {
        "keys": f"{instance.url}/keys",
        "issuer": "https://id.example",
        "audience": "*",
        "algorithms": "ES256",
        "wait": "2s",
    }
    made = {**document(echo.url, route={"auth": "jwt"}), "auth": {"jwt": jwt}}
    gateway = start(made)
    fetch = instance.accept()
    fetch.until(b"\r\n\r\n")
    client = gateway.client()
    client.send(get("/", foreign(sub="ann", iss="https://id.example")))
    wait_until(lambda: gateway.in_flight == 1)
    if goes == "changed":
        gateway.apply({**made, "auth": {"jwt": {**jwt, "leeway": "9s"}}})
    else:
        gateway.apply(document(echo.url))
    head, _ = client.answer()
    assert head.status in {401, 503}
    fetch.close()
    assert_all_given_back(gateway)


@pytest.mark.parametrize("goes", ["changed", "removed"])
def test_who_waits_for_the_issuer_of_a_method_that_goes_is_answered(start, echo, instance, goes):
    said = {
        "url": f"{instance.url}/introspect",
        "client_id": "gateway",
        "client_secret": "a secret of the gateway",
        "timeout": "2s",
    }
    made = {**document(echo.url, route={"auth": "introspection"}), "auth": {"introspection": said}}
    gateway = start(made)
    client = gateway.client()
    client.send(get("/", "authorization: Bearer opaque-token-of-ann"))
    asked = instance.accept()
    assert b"opaque-token-of-ann" in asked.until(b"opaque-token-of-ann")
    if goes == "changed":
        gateway.apply({**made, "auth": {"introspection": {**said, "timeout": "3s"}}})
    else:
        gateway.apply(document(echo.url))
    asked.send(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 29\r\n\r\n"
        b'{"active":true, "sub": "ann"}'
    )
    head, _ = client.answer()
    assert head.status in {200, 401, 503}
    assert_all_given_back(gateway)


def test_who_waits_for_a_password_of_a_method_that_goes_is_answered(start, echo):
    import base64

    from argon2 import PasswordHasher

    hashed = PasswordHasher(time_cost=2, memory_cost=16384, parallelism=1).hash("open sesame")
    made = document(echo.url, route={"auth": "people"})
    made["auth"] = {"basic": {"name": "people", "users": {"ann": hashed}}}
    gateway = start(made)
    line = "authorization: Basic " + base64.b64encode(b"ann:open sesame").decode()
    for turn in range(4):
        clients = [gateway.client() for _ in range(5)]
        for client in clients:
            client.send(get("/", line))
        made["auth"]["basic"]["realm"] = f"r{turn}"
        gateway.apply(made)
        assert {client.answer()[0].status for client in clients} <= {200, 503}
    assert gateway.ask(get("/", line))[0].status == 200
    assert_all_given_back(gateway)
