"""Windows of time: whether one is open, by the clocks of its zone."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from headgate.security.access_rules import Window

__all__ = ["is_open", "zone_of"]


def zone_of(name: str) -> tzinfo:
    """A time zone by its name. Raises ValueError."""
    if name.upper() == "UTC":
        return UTC  # there also where no time zones are installed
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        msg = "is no time zone that is known here; write UTC or a name such as Europe/Berlin"
        raise ValueError(msg) from error


def is_open(window: Window, local: datetime) -> bool:
    """Whether a window is open at a time by the clocks of its zone."""
    if window.since is not None and local < window.since:
        return False
    if window.until is not None and local >= window.until:
        return False
    minute = local.hour * 60 + local.minute
    day = local.weekday()
    if window.begin_min < window.end_min:
        return day in window.days and window.begin_min <= minute < window.end_min
    if window.begin_min == window.end_min:
        return False
    if minute >= window.begin_min:
        return day in window.days
    return minute < window.end_min and (day - 1) % 7 in window.days
