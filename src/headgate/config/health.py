"""Which instances are well: checks that ask them, and ejection that watches their answers."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, PlainValidator, WithJsonSchema

from headgate.config.fields import (
    Duration,
    HeaderValue,
    MatchedHeader,
    Number,
    Percent,
    Positive,
    Spec,
    Text,
    Wait,
    Words,
    refuse,
    text_of,
)
from headgate.config.forms import OrFalse, Shorthand
from headgate.config.http import Method, Statuses, StatusRange
from headgate.policy.health import HealthKind, HealthRules
from headgate.policy.outlier import OutlierRules

__all__ = ["Health", "HealthSpec", "Outlier", "OutlierSpec"]

_D: Final = HealthRules()
_O: Final = OutlierRules()
_TARGET: Final = re.compile(r"/[\x21-\x7e]*")
_HOST: Final = re.compile(r"[A-Za-z0-9_.\-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")


def _target(value: object) -> str:
    path = text_of(value)
    if not path.startswith("/"):
        raise refuse('does not start with "/"')
    if not _TARGET.fullmatch(path):
        raise refuse("has a space, control or non-ASCII character in it; write %20 for a space")
    return path


def _host(value: object) -> str:
    host = text_of(value).strip()
    if not _HOST.fullmatch(host):
        raise refuse("is not a host; write a name with or without :port")
    return host


class HealthSpec(Spec):
    """Checks that ask each instance by themselves whether it is well, at an interval and without
    traffic. One process asks for all workers. Off unless said, because nobody can guess the path:
    `health: /ready` is a good start. Text is `path`.

    An instance that fails is out until it passes again; when too few are left, all are used (see
    `panic` of `balance`). How an instance answers real requests is watched by `outlier`.
    """

    kind: Annotated[HealthKind, BeforeValidator(text_of)] = _D.kind
    """`http` asks for `path` and looks at the status; `tcp` only connects; `grpc` asks the
    standard health service (`grpc.health.v1.Health`)."""

    path: Annotated[
        str,
        PlainValidator(_target),
        Words("path"),
        WithJsonSchema({"type": "string", "pattern": "^/", "examples": ["/health/ready"]}),
    ] = _D.path
    """What to ask for, with a query where it needs one."""

    every: Wait = _D.every_s
    """The time between two checks of an instance. The checks of many instances are spread."""

    unhealthy_every: Wait | None = None
    """The time between checks of an instance that is out or has just failed one. By default
    `every`; a shorter one brings instances back sooner."""

    timeout: Wait = _D.timeout_s
    """How long one check may take in all. One that takes longer has failed."""

    rise: Positive = _D.rise
    """So many checks in a row must pass before an instance that was out is used again."""

    fall: Positive = _D.fall
    """So many checks in a row must fail before an instance is out: one lost packet is no outage."""

    jitter: Percent = _D.jitter
    """Intervals vary by this share, so that checks do not come all at once."""

    status: Statuses = tuple(StatusRange(low, high) for low, high in _D.statuses)
    """Statuses that pass. Redirects are not followed."""

    body: Text | None = None
    """Text that the answer must have in its first 64KB."""

    method: Method = _D.method
    """The method to ask with."""

    headers: dict[MatchedHeader, HeaderValue] = Field(default_factory=dict)
    """Headers to send."""

    host: (
        Annotated[str, PlainValidator(_host), Words("host"), WithJsonSchema({"type": "string"})]
        | None
    ) = None
    """The `Host` to send. By default that of the instance's URL."""

    port: Annotated[Positive, Field(le=65535)] | None = None
    """Another port than that of the instance's URL, for services that answer checks elsewhere."""

    service: Text = _D.grpc_service
    """For `grpc`: the service to ask about. Empty asks about the server as a whole."""

    start: Annotated[Literal["up", "down"], BeforeValidator(text_of)] = _D.start
    """How a new instance counts until its first check: with `down` a gateway that has just
    started answers 503 until the first checks have passed."""

    def rules(self) -> HealthRules:
        """The checks' own rules."""
        return HealthRules(
            kind=self.kind,
            path=self.path,
            every_s=self.every,
            unhealthy_every_s=self.unhealthy_every,
            timeout_s=self.timeout,
            rise=self.rise,
            fall=self.fall,
            jitter=self.jitter,
            statuses=tuple((each.first, each.last) for each in self.status),
            body=self.body,
            method=self.method,
            headers=tuple(self.headers.items()),
            host=self.host,
            port=self.port,
            grpc_service=self.service,
            start=self.start,
        )


HEALTH_IN_FILE: Final = {
    "every_s": "every",
    "unhealthy_every_s": "unhealthy_every",
    "timeout_s": "timeout",
    "statuses": "status",
    "grpc_service": "service",
}

Health = Annotated[
    Annotated[
        HealthSpec,
        Shorthand(
            lambda value: {"path": value} if isinstance(value, str) else value,
            {"type": "string", "examples": ["/health/ready"]},
            "or text, which is `path`",
        ),
    ]
    | Literal[False],
    OrFalse(),
]


def _errors(value: object) -> object:
    return None if value is False or value in ("off", "false", "no") else value


class OutlierSpec(Spec):
    """Takes out an instance that does worse than it should, by its answers to real requests, and
    brings it back after a while. Each ejection in a row lasts longer. Off unless said, because
    what is an error to one service is daily business to another; `outlier: true` is a good start
    for a service with two instances or more.

    Failures are what `breaker.failures` says; without a breaker they are answers of `5xx` and all
    the ways in which no answer comes.
    """

    errors: Annotated[
        Positive | None,
        BeforeValidator(_errors),
        Words("whole number or `off`"),
        WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"enum": ["off", False]}]}),
    ] = _O.consecutive_errors
    """So many failures in a row eject."""

    failure_rate: Percent | None = None
    """This share of failures within `interval` ejects. Not judged unless said."""

    minimum: Positive = _O.minimum_requests
    """With fewer requests than this, neither `failure_rate` nor `latency` is judged."""

    latency: Annotated[Number, Field(gt=1)] | None = None
    """Ejects an instance whose mean time to answer is this many times the median of all. Not
    judged unless said: instances of different sizes rightly differ."""

    latency_floor: Duration = _O.latency_floor_s
    """A mean below this is never too slow, whatever the others do."""

    interval: Wait = _O.interval_s
    """How often rate and latency are judged."""

    eject: Wait = _O.eject_s
    """How long the first ejection lasts; the second in a row lasts twice as long, and so on."""

    eject_max: Wait = _O.eject_max_s
    """The longest ejection. When it is not said, at least `eject`."""

    max_ejected: Percent = _O.max_ejected
    """At most this share of the instances is out at a time; but one, where there are two."""

    def rules(self) -> OutlierRules:
        """The ejection's own rules."""
        eject_max = self.eject_max
        if "eject_max" not in self.model_fields_set:
            eject_max = max(eject_max, self.eject)
        return OutlierRules(
            consecutive_errors=self.errors,
            failure_rate=self.failure_rate,
            minimum_requests=self.minimum,
            latency_factor=self.latency,
            latency_floor_s=self.latency_floor,
            interval_s=self.interval,
            eject_s=self.eject,
            eject_max_s=eject_max,
            max_ejected=self.max_ejected,
        )


OUTLIER_IN_FILE: Final = {
    "consecutive_errors": "errors",
    "minimum_requests": "minimum",
    "latency_factor": "latency",
    "latency_floor_s": "latency_floor",
    "interval_s": "interval",
    "eject_s": "eject",
    "eject_max_s": "eject_max",
}

Outlier = Annotated[OutlierSpec | Literal[False], OrFalse()]
