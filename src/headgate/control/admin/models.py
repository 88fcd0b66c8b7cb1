"""What the admin API answers with. These models are its documentation."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

__all__ = [
    "Accepted",
    "BreakerMove",
    "BreakerOrder",
    "BreakerState",
    "Config",
    "ExplainRequest",
    "Fault",
    "FlagOrder",
    "GatewayStats",
    "Health",
    "InstanceFigures",
    "InstanceOrder",
    "InstanceState",
    "LatencyFigures",
    "LevelOrder",
    "LimitState",
    "MetricsSummary",
    "RouteFigures",
    "ServiceFigures",
    "ServiceState",
    "SplitOrder",
    "Upgraded",
    "WorkerFigures",
    "WorkerState",
]


class Answer(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)


class Fault(Answer):
    file: str = ""
    line: int = 0
    column: int = 0
    where: str = ""
    """Path in the document, as in `routes[3].to`."""
    message: str
    hint: str = ""


class Reload(Answer):
    ok: bool
    generation: int
    """The configuration that serves now; of a refused reload, the one from before it."""
    workers: int = 0
    """Workers that are ready."""
    took_ms: float = 0.0
    reason: str = ""
    """Who asked for it."""
    at: float = 0.0
    """When, in seconds since 1970."""
    faults: list[Fault] = []
    warnings: list[Fault] = []


class WorkerState(Answer):
    index: int
    pid: int | None
    """None while a worker waits to be started again."""
    state: Literal["starting", "ready", "waiting", "leaving"]
    """`leaving`: it finishes its connections and ends; its successor has taken over."""
    generation: int
    """The configuration it serves."""
    age_s: float
    crashes: int = 0
    """Since the start of the supervisor."""
    crashes_last_minute: int = 0
    is_looping: bool = False
    """It keeps crashing and is started ever more seldom, up to every 30 s."""
    next_start_s: float = 0.0
    deadline_s: float | None = None
    """Of a leaving one: when it is cut off."""
    last_end: str = ""
    faults: list[Fault] = []
    """Why it could not start."""
    silent_s: float | None = None
    """For how long it has not answered; None if it answers."""


class Health(Answer):
    status: Literal["ok", "degraded", "down"]
    """`down` (status 503) when nothing serves or the gateway drains."""
    reasons: list[str]
    version: str
    generation: int
    workers_ready: int
    workers_wanted: int
    uptime_s: float
    last_reload: Reload | None = None
    incarnation: int = 0
    """How many times the supervisor was upgraded in place."""


class LatencyFigures(Answer):
    """Estimated from buckets about 12 % wide; None without a sample."""

    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    mean_ms: float | None


class RouteFigures(Answer):
    route: str
    service: str
    """Empty for a route that Headgate answers itself."""
    requests: int
    requests_per_s: float
    """Over the last half minute."""
    statuses: dict[str, int]
    """Answers by status."""
    client_errors: int
    server_errors: int
    bytes_in: int
    bytes_out: int
    latency: LatencyFigures
    """From the first byte of a request to the last of its answer."""
    upstream: LatencyFigures
    """Of that, the part that the service took."""


class ServiceFigures(Answer):
    service: str
    requests: int
    requests_per_s: float
    client_errors: int
    server_errors: int
    latency: LatencyFigures
    upstream: LatencyFigures


class InstanceFigures(Answer):
    service: str
    instance: str
    active: int
    """Connections with a request on them."""
    idle: int
    queued: int
    """Requests that wait for a connection."""
    created: int
    reused: int
    failures: dict[str, int]
    retries: int
    attempts: int = 0
    """That have ended, where there is a choice of instances or a policy that learns from them."""
    mean_ms: float | None = None
    """How long they took on average, since the start. The history has it over any time:
    `headgate_upstream_attempt_seconds_total` by `headgate_upstream_attempts_total`."""


class WorkerFigures(Answer):
    index: int
    pid: int
    requests: int
    in_flight: int
    connections: int
    cpu_s: float
    memory_bytes: int
    snapshot_age_s: float
    """How old these figures are: a worker that is too busy to answer shows its last ones."""


class GatewayStats(Answer):
    generation: int
    requests: int
    requests_per_s: float
    in_flight: int
    connections: int
    routes: list[RouteFigures]
    services: list[ServiceFigures]
    instances: list[InstanceFigures]
    workers: list[WorkerFigures]
    listeners: dict[str, str]
    """Each listener's bind and where it really is."""


class MetricsSummary(Answer):
    requests: int
    requests_per_s: float
    client_errors: int
    server_errors: int
    error_rate: float
    """Share of answers with a status of 500 or more."""
    bytes_in: int
    bytes_out: int
    latency: LatencyFigures
    upstream: LatencyFigures


class Config(Answer):
    generation: int
    file: str
    loaded_at: float
    files: list[str]
    document: dict[str, Any]
    """As it was read; what came from a reference is shown as that reference, other secrets as
    `***`."""


class Accepted(Answer):
    message: str


class Upgraded(Answer):
    workers: int
    incarnation: int
    """The supervisor's number once it has restarted itself, a moment after this answer."""


class ExplainRequest(Answer):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    method: str = "GET"
    url: str
    """Absolute, or a path."""
    headers: list[tuple[str, str]] | dict[str, str] = []
    client_ip: str = "127.0.0.1"
    listener: str = ""
    """The listener it comes to. By default the first that speaks the URL's scheme."""


class InstanceState(Answer):
    url: str
    weight: int
    priority: int
    """0 serves first; higher ones are backups."""
    zone: str
    in_flight: int
    """Requests under way there, of all workers."""
    workers_out: int
    """How many workers do not send requests there."""
    why_out: str | None
    """Why not, in the words of one of them."""
    health: str | None
    """What health checks say, if there are any."""
    source: Literal["file", "self", "dns", "directory"] = "file"
    """Who named it; `self` has registered."""
    id: str = ""
    """Its id in the registry."""
    version: str = ""
    listed: Literal["up", "draining", "suspect"] = "up"
    """How it stands in the registry: `draining` has signed off, `suspect` is not heard any more,
    and neither are most others."""
    says: Literal["up", "degraded", "down"] = "up"
    """How it says that it does, if it registered."""
    since: float | None = None
    """When the registry came to know it, in seconds since 1970."""


class InstanceOrder(Answer):
    service: str
    instance: str
    """Its URL, as in the file."""
    out: bool = True
    """False puts it back."""
    why: str = "taken out by hand"


class BreakerMove(Answer):
    before: str
    after: str
    why: str


class BreakerState(Answer):
    name: str
    """The service, and after a space the instance if each has its own."""
    state: str
    failure_rate: float
    """-1 while too few calls say anything."""
    slow_rate: float
    calls: int
    rejected_total: int
    retry_after_s: float
    history: list[BreakerMove]
    failed: int = 0
    """Of the calls in the windows of all workers."""
    slow: int = 0
    trials: int = 0
    """Under way, while half-open."""
    states: dict[str, str] = {}
    """Worker by worker."""
    orders: list[str] = []
    """Ids of the orders about it."""


class BreakerOrder(Answer):
    name: str
    do: Literal["open", "close", "disable", "metrics_only", "automatic", "reset"]
    """`automatic` gives it back to its rules; `reset` does too, and forgets what was counted."""
    why: str = "by hand"
    hold: str | None = None
    """How long this holds, such as `1h`; until it is taken back if not said."""


class ServiceState(Answer):
    name: str
    balance: str
    instances: list[InstanceState]
    instances_out: int = 0
    """To which some worker sends nothing."""
    is_checked: bool = False
    """By active health checks."""
    breakers: list[BreakerState] = []
    policies: list[str] = []
    """With the level each comes from."""
    connections_max: int = 0
    """To one instance, of one worker."""
    figures: ServiceFigures | None = None
    orders: list[str] = []
    """Ids of the orders about it or its instances."""


class LimitState(Answer):
    id: str
    """Where it stands in the file; `@tier` after it for a tier's own."""
    allowed: int
    refused: int
    shadowed: int
    """Would have been refused, were it not in shadow mode."""
    keys: int
    home: Literal["worker", "shared"]


class Revocation(Answer):
    kind: Literal["jti", "sub", "sid"]
    value: str
    issuer: str = ""
    before: float | None
    """Tokens that were issued before this time; null means whenever."""
    until: float
    """When the revocation is over, because what it means has expired by then."""


class RevocationOrder(Answer):
    kind: Literal["jti", "sub", "sid"]
    """A token by its id, everything of a user, or everything of a session."""
    value: str
    issuer: str = ""
    """Only tokens of this issuer; of every one if not said."""
    last: str = "1d"
    """As long as your longest-lived token, such as `12h`."""


class SplitOrder(Answer):
    route: str
    source: str
    target: str
    share: float = 1.0
    """Of the source's traffic, 0 to 1."""
    over: str = "0s"
    """How long it takes to get there, such as `10min`."""


class FlagOrder(Answer):
    name: str
    share: float | None
    """1 on, 0 off, between on for a share of clients; null gives it back to the file."""
    hold: str | None = None
    """How long this holds, such as `1h`; for ever if not said."""
    why: str = "by hand"


class LevelOrder(Answer):
    level: int | None
    """0 is normal; null leaves it to breakers and load."""
    hold: str | None = None
    why: str = "by hand"
