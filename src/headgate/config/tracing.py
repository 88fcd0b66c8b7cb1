"""Traces, as the file says it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    PlainSerializer,
    PlainValidator,
    WithJsonSchema,
)

from headgate.config.collectors import BY_URL, CollectorUrl, in_the_clear
from headgate.config.fields import (
    DURATION_PATTERN,
    FALSE,
    TRUE,
    Flag,
    HeaderName,
    HeaderValue,
    Percent,
    Size,
    Spec,
    Wait,
    Words,
    refuse,
    text_of,
)
from headgate.config.forms import OneOrMore, OrFalse
from headgate.observe.tracing.rules import (
    AUTO,
    ExportRules,
    Format,
    StoreRules,
    TracingRules,
    Whose,
)
from headgate.units import MB, UnitError, parse_duration

__all__ = ["Tracing", "TracingExportSpec", "TracingSpec", "TracingStoreSpec", "problems"]

_R: Final = TracingRules()
_E: Final = ExportRules()
_S: Final = StoreRules()
_WHOSE: Final[dict[bool | str, Whose]] = {True: "all", False: "none", "proxies": "proxies"}
Found = tuple[tuple[str | int, ...], str, str, bool]


class TracingExportSpec(Spec):
    """Where spans go as well: a collector, Jaeger, Tempo or Elastic APM, by OTLP over HTTP. Text,
    as in `export: http://localhost:4318`, is `url`.
    """

    url: CollectorUrl
    """The address of the receiver. Without a path it is `/v1/traces`."""

    headers: dict[HeaderName, HeaderValue] = {}
    """Headers that go with every delivery, such as a key. Write it as `${env:NAME}`."""

    protocol: Literal["http/protobuf"] = "http/protobuf"
    """OTLP over HTTP with protobuf bodies, which every receiver takes."""

    timeout: Wait = _E.timeout_s
    """How long one delivery may take. What is not taken is sent again, later and later, for five
    minutes; spans that wait are bounded, and what is dropped is counted."""

    def rules(self) -> ExportRules:
        """The same for `headgate.observe.tracing`."""
        return ExportRules(
            url=self.url, headers=tuple(self.headers.items()), timeout_s=self.timeout
        )


TracingExport = Annotated[
    Annotated[TracingExportSpec, BY_URL] | Literal[False],
    OrFalse(),
]


def _least_size(value: int) -> int:
    if value < MB:
        raise refuse("is less than 1MB; write store: off to keep nothing")
    return value


class TracingStoreSpec(Spec):
    """What `headgate traces` searches: the traces of the last hours, in `traces` in the state
    directory.
    """

    size: Annotated[Size, AfterValidator(_least_size)] = _S.max_bytes
    """The most room on the disk; 1MB at least. The oldest go first."""

    keep: Wait = _S.keep_s
    """How long they are kept."""

    def rules(self) -> StoreRules:
        """The same for `headgate.observe.tracing`."""
        return StoreRules(max_bytes=self.size, keep_s=self.keep)


def _keep_slow(value: object) -> float:
    if isinstance(value, str) and value.strip().lower() == "auto":
        return AUTO
    if value is False or (isinstance(value, str) and value.strip().lower() in FALSE):
        return 0.0
    try:
        return parse_duration(value)
    except UnitError as error:
        raise refuse(f"{error.rule}, or `auto`", kind="unit") from None


def _formats(value: object) -> object:
    return text_of(value).strip().lower()


PropagationFormat = Annotated[
    Format,
    BeforeValidator(_formats),
    Words("`w3c`, `b3` or `b3multi`"),
    WithJsonSchema({"enum": ["w3c", "b3", "b3multi"]}),
]


def _some(value: tuple[Format, ...]) -> tuple[Format, ...]:
    if not value:
        raise refuse("names no format; write w3c, or tracing: off")
    return value


def _written(value: float) -> float | str:
    return "auto" if value == AUTO else value


def _whose(value: object) -> bool | Literal["proxies"]:
    word = text_of(value).strip().lower()
    if word == "proxies":
        return "proxies"
    if word in TRUE | FALSE:
        return word in TRUE
    raise refuse("is none of true, false and proxies")


class TracingSpec(Spec):
    """Traces: what becomes of one request in the gateway and in the services behind, as spans with
    times. A small part of all requests is kept, and all those that failed or were slow. `headgate
    traces` searches and shows them. `tracing: off` neither makes nor changes any headers.
    """

    sample: Percent = _R.sample
    """The part of all requests that is traced, whatever comes of them. Services behind are told and
    do the same."""

    keep_slow: Annotated[
        float,
        PlainValidator(_keep_slow),
        PlainSerializer(_written),
        Words("duration, `auto` or `off`"),
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "string", "pattern": DURATION_PATTERN},
                    {"type": "number", "minimum": 0},
                    {"enum": ["auto", "off", False]},
                ],
                "examples": ["1s", "auto"],
            }
        ),
    ] = _R.keep_slow_s
    """Requests that take longer are kept as well. `auto` keeps the slowest hundredth of each
    route."""

    keep_errors: Flag = _R.keep_errors
    """Requests that end with a status of 500 or more, or with none, are kept as well."""

    propagate: Annotated[tuple[PropagationFormat, ...], AfterValidator(_some), OneOrMore] = (
        _R.propagate
    )
    """The headers that are read and sent on: `w3c` is `traceparent` and `tracestate`, `b3` the one
    header of Zipkin, `b3multi` its `x-b3-` headers. Of several the first that a request carries is
    read, and all are sent."""

    trust: Flag = _R.trust
    """Whether a trace that a client has begun goes on here. Otherwise every request begins one of
    its own, with a link to that of the client. Addresses of `trusted_proxies` are trusted in any
    case."""

    trust_sampled: Annotated[
        bool | Literal["proxies"],
        PlainValidator(_whose),
        Words("`proxies`, `true` or `false`"),
        WithJsonSchema({"enum": ["proxies", True, False]}),
    ] = "proxies"
    """Whether the client also decides if the request is traced: `true` for all, `proxies` for
    addresses of `trusted_proxies`, `false` for none. Otherwise `sample` decides; with `true` anyone
    can have all of his requests traced."""

    tell_clients: Annotated[
        tuple[Annotated[Literal["traceresponse", "server-timing"], BeforeValidator(_formats)], ...],
        OneOrMore,
    ] = ()
    """Headers in which clients are told the trace of their request: `traceresponse`, or
    `server-timing`, which scripts of a page can read. None unless said."""

    export: TracingExport = False
    """Where spans go as well. Nowhere unless said."""

    store: Annotated[TracingStoreSpec | Literal[False], OrFalse()] = TracingStoreSpec()
    """What is kept here; `store: off` keeps nothing."""

    def rules(self) -> TracingRules:
        """The same for `headgate.observe.tracing`."""
        return TracingRules(
            sample=self.sample,
            keep_slow_s=self.keep_slow,
            keep_errors=self.keep_errors,
            propagate=self.propagate,
            trust=self.trust,
            trust_sampled=_WHOSE[self.trust_sampled],
        )


Tracing = Annotated[TracingSpec | Literal[False], OrFalse()]
"""`tracing: off` traces nothing."""


def problems(spec: TracingSpec | Any) -> Iterator[Found]:
    """What single fields cannot say about each other."""
    if not isinstance(spec, TracingSpec):
        return
    if isinstance(spec.export, TracingExportSpec):
        for wrong, hint in in_the_clear(spec.export.url, spec.export.headers):
            yield ("export", "url"), wrong, hint, True
