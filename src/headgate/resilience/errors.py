"""What the toolkit raises when it does not make a call, or ends one.

    HeadgateError
      Refused               the call was not made; says when to come back
        BreakerOpen         what it would call is known to be down
        RateLimited         too many calls
        BulkheadFull        too many calls at once
      TimedOut (TimeoutError)
        CallTimedOut        one call took longer than it may
        DeadlineExceeded    the time for the whole is over

`retry` waits for as long as `retry_after_s` says.
"""

from __future__ import annotations

from headgate.errors import HeadgateError
from headgate.units import format_duration

__all__ = [
    "BreakerOpen",
    "BulkheadFull",
    "CallTimedOut",
    "DeadlineExceeded",
    "RateLimited",
    "Refused",
    "TimedOut",
]


class Refused(HeadgateError):
    """The call was not made."""

    def __init__(self, name: str, reason: str, retry_after_s: float) -> None:
        self.name = name
        self.reason = reason
        self.retry_after_s = retry_after_s
        """When coming back is worth it; 0.0 when nothing is known against at once."""
        super().__init__(name, reason, retry_after_s)

    def __str__(self) -> str:
        text = f"{self.name}: {self.reason}"
        if 0.0 < self.retry_after_s < float("inf"):
            text += f"; come back in {_rough(self.retry_after_s)}"
        return text


class BreakerOpen(Refused):
    """The breaker is open, or half-open with all its trials out. `reason` is its state."""


class RateLimited(Refused):
    """The limit is used up. The key does not stand here: it may be somebody's address."""


class BulkheadFull(Refused):
    """All places are taken, and so is the line before them, or the wait in it was too long."""


class TimedOut(HeadgateError, TimeoutError):
    """Also a TimeoutError, for those who catch that."""


class CallTimedOut(TimedOut):
    def __init__(self, name: str, after_s: float) -> None:
        self.name = name
        self.after_s = after_s
        super().__init__(name, after_s)

    def __str__(self) -> str:
        return f"{self.name}: no answer within {_rough(self.after_s)}"


class DeadlineExceeded(TimedOut):
    """No time is left, for this call or any other under the same deadline."""

    def __init__(self, over_s: float = 0.0) -> None:
        self.over_s = over_s
        super().__init__(over_s)

    def __str__(self) -> str:
        return "the deadline is over"


def _rough(seconds: float) -> str:
    digits = 0 if seconds >= 10.0 else 3
    return format_duration(round(seconds, digits)) if seconds >= 0.001 else "less than 1ms"
