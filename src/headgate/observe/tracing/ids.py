"""Ids of traces and spans, and the share of traces that an id falls into.

Random, and not secret: nobody gains by guessing one. All 128 bits of a trace id are random, so
that every process which sees the id comes to the same decision for the same share (the last 56
bits decide, as W3C level 2 and OpenTelemetry have it).
"""

from __future__ import annotations

import random
from typing import Final

__all__ = ["SHARE_MASK", "Ids", "Share", "hex_span", "hex_trace"]

_BITS: Final = 56
SHARE_MASK: Final = (1 << _BITS) - 1


def hex_trace(number: int) -> str:
    return f"{number:032x}"


def hex_span(number: int) -> str:
    return f"{number:016x}"


class Ids:
    """Where ids come from. Not shared over a fork: `reseed` in the child."""

    __slots__ = ("_rng", "bits")

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.bits = rng.getrandbits

    def trace_id(self) -> str:
        return hex_trace(self.bits(128) or 1)

    def span_id(self) -> str:
        return hex_span(self.bits(64) or 1)

    def reseed(self) -> None:
        """Other ids than the process that this one was forked from."""
        self._rng.seed()


class Share:
    """A part of all traces, the same one for everybody who asks."""

    __slots__ = ("least",)

    def __init__(self, ratio: float) -> None:
        if not 0 <= ratio <= 1:
            raise ValueError(f"a share of {ratio} is not between 0 and 1")
        self.least = (1 << _BITS) - round(ratio * (1 << _BITS))

    def holds(self, trace_id: int) -> bool:
        """A larger share holds every trace that a smaller one does."""
        return (trace_id & SHARE_MASK) >= self.least

    def holds_id(self, trace_id: str) -> bool:
        return int(trace_id[-14:], 16) >= self.least
