"""One request's life: from its head to the last byte of its answer.

Theory of operation
-------------------
An exchange stands between two rims. The *downstream* rim is one turn of an HTTP/1.1 connection
or one HTTP/2 stream; the *upstream* rim is the same on the other side. Rims know framing; the
exchange knows what may happen next, and it never sees a transport:

    start -> (refused | answered here) -> done
    start -> wait for a connection -> sent -> response head -> body -> done
                     |                  |          |
                     failed: another instance      failed: abort, the client sees a broken message
                                        failed before any byte of a response: retry if safe, or 502

Every ending goes through `_finish`, exactly once: it gives back what was taken (a place in a
pool's queue, an upstream connection), counts, logs, and tells the downstream rim that its turn
is over. After it, late calls from either rim are ignored, because rims may be half way through a
buffer when an exchange ends.

Nothing is allocated per request beyond this object and what the request itself brings. What needs
more lives in subclasses, which only the routes that ask for it use: choosing among instances,
retries, limits and the rest of traffic in `policed.py`, filters in `filtered.py`.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, cast

from headgate.errors import UpstreamFailed
from headgate.gateway import problem
from headgate.gateway.request_ids import batch as _batch
from headgate.gateway.request_ids import take_id as _take_id
from headgate.gateway.told import Told
from headgate.wire.message import ResponseHead
from headgate.wire.wheel import NEVER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headgate.gateway.pool import Line
    from headgate.gateway.prepared import Prepared
    from headgate.gateway.route import RouteRuntime
    from headgate.gateway.site import Site
    from headgate.security.identity import Identity
    from headgate.wire.message import Forward, Header

PENDING_MAX: Final = 64 * 1024
"""Body bytes held while a connection is being made, before the client is told to wait."""

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


class Downstream(Protocol):
    """Where a response goes: one turn of an HTTP/1.1 connection, or one HTTP/2 stream."""

    client_ip: str
    peer_ip: str
    is_tls: bool
    tls_version: str
    certificate: bytes | None
    """The client's, in DER, once TLS has verified it."""
    protocol: str
    forwarded_block: bytes

    def send_informational(self, head: ResponseHead) -> None: ...
    def send_head(self, ex: Exchange, head: ResponseHead, body: bytes, end: bool) -> None: ...
    def send_data(self, data: bytes) -> None: ...
    def send_end(self, trailers: Sequence[Header]) -> None: ...
    def abort(self, reason: str) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def done(self, ex: Exchange) -> None:
        """The exchange is over; a body still arriving is no longer wanted."""


class Asker(Protocol):
    """Who asks an instance: an exchange, or a request beside one (`side`)."""

    goes_at_once: ClassVar[bool]
    attempts: int
    expires_at: float
    forward: Forward | None
    instance: str | None
    is_tunnel: bool
    prep: Prepared
    route: RouteRuntime | None
    started: float
    up: Upstream | None
    waiting_on: Line | None
    waits_since: float

    @property
    def down(self) -> Downstream | None: ...
    def request_block(self) -> bytes: ...
    def request_extras(self) -> list[Header]: ...
    def on_connected(self, up: Upstream) -> None: ...
    def on_informational(self, head: ResponseHead) -> None: ...
    def on_response_head(self, head: ResponseHead, body: bytes, end: bool) -> None: ...
    def on_response_data(self, data: bytes) -> None: ...
    def on_response_end(self, trailers: Sequence[Header] = ()) -> None: ...
    def on_upstream_writable(self) -> None: ...
    def on_upstream_unwritable(self) -> None: ...
    def on_upstream_failed(self, failure: UpstreamFailed, *, unsent: bool = False) -> None: ...


class Upstream(Protocol):
    """One exchange on an upstream connection or stream."""

    @property
    def made(self) -> tuple[float, float, float] | None:
        """When making its connection began, was connected, and ready."""

    def send_request(self, ex: Asker, forward: Forward, body: bytes, end: bool) -> None: ...
    def send_data(self, data: bytes) -> None: ...
    def send_end(self, trailers: Sequence[Header]) -> None: ...
    def cancel(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...


class Exchange(Told):
    goes_at_once: ClassVar[bool] = True
    """Whether nothing can lie between `started` and the first `_dispatch`."""
    identity: Identity | None = None
    """Who asks, where it has been found out."""

    __slots__ = (
        "_pending",
        "_pending_bytes",
        "attempts",
        "bytes_in",
        "bytes_out",
        "client_ip",
        "connect_s",
        "down",
        "ended",
        "error",
        "expires_at",
        "finished",
        "forward",
        "is_tunnel",
        "instance",
        "line",
        "marks",
        "own_id",
        "prep",
        "request_done",
        "request_id",
        "response_headers",
        "response_started",
        "route",
        "sampled",
        "service",
        "site",
        "started",
        "stats",
        "status",
        "trailers_in",
        "up",
        "upstream_s",
        "waiting_on",
        "waits_since",
    )

    def __init__(self, down: Downstream, site: Site, prep: Prepared, now: float) -> None:
        self.down = down
        self.site = site
        self.prep = prep
        self.route: RouteRuntime | None = prep.route
        self.service = prep.service
        self.stats = prep.stats
        self.started = now
        self.ended = 0.0
        self.client_ip = down.client_ip
        self.up: Upstream | None = None
        self.forward: Forward | None = prep.forward
        self.request_done = False
        self.response_started = False
        self.finished = False
        self.is_tunnel = False
        self.status = 0
        self.error: str | None = None
        self.instance: str | None = None
        self.bytes_in = 0
        self.bytes_out = 0
        self.upstream_s = -1.0
        self.connect_s = -1.0
        self.expires_at = NEVER
        self.response_headers: tuple[Header, ...] = ()
        self.attempts = 0
        self.request_id = self.own_id = _batch.pop() if _batch else _take_id()
        self.marks: list[tuple[Any, ...]] | None = None
        self.sampled: bool | None = None
        self.waiting_on: Line | None = None
        self.waits_since = 0.0
        self._pending: list[bytes] | None = None
        self._pending_bytes = 0
        self.trailers_in: Sequence[Header] = ()
        self.line: Line | None = None
        site.stats.in_flight += 1

    @property
    def query(self) -> str:
        """The query, as far as it may be told to others."""
        return self.prep.head.query

    # -- from the downstream rim ---------------------------------------------------------------

    def start(self, body: bytes, end: bool) -> None:
        """Begin, with what has come of the body; `end` says that this is all of it."""
        prep = self.prep
        route = prep.route
        if prep.trusted_forwarding:
            self._take_trusted()
            if prep.turns_away(self, end):
                return
        if route is None:
            self.request_done = end
            self.answer(prep.local_answer(self))
            return
        self.bytes_in = len(body)
        self.request_done = end
        if prep.head.length > route.body_limit or len(body) > route.body_limit:
            self.refuse(413, "request body too large")
        elif self.service is None:
            self.answer(route.local_answer(self))
        else:
            self._dispatch(body, end)

    def on_request_data(self, data: bytes) -> None:
        if self.finished:
            return
        self.bytes_in += len(data)
        up = self.up
        if self.is_tunnel:
            if up is not None:
                up.send_data(data)
            return
        route = self.route
        if route is None or self.bytes_in > route.body_limit:
            self.refuse(413, "request body too large")
        elif up is not None:
            up.send_data(data)
        else:
            self._hold(data)

    def on_request_end(self, trailers: Sequence[Header] = ()) -> None:
        if self.finished or (self.request_done and not self.is_tunnel):
            return
        self.request_done = True
        if self.up is not None:
            self.up.send_end(trailers)
        else:
            self.trailers_in = trailers

    def on_client_gone(self) -> None:
        """The client has left: stop the work, unless it is over."""
        if not self.finished:
            self.error = self.error or "client_gone"
            if not self.status:
                self.status = 499
            self._finish()

    def on_unwritable(self) -> None:
        if self.up is not None:
            self.up.pause()

    def on_writable(self) -> None:
        if self.up is not None:
            self.up.resume()

    # -- from the pool -------------------------------------------------------------------------

    def on_connected(self, up: Upstream) -> None:
        """A connection that this exchange waited for is its own now."""
        self.waiting_on = None
        if self.waits_since:
            now = monotonic()
            self.connect_s = now - self.waits_since
            self.note_wait(up, self.waits_since, now)
        body, end = b"", self._has_whole_request()
        if self._pending:
            body = b"".join(self._pending)
        held = self._pending_bytes
        self._pending = None
        self._pending_bytes = 0
        if held > PENDING_MAX:
            self.down.resume()
        self.up = up
        up.send_request(self, cast("Forward", self.forward), body, end and not self.trailers_in)
        if end and self.trailers_in:
            up.send_end(self.trailers_in)

    # -- from the upstream rim -----------------------------------------------------------------

    def on_informational(self, head: ResponseHead) -> None:
        if not self.finished and not self.response_started:
            self.down.send_informational(head)

    def on_response_head(self, head: ResponseHead, body: bytes, end: bool) -> None:
        if self.finished:
            return
        self.response_started = True
        self.status = head.status
        self.response_headers = head.headers
        self.bytes_out = len(body)
        # The moment of the response's head; a whole response ends with it.
        now = self.ended or monotonic()
        self.ended = now if end else 0.0
        self.upstream_s = now - self.started
        if end:
            self.up = None
            self.down.send_head(self, head, body, end)
            self._finish(now)
        else:
            self.down.send_head(self, head, body, end)

    def on_response_data(self, data: bytes) -> None:
        if not self.finished:
            self.bytes_out += len(data)
            self.down.send_data(data)

    def on_response_end(self, trailers: Sequence[Header] = ()) -> None:
        if self.finished:
            return
        self.up = None
        if trailers:
            self.note_grpc(trailers)
        self.down.send_end(trailers)
        self._finish()

    def on_upstream_writable(self) -> None:
        self.down.resume()

    def on_upstream_unwritable(self) -> None:
        self.down.pause()

    def on_upstream_failed(self, failure: UpstreamFailed, *, unsent: bool = False) -> None:
        """The attempt is over. `unsent`: the instance cannot have acted on the request."""
        if self.finished:
            return
        self.up = None
        self.waiting_on = None
        if self.line is not None:
            self.line.stats.failures.add(failure.kind)
        if failure.kind == "timeout":
            self.site.stats.timeouts.add("upstream")
        self.note_attempt(monotonic(), failure, unsent=unsent)
        if self.response_started:
            self.error = failure.log_word
            self.down.abort(f"upstream {failure.kind} in the middle of a response")
            self._finish()
        elif self._is_stale(failure):
            self._dispatch(b"", self._has_whole_request())
        else:
            self.fail(failure)

    # -- answers of our own --------------------------------------------------------------------

    def refuse(self, status: int, reason: str) -> None:
        """Answer with a problem. The fault is the client's (4xx) or ours (5xx)."""
        self.error = self.error or reason
        self.answer(problem.render(self, status, reason))

    def fail(self, failure: UpstreamFailed) -> None:
        """Answer for an instance that could not."""
        self.error = failure.log_word
        self.answer(problem.for_upstream(self, failure))

    def answer(self, reply: tuple[ResponseHead, bytes]) -> None:
        """Send a whole response that did not come from an instance."""
        if self.finished:
            return
        head, body = reply
        if self.response_started:
            self.down.abort(self.error or "answered twice")
            self._finish()
            return
        self.response_started = True
        self.status = head.status
        self.response_headers = head.headers
        self.bytes_out = len(body)
        self._let_go()
        self.down.send_head(self, head, body, end=True)
        self._finish()

    # -- inside --------------------------------------------------------------------------------

    def _take_trusted(self) -> None:
        """A trusted peer speaks for its client: take the client's address and the request id."""
        prep = self.prep
        client = prep.client_of(self)
        self.client_ip = client.ip
        self._heard_scheme(client.scheme)
        if prep.received_id is not None:
            self.request_id = prep.received_id

    def _heard_scheme(self, scheme: str) -> None:
        """How the client spoke to the outermost trusted hop; of interest to policies alone."""

    def _dispatch(self, body: bytes, end: bool) -> None:
        """Make an attempt at the service's only instance."""
        route, service = self.route, self.service
        if route is None or service is None:
            self.refuse(500, "no service")
            return
        self.attempts += 1
        self.expires_at = self.started + route.total_s
        self._send_by(service.line, body, end)

    def _send_by(self, line: Line, body: bytes, end: bool) -> None:
        self.line = line
        got = line.take(self)
        if got is None:
            self.waits_since = monotonic()
            if body:
                self._hold(body)
        elif got.__class__ is UpstreamFailed:
            self.on_upstream_failed(got, unsent=True)
        elif self._pending is not None or self.trailers_in:
            # What was held meanwhile goes along.
            self._hold(body)
            self.on_connected(cast("Upstream", got))
        else:
            self.up = up = cast("Upstream", got)
            up.send_request(self, cast("Forward", self.forward), body, end)

    def _has_whole_request(self) -> bool:
        """Whether all that will ever be sent upstream is at hand."""
        return self.request_done

    def _hold(self, data: bytes) -> None:
        if not data:
            return
        if self._pending is None:
            self._pending = []
        self._pending.append(data)
        before = self._pending_bytes
        self._pending_bytes = before + len(data)
        if before <= PENDING_MAX < self._pending_bytes:
            self.down.pause()

    def _is_stale(self, failure: UpstreamFailed) -> bool:
        """Whether to ask again because a kept connection was closed under the request.

        RFC 9112 9.3.1: a server may close it while the request is on its way. Once, and only where
        asking twice does no harm.
        """
        return (
            failure.kind == "reset"
            and failure.detail == "stale"
            and self.attempts == 1
            and self.prep.head.method in _SAFE
            and self.bytes_in == 0
        )

    def _let_go(self) -> None:
        up = self.up
        if up is not None:
            self.up = None
            up.cancel()
        waiting_on = self.waiting_on
        if waiting_on is not None:
            self.waiting_on = None
            waiting_on.forget(self)

    def _finish(self, now: float = 0.0) -> None:
        self.finished = True
        if self.up is not None or self.waiting_on is not None:
            self._let_go()
        self._pending = None
        self.prep.count(self, now or monotonic())
        self.down.done(self)


def is_stream_of_messages(ex: Exchange) -> bool:
    """A gRPC call may have a message to send now and then; only its silence is limited."""
    kind = ex.prep.head.get(b"content-type")
    return kind is not None and kind.startswith(b"application/grpc")
