"""One thing that was said, before it has a form: what the formats make lines of.

Theory of operation. `Maker.of` turns a record of the standard library into an `Entry`. Everything a
program or a stranger chose passes here: it is bounded first (a redactor must not look at 100 MB),
then redacted. What a record has under a name that we write ourselves gets `_` behind its name, so
that no line has a name twice and nobody can forge `trace_id` by a field.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from headgate.observe.logs import context
from headgate.observe.logs.values import MESSAGE_MAX, TEXT_MAX, bounded, plain, told_error

__all__ = ["OWN_NAMES", "Entry", "Maker", "Redacts", "entry_of"]

OWN_NAMES: Final = frozenset(
    {
        "time", "level", "logger", "message", "service", "version", "host", "pid",
        "request_id", "trace_id", "span_id", "error",
    }
)  # fmt: skip
_FIELDS_MAX: Final = 100
_sample = logging.LogRecord("", 0, "", 0, "", (), None)
STANDARD: Final = frozenset(
    {*_sample.__dict__, "message", "asctime", "taskName", "color_message", "_fields"}
)
_USUAL: Final = len(_sample.__dict__)


class Redacts(Protocol):
    """What `headgate.security.redact.Redactor` does."""

    def text(self, text: str) -> str: ...
    def value(self, value: Any, name: str = "") -> Any: ...


@dataclass(slots=True)
class Entry:
    wall: float
    level: int
    logger: str
    message: str
    request_id: str
    trace_id: str
    span_id: str
    fields: Mapping[str, Any]
    error: Mapping[str, Any] | None = None


class Maker:
    def __init__(self, redactor: Redacts | None = None) -> None:
        self.redactor = redactor

    def of(self, record: logging.LogRecord) -> Entry:
        redactor = self.redactor
        message = _message(record)
        if redactor is not None:
            message = redactor.text(message)
        held = record.__dict__
        ids = context.current()
        outer = context.bound_fields()
        fields: dict[str, Any] = {}
        own = held.get("_fields")
        if outer:
            self._add(fields, outer)
        if own:
            self._add(fields, own)
        if len(held) > _USUAL + (own is not None):
            self._add(fields, {k: v for k, v in held.items() if k not in STANDARD})
        request_id = trace_id = span_id = ""
        if ids or fields:
            request_id = str(ids.get("request_id") or fields.pop("request_id_", ""))[:128]
            trace_id = str(ids.get("trace_id") or fields.pop("trace_id_", ""))[:128]
            span_id = str(ids.get("span_id") or fields.pop("span_id_", ""))[:128]
        error = None
        info = record.exc_info
        if info or record.exc_text or record.stack_info:
            error = self._error(record)
        return Entry(
            record.created,
            record.levelno,
            record.name,
            message,
            request_id,
            trace_id,
            span_id,
            fields,
            error,
        )

    def _add(self, fields: dict[str, Any], more: Mapping[str, Any]) -> None:
        redactor = self.redactor
        for name, value in more.items():
            if len(fields) >= _FIELDS_MAX:
                return
            key = name if type(name) is str and len(name) <= 128 else bounded(str(name), 128)
            kind = type(value)
            if kind is bool or (kind is str and len(value) <= TEXT_MAX):
                shown = value
            else:
                shown = plain(value)
            if redactor is not None:
                shown = redactor.value(shown, key)
            fields[f"{key}_" if key in OWN_NAMES else key] = shown

    def _error(self, record: logging.LogRecord) -> Mapping[str, Any]:
        info = record.exc_info
        if info and info[0] is not None:
            told = told_error(*info, stack=record.exc_text)
        else:
            told = {"stack": bounded(record.exc_text or record.stack_info or "")}
        redactor = self.redactor
        if redactor is not None:
            told = {name: redactor.value(value) for name, value in told.items()}
        return told


def _message(record: logging.LogRecord) -> str:
    message = record.msg
    if type(message) is str and not record.args:
        return message if len(message) <= MESSAGE_MAX else bounded(message, MESSAGE_MAX)
    try:
        return bounded(record.getMessage(), MESSAGE_MAX)
    except Exception as error:  # noqa: BLE001  arguments that do not fit are no reason to lose it
        return f"{bounded(str(message), 2000)} [its arguments do not fit: {type(error).__name__}]"


def entry_of(said: Mapping[str, Any], wall: float, number_of: Callable[[str], int]) -> Entry:
    """An entry of a line of JSON that a service has sent. Raises ValueError for none."""
    message = said.get("message", said.get("msg", ""))
    level = said.get("level", said.get("log.level", "info"))
    at = said.get("time", said.get("@timestamp"))
    if isinstance(at, bool) or not isinstance(at, int | float):
        at = wall
    fields = {
        f"{name}_" if name in OWN_NAMES else name: plain(value)
        for name, value in list(said.items())[:_FIELDS_MAX]
        if name not in OWN_NAMES and name not in {"msg", "@timestamp", "log.level"}
    }
    error = said.get("error")
    return Entry(
        float(at),
        number_of(str(level)) if isinstance(level, str) else int(level),
        bounded(str(said.get("logger", "")), 200),
        bounded(str(message), MESSAGE_MAX),
        bounded(str(said.get("request_id") or ""), 128),
        bounded(str(said.get("trace_id") or ""), 128),
        bounded(str(said.get("span_id") or ""), 128),
        fields,
        plain(error) if isinstance(error, Mapping) else None,
    )
