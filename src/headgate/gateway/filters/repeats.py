"""What bodies became that were compressed before, for those that come again and again. Pure.

Theory of operation. The cache holds what a service said, so a kept response is compressed anew for
each client that is given it: of all that a hit costs that is the most. Here the second time pays:
a body that comes whole for the second time is kept with what became of it, and from the third time
on looked up. A kept response is the same bytes object each time, whose hash Python remembers, so a
look-up reads nothing of it. Of what comes once only a number is noted.

It is a function's value that is kept (coding, level, body): nothing can make it untrue, and nobody
learns from it what he could not ask for. What was not asked for the longest time goes first.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

__all__ = ["Repeats"]

SIZE_MAX: Final = 8 * 1024 * 1024
"""Of one worker: bodies and what became of them."""
SEEN_MAX: Final = 4096

Key = tuple[str, int, bytes]


class Repeats:
    __slots__ = ("_kept", "_seen", "bytes", "size_max")

    def __init__(self, size_max: int = SIZE_MAX) -> None:
        self.size_max = size_max
        self.bytes = 0
        self._kept: OrderedDict[Key, bytes] = OrderedDict()
        self._seen: OrderedDict[int, None] = OrderedDict()

    def find(self, key: Key) -> bytes | None:
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
        return found

    def made(self, key: Key, packed: bytes) -> None:
        """What has become of a body that was not found."""
        mark = hash(key)
        if mark not in self._seen:
            self._seen[mark] = None
            if len(self._seen) > SEEN_MAX:
                self._seen.popitem(last=False)
            return
        del self._seen[mark]
        self._kept[key] = packed
        self.bytes += len(key[2]) + len(packed)
        while self.bytes > self.size_max:
            (_, _, old), gone = self._kept.popitem(last=False)
            self.bytes -= len(old) + len(gone)
