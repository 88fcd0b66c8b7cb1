"""The upstream rim over HTTP/1.1: one connection to an instance, serving one exchange at a time.

Theory of operation
-------------------
    idle -> (send_request) -> head -> body -> idle | closed
                               |  101 -> raw -> closed

The connection goes back to the pool only when both messages are whole, the instance allows it
and nothing follows the response: bytes that nobody asked for are the beginning of somebody
else's response (RFC 9112 9.2), so they close the connection, also when it is idle.

A response that cannot be framed, or that breaks a rule of `wire.http1.head`, fails the exchange
with `protocol`; none of its bytes reach the client. A body that ends with the connection has come
whole only where the end was said: over TLS, anybody between us could cut it (RFC 9112 9.8).

`deadline` is the connection's, not the request's (see `wheel`): between requests it is the idle
time-out, during one the time to the first byte, then the gap between bytes.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Final

from headgate.errors import UpstreamFailed
from headgate.wire.http1.body import (
    BodyReader,
    ChunkedReader,
    UntilCloseReader,
    chunk,
    last_chunk,
)
from headgate.wire.http1.head import body_follows
from headgate.wire.http1.response import INFORMATIONAL_MAX, body_reader, take_head
from headgate.wire.message import ResponseHead
from headgate.wire.wheel import NEVER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headgate.gateway.exchange import Asker
    from headgate.gateway.pool import Pool
    from headgate.wire.headcache import HeadCache
    from headgate.wire.http1.head import HeadLimits
    from headgate.wire.message import Forward, Header
    from headgate.wire.wheel import Wheel

_LARGE: Final = 16 * 1024
"""From here on a write of pieces is cheaper than joining them."""

_LAST_WORDS_S: Final = 2.0
"""How long an instance may be silent in a tunnel whose client has ended, and cannot be told so."""

_BODY_METHODS: Final = frozenset({"POST", "PUT", "PATCH"})


class UpstreamH1(asyncio.Protocol):
    __slots__ = (
        "_buffer",
        "_chunking",
        "_has_ended",
        "_heads",
        "_informational",
        "_keep",
        "_last_words",
        "_limits",
        "_paused",
        "_raw",
        "_reader",
        "_reused",
        "_sent",
        "_unwritable",
        "_wheel",
        "deadline",
        "exchange",
        "is_closing",
        "made",
        "pool",
        "transport",
        "wake",
    )

    transport: asyncio.Transport

    def __init__(
        self, pool: Pool, wheel: Wheel, heads: HeadCache[ResponseHead], limits: HeadLimits
    ) -> None:
        self.pool = pool
        self._wheel = wheel
        self._heads = heads
        self._limits = limits
        self.exchange: Asker | None = None
        self.is_closing = False
        self.made: tuple[float, float, float] | None = None
        """When making the connection began, was connected, and ready."""
        self.deadline = NEVER
        self.wake = NEVER
        self._buffer = b""
        self._reader: BodyReader | None = None
        self._chunking = False
        self._has_ended = False
        self._keep = True
        self._last_words = False
        self._raw = False
        self._reused = False
        self._sent = False
        self._paused = False
        self._unwritable = False
        self._informational = 0

    # -- from the exchange ---------------------------------------------------------------------

    def send_request(self, ex: Asker, forward: Forward, body: bytes, end: bool) -> None:
        self.exchange = ex
        self._sent = end
        block = forward.block
        if block is None:
            block = forward.block = render_request(forward)
        if forward.length == 0 and forward.authority:
            self._chunking = False
            self.transport.write(b"".join((block, ex.request_block(), b"\r\n")))
        else:
            self._write_request(ex, forward, block, body, end)
        # An exchange that got its connection at once has begun just now; the clock need not be
        # asked again.
        is_new = ex.goes_at_once and ex.attempts == 1 and not ex.waits_since
        now = ex.started if is_new else monotonic()
        self._await_response(ex, now)

    def _write_request(
        self, ex: Asker, forward: Forward, block: bytes, body: bytes, end: bool
    ) -> None:
        self._chunking = chunking = forward.length < 0 and forward.upgrade is None
        if not body:
            if chunking and end:
                body = last_chunk()
        elif chunking:
            body = chunk(body) + last_chunk() if end else chunk(body)
        pieces = [block, ex.request_block(), b"\r\n", body]
        if not forward.authority:
            pieces[1] = b"host: %b\r\n%b" % (self.pool.authority.encode(), pieces[1])
        if len(body) < _LARGE:
            self.transport.write(b"".join(pieces))
        else:
            self.transport.writelines(pieces)

    def send_data(self, data: bytes) -> None:
        if not data:
            return
        if self._chunking:
            if len(data) < _LARGE:
                self.transport.write(chunk(data))
            else:
                self.transport.writelines([b"%x\r\n" % len(data), data, b"\r\n"])
        else:
            self.transport.write(data)
        self._set_deadline(self._silence_until())

    def send_end(self, trailers: Sequence[Header]) -> None:
        self._sent = True
        if self._raw:
            if self.transport.can_write_eof():
                self.transport.write_eof()
            else:
                # TLS cannot be closed by half. To end it now would lose what is on its way: the
                # client's last frame, and the answer to it.
                self._last_words = True
                self._set_deadline(self._silence_until())
            return
        if self._chunking:
            self.transport.write(last_chunk(tuple(trailers)))
        if self.exchange is not None and self._reader is None:
            self._await_response(self.exchange, monotonic())

    def cancel(self) -> None:
        self.exchange = None
        self.close()

    def pause(self) -> None:
        if not self._paused and not self.is_closing:
            self._paused = True
            # A client that takes nothing is judged by its own write time-out, and by the total.
            self.deadline = NEVER
            if self.exchange is not None and not self._raw:
                self._set_deadline(self.exchange.expires_at)
            self.transport.pause_reading()

    def resume(self) -> None:
        if self._paused and not self.is_closing:
            self._paused = False
            self._set_deadline(self._silence_until())
            self.transport.resume_reading()

    def close(self) -> None:
        """End the connection at once; what has not been sent is not wanted any more."""
        if not self.is_closing:
            self.is_closing = True
            self.transport.abort()

    # -- from the transport --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # a stream transport, by contract

    def data_received(self, data: bytes) -> None:
        ex = self.exchange
        if ex is None:
            self.close()
            return
        if self._raw:
            self._set_deadline(self._silence_until())
            ex.on_response_data(data)
            return
        reader = self._reader
        if reader is None:
            if not self._buffer:
                # Most of the time: one whole response, with a head seen before.
                end = data.find(b"\r\n\r\n") + 4
                head = self._heads.young.get(data[:end])
                if (
                    head is not None
                    and head.length == len(data) - end
                    and not (head.length and (head.is_bodiless or ex.prep.head.method == "HEAD"))
                ):
                    self._release(head.keep_alive, b"")
                    ex.on_response_head(head, data[end:], end=True)
                    return
            self._read_head(ex, data)
            return
        self.deadline = self._silence_until()
        payload, rest = reader.feed(data)
        self._pass_body(ex, reader, payload, rest)

    def eof_received(self) -> bool:
        # Over TLS this is the instance's own word: a connection that is merely cut does without.
        self._has_ended = True
        ex = self.exchange
        if self._raw and ex is not None:
            # The instance has said its last word in the tunnel; the client may still speak.
            ex.on_response_end()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closing = True
        self.deadline = NEVER
        ex = self.exchange
        self.exchange = None
        self.pool.lost(self)
        if ex is None:
            return
        if isinstance(self._reader, UntilCloseReader) and exc is None and self._has_ended:
            ex.on_response_end()
        elif self._raw:
            ex.on_response_end()
        else:
            stale = self._reused and self._reader is None and not self._buffer
            ex.on_upstream_failed(UpstreamFailed("reset", "stale" if stale else self.pool.name))

    def pause_writing(self) -> None:
        self._unwritable = True
        if self.exchange is not None:
            self.exchange.on_upstream_unwritable()

    def resume_writing(self) -> None:
        self._unwritable = False
        if self.exchange is not None:
            self.exchange.on_upstream_writable()

    def on_deadline(self, now: float) -> None:
        ex = self.exchange
        self.exchange = None
        self.close()
        if ex is not None:
            if self._raw:
                ex.on_response_end()
            else:
                ex.on_upstream_failed(UpstreamFailed("timeout", self.pool.name))

    # -- inside --------------------------------------------------------------------------------

    def _silence_until(self) -> float:
        """When silence has lasted too long; no later than the end of the whole exchange."""
        ex = self.exchange
        if ex is None or ex.route is None:
            return NEVER
        if self._raw:
            return monotonic() + (_LAST_WORDS_S if self._last_words else ex.route.tunnel_s)
        until = monotonic() + ex.route.idle_s
        return min(ex.expires_at, until)

    def _set_deadline(self, deadline: float) -> None:
        self.deadline = deadline
        if deadline < self.wake:
            self._wheel.arm(self)

    def _await_response(self, ex: Asker, now: float) -> None:
        route = ex.route
        if route is None:
            return
        deadline = now + (route.first_byte_s if self._sent else route.idle_s)
        if deadline > ex.expires_at:  # noqa: PLR1730 - half the cost of min()
            deadline = ex.expires_at
        self.deadline = deadline
        if deadline < self.wake:
            self._wheel.arm(self)

    def _read_head(self, ex: Asker, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        found = take_head(data, self._heads, self._limits, ex.prep.answer_names)
        if found is None:
            self._buffer = data
            return
        if isinstance(found, str):
            self._break(ex, found)
            return
        head, rest = found
        status = head.status
        if status < 200:
            self._read_informational(ex, head, rest)
            return
        if not body_follows(ex.prep.head.method, status):
            self._whole(ex, head, b"", rest)
        elif 0 <= head.length <= len(rest):
            self._whole(ex, head, rest[: head.length], rest[head.length :])
        else:
            self._begin_body(ex, head, body_reader(head, self._limits), rest)

    def _whole(self, ex: Asker, head: ResponseHead, body: bytes, rest: bytes) -> None:
        """The response is complete. Free the connection first: the next request may want it."""
        self._release(head.keep_alive, rest)
        ex.on_response_head(head, body, end=True)

    def _begin_body(self, ex: Asker, head: ResponseHead, reader: BodyReader, rest: bytes) -> None:
        self._reader = reader
        self._keep = head.keep_alive
        payload, rest = reader.feed(rest) if rest else (b"", b"")
        if isinstance(reader, ChunkedReader):
            if reader.refusal is not None:
                self._break(ex, "malformed response chunk")
                return
            if reader.is_done and not reader.trailers:
                # Whole and in one piece: send it with a length instead of re-chunking.
                self._reader = None
                self._release(head.keep_alive, rest)
                ex.on_response_head(head, payload, end=True)
                return
        self._set_deadline(self._silence_until())
        ex.on_response_head(head, payload, end=False)
        if reader.is_done and self.exchange is ex:
            self._end_body(ex, reader, rest)

    def _pass_body(self, ex: Asker, reader: BodyReader, payload: bytes, rest: bytes) -> None:
        if isinstance(reader, ChunkedReader) and reader.refusal is not None:
            self._break(ex, "malformed response chunk")
            return
        if payload:
            ex.on_response_data(payload)
        if reader.is_done and self.exchange is ex:
            self._end_body(ex, reader, rest)

    def _end_body(self, ex: Asker, reader: BodyReader, rest: bytes) -> None:
        self._release(self._keep, rest)
        ex.on_response_end(reader.trailers)

    def _release(self, keep: bool, rest: bytes) -> None:
        """The exchange has its answer. Keep the connection if it can carry another."""
        self.exchange = None
        self._reader = None
        self._informational = 0
        if keep and not rest and self._sent and not self.is_closing:
            self._reused = True
            if self._paused:
                self.resume()
            self.deadline = deadline = monotonic() + self.pool.sizes.idle_timeout_s
            if deadline < self.wake:
                self._wheel.arm(self)
            self.pool.give(self)
        else:
            self.close()

    def _read_informational(self, ex: Asker, head: ResponseHead, rest: bytes) -> None:
        if head.status == 101:
            forward = ex.forward
            if forward is None or forward.upgrade is None or head.upgrade != forward.upgrade:
                self._break(ex, "switched protocols without being asked")
                return
            self._raw = True
            self._chunking = False
            self._set_deadline(self._silence_until())
            ex.is_tunnel = True
            ex.on_response_head(head, rest, end=False)
            return
        self._informational += 1
        if self._informational > INFORMATIONAL_MAX:
            self._break(ex, "too many informational responses")
            return
        ex.on_informational(head)
        if rest and self.exchange is ex:
            self._read_head(ex, rest)

    def _break(self, ex: Asker, reason: str) -> None:
        self.exchange = None
        self.close()
        ex.on_upstream_failed(UpstreamFailed("protocol", reason))


def render_request(forward: Forward) -> bytes:
    """The head up to the fields that belong to one request alone."""
    lines = [f"{forward.method} {forward.target} HTTP/1.1\r\n".encode()]
    if forward.authority:
        lines.append(f"host: {forward.authority}\r\n".encode())
    if forward.headers:
        lines.append(b"\r\n".join([b": ".join(field) for field in forward.headers]) + b"\r\n")
    if forward.upgrade is not None:
        lines.append(b"connection: upgrade\r\nupgrade: %b\r\n" % forward.upgrade.encode())
    elif forward.length < 0:
        lines.append(b"transfer-encoding: chunked\r\n")
    elif forward.length > 0 or forward.method in _BODY_METHODS:
        # RFC 9110 8.6: a method that usually has a body says so when it has none.
        lines.append(b"content-length: %d\r\n" % forward.length)
    if forward.expects_continue:
        lines.append(b"expect: 100-continue\r\n")
    return b"".join(lines)
