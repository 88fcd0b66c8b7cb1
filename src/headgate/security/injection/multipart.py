"""The fields of a form with files (RFC 7578), as any of the services behind may read them.

Theory of operation. Parsers of multipart differ, and an attack looks for the difference: a part
that we take for a file and the service for a value is looked at by nobody. Therefore, where parsers
disagree, all readings are judged:

- a delimiter stands at the beginning of a line. Some want CRLF before it, others take LF or CR;
  where that gives different parts, both are looked at. What only begins like one is content.
- the head of a part ends at the first empty line, of whatever line ends.
- a part is a file only if all that it says of its disposition agrees on that, and has a name.
- content may be in base64 or quoted-printable, and in a charset of its own.

What is in files is theirs: images and documents hold every byte there is. Only their names count.
Everything is read as Latin-1, which keeps every byte, and each field is decoded by itself: one
picture among the parts must not spoil the letters of the others.
"""

from __future__ import annotations

import binascii
import quopri
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from headgate.security.injection.decode import percent_decoded
from headgate.security.injection.field import Field
from headgate.security.injection.texts import parameters, text_of

_ENDS_LINE: Final = re.compile(r"[ \t]*(?:[\r\n]|--|\Z)").match
_EMPTY_LINE: Final = re.compile(r"\n\r?\n|\r\r").search
_ANY_LINE_END: Final = ("\n", "\r")
_STRICT_LINE_END: Final = ("\r\n",)


class _Head(NamedTuple):
    names: list[str]
    files: list[str]
    is_file: bool
    charset: str
    coding: str


def multipart_fields(body: bytes, boundary: str) -> Iterator[Field]:
    """Yield values, names of fields and names of files."""
    text = body.decode("latin-1")
    for part in _parts(text, f"--{boundary}"):
        gap = _EMPTY_LINE(part)
        if gap is None:
            continue
        head = _head_of(part[: gap.start() + 1])
        name = _text(head.names[0]) if head.names else ""
        for file in head.files:
            yield Field(f"file.{name}", _text(file))
        if not head.is_file:
            for content in _contents(part, gap.end(), head.coding):
                yield Field(f"form.{name}", _text(content, head.charset))
        for each in head.names:
            yield Field(f"form.{name}", _text(each), is_name=True)


def _parts(text: str, mark: str) -> Iterator[str]:
    text = f"\r\n{text}"
    yield from _split(text, mark, _ANY_LINE_END)
    if text.count(mark) != text.count(f"\r\n{mark}"):
        yield from _split(text, mark, _STRICT_LINE_END)


def _split(text: str, mark: str, line_ends: tuple[str, ...]) -> list[str]:
    """What stands between delimiters; nothing of what is before the first."""
    pieces = text.split(mark)
    found: list[str] = []
    inside: list[str] = []
    before = pieces[0]
    for piece in pieces[1:]:
        if before.endswith(line_ends) and _ENDS_LINE(piece) is not None:
            if inside:
                found.append("".join(inside).removesuffix("\n").removesuffix("\r"))
            inside = [piece]
        elif inside:
            inside += (mark, piece)
        before = piece
    if inside:
        found.append("".join(inside))
    return found


def _head_of(text: str) -> _Head:
    names: list[str] = []
    files: list[str] = []
    says_file: list[bool] = []
    charset = coding = ""
    for line in text.splitlines():
        said, _, value = line.partition(":")
        header = said.strip().lower()
        if header == "content-disposition":
            found = list(parameters(value))
            names += [each for key, each in found if key == "name"]
            given = [each for key, each in found if key == "filename"]
            given += [
                percent_decoded(each.rpartition("'")[2])
                for key, each in found
                if key == "filename*"
            ]
            files += given
            says_file.append(bool(given) and all(given))
        elif header == "content-type":
            charset = next((each for key, each in parameters(value) if key == "charset"), "")
        elif header == "content-transfer-encoding":
            coding = value.strip().lower()
    return _Head(names, files, bool(says_file) and all(says_file), charset.lower(), coding)


def _contents(part: str, end: int, coding: str) -> Iterator[str]:
    """The content, and what else others take for it."""
    content = part[end:]
    yield content
    strict = part.find("\r\n\r\n")
    if strict >= 0 and strict + 4 != end:
        yield part[strict + 4 :]
    if coding == "base64":
        try:
            yield binascii.a2b_base64(content.encode("latin-1")).decode("latin-1")
        except binascii.Error:
            return
    elif coding == "quoted-printable":
        yield quopri.decodestring(content.encode("latin-1")).decode("latin-1")


def _text(text: str, charset: str = "") -> str:
    if not charset and text.isascii():
        return text
    return text_of(text.encode("latin-1"), charset)
