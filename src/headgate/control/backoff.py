"""When a process that died is started again.

Theory of operation
-------------------
A single crash is answered at once: its sockets are open and clients wait in their queues. A
process that dies again before it has served for `STABLE_S` is in a crash loop; each such death
doubles the wait, from 0.1 s to 30 s, so that a broken plugin costs a start every half minute
and not a core. A life of `STABLE_S` forgives everything before it.

`STABLE_S` is short on purpose: a process that a poisoned request kills every five seconds is
wanted back at once each time, because the requests between are served.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

__all__ = ["Backoff", "BackoffSnapshot"]

STABLE_S = 3.0
FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 30.0
RECENT_S = 60.0


@dataclass(frozen=True, slots=True)
class BackoffSnapshot:
    crashes: int
    crashes_last_minute: int
    is_looping: bool


class Backoff:
    """The crashes of one worker slot, or of control."""

    def __init__(self) -> None:
        self.crashes = 0
        self._in_a_row = 0
        self._recent: deque[float] = deque(maxlen=1000)

    def crashed(self, now: float, ready_at: float | None) -> float:
        """Record a death and return how many seconds to wait before the next start.

        `ready_at` is when the process began to serve, or None if it never did.
        """
        self.crashes += 1
        self._recent.append(now)
        if ready_at is not None and now - ready_at >= STABLE_S:
            self._in_a_row = 0
        self._in_a_row += 1
        if self._in_a_row == 1:
            return 0.0
        doublings = min(self._in_a_row - 2, 16)
        wait: float = FIRST_WAIT_S * 2.0**doublings
        return min(wait, LONGEST_WAIT_S)

    def forgive(self) -> None:
        """What made it crash may be gone: there is a new configuration, or new code."""
        self._in_a_row = 0

    def snapshot(self, now: float, ready_at: float | None = None) -> BackoffSnapshot:
        while self._recent and now - self._recent[0] > RECENT_S:
            self._recent.popleft()
        served = ready_at is not None and now - ready_at >= STABLE_S
        return BackoffSnapshot(
            crashes=self.crashes,
            crashes_last_minute=len(self._recent),
            is_looping=self._in_a_row >= 3 and not served,
        )
