"""Structured fields (RFC 8941): as much of them as signatures and digests are made of.

Theory of operation. Read are dictionaries whose members are items or inner lists, with their
parameters: strings, tokens, integers, decimals, booleans and byte sequences. Parsing is strict, as
the RFC asks for: a field with anything wrong in it is no field at all (ValueError), because two
readers who repair it differently would sign different things. Stricter than the RFC in one point:
a key that stands twice is refused, where it would have the last one count. Written is what was
read, in the canonical form that a signature is made over.

These fields come from strangers, before anybody is known: text and lists have bounds, far above
what signatures and digests need, so that none costs more than a few milliseconds.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

_KEY: Final = re.compile(r"[a-z*][a-z0-9_\-.*]*")
_TOKEN: Final = re.compile(r"[A-Za-z*][!#$%&'*+\-.^_`|~0-9A-Za-z:/]*")
_NUMBER: Final = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{1,3})?")
_STRING: Final = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*+)"')
_BYTES: Final = re.compile(r":([A-Za-z0-9+/]*+={0,2}):")
_SPACES: Final = re.compile(r"[ \t]*")

MAX_CHARS: Final = 4096
MAX_ITEMS: Final = 64


class Token(str):
    """A bare word, which is another thing than a string."""

    __slots__ = ()


Bare = str | Token | int | Decimal | bool | bytes
Params = dict[str, Bare]


@dataclass(frozen=True, slots=True)
class Item:
    value: Bare
    params: Mapping[str, Bare] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class InnerList:
    items: tuple[Item, ...]
    params: Mapping[str, Bare] = field(default_factory=dict)


Member = Item | InnerList


def parse_dictionary(text: str) -> dict[str, Member]:
    """Members by key; ValueError if anything is wrong."""
    if len(text) > MAX_CHARS:
        raise ValueError("is too long")
    reader = _Reader(text.strip(" "))
    found: dict[str, Member] = {}
    if reader.is_done():
        return found
    while True:
        key = reader.take(_KEY)
        if reader.skip("="):
            member = reader.member()
        else:
            member = Item(value=True, params=reader.params())
        if key in found:
            raise ValueError("has a key twice")
        found[key] = member
        reader.blanks()
        if reader.is_done():
            return found
        reader.expect(",")
        reader.blanks()
        if reader.is_done():
            raise ValueError("ends with a comma")


def write_bare(value: Bare) -> str:
    if isinstance(value, bool):
        return "?1" if value else "?0"
    if isinstance(value, bytes):
        return f":{base64.b64encode(value).decode()}:"
    if isinstance(value, Token):
        return str(value)
    if isinstance(value, str):
        if not all(" " <= char <= "~" for char in value):
            raise ValueError("a string of a structured field is printable ASCII")
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, Decimal):
        text = format(value, "f")
        if "." not in text:
            return f"{text}.0"
        whole, _, rest = text.partition(".")
        return f"{whole}.{rest.rstrip('0') or '0'}"
    return str(value)


def write_params(params: Mapping[str, Bare]) -> str:
    return "".join(
        f";{key}" if value is True else f";{key}={write_bare(value)}"
        for key, value in params.items()
    )


def write_item(item: Item) -> str:
    return write_bare(item.value) + write_params(item.params)


def write_list(listed: InnerList) -> str:
    return f"({' '.join(write_item(item) for item in listed.items)}){write_params(listed.params)}"


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def is_done(self) -> bool:
        return self._at >= len(self._text)

    def take(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self._text, self._at)
        if found is None:
            raise ValueError(f"is no structured field (at character {self._at + 1})")
        self._at = found.end()
        return found[found.lastindex or 0]

    def skip(self, char: str) -> bool:
        if self._text.startswith(char, self._at):
            self._at += 1
            return True
        return False

    def expect(self, char: str) -> None:
        if not self.skip(char):
            raise ValueError(f"is no structured field (at character {self._at + 1})")

    def blanks(self) -> None:
        self.take(_SPACES)

    def member(self) -> Member:
        if not self.skip("("):
            return self.item()
        items: list[Item] = []
        while True:
            while self.skip(" "):
                pass
            if self.skip(")"):
                return InnerList(tuple(items), self.params())
            if len(items) >= MAX_ITEMS:
                raise ValueError("has a list that is too long")
            items.append(self.item())
            if not self._text.startswith((" ", ")"), self._at):
                raise ValueError(f"is no structured field (at character {self._at + 1})")

    def item(self) -> Item:
        return Item(self.bare(), self.params())

    def params(self) -> Params:
        found: Params = {}
        while self.skip(";"):
            while self.skip(" "):
                pass
            key = self.take(_KEY)
            value: Bare = self.bare() if self.skip("=") else True
            if key in found:
                raise ValueError("has a parameter twice")
            found[key] = value
        return found

    def bare(self) -> Bare:
        char = self._text[self._at : self._at + 1]
        if char == '"':
            text = self.take(_STRING)
            return re.sub(r"\\(.)", r"\1", text)
        if char == ":":
            try:
                return base64.b64decode(self.take(_BYTES), validate=True)
            except binascii.Error:
                raise ValueError("holds bytes that are not base64") from None
        if char == "?":
            self._at += 1
            if self.skip("1"):
                return True
            self.expect("0")
            return False
        if char == "-" or char.isdecimal():
            text = self.take(_NUMBER)
            if "." not in text:
                return int(text)
            if len(text.lstrip("-").partition(".")[0]) > 12:
                raise ValueError("holds a number that is too large")
            return Decimal(text)
        return Token(self.take(_TOKEN))
