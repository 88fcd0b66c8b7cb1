"""A figure of a business as terms: counters, added and taken from each other.

`orders_total{state="paid"}`, `a_total + b_total`, `2 * sum(x_total) - y_total`. What is counted is
the increase of all series that fit, so `sum` around a counter changes nothing and is allowed;
anything else has no meaning for a budget, and the fault says so.
"""

from __future__ import annotations

from headgate.observe.query import QueryFault, parse
from headgate.observe.query.syntax import Aggregate, Binary, Expr, Negative, Number, Select
from headgate.observe.slo.rules import Term

__all__ = ["terms_of"]

_HINT = 'write counters with + and -, such as orders_total{state="paid"}'


def terms_of(text: str) -> tuple[Term, ...]:
    """Raises QueryFault."""
    found = tuple(_terms(parse(text), 1.0))
    if not found:
        raise QueryFault("names no counter", 0, _HINT)
    return found


def _terms(expr: Expr, weight: float) -> list[Term]:
    match expr:
        case Select() if not expr.range_s and not expr.offset_s and expr.name:
            return [Term(expr.name, tuple((m.label, m.op, m.value) for m in expr.matchers), weight)]
        case Select() if expr.range_s:
            raise QueryFault(
                "a range has no place here", expr.position, "the increase is taken for every window"
            )
        case Negative():
            return _terms(expr.of, -weight)
        case Aggregate(op="sum") if not expr.labels and expr.parameter is None:
            return _terms(expr.of, weight)
        case Binary(op="+" | "-") if not expr.is_bool:
            sign = -1.0 if expr.op == "-" else 1.0
            return [*_terms(expr.left, weight), *_terms(expr.right, sign * weight)]
        case Binary(op="*", left=Number() as factor):
            return _terms(expr.right, weight * factor.value)
        case Binary(op="*", right=Number() as factor):
            return _terms(expr.left, weight * factor.value)
        case _:
            position = getattr(expr, "position", 0)
            raise QueryFault("is no sum of counters", position, _HINT)
