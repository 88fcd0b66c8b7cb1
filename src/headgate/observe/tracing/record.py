"""A span that has ended, as everybody here exchanges it: gateway, services, control, store, export.

Theory of operation
-------------------
A `SpanRecord` is a value: nothing in it changes, and nobody who gets one has to ask whose it is.
`to_json` is the form for channels between processes: a short list, not a mapping, because names of
fields would be half of what is sent. `of_json` trusts nobody: a worker may be of an older version,
a service may lie; whatever is not exactly a span is a `ValueError` that says why, and no other
exception comes out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast, get_args

__all__ = [
    "UNDECIDED",
    "Kind",
    "SpanEvent",
    "SpanLink",
    "SpanRecord",
    "Status",
    "Value",
]

Kind = Literal["server", "client", "internal", "producer", "consumer"]
Status = Literal["unset", "ok", "error"]
Value = str | int | float | bool

KINDS: Final = frozenset(get_args(Kind))
STATUSES: Final = frozenset(get_args(Status))
UNDECIDED: Final = "headgate.undecided"
"""On a span that its service has not kept for itself, but would if another one did."""
MAX_ATTRIBUTES: Final = 128
MAX_EVENTS: Final = 128
MAX_TEXT: Final = 16_384
MAX_NAME: Final = 1_024
MAX_SECONDS: Final = 1e10  # a wall time beyond this is no second of ours: year 2286
_TRACE_ID: Final = re.compile(r"(?!0{32})[0-9a-f]{32}")
_SPAN_ID: Final = re.compile(r"(?!0{16})[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class SpanEvent:
    """Something that happened at one moment of a span: a retry, an exception."""

    at: float
    """Wall time, in seconds."""
    name: str
    attributes: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SpanLink:
    """Another span that this one has to do with, and is no child of: a batch names its messages."""

    trace_id: str
    span_id: str
    attributes: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SpanRecord:
    trace_id: str
    """32 hexadecimal digits, lower case, not all zero."""
    span_id: str
    """16 of them."""
    parent_id: str
    """That of the parent, "" for the root of a trace."""
    name: str
    kind: Kind
    start: float
    """Wall time, in seconds."""
    duration_s: float
    status: Status = "unset"
    service: str = ""
    attributes: Mapping[str, Value] = field(default_factory=dict)
    """Named as the OpenTelemetry semantic conventions do, and `headgate.*`."""
    events: tuple[SpanEvent, ...] = ()
    links: tuple[SpanLink, ...] = ()

    def to_json(self) -> list[Any]:
        """What `json.dumps` and msgpack take; events and links stand only where there are any."""
        row: list[Any] = [
            self.trace_id,
            self.span_id,
            self.parent_id,
            self.name,
            self.kind,
            self.start,
            self.duration_s,
            self.status,
            self.service,
            dict(self.attributes),
        ]
        if self.events or self.links:
            row.append([[one.at, one.name, dict(one.attributes)] for one in self.events])
        if self.links:
            row.append([[one.trace_id, one.span_id, dict(one.attributes)] for one in self.links])
        return row

    @classmethod
    def of_json(cls, row: object) -> SpanRecord:
        """The span that `to_json` wrote. `ValueError` for anything else."""
        if not isinstance(row, list | tuple) or not 10 <= len(row) <= 12:
            raise ValueError("a span is a list of 10 to 12 fields")
        trace_id, span_id, parent_id, name, kind, start, duration_s, status, service, attrs = row[
            :10
        ]
        _id(trace_id, _TRACE_ID, "trace id")
        _id(span_id, _SPAN_ID, "span id")
        if parent_id != "":
            _id(parent_id, _SPAN_ID, "parent id")
        if not isinstance(kind, str) or kind not in KINDS:
            raise ValueError("no such kind of span")
        if not isinstance(status, str) or status not in STATUSES:
            raise ValueError("no such status of a span")
        return cls(
            trace_id,
            span_id,
            parent_id,
            _text(name, MAX_NAME),
            cast("Kind", kind),
            _seconds(start),
            _seconds(duration_s),
            cast("Status", status),
            _text(service, MAX_NAME),
            attributes_of(attrs),
            tuple(_event(one) for one in _list(row[10])) if len(row) > 10 else (),
            tuple(_link(one) for one in _list(row[11])) if len(row) > 11 else (),
        )


def attributes_of(value: object) -> Mapping[str, Value]:
    """A mapping of plain values, long texts cut. `ValueError` for anything else."""
    if not isinstance(value, Mapping) or len(value) > MAX_ATTRIBUTES:
        raise ValueError("attributes are a mapping of at most 128")
    is_long = False
    for key, one in value.items():
        if not isinstance(key, str) or len(key) > MAX_NAME:
            raise ValueError("an attribute has no name")
        if isinstance(one, str):
            is_long = is_long or len(one) > MAX_TEXT
        elif isinstance(one, float):
            if not math.isfinite(one):
                raise ValueError("an attribute is no number")
        elif not isinstance(one, bool) and (
            not isinstance(one, int) or not -(1 << 63) <= one < 1 << 63
        ):
            raise ValueError("an attribute is neither text nor number nor true nor false")
    if is_long:
        return {k: v[:MAX_TEXT] if isinstance(v, str) else v for k, v in value.items()}
    return dict(value)


def is_trace_id(text: object) -> bool:
    return isinstance(text, str) and _TRACE_ID.fullmatch(text) is not None


def is_span_id(text: object) -> bool:
    return isinstance(text, str) and _SPAN_ID.fullmatch(text) is not None


def _id(value: object, pattern: re.Pattern[str], what: str) -> None:
    if not isinstance(value, str) or pattern.fullmatch(value) is None:
        raise ValueError(f"no {what}")


def _text(value: object, most: int) -> str:
    if not isinstance(value, str):
        raise ValueError("a name is no text")
    return value[:most]


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("a time is no number")
    if not 0 <= value <= MAX_SECONDS:
        raise ValueError("a time is out of range")
    return float(value)


def _list(value: object) -> list[Any] | tuple[Any, ...]:
    if not isinstance(value, list | tuple) or len(value) > MAX_EVENTS:
        raise ValueError("events and links are lists of at most 128")
    return value


def _event(row: object) -> SpanEvent:
    if not isinstance(row, list | tuple) or len(row) != 3:
        raise ValueError("an event is a list of three")
    return SpanEvent(_seconds(row[0]), _text(row[1], MAX_NAME), attributes_of(row[2]))


def _link(row: object) -> SpanLink:
    if not isinstance(row, list | tuple) or len(row) != 3:
        raise ValueError("a link is a list of three")
    _id(row[0], _TRACE_ID, "trace id")
    _id(row[1], _SPAN_ID, "span id")
    return SpanLink(row[0], row[1], attributes_of(row[2]))
