"""From what the file says of traffic to what the gateway goes by: see `traffic` for the values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from headgate.config.balancing import AffinitySpec, BalanceSpec
from headgate.config.http import StatusRange, statuses_of
from headgate.config.keys import KeySpec
from headgate.config.limiting import limit_names
from headgate.config.mesh import upstream_tls
from headgate.config.policies import TimeoutSpec
from headgate.config.retrying import BudgetSpec
from headgate.plan.plan import DiscoverPlan, DnsPlan, InstancePlan, ServicePlan
from headgate.plan.traffic import (
    AffinityPlan,
    BreakerPlan,
    ConcurrencyPlan,
    DegradeTrigger,
    FallbackPlan,
    HedgePlan,
    LimitPlan,
    MirrorPlan,
    Pin,
    PriorityPlan,
    SplitPlan,
)
from headgate.policy.balancer import MemberSpec
from headgate.policy.split import SplitRules

if TYPE_CHECKING:
    from headgate.config import (
        BreakerSpec,
        ConcurrencySpec,
        Config,
        DiscoverSpec,
        FallbackSpec,
        HealthSpec,
        HedgeSpec,
        ImportanceSpec,
        LimitSpec,
        MirrorSpec,
        OutlierSpec,
        RetrySpec,
        RouteSpec,
        ServiceSpec,
    )
    from headgate.plan.levels import Levels
    from headgate.plan.traffic import FallbackReason
    from headgate.policy.budget import BudgetRules
    from headgate.policy.retry import RetryRules

VISITOR_COOKIE: Final = b"headgate-visitor"


def service_plan(name: str, spec: ServiceSpec, config: Config, levels: Levels) -> ServicePlan:
    """A service with the policies that are its own."""
    timeout = spec.timeout or config.timeout or TimeoutSpec()
    balance = cast("BalanceSpec", levels.nearest("balance", BalanceSpec(by="round_robin")).value)
    rules = balance.rules(config.zone)
    affinity = cast("AffinitySpec | None", levels.nearest("affinity").value or None)
    health = cast("HealthSpec | None", levels.nearest("health").value or None)
    outlier = cast("OutlierSpec | None", levels.nearest("outlier").value or None)
    breaker = cast("BreakerSpec | None", levels.nearest("breaker").value or None)
    return ServicePlan(
        name,
        tuple(
            InstancePlan(i.url, i.weight, i.endpoint, i.priority, i.zone) for i in spec.instances
        ),
        rules.by,
        spec.http,
        spec.host,
        spec.pool,
        upstream_tls(config, name),
        timeout.connect,
        balance_rules=rules,
        members=tuple(MemberSpec(i.url, i.weight, i.priority, i.zone) for i in spec.instances),
        hash_key=(balance.key or KeySpec("ip")) if rules.by == "consistent_hash" else None,
        affinity=_affinity(affinity) if affinity is not None else None,
        health=health.rules() if health is not None else None,
        outlier=outlier.rules() if outlier is not None else None,
        breaker=_breaker(breaker) if breaker is not None else None,
        policies=tuple(levels.lines),
        discover=_discover(spec.discover) if spec.discover is not None else None,
    )


def _discover(spec: DiscoverSpec) -> DiscoverPlan:
    dns = spec.dns
    return DiscoverPlan(
        spec.registry,
        DnsPlan(dns.name, dns.kind, dns.port, dns.scheme, dns.every, spec.zone) if dns else None,
        spec.directory,
    )


def _affinity(spec: AffinitySpec) -> AffinityPlan:
    same_site = spec.same_site.capitalize()
    attributes = f"; Path={spec.path}; HttpOnly; SameSite={same_site}"
    if spec.same_site == "none":
        attributes += "; Secure"  # browsers drop the cookie without it
    return AffinityPlan(spec.cookie.encode(), spec.ttl, spec.secret, attributes.encode())


def _breaker(spec: BreakerSpec) -> BreakerPlan:
    return BreakerPlan(
        spec.rules(),
        spec.per,
        statuses_of(spec.failures.status),
        frozenset(spec.failures.errors),
    )


def traffic_of(spec: RouteSpec, levels: Levels, per_try_s: float | None) -> dict[str, Any]:
    """The fields of a route's plan that are about traffic, by name."""
    retry, budget, budget_id = _retry(spec, levels, per_try_s)
    hedge = cast("HedgeSpec | None", levels.nearest("hedge").value or None)
    if hedge is not None and budget is None and retry is None:
        budget = BudgetSpec().rules()
    importance = cast("ImportanceSpec | None", levels.nearest("importance").value)
    fallback = cast("FallbackSpec | None", levels.nearest("fallback").value or None)
    split = _split(spec)
    for policy in ("mirror", "fault", "flag"):
        value = getattr(spec, policy)
        if value is not None:
            levels.note(policy, value, "route")
    return {
        "split": split,
        "retry": retry,
        "budget": budget,
        "budget_id": budget_id if budget is not None else "",
        "limits": _limits(spec, levels),
        "concurrency": _concurrency(spec, levels),
        "priority": _priority(importance),
        "hedge": HedgePlan(hedge.rules(), frozenset(hedge.methods)) if hedge else None,
        "fallback": fallback_of(fallback) if fallback is not None else None,
        "fault": spec.fault.rules() if spec.fault is not None else None,
        "mirror": _mirror(spec.mirror) if spec.mirror is not None else None,
        "flag": spec.flag,
    }


def _service_owner(spec: RouteSpec, owner: str) -> str:
    """Who keeps the state of a policy: what stands at the top holds for each service by itself."""
    service = next(iter(_parts(spec)), None)
    if owner != "global":
        return owner
    return f"service/{service}" if service is not None else f"route/{spec.name}"


def _retry(
    spec: RouteSpec, levels: Levels, per_try_s: float | None
) -> tuple[RetryRules | None, BudgetRules | None, str]:
    said = levels.nearest("retry")
    retry = cast("RetrySpec | None", said.value or None)
    owner = _service_owner(spec, said.owner)
    if retry is None:
        # Of a hedge, then: apart, as routes of the same service may retry under other rules.
        return None, None, _service_owner(spec, "global") + "/hedge"
    budget = retry.budget.rules() if retry.budget else None
    return retry.rules(per_try_s), budget, owner


def _limits(spec: RouteSpec, levels: Levels) -> tuple[LimitPlan, ...]:
    said = levels.nearest("limit")
    limits = cast("tuple[LimitSpec, ...]", said.value or ())
    names = limit_names(limits)
    return tuple(
        _limit(limit, name, _scope(spec, limit, said.owner))
        for limit, name in zip(limits, names, strict=True)
    )


def _scope(spec: RouteSpec, limit: LimitSpec, owner: str) -> str:
    service = next(iter(_parts(spec)), None)
    match limit.scope:
        case "route":
            return f"route/{spec.name}"
        case "service" if service is not None:
            return f"service/{service}"
        case "global":
            return "global"
        case _:
            return owner


def _limit(spec: LimitSpec, name: str, scope: str) -> LimitPlan:
    header = spec.cost.header
    return LimitPlan(
        id=f"{scope}/{name}",
        name=name,
        rules=spec.rules(),
        keys=spec.by,
        ipv6_prefix=spec.ipv6_prefix,
        tiers={tier: spec.rules(rate) for tier, rate in spec.tiers.items()},
        cost=spec.cost.units,
        cost_header=header.lower().encode() if header is not None else None,
        refund=statuses_of(spec.refund.status) if spec.refund is not None else frozenset(),
        shadow=spec.shadow,
        when_away=spec.when_away,
        share=spec.share,
        headers=spec.headers,
        status=spec.status,
    )


def _concurrency(spec: RouteSpec, levels: Levels) -> ConcurrencyPlan | None:
    said = levels.nearest("concurrency")
    concurrency = cast("ConcurrencySpec | None", said.value or None)
    if concurrency is None:
        return None
    owner = _service_owner(spec, said.owner)
    return ConcurrencyPlan(owner, concurrency.rules(), concurrency.adaptive_rules())


def _priority(spec: ImportanceSpec | None) -> PriorityPlan:
    if spec is None:
        return PriorityPlan()
    header = spec.header
    return PriorityPlan(spec.default, header.lower().encode() if header is not None else None)


def fallback_of(spec: FallbackSpec) -> FallbackPlan:
    reasons: set[FallbackReason] = {each for each in spec.when if not isinstance(each, StatusRange)}
    statuses = statuses_of(each for each in spec.when if isinstance(each, StatusRange))
    return FallbackPlan(frozenset(reasons), statuses, spec.respond, spec.service)


def _mirror(spec: MirrorSpec) -> MirrorPlan:
    return MirrorPlan(spec.to, spec.share, spec.queue, spec.body)


def _parts(spec: RouteSpec) -> dict[str, float]:
    if spec.to is None:
        return {}
    if isinstance(spec.to, str):
        return {spec.to: 1.0}
    return {name: part.weight for name, part in spec.to.items()}


def _split(spec: RouteSpec) -> SplitPlan | None:
    split = spec.split
    if spec.to is None or (isinstance(spec.to, str) and split is None):
        return None
    sticky = split.sticky if split is not None else None
    salt = f"route/{spec.name}"
    return SplitPlan(
        salt,
        SplitRules(parts=tuple(_parts(spec).items()), salt=salt),
        sticky if isinstance(sticky, KeySpec) else None,
        VISITOR_COOKIE if sticky == "cookie" else None,
        tuple(_pins(spec)),
    )


def _pins(spec: RouteSpec) -> list[Pin]:
    if spec.split is None:
        return []
    pins = [
        Pin("header", name.lower(), value, service)
        for name, values in spec.split.header.items()
        for value, service in values.items()
    ]
    pins += [
        Pin("cookie", name, value, service)
        for name, values in spec.split.cookie.items()
        for value, service in values.items()
    ]
    return pins


def degrade_triggers(config: Config) -> tuple[DegradeTrigger, ...]:
    """What brings levels of degradation about by itself."""
    found: list[DegradeTrigger] = []
    for at, level in enumerate(config.degrade.levels):
        found += [DegradeTrigger(at, service) for service in level.when.open]
        if level.when.shedding:
            found.append(DegradeTrigger(at, None))
    return tuple(found)
