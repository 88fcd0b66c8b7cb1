"""What happens in the object cache, told to whoever listens, and what it is counted under.

`what` is in the past tense, or the noun that everybody uses: "hit", "miss", "stale", "load",
"load_failed", "joined", "early", "set", "deleted", "invalidated", "layer_hit",
"layer_miss", "layer_away", "layer_failed", "gap", "dropped" (a value that was invalidated while it
was loaded), "unencodable" (one that the second layer cannot keep). A listener is called where it
happens, also in other threads, and must be quick; what it raises is logged and goes no further.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

__all__ = ["OTHER", "CacheEvent", "Hear", "Listeners", "family_of"]

log = logging.getLogger("headgate.cache")

OTHER: Final = "other"
_NAME_MAX: Final = 100
_WHOLE_MAX: Final = 40


@dataclass(frozen=True, slots=True)
class CacheEvent:
    what: str
    key: str = ""
    """With its namespace."""
    family: str = ""
    """The key's template, or for a plain key `family_of`."""
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


def family_of(name: str) -> str:
    """What keys have in common: what stands before the first colon, or the first variable of a
    template.
    """
    start = name[:_NAME_MAX]
    found = start.partition(":")[0].partition("{")[0]
    if len(found) < len(start):
        return found or OTHER
    # A key without parts is its own family, if it is short; a digest is not.
    return name if 0 < len(name) <= _WHOLE_MAX else OTHER
