"""What is kept with a request's head: never longer, and never for others, than it holds."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from jwt import decode

from headgate.gateway import doors
from headgate.security.identity import Identity
from headgate.security.method import Finding, Method, Refused, Strips, Verified, header
from headgate.security.tokens.revocations import TOPIC, revocation
from tests.gateway.entrance_rig import JWT, bearer, use_methods
from tests.gateway.given_back import assert_all_given_back
from tests.gateway.h2_client import Client
from tests.gateway.rig import document, get, request, wait_until

pytestmark = pytest.mark.integration


class Wall:
    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


class Counting(Method):
    """Takes `x-user` for granted and counts how often it was asked."""

    strips = Strips(headers=frozenset({b"x-user"}))
    challenge = "Counting"

    def __init__(self, name: str) -> None:
        self.name = name
        self.looks = 0
        self.lasts_s = 60.0
        self.roles: frozenset[str] = frozenset()
        self.refuses: set[str] = set()

    def verify(self, shown: Any, wall: float) -> Finding:
        user = header(shown, b"x-user")
        if user is None:
            return None
        self.looks += 1
        if user.decode() in self.refuses:
            return Refused("unknown", "not known any more")
        until = wall + self.lasts_s if self.lasts_s else 0.0
        return Verified(Identity(user.decode(), method=self.name, roles=self.roles), until)


class ByAddress(Counting):
    """Says who asks by the address alone, so that nothing of it may be kept with a head."""

    is_of_head = False

    def verify(self, shown: Any, wall: float) -> Finding:
        self.looks += 1
        if shown.client_ip.startswith("192.0.2."):
            return Verified(Identity(f"host-{shown.client_ip}", method=self.name), wall + 60)
        return None


@pytest.fixture
def closing():
    """Takes note of what must be closed when the test is over."""
    with ExitStack() as stack:
        yield stack.enter_context


@pytest.fixture
def wall(monkeypatch):
    made = Wall()
    monkeypatch.setattr(doors, "_wall", made)
    return made


@pytest.fixture
def counting(monkeypatch):
    return use_methods(monkeypatch, lambda name: Counting(name) if name == "jwt" else None)


def guarded(upstream: str, route: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    made = document(upstream, route={"auth": "jwt", **(route or {})}, **more)
    return {**made, "auth": {"jwt": JWT}}


def who(gateway, echo, raw: bytes, bind: str | None = None) -> str | int | None:
    head, _ = gateway.ask(raw, bind)
    return echo.seen[-1].get("x-auth-subject") if head.status == 200 else head.status


def test_a_head_that_is_known_is_not_looked_at_again(start, echo, counting):
    gateway = start(guarded(echo.url))
    client = gateway.client()
    for _ in range(20):
        client.send(get("/", "x-user: ann"))
        assert client.answer()[0].status == 200
    # The first time it is only noted, so that heads that come once are not kept.
    assert counting["jwt"].looks == 2
    assert {seen.get("x-auth-subject") for seen in echo.seen} == {"ann"}


def test_a_method_that_wants_to_look_each_time_does(start, echo, counting):
    gateway = start(guarded(echo.url))
    counting["jwt"].lasts_s = 0.0
    for _ in range(6):
        assert who(gateway, echo, get("/", "x-user: ann")) == "ann"
    assert counting["jwt"].looks == 6


def test_what_is_kept_ends_in_time_and_when_keys_change_and_when_the_clock_is_set_back(
    start, echo, counting, wall
):
    gateway = start(guarded(echo.url))
    method = counting["jwt"]
    client = gateway.client()

    def ask(found: int) -> None:
        client.send(get("/", "x-user: ann"))
        assert client.answer()[0].status == found

    for _ in range(4):
        ask(200)
    method.refuses.add("ann")
    ask(200)  # kept: a method tells of changes
    wall.now += 59.0
    ask(200)
    wall.now += 2.0
    ask(401)
    method.refuses.clear()
    for _ in range(3):
        ask(200)
    method.refuses.add("ann")
    wall.now -= 3600.0
    ask(401)
    method.refuses.clear()
    for _ in range(3):
        ask(200)
    method.refuses.add("ann")
    ask(200)
    method.generation += 1
    ask(401)


def test_the_same_bytes_from_elsewhere_are_looked_at_as_what_they_are(
    start, echo, counting, tmp_path: Path
):
    """By another listener, with TLS, by a proxy that is trusted, over HTTP/2."""
    made = guarded(
        echo.url, {"allow": {"addresses": ["192.0.2.0/24"]}}, trusted_proxies=["127.0.0.1"]
    )
    del made["listeners"]
    made["listeners"] = [{"bind": "127.0.0.1:1"}, {"bind": "127.0.0.1:2"}]
    gateway = start(made)
    raw = get("/", "x-user: ann", "x-forwarded-for: 192.0.2.7")
    other = get("/", "x-user: ann", "x-forwarded-for: 198.51.100.7")
    for _ in range(3):
        for bind in ("127.0.0.1:1", "127.0.0.1:2"):
            assert who(gateway, echo, raw, bind) == "ann"
            assert who(gateway, echo, other, bind) == 403
    with Client(gateway.port("127.0.0.1:1")) as client:
        for _ in range(3):
            found = client.get("/", (b"x-user", b"ann"), (b"x-forwarded-for", b"192.0.2.7"))
            assert found.status == 200
            found = client.get("/", (b"x-user", b"ann"), (b"x-forwarded-for", b"198.51.100.7"))
            assert found.status == 403


def test_who_asks_by_address_is_asked_each_time(start, echo, monkeypatch):
    use_methods(monkeypatch, lambda name: {"jwt": Counting, "keys": ByAddress}[name](name))
    made = guarded(echo.url, {"auth": ["keys", "jwt"]}, trusted_proxies=["127.0.0.1"])
    made["auth"]["jwt"] = [{**JWT, "name": "keys"}, {**JWT, "name": "jwt"}]
    gateway = start(made)
    line = "x-forwarded-for: 192.0.2.{}"
    for _ in range(3):
        for host in (1, 2):
            found = who(gateway, echo, get("/", "x-user: ann", line.format(host)))
            assert found == f"host-192.0.2.{host}"
        assert who(gateway, echo, get("/", "x-user: ann")) == "ann"
        assert who(gateway, echo, get("/")) == 401


@pytest.mark.parametrize("order", [["keys", "jwt"], ["jwt", "keys"]])
def test_one_in_a_row_that_looks_at_more_than_the_head_keeps_what_is_behind_it_from_being_kept(
    start, echo, monkeypatch, order
):
    made_of = {"jwt": Counting, "keys": ByAddress}
    methods = use_methods(monkeypatch, lambda name: made_of[name](name))
    made = guarded(echo.url, {"auth": order})
    made["auth"]["jwt"] = [{**JWT, "name": "keys"}, {**JWT, "name": "jwt"}]
    gateway = start(made)
    for _ in range(6):
        assert who(gateway, echo, get("/", "x-user: ann")) == "ann"
    assert methods["jwt"].looks == (6 if order[0] == "keys" else 2)


def test_roles_that_change_count_with_the_next_look(start, echo, counting):
    gateway = start(guarded(echo.url, {"allow": {"roles": ["admin"]}}))
    method = counting["jwt"]
    raw = get("/", "x-user: ann")
    for _ in range(3):
        assert who(gateway, echo, raw) == 403
    method.roles = frozenset({"admin"})
    method.generation += 1
    for _ in range(3):
        assert who(gateway, echo, raw) == "ann"
    method.roles = frozenset()
    method.generation += 1
    for _ in range(3):
        assert who(gateway, echo, raw) == 403


CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any], int | str]] = {
    "allow": ({"allow": {"roles": ["admin"]}}, {}, 403),
    "other-key": (
        {},
        {"auth": {"jwt": {**JWT, "secret": "another one that is long enough too"}}},
        401,
    ),
    "open": ({"auth": False}, {}, "none"),
    "headers": ({}, {"auth": {"jwt": JWT, "identity": {"headers": {"x-who": "subject"}}}}, "none"),
    "passed-on": ({"auth": {"methods": "jwt", "pass_credentials": True}}, {}, "ann"),
    "address": ({"addresses": {"deny": ["127.0.0.1"]}}, {}, 403),
    "method": ({"match": {"methods": ["POST"]}}, {}, 405),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_reload_holds_from_the_next_request_of_an_open_connection_on(
    start, echo, change, closing
):
    gateway = start(guarded(echo.url))
    route, top, found = CHANGES[change]
    raw = get("/", bearer(sub="ann"))
    client = gateway.client()
    http2 = closing(Client(gateway.port()))
    field = (b"authorization", raw.split(b"uthorization: ")[1].split(b"\r\n")[0])
    for changed in (False, True, False):
        if changed:
            gateway.apply({**guarded(echo.url, route), **top})
        else:
            gateway.apply(guarded(echo.url))
        for _ in range(3):
            client.send(raw)
            told = [client.answer()[0].status, http2.get("/", field).status]
            if not changed or not isinstance(found, int):
                assert told == [200, 200]
                for seen in list(echo.seen)[-2:]:
                    wanted = "ann" if not changed or found == "ann" else None
                    assert seen.get("x-auth-subject") == wanted
                    passed = changed and change in {"passed-on", "open"}
                    assert (seen.get("authorization") is not None) == passed
            else:
                assert told == [found, found]
    assert_all_given_back(gateway)


def test_a_revocation_reaches_heads_that_are_known(start, echo, closing):
    gateway = start(guarded(echo.url))
    client = gateway.client()
    http2 = closing(Client(gateway.port()))
    ann, bob = bearer(sub="ann", iat=time.time() - 60), bearer(sub="bob", iat=time.time() - 60)

    def ask(line: str) -> list[int]:
        client.send(get("/", line))
        field = (b"authorization", line.split(": ")[1].encode())
        return [client.answer()[0].status, http2.get("/", field).status]

    for _ in range(3):
        assert ask(ann) == ask(bob) == [200, 200]
    said = revocation("sub", "ann", wall=time.time())
    parts = gateway.worker._entrance.parts

    def revoke() -> None:
        for hearer in parts._hearers:
            if hearer._topic == TOPIC:
                hearer._hear(said)

    gateway.on_loop(revoke)
    for _ in range(3):
        assert ask(ann) == [401, 401]
        assert ask(bob) == [200, 200]


def test_another_method_is_another_request(start, echo):
    route = {"allow": {"methods": ["GET"]}}
    gateway = start(guarded(echo.url, route))
    line = bearer(sub="ann")
    for _ in range(3):
        for method, found in (("GET", 200), ("DELETE", 403), ("HEAD", 403), ("OPTIONS", 403)):
            client = gateway.client()
            client.send(request(method, "/", line))
            assert client.head().status == found, method


def test_a_token_for_services_is_signed_once_in_a_while_and_never_outlives_its_user(
    start, echo, wall, tmp_path: Path
):
    made = guarded(echo.url)
    made["auth"]["identity"] = {"token": {"ttl": "60s"}}
    gateway = start({**made, "state_dir": str(tmp_path)})
    line = bearer(sub="ann", exp=wall.now + 100)

    def told(path: str) -> tuple[str, int]:
        assert gateway.ask(get(path, line))[0].status == 200
        found = echo.seen[-1].get("x-headgate-identity") or ""
        return found, decode(found, options={"verify_signature": False})["exp"]

    begun = wall.now
    assert len({told(f"/{number}")[0] for number in range(10)}) == 1
    seen = set()
    for number in range(19):
        wall.now = begun + number * 5
        for _ in range(3):
            for path in ("/kept", f"/{number}"):
                found, ends = told(path)
                seen.add(found)
                assert wall.now + 4 <= ends <= begun + 100
                if wall.now < begun + 60:
                    assert ends >= wall.now + 14
    assert 6 <= len(seen) <= 20


def test_nothing_piles_up_for_those_who_come_once(start, echo):
    """A token of its own with each request: bounds hold."""
    gateway = start(guarded(echo.url))
    client = gateway.client()
    for number in range(300):
        client.send(get(f"/{number}", bearer(sub=f"u{number}")))
        assert client.answer()[0].status == 200
    site = next(iter(gateway.worker._listeners.values())).site
    assert len(site.heads) < 20
    assert len(gateway.worker._entrance._telling._known) <= 10_000
    wait_until(gateway.is_settled)
