"""Values that need no judging: what nearly all of them are, told apart in a microsecond.

Theory of operation. Every attack needs characters or words that a plain value has not. Four tests
let values out, each for a larger set of characters and with more conditions:

1. letters, digits and `_.,@:+/!?-` with none of a few words that do harm without punctuation;
2. the same with quotes, if what follows the first of each kind is no SQL (`O'Brien`, `1/2" pipe`);
3. the same with `(`, `)`, `;` and `&`, if no call is made and no command or statement begins;
4. a web address of a public name, without encodings.

What an editor must not break: a text that is let out here must score under the threshold in the
full judgement too. `tests/security/test_injection_plain.py` holds it to that.
"""

from __future__ import annotations

import re
from typing import Final

from headgate.security.injection.commands import PROGRAMS
from headgate.security.injection.sql import goes_on
from headgate.security.injection.sql_words import DANGEROUS, WORDS

# Letters beyond ASCII, without those that decoders turn into quotes, brackets or line breaks.
_LETTERS: Final = (
    "A-Za-z0-9\u00c0-\u02af\u0370-\u167f\u1681-\u180d\u180f-\u1ffe\u3041-\u5609\u560e-\u9fff\uac00-\ud7a3"
)
_PLAIN: Final = re.compile(rf"[{_LETTERS} _.,@:+/!?\-]*").fullmatch
_PROSE: Final = re.compile(rf"[{_LETTERS} _.,@:+/!?\-'\"();&]*").fullmatch
_URL: Final = re.compile(
    r"https?://(?:www\.)?(?:[a-z0-9\-]{1,63}\.){1,8}([a-z]{2,24})(?::\d{1,5})?(?:/[A-Za-z0-9_./~@+,\-]*)?"
    r"(?:\?[A-Za-z0-9_.,=&:+/\[\]\-]*)?(?:\#[A-Za-z0-9_/=\-]*)?"
).fullmatch
# Under these stand names that lead inside.
_ODD_ENDS: Final = frozenset({"internal", "io", "me", "ms", "us", "local", "localhost", "st", "net"})
_JOINT: Final = re.compile(r"([;&(]) *([A-Za-z]*)").finditer
_BEGINS: Final = PROGRAMS | {
    word for word, kind in WORDS.items() if kind in "STEX"
} | {"or", "and"}  # fmt: skip
_CALLED: Final = DANGEROUS | frozenset(
    "alert confirm prompt eval if iif case select exists fetch print system exec open char concat "
    "cast convert import write function in and or not xor values row div mod union limit having".split()
)
_IN_PROSE: Final = (
    "select", " like ", "+like+", "between", "regexp", "null", "outfile", "delay", "order by", "order+by",
)  # fmt: skip
_IN_PATHS: Final = ("..", "//", "/etc", "/proc", "/root", "/web-inf", ".ini", ".ssh", ".git", ".env", ".ht")
_WITH_QUOTES: Final = ("exec", "union", "declare", "script", "having")
WRAPPED_MIN: Final = 20
"""Shorter base64 holds no attack worth the name."""


def is_plain(text: str) -> bool:
    """Whether a value has nothing that an attack needs."""
    if _PLAIN(text) is not None:
        return _has_no_words(text, text.lower())
    if _PROSE(text) is not None:
        low = text.lower()
        return _has_no_words(text, low) and _is_prose(text, low)
    if text[:4] == "http":
        found = _URL(text)
        return (
            found is not None
            and found[1] not in _ODD_ENDS
            and ".." not in text
            and "--" not in text
            and "+" not in text
        )
    return False


def _has_no_words(text: str, low: str) -> bool:
    """Whether a text of plain characters says nothing that an attack could say in them."""
    if "--" in text or "@@" in text:
        return False
    if " " in text or "+" in text:
        for word in _IN_PROSE:
            if word in low:
                return False
    if "." in text or "/" in text:
        for word in _IN_PATHS:
            if word in low:
                return False
    return True


def _is_prose(text: str, low: str) -> bool:
    if "+" in text:
        return False  # a space in disguise, maybe
    for word in _WITH_QUOTES:
        if word in low:
            return False
    if "(" in text or ";" in text or "&" in text:
        for found in _JOINT(low):
            if found[2] in _BEGINS:
                return False
            at = found.start()
            mark = found[1]
            if mark == "(":
                # `f(x)` is a call and `f (x)` may be one.
                before = low[max(0, at - 24) : at]
                if before and (before[-1].isalnum() or before.split()[-1:] and before.split()[-1] in _CALLED):
                    return False
            elif mark == "&" and low[at + 1 : at + 2] not in {" ", ""}:
                return False  # `&lt;`, `&&`
        if ")(" in text or text[-1] in ";&(":
            return False
        at = text.find(")")
        if at >= 0 and goes_on(text, at + 1):
            return False
    at = text.find("'")
    if at >= 0 and goes_on(text, at + 1):
        return False
    at = text.find('"')
    return at < 0 or not goes_on(text, at + 1)
