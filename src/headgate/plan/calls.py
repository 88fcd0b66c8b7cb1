"""What a program goes by when it calls a service itself: the file's policies, without a route.

Theory of operation
-------------------
A call from program to program meets no route, so that two levels are left of the three: the service
and the top of the file. What a service says of itself for the gateway (instances, balancing,
breaker, outliers) is taken as the gateway takes it; what the gateway has by route (time-outs,
retries and their budget, hedging, a fallback) is the nearest of the two levels, whole.

`of_config` reads a file's configuration. `unsaid` is what holds for a service that no file speaks
of: the defaults of the policies themselves. There retries are on and breakers are kept by
instance, because nobody has said which service may be asked twice, but a client that knows
nothing else of an instance must be able to leave a broken one alone.

The values here are light: a program that reads no file must not load what reads files.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal, cast

from headgate.plan.plan import InstancePlan, Timeouts
from headgate.plan.traffic import BreakerPlan
from headgate.policy.balancer import BalanceRules, MemberSpec
from headgate.policy.breaker import BreakerRules
from headgate.policy.budget import BudgetRules
from headgate.policy.retry import RetryRules
from headgate.wire.instance_url import parse_instance_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from headgate.config import Config, PoolSpec, RespondSpec, ServiceSpec
    from headgate.plan.levels import Levels
    from headgate.plan.plan import ServicePlan
    from headgate.plan.traffic import FallbackReason, HedgePlan
    from headgate.policy.health import HealthRules
    from headgate.policy.outlier import OutlierRules

__all__ = ["CallFallback", "CallPlan", "CallPool", "CallTls", "instance", "of_config", "unsaid"]

SERVER_ERRORS: Final = frozenset(range(500, 600))
_COUNTED: Final = frozenset({"connect", "timeout", "reset", "protocol", "tls", "dns"})


@dataclass(frozen=True, slots=True)
class CallPool:
    """Connections to each instance, counted for one process."""

    connections: int = 100
    idle: int = 100
    idle_timeout_s: float = 4.0
    """Services in Python close what is idle after 5 s, as a rule; it is for us to be first."""
    queue: int = 1000
    queue_timeout_s: float = 5.0


@dataclass(frozen=True, slots=True)
class CallTls:
    """TLS towards instances whose URL is `https://`."""

    verify: bool = True
    ca_file: str | None = None
    server_name: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    identity: bool = False
    """Both sides show identities of the mesh; it stands for all of the above."""
    peer: str | None = None
    """Whose identity the instances have, if it is not the service's."""


@dataclass(frozen=True, slots=True)
class CallFallback:
    """What takes the place of a failure: exactly one of an answer and a service."""

    reasons: frozenset[FallbackReason]
    statuses: frozenset[int]
    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""
    service: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPlan:
    """One service, as a caller sees it."""

    name: str
    instances: tuple[InstancePlan, ...] = ()
    """What the file names."""
    members: tuple[MemberSpec, ...] = ()
    """One an instance, in the same order; `id` is the instance's URL."""
    is_discovered: bool = True
    """Whether instances may come and go: the registry is asked for them."""
    balance_rules: BalanceRules = field(default_factory=BalanceRules)
    hash_header: bytes | None = None
    """Whose value `consistent_hash` hashes, where a call names no key itself."""
    breaker: BreakerPlan | None = None
    outlier: OutlierRules | None = None
    health: HealthRules | None = None
    """Always None: a client learns from its own calls and from the registry, it does not check."""
    http: Literal["auto", "1.1", "2"] = "auto"
    host: str = "instance"
    """`instance` (the URL's own) or the literal to send."""
    pool: CallPool = field(default_factory=CallPool)
    tls: CallTls = field(default_factory=CallTls)
    timeouts: Timeouts
    retry: RetryRules | None = None
    """None: nothing is tried again, except what was never sent."""
    budget: BudgetRules | None = None
    hedge: HedgePlan | None = None
    fallback: CallFallback | None = None

    def with_instances(self, instances: Sequence[InstancePlan]) -> CallPlan:
        """The same with these, however they were found."""
        return replace(
            self,
            instances=tuple(instances),
            members=tuple(
                MemberSpec(each.url, each.weight, each.priority, each.zone) for each in instances
            ),
        )

    def static(self) -> CallPlan:
        """The same, asked of nobody but the file."""
        return replace(self, is_discovered=False)


def instance(url: str, weight: int = 1, priority: int = 0, zone: str = "") -> InstancePlan:
    """An instance that no file names. Raises ValueError with a rule that follows the URL."""
    return InstancePlan(url, weight, parse_instance_url(url), priority, zone)


def unsaid(name: str, urls: Iterable[str] = (), *, zone: str = "") -> CallPlan:
    """A service that no file speaks of."""
    plan = CallPlan(
        name=name,
        balance_rules=BalanceRules(zone=zone),
        breaker=BreakerPlan(BreakerRules(), "instance", SERVER_ERRORS, _COUNTED),
        timeouts=Timeouts(5.0, 30.0, 60.0, 3600.0, None),
        retry=RetryRules(),
        budget=BudgetRules(),
    )
    found = [instance(url) for url in urls]
    return plan.with_instances(found).static() if found else plan


def of_config(config: Config) -> Mapping[str, CallPlan]:
    """Every service of a file, by name."""
    from headgate.plan.levels import Places
    from headgate.plan.policies import service_plan

    places = Places(config)
    return {
        name: _call_plan(
            service_plan(name, spec, config, places.of_service(name)),
            spec,
            places.of_service(name),
        )
        for name, spec in config.services.items()
    }


def _call_plan(service: ServicePlan, spec: ServiceSpec, levels: Levels) -> CallPlan:
    from headgate.config import BudgetSpec, FallbackSpec, HedgeSpec, RetrySpec, TimeoutSpec
    from headgate.plan.traffic import HedgePlan

    timeout = cast("TimeoutSpec", levels.nearest("timeout", TimeoutSpec()).value)
    retry = cast("RetrySpec | None", levels.nearest("retry").value or None)
    hedge = cast("HedgeSpec | None", levels.nearest("hedge").value or None)
    fallback = cast("FallbackSpec | None", levels.nearest("fallback").value or None)
    budget: BudgetRules | None = None
    if retry is not None:
        budget = retry.budget.rules() if retry.budget else None
    elif hedge is not None:
        budget = BudgetSpec().rules()
    key = service.hash_key
    tls = spec.tls  # the service's plan has the gateway's own identity in its place
    return CallPlan(
        name=service.name,
        instances=service.instances,
        members=service.members,
        is_discovered=service.discover is not None,
        balance_rules=service.balance_rules,
        hash_header=key.name.encode() if key is not None and key.kind == "header" else None,
        breaker=service.breaker,
        outlier=service.outlier,
        http=service.http,
        # `preserve` keeps the name that a client asked for, and here nobody has asked for one.
        host="instance" if service.host == "preserve" else service.host,
        pool=_pool(spec.pool),
        tls=CallTls(
            tls.verify,
            tls.ca_file,
            tls.server_name,
            tls.cert_file,
            tls.key_file,
            tls.identity == "mesh",
            tls.peer,
        ),
        timeouts=Timeouts(
            timeout.connect,
            timeout.first_byte,
            timeout.idle,
            timeout.tunnel,
            timeout.total,
            timeout.per_try,
            timeout.deadline,
        ),
        retry=retry.rules(timeout.per_try) if retry is not None else None,
        budget=budget,
        hedge=HedgePlan(hedge.rules(), frozenset(hedge.methods)) if hedge is not None else None,
        fallback=_fallback(fallback) if fallback is not None else None,
    )


def _pool(spec: PoolSpec) -> CallPool:
    """What the file says; its defaults are a gateway's, and a process has others."""
    said = spec.model_fields_set
    pool = CallPool(queue_timeout_s=spec.queue_timeout)
    if "idle_timeout" in said:
        pool = replace(pool, idle_timeout_s=spec.idle_timeout)
    for name in ("connections", "idle", "queue"):
        if name in said:
            pool = replace(pool, **{name: getattr(spec, name)})
    return pool


def _fallback(spec: object) -> CallFallback:
    from headgate.config import FallbackSpec
    from headgate.plan.policies import fallback_of

    plan = fallback_of(cast("FallbackSpec", spec))
    answer: RespondSpec | None = plan.respond
    if answer is None:
        return CallFallback(plan.reasons, plan.statuses, service=plan.service)
    headers = [(b"content-type", answer.type.encode("latin-1"))]
    headers += [
        (name.lower().encode("latin-1"), value.encode("latin-1"))
        for name, value in answer.headers.items()
    ]
    return CallFallback(
        plan.reasons, plan.statuses, answer.status, tuple(headers), answer.body.encode()
    )
