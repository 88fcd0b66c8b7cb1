"""An entry as the first layer of one process holds it, with what was found out about it here, and
what it may be worth.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Any, Final

from headgate.cache.early import early_from
from headgate.cache.entry import FOREVER, Entry
from headgate.cache.events import OTHER
from headgate.cache.stats import FamilyStats

__all__ = ["Held", "Worth"]

_NOT_JUDGED: Final = -1
_NOBODY: Final = FamilyStats(OTHER)


class Worth(IntEnum):
    FRESH = 0
    EARLY = 1
    """Fresh, and to be made anew behind."""
    BEHIND = 2
    """Stale; to be served at once and made anew behind."""
    FALLBACK = 3
    """Stale; served if making it anew fails."""
    OLD = 4
    """Good for nothing but to be compared."""
    NONE = 5


class Held(Entry):
    """The slots beyond those of an entry are this process's notes and may be changed by it."""

    __slots__ = (
        "away_until",
        "copier",
        "error",
        "family",
        "gap",
        "is_struck",
        "plain_until",
        "retry_at",
        "version",
    )

    def __init__(
        self,
        value: Any,
        made_at: float,
        fresh_until: float = FOREVER,
        usable_until: float = FOREVER,
        *,
        stamp: int = 0,
        tags: tuple[str, ...] = (),
        cost_s: float = 0.0,
        validator: str = "",
        is_nothing: bool = False,
    ) -> None:
        # Written out: `super().__init__` with eight names costs as much as the rest of a fill.
        self.value = value
        self.made_at = made_at
        self.fresh_until = fresh_until
        self.usable_until = usable_until
        self.stamp = stamp
        self.tags = tags
        self.cost_s = cost_s
        self.validator = validator
        self.is_nothing = is_nothing
        self.copier: Callable[[Any], Any] | None = None
        """By which each caller gets a copy of his own; None if nobody can change the value."""
        self.plain_until = 0.0
        """Up to here a hit is a hit and nothing else is to be thought of."""
        self.away_until = FOREVER
        """It was made while news was not heard: not served beyond this."""
        self.version = _NOT_JUDGED
        """Of the barriers when it was last judged and not found dead."""
        self.gap = 0
        """How often news had been missed when it was made."""
        self.is_struck = False
        """Softly invalidated."""
        self.retry_at = 0.0
        """Making it anew has failed; not again before this."""
        self.family = _NOBODY
        """Where its hits are counted, once it is in memory."""
        self.error: Exception | None = None
        """The answer was an exception, and that is what is remembered."""

    @classmethod
    def of(cls, entry: Entry) -> Held:
        """A copy of what came from elsewhere."""
        made = cls(
            entry.value,
            entry.made_at,
            entry.fresh_until,
            entry.usable_until,
            stamp=entry.stamp,
            tags=tuple(entry.tags),
            cost_s=entry.cost_s,
            validator=entry.validator,
            is_nothing=entry.is_nothing,
        )
        if isinstance(entry, Held):
            made.copier, made.error = entry.copier, entry.error
        return made

    def move(self, by_s: float) -> None:
        """To another clock, which is ahead of this one by so much."""
        self.made_at += by_s
        self.fresh_until += by_s
        self.usable_until += by_s

    def given(self) -> Any:
        """The value, for a caller to keep."""
        copier = self.copier
        return self.value if copier is None else copier(self.value)

    def settle(self, beta: float, cost_s: float) -> None:
        """Find out up to when a hit needs no thought."""
        until = early_from(self.fresh_until, self.made_at, cost_s, beta)
        self.plain_until = (
            0.0
            if self.is_struck or self.error is not None
            else min(until, self.usable_until, self.away_until)
        )
