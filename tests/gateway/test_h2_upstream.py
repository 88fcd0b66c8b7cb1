"""Services that speak HTTP/2, before clients of both versions."""

from __future__ import annotations

import hashlib
import http.client
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import NamedTuple

import pytest

from headgate.testing import EchoServer
from headgate.wire.h2 import ErrorCode, H2Limits, frames
from tests.gateway.h2_client import Client
from tests.gateway.h2_instance import Instance, Served
from tests.gateway_process import RunningGateway, proxy_document

pytestmark = pytest.mark.integration


def document(port: int, **more):
    made = proxy_document(port, **more)
    made["services"]["upstream"]["http"] = "2"
    return made


@contextmanager
def serving(act, limits=None, **more):
    """A scripted service behind a gateway."""
    with Instance(act, limits) as instance:
        running = RunningGateway(document(instance.port, **more))
        try:
            yield instance, running
        finally:
            running.close()
        assert running.errors == []
        assert running.worker._stats.in_flight == 0


class Answer(NamedTuple):
    status: int
    data: bytes
    getheader: Callable[[str], str | None]


def ask(running, method="GET", target="/", body=None, headers=()):
    """One request over HTTP/1.1."""
    conn = http.client.HTTPConnection("127.0.0.1", running.port(), timeout=10)
    conn.request(method, target, body, dict(headers))
    answer = conn.getresponse()
    got = Answer(answer.status, answer.read(), answer.getheader)
    conn.close()
    return got


def describe(served: Served) -> None:
    """Answers, once the request is whole, with what it was."""
    if not served.ended:
        return
    fields = served.fields
    assert fields is not None
    served.answer(
        200,
        json.dumps(
            {
                "method": fields.method,
                "scheme": fields.scheme,
                "authority": fields.authority,
                "path": fields.path,
                "te": fields.te_trailers,
                "length": fields.length,
                "headers": {k.decode(): v.decode("latin-1") for k, v in fields.headers},
                "trailers": {k.decode(): v.decode() for k, v in served.trailers},
                "body": hashlib.sha256(served.body).hexdigest(),
                "connection": served.conn.number,
            }
        ).encode(),
        ((b"content-type", b"application/json"),),
    )


# -- messages ----------------------------------------------------------------------------------


def test_a_request_of_http1_arrives_as_http2():
    with serving(describe) as (_, running):
        answer = ask(running, "PUT", "/a?b=c", b"body", {"X-A": "1", "TE": "trailers"})
        got = json.loads(answer.data)
        assert answer.status == 200
        assert (got["method"], got["scheme"], got["path"]) == ("PUT", "http", "/a?b=c")
        assert got["authority"] == f"127.0.0.1:{running.port()}"
        assert got["headers"]["x-a"] == "1"
        assert got["headers"]["x-forwarded-for"] == "127.0.0.1"
        assert not {"host", "connection", "te", "transfer-encoding"} & got["headers"].keys()
        assert got["length"] == 4
        assert got["te"]
        assert got["body"] == hashlib.sha256(b"body").hexdigest()


def test_one_connection_carries_many_requests():
    with serving(describe) as (instance, running), Client(running.port()) as client:
        streams = [client.ask("GET", f"/{n}") for n in range(50)]
        for n, stream in enumerate(streams):
            assert json.loads(client.wait(stream).body)["path"] == f"/{n}"
        assert len(instance.conns) == 1


def test_full_connections_get_company():
    def act(served):
        served.conn.instance.later(0.1, lambda: describe(served), served.conn)

    with serving(act, H2Limits(max_streams=4)) as (instance, running):
        ask(running)
        with Client(running.port()) as client:
            streams = [client.ask("GET", f"/{n}") for n in range(30)]
            for stream in streams:
                assert client.wait(stream).status == 200
        assert 2 <= len(instance.conns) <= 10
        assert all(not conn.codec.fault for conn in instance.conns)


def test_the_line_is_served_when_the_pool_may_not_grow():
    def act(served):
        served.conn.instance.later(0.02, lambda: describe(served), served.conn)

    with Instance(act, H2Limits(max_streams=2)) as instance:
        made = document(instance.port)
        made["services"]["upstream"]["pool"] = {"connections": 1}
        running = RunningGateway(made)
        with Client(running.port()) as client:
            streams = [client.ask("GET", f"/{n}") for n in range(20)]
            assert [client.wait(stream).status for stream in streams] == [200] * 20
        assert len(instance.conns) == 1
        running.close()
        assert running.errors == []


def test_large_bodies_pass_both_ways():
    def act(served):
        if served.ended:
            served.answer(200, served.body)

    body = bytes(range(256)) * 12_000
    with serving(act) as (_, running):
        assert ask(running, "POST", "/", body).data == body
        with Client(running.port()) as client:
            stream = client.ask("POST", "/", end=False)
            client.codec.send_data(stream, body, end=True)
            client.flush()
            assert client.wait(stream).body == body


def test_trailers_travel_both_ways_and_to_http1():
    def act(served):
        if served.ended:
            served.answer(200, b"body", end=False)
            served.conn.codec.send_trailers(served, ((b"x-back", served.trailers[0][1]),))

    with serving(act) as (_, running):
        with Client(running.port()) as client:
            stream = client.ask("POST", "/", end=False)
            client.send(stream, b"x")
            client.codec.send_trailers(stream, ((b"x-there", b"7"),))
            client.flush()
            assert client.wait(stream).trailers == ((b"x-back", b"7"),)
        with socket.create_connection(("127.0.0.1", running.port())) as sock:
            sock.sendall(
                b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
                b"1\r\nx\r\n0\r\nx-there: 8\r\n\r\n"
            )
            sock.settimeout(5)
            got = b""
            while b"x-back: 8\r\n\r\n" not in got:
                got += sock.recv(65_536)


def test_informational_answers_pass():
    def act(served):
        served.conn.codec.send_informational(served, 103, ((b"link", b"</x>; rel=preload"),))
        describe(served)

    with serving(act) as (_, running), Client(running.port()) as client:
        stream = client.get("/")
        assert [head.status for head in stream.informational] == [103]
        assert stream.status == 200


def test_head_and_bodiless_statuses():
    def act(served):
        if served.path == "/204":
            served.answer(204)
        elif served.path == "/304":
            served.answer(304, b"", ((b"content-length", b"9"),))
        else:
            served.answer(200, b"", ((b"content-length", b"9"),))

    with serving(act) as (_, running), Client(running.port()) as client:
        assert client.wait(client.ask("HEAD", "/")).length == 9
        assert client.get("/204").status == 204
        assert client.get("/304").status == 304
        assert ask(running, "HEAD").getheader("content-length") == "9"
        assert ask(running, "GET", "/304").status == 304


def test_an_answer_before_the_body_is_whole_cancels_the_rest():
    def act(served):
        if not served.head_sent:
            served.answer(413, b"enough")

    with serving(act) as (instance, running), Client(running.port()) as client:
        stream = client.ask("POST", "/", end=False)
        client.send(stream, b"x" * 1000)
        client.until(lambda: stream.ended)
        assert (stream.status, bytes(stream.body)) == (413, b"enough")
        until(lambda: instance.requests[0].was_reset is not None)


def until(is_so, timeout_s=5.0):
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# -- back-pressure -----------------------------------------------------------------------------


def test_a_client_that_does_not_read_stops_the_service():
    def act(served):
        served.answer(200, b"x" * 20_000_000)

    with serving(act) as (instance, running), Client(running.port()) as client:
        stream = client.ask()
        stream.takes = False
        time.sleep(0.5)
        client.until(lambda: len(stream.body) >= 1 << 20)
        left = instance.requests[0].pending_bytes
        assert left > 15_000_000
        stream.takes = True
        client.codec.consume(stream, len(stream.body))
        client.flush()
        assert len(client.wait(stream, 20).body) == 20_000_000


def test_a_service_that_does_not_read_stops_the_client():
    def act(served):
        if served.ended:
            served.answer(200, b"%d" % len(served.body))

    with serving(act) as (instance, running), Client(running.port()) as client:
        stream = client.ask("POST", "/", end=False)
        until(lambda: instance.requests)
        served = instance.requests[0]
        consume, owed = served.conn.codec.consume, []
        served.conn.codec.consume = lambda stream, size: owed.append(size)
        client.codec.send_data(stream, b"x" * 8_000_000, end=True)
        client.flush()
        client.sock.settimeout(0.5)
        with pytest.raises(TimeoutError):
            while True:
                client.read(0.5)
        assert len(served.body) <= 1 << 18
        assert stream.pending_bytes > 4_000_000

        def go_on():
            served.conn.codec.consume = consume
            consume(served, sum(owed))

        served.conn.instance._loop.call_soon_threadsafe(
            served.conn.instance.later, 0, go_on, served.conn
        )
        assert client.wait(stream, 20).body == b"8000000"


# -- failures ----------------------------------------------------------------------------------


def test_streams_beyond_a_goaway_are_asked_again_on_a_new_connection():
    def act(served):
        codec = served.conn.codec
        if served.conn.number == 0 and served.stream_id > 1:
            if codec.goaway_sent is None:
                codec.goaway(ErrorCode.NO_ERROR, last=1)
            return
        describe(served)

    with serving(act) as (instance, running), Client(running.port()) as client:
        assert client.get("/first").status == 200
        streams = [
            client.ask("POST", f"/{n}", ((b"content-length", b"4"),), b"body") for n in range(10)
        ]
        for n, stream in enumerate(streams):
            got = json.loads(client.wait(stream).body)
            assert (got["path"], got["connection"]) == (f"/{n}", 1)
            assert got["body"] == hashlib.sha256(b"body").hexdigest()
        assert len(instance.conns) == 2


def test_a_graceful_goaway_loses_nothing():
    """The service restarts its connection after every fifth request, in the middle of traffic."""

    def act(served):
        codec = served.conn.codec
        if served.stream_id >= 9 and codec.goaway_sent is None:
            codec.goaway(ErrorCode.NO_ERROR)
        describe(served)

    with serving(act) as (instance, running), Client(running.port()) as client:
        streams = [client.ask("GET", f"/{n}") for n in range(60)]
        assert [client.wait(stream).status for stream in streams] == [200] * 60
        assert len(instance.conns) >= 12


def test_a_refused_stream_is_asked_again():
    def act(served):
        if len(served.conn.instance.requests) <= 2:
            served.conn.codec.reset(served, ErrorCode.REFUSED_STREAM)
        else:
            describe(served)

    with serving(act) as (instance, running):
        answer = ask(running, "POST", "/", b"body")
        assert answer.status == 200
        assert json.loads(answer.data)["body"] == hashlib.sha256(b"body").hexdigest()
        assert len(instance.requests) == 3


def test_a_service_that_refuses_for_ever_is_502():
    def act(served):
        served.conn.codec.reset(served, ErrorCode.REFUSED_STREAM)

    with serving(act) as (instance, running):
        assert ask(running).status == 502
        assert len(instance.requests) == 4


def test_a_request_that_is_still_being_sent_goes_on_elsewhere():
    def act(served):
        if len(served.conn.instance.requests) == 1:
            if served.body:
                served.conn.codec.goaway(ErrorCode.NO_ERROR, last=0)
        else:
            describe(served)

    with serving(act) as (instance, running), Client(running.port()) as client:
        stream = client.ask("POST", "/", end=False)
        client.send(stream, b"one")
        until(lambda: len(instance.conns) == 2)
        client.send(stream, b"two")
        client.codec.send_trailers(stream, ((b"x-t", b"1"),))
        client.flush()
        got = json.loads(client.wait(stream).body)
        assert got["body"] == hashlib.sha256(b"onetwo").hexdigest()
        assert got["trailers"] == {"x-t": "1"}


def test_a_refused_request_with_trailers_is_repeated_with_them():
    def act(served):
        if len(served.conn.instance.requests) == 1:
            if served.ended:
                served.conn.codec.reset(served, ErrorCode.REFUSED_STREAM)
        else:
            describe(served)

    with serving(act) as (_, running), Client(running.port()) as client:
        stream = client.ask("POST", "/", end=False)
        client.send(stream, b"one")
        client.codec.send_trailers(stream, ((b"x-t", b"1"),))
        client.flush()
        assert json.loads(client.wait(stream).body)["trailers"] == {"x-t": "1"}


def test_a_request_of_which_too_much_was_sent_is_not_repeated():
    def act(served):
        if len(served.body) > 100_000 and not served.is_gone:
            served.conn.codec.reset(served, ErrorCode.REFUSED_STREAM)

    with serving(act) as (instance, running), Client(running.port()) as client:
        stream = client.ask("POST", "/", end=False)
        client.codec.send_data(stream, b"x" * 150_000, end=False)
        client.flush()
        client.until(lambda: stream.ended)
        assert stream.status == 502
        assert len(instance.requests) == 1


@pytest.mark.parametrize("code", [ErrorCode.INTERNAL_ERROR, ErrorCode.CANCEL])
def test_a_reset_before_the_answer_is_502(code):
    with serving(lambda served: served.conn.codec.reset(served, code)) as (instance, running):
        assert ask(running).status == 502
        assert len(instance.requests) == 1
        assert len(instance.conns) == 1


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (ErrorCode.INTERNAL_ERROR, ErrorCode.INTERNAL_ERROR),
        (ErrorCode.CANCEL, ErrorCode.CANCEL),
        (ErrorCode.PROTOCOL_ERROR, ErrorCode.INTERNAL_ERROR),
    ],
)
def test_a_reset_in_the_middle_of_an_answer_is_passed_on(code, told):
    def act(served):
        served.answer(200, b"some", end=False)
        served.conn.instance.later(0.05, lambda: served.conn.codec.reset(served, code), served.conn)

    with serving(act) as (_, running), Client(running.port()) as client:
        stream = client.get("/")
        assert (stream.status, bytes(stream.body), stream.reset) == (200, b"some", told)


def test_a_malformed_answer_is_502_and_spares_the_connection():
    def act(served):
        if served.path == "/bad":
            block = served.conn.codec.encoder.encode(((b":status", b"200"), (b"X", b"\n")))
            served.conn.codec.send_block(served, block, end=True)
        else:
            describe(served)

    with serving(act) as (instance, running):
        assert ask(running, "GET", "/bad").status == 502
        assert ask(running).status == 200
        assert len(instance.conns) == 1


def test_a_connection_that_breaks_the_rules_is_given_up():
    def act(served):
        if served.path == "/bad":
            served.conn.codec.out.append(frames.frame(frames.PING, 0, 0, b"short"))
        else:
            describe(served)

    with serving(act) as (instance, running):
        assert ask(running, "GET", "/bad").status == 502
        assert ask(running).status == 200
        assert len(instance.conns) == 2


def test_a_lost_connection_fails_its_requests_and_the_next_gets_another():
    def act(served):
        if served.path == "/cut":
            served.conn.transport.abort()
        else:
            describe(served)

    with serving(act) as (instance, running):
        assert ask(running, "POST", "/cut", b"x").status == 502
        assert ask(running).status == 200
        assert len(instance.conns) == 2


def test_a_silent_service_is_504_and_its_stream_is_cancelled():
    with serving(lambda served: None, timeout="300ms") as (instance, running):
        assert ask(running).status == 504
        until(lambda: instance.requests[0].was_reset == ErrorCode.CANCEL)
        assert len(instance.conns) == 1


def test_an_answer_that_stops_is_broken_off():
    def act(served):
        served.answer(200, b"some", end=False)

    limits = {"first_byte": "2s", "idle": "300ms"}
    with serving(act, timeout=limits) as (instance, running), Client(running.port()) as client:
        stream = client.get("/")
        assert stream.body == b"some"
        assert stream.reset == ErrorCode.INTERNAL_ERROR
        until(lambda: instance.requests[0].was_reset == ErrorCode.CANCEL)


def test_a_client_that_leaves_cancels_the_stream():
    with serving(lambda served: None) as (instance, running):
        with Client(running.port()) as client:
            stream = client.ask()
            until(lambda: instance.requests)
            client.codec.reset(stream, ErrorCode.CANCEL)
            client.flush()
            until(lambda: instance.requests[0].was_reset == ErrorCode.CANCEL)
        with socket.create_connection(("127.0.0.1", running.port())) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            until(lambda: len(instance.requests) == 2)
        until(lambda: instance.requests[1].was_reset == ErrorCode.CANCEL)


def test_a_service_that_speaks_http1_only_is_502():
    with EchoServer() as echo:
        running = RunningGateway(document(echo.port))
        assert ask(running).status == 502
        running.close()
        assert running.errors == []


def test_an_idle_connection_is_closed_and_made_anew():
    with Instance(describe) as instance:
        made = document(instance.port)
        made["services"]["upstream"]["pool"] = {"idle_timeout": "300ms"}
        running = RunningGateway(made)
        assert ask(running).status == 200
        until(instance.conns[0].transport.is_closing)
        assert ask(running).status == 200
        assert len(instance.conns) == 2
        running.close()
        assert running.errors == []


# -- WebSocket ---------------------------------------------------------------------------------


def test_a_websocket_of_http1_becomes_an_extended_connect():
    def act(served):
        if not served.head_sent:
            served.answer(200, b"", ((b"sec-websocket-protocol", b"chat"),), end=False)
        elif served.body:
            body, served.body = served.body, b""
            served.conn.codec.send_data(served, body, end=served.ended)

    with (
        serving(act) as (instance, running),
        socket.create_connection(("127.0.0.1", running.port())) as sock,
    ):
        sock.settimeout(5)
        sock.sendall(
            b"GET /ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
            b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n"
        )
        head = b""
        while b"\r\n\r\n" not in head:
            head += sock.recv(65_536)
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in head
        assert b"sec-websocket-protocol: chat\r\n" in head
        fields = instance.requests[0].fields
        assert (fields.method, fields.protocol) == ("CONNECT", "websocket")
        assert b"sec-websocket-key" not in dict(fields.headers)
        for n in range(3):
            sock.sendall(b"frame %d" % n)
            assert sock.recv(100) == b"frame %d" % n


def test_a_websocket_passes_from_http2_to_http2():
    def act(served):
        if not served.head_sent:
            served.answer(200, b"", end=False)
        elif served.body or served.ended:
            body, served.body = served.body, b""
            served.conn.codec.send_data(served, body, end=served.ended)

    with serving(act) as (_, running), Client(running.port()) as client:
        client.until(lambda: client.codec.peer_settings.get(frames.ENABLE_CONNECT_PROTOCOL))
        stream = client.ask("CONNECT", "/ws", protocol="websocket", end=False)
        client.until(lambda: stream.head or stream.is_over)
        assert stream.status == 200
        client.send(stream, b"frame")
        client.until(lambda: stream.body == b"frame")
        client.send(stream, b"", end=True)
        client.until(lambda: stream.ended)


# -- services that others wrote ----------------------------------------------------------------


@pytest.fixture
def nginx(tmp_path):
    if shutil.which("nginx") is None:
        pytest.fail("nginx is not installed: apt-get install nginx")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    (tmp_path / "large").write_bytes(bytes(range(256)) * 8000)
    temp = "".join(
        f"{kind}_temp_path {tmp_path}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    conf = tmp_path / "nginx.conf"
    conf.write_text(
        f"user root; daemon off; pid {tmp_path}/pid; error_log {tmp_path}/error.log; events {{}}\n"
        f"http {{ access_log off; {temp} keepalive_requests 20;\n"
        f"server {{ listen 127.0.0.1:{port} http2; location / {{ return 200 'n'; }}\n"
        f"location /large {{ root {tmp_path}; }} }} }}\n"
    )
    process = subprocess.Popen(["nginx", "-c", str(conf), "-e", f"{tmp_path}/error.log"])
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            time.sleep(0.02)
    yield port, tmp_path
    process.terminate()
    process.wait(5)


def test_nginx_as_the_service(nginx):
    """With `keepalive_requests 20` it says GOAWAY again and again; no request may be lost."""
    port, folder = nginx
    running = RunningGateway(document(port))
    with Client(running.port()) as client:
        for _ in range(10):
            streams = [client.ask("GET", f"/{n}") for n in range(30)]
            assert [client.wait(stream).status for stream in streams] == [200] * 30
        assert client.get("/large").body == (folder / "large").read_bytes()
    running.close()
    assert running.errors == []
