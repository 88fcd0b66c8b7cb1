"""Tags of a response: from its own fields, and from its route.

`Cache-Tag` parts them with commas and `Surrogate-Key` with blanks; both are read in all of them,
so a tag holds neither. A response with too many, or too long ones, is not kept at all: if one were
dropped, a purge would miss it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from headgate.cache.http.rules import CacheRules
    from headgate.wire.message import Header

__all__ = [
    "TAGS_MAX",
    "TAG_LENGTH_MAX",
    "are_bounded",
    "shown",
    "tag_headers",
    "tags_in",
    "tags_of",
]

TAGS_MAX: Final = 500
TAG_LENGTH_MAX: Final = 1024

_TAG_BREAK: Final = re.compile(r"[,\s]+")
_PARAM: Final = re.compile(r"\{([^{}]*)\}")


def tag_headers(rules: CacheRules) -> frozenset[bytes]:
    return frozenset(name.lower().encode() for name in rules.tag_headers)


def tags_of(
    headers: tuple[Header, ...], rules: CacheRules, params: Mapping[str, str]
) -> tuple[str, ...] | None:
    """Each once; None if they are too many or too long."""
    found = dict.fromkeys(tags_in(headers, rules))
    for tag in rules.tags:
        found[_PARAM.sub(lambda name: params.get(name[1], ""), tag) if "{" in tag else tag] = None
    tags = tuple(found)
    return tags if are_bounded(tags) else None


def tags_in(headers: tuple[Header, ...], rules: CacheRules) -> list[str]:
    names = tag_headers(rules)
    found: list[str] = []
    for name, value in headers:
        if name in names:
            text = value.decode("utf-8", "backslashreplace")
            found += [tag for tag in _TAG_BREAK.split(text) if tag]
    return found


def are_bounded(tags: tuple[str, ...]) -> bool:
    return len(tags) <= TAGS_MAX and all(len(tag) <= TAG_LENGTH_MAX for tag in tags)


def shown(headers: tuple[Header, ...], rules: CacheRules) -> tuple[Header, ...]:
    """Of a response that passes unkept, what clients may see: without the tags."""
    if rules.tags_shown:
        return headers
    hidden = tag_headers(rules)
    if any(pair[0] in hidden for pair in headers):
        return tuple(pair for pair in headers if pair[0] not in hidden)
    return headers
