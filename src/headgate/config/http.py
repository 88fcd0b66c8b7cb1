"""Words of HTTP that policies speak of: methods and statuses."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema

from headgate.config.fields import Words, refuse, text_of
from headgate.config.forms import OneOrMore

__all__ = ["Method", "Methods", "StatusRange", "Statuses", "parse_statuses", "statuses_of"]

_METHOD: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}")


def _method(value: object) -> str:
    method = text_of(value)
    if not _METHOD.fullmatch(method):
        raise refuse("is not a method")
    if method.upper() == "CONNECT":
        raise refuse("cannot be routed: Headgate opens no tunnels to where a client asks")
    return method.upper()


Method = Annotated[
    str,
    PlainValidator(_method),
    Words("method"),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]},
                {"type": "string"},
            ]
        }
    ),
]
Methods = Annotated[tuple[Method, ...], OneOrMore]

_STATUSES: Final = re.compile(
    r"([1-5])xx|([1-5][0-9]{2})(?:\s*-\s*([1-5][0-9]{2}))?", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class StatusRange:
    """Statuses from ``first`` to ``last``, both included."""

    first: int
    last: int

    def __str__(self) -> str:
        """As it is written in the file."""
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


def parse_statuses(text: str) -> StatusRange:
    """Read `503`, `500-504` or `5xx`. Raises ValueError with a rule that follows the value."""
    found = _STATUSES.fullmatch(text.strip())
    if found is None:
        raise ValueError("is not a status; write 503, 500-504 or 5xx")
    if found[1]:
        return StatusRange(int(found[1]) * 100, int(found[1]) * 100 + 99)
    first = int(found[2])
    last = int(found[3] or first)
    if last < first:
        raise ValueError("is a range that ends before it begins")
    return StatusRange(first, last)


def _statuses(value: object) -> StatusRange:
    if isinstance(value, StatusRange):
        return value
    try:
        return parse_statuses(text_of(value))
    except ValueError as error:
        raise refuse(str(error)) from None


def statuses_of(ranges: Iterable[StatusRange]) -> frozenset[int]:
    """Every status that one of the ranges holds."""
    return frozenset(status for each in ranges for status in range(each.first, each.last + 1))


Status = Annotated[
    StatusRange,
    PlainValidator(_statuses),
    PlainSerializer(str, return_type=str),
    Words("status or range"),
    WithJsonSchema(
        {
            "type": ["string", "integer"],
            "pattern": r"^([1-5][xX]{2}|[1-5][0-9]{2}( ?- ?[1-5][0-9]{2})?)$",
            "examples": [503, "500-504", "5xx"],
        }
    ),
]


Statuses = Annotated[tuple[Status, ...], OneOrMore]
"""Statuses by number, range or class: `503`, `500-504`, `5xx`; one or a list."""
