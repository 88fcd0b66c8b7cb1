"""Many series over many moments at once: a row a series, a column a moment.

Theory of operation. The labels of a result do not depend on the moment, only whether it is there
does. So an expression is evaluated once for all moments, in arrays: `values` and, for where a
series has a value at all, `have` (a NaN may be a value). Whatever may give two rows the same
labels goes through `unique`, which lays them over each other where they do not overlap.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headgate.observe.query.model import Floats, QueryFault

__all__ = ["Block", "Labels", "empty", "key_of", "nameless", "unique"]

Labels = Mapping[str, str]
Key = tuple[tuple[str, str], ...]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    labels: Sequence[Labels]
    values: Floats  # (rows, moments)
    have: Bools

    def take(self, rows: Sequence[int] | NDArray[np.int_]) -> Block:
        """Only these rows."""
        return Block([self.labels[row] for row in rows], self.values[rows], self.have[rows])


def empty(moments: int) -> Block:
    return Block([], np.empty((0, moments)), np.empty((0, moments), dtype=bool))


def key_of(labels: Labels) -> Key:
    return tuple(sorted(labels.items()))


def nameless(labels: Labels) -> Labels:
    if "__name__" not in labels:
        return labels
    return {name: value for name, value in labels.items() if name != "__name__"}


def unique(block: Block, position: int) -> Block:
    """The same with each set of labels once. Two at one moment are a fault of the question."""
    places: dict[Key, list[int]] = {}
    for row, labels in enumerate(block.labels):
        places.setdefault(key_of(labels), []).append(row)
    if len(places) == len(block.labels):
        return block
    firsts = [rows[0] for rows in places.values()]
    merged = block.take(firsts)
    values, have = merged.values.copy(), merged.have.copy()
    for at, rows in enumerate(places.values()):
        for row in rows[1:]:
            there = block.have[row]
            if (have[at] & there).any():
                raise QueryFault(
                    f"two series come to the same labels {shown(block.labels[row])}",
                    position,
                    "add them up, or keep a label that tells them apart",
                )
            values[at] = np.where(there, block.values[row], values[at])
            have[at] |= there
    return Block(merged.labels, values, have)


def shown(labels: Labels) -> str:
    said = ", ".join(f'{name}="{value}"' for name, value in labels.items())
    return f"{{{said}}}"


def stacked(blocks: Iterable[Block], moments: int) -> Block:
    """All rows of all blocks."""
    all_of = [block for block in blocks if block.labels]
    if not all_of:
        return empty(moments)
    return Block(
        [labels for block in all_of for labels in block.labels],
        np.concatenate([block.values for block in all_of]),
        np.concatenate([block.have for block in all_of]),
    )
