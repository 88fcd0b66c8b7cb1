"""Whether an expression asks for what there is.

Theory of operation. A metric has the labels of its table and those that whoever gathers it adds:
`instance` and `job` by Prometheus, `service` and `service_instance` for the figures of services. A
histogram `x` is asked for as `x_bucket` (with `le`), `x_sum` and `x_count`. Labels that an
expression makes itself (`label_replace`) are not known here, and are not used in what is handed
over. Variables of Grafana are filled in before an expression is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from headgate.errors import HeadgateError
from headgate.interop.services import SERVICES
from headgate.observe.metrics import METRICS, Metric
from headgate.observe.query import Expr, QueryFault, parse, selectors
from headgate.observe.query.syntax import Aggregate, Binary, Call, Negative, Select

__all__ = ["CATALOGUE", "Unnamed", "demand", "filled", "names_in", "wrong"]

CATALOGUE: Final[Mapping[str, Metric]] = {**SERVICES, **METRICS}
_ADDED: Final = frozenset({"instance", "job"})
_ADDED_TO_SERVICES: Final = _ADDED | {"service", "service_instance", "pid"}
_VARIABLES: Final = {
    "$__rate_interval": "5m",
    "$__interval": "1m",
    "$__range": "6h",
}
_VARIABLE: Final = re.compile(r"\$\{?[a-z_]+(:[a-z]+)?\}?")
_OF_HISTOGRAM: Final = ("_bucket", "_sum", "_count")


class Unnamed(HeadgateError):
    """What was to be handed over names something that does not exist."""


def filled(expr: str) -> str:
    """An expression of a dashboard as Grafana would ask it."""
    for variable, value in _VARIABLES.items():
        expr = expr.replace(variable, value)
    return _VARIABLE.sub(".*", expr)


def wrong(expr: str, more: Mapping[str, frozenset[str]] | None = None) -> Iterator[str]:
    """What an expression asks for that is not there; `more` are recorded series by name."""
    try:
        tree = parse(filled(expr))
    except QueryFault as fault:
        yield f"cannot be read: {fault}"
        return
    if not selectors(tree):
        yield "asks for nothing"
    for select in selectors(tree):
        known = _labels(select.name, more or {})
        if known is None:
            yield f"no metric is named {select.name}"
            continue
        for matcher in select.matchers:
            if matcher.label not in known:
                yield f"{select.name} has no label {matcher.label}"
    for labels, below in _grouped(tree):
        found: set[str] = set()
        for select in selectors(below):
            found |= _labels(select.name, more or {}) or set()
        for label in labels:
            if label not in found:
                yield f'"{label}" is no label of what it is asked of'


def demand(expr: str, where: str, more: Mapping[str, frozenset[str]] | None = None) -> str:
    """The expression itself. Raises Unnamed."""
    for said in wrong(expr, more):
        raise Unnamed(f"{where}: {said}: {expr}")
    return expr


def names_in(exprs: Iterable[str]) -> set[str]:
    """The names of all series that expressions ask for."""
    return {one.name for expr in exprs for one in selectors(parse(filled(expr)))}


def _labels(name: str, more: Mapping[str, frozenset[str]]) -> frozenset[str] | None:
    if name in more:
        return more[name]
    if name == "up":
        return _ADDED_TO_SERVICES
    ends = [end for end in _OF_HISTOGRAM if name.endswith(end)]
    metric = CATALOGUE.get(name.removesuffix(ends[0]) if ends else name)
    if metric is None or (metric.kind == "histogram") != bool(ends):
        return None
    own = frozenset(metric.labels) | ({"le"} if name.endswith("_bucket") else set())
    return own | (_ADDED if metric.name in METRICS else _ADDED_TO_SERVICES)


def _grouped(expr: Expr) -> Iterator[tuple[tuple[str, ...], Expr]]:
    """The labels that an expression groups or joins by, with what they are asked of."""
    match expr:
        case Aggregate():
            yield expr.labels, expr.of
            yield from _grouped(expr.of)
        case Binary(matching=matching):
            if matching.is_on:
                yield matching.labels, expr.left
                yield matching.labels, expr.right
            else:
                yield matching.labels, expr  # to ignore what one side alone has is the point of it
            yield from _grouped(expr.left)
            yield from _grouped(expr.right)
        case Call():
            for part in expr.arguments:
                yield from _grouped(part)
        case Negative():
            yield from _grouped(expr.of)
        case Select():
            pass
        case _:
            pass
