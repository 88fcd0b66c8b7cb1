"""Snapshots one after the other, of which only what has changed is told.

Theory of operation. A snapshot of a thousand routes is a megabyte of JSON, and from one second to
the next most of it is the same. So who tells (`Telling`) keeps the rows told last and gives each
telling a number; who hears says the number that it holds, and gets the rows that differ since, by
their places: `changed` has `[place, value]`, and of a histogram only the buckets that differ. A
family whose rows are others, or stand elsewhere, comes whole. Whoever holds anything else than what
was told last gets everything, so that an answer that is lost, late or torn costs one long telling
and nothing else.

`held` puts a telling and what is held together again; it makes new lists where it changes any,
because others may hold those of before.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from itertools import compress
from operator import ne
from typing import Any, Final

__all__ = ["NOTHING", "Misfit", "Telling", "held"]

NOTHING: Final = 0
"""The number of no telling."""
_ROWS: Final = 200
_HISTOGRAM_ROWS: Final = 20


class Misfit(ValueError):
    """A telling is of changes to something else than what is held."""


class Telling:
    """What has been told to one hearer."""

    __slots__ = ("_rows", "number")

    def __init__(self) -> None:
        self._rows: Mapping[str, Sequence[Any]] = {}
        self.number = NOTHING
        """Of the last telling."""

    def steps(
        self, snapshot: Mapping[str, Any], held_number: int
    ) -> Generator[None, None, dict[str, Any]]:
        """What to tell of this snapshot, in steps of a fraction of a millisecond."""
        before, rows = self._rows, snapshot["rows"]
        told: dict[str, Any] = dict(snapshot)
        if held_number != NOTHING and held_number == self.number:
            whole: dict[str, Any] = {}
            changed: dict[str, list[list[Any]]] = {}
            for family, now in rows.items():
                then = before.get(family)
                found = None if then is None else (yield from _differing(then, now))
                if found is None:
                    whole[family] = now
                elif found:
                    changed[family] = found
            gone = [family for family in before if family not in rows]
            told |= {"rows": whole, "changed": changed, "gone": gone, "since": held_number}
        self.number += 1
        self._rows = rows
        told["number"] = self.number
        return told


def _differing(
    then: Sequence[Any], now: Sequence[Any]
) -> Generator[None, None, list[list[Any]] | None]:
    """The places and values that differ; None where the rows are not the same."""
    if len(then) != len(now):
        return None
    found: list[list[Any]] = []
    size = _HISTOGRAM_ROWS if now and isinstance(now[0][1], dict) else _ROWS
    for first in range(0, len(now), size):
        for at, (old, new) in enumerate(
            zip(then[first : first + size], now[first : first + size], strict=True), first
        ):
            if old is new:
                continue
            if old[0] != new[0]:
                return None
            if old[1] != new[1]:
                found.append([at, _change(old[1], new[1])])
        yield
    return found


def _change(old: Any, new: Any) -> Any:
    if not isinstance(new, dict):
        return new
    change = dict(new)
    counts = change.pop("counts")
    # The longest part of a telling where all routes are busy: a loop in C.
    places = compress(range(len(counts)), map(ne, old["counts"], counts))
    change["at"] = [(at, counts[at]) for at in places]
    return change


def held(before: Mapping[str, Any] | None, told: Mapping[str, Any]) -> dict[str, Any]:
    """The whole snapshot; raises Misfit, or what torn values raise."""
    if "since" not in told:
        return dict(told)
    if before is None or before.get("number") != told["since"]:
        raise Misfit(f"changes since {told['since']} do not fit")
    gone = set(told["gone"])
    rows = {family: list_ for family, list_ in before["rows"].items() if family not in gone}
    rows |= told["rows"]
    for family, found in told["changed"].items():
        fresh = list(rows[family])
        for at, value in found:
            labels, old = fresh[at]
            fresh[at] = [labels, _changed(old, value) if isinstance(value, dict) else value]
        rows[family] = fresh
    kept = {name: value for name, value in told.items() if name not in ("changed", "gone", "since")}
    return {**kept, "rows": rows}


def _changed(old: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    counts = list(old["counts"])
    for at, count in change["at"]:
        counts[at] = count
    return {**{name: value for name, value in change.items() if name != "at"}, "counts": counts}
