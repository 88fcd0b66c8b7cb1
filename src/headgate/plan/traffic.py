"""Traffic policies as a request reads them: rules made, names resolved, state given its key.

The rules themselves are the policies' own (`headgate.policy`); what stands here is what the
gateway must know beside them: which bucket, which statuses count, what to answer.

Every value that has state beyond a request carries an ``id``. It is made of the place where the
policy was said (`global`, `service/users`, `route/NAME`) and of what tells it from its
neighbours there, and of nothing that an operator tunes: a reload that changes a rate finds the
same bucket again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headgate.config import RespondSpec
    from headgate.config.keys import KeySpec
    from headgate.policy.adaptive import AdaptiveRules
    from headgate.policy.breaker import BreakerRules
    from headgate.policy.bulkhead import BulkheadRules
    from headgate.policy.hedge import HedgeRules
    from headgate.policy.limiter import LimitRules
    from headgate.policy.split import SplitRules

Priority = Literal["critical", "high", "normal", "low", "background"]
FallbackReason = Literal["open", "failed", "timeout", "full", "shed"]


@dataclass(frozen=True, slots=True)
class AffinityPlan:
    """A signed cookie that brings a client back to the same instance."""

    cookie: bytes
    ttl_s: float | None
    """None: until the browser is closed."""
    secret: str | None
    """None: the one kept in the state directory."""
    attributes: bytes
    """What follows the value in `Set-Cookie`, from `; Path=` on, without `Max-Age`."""


@dataclass(frozen=True, slots=True)
class BreakerPlan:
    rules: BreakerRules
    per: Literal["service", "instance"]
    statuses: frozenset[int]
    """Statuses of answers that count as failures."""
    errors: frozenset[str]
    """Kinds of ``UpstreamFailure`` that count as failures; the others decide nothing."""


@dataclass(frozen=True, slots=True)
class LimitPlan:
    id: str
    name: str
    """In `RateLimit` headers, logs and metrics."""
    rules: LimitRules
    keys: tuple[KeySpec, ...]
    """Empty: one count for everybody."""
    ipv6_prefix: int
    tiers: Mapping[str, LimitRules]
    """Rules in place of `rules` for consumers of these tiers, each with buckets of its own."""
    cost: int
    cost_header: bytes | None
    """A response header that says what the request did cost; `cost` is charged before."""
    refund: frozenset[int]
    """Statuses of answers whose cost is given back."""
    shadow: bool
    when_away: Literal["local", "open", "closed"]
    share: Literal["worker", "shared"]
    headers: Literal["draft", "classic", "both", "off"]
    status: int


@dataclass(frozen=True, slots=True)
class ConcurrencyPlan:
    id: str
    rules: BulkheadRules
    adaptive: AdaptiveRules | None


@dataclass(frozen=True, slots=True)
class PriorityPlan:
    default: Priority = "normal"
    header: bytes | None = None
    """A request header that names the priority; believed from trusted peers only."""


@dataclass(frozen=True, slots=True)
class HedgePlan:
    rules: HedgeRules
    methods: frozenset[str]


@dataclass(frozen=True, slots=True)
class FallbackPlan:
    """What is answered in place of a failure: exactly one of `respond` and `service`."""

    reasons: frozenset[FallbackReason]
    statuses: frozenset[int]
    """Statuses of the service's own answers that are replaced."""
    respond: RespondSpec | None
    service: str | None


@dataclass(frozen=True, slots=True)
class DegradeTrigger:
    """What brings a level of degradation about."""

    level: int
    service: str | None
    """Whose open breaker; None: a worker that sheds."""


@dataclass(frozen=True, slots=True)
class MirrorPlan:
    service: str
    share: float
    queue: int
    """Copies that may be under way or wait; more are dropped and counted."""
    body_max: int


@dataclass(frozen=True, slots=True)
class Pin:
    """Requests that carry this value go to this service, whatever the weights say."""

    source: Literal["header", "cookie"]
    name: str
    """Of a header in lower case."""
    value: str
    service: str


@dataclass(frozen=True, slots=True)
class SplitPlan:
    id: str
    rules: SplitRules
    """Services by name, with their weights."""
    sticky: KeySpec | None
    """The same key goes to the same service; None with no `cookie`: drawn for each request."""
    cookie: bytes | None
    """A cookie of our own that holds a random visitor number, to be hashed with `id`."""
    pins: tuple[Pin, ...]
