"""The texts of a request, each with the name it is known by in logs and exclusions.

    path               query.NAME        header.NAME      cookie.NAME
    form.NAME          file.NAME (the name of an uploaded file; see multipart.py)
    json.a.b.0         xml               text

Theory of operation. Each place is decoded once, the way a service would do it: percent and plus
in queries and forms, escapes in JSON. What the names of fields say is judged too, under the same
name, because services use those as well. Whatever is malformed is judged as the text that it is: a
service may be more forgiving than we are. Where services read a place in two ways, both are judged:
a parameter given several times stands for each value and for all of them joined by commas, and in
cookies quotes and octal escapes count for some and not for others.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from typing import Any, Final

from headgate.security.injection.decode import percent_decoded
from headgate.security.injection.field import Field

_JSON_STRING: Final = re.compile(r'"([^"\\]*+(?:\\.[^"\\]*+)*+)"', re.DOTALL).findall
# The next string that is more than a short word of letters, digits and `_!?-`, alone or with others
# behind single signs, as in addresses of mail, dates and versions; or the end. The runs of words
# before it are taken whole and never given back: reading is linear. A longer word may be base64.
_JSON_RISKY: Final = re.compile(
    r'(?:[^"]*+"(?![Hh][Tt][Tt][Pp])[A-Za-z0-9_!?\-]{0,19}+'
    r'(?:[.,@:](?![Ii][Nn][Ii])[A-Za-z0-9_]++)*+")*+[^"]*+(?:"([^"]*+)"?|\Z)'
).findall
_XML_TEXT: Final = re.compile(
    r">([^<]+)(?:<|\Z)|(?:=|<!ENTITY\s+\S{1,80})\s*(?:\"([^\"<]*)\"|'([^'<]*)')"
).finditer
_XML_SPLITS: Final = re.compile(r"<!--|<\?|<!\[CDATA\[").search
_XML_ENDS: Final = {"<!--": "-->", "<?": "?>", "<![CDATA[": "]]>"}
_NUMBER_KEY_DEPTH: Final = 200
_JOINED_MAX: Final = 32
_COOKIE_ESCAPE: Final = re.compile(r"\\(?:([0-3][0-7]{2})|(.))")


def query_fields(query: str, prefix: str = "query") -> Iterator[Field]:
    """Yield the parameters of a query or of a form."""
    values: dict[str, str] = {}
    joined: dict[str, list[str]] = {}
    for pair in query.split("&"):
        if not pair:
            continue
        name, equals, value = pair.partition("=")
        name = percent_decoded(name, plus=True)
        if not equals:
            yield Field(f"{prefix}.{name}", name, is_name=True)
            continue
        value = percent_decoded(value, plus=True)
        yield Field(f"{prefix}.{name}", value)
        if not name.isalnum():
            yield Field(f"{prefix}.{name}", name, is_name=True)
        if name in values:
            joined.setdefault(name, [values[name]]).append(value)
        else:
            values[name] = value
    for name, given in joined.items():
        # What ASP and its kin make of it: an attack may come in pieces.
        if len(given) <= _JOINED_MAX:
            yield Field(f"{prefix}.{name}", ",".join(given))


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
            if "\\" in text:
                yield Field(f"cookie.{name}", _COOKIE_ESCAPE.sub(_unescaped, text))
        yield Field(f"cookie.{name}", text or name)


def _unescaped(found: re.Match[str]) -> str:
    """As Python's cookies are read: octal, or the character itself."""
    return chr(int(found[1], 8)) if found[1] else found[2]


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
    yield from _xml_texts(text)
    if "<!" in text or "<?" in text:
        joined = _in_one(text)
        if joined != text:
            yield from _xml_texts(joined)


def _xml_texts(text: str) -> Iterator[Field]:
    for found in _XML_TEXT(text):
        inner = found[found.lastindex or 1]
        if inner and not inner.isspace():
            yield Field("xml", inner)


def _in_one(text: str) -> str:
    """Without comments and instructions, and CDATA as text: readers make one text of the pieces."""
    pieces: list[str] = []
    at = 0
    while (found := _XML_SPLITS(text, at)) is not None:
        end = text.find(_XML_ENDS[found.group()], found.end())
        if end < 0:
            break
        pieces.append(text[at : found.start()])
        if found.group() == "<![CDATA[":
            pieces.append(html.escape(text[found.end() : end]))
        at = end + len(_XML_ENDS[found.group()])
    pieces.append(text[at:])
    return "".join(pieces)
