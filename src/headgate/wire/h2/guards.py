"""Bounds on what a peer may make us do for nothing.

Theory of operation
-------------------
Every HTTP/2 denial of service has one shape: frames that are cheap to send, legal one by one,
and bring no request nearer to its end. Each kind has a leaky bucket. Such a frame fills it by
one; time empties it, and so does useful work (`earned` for each full DATA frame and each finished
stream that we sent), because honest peers send these frames in proportion to the work: window
updates while they download, pings to measure the bandwidth, now and then a cancelled request.
A bucket that overflows ends the connection with ENHANCE_YOUR_CALM.

- `resets`: streams that ended early through the client, whether it sent RST_STREAM (rapid reset,
  CVE-2023-44487) or broke a rule so that we had to (MadeYouReset, CVE-2025-8671), and streams
  refused beyond the announced number. One bucket for all, so that mixing them does not help.
- `control`: PING and SETTINGS, which must be answered, PRIORITY and unknown frames.
- `updates`: WINDOW_UPDATE, also those that open a window by a byte to have a body dribbled out.
- `empty`: DATA without payload and header frames without a piece of a block.

Field blocks have their own two bounds, for they are held until they are whole: their bytes and
their number of CONTINUATION frames (CVE-2024-27316 and its family).

Pure: `now` comes in with every call.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Bucket:
    """How many of one kind of frame are borne."""

    burst: int
    per_s: float
    earned: float = 0.0


@dataclass(frozen=True, slots=True)
class GuardLimits:
    resets: Bucket = Bucket(burst=250, per_s=25, earned=0.25)
    control: Bucket = Bucket(burst=500, per_s=50, earned=1)
    updates: Bucket = Bucket(burst=1000, per_s=100, earned=4)
    empty: Bucket = Bucket(burst=100, per_s=10)
    continuations: int = 32
    block_bytes: int = 131_072
    """A field block as sent, before decompression. Above the list that we announce, so that a
    head a little too large is answered and not cut off."""


@dataclass(slots=True)
class Leak:
    """One bucket's level."""

    bucket: Bucket
    level: float = 0.0
    at: float = 0.0
    worked: int = 0
    spilled: int = field(default=0)

    def take(self, now: float, worked: int, cost: float = 1) -> bool:
        """Whether one more is borne. `worked` counts useful work since the connection began."""
        bucket = self.bucket
        level = self.level + cost
        level -= (now - self.at) * bucket.per_s + (worked - self.worked) * bucket.earned
        self.at = now
        self.worked = worked
        self.level = max(level, 0.0)
        if level > bucket.burst:
            self.spilled += 1
            return False
        return True


class Guards:
    __slots__ = ("control", "empty", "resets", "updates")

    def __init__(self, limits: GuardLimits, now: float) -> None:
        self.resets = Leak(limits.resets, at=now)
        self.control = Leak(limits.control, at=now)
        self.updates = Leak(limits.updates, at=now)
        self.empty = Leak(limits.empty, at=now)
