"""Which failures are tried again, how often, and how long to wait before.

Theory of operation. The rules say what a retry is for; they hold no state. A caller asks in this
order: are there tries left, does the failure qualify (`retries_status`, `retries_error`,
`retries_response`), may this request be sent twice (`may_repeat`), does the budget allow it
(policy/budget.py), and last `wait_before`: None means that the server asks for a longer wait than
anybody here is willing to hold a request for.

Waits are jittered by default, in full (between nothing and the exponential bound): callers that
failed together must not come back together.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from headgate.errors import UpstreamFailure
from headgate.policy.budget import BudgetRules
from headgate.wire.http_dates import parse_date

__all__ = ["IDEMPOTENT", "Jitter", "RetryRules", "parse_retry_after", "wait_before"]

Jitter = Literal["full", "decorrelated", "none"]

IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""RFC 9110, 9.2.2."""

_DOUBLINGS: Final = 60  # beyond, any wait has met its limit and a float power would overflow
_LONGEST_DELTA: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryRules:
    attempts: int = 3
    """All tries, the first one included."""
    wait_s: float = 0.025
    """Bound of the wait before the second try; it doubles with each further one."""
    wait_max_s: float = 1.0
    jitter: Jitter = "full"
    """`full`: between nothing and the bound. `decorrelated`: between `wait_s` and three times the
    wait before. `none`: the bound itself."""
    statuses: frozenset[int] = frozenset({502, 503, 504})
    errors: frozenset[UpstreamFailure] = frozenset(
        {"connect", "reset", "timeout", "dns", "tls", "closed"}
    )
    methods: frozenset[str] = IDEMPOTENT
    """Methods that may be sent twice."""
    headers: tuple[tuple[str, str | None], ...] = ()
    """Response headers that ask for a retry: a name, and a value or None for any."""
    per_try_s: float | None = None
    retry_after: bool = True
    """Wait for as long as the response asks for."""
    retry_after_max_s: float = 10.0
    """When it asks for longer, there is no retry."""
    body_max: int = 65536
    """A request body beyond so many bytes is not kept for another try."""
    other_instance: bool = True
    """Try another instance than the ones that failed, while there is one."""

    def problems(self) -> tuple[str, ...]:
        found: list[str] = []
        if self.attempts < 1:
            found.append(f"attempts={self.attempts} must be at least 1 (1: no retries)")
        if not self.wait_s >= 0.0:
            found.append(f"wait_s={self.wait_s:g} must not be negative")
        if not self.wait_max_s >= self.wait_s:
            found.append(f"wait_max_s={self.wait_max_s:g} is less than wait_s={self.wait_s:g}")
        if self.per_try_s is not None and not self.per_try_s > 0.0:
            found.append(f"per_try_s={self.per_try_s:g} must be over 0")
        if not self.retry_after_max_s >= 0.0:
            found.append(f"retry_after_max_s={self.retry_after_max_s:g} must not be negative")
        if self.body_max < 0:
            found.append(f"body_max={self.body_max} must not be negative")
        for status in sorted(self.statuses):
            if not 200 <= status <= 599:
                found.append(f"status {status} never ends a response")
        if self.attempts > 1:
            if not self.statuses and not self.errors and not self.headers:
                found.append(
                    f"attempts={self.attempts}, but no status, error or header asks for a retry"
                )
            if not self.methods:
                found.append(f"attempts={self.attempts}, but no method may be sent twice")
        return tuple(found)

    def problems_with(self, budget: BudgetRules, total_s: float | None = None) -> tuple[str, ...]:
        """What contradicts the budget, or the time-out over all tries."""
        found: list[str] = []
        if self.attempts > 1 and budget.share <= 0.0 and budget.most_idle < 1.0:
            found.append(f"attempts={self.attempts} with a budget that never allows a retry")
        if self.attempts > 1 and (self.per_try_s or 0.0) >= (total_s or math.inf):
            found.append(
                f"a try may take {self.per_try_s:g} s and all together {total_s:g} s: "
                "no time is left for a second one"
            )
        return tuple(found)

    def retries_status(self, status: int) -> bool:
        return status in self.statuses

    def retries_error(self, kind: UpstreamFailure) -> bool:
        return kind in self.errors

    def may_repeat(self, method: str) -> bool:
        return method in self.methods

    def retries_response(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether a response asks for a retry; `headers` have names in lower case."""
        if status in self.statuses:
            return True
        if not self.headers:
            return False
        for name, value in headers:
            text = name.decode("latin-1")
            for wanted, wanted_value in self.headers:
                if text == wanted.lower() and wanted_value in (None, value.decode("latin-1")):
                    return True
        return False


def wait_before(
    rules: RetryRules,
    attempt: int,
    previous_s: float,
    rng: random.Random,
    retry_after_s: float | None = None,
) -> float | None:
    """Seconds to wait after try number `attempt` (1 is the first) has failed.

    `previous_s` is the wait before that try, 0.0 for the first. None: do not retry, because the
    response asks for a wait beyond `retry_after_max_s`. What it asks for is waited in full, and the
    jittered wait is added, since everybody else was told the same number.
    """
    if rules.jitter == "decorrelated":
        low = rules.wait_s
        wait_s = min(rules.wait_max_s, rng.uniform(low, max(low, previous_s) * 3.0))
    else:
        wait_s = min(rules.wait_max_s, rules.wait_s * 2.0 ** min(attempt - 1, _DOUBLINGS))
        if rules.jitter == "full":
            wait_s *= rng.random()
    if retry_after_s is None or not rules.retry_after:
        return wait_s
    if retry_after_s > rules.retry_after_max_s:
        return None
    if rules.jitter == "none":
        return max(wait_s, retry_after_s)
    return retry_after_s + wait_s


def parse_retry_after(value: bytes | str, wall: float) -> float | None:
    """Seconds from now, from a number of seconds or an HTTP date (RFC 9110, 10.2.3).

    A date in the past is 0.0; None when it cannot be read, as if it was not sent.
    """
    said = (value.encode("utf-8", "replace") if isinstance(value, str) else value).strip(b" \t")
    if said.isdigit():
        return float(said) if len(said) <= _LONGEST_DELTA else None
    then = parse_date(said, wall)
    return None if then is None else max(0.0, then - wall)
