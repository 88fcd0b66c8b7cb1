"""The downstream rim over HTTP/2: one client connection, and its streams.

Theory of operation
-------------------
`DownstreamH2` owns the transport and the codec, `StreamDown` is one request: a stream of the
codec and the `Downstream` of one exchange at once.

    head -> exchange -> answered -> gone
                           | request unfinished: lingering -> gone

A stream whose answer is out before its request is whole *lingers*: what still comes is thrown
away for a moment or for some bytes, and then RST_STREAM(NO_ERROR) ends it (RFC 9113 8.1). Many
clients take a reset at once for a failure and lose the answer.

Judged heads are kept with the codec's field blocks, so a repeated request costs one look-up. A
kept head belongs to a site (reload), to a trust in the peer and to whether a body follows: the
same fields mean another framing upstream when the stream goes on.

The rate of a request's body is judged from its first byte on, by what the codec has counted, so
data pays nothing for it. While the gateway itself holds the client up (this stream is paused, or
others have used up the connection's window) neither silence nor slowness is the client's.

After `requests_per_connection` requests a connection drains as it does when the worker ends: what
is in flight is finished, and what the client sends before it has read GOAWAY is still served.

A WebSocket asked for by extended CONNECT (RFC 8441) becomes a GET with `Upgrade` and a key of our
own; the answer to that key is verified before the client hears 200.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final

from headgate.gateway.clock import http_date
from headgate.gateway.downstream_h1 import MISDIRECTED
from headgate.gateway.exchange import Exchange, is_stream_of_messages
from headgate.gateway.heads_h2 import TUNNEL_FIELDS, as_upgrade, head_of
from headgate.gateway.rim_h2 import SETTINGS_S, RimH2
from headgate.wire.h2 import (
    ErrorCode,
    H2Limits,
    RequestFields,
    ServerConnection,
    Stream,
    encode_passing,
)
from headgate.wire.h2.frames import ConnectionFault, name_code
from headgate.wire.http1.head import (
    HEAD_TOO_LARGE,
    body_follows,
)
from headgate.wire.message import Refusal, ResponseHead, find

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    from headgate.gateway.downstream_h1 import DownstreamH1
    from headgate.gateway.listener import Listener
    from headgate.gateway.prepared import Prepared
    from headgate.gateway.site import Site
    from headgate.wire.message import Header

_LINGER_S: Final = 2.0
_LINGER_BYTES: Final = 64 * 1024
_DRAIN_S: Final = 1.0
"""How long the answer to the PING of a graceful end is waited for."""
_DRAIN_BUSY_S: Final = 2.0
"""How long a drain waits for a moment without streams before it says GOAWAY. By the RFC it could
be said at once, but some clients (those on the h2 library) then give up what is in flight."""


class StreamDown(Stream):
    """One request of a connection."""

    __slots__ = (
        "_accept",
        "_body_at",
        "_dropped",
        "_lingers_until",
        "_paused",
        "_rated_at",
        "_rated_from",
        "_withheld",
        "certificate",
        "client_ip",
        "conn",
        "ex",
        "forwarded_block",
        "is_tls",
        "listener",
        "peer_ip",
        "protocol",
        "reset_code",
        "stalled_at",
        "tls_version",
    )

    def __init__(self, conn: DownstreamH2) -> None:
        super().__init__()
        self.conn = conn
        self.listener = conn.listener
        self.client_ip = self.peer_ip = conn.peer_ip
        self.is_tls = conn.is_tls
        self.tls_version = conn.tls_version
        self.certificate = conn.certificate
        self.protocol = "HTTP/2"
        self.forwarded_block = conn.forwarded_block
        self.ex: Exchange | None = None
        self.reset_code = ErrorCode.INTERNAL_ERROR
        """What the client is told when its answer breaks off."""
        self.stalled_at = 0.0
        self._accept: bytes | None = None
        self._body_at = 0.0
        self._dropped = 0
        self._lingers_until = 0.0
        self._paused = False
        self._rated_at = 0.0
        self._rated_from = 0
        self._withheld = 0

    # -- from the codec ------------------------------------------------------------------------

    def on_request(self, fields: RequestFields, *, end: bool) -> None:
        conn = self.conn
        site = conn.current_site()
        now = conn.active_at
        end = end or (fields.length == 0 and fields.protocol is None)
        kept = fields.whole if end else fields.streamed
        if type(kept) is tuple and kept[0] is site and kept[1] is conn.trust:
            prep: Prepared = kept[2]
        else:
            prep = self._prepare(site, fields, end=end)
        conn.requests += 1
        if not conn.is_watched:
            conn.watch()
        if 0 < site.requests_max <= conn.requests:
            conn.drain()
        self._body_at = now
        ex = self.ex = prep.exchange(self, site, prep, now)
        ex.start(b"", end=end)

    def on_oversize(self, fields: RequestFields | None, *, end: bool) -> None:
        conn = self.conn
        conn.listener.refused(HEAD_TOO_LARGE.reason)
        conn.watch()
        site = conn.current_site()
        ex = self.ex = Exchange(self, site, site.refused(HEAD_TOO_LARGE), conn.active_at)
        ex.start(b"", end=end)

    def on_data(self, data: bytes, *, end: bool) -> None:
        ex = self.ex
        size = len(data)
        if ex is None:
            self._drop(size)
            return
        self._body_at = self.conn.active_at
        if size:
            ex.on_request_data(data)
            if self._paused:
                self._withheld += size
            else:
                self.conn.codec.consume(self, size)
        if end and self.ex is ex:
            ex.on_request_end()

    def on_trailers(self, fields: tuple[Header, ...]) -> None:
        if self.ex is not None:
            self.ex.on_request_end(self.ex.prep.trailers_of(fields))

    def on_reset(self, code: ErrorCode | int, reason: str, *, by_peer: bool) -> None:
        ex = self.ex
        self.ex = None
        if not by_peer:
            self.conn.listener.refused(f"http2 {name_code(code)}")
        if ex is not None:
            ex.on_client_gone()

    def on_writable(self) -> None:
        self.stalled_at = 0.0
        if self.ex is not None:
            self.ex.on_writable()

    # -- from the exchange ---------------------------------------------------------------------

    def send_informational(self, head: ResponseHead) -> None:
        self.conn.codec.send_informational(self, head.status, head.headers)
        self.conn.flush_soon()

    def send_head(self, ex: Exchange, head: ResponseHead, body: bytes, end: bool) -> None:
        conn = self.conn
        status = head.status
        if self._accept is not None and (status == 101 or 200 <= status < 300):
            self._open_tunnel(ex, head, body)
            return
        passing = encode_passing(ex.response_extras())
        if find(head.headers, b"date") is None:
            passing += _date_block()  # RFC 9110 6.6.1: a recipient with a clock dates it
        if head.length >= 0 and status != 204:
            passing += _length_block(head.length)
        if not body_follows(ex.prep.head.method, status):
            body = b""
            end = True
        if not conn.codec.send_response(self, status, head.headers, passing, body, end=end):
            self._stall(ex)
        conn.flush_soon()

    def send_data(self, data: bytes) -> None:
        if not self.conn.codec.send_data(self, data, end=False) and self.ex is not None:
            self._stall(self.ex)
        self.conn.flush_soon()

    def send_end(self, trailers: Sequence[Header]) -> None:
        self.conn.codec.send_trailers(self, tuple(trailers))
        self.conn.flush_soon()

    def abort(self, reason: str) -> None:
        self.ex = None
        conn = self.conn
        conn.listener.refused(reason)
        conn.codec.reset(self, self.reset_code)
        conn.flush_soon()

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        if self._paused:
            self._paused = False
            self._judge_from(monotonic())
            withheld, self._withheld = self._withheld, 0
            if withheld and not self.is_gone:
                self.conn.codec.consume(self, withheld)
                self.conn.flush_soon()

    def done(self, ex: Exchange) -> None:
        self.ex = None
        if self.is_gone or self.recv_closed:
            if self.conn.is_draining:
                self.conn.part()
            return
        self._lingers_until = monotonic() + _LINGER_S
        self.resume()

    # -- inside --------------------------------------------------------------------------------

    def _prepare(self, site: Site, fields: RequestFields, *, end: bool) -> Prepared:
        conn = self.conn
        head = head_of(fields, site, is_tls=conn.is_tls, end=end)
        if isinstance(head, Refusal):
            conn.listener.refused(head.reason)
            return site.refused(head)
        if conn.is_misdirected(head.host):
            conn.listener.refused(MISDIRECTED.reason)
            return site.refused(MISDIRECTED)
        if fields.protocol is not None:
            head, self._accept = as_upgrade(head, fields.protocol)
            return site.prepare(head, self.peer_ip, trusted=conn.is_trusted)
        prep = site.prepare(head, self.peer_ip, trusted=conn.is_trusted)
        if prep.is_cacheable:
            if end:
                fields.whole = (site, conn.trust, prep)
            else:
                fields.streamed = (site, conn.trust, prep)
        return prep

    def _stall(self, ex: Exchange) -> None:
        if not self.stalled_at:
            self.stalled_at = monotonic()
        if not self.pending_end:
            ex.on_unwritable()

    def _drop(self, size: int) -> None:
        """The body of a request that has been answered."""
        self._dropped += size
        if self._dropped <= _LINGER_BYTES:
            self.conn.codec.consume(self, size)
        elif self.send_closed:
            self.conn.codec.reset(self, ErrorCode.NO_ERROR)
        else:
            self.stop_after = True

    def _open_tunnel(self, ex: Exchange, head: ResponseHead, body: bytes) -> None:
        accept = head.get(b"sec-websocket-accept")
        if head.status != 101 or accept != self._accept:
            # A 2xx would tell the client that its tunnel stands.
            ex.status = 502
            ex.error = "upstream_protocol"
            self.conn.codec.send_response(self, 502, (), b"", b"", end=True)
            self.conn.call_soon(ex.on_client_gone)
            self.conn.flush_soon()
            return
        self._accept = None
        fields = tuple(f for f in head.headers if f[0] not in TUNNEL_FIELDS)
        passing = encode_passing(ex.response_extras())
        if not self.conn.codec.send_response(self, 200, fields, passing, body, end=False):
            self._stall(ex)
        self.conn.flush_soon()

    def inspect(self, now: float, site: Site) -> None:
        """Judge this stream's times; called a few times a second."""
        conn = self.conn
        ex = self.ex
        if self.stalled_at and self.pending is not None:
            if now - self.stalled_at > site.write_timeout_s:
                conn.listener.refused("write_timeout")
                conn.codec.reset(self, ErrorCode.CANCEL)
                self.on_reset(ErrorCode.CANCEL, "write_timeout", by_peer=True)
        elif ex is None:
            if not self.recv_closed and self._lingers_until and now > self._lingers_until:
                if self.send_closed:
                    conn.codec.reset(self, ErrorCode.NO_ERROR)
                else:
                    self.stop_after = True
        elif (
            not self.recv_closed
            and not self._paused
            and not ex.response_started
            and not ex.is_tunnel
        ):
            self._judge_body(ex, now, site)

    def _judge_from(self, now: float) -> None:
        """The client may send from now on, and has been held up before."""
        self._body_at = now
        self._rated_at = 0.0
        self._rated_from = self.received

    def _judge_body(self, ex: Exchange, now: float, site: Site) -> None:
        if not self.conn.codec.has_room:
            self._judge_from(now)
        elif now - self._body_at > site.body_timeout_s:
            ex.refuse(408, "request body not received in time")
        elif not self._rated_at:
            if self.received > self._rated_from:
                self._rated_at = now
        elif (taken_s := now - self._rated_at) > site.limits.min_rate_grace:
            got = self.received - self._rated_from
            if got < site.limits.min_rate * taken_s and not is_stream_of_messages(ex):
                self.conn.listener.refused("slow_body")
                ex.refuse(408, "request body slower than the minimum rate")


class DownstreamH2(RimH2[StreamDown]):
    """A client connection, by ALPN or by prior knowledge."""

    codec: ServerConnection[StreamDown]

    def __init__(self, listener: Listener) -> None:
        super().__init__(listener.wheel)
        self.listener = listener
        self.is_tls = listener.is_tls
        self.tls_version = ""
        self.certificate: bytes | None = None
        self.protocol = "HTTP/2"
        self.client_ip = self.peer_ip = ""
        self.forwarded_block = b""
        self.requests = 0
        self.is_trusted = False
        self.trust: object = None
        """One object for each (trusted, TLS) pair, so that kept heads compare it by identity."""
        self._site: Site = listener.site
        self._draining_since = 0.0
        self._goodbye_at = 0.0
        self._tls_context: ssl.SSLContext | None = None
        self._began = self.active_at = monotonic()
        self.codec = ServerConnection(
            listener.h2_limits, self._make_stream, self._began, listener.h2_judge
        )

    def _make_stream(self) -> StreamDown:
        return StreamDown(self)

    # -- from the transport --------------------------------------------------------------------

    def adopt(self, before: DownstreamH1, received: bytes) -> None:
        """Go on with a connection that chose HTTP/2: by ALPN, or by the preface (RFC 9113 3.3).

        The caller has set this protocol on the transport and has put it in the other's place.
        """
        self.transport = before.transport
        self.peer_ip = before.peer_ip
        self.client_ip = before.client_ip
        self.tls_version = before.tls_version
        self.certificate = before.certificate
        store = self.listener.store
        if store is not None and self.is_tls and len(store.snapshot()) > 1:
            self._tls_context = self.transport.get_extra_info("ssl_object").context
        self._start()
        self.data_received(received)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closing = True
        self.deadline = float("inf")
        self.listener.gone(self)
        self._abandon()

    # -- for the listener ----------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        return not self.codec.streams

    def drain(self) -> None:
        """Take no further request, finish those in flight, close (RFC 9113 6.8)."""
        if not self._draining_since and not self.is_closing:
            self._draining_since = monotonic()
            if not self.codec.streams:
                self._say_goodbye()
            self.watch()

    @property
    def is_draining(self) -> bool:
        return self._draining_since > 0

    def part(self) -> None:
        """Say goodbye together with the last answer, if that is what has just been said.

        A client on the h2 library gives up a request that it sends between the two.
        """
        if not self.codec.streams and not self._goodbye_at:
            self._say_goodbye()

    def is_misdirected(self, host: str) -> bool:
        """RFC 9113 9.1.2: clients reuse connections for hosts whose certificate this one is not."""
        store, context = self.listener.store, self._tls_context
        return store is not None and context is not None and store.misdirected(context, host)

    def current_site(self) -> Site:
        site = self.listener.site
        if site is not self._site:
            self._enter(site)
        return site

    # -- inside --------------------------------------------------------------------------------

    def _start(self) -> None:
        self._began = self.active_at = monotonic()
        self._enter(self.listener.site)
        self.watch()
        self.flush_soon()

    def _enter(self, site: Site) -> None:
        self._site = site
        self.is_trusted = site.is_trusted(self.peer_ip)
        self.trust = _TRUST[self.is_trusted, self.is_tls]
        self.forwarded_block = site.forwarded_block(
            self.peer_ip, is_tls=self.is_tls, protocol=b"2.0"
        )

    def _inspect(self, now: float) -> None:
        site = self._site
        codec = self.codec
        for stream in tuple(codec.streams.values()):
            stream.inspect(now, site)
        if self.blocked_at and now - self.blocked_at > site.write_timeout_s:
            self.listener.refused("write_timeout")
            self.close()
        elif self._is_too_slow(now):
            codec.fail(ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "frame not complete in time"))
        elif not codec.settings_acked and now - self._began > SETTINGS_S:
            codec.fail(ConnectionFault(ErrorCode.SETTINGS_TIMEOUT, "SETTINGS not acknowledged"))
        elif self._goodbye_at:
            if now - self._goodbye_at > _DRAIN_S:
                codec.finish_drain()
        elif self._draining_since and now - self._draining_since > _DRAIN_BUSY_S:
            self._say_goodbye()

    def _is_too_slow(self, now: float) -> bool:
        """A field block, or with no stream open any frame, that trickles in."""
        codec = self.codec
        since = codec.unfinished_since
        if not since or now - since <= self._site.header_timeout_s:
            return False
        return codec.is_in_block or not codec.streams

    def _rest(self, now: float) -> None:
        if self._draining_since:
            self.watch()
            return
        self.deadline = self.active_at + self._site.idle_timeout_s
        if self.deadline <= now:
            self.codec.goaway(ErrorCode.NO_ERROR)
            self.end()

    def _say_goodbye(self) -> None:
        self._goodbye_at = monotonic()
        self.codec.drain()
        self.flush_soon()

    def _is_over(self) -> bool:
        codec = self.codec
        if self._draining_since and not self._goodbye_at:
            self._say_goodbye()
            return False
        return codec.goaway_sent is not None and codec.goaway_sent <= codec.last_peer_stream

    def _on_fault(self) -> None:
        fault = self.codec.fault
        if fault is not None:
            self.listener.refused(f"http2 {fault.code.name}")
        self._abandon()

    def _abandon(self) -> None:
        """The connection is gone, and so is whoever waited for an answer."""
        for stream in tuple(self.codec.streams.values()):
            stream.is_gone = True
            stream.on_reset(ErrorCode.CANCEL, "connection lost", by_peer=True)
        self.codec.streams.clear()


_TRUST: Final = {(trusted, tls): object() for trusted in (False, True) for tls in (False, True)}


def _length_block(length: int) -> bytes:
    """`content-length` as a literal without indexing on the static table's name."""
    digits = b"%d" % length
    return b"\x0f\x0d%c%b" % (len(digits), digits)


def _date_block() -> bytes:
    line = http_date()
    return b"\x0f\x12%c%b" % (len(line) - 8, line[6:-2])


def limits_of(max_streams: int, window: int, header_list: int) -> H2Limits:
    """The codec's limits from a listener's `http2`.

    The connection's window is that of two streams, so that one stalled upload leaves room for the
    others and a client cannot make us hold more than that.
    """
    return H2Limits(
        max_streams=max_streams,
        stream_window=window,
        connection_window=min(2 * window, 2**31 - 1),
        list_bytes=header_list,
    )
