"""Entries as lines: JSON, ECS, logfmt, text.

Theory of operation. A format is made once, with what is the same in every line (service, version,
host, process), and called with each entry. It returns bytes without a line end, and whatever is in
the entry, they stay on one line: JSON and logfmt escape, and text indents what follows the first
line, so that nothing a stranger sent can look like a line of its own. Lone surrogates become `?`:
others refuse JSON that has them.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from json.encoder import encode_basestring as quote
from typing import Any, Final, Protocol

from headgate.observe.logs.ecs import ECS_VERSION, is_ecs, label_of
from headgate.observe.logs.entry import Entry
from headgate.observe.logs.rules import level_name

__all__ = ["EcsFormat", "Form", "Identity", "JsonFormat", "LogfmtFormat", "TextFormat", "form_of"]

_INFINITY: Final = float("inf")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who says it."""

    service: str = ""
    version: str = ""
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)


class Form(Protocol):
    def __init__(self, identity: Identity) -> None: ...
    def __call__(self, entry: Entry) -> bytes: ...


class _Clock:
    """Wall time as text; the second is made once."""

    __slots__ = ("_second", "_text")

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def text(self, wall: float) -> str:
        second = int(wall) if 0 <= wall < 253402300800 else 0
        if second != self._second:
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second = second
        return f"{self._text}.{int((wall - second) * 1e6) if second else 0:06d}Z"


def _json(value: Any) -> str:
    kind = type(value)
    if kind is str:
        return quote(value)
    if kind is int:
        return int.__repr__(value)
    if kind is float and -_INFINITY < value < _INFINITY:
        return float.__repr__(value)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)


class JsonFormat:
    def __init__(self, identity: Identity) -> None:
        self._who = "".join(
            f',"{name}":{quote(value)}'
            for name, value in (
                ("service", identity.service),
                ("version", identity.version),
                ("host", identity.host),
            )
            if value
        ) + (f',"pid":{identity.pid}' if identity.pid else "")
        self._clock = _Clock()
        self._names: dict[tuple[int, str], str] = {}

    def __call__(self, entry: Entry) -> bytes:
        key = (entry.level, entry.logger)
        names = self._names.get(key)
        if names is None:
            if len(self._names) > 1000:
                self._names.clear()
            names = f'Z","level":"{level_name(entry.level)}","logger":{quote(entry.logger)}'
            self._names[key] = names
        parts = [
            (
                f'{{"time":"{self._clock.text(entry.wall)[:-1]}{names}'
                f',"message":{quote(entry.message)}{self._who}'
            )
        ]
        if entry.request_id:
            parts.append(f',"request_id":{quote(entry.request_id)}')
        if entry.trace_id:
            parts.append(f',"trace_id":{quote(entry.trace_id)}')
        if entry.span_id:
            parts.append(f',"span_id":{quote(entry.span_id)}')
        for name, value in entry.fields.items():
            parts.append(f",{quote(name)}:{_json(value)}")
        if entry.error is not None:
            parts.append(f',"error":{_json(entry.error)}')
        parts.append("}")
        return "".join(parts).encode("utf-8", "replace")


class EcsFormat:
    """Elastic Common Schema 8. Fields that it has no name for stand under `labels`."""

    def __init__(self, identity: Identity) -> None:
        service = identity.service
        self._who = {
            "ecs.version": ECS_VERSION,
            **({"service.name": service, "event.dataset": f"{service}.log"} if service else {}),
            **({"service.version": identity.version} if identity.version else {}),
            **({"host.hostname": identity.host} if identity.host else {}),
            **({"process.pid": identity.pid} if identity.pid else {}),
        }
        self._clock = _Clock()

    def __call__(self, entry: Entry) -> bytes:
        line: dict[str, Any] = {
            "@timestamp": self._clock.text(entry.wall),
            "log.level": level_name(entry.level),
            "message": entry.message,
            **self._who,
            "log.logger": entry.logger,
        }
        ids = (
            ("http.request.id", entry.request_id),
            ("trace.id", entry.trace_id),
            ("span.id", entry.span_id),
        )
        line.update({name: value for name, value in ids if value})
        error = entry.error
        if error is not None:
            told = (("type", "type"), ("message", "message"), ("stack_trace", "stack"))
            line.update({f"error.{name}": error[of] for name, of in told if error.get(of)})
        labels: dict[str, Any] = {}
        for name, value in entry.fields.items():
            if is_ecs(name) and name not in line:
                line[name] = value
            else:
                labels[label_of(name)] = (
                    value if isinstance(value, str | int | float | bool) else _json(value)
                )
        if labels:
            line["labels"] = labels
        return _json(line).encode("utf-8", "replace")


class LogfmtFormat:
    def __init__(self, identity: Identity) -> None:
        self._who = "".join(
            f" {name}={_logfmt(value)}"
            for name, value in (
                ("service", identity.service),
                ("version", identity.version),
                ("host", identity.host),
                ("pid", identity.pid or ""),
            )
            if value
        )
        self._clock = _Clock()

    def __call__(self, entry: Entry) -> bytes:
        parts = [
            (
                f"time={self._clock.text(entry.wall)} level={level_name(entry.level)}"
                f" logger={_logfmt(entry.logger)} message={_logfmt(entry.message)}{self._who}"
            )
        ]
        parts.extend(f" {name}={_logfmt(value)}" for name, value in _ids(entry))
        parts.extend(f" {_key(name)}={_logfmt(value)}" for name, value in entry.fields.items())
        if entry.error is not None:
            parts.extend(
                f" error.{name}={_logfmt(value)}" for name, value in entry.error.items() if value
            )
        return "".join(parts).encode("utf-8", "replace")


class TextFormat:
    """For people."""

    def __init__(self, identity: Identity) -> None:
        self._pid = f"[{identity.pid}]" if identity.pid else ""
        self._second = -1
        self._text = ""

    def __call__(self, entry: Entry) -> bytes:
        second = int(entry.wall) if 0 <= entry.wall < 253402300800 else 0
        if second != self._second:
            self._text = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
            self._second = second
        millis = int((entry.wall - second) * 1000) if second else 0
        text = (
            f"{self._text},{millis:03d} {level_name(entry.level).upper()} "
            f"{_one_line(entry.logger)}{self._pid}: {_one_line(entry.message)}"
        )
        shown = [f"{name}={_logfmt(value)}" for name, value in _ids(entry)]
        shown += [f"{_key(name)}={_logfmt(value)}" for name, value in entry.fields.items()]
        if shown:
            text = f"{text} {' '.join(shown)}"
        if entry.error is not None and (stack := entry.error.get("stack")):
            lines = str(stack).splitlines()
            text = "\n    ".join((text, *(_one_line(line) for line in lines)))
        return text.encode("utf-8", "replace")


def _ids(entry: Entry) -> list[tuple[str, str]]:
    ids = (
        ("request_id", entry.request_id),
        ("trace_id", entry.trace_id),
        ("span_id", entry.span_id),
    )
    return [(name, value) for name, value in ids if value]


def _one_line(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def _key(name: str) -> str:
    return "".join(char if char.isalnum() or char in "_.-@/" else "_" for char in name) or "_"


def _logfmt(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    text = value if isinstance(value, str) else _json(value)
    if text and text.isprintable() and not any(char in text for char in ' "=\\'):
        return text
    return quote(_one_line(text)) if not text.isprintable() else quote(text)


_FORMS: Final[Mapping[str, type[Form]]] = {
    "json": JsonFormat,
    "ecs": EcsFormat,
    "text": TextFormat,
    "logfmt": LogfmtFormat,
}


def form_of(name: str, identity: Identity) -> Form:
    """Raises ValueError for a format that there is not."""
    made = _FORMS.get(name)
    if made is None:
        raise ValueError(f'"{name}" is no format; there are {", ".join(_FORMS)}')
    return made(identity)
