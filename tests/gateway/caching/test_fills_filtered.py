"""Filters on a route with a cache: each hook, at once and waiting, on fills and on hits."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel

from headgate.gateway.filters import Filter, Reply, Request, Response
from headgate.security.identity import Identity
from tests.gateway.caching.rig import FRESH, ask, cached, dated, filled, serve
from tests.gateway.given_back import assert_all_given_back
from tests.gateway.rig import Gateway, Instance, Peer, get, response, wait_until

pytestmark = pytest.mark.integration


class Does(Filter):
    """At one hook, for requests that say so in `x-do`: waits, raises or replies."""

    class Options(BaseModel, frozen=True, extra="forbid"):
        hook: str = "response"
        gathers: bool = False

    gate: ClassVar[threading.Event]

    def _step(self, hook: str, request: Request, result: Any) -> Any:
        options = self.options
        assert isinstance(options, Does.Options)
        what = request.headers.get("x-do") if options.hook == hook else None
        if what == "raise":
            raise RuntimeError("on purpose")
        if what == "reply":
            return Reply(418, b"short and stout")
        return self._later(result) if what == "wait" else result

    async def _later(self, result: Any) -> Any:
        while not self.gate.is_set():
            await asyncio.sleep(0.002)
        return result

    def on_request(self, request: Request) -> Any:
        return self._step("request", request, None)

    def on_response(self, request: Request, response: Response) -> Any:
        return self._step("response", request, None)


class DoesBodies(Does):
    def on_response(self, request: Request, response: Response) -> Any:
        response.length = -1
        return super().on_response(request, response)

    def on_response_body(
        self, request: Request, response: Response, chunk: bytes, last: bool
    ) -> Any:
        return self._step("body", request, chunk.upper())


class DoesWhole(DoesBodies):
    response_body_max = 1_000_000


class Knows(Filter):
    """Who asks, by `x-who`; the service hears of it in `x-user`."""

    def on_request(self, request: Request) -> None:
        who = request.headers.get("x-who")
        request.headers.remove("x-who")
        request.headers.remove("x-user")
        if who is not None:
            request.identity = Identity(who, method="plugin")
            request.headers.set("x-user", who)


@pytest.fixture(autouse=True)
def gate():
    Does.gate = threading.Event()
    yield Does.gate
    Does.gate.set()


def filtered(instance: Instance, which: str = "Does", hook: str = "response", **route: Any):
    plugin = {"use": f"{__name__}:{which}", "options": {"hook": hook}}
    return cached(instance, plugins=[plugin], **route)


def waiting(gateway: Gateway, *lines: str) -> Peer:
    before = gateway.in_flight
    client = gateway.client()
    client.send(get("/", *lines))
    wait_until(lambda: gateway.in_flight > before)
    return client


@pytest.mark.parametrize("comes", ["whole", "with it", "meanwhile", "after"])
@pytest.mark.parametrize("size", [6, 600_000])
def test_a_response_hook_that_waits_holds_its_own_client_and_nobody_else(
    start, instance, gate, comes, size
):
    gateway = start(filtered(instance))
    held = waiting(gateway, "x-do: wait")
    other = waiting(gateway)
    peer = instance.accept()
    peer.until(b"\r\n\r\n")
    body = bytes(range(65, 91)) * (size // 26 + 1)
    head, rest = response(body, FRESH).split(b"\r\n\r\n", 1)
    peer.send(head + b"\r\n\r\n" + (rest[:100] if comes == "with it" else b""))
    rest = rest[100:] if comes == "with it" else rest
    if comes == "whole":
        gate.set()
    else:
        other.head()
    if comes == "after":
        gate.set()
        held.head()
        peer.send(rest)
        assert held.exactly(len(body)) == body
    else:
        peer.send(rest)
        if comes == "meanwhile":
            assert other.exactly(len(body)) == body
        gate.set()
        assert held.answer()[1] == body
    if comes == "whole":
        assert other.answer()[1] == body
    assert_all_given_back(gateway)


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_a_client_leaves_while_a_hook_waits_with_its_answer(start, instance, gate, how):
    gateway = start(filtered(instance))
    held = waiting(gateway, "x-do: wait")
    other = waiting(gateway)
    peer = instance.accept()
    peer.until(b"\r\n\r\n")
    peer.send(f"HTTP/1.1 200 OK\r\n{FRESH}\r\nContent-Length: 6\r\n\r\nxyz".encode())
    other.until(b"xyz")
    held.leave(how)
    wait_until(lambda: gateway.in_flight == 2)
    gate.set()
    peer.send(b"uvw")
    assert other.exactly(3) == b"uvw"
    assert_all_given_back(gateway)


def test_a_hook_may_take_longer_than_others_would_wait(start, instance, gate):
    gateway = start(filtered(instance, rules={"collapse_wait": "50ms"}))
    first = waiting(gateway)
    peer = instance.accept()
    peer.until(b"\r\n\r\n")
    peer.send(f"HTTP/1.1 200 OK\r\n{FRESH}\r\nContent-Length: 6\r\n\r\nxyz".encode())
    first.until(b"xyz")
    late = waiting(gateway, "x-do: wait")
    assert instance.is_left_alone(0.3)
    gate.set()
    peer.send(b"uvw")
    assert late.answer()[1] == b"xyzuvw"
    assert first.exactly(3) == b"uvw"
    assert_all_given_back(gateway)


@pytest.mark.parametrize("which", ["DoesBodies", "DoesWhole"])
@pytest.mark.parametrize("do", ["nothing", "wait"])
def test_bodies_are_changed_on_the_way_out_and_kept_as_they_were(start, instance, gate, which, do):
    gateway = start(filtered(instance, which, "body"))
    body = b"abcdefghij" * 40_000
    first = waiting(gateway, f"x-do: {do}")
    second = waiting(gateway)
    serve(instance, response(body, FRESH))
    assert second.answer()[1] == body.upper()
    gate.set()
    assert first.answer()[1] == body.upper()
    for client in (first, second):
        head, got = ask(client, "/", f"x-do: {do}")
        assert (got, "; hit" in head.get("cache-status")) == (body.upper(), True)
    assert_all_given_back(gateway)


@pytest.mark.parametrize(
    ("which", "hook"),
    [("Does", "request"), ("Does", "response"), ("DoesBodies", "body"), ("DoesWhole", "body")],
    ids=["request", "response", "body", "whole"],
)
@pytest.mark.parametrize(("do", "status"), [("raise", 500), ("reply", 418)])
def test_a_hook_that_turns_one_away_costs_no_other(start, instance, which, hook, do, status):
    gateway = start(filtered(instance, which, hook))
    first = waiting(gateway)
    peer = instance.accept()
    peer.until(b"\r\n\r\n")
    turned = gateway.client()
    turned.send(get("/", f"x-do: {do}"))
    if hook == "request":
        assert turned.answer()[0].status == status
    else:
        wait_until(lambda: gateway.in_flight == 3)
    peer.send(response(b"xyzuvw", FRESH))
    if hook != "request":
        assert turned.answer()[0].status == status
    wanted = b"XYZUVW" if hook == "body" else b"xyzuvw"
    assert first.answer()[1] == wanted
    # The same of what is held.
    head, _ = gateway.ask(get("/", f"x-do: {do}"))
    assert head.status == status
    assert ask(first)[1] == wanted
    assert peer.is_quiet()
    assert_all_given_back(gateway)


@pytest.mark.parametrize("who", ["first", "later"])
def test_a_raising_hook_of_the_one_it_is_begun_for(start, instance, who):
    """It goes with nothing; the fill is the others'."""
    gateway = start(filtered(instance))
    first = waiting(gateway, *(("x-do: raise",) if who == "first" else ()))
    second = waiting(gateway, *(("x-do: raise",) if who == "later" else ()))
    serve(instance, response(b"xyzuvw", FRESH))
    statuses = [first.answer()[0].status, second.answer()[0].status]
    assert statuses == ([500, 200] if who == "first" else [200, 500])
    assert ask(second)[1] == b"xyzuvw"
    assert_all_given_back(gateway)


def test_what_a_filter_tells_the_service_is_what_a_response_varies_by(start, instance):
    """Not what the client says under that name."""
    gateway = start(cached(instance, plugins=[{"use": f"{__name__}:Knows"}]))
    shown = (FRESH + ", public", "Vary: X-User", dated())
    client = gateway.client()
    client.send(get("/", "x-user: anna", "x-who: ben"))
    said = serve(instance, response(b"for ben", *shown))
    assert "x-user: ben" in said.lower()
    assert client.answer()[1] == b"for ben"
    client.send(get("/", "x-who: anna"))
    serve(instance, response(b"for anna", *shown))
    assert client.answer()[1] == b"for anna"
    assert ask(client, "/", "x-who: ben")[1] == b"for ben"
    assert ask(client, "/", "x-who: anna")[1] == b"for anna"
    client.send(get("/", "x-user: anna"))
    serve(instance, response(b"for nobody", *shown))
    assert client.answer()[1] == b"for nobody"


def test_who_a_filter_knows_shares_nothing_that_does_not_say_so(start, instance):
    gateway = start(cached(instance, plugins=[{"use": f"{__name__}:Knows"}]))
    client = gateway.client()
    for who in ("anna", "ben"):
        client.send(get("/", f"x-who: {who}"))
        serve(instance, response(who.encode(), FRESH, dated()))
        assert client.answer()[1] == who.encode()


def test_compression_and_the_cache_with_ranges_and_conditions(start, instance):
    gateway = start(cached(instance, compress=True))
    body = b"a text that repeats itself, " * 100
    lines = (FRESH, "Content-Type: text/plain", 'ETag: "a"')
    client = filled(gateway, instance, *lines, body=body)
    head, got = ask(client, "/", "Accept-Encoding: gzip", "Range: bytes=0-9")
    if head.status == 206:
        assert (got, "content-encoding" in head) == (body[:10], False)
    head, _ = ask(client, "/", "Accept-Encoding: gzip")
    tag = head.get("etag")
    assert tag is not None
    head, got = ask(client, "/", "Accept-Encoding: gzip", f"If-None-Match: {tag}")
    assert (head.status, got) == (304, b"")
    assert instance.accepted[0].is_quiet()
