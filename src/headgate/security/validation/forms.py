"""Bodies of forms: `application/x-www-form-urlencoded` and `multipart/form-data`.

Theory of operation. A form becomes a mapping like a JSON object and is held against the same
schema. Its fields are text, so their schemas say what they stand for, as with parameters; a field
given twice that is no list is refused.

A multipart body is taken apart as RFC 2046 section 5.1 and RFC 7578 write it, and no more
leniently, because what two parsers read two ways is how checks are evaded: nothing before the
first delimiter, a last delimiter, one Content-Disposition with one name, no transfer encodings.
Parts and their headers are counted; splitting is linear.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from headgate.security.validation.checker import clipped
from headgate.security.validation.json_text import JsonRefused
from headgate.security.validation.media import is_listed, kind_of, parse_media_type
from headgate.security.validation.references import pointer_of
from headgate.security.validation.rules import Fault
from headgate.security.validation.styles import (
    DELIMITERS,
    Style,
    Unreadable,
    decode_query,
    read_joined,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headgate.security.validation.json_text import JsonReader
    from headgate.security.validation.media import MediaType
    from headgate.security.validation.shapes import Shape

__all__ = ["Encoding", "FormRefused", "Forms", "Part", "split_multipart"]

_FIELDS_MAX: Final = 1000
_PART_HEADERS_MAX: Final = 8192
_BOUNDARY: Final = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?]").fullmatch
_DISPOSITION: Final = re.compile(
    r'form-data(?:[ \t]*;[ \t]*[A-Za-z*]+=(?:"(?:[^"\\]++|\\.)*+"|[^;" \t]++))*+[ \t]*',
    re.IGNORECASE,
).fullmatch
_PIECE: Final = re.compile(r';[ \t]*([A-Za-z*]+)=(?:"((?:[^"\\]++|\\.)*+)"|([^;" \t]++))')


class FormRefused(ValueError):
    def __init__(self, detail: str, keyword: str = "form") -> None:
        super().__init__(detail)
        self.detail = detail
        self.keyword = keyword


@dataclass(frozen=True, slots=True)
class Encoding:
    """How one field is written, where the document says so."""

    content_type: str = ""
    style: Style = "form"
    explode: bool = True


@dataclass(frozen=True, slots=True)
class Part:
    name: str
    content: bytes
    content_type: str = ""
    is_file: bool = False


@dataclass(slots=True, eq=False, repr=False)
class Forms:
    """Reads the forms of one described body."""

    shape: Shape
    reader: JsonReader
    encodings: Mapping[str, Encoding] = field(default_factory=dict)
    binaries: frozenset[str] = frozenset()
    """Properties whose content is a file's, of which nothing but being there is looked at."""

    def urlencoded(self, body: bytes, faults: list[Fault]) -> dict[str, Any]:
        """The fields; raises FormRefused, and adds what is wrong with single ones to `faults`."""
        try:
            text = body.decode("ascii")
        except UnicodeDecodeError:
            raise FormRefused("has bytes that must be percent-encoded", "encoding") from None
        pairs = text.split("&", _FIELDS_MAX) if text else []
        if len(pairs) > _FIELDS_MAX:
            raise FormRefused(f"has more than {_FIELDS_MAX} fields", "values")
        given: dict[str, list[str]] = {}
        for pair in pairs:
            name, _, value = pair.partition("=")
            try:
                given.setdefault(decode_query(name), []).append(value)
            except Unreadable as error:
                raise FormRefused(f"has a name that {error.detail}", error.keyword) from None
        made: dict[str, Any] = {}
        for name, raw in given.items():
            try:
                made[name] = self._field(name, raw)
            except (Unreadable, JsonRefused) as error:
                faults.append(_fault(name, error.detail, error.keyword))
        return made

    def _field(self, name: str, raw: list[str]) -> Any:
        shape = self.shape.of_property(name)
        encoding = self.encodings.get(name, _PLAIN)
        if shape.is_array and encoding.explode:
            item = shape.of_items
            return [item.value(decode_query(each)) for each in raw]
        if len(raw) > 1:
            raise Unreadable("is given more than once", "duplicate")
        if _is_json(encoding.content_type):
            return self.reader.read(decode_query(raw[0]).encode())
        return read_joined(raw[0], shape, DELIMITERS.get(encoding.style, (",",)), decode_query)

    def multipart(self, body: bytes, media: MediaType, faults: list[Fault]) -> dict[str, Any]:
        """The same for a multipart body."""
        given: dict[str, list[Part]] = {}
        for part in split_multipart(body, media.parameters.get("boundary", "")):
            given.setdefault(part.name, []).append(part)
        made: dict[str, Any] = {}
        for name, parts in given.items():
            shape = self.shape.of_property(name)
            try:
                if shape.is_array:
                    item = shape.of_items
                    made[name] = [self._content(name, part, item) for part in parts]
                elif len(parts) > 1:
                    raise Unreadable("is given more than once", "duplicate")
                else:
                    made[name] = self._content(name, parts[0], shape)
            except (Unreadable, JsonRefused) as error:
                faults.append(_fault(name, error.detail, error.keyword))
        return made

    def _content(self, name: str, part: Part, shape: Shape) -> Any:
        encoding = self.encodings.get(name, _PLAIN)
        media = parse_media_type(part.content_type) if part.content_type else None
        if part.content_type and media is None:
            raise Unreadable("has a Content-Type that is malformed", "contentType")
        if encoding.content_type and not is_listed(
            media.essence if media is not None else "text/plain", encoding.content_type
        ):
            raise Unreadable(f"must be of type {clipped(encoding.content_type)}", "contentType")
        if media is not None and not media.is_utf8:
            raise Unreadable("is not in UTF-8", "encoding")
        if media is not None and kind_of(media.essence) == "json":
            return self.reader.read(part.content)
        if name in self.binaries:
            return ""
        if part.is_file:
            raise Unreadable("is a file where none is described", "contentType")
        if shape.is_object:
            return self.reader.read(part.content)
        try:
            text = part.content.decode("utf-8")
        except UnicodeDecodeError:
            raise Unreadable("is not UTF-8", "encoding") from None
        if "\0" in text:
            raise Unreadable("holds a NUL", "encoding")
        return shape.value(text)


_PLAIN: Final = Encoding()


def _is_json(content_type: str) -> bool:
    media = parse_media_type(content_type) if content_type else None
    return media is not None and kind_of(media.essence) == "json"


def _fault(name: str, detail: str, keyword: str) -> Fault:
    return Fault("body", pointer_of([clipped(name)]), detail, keyword)


def split_multipart(body: bytes, boundary: str) -> list[Part]:
    """The parts of a body; raises FormRefused."""
    if not boundary or not _BOUNDARY(boundary):
        raise FormRefused("has no proper boundary in its Content-Type")
    delimiter = b"--" + boundary.encode("ascii")
    if not body.startswith(delimiter):
        raise FormRefused("does not begin with its boundary")
    pieces = (b"\r\n" + body).split(b"\r\n" + delimiter, _FIELDS_MAX + 2)
    if len(pieces) > _FIELDS_MAX + 2:
        raise FormRefused(f"has more than {_FIELDS_MAX} parts", "values")
    last = pieces.pop()
    if last not in (b"--", b"--\r\n"):
        raise FormRefused("does not end with its last boundary")
    return [_part(piece) for piece in pieces[1:]]


def _part(piece: bytes) -> Part:
    if not piece.startswith(b"\r\n"):
        raise FormRefused("has something behind a boundary")
    head, blank, content = piece[2:].partition(b"\r\n\r\n")
    if piece.startswith(b"\r\n\r\n"):
        head, content = b"", piece[4:]
    elif not blank:
        raise FormRefused("has a part without a blank line")
    if len(head) > _PART_HEADERS_MAX:
        raise FormRefused("has a part with too large headers")
    name: str | None = None
    content_type = ""
    is_file = False
    seen: set[str] = set()
    for line in head.split(b"\r\n"):
        key, colon, value = _decoded(line).partition(":")
        key = key.lower()
        if not colon or key in seen or key != key.strip(" \t"):
            raise FormRefused("has a part with malformed headers")
        seen.add(key)
        value = value.strip(" \t")
        if key == "content-disposition":
            name, is_file = _disposition(value)
        elif key == "content-type":
            content_type = value
        elif key == "content-transfer-encoding" and value.lower() not in ("7bit", "8bit", "binary"):
            raise FormRefused("has a part with a transfer encoding, which forms do not have")
    if name is None:
        raise FormRefused("has a part without a name")
    return Part(name, content, content_type, is_file)


def _decoded(line: bytes) -> str:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        raise FormRefused("has a part whose headers are not UTF-8", "encoding") from None
    if "\r" in text or "\n" in text or "\0" in text:
        raise FormRefused("has a part with malformed headers")
    return text


def _disposition(value: str) -> tuple[str, bool]:
    if not _DISPOSITION(value):
        raise FormRefused("has a part whose Content-Disposition is malformed")
    found: dict[str, str] = {}
    for key, quoted, plain in _PIECE.findall(value):
        if key.lower() in found:
            raise FormRefused("has a part with two names")
        found[key.lower()] = quoted or plain
    if "name" not in found or "name*" in found:
        raise FormRefused("has a part without a name")
    name = found["name"]
    # Browsers write quotes and line breaks as %22, %0D, %0A (WHATWG, form-data encoding).
    for written, meant in (("%22", '"'), ("%0D", "\r"), ("%0A", "\n"), ('\\"', '"')):
        name = name.replace(written, meant)
    return name, "filename" in found or "filename*" in found
