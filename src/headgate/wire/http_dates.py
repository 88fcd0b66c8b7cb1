"""HTTP dates (RFC 9110 5.6.7): three forms are read, one is written.

Letters match in either case and there is no zone but GMT, as RFC 9111 4.2 has it for caches.
Anything else is no date, which for `Expires` means expired: a date that two readers would repair
differently is not repaired here. The name of the weekday must be one, but need not fit the date.
"""

from __future__ import annotations

import re
import time
from calendar import monthrange, timegm
from typing import Final

__all__ = ["format_date", "parse_date"]

_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = (
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
)  # fmt: skip
_MONTH_OF: Final = {name.lower().encode(): at for at, name in enumerate(_MONTHS, 1)}

_DAY: Final = rb"(?:mon|tue|wed|thu|fri|sat|sun)"
_LONG_DAY: Final = rb"(?:mon|tues|wednes|thurs|fri|satur|sun)day"
_MONTH: Final = rb"(?P<month>jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)"
_TIME: Final = rb"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"

_FIXED: Final = re.compile(
    _DAY + rb", (?P<day>[0-9]{2}) " + _MONTH + rb" (?P<year>[0-9]{4}) " + _TIME + rb" gmt",
    re.IGNORECASE,
)
_RFC850: Final = re.compile(
    _LONG_DAY + rb", (?P<day>[0-9]{2})-" + _MONTH + rb"-(?P<year>[0-9]{2}) " + _TIME + rb" gmt",
    re.IGNORECASE,
)
_ASCTIME: Final = re.compile(
    _DAY + rb" " + _MONTH + rb" (?P<day>[ 0-9][0-9]) " + _TIME + rb" (?P<year>[0-9]{4})",
    re.IGNORECASE,
)
_LONGEST: Final = len("Wednesday, 01-Jan-70 00:00:00 GMT")
_AHEAD_YEARS: Final = 50
_NO_YEAR: Final = 1600
"""Before this no document was served: a year 0001 is a sentinel, and expired all the same."""


def parse_date(value: bytes, wall: float) -> float | None:
    """Seconds since the epoch; None if it is no date.

    `wall` decides what two digits of a year mean: more than 50 years ahead is the past (RFC 9110
    5.6.7).
    """
    value = value.strip(b" \t")
    if len(value) > _LONGEST:
        return None
    found = _FIXED.fullmatch(value) or _RFC850.fullmatch(value) or _ASCTIME.fullmatch(value)
    if found is None:
        return None
    year, month = int(found["year"]), _MONTH_OF[found["month"].lower()]
    day, hour = int(found["day"]), int(found["hour"])
    minute, second = int(found["minute"]), int(found["second"])
    if len(found["year"]) == 2:
        this = time.gmtime(wall)
        latest = (this.tm_year + _AHEAD_YEARS, *this[1:6])
        year += latest[0] - latest[0] % 100
        if (year, month, day, hour, minute, second) > latest:
            year -= 100
    if hour > 23 or minute > 59 or second > 60:
        return None
    if year == 0 or not 1 <= day <= monthrange(year, month)[1]:
        return None
    return float(timegm((max(year, _NO_YEAR), month, day, hour, minute, min(second, 59))))


def format_date(wall: float) -> bytes:
    """The form that is sent: `Sun, 06 Nov 1994 08:49:37 GMT`."""
    at = time.gmtime(wall)
    return (
        f"{_DAYS[at.tm_wday]}, {at.tm_mday:02} {_MONTHS[at.tm_mon - 1]} {at.tm_year:04}"
        f" {at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02} GMT"
    ).encode()
