"""What could not be told to the file yet.

Theory of operation. What was invalidated while the file could not be written holds in this process
at once, and must reach the others before anything else is written. A key whose new value could
not be kept is owed too: what the file has under it is older. Of more invalidations or keys than the
bounds, everything is invalidated instead. The loop adds while the thread pays; each step is one
operation on a list or a dictionary.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from headgate.cache.invalidation import ITEMS_MAX, Invalidation

__all__ = ["Owed"]

_MAX: Final = 1000
_KEYS_MAX: Final = 10_000


class Owed:
    __slots__ = ("_keys", "_said", "dropped")

    def __init__(self) -> None:
        self._said: list[Invalidation] = []
        self._keys: dict[str, None] = {}
        self.dropped = 0
        """Values that were not kept, and invalidations that were made one of everything."""

    def __len__(self) -> int:
        return len(self._said) + len(self._keys)

    def add(self, invalidation: Invalidation) -> None:
        if len(self._said) >= _MAX:
            self.dropped += len(self._said)
            self._said = [Invalidation(everything="all", stamp=invalidation.stamp)]
        else:
            self._said.append(invalidation)

    def add_keys(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._keys[key] = None
            self.dropped += 1
        if len(self._keys) > _KEYS_MAX:
            self._keys = {}
            self.add(Invalidation(everything="objects"))

    def all(self) -> list[Invalidation]:
        said, keys = list(self._said), list(self._keys)
        for start in range(0, len(keys), ITEMS_MAX):
            said.append(Invalidation(keys=tuple(keys[start : start + ITEMS_MAX]), by=_OF_KEYS))
        return said

    def paid(self, said: Iterable[Invalidation]) -> None:
        """These have been told; what has been added meanwhile has not."""
        for each in said:
            if each.by == _OF_KEYS:
                for key in each.keys:
                    self._keys.pop(key, None)
            elif each in self._said:
                self._said.remove(each)


_OF_KEYS: Final = "values not kept"
