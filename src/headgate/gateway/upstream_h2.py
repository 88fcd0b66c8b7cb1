"""The upstream rim over HTTP/2: connections to one instance, and the streams on them.

Theory of operation
-------------------
A connection is lent from the moment the instance's SETTINGS have come: one round trip more than
the RFC asks for, and in return no stream is refused because we guessed how many are allowed.
`UpstreamH2` owns a transport and the client's codec; `StreamUp` is one attempt of one exchange:
a stream of the codec and the exchange's `Upstream` at once. `PoolH2` fills one connection until
the instance's stream limit, then makes another; exchanges that find no room wait in line, and
every stream that ends serves the line.

What the instance says it has not acted on (streams beyond its GOAWAY, REFUSED_STREAM; RFC 9113
8.7) is asked again, whatever the method, on another connection to the same instance. For that the
first `_KEPT_BYTES` of a request's body are kept until its answer begins; a request of which more
was sent cannot be repeated and fails.

Every stream has its own times (first byte, idle, total), judged when the connection's turn comes
(see `rim_h2`).
"""

from __future__ import annotations

from base64 import b64encode
from os import urandom
from time import monotonic
from typing import TYPE_CHECKING, Final

from headgate.errors import UpstreamFailed
from headgate.gateway.downstream_h2 import StreamDown
from headgate.gateway.heads_h2 import accept_for
from headgate.gateway.rim_h2 import SETTINGS_S, RimH2
from headgate.gateway.tracing_marks import Marked
from headgate.wire.h2 import (
    ClientConnection,
    ConnectionFault,
    ErrorCode,
    H2Limits,
    Stream,
    encode_passing,
)
from headgate.wire.h2.frames import ENABLE_CONNECT_PROTOCOL, name_code
from headgate.wire.message import ResponseHead
from headgate.wire.wheel import NEVER

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from headgate.gateway.exchange import Asker
    from headgate.gateway.pool_h2 import PoolH2
    from headgate.wire.message import Forward, Header
    from headgate.wire.wheel import Wheel

UPSTREAM_LIMITS: Final = H2Limits(
    max_streams=1024, stream_window=1_048_576, connection_window=16 * 1_048_576
)
"""Towards instances, which we trust more than clients: wide windows, since what we hold of a
response is bounded by the client's back-pressure on each stream."""

_KEPT_BYTES: Final = 64 * 1024
_REFUSED_MAX: Final = 3
_GOAWAY_MAX: Final = 16
"""How often a request is asked again. A GOAWAY is a restart, a refusal may be a way to live."""
_BODY_METHODS: Final = frozenset({"POST", "PUT", "PATCH"})
# What the client may be told when its answer breaks off; everything else is our INTERNAL_ERROR.
_PASSED_ON: Final = frozenset(
    {ErrorCode.CANCEL, ErrorCode.REFUSED_STREAM, ErrorCode.ENHANCE_YOUR_CALM, ErrorCode.NO_ERROR}
)


class Retry:
    """What has been sent of a request that is to be asked again."""

    __slots__ = ("attempt", "body", "trailers")

    def __init__(self, body: bytes, trailers: tuple[Header, ...], attempt: int) -> None:
        self.body = body
        self.trailers = trailers
        self.attempt = attempt


class StreamUp(Stream):
    __slots__ = (
        "_await_until",
        "_ex",
        "_forward",
        "_is_tunnel",
        "_kept",
        "_kept_bytes",
        "_key",
        "_paused",
        "_retry",
        "_touched",
        "_trailers",
        "_withheld",
        "conn",
    )

    def __init__(self, conn: UpstreamH2, retry: Retry | None = None) -> None:
        super().__init__()
        self.conn = conn
        self._retry = retry
        self._ex: Asker | None = None
        self._forward: Forward | None = None
        self._kept: list[bytes] | None = []
        """What has been sent of the body, for another attempt; None when that is out."""
        self._kept_bytes = 0
        self._trailers: tuple[Header, ...] = ()
        self._await_until = NEVER
        self._touched = 0.0
        self._is_tunnel = False
        self._key: bytes | None = None
        self._paused = False
        self._withheld = 0

    # -- from the exchange ---------------------------------------------------------------------

    @property
    def made(self) -> tuple[float, float, float] | None:
        return self.conn.made

    def send_request(self, ex: Asker, forward: Forward, body: bytes, end: bool) -> None:
        conn = self.conn
        codec = conn.codec
        now = monotonic()
        self._ex = ex
        self._touched = now
        self._forward = forward
        if forward.upgrade is not None:
            if not codec.peer_settings.get(ENABLE_CONNECT_PROTOCOL):
                self._ex = None
                conn.pool.serve()
                ex.on_upstream_failed(UpstreamFailed("protocol", "no extended CONNECT"))
                return
            self._open_tunnel(ex, forward)
            return
        trailers: tuple[Header, ...] = ()
        retry = self._retry
        if retry is not None:
            body = retry.body + body
            if end:
                trailers = retry.trailers
                end = not trailers
        if end:
            route = ex.route
            if route is not None:
                self._await_until = min(now + route.first_byte_s, ex.expires_at)
        if forward.method == "HEAD":
            self.expected = 0
        passing = encode_passing(ex.request_extras())
        length = forward.length
        if length > 0 or (length == 0 and forward.method in _BODY_METHODS):
            digits = b"%d" % length
            passing += b"\x0f\x0d%c%b" % (len(digits), digits)
        if forward.te_trailers:
            passing += b"\x00\x02te\x08trailers"
        if forward.expects_continue:
            passing += b"\x0f\x14\x0c100-continue"
        block = codec.encoder.encode_request(
            forward.method,
            forward.scheme,
            forward.authority or conn.pool.authority,
            forward.target,
            forward.headers,
        )
        codec.open(self, block + passing, end=end and not body)
        if body:
            self._send(body, end=end)
        if trailers:
            self.send_end(trailers)
        if not conn.is_watched:
            conn.watch()
        conn.flush_soon()

    def send_data(self, data: bytes) -> None:
        self._touched = monotonic()
        if data:
            self._send(data, end=False)
            self.conn.flush_soon()

    def send_end(self, trailers: Sequence[Header]) -> None:
        ex = self._ex
        self._trailers = tuple(trailers)
        self.conn.codec.send_trailers(self, self._trailers)
        if ex is not None and ex.route is not None and not self.head_done:
            self._await_until = min(monotonic() + ex.route.first_byte_s, ex.expires_at)
        self.conn.flush_soon()

    def cancel(self) -> None:
        self._ex = None
        if not self.is_gone and self.stream_id:
            self.conn.codec.reset(self, ErrorCode.CANCEL)
            self.conn.flush_soon()

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        if self._paused:
            self._paused = False
            self._touched = monotonic()
            withheld, self._withheld = self._withheld, 0
            if withheld and not self.is_gone:
                self.conn.codec.consume(self, withheld)
                self.conn.flush_soon()

    # -- from the codec ------------------------------------------------------------------------

    def on_informational(self, head: ResponseHead) -> None:
        if self._ex is not None:
            self._ex.on_informational(head)

    def on_response(self, head: ResponseHead, *, end: bool) -> None:
        ex = self._ex
        self._kept = None
        self._touched = self.conn.active_at
        if ex is None:
            return
        own = ex.prep.answer_names
        if not own.isdisjoint([name for name, _ in head.headers]):
            head.headers = tuple([field for field in head.headers if field[0] not in own])
        if self._is_tunnel and 200 <= head.status < 300:
            key = self._key or b""
            head = ResponseHead(
                101,
                (*head.headers, (b"sec-websocket-accept", accept_for(key))),
                reason=b"Switching Protocols",
                length=0,
                upgrade=self._forward.upgrade if self._forward is not None else None,
            )
            ex.is_tunnel = True
            ex.on_response_head(head, b"", end=False)
            if end:
                self._end(ex, ())
        elif end:
            self._finish()
            if isinstance(ex, Marked):
                ex.note_grpc(head.headers)  # a call that fails at once tells of it in its head
            ex.on_response_head(head, b"", end=True)
        else:
            ex.on_response_head(head, b"", end=False)

    def on_data(self, data: bytes, *, end: bool) -> None:
        ex = self._ex
        size = len(data)
        self._touched = self.conn.active_at
        if ex is None:
            self.conn.codec.consume(self, size)
            return
        if size:
            ex.on_response_data(data)
            if self._paused:
                self._withheld += size
            else:
                self.conn.codec.consume(self, size)
        if end and self._ex is ex:
            self._end(ex, ())

    def on_trailers(self, fields: tuple[Header, ...]) -> None:
        if self._ex is not None:
            self._end(self._ex, fields)

    def on_reset(self, code: ErrorCode | int, reason: str, *, by_peer: bool) -> None:
        kind = "reset" if by_peer else "protocol"
        ex = self._ex
        if ex is not None and by_peer and code in _PASSED_ON and isinstance(ex.down, StreamDown):
            ex.down.reset_code = ErrorCode(code)
        self.fail(UpstreamFailed(kind, f"{name_code(code)}: {reason}"))  # type: ignore[arg-type]  # one of two literals

    def on_refused(self) -> None:
        ex, kept = self._ex, self._kept
        self._ex = None
        if ex is None:
            return
        attempt = self._retry.attempt + 1 if self._retry is not None else 1
        bound = _REFUSED_MAX if self.conn.codec.peer_goaway is None else _GOAWAY_MAX
        if kept is not None and attempt <= bound and not self._is_tunnel:
            self.conn.pool.again(ex, Retry(b"".join(kept), self._trailers, attempt))
        else:
            ex.on_upstream_failed(UpstreamFailed("reset", "refused"), unsent=kept == [])

    def on_writable(self) -> None:
        if self._ex is not None:
            self._ex.on_upstream_writable()

    # -- inside --------------------------------------------------------------------------------

    def fail(self, failure: UpstreamFailed) -> None:
        ex = self._ex
        self._ex = None
        if ex is not None:
            ex.on_upstream_failed(failure)

    def _send(self, data: bytes, *, end: bool) -> None:
        kept = self._kept
        if kept is not None:
            self._kept_bytes += len(data)
            if self._kept_bytes <= _KEPT_BYTES:
                kept.append(data)
            else:
                self._kept = None
        if not self.conn.codec.send_data(self, data, end=end) and not end and self._ex is not None:
            self._ex.on_upstream_unwritable()

    def _end(self, ex: Asker, trailers: tuple[Header, ...]) -> None:
        self._finish()
        ex.on_response_end(trailers)

    def _finish(self) -> None:
        """The response is whole. An unfinished request is not wanted any more (RFC 9113 8.1)."""
        self._ex = None
        if not self.send_closed and not self.pending_end:
            self.conn.codec.reset(self, ErrorCode.CANCEL)
            self.conn.flush_soon()

    def _open_tunnel(self, ex: Asker, forward: Forward) -> None:
        """RFC 8441 4: the handshake's key and version mean nothing here."""
        conn = self.conn
        headers = []
        for field in forward.headers:
            if field[0] == b"sec-websocket-key":
                self._key = field[1]
            else:
                headers.append(field)
        self._key = self._key or b64encode(urandom(16))
        self._is_tunnel = True
        route = ex.route
        if route is not None:
            self._await_until = min(monotonic() + route.first_byte_s, ex.expires_at)
        block = conn.codec.encoder.encode_request(
            "CONNECT",
            forward.scheme,
            forward.authority,
            forward.target,
            tuple(headers),
            protocol=forward.upgrade,
        )
        conn.codec.open(self, block + encode_passing(ex.request_extras()), end=False)
        conn.watch()
        conn.flush_soon()

    def inspect(self, now: float) -> None:
        ex = self._ex
        if ex is None or ex.route is None:
            return
        if self.head_done:
            idle_s = ex.route.tunnel_s if self._is_tunnel else ex.route.idle_s
            is_late = not self._paused and now - self._touched > idle_s
        else:
            is_late = now > self._await_until or (
                self._await_until == NEVER and now - self._touched > ex.route.idle_s
            )
        if is_late or (now > ex.expires_at and not self._is_tunnel):
            self._ex = None
            self.conn.codec.reset(self, ErrorCode.CANCEL)
            if self._is_tunnel and self.head_done:
                ex.on_response_end()
            else:
                ex.on_upstream_failed(UpstreamFailed("timeout", self.conn.pool.name))


class _ClientCodec(ClientConnection[StreamUp]):
    """Tells the pool when a place for a stream is free."""

    conn: UpstreamH2

    def _on_dropped(self) -> None:
        if self.conn.pool.waiting:
            self.conn.pool.serve_soon()


class UpstreamH2(RimH2[StreamUp]):
    codec: _ClientCodec

    def __init__(self, pool: PoolH2, wheel: Wheel, limits: H2Limits = UPSTREAM_LIMITS) -> None:
        super().__init__(wheel)
        self.pool = pool
        self.made: tuple[float, float, float] | None = None
        """When making the connection began, was connected, and ready."""
        self._began = self.active_at = monotonic()
        self.codec = _ClientCodec(limits, self._began)
        self.codec.conn = self
        self.codec.on_settings = self._greeted
        self.is_ready = False
        """The instance's SETTINGS have come: how many streams it takes, and which extensions."""

    @property
    def room(self) -> int:
        return 0 if self.is_closing else self.codec.room

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.watch()
        self.flush_soon()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closing = True
        self.deadline = NEVER
        self.pool.lost(self)
        self._fail_streams()

    def _greeted(self) -> None:
        if not self.is_ready:
            self.is_ready = True
            self.pool.on_ready(self)
        else:
            self.pool.serve_soon()

    def _inspect(self, now: float) -> None:
        codec = self.codec
        for stream in tuple(codec.streams.values()):
            stream.inspect(now)
        if not codec.settings_acked and now - self._began > SETTINGS_S:
            codec.fail(ConnectionFault(ErrorCode.SETTINGS_TIMEOUT, "SETTINGS not acknowledged"))

    def _rest(self, now: float) -> None:
        self.deadline = max(self.active_at + self.pool.sizes.idle_timeout_s, now)
        if self.deadline <= now:
            self.codec.goaway(ErrorCode.NO_ERROR)
            self.end()

    def _is_over(self) -> bool:
        return self.codec.peer_goaway is not None or self.pool.is_closed

    def _on_fault(self) -> None:
        self._fail_streams()

    def _fail_streams(self) -> None:
        fault = self.codec.fault
        streams = tuple(self.codec.streams.values())
        self.codec.streams.clear()
        for stream in streams:
            stream.is_gone = True
            if fault is not None:
                stream.fail(UpstreamFailed("protocol", fault.reason))
            elif self.codec.ended_streams and not stream.head_done:
                stream.fail(UpstreamFailed("reset", "stale"))
            else:
                stream.fail(UpstreamFailed("reset", self.pool.name))
