"""Filters in a running gateway: each hook, at once and waiting, and what each may cost."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from pydantic import BaseModel

from headgate.gateway.filters import Filter, Reply
from tests.gateway.rig import document, get, request, response, wait_until

pytestmark = pytest.mark.integration


class Recorder(Filter):
    """Writes down the order of everything, and does what its options say."""

    class Options(BaseModel, frozen=True, extra="forbid"):
        name: str = "one"
        waits: bool = False
        reply: str = ""
        raises: str = ""

    calls: list[str] = []
    outcomes: list[Any] = []

    def _step(self, hook, result):
        options = self.options
        assert isinstance(options, Recorder.Options)
        self.calls.append(f"{options.name}.{hook}")
        if options.raises == hook:
            raise RuntimeError("the plugin is broken")
        if options.reply == hook:
            result = Reply(418, f"from {hook}".encode(), (("x-from", options.name),))
        if not options.waits:
            return result

        async def later():
            await asyncio.sleep(0.01)
            return result

        return later()

    def on_request(self, request):
        request.headers.set("x-filter", "in")
        return self._step("request", None)

    def on_response(self, request, response):
        response.headers.set("x-filter", "out")
        return self._step("response", None)

    def on_end(self, request, outcome):
        self.calls.append(f"{self.options.name}.end")  # type: ignore[attr-defined]
        self.outcomes.append(outcome)


class Upper(Recorder):
    """Changes both bodies, and their lengths."""

    def on_request(self, request):
        request.length = -1
        return super().on_request(request)

    def on_response(self, request, response):
        response.length = -1
        return super().on_response(request, response)

    def on_request_body(self, request, chunk, last):
        return self._step("request_body", chunk.upper() + (b"!" if last else b""))

    def on_response_body(self, request, response, chunk, last):
        return self._step("response_body", chunk.upper() + (b"!" if last else b""))


class UpperWhole(Upper):
    request_body_max = 1000
    response_body_max = 1000


class Liar(Filter):
    """Changes bodies without saying so."""

    def on_response_body(self, request, response, chunk, last):
        return chunk + b"more"


class RequestLiar(Filter):
    def on_request_body(self, request, chunk, last):
        return chunk[:1]


@pytest.fixture(autouse=True)
def fresh():
    Recorder.calls.clear()
    Recorder.outcomes.clear()


def plugin(kind, **options):
    return {"use": f"{__name__}:{kind.__name__}", "options": options}


def with_plugins(instance, *plugins, **more):
    return document(instance, route={"plugins": list(plugins), **more.pop("route", {})}, **more)


def converse(client, instance, asked=get(), answered=response()):
    client.send(asked)
    upstream = instance.accepted[-1] if instance.accepted else instance.accept()
    seen = upstream.head()
    upstream.send(answered)
    return seen, *client.answer()


WAITS = pytest.mark.parametrize("waits", [False, True], ids=["at once", "waiting"])


# -- heads


@WAITS
def test_hooks_see_and_change_both_heads_in_order(start, instance, waits):
    gateway = start(
        with_plugins(
            instance,
            plugin(Recorder, name="a", waits=waits),
            plugin(Recorder, name="b", waits=waits),
        )
    )
    with gateway.client() as client:
        for _ in range(3):
            seen, head, body = converse(client, instance)
            assert seen.all("x-filter") == ["in"]
            assert head.all("x-filter") == ["out"]
            assert body == b"ok"
    wait_until(lambda: len(Recorder.outcomes) == 6)
    one = ["a.request", "b.request", "b.response", "a.response", "b.end", "a.end"]
    assert Recorder.calls == one * 3
    outcome = Recorder.outcomes[0]
    assert (outcome.status, outcome.bytes_in, outcome.bytes_out) == (200, 0, 2)
    assert outcome.error is None
    assert outcome.instance == instance.url


@WAITS
def test_a_reply_to_the_request_is_the_answer(start, instance, waits):
    gateway = start(
        with_plugins(
            instance,
            plugin(Recorder, name="a", waits=waits, reply="request"),
            plugin(Recorder, name="b"),
        )
    )
    head, body = gateway.ask(get())
    assert (head.status, body) == (418, b"from request")
    assert head.get("x-from") == "a"
    assert head.get("x-filter") == "out"
    assert "x-request-id" in head
    assert instance.is_left_alone()
    assert "b.request" not in Recorder.calls
    gateway.assert_settles()


@WAITS
def test_a_reply_to_the_response_takes_its_place(start, instance, waits):
    gateway = start(with_plugins(instance, plugin(Recorder, waits=waits, reply="response")))
    with gateway.client() as client:
        _, head, body = converse(client, instance)
        assert (head.status, body) == (418, b"from response")
        assert converse(client, instance)[1].status == 418
    gateway.assert_settles()


def test_a_reply_to_a_response_that_is_still_coming_ends_it(start, instance):
    gateway = start(with_plugins(instance, plugin(Recorder, waits=True, reply="response")))
    with gateway.client() as client:
        client.send(get())
        upstream = instance.accept()
        upstream.head()
        upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\npart")
        assert client.answer()[0].status == 418
        assert upstream.is_closed()
    gateway.assert_settles()


@WAITS
@pytest.mark.parametrize("hook", ["request", "response"])
def test_a_hook_that_raises_is_500_and_counted(start, instance, waits, hook):
    gateway = start(with_plugins(instance, plugin(Recorder, waits=waits, raises=hook)))
    with gateway.client() as client:
        client.send(get())
        if hook == "response":
            upstream = instance.accept()
            upstream.head()
            upstream.send(response())
        head, body = client.answer()
        assert head.status == 500
        assert json.loads(body)["source"] == "gateway"
        assert b"broken" not in body
        client.send(get())
        if hook == "response":
            upstream.head()
            upstream.send(response())
        assert client.answer()[0].status == 500
    gateway.assert_settles()
    assert gateway.count("headgate_filter_errors_total", filter=__name__) == 2
    assert len(Recorder.outcomes) == 2


def test_response_hooks_see_our_own_errors(start, instance):
    instance.close()
    gateway = start(with_plugins(instance, plugin(Recorder)))
    head, _ = gateway.ask(get())
    assert head.status == 502
    assert head.get("x-filter") == "out"
    head, _ = gateway.ask(request("POST", "/", "Content-Length: 100000000"))
    assert head.status == 413
    assert head.get("x-filter") == "out"
    wait_until(lambda: [one.status for one in Recorder.outcomes] == [502, 413])


def test_hooks_see_fixed_answers(start, instance):
    said = with_plugins(instance, plugin(Recorder))
    said["routes"][0] = {"respond": {"body": "fixed"}, "plugins": said["routes"][0]["plugins"]}
    gateway = start(said)
    head, body = gateway.ask(get())
    assert (head.status, body) == (200, b"fixed")
    assert head.get("x-filter") == "out"


def test_a_filter_cannot_change_what_others_see(start, instance):
    """Heads are shared by their bytes; what a filter sets on one request stays there."""
    said = with_plugins(instance, plugin(Recorder))
    said["routes"] = [
        {"match": {"path": "/with"}, "to": "upstream", "plugins": said["routes"][0]["plugins"]},
        {"match": {"path": "/without"}, "to": "upstream"},
    ]
    gateway = start(said)
    with gateway.client() as client:
        for _ in range(2):
            seen, head, _ = converse(client, instance, get("/with"))
            assert "x-filter" in seen and "x-filter" in head
            seen, head, _ = converse(client, instance, get("/without"))
            assert "x-filter" not in seen and "x-filter" not in head


# -- bodies


@WAITS
@pytest.mark.parametrize("kind", [Upper, UpperWhole], ids=["stream", "whole"])
@pytest.mark.parametrize("coding", ["length", "chunked"])
def test_bodies_are_changed_both_ways(start, instance, kind, waits, coding):
    gateway = start(with_plugins(instance, plugin(kind, waits=waits)))
    with gateway.client() as client:
        for _ in range(2):
            if coding == "length":
                client.send(request("POST", "/", body=b"hello"))
            else:
                client.send(request("POST", "/", "Transfer-Encoding: chunked"))
                client.send(b"2\r\nhe\r\n")
                client.send(b"3\r\nllo\r\n0\r\n\r\n")
            upstream = instance.accepted[-1] if instance.accepted else instance.accept()
            seen = upstream.head()
            length = seen.get("content-length")
            got = upstream.exactly(int(length)) if length else upstream.chunked()
            assert got == b"HELLO!"
            if kind is UpperWhole:
                assert length == "6"
            if coding == "length":
                upstream.send(response(b"world"))
            else:
                upstream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nwo\r\n")
                upstream.send(b"3\r\nrld\r\n0\r\n\r\n")
            assert client.answer()[1] == b"WORLD!"
    gateway.assert_settles()
    assert gateway.pool.created == 1
    if kind is UpperWhole:
        assert Recorder.calls.count("one.request_body") == 2
        assert Recorder.calls.count("one.response_body") == 2


def test_a_streamed_body_is_not_held_back(start, instance):
    gateway = start(with_plugins(instance, plugin(Upper)))
    with gateway.client() as client:
        client.send(request("POST", "/", "Transfer-Encoding: chunked"))
        upstream = instance.accept()
        upstream.head()
        for piece in (b"ab", b"cd"):
            client.send(b"2\r\n%b\r\n" % piece)
            assert upstream.exactly(7) == b"2\r\n%b\r\n" % piece.upper()
        client.send(b"0\r\n\r\n")
        assert upstream.chunked() == b"!"
        upstream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.head()
        for piece in (b"ab", b"cd"):
            upstream.send(b"2\r\n%b\r\n" % piece)
            assert client.exactly(7) == b"2\r\n%b\r\n" % piece.upper()
        upstream.send(b"0\r\n\r\n")
        assert client.chunked() == b"!"


def test_trailers_pass_a_streaming_filter(start, instance):
    gateway = start(with_plugins(instance, plugin(Upper, waits=True)))
    with gateway.client() as client:
        client.send(request("POST", "/", "Transfer-Encoding: chunked"))
        client.send(b"2\r\nhi\r\n0\r\nX-In: 1\r\n\r\n")
        upstream = instance.accept()
        upstream.head()
        assert upstream.chunked() == b"HI!"
        assert upstream.trailer == b"x-in: 1\r\n\r\n"
        upstream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.head()
        upstream.send(b"2\r\nyo\r\n0\r\nX-Out: 2\r\n\r\n")
        assert client.chunked() == b"YO!"
        assert client.trailer == b"x-out: 2\r\n\r\n"


@pytest.mark.parametrize("kind", [Recorder, Upper, UpperWhole])
def test_a_body_and_trailers_that_came_while_a_hook_waited(start, instance, kind):
    """On a connection that is at hand at once, and on one that has to be made."""
    gateway = start(with_plugins(instance, plugin(kind, waits=True)))
    with gateway.client() as client:
        for _ in range(3):
            client.send(
                request("POST", "/", "Transfer-Encoding: chunked")
                + b"5\r\nhello\r\n0\r\nX-In: 1\r\n\r\n"
            )
            upstream = instance.accepted[-1] if instance.accepted else instance.accept()
            length = upstream.head().get("content-length")
            got = upstream.exactly(int(length)) if length else upstream.chunked()
            assert got == (b"hello" if kind is Recorder else b"HELLO!")
            upstream.send(response())
            assert client.answer()[0].status == 200


def test_too_much_to_gather_is_413(start, instance):
    gateway = start(with_plugins(instance, plugin(UpperWhole)))
    with gateway.client() as client:
        client.send(request("POST", "/", "Transfer-Encoding: chunked"))
        client.try_send(b"400\r\n" + bytes(1024) + b"\r\n")
        assert client.answer()[0].status == 413
        assert client.is_closed()
    assert instance.is_left_alone()
    gateway.assert_settles()


def test_too_much_to_gather_of_a_response_is_502(start, instance):
    gateway = start(with_plugins(instance, plugin(UpperWhole)))
    with gateway.client() as client:
        _, head, _ = converse(client, instance, answered=response(bytes(2000)))
        assert head.status == 502
    gateway.assert_settles()


@WAITS
@pytest.mark.parametrize("kind", [Upper, UpperWhole], ids=["stream", "whole"])
def test_a_request_body_hook_that_raises(start, instance, kind, waits):
    gateway = start(with_plugins(instance, plugin(kind, waits=waits, raises="request_body")))
    with gateway.client() as client:
        client.send(request("POST", "/", body=b"hello"))
        assert client.answer()[0].status == 500
    gateway.assert_settles()
    assert gateway.pool.open == gateway.pool.idle
    assert len(Recorder.outcomes) == 1


@WAITS
def test_a_response_body_hook_that_raises_before_the_head(start, instance, waits):
    gateway = start(with_plugins(instance, plugin(UpperWhole, waits=waits, raises="response_body")))
    with gateway.client() as client:
        assert converse(client, instance)[1].status == 500
    gateway.assert_settles()


@WAITS
def test_a_response_body_hook_that_raises_in_the_middle(start, instance, waits):
    gateway = start(with_plugins(instance, plugin(Upper, waits=waits, raises="response_body")))
    with gateway.client() as client:
        client.send(get())
        upstream = instance.accept()
        upstream.head()
        upstream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.head()
        upstream.send(b"2\r\nyo\r\n")
        assert client.to_end() == b""
        assert upstream.is_closed()
    gateway.assert_settles()


@WAITS
def test_a_whole_body_may_be_refused(start, instance, waits):
    gateway = start(with_plugins(instance, plugin(UpperWhole, waits=waits, reply="request_body")))
    with gateway.client() as client:
        client.send(request("POST", "/", body=b"hello"))
        head, body = client.answer()
        # It passes the hooks of a response like any other answer.
        assert (head.status, body) == (418, b"FROM REQUEST_BODY!")
        assert head.get("x-filter") == "out"
    assert instance.is_left_alone()
    gateway.assert_settles()


@WAITS
def test_a_whole_response_may_be_replaced(start, instance, waits):
    gateway = start(with_plugins(instance, plugin(UpperWhole, waits=waits, reply="response_body")))
    with gateway.client() as client:
        _, head, body = converse(client, instance)
        assert (head.status, body) == (418, b"from response_body")
    gateway.assert_settles()


def test_a_changed_length_that_is_not_announced_breaks_the_response(start, instance):
    """Its bytes would be read as the beginning of the next response."""
    gateway = start(with_plugins(instance, plugin(Liar)))
    with gateway.client() as client:
        client.send(get())
        upstream = instance.accept()
        upstream.head()
        upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        assert client.head().get("content-length") == "4"
        upstream.try_send(b"cd")
        assert len(client.to_end()) <= 4
    gateway.assert_settles()


def test_a_changed_request_length_that_is_not_announced_is_500(start, instance):
    gateway = start(with_plugins(instance, plugin(RequestLiar)))
    with gateway.client() as client:
        client.send(request("POST", "/", body=b"hello"))
        assert client.answer()[0].status == 500
    gateway.assert_settles()
    assert gateway.pool.open == gateway.pool.idle


def test_a_waiting_body_hook_slows_the_client_only(start, instance):
    """Back-pressure through a filter, and nothing lost or out of order."""
    gateway = start(with_plugins(instance, plugin(Upper, waits=True)))
    body = b"".join(b"%06d," % at for at in range(60_000))
    with gateway.client() as client:
        client.send(request("POST", "/", body=body))
        upstream = instance.accept()
        upstream.head()
        assert upstream.chunked() == body + b"!"
        upstream.send(response(body))
        assert client.answer()[1] == body + b"!"
    gateway.assert_settles()


def test_a_slow_gathered_upload_has_the_whole_first_byte_time(start, instance):
    """The instance's time begins when it gets the request, not when the client began to send."""
    gateway = start(
        with_plugins(instance, plugin(UpperWhole), route={"timeout": {"first_byte": "700ms"}})
    )
    with gateway.client() as client:
        # A connection that is kept, so that the next request gets it at once.
        converse(client, instance)
        client.send(request("POST", "/", "Content-Length: 4") + b"ab")
        assert client.is_quiet(1.2)
        client.send(b"cd")
        upstream = instance.accepted[-1]
        upstream.head()
        upstream.exactly(5)
        assert client.is_quiet(0.3)
        upstream.send(response(b"in time"))
        assert client.answer()[1] == b"IN TIME!"


def test_a_whole_body_goes_to_another_instance_when_one_refuses(start, instance, other):
    other.close()
    gateway = start(document(other, instance, route={"plugins": [plugin(UpperWhole)]}))
    with gateway.client() as client:
        client.send(request("POST", "/", body=b"hello"))
        upstream = instance.accept()
        upstream.head()
        assert upstream.exactly(6) == b"HELLO!"
        upstream.send(response())
        assert client.answer()[1] == b"OK!"


def test_expect_is_answered_by_us_when_the_body_is_gathered(start, instance):
    gateway = start(with_plugins(instance, plugin(UpperWhole)))
    with gateway.client() as client:
        client.send(request("POST", "/", "Content-Length: 2", "Expect: 100-continue"))
        assert client.head().status == 100
        client.send(b"hi")
        upstream = instance.accept()
        assert "expect" not in upstream.head()
        assert upstream.exactly(3) == b"HI!"
        upstream.send(response())
        assert client.answer()[0].status == 200


@pytest.mark.parametrize("kind", [Upper, UpperWhole], ids=["stream", "whole"])
@pytest.mark.parametrize("method, status", [("HEAD", "200 OK"), ("GET", "304 Not Modified")])
def test_a_response_without_a_body_has_none_after_filters(start, instance, kind, method, status):
    gateway = start(with_plugins(instance, plugin(kind)))
    with gateway.client() as client:
        for _ in range(2):
            client.send(request(method, "/"))
            upstream = instance.accepted[-1] if instance.accepted else instance.accept()
            upstream.head()
            upstream.send(f"HTTP/1.1 {status}\r\nContent-Length: 5\r\n\r\n".encode())
            assert client.head().status == int(status[:3])
        assert client.is_quiet()
    assert "one.response_body" not in Recorder.calls


def test_a_tunnel_passes_filters_untouched(start, instance):
    gateway = start(with_plugins(instance, plugin(Upper)))
    with gateway.client() as client:
        client.send(get("/", "Connection: Upgrade", "Upgrade: websocket"))
        upstream = instance.accept()
        assert upstream.head().get("x-filter") == "in"
        upstream.send(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        client.head()
        client.send(b"down there")
        assert upstream.exactly(10) == b"down there"
        upstream.send(b"up here")
        assert client.exactly(7) == b"up here"
        upstream.close()
    gateway.assert_settles()
    assert len(Recorder.outcomes) == 1


def test_on_end_comes_once_when_the_client_leaves(start, instance):
    gateway = start(with_plugins(instance, plugin(Upper)))
    client = gateway.client()
    client.send(get())
    upstream = instance.accept()
    upstream.head()
    upstream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nyo\r\n")
    client.until(b"YO")
    client.reset()
    assert upstream.is_closed()
    gateway.assert_settles()
    assert [(one.status, one.error) for one in Recorder.outcomes] == [(200, "client_gone")]


# -- header policy, at its levels


def edits(value):
    return {
        "headers": {
            "request": {"set": {"x-level": value}},
            "response": {"set": {f"x-{value}": "1"}},
        }
    }


def test_the_nearest_header_policy_wins_whole(start, instance):
    said = document(instance, **edits("global"))
    said["services"]["plain"] = {"instances": [instance.url]}
    said["services"]["upstream"].update(edits("service"))
    said["routes"] = [
        {"match": {"path": "/g"}, "to": "plain"},
        {"match": {"path": "/s"}, "to": "upstream"},
        {"match": {"path": "/r"}, "to": "upstream", **edits("route")},
    ]
    gateway = start(said)
    with gateway.client() as client:
        for path, level in (("/g", "global"), ("/s", "service"), ("/r", "route")):
            client.send(get(path))
            # Services have pools of their own, so a new one means a new connection.
            upstream = instance.accept() if path != "/r" else instance.accepted[-1]
            seen = upstream.head()
            upstream.send(response())
            head, _ = client.answer()
            assert seen.all("x-level") == [level]
            assert [name for name, _ in head.fields if name in ("x-global", "x-service", "x-route")] == [f"x-{level}"]  # fmt: skip


def test_header_policy_covers_our_own_errors(start, instance):
    instance.close()
    gateway = start(document(instance, **edits("global")))
    head, _ = gateway.ask(get())
    assert head.status == 502
    assert head.get("x-global") == "1"
