"""The request that a fill makes: an exchange with policies and without a client.

What it counts and logs, its readers count and log; what it cannot answer, they answer, each for
itself. Its time is that of the client it was begun for, but not that client's own patience.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING

from headgate.gateway.policed import PolicedExchange
from headgate.gateway.prepared import Prepared
from headgate.gateway.side import forward_as
from headgate.gateway.tracing_ids import own_span

if TYPE_CHECKING:
    from headgate.errors import UpstreamFailed
    from headgate.gateway.caching.exchange import Cached
    from headgate.gateway.caching.fill import Fill
    from headgate.gateway.exchange import Exchange
    from headgate.gateway.service import ServiceRuntime
    from headgate.gateway.traffic import RouteTraffic
    from headgate.wire.message import Forward, Header, ResponseHead


class NoClient:
    """What an exchange sees of a connection, where the client of another request stands for it."""

    certificate: bytes | None = None

    __slots__ = ("client_ip", "forwarded_block", "is_tls", "peer_ip", "protocol", "tls_version")

    def __init__(self, like: Cached) -> None:
        down = like.down
        self.client_ip = like.client_ip
        self.peer_ip = down.peer_ip
        self.is_tls = down.is_tls
        self.tls_version = down.tls_version
        self.protocol = down.protocol
        self.forwarded_block = down.forwarded_block

    def pause(self) -> None:
        """Of a request body, which it has not."""

    def resume(self) -> None:
        """Likewise."""


class FillPrepared(Prepared):
    """A head for fills: what it counts and logs, its readers count and log."""

    __slots__ = ()

    def count(self, ex: Exchange, now: float) -> None:
        site = self._site
        site.stats.in_flight -= 1
        if site.tracing is not None:
            site.tracing.fill_ended(ex, now)


def prepared_for_fills(prep: Prepared) -> FillPrepared:
    made = object.__new__(FillPrepared)
    for name in Prepared.__slots__:
        setattr(made, name, getattr(prep, name))
    made.deadline_s = None  # its client's patience is its client's
    made.quick_floor = None  # a fill is in another's trace
    made.cached = None  # which leads to this one: they would only be freed by the collector
    if prep.head.method == "HEAD":
        # Whoever reads the answer asks the head whether a body follows.
        made.head = copy(prep.head)
        made.head.method = "GET"
    return made


class FillExchange(PolicedExchange):
    is_local = False
    """What it answers is not the service's own word about this URL."""
    refusal: tuple[int, str, float | None] | None = None
    failure: UpstreamFailed | None = None
    why = ""
    """In the words of `fallback`."""

    def begin(self) -> None:
        self.request_done = True
        self._run(self.traffic.steps, b"", self._admitted)

    def fall_back(self, why: str, *, is_early: bool = False, is_uncounted: bool = False) -> bool:
        self.why = self.why or why
        return False

    def refuse(self, status: int, reason: str, retry_after_s: float | None = None) -> None:
        if self.failure is None and self.refusal is None:
            self.refusal = (status, reason, retry_after_s)
        super().refuse(status, reason, retry_after_s)

    def fail(self, failure: UpstreamFailed) -> None:
        self.failure = failure
        super().fail(failure)

    def answer(self, reply: tuple[ResponseHead, bytes]) -> None:
        self.is_local = True
        super().answer(reply)

    def change_service(self, service: ServiceRuntime) -> None:
        if service is not self.service:
            self.is_local = True
        super().change_service(service)


def exchange_for(
    fill: Fill,
    fields: tuple[Header, ...],
    *,
    like: Cached,
    prep: FillPrepared,
    traffic: RouteTraffic,
    forward: Forward,
    started: float,
) -> FillExchange:
    """The request of a fill with these fields, in the name of the client it was begun for."""
    ex = FillExchange(fill, like.site, prep, started, traffic)
    ex.client_ip = like.client_ip
    ex.is_secure = like.is_secure
    ex.request_id = like.request_id
    ex.root_id = like.own_id
    ex.asked_for = own_span(like)
    ex.identity = like.identity
    ex.passport = like.passport
    ex.service = like.service
    ex.stats = like.stats
    if fields is not forward.headers or forward.method == "HEAD":
        forward = forward_as(forward, fields, 0, "GET")
    ex.forward = forward
    return ex
