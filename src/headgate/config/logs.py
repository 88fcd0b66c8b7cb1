"""How Headgate's own processes log, as the file says it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, PlainValidator, WithJsonSchema

from headgate.config.fields import (
    Duration,
    PathMark,
    Positive,
    Size,
    Spec,
    Text,
    Wait,
    Words,
    refuse,
    text_of,
)
from headgate.config.forms import OneOrMore, OrFalse, Shorthand
from headgate.observe.logs.rules import (
    KINDS,
    LEVELS,
    FileRotation,
    LogRules,
    RepeatRules,
    SinkRules,
    StoreRules,
    level_number,
)

__all__ = ["LogSinkSpec", "LoggingSpec", "problems"]

_SINK: Final = SinkRules()
_ROTATION: Final = FileRotation()
_REPEATS: Final = RepeatRules()
_STORE: Final = StoreRules()
_MB: Final = 1024 * 1024
Found = tuple[tuple[str | int, ...], str, str, bool]
# As syslog's own tools call them.
_FACILITIES: Final = {
    "kern": 0, "user": 1, "daemon": 3, "auth": 4, "authpriv": 10,
    **{f"local{number}": 16 + number for number in range(8)},
}  # fmt: skip


def _facility(value: object) -> str:
    text = text_of(value).strip().lower()
    if text not in _FACILITIES:
        raise refuse(f"is no facility of syslog; there are {', '.join(_FACILITIES)}")
    return text


def _level(value: object) -> str:
    text = text_of(value).strip().lower()
    try:
        level_number(text)
    except ValueError:
        raise refuse(f"is no level; there are {', '.join(LEVELS)}") from None
    return text


def _level_name(value: object) -> object:
    text = _level(value)
    return "warning" if text == "warn" else text


Level = Annotated[
    str,
    PlainValidator(_level_name),
    Words("`debug`, `info`, `warning`, `error` or `critical`"),
    WithJsonSchema({"enum": list(LEVELS)}),
]
LogFormat = Annotated[
    Literal["json", "ecs", "text", "logfmt"], Words("`json`, `ecs`, `text` or `logfmt`")
]


class LogRotationSpec(Spec):
    """When a log file is turned over, and what is kept."""

    size: Size = _ROTATION.size_bytes
    """A file of this size is full. Zero is no bound."""

    every: Duration = _ROTATION.every_s
    """A file of this age is full, such as `1d`. Not by age unless said."""

    keep: Positive = _ROTATION.keep
    """So many full files are kept."""

    compress: bool = _ROTATION.compress
    """Whether full files become `.gz`."""


class LogRepeatsSpec(Spec):
    """The same message again and again, from the same logger at the same level: the first few are
    written, the rest is counted and said in one line.
    """

    most: Positive = _REPEATS.most
    """So many are written."""

    within: Wait = _REPEATS.within_s
    """In so long."""

    level: Level = "warning"
    """From this level on; what is below is never held back."""


class LogStoreSpec(Spec):
    """What can be searched by `headgate logs` and the admin API. It is kept by the control process
    in `logs` in the state directory.
    """

    size: Size = _STORE.size_bytes
    """The most room on the disk; 1MB at least. Beyond it the oldest lines go, in eighths."""

    keep: Wait = _STORE.keep_s
    """How long lines are kept."""

    access: Annotated[
        Literal["errors", "all", "off"],
        BeforeValidator(lambda value: "off" if value is False else value),
    ] = _STORE.access
    """Lines of the access log that are kept as well: of requests that ended with an error of the
    gateway or a status of 500 and above, all, or none. The access log must be `json` for it."""

    level: Level = "debug"
    """Lines of Headgate's processes and of services from this level on: all that is said."""


class LogSinkSpec(Spec):
    """A place where lines go. Each has a queue of its own; what does not fit is counted as
    dropped, and no request waits for it.
    """

    kind: Literal["stdout", "stderr", "file", "elasticsearch", "loki", "syslog", "otlp"] = "file"
    """`stdout`, `stderr`, `file`, `elasticsearch` (by `_bulk`; OpenSearch as well), `loki`,
    `syslog` (RFC 5424) or `otlp` (OpenTelemetry over HTTP)."""

    format: LogFormat | None = None
    """As `format` above; for Elasticsearch `ecs` unless said."""

    level: Level | None = None
    """Lines from this level on; all unless said."""

    path: (
        Annotated[
            str,
            PlainValidator(text_of),
            PathMark(),
            Words("file"),
            WithJsonSchema({"type": "string"}),
        ]
        | None
    ) = None
    """The file, for `file`; for `syslog` the socket on this machine, such as `/dev/log`."""

    rotate: LogRotationSpec = LogRotationSpec()
    """When the file is turned over. It is also opened anew on SIGUSR1."""

    url: Text | None = None
    """Where it is: `http://elastic:9200`, `https://loki:3100`, `http://collector:4318`; for
    `syslog` `udp://host:514`, `tcp://host:514` or `tls://host:6514`. `user:password@` may stand
    before the host; write a password as `${env:NAME}`."""

    index: Text = _SINK.index
    """The index or data stream in Elasticsearch, with the line's own day in it."""

    labels: dict[Text, Text] = Field(default_factory=dict)
    """Labels in Loki beside `service`, `host` and `level`. Few and constant."""

    headers: dict[Text, Text] = Field(default_factory=dict)
    """Headers to send along, such as `Authorization: ApiKey ...` or `X-Scope-OrgID`."""

    ca_file: (
        Annotated[
            str,
            PlainValidator(text_of),
            PathMark(must_exist=True),
            Words("file"),
            WithJsonSchema({"type": "string"}),
        ]
        | None
    ) = None
    """Certificates of authorities to trust, as PEM, in place of the system's."""

    facility: Annotated[
        str,
        PlainValidator(_facility),
        Words("a facility of syslog"),
        WithJsonSchema({"enum": list(_FACILITIES)}),
    ] = "local0"
    """The facility in syslog."""

    timeout: Wait = _SINK.timeout_s
    """How long one delivery may take."""

    queue: Size = _SINK.queue_bytes
    """What may wait for this sink, in each process; 64KB at least."""

    def rules(self) -> SinkRules:
        return SinkRules(
            kind=self.kind,
            format=self.format,
            level=level_number(self.level) if self.level is not None else 0,
            path=self.path or "",
            rotation=FileRotation(
                self.rotate.size, self.rotate.every, self.rotate.keep, self.rotate.compress
            ),
            url=self.url or "",
            index=self.index,
            labels=tuple(sorted(self.labels.items())),
            headers=tuple(sorted(self.headers.items())),
            ca_file=self.ca_file,
            facility=_FACILITIES[self.facility],
            timeout_s=self.timeout,
            queue_bytes=self.queue,
        )


def _sink(value: object) -> object:
    if isinstance(value, Mapping) or not isinstance(value, str):
        return value
    return {"kind": value} if value in {"stdout", "stderr"} else {"kind": "file", "path": value}


LogSink = Annotated[
    LogSinkSpec,
    Shorthand(
        _sink,
        {"type": "string", "examples": ["stderr", "stdout", "logs/headgate.log"]},
        "or `stdout`, `stderr` or a file",
    ),
]


class LoggingSpec(Spec):
    """What the processes of Headgate say of themselves. Requests are in `access_log`."""

    format: LogFormat = "text"
    """`text` for people, `json`, `ecs` (Elastic Common Schema 8) or `logfmt`."""

    level: Level = "info"
    """Lines from this level on."""

    levels: dict[Text, Level] = Field(default_factory=dict)
    """Levels of single loggers and what is below them, such as `headgate.gateway: debug`. They can
    be changed for a while with `headgate logs level`."""

    sinks: Annotated[tuple[LogSink, ...], OneOrMore] = (LogSinkSpec(kind="stderr"),)
    """Where lines go. What is said here takes the place of `stderr`."""

    repeats: Annotated[LogRepeatsSpec | Literal[False], OrFalse()] = LogRepeatsSpec()
    """Holding repeated warnings back; `false` writes all."""

    store: Annotated[LogStoreSpec | Literal[False], OrFalse()] = LogStoreSpec()
    """The searchable store; `false` keeps none."""

    def rules(self) -> LogRules:
        """The same for `headgate.observe.logs`."""
        repeats = self.repeats
        return LogRules(
            format=self.format,
            level=level_number(self.level),
            levels={
                "" if name == "root" else name: level_number(level)
                for name, level in self.levels.items()
            },
            sinks=tuple(sink.rules() for sink in self.sinks),
            repeats=RepeatRules(repeats.most, repeats.within, level_number(repeats.level))
            if isinstance(repeats, LogRepeatsSpec)
            else None,
        )

    def store_rules(self) -> StoreRules:
        store = self.store
        if not isinstance(store, LogStoreSpec):
            return StoreRules(is_on=False, access="off")
        return StoreRules(store.size, store.keep, store.access, level_number(store.level))


def problems(spec: LoggingSpec | Any) -> Iterator[Found]:
    """What single fields cannot say about each other."""
    if isinstance(spec.store, LogStoreSpec) and spec.store.size < _MB:
        yield ("store", "size"), "is less than 1MB", "write `store: false` to keep none", False
    seen: dict[str, int] = {}
    for at, sink in enumerate(spec.sinks):
        loc = ("sinks", at)
        yield from (((*loc, *where), what, hint, soft) for where, what, hint, soft in _one(sink))
        if sink.kind in {"file", "stdout", "stderr"}:
            name = sink.path or sink.kind
            if name in seen:
                hint = f"sinks[{seen[name]}] writes there as well: every line would stand twice"
                yield loc, "is a second sink to the same place", hint, False
            seen.setdefault(name, at)


def _one(sink: LogSinkSpec) -> Iterator[Found]:
    if sink.kind not in KINDS:
        return
    if sink.queue < 64 * 1024:
        yield ("queue",), "is less than 64KB", "", False
    if sink.kind == "file" and not sink.path:
        yield (), "has no `path`", "name the file: {kind: file, path: logs/headgate.log}", False
    if sink.kind in {"elasticsearch", "loki", "otlp"}:
        yield from _http(sink)
    if sink.kind == "syslog":
        yield from _syslog(sink)


def _http(sink: LogSinkSpec) -> Iterator[Found]:
    parts = _split(sink.url or "")
    if parts is None or parts[0] not in {"http", "https"}:
        hint = f"write {{kind: {sink.kind}, url: http://host:port}}"
        where = ("url",) if sink.url else ()
        yield where, "is no URL of HTTP" if sink.url else "has no `url`", hint, False
    elif parts[0] == "http" and (sink.headers or parts[2]) and parts[1] not in _LOCAL:
        yield ("url",), "carries a credential in the clear", "use https://", True
    if sink.kind == "elasticsearch" and sink.format not in {None, "json", "ecs"}:
        yield ("format",), "is nothing that Elasticsearch reads", "write `ecs` or `json`", False


def _syslog(sink: LogSinkSpec) -> Iterator[Found]:
    if bool(sink.path) == bool(sink.url):
        hint = "write {kind: syslog, path: /dev/log} or {kind: syslog, url: tls://host:6514}"
        yield (), "needs a `path` or a `url`, one of the two", hint, False
        return
    parts = _split(sink.url) if sink.url else ("unix", "", False)
    if parts is None or parts[0] not in {"udp", "tcp", "tls", "unix"}:
        yield ("url",), "is no place of syslog", "write udp://, tcp:// or tls://host:port", False


_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def _split(url: str) -> tuple[str, str, bool] | None:
    """Scheme, host, and whether it names a user."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return (parts.scheme, parts.hostname, bool(parts.username)) if parts.hostname else None
