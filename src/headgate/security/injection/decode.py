r"""What a value may become on its way through a service: its decoded forms.

Theory of operation. A value arrives decoded as its place demands (percent in a query, escapes in
JSON). Attacks are wrapped once or twice more, in the hope that something behind decodes again.
`forms` yields the value itself and then what each further round makes of it: percent, `%uXXXX`,
HTML entities, `\uXXXX`, UTF-7, full-width characters, overlong UTF-8, zero bytes. A round undoes
every wrapping at once, so mixed ones need no search. There are at most `ROUNDS` rounds, and the
text does not grow in any of them but for compatibility characters, which are cut off.

A value that is base64 of readable text is looked into as well; what is found there counts only
when it is plain to see, because nobody knows whether a service will ever decode it.
"""

from __future__ import annotations

import base64
import binascii
import html
import re
import unicodedata
from collections.abc import Iterator
from typing import Final

ROUNDS: Final = 5

_PERCENT: Final = re.compile(r"%u([0-9a-fA-F]{4})|((?:%[0-9a-fA-F]{2})+)")
_ESCAPE: Final = re.compile(
    r"\\u([0-9a-fA-F]{4})|\\u\{([0-9a-fA-F]{1,6})\}|((?:\\x[0-9a-fA-F]{2})+)|\\0(?![0-9])"
)
_ENTITY: Final = re.compile(r"&(?:#|[A-Za-z]{2})").search
_WIDE: Final = re.compile("[\uff01-\uff5e\ufe50-\ufe6b\u2024-\u2026\u3000]").search
_OVERLONG: Final = re.compile("\xc0([\x80-\xbf])|\xc1([\x80-\xbf])|\xe0\x80([\x80-\xbf])")
_CURLY: Final = str.maketrans({"\u2018": "'", "\u2019": "'", "\u02bc": "'", "\u2032": "'", "\u00b4": "'",  # noqa: E501
                               "\u201c": '"', "\u201d": '"', "\u2033": '"', "\u2013": "--", "\u2014": "--"})  # fmt: skip  # noqa: E501
_SEVEN_BITS: Final = {code: code & 0x7F for code in range(0xA0, 0x100)}
_MARKUP: Final = re.compile(r"<!--[^>]{0,80}-->|\]\]>?<!\[CDATA\[")
_SPLIT_MARKUP: Final = _MARKUP.search
_SPLIT_MARKUP_SUB: Final = _MARKUP.sub
_SPLIT_WORD: Final = re.compile(r"[A-Za-z]/\*[^*]*\*/[A-Za-z]").search
_COMMENT: Final = re.compile(r"/\*[^*]*\*/")
_UTF7: Final = re.compile(r"\+A[A-Za-z0-9+/]{2,200}-")
_DOUBLED: Final = re.compile(
    r"(?i)(?:u(?:n(?:io?)?)?union|s(?:e(?:l(?:ec?)?)?)?select|s(?:c(?:r(?:ip?)?)?)?(?:<s)?script)(?=[a-z>])"
).search
_NESTED: Final = re.compile(r"(?i)(?<=[a-z])(?:union|select|script|from|where|or|and)(?=[a-z])")
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]{16,8192}={0,2}").fullmatch
_DATA_BASE64: Final = re.compile(r"(?i);base64,([A-Za-z0-9+/_-]{12,8192}={0,2})").search
_MAY_CHANGE: Final = re.compile(
    r"[%&\\+\0]|/\*|<!|\A\"|[^\0-\x7f]|[uU][nN][iI][oO][nN]|[sS][eE][lL][eE][cC]|[sS][cC][rR][iI]"
).search
_READABLE: Final = re.compile(rb"[\t\r\n\x20-\x7e]+").fullmatch


def _percent(found: re.Match[str]) -> str:
    code = found[1]
    if code is not None:
        return chr(int(code, 16))
    raw = bytes.fromhex(found[2].replace("%", ""))
    if b"\xc0" in raw or b"\xc1" in raw or b"\xe0\x80" in raw:
        text = _OVERLONG.sub(_overlong, raw.decode("latin-1"))
        raw = text.encode("latin-1")
    return raw.decode("utf-8", "replace")


def _overlong(found: re.Match[str]) -> str:
    """The character that lax decoders make of an overlong sequence (RFC 3629 section 10)."""
    if found[1] is not None:
        return chr(ord(found[1]) & 0x3F)
    if found[2] is not None:
        return chr(0x40 | ord(found[2]) & 0x3F)
    return chr(ord(found[3]) & 0x3F)


def _escape(found: re.Match[str]) -> str:
    if found[3] is not None:
        raw = bytes.fromhex(found[3].replace("\\x", ""))
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            return raw.decode("latin-1")
    if found[1] is None and found[2] is None:
        return "\0"
    point = int(found[1] or found[2], 16)
    return chr(point) if point < 0x110000 else "\ufffd"


def _utf7(found: re.Match[str]) -> str:
    try:
        return found.group().encode("ascii").decode("utf-7")
    except UnicodeDecodeError:
        return found.group()


def percent_decoded(text: str, *, plus: bool = False) -> str:
    """Undo percent encoding once, overlong sequences too; of forms, `+` as well."""
    if plus and "+" in text:
        text = text.replace("+", " ")
    return _PERCENT.sub(_percent, text) if "%" in text else text


def undo(text: str) -> str:
    """Undo one layer of every wrapping."""
    if "%" in text:
        text = _PERCENT.sub(_percent, text)
    if "&" in text and _ENTITY(text):
        text = html.unescape(text)
    if "\\" in text:
        text = _ESCAPE.sub(_escape, text)
    if "+A" in text:
        text = _UTF7.sub(_utf7, text)
    if not text.isascii() and _WIDE(text):
        text = unicodedata.normalize("NFKC", text)[: len(text) * 2]
    return text


def forms(text: str) -> Iterator[str]:
    """Yield the text, then each further form that differs."""
    yield text
    if _MAY_CHANGE(text) is None:
        return
    before = text
    for _ in range(ROUNDS):
        after = undo(before)
        if after == before:
            break
        yield after
        before = after
    last = before
    if "\0" in last:
        last = last.replace("\0", "")
        yield last
    if "<!" in last and _SPLIT_MARKUP(last):
        yield _SPLIT_MARKUP_SUB("", last)
    if last[:1] == '"' == last[-1:] and '""' in last:
        yield last[1:-1].replace('""', '"')  # a field of CSV
    if not last.isascii():
        if "\xbc" in last and "\xbe" in last:
            yield last.translate(_SEVEN_BITS)
        straight = last.translate(_CURLY)  # some databases take curly quotes for straight ones
        if straight != last:
            yield straight
    if "+" in last and " " not in last:
        yield last.replace("+", " ")
    if "/*" in last and _SPLIT_WORD(last):
        yield _COMMENT.sub("", last)
    low = last.lower()
    if ("union" in low or "select" in low or "script" in low) and _DOUBLED(last):
        yield _NESTED.sub("", last)


def unwrapped(text: str) -> str | None:
    """Return what a base64 text holds, where that is readable."""
    if _BASE64(text) is None:
        inside = _DATA_BASE64(text)
        if inside is None:
            return None
        text = inside[1]
    text = text.rstrip("=").translate({45: "+", 95: "/"})
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return None
    return raw.decode("ascii") if raw and _READABLE(raw) else None
