"""The `monitors:` section: things outside that are asked now and then, as users would."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final
from urllib.parse import urlsplit, urlunsplit

from pydantic import Field, PlainValidator, WithJsonSchema

from headgate.config.fields import (
    Count,
    Flag,
    HeaderValue,
    MatchedHeader,
    Positive,
    Spec,
    Text,
    Wait,
    Words,
    refuse,
    text_of,
)
from headgate.config.forms import OneOrMore
from headgate.config.http import Method, Statuses, StatusRange
from headgate.config.naming import Name, Url
from headgate.config.redis_urls import redis_url_fault
from headgate.config.services import UpstreamTlsSpec
from headgate.observe.health.monitoring import KINDS, Expected, Monitor, MonitorKind, MonitorTls

__all__ = ["MonitorExpectSpec", "MonitorSpec", "Monitors", "monitors_of", "problems"]

_M: Final = Monitor("", "url", "")
_E: Final = Expected()
_MOST: Final = 200
_LEAST_EVERY_S: Final = 1.0
_LONGEST_EVERY_S: Final = 86_400.0
_LONGEST_TIMEOUT_S: Final = 60.0
_MOST_REDIRECTS: Final = 10
_HOST: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?|[A-Za-z0-9_]")
_SENT_BY_US: Final = frozenset(
    {"content-length", "transfer-encoding", "connection", "accept-encoding", "upgrade", "te"}
)
Found = tuple[tuple[str | int, ...], str, str, bool]


def _host_port(value: object) -> str:
    text = text_of(value).strip()
    host, colon, port = text.rpartition(":")
    name = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    is_address = host.startswith("[") and re.fullmatch(r"[0-9A-Fa-f:.]+", name) is not None
    is_fine = colon and port.isascii() and port.isdigit() and 0 < int(port) < 65536
    if not is_fine or not (is_address or _HOST.fullmatch(host)):
        raise refuse("is no place; write host:port")
    return text


def _host(value: object) -> str:
    text = text_of(value).strip().rstrip(".")
    if not _HOST.fullmatch(text):
        raise refuse("is no name of a host")
    return text


def _redis(value: object) -> str:
    text = text_of(value).strip()
    if text and "://" not in text:
        text = f"redis://{_host_port(text)}"
    fault = redis_url_fault(text, "is no Redis; write redis://host:6379")
    if fault is None and "+sentinel" in text.partition("://")[0]:
        fault = "is a name that Sentinels know; a monitor needs the address of one server"
    if fault is not None:
        raise refuse(fault)
    return text


def _postgres(value: object) -> str:
    text = text_of(value).strip()
    try:
        url = urlsplit(text)
        is_fine = url.scheme in {"postgres", "postgresql"} and bool(url.hostname)
        _ = url.port
    except ValueError:
        is_fine = False
    if not is_fine:
        raise refuse("is no PostgreSQL; write postgresql://user@host:5432/database")
    return text


def _json_value(value: object) -> Any:
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    raise refuse("is no plain value; name what lies deeper by its path: data.status")


HostPort = Annotated[
    str,
    PlainValidator(_host_port),
    Words("`host:port`"),
    WithJsonSchema({"type": "string", "pattern": r"^.+:[0-9]{1,5}$"}),
]
Host = Annotated[str, PlainValidator(_host), Words("name"), WithJsonSchema({"type": "string"})]
RedisUrl = Annotated[
    str,
    PlainValidator(_redis),
    Words("`redis://` URL"),
    WithJsonSchema({"type": "string", "examples": ["redis://127.0.0.1:6379"]}),
]
PostgresUrl = Annotated[
    str,
    PlainValidator(_postgres),
    Words("`postgresql://` URL"),
    WithJsonSchema({"type": "string", "examples": ["postgresql://monitor@db:5432/shop"]}),
]
JsonValue = Annotated[
    Any,
    PlainValidator(_json_value),
    Words("text, number, true or false"),
    WithJsonSchema({"type": ["string", "number", "boolean"]}),
]


class MonitorExpectSpec(Spec):
    """What the answer of a `url` must be like. All that is said must hold."""

    status: Statuses = tuple(StatusRange(low, high) for low, high in _E.status)
    """Statuses that are fine."""

    body: Text | None = None
    """Text that must stand in its first megabyte."""

    header: dict[MatchedHeader, HeaderValue] = Field(default_factory=dict)
    """Headers that must be there, with text that must stand in their values; empty text asks for
    the header alone."""

    json_: Annotated[dict[str, JsonValue], Field(alias="json")] = Field(default_factory=dict)
    """The body must be JSON and have these values at these paths, such as `status: ok` or
    `items.0.state: ready`."""


class MonitorSpec(Spec):
    """One thing outside, such as a payment provider, that is asked now and then as a user would.
    The control process does it; one of `url`, `tcp`, `dns`, `certificate`, `redis` and `postgres`
    says how. What it finds is in the metrics `headgate_monitor_*`, in alerts, in `/api/monitors`
    and in `headgate monitors`.
    """

    name: Name
    """What it is called in metrics, alerts and lists."""

    url: Url | None = None
    """Asked over HTTP/1.1. It is up if the answer is as `expect` says."""

    tcp: HostPort | None = None
    """A connection is opened and closed; over TLS if `tls` is said."""

    dns: Host | None = None
    """A name that must have addresses. See `addresses`."""

    certificate: HostPort | None = None
    """A server whose certificate is looked at. It must be valid for its name, unless
    `tls: {verify: false}` is said. See `warn_before`."""

    redis: RedisUrl | None = None
    """PING, and its memory and replicas. `host:port` is enough."""

    postgres: PostgresUrl | None = None
    """A new connection and `SELECT 1`. Needs the extra `postgres`."""

    every: Wait = _M.every_s
    """From one check to the next, give or take a tenth; a second at least."""

    timeout: Wait = _M.timeout_s
    """How long one check may take in all, to the last byte. A minute at most."""

    fall: Positive = _M.fall
    """So many checks in a row must fail until it is down; before that it is degraded."""

    expect: MonitorExpectSpec | None = None
    """What an answer of `url` must be like. By default any status 2xx."""

    warn_above: Wait | None = None
    """Slower than this is degraded."""

    fail_above: Wait | None = None
    """Slower than this is a failure, though it answered."""

    critical: Flag = _M.critical
    """Whether `/api/health` is degraded while it is down, and the alert critical."""

    method: Method = _M.method
    """Of `url`."""

    headers: dict[MatchedHeader, HeaderValue] = Field(default_factory=dict)
    """To send with `url`. Where a redirect leads to another host they are left out."""

    body: Text | None = None
    """To send with `url`."""

    redirects: Count = _M.redirects
    """So many redirects of `url` are followed, at most 10; by default none, and one is an answer
    like any other."""

    tls: UpstreamTlsSpec | None = None
    """How TLS is spoken."""

    warn_before: Wait = _M.warn_before_s
    """Degraded when the certificate ends sooner than this. Holds for `certificate` and for `url`
    over https."""

    fail_before: Wait | None = None
    """Down when the certificate ends sooner than this. By default 3 days, or `warn_before` if that
    is less."""

    addresses: Positive = _M.addresses
    """The fewest addresses that `dns` must have."""

    @property
    def kinds(self) -> tuple[MonitorKind, ...]:
        """Those of the six that are said; one, in a file without fault."""
        return tuple(kind for kind in KINDS if getattr(self, kind) is not None)

    def rules(self) -> Monitor:
        """The same for those who ask."""
        kind = self.kinds[0]
        target: str = getattr(self, kind)
        expect = self.expect or MonitorExpectSpec()
        tls = self.tls or UpstreamTlsSpec()
        return Monitor(
            name=self.name,
            kind=kind,
            target=target,
            shown=shown(target),
            every_s=self.every,
            timeout_s=self.timeout,
            fall=self.fall,
            warn_above_s=self.warn_above,
            fail_above_s=self.fail_above,
            critical=self.critical,
            method=str(self.method),
            headers=tuple(self.headers.items()),
            body=self.body,
            redirects=self.redirects,
            expect=Expected(
                tuple((each.first, each.last) for each in expect.status),
                expect.body,
                tuple(expect.header.items()),
                tuple(expect.json_.items()),
            ),
            tls=MonitorTls(tls.verify, tls.ca_file, tls.server_name, tls.cert_file, tls.key_file),
            is_tls=self.tls is not None,
            warn_before_s=self.warn_before,
            fail_before_s=self.fail_before or min(_M.fail_before_s, self.warn_before),
            addresses=self.addresses,
        )


Monitors = Annotated[tuple[MonitorSpec, ...], OneOrMore]


def shown(target: str) -> str:
    """An address for people: without who and with which password, and without its query."""
    if "://" not in target:
        return target
    url = urlsplit(target)
    place = url.netloc.rpartition("@")[2]
    return urlunsplit((url.scheme, place, url.path, "", ""))


def monitors_of(specs: Sequence[MonitorSpec]) -> tuple[Monitor, ...]:
    return tuple(spec.rules() for spec in specs)


# What only some kinds have a use for.
_ONLY: Final[dict[str, tuple[MonitorKind, ...]]] = {
    "expect": ("url",),
    "method": ("url",),
    "headers": ("url",),
    "body": ("url",),
    "redirects": ("url",),
    "tls": ("url", "tcp", "certificate", "redis", "postgres"),
    "warn_before": ("url", "certificate"),
    "fail_before": ("url", "certificate"),
    "addresses": ("dns",),
}


def problems(specs: Sequence[MonitorSpec]) -> Iterator[Found]:
    """What single fields cannot say about each other: path, message, hint, whether a warning."""
    seen: dict[str, int] = {}
    if len(specs) > _MOST:
        yield (), f"has more than {_MOST} entries", "", False
    for at, spec in enumerate(specs):
        if spec.name in seen:
            hint = "history and alerts know a monitor by its name"
            yield (at, "name"), f"is the name of monitors[{seen[spec.name]}] as well", hint, False
        seen.setdefault(spec.name, at)
        for path, what, hint, is_warning in _of_one(spec):
            yield (at, *path), what, hint, is_warning


def _of_one(spec: MonitorSpec) -> Iterator[Found]:
    if len(spec.kinds) != 1:
        said = " and ".join(spec.kinds)
        what = f"asks for {said}" if said else "does not say what to ask"
        yield (), what, f"say one of {', '.join(KINDS)}", False
        return
    kind = spec.kinds[0]
    for name, kinds in _ONLY.items():
        if name in spec.model_fields_set and kind not in kinds:
            hint = f"it is for {' and '.join(kinds)}"
            yield (name,), f"means nothing for {kind}", hint, False
    yield from _of_times(spec)
    if spec.redirects > _MOST_REDIRECTS:
        yield ("redirects",), f"is more than {_MOST_REDIRECTS}", "", False
    for name in spec.headers:
        if name.lower() in _SENT_BY_US:
            yield ("headers", name), "is a header that frames the message", "leave it out", False
    if spec.body is not None and spec.method in {"GET", "HEAD"}:
        yield ("body",), f"is not sent with {spec.method}", "say method: POST", False
    if spec.method == "HEAD" and spec.expect and (spec.expect.body or spec.expect.json_):
        yield ("expect",), "asks for a body, and HEAD has none", "say method: GET", False
    if kind == "url" and spec.tls is not None and str(spec.url).startswith("http:"):
        yield ("tls",), "means nothing for http://", "write https://", False
    if kind == "redis" and spec.tls is not None and not str(spec.redis).startswith("rediss:"):
        yield ("tls",), "means nothing for redis://", "write rediss://", False
    yield from _of_tls(spec.tls)
    yield from _of_secrets(spec, kind)


def _of_times(spec: MonitorSpec) -> Iterator[Found]:
    if not _LEAST_EVERY_S <= spec.every <= _LONGEST_EVERY_S:
        yield ("every",), "is not between 1s and 1d", "", False
    if spec.timeout > _LONGEST_TIMEOUT_S:
        yield ("timeout",), "is longer than 1min", "", False
    for name in ("warn_above", "fail_above"):
        bound = getattr(spec, name)
        if bound is not None and bound >= spec.timeout:
            hint = "nothing is that slow and still in time; raise `timeout` or lower this"
            yield (name,), "is not below the time-out", hint, False
    if spec.fail_above is not None and (spec.warn_above or 0.0) > spec.fail_above:
        yield ("warn_above",), "is above fail_above", "nothing would be degraded", False
    if spec.fail_before is not None and spec.fail_before > spec.warn_before:
        yield ("fail_before",), "is above warn_before", "nothing would be degraded", False


def _of_tls(tls: UpstreamTlsSpec | None) -> Iterator[Found]:
    if tls is None:
        return
    if (tls.cert_file is None) != (tls.key_file is None):
        there = "cert_file" if tls.cert_file is not None else "key_file"
        yield ("tls", there), "is of no use alone", "say cert_file and key_file", False


def _of_secrets(spec: MonitorSpec, kind: MonitorKind) -> Iterator[Found]:
    if kind == "url":
        if urlsplit(str(spec.url)).username is not None:
            hint = 'send it: headers: {authorization: "${env:NAME}"}'
            yield ("url",), "holds a name or a password", hint, False
        names = {name.lower() for name in spec.headers}
        if "authorization" in names and str(spec.url).startswith("http:"):
            hint = "everybody on the way can read it; write https://"
            yield ("headers",), "has a secret that travels in the open", hint, True
