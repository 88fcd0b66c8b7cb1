"""A value with what the caches know of it."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["FOREVER", "Entry"]

FOREVER: Final = float("inf")


class Entry:
    """One value. Times are seconds of wall clock, as an entry travels between processes.

    Up to `fresh_until` it is served as it is. From then to `usable_until` it may be served while it
    is made anew, or when that fails, as whoever asks allows. Entries are shared, never changed.
    """

    __slots__ = (
        "cost_s",
        "fresh_until",
        "is_nothing",
        "made_at",
        "stamp",
        "tags",
        "usable_until",
        "validator",
        "value",
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
        self.value = value
        self.made_at = made_at
        self.fresh_until = fresh_until
        self.usable_until = usable_until
        self.stamp = stamp
        """What the clock of the barriers stood at before the value was loaded (`barriers`)."""
        self.tags = tags
        self.cost_s = cost_s
        """How long it took to make."""
        self.validator = validator
        """By which its source can say that it has not changed."""
        self.is_nothing = is_nothing
        """The source had nothing under this key, and that is what is remembered."""
