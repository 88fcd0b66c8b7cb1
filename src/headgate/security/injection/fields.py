"""The texts of a request, each with the name it is known by in logs and exclusions.

    path               query.NAME        header.NAME      cookie.NAME
    form.NAME          file.NAME (the name of an uploaded file)
    json.a.b.0         xml               text

Theory of operation. Each place is decoded once, the way a service would do it: percent and plus
in queries and forms, escapes in JSON, parts of multipart by their boundary. What the names of
fields say is judged too, under the same name, because services use those as well. Whatever is
malformed is judged as the text that it is: a service may be more forgiving than we are.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from headgate.security.injection.decode import percent_decoded

_JSON_STRING: Final = re.compile(r'"([^"\\]*+(?:\\.[^"\\]*+)*+)"', re.DOTALL).findall
# The next string that is more than a short word of letters, digits and `_!?-`, or the end. The runs
# of words before it are taken whole and never given back, so that reading stays linear.
_JSON_RISKY: Final = re.compile(
    r'(?:[^"]*+"[A-Za-z0-9_!?\-]{0,19}+")*+[^"]*+(?:"([^"]*+)"?|\Z)'
).findall
_XML_TEXT: Final = re.compile(
    r">([^<>]+)<|=\s*(?:\"([^\"<>]*)\"|'([^'<>]*)')|<!\[CDATA\[([^\]]*)"
).finditer
_PARAMETER: Final = re.compile(r';\s*([\w*\-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;\s]*))').findall
_NUMBER_KEY_DEPTH: Final = 200


# Those that services know. Python knows more, some of them slow.
_CHARSET: Final = re.compile(
    r"utf-?(?:7|16|32)(?:[-_]?[lb]e)?|iso-8859-\d{1,2}|windows-12\d\d|cp\d{3,4}|ibm\d{3,4}|latin-?1|"
    r"shift_jis|gb[k\d]{1,5}|big5|euc-(?:jp|kr)|koi8-[ru]"
).fullmatch


class Field(NamedTuple):
    name: str
    text: str
    is_name: bool = False
    """The text is the name of a field, and not its value."""


def query_fields(query: str, prefix: str = "query") -> Iterator[Field]:
    """Yield the parameters of a query or of a form."""
    for pair in query.split("&"):
        if not pair:
            continue
        name, equals, value = pair.partition("=")
        name = percent_decoded(name, plus=True)
        if not equals:
            yield Field(f"{prefix}.{name}", name, is_name=True)
            continue
        yield Field(f"{prefix}.{name}", percent_decoded(value, plus=True))
        if not name.isalnum():
            yield Field(f"{prefix}.{name}", name, is_name=True)


def path_fields(path: str) -> Iterator[Field]:
    """Yield the segments of a path, and the whole of it for what spans several."""
    whole = percent_decoded(path)
    for segment in path.split("/"):
        if segment:
            yield Field("path", percent_decoded(segment))
    yield Field("path", whole.lstrip("/"))


def cookie_fields(value: str) -> Iterator[Field]:
    for pair in value.split(";"):
        name, _, text = pair.strip().partition("=")
        if len(text) > 1 and text[0] == '"' == text[-1]:
            text = text[1:-1]
        yield Field(f"cookie.{name}", text or name)


def json_texts(text: str) -> list[str]:
    """The strings and keys in a JSON text, without a thought for its structure.

    Those that no attack fits into are left out: most keys, numbers and words.

    Escaped quotes and backslashes step aside for control characters, so that every quote left is
    a bound; `json_text` brings them back.
    """
    if "\\" not in text:
        return _JSON_RISKY(text)
    if "\1" in text or "\2" in text:
        found: list[str] = _JSON_STRING(text)
        return found
    return _JSON_RISKY(text.replace("\\\\", "\1").replace('\\"', "\2"))


def json_text(raw: str) -> str:
    """One of `json_texts`, unescaped."""
    if "\\" not in raw:
        return raw.replace("\2", '"').replace("\1", "\\")
    raw = raw.replace("\2", '\\"').replace("\1", "\\\\")
    try:
        text = json.loads(f'"{raw}"', strict=False)
    except ValueError:
        return raw
    return text if isinstance(text, str) else raw


def is_json(text: str) -> bool:
    try:
        json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return False
    return True


class _Pairs(list[tuple[str, Any]]):
    """An object with its repeated keys."""


def json_fields(text: str) -> Iterator[Field]:
    """Yield strings and keys with their places; ValueError for what is no JSON."""
    try:
        document = json.loads(text, object_pairs_hook=_Pairs, strict=False)
    except RecursionError as error:
        raise ValueError("too deep") from error
    stack: list[tuple[str, Any, int]] = [("json", document, 0)]
    while stack:
        place, value, depth = stack.pop()
        # A place so deep would be longer than what it names.
        inner = place if depth < _NUMBER_KEY_DEPTH else "json"
        if isinstance(value, str):
            yield Field(place, value)
        elif isinstance(value, _Pairs):
            for key, item in value:
                yield Field(f"{inner}.{key}", key, is_name=True)
                stack.append((f"{inner}.{key}", item, depth + 1))
        elif isinstance(value, list):
            stack += [(f"{inner}.{at}", item, depth + 1) for at, item in enumerate(value)]


def xml_fields(text: str) -> Iterator[Field]:
    """Yield texts and attribute values; markup of its own is what XML is made of."""
    for found in _XML_TEXT(text):
        inner = found[found.lastindex or 1]
        if inner and not inner.isspace():
            yield Field("xml", inner)


def multipart_fields(body: str, boundary: str) -> Iterator[Field]:
    """Yield the fields of a form with files (RFC 7578): values, and the names of files.

    What is in files is theirs: images and documents hold every byte there is.
    """
    parts = body.split(f"--{boundary}")
    for part in parts[1:]:
        head, gap, content = part.lstrip("\r\n").partition("\r\n\r\n")
        if not gap:
            head, gap, content = part.lstrip("\n").partition("\n\n")
            if not gap:
                continue
        name, file = "", None
        for line in head.splitlines():
            said, _, value = line.partition(":")
            if said.strip().lower() != "content-disposition":
                continue
            for key, quoted, plain in _PARAMETER(value):
                text = re.sub(r"\\(.)", r"\1", quoted) if quoted else plain
                if key.lower() == "name":
                    name = text
                elif key.lower() == "filename":
                    file = text
                elif key.lower() == "filename*":
                    file = percent_decoded(text.rpartition("'")[2])
        if file is not None:
            yield Field(f"file.{name}", file)
        else:
            yield Field(f"form.{name}", content.removesuffix("\r\n"))
        yield Field(f"form.{name}", name, is_name=True)


def boundary_of(content_type: str) -> str:
    for key, quoted, plain in _PARAMETER(content_type):
        if key.lower() == "boundary":
            return str(quoted or plain)
    return ""


def charset_of(content_type: str) -> str:
    if "=" not in content_type:
        return ""
    for key, quoted, plain in _PARAMETER(content_type):
        if key.lower() == "charset":
            return str(quoted or plain).lower()
    return ""


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
    encoding = encoding.strip().lower()
    if encoding in {"", "identity"}:
        return body
    if encoding not in {"gzip", "x-gzip", "deflate"}:
        return None
    for window in (47, -15):  # gzip or zlib by their heads, then bare deflate
        try:
            return zlib.decompressobj(window).decompress(body, limit)
        except zlib.error:
            continue
    return None
