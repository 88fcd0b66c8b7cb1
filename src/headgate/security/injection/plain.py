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
from collections.abc import Iterable
from typing import Final

from headgate.security.injection.commands import PROGRAMS
from headgate.security.injection.sql_start import goes_on
from headgate.security.injection.sql_words import DANGEROUS, WORDS

# Letters beyond ASCII, without those that decoders turn into quotes, brackets or line breaks.
_LETTERS: Final = "A-Za-z0-9\u00c0-\u02af\u0370-\u167f\u1681-\u180d\u180f-\u1ffe\u3041-\u5609\u560e-\u9fff\uac00-\ud7a3"  # noqa: E501
# A plus sign behind the beginning may be a space in disguise, and some read `http:host` as a URL.
_ASCII: Final = re.compile(
    r"(?![Hh][Tt][Tt][Pp][Ss]?:)\+*+[A-Za-z0-9 _.,@:/!?\-]*+([A-Za-z0-9 _.,@:/!?\-'\"();&]+)?"
).fullmatch
_ANY: Final = re.compile(
    rf"(?![Hh][Tt][Tt][Pp][Ss]?:)\+*+[{_LETTERS} _.,@:/!?\-]*+([{_LETTERS} _.,@:/!?\-'\"();&]+)?"
).fullmatch
_URL: Final = re.compile(
    r"https?://(?:www\.)?(?:[a-z0-9\-]{1,63}\.){1,8}([a-z]{2,24})(?::\d{1,5})?(?:/[A-Za-z0-9_./~@+,\-]*)?"
    r"(?:\?[A-Za-z0-9_.,=&:+/\[\]\-]*)?(?:\#[A-Za-z0-9_/=\-]*)?"
).fullmatch
# Under these stand names that lead inside.
_ODD_ENDS: Final = frozenset(
    {"internal", "io", "me", "ms", "us", "local", "localhost", "st", "net"}
)
_JOINT: Final = re.compile(r"([;&(]) *([A-Za-z]*)").finditer
_BEGINS: Final = PROGRAMS | {
    word for word, kind in WORDS.items() if kind in "STEX"
} | {"or", "and"}  # fmt: skip
_CALLED_WORDS: Final = (
    "alert confirm prompt eval if iif case select exists fetch print system exec open char "
    "concat cast convert import write function in and or not xor values row div mod union "
    "limit having"
)
_CALLED: Final = DANGEROUS | frozenset(_CALLED_WORDS.split())
_WORDS: Final = (
    "select", " like ", "between", "regexp", "null", "outfile", "delay", "exec", "order by", "--", "@@",  # noqa: E501
)  # fmt: skip
_in_paths: Final = re.compile(r"\.\./|/(?:etc|proc|root|web-inf)").search
_in_files: Final = re.compile(r"\.(?:\.|ini|ssh|git|env|ht)").search
WRAPPED_MIN: Final = 20
"""Shorter base64 holds no attack worth the name."""


def is_plain(text: str) -> bool:
    """Whether a value has nothing that an attack needs."""
    return _has_shape(text) and (text[:4] == "http" or not has_words(text.lower()))


def suspects(texts: Iterable[str]) -> list[str]:
    """Return those of many values that are to be judged: the same, asked of all of them at once."""
    given = [text for text in texts if text]
    if has_words(" ".join(given).lower()):
        return given
    return [text for text in given if not _has_shape(text) or may_be_wrapped(text)]


def may_be_wrapped(text: str) -> bool:
    """Whether a value could be base64 of something."""
    return (
        len(text) >= WRAPPED_MIN
        and " " not in text
        and ":" not in text[5:]
        and not text.islower()
        and not text.isupper()
    )


def has_words(low: str) -> bool:
    """Whether a text has one of the words that do harm among plain characters."""
    for word in _WORDS:
        if word in low:
            return True
    if "/" in low and _in_paths(low) is not None:
        return True
    return "." in low and _in_files(low) is not None


def _has_shape(text: str) -> bool:
    """Whether a text is plain, if it has none of those words."""
    found = _ASCII(text) if text.isascii() else _ANY(text)
    if found is None:
        return text[:4] == "http" and _is_url(text)
    if "//" in text:
        return False
    return found.end(1) < 0 or _is_prose(text, text.lower())


def _is_url(text: str) -> bool:
    found = _URL(text)
    return (
        found is not None
        and found[1] not in _ODD_ENDS
        and ".." not in text
        and "--" not in text
        and "+" not in text
    )


def _is_prose(text: str, low: str) -> bool:
    if "(" in text or ";" in text or "&" in text:
        for found in _JOINT(low):
            if found[2] in _BEGINS:
                return False
            at = found.start()
            mark = found[1]
            if mark == "(":
                # `f(x)` is a call and `f (x)` may be one.
                if at and low[at - 1] != " ":
                    return False
                before = low[max(0, at - 24) : at].rstrip(" ").rpartition(" ")[2]
                if before in _CALLED:
                    return False
            elif mark == "&" and low[at + 1 : at + 2] not in {" ", ""}:
                return False  # `&lt;`, `&&`
        if ")(" in text or text[-1] in ";&(":
            return False
        at = text.find(")")
        if at >= 0 and goes_on(low, at + 1):
            return False
    at = text.find("'")
    if at >= 0 and goes_on(low, at + 1):
        return False
    at = text.find('"')
    return at < 0 or not goes_on(low, at + 1)
