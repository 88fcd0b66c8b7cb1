"""Requests beside a client's own: a second attempt (hedging), and a copy for another service.

Theory of operation
-------------------
To a pool and an upstream rim both look like an exchange (`Asker`); neither has a client of its own.
A `Hedge` is sent when the first attempt is slow. Whichever answers first is the attempt; the other
is cancelled. From the moment it has won, the hedge only passes on: to its exchange what comes from
the instance, and to the instance what the exchange says, because rims hold on to the object that
they were given. A `Mirror` throws its answer away and counts it; it has its own deadline and bound,
and nothing of it ever reaches the client.

Both are sent with the whole request at hand, so that there is no body to follow.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, ClassVar, Final

from headgate.errors import UpstreamFailed
from headgate.gateway.exchange import Exchange
from headgate.gateway.tracing_ids import HEDGE, MIRROR, own_span, span_of, trace_of
from headgate.policy.answers import Rejected
from headgate.wire.message import Forward

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headgate.gateway.attempts import AttemptedExchange
    from headgate.gateway.exchange import Upstream
    from headgate.gateway.pool import Line
    from headgate.gateway.prepared import Prepared
    from headgate.gateway.race import RacedExchange
    from headgate.gateway.route import RouteRuntime
    from headgate.gateway.service import ServiceRuntime
    from headgate.policy.balancer import Member
    from headgate.policy.breaker import Breaker, Permit
    from headgate.wire.message import Header, ResponseHead

_MIRROR_S: Final = 60.0
_MIRROR_BYTES: Final = 16 * 1024 * 1024
"""How long a copy may take, and how much of its answer is read, so that the next can follow."""


class Side(ABC):
    """What both have in common: one attempt, taken once and given back once."""

    goes_at_once: ClassVar[bool] = False
    down: ClassVar[None] = None

    __slots__ = (
        "_block",
        "_body",
        "_is_over",
        "attempts",
        "begun_at",
        "breaker",
        "came_back_to",
        "expires_at",
        "forward",
        "instance",
        "is_tunnel",
        "key",
        "line",
        "member",
        "permit",
        "prep",
        "route",
        "service",
        "started",
        "tried",
        "up",
        "waiting_on",
        "waits_since",
    )

    def __init__(
        self,
        ex: AttemptedExchange,
        service: ServiceRuntime,
        forward: Forward,
        block: bytes,
        body: bytes,
        now: float,
    ) -> None:
        self.prep: Prepared = ex.prep
        self.route: RouteRuntime | None = ex.route
        self.forward: Forward | None = forward
        self.service = service
        self.started = self.begun_at = now
        self.expires_at = ex.expires_at
        self.attempts = 1
        self.waits_since = now
        self.waiting_on: Line | None = None
        self.instance: str | None = None
        self.is_tunnel = False
        self.up: Upstream | None = None
        self.key = ex.key
        self.tried: tuple[Member, ...] = ()
        self.came_back_to: Member | None = None
        self.line: Line | None = None
        self.member: Member | None = None
        self.breaker: Breaker | None = None
        self.permit: Permit | None = None
        self._block = block
        self._body = body
        self._is_over = False

    def send(self, now: float) -> bool:
        """Begin; False when no instance can be asked now."""
        picked = self.service.pick(self, now)
        if picked is None or isinstance(picked, Rejected) or picked in self.tried:
            self._end(None)
            return False
        self.member = picked
        self.service.group.started(picked)
        self.line = line = self.service.line_of[picked.id]
        got = line.take(self)
        if isinstance(got, UpstreamFailed):
            self._end(None)
            return False
        if got is not None:
            self.on_connected(got)
        return True

    def take_permit(self, breaker: Breaker, permit: Permit) -> None:
        self.breaker = breaker
        self.permit = permit

    def cancel(self) -> None:
        """Nobody wants the answer any more."""
        up, self.up = self.up, None
        if up is not None:
            up.cancel()
        waiting_on, self.waiting_on = self.waiting_on, None
        if waiting_on is not None:
            waiting_on.forget(self)
        self._end(None)

    def _end(self, failed: bool | None) -> None:
        """Give back what the attempt took; None: it decided nothing."""
        if self._is_over:
            return
        self._is_over = True
        now = monotonic()
        took_s = now - self.begun_at
        if self.breaker is not None and self.permit is not None:
            if failed is None:
                self.breaker.abandon(self.permit, now)
            elif failed:
                self.breaker.fail(self.permit, now, took_s)
            else:
                self.breaker.succeed(self.permit, now, took_s)
        member = self.member
        if member is None:
            return
        if failed is not None and self.service.note is not None:
            self.service.note(member, failed, took_s, now)
        self.service.group.finished(member, took_s, bool(failed), now)

    def _blames(self, failure: UpstreamFailed) -> bool | None:
        """True where a failure says something about the instance, else None."""
        kind = failure.kind
        if (
            kind in ("queue_full", "queue_timeout")
            or failure.detail == "stale"
            or (kind == "timeout" and monotonic() >= self.expires_at)
            or not self.service.counts(kind)
        ):
            return None
        return True

    # -- towards pools and upstream rims -------------------------------------------------------

    def request_block(self) -> bytes:
        return self._block

    def request_extras(self) -> list[Header]:
        lines = self._block.split(b"\r\n")
        lines.pop()
        return [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]

    def on_connected(self, up: Upstream) -> None:
        self.waiting_on = None
        self.up = up
        # A rim that asks again has kept what it was given (`pool_h2`).
        body, self._body = self._body, b""
        if self.forward is not None:
            up.send_request(self, self.forward, body, True)

    @abstractmethod
    def on_response_head(self, head: ResponseHead, body: bytes, end: bool) -> None: ...
    @abstractmethod
    def on_response_data(self, data: bytes) -> None: ...
    @abstractmethod
    def on_response_end(self, trailers: Sequence[Header] = ()) -> None: ...
    @abstractmethod
    def on_upstream_failed(self, failure: UpstreamFailed, *, unsent: bool = False) -> None: ...

    def on_informational(self, head: ResponseHead) -> None:  # noqa: B027 - nobody needs to hear it
        """Early hints of an attempt that may not be the one are not passed on."""

    def on_upstream_writable(self) -> None: ...  # noqa: B027 - there is nothing more to write
    def on_upstream_unwritable(self) -> None: ...  # noqa: B027


class Hedge(Side):
    made: ClassVar[None] = None

    __slots__ = ("_ex", "_has_won", "number")

    def __init__(
        self,
        ex: RacedExchange,
        service: ServiceRuntime,
        forward: Forward,
        body: bytes,
        now: float,
    ) -> None:
        number = HEDGE + ex.sides
        super().__init__(ex, service, forward, ex.side_block(number, ex.request_block), body, now)
        self._ex = ex
        self._has_won = False
        self.number = number
        """Of its span: see `tracing_ids`."""

    @classmethod
    def begin(
        cls,
        ex: RacedExchange,
        service: ServiceRuntime,
        asked: Sequence[Member],
        body: bytes,
        now: float,
    ) -> Hedge | None:
        if ex.forward is None:
            return None
        hedge = cls(ex, service, ex.forward, body, now)
        hedge.tried = (*ex.tried, *asked)
        return hedge if hedge.send(now) else None

    def promote(self) -> bool:
        """The first attempt has failed: this one takes its place, if it is still under way."""
        if self._is_over:
            return False
        self._win()
        return True

    def _end(self, failed: bool | None) -> None:
        if not self._is_over and self.line is not None:
            now = monotonic()
            said = "failed" if failed else "cancelled"
            self._ex.mark(
                "attempt",
                self.number,
                self.begun_at,
                now,
                self.instance,
                self.service.name,
                said,
                0,
            )
        super()._end(failed)

    def _win(self) -> None:
        self._has_won = True
        self._is_over = True  # what was taken is the exchange's now, which gives it back
        self._ex.take_over(self)

    # -- from the upstream rim -----------------------------------------------------------------

    def on_response_head(self, head: ResponseHead, body: bytes, end: bool) -> None:
        if end:
            self.up = None
        if not self._has_won:
            if self._is_over:
                return
            if head.status in self.service.failures:
                self._end(True)
                self.cancel()
                self._ex.lose(self)
                return
            self._win()
        self._ex.on_response_head(head, body, end)

    def on_response_data(self, data: bytes) -> None:
        if self._has_won:
            self._ex.on_response_data(data)

    def on_response_end(self, trailers: Sequence[Header] = ()) -> None:
        self.up = None
        if self._has_won:
            self._ex.on_response_end(trailers)

    def on_upstream_failed(self, failure: UpstreamFailed, *, unsent: bool = False) -> None:
        self.up = None
        self.waiting_on = None
        if self._has_won:
            self._ex.on_upstream_failed(failure, unsent=unsent)
        else:
            self._end(self._blames(failure))
            self._ex.lose(self)

    # -- from the exchange, once this is its attempt -------------------------------------------

    def send_request(self, ex: object, forward: Forward, body: bytes, end: bool) -> None:
        """Sent long ago."""

    def send_data(self, data: bytes) -> None:
        """There is none: a hedge begins with the whole request."""

    def send_end(self, trailers: Sequence[Header]) -> None: ...

    def pause(self) -> None:
        if self.up is not None:
            self.up.pause()

    def resume(self) -> None:
        if self.up is not None:
            self.up.resume()

    def on_upstream_writable(self) -> None:
        if self._has_won:
            self._ex.on_upstream_writable()

    def on_upstream_unwritable(self) -> None:
        if self._has_won:
            self._ex.on_upstream_unwritable()


class Mirror(Side):
    """A copy of a request to another service."""

    __slots__ = ("_ended", "_failure", "_has_failed", "_left", "_side", "_status", "_tracing")

    def __init__(
        self,
        ex: RacedExchange,
        service: ServiceRuntime,
        forward: Forward,
        body: bytes,
        now: float,
        ended: Callable[[bool], None],
    ) -> None:
        # Neither the client's patience nor its retries are the copy's.
        tracing = ex.site.tracing
        block = ex.side_block(MIRROR, partial(Exchange.request_block, ex))
        super().__init__(ex, service, forward, block, body, now)
        self._tracing = tracing
        self._side: tuple[str, str, str] | None = None
        if tracing is not None and tracing.is_sampled(ex):
            ids = (trace_of(ex), span_of(ex, MIRROR), own_span(ex))
            self._side = (ids[0].decode(), ids[1].decode(), ids[2].decode())
        self._status = 0
        self._failure = ""
        total_s = ex.route.total_s if ex.route is not None else _MIRROR_S
        self.expires_at = now + min(total_s, _MIRROR_S)
        self._left = _MIRROR_BYTES
        self._has_failed = False
        self._ended = ended

    def on_response_head(self, head: ResponseHead, body: bytes, end: bool) -> None:
        self._status = head.status
        self._has_failed = head.status in self.service.failures
        self._end(self._has_failed)
        if end:
            self.up = None
            self._over()
        else:
            self.on_response_data(body)

    def on_response_data(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0:
            self.cancel()  # there may be no end to it
            self._over()

    def on_response_end(self, trailers: Sequence[Header] = ()) -> None:
        self.up = None
        self._over()

    def on_upstream_failed(self, failure: UpstreamFailed, *, unsent: bool = False) -> None:
        self.up = None
        self.waiting_on = None
        self._end(self._blames(failure))
        self._has_failed = True
        self._failure = failure.kind
        self._over()

    def _over(self) -> None:
        ended, self._ended = self._ended, _nobody
        ended(self._has_failed)
        side, self._side = self._side, None
        if side is not None and self._tracing is not None and self.forward is not None:
            self._tracing.side_ended(
                side,
                began=self.begun_at,
                method=self.forward.method,
                service=self.service.name,
                instance=self.instance or "",
                status=self._status,
                failure=self._failure,
            )


def _nobody(failed: bool) -> None:
    """Whom to tell of an end that has been told."""


def forward_as(
    forward: Forward, headers: tuple[Header, ...], length: int, method: str = ""
) -> Forward:
    """The request with these fields and a whole body of this length."""
    return Forward(
        method or forward.method,
        forward.target,
        forward.authority,
        headers,
        length=length,
        scheme=forward.scheme,
        te_trailers=forward.te_trailers,
    )
