"""A stretch of time as people say it: `2026-10`, `2026-10-03`, `2026-10-01/2026-10-15`, `30d`."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

from headgate.errors import HeadgateError
from headgate.units import UnitError, parse_duration

__all__ = ["NoPeriod", "days_of", "period_of"]

_MONTH = re.compile(r"(\d{4})-(\d{2})")
_YEAR = re.compile(r"\d{4}")
_LONGEST_S = 400 * 86400.0


class NoPeriod(HeadgateError):
    """A text that is no period."""


def period_of(text: str, now: float, zone: str = "UTC") -> tuple[float, float]:
    """From where to where, at most up to `now`. Raises NoPeriod."""
    start, end = _whole(text.strip(), now, _zone(zone))
    if start >= now:
        raise NoPeriod(f"{text[:40]} has not begun")
    if end - start > _LONGEST_S:
        raise NoPeriod(f"{text[:40]} is longer than 400 days")
    return start, min(end, now)


def _whole(text: str, now: float, zone: ZoneInfo) -> tuple[float, float]:
    try:
        if text in ("", "month"):
            first = datetime.fromtimestamp(now, zone).date().replace(day=1)
            return _midnight(first, zone), _midnight(_next_month(first), zone)
        if text == "last-month":
            last = datetime.fromtimestamp(now, zone).date().replace(day=1) - timedelta(days=1)
            first = last.replace(day=1)
            return _midnight(first, zone), _midnight(_next_month(first), zone)
        if found := _MONTH.fullmatch(text):
            first = date(int(found[1]), int(found[2]), 1)
            return _midnight(first, zone), _midnight(_next_month(first), zone)
        if _YEAR.fullmatch(text):
            year = int(text)
            return _midnight(date(year, 1, 1), zone), _midnight(date(year + 1, 1, 1), zone)
        if "/" in text:
            low, high = text.split("/", 1)
            ends = date.fromisoformat(high.strip()) + timedelta(days=1)
            begins = date.fromisoformat(low.strip())
            if begins >= ends:
                raise NoPeriod(f"{text[:40]} ends before it begins")
            return _midnight(begins, zone), _midnight(ends, zone)
        if text.count("-") == 2:
            day = date.fromisoformat(text)
            return _midnight(day, zone), _midnight(day + timedelta(days=1), zone)
        length = parse_duration(text)
        if length >= 3600:
            return now - length, now
    except (ValueError, UnitError, OverflowError):
        pass
    raise NoPeriod(f'"{text[:40]}" is no period; write 2026-10, 2026-10-03/2026-10-15 or 30d')


def days_of(start: float, end: float, zone: str = "UTC") -> list[tuple[date, float, float]]:
    """Every day with its beginning and end, cut to the period."""
    where = _zone(zone)
    day = datetime.fromtimestamp(start, where).date()
    marks = [(day, start)]
    while True:
        day += timedelta(days=1)
        at = _midnight(day, where)
        if at >= end:
            break
        if at > start:
            marks.append((day, at))
    marks.append((day, end))
    return [(one[0], one[1], after[1]) for one, after in pairwise(marks)]


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except Exception as error:  # it raises half a dozen kinds for a bad name
        raise NoPeriod(f'"{name[:60]}" is no time zone; write one such as Europe/Berlin') from error


def _midnight(day: date, zone: ZoneInfo) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()


def _next_month(first: date) -> date:
    return (first + timedelta(days=32)).replace(day=1)
