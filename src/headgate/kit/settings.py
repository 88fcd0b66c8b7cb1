"""What `harden` may be told, and what of it makes no sense.

Everything is judged when `harden` is called and not at the first request: an unknown part or
setting is a `KitInvalid` that names the nearest one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypedDict

from headgate.errors import HeadgateError
from headgate.resilience.settings import Duration, RateText, rate, seconds
from headgate.units import UnitError, parse_size

if TYPE_CHECKING:
    from headgate.cache import Cache
    from headgate.observe import Registry
    from headgate.observe.health import Checks
    from headgate.observe.tracing import Tracer

__all__ = ["PARTS", "Interface", "KitInvalid", "Settings", "Wishes", "settings_of"]

Interface: TypeAlias = Literal["asgi", "wsgi"]
Scope: TypeAlias = MutableMapping[str, Any]

PARTS: Final[Mapping[str, str]] = {
    "ids": "request ids, taken from the caller or made, and answered",
    "tracing": "a span for each request, on with the caller's trace",
    "metrics": "counts and durations by route, and /metrics",
    "health": "/health/live, /health/ready, /health/startup and /health",
    "logs": "structured logs of the whole process, with the ids",
    "headers": "response headers that make browsers careful",
    "limits": "bounds for bodies, requests at once and, where wished, rates",
    "deadlines": "the caller's deadline and one of our own",
    "errors": "problem+json for every error",
    "shutdown": "stops being ready, finishes what is under way, then ends",
}
"""What can be left out by `off`, and what it is."""

_DEADLINE_S: Final = 30.0
_BODY_BYTES: Final = 10 * 1024 * 1024
_AT_ONCE: Final = 1000
_FINISH_S: Final = 10.0
_RETRY_AFTER_S: Final = 1


class KitInvalid(HeadgateError, ValueError):
    """`harden` was told something that cannot be."""


class Wishes(TypedDict, total=False):
    """The settings of `harden`, all by keyword."""

    service: str
    """Its name in logs, traces, health and as audience of identities."""
    version: str
    checks: Checks | None
    """Its checks of health; without them there is one that finds nothing wrong."""
    off: Iterable[str]
    """Parts that are left out; `PARTS` names them."""
    interface: Interface | None
    """Only where it cannot be told by looking at the app."""

    # who asks
    identity_keys: str | None
    """Public keys by which the gateway's word on who asks is verified: a file or a URL."""
    audience: str
    """Whom those tokens are for; by default the service."""
    issuer: str
    """Who signs them."""
    identity_header: str

    # ids, tracing, logs
    trusts: bool
    """Whether ids and traces of callers are gone on with. False for a service that strangers
    reach without a gateway before it."""
    tracer: Tracer | None
    traces: str
    """Where spans go: a collector, or the gateway's admin API. By default what `HEADGATE_TRACES`
    or `OTEL_EXPORTER_OTLP_ENDPOINT` says; without any of them, callers' traces are gone on with and
    none is kept."""
    traces_token: str
    """For the gateway, one of the role `ingest`; by default `HEADGATE_TRACES_TOKEN`."""
    log_level: str
    log_format: Literal["json", "text", "ecs", "logfmt"]

    # metrics and health
    registry: Registry | None
    metrics_path: str
    metrics_token: str
    """Who brings it may read the metrics too; this machine always may."""
    health_path: str
    health_token: str

    # headers
    secure_headers: Mapping[str, Any]
    """In the words of `secure_headers` in the gateway's file: `{"csp": "default-src 'self'"}`."""

    # limits
    body_limit: int | str | None
    at_once: int | None
    """Requests under way; one more is answered 503."""
    rates: str | Sequence[RateText]
    """Requests by client: `"100/s"` or several."""
    rate_key: Callable[[Scope], str] | None
    """Whom a request counts for; by default the address it comes from."""

    # deadlines and the end
    deadline: Duration | None
    """How long a request may take until its response begins. A deadline of the caller that is
    sooner holds until the end of the response."""
    leave: Duration
    """How long it goes on serving after SIGTERM, not ready any more, so that whoever sends
    requests hears of it."""
    finish: Duration | None
    """How long what is under way may take after that; then it is cancelled. None waits."""

    # for dependencies
    cache: Cache | str | None
    """For `headgate.kit.fastapi.cache`: a cache or its URL. It is started and closed with the
    app."""
    flags: Mapping[str, bool | float | str]
    """For `headgate.kit.fastapi.flag`: on, off, or for a share of users: `"10%"`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    service: str = ""
    version: str = ""
    checks: Checks | None = None
    off: frozenset[str] = frozenset()
    interface: Interface | None = None
    identity_keys: str | None = None
    audience: str = ""
    issuer: str = "headgate"
    identity_header: str = "x-headgate-identity"
    trusts: bool = True
    tracer: Tracer | None = None
    traces: str = ""
    traces_token: str = field(default="", repr=False)
    log_level: str = "info"
    log_format: Literal["json", "text", "ecs", "logfmt"] = "json"
    registry: Registry | None = None
    metrics_path: str = "/metrics"
    metrics_token: str = field(default="", repr=False)
    health_path: str = "/health"
    health_token: str = field(default="", repr=False)
    secure_headers: Mapping[str, Any] = field(default_factory=dict)
    body_limit: int | None = _BODY_BYTES
    at_once: int | None = _AT_ONCE
    rates: tuple[RateText, ...] = ()
    rate_key: Callable[[Scope], str] | None = None
    deadline: float | None = _DEADLINE_S
    leave: float = 0.0
    finish: float | None = _FINISH_S
    cache: Cache | str | None = None
    flags: Mapping[str, bool | float | str] = field(default_factory=dict)

    def has(self, part: str) -> bool:
        return part not in self.off


def settings_of(wishes: Mapping[str, Any]) -> Settings:
    """Judge what `harden` was told. Raises `KitInvalid`."""
    known = Settings.__dataclass_fields__
    for name in wishes:
        if name not in known:
            raise KitInvalid(f"there is no setting {name!r}{_near(name, known)}")
    made = dict(wishes)
    made["off"] = _off(wishes.get("off", ()))
    _durations(made)
    _sizes(made)
    _paths(made)
    made["rates"] = _rates(made.get("rates", ()))
    if made.get("interface") not in {None, "asgi", "wsgi"}:
        raise KitInvalid(f"interface={made['interface']!r} is neither 'asgi' nor 'wsgi'")
    settings = Settings(**made)
    if settings.identity_keys is not None and not (settings.audience or settings.service):
        raise KitInvalid(
            "identity_keys without audience: say for whom tokens are, or one that was meant for "
            "another service would be taken; audience='orders'"
        )
    return settings


def _off(given: object) -> frozenset[str]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise KitInvalid(f"off={given!r} is no set of parts; write off={{'tracing'}}")
    parts = frozenset(str(part) for part in given)
    for part in sorted(parts):
        if part not in PARTS:
            known = ", ".join(PARTS)
            raise KitInvalid(
                f"off: there is no part {part!r}{_near(part, PARTS)}; there are {known}"
            )
    return parts


def _near(name: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, tuple(known), 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _rates(given: str | Sequence[RateText]) -> tuple[RateText, ...]:
    rates = (given,) if isinstance(given, str) else tuple(given)
    try:
        for one in rates:
            rate("rates", one)
    except ValueError as error:
        raise KitInvalid(str(error)) from None
    return rates


def _durations(made: dict[str, Any]) -> None:
    for name in ("deadline", "leave", "finish"):
        if name not in made:
            continue
        try:
            value = seconds(name, made[name])
        except (ValueError, TypeError) as error:
            raise KitInvalid(str(error)) from None
        if value is None and name == "leave":
            value = 0.0
        if value is not None and value <= 0.0 and name == "deadline":
            raise KitInvalid("deadline: no request would be answered; write None for no deadline")
        made[name] = value


def _sizes(made: dict[str, Any]) -> None:
    limit = made.get("body_limit")
    if limit is not None:
        try:
            made["body_limit"] = parse_size(limit)
        except UnitError as error:
            raise KitInvalid(f"body_limit: {error}") from None
    at_once = made.get("at_once")
    if at_once is not None and (type(at_once) is not int or at_once < 1):
        raise KitInvalid(f"at_once={at_once!r} is no number of requests from 1; None is no bound")


def _paths(made: dict[str, Any]) -> None:
    for name in ("metrics_path", "health_path"):
        path = made.get(name)
        if path is None:
            continue
        if not isinstance(path, str) or not path.startswith("/") or len(path) < 2:
            raise KitInvalid(f"{name}={path!r} is no path that begins with /")
        made[name] = path.rstrip("/")
