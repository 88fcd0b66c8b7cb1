"""The block of each tier that is being filled: a matrix that grows by rows and by columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from headgate.observe.history.codec import Floats
from headgate.observe.history.series import Key, SeriesSet

__all__ = ["FIELDS", "Fields", "OpenBlock", "rolled_up"]

FIELDS: Final = ("last", "count", "sum", "min", "max")
Fields = dict[str, Floats]
_ROWS: Final = 256


class OpenBlock:
    """Rows are series in the order they came; columns are moments."""

    def __init__(self, columns: int, *, is_rolled: bool) -> None:
        self.columns = columns
        self.is_rolled = is_rolled
        self.names = FIELDS if is_rolled else FIELDS[:1]
        self.keys: list[Key] = []
        self.is_counter: list[bool] = []
        self.row_of: dict[Key, int] = {}
        self.times = np.zeros(columns)
        self.used = 0
        self._fields: Fields = {name: np.full((_ROWS, columns), np.nan) for name in self.names}
        self._set: SeriesSet | None = None

    def row(self, key: Key, is_counter: bool) -> int:
        """The row of a series, a new one if it has none."""
        row = self.row_of.get(key)
        if row is None:
            row = self.row_of[key] = len(self.keys)
            self.keys.append(key)
            self.is_counter.append(is_counter)
            self._set = None
            have = len(self._fields["last"])
            if row >= have:
                for name, matrix in self._fields.items():
                    more = np.full((have, self.columns), np.nan)
                    self._fields[name] = np.concatenate((matrix, more))
        return row

    @property
    def is_full(self) -> bool:
        return self.used >= self.columns

    def put(self, at: float, rows: NDArray[np.int_] | None, fields: Mapping[str, Floats]) -> None:
        """One column; `rows` says whose the values are (None: of the first rows, all)."""
        for name in self.names:
            values = fields[name]
            if rows is None:
                self._fields[name][: len(values), self.used] = values
            else:
                self._fields[name][rows, self.used] = values
        self.times[self.used] = at
        self.used += 1

    def set_newest(self, rows: Sequence[int], value: float) -> None:
        """Put this, after all, into the newest column of rows that had nothing there."""
        self._fields["last"][np.asarray(rows, dtype=np.intp), self.used - 1] = value

    def series(self) -> SeriesSet:
        if self._set is None:
            self._set = SeriesSet(self.keys, self.is_counter)
        return self._set

    def matrix(self, name: str) -> Floats:
        """What is filled of a field. A view."""
        return self._fields[name][: len(self.keys), : self.used]

    def read(self, name: str, rows: Sequence[int]) -> Floats:
        if name not in self._fields:
            return np.full((len(rows), self.used), np.nan)
        found: Floats = self._fields[name][np.asarray(rows, dtype=np.intp), : self.used]
        return found

    def living(self) -> list[int]:
        """Rows that have a value in the newest column."""
        if not self.used:
            return list(range(len(self.keys)))
        newest = self._fields["last"][: len(self.keys), self.used - 1]
        return [int(row) for row in np.flatnonzero(~np.isnan(newest))]


def rolled_up(block: OpenBlock) -> Fields:
    """One column out of all columns of a block, field by field."""
    last = block.matrix("last")
    there = ~np.isnan(last)
    some = there.any(axis=1)
    newest = last.shape[1] - 1 - np.argmax(there[:, ::-1], axis=1)
    lasts = np.where(some, last[np.arange(len(last)), newest], np.nan)
    if block.is_rolled:
        counts, sums = block.matrix("count"), block.matrix("sum")
        mins, maxs = block.matrix("min"), block.matrix("max")
    else:
        counts, sums, mins, maxs = there.astype(np.float64), last, last, last
    return {
        "last": lasts,
        "count": np.where(some, np.nansum(counts, axis=1), np.nan),
        "sum": np.where(some, np.nansum(sums, axis=1), np.nan),
        "min": np.fmin.reduce(mins, axis=1),
        "max": np.fmax.reduce(maxs, axis=1),
    }
