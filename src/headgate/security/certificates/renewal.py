"""When to order the next certificate.

Theory of operation
-------------------
A name has a `Standing`: the dates of the certificate that is served, and the failures since it was
ordered. `due_at` says when to try next, by the wall clock, because certificates live by it.

With no certificate it is due at once; otherwise when two thirds of its life are over (or
`renew_before_s` before its end), somewhat earlier by a share that belongs to the certificate and
so is the same after every restart: a thousand gateways that began together do not come together.
An authority that names a window of its own (RFC 9773) is followed: it may want all certificates
replaced tomorrow.

After a failure the waits double, from two minutes to six hours, but a certificate near its end is
tried at least every hour. In no hour there are more than five failures, whatever asks for another
try: authorities count, and shut out for a week whoever knocks too often. What the authority asks
for with Retry-After is waited for in any case.

A clock that jumps back leaves failures that lie in the future, and a Retry-After of years. Whoever
keeps a standing passes it through `settled` at every turn: what lies in the future is then as of
now, once, and time goes on from there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

__all__ = ["FAILURES_AN_HOUR", "Standing", "due_at", "failed", "forced_at", "is_late", "settled"]

FAILURES_AN_HOUR: Final = 5
FIRST_WAIT_S: Final = 120.0
LONGEST_WAIT_S: Final = 6 * 3600.0
LATE_WAIT_S: Final = 3600.0
LONGEST_RETRY_AFTER_S: Final = 7 * 86400.0
SPREAD: Final = 0.05
"""The share of a lifetime over which renewals are spread."""
_HOUR_S: Final = 3600.0
_KEPT: Final = FAILURES_AN_HOUR


@dataclass(frozen=True, slots=True)
class Standing:
    """How it stands with one name, in seconds of the wall clock."""

    begins: float | None = None
    """Of the certificate that is served; None when there is none."""
    ends: float = 0.0
    failures: int = 0
    """Since the last success."""
    failed_at: tuple[float, ...] = ()
    """The last few of them."""
    not_before: float = 0.0
    """What the authority asked us to wait for."""
    window: tuple[float, float] | None = None
    """When the authority would like it renewed."""
    why: str = ""
    """The last failure, in words."""


def failed(standing: Standing, wall: float, why: str, retry_after_s: float | None) -> Standing:
    """The standing after a try that came to nothing."""
    return replace(
        standing,
        failures=standing.failures + 1,
        failed_at=(*standing.failed_at, wall)[-_KEPT:],
        not_before=wall + retry_after_s if retry_after_s is not None else 0.0,
        why=why,
    )


def settled(standing: Standing, wall: float) -> Standing:
    """The standing with nothing in the future that cannot be."""
    latest = wall + LONGEST_RETRY_AFTER_S
    if standing.not_before <= latest and all(at <= wall for at in standing.failed_at):
        return standing
    return replace(
        standing,
        failed_at=tuple(min(at, wall) for at in standing.failed_at),
        not_before=min(standing.not_before, latest),
    )


def due_at(
    standing: Standing, wall: float, share: float, renew_before_s: float | None = None
) -> float:
    """When to order: at once if that is not after `wall`. `share` is from 0 up to 1."""
    wanted = _wanted_at(standing, share, renew_before_s)
    return max(wanted, _soonest(standing, wall), standing.not_before)


def forced_at(standing: Standing, wall: float) -> float:
    """When an operator's wish for a new one can be met: the limits of authorities hold for it."""
    recent = [at for at in standing.failed_at if wall - at < _HOUR_S]
    soonest = min(recent) + _HOUR_S if len(recent) >= FAILURES_AN_HOUR else wall
    return max(soonest, standing.not_before)


def is_late(standing: Standing, wall: float, renew_before_s: float | None = None) -> bool:
    """Whether the time until the end is so short that somebody should look."""
    if standing.begins is None:
        return standing.failures > 0
    life = standing.ends - standing.begins
    margin = life / 3 if renew_before_s is None else min(renew_before_s, life)
    return wall > standing.ends - margin / 2


def _wanted_at(standing: Standing, share: float, renew_before_s: float | None) -> float:
    if standing.begins is None:
        return 0.0
    if standing.window is not None:
        start, end = standing.window
        return start + max(end - start, 0.0) * share
    life = max(standing.ends - standing.begins, 0.0)
    before = life / 3 if renew_before_s is None else min(renew_before_s, life * 0.9)
    return standing.ends - before - life * SPREAD * share


def _soonest(standing: Standing, wall: float) -> float:
    if not standing.failures or not standing.failed_at:
        return 0.0
    last = standing.failed_at[-1]
    wait_s = min(FIRST_WAIT_S * 2.0 ** min(standing.failures - 1, 20), LONGEST_WAIT_S)
    if is_late(standing, wall):
        wait_s = min(wait_s, LATE_WAIT_S)
    return max(last + wait_s, forced_at(standing, wall))
