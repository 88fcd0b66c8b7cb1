"""Whether a text could begin, or go on behind a quote, in SQL: one match, and no token taken."""

from __future__ import annotations

import re
from typing import Final

from headgate.security.injection.sql_words import WORDS

_GOES_ON: Final = "|".join(word for word, kind in WORDS.items() if kind in "LcANUOTSaq")
_WORD_AFTER: Final = rf"(?:{_GOES_ON})(?![a-z_\x80-\uffff])"
# Where a walk cannot get anywhere is told by one match, without taking tokens.
begins: Final = re.compile(
    rf"""[\s\x00-\x20\xa0\ufffd(+\-~!*?{{]*+(?:
    (?:[\w$@.]++|`[^`]*`|\[[\w ]*\]|'[^']*+'|"[^"]*+")?
    (?:[\s\x00-\x20\xa0\ufffd)]|/\*!\d*|/\*[^*]*\*+/|\*/)*+(?:[;,|&=<>!*/%^\#+\-~]|{_WORD_AFTER})
    |\w+(?:\.\w+)?\s*+\(|fn\s|{_WORD_AFTER}|@@|\d+e(?=[a-z])|\(*select\b|case\b|end\b|\d[\d.]*[a-z])""",
    re.IGNORECASE | re.VERBOSE,
).match
_quoted_start: Final = re.compile(
    rf"[\s\x00-\x20\xa0)\]}}]*+(?:[^\w\s]|{_WORD_AFTER}|[nbxe]['\"])", re.IGNORECASE
).match


_WORD: Final = re.compile(r"[a-z_]*").match
_GOES_ON_WORDS: Final = frozenset(_GOES_ON.split("|"))


def goes_on(low: str, at: int) -> bool:
    """Whether what stands behind a quote could go on in SQL at all; of text in lower case."""
    if low[at : at + 1] == " ":
        at += 1
    if at >= len(low):
        return False
    word = _WORD(low, at)
    if word is not None and word.end() > at:
        end = word.end()
        return word.group() in _GOES_ON_WORDS or low[end : end + 1] in {"'", '"'}
    return _quoted_start(low, at) is not None
