"""gRPC through the gateway, grpcio on both ends: all four kinds of call, and how they end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent import futures

import grpc
import pytest

from headgate.wire import local_ca
from tests.gateway_process import RunningGateway

pytestmark = pytest.mark.integration

SERVICE = "shop.Stock"


class Stock(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpcio has no types
    """Bytes in, bytes out: the wire is what is tested, not a schema."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()
        self.metadata: list[tuple[str, str | bytes]] = []

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        self.metadata = list(details.invocation_metadata)
        kind = {
            f"/{SERVICE}/Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            f"/{SERVICE}/Down": grpc.unary_stream_rpc_method_handler(self.down),
            f"/{SERVICE}/Up": grpc.stream_unary_rpc_method_handler(self.up),
            f"/{SERVICE}/Both": grpc.stream_stream_rpc_method_handler(self.both),
            f"/{SERVICE}/Fail": grpc.unary_unary_rpc_method_handler(self.fail),
            f"/{SERVICE}/Slow": grpc.unary_stream_rpc_method_handler(self.slow),
            f"/{SERVICE}/FailLate": grpc.unary_stream_rpc_method_handler(self.fail_late),
        }
        return kind.get(details.method)

    def unary(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        context.send_initial_metadata((("x-initial", "1"), ("x-initial-bin", b"\x00\xff")))
        context.set_trailing_metadata((("x-trailing", "2"), ("x-trailing-bin", b"\xfe\x00")))
        return request

    def down(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        for n in range(int(request)):
            yield b"%d" % n

    def up(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        return b"%d" % sum(len(request) for request in requests)

    def both(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        for request in requests:
            yield request[::-1]

    def fail(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "nö: 100% sold")
        raise AssertionError

    def fail_late(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        yield b"first"
        context.abort(grpc.StatusCode.DATA_LOSS, "then nothing")

    def slow(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        context.add_callback(self.cancelled.set)
        yield b"first"
        self.cancelled.wait(10)


class Calls:
    def __init__(self, channel: grpc.Channel) -> None:
        self.unary = channel.unary_unary(f"/{SERVICE}/Unary")
        self.down = channel.unary_stream(f"/{SERVICE}/Down")
        self.up = channel.stream_unary(f"/{SERVICE}/Up")
        self.both = channel.stream_stream(f"/{SERVICE}/Both")
        self.fail = channel.unary_unary(f"/{SERVICE}/Fail")
        self.fail_late = channel.unary_stream(f"/{SERVICE}/FailLate")
        self.slow = channel.unary_stream(f"/{SERVICE}/Slow")
        self.unknown = channel.unary_unary(f"/{SERVICE}/Unknown")


@pytest.fixture(scope="module")
def stock():
    return Stock()


@pytest.fixture(scope="module")
def instance(stock):
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=64),
        handlers=[stock],
        options=[("grpc.max_receive_message_length", 64 * 1024 * 1024)],
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(None).wait()


@pytest.fixture(scope="module")
def gateway(instance):
    running = RunningGateway(
        {
            "listeners": [{"bind": "127.0.0.1:0"}],
            "services": {
                "stock": {"instances": [f"http://127.0.0.1:{instance}"], "http": "2"},
                "gone": {"instances": ["http://127.0.0.1:1"], "http": "2"},
            },
            "routes": [
                {"match": {"path": "/shop.Stock/"}, "to": "stock", "body_limit": "64MB"},
                {"match": {"path": "/shop.Gone/"}, "to": "gone"},
                {
                    "match": {"path": "/judged/"},
                    "to": "stock",
                    "strip": True,
                    "injection": "block",
                },
            ],
            "access_log": {"format": "off"},
            "admin": {"bind": "off"},
        }
    )
    yield running
    running.close()
    assert running.errors == []


@pytest.fixture
def channel(gateway):
    options = [("grpc.max_receive_message_length", 64 * 1024 * 1024)]
    with grpc.insecure_channel(f"127.0.0.1:{gateway.port()}", options) as made:
        yield made


@pytest.fixture
def calls(channel):
    return Calls(channel)


def test_unary(calls):
    assert calls.unary(b"hello", timeout=5) == b"hello"
    assert calls.unary(b"", timeout=5) == b""


def test_server_streaming(calls):
    assert list(calls.down(b"1000", timeout=10)) == [b"%d" % n for n in range(1000)]
    assert list(calls.down(b"0", timeout=5)) == []


def test_client_streaming(calls):
    assert calls.up(iter([b"x" * 1000] * 500), timeout=10) == b"500000"
    assert calls.up(iter([]), timeout=5) == b"0"


def test_bidirectional_streaming_is_not_held_back(calls):
    """Each message is answered before the next is sent: nothing may wait for a full buffer."""
    answers: list[bytes] = []
    ready = threading.Semaphore(1)

    def ask() -> Iterator[bytes]:
        for n in range(100):
            assert ready.acquire(timeout=5)
            yield b"m%d" % n

    for answer in calls.both(ask(), timeout=20):
        answers.append(answer)
        ready.release()
    assert answers == [(b"m%d" % n)[::-1] for n in range(100)]


def test_a_filter_that_wants_whole_bodies_holds_no_stream_of_messages(channel):
    ready = threading.Semaphore(1)

    def ask() -> Iterator[bytes]:
        for n in range(3):
            assert ready.acquire(timeout=5)
            yield b"' or 1=1--%d" % n

    for _ in channel.stream_stream(f"/judged/{SERVICE}/Both")(ask(), timeout=20):
        ready.release()


def test_large_messages_pass_both_windows(calls):
    message = bytes(range(256)) * 4096 * 8
    assert calls.unary(message, timeout=20) == message
    assert list(calls.both(iter([message, b"x", message]), timeout=20)) == [
        message[::-1],
        b"x",
        message[::-1],
    ]


def test_many_calls_at_once_on_one_channel(calls):
    pending = [calls.unary.future(b"%d" % n, timeout=20) for n in range(300)]
    assert [call.result() for call in pending] == [b"%d" % n for n in range(300)]


def test_metadata_travels_at_both_ends(calls, stock):
    answer, call = calls.unary.with_call(
        b"x", timeout=5, metadata=(("x-asked", "why"), ("x-asked-bin", b"\x00\x01\xff"))
    )
    assert answer == b"x"
    sent = dict(stock.metadata)
    assert sent["x-asked"] == "why"
    assert sent["x-asked-bin"] == b"\x00\x01\xff"
    assert "x-request-id" in sent
    initial = dict(call.initial_metadata())
    assert initial["x-initial"] == "1"
    assert initial["x-initial-bin"] == b"\x00\xff"
    trailing = dict(call.trailing_metadata())
    assert trailing["x-trailing"] == "2"
    assert trailing["x-trailing-bin"] == b"\xfe\x00"


def failure(call) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


def test_an_error_status_and_its_message_arrive(calls):
    error = failure(lambda: calls.fail(b"", timeout=5))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert error.details() == "nö: 100% sold"


def test_an_error_status_after_messages_arrives(calls):
    got: list[bytes] = []
    error = failure(lambda: got.extend(calls.fail_late(b"", timeout=5)))
    assert got == [b"first"]
    assert error.code() is grpc.StatusCode.DATA_LOSS


def test_an_unknown_method_is_the_services_answer(calls):
    error = failure(lambda: calls.unknown(b"", timeout=5))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


def test_an_unreachable_service_is_unavailable(channel):
    error = failure(lambda: channel.unary_unary("/shop.Gone/Unary")(b"", timeout=5))
    assert error.code() is grpc.StatusCode.UNAVAILABLE


def test_cancelling_reaches_the_service(calls, stock):
    stock.cancelled.clear()
    call = calls.slow(b"", timeout=20)
    assert next(call) == b"first"
    call.cancel()
    assert stock.cancelled.wait(5)


def test_a_deadline_ends_the_call_on_both_sides(calls, stock):
    stock.cancelled.clear()
    call = calls.slow(b"", timeout=0.5)
    assert next(call) == b"first"
    error = failure(lambda: next(call))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert stock.cancelled.wait(5)


def test_the_gateway_is_empty_afterwards(gateway, calls):
    calls.unary(b"x", timeout=5)
    deadline = time.monotonic() + 5
    while gateway.worker._stats.in_flight and time.monotonic() < deadline:
        time.sleep(0.02)
    assert gateway.worker._stats.in_flight == 0


def test_over_tls_on_both_sides(tmp_path):
    made = local_ca.ensure(tmp_path, ["localhost"], time.time())
    pem, ca = made.path.read_bytes(), made.ca_path.read_bytes()
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4), handlers=[Stock()])
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(pem, pem)]))
    server.start()
    running = RunningGateway(
        {
            "listeners": [{"bind": "127.0.0.1:0", "tls": {"certificate": "local"}}],
            "services": {
                "stock": {
                    "instances": [f"https://localhost:{port}"],
                    "http": "2",
                    "tls": {"ca_file": str(made.ca_path)},
                },
            },
            "routes": [{"match": {"host": "localhost"}, "to": "stock"}],
            "state_dir": str(tmp_path),
            "access_log": {"format": "off"},
            "admin": {"bind": "off"},
        }
    )
    try:
        credentials = grpc.ssl_channel_credentials(ca)
        with grpc.secure_channel(f"localhost:{running.port()}", credentials) as channel:
            calls = Calls(channel)
            assert calls.unary(b"hello", timeout=5) == b"hello"
            assert list(calls.both(iter([b"ab", b"cd"]), timeout=5)) == [b"ba", b"dc"]
    finally:
        running.close()
        server.stop(None).wait()
    assert running.errors == []
