"""HTTP/2 clients of the gateway, before an HTTP/1.1 service."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time

import httpx
import pytest

from headgate.testing import EchoServer
from headgate.wire.h2 import PREFACE, ErrorCode, frames
from headgate.wire.h2.frames import CONTINUATION, HEADERS, frame
from tests.gateway.h2_client import Client
from tests.gateway_process import RunningGateway, proxy_document

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def echo():
    with EchoServer("users") as server:
        yield server


def document(echo: EchoServer, **more):
    made = proxy_document(echo.port, **more)
    made["routes"] = [
        {"match": {"path": "/here/"}, "respond": {"status": 200, "body": "from here"}},
        {"match": {"path": "/small/"}, "to": "upstream", "body_limit": "1KB"},
        {"match": {"path": "/gone/"}, "to": "gone"},
        {"match": {"path": "/quick/"}, "to": "upstream", "strip": True, "timeout": "300ms"},
        {"name": "all", "to": "upstream"},
    ]
    made["services"]["gone"] = {"instances": ["http://127.0.0.1:1"]}
    return made


@pytest.fixture(scope="module")
def gateway(echo):
    limits = {
        "body_timeout": "1s",
        "idle_timeout": "1s",
        "write_timeout": "1s",
        "header_timeout": "2s",
    }
    running = RunningGateway(document(echo, limits=limits))
    yield running
    running.close()
    assert running.errors == []


@pytest.fixture
def client(gateway):
    with Client(gateway.port()) as made:
        yield made


def said(stream) -> dict:
    return json.loads(stream.body)


# -- messages ----------------------------------------------------------------------------------


def test_a_request_reaches_the_service_as_http1(client):
    stream = client.get("/a/b?c=d", (b"x-a", b"1"), (b"cookie", b"a=1"), (b"cookie", b"b=2"))
    assert stream.status == 200
    got = said(stream)
    assert (got["method"], got["path"], got["query"]) == ("GET", "/a/b", "c=d")
    assert got["headers"]["host"] == "localhost"
    assert got["headers"]["cookie"] == "a=1; b=2"
    assert got["headers"]["x-forwarded-for"] == "127.0.0.1"
    assert got["headers"]["via"].startswith("2.0 ")
    assert "te" not in got["headers"]
    assert stream.get(b"x-request-id") == got["headers"]["x-request-id"].encode()
    assert stream.get(b"date")
    assert stream.length == len(stream.body)


def test_the_same_request_again_and_again(client):
    """From the second time on everything comes from memory; the answers are still one each."""
    ids = set()
    for _ in range(20):
        stream = client.get("/same")
        assert stream.status == 200
        assert said(stream)["path"] == "/same"
        ids.add(stream.get(b"x-request-id"))
    assert len(ids) == 20


def test_a_body_of_unknown_length_is_chunked_and_keeps_its_trailers(client):
    stream = client.ask("POST", "/x", end=False)
    client.send(stream, b"one")
    client.send(stream, b"two")
    client.codec.send_trailers(stream, ((b"x-t", b"1"),))
    client.flush()
    got = said(client.wait(stream))
    assert got["headers"]["transfer-encoding"] == "chunked"
    assert got["body"] == "onetwo"
    assert got["trailers"] == {"x-t": "1"}


def test_a_body_of_known_length_keeps_it(client):
    stream = client.wait(client.ask("PUT", "/x", ((b"content-length", b"3"),), b"abc"))
    assert said(stream)["headers"]["content-length"] == "3"
    assert said(stream)["body"] == "abc"


def test_an_empty_body_needs_no_chunks(client):
    assert "transfer-encoding" not in said(client.get("/x"))["headers"]
    stream = client.ask("POST", "/x", ((b"content-length", b"0"),), end=False)
    client.send(stream, b"", end=True)
    assert said(client.wait(stream))["headers"]["content-length"] == "0"


def test_large_bodies_pass_both_ways(client):
    body = bytes(range(256)) * 16_384
    stream = client.ask("POST", "/upload", end=False)
    client.codec.send_data(stream, body, end=True)
    client.flush()
    client.wait(stream)
    assert hashlib.sha256(body).hexdigest().encode() in stream.body
    assert len(client.get("/bytes/5000000").body) == 5_000_000


def test_a_chunked_answer_and_an_answer_piece_by_piece(client):
    assert client.get("/stream/20?tick=0.001").ended
    assert client.get("/drip/5?tick=0.01").body != b""


def test_head_has_a_length_and_no_body(client):
    stream = client.wait(client.ask("HEAD", "/bytes/1000"))
    assert stream.status == 200
    assert stream.length == 1000
    assert stream.body == b""


@pytest.mark.parametrize("status", [204, 304, 404, 500])
def test_statuses_pass(client, status):
    stream = client.get(f"/status/{status}")
    assert stream.status == status
    assert stream.ended


def test_many_streams_at_once(client):
    streams = [client.ask("GET", f"/delay/0.05?n={n}") for n in range(100)]
    for n, stream in enumerate(streams):
        client.wait(stream)
        assert said(stream)["query"] == f"n={n}"


def test_a_slow_stream_does_not_hold_up_a_quick_one(client):
    slow = client.ask("GET", "/delay/0.5")
    quick = client.get("/quick-one")
    assert quick.status == 200
    assert not slow.is_over
    assert client.wait(slow).status == 200


def test_expect_100_continue(client):
    stream = client.ask(
        "POST", "/x", ((b"expect", b"100-continue"), (b"content-length", b"2")), end=False
    )
    client.until(lambda: stream.informational or stream.is_over)
    assert [head.status for head in stream.informational] == [100]
    client.send(stream, b"ok", end=True)
    assert said(client.wait(stream))["body"] == "ok"


# -- answers of the gateway's own --------------------------------------------------------------


def test_an_answer_before_the_body_leaves_the_connection_usable(client):
    stream = client.ask("POST", "/here/", end=False)
    client.until(lambda: stream.ended)
    assert stream.body == b"from here"
    client.send(stream, b"x" * 1000, end=True)
    assert client.get("/x").status == 200
    assert stream.reset is None


def test_an_endless_body_after_the_answer_is_declined(client):
    stream = client.ask("POST", "/here/", end=False)
    client.until(lambda: stream.ended)
    for _ in range(10):
        client.send(stream, b"x" * 16_000)
    client.until(lambda: stream.is_gone)
    assert stream.reset is None  # NO_ERROR after a whole answer
    assert client.get("/x").status == 200


def test_a_silent_body_after_the_answer_is_declined(client):
    stream = client.ask("POST", "/here/", end=False)
    client.until(lambda: stream.is_gone, 5)
    assert stream.status == 200


@pytest.mark.parametrize(
    ("method", "target", "fields", "status"),
    [
        ("GET", "/%zz", (), 400),
        ("GET", "/../x", (), 400),
        ("GET", "/" + "x" * 9000, (), 414),
        ("GET", "/", ((b"x-a", b"x" * 33_000),), 431),
        ("GET", "/", tuple((b"x-%d" % n, b"1") for n in range(120)), 431),
        ("GET", "/", ((b"expect", b"miracles"),), 417),
        ("GET", "/", ((b"content_length", b"3"),), 400),
        ("get", "/", (), 501),
        ("TRACE", "/", (), 405),
        ("POST", "/small/", ((b"content-length", b"5000"),), 413),
        ("GET", "/gone/", (), 502),
    ],
)
def test_refusals_are_answers(client, method, target, fields, status):
    stream = client.ask(method, target, fields, end=b"content-length" not in dict(fields))
    client.until(lambda: stream.ended or stream.is_over)
    assert stream.status == status
    if status >= 400:
        assert stream.get(b"content-type") == b"application/problem+json"
        assert said(stream)["request_id"]
    assert client.get("/x").status == 200


def test_a_head_beyond_the_announced_list_is_431(client):
    fields = tuple((b"x-%d" % n, b"y" * 16_000) for n in range(5))
    stream = client.wait(client.ask("GET", "/", fields))
    assert stream.status == 431
    assert client.get("/x").status == 200


@pytest.mark.parametrize(
    "authority", ["user@localhost", "a b", "exa mple", "[::1", "localhost:99999999"]
)
def test_a_malformed_authority_is_no_request(client, authority):
    stream = client.wait(client.ask(authority=authority))
    assert stream.reset == ErrorCode.PROTOCOL_ERROR or stream.status == 400


def test_plain_connect_is_refused(client):
    block = client.codec.encoder.encode_request("CONNECT", "", "localhost:80", "", ())
    from tests.gateway.h2_client import Told

    stream = Told()
    stream.client = client
    client.codec.open(stream, block, end=False)
    client.flush()
    client.until(lambda: stream.ended)
    assert stream.status == 501


def test_a_body_beyond_the_limit_is_413_while_it_comes(client):
    stream = client.ask("POST", "/small/", end=False)
    client.send(stream, b"x" * 600)
    client.send(stream, b"x" * 600)
    client.until(lambda: stream.ended)
    assert stream.status == 413


def test_a_body_that_stops_is_408(client):
    stream = client.ask("POST", "/x", end=False)
    client.send(stream, b"x")
    client.until(lambda: stream.ended, 5)
    assert stream.status == 408


def test_a_service_that_is_silent_is_504(client):
    assert client.get("/quick/delay/2").status == 504


def test_a_service_that_closes_is_502(client):
    assert client.get("/close").status == 502


def test_an_answer_that_breaks_off_resets_the_stream_and_no_more():
    body = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this"
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        for _ in range(2):
            sock, _ = listener.accept()
            sock.recv(65_536)
            sock.sendall(body)
            sock.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    running = RunningGateway(proxy_document(listener.getsockname()[1]))
    with Client(running.port()) as client:
        for _ in range(2):
            stream = client.get("/")
            assert stream.status == 200
            assert stream.body == b"only this"
            assert stream.reset == ErrorCode.INTERNAL_ERROR
    running.close()
    listener.close()
    assert running.errors == []


# -- clients that leave, stall or flood --------------------------------------------------------


def in_flight(gateway) -> int:
    return gateway.worker._stats.in_flight


def settles(gateway, expected=0):
    deadline = time.monotonic() + 5
    while in_flight(gateway) != expected and time.monotonic() < deadline:
        time.sleep(0.01)
    return in_flight(gateway) == expected


def test_a_cancelled_request_leaves_nothing_behind(gateway, client):
    stream = client.ask("GET", "/delay/5")
    time.sleep(0.05)
    assert in_flight(gateway) == 1
    client.codec.reset(stream, ErrorCode.CANCEL)
    client.flush()
    assert settles(gateway)
    assert client.get("/x").status == 200


def test_a_client_that_vanishes_leaves_nothing_behind(gateway):
    client = Client(gateway.port())
    for _ in range(5):
        client.ask("GET", "/delay/5")
    client.ask("POST", "/upload", end=False)
    client.ask("GET", "/bytes/50000000").takes = False
    time.sleep(0.1)
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    assert settles(gateway)


def test_a_reader_that_takes_nothing_is_held_to_its_window_and_then_given_up(gateway, client):
    stream = client.ask("GET", "/bytes/100000000")
    stream.takes = False
    client.until(lambda: stream.is_over, 8)
    assert stream.reset == ErrorCode.CANCEL
    assert len(stream.body) <= 1 << 20
    assert client.get("/x").status == 200
    assert settles(gateway)


def test_a_client_that_does_not_read_at_all_is_cut_off(gateway):
    client = Client(gateway.port())
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    for _ in range(20):
        client.ask("GET", "/bytes/20000000")
    deadline = time.monotonic() + 8
    while in_flight(gateway) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert in_flight(gateway) == 0
    client.close()


def test_an_idle_connection_is_closed_politely(client):
    assert client.get("/x").status == 200
    client.until(lambda: not client.is_open, 5)
    assert client.codec.peer_goaway_code == 0
    assert client.codec.peer_goaway == 1


def test_rapid_reset_ends_the_connection_and_its_work(gateway, client):
    for _ in range(400):
        if not client.is_open:
            break
        try:
            stream = client.ask("GET", "/delay/1")
            client.codec.reset(stream, ErrorCode.CANCEL)
            client.flush()
        except OSError:
            break
    client.until(lambda: not client.is_open)
    assert client.codec.peer_goaway_code in (ErrorCode.ENHANCE_YOUR_CALM, 0)
    assert settles(gateway)


@pytest.mark.parametrize(
    "flood",
    [
        frames.ping(b"12345678"),
        frames.settings({}),
        frame(frames.PRIORITY, 0, 1, b"\0\0\0\3\0"),
        frames.window_update(0, 1),
    ],
)
def test_floods_end_the_connection(gateway, client, flood):
    with pytest.raises((OSError, AssertionError)):
        for _ in range(200):
            client.raw(flood * 100)
            client.sock.settimeout(0.01)
            try:
                client.read(0.01)
            except TimeoutError:
                pass
            assert client.is_open
    with Client(gateway.port()) as other:
        assert other.get("/x").status == 200


def test_a_continuation_flood_ends_the_connection(client):
    client.raw(frame(HEADERS, 0, 1, b"\x82") + frame(CONTINUATION, 0, 1, b"\x86") * 200)
    client.until(lambda: not client.is_open)
    assert client.codec.peer_goaway_code == ErrorCode.ENHANCE_YOUR_CALM


@pytest.mark.parametrize(
    "beginning",
    [frame(HEADERS, 1, 1, b"\x82"), frame(HEADERS, 5, 1, b"\x82\x86\x84\x41\x01a")[:12], b"\0"],
)
def test_a_head_that_trickles_in_ends_the_connection(gateway, beginning):
    with Client(gateway.port()) as client:
        client.until(lambda: client.codec.settings_acked)
        client.raw(beginning)
        client.until(lambda: not client.is_open, 6)
        assert client.codec.peer_goaway_code == ErrorCode.ENHANCE_YOUR_CALM


# -- the preface and what may come before it ---------------------------------------------------


def test_the_preface_may_come_in_pieces(gateway):
    with socket.create_connection(("127.0.0.1", gateway.port())) as sock:
        hello = PREFACE + frames.settings({})
        for byte in hello:
            sock.sendall(bytes((byte,)))
            time.sleep(0.001)
        sock.settimeout(5)
        assert sock.recv(9)[3] == frames.SETTINGS


def test_http1_and_http2_share_a_listener(gateway, client):
    assert httpx.get(f"http://127.0.0.1:{gateway.port()}/x").status_code == 200
    assert client.get("/x").status == 200


def test_a_listener_without_http2_takes_no_preface(echo):
    made = document(echo)
    made["listeners"] = [{"bind": "127.0.0.1:0", "protocols": ["http1"]}]
    running = RunningGateway(made)
    with socket.create_connection(("127.0.0.1", running.port())) as sock:
        sock.sendall(PREFACE + frames.settings({}))
        sock.settimeout(5)
        assert sock.recv(100).startswith(b"HTTP/1.1 ")
    running.close()
    assert running.errors == []


def test_a_listener_without_http1_says_so(echo):
    made = document(echo)
    made["listeners"] = [{"bind": "127.0.0.1:0", "protocols": ["http2"]}]
    running = RunningGateway(made)
    with socket.create_connection(("127.0.0.1", running.port())) as sock:
        sock.sendall(b"GET /x HTTP/1.1\r\nHost: h.example\r\n\r\n")
        sock.settimeout(5)
        assert sock.recv(100).startswith(b"HTTP/1.1 505 ")
    with Client(running.port()) as client:
        assert client.get("/x").status == 200
    running.close()
    assert running.errors == []


# -- reload and drain --------------------------------------------------------------------------


def test_a_reload_changes_the_routes_of_an_open_connection(echo):
    made = document(echo)
    running = RunningGateway(made)
    with Client(running.port()) as client:
        assert client.get("/new/").status == 200
        assert said(client.get("/new/"))["path"] == "/new/"
        slow = client.ask("GET", "/delay/0.3")
        made["routes"].insert(0, {"match": {"path": "/new/"}, "respond": {"body": "new"}})
        running.apply(made)
        assert client.get("/new/").body == b"new"
        assert client.wait(slow).status == 200
        assert client.is_open
    running.close()
    assert running.errors == []


def test_a_drain_finishes_what_is_in_flight_and_says_goodbye(echo):
    running = RunningGateway(document(echo))
    with Client(running.port()) as client, Client(running.port()) as idle:
        assert idle.get("/x").status == 200
        slow = client.ask("GET", "/delay/0.5")
        time.sleep(0.1)
        done = threading.Thread(target=lambda: running.call(running.worker.drain(5)))
        done.start()
        assert client.wait(slow).status == 200
        client.until(lambda: not client.is_open)
        idle.until(lambda: not idle.is_open)
        assert client.codec.peer_goaway == 1
        assert client.codec.peer_goaway_code == 0
        assert idle.codec.peer_goaway == 1
        done.join(5)
        assert not done.is_alive()
    assert running.errors == []


# -- WebSocket over HTTP/2 ---------------------------------------------------------------------


def masked(payload: bytes, opcode: int = 1) -> bytes:
    return bytes((0x80 | opcode, 0x80 | len(payload))) + b"\0\0\0\0" + payload


def test_a_websocket_over_http2_becomes_an_upgrade(client, echo):
    client.until(lambda: client.codec.peer_settings.get(frames.ENABLE_CONNECT_PROTOCOL))
    stream = client.ask(
        "CONNECT",
        "/ws?room=1",
        ((b"sec-websocket-version", b"13"), (b"origin", b"http://localhost")),
        protocol="websocket",
        end=False,
    )
    client.until(lambda: stream.head or stream.is_over)
    assert stream.status == 200
    assert stream.get(b"sec-websocket-accept") is None
    seen = echo.seen[-1]
    assert (seen.method, seen.target) == ("GET", "/ws?room=1")
    assert seen.get("upgrade") == "websocket"
    assert seen.get("sec-websocket-key")
    for n in range(5):
        message = b"message %d" % n
        before = len(stream.body)
        client.send(stream, masked(message))
        client.until(lambda before=before: len(stream.body) > before)
        assert stream.body.endswith(message)
    client.send(stream, masked(b"\x03\xe8", 8))
    client.until(lambda: stream.ended)
    assert b"\x88\x02\x03\xe8" in stream.body


def test_a_refused_websocket_is_the_services_answer(client):
    stream = client.ask("CONNECT", "/status/403", protocol="websocket", end=False)
    client.until(lambda: stream.ended or stream.is_over)
    assert stream.status == 403


def test_a_service_that_does_not_switch_is_no_tunnel(client):
    """A 200 would tell the client that its tunnel stands."""
    stream = client.ask("CONNECT", "/x", protocol="websocket", end=False)
    client.until(lambda: stream.ended or stream.is_over)
    assert stream.status == 502


def test_a_websocket_with_the_wrong_accept_is_refused():
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        sock, _ = listener.accept()
        sock.recv(65_536)
        sock.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
            b"sec-websocket-accept: wrong\r\n\r\n"
        )
        sock.recv(65_536)
        sock.close()

    threading.Thread(target=serve, daemon=True).start()
    running = RunningGateway(proxy_document(listener.getsockname()[1]))
    with Client(running.port()) as client:
        stream = client.ask("CONNECT", "/ws", protocol="websocket", end=False)
        client.until(lambda: stream.ended or stream.is_over)
        assert stream.status == 502
        deadline = time.monotonic() + 5
        while in_flight(running) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert in_flight(running) == 0
    running.close()
    listener.close()
    assert running.errors == []


# -- clients that others wrote -----------------------------------------------------------------


@pytest.fixture(scope="module")
def tls_gateway(echo, tmp_path_factory):
    folder = tmp_path_factory.mktemp("state")
    made = document(echo, state_dir=str(folder))
    made["listeners"] = [{"bind": "127.0.0.1:0", "tls": {"certificate": "local"}}]
    running = RunningGateway(made)
    yield running
    running.close()
    assert running.errors == []


def run(*command: str) -> str:
    if shutil.which(command[0]) is None:
        pytest.fail(f"{command[0]} is not installed")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_curl_with_prior_knowledge(gateway):
    out = run(
        "curl", "-sS", "--http2-prior-knowledge", "-d", "body", "-w", "%{http_version}",
        f"http://127.0.0.1:{gateway.port()}/x",
    )  # fmt: skip
    assert out.endswith("2")
    assert json.loads(out[:-1])["body"] == "body"


def test_curl_over_tls(tls_gateway):
    out = run(
        "curl", "-sSk", "--http2", "-w", "%{http_version}",
        f"https://127.0.0.1:{tls_gateway.port()}/x",
    )  # fmt: skip
    assert out.endswith("2")
    assert json.loads(out[:-1])["headers"]["x-forwarded-proto"] == "https"


def test_curl_uploads_a_large_file(gateway, tmp_path):
    path = tmp_path / "large"
    path.write_bytes(bytes(range(256)) * 20_000)
    out = run(
        "curl", "-sS", "--http2-prior-knowledge", "-T", str(path),
        f"http://127.0.0.1:{gateway.port()}/upload",
    )  # fmt: skip
    assert hashlib.sha256(path.read_bytes()).hexdigest() in out


def test_httpx_over_tls(tls_gateway):
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    base = f"https://127.0.0.1:{tls_gateway.port()}"
    with httpx.Client(http2=True, verify=context) as session:
        for n in range(5):
            answer = session.post(f"{base}/x?n={n}", content=b"x" * 100_000)
            assert answer.http_version == "HTTP/2"
            assert answer.json()["body_bytes"] == 100_000
        with session.stream("GET", f"{base}/bytes/3000000") as answer:
            assert sum(len(piece) for piece in answer.iter_raw()) == 3_000_000


def test_h2load_has_no_failure(gateway):
    out = run(
        "h2load", "-n", "2000", "-c", "10", "-m", "20", f"http://127.0.0.1:{gateway.port()}/here/"
    )
    assert "2000 succeeded, 0 failed, 0 errored, 0 timeout" in out
