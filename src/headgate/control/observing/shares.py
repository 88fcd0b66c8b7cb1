"""Room that several want: who wants little gets it, and the rest is shared alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

__all__ = ["shared", "shared_by_kind"]

Name = TypeVar("Name")


def shared(wanted: Mapping[Name, int], room: int) -> dict[Name, int]:
    """What each gets: no more than it wants, and no less than any other that is cut."""
    found: dict[Name, int] = {}
    left = max(room, 0)
    for at, (name, size) in enumerate(sorted(wanted.items(), key=lambda one: one[1])):
        found[name] = min(size, left // (len(wanted) - at))
        left -= found[name]
    return found


def shared_by_kind(wanted: Mapping[str, int], room: int) -> dict[str, int]:
    """Likewise among kinds first, and then within each: many of one kind crowd out no other. The
    first word of a name is its kind.
    """
    kinds: dict[str, dict[str, int]] = {}
    for name, size in wanted.items():
        kinds.setdefault(name.partition(" ")[0], {})[name] = size
    rooms = shared({kind: sum(sizes.values()) for kind, sizes in kinds.items()}, room)
    found: dict[str, int] = {}
    for kind, sizes in kinds.items():
        found |= shared(sizes, rooms[kind])
    return found
