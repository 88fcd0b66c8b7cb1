"""What a request reads: names resolved, regexes and templates compiled, defaults settled.

Frozen, and free of everything that runs: pools, counters and sockets are the gateway's and are
found by the stable keys in here, so that a reload can take them over.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from headgate.plan.traffic import PriorityPlan
from headgate.units import format_percent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from headgate.config import (
        CompressSpec,
        Config,
        Endpoint,
        HeadersSpec,
        ListenerSpec,
        PluginSpec,
        PoolSpec,
        RedirectSpec,
        RespondSpec,
        UpstreamTlsSpec,
    )
    from headgate.config.keys import KeySpec
    from headgate.plan.caching import CachePlan, StorePlan
    from headgate.plan.explain import Origin
    from headgate.plan.guards import AuthPlan, GuardPlan
    from headgate.plan.router import Router
    from headgate.plan.traffic import (
        AffinityPlan,
        BreakerPlan,
        ConcurrencyPlan,
        DegradeTrigger,
        FallbackPlan,
        HedgePlan,
        LimitPlan,
        MirrorPlan,
        SplitPlan,
    )
    from headgate.policy.balancer import BalanceRules, MemberSpec
    from headgate.policy.budget import BudgetRules
    from headgate.policy.degrade import DegradeRules
    from headgate.policy.fault import FaultRules
    from headgate.policy.health import HealthRules
    from headgate.policy.outlier import OutlierRules
    from headgate.policy.retry import RetryRules
    from headgate.policy.shed import ShedRules
    from headgate.wire.following import FollowedTls


@dataclass(frozen=True, slots=True)
class InstancePlan:
    url: str
    weight: int
    endpoint: Endpoint
    priority: int = 0
    zone: str = ""


@dataclass(frozen=True, slots=True)
class DnsPlan:
    """Instances by a name in DNS."""

    name: str
    type: Literal["A", "AAAA", "SRV"] | None
    """None: both `A` and `AAAA`."""
    port: int | None
    scheme: Literal["http", "https"] = "http"
    every_s: float | None = None
    """None: when the answer's TTL is over."""
    zone: str = ""


@dataclass(frozen=True, slots=True)
class DiscoverPlan:
    """Where instances are found that the file does not name. What is found does not stand in the
    plan: control tells it on the topic `members`.
    """

    registry: bool = False
    dns: DnsPlan | None = None
    directory: str | None = None


@dataclass(frozen=True, slots=True)
class ServicePlan:
    name: str
    instances: tuple[InstancePlan, ...]
    balance: str
    """The name of the algorithm, as in `balance_rules`."""
    http: Literal["auto", "1.1", "2"]
    host: str
    """`preserve`, `instance` or the literal to send."""
    pool: PoolSpec
    tls: UpstreamTlsSpec | FollowedTls
    connect_timeout_s: float
    balance_rules: BalanceRules
    members: tuple[MemberSpec, ...]
    """One an instance, in the same order; `id` is the instance's URL."""
    hash_key: KeySpec | None
    """What `consistent_hash` hashes; None for the other algorithms."""
    affinity: AffinityPlan | None
    health: HealthRules | None
    outlier: OutlierRules | None
    breaker: BreakerPlan | None
    policies: tuple[tuple[str, str, Origin], ...] = ()
    """Policies of the service as a whole, in short, with the level each comes from."""
    discover: DiscoverPlan | None = None
    """With it, `instances` may be empty, and there may be more than stand in it."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    connect_s: float
    first_byte_s: float
    idle_s: float
    tunnel_s: float
    total_s: float | None
    per_try_s: float | None = None
    deadline: bool = True
    """Tell the service how much time is left, where a limit is known."""


@dataclass(frozen=True, slots=True)
class RoutePlan:
    index: int
    name: str
    service: str | None
    """The service that answers; with a `split` the first one named."""
    redirect: RedirectSpec | None
    respond: RespondSpec | None
    host: str | None
    change_path: Callable[[str, Mapping[str, str]], str] | None
    upgrades: frozenset[str]
    timeouts: Timeouts
    body_limit: int
    headers: HeadersSpec | None
    compress: CompressSpec | None
    plugins: tuple[PluginSpec, ...]
    plugins_where: str
    headers_where: str
    """Where `plugins` stands in the document, for faults found when they are loaded."""
    policies: tuple[tuple[str, str, Origin], ...]
    """Each policy with what it says in short and the level it comes from."""
    split: SplitPlan | None = None
    retry: RetryRules | None = None
    """None: nothing is tried again, except what was never sent."""
    budget: BudgetRules | None = None
    budget_id: str = ""
    """Whose budget: routes of one service share one unless a route says `retry` itself."""
    limits: tuple[LimitPlan, ...] = ()
    concurrency: ConcurrencyPlan | None = None
    priority: PriorityPlan = field(default_factory=PriorityPlan)
    hedge: HedgePlan | None = None
    fallback: FallbackPlan | None = None
    fault: FaultRules | None = None
    mirror: MirrorPlan | None = None
    flag: str | None = None
    """While this flag is off, the route answers with its fallback."""
    auth: AuthPlan | None = None
    """None: nobody is asked who they are."""
    is_unsaid: bool = False
    """Nobody has said who is let in, and the file wants that said."""
    guards: tuple[GuardPlan, ...] = ()
    cache: CachePlan | None = None
    """None: responses are not kept, and none are forgotten."""

    @property
    def is_guarded(self) -> bool:
        """Whether there is anything to say about who is let in."""
        return self.auth is not None or self.is_unsaid or bool(self.guards)

    @property
    def services(self) -> tuple[str, ...]:
        """Every service that may answer, the first one first; "" when none does."""
        named = dict.fromkeys([self.service or ""])
        if self.split is not None:
            named.update(dict.fromkeys(name for name, _ in self.split.rules.parts))
            named.update(dict.fromkeys(pin.service for pin in self.split.pins))
        if self.fallback is not None and self.fallback.service is not None:
            named[self.fallback.service] = None
        return tuple(named)

    @property
    def target(self) -> str:
        """In words, what the route does."""
        if self.split is not None:
            parts = self.split.rules.parts
            whole = sum(weight for _, weight in parts)
            shares = ", ".join(f"{name} {format_percent(round(w / whole, 4))}" for name, w in parts)
            return f"services {shares}"
        if self.service is not None:
            return f"service {self.service}"
        if self.redirect is not None:
            return f"redirect {self.redirect.status} to {self.redirect.to}"
        return f"answer {self.respond.status if self.respond else 404}"


@dataclass(frozen=True, slots=True)
class Plan:
    config: Config
    routes: tuple[RoutePlan, ...]
    services: Mapping[str, ServicePlan]
    listeners: tuple[ListenerSpec, ...]
    router: Router
    state: str = "memory"
    """Home of shared state: `memory` or a URL, which may hold a password."""
    zone: str = ""
    shed: ShedRules | None = None
    degrade: DegradeRules | None = None
    degrade_when: tuple[DegradeTrigger, ...] = ()
    """What brings levels of `degrade` about by itself."""
    cache_store: StorePlan | None = None
    """Where responses are kept; None: no route keeps any."""
