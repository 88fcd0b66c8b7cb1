"""Entity tags (RFC 9110 8.8.3): comparing them, and reading `If-None-Match`.

An origin that sends a tag without quotes breaks the grammar, and many do. Such a tag is kept and
sent back as it came, and is equal to itself; it is never taken for a strong one.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["is_strong", "lists", "strong_match", "weak_match"]

_TAG: Final = re.compile(rb'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
_LISTED: Final = re.compile(rb'[ \t,]*((?:W/)?"[\x21\x23-\x7e\x80-\xff]*")[ \t]*(?=,|\Z)')


def is_strong(etag: bytes | None) -> bool:
    return etag is not None and etag[:1] == b'"' and _TAG.fullmatch(etag) is not None


def weak_match(one: bytes, other: bytes) -> bool:
    return one.removeprefix(b"W/") == other.removeprefix(b"W/")


def strong_match(one: bytes | None, other: bytes | None) -> bool:
    return one == other and is_strong(one)


def lists(value: bytes, etag: bytes | None) -> bool:
    """Whether an `If-None-Match` names `etag` (None: there is a response, but no tag).

    `*` names whatever there is. What follows something that is no tag is not read.
    """
    value = value.strip(b" \t")
    if value == b"*":
        return True
    if etag is None:
        return False
    if value == etag:
        return True
    sought = etag.removeprefix(b"W/")
    at = 0
    while (found := _LISTED.match(value, at)) is not None:
        if found[1].removeprefix(b"W/") == sought:
            return True
        at = found.end()
    return False
