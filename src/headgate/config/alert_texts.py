"""Texts of the `alerts:` section that have rules of their own."""

from __future__ import annotations

import re
from typing import Annotated, Final
from zoneinfo import ZoneInfo

from pydantic import PlainValidator, WithJsonSchema

from headgate.config.fields import Words, refuse, text_of
from headgate.config.forms import OneOrList
from headgate.observe.alerts.matching import MatcherFault, parse_matcher
from headgate.units import UnitError, parse_duration, parse_percent, parse_size

__all__ = ["Bound", "Clock", "Label", "MatcherText", "OneOrMaps", "Zone"]

_LABEL: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_CLOCK: Final = re.compile(r"([01]?[0-9]|2[0-4]):([0-5][0-9])")
_PLAIN: Final = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,9})?(e[+-]?[0-9]{1,2})?", re.IGNORECASE)


def _label(value: object) -> str:
    name = text_of(value)
    if name != "..." and not _LABEL.fullmatch(name):
        raise refuse("is not the name of a label")
    return name


def _bound(value: object) -> float:
    text = text_of(value).strip()
    if _PLAIN.fullmatch(text):
        return float(text)
    for parse in (parse_percent, parse_duration, parse_size):
        try:
            return float(parse(text))
        except UnitError:
            continue
    raise refuse("is no bound; write a number, or 70%, 2s, 1GB")


def _matcher(value: object) -> str:
    text = text_of(value)
    try:
        parse_matcher(text)
    except MatcherFault as error:
        raise refuse(str(error)) from None
    return text


def _clock(value: object) -> int:
    found = _CLOCK.fullmatch(text_of(value).strip())
    minutes = int(found[1]) * 60 + int(found[2]) if found else 24 * 60 + 1
    if minutes > 24 * 60:
        raise refuse('is no time of day; write "22:00"')
    return minutes


def _zone(value: object) -> str:
    name = text_of(value)
    try:
        ZoneInfo(name)
    except Exception:  # noqa: BLE001 - it raises half a dozen kinds for a bad name
        raise refuse("is no time zone; write one such as Europe/Berlin") from None
    return name


Label = Annotated[str, PlainValidator(_label), Words("label"), WithJsonSchema({"type": "string"})]
Bound = Annotated[
    float,
    PlainValidator(_bound),
    Words("number with or without a unit"),
    WithJsonSchema({"type": ["string", "number"], "examples": [0.7, "70%", "2s", "1GB"]}),
]
MatcherText = Annotated[
    str,
    PlainValidator(_matcher),
    Words("condition"),
    WithJsonSchema({"type": "string", "examples": ['severity="critical"', 'route=~"api-.*"']}),
]
Clock = Annotated[
    int,
    PlainValidator(_clock),
    Words("time of day"),
    WithJsonSchema({"type": "string", "pattern": "^[0-9]{1,2}:[0-9]{2}$"}),
]
Zone = Annotated[str, PlainValidator(_zone), Words("time zone"), WithJsonSchema({"type": "string"})]
OneOrMaps: Final = OneOrList(
    lambda value: (value,) if isinstance(value, dict) else value,
    {},
    "one mapping or a list of them",
)
