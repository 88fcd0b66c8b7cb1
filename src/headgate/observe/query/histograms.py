"""`histogram_quantile`: from counts at or below each bound to a value."""

from __future__ import annotations

import numpy as np

from headgate.observe.query.block import Block, Bools, Key, Labels, nameless, stacked
from headgate.observe.query.model import Floats

__all__ = ["histogram_quantile"]


def histogram_quantile(shares: Floats, block: Block) -> Block:
    """The rows of each histogram into one. Where buckets come and go, each pattern of those that
    are there is reckoned by itself.
    """
    groups: dict[Key, tuple[Labels, list[tuple[float, int]]]] = {}
    for row, labels in enumerate(block.labels):
        try:
            bound = float(labels["le"])
        except (KeyError, ValueError):
            continue
        rest = {name: value for name, value in nameless(labels).items() if name != "le"}
        groups.setdefault(tuple(sorted(rest.items())), (rest, []))[1].append((bound, row))
    made: list[Block] = []
    for labels, pairs in groups.values():
        pairs.sort()
        bounds = np.array([bound for bound, _ in pairs])
        rows = [row for _, row in pairs]
        values, have = _reckoned(shares, bounds, block.values[rows], block.have[rows])
        made.append(Block([labels], values[None, :], have[None, :]))
    return stacked(made, block.values.shape[1])


def _reckoned(shares: Floats, bounds: Floats, counts: Floats, have: Bools) -> tuple[Floats, Bools]:
    found = np.full(counts.shape[1], np.nan)
    patterns, which = np.unique(have, axis=1, return_inverse=True)
    which = np.ravel(which)
    for at in range(patterns.shape[1]):
        there = patterns[:, at]
        if there.any():
            moments = which == at
            found[moments] = _of_buckets(shares[moments], bounds[there], counts[there][:, moments])
    return found, np.asarray(have.any(axis=0))


def _of_buckets(shares: Floats, bounds: Floats, counts: Floats) -> Floats:
    moments = counts.shape[1]
    bounds, firsts = np.unique(bounds, return_index=True)
    counts = np.maximum.accumulate(np.add.reduceat(counts, firsts, axis=0), axis=0)
    special = np.where(shares < 0, -np.inf, np.where(shares > 1, np.inf, np.nan))
    if len(bounds) < 2 or bounds[-1] != np.inf:
        return np.where(np.isnan(shares) | ((shares >= 0) & (shares <= 1)), np.nan, special)
    total = counts[-1]
    rank = shares * total
    place = (counts[:-1] < rank).sum(axis=0)
    column = np.arange(moments)
    lower = np.minimum(place, len(bounds) - 2)
    start = np.where(lower > 0, bounds[np.maximum(lower - 1, 0)], 0.0)
    before = np.where(lower > 0, counts[np.maximum(lower - 1, 0), column], 0.0)
    with np.errstate(all="ignore"):
        inside = (rank - before) / (counts[lower, column] - before)
        found = start + (bounds[lower] - start) * inside
    if bounds[0] <= 0:
        found = np.where(place == 0, bounds[0], found)
    found = np.where(place >= len(bounds) - 1, bounds[-2], found)
    found = np.where(total > 0, found, np.nan)
    return np.where((shares >= 0) & (shares <= 1), found, special)
