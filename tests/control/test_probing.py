"""One health check against real sockets: what is sent, what passes, and how failures are named."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from headgate.config.services import UpstreamTlsSpec
from headgate.control.probing import Seen, probe
from headgate.control.probing.http1 import request_head
from headgate.control.probing.http2 import check_request, read_check_response
from headgate.wire.h2 import ErrorCode
from tests.control.scripted import OK, Asked, Names, eventually, instance, run, target
from tests.gateway.h2_instance import Instance, Served

GRPC = "grpc.health.v1.Health"


def seen(script: Any, **rules: Any) -> Seen:
    """Check an instance that answers by `script`."""

    async def main() -> Seen:
        async with instance(script) as made:
            return await probe(target(made.url, **rules), Names())

    found: Seen = run(main())
    return found


def checked(url: str, **rules: Any) -> Seen:
    """Check whatever is at `url`."""

    async def main() -> Seen:
        return await probe(target(url, **rules), Names())

    found: Seen = run(main())
    return found


def in_pieces(*pieces: bytes | float, then: str = "close") -> Any:
    """Say pieces, with pauses in seconds between; then close, or wait for the other side to."""

    async def script(asked: Asked) -> None:
        for piece in pieces:
            if isinstance(piece, float):
                await asyncio.sleep(piece)
            else:
                await asked.say(piece)
        if then == "hang":
            await asked.until_gone()
        elif then == "reset":
            asked.reset()

    return script


def head(status: int = 200, *fields: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status} Reason", *fields, "", ""]).encode()


# ---- what is sent


def asked_by(**rules: Any) -> bytes:
    return request_head(target("http://127.0.0.1:3001", **rules))


def test_the_request_is_plain_and_ends_its_connection():
    assert asked_by(path="/health/ready?deep=1") == (
        b"GET /health/ready?deep=1 HTTP/1.1\r\n"
        b"host: 127.0.0.1:3001\r\n"
        b"user-agent: headgate-health\r\n"
        b"accept: */*\r\n"
        b"connection: close\r\n\r\n"
    )


def test_headers_host_and_method_can_be_given():
    rules = {"method": "POST", "host": "users.internal", "headers": (("Accept", "a/b"), ("X", "y"))}
    assert asked_by(**rules) == (
        b"POST / HTTP/1.1\r\n"
        b"host: users.internal\r\n"
        b"user-agent: headgate-health\r\n"
        b"connection: close\r\n"
        b"content-length: 0\r\n"
        b"accept: a/b\r\n"
        b"x: y\r\n\r\n"
    )


def test_another_port_is_named_in_the_host_too():
    assert b"host: 127.0.0.1:9000\r\n" in asked_by(port=9000)


def test_a_line_break_is_never_sent():
    with pytest.raises(ValueError):
        asked_by(headers=(("x", "y\r\nz: 1"),))


def test_what_arrives_is_what_was_written():
    async def main() -> None:
        async with instance(OK) as made:
            asked = target(made.url, path="/ready")
            await probe(asked, Names())
            assert made.asked[0].head == request_head(asked)

    run(main())


# ---- what passes

CHUNKED = head(200, "transfer-encoding: chunked")


@pytest.mark.parametrize(
    ("script", "rules", "why"),
    [
        (OK, {}, "status 200"),
        (head(204), {}, "status 204"),
        (head(304, "content-length: 99"), {}, "status 304"),
        (head(302, "location: http://example.invalid/", "content-length: 0"), {}, "status 302"),
        (head(404, "content-length: 0"), {"statuses": ((200, 200), (404, 404))}, "status 404"),
        (b"HTTP/1.0 200 OK\r\n\r\nall is well", {}, "status 200"),
        (head(200) + b"ok until it is closed", {"body": "ok"}, "status 200"),
        (CHUNKED + b"2\r\nok\r\n0\r\n\r\n", {"body": "ok"}, "status 200"),
        (head(103) + head(100) + OK, {}, "status 200"),
        (in_pieces(OK, then="hang"), {}, "status 200"),
        (in_pieces(head(200, "content-length: 9"), then="hang"), {"method": "HEAD"}, "status 200"),
        (in_pieces(*(bytes([byte]) for byte in OK)), {"body": "ok"}, "status 200"),
        (
            in_pieces(CHUNKED, b"1\r\no\r\n", 0.01, b"1\r\nk\r\n", then="hang"),
            {"body": "ok"},
            "status 200",
        ),
        (in_pieces(CHUNKED, b"5\r\nfound\r\n", then="hang"), {"body": "found"}, "status 200"),
    ],
)
def test_answers_that_pass(script, rules, why):
    found = seen(script, **rules)
    assert (found.ok, found.why) == (True, why)
    assert 0.0 < found.took_s < 2.0


def endless(begin: bytes) -> Any:
    async def script(asked: Asked) -> None:
        await asked.say(begin)
        while True:
            await asked.say(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")

    return script


def test_of_a_huge_body_only_the_beginning_is_read():
    found = seen(endless(CHUNKED), timeout_s=10.0)
    assert (found.ok, found.why) == (True, "status 200")
    found = seen(endless(CHUNKED), timeout_s=10.0, body="ok")
    assert (found.ok, found.why) == (False, "body lacks 'ok' in its first 64 KB")


def test_what_comes_after_the_beginning_of_a_body_is_not_looked_at():
    long = b"x" * 65_536 + b"ok"
    found = seen(head(200, f"content-length: {len(long)}") + long, body="ok")
    assert found.why == "body lacks 'ok' in its first 64 KB"


# ---- what fails


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (head(503, "content-length: 0"), "status 503"),
        (in_pieces(head(500, "content-length: 99"), then="hang"), "status 500"),
        (b"", "closed without a response"),
        (b"HTTP/1.1 200 OK\r\ncontent-le", "closed in the middle of the response"),
        (head(200, "content-length: 9") + b"short", "closed in the middle of the response"),
        (CHUNKED + b"5\r\nshort\r\n", "closed in the middle of the response"),
        (in_pieces(then="reset"), "connection reset"),
        (in_pieces(head(200), b"beginning", 0.05, then="reset"), "connection reset"),
        (in_pieces(b"\x00\x00\x12\x04\x00", then="hang"), "not HTTP"),
        (in_pieces(b"SSH-2.0-OpenSSH_9.2\r\n", then="hang"), "not HTTP"),
        (in_pieces(b"HTTP/2 200\r\n\r\n", then="hang"), "not HTTP"),
        (in_pieces(b"HTTP/1.1 200 OK\n\nok", then="hang"), "not HTTP: bare CR, LF or NUL"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "not HTTP: malformed status line"),
        (head(200, "no colon"), "not HTTP: malformed response header"),
        (head(200, "content-length: x"), "not HTTP: malformed response framing"),
        (CHUNKED + b"zz\r\n", "not HTTP: malformed chunk"),
        (head(100) * 20, "too many 1xx responses"),
        (head(200, "x: " + "y" * 70_000), "response head too large"),
    ],
)
def test_answers_that_fail(script, why):
    found = seen(script, timeout_s=10.0)
    assert (found.ok, found.why, found.timed_out) == (False, why, False)


def test_a_body_that_lacks_what_it_must_have_fails():
    assert seen(OK, body="fine").why == "body lacks 'fine'"


DRIP: list[bytes | float] = [b"y", 0.02] * 60


@pytest.mark.parametrize(
    ("script", "stage"),
    [
        (in_pieces(then="hang"), "no response"),
        (in_pieces(b"HTTP/1.1 200 ", then="hang"), "no response"),
        (in_pieces(head(200, "content-length: 9"), b"some", then="hang"), "response not finished"),
        (in_pieces(b"HTTP/1.1 200 OK\r\nx: ", *DRIP), "no response"),
    ],
)
def test_an_instance_that_does_not_finish_in_time_fails(script, stage):
    found = seen(script, timeout_s=0.3)
    assert (found.ok, found.timed_out) == (False, True)
    assert found.why == f"timed out after 300ms, {stage}"
    assert 0.29 < found.took_s < 5.0


def test_nobody_there():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        assert checked(f"http://127.0.0.1:{sock.getsockname()[1]}").why == "connect refused"


def test_a_name_that_is_not_known():
    assert checked("http://nowhere.internal:80").why == "name not found: no such name"


def test_a_connection_that_is_not_taken_times_out():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(0)
        port = sock.getsockname()[1]
        with contextlib.ExitStack() as held:
            for _ in range(4):  # fill the backlog
                filler = held.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", port))
            found = checked(f"http://127.0.0.1:{port}", timeout_s=0.2)
    assert found.why == "timed out after 200ms, not connected"
    assert found.timed_out


# ---- over what it is carried


def test_over_a_unix_socket(tmp_path):
    async def main() -> None:
        async with instance(OK, unix=tmp_path / "u.sock") as made:
            assert (await probe(target(made.url), Names())).ok
            assert b"host: localhost\r\n" in made.asked[0].head

    run(main())
    assert checked(f"unix:{tmp_path}/none").why == "connect failed: no such file or directory"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_tls(authority: trustme.CA, name: str = "users.internal") -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)
    return context


@pytest.fixture
def trusting(authority: trustme.CA, tmp_path: Path) -> UpstreamTlsSpec:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return UpstreamTlsSpec(ca_file=str(tmp_path / "ca.pem"), server_name="users.internal")


@pytest.mark.parametrize("kind", ["http", "tcp"])
def test_over_tls(authority, trusting, kind):
    async def main() -> Seen:
        async with instance(OK, tls=server_tls(authority)) as made:
            return await probe(target(made.url, kind=kind, tls=trusting), Names())

    found = run(main())
    assert (found.ok, found.why) == (True, "connected" if kind == "tcp" else "status 200")


@pytest.mark.parametrize("kind", ["http", "tcp"])
def test_a_certificate_that_is_not_trusted_fails(authority, kind):
    async def main() -> Seen:
        async with instance(OK, tls=server_tls(authority)) as made:
            asyncio.get_running_loop().set_exception_handler(lambda *_: None)
            return await probe(target(made.url, kind=kind), Names())

    found = run(main())
    assert not found.ok
    assert found.why.startswith("TLS: its certificate is refused: ")


@pytest.mark.parametrize(
    ("rules", "protocol"),
    [
        ({}, "http/1.1"),
        ({"http": "2"}, "h2"),
        ({"kind": "grpc"}, "h2"),
        ({"kind": "tcp"}, "h2"),
    ],
)
def test_over_tls_the_protocol_that_will_be_spoken_is_offered(authority, trusting, rules, protocol):
    async def main() -> None:
        tls = server_tls(authority)
        tls.set_alpn_protocols(["h2", "http/1.1"])
        chosen: list[str] = []

        async def script(asked: Asked) -> None:
            chosen.append(asked.writer.get_extra_info("ssl_object").selected_alpn_protocol())

        async with instance(script, tls=tls) as made:
            made.reads_head = False
            await probe(target(made.url, tls=trusting, **rules), Names())
            await eventually(lambda: chosen)
        assert chosen == [protocol]

    run(main())


def test_over_tls_the_end_is_said(authority, trusting):
    ends: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            plain, _ = listening.accept()
            context = server_tls(authority)
            # A connection that is cut off raises here; one that is ended is empty.
            with context.wrap_socket(
                plain, server_side=True, suppress_ragged_eofs=False
            ) as connection:
                connection.recv(65536)
                connection.sendall(OK)
                ends.append(connection.recv(65536))

        server = threading.Thread(target=serve)
        server.start()
        url = f"https://127.0.0.1:{listening.getsockname()[1]}"
        assert checked(url, tls=trusting).ok
        server.join(10)
    assert ends == [b""]


def test_a_certificate_for_another_name_fails(authority, trusting):
    async def main() -> Seen:
        async with instance(OK, tls=server_tls(authority, "orders.internal")) as made:
            asyncio.get_running_loop().set_exception_handler(lambda *_: None)
            return await probe(target(made.url, tls=trusting), Names())

    assert run(main()).why.startswith("TLS: its certificate is refused: Hostname mismatch")


def test_tls_to_an_instance_without_it_fails():
    async def main() -> Seen:
        async with instance(in_pieces(b"HTTP/1.1 400 Bad Request\r\n\r\n", then="hang")) as made:
            made.reads_head = False
            return await probe(target(made.url.replace("http:", "https:")), Names())

    assert run(main()).why == "TLS: wrong version number"


def test_files_that_cannot_be_read_are_named(tmp_path):
    tls = UpstreamTlsSpec(ca_file=str(tmp_path / "none.pem"))
    assert checked("https://127.0.0.1:1", tls=tls).why.startswith("TLS cannot be set up: ")


def test_a_tcp_check_only_connects():
    async def main() -> None:
        async with instance(in_pieces()) as made:
            found = await probe(target(made.url, kind="tcp"), Names())
            assert (found.ok, found.why) == (True, "connected")
            await made.end()
            assert [asked.head for asked in made.asked] == [b""]

    run(main())


def test_a_check_may_ask_another_port():
    async def main() -> None:
        async with instance(OK) as made:
            port = int(made.url.rpartition(":")[2])
            assert (await probe(target("http://127.0.0.1:1", port=port), Names())).ok

    run(main())


# ---- cancellation


@pytest.mark.parametrize("turns", range(12))
@pytest.mark.parametrize("with_tls", [False, True])
def test_a_check_that_is_cancelled_leaves_nothing_behind(turns, with_tls, authority, trusting):
    async def main() -> None:
        tls = server_tls(authority) if with_tls else None
        async with instance(in_pieces(OK, then="hang"), tls=tls) as made:
            asyncio.get_running_loop().set_exception_handler(lambda *_: None)
            asked = target(made.url, tls=trusting)
            task = asyncio.get_running_loop().create_task(probe(asked, Names()))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait((task,))
            await made.end()
        await eventually(lambda: len(asyncio.all_tasks()) == 1)

    run(main())


# ---- HTTP/2


def over_h2(act: Any, **rules: Any) -> Seen:
    with Instance(act) as made:
        return checked(f"http://127.0.0.1:{made.port}", http="2", **rules)


def test_a_service_of_http2_is_asked_in_http2():
    requests: list[tuple[str, bytes | None]] = []

    def act(served: Served) -> None:
        requests.append((served.path, served.header(b"user-agent")))
        served.answer(200, b"all ok")

    found = over_h2(act, path="/ready", body="ok")
    assert (found.ok, found.why) == (True, "status 200")
    assert requests == [("/ready", b"headgate-health")]


@pytest.mark.parametrize(
    ("act", "rules", "why"),
    [
        (lambda served: served.answer(503), {}, "status 503"),
        (lambda served: served.answer(200, b"no"), {"body": "ok"}, "body lacks 'ok'"),
        (
            lambda served: served.answer(200, b"x" * 200_000),
            {"body": "ok", "timeout_s": 30.0},
            "body lacks 'ok' in its first 64 KB",
        ),
        (
            lambda served: served.conn.codec.reset(served, ErrorCode.INTERNAL_ERROR),
            {},
            "reset: INTERNAL_ERROR",
        ),
        (lambda served: served.conn.transport.close(), {}, "closed without a response"),
        (lambda served: None, {"timeout_s": 0.2}, "timed out after 200ms, no response"),
        (
            lambda served: served.answer(200, b"begun", end=False),
            {"timeout_s": 0.2},
            "timed out after 200ms, response not finished",
        ),
    ],
)
def test_answers_over_http2_that_fail(act, rules, why):
    found = over_h2(act, **rules)
    assert (found.ok, found.why) == (False, why)


def test_a_huge_body_over_http2_passes_when_it_need_not_be_read():
    assert over_h2(lambda served: served.answer(200, b"x" * 200_000)).ok


def test_the_head_over_http2_is_enough_for_head():
    def act(served: Served) -> None:
        served.answer(200, fields=((b"content-length", b"5"),))

    found = over_h2(act, method="HEAD")
    assert (found.ok, found.why) == (True, "status 200")


def test_an_instance_of_http1_does_not_pass_for_http2():
    assert seen(b"HTTP/1.1 400 Bad Request\r\n\r\n", http="2").why == "not HTTP/2"
    assert seen(b"", http="2").why == "closed without a response"


# ---- gRPC


class Health(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpcio has no types
    """The health service by hand: bytes in, bytes out."""

    def __init__(self, known: dict[bytes, bytes]) -> None:
        self.known = known
        self.hangs = threading.Event()
        self.asked: list[bytes] = []

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if details.method != f"/{GRPC}/Check":
            return None
        return grpc.unary_unary_rpc_method_handler(self.check)

    def check(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.asked.append(request)
        name = request[2:]
        if name == b"slow":
            self.hangs.wait(5)
        if name not in self.known:
            context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return self.known[name]


KNOWN = {
    b"": b"\x08\x01",
    b"slow": b"\x08\x01",
    b"starting": b"",
    b"stopping": b"\x08\x02",
    b"unknown": b"\x08\x03",
    b"new": b"\x08\x63",
    b"extended": b"\x12\x03abc\x08\x01\x1d\x00\x00\x00\x00",
    b"broken": b"\x08",
    b"huge": b"\x12\xff\xff\x07" + b"x" * 131_071,
}


@contextlib.contextmanager
def grpc_server(handler: grpc.GenericRpcHandler | None, credentials: Any = None) -> Iterator[int]:
    server = grpc.server(futures.ThreadPoolExecutor(4))
    if handler is not None:
        server.add_generic_rpc_handlers((handler,))
    if credentials is not None:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait(5)


@pytest.fixture(scope="module")
def health() -> Iterator[tuple[Health, int]]:
    handler = Health(KNOWN)
    with grpc_server(handler) as port:
        yield handler, port
        handler.hangs.set()


@pytest.mark.parametrize(
    ("name", "ok", "why"),
    [
        ("", True, "status SERVING"),
        ("extended", True, "status SERVING"),
        ("starting", False, "status UNKNOWN"),
        ("stopping", False, "status NOT_SERVING"),
        ("unknown", False, "status SERVICE_UNKNOWN"),
        ("new", False, "status 99"),
        ("nobody", False, "gRPC status NOT_FOUND: it does not know the service 'nobody'"),
        ("broken", False, "not an answer of the health service"),
        ("huge", False, "not gRPC: the answer is too long"),
        ("slow", False, "timed out after 300ms, no response"),
    ],
)
def test_grpc_answers(health, name, ok, why):
    handler, port = health
    timeout_s = 0.3 if name == "slow" else 5.0
    found = checked(f"http://127.0.0.1:{port}", kind="grpc", grpc_service=name, timeout_s=timeout_s)
    assert (found.ok, found.why) == (ok, why)
    assert handler.asked[-1] == check_request(name)[5:]


def test_a_server_without_the_health_service_fails():
    with grpc_server(None) as port:
        found = checked(f"http://127.0.0.1:{port}", kind="grpc")
    assert found.why == "gRPC status UNIMPLEMENTED: it has no health service"


def test_grpc_over_tls(authority, trusting):
    certificate = authority.issue_cert("users.internal")
    pair = (certificate.private_key_pem.bytes(), certificate.cert_chain_pems[0].bytes())
    with grpc_server(Health(KNOWN), grpc.ssl_server_credentials([pair])) as port:
        found = checked(f"https://127.0.0.1:{port}", kind="grpc", tls=trusting)
    assert (found.ok, found.why) == (True, "status SERVING")


@pytest.mark.parametrize(
    ("act", "why"),
    [
        (lambda served: served.answer(200, b"hello"), "not gRPC"),
        (lambda served: served.answer(404), "not gRPC: status 404"),
        (
            lambda served: served.answer(200, fields=((b"grpc-status", b"14"),)),
            "gRPC status UNAVAILABLE",
        ),
        (
            lambda served: served.answer(200, fields=((b"grpc-status", b"99"),)),
            "gRPC status not understood",
        ),
    ],
)
def test_http2_that_is_no_grpc_fails(act, why):
    def answer(served: Served) -> None:
        if served.ended:
            act(served)

    with Instance(answer) as made:
        found = checked(f"http://127.0.0.1:{made.port}", kind="grpc")
    assert (found.ok, found.why) == (False, why)


def test_http1_that_is_no_grpc_fails():
    assert seen(b"HTTP/1.1 400 Bad Request\r\n\r\n", kind="grpc").why == "not HTTP/2"


@pytest.mark.parametrize(
    ("name", "frame"),
    [
        ("", b"\x00\x00\x00\x00\x00"),
        ("users", b"\x00\x00\x00\x00\x07\x0a\x05users"),
        ("x" * 200, b"\x00\x00\x00\x00\xcb\x0a\xc8\x01" + b"x" * 200),
    ],
)
def test_the_check_is_written_as_protobuf_has_it(name, frame):
    assert check_request(name) == frame


def framed(message: bytes) -> bytes:
    return b"\x00" + len(message).to_bytes(4, "big") + message


@pytest.mark.parametrize(
    ("frame", "status"),
    [
        (framed(b""), 0),
        (framed(b"\x08\x01"), 1),
        (framed(b"\x08\x02\x08\x01"), 1),  # the last one counts
        (framed(b"\x11" + b"\0" * 8 + b"\x08\x01"), 1),
        (framed(b"\x0b"), None),
        (framed(b"\x08"), None),
        (framed(b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), None),
        (framed(b"\x12\x05ab"), None),
        (framed(b"\x11\0"), None),
        (b"\x01\x00\x00\x00\x02\x08\x01", None),  # compressed
        (b"\x00\x00\x00\x00\x03\x08\x01", None),
        (framed(b"\x08\x01") + b"\x00", None),
        (b"", None),
        (b"\x00\x00", None),
    ],
)
def test_the_answer_is_read_as_protobuf_has_it(frame, status):
    assert read_check_response(frame) == status
