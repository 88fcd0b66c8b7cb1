"""What a handler says of the response it is making, from wherever it is called.

A response carries its tags to every cache that keeps it, so that `invalidate(tags=...)` clears it
there too. They are gathered in an object that the middleware puts into a context variable: tasks
and threads that the handler starts have the same one.
"""

from __future__ import annotations

import re
from contextvars import ContextVar
from typing import Final

__all__ = ["TAGS_MAX", "Said", "said_now", "tag_response", "used_stale", "vary_response"]

TAGS_MAX: Final = 1000
"""Of one response. With more it is not kept by anybody, as a purge might miss it."""

# Cache-Tag is split at commas and Surrogate-Key at spaces: a tag has neither.
_TAG: Final = re.compile(r"[\x21-\x2b\x2d-\x7e]{1,1024}")
_FIELD: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


class Said:
    """Of one response, until its head is sent."""

    __slots__ = ("is_over", "is_sent", "is_stale", "tags", "vary")

    def __init__(self) -> None:
        self.tags: dict[str, None] = {}
        self.vary: list[str] = []
        self.is_over = False
        """It has more tags than it may."""
        self.is_sent = False
        self.is_stale = False
        """Something went into it that is being made anew: nobody may keep it for new."""


said_now: ContextVar[Said | None] = ContextVar("headgate_response", default=None)


def used_stale() -> None:
    """A cache has served something stale; the response being made is no newer."""
    said = said_now.get()
    if said is not None:
        said.is_stale = True


def tag_response(*tags: str) -> bool:
    """Name what the response being made depends on: `tag_response("product:42")`. False where there
    is no response, as in a job, or where its head has been sent. ValueError for a tag that the
    headers cannot carry: empty, not ASCII, with a space, or with a comma.
    """
    given: tuple[object, ...] = tags
    for tag in given:
        if not isinstance(tag, str) or _TAG.fullmatch(tag) is None:
            raise ValueError(
                f"tag {tag!r:.100}: a tag of a response is 1 to 1024 visible ASCII characters "
                "without a comma"
            )
    said = said_now.get()
    if said is None or said.is_sent:
        return False
    for each in tags:
        if len(said.tags) >= TAGS_MAX and each not in said.tags:
            said.is_over = True
        else:
            said.tags[each] = None
    return True


def vary_response(*fields: str) -> bool:
    """Name request headers that the response being made depends on, beside those it names itself.
    False as of `tag_response`.
    """
    given: tuple[object, ...] = fields
    for name in given:
        if not isinstance(name, str) or _FIELD.fullmatch(name) is None:
            raise ValueError(f"{name!r:.100} is not the name of a header")
    said = said_now.get()
    if said is None or said.is_sent:
        return False
    said.vary += fields
    return True
