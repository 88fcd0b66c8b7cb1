"""How values are written in parameters: the styles of OpenAPI, read back (OAS 3.1, 4.8.12).

Theory of operation. Text is taken apart at its delimiters while it is still percent-encoded and
decoded afterwards, so that an encoded comma is part of a value. There is one exception: browsers'
URLSearchParams encodes commas, so in a list of numbers or booleans, where a comma can be nothing
else, an encoded one divides too.

    style           explode false                    explode true
    form            c=blue,black  c=R,100,G,200      c=blue&c=black  R=100&G=200
    spaceDelimited  c=blue%20black                   as form
    pipeDelimited   c=blue|black                     as form
    deepObject      -                                c[R]=100&c[G]=200
    simple          blue,black  R,100,G,200          blue,black  R=100,G=200
    label           .blue,black  .R,100,G,200        .blue.black  .R=100.G=200
    matrix          ;c=blue,black  ;c=R,100,G,200    ;c=blue;c=black  ;R=100;G=200

A value that is not UTF-8 or holds a NUL is refused: services cut such text short, or fail.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headgate.security.validation.shapes import Shape

__all__ = ["DELIMITERS", "Style", "Unreadable", "decode", "read_joined", "read_path"]

Style = Literal[
    "form", "spaceDelimited", "pipeDelimited", "deepObject", "simple", "label", "matrix"
]

DELIMITERS: Final = {
    "form": (",",),
    "simple": (",",),
    "spaceDelimited": ("%20", "+", " "),
    "pipeDelimited": ("|", "%7C", "%7c"),
}
_COMMA: Final = (",",)
_LOOSE_COMMA: Final = (",", "%2C", "%2c")


class Unreadable(ValueError):
    """A parameter is not written in its style; the message is for the client."""

    def __init__(self, detail: str, keyword: str = "style") -> None:
        super().__init__(detail)
        self.detail = detail
        self.keyword = keyword


def decode(raw: str) -> str:
    """Percent-decoded text."""
    if "%" in raw:
        try:
            raw = unquote(raw, errors="strict")
        except UnicodeDecodeError:
            raise Unreadable("is not UTF-8", "encoding") from None
    if "\0" in raw:
        raise Unreadable("holds a NUL", "encoding")
    return raw


def decode_query(raw: str) -> str:
    """As `decode`, where a plus is a space."""
    return decode(raw.replace("+", " ") if "+" in raw else raw)


def as_it_is(raw: str) -> str:
    """Of a header, in which nothing is encoded."""
    return raw


def read_joined(
    raw: str, shape: Shape, delimiters: Sequence[str], decoded: Callable[[str], str]
) -> Any:
    """A value whose parts are joined by a delimiter: `3,4,5`, or `R,100,G,200` for an object."""
    if shape.is_array:
        if not raw:
            return []
        item = shape.of_items
        loose = delimiters == _COMMA and bool(item.types) and "string" not in item.types
        parts = _split(raw, _LOOSE_COMMA if loose else delimiters)
        return [item.value(decoded(part)) for part in parts]
    if shape.is_object:
        parts = _split(raw, delimiters) if raw else []
        if len(parts) % 2:
            raise Unreadable("must be names and values in turn")
        return _object(list(zip(parts[::2], parts[1::2], strict=True)), shape, decoded)
    return shape.value(decoded(raw))


def read_pairs(
    raw: str, shape: Shape, delimiter: str, decoded: Callable[[str], str]
) -> dict[str, Any]:
    """An object as `R=100,G=200`."""
    pairs = []
    for part in raw.split(delimiter) if raw else ():
        name, equals, value = part.partition("=")
        if not equals:
            raise Unreadable("must be written as name=value")
        pairs.append((name, value))
    return _object(pairs, shape, decoded)


def read_path(raw: str, name: str, shape: Shape, style: Style, *, explode: bool) -> Any:
    """The value of a path parameter in style simple, label or matrix."""
    if style == "simple":
        if explode and shape.is_object:
            return read_pairs(raw, shape, ",", decode)
        return read_joined(raw, shape, _COMMA, decode)
    if style == "label":
        return _label(raw, shape, explode=explode)
    return _matrix(raw, name, shape, explode=explode)


def _label(raw: str, shape: Shape, *, explode: bool) -> Any:
    if not raw.startswith("."):
        raise Unreadable("must begin with a dot")
    rest = raw[1:]
    if explode and shape.is_object:
        return read_pairs(rest, shape, ".", decode)
    if explode and shape.is_array:
        return read_joined(rest, shape, (".",), decode)
    return read_joined(rest, shape, _COMMA, decode)


def _matrix(raw: str, name: str, shape: Shape, *, explode: bool) -> Any:
    if not raw.startswith(";"):
        raise Unreadable("must begin with a semicolon")
    parts = raw[1:].split(";")
    if explode and shape.is_object:
        return read_pairs(raw[1:], shape, ";", decode)
    values = []
    for part in parts:
        said, _, value = part.partition("=")
        if decode(said) != name:
            raise Unreadable("must be written as ;name=value with its own name")
        values.append(value)
    if explode and shape.is_array:
        item = shape.of_items
        return [item.value(decode(value)) for value in values]
    if len(values) > 1:
        raise Unreadable("is given more than once", "duplicate")
    return read_joined(values[0], shape, _COMMA, decode)


def _split(raw: str, delimiters: Sequence[str]) -> list[str]:
    first = delimiters[0]
    for other in delimiters[1:]:
        raw = raw.replace(other, first)
    return raw.split(first)


def _object(
    pairs: list[tuple[str, str]], shape: Shape, decoded: Callable[[str], str]
) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for raw_name, raw_value in pairs:
        name = decoded(raw_name)
        if name in made:
            raise Unreadable("has a name twice", "duplicate")
        made[name] = shape.of_property(name).value(decoded(raw_value))
    return made
