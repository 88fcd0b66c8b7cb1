"""Checks over HTTP/2: plain requests to instances that speak nothing else, and gRPC's own.

The health service of gRPC is one method, `grpc.health.v1.Health/Check`, and its two messages have
one field each, so they are written and read here by hand: a dependency on grpcio and protobuf
would be larger than Headgate.
"""

from __future__ import annotations

from time import monotonic
from typing import Final

from headgate.control.probing.connection import Connection
from headgate.control.probing.target import USER_AGENT, Target, Verdict, judge_body
from headgate.policy.health import BODY_BYTES
from headgate.wire.h2 import ClientConnection, ErrorCode, H2Limits, Stream
from headgate.wire.h2.frames import name_code
from headgate.wire.message import Header, ResponseHead, find

__all__ = ["ask", "ask_grpc", "check_request", "read_check_response"]

_CHECK: Final = "/grpc.health.v1.Health/Check"
_SERVING: Final = 1
_STATUS_NAMES: Final = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
_CODES: Final = (
    *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND"),
    *("ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION"),
    *("ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"),
    "UNAUTHENTICATED",
)
_WINDOW: Final = 2 * BODY_BYTES
"""More than is read of a body: a sender must not stop at the window while we wait for the rest."""
_LIMITS: Final = H2Limits(max_streams=1, stream_window=_WINDOW, connection_window=_WINDOW)


class _Asked(Stream):
    """Our one request, and what has come of its answer."""

    __slots__ = ("body", "fault", "head", "is_over", "trailers")

    def __init__(self) -> None:
        super().__init__()
        self.head: ResponseHead | None = None
        self.body = bytearray()
        self.trailers: tuple[Header, ...] = ()
        self.is_over = False
        self.fault = ""

    def on_response(self, head: ResponseHead, *, end: bool) -> None:
        self.head = head
        self.is_over = end

    def on_data(self, data: bytes, *, end: bool) -> None:
        # Nothing is consumed: the window is more than we read of a body.
        self.body += data
        self.is_over = end

    def on_trailers(self, fields: tuple[Header, ...]) -> None:
        self.trailers = fields
        self.is_over = True

    def on_reset(self, code: ErrorCode | int, reason: str, *, by_peer: bool) -> None:
        self.fault = f"reset: {name_code(code)}" if by_peer else f"bad HTTP/2: {reason}"

    def on_refused(self) -> None:
        self.fault = "refused the request"


class _Exchange:
    """One request over a connection of its own, read as far as the caller wants."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._codec: ClientConnection[_Asked] = ClientConnection(_LIMITS, monotonic())
        self._codec.on_settings = self._greeted
        self._is_greeted = False
        self.stream = _Asked()

    def send(
        self, target: Target, method: str, path: str, fields: list[Header], body: bytes
    ) -> None:
        codec = self._codec
        given = [
            (name.lower().encode("latin-1", "replace"), value.encode("latin-1", "replace"))
            for name, value in target.rules.headers
        ]
        names = {name for name, _ in given}
        block = codec.encoder.encode_request(
            method,
            target.address.scheme,
            target.authority,
            path,
            (*(each for each in fields if each[0] not in names), *given),
        )
        if method == "HEAD":
            self.stream.expected = 0
        codec.open(self.stream, block, end=not body)
        if body:
            codec.send_data(self.stream, body, end=True)
        self._connection.write(codec.take())
        self._connection.stage = "no response"

    async def step(self) -> str:
        """Read what comes next; what is wrong with it."""
        data = await self._connection.more()
        if not data:
            if self.stream.head is not None:
                return "closed in the middle of the response"
            return "closed without a response"
        codec = self._codec
        codec.feed(data, monotonic())
        self._connection.write(codec.take())
        if codec.fault is not None:
            return f"bad HTTP/2: {codec.fault.reason}" if self._is_greeted else "not HTTP/2"
        if self.stream.head is not None:
            self._connection.stage = "response not finished"
        return self.stream.fault

    def _greeted(self) -> None:
        self._is_greeted = True


async def ask(connection: Connection, target: Target) -> Verdict:
    """A check of kind http to an instance that speaks HTTP/2."""
    rules = target.rules
    exchange = _Exchange(connection)
    fields = [(b"user-agent", USER_AGENT.encode()), (b"accept", b"*/*")]
    exchange.send(target, rules.method, rules.path, fields, b"")
    stream = exchange.stream
    while True:
        fault = await exchange.step()
        if stream.head is not None:
            if not rules.passes(stream.head.status):
                return False, f"status {stream.head.status}"
            verdict = judge_body(stream.body, rules, stream.head.status, is_whole=stream.is_over)
            if verdict is not None:
                return verdict
        if fault:
            return False, fault


async def ask_grpc(connection: Connection, target: Target) -> Verdict:
    """Ask the health service of gRPC."""
    rules = target.rules
    exchange = _Exchange(connection)
    fields = [
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        (b"user-agent", USER_AGENT.encode()),
    ]
    exchange.send(target, "POST", _CHECK, fields, check_request(rules.grpc_service))
    stream = exchange.stream
    while not stream.is_over:
        fault = await exchange.step()
        if fault and not stream.is_over:
            return False, fault
        if len(stream.body) >= BODY_BYTES:
            return False, "not gRPC: the answer is too long"
    return _judge_grpc(stream, rules.grpc_service)


def _judge_grpc(stream: _Asked, service: str) -> Verdict:
    head = stream.head
    if head is None:
        return False, "closed without a response"
    code = find((*head.headers, *stream.trailers), b"grpc-status")
    if code is None:
        return False, "not gRPC" if head.status == 200 else f"not gRPC: status {head.status}"
    if code != b"0":
        return False, _say_code(code, service)
    status = read_check_response(bytes(stream.body))
    if status is None:
        return False, "not an answer of the health service"
    name = _STATUS_NAMES[status] if status < len(_STATUS_NAMES) else str(status)
    return status == _SERVING, f"status {name}"


def _say_code(code: bytes, service: str) -> str:
    number = int(code) if code.isdigit() and len(code) < 3 else len(_CODES)
    if number >= len(_CODES):
        return "gRPC status not understood"
    name = _CODES[number]
    if name == "UNIMPLEMENTED":
        return f"gRPC status {name}: it has no health service"
    if name == "NOT_FOUND" and service:
        return f"gRPC status {name}: it does not know the service {service!r}"
    return f"gRPC status {name}"


def check_request(service: str) -> bytes:
    """`HealthCheckRequest {string service = 1}` in a gRPC frame."""
    name = service.encode()
    message = b"\x0a" + _varint(len(name)) + name if name else b""
    return b"\x00" + len(message).to_bytes(4, "big") + message


def read_check_response(frame: bytes) -> int | None:
    """`HealthCheckResponse {ServingStatus status = 1}` of a gRPC frame; None if it is none."""
    if len(frame) < 5 or frame[0] or int.from_bytes(frame[1:5], "big") != len(frame) - 5:
        return None
    status, at = 0, 5  # an absent field has the value zero
    while at < len(frame):
        key, at = _read_varint(frame, at)
        match key & 7:
            case 0:
                value, at = _read_varint(frame, at)
                if key >> 3 == 1:
                    status = value
            case 1:
                at += 8
            case 2:
                size, at = _read_varint(frame, at)
                at += size
            case 5:
                at += 4
            case _:
                return None
    return status if at == len(frame) else None


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number and where it ends; beyond the data if it is cut off or too long."""
    number = shift = 0
    while at < len(data) and shift < 64:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return number, at
        shift += 7
    return number, len(data) + 1
