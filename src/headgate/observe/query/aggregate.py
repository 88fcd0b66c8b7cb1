"""Many series into few: sum, topk and their like."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from headgate.observe.query.block import Block, Bools, Key, Labels, stacked
from headgate.observe.query.model import Floats
from headgate.observe.query.syntax import Aggregate
from headgate.observe.query.windows import interpolated

__all__ = ["aggregate"]


def aggregate(asked: Aggregate, block: Block, parameter: Floats | None) -> Block:
    """Group the rows of `block` and make one of each group, or choose among them."""
    moments = block.values.shape[1]
    groups: dict[Key, tuple[Labels, list[int]]] = {}
    for row, labels in enumerate(block.labels):
        kept = _kept(asked, labels)
        groups.setdefault(tuple(sorted(kept.items())), (kept, []))[1].append(row)
    made: list[Block] = []
    for labels, rows in groups.values():
        member = block.take(rows)
        if asked.op in {"topk", "bottomk"} and parameter is not None:
            made.append(_chosen(member, parameter, is_top=asked.op == "topk"))
            continue
        if asked.op == "quantile" and parameter is not None:
            values = _quantile(member, parameter)
        else:
            with np.errstate(all="ignore"):
                values = _MADE[asked.op](member.values, member.have)
        made.append(Block([labels], values[None, :], np.asarray(member.have.any(axis=0))[None, :]))
    return stacked(made, moments)


def _kept(asked: Aggregate, labels: Labels) -> Labels:
    if asked.is_without:
        gone = {*asked.labels, "__name__"}
        return {name: value for name, value in labels.items() if name not in gone}
    return {name: labels[name] for name in asked.labels if labels.get(name)}


def _total(values: Floats, have: Bools) -> Floats:
    found: Floats = np.where(have, values, 0.0).sum(axis=0)
    return found


def _average(values: Floats, have: Bools) -> Floats:
    found: Floats = _total(values, have) / have.sum(axis=0)
    return found


def _deviation(values: Floats, have: Bools) -> Floats:
    off = np.where(have, values - _average(values, have), 0.0)
    found: Floats = np.sqrt((off * off).sum(axis=0) / have.sum(axis=0))
    return found


_MADE: Final[dict[str, Callable[[Floats, Bools], Floats]]] = {
    "sum": _total,
    "avg": _average,
    # fmin and fmax pass over NaN, as Prometheus does
    "min": lambda values, have: np.fmin.reduce(np.where(have, values, np.nan), axis=0),
    "max": lambda values, have: np.fmax.reduce(np.where(have, values, np.nan), axis=0),
    "count": lambda _values, have: have.sum(axis=0).astype(np.float64),
    "group": lambda values, _have: np.ones(values.shape[1]),
    "stddev": _deviation,
}


def _quantile(member: Block, shares: Floats) -> Floats:
    rows, moments = member.values.shape
    absent_last = np.lexsort((member.values, ~member.have), axis=0)
    ordered = np.take_along_axis(member.values, absent_last, axis=0).T.ravel()
    sizes = member.have.sum(axis=0)
    starts = np.arange(moments) * rows
    return interpolated(ordered, starts, np.maximum(sizes, 1), shares)


def _chosen(member: Block, parameter: Floats, *, is_top: bool) -> Block:
    with np.errstate(all="ignore"):
        many = np.nan_to_num(np.trunc(parameter), nan=0.0)
    keys = -member.values if is_top else member.values
    # NaN comes last in any order, and what is absent after it
    order = np.lexsort((np.nan_to_num(keys, nan=np.inf), np.isnan(keys), ~member.have), axis=0)
    ranks = np.argsort(order, axis=0)
    have = member.have & (ranks < many)
    rows = np.flatnonzero(have.any(axis=1))
    return Block([member.labels[int(row)] for row in rows], member.values[rows], have[rows])
