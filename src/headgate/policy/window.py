"""Sliding windows of call outcomes: the last so many calls, or the last so many seconds.

Theory of operation. An outcome is two bits: FAILED and SLOW. Both windows keep running sums, so
a reader compares three integers and nothing is ever recounted. The window of calls is a ring of
bytes; what is overwritten is taken off the sums. The window of seconds is a ring of `_BUCKETS`
buckets; a bucket leaves whole, so it spans between 9/10 of its seconds and all of them.

A full window of calls that holds only good ones is `is_clean`: one more good call would overwrite
a zero with a zero, so the caller may leave it out. That is the common case of a healthy service.
"""

from __future__ import annotations

from typing import Final, Protocol

__all__ = ["FAILED", "OK", "SLOW", "CallWindow", "TimeWindow", "Window"]

OK: Final = 0
FAILED: Final = 1
SLOW: Final = 2

_BUCKETS: Final = 10


class Window(Protocol):
    calls: int
    failed: int
    slow: int

    @property
    def is_clean(self) -> bool: ...
    def add(self, outcome: int, now: float) -> None: ...
    def advance(self, now: float) -> None:
        """Let go of what has become too old."""
        ...


class CallWindow:
    __slots__ = ("_at", "_ring", "_size", "calls", "failed", "slow")

    def __init__(self, size: int) -> None:
        self._ring = bytearray(size)
        self._size = size
        self._at = 0
        self.calls = 0
        self.failed = 0
        self.slow = 0

    @property
    def is_clean(self) -> bool:
        return self.calls == self._size and not self.failed and not self.slow

    def add(self, outcome: int, now: float) -> None:
        at = self._at
        ring = self._ring
        old = ring[at]
        if old != outcome:
            ring[at] = outcome
            self.failed += (outcome & FAILED) - (old & FAILED)
            self.slow += (outcome >> 1) - (old >> 1)
        if self.calls < self._size:
            self.calls += 1
        at += 1
        self._at = at if at < self._size else 0

    def advance(self, now: float) -> None:
        """Calls do not age."""

    def resized(self, size: int) -> CallWindow:
        """A window of another size with the newest of these calls."""
        fresh = CallWindow(size)
        turned = self._ring[self._at :] + self._ring[: self._at]
        for outcome in turned[max(self._size - min(self.calls, size), 0) :]:
            fresh.add(outcome, 0.0)
        return fresh


class TimeWindow:
    __slots__ = ("_at", "_ring", "_until", "_width", "calls", "failed", "slow")

    def __init__(self, window_s: float, now: float) -> None:
        self._ring = [[0, 0, 0] for _ in range(_BUCKETS)]
        self._at = 0
        self._width = window_s / _BUCKETS
        self._until = now + self._width
        self.calls = 0
        self.failed = 0
        self.slow = 0

    @property
    def is_clean(self) -> bool:
        return False  # each call counts: it dilutes the failures to come

    def add(self, outcome: int, now: float) -> None:
        if now >= self._until:
            self.advance(now)
        bucket = self._ring[self._at]
        bucket[0] += 1
        self.calls += 1
        if outcome:
            failed = outcome & FAILED
            slow = outcome >> 1
            bucket[1] += failed
            bucket[2] += slow
            self.failed += failed
            self.slow += slow

    def advance(self, now: float) -> None:
        if now < self._until:
            return
        steps = int((now - self._until) / self._width) + 1
        for _ in range(min(steps, _BUCKETS)):
            self._at = (self._at + 1) % _BUCKETS
            bucket = self._ring[self._at]
            self.calls -= bucket[0]
            self.failed -= bucket[1]
            self.slow -= bucket[2]
            bucket[:] = (0, 0, 0)
        self._until += steps * self._width
