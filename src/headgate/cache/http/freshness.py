"""How old a response is, and for how long it is fresh (RFC 9111 4.2).

Theory of operation. All of it is read from the fields of one response, gathered by name, and from
two readings of the wall clock. A date that is missing or wrong is the arrival; a lifetime that is
wrong is none; of several the smallest counts, and of several dates the oldest. So whatever cannot
be read makes a response older, never fresher.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from headgate.cache.http.cache_control import Directives, delta_seconds, directives_of, targeted
from headgate.wire.http_dates import parse_date

if TYPE_CHECKING:
    from headgate.cache.http.rules import CacheRules

__all__ = [
    "CACHEABLE_STATUSES",
    "Fields",
    "date_of",
    "directives_in",
    "explicit_s",
    "initial_age_s",
    "is_dated",
    "is_pragma_only",
    "last_modified_of",
    "own_ttl_s",
    "stale_window_s",
]

Fields = Mapping[bytes, list[bytes]]
"""Values of a response by field, in the order they came."""

CACHEABLE_STATUSES: Final = frozenset({200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501})
"""By default, RFC 9110 15.1; without 206."""


def directives_in(values: Fields, rules: CacheRules) -> Directives:
    for field in (f"{rules.name.lower()}-cache-control".encode(), b"cdn-cache-control"):
        if field in values:
            said = targeted(values[field])
            if said is not None:
                return said
    return directives_of(values.get(b"cache-control", ()))


def date_of(values: Fields, received_at: float) -> float:
    """Without one, or with a wrong one: when it came (RFC 9110 6.6.1). Of several the oldest."""
    dates = [parse_date(value, received_at) for value in values.get(b"date", ())]
    return min((date for date in dates if date is not None), default=received_at)


def is_dated(values: Fields, received_at: float) -> bool:
    dates = values.get(b"date", ())
    return len(dates) == 1 and parse_date(dates[0], received_at) is not None


def last_modified_of(values: Fields, received_at: float) -> float | None:
    dates = values.get(b"last-modified", ())
    return parse_date(dates[0], received_at) if len(dates) == 1 else None


def initial_age_s(values: Fields, date: float, request_at: float, received_at: float) -> float:
    """RFC 9111 4.2.3. Of several values of `Age` the first counts; one that is no number does not
    (5.1).
    """
    # A date has whole seconds: without the floor, what is fresh for one second never lasted it.
    apparent = max(received_at // 1.0 - date, 0.0)
    delay = max(received_at - request_at, 0.0)
    ages = values.get(b"age")
    given = delta_seconds(ages[0].partition(b",")[0].strip(b" \t")) if ages else None
    return max(apparent, (given or 0.0) + delay)


def explicit_s(values: Fields, said: Directives, date: float, received_at: float) -> float | None:
    """Freshness lifetime that the response gives itself (4.2.1)."""
    if said.s_maxage_s is not None:
        return said.s_maxage_s
    if said.max_age_s is not None:
        return said.max_age_s
    expires = values.get(b"expires")
    if said.is_targeted or expires is None:
        return None
    ends = [parse_date(value, received_at) for value in expires]
    return min(0.0 if end is None else max(end - date, 0.0) for end in ends)


def own_ttl_s(status: int, rules: CacheRules) -> float | None:
    own = rules.ttl_by_status.get(status)
    if own is None and status in CACHEABLE_STATUSES:
        own = rules.ttl_s
    return own


def is_pragma_only(values: Fields, said: Directives) -> bool:
    """Nothing is said but `Pragma: no-cache`.

    RFC 9111 5.4 gives it no meaning in a response, but who sends it means it: nothing is guessed.
    """
    return (
        not said.is_targeted
        and b"cache-control" not in values
        and any(b"no-cache" in value.lower() for value in values.get(b"pragma", ()))
    )


def stale_window_s(given: float | None, default: float, said: Directives, no_stale: bool) -> float:
    if no_stale:
        return 0.0
    if given is not None:
        return given
    return default if said.s_maxage_s is None else 0.0
