"""A route with what it points at: its service, counters, policies and filters, at run time."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from headgate.gateway import problem
from headgate.gateway.exchange import Exchange
from headgate.gateway.traffic import fixed_reply
from headgate.plan.paths_out import fill
from headgate.wire.message import Forward, ResponseHead
from headgate.wire.wheel import NEVER

if TYPE_CHECKING:
    from collections.abc import Callable

    from headgate.gateway.exchange import Downstream
    from headgate.gateway.filters.chain import Chain
    from headgate.gateway.prepared import Prepared
    from headgate.gateway.service import ServiceRuntime
    from headgate.gateway.site import Site
    from headgate.gateway.traffic import RouteTraffic
    from headgate.observe import RouteStats, WorkerStats
    from headgate.plan.plan import RoutePlan


class RouteRuntime:
    """A route with what it points at."""

    __slots__ = (
        "_all_stats",
        "_fixed",
        "_stats_to",
        "admits_by_passport",
        "body_limit",
        "cached",
        "chain",
        "edits",
        "first_byte_s",
        "has_cors",
        "has_hooks",
        "idle_s",
        "name",
        "plan",
        "service",
        "service_name",
        "stats",
        "template",
        "total_s",
        "traffic",
        "tunnel_s",
    )

    def __init__(
        self,
        plan: RoutePlan,
        service: ServiceRuntime | None,
        chain: Chain | None,
        stats: WorkerStats,
        traffic: RouteTraffic,
        cached: Callable[[Downstream, Site, Prepared, float], Exchange] | None = None,
        template: str = "",
    ) -> None:
        self.plan = plan
        self.name = plan.name
        self.template = template
        """The path that it matches, as the file says it; for spans."""
        self.service = service
        self.service_name = service.name if service is not None else ""
        self.stats: RouteStats = stats.route(self.name, self.service_name)
        self._stats_to = {self.service_name: self.stats}
        self._all_stats = stats
        self.chain = chain
        self.traffic = traffic
        self.cached = cached
        """Begins a request, on a route with a cache."""
        self.body_limit = plan.body_limit
        self.first_byte_s = plan.timeouts.first_byte_s
        self.idle_s = plan.timeouts.idle_s
        self.tunnel_s = plan.timeouts.tunnel_s
        self.total_s = plan.timeouts.total_s if plan.timeouts.total_s is not None else NEVER
        self.has_hooks = chain is not None and chain.has_hooks
        """Whether filters have to be called; header edits with constant values need no call."""
        self.edits = chain.edits_request if chain is not None and not self.has_hooks else None
        """What is made of the request's fields, where those edits are all that filters do."""
        self.admits_by_passport = (
            plan.auth is not None
            and not plan.auth.anonymous
            and not self.has_hooks
            and cached is None
        )
        """Whether only what a passport makes of a request is ever sent."""
        self.has_cors = any(guard.policy == "cors" for guard in plan.guards)
        self._fixed: tuple[ResponseHead, bytes] | None = None
        if plan.respond is not None:
            self._fixed = fixed_reply(plan.respond)

    def edited(self, plain: Forward) -> Forward:
        """The request after header edits, where those are all that filters do."""
        if self.edits is None:
            return plain
        return Forward(
            plain.method,
            plain.target,
            plain.authority,
            tuple(self.edits.apply_constant(plain.headers)),
            length=plain.length,
            scheme=plain.scheme,
            expects_continue=plain.expects_continue,
            upgrade=plain.upgrade,
            te_trailers=plain.te_trailers,
        )

    def stats_to(self, service: ServiceRuntime) -> RouteStats:
        """What counts this route's requests to a service other than its first."""
        known = self._stats_to.get(service.name)
        if known is None:
            known = self._stats_to[service.name] = self._all_stats.route(self.name, service.name)
        return known

    def local_answer(self, ex: Exchange) -> tuple[ResponseHead, bytes]:
        """The answer of a route without a service."""
        if self._fixed is not None:
            return self._fixed
        redirect = self.plan.redirect
        if redirect is None:
            return problem.render(ex, 404, "the route leads nowhere")
        head = ex.prep.head
        values = {name: quote(value, safe="/") for name, value in ex.prep.params.items()}
        values.update(
            scheme=ex.prep.scheme,
            host=head.authority,
            # A path may begin with two slashes, and "//host" in a Location is another host.
            path="/" + head.path.lstrip("/"),
            query=f"?{ex.query}" if ex.query or (head.has_query and not head.query) else "",
        )
        location = fill(redirect.to, values).encode("latin-1", "replace")
        reason = problem.title_of(redirect.status).encode("ascii")
        return ResponseHead(
            redirect.status, ((b"location", location),), reason=reason, length=0
        ), b""
