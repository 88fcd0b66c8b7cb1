"""What a call knows of the calls around it: until when, and which try of how many.

Theory of operation. Three context variables. `UNTIL`: when the time is over; set by `deadline`
and by the middleware. `ATTEMPT`: which try of how many this is; set by `retry` for what it calls.
`HOP`: what the request that is being served said about itself; set by the middleware.

`hop_headers()` writes the first two for the next hop (`headgate.policy.hops` has the wire forms).
So the deadline shrinks over hops, and only one layer retries.
"""

from __future__ import annotations

import math
import time
from contextvars import ContextVar
from typing import Final, overload

from headgate.policy.hops import ATTEMPT as ATTEMPT_HEADER
from headgate.policy.hops import DEADLINE as DEADLINE_HEADER
from headgate.policy.hops import format_attempt, format_deadline
from headgate.resilience.errors import DeadlineExceeded
from headgate.resilience.settings import Clock, Duration, seconds

__all__ = ["ATTEMPT", "HOP", "UNTIL", "Hop", "Until", "check", "hop_headers", "remaining"]


class Until:
    """When the time is over, by which clock. `lift` ends it for all who hold it."""

    __slots__ = ("at", "clock")

    def __init__(self, at: float, clock: Clock = time.monotonic) -> None:
        self.at = at
        self.clock = clock

    @property
    def left_s(self) -> float:
        """Below zero when it is over."""
        return self.at - self.clock()

    def lift(self) -> None:
        self.at = math.inf


class Hop:
    """The request being served, as the layer above described it."""

    __slots__ = ("budget_spent", "may_retry")

    def __init__(self, may_retry: bool) -> None:
        self.may_retry = may_retry
        self.budget_spent = False
        """A retry was wanted and there was no budget: to be told to the layer above."""


UNTIL: Final[ContextVar[Until | None]] = ContextVar("headgate_until", default=None)
ATTEMPT: Final[ContextVar[tuple[int, int] | None]] = ContextVar("headgate_attempt", default=None)
HOP: Final[ContextVar[Hop | None]] = ContextVar("headgate_hop", default=None)

_DEADLINE_NAME: Final = DEADLINE_HEADER.decode()
_ATTEMPT_NAME: Final = ATTEMPT_HEADER.decode()


@overload
def remaining() -> float | None: ...
@overload
def remaining(most: Duration) -> float: ...
def remaining(most: Duration | None = None) -> float | None:
    """Seconds until the deadline, never below 0.0; None without one.

    With `most`, the smaller of the two, so always a number: `get(url, timeout=remaining("5s"))`.
    """
    bound = seconds("most", most)
    until = UNTIL.get()
    if until is None or until.at == math.inf:
        return bound
    left_s = max(0.0, until.left_s)
    return left_s if bound is None else min(bound, left_s)


def check() -> None:
    """Raise DeadlineExceeded if the deadline is over. For loops that nobody can cancel."""
    until = UNTIL.get()
    if until is not None and until.left_s <= 0.0:
        raise DeadlineExceeded(-until.left_s)


def hop_headers() -> dict[str, str]:
    """Headers for an outgoing call: the time left, and which try this is."""
    headers: dict[str, str] = {}
    left_s = remaining()
    if left_s is not None:
        headers[_DEADLINE_NAME] = format_deadline(left_s).decode()
    attempt = ATTEMPT.get()
    if attempt is not None:
        headers[_ATTEMPT_NAME] = format_attempt(*attempt).decode()
    else:
        hop = HOP.get()
        if hop is not None and not hop.may_retry:
            # Somebody above retries: those below are not to, either.
            headers[_ATTEMPT_NAME] = "1/2"
    return headers
