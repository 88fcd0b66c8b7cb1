"""All responses that are live: in a list, by URL and by tag.

The list is in no order. A walk goes down from its end: whatever leaves is replaced by the last,
which the walk has seen, and what comes in is added at the end, and has been judged by barriers that
already stand. So a walk misses nothing, holds nothing, and may take as long as it likes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headgate.cache.invalidation import Invalidation
    from headgate.gateway.caching.variants import Kept

__all__ = ["Index", "Roll"]


class Index:
    """Which responses bear a name. Most names have one; that costs no set."""

    __slots__ = ("_named",)

    def __init__(self) -> None:
        self._named: dict[str, Kept | set[Kept]] = {}

    def __len__(self) -> int:
        return len(self._named)

    def add(self, name: str, kept: Kept) -> None:
        held = self._named.get(name)
        if held is None:
            self._named[name] = kept
        elif isinstance(held, set):
            held.add(kept)
        elif held is not kept:
            self._named[name] = {held, kept}

    def discard(self, name: str, kept: Kept) -> None:
        held = self._named.get(name)
        if isinstance(held, set):
            held.discard(kept)
            if not held:
                del self._named[name]
        elif held is kept:
            del self._named[name]

    def named(self, name: str) -> list[Kept]:
        held = self._named.get(name)
        if held is None:
            return []
        return list(held) if isinstance(held, set) else [held]


class Roll:
    __slots__ = ("_hand", "_seats", "_tags", "_urls")

    def __init__(self) -> None:
        self._seats: list[Kept] = []
        self._hand = -1
        self._urls = Index()
        self._tags = Index()

    def __len__(self) -> int:
        return len(self._seats)

    def enter(self, kept: Kept) -> None:
        kept.is_live = True
        kept.seat = len(self._seats)
        self._seats.append(kept)
        self._urls.add(kept.url, kept)
        for tag in kept.stored.tags:
            self._tags.add(tag, kept)

    def leave(self, kept: Kept) -> None:
        """No harm if it is not here."""
        kept.is_live = False
        seat = kept.seat
        if seat < 0:
            return
        kept.seat = -1
        last = self._seats.pop()
        if last is not kept:
            self._seats[seat] = last
            last.seat = seat
        self._urls.discard(kept.url, kept)
        for tag in kept.stored.tags:
            self._tags.discard(tag, kept)

    def at(self, url: str) -> list[Kept]:
        return self._urls.named(url)

    def last(self) -> Kept | None:
        return self._seats[-1] if self._seats else None

    def named_by(self, asked: Invalidation) -> Iterator[Kept]:
        """Those with one of its URLs or tags, as they are written there."""
        for index, names in ((self._urls, asked.urls), (self._tags, asked.tags)):
            for name in names:
                found = index.named(name)
                while found:
                    # Out of the list, so that very many are not all given back at its end.
                    yield found.pop()

    def walk(self) -> Iterator[Kept]:
        at = len(self._seats)
        while at > 0:
            at = min(at, len(self._seats)) - 1
            if at >= 0:
                yield self._seats[at]

    def next(self) -> Kept | None:
        """Round and round."""
        if not 0 <= self._hand < len(self._seats):
            self._hand = len(self._seats) - 1
            if self._hand < 0:
                return None
        kept = self._seats[self._hand]
        self._hand -= 1
        return kept
