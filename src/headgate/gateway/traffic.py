"""A route's traffic policies at run time, and the state behind them that outlives plans.

Theory of operation
-------------------
`States` belongs to a worker and holds what a reload must not forget, each under the stable id that
the plan gives it: breakers and balancers by service, buckets by limit, seats by concurrency limit,
budgets, splits. `take` brings it in line with a plan: what is still named goes on under its new
rules, what is not named any more is dropped.

`RouteTraffic` is made anew with each plan: the route's policies compiled into steps and the few
values that an exchange reads at its turns. A route that asks for nothing shares one object that
says so, and its exchanges are the bare ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Final, cast

from headgate.gateway import problem
from headgate.gateway.side import Mirror
from headgate.policy.hops import ATTEMPT, format_attempt
from headgate.policy.shed import PRIORITIES
from headgate.wire.message import find

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

    from headgate.config import RespondSpec
    from headgate.gateway.policed import PolicedExchange
    from headgate.gateway.service import ServiceRuntime
    from headgate.gateway.steps import Step
    from headgate.plan.plan import RoutePlan
    from headgate.plan.traffic import FallbackPlan, MirrorPlan
    from headgate.policy.budget import RetryBudget
    from headgate.policy.hedge import HedgeDelay
    from headgate.policy.retry import RetryRules
    from headgate.policy.shed import Shedder
    from headgate.wire.message import ResponseHead

ELSEWHERE_MAX: Final = 3
"""Instances to try for a request that reached none of them, without any retry policy."""
_NORMAL: Final = PRIORITIES.index("normal")
_PRIORITY_OF: Final = {name.encode(): at for at, name in enumerate(PRIORITIES)}


class TrafficStats:
    """What a route's policies have done."""

    __slots__ = (
        "budget_spent",
        "fallbacks",
        "faults",
        "hedges",
        "hedges_won",
        "mirrored",
        "mirrored_failed",
        "mirrors_dropped",
        "rejected_open",
        "retries",
        "shed",
    )

    def __init__(self) -> None:
        for name in self.__slots__:
            setattr(self, name, 0)

    budget_spent: int
    fallbacks: int
    faults: int
    hedges: int
    hedges_won: int
    mirrored: int
    mirrored_failed: int
    mirrors_dropped: int
    rejected_open: int
    retries: int
    shed: int


@dataclass(frozen=True, slots=True)
class Fallback:
    on: frozenset[str]
    statuses: frozenset[int]
    reply: tuple[ResponseHead, bytes] | None
    service: ServiceRuntime | None


class MirrorRuntime:
    """Copies of requests, bounded: what does not fit is dropped and counted."""

    __slots__ = ("_in_flight", "_plan", "_rng", "_service", "_stats")

    def __init__(
        self, plan: MirrorPlan, service: ServiceRuntime, stats: TrafficStats, rng: random.Random
    ) -> None:
        self._plan = plan
        self._service = service
        self._stats = stats
        self._rng = rng
        self._in_flight = 0

    def copy(self, ex: PolicedExchange, body: bytes, now: float) -> None:
        if self._plan.share < 1.0 and self._rng.random() >= self._plan.share:
            return
        stats = self._stats
        if self._in_flight >= self._plan.queue:
            stats.mirrors_dropped += 1
            return
        forward = ex.copy_for(self._service, len(body))
        if forward is None:
            return
        self._in_flight += 1
        stats.mirrored += 1
        copy = Mirror(ex, self._service, forward, body, now, self._ended)
        if not copy.send(now):
            self._ended(failed=True)

    def _ended(self, failed: bool) -> None:
        self._in_flight -= 1
        if failed:
            self._stats.mirrored_failed += 1


class RouteTraffic:
    __slots__ = (
        "all_steps",
        "attempt_lines",
        "before",
        "entry",
        "budget",
        "counting",
        "fallback",
        "hedge_delays",
        "hedged_methods",
        "hidden",
        "hedges",
        "is_plain",
        "late",
        "mirror",
        "other_instance",
        "per_try_s",
        "priority",
        "priority_header",
        "replay_max",
        "retries",
        "shedder",
        "stats",
        "steps",
        "tells_deadline",
    )

    def __init__(self, stats: TrafficStats) -> None:
        self.stats = stats
        self.before: tuple[Step, ...] = ()
        """What a request meets first: shedding, then `entry`."""
        self.entry: tuple[Step, ...] = ()
        """Who is let in. Nothing may lead around these."""
        self.steps: tuple[Step, ...] = ()
        self.counting: tuple[Step, ...] = ()
        """Of these the limits, for who is sent elsewhere before they were asked."""
        self.all_steps: tuple[Step, ...] = ()
        """`before` and `steps` in a row."""
        self.late: tuple[Step, ...] = ()
        """Of a route with a cache: steps for what is asked of the service, and not for hits."""
        self.retries: RetryRules | None = None
        self.attempt_lines: tuple[bytes, ...] = ()
        """What each attempt tells of itself, by its number."""
        self.budget: RetryBudget | None = None
        self.per_try_s = inf
        self.other_instance = True
        self.replay_max = 0
        self.hedges = 0
        """Further attempts that may be made beside the first."""
        self.hedge_delays: Mapping[str, HedgeDelay] = {}
        """After how long, by the service."""
        self.hidden: frozenset[bytes] = frozenset()
        """Response headers that are meant for us alone, such as what a request did cost."""
        self.hedged_methods: frozenset[str] = frozenset()
        self.fallback: Fallback | None = None
        self.mirror: MirrorRuntime | None = None
        self.shedder: Shedder | None = None
        self.tells_deadline = False
        self.priority = _NORMAL
        self.priority_header: bytes | None = None
        self.is_plain = True
        """Nothing here concerns attempts."""

    @property
    def is_needed(self) -> bool:
        """Whether an exchange has to know of this at all."""
        return bool(
            self.before
            or self.steps
            or self.late
            or not self.is_plain
            or self.fallback is not None
            or self.mirror is not None
        )

    def for_fills(self) -> RouteTraffic:
        """What holds for a request that the cache makes: its readers see to everything else."""
        made = RouteTraffic(self.stats)
        for name in self.__slots__:
            setattr(made, name, getattr(self, name))
        made.before = made.entry = made.late = ()
        made.steps = made.all_steps = self.late
        made.fallback = made.mirror = None
        return made

    def priority_of(self, ex: PolicedExchange) -> int:
        name = self.priority_header
        if name is not None and ex.prep.trusted_forwarding:
            said = find(ex.prep.head.headers, name)
            if said is not None:
                return _PRIORITY_OF.get(said, self.priority)
        return self.priority


def compile_traffic(
    plan: RoutePlan,
    services: Mapping[str, ServiceRuntime],
    budget: RetryBudget | None,
    stats: TrafficStats,
    rng: random.Random,
    before: tuple[Step, ...],
    entry: tuple[Step, ...],
    steps: tuple[Step, ...],
    late: tuple[Step, ...] = (),
) -> RouteTraffic:
    made = RouteTraffic(stats)
    made.before = (*before, *entry)
    made.entry = entry
    made.steps = steps
    made.all_steps = (*before, *entry, *steps)
    made.late = late
    made.priority = PRIORITIES.index(plan.priority.default)
    made.priority_header = plan.priority.header
    rules = plan.retry
    if rules is not None and rules.attempts > 1:
        made.retries = rules
        made.budget = budget
        made.other_instance = rules.other_instance
        made.replay_max = rules.body_max
        made.attempt_lines = tuple(
            b"%b: %b\r\n" % (ATTEMPT, format_attempt(min(attempt, rules.attempts), rules.attempts))
            for attempt in range(max(rules.attempts, ELSEWHERE_MAX) + 1)
        )
    if plan.timeouts.per_try_s is not None:
        made.per_try_s = plan.timeouts.per_try_s
    if plan.hedge is not None:
        made.hedges = plan.hedge.rules.most
        made.hedged_methods = plan.hedge.methods
        made.hedge_delays = {
            name: services[name].state.hedge_delays[plan.hedge.rules]
            for name in plan.services
            if name in services
        }
        made.budget = made.budget or budget
    made.hidden = frozenset(limit.cost_header for limit in plan.limits if limit.cost_header)
    if plan.fallback is not None:
        made.fallback = _fallback(plan.fallback, services)
        if made.fallback.service is not None:
            made.replay_max = max(made.replay_max, rules.body_max if rules is not None else 65536)
    if plan.mirror is not None:
        made.mirror = MirrorRuntime(plan.mirror, services[plan.mirror.service], stats, rng)
        made.replay_max = max(made.replay_max, plan.mirror.body_max)
    total_s = plan.timeouts.total_s
    made.tells_deadline = plan.timeouts.deadline
    made.is_plain = (
        made.retries is None
        and not made.hedges
        and made.per_try_s == inf
        and (total_s is None or not made.tells_deadline)
        and (made.fallback is None or not made.fallback.statuses)
    )
    return made


def _fallback(plan: FallbackPlan, services: Mapping[str, ServiceRuntime]) -> Fallback:
    reply = None
    if plan.respond is not None:
        reply = fixed_reply(plan.respond)
    return Fallback(
        cast("frozenset[str]", plan.reasons) | {"flag"},
        plan.statuses - {101},  # a tunnel that stands is no failure
        reply,
        services[plan.service] if plan.service is not None else None,
    )


def fixed_reply(respond: RespondSpec) -> tuple[ResponseHead, bytes]:
    """The whole answer that a `respond` in the file stands for."""
    return problem.local(
        respond.status,
        respond.body.encode(),
        respond.type.encode("latin-1"),
        tuple(
            (name.lower().encode("ascii"), value.encode("latin-1"))
            for name, value in respond.headers.items()
        ),
    )
