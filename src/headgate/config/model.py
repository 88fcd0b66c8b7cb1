"""The whole file as one frozen value: ``Config``.

The models are the manual: each docstring is printed by ``headgate schema`` and in the
reference, so it is written for the operator. Names, defaults and the short forms that the file
allows are all said here and nowhere else.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, WithJsonSchema

from headgate.config.acme import AcmeSpec
from headgate.config.admin import Admin, AdminSpec
from headgate.config.alerting import Alerts, AlertsSpec
from headgate.config.auditing import Audit, AuditSpec
from headgate.config.authenticating import AuthSpec
from headgate.config.budgets import Capacity, CapacitySpec, SloSpec
from headgate.config.cache_store import CacheStoreSpec
from headgate.config.degrading import DegradeSpec
from headgate.config.faults import did_you_mean
from headgate.config.fields import (
    DURATION_PATTERN,
    FALSE,
    Duration,
    FilePath,
    Flag,
    HeaderName,
    HeaderValue,
    Network,
    PathMark,
    Spec,
    Text,
    Wait,
    Words,
    refuse,
    text_of,
)
from headgate.config.forms import OneOrMore
from headgate.config.guarding import Bans
from headgate.config.history import History, HistorySpec
from headgate.config.listeners import (
    Bind,
    CertificateSpec,
    Http2Spec,
    LimitsSpec,
    Listener,
    ListenerSpec,
    ListenerTlsSpec,
    parse_bind,
)
from headgate.config.logs import LoggingSpec
from headgate.config.mesh import MeshSpec
from headgate.config.monitoring import Monitors
from headgate.config.policies import (
    CompressLevels,
    CompressSpec,
    HeaderEdits,
    HeadersSpec,
    PluginSpec,
    PolicyFields,
    ServicePolicyFields,
    TimeoutSpec,
)
from headgate.config.protecting import Shed
from headgate.config.pushing import MetricsPush
from headgate.config.redacting import Redaction, RedactionSpec
from headgate.config.redis_urls import redis_url_fault
from headgate.config.registry import Registry, RegistrySpec
from headgate.config.routes import (
    MatchSpec,
    RedirectSpec,
    RewriteSpec,
    RouteSpec,
    ValueMatchSpec,
    default_name,
)
from headgate.config.services import (
    Endpoint,
    InstanceSpec,
    PoolSpec,
    Service,
    ServiceSpec,
    UpstreamTlsSpec,
    parse_url,
)
from headgate.config.tracing import Tracing, TracingSpec
from headgate.config.vaulting import SecretsSpec, VaultSpec
from headgate.units import UnitError, parse_duration

__all__ = [
    "AccessLogSpec",
    "AdminSpec",
    "Bind",
    "CertificateSpec",
    "CompressLevels",
    "CompressSpec",
    "Config",
    "DnsSpec",
    "Endpoint",
    "ErrorPageSpec",
    "ForwardedSpec",
    "HeaderEdits",
    "HeadersSpec",
    "Http2Spec",
    "InstanceSpec",
    "LimitsSpec",
    "ListenerSpec",
    "ListenerTlsSpec",
    "MatchSpec",
    "PluginSpec",
    "PolicyFields",
    "PoolSpec",
    "RedirectSpec",
    "RequestIdSpec",
    "RewriteSpec",
    "RouteSpec",
    "ServicePolicyFields",
    "ServiceSpec",
    "Spec",
    "TimeoutSpec",
    "UpstreamTlsSpec",
    "ValueMatchSpec",
    "parse_bind",
    "parse_url",
]


_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}")


def _via(value: object) -> str | None:
    if value is False or value in ("off", "false", "no"):
        return None
    text = text_of(value)
    if not _TOKEN.fullmatch(text):
        raise refuse("is not a name for Via: letters, digits and -._ only")
    return text


class ForwardedSpec(Spec):
    """What services are told about the client."""

    x_forwarded: Flag = True
    """Send `X-Forwarded-For`, `-Proto` and `-Host`. What the client sent under these
    names is kept only when it comes from `trusted_proxies`."""

    forwarded: Flag = False
    """Send `Forwarded` (RFC 7239). Off because few frameworks read it."""

    via: Annotated[
        str | None,
        PlainValidator(_via),
        Words("name or `false`"),
        WithJsonSchema({"type": ["string", "boolean"]}),
    ] = "headgate"
    """The name to give in `Via` to services (RFC 9110 section 7.6.3); `false` sends none."""


class RequestIdSpec(Spec):
    """The id that follows a request through logs and services."""

    header: HeaderName = "x-request-id"
    """The header that carries it, to the service and back to the client. An id that comes in is
    kept only from `trusted_proxies`; otherwise a new one is made."""


LOG_FORMATS = Literal["json", "combined", "off"]
REDACTED: Final = (
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
    "x-api-key",
    "token",
    "access_token",
    "refresh_token",
    "id_token",
    "api_key",
    "apikey",
    "password",
    "passwd",
    "secret",
    "client_secret",
    "signature",
    "code",
)


LOG_FIELDS: Final = (
    "time",
    "client_ip",
    "method",
    "host",
    "path",
    "query",
    "protocol",
    "status",
    "bytes_in",
    "bytes_out",
    "duration_ms",
    "upstream_ms",
    "connect_ms",
    "route",
    "service",
    "instance",
    "retries",
    "request_id",
    "trace_id",
    "span_id",
    "sampled",
    "user_agent",
    "referer",
    "error",
    "user",
    "tls_version",
    "worker",
)
"""What each is stands in `headgate.gateway.log_fields`, and a test holds the two together: here
they are names that a file may use, and a file is judged without the gateway."""
_LOGGED_HEADER: Final = re.compile(r"(request|response)\.header\.[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


def _log_field(value: object) -> str:
    name = text_of(value)
    if name not in LOG_FIELDS and not _LOGGED_HEADER.fullmatch(name):
        near = did_you_mean(name, LOG_FIELDS)
        known = "known are the fields of docs/reference/access-log.md"
        raise refuse(f"is not a field of the access log; {near or known}")
    return name


LogField = Annotated[
    str,
    PlainValidator(_log_field),
    Words("field"),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": list(LOG_FIELDS)},
                {"type": "string", "pattern": r"^(request|response)\.header\..+$"},
            ]
        }
    ),
]


def _log_format(value: object) -> str:
    return "off" if value is False else text_of(value)


class AccessLogSpec(Spec):
    """One line a request."""

    format: Annotated[LOG_FORMATS, BeforeValidator(_log_format)] = "json"
    """`json`, `combined` (as Apache and nginx write it) or `off`."""

    path: Annotated[
        str,
        PlainValidator(text_of),
        PathMark(words=("stdout", "stderr")),
        Words("`stdout`, `stderr` or a file"),
        WithJsonSchema({"type": "string", "examples": ["stdout", "stderr", "logs/access.log"]}),
    ] = "stdout"
    """`stdout`, `stderr` or a file, which is opened again on SIGUSR1 so that it can be
    rotated."""

    fields: Annotated[tuple[LogField, ...], OneOrMore] | None = None
    """Which fields a JSON line has, in this order. By default all of them. Besides the named ones,
    `request.header.NAME` and `response.header.NAME` are any header."""

    redact: Annotated[tuple[Text, ...], OneOrMore] = REDACTED
    """Headers and query parameters whose values are not written, in any case of letters. Those in
    which methods under `auth` look for credentials never are."""


class DnsSpec(Spec):
    """How names of instances are looked up."""

    servers: Annotated[tuple[Text, ...], OneOrMore] | None = None
    """Name servers, as `address` or `address:port`. By default those of the system."""

    min_ttl: Duration = 1.0
    """An answer is kept at least this long, whatever it says."""

    max_ttl: Duration = 300.0
    """An answer is kept at most this long."""

    negative_ttl: Duration = 1.0
    """How long a failed look-up is remembered."""

    timeout: Wait = 2.0
    """How long one look-up may take."""


class ErrorPageSpec(Spec):
    """What the client sees instead of problem+json: `file` or `body`, not both."""

    file: FilePath | None = None
    """A file, read when the configuration is loaded."""

    body: Text | None = None
    """The text itself. `{status}`, `{reason}` and `{request_id}` are filled in."""

    type: HeaderValue = "text/html; charset=utf-8"
    """Its content type."""


_STATUS: Final = re.compile(r"[45]([0-9]{2}|xx)")


def _status_key(value: object) -> int | str:
    text = text_of(value).lower()
    if not _STATUS.fullmatch(text):
        raise refuse("is not an error status; write 404, 4xx or 5xx")
    return text if text.endswith("xx") else int(text)


StatusKey = Annotated[
    int | str,
    PlainValidator(_status_key),
    Words("status"),
    WithJsonSchema({"type": "string", "pattern": "^[45]([0-9]{2}|xx)$"}),
]


def _workers(value: object) -> int | str:
    text = text_of(value).strip()
    if text == "auto":
        return "auto"
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:6]) <= 1024:
        raise refuse("is not a number of workers; write auto or 1 to 1024")
    return int(text)


def _state(value: object) -> str:
    text = text_of(value).strip()
    if text == "memory":
        return text
    kind = "is not a home for shared state; write memory, or redis://host:6379/0"
    fault = redis_url_fault(text, kind)
    if fault is not None:
        raise refuse(fault)
    return text


def _name_routes(routes: tuple[RouteSpec, ...]) -> tuple[RouteSpec, ...]:
    """Give a name to those that have none. Explicit names are never changed: a second one is a
    fault that ``checks`` reports.
    """
    taken = {route.name for route in routes if route.name}
    seen: dict[str, int] = {}
    named = []
    for route in routes:
        if route.name:
            named.append(route)
            continue
        base = default_name(route)
        name = base
        while name in taken:
            seen[base] = seen.get(base, 1) + 1
            name = f"{base} #{seen[base]}"
        taken.add(name)
        named.append(route.model_copy(update={"name": name}))
    return tuple(named)


_SERVICE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


def _service_name(value: object) -> str:
    name = text_of(value)
    if not _SERVICE.fullmatch(name):
        raise refuse("is not a service name: letters, digits, - . _ and at most 100 of them")
    return name


ServiceName = Annotated[
    str,
    PlainValidator(_service_name),
    Words("name"),
    WithJsonSchema({"type": "string", "pattern": r"^[A-Za-z0-9_][A-Za-z0-9_.\-]{0,99}$"}),
]


def _watchdog(value: object) -> float:
    if value is False or (isinstance(value, str) and value.strip().lower() in FALSE):
        return 0.0
    try:
        seconds = parse_duration(value)
    except UnitError as error:
        raise refuse(f"{error.rule}, or off", kind="unit") from None
    if 0 < seconds < _WATCHDOG_LEAST_S:
        raise refuse(
            "is too short; a worker may be busy for a moment, so write 1s or more, or off",
            kind="unit",
        )
    return seconds


_WATCHDOG_LEAST_S: Final = 1.0


class Config(PolicyFields, ServicePolicyFields):
    """The file: where clients come in, the services behind, and the routes between.

    Every policy can stand here, on a service or on a route, and those of a service as a whole here
    or on a service; the nearest one wins whole. `headgate explain` shows which one applied.
    """

    listeners: tuple[Listener, ...] = ()
    """Where clients connect. At least one."""

    services: dict[ServiceName, Service] = Field(default_factory=dict)
    """Where requests go, by name."""

    routes: Annotated[tuple[RouteSpec, ...], AfterValidator(_name_routes)] = ()
    """Which request goes to which service."""

    admin: Admin = AdminSpec()
    """Metrics, health and commands."""

    workers: Annotated[
        int | Literal["auto"],
        PlainValidator(_workers),
        Words("`auto` or a whole number"),
        WithJsonSchema(
            {"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1, "maximum": 1024}]}
        ),
    ] = "auto"
    """Processes that serve. `auto` is one for each processor core this process may use."""

    state: Annotated[
        str,
        PlainValidator(_state),
        Words("`memory` or a URL"),
        WithJsonSchema(
            {
                "type": "string",
                "pattern": "^(memory|(rediss?(\\+sentinel)?|unix)://.+)$",
                "examples": ["memory", "redis://localhost:6379/0"],
            }
        ),
    ] = "memory"
    """Home of what workers share: counts of limits, bans, news of breakers. `memory` is one
    machine, whose workers share by the control process. Several machines need a Redis:
    `redis://host:6379/0`, `rediss://` with TLS, `unix:///run/redis.sock`, or by way of sentinels
    `redis+sentinel://host1:26379,host2:26379/master`; this takes the extra `redis`. Write a
    password as `redis://:${env:REDIS_PASSWORD}@host`."""

    auth: AuthSpec = AuthSpec()
    """The ways in which clients say who they are."""

    bans: Bans | None = None
    """Shutting out addresses for a while because of what they did. Off unless said."""

    acme: AcmeSpec | None = None
    """Certificates from an authority such as Let's Encrypt, for listeners with
    `certificate: acme`."""

    vault: VaultSpec | None = None
    """Where `${vault:PATH#KEY}` is read."""

    secrets: SecretsSpec | None = None
    """Where `${secret:NAME}` is read: an encrypted file."""

    mesh: MeshSpec | None = None
    """Identities of services, and mutual TLS between them. Off unless said; `mesh: {}` will do."""

    audit: Audit = AuditSpec()
    """The book of who changed what."""

    alerts: Alerts = AlertsSpec()
    """What somebody is told of. `alerts: false` judges no rules."""

    registry: Registry = RegistrySpec()
    """Instances that register themselves. `registry: off` lets nobody."""

    monitors: Monitors = ()
    """Things outside that are asked now and then, such as a payment provider."""

    redaction: Redaction = RedactionSpec()
    """What is taken out of logs."""

    zone: Text = ""
    """Where this gateway runs, as a name of your own. Instances of the same `zone` are
    preferred."""

    shed: Shed | None = None
    """Turning requests away when a worker has more to do than it can. Off unless said."""

    degrade: DegradeSpec = DegradeSpec()
    """What to do without when there is trouble."""

    cache_store: CacheStoreSpec = CacheStoreSpec()
    """Where the responses are that `cache` keeps."""

    tracing: Tracing = TracingSpec()
    """What becomes of single requests, here and in the services behind."""

    metrics_push: MetricsPush = False
    """A collector that is told all figures, besides those who ask at `/metrics`. None unless
    said."""

    state_dir: (
        Annotated[
            str,
            PlainValidator(text_of),
            PathMark(),
            Words("directory"),
            WithJsonSchema({"type": "string"}),
        ]
        | None
    ) = None
    """Where the token, local certificates, sockets and history are kept; one run of Headgate
    holds it at a time. By default `.headgate` beside the file."""

    trusted_proxies: Annotated[tuple[Network, ...], OneOrMore] = ()
    """Addresses and networks of proxies in front of Headgate. Only from them are
    `X-Forwarded-For`, `Forwarded`, request ids and PROXY protocol believed; the client is the
    first address from the right that is not one of them."""

    forwarded: ForwardedSpec = ForwardedSpec()
    """What services are told about the client."""

    request_id: RequestIdSpec = RequestIdSpec()
    """The id that follows a request."""

    explain_token: Text | None = None
    """Lets an operator ask of a live request what became of it: one that carries
    `x-headgate-explain: <this token>` is answered with a header of the same name that tells its
    route, service, instance, attempts and the level each policy came from. Off unless set; write
    it as `${env:NAME}` or `${file:PATH}`. The request header never travels on."""

    response_time: Flag = True
    """Send `x-response-time` with every response: milliseconds spent in Headgate and behind."""

    limits: LimitsSpec = LimitsSpec()
    """What one client may ask of a worker."""

    access_log: AccessLogSpec = AccessLogSpec()
    """One line a request."""

    logging: LoggingSpec = LoggingSpec()
    """What the processes say of themselves, and where it goes."""

    history: History = HistorySpec()
    """What is kept of all figures, for charts, alerts and questions. `false`: nothing."""

    slos: tuple[SloSpec, ...] = ()
    """What was promised of routes and services, and so how much may fail: error budgets."""

    capacity: Capacity = CapacitySpec()
    """Forecasts: what will be full, and how many instances services need. `false` makes none."""

    dns: DnsSpec = DnsSpec()
    """How names of instances are looked up."""

    drain: Duration = 30.0
    """How long requests in flight may go on after SIGTERM, or on an old worker. Then they are
    cut off."""

    watchdog: Annotated[
        float,
        PlainValidator(_watchdog),
        Words("duration, or `off`"),
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "string", "pattern": DURATION_PATTERN},
                    {"type": "number", "minimum": 0},
                    {"enum": ["off", False]},
                ],
                "examples": ["30s", "2min", "off"],
            }
        ),
    ] = 30.0
    """How long a worker may give no sign of life before it is ended and another one takes its seat,
    as after a crash. Its requests in flight are lost with it. Where it hung stands in the log: the
    stacks of all its threads. `off` or 0 for never, as for a debugger that holds the process's
    threads from within; one that attaches from outside is noticed."""

    error_pages: dict[StatusKey, ErrorPageSpec] = Field(default_factory=dict)
    """Pages for errors that Headgate itself answers, by status (`404`), or by class (`4xx`,
    `5xx`). Errors of services pass unchanged. By default problem+json (RFC 9457)."""

    watch: Flag = False
    """Reload when a file of the configuration changes. Off because an editor's half-written file
    is refused but noisy; `headgate reload` and SIGHUP always work."""

    def dump(self) -> dict[str, Any]:
        """The configuration as plain JSON-able data, every default filled in."""
        return self.model_dump(mode="json")
