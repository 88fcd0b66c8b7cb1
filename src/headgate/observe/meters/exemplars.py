"""Traces as examples of what was counted.

`current` answers the id of the trace that is recorded just now, or None. Tracing sets it; until
then it is None and costs a look. It is called at every observation of a histogram, so it must be
quick and must answer None for a trace that nobody keeps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Exemplar", "current"]

current: Callable[[], str | None] | None = None


@dataclass(frozen=True, slots=True)
class Exemplar:
    """One value with the trace that it was seen in."""

    value: float
    trace_id: str
    wall: float
