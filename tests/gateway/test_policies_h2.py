"""Policies of traffic where one side or both speak HTTP/2."""

from __future__ import annotations

import contextlib
import random
import select
import threading
from contextlib import ExitStack
from time import monotonic, sleep
from typing import Any

import pytest

from headgate.wire.h2 import ErrorCode, H2Limits, ServerConnection, Stream, frames
from tests.gateway import h2_instance, rig
from tests.gateway.given_back import assert_all_given_back
from tests.gateway.h2_client import Client
from tests.gateway.h2_instance import Served
from tests.gateway.rig import NO_WAIT, Peer, get, request, response, wait_until

pytestmark = pytest.mark.integration


@pytest.fixture
def scripted():
    """Start HTTP/2 services whose every answer a test writes."""
    with ExitStack() as stack:
        yield lambda act, limits=None: stack.enter_context(h2_instance.Instance(act, limits))


def url(instance: h2_instance.Instance) -> str:
    return f"http://127.0.0.1:{instance.port}"


def document(*instances: h2_instance.Instance | str, **more: Any) -> dict[str, Any]:
    said = rig.document(*(one if isinstance(one, str) else url(one) for one in instances), **more)
    said["services"]["upstream"]["http"] = "2"
    return said


def when_whole(answer):
    """Calls once the request has come in full."""

    def act(served: Served) -> None:
        if served.ended:
            answer(served)

    return act


class Watcher:
    """Counts requests over all instances, and answers the first ones otherwise than the rest."""

    def __init__(self, *scripts) -> None:
        self.scripts = list(scripts)
        self.seen: list[Served] = []
        self._lock = threading.Lock()

    def __call__(self, served: Served) -> None:
        with self._lock:
            if served not in self.seen:
                self.seen.append(served)
            at = self.seen.index(served)
        self.scripts[min(at, len(self.scripts) - 1)](served)


def silent(served: Served) -> None:
    """Never answers."""


# -- hedging


@pytest.mark.parametrize("version", ["1.1", "2"])
def test_a_hedge_over_http2_brings_its_whole_body_at_the_clients_pace(start, scripted, version):
    body = bytes(range(256)) * 2000
    watcher = Watcher(silent, lambda served: served.answer(200, body))
    pair = [scripted(watcher), scripted(watcher)]
    gateway = start(document(*pair, service={"hedge": {"after": "30ms"}}))
    if version == "2":
        limits = H2Limits(stream_window=3000, connection_window=65_535)
        with Client(gateway.port(), limits=limits) as client:
            assert client.get().body == body
    else:
        assert gateway.ask(get())[1] == body
    slow = watcher.seen[0]
    wait_until(lambda: slow.was_reset == ErrorCode.CANCEL)
    assert_all_given_back(gateway)


def test_the_first_attempt_over_http2_calls_its_hedge_off(start, scripted):
    def late(served: Served) -> None:
        served.conn.instance.later(0.2, lambda: served.answer(200, b"first"), served.conn)

    watcher = Watcher(late, silent)
    pair = [scripted(watcher), scripted(watcher)]
    gateway = start(document(*pair, service={"hedge": {"after": "30ms"}}))
    with Client(gateway.port()) as client:
        assert client.get().body == b"first"
    wait_until(lambda: watcher.seen[1].was_reset == ErrorCode.CANCEL)
    assert_all_given_back(gateway)


def test_a_hedge_over_http2_takes_the_place_of_an_attempt_that_is_reset(start, scripted):
    def reset(served: Served) -> None:
        def now() -> None:
            served.conn.codec.reset(served, ErrorCode.INTERNAL_ERROR)

        served.conn.instance.later(0.15, now, served.conn)

    def late(served: Served) -> None:
        served.conn.instance.later(0.3, lambda: served.answer(200, b"second"), served.conn)

    watcher = Watcher(reset, late)
    pair = [scripted(watcher), scripted(watcher)]
    gateway = start(document(*pair, service={"hedge": {"after": "30ms"}}))
    with Client(gateway.port()) as client:
        assert client.get().body == b"second"
    assert_all_given_back(gateway)


def test_both_attempts_reset_is_one_answer(start, scripted):
    def reset(served: Served) -> None:
        def now() -> None:
            served.conn.codec.reset(served, ErrorCode.INTERNAL_ERROR)

        served.conn.instance.later(0.1, now, served.conn)

    pair = [scripted(reset), scripted(reset)]
    gateway = start(document(*pair, service={"hedge": {"after": "30ms"}}))
    with Client(gateway.port()) as client:
        assert client.get().status == 502
    assert_all_given_back(gateway)


@pytest.mark.parametrize("refused", ["first", "hedge"])
def test_a_refused_stream_is_asked_again_with_its_body_once(start, scripted, refused):
    def refuse(served: Served) -> None:
        if served.ended:
            served.conn.codec.reset(served, ErrorCode.REFUSED_STREAM)

    whole = when_whole(lambda served: served.answer(200, served.body))
    scripts = [refuse, whole] if refused == "first" else [silent, refuse, whole]
    watcher = Watcher(*scripts)
    pair = [scripted(watcher), scripted(watcher)]
    service = {
        "hedge": {"after": "30ms", "methods": ["PUT"]},
        "retry": {**NO_WAIT, "methods": ["PUT"]},
    }
    gateway = start(document(*pair, service=service))
    head, body = gateway.ask(request("PUT", "/", body=b"order"))
    assert (head.status, body) == (200, b"order")
    assert_all_given_back(gateway)


# -- retries


def test_an_answer_over_http2_that_is_worth_another_try_is_not_shown(start, scripted):
    def busy(served: Served) -> None:
        served.answer(503, b"no", end=False)

    watcher = Watcher(busy, busy, lambda served: served.answer(200, b"yes"))
    gateway = start(document(scripted(watcher), service={"retry": NO_WAIT}))
    with Client(gateway.port()) as client:
        stream = client.get()
        assert (stream.status, bytes(stream.body)) == (200, b"yes")
    attempts = [served.header(b"x-headgate-attempt") for served in watcher.seen]
    assert attempts == [b"1/3", b"2/3", b"3/3"]
    assert_all_given_back(gateway)


class _Heard(Stream):
    """A stream on a connection that the test serves by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.body = b""
        self.ended = False

    def on_request(self, fields: object, *, end: bool) -> None:
        self.ended = end

    def on_data(self, data: bytes, *, end: bool) -> None:
        self.body += data
        self.ended = end


class ByHand:
    """An HTTP/2 server on a connection of a scripted instance, spoken by the test's own thread."""

    def __init__(self, peer: Peer, limits: H2Limits | None = None) -> None:
        self.peer = peer
        self.heard: list[_Heard] = []
        self.codec: ServerConnection[_Heard] = ServerConnection(
            limits or H2Limits(), self._make, 0.0
        )
        peer.send(self.codec.take())

    def _make(self) -> _Heard:
        self.heard.append(_Heard())
        return self.heard[-1]

    def until(self, what) -> None:
        while not what():
            assert self.peer.more(), "closed"
            self.codec.feed(self.peer.data, monotonic())
            self.peer.data = b""
            self.flush()

    def flush(self) -> None:
        data = self.codec.take()
        if data:
            self.peer.try_send(data)


@pytest.mark.parametrize("is_kept", [True, False])
def test_no_instance_gets_half_a_body_after_another_has_refused_it(start, is_kept):
    pair = [rig.Instance(), rig.Instance()]
    service: dict[str, Any] = {"http": "2"}
    if is_kept:
        service["retry"] = {**NO_WAIT, "methods": ["PUT"]}
    gateway = start(rig.document(*pair, service=service))
    with gateway.client() as client:
        client.send(request("PUT", "/", body=b"x" * 5000))
        ready, _, _ = select.select([one.sock for one in pair], [], [], rig.PATIENCE_S)
        first = next(one for one in pair if one.sock in ready)
        other = next(one for one in pair if one is not first)
        server = ByHand(first.accept())
        server.until(lambda: server.heard and server.heard[0].ended)
        # It says that it has acted on nothing, and is gone for good.
        first.sock.close()
        server.peer.send(frames.goaway(0, ErrorCode.NO_ERROR))
        server.peer.close()
        if is_kept:
            server = ByHand(other.accept())
            server.until(lambda: server.heard and server.heard[0].ended)
            assert server.heard[0].body == b"x" * 5000
            server.codec.send_response(server.heard[0], 200, (), b"", b"ok", end=True)
            server.flush()
            assert client.answer()[0].status == 200
        else:
            assert client.answer()[0].status in (502, 503)
            assert other.is_left_alone()
    for one in pair:
        one.close()
    assert_all_given_back(gateway)


def test_a_retry_over_http2_goes_on_where_the_window_had_stopped_the_client(start):
    instance = rig.Instance()
    service = {"http": "2", "retry": {**NO_WAIT, "methods": ["PUT"]}}
    gateway = start(rig.document(instance, service=service))
    with gateway.client() as client:
        client.send(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 4000\r\n\r\n" + b"x" * 2000)
        server = ByHand(instance.accept(), H2Limits(stream_window=1000))
        server.until(lambda: server.heard and len(server.heard[0].body) == 1000)
        # The gateway holds a thousand bytes for which there is no window: its client has to wait.
        server.codec.send_response(server.heard[0], 503, (), b"", b"no", end=True)
        server.flush()
        client.send(b"y" * 2000)
        server.until(lambda: len(server.heard) == 2 and len(server.heard[1].body) == 1000)
        second = server.heard[1]
        for size in (2000, 3000, 4000):
            server.codec.consume(second, 1000)
            server.flush()
            server.until(lambda size=size: len(second.body) == size)
        server.until(lambda: second.ended)
        assert second.body == b"x" * 2000 + b"y" * 2000
        server.codec.send_response(second, 200, (), b"", b"yes", end=True)
        server.flush()
        assert client.answer()[1] == b"yes"
    instance.close()
    assert_all_given_back(gateway)


def test_a_fallback_goes_on_where_the_window_of_the_first_had_stopped_the_client(start):
    instance, spare = rig.Instance(), rig.Instance()
    said = rig.document(instance, service={"http": "2"}, route={"fallback": {"service": "spare"}})
    said["services"]["spare"] = {"instances": [spare.url]}
    gateway = start(said)
    with gateway.client() as client:
        client.send(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 4000\r\n\r\n" + b"x" * 2000)
        server = ByHand(instance.accept(), H2Limits(stream_window=1000))
        server.until(lambda: server.heard and len(server.heard[0].body) == 1000)
        server.codec.reset(server.heard[0], ErrorCode.INTERNAL_ERROR)
        server.flush()
        peer = spare.accept()
        peer.until(b"\r\n\r\n")
        client.send(b"y" * 2000)
        assert peer.exactly(4000) == b"x" * 2000 + b"y" * 2000
        peer.send(response(b"yes"))
        assert client.answer()[1] == b"yes"
    instance.close()
    spare.close()
    assert_all_given_back(gateway)


# -- clients of HTTP/2


def test_limits_tell_clients_of_http2_with_answers_refusals_and_error_pages(start, echo):
    said = rig.document(
        echo.url,
        route={"limit": {"rate": "2/h", "headers": "both"}},
        error_pages={"4xx": {"body": "too much", "type": "text/plain"}},
    )
    gateway = start(said)
    with Client(gateway.port()) as client:
        told = [client.get() for _ in range(3)]
    assert [stream.status for stream in told] == [200, 200, 429]
    for stream in told:
        assert (stream.get(b"ratelimit") or b"").startswith(b'"ip";r=')
        assert stream.get(b"x-ratelimit-limit") == b"2"
    assert int(told[2].get(b"retry-after") or 0) > 1000
    assert bytes(told[2].body) == b"too much"
    assert_all_given_back(gateway)


def test_a_cookie_of_ours_reaches_a_client_of_http2(start, echo):
    service = {"affinity": {"cookie": "hg", "secret": "s" * 32}}
    gateway = start(rig.document(echo.url, service=service))
    with Client(gateway.port()) as client:
        cookie = client.get().get(b"set-cookie") or b""
        assert cookie.startswith(b"hg=")
        again = client.get("/", (b"cookie", b"a=b"), (b"cookie", cookie.partition(b";")[0]))
        assert again.get(b"set-cookie") is None
    assert_all_given_back(gateway)


@pytest.mark.parametrize(
    "route",
    [
        {"fault": {"delay": "10s", "delay_share": "100%"}},
        {"concurrency": {"limit": 1, "queue": 5, "queue_timeout": "10s"}},
        {"retry": {**NO_WAIT, "wait": "10s", "wait_max": "10s", "methods": ["GET", "POST"]}},
        {"hedge": {"after": "20ms"}},
        {"timeout": {"per_try": "10s"}},
        {"limit": {"concurrency": 5}},
    ],
    ids=lambda route: next(iter(route)),
)
def test_a_stream_that_is_reset_gives_back_all_it_took(start, scripted, route):
    def act(served: Served) -> None:
        if served.ended and "retry" in route:
            served.answer(503, b"no")

    gateway = start(document(scripted(act), scripted(act), route=route))
    with Client(gateway.port()) as client:
        streams = [client.ask("POST" if at % 2 else "GET", "/", body=b"x") for at in range(4)]
        wait_until(lambda: gateway.in_flight >= 4 or any(stream.is_over for stream in streams))
        sleep(0.1)
        for stream in streams:
            if not stream.is_over:
                client.codec.reset(stream, ErrorCode.CANCEL)
        client.flush()
        wait_until(lambda: gateway.in_flight == 0)
    assert_all_given_back(gateway)


def test_a_fault_that_breaks_off_resets_its_stream_alone(start, echo):
    fault = {"abort": "reset", "abort_share": "100%", "header": {"x-chaos": "1"}}
    gateway = start(rig.document(echo.url, route={"fault": fault}))
    with Client(gateway.port()) as client:
        broken = client.wait(client.ask("POST", "/", ((b"x-chaos", b"1"),), b"x"))
        assert broken.reset is not None
        assert client.get().status == 200
    assert_all_given_back(gateway)


def test_grpc_goes_through_policies_with_its_trailers(start, scripted):
    def act(served: Served) -> None:
        if served.ended:
            served.answer(200, served.body, ((b"content-type", b"application/grpc"),), end=False)
            served.conn.codec.send_trailers(served, ((b"grpc-status", b"0"),))

    route = {
        "retry": {**NO_WAIT, "methods": ["POST"]},
        "hedge": {"after": "200ms", "methods": ["POST"]},
        "limit": {"rate": "100/h"},
        "concurrency": {"limit": 3},
        "timeout": {"total": "5s", "per_try": "2s"},
    }
    gateway = start(document(scripted(act), scripted(act), route=route))
    fields = (
        (b"te", b"trailers"),
        (b"grpc-timeout", b"2S"),
        (b"content-type", b"application/grpc"),
    )
    with Client(gateway.port()) as client:
        for _ in range(3):
            stream = client.wait(client.ask("POST", "/shop.Stock/Unary", fields, b"\0\0\0\0\1x"))
            assert stream.status == 200
            assert bytes(stream.body) == b"\0\0\0\0\1x"
            assert stream.trailers == ((b"grpc-status", b"0"),)
    assert_all_given_back(gateway)


def test_a_deadline_of_grpc_ends_a_slow_call(start, scripted):
    gateway = start(document(scripted(silent)))
    with Client(gateway.port()) as client:
        began = monotonic()
        stream = client.ask("POST", "/", ((b"grpc-timeout", b"200m"),), b"x")
        assert client.wait(stream).status == 504
        assert monotonic() - began < 2.0
    assert_all_given_back(gateway)


# -- mirrors


def test_a_copy_over_http2_has_the_body_once_though_it_was_refused_once(start, scripted):
    def refuse(served: Served) -> None:
        if served.ended:
            served.conn.codec.reset(served, ErrorCode.REFUSED_STREAM)

    watcher = Watcher(refuse, when_whole(lambda served: served.answer(200, b"copy")))
    shadow = scripted(watcher)
    real = rig.Instance()
    said = rig.document(real, route={"mirror": "shadow"})
    said["services"]["shadow"] = {"instances": [url(shadow)], "http": "2"}
    gateway = start(said)
    with gateway.client() as client:
        client.send(request("POST", "/orders", body=b"one order"))
        peer = real.accept()
        peer.until(b"one order")
        peer.send(response(b"real"))
        assert client.answer()[1] == b"real"
    wait_until(lambda: len(watcher.seen) == 2 and watcher.seen[1].ended)
    assert watcher.seen[1].body == b"one order"
    real.close()
    assert_all_given_back(gateway)


# -- everything at once


class Moody:
    """What an instance of HTTP/2 does with a request: anything at all."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def __call__(self, served: Served) -> None:
        mood = self.rng.random()
        codec = served.conn.codec
        if served.is_gone or served.send_closed:
            return
        if mood < 0.03:
            codec.reset(served, ErrorCode.REFUSED_STREAM)
        elif mood < 0.06:
            codec.reset(served, ErrorCode.INTERNAL_ERROR)
        elif mood < 0.08:
            served.conn.transport.abort()
        elif mood < 0.10:
            codec.goaway(ErrorCode.NO_ERROR, last=max(served.stream_id - 2, 0))
        elif not served.ended:
            if mood < 0.15:
                served.answer(503, b"before the end of the request")
        elif mood < 0.3:
            served.answer(503, b"no")
        elif mood < 0.4:
            served.answer(200, b"half", ((b"content-length", b"100"),), end=False)
            codec.reset(served, ErrorCode.INTERNAL_ERROR)
        elif mood < 0.6:
            served.conn.instance.later(
                self.rng.random() * 0.08, lambda: self._late(served), served.conn
            )
        elif mood < 0.7:
            served.answer(200, b"x" * 200_000)
        else:
            served.answer(200, b"ok")

    def _late(self, served: Served) -> None:
        if not served.is_gone and not served.send_closed:
            served.answer(200, b"late" * 1000)


def rough(gateway: Any, seed: int, counts: list[int]) -> None:
    """A client with many streams that it does not always follow to their ends."""
    rng = random.Random(seed)
    for _ in range(12):
        limits = H2Limits(stream_window=rng.choice([2000, 1 << 20]), connection_window=1 << 24)
        with (
            contextlib.suppress(OSError, TimeoutError),
            Client(gateway.port(), limits=limits) as one,
        ):
            streams = []
            for _ in range(8):
                method = rng.choice(["GET", "PUT", "POST", "HEAD"])
                body = b"y" * rng.choice([1, 5000, 80_000]) if method[0] == "P" else b""
                fields = ((b"grpc-timeout", b"%dm" % rng.choice([1, 30, 5000])),)
                end = rng.random() < 0.85 or not body
                streams.append(
                    one.ask(method, rng.choice(["/a", "/b"]), fields, body=body, end=end)
                )
                if rng.random() < 0.2:
                    streams[-1].takes = False
                if not end and rng.random() < 0.5:
                    one.send(streams[-1], b"the rest", end=True)
            if rng.random() < 0.3:
                sleep(rng.random() * 0.05)
                continue
            for stream in streams:
                if rng.random() < 0.2 and not stream.is_over:
                    one.codec.reset(stream, ErrorCode.CANCEL)
            one.flush()
            with contextlib.suppress(TimeoutError):
                one.until(lambda streams=streams: all(s.is_over for s in streams), 0.5)  # type: ignore[misc]  # bound now
            counts[0] += sum(stream.status > 0 for stream in streams)


def test_nothing_is_left_after_a_storm_over_http2(start, scripted):
    urls = [url(scripted(Moody(at), H2Limits(max_streams=20))) for at in range(3)]
    retry = {**NO_WAIT, "wait": "3ms", "methods": ["GET", "HEAD", "PUT"], "body": "100KB"}

    def said(limit: int) -> dict[str, Any]:
        made = rig.document(*urls[: 1 + limit % 3])
        made["services"] = {
            "upstream": {
                **made["services"]["upstream"],
                "http": "2",
                "retry": retry,
                "hedge": {"after": "10ms", "methods": ["GET", "PUT"]},
                "outlier": {"errors": 3, "eject": "100ms", "eject_max": "200ms"},
                "breaker": {"per": "instance", "window": 10, "minimum_calls": 5,
                            "failure_rate": "80%", "reset_after": "50ms"},
            },
            "spare": {"instances": urls[2:], "http": "2"},
        }  # fmt: skip
        fallback = {"when": ["open", "failed", "timeout", "full", "503"], "service": "spare"}
        made["routes"] = [
            {"name": "a", "match": {"path": "/a"}, "to": "upstream", "fallback": fallback,
             "limit": {"concurrency": limit * 10}, "mirror": "spare",
             "timeout": {"per_try": "60ms", "total": "300ms"}},
            {"name": "b", "match": {"path": "/b"}, "to": "upstream", "compress": True,
             "concurrency": {"limit": limit * 3, "queue": 20, "queue_timeout": "200ms"}},
        ]  # fmt: skip
        return made

    gateway = start(said(2))
    counts = [0]
    clients = [
        threading.Thread(target=rough, args=(gateway, at, counts), daemon=True) for at in range(5)
    ]
    for client in clients:
        client.start()
    limit = 2
    while any(client.is_alive() for client in clients):
        limit = limit % 5 + 1
        gateway.apply(said(limit))
        sleep(0.05)
    assert counts[0] > 100
    wait_until(lambda: gateway.in_flight == 0)
    assert_all_given_back(gateway)
