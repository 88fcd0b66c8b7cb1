"""May this kept response answer that request, now? (RFC 9111 4.2, 5.2.1; RFC 5861, RFC 8246)

Theory of operation. Judged in this order: what forbids reuse without asking (`no-store` of the
request, `no-cache` of either side); then age against freshness, then the client's own bounds; then,
for a stale one, what allows it all the same: the client's `max-stale`, where no directive of the
response forbids it, and `stale-while-revalidate`. A client that names an age, or asks for freshness
to come, does not want it stale (5.2.1.1).

The wall clock may jump. Ahead, it makes everything stale, which costs a validation. Back, it would
stretch freshness by as much: a response from what is now the future is stale, beyond the few
seconds that a clock is set back by in ordinary care.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from headgate.cache.http.asked import Asked
    from headgate.cache.http.rules import CacheRules
    from headgate.cache.http.stored import Stored

__all__ = [
    "ERROR_STATUSES",
    "Reuse",
    "judge_reuse",
    "keep_until",
    "may_serve_on_error",
    "may_serve_when_degraded",
    "may_share",
]

ERROR_STATUSES: Final = frozenset({500, 502, 503, 504})
"""RFC 5861 4: what a stale response may stand in for, beside no answer at all."""

SETBACK_MAX_S: Final = 10.0
"""How far the wall clock may stand before the arrival of a response that is still believed."""


class Reuse:
    __slots__ = ("age_s", "kind", "ttl_s", "why")

    def __init__(
        self,
        kind: Literal["fresh", "revalidate_behind", "validate", "refuse"],
        ttl_s: float,
        age_s: float,
        why: str,
    ) -> None:
        self.kind = kind
        """`fresh`: serve it. `revalidate_behind`: serve it and ask again meanwhile. `validate`: ask
        first. `refuse`: as if it were not there."""
        self.ttl_s = ttl_s
        """Freshness that is left; negative: for how long it has been stale."""
        self.age_s = age_s
        self.why = why
        """A short fixed word, for logs and `Cache-Status`."""

    def __repr__(self) -> str:
        return f"<Reuse {self.kind} {self.why} ttl={self.ttl_s:.0f}>"


def judge_reuse(
    stored: Stored, asked: Asked, wall: float, *, is_struck_stale: bool = False
) -> Reuse:
    """`is_struck_stale`: a soft purge has made it stale, whatever its age."""
    since = wall - stored.received_at
    age = stored.initial_age_s + since if since > 0.0 else stored.initial_age_s
    ttl = stored.fresh_s - age
    if not asked.wishes:
        if (
            ttl > 0.0
            and not (stored.needs_validation or is_struck_stale)
            and since >= -SETBACK_MAX_S
        ):
            return Reuse("fresh", ttl, age, "fresh")
    elif asked.no_store:
        return Reuse("refuse", ttl, age, "request")
    elif asked.no_cache:
        return Reuse("validate", ttl, age, "request")
    if stored.needs_validation:
        return Reuse("validate", ttl, age, "no-cache")
    if since < -SETBACK_MAX_S:
        return Reuse("validate", min(ttl, 0.0), age, "clock")
    if is_struck_stale:
        ttl = min(ttl, 0.0)
    elif ttl > 0.0:
        return _judge_fresh(stored, asked, ttl, age)
    return _judge_stale(stored, asked, ttl, age, "purged" if is_struck_stale else "stale")


def _judge_fresh(stored: Stored, asked: Asked, ttl: float, age: float) -> Reuse:
    if asked.min_fresh_s > ttl:
        return Reuse("validate", ttl, age, "request")
    # RFC 8246 2: a reload asks in vain for what will not change while it is fresh. A client that
    # insists says no-cache.
    if asked.max_age_s is not None and not stored.is_immutable:
        beyond = age - asked.max_age_s
        if beyond > 0.0 or asked.max_age_s == 0.0:
            allowed = asked.max_stale_s
            if allowed is None or not stored.may_be_stale or beyond > allowed:
                return Reuse("validate", ttl, age, "request")
    return Reuse("fresh", ttl, age, "fresh")


def _judge_stale(stored: Stored, asked: Asked, ttl: float, age: float, why: str) -> Reuse:
    if asked.min_fresh_s > 0.0:
        return Reuse("validate", ttl, age, why)
    staleness = -ttl
    allowed = asked.max_stale_s
    if allowed is not None and stored.may_be_stale and why == "stale":
        beyond = staleness if asked.max_age_s is None else max(staleness, age - asked.max_age_s)
        if beyond <= allowed:
            return Reuse("fresh", ttl, age, "max-stale")
    if asked.max_age_s is None and staleness < stored.stale_while_revalidate_s:
        return Reuse("revalidate_behind", ttl, age, why)
    return Reuse("validate", ttl, age, why)


def may_share(stored: Stored, asked: Asked, wall: float) -> bool:
    """Whether what another's request has just brought may answer this one, which waited for it.

    Only what may be reused may be shared (RFC 9111 4): to be kept is not enough, as what has to be
    validated each time may be another thing for each who asks. A client's `max-age` is not looked
    at: nothing younger is to be had.
    """
    if asked.no_store or asked.no_cache or stored.needs_validation or not stored.is_storable:
        return False
    ttl = stored.fresh_s - stored.age_s(wall)
    if ttl > 0.0:
        return ttl >= asked.min_fresh_s
    is_patient = asked.max_age_s is None and asked.min_fresh_s == 0.0
    return is_patient and -ttl < stored.stale_while_revalidate_s


def may_serve_on_error(stored: Stored, asked: Asked, wall: float, rules: CacheRules) -> bool:
    """Whether it may stand in for an error: no answer, or one of `ERROR_STATUSES`.

    `stored` carries the window of its response or, where that is silent, of the route; the client
    may widen it, unless a directive forbids to serve it stale.
    """
    if asked.no_store or asked.no_cache or stored.needs_validation:
        return False
    if wall - stored.received_at < -SETBACK_MAX_S:
        return False
    window = stored.stale_if_error_s
    wanted = asked.stale_if_error_s
    if wanted is not None and stored.may_be_stale and rules.client_directives:
        window = max(window, wanted)
    staleness = stored.age_s(wall) - stored.fresh_s
    return staleness < window or staleness < 0.0


def may_serve_when_degraded(stored: Stored, asked: Asked, wall: float) -> bool:
    """Whether it may be served, however stale, to spare a service in trouble.

    RFC 9111 4.2.4 allows it to a cache that is cut off from the origin. What is fresh always may,
    `must-revalidate` or not.
    """
    if asked.no_store or asked.no_cache or stored.needs_validation:
        return False
    if wall - stored.received_at < -SETBACK_MAX_S:
        return False
    return stored.may_be_stale or stored.age_s(wall) < stored.fresh_s


def keep_until(stored: Stored, keep_s: float) -> float:
    """Wall clock, until when to hold it: while it is fresh, and then as long as it may be served
    stale or validated.
    """
    beyond = max(stored.stale_while_revalidate_s, stored.stale_if_error_s)
    if stored.may_be_stale or stored.etag is not None or stored.last_modified is not None:
        beyond = max(beyond, keep_s)
    return stored.received_at + max(stored.fresh_s - stored.initial_age_s, 0.0) + beyond
