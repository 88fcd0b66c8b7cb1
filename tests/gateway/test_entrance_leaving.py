"""Clients that leave, and time that runs out, while the entrance still waits for an answer."""

from __future__ import annotations

import asyncio
import base64
import threading
from typing import Any

import pytest

from headgate.gateway.filters import Filter, Request, Response
from headgate.wire.h2 import ErrorCode
from tests.gateway.entrance_rig import JWT, Form, Slow, foreign, use_methods
from tests.gateway.given_back import assert_all_given_back
from tests.gateway.h2_client import Client
from tests.gateway.rig import document, get, request, response, wait_until

pytestmark = pytest.mark.integration


@pytest.fixture
def slow(monkeypatch):
    """The method of that name, in the hands of the test."""
    return use_methods(monkeypatch, Slow)


def guarded(upstream: str, route: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    listener = {"protocols": ["http1", "http2"]}
    made = document(upstream, route={"auth": "jwt", **(route or {})}, listener=listener, **more)
    return {**made, "auth": {"jwt": JWT}}


def tasks(gateway) -> int:
    return gateway.on_loop(lambda: len(asyncio.all_tasks()))


POLICIES: dict[str, dict[str, Any]] = {
    "bare": {},
    "seats": {"concurrency": {"limit": 4}},
    "limit": {"limit": {"concurrency": 4, "by": "user"}},
    "retry": {"retry": {"attempts": 3}},
    "fallback": {"fallback": {"respond": {"body": "later"}}},
    "plugin": {"plugins": [{"use": "tests.gateway.test_doors:Sees"}]},
}


@pytest.mark.parametrize(
    ("how", "policy"), [("fin", "bare"), *(("rst", policy) for policy in POLICIES)]
)
def test_who_leaves_while_it_is_asked_who_they_are_takes_nothing_along(
    start, instance, slow, policy, how
):
    gateway = start(guarded(instance.url, POLICIES[policy]))
    before = tasks(gateway)
    for raw in (
        get("/", "x-user: ann"),
        request("POST", "/", "x-user: ann", body=b"x" * 1000),
        request("POST", "/", "x-user: ann", "transfer-encoding: chunked") + b"3\r\nabc\r\n",
        get("/", "x-user: ann") * 3,
    ):
        client = gateway.client()
        client.send(raw)
        slow["jwt"].wait_asked()
        client.leave(how)
        gateway.assert_settles()
        gateway.on_loop(slow["jwt"].let_go)
    wait_until(lambda: slow["jwt"].waiting == 0 and tasks(gateway) <= before)
    assert instance.is_left_alone(0.05)
    assert_all_given_back(gateway)


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_who_leaves_unheard_is_found_out_once_it_is_known_who_it_was(start, instance, slow, how):
    """With much of a body held, nothing is read, and so it is not heard that the client leaves."""
    gateway = start(guarded(instance.url))
    client = gateway.client()
    client.send(request("POST", "/", "x-user: ann", "content-length: 200000") + b"x" * 150_000)
    slow["jwt"].wait_asked()
    client.leave(how)
    gateway.on_loop(slow["jwt"].let_go)
    assert_all_given_back(gateway)


def test_those_who_stay_get_their_answer_when_another_leaves(start, echo, slow):
    gateway = start(guarded(echo.url))
    clients = [gateway.client() for _ in range(12)]
    for number, client in enumerate(clients):
        client.send(get("/", f"x-user: user{number % 3}"))
    for _ in clients:
        slow["jwt"].wait_asked()
    for client in clients[::2]:
        client.reset()
    wait_until(lambda: gateway.in_flight == 6)
    gateway.on_loop(slow["jwt"].let_go)
    assert [client.answer()[0].status for client in clients[1::2]] == [200] * 6
    assert sorted(seen.get("x-auth-subject") for seen in echo.seen) == sorted(
        f"user{number % 3}" for number in range(1, 12, 2)
    )
    assert_all_given_back(gateway)


def test_two_users_of_one_connection_stay_apart(start, echo, slow):
    """Pipelined, with authentication that waits: answers come in order, each to its own."""
    gateway = start(guarded(echo.url))
    client = gateway.client()
    users = ["ann", "bob", "ann", "nobody", "cid", "ann", "ann", "bob"]
    client.send(b"".join(get(f"/{at}", f"x-user: {user}") for at, user in enumerate(users)))
    slow["jwt"].wait_asked()
    slow["jwt"].is_open = True
    gateway.on_loop(slow["jwt"].let_go)
    found = [client.answer()[0].status for _ in users]
    assert found == [401 if user == "nobody" else 200 for user in users]
    told = [(seen.target, seen.get("x-auth-subject")) for seen in echo.seen]
    assert told == [(f"/{at}", user) for at, user in enumerate(users) if user != "nobody"]


def test_the_time_of_a_request_runs_while_it_is_asked_who_asks(start, instance, slow):
    route = {"timeout": {"total": "200ms"}, "fallback": {"respond": {"body": "inner"}}}
    gateway = start(guarded(instance.url, route))
    head, body = gateway.ask(get("/", "x-user: ann"))
    assert head.status == 504
    assert b"inner" not in body
    gateway.on_loop(slow["jwt"].let_go)
    wait_until(lambda: slow["jwt"].waiting == 0)
    assert instance.is_left_alone(0.05)
    assert_all_given_back(gateway)


def test_a_body_that_does_not_come_ends_the_wait(start, instance, slow):
    limits = {"body_timeout": "200ms"}
    gateway = start(guarded(instance.url, limits=limits))
    client = gateway.client()
    client.send(request("POST", "/", "x-user: ann", "content-length: 10") + b"abc")
    slow["jwt"].wait_asked()
    assert client.answer()[0].status == 408
    gateway.on_loop(slow["jwt"].let_go)
    assert instance.is_left_alone(0.05)
    assert_all_given_back(gateway)


def test_what_came_of_a_body_meanwhile_goes_along_whole(start, echo, slow):
    gateway = start(guarded(echo.url))
    body = bytes(range(256)) * 1200
    client = gateway.client()
    client.send(request("POST", "/", "x-user: ann", f"content-length: {len(body)}"))
    slow["jwt"].wait_asked()
    sent = threading.Thread(target=client.send, args=(body,))
    sent.start()
    wait_until(lambda: gateway.in_flight == 1)
    gateway.on_loop(slow["jwt"].let_go)
    head, answer = client.answer()
    sent.join(8)
    assert head.status == 200
    assert b'"body_bytes": %d' % len(body) in answer
    assert_all_given_back(gateway)


def test_a_method_that_fails_costs_its_own_request_alone(start, echo, slow, caplog):
    gateway = start(guarded(echo.url, {"fallback": {"respond": {"body": "inner"}}}))
    slow["jwt"].is_open = True
    slow["jwt"].fails = RuntimeError("a secret text")
    for _ in range(2):
        head, body = gateway.ask(get("/", "x-user: ann"))
        assert head.status == 500
        assert b"secret" not in head.raw + body
        assert b"inner" not in body
    slow["jwt"].fails = None
    assert gateway.ask(get("/", "x-user: ann"))[0].status == 200
    assert_all_given_back(gateway)


def test_a_look_up_that_is_given_up_leaves_nobody_waiting(start, echo, slow):
    """What a method awaits may be shared, and be cancelled by whoever owns it."""
    gateway = start(guarded(echo.url))
    slow["jwt"].is_open = True
    slow["jwt"].fails = asyncio.CancelledError()
    for raw in (get("/", "x-user: ann"), request("POST", "/", "x-user: ann", body=b"abc")):
        assert gateway.ask(raw)[0].status == 500
    slow["jwt"].fails = None
    assert gateway.ask(get("/", "x-user: ann"))[0].status == 200
    assert_all_given_back(gateway)


class GivesUp(Filter):
    """A plugin whose own look-up is given up."""

    async def on_request(self, request: Request) -> None:
        if request.path == "/request":
            raise asyncio.CancelledError

    async def on_request_body(self, request: Request, chunk: bytes, last: bool) -> bytes:
        if request.path == "/body":
            raise asyncio.CancelledError
        return chunk

    async def on_response(self, request: Request, response: Response) -> None:
        if request.path == "/response":
            raise asyncio.CancelledError


@pytest.mark.parametrize("path", ["/request", "/body", "/response"])
def test_a_plugin_that_gives_up_leaves_nobody_waiting(start, echo, path):
    made = document(echo.url, route={"plugins": [{"use": f"{__name__}:GivesUp"}]})
    gateway = start(made)
    assert gateway.ask(request("POST", path, body=b"abc"))[0].status == 500
    assert gateway.ask(request("POST", "/", body=b"abc"))[0].status == 200
    assert_all_given_back(gateway)


def test_a_worker_that_ends_does_not_wait_for_who_is_still_asked(start, instance, slow):
    gateway = start(guarded(instance.url))
    client = gateway.client()
    client.send(get("/", "x-user: ann"))
    slow["jwt"].wait_asked()
    gateway.call(gateway.worker.drain(0.1))
    assert client.is_closed()
    wait_until(lambda: slow["jwt"].waiting == 0)
    assert instance.is_left_alone(0.0)


@pytest.mark.parametrize("how", ["fin", "rst", "reset-stream"])
def test_a_form_that_never_comes_whole_leaves_nothing(start, instance, monkeypatch, how):
    methods = use_methods(monkeypatch, Form)
    gateway = start(guarded(instance.url))
    before = tasks(gateway)
    for _ in range(3):
        if how == "reset-stream":
            with Client(gateway.port()) as client:
                stream = client.ask(
                    "POST", "/form", ((b"content-length", b"10"),), b"abc", end=False
                )
                wait_until(lambda: gateway.in_flight == 1)
                client.codec.reset(stream, ErrorCode.CANCEL)
                client.flush()
                wait_until(lambda: gateway.in_flight == 0)
        else:
            peer = gateway.client()
            peer.send(request("POST", "/form", "content-length: 10") + b"abc")
            wait_until(lambda: gateway.in_flight == 1)
            peer.leave(how)
            wait_until(lambda: gateway.in_flight == 0)
    wait_until(lambda: tasks(gateway) <= before)
    assert methods["jwt"].answered == []
    assert_all_given_back(gateway)


def test_a_reload_in_the_middle_of_being_asked_judges_by_the_plan_it_began_with(start, echo, slow):
    gateway = start(guarded(echo.url))
    client = gateway.client()
    client.send(get("/", "x-user: ann"))
    slow["jwt"].wait_asked()
    gateway.apply(guarded(echo.url, {"allow": {"roles": ["admin"]}}))
    gateway.on_loop(slow["jwt"].let_go)
    assert client.answer()[0].status == 200
    assert echo.seen[-1].get("x-auth-subject") == "ann"
    slow["jwt"].is_open = True
    client.send(get("/", "x-user: ann"))
    assert client.answer()[0].status == 403
    assert_all_given_back(gateway)


# -- methods that are real -------------------------------------------------------------------------


def test_who_leaves_while_keys_are_fetched_spoils_nobody_elses_wait(start, echo, instance):
    """One fetch for all who wait; the one that began it goes away."""
    made = document(echo.url, route={"auth": "jwt"})
    made["auth"] = {
        "jwt": {
            "issuer": "https://id.example",
            "keys": f"{instance.url}/keys",
            "audience": "*",
            "algorithms": "ES256",
        }
    }
    gateway = start(made)
    peer = instance.accept()  # keys are fetched at the start
    peer.until(b"\r\n\r\n")
    line = foreign(sub="ann", iss="https://id.example")
    first, second = gateway.client(), gateway.client()
    for client in (first, second):
        client.send(get("/", line))
    wait_until(lambda: gateway.in_flight == 2)
    first.reset()
    peer.send(response(b'{"keys": []}', "Content-Type: application/json"))
    head, _ = second.answer()
    assert head.status in {401, 503}
    assert_all_given_back(gateway)


def test_who_leaves_while_a_password_is_checked_leaves_the_line_to_others(start, echo):
    made = document(echo.url, route={"auth": "people"})
    made["auth"] = {"basic": {"name": "people", "users": {"ann": ARGON}}}
    gateway = start(made)
    good = base64.b64encode(b"ann:open sesame").decode()
    bad = base64.b64encode(b"ann:wrong").decode()
    for _ in range(3):
        leaving = [gateway.client() for _ in range(4)]
        for client in leaving:
            client.send(get("/", f"authorization: Basic {bad}"))
            client.reset()
        assert gateway.ask(get("/", f"authorization: Basic {good}"))[0].status == 200
        assert gateway.ask(get("/", f"authorization: Basic {bad}"))[0].status == 401
    assert_all_given_back(gateway)


def _argon() -> str:
    from argon2 import PasswordHasher

    return PasswordHasher(time_cost=1, memory_cost=8192, parallelism=1).hash("open sesame")


ARGON = _argon()
