"""Values that were read, for as long as they may be used: fresh ones, and old ones in need.

Pure: the caller brings the time. Bounded: the value that was not asked for longest goes first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["Kept"]

Value = TypeVar("Value")


class Kept(Generic[Value]):
    """At most `size` values, fresh for `fresh_s` and of some use for `stale_s`."""

    def __init__(self, size: int, fresh_s: float, stale_s: float) -> None:
        self._size = size
        self._fresh_s = fresh_s
        self._stale_s = stale_s
        self._rows: OrderedDict[Hashable, tuple[float, Value]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return f"Kept({len(self._rows)} of {self._size})"

    def fresh(self, key: Hashable, now: float) -> Value | None:
        """The value, if it was read a short while ago."""
        return self._young(key, now, self._fresh_s)

    def stale(self, key: Hashable, now: float, stale_s: float | None = None) -> Value | None:
        """The value, if it is young enough to stand in for one that cannot be read."""
        return self._young(key, now, self._stale_s if stale_s is None else stale_s)

    def _young(self, key: Hashable, now: float, age_s: float) -> Value | None:
        row = self._rows.get(key)
        if row is None or not 0.0 <= now - row[0] < age_s:
            return None
        self._rows.move_to_end(key)
        return row[1]

    def put(self, key: Hashable, value: Value, now: float) -> None:
        self._rows[key] = (now, value)
        self._rows.move_to_end(key)
        while len(self._rows) > self._size:
            self._rows.popitem(last=False)

    def drop(self, key: Hashable) -> None:
        self._rows.pop(key, None)

    def clear(self) -> None:
        self._rows.clear()
