"""Durations, sizes, rates and percentages as people write them.

Theory of operation
-------------------
Each ``parse_*`` takes what a YAML file or a Python caller may give (a string, or a bare number)
and answers the one number the code works with: seconds, bytes, a ``Rate``, a share of one. Each
``format_*`` writes that number back in the largest unit that stays exact, so that
``parse(format(x)) == x``; defaults in the reference and in messages are printed by it.

Refused on purpose: negative, NaN and infinite values; booleans (``True`` is an ``int`` in Python
and would pass as one second); and values beyond the stated maximum, which are slips of the unit
and would overflow a timer or an allocation later, far from the line that said it.

Sizes count in 1024s whichever way they are written ("1KB" and "1KiB" are both 1024 bytes): what
is limited is memory, and two meanings for two spellings would only be read wrongly.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

__all__ = [
    "DAY",
    "GB",
    "KB",
    "MB",
    "Rate",
    "UnitError",
    "format_duration",
    "format_percent",
    "format_rate",
    "format_size",
    "parse_duration",
    "parse_percent",
    "parse_rate",
    "parse_size",
    "rough_duration",
    "rough_size",
]

KB: Final = 1024
MB: Final = 1024 * KB
GB: Final = 1024 * MB
DAY: Final = 86_400.0
"""Seconds, as durations are."""

MAX_DURATION_S: Final = 10 * 365 * DAY
MAX_SIZE: Final = 1 << 50
MAX_RATE: Final = 1e12

DURATION_RULE: Final = (
    "is not a duration; write 250ms, 30s, 5min, 1h or 7d, or a bare number of seconds"
)
SIZE_RULE: Final = (
    "is not a size; write 512B, 1KB (1024 bytes), 10MB or 2GB, or a bare number of bytes"
)
RATE_RULE: Final = "is not a rate; write a count over a time: 10/s, 1000/15min, 5/h"
PERCENT_RULE: Final = "is not a percentage; write 50% or a share between 0 and 1 such as 0.5"

_DURATION_UNITS: Final = {
    "us": Decimal("0.000001"),
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "sec": Decimal(1),
    "min": Decimal(60),
    "m": Decimal(60),
    "h": Decimal(3600),
    "d": Decimal(86400),
}
_SIZE_UNITS: Final = {
    "": 1,
    "b": 1,
    "k": KB,
    "kb": KB,
    "kib": KB,
    "m": MB,
    "mb": MB,
    "mib": MB,
    "g": GB,
    "gb": GB,
    "gib": GB,
    "t": 1024 * GB,
    "tb": 1024 * GB,
    "tib": 1024 * GB,
}
# Bounded repetition and ASCII digits only: nothing here can be made to take long, and "٣s" is
# a slip rather than three seconds.
_NUMBER: Final = r"([0-9]{1,18}(?:\.[0-9]{1,12})?)"
_PART: Final = re.compile(_NUMBER + r" ?([a-z]{1,3})")
_SIZE: Final = re.compile(_NUMBER + r" ?([a-z]{0,3})", re.IGNORECASE)
_BARE: Final = re.compile(_NUMBER)
_PERCENT: Final = re.compile(_NUMBER + r" ?%")
_UNIT_ALONE: Final = re.compile(r"us|ms|s|sec|min|m|h|d")
_LONGEST: Final = 64


class UnitError(ValueError):
    """A value that is not in the unit asked for.

    ``rule`` is the message without the value, for callers who must not print it (it may be a
    secret) or who print it in their own way.
    """

    def __init__(self, value: object, rule: str) -> None:
        self.rule = rule
        super().__init__(f"{_shown(value)} {rule}")


@dataclass(frozen=True, slots=True)
class Rate:
    """So many events in so many seconds."""

    count: float
    per_s: float

    @property
    def per_second(self) -> float:
        """The same rate as a count for one second."""
        return self.count / self.per_s


def parse_duration(value: object) -> float:
    """Seconds, from "250ms", "30s", "5min", "1h", "7d", "1h30min" or a bare number."""
    number = _bare(value, DURATION_RULE)
    if number is None:
        number = _duration_text(value)
    if number > MAX_DURATION_S:
        raise UnitError(value, "is too long a duration; the most is 3650d")
    return number


def parse_size(value: object) -> int:
    """Bytes, from "512B", "1KB" (1024), "10MB", "1.5GB" or a bare number of bytes."""
    number = _bare(value, SIZE_RULE)
    if number is None:
        assert isinstance(value, str)  # noqa: S101 - _bare has refused everything else
        found = _SIZE.fullmatch(value.strip()[:_LONGEST])
        unit = _SIZE_UNITS.get(found[2].lower()) if found else None
        if found is None or unit is None:
            raise UnitError(value, SIZE_RULE)
        exact = Decimal(found[1]) * unit
        if exact != int(exact):
            raise UnitError(value, "is not a whole number of bytes")
        size = int(exact)
    else:
        if number != int(number):
            raise UnitError(value, "is not a whole number of bytes")
        size = int(number)
    if size > MAX_SIZE:
        raise UnitError(value, "is too large a size; the most is 1024TB")
    return size


def parse_rate(value: object) -> Rate:
    """A rate, from "1000/15min", "10/s" or "5/h"."""
    if isinstance(value, Rate):
        return value
    if not isinstance(value, str) or value.count("/") != 1 or len(value) > _LONGEST:
        raise UnitError(value, RATE_RULE)
    left, right = (part.strip() for part in value.split("/"))
    if not _BARE.fullmatch(left):
        raise UnitError(value, RATE_RULE)
    count = float(left)
    try:
        per_s = parse_duration(f"1{right}" if _UNIT_ALONE.fullmatch(right) else right)
    except UnitError:
        raise UnitError(value, RATE_RULE) from None
    if per_s <= 0:
        raise UnitError(value, "is a rate over no time at all; write 10/s")
    if count > MAX_RATE:
        raise UnitError(value, "is too high a rate")
    return Rate(count, per_s)


def parse_percent(value: object) -> float:
    """A share between 0 and 1, from "50%" or 0.5."""
    if isinstance(value, str) and (found := _PERCENT.fullmatch(value.strip()[:_LONGEST])):
        share = float(Decimal(found[1]) / 100)
    else:
        bare = _bare(value, PERCENT_RULE)
        if bare is None:
            raise UnitError(value, PERCENT_RULE)
        share = bare
    if share > 1:
        raise UnitError(value, "is more than 100%; write 50% or a share between 0 and 1")
    return share


def format_duration(seconds: float) -> str:
    """The shortest exact way to write it: 300.0 is "5min", 0.25 is "250ms"."""
    exact = Decimal(repr(float(seconds)))
    if exact == 0:
        return "0s"
    for unit in ("d", "h", "min", "s", "ms"):
        count = exact / _DURATION_UNITS[unit]
        if count == int(count):
            return f"{int(count)}{unit}"
    return f"{_plain(exact)}s"


def format_size(size: int) -> str:
    """The largest unit that stays whole: 1048576 is "1MB", 1000 is "1000B"."""
    for unit, scale in (("GB", GB), ("MB", MB), ("KB", KB)):
        if size and size % scale == 0:
            return f"{size // scale}{unit}"
    return f"{size}B"


def rough_size(size: float) -> str:
    """For people to read, not to be parsed: "34.5 MB". In 1024s, like everything here."""
    for unit, scale in (("GB", GB), ("MB", MB), ("KB", KB)):
        if size >= scale:
            return f"{size / scale:,.1f} {unit}"
    return f"{size:.0f} B"


def rough_duration(seconds: float) -> str:
    """For people likewise: "90 s", "10 min"; from two of a unit on, in that unit."""
    for unit, length in (("d", DAY), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def format_rate(rate: Rate) -> str:
    """As ``parse_rate`` reads it: "1000/15min", "10/s"."""
    per = format_duration(rate.per_s)
    if per[0] == "1" and per[1:] in _DURATION_UNITS:
        per = per[1:]
    return f"{_plain(Decimal(repr(float(rate.count))))}/{per}"


def format_percent(share: float) -> str:
    """0.5 is "50%"."""
    return f"{_plain(Decimal(repr(float(share))) * 100)}%"


def _bare(value: object, rule: str) -> float | None:
    """A number that was given without a unit; None when it is text that has one."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise UnitError(value, rule)
    if isinstance(value, str):
        text = value.strip()
        if text[:1] == "-" and text[1:2].isdigit():
            raise UnitError(value, "is negative; write zero or more")
        return float(text) if _BARE.fullmatch(text) else None
    if isinstance(value, int) and abs(value) > MAX_SIZE:
        raise UnitError(value, "is too large")  # before float() could overflow
    number = float(value)
    if not math.isfinite(number):
        raise UnitError(value, rule)
    if number < 0:
        raise UnitError(value, "is negative; write zero or more")
    return number


def _duration_text(value: object) -> float:
    text = value.strip() if isinstance(value, str) else ""
    total = Decimal(0)
    at = 0
    smallest: Decimal | None = None
    while at < len(text) <= _LONGEST:
        found = _PART.match(text, at)
        unit = _DURATION_UNITS.get(found[2]) if found else None
        if found is None or unit is None or (smallest is not None and unit >= smallest):
            break  # "30min1h" and "1h1h" are slips, not sums
        total += Decimal(found[1]) * unit
        smallest = unit
        at = found.end()
        if at == len(text):
            return float(total)
        at += text[at] == " "
    raise UnitError(value, DURATION_RULE)


def _plain(number: Decimal) -> str:
    """Without an exponent and without trailing zeros."""
    text = format(number, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _shown(value: object) -> str:
    text = f'"{value}"' if isinstance(value, str) else repr(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
