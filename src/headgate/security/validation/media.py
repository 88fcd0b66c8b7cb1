"""Media types: which of those described a body is of, and whether it is one we can read."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Kind", "MediaType", "chosen", "kind_of", "parse_media_type"]

Kind = Literal["json", "form", "multipart", "text", "opaque"]

_TYPE: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9a-z]+/[!#$%&'*+\-.^_`|~0-9a-z]+").fullmatch
_PARAMETER: Final = re.compile(
    r';[ \t]*(?:([!#$%&\'*+\-.^_`|~0-9A-Za-z]+)=("(?:[^"\\]++|\\.)*+"|[^;" \t]*+))?[ \t]*',
    re.DOTALL,
)
_UTF8: Final = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})


class MediaType:
    """A Content-Type: its essence in lower case, and its parameters."""

    __slots__ = ("essence", "parameters")

    def __init__(self, essence: str, parameters: dict[str, str]) -> None:
        self.essence = essence
        self.parameters = parameters

    @property
    def is_utf8(self) -> bool:
        """Whether it is in UTF-8 as far as it says."""
        return self.parameters.get("charset", "utf-8").lower() in _UTF8


def parse_media_type(text: str) -> MediaType | None:
    """Read a Content-Type; None for one that is malformed (RFC 9110 section 8.3)."""
    essence, semicolon, _ = text.partition(";")
    essence = essence.strip(" \t").lower()
    if not _TYPE(essence):
        return None
    parameters: dict[str, str] = {}
    at = len(text.partition(";")[0])
    while semicolon and at < len(text):
        found = _PARAMETER.match(text, at)
        if found is None or found.end() == at:
            return None
        at = found.end()
        name, value = found[1], found[2]
        if name is None:
            continue
        if value.startswith('"'):
            value = re.sub(r"\\(.)", r"\1", value[1:-1])
        name = name.lower()
        if name in parameters:
            return None  # two charsets or boundaries: which one the service takes is not known
        parameters[name] = value
    return MediaType(essence, parameters)


def kind_of(essence: str) -> Kind:
    if essence in ("application/json", "text/json") or essence.endswith("+json"):
        return "json"
    if essence == "application/x-www-form-urlencoded":
        return "form"
    if essence == "multipart/form-data":
        return "multipart"
    return "text" if essence == "text/plain" else "opaque"


def chosen(essence: str, described: Iterable[str]) -> str | None:
    """The described media type or range that is nearest to `essence` (OAS 3.1, 4.8.14)."""
    best: str | None = None
    best_rank = 0
    family = essence.partition("/")[0]
    for each in described:
        name = each.partition(";")[0].strip().lower()
        start, star, suffix = name.partition("*+")
        if name == essence:
            rank = 4
        elif star and essence.startswith(start) and essence.endswith(f"+{suffix}"):
            rank = 3  # `application/*+json`, as some documents write it
        else:
            rank = 2 if name == f"{family}/*" else 1 if name == "*/*" else 0
        if rank > best_rank:
            best, best_rank = each, rank
    return best


def is_listed(essence: str, listed: str) -> bool:
    """Whether `essence` is one of the types and ranges of a list, as `encoding` writes it."""
    return chosen(essence, [each for each in listed.split(",") if each.strip()]) is not None
