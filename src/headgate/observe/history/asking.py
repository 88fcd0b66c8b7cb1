"""Questions to a store: which tier answers, how long an answer may take."""

from __future__ import annotations

import difflib
import time
from collections.abc import Sequence
from typing import Final

from headgate.observe.history.store import Store
from headgate.observe.query import (
    Expr,
    Matcher,
    Rules,
    Sample,
    Series,
    evaluate,
    evaluate_range,
    selectors,
)

__all__ = ["ask", "ask_range", "unknown_names"]

_SECONDS: Final = 10.0
_PER_WINDOW: Final = 4
_LOOKBACK_S: Final = 300.0


class _Bound:
    """A store as a source, from the tier that is fine enough."""

    def __init__(self, store: Store, each_s: float) -> None:
        self._store = store
        self._each_s = each_s

    def select(
        self, name: str, matchers: Sequence[Matcher], start: float, end: float
    ) -> Sequence[Series]:
        return self._store.select(name, matchers, start, end, each_s=self._each_s)


def ask(expr: Expr, store: Store, at: float, *, seconds: float = _SECONDS) -> list[Sample]:
    """The answer at one moment. Raises QueryFault."""
    each_s = _each(expr, 0.0)
    return evaluate(expr, _Bound(store, each_s), at, _rules(expr, store, at, each_s, seconds))


def ask_range(
    expr: Expr,
    store: Store,
    start: float,
    end: float,
    step: float,
    *,
    seconds: float = _SECONDS,
) -> list[Series]:
    """The answers from `start` to `end`. Raises QueryFault."""
    each_s = _each(expr, step)
    rules = _rules(expr, store, start, each_s, seconds)
    return evaluate_range(expr, _Bound(store, each_s), start, end, step, rules)


def _each(expr: Expr, step: float) -> float:
    """How far apart samples may be: a step, and some in every window."""
    windows = [one.range_s / _PER_WINDOW for one in selectors(expr) if one.range_s]
    if not windows:
        return step or 1.0
    return min((*windows, step)) if step else min(windows)


def _rules(expr: Expr, store: Store, start: float, each_s: float, seconds: float) -> Rules:
    offsets = [one.offset_s for one in selectors(expr)]
    apart_s = store.apart_s(start - max((0.0, *offsets)), each_s)
    ends = time.monotonic() + seconds
    return Rules(
        lookback_s=max(_LOOKBACK_S, 1.1 * apart_s), is_over=lambda: time.monotonic() > ends
    )


def unknown_names(expr: Expr, store: Store, start: float, end: float) -> list[str]:
    """What to say of names that no series has in that time."""
    said: list[str] = []
    names: set[str] = set()
    for one in selectors(expr):
        if not one.name or store.series(one.name, (), start, end):
            continue
        if not names:
            every = (Matcher("__name__", "=~", ".+"),)
            names = {key[0][1] for key in store.series("", every, start, end)}
        near = difflib.get_close_matches(one.name, sorted(names), n=1)
        hint = f'; did you mean "{near[0]}"?' if near else ""
        said.append(f'no series is named "{one.name}" in that time{hint}')
    return said
