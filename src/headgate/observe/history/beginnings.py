"""Counters that begin: each gets a 0 at the moment before.

Theory of operation
-------------------
A counter is not there before it counts, so its first value is no increase: twenty failures that are
the first of their route would be seen by no `rate`. Here it is known that they are: where all the
processes in these figures were in those of the moment before, what was absent then was 0.

A process that was not heard before, as all are after a restart of control, may have counted for
days; carried totals may be shown for the first time. So in a moment that has a new life nothing
gets a 0, nor does what was shown before, ended and is back. Figures of others say nothing of when
they began and are left as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from headgate.observe.history.open_block import OpenBlock
from headgate.observe.history.rules import Family
from headgate.observe.history.series import Key

__all__ = ["Beginnings", "Lives", "key_of"]

Lives = frozenset[tuple[str, str]]
"""Processes with their starts."""

Rows = dict[tuple[str, tuple[str, ...]], dict[tuple[str, ...], int]]

_LONGEST_S: Final = 60.0
"""The moment before is not before that."""


def key_of(family: Family, labels: tuple[str, ...]) -> Key:
    pairs = zip(family.labels, labels, strict=True)
    return (("__name__", family.name), *((n, v) for n, v in pairs if v))


class Beginnings:
    """What one must know of the moments before."""

    def __init__(self, most: int) -> None:
        """`most` series there may be."""
        self._most = most
        self._lives: Lives | None = None
        self._ended: set[Key] = set()

    def noted(self, lives: Lives | None) -> None:
        """A moment with the figures of these was kept; None if it is not known whose they were."""
        self._lives = lives

    def ended(self, keys: Iterable[Key]) -> None:
        """Series that are not shown any more."""
        if len(self._ended) <= self._most:
            self._ended.update(keys)

    def rows(
        self,
        now: OpenBlock,
        wall: float,
        lives: Lives | None,
        families: Sequence[Family],
        known: Rows,
    ) -> list[int]:
        """Rows that got a 0 in the newest column of `now`. `known` are rows by family, to
        which they are added.
        """
        before, found = self._lives, list[int]()
        if lives is None or before is None or not lives <= before or not now.used:
            return found
        if not 0.0 < wall - float(now.times[now.used - 1]) <= _LONGEST_S:
            return found
        if len(self._ended) > self._most:
            return found  # more are not remembered
        for family in families:
            if not family.from_zero or family.kind != "counter":
                continue
            have = known.setdefault((family.name, family.labels), {})
            if family.samples.keys() <= have.keys():
                continue
            for labels in family.samples:
                if labels in have:
                    continue
                key = key_of(family, labels)
                if key in now.row_of or key in self._ended:
                    continue
                if len(now.keys) >= self._most:
                    break
                have[labels] = now.row(key, is_counter=True)
                found.append(have[labels])
        if found:
            now.set_newest(found, 0.0)
        return found
