"""Bytes of a body as text: what was compressed undone, and in the encoding that it is in."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator
from typing import Final

_PARAMETER: Final = re.compile(
    r";\s*([\w*\-]+)\s*=\s*(?:\"((?:[^\"\\]|\\.)*)\"|'([^']*)'|([^;\s]*))"
).findall
_ESCAPED: Final = re.compile(r"\\(.)")
_GZIP: Final = b"\x1f\x8b"
_FEED: Final = 4096
_CODINGS_MAX: Final = 3

# Those that services know. Python knows more, some of them slow.
_CHARSET: Final = re.compile(
    r"utf-?(?:7|16|32)(?:[-_]?[lb]e)?|iso-8859-\d{1,2}|windows-12\d\d|cp\d{3,4}|ibm\d{3,4}|latin-?1|"
    r"shift_jis|gb[k\d]{1,5}|big5|euc-(?:jp|kr)|koi8-[ru]"
).fullmatch


def parameters(value: str) -> Iterator[tuple[str, str]]:
    """The parameters of a header value, names in lower case; PHP takes single quotes as well."""
    for key, quoted, single, plain in _PARAMETER(value):
        yield key.lower(), _ESCAPED.sub(r"\1", quoted) if quoted else single or plain


def boundary_of(content_type: str) -> str:
    return next((value for key, value in parameters(content_type) if key == "boundary"), "")


def charset_of(content_type: str) -> str:
    if "=" not in content_type:
        return ""
    found = (value for key, value in parameters(content_type) if key == "charset")
    return next(found, "").lower()


def text_of(body: bytes, charset: str = "") -> str:
    """The text of a body, in its own encoding or the one that it must be in."""
    if body[:2] in {b"\xff\xfe", b"\xfe\xff"} or b"\0" in body[:4]:
        charset = json.detect_encoding(body[:4])
    if charset not in {"", "utf-8", "utf8", "us-ascii"} and _CHARSET(charset) is not None:
        try:
            return body.decode(charset, "replace")
        except (LookupError, ValueError, AssertionError):
            pass
    try:
        return body.decode()
    except UnicodeDecodeError:
        return body.decode("latin-1")


def inflated(body: bytes, encoding: str, limit: int) -> bytes | None:
    """Undo gzip and deflate up to `limit` bytes; None for what cannot be undone here."""
    said = (each.strip().lower() for each in encoding.split(","))
    codings = [each for each in said if each not in {"", "identity"}]
    if len(codings) > _CODINGS_MAX or not all(
        each in {"gzip", "x-gzip", "deflate"} for each in codings
    ):
        return None
    plain: bytes | None = body
    for _ in codings:
        if plain is None:
            return None
        plain = _members(plain, limit) if plain.startswith(_GZIP) else _deflated(plain, limit)
    return plain


def _deflated(body: bytes, limit: int) -> bytes | None:
    for window in (15, -15):  # zlib by its head, then bare deflate
        try:
            return zlib.decompressobj(window).decompress(body, limit)
        except zlib.error:
            continue
    return None


def _members(body: bytes, limit: int) -> bytes | None:
    """All members of a gzip body, which readers put together (RFC 1952 section 2.2).

    They are fed in pieces, so that many small ones do not each copy all that is behind them.
    """
    found: list[bytes] = []
    at, left = 0, limit
    try:
        while body.startswith(_GZIP, at) and left > 0:
            one = zlib.decompressobj(31)
            while not one.eof and at < len(body) and left > 0:
                piece = body[at : at + _FEED]
                plain = one.decompress(piece, left)
                found.append(plain)
                left -= len(plain)
                at += len(piece) - len(one.unused_data)
            while body.startswith(b"\0", at):
                at += 1  # padding
    except zlib.error:
        if not found:
            return None
    return b"".join(found)
