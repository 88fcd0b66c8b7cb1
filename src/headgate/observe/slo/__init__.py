"""Budgets: what share of requests may fail or be slow, how much of that is spent, and how fast.

    from headgate.observe.slo import Objective, Slo, availability, latency

Here are only the values, which are light; counting (`tally`, `reading`), judging (`budget`), the
rules of alerts (`burning`) and the report (`report`, `page`) are modules that need numpy or not,
as each says. Nothing here reads a clock or knows the store.
"""

from __future__ import annotations

from headgate.observe.slo.closed import Span, Weekly
from headgate.observe.slo.rules import (
    WINDOWS,
    Objective,
    Slo,
    SloDefaults,
    Term,
    availability,
    latency,
)

__all__ = [
    "WINDOWS",
    "Objective",
    "Slo",
    "SloDefaults",
    "Span",
    "Term",
    "Weekly",
    "availability",
    "latency",
]
