"""What traffic policies know and a reload must not forget, in one worker.

Theory of operation
-------------------
Every piece of state stands under the stable id that the plan gives it. `take` brings it in line
with a plan: what is still named goes on under its new rules, what is new is made, what is not
named any more is dropped once the plan that named it is gone. What others tell of it comes through
`news`.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from headgate.gateway.keys import compile_key
from headgate.gateway.limits import Limiting, LimitRule, LimitState
from headgate.gateway.news import News
from headgate.gateway.service import ServiceRuntime, ServiceState
from headgate.gateway.steps import (
    Gate,
    Step,
    degrading,
    faulting,
    flagged,
    shedding,
    splitting,
)
from headgate.gateway.traffic import RouteTraffic, TrafficStats, compile_traffic
from headgate.policy.adaptive import AdaptiveLimit
from headgate.policy.balancer import hash_key
from headgate.policy.budget import RetryBudget
from headgate.policy.bulkhead import Bulkhead
from headgate.policy.degrade import Degrade, DegradeRules
from headgate.policy.limiter.lease import LeaseRules
from headgate.policy.shed import Shedder
from headgate.policy.split import Split

if TYPE_CHECKING:
    from headgate.gateway.attempts import AttemptedExchange
    from headgate.plan.plan import Plan, RoutePlan, ServicePlan
    from headgate.plan.traffic import ConcurrencyPlan, DegradeTrigger, LimitPlan
    from headgate.policy.hedge import HedgeRules
    from headgate.state.home import Board, LimitHome


class States:
    def __init__(
        self,
        rng: random.Random,
        home: Callable[[], LimitHome | None],
        board: Callable[[], Board | None],
    ) -> None:
        self.rng = rng
        self.news = News(self, board)
        self._home = home
        self.services: dict[str, ServiceState] = {}
        self.budgets: dict[str, RetryBudget] = {}
        self.limits: dict[str, LimitState] = {}
        self.gates: dict[str, Gate] = {}
        self._old_gates: list[Gate] = []
        self.splits: dict[str, Split] = {}
        self.stats: dict[str, TrafficStats] = {}
        self.shedder: Shedder | None = None
        self.degrade: Degrade | None = None
        self._triggers: tuple[DegradeTrigger, ...] = ()
        self._swept = 0

    # -- a plan --------------------------------------------------------------------------------

    def take_services(self, plan: Plan, now: float) -> None:
        """First half: what services know, before anything points at it."""
        services: dict[str, ServiceState] = {}
        for name, service in plan.services.items():
            known = self.services.get(name)
            if known is None:
                known = ServiceState(service, now, self.rng)
                known.on_breaker = self.news.breaker_changed
                known.on_ejected = self.news.ejected
                known.on_restored = self.news.restored
            else:
                known.take(service, now)
            services[name] = known
        self.services = services
        hedging: dict[str, dict[HedgeRules, None]] = {}
        for route in plan.routes:
            if route.hedge is not None:
                for name in route.services:
                    hedging.setdefault(name, {})[route.hedge.rules] = None
        for name, known in services.items():
            known.take_hedging(hedging.get(name, ()), now)
        self._take_worker(plan, now)

    def _take_worker(self, plan: Plan, now: float) -> None:
        if plan.shed is None:
            self.shedder = None
        elif self.shedder is None:
            self.shedder = Shedder(plan.shed, now)
        else:
            self.shedder.take_rules(plan.shed, now)
        rules = plan.degrade
        if rules is None and any(route.flag for route in plan.routes):
            rules = DegradeRules()
        if rules is None:
            self.degrade = None
        elif self.degrade is None:
            self.degrade = Degrade(rules, now)
        else:
            self.degrade.take_rules(rules, now)
        self._triggers = plan.degrade_when

    def _set_levels(self, now: float) -> None:
        """Levels of degradation follow what brings them about."""
        degrade = self.degrade
        if degrade is None:
            return
        # One cause may stand for several levels; then the worst is meant.
        wanted: dict[str, tuple[int, str]] = {}
        for trigger in self._triggers:
            if trigger.service is None:
                source, why = "load", "the worker turns requests away"
                is_given = self.shedder is not None and self.shedder.is_shedding
            else:
                source = f"breaker:{trigger.service}"
                why = f"the breaker of {trigger.service} is open"
                service = self.services.get(trigger.service)
                is_given = service is not None and service.is_broken_at(now)
            level = trigger.level if is_given else 0
            wanted[source] = max(wanted.get(source, (0, why)), (level, why))
        for source, (level, why) in wanted.items():
            if level:
                degrade.set(source, level, now, why)
            else:
                degrade.clear(source, now)

    def take_routes(
        self,
        plan: Plan,
        services: Mapping[str, ServiceRuntime],
        now: float,
        entries: Sequence[Sequence[Step]] = (),
    ) -> list[RouteTraffic]:
        """Second half: each route's policies, with the state behind them.

        `entries`: for each route the steps that stand before all others.
        """
        named: dict[str, dict[str, Any]] = {"budgets": {}, "limits": {}, "gates": {}, "splits": {}}
        made = [
            self._route(route, services, named, now, entries[at] if entries else ())
            for at, route in enumerate(plan.routes)
        ]
        self.budgets = named["budgets"]
        self.limits = named["limits"]
        kept = list(named["gates"].values())
        # Who stands in a line that the plan has no more is still owed an end of the wait.
        self._old_gates = [
            gate
            for gate in (*self._old_gates, *self.gates.values())
            if gate not in kept and gate.bulkhead.waiting
        ]
        self.gates = named["gates"]
        self.splits = named["splits"]
        self.stats = {route.name: self.stats[route.name] for route in plan.routes}
        self.news.tell_again()
        return made

    def _route(
        self,
        route: RoutePlan,
        services: Mapping[str, ServiceRuntime],
        named: dict[str, dict[str, Any]],
        now: float,
        entry: Sequence[Step],
    ) -> RouteTraffic:
        stats = self.stats.get(route.name)
        if stats is None:
            stats = self.stats[route.name] = TrafficStats()
        before: list[Step] = []
        steps: list[Step] = []
        counting: tuple[Step, ...] = ()
        if self.shedder is not None:
            before.append(shedding(self.shedder))
        if self.degrade is not None:
            steps.append(degrading(self.degrade))
            if route.flag is not None:
                steps.append(flagged(self.degrade, route.flag, self.rng))
        if route.limits:
            rules = [self._limit(limit, named["limits"], now) for limit in route.limits]
            counting = (Limiting(rules).quickest,)
            steps.extend(counting)
        if route.split is not None:
            split = named["splits"].get(route.split.id) or self.splits.get(route.split.id)
            if split is None:
                split = Split(route.split.rules, now)
            else:
                split.take_rules(route.split.rules, now)
            named["splits"][route.split.id] = split
            steps.append(splitting(split, route.split, services, self.rng, _visitor_id))
        late: list[Step] = steps if route.cache is None else []
        if route.fault is not None:
            late.append(faulting(route.fault, self.rng))
        if route.concurrency is not None:
            late.append(self._gate(route.concurrency, named["gates"], now).step)
        budget = self._budget(route, named["budgets"], now)
        made = compile_traffic(
            route,
            services,
            budget,
            stats,
            self.rng,
            tuple(before),
            tuple(entry),
            tuple(steps),
            () if route.cache is None else tuple(late),
        )
        made.counting = counting
        made.shedder = self.shedder
        if self.shedder is not None:
            made.is_plain = False  # it hears of each attempt how long that waited, if at all
        return made

    def _budget(self, route: RoutePlan, named: dict[str, Any], now: float) -> RetryBudget | None:
        if route.budget is None:
            return None
        budget: RetryBudget | None = named.get(route.budget_id)
        if budget is None:
            budget = self.budgets.get(route.budget_id)
            if budget is None:
                budget = RetryBudget(route.budget, now)
            else:
                budget.take_rules(route.budget, now)
            named[route.budget_id] = budget
        return budget

    def _gate(self, plan: ConcurrencyPlan, named: dict[str, Any], now: float) -> Gate:
        gate: Gate | None = named.get(plan.id)
        if gate is not None:
            return gate
        gate = self.gates.get(plan.id)
        if gate is None or gate.adaptive != plan.adaptive:
            adaptive = AdaptiveLimit(plan.adaptive, now) if plan.adaptive is not None else None
            gate = Gate(plan.id, Bulkhead(plan.id, plan.rules, now, adaptive), plan.adaptive)
        else:
            gate.admit(gate.bulkhead.take_rules(plan.rules, now))
        named[plan.id] = gate
        return gate

    def _limit(self, plan: LimitPlan, named: dict[str, Any], now: float) -> LimitRule:
        home = self._home() if plan.share == "shared" else None
        lease = LeaseRules(fail=plan.when_away)

        def state_of(name: str, rules: Any) -> LimitState:
            state: LimitState | None = named.get(name)
            if state is None:
                state = self.limits.get(name)
                if (
                    state is None
                    or state.home is not home
                    or state.rules.algorithm != rules.algorithm
                ):
                    state = LimitState(name, rules, lease, home, now)
                else:
                    state.take_rules(rules, lease, now)
                named[name] = state
            return state

        tiers = {name: state_of(f"{plan.id}@{name}", rules) for name, rules in plan.tiers.items()}
        return LimitRule(plan, state_of(plan.id, plan.rules), tiers)

    # -- time ----------------------------------------------------------------------------------

    def turn(self, now: float) -> None:
        """A few times a second."""
        self.news.turn(now)
        if self._triggers:
            self._set_levels(now)
        for service in self.services.values():
            service.sweep(now)
        for gate in self.gates.values():
            gate.expire(now)
        if self._old_gates:
            for gate in self._old_gates:
                gate.expire(now)
            self._old_gates = [gate for gate in self._old_gates if gate.bulkhead.waiting]
        limits = list(self.limits.values())
        if limits:
            # One limit a turn: a sweep looks at a thousand keys.
            self._swept = (self._swept + 1) % len(limits)
            limits[self._swept].sweep(now)

    # -- for those who ask ---------------------------------------------------------------------

    def asked(self, asked: Mapping[str, Any], now: float) -> dict[str, Any]:
        """What control asks of one limit whose keys are counted here."""
        limit = self.limits.get(str(asked["limit"]))
        if limit is None:
            return {}
        key = asked.get("key")
        if key is None:
            return {"top": limit.top(now, int(asked["most"]))}
        verdict = limit.peek(str(key), now)
        return {} if verdict is None else {"key": asdict(verdict)}


def hashed(key_of: Callable[[AttemptedExchange], str]) -> Callable[[AttemptedExchange], int]:
    return lambda ex: hash_key(key_of(ex).encode("utf-8", "surrogatepass"))


def key_of_service(plan: ServicePlan) -> Callable[[AttemptedExchange], int] | None:
    return hashed(compile_key(plan.hash_key)) if plan.hash_key is not None else None


def _visitor_id() -> str:
    return secrets.token_urlsafe(12)
