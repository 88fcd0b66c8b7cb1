"""What is to be forgotten: one message for every cache, wherever it stands.

Tags are one space for all: the gateway's responses, the objects of every service, what a CDN holds.
Keys and patterns name objects; URLs name responses. A pattern is a text in which each `*` stands
for any characters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

__all__ = ["ITEMS_MAX", "TEXT_MAX", "Invalidation"]

ITEMS_MAX: Final = 1000
"""Tags, keys, patterns and URLs of one invalidation, together."""
TEXT_MAX: Final = 2048
"""Characters of each."""

_LISTS: Final = ("tags", "keys", "patterns", "urls")


@dataclass(frozen=True, slots=True, kw_only=True)
class Invalidation:
    tags: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    """Of objects, with their namespace."""
    patterns: tuple[str, ...] = ()
    """The same with `*`."""
    urls: tuple[str, ...] = ()
    """Of responses: `https://host/path?query`, or `/path?query` at any host; `*` is allowed."""
    everything: Literal["", "objects", "responses", "all"] = ""
    soft: bool = False
    """What is held becomes stale rather than gone: it may be served while it is made anew."""
    stamp: int = 0
    """When, on the clock of whoever keeps the barriers (`barriers`). Nothing older is served."""
    by: str = ""
    """Who asked, for the audit log."""

    @property
    def is_empty(self) -> bool:
        return not (self.tags or self.keys or self.patterns or self.urls or self.everything)

    def at(self, stamp: int) -> Invalidation:
        return replace(self, stamp=stamp)

    def to_json(self) -> dict[str, Any]:
        said: dict[str, Any] = {name: list(getattr(self, name)) for name in _LISTS}
        said |= {"everything": self.everything, "soft": self.soft, "stamp": self.stamp}
        said["by"] = self.by
        return {name: value for name, value in said.items() if value}

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Invalidation:
        """Read one from elsewhere. ValueError says what is wrong with it."""
        lists = {name: _texts(name, said.get(name, ())) for name in _LISTS}
        if sum(map(len, lists.values())) > ITEMS_MAX:
            raise ValueError(f"more than {ITEMS_MAX} names in one invalidation; send several")
        everything = said.get("everything", "")
        if everything not in ("", "objects", "responses", "all"):
            raise ValueError(f'everything is {everything!r}: write "objects", "responses" or "all"')
        stamp, soft = said.get("stamp", 0), said.get("soft", False)
        if type(stamp) is not int or stamp < 0:
            raise ValueError("stamp is not a whole number")
        if type(soft) is not bool:
            raise ValueError("soft is neither true nor false")
        by = str(said.get("by", ""))[:200]
        return cls(**lists, everything=everything, soft=soft, stamp=stamp, by=by)


def _texts(name: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise ValueError(f"{name} is not a list")
    found = tuple(value)
    for each in found:
        if not isinstance(each, str) or not each:
            raise ValueError(f"{name} holds something that is not a text")
        if len(each) > TEXT_MAX:
            raise ValueError(f"{name} holds a text of more than {TEXT_MAX} characters")
    return found
