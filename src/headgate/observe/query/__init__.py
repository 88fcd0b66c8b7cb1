"""A query language over series: a subset of PromQL, so that one expression works here and there.

    expr = parse('sum by (route) (rate(headgate_http_requests_total{code=~"5.."}[5m]))')
    evaluate(expr, source, at=now)                        # -> [Sample(labels, value), ...]
    evaluate_range(expr, source, start, end, step=15.0)   # -> [Series(labels, times, values), ...]

Pure: what is asked comes from a `Source`, and no clock is read. `parse` raises `QueryFault` with a
position and a hint. Needs numpy; nothing in `headgate.observe` imports this by itself.
"""

from __future__ import annotations

from headgate.observe.query.evaluate import evaluate, evaluate_range
from headgate.observe.query.model import (
    STALE,
    Matcher,
    QueryFault,
    Rollup,
    Rules,
    Sample,
    Series,
    Source,
    is_stale,
)
from headgate.observe.query.parse import parse
from headgate.observe.query.syntax import Expr, selectors

__all__ = [
    "STALE",
    "Expr",
    "Matcher",
    "QueryFault",
    "Rollup",
    "Rules",
    "Sample",
    "Series",
    "Source",
    "evaluate",
    "evaluate_range",
    "is_stale",
    "parse",
    "selectors",
]
