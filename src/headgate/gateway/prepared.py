"""A head with everything that follows from it: see `site`, which makes them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from headgate.gateway import problem
from headgate.gateway.edited import EditedExchange
from headgate.gateway.exchange import Exchange
from headgate.gateway.filtered import FilteredExchange
from headgate.gateway.policed import PolicedExchange
from headgate.gateway.tracing_ids import SAMPLED_PART, trace_of
from headgate.policy.hops import (
    ATTEMPT,
    DEADLINE,
    may_retry,
    parse_deadline,
    parse_grpc_timeout,
)
from headgate.wire import forwarded
from headgate.wire.message import Forward, RequestHead, ResponseHead

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from headgate.gateway.caching.remembered import Remembered
    from headgate.gateway.doors import Passport
    from headgate.gateway.exchange import Downstream
    from headgate.gateway.log_format import Lines
    from headgate.gateway.route import RouteRuntime
    from headgate.gateway.service import ServiceRuntime
    from headgate.gateway.site import Site
    from headgate.gateway.tracing_heads import HeadTrace
    from headgate.wire.message import Header

_KINDS: Final = {401: "status_401", 404: "status_404", 429: "limited"}
_NO_PARAMS: Final[Mapping[str, str]] = {}


class Prepared:
    """A head with everything that follows from it; shared by all requests that look the same."""

    __slots__ = (
        "_fixed",
        "_forwards",
        "_plains",
        "_refusal",
        "_site",
        "attempt_above",
        "cached",
        "deadline_s",
        "exchange",
        "explanation",
        "forward",
        "head",
        "host_block",
        "is_cacheable",
        "is_retried_above",
        "lines",
        "makes_trace",
        "memo",
        "params",
        "passport",
        "quick_floor",
        "received_id",
        "route",
        "scheme",
        "service",
        "stats",
        "trace",
        "trace_id",
        "trusted_forwarding",
        "variants",
    )

    def __init__(self, site: Site, head: RequestHead) -> None:
        self._site = site
        self.stats = site.unrouted
        self._refusal: tuple[int, str, tuple[Header, ...]] | None = None
        self._fixed: tuple[ResponseHead, bytes] | None = None
        self.head = head
        self.scheme = head.scheme
        """How the client itself spoke, to us or to a trusted proxy."""
        self.route: RouteRuntime | None = None
        self.service: ServiceRuntime | None = None
        self.forward: Forward | None = None
        self._forwards: dict[str, Forward] = {}
        self._plains: dict[str, Forward] = {}
        self.lines: Lines | None = None
        """What the access log keeps of its lines."""
        self.memo: dict[object, str] = {}
        """What policies have read out of the head, under keys of their own."""
        self.deadline_s: float | None = None
        """How long the client still waits, if it says so."""
        self.attempt_above: bytes | None = None
        """What a trusted peer says of its own retries."""
        self.is_retried_above = False
        self.params: Mapping[str, str] = _NO_PARAMS
        self.host_block = b""
        self.is_cacheable = True
        self.makes_trace = True
        self.explanation: bytes | None = None
        """What `x-headgate-explain` tells of the route, when the operator asked."""
        self.received_id: bytes | None = None
        self.trace: HeadTrace | None = None
        """What the head says of its trace, where traces are made here (`tracing`)."""
        self.quick_floor: bytes | None = None
        """Where the trace begins here and services are told of it in one header: its floor."""
        self.trace_id: bytes | None = None
        self.trusted_forwarding = False
        self.exchange: Callable[[Downstream, Site, Prepared, float], Exchange] = Exchange
        """Begins a request; only routes with filters pay for them."""
        self.cached: Remembered | None = None
        """What follows from the head for the cache, on a route that has one."""
        self.passport: Passport | None = None
        """Who asks with this head, as far as that may be kept."""
        self.variants: dict[tuple[str, str, tuple[Header, ...]], Forward] = {}
        """What filters have made of the request to a service, by the fields they left."""

    def refuse(self, status: int, reason: str, headers: tuple[Header, ...] = ()) -> None:
        self._refusal = (status, reason, headers)

    def answer_with(self, fixed: tuple[ResponseHead, bytes]) -> None:
        self._fixed = fixed

    def lead_to(self, route: RouteRuntime) -> None:
        self.route = route
        self.service = service = route.service
        self.stats = route.stats
        if service is not None:
            if not route.admits_by_passport:
                self.forward = self.forward_to(service)
            self._read_hops()
        traffic = route.traffic
        if route.cached is not None:
            self.exchange = route.cached
        elif route.has_hooks and route.chain is not None:
            self.exchange = partial(FilteredExchange, chain=route.chain, traffic=traffic)
        elif route.chain is not None and route.chain.edits_response is not None:
            edits = route.chain.edits_response
            self.exchange = partial(EditedExchange, edits=edits, traffic=traffic)
        elif (
            traffic.is_needed
            or (service is not None and not service.is_plain)
            or self.deadline_s is not None
            or self.attempt_above is not None
        ):
            self.exchange = partial(PolicedExchange, traffic=traffic)

    def _read_hops(self) -> None:
        """What the layer above says of its patience and its retries (`policy.hops`)."""
        head = self.head
        deadline = head.get(DEADLINE)
        if deadline is not None:
            self.deadline_s = parse_deadline(deadline)
        else:
            grpc = head.get(b"grpc-timeout")
            if grpc is not None:
                self.deadline_s = parse_grpc_timeout(grpc)
        if self.trusted_forwarding:
            self.attempt_above = head.get(ATTEMPT)
            self.is_retried_above = not may_retry(self.attempt_above)

    def forward_to(self, service: ServiceRuntime) -> Forward | None:
        """The request as another service than the route's first gets it."""
        known = self._forwards.get(service.name)
        if known is None and self.route is not None:
            plain = self.plain_to(service)
            if plain is not None:
                known = self._forwards[service.name] = self.route.edited(plain)
        return known

    def plain_to(self, service: ServiceRuntime) -> Forward | None:
        """The same before the route's own edits: for whoever has something to take out first."""
        known = self._plains.get(service.name)
        if known is None and self.route is not None:
            known = self._plains[service.name] = self._site.forward(self, self.route, service)
        return known

    def turns_away(self, ex: Exchange, end: bool) -> bool:
        """Answer who is banned by hand and comes through a trusted proxy, where no rules are given
        and the routes therefore have no step for it. Others were asked as they connected.
        """
        if self._site.has_ban_rules:
            return False
        banned = self._banned(ex)
        if banned is None:
            return False
        ex.request_done = end
        ex.answer(banned)
        return True

    def _banned(self, ex: Exchange) -> tuple[ResponseHead, bytes] | None:
        bans = self._site.bans
        found = bans.check(ex.client_ip, ex.started) if bans is not None else None
        if found is None:
            return None
        ex.error = f"{found.policy}: {found.detail}"
        wait = b"%d" % max(1, -int(-(found.retry_after_s or 1.0) // 1))
        return problem.render(ex, found.status, found.reason, headers=((b"retry-after", wait),))

    def trailers_of(self, fields: Sequence[Header]) -> Sequence[Header]:
        """What of a trailer section may travel on: some services take it for headers."""
        return self._site.kept(fields, trusted=self.trusted_forwarding) if fields else ()

    def local_answer(self, ex: Exchange) -> tuple[ResponseHead, bytes]:
        """The answer when no route takes the request."""
        banned = self._banned(ex)
        if banned is not None:
            return banned
        if self._fixed is not None:
            return self._fixed
        status, reason, headers = self._refusal or (404, "no route matches", ())
        ex.error = ex.error or reason
        return problem.render(ex, status, reason, headers=headers)

    def client_of(self, ex: Exchange) -> forwarded.Client:
        """The client that a trusted peer speaks for."""
        site = self._site
        return forwarded.client(
            ex.down.peer_ip, self.head.scheme, self.head.headers, site.trusted, site.options
        )

    def forwarding_of(self, ex: Exchange) -> bytes:
        """The forwarding fields behind a trusted peer."""
        site = self._site
        fields = forwarded.outgoing(
            ex.down.peer_ip,
            self.head.scheme,
            self.head.authority,
            self.head.headers,
            site.trusted,
            site.options,
            b"2.0" if ex.down.protocol == "HTTP/2" else b"1.1",
        )
        return b"".join(b"%b: %b\r\n" % field for field in fields)

    @property
    def answer_names(self) -> frozenset[bytes]:
        """Fields that the gateway says itself with each answer."""
        return self._site.answer_names

    def count(self, ex: Exchange, now: float) -> None:
        """Count and log an exchange that is over."""
        duration_s = now - ex.started
        status = ex.status
        ex.stats.record(
            self.head.method, status, duration_s, ex.upstream_s, ex.bytes_in, ex.bytes_out
        )
        site = self._site
        site.stats.in_flight -= 1
        if site.bans is not None and 400 <= status < 500 and not _is_ours(ex.error):
            site.bans.saw(ex.client_ip, self._kind_of(status), 1.0, now)
        tracing = site.tracing
        is_kept: bool | None = None
        if tracing is not None:
            sampled = ex.sampled
            if sampled is None:
                if self.trace is None:
                    sampled = ex.own_id[SAMPLED_PART] >= tracing.floor
                else:
                    sampled = tracing.is_sampled(ex)
            is_kept = (
                sampled or status >= 500 or ex.error is not None or duration_s >= tracing.slow_s
            ) and tracing.ended(ex, now, duration_s)
        if site.log.is_on:
            if is_kept is not None:
                trace_id = ex.own_id if self.trace is None else trace_of(ex)
            else:
                made = ex.request_id if self.makes_trace and len(ex.request_id) == 32 else b""
                trace_id = self.trace_id or made
            site.log.add(self, ex, duration_s, trace_id, is_kept)

    @property
    def told_head(self) -> RequestHead | None:
        """The head for those that tell of it; None when none could be read."""
        return self.head if self._refusal is None or self.head.method != "-" else None

    def _kind_of(self, status: int) -> str:
        """What a refusal says of the client, in the words of `bans`."""
        if self.head.method == "-":
            return "malformed"
        return _KINDS.get(status, "status_4xx")


def _is_ours(error: str | None) -> bool:
    """A refusal that the rules of `bans` know by another name, or that follows from a ban."""
    return error is not None and error.startswith(("auth", "bans"))
