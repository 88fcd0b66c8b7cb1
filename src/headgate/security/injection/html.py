"""HTML in tags, the way browsers find them.

Theory of operation. A tag begins at `<` before a letter (or `/` and a letter) and nowhere else:
`a < b`, `<3` and `<-` are text. Its attributes are read as the HTML standard does it (13.2.5):
slashes and white space separate, quotes count only behind `=`, what has no end is still a tag,
because the page that it is put into will have an end for it.

The text is read twice. First every `<` starts anew, even within quotes, because nobody knows
which quotes the page has open at that place. Where that cut through a quoted value, the text is
read once more with the quotes in force. Both readings move forward only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

_NAME: Final = re.compile(r"(/?)([A-Za-z][^\s/>\x00]*+)").match
_ATTRIBUTE: Final = re.compile(
    r"""[\s/\x00-\x20]*+([^\s/>=][^\s/>=]*+|=[^\s/>=]*+)(?:\s*+=\s*+("[^"]*+"?|'[^']*+'?|`[^`]*+`|[^\s>]*+))?"""
).match
_STOP: Final = re.compile(r"[\s/\x00-\x20]*+>").match
_BODY: Final = 400
_SCRIPTS_MAX: Final = 64
"""Scripts that are read beyond the next `<`; of so many, one would have said something by then."""
_MARKS: Final = "\"'`"


class Tag(NamedTuple):
    name: str
    """In lower case; with a leading slash for an end tag."""
    attributes: tuple[tuple[str, str], ...]
    """Names in lower case, values as they stand, without quotes."""
    rest: str
    """The text up to the next `<`."""
    is_cut: bool
    """A quoted value ran into the end of the piece that was looked at."""
    is_closed: bool
    """Its `>` is there."""


def tags(text: str) -> Iterator[Tag]:
    """Yield every tag, each `<` starting anew."""
    pieces = text.split("<")
    at = len(pieces[0]) + 1
    scripts = 0
    del pieces[0]
    for piece in pieces:
        found = _NAME(piece)
        if found is not None:
            tag, end = _read(piece, found)
            if "script" in tag.name and scripts < _SCRIPTS_MAX:
                scripts += 1
                # Only `</` ends a script.
                rest = text[at + end : at + end + _BODY].partition("</")[0]
            else:
                rest = piece[end:]
            yield tag._replace(rest=rest)
        at += len(piece) + 1


def tags_in_quotes(text: str) -> Iterator[Tag]:
    """Yield the tags that are there when quotes hide what is in them."""
    at = text.find("<")
    while at >= 0:
        found = _NAME(text, at + 1)
        if found is None:
            at = text.find("<", at + 1)
            continue
        tag, end = _read(text, found)
        yield tag
        at = text.find("<", end)


def _read(text: str, found: re.Match[str]) -> tuple[Tag, int]:
    at = found.end()
    attributes = []
    is_cut = is_closed = False
    while True:
        stop = _STOP(text, at)
        if stop is not None:
            at = stop.end()
            is_closed = True
            break
        one = _ATTRIBUTE(text, at)
        if one is None:
            break
        at = one.end()
        name, value = one[1].lower().strip(_MARKS), one[2] or ""
        if value[:1] in _MARKS and value:
            if len(value) > 1 and value[-1] == value[0]:
                value = value[1:-1]
            else:
                is_cut = True
                value = value[1:]
        attributes.append((name, value))
    name = found[1] + found[2].lower()
    return Tag(name, tuple(attributes), "", is_cut, is_closed), at
