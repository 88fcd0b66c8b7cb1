"""What a request reads: names resolved, regexes and templates compiled, defaults settled.

Frozen, and free of everything that runs: pools, counters and sockets are the gateway's and are
found by the stable keys in here, so that a reload can take them over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

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
    from headgate.plan.explain import Origin
    from headgate.plan.router import Router


@dataclass(frozen=True, slots=True)
class InstancePlan:
    url: str
    weight: int
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class ServicePlan:
    name: str
    instances: tuple[InstancePlan, ...]
    balance: str
    http: Literal["auto", "1.1", "2"]
    host: str
    """`preserve`, `instance` or the literal to send."""
    pool: PoolSpec
    tls: UpstreamTlsSpec
    connect_timeout_s: float

    def pool_key(self, instance: InstancePlan) -> tuple[object, ...]:
        """What it takes to reach an instance; equal keys share connections across reloads."""
        return (self.name, instance.url, self.http, self.tls)


@dataclass(frozen=True, slots=True)
class Timeouts:
    connect_s: float
    first_byte_s: float
    idle_s: float
    tunnel_s: float
    total_s: float | None


@dataclass(frozen=True, slots=True)
class RoutePlan:
    index: int
    name: str
    service: str | None
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

    @property
    def target(self) -> str:
        """In words, what the route does."""
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
