"""What happens in the object cache, told to whoever listens; free while nobody does.

`what` is in the past tense, or the noun that everybody uses: "hit", "miss", "stale", "load",
"load_failed", "joined", "early", "unchanged", "set", "deleted", "invalidated", "layer_hit",
"layer_miss", "layer_away", "layer_failed", "gap", "link_failed", "dropped" (a value that was
invalidated while it was loaded). A listener is called where it happens, also in other threads, and
must be quick; what it raises is logged and goes no further.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["CacheEvent", "Hear", "Listeners"]

log = logging.getLogger("headgate.cache")


@dataclass(frozen=True, slots=True)
class CacheEvent:
    what: str
    key: str = ""
    """With its namespace."""
    family: str = ""
    """The key's template, or its part before the first colon."""
    layer: str = ""
    """"memory", or the kind of the second layer; empty for the source."""
    took_s: float = 0.0
    why: str = ""
    tags: tuple[str, ...] = ()


Hear: TypeAlias = Callable[[CacheEvent], None]


class Listeners:
    __slots__ = ("hear", "is_heard")

    def __init__(self) -> None:
        self.hear: tuple[Hear, ...] = ()
        self.is_heard = False
        """Asked before an event is made."""

    def add(self, hear: Hear) -> Callable[[], None]:
        """Hear what happens; the answer ends it."""
        if not callable(hear):
            raise TypeError(f"on_event: {hear!r} cannot be called")
        self.hear = (*self.hear, hear)
        self.is_heard = True

        def end() -> None:
            kept = list(self.hear)
            if hear in kept:
                kept.remove(hear)
            self.hear = tuple(kept)
            self.is_heard = bool(kept)

        return end

    def tell(self, event: CacheEvent) -> None:
        for hear in self.hear:
            try:
                hear(event)
            except Exception:
                log.exception("a listener of the cache failed on %r", event.what)


def family_of(key: str) -> str:
    """The part of a plain key before its last part: what such keys have in common."""
    return key.partition(":")[0]
