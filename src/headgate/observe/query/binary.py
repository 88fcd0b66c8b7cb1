"""Two sides into one: arithmetic, comparison, sets, and which series belong together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from headgate.observe.query.block import Block, Bools, Key, Labels, nameless, shown, stacked, unique
from headgate.observe.query.model import Floats, QueryFault
from headgate.observe.query.syntax import Binary, Matching

__all__ = ["COMPARES", "between_blocks", "between_scalars", "with_scalar"]

_ARITHMETIC: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "%": np.fmod,  # the sign of the left side, as in Go
    "^": np.power,
}
COMPARES: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "==": np.equal,
    "!=": np.not_equal,
    "<": np.less,
    ">": np.greater,
    "<=": np.less_equal,
    ">=": np.greater_equal,
}


def between_scalars(op: str, left: Floats, right: Floats) -> Floats:
    with np.errstate(all="ignore"):
        made = (_ARITHMETIC.get(op) or COMPARES[op])(left, right)
    return np.asarray(made, dtype=np.float64)


def with_scalar(asked: Binary, block: Block, scalar: Floats, *, is_left: bool) -> Block:
    """`is_left`: the block is the left side."""
    sides = (block.values, scalar) if is_left else (scalar, block.values)
    with np.errstate(all="ignore"):
        if asked.op in COMPARES:
            holds = COMPARES[asked.op](*sides)
            if not asked.is_bool:
                return Block(block.labels, block.values, block.have & holds)
            made = holds.astype(np.float64)
        else:
            made = _ARITHMETIC[asked.op](*sides)
    return unique(Block([nameless(one) for one in block.labels], made, block.have), asked.position)


def between_blocks(asked: Binary, left: Block, right: Block) -> Block:
    match asked.op:
        case "and":
            there = _there(asked.matching, right)
            return _masked(asked.matching, left, there, keeps=True)
        case "unless":
            there = _there(asked.matching, right)
            return _masked(asked.matching, left, there, keeps=False)
        case "or":
            there = _there(asked.matching, left)
            rest = _masked(asked.matching, right, there, keeps=False)
            return stacked((left, rest), left.values.shape[1])
        case _:
            return _joined(asked, left, right)


def _signature(matching: Matching, labels: Labels) -> Key:
    if matching.is_on:
        return tuple((name, labels.get(name, "")) for name in matching.labels)
    gone = {*matching.labels, "__name__"}
    return tuple(sorted((name, value) for name, value in labels.items() if name not in gone))


def _there(matching: Matching, block: Block) -> dict[Key, Bools]:
    found: dict[Key, Bools] = {}
    for row, labels in enumerate(block.labels):
        key = _signature(matching, labels)
        found[key] = found[key] | block.have[row] if key in found else block.have[row]
    return found


def _masked(matching: Matching, block: Block, there: dict[Key, Bools], *, keeps: bool) -> Block:
    have = block.have.copy()
    for row, labels in enumerate(block.labels):
        mask = there.get(_signature(matching, labels))
        if mask is None:
            have[row] &= not keeps
        else:
            have[row] &= mask if keeps else ~mask
    rows = np.flatnonzero(have.any(axis=1))
    return Block([block.labels[int(row)] for row in rows], block.values[rows], have[rows])


def _joined(asked: Binary, left: Block, right: Block) -> Block:
    """Rows of the "many" side, each with its partner of the "one" side."""
    matching = asked.matching
    is_swapped = matching.many == "right"
    many, one = (right, left) if is_swapped else (left, right)
    partners: dict[Key, int] = {}
    values, have = one.values, one.have
    is_copied = False
    for row, labels in enumerate(one.labels):
        key = _signature(matching, labels)
        first = partners.setdefault(key, row)
        if first == row:
            continue
        if (have[first] & have[row]).any():
            side = "left" if is_swapped else "right"
            raise QueryFault(
                f"several series on the {side} match {shown(dict(key))}",
                asked.position,
                "say on(...) or ignoring(...), and group_left or group_right where one has many",
            )
        if not is_copied:
            values, have, is_copied = values.copy(), have.copy(), True
        values[first] = np.where(have[row], values[row], values[first])
        have[first] |= have[row]
    taken: dict[Key, Bools] = {}
    rows: list[int] = []
    mates: list[int] = []
    for row, labels in enumerate(many.labels):
        key = _signature(matching, labels)
        mate = partners.get(key)
        if mate is None:
            continue
        both = many.have[row] & have[mate]
        if not matching.many:
            before = taken.get(key)
            if before is not None and (before & both).any():
                raise QueryFault(
                    f"several series on the left match {shown(dict(key))}",
                    asked.position,
                    "add group_left if that is meant",
                )
            taken[key] = both if before is None else before | both
        rows.append(row)
        mates.append(mate)
    if not rows:
        return many.take([])
    lefts, rights = many.values[rows], values[mates]
    if is_swapped:
        lefts, rights = rights, lefts
    found = many.have[rows] & have[mates]
    with np.errstate(all="ignore"):
        if asked.op in COMPARES:
            holds = COMPARES[asked.op](lefts, rights)
            made = holds.astype(np.float64) if asked.is_bool else lefts
            found = found if asked.is_bool else found & holds
        else:
            made = _ARITHMETIC[asked.op](lefts, rights)
    keeps_name = asked.op in COMPARES and not asked.is_bool
    labels_made = [
        _result(matching, many.labels[row], one.labels[mate], keeps_name=keeps_name)
        for row, mate in zip(rows, mates, strict=True)
    ]
    return unique(Block(labels_made, made, found), asked.position)


def _result(matching: Matching, many: Labels, one: Labels, *, keeps_name: bool) -> Labels:
    made = dict(many if keeps_name else nameless(many))
    if not matching.many:
        if matching.is_on:
            made = {name: value for name, value in made.items() if name in matching.labels}
        else:
            made = {name: value for name, value in made.items() if name not in matching.labels}
    for name in matching.include:
        if one.get(name):
            made[name] = one[name]
        else:
            made.pop(name, None)
    return made
