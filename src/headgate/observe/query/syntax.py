"""An expression as a tree of frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from headgate.observe.query.model import Matcher

__all__ = [
    "Aggregate",
    "Binary",
    "Call",
    "Expr",
    "Kind",
    "Matching",
    "Negative",
    "Number",
    "Select",
    "Text",
    "kind_of",
    "selectors",
]

Kind = Literal["scalar", "vector", "range", "text"]


@dataclass(frozen=True, slots=True)
class Number:
    value: float
    position: int = 0


@dataclass(frozen=True, slots=True)
class Text:
    value: str
    position: int = 0


@dataclass(frozen=True, slots=True)
class Select:
    """`name{label="value"}`, with `[5m]` where `range_s` is above zero."""

    name: str
    matchers: tuple[Matcher, ...] = ()
    range_s: float = 0.0
    offset_s: float = 0.0
    position: int = 0


@dataclass(frozen=True, slots=True)
class Call:
    function: str
    arguments: tuple[Expr, ...]
    position: int = 0


@dataclass(frozen=True, slots=True)
class Aggregate:
    """`op by (labels) (parameter, of)`; with `is_without`, by all labels but these."""

    op: str
    of: Expr
    parameter: Expr | None = None
    labels: tuple[str, ...] = ()
    is_without: bool = False
    position: int = 0


@dataclass(frozen=True, slots=True)
class Matching:
    """Which series of the two sides belong together."""

    is_on: bool = False
    labels: tuple[str, ...] = ()
    many: Literal["", "left", "right"] = ""
    include: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Binary:
    op: str
    left: Expr
    right: Expr
    is_bool: bool = False
    matching: Matching = Matching()
    position: int = 0


@dataclass(frozen=True, slots=True)
class Negative:
    of: Expr
    position: int = 0


Expr = Number | Text | Select | Call | Aggregate | Binary | Negative

SCALAR_CALLS = frozenset(("scalar", "time"))


def kind_of(expr: Expr) -> Kind:
    """What an expression comes to."""
    match expr:
        case Number():
            return "scalar"
        case Text():
            return "text"
        case Select():
            return "range" if expr.range_s else "vector"
        case Call():
            return "scalar" if expr.function in SCALAR_CALLS else "vector"
        case Aggregate():
            return "vector"
        case Negative():
            return kind_of(expr.of)
        case Binary():
            both = {kind_of(expr.left), kind_of(expr.right)}
            return "scalar" if both == {"scalar"} else "vector"


def selectors(expr: Expr) -> tuple[Select, ...]:
    """Every selector in an expression, from left to right."""
    match expr:
        case Select():
            return (expr,)
        case Call():
            return tuple(found for part in expr.arguments for found in selectors(part))
        case Aggregate():
            first = selectors(expr.parameter) if expr.parameter is not None else ()
            return (*first, *selectors(expr.of))
        case Binary():
            return (*selectors(expr.left), *selectors(expr.right))
        case Negative():
            return selectors(expr.of)
        case _:
            return ()
