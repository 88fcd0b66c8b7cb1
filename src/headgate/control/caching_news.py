"""What was invalidated lately, for services that ask by long poll.

Theory of operation. Invalidations are kept in the order of their stamps, which is that of their
telling, up to bounds; what makes room raises `floor`. Whoever says how far it has followed is told
what came after. If that is below `floor`, or above all that was ever said here (it followed another
clock), not all can be told: it hears of a gap, and must drop what it holds of others' making.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass
from typing import Final

from headgate.cache.invalidation import Invalidation

__all__ = ["News", "Told"]

MESSAGES_MAX: Final = 1000
CHARACTERS_MAX: Final = 4_000_000
ANSWER_MAX: Final = 200
ANSWER_CHARACTERS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Told:
    stamp: int
    """To here; ask for what comes after it."""
    gap: bool
    news: tuple[Invalidation, ...] = ()


class News:
    def __init__(
        self, floor: int, most: int = MESSAGES_MAX, most_characters: int = CHARACTERS_MAX
    ) -> None:
        self.floor = floor
        self.stamp = floor
        self._most = most
        self._most_characters = most_characters
        self._kept: deque[tuple[Invalidation, int]] = deque()
        self._characters = 0
        self._bell = asyncio.Event()
        self.is_over = False

    def add(self, invalidation: Invalidation) -> None:
        """Keep it and wake who waits. Its stamp is above all before it."""
        size = _size(invalidation)
        self._kept.append((invalidation, size))
        self._characters += size
        self.stamp = invalidation.stamp
        while len(self._kept) > self._most or self._characters > self._most_characters:
            gone, its_size = self._kept.popleft()
            self._characters -= its_size
            self.floor = gone.stamp
        self._ring()

    def lost(self, stamp: int) -> None:
        """Something was missed here before this stamp: nobody can be told all."""
        self._kept.clear()
        self._characters = 0
        self.floor = self.stamp = stamp
        self._ring()

    def since(self, stamp: int | None) -> Told:
        if stamp is None:
            return Told(self.stamp, gap=False)
        if stamp < self.floor or stamp > self.stamp:
            return Told(self.stamp, gap=True)
        at = bisect_right(self._kept, stamp, key=lambda kept: kept[0].stamp)
        news: list[Invalidation] = []
        characters = 0
        for index in range(at, len(self._kept)):
            invalidation, size = self._kept[index]
            characters += size
            if news and (len(news) >= ANSWER_MAX or characters > ANSWER_CHARACTERS):
                break
            news.append(invalidation)
        return Told(news[-1].stamp if news else self.stamp, gap=False, news=tuple(news))

    def between(self, after: int, to: int) -> list[Invalidation] | None:
        """What was told in between, `to` included; None if not all is known any more."""
        if after < self.floor:
            return None
        return [each for each, _ in self._kept if after < each.stamp <= to]

    async def wait(self) -> None:
        """Until something is added, or this is over."""
        if not self.is_over:
            await self._bell.wait()

    def close(self) -> None:
        """Nobody need wait any longer."""
        self.is_over = True
        self._ring()

    def _ring(self) -> None:
        bell, self._bell = self._bell, asyncio.Event()
        bell.set()


def _size(said: Invalidation) -> int:
    names = (said.tags, said.keys, said.patterns, said.urls)
    return 100 + len(said.by) + sum(len(name) + 8 for names_ in names for name in names_)
