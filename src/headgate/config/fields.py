"""What a field of the file may hold: the types that the models are made of.

Theory of operation
-------------------
A document that reaches the models holds only what JSON can: strings, whole and broken numbers,
true and false, lists, mappings. Three rules make one model serve a YAML file, a resolved
``${env:PORT}`` and a Python caller alike:

- Every type also takes its value as a string, because references resolve to strings.
- Text fields take plain numbers (``http: 2``, ``x-version: 1``); the loader has kept as text
  every number whose spelling would be lost (``1.10``, ``0600``), so nothing changes on the way.
- A key with nothing after it (null) is a key not said, and gets its default.

A refusal never contains the value: it may be a secret. It states the rule, and
``config.faults`` puts before it what stands in the file, which for a reference is the
reference.

Types carry their own JSON Schema, in the form the file is written in and not the one the code
reads: a duration is a pattern, not a number of seconds.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from headgate.units import Rate as RateValue
from headgate.units import (
    UnitError,
    format_rate,
    parse_duration,
    parse_percent,
    parse_rate,
    parse_size,
)

__all__ = [
    "Count",
    "Duration",
    "FilePath",
    "Flag",
    "HeaderName",
    "HeaderValue",
    "Network",
    "Number",
    "Percent",
    "Positive",
    "Rate",
    "Ratio",
    "Size",
    "Spec",
    "Text",
    "Unit",
    "Wait",
    "Whole",
    "Words",
    "refuse",
    "text_of",
]


class Spec(BaseModel):
    """The base of every model: frozen, strict about its keys, documented by its docstrings."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        protected_namespaces=(),
        hide_input_in_errors=True,  # a foreign traceback must not print a secret either
    )

    @model_validator(mode="before")
    @classmethod
    def _null_is_not_said(cls, data: Any) -> Any:
        if isinstance(data, dict) and None in data.values():
            return {key: value for key, value in data.items() if value is not None}
        return data


def refuse(rule: str, *, kind: str = "refused", takes_value: bool = True) -> PydanticCustomError:
    """The error a validator raises: a rule that reads on after the value ("is not a ...").

    With ``takes_value=False`` the rule is a whole sentence and no value is put before it.
    """
    return PydanticCustomError(kind if takes_value else f"{kind}_alone", "{rule}", {"rule": rule})


# -- plain values -------------------------------------------------------------------------


def text_of(value: object) -> str:
    """The text of a scalar, as it stood in the file."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    raise refuse("must be text", kind="type")


TRUE: Final = frozenset({"true", "yes", "on"})
FALSE: Final = frozenset({"false", "no", "off"})
_WHOLE: Final = re.compile(r"-?[0-9]{1,18}")
_BROKEN: Final = re.compile(r"-?[0-9]{1,9}(\.[0-9]{1,9})?")


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        word = value.strip().lower()
        if word in TRUE:
            return True
        if word in FALSE:
            return False
    raise refuse("is neither true nor false", kind="type")


def _whole(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        if abs(value) < 10**18:
            return value
        raise refuse("is too large a number")
    if isinstance(value, str) and _WHOLE.fullmatch(value.strip()):
        return int(value)
    raise refuse("is not a whole number", kind="type")


def _number(value: object) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if abs(value) < 10**9:
            return float(value)
        raise refuse("is too large a number")
    if isinstance(value, str) and _BROKEN.fullmatch(value.strip()):
        return float(value)
    raise refuse("is not a number", kind="type")


def _wait(value: object) -> float:
    seconds = parse_duration(value)
    if seconds <= 0:
        raise UnitError(value, "is no time at all; write a duration above zero such as 5s")
    return seconds


def _unit(parse: Callable[[object], Any]) -> Callable[[object], Any]:
    def validate(value: object) -> Any:
        try:
            return parse(value)
        except UnitError as error:
            raise refuse(error.rule, kind="unit") from None

    return validate


@dataclass(frozen=True, slots=True)
class Unit:
    """Marks a number that is written with a unit, for the reference and the schema."""

    name: Literal["duration", "size", "rate", "percent"]


@dataclass(frozen=True, slots=True)
class Words:
    """How the reference names a type of text."""

    text: str


DURATION_PATTERN: Final = (
    r"^[0-9]+(\.[0-9]+)?( ?(us|ms|s|sec|min|m|h|d)( ?[0-9]+(\.[0-9]+)? ?(us|ms|s|sec|min|m|h))*)?$"
)
SIZE_PATTERN: Final = r"^[0-9]+(\.[0-9]+)? ?([kKmMgGtT]?([iI]?[bB])?)$"
RATE_PATTERN: Final = r"^[0-9]+(\.[0-9]+)? ?/ ?[0-9]*(\.[0-9]+)? ?(us|ms|s|sec|min|m|h|d)$"
PERCENT_PATTERN: Final = r"^[0-9]+(\.[0-9]+)?( ?%)?$"


def _number_or(pattern: str, *examples: str, maximum: int | None = None) -> dict[str, Any]:
    number: dict[str, Any] = {"type": "number", "minimum": 0}
    if maximum is not None:
        number["maximum"] = maximum
    return {
        "anyOf": [{"type": "string", "pattern": pattern}, number],
        "examples": list(examples),
    }


Text = Annotated[
    str, PlainValidator(text_of), Words("text"), WithJsonSchema({"type": ["string", "number"]})
]
Flag = Annotated[bool, BeforeValidator(_flag)]
Count = Annotated[int, BeforeValidator(_whole), Field(ge=0)]
Positive = Annotated[int, BeforeValidator(_whole), Field(ge=1)]
Whole = Annotated[int, BeforeValidator(_whole)]
Number = Annotated[float, BeforeValidator(_number), Words("number")]

Duration = Annotated[
    float,
    PlainValidator(_unit(parse_duration)),
    Unit("duration"),
    WithJsonSchema(_number_or(DURATION_PATTERN, "250ms", "30s", "5min", "1h")),
]
Wait = Annotated[
    float,
    PlainValidator(_unit(_wait)),
    Unit("duration"),
    WithJsonSchema(_number_or(DURATION_PATTERN, "250ms", "30s", "5min", "1h")),
]
"""A duration that may not be zero: a limit on waiting, where zero would fail every request."""
Size = Annotated[
    int,
    PlainValidator(_unit(parse_size)),
    Unit("size"),
    WithJsonSchema(_number_or(SIZE_PATTERN, "1KB", "10MB")),
]
Percent = Annotated[
    float,
    PlainValidator(_unit(parse_percent)),
    Unit("percent"),
    WithJsonSchema(_number_or(PERCENT_PATTERN, "50%", maximum=1)),
]


def _ratio(value: object) -> float:
    """As a percentage, but of more than the whole: "125%"."""
    text = text_of(value).strip()
    found = _RATIO.fullmatch(text)
    if found is None:
        raise refuse("is not a percentage; write 125% or a factor such as 1.25", kind="unit")
    return float(found[1]) / 100 if found[2] else float(found[1])


_RATIO: Final = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,6})?) ?(%?)")
Ratio = Annotated[
    float,
    PlainValidator(_ratio),
    Unit("percent"),
    WithJsonSchema(_number_or(PERCENT_PATTERN, "125%")),
]
"""A percentage that may be over 100."""
Rate = Annotated[
    RateValue,
    PlainValidator(_unit(parse_rate)),
    PlainSerializer(format_rate, return_type=str),
    Unit("rate"),
    WithJsonSchema({"type": "string", "pattern": RATE_PATTERN, "examples": ["1000/15min"]}),
]


# -- names and addresses ------------------------------------------------------------------

_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 section 5.6.2
_FIELD_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")  # section 5.5, latin-1
# Headers that frame the message or name the connection belong to the engine: a file that
# could set them could desynchronise two parsers.
_FRAMING: Final = frozenset(
    {
        "connection",
        "content-length",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


def _header_name(value: object) -> str:
    name = text_of(value)
    if not _TOKEN.fullmatch(name):
        raise refuse("is not a header name: only letters, digits and !#$%&'*+-.^_`|~ may stand")
    if name.lower() in _FRAMING:
        raise refuse("is a header that belongs to the engine and cannot be edited here")
    return name


def _any_header_name(value: object) -> str:
    name = text_of(value)
    if not _TOKEN.fullmatch(name):
        raise refuse("is not a header name: only letters, digits and !#$%&'*+-.^_`|~ may stand")
    return name


def _header_value(value: object) -> str:
    text = text_of(value).strip(" \t")
    if not _FIELD_VALUE.fullmatch(text):
        raise refuse("cannot stand in a header: no line breaks, control or non-latin characters")
    return text


HeaderName = Annotated[
    str,
    PlainValidator(_header_name),
    Words("header name"),
    WithJsonSchema({"type": "string", "pattern": r"^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$"}),
]
"""A header an operator may set, add, remove or rename."""

MatchedHeader = Annotated[
    str,
    PlainValidator(_any_header_name),
    Words("header name"),
    WithJsonSchema({"type": "string", "pattern": r"^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$"}),
]
"""A header that is only looked at, which may be any."""

HeaderValue = Annotated[
    str,
    PlainValidator(_header_value),
    Words("text"),
    WithJsonSchema({"type": ["string", "number"]}),
]


def _network(value: object) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    if isinstance(value, (ipaddress.IPv4Network, ipaddress.IPv6Network)):
        return value
    try:
        return ipaddress.ip_network(text_of(value).strip())
    except ValueError as error:
        if "host bits" in str(error):
            raise refuse("has bits set beyond its prefix; write 10.0.0.0/8") from None
        raise refuse("is not an address or network; write 10.0.0.0/8 or ::1") from None


Network = Annotated[
    ipaddress.IPv4Network | ipaddress.IPv6Network,
    PlainValidator(_network),
    PlainSerializer(str, return_type=str),
    Words("address or network"),
    WithJsonSchema({"type": "string", "examples": ["10.0.0.0/8", "127.0.0.1", "fd00::/8"]}),
]


@dataclass(frozen=True, slots=True)
class PathMark:
    """Marks text that names a file: the loader makes it absolute, beside the file it is in.

    ``words`` are the values that are no path, such as "stdout". ``must_exist`` files are looked
    for when the configuration is loaded.
    """

    must_exist: bool = False
    words: tuple[str, ...] = ()


def _path(value: object) -> str:
    path = text_of(value)
    if not path or "\0" in path:
        raise refuse("is not a file name")
    return path


FilePath = Annotated[
    str,
    PlainValidator(_path),
    PathMark(must_exist=True),
    Words("file"),
    WithJsonSchema({"type": "string"}),
]
