"""Settings as a program may give them: numbers in the unit of the rules, or text as in the file.

A setting that is not given is left out, so that the defaults stand once, in the policies' rules.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar

from headgate.units import Rate, UnitError, parse_duration, parse_percent, parse_rate

__all__ = [
    "Clock",
    "Duration",
    "Event",
    "OnEvent",
    "RateText",
    "Share",
    "checked",
    "given",
    "not_both",
    "rate",
    "seconds",
    "share",
    "window",
]

Duration: TypeAlias = float | str
"""Seconds, or text: "250ms", "30s", "5min"."""
Share: TypeAlias = float | str
"""A share of one, or text: "50%"."""
RateText: TypeAlias = str | Rate
"""A count over a time: "10/s", "1000/15min"."""
Clock: TypeAlias = Callable[[], float]

T = TypeVar("T")

_CALLS: Final = re.compile(r"([0-9]{1,9})(?: ?calls?)?")


@dataclass(frozen=True, slots=True)
class Event:
    """Something out of the ordinary. A call that just succeeds makes none."""

    policy: str
    """"breaker", "retry", "limit", "bulkhead", "hedge", "timeout", "fallback"."""
    name: str
    what: str
    """In the past tense: "opened", "rejected", "retried", "gave_up"."""
    why: str = ""
    after_s: float = 0.0
    """When it goes on: until the next try, or when coming back is worth it."""


OnEvent: TypeAlias = Callable[[Event], None]


def seconds(name: str, value: Duration | None) -> float | None:
    return None if value is None else _parsed(name, value, parse_duration)


def share(name: str, value: Share | None) -> float | None:
    return None if value is None else _parsed(name, value, parse_percent)


def rate(name: str, value: RateText) -> Rate:
    return _parsed(name, value, parse_rate)


def window(value: int | str | None) -> dict[str, Any]:
    """A count of calls ("20 calls", 20) or a time ("30s"), as the fields of the rules."""
    if value is None:
        return {}
    if isinstance(value, float):
        raise ValueError(f"window={value}: write a whole number of calls, or a time such as 30s")
    if found := _CALLS.fullmatch(str(value).strip()):
        return {"window_calls": int(found[1])}
    return {"window_s": seconds("window", value)}


def given(**settings: Any) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}


def not_both(what: str, rules: object, settings: dict[str, Any]) -> None:
    if rules is not None and settings:
        raise TypeError(f"{what}: give rules or settings, not both: {', '.join(sorted(settings))}")


def checked(what: str, problems: tuple[str, ...]) -> None:
    if problems:
        raise ValueError(f"{what}: " + "; ".join(problems))


def _parsed(name: str, value: object, parse: Callable[[object], T]) -> T:
    try:
        return parse(value)
    except UnitError as error:
        raise ValueError(f"{name}: {error}") from None
