"""Barriers: what was invalidated when, so that nothing older is served or written back.

Theory of operation. Time is a *stamp*, a whole number that grows with every invalidation and is
given out by one place for all who share a cache (the process, the file, Redis): a logical clock, so
that the clocks of machines do not matter. Whoever loads a value notes `stamp` before it begins; the
value carries it from then on. An invalidation raises a barrier at its own stamp on each of its
names. A value is dead if a barrier above its stamp stands on its key, on one of its tags, or on all
of it. So a loader that began before an invalidation can never write back what it read, and
untagged values pay nothing but a look at their key.

To know a stamp that is too old is safe: then a value is taken for dead that need not be. Barriers
are bounded; the oldest is forgotten by raising `floor` to its stamp, below which everything is
dead. Whoever has judged a value remembers `version` beside it, and asks again only when that has
moved: a purge costs its own names, and every value one look when it is next used.

A soft barrier makes what is below it stale; a hard one later, or before, makes it dead.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import IntEnum
from typing import Final, Literal

from headgate.cache.invalidation import Invalidation

__all__ = ["Barriers", "Standing"]

_GLOBS_MAX: Final = 1000


class Standing(IntEnum):
    ALIVE = 0
    STALE = 1
    DEAD = 2


class _Kind:
    """Barriers of one strength: the stamp below which each name is struck."""

    __slots__ = ("all", "globs", "has_paths", "names", "tags")

    def __init__(self) -> None:
        self.all = 0
        self.tags: dict[str, int] = {}
        self.names: dict[str, int] = {}
        self.globs: dict[str, tuple[re.Pattern[str], int]] = {}
        self.has_paths = False
        """Some name or glob begins with a slash: it means that path at any host."""

    def strikes(self, name: str, tags: Iterable[str], stamp: int) -> bool:
        if stamp < self.all or stamp < self.names.get(name, 0):
            return True
        known = self.tags
        if known:
            for tag in tags:
                if stamp < known.get(tag, 0):
                    return True
        if not self.globs and not self.has_paths:
            return False
        if self.has_paths:
            path = path_of(name)
            if stamp < self.names.get(path, 0):
                return True
        else:
            path = name
        return any(
            stamp < at and glob.fullmatch(path if said.startswith("/") else name)
            # A copy: another thread may be raising one.
            for said, (glob, at) in list(self.globs.items())
        )


class Barriers:
    def __init__(
        self, family: Literal["objects", "responses"] = "objects", most: int = 100_000
    ) -> None:
        self._family = family
        self._most = most
        self._hard = _Kind()
        self._soft = _Kind()
        self.stamp = 0
        """The latest that is known; a loader notes it before it begins."""
        self.floor = 0
        self.version = 0
        self._last = 0
        """The highest barrier of all: what is newer need not be compared with any."""

    def heard(self, stamp: int) -> None:
        """The clock stands here at least."""
        self.stamp = max(self.stamp, stamp)

    def raise_for(self, invalidation: Invalidation) -> bool:
        """Take an invalidation in; whether it concerned anything here. Twice is as good as once."""
        stamp = invalidation.stamp
        self.heard(stamp)
        self._last = max(self._last, stamp)
        kind = self._soft if invalidation.soft else self._hard
        if invalidation.everything in (self._family, "all"):
            kind.all = max(kind.all, stamp)
        elif not self._raise_names(kind, invalidation, stamp):
            return False
        self.version += 1
        return True

    def _raise_names(self, kind: _Kind, invalidation: Invalidation, stamp: int) -> bool:
        if self._family == "objects":
            names, globs = invalidation.keys, invalidation.patterns
        else:
            names = tuple(url for url in invalidation.urls if "*" not in url)
            globs = tuple(url for url in invalidation.urls if "*" in url)
            kind.has_paths |= any(url.startswith("/") for url in invalidation.urls)
        for tag in invalidation.tags:
            _put(kind.tags, tag, stamp)
        for name in names:
            _put(kind.names, name, stamp)
        for glob in globs:
            before = kind.globs.pop(glob, None)
            at = stamp if before is None else max(stamp, before[1])
            kind.globs[glob] = (compiled(glob), at)
        while len(kind.tags) + len(kind.names) > self._most:
            self._forget(kind.tags if len(kind.tags) > len(kind.names) else kind.names)
        while len(kind.globs) > _GLOBS_MAX:
            _, at = kind.globs.pop(next(iter(kind.globs)))
            self.floor = max(self.floor, at)
        return bool(invalidation.tags or names or globs)

    def _forget(self, barriers: dict[str, int]) -> None:
        self.floor = max(self.floor, barriers.pop(next(iter(barriers))))

    def raise_floor(self, stamp: int) -> None:
        """Nothing older than this is served any more: news may have been missed."""
        self.heard(stamp)
        if stamp > self.floor:
            self.floor = stamp
            self._last = max(self._last, stamp)
            self.version += 1

    def judge(self, name: str, tags: Iterable[str], stamp: int) -> Standing:
        """What a value of this stamp is worth. `name`: its key, or its URL."""
        if stamp >= self._last:
            return Standing.ALIVE
        if stamp < self.floor or self._hard.strikes(name, tags, stamp):
            return Standing.DEAD
        return Standing.STALE if self._soft.strikes(name, tags, stamp) else Standing.ALIVE


def _put(barriers: dict[str, int], name: str, stamp: int) -> None:
    # Taken out first, so that the order of the dictionary is that of the stamps.
    barriers[name] = max(stamp, barriers.pop(name, 0))


def path_of(url: str) -> str:
    """What stands behind the host: `/path?query`."""
    start = url.find("/", url.find("://") + 3)
    return url[start:] if start >= 0 else "/"


def compiled(glob: str) -> re.Pattern[str]:
    """A pattern in which each `*` stands for any characters. At worst the product of both lengths,
    as no part is tried again behind where it was found.
    """
    parts = [re.escape(part) for part in re.split(r"\*+", glob)]
    first, *rest = parts
    # Each part but the last is taken where it first occurs; the last stands at the end.
    middle = "".join(f"(?>.*?{part})" for part in rest[:-1] if part)
    tail = f".*{rest[-1]}" if rest else ""
    return re.compile(first + middle + tail, re.DOTALL)
