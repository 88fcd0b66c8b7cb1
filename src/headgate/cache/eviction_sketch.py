"""How often keys that are not here were asked for: a table of counts of fixed size.

Theory of operation. One row of one-byte counts, addressed by the key's hash. Two keys on one cell
share the larger count, so an estimate errs upwards only. One row of 64 cells a key hits as much as
two rows of 16 (measured on zipf and scans), and is asked in half the time. `str` hashes are keyed
anew in every process, so nobody outside can aim at a cell (unless PYTHONHASHSEED is set).

All counts are halved by `age`, a slice at a time: a large table is never walked at once. The table
doubles with what it serves by being written twice in a row, which leaves every estimate as it was,
as the hash is cut to one bit more.
"""

from __future__ import annotations

from typing import Final

__all__ = ["COUNT_MAX", "Sketch"]

COUNT_MAX: Final = 15
"""Counts end here. More tells the popular from the very popular, and forgets them later."""

_HALF: Final = bytes(count >> 1 for count in range(256))
_SLICE: Final = 32_768
_CELLS_LEAST: Final = 2048
_CELLS_PER_KEY: Final = 64
_CELLS_MOST: Final = 1 << 28


class Sketch:
    __slots__ = ("_aged_to", "counts", "mask")

    def __init__(self) -> None:
        self.counts = bytearray(_CELLS_LEAST)
        """Read and written where it is hot, as `counts[hash & mask]`."""
        self.mask = _CELLS_LEAST - 1
        self._aged_to = _CELLS_LEAST

    def serve(self, keys: int) -> None:
        """Be large enough for this many keys."""
        wanted = min(_CELLS_MOST, keys * _CELLS_PER_KEY)
        while self.mask + 1 < wanted:
            while self.is_ageing:
                self.step()
            self.counts = self.counts * 2
            self.mask = len(self.counts) - 1
            self._aged_to = len(self.counts)

    @property
    def is_ageing(self) -> bool:
        return self._aged_to <= self.mask

    def age(self) -> None:
        """Begin to halve all counts; `step` goes on with it."""
        while self.is_ageing:
            self.step()
        self._aged_to = 0

    def step(self) -> None:
        start, end = self._aged_to, min(self._aged_to + _SLICE, self.mask + 1)
        self.counts[start:end] = self.counts[start:end].translate(_HALF)
        self._aged_to = end
