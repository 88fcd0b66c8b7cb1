"""Rows of many blocks put together into series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headgate.observe.history.codec import Floats
from headgate.observe.history.series import Key, SeriesSet
from headgate.observe.query import STALE, Rollup, Series

__all__ = ["Held", "gathered"]

_ROLLED = ("count", "sum", "min", "max")


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """What one block has of the rows that are meant."""

    series: SeriesSet
    rows: Sequence[int]
    times: Floats
    fields: Mapping[str, Floats]
    sequence: float


def gathered(
    held: Sequence[Sequence[Held]],
    spans: Sequence[tuple[float, float]],
    start: float,
    end: float,
) -> list[Series]:
    """Series in the order of time. Where blocks overlap, what was written later is believed; where
    a series ends, it says so.
    """
    parts = [
        (one, tier, columns)
        for tier, members in enumerate(held)
        for one in members
        if len(one.rows)
        and len(columns := np.flatnonzero(_inside(one.times, spans[tier], start, end)))
    ]
    if not parts:
        return []
    parts.sort(key=lambda part: part[0].sequence)
    times = np.concatenate([one.times[columns] for one, _, columns in parts])
    place: dict[Key, int] = {}
    counters: dict[Key, bool] = {}
    where: list[list[int]] = []
    for one, _, _ in parts:
        mine = []
        for row in one.rows:
            key = one.series.keys[row]
            mine.append(place.setdefault(key, len(place)))
            counters[key] = one.series.is_counter[row]
        where.append(mine)
    has_rolled = any(tier for _, tier, _ in parts) and not all(counters.values())
    names = ("last", *_ROLLED) if has_rolled else ("last",)
    whole = {name: np.full((len(place), len(times)), np.nan) for name in names}
    at = 0
    for (one, tier, columns), mine in zip(parts, where, strict=True):
        here = np.ix_(mine, range(at, at + len(columns)))
        last = one.fields["last"][:, columns]
        whole["last"][here] = last
        if has_rolled:
            for name in _ROLLED:
                if tier:
                    if name in one.fields:
                        whole[name][here] = one.fields[name][:, columns]
                else:
                    there = ~np.isnan(last)
                    whole[name][here] = np.where(there, 1.0, np.nan) if name == "count" else last
        at += len(columns)
    order = _order(times)
    times = times[order]
    whole = {name: matrix[:, order] for name, matrix in whole.items()}
    return [
        made
        for key, row in place.items()
        if (made := _series(key, row, times, whole, is_rolled=has_rolled and not counters[key]))
    ]


def _inside(
    times: Floats, span: tuple[float, float], start: float, end: float
) -> NDArray[np.bool_]:
    low, high = max(span[0], start), min(span[1], end)
    inside: NDArray[np.bool_] = (times >= low) & (times <= high)
    return inside


def _order(times: Floats) -> NDArray[np.intp]:
    """Columns by time, of two of one time the later one."""
    if (times[1:] > times[:-1]).all():
        return np.arange(len(times))
    order = np.argsort(times, kind="stable")
    ordered = times[order]
    is_last = np.append(ordered[1:] != ordered[:-1], True)
    kept: NDArray[np.intp] = order[is_last]
    return kept


def _series(
    key: Key, row: int, times: Floats, whole: Mapping[str, Floats], *, is_rolled: bool
) -> Series | None:
    values = whole["last"][row]
    there = ~np.isnan(values)
    if not there.any():
        return None
    shown = there.copy()
    if not there.all():
        ends = np.flatnonzero(there[:-1] & ~there[1:]) + 1
        values = values.copy()
        values[ends] = STALE
        shown[ends] = True
    rollup = None
    if is_rolled:
        counts = whole["count"][row][shown]
        if not np.isnan(counts).all():
            rollup = Rollup(counts, *(whole[name][row][shown] for name in _ROLLED[1:]))
    return Series(dict(key), times[shown], values[shown], rollup)
