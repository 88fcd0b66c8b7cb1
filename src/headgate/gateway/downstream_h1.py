"""The downstream rim over HTTP/1.1: one client connection, its requests answered in order.

Theory of operation
-------------------
    idle -> head -> (body) -> answered -> idle | lingering -> closed
                      |  101 -> raw -> closed

One exchange at a time: bytes of the next request wait in `_buffer` (bounded, then the socket is
not read) until the turn is over, so pipelined requests are answered in order by construction.

A request whose whole head arrives in one read, with nothing behind it, is looked up by its bytes
in the site's cache: that is nearly every request on a kept connection, and the reason why this
file has two ways in.

When an answer goes out before its request has been read, the connection cannot be used again: see
`ending_h1`.

A client that closes its sending side may only be done asking, so it gets a moment's grace before
its request is given up, and each request that it had sent behind it gets one too.
"""

from __future__ import annotations

import asyncio
import re
from time import monotonic
from typing import TYPE_CHECKING, Final

from headgate.gateway.clock import http_date
from headgate.gateway.ending_h1 import EndingH1
from headgate.wire.http1.body import BodyReader, ChunkedReader, LengthReader, chunk, last_chunk
from headgate.wire.http1.head import body_follows, judge_partial, parse_request_head
from headgate.wire.message import Refusal
from headgate.wire.wheel import NEVER

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    from headgate.gateway.exchange import Exchange
    from headgate.gateway.listener import Listener
    from headgate.gateway.prepared import Prepared
    from headgate.gateway.site import Site
    from headgate.wire.message import Header, ResponseHead

_LARGE: Final = 16 * 1024
_BUFFER_MAX: Final = 64 * 1024
_DRAIN_IDLE_S: Final = 1.0
_HALF_CLOSED_S: Final = 1.0
NOT_SPOKEN: Final = Refusal(505, "this listener speaks HTTP/2 only")
MISDIRECTED: Final = Refusal(421, "the connection is for another host")
_NEITHER: Final = re.compile(rb"[!-.0-~]+ [!-.0-~]+ [!-.0-~]+\r\n")
"""Three words without a slash, which no request line of HTTP/1.x can be."""
_H2_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class DownstreamH1(EndingH1):
    __slots__ = (
        "_body",
        "_body_bytes",
        "_body_since",
        "_chunking",
        "_close_after",
        "_exchange",
        "_half_closed",
        "_in_turn",
        "_is_10",
        "_is_head",
        "_raw",
        "_scanned",
        "_skipped_line",
        "_trusted",
        "_unwritable",
        "certificate",
        "client_ip",
        "forwarded_block",
        "is_tls",
        "peer_ip",
        "protocol",
        "requests",
        "tls_context",
        "tls_version",
    )

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.protocol = "HTTP/1.1"
        self.client_ip = self.peer_ip = ""
        self.is_tls = listener.is_tls
        self.tls_version = ""
        self.certificate: bytes | None = None
        self.tls_context: ssl.SSLContext | None = None
        self.forwarded_block = b""
        self.is_closing = False
        self.requests = 0
        self.deadline = NEVER
        self.wake = NEVER
        self._site = listener.site
        self._trusted = False
        self._exchange: Exchange | None = None
        self._body: BodyReader | None = None
        self._body_bytes = 0
        self._body_since = 0.0
        self._buffer = b""
        self._scanned = 0
        self._skipped_line = False
        self._chunking = False
        self._close_after = False
        self._half_closed = False
        self._in_turn = False
        self._is_10 = False
        self._is_head = False
        self._lingering = False
        self._linger_bytes = 0
        self._paused = False
        self._raw = False
        self._unwritable = False

    # -- from the transport --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # a stream transport, by contract
        if not self.listener.admit(self):
            return
        self._enter(self.listener.site)
        self._set_deadline(monotonic() + self._site.header_timeout_s)

    def data_received(self, data: bytes) -> None:
        ex = self._exchange
        if ex is None:
            if self._lingering:
                self._drop(data)
                return
            if not self._buffer:
                # Nearly always: one whole head, seen before, on an idle connection.
                site = self.listener.site
                if site is not self._site:
                    self._enter(site)
                heads = site.heads_trusted if self._trusted else site.heads
                prep = heads.young.get(data) or heads.get(data)
                if prep is not None and not prep.head.length:
                    self._begin(prep).start(b"", end=True)
                    return
            self._read_heads(self._buffer + data if self._buffer else data)
        elif self._raw:
            self._set_deadline(NEVER)
            ex.on_request_data(data)
        elif self._body is not None:
            self._read_body(ex, self._body, data)
        else:
            self._keep_for_later(data)

    def eof_received(self) -> bool:
        ex = self._exchange
        if ex is None or self.is_tls:
            return False
        if self._raw:
            self._half_closed = True
            ex.on_request_end()
            return True
        if self._body is not None:
            return False
        self._half_closed = True
        self._asked_all(ex)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closing = True
        self.deadline = NEVER
        self.listener.gone(self)
        ex = self._exchange
        self._exchange = None
        if ex is not None:
            ex.on_client_gone()

    def pause_writing(self) -> None:
        self._unwritable = True
        self._set_deadline(monotonic() + self._site.write_timeout_s)
        if self._exchange is not None:
            self._exchange.on_unwritable()

    def resume_writing(self) -> None:
        self._unwritable = False
        if self._body is not None and not self._paused:
            self._set_deadline(monotonic() + self._site.body_timeout_s)
        elif self._exchange is None and not self._lingering and not self.is_closing:
            self._set_deadline(monotonic() + self._site.idle_timeout_s)
        else:
            self.deadline = NEVER
        if self._exchange is not None:
            self._exchange.on_writable()

    def on_deadline(self, now: float) -> None:
        ex = self._exchange
        if self.is_closing:
            self.transport.abort()  # it took nothing of the last answer
        elif ex is None:
            if self._lingering:
                self._end(linger=False)  # what it has not taken yet may still go out
            elif self._unwritable:
                self.close()
            elif self._buffer:
                self._refuse(Refusal(408, "request head not complete in time"))
            else:
                self._end(linger=False)
        elif ex.response_started and not self._unwritable and self._body is None:
            # It has closed its side and is being answered: if it has gone altogether, the next
            # write will tell, and an answer cut short because it is long would be our fault.
            self.deadline = NEVER
        elif self._unwritable or self._body is None:
            # The client takes nothing, or has closed its side and had its grace.
            self._count("write_timeout" if self._unwritable else "half_closed")
            ex.error = "write_timeout" if self._unwritable else None
            self.close()
        else:
            self._judge_slow_body(ex, now)

    # -- from the exchange ---------------------------------------------------------------------

    def send_informational(self, head: ResponseHead) -> None:
        if not self._is_10:
            self.transport.write(render_head(head) + b"\r\n")

    def send_head(self, ex: Exchange, head: ResponseHead, body: bytes, end: bool) -> None:
        block = head.block
        if block is None:
            block = head.block = render_head(head)
        if head.status == 101:
            self._switch(ex, head, block, body)
            return
        if self._body is not None or not ex.request_done or self.listener.draining:
            self._close_after = True
        elif head.is_plain and not (self._close_after or self._is_10 or self._is_head):
            # Nearly always: a known length, a date, a connection that goes on.
            if len(body) < _LARGE:
                self.transport.write(b"".join((block, ex.response_block(), b"\r\n", body)))
            else:
                self.transport.writelines([block, ex.response_block(), b"\r\n", body])
            return
        framing = b""
        if head.length >= 0:
            pass
        elif not body_follows(ex.prep.head.method, head.status):
            pass
        elif end:
            framing = b"content-length: %d\r\n" % len(body)
        elif self._is_10:
            self._close_after = True
        else:
            framing = b"transfer-encoding: chunked\r\n"
            self._chunking = True
            if body:
                body = chunk(body)
        if self._close_after:
            framing += b"connection: close\r\n"
        elif self._is_10:
            framing += b"connection: keep-alive\r\n"
        if self._is_head:
            body = b""
        if not head.has_date:
            # RFC 9110 6.6.1: a recipient with a clock dates what it forwards.
            framing += http_date()
        if len(body) < _LARGE:
            self.transport.write(b"".join((block, ex.response_block(), framing, b"\r\n", body)))
        else:
            self.transport.writelines([block, ex.response_block(), framing, b"\r\n", body])

    def send_data(self, data: bytes) -> None:
        if self._chunking:
            if not data:
                return
            if len(data) < _LARGE:
                self.transport.write(chunk(data))
            else:
                self.transport.writelines([b"%x\r\n" % len(data), data, b"\r\n"])
        elif not self._is_head:
            self.transport.write(data)

    def send_end(self, trailers: Sequence[Header]) -> None:
        if self._chunking:
            self.transport.write(last_chunk(tuple(trailers)))

    def abort(self, reason: str) -> None:
        self._exchange = None
        self._count(reason)
        self.close()

    def pause(self) -> None:
        if not self._paused and not self.is_closing:
            self._paused = True
            if self._body is not None:
                self._set_deadline(NEVER)  # it is not the client who is slow
            self.transport.pause_reading()

    def resume(self) -> None:
        if self._paused and not self.is_closing:
            self._paused = False
            if self._body is not None:
                self._body_since = monotonic()
                self._body_bytes = 0
                self._set_deadline(self._body_since + self._site.body_timeout_s)
            self.transport.resume_reading()

    def done(self, ex: Exchange) -> None:
        """The turn is over: close, linger, or go on with what has already come."""
        self._exchange = None
        if self.is_closing:
            return
        unread = self._body is not None or not ex.request_done
        self._body = None
        if self._raw:
            # A client that goes on sending would be answered with a reset, which may overtake the
            # instance's last words. TLS has a way of its own to end.
            self._end(linger=not (self.is_tls or self._half_closed))
            return
        if self._close_after:
            # Whoever has not asked for the end may have sent more, or does so now.
            is_news = not self.is_tls and ex.prep.head.keep_alive
            self._end(linger=(unread or is_news or self._buffer != b"") and not self._half_closed)
            return
        self._chunking = False
        if self._paused:
            self.resume()
        self.deadline = deadline = (ex.ended or monotonic()) + self._site.idle_timeout_s
        if deadline < self.wake:
            self.listener.wheel.arm(self)
        if self._buffer and not self._in_turn:
            data, self._buffer = self._buffer, b""
            self._read_heads(data)

    @property
    def is_idle(self) -> bool:
        """Nothing has come that is not answered, and nothing is on its way out."""
        return (
            self._exchange is None
            and not self._buffer
            and not self._lingering
            and not self.is_closing
        )

    def drain(self) -> None:
        """Close politely: after the answer in progress, or the next one, or a moment of silence.

        Closing an idle connection at once would lose a request that is on its way; the client
        cannot know whether it was acted on.
        """
        self._close_after = True
        if self._exchange is None and not self._lingering and not self.is_closing:
            self._set_deadline(min(self.deadline, monotonic() + _DRAIN_IDLE_S))

    # -- reading -------------------------------------------------------------------------------

    def _enter(self, site: Site) -> None:
        """Take up a site: at the start and after each reload that the connection lives through."""
        self._site = site
        self._trusted = site.is_trusted(self.peer_ip)
        self.forwarded_block = site.forwarded_block(self.peer_ip, is_tls=self.is_tls)

    def _begin(self, prep: Prepared) -> Exchange:
        now = monotonic()
        self.requests += 1
        if self.tls_context is not None and self.listener.misdirected(self, prep):
            self.listener.refused(MISDIRECTED.reason)
            prep = self._site.refused(MISDIRECTED)
        head = prep.head
        self._is_10 = head.version == 10
        self._is_head = head.method == "HEAD"
        if not head.keep_alive or 0 < self._site.requests_max <= self.requests:
            self._close_after = True
        self.deadline = NEVER
        self._exchange = ex = prep.exchange(self, self._site, prep, now)
        return ex

    def _read_heads(self, data: bytes) -> None:
        """Serve what is in `data`, request after request, until one has to be waited for."""
        self._in_turn = True
        try:
            while data and self._exchange is None and not self.is_closing and not self._lingering:
                data = self._read_head(data)
        finally:
            self._in_turn = False
        if data and self._exchange is not None and not self.is_closing:
            self._keep_for_later(data)
        if self._half_closed and not self.is_closing and not self._lingering:
            ex = self._exchange
            if ex is not None and self._body is None:
                self._asked_all(ex)
            else:
                self._end(linger=False)  # what it has begun to say will not be said to its end

    def _asked_all(self, ex: Exchange) -> None:
        """The client will send no more; what it has sent before still waits in the buffer."""
        if not self._buffer:
            self._close_after = True
        if not self._unwritable and not ex.response_started:
            # Else it has its write time-out: to be slow is not to be gone.
            self._set_deadline(monotonic() + _HALF_CLOSED_S)

    def _read_head(self, data: bytes) -> bytes:
        """Take one request from `data` and return what is left."""
        site = self.listener.site
        if site is not self._site:
            self._enter(site)
        if data.startswith(b"\r\n") and not self._skipped_line:
            # RFC 9112 2.2: an empty line before a request, as some old clients send, is skipped.
            data = data[2:]
            self._skipped_line = True
            self._scanned = 0
            self._buffer = b""
            if not data:
                return b""
        if not self.requests and data[:24] == _H2_PREFACE[: len(data)] and site.has_http2:
            return self._maybe_http2(data)
        if not site.has_http1:
            self._refuse(NOT_SPOKEN)
            return b""
        end = data.find(b"\r\n\r\n", max(self._scanned - 3, 0))
        if end < 0:
            self._wait_for_head(data, site)
            return b""
        self._scanned = 0
        self._skipped_line = False
        self._buffer = b""
        end += 4
        block, rest = (data[:end], data[end:]) if end < len(data) else (data, b"")
        heads = site.heads_trusted if self._trusted else site.heads
        prep = heads.get(block)
        if prep is None:
            if not self.requests and site.has_http2 and _NEITHER.match(block):
                # RFC 9113 3.4: a broken preface need not be answered, and an answer in HTTP/1.1
                # is a broken frame to a client that speaks HTTP/2.
                self._count("neither HTTP/1.1 nor HTTP/2")
                self.close()
                return b""
            head = parse_request_head(block, site.head_limits, "https" if self.is_tls else "http")
            if isinstance(head, Refusal):
                self._refuse(head)
                return b""
            prep = site.prepare(head, self.peer_ip, trusted=self._trusted)
            if prep.is_cacheable:
                heads.put(block, prep)
        return self._start(self._begin(prep), prep.head.length, rest)

    def _start(self, ex: Exchange, length: int, rest: bytes) -> bytes:
        if length == 0:
            ex.start(b"", end=True)
            return rest
        reader: BodyReader
        reader = ChunkedReader(self._site.head_limits) if length < 0 else LengthReader(length)
        payload, rest = reader.feed(rest) if rest else (b"", b"")
        if isinstance(reader, ChunkedReader) and reader.refusal is not None:
            ex.refuse(reader.refusal.status, reader.refusal.reason)
            return b""
        if reader.is_done:
            if reader.trailers:
                self._body = reader
                ex.start(payload, end=False)
                self._body = None
                ex.on_request_end(ex.prep.trailers_of(reader.trailers))
            else:
                ex.start(payload, end=True)
            return rest
        self._body = reader
        self._body_since = monotonic()
        self._body_bytes = len(payload)
        self._set_deadline(self._body_since + self._site.body_timeout_s)
        ex.start(payload, end=False)
        return b""

    def _read_body(self, ex: Exchange, reader: BodyReader, data: bytes) -> None:
        payload, rest = reader.feed(data)
        if isinstance(reader, ChunkedReader) and reader.refusal is not None:
            ex.refuse(reader.refusal.status, reader.refusal.reason)
            return
        self._body_bytes += len(data)
        now = monotonic()
        self.deadline = now + self._site.body_timeout_s
        limits = self._site.limits
        taken_s = now - self._body_since
        if taken_s > limits.min_rate_grace and self._body_bytes < limits.min_rate * taken_s:
            self._count("slow_body")
            self._close_after = True
            ex.refuse(408, "request body slower than the minimum rate")
            return
        if payload:
            ex.on_request_data(payload)
        if reader.is_done and self._exchange is ex:
            self._body = None
            if not self._unwritable:
                self.deadline = NEVER
            if rest:
                self._keep_for_later(rest)
            ex.on_request_end(ex.prep.trailers_of(reader.trailers))

    def _wait_for_head(self, data: bytes, site: Site) -> None:
        refusal = judge_partial(data, site.head_limits)
        if refusal is not None:
            self._refuse(refusal)
            return
        if not self._buffer:
            self._set_deadline(monotonic() + site.header_timeout_s)
        self._buffer = data
        self._scanned = len(data)

    def _keep_for_later(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        ahead = self._buffer.count(b"\r\n\r\n")
        if (
            len(self._buffer) > _BUFFER_MAX or ahead >= self._site.limits.pipeline
        ) and not self._paused:
            self._paused = True
            self.transport.pause_reading()

    def _maybe_http2(self, data: bytes) -> bytes:
        if len(data) < len(_H2_PREFACE):
            if not self._buffer:
                self._set_deadline(monotonic() + self._site.header_timeout_s)
            self._buffer = data
            return b""
        self.deadline = NEVER
        self._buffer = b""
        self.listener.become_http2(self, data)
        return b""

    def _judge_slow_body(self, ex: Exchange, now: float) -> None:
        if self.deadline > now:
            return
        self._close_after = True
        if ex.response_started:
            self.close()
        else:
            ex.refuse(408, "request body not received in time")

    # -- endings -------------------------------------------------------------------------------

    def _refuse(self, refusal: Refusal) -> None:
        """Answer bytes that never became a request, and close."""
        self._buffer = b""
        self._close_after = True
        self._count(refusal.reason)
        self._begin(self._site.refused(refusal)).start(b"", end=False)

    def _switch(self, ex: Exchange, head: ResponseHead, block: bytes, body: bytes) -> None:
        """RFC 9110 7.8: from here on both sides speak a protocol that is not ours."""
        self._raw = True
        self._close_after = True
        upgrade = (head.upgrade or "").encode("latin-1")
        self.transport.write(
            b"%bconnection: upgrade\r\nupgrade: %b\r\n%b\r\n%b"
            % (block, upgrade, ex.response_block(), body)
        )
        if self._buffer:
            data, self._buffer = self._buffer, b""
            ex.on_request_data(data)
        if self._half_closed:
            ex.on_request_end()
        if self._paused:
            self.resume()

    def _count(self, reason: str) -> None:
        self.listener.refused(reason)


def render_head(head: ResponseHead) -> bytes:
    """Status line and fields, with the length when it is known; the rim adds what varies."""
    lines = [b"HTTP/1.1 %d %b\r\n" % (head.status, head.reason)]
    if head.headers:
        lines.append(b"\r\n".join([b": ".join(field) for field in head.headers]) + b"\r\n")
    if head.length >= 0 and head.status >= 200 and head.status != 204:
        lines.append(b"content-length: %d\r\n" % head.length)
    return b"".join(lines)
