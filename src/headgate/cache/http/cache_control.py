"""`Cache-Control` and its targeted kin (RFC 9111 5.2, RFC 9213), read once into plain values.

Theory of operation. Directives are read leniently, as the world writes them: any case, empty
members, an argument as a token or in quotes. Where one is wrong the cautious meaning holds: a
lifetime that is no number is none (stale), one that stands twice counts with its smallest value,
a `no-cache=` or `private=` without readable field names is the one without an argument. Unknown
directives are nothing (5.2.3).

A targeted field (`CDN-Cache-Control`) is read strictly, as a dictionary of structured fields: it
takes the place of `Cache-Control` and `Expires`, and a field with anything wrong in it is not there
(RFC 9213 2.1). A key that stands twice counts with its last value (RFC 8941 3.2); `=?0` is as if
the directive were missing.

Times are clamped to 2^31 seconds (RFC 9111 1.2.2). All of this takes linear time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from headgate.wire.structured_fields import Item, parse_dictionary

__all__ = ["SECONDS_MAX", "Directives", "delta_seconds", "directives_of", "members", "targeted"]

SECONDS_MAX: Final = 2**31
_DIGITS_MAX: Final = 10

_BETWEEN: Final = re.compile(rb"[ \t,]*+")
_MEMBER: Final = re.compile(
    rb"([^\s,=\"]++)(?:([ \t]*+=[ \t]*+)(?:\"((?:[^\"\\]|\\.)*+)\"|([^\s,]*+)))?([^,]*+)", re.DOTALL
)
_ESCAPED: Final = re.compile(rb"\\(.)", re.DOTALL)
_UNREADABLE: Final = b"?"
_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_SF_MEMBER: Final = re.compile(r'(?:[^",]|"(?:[^"\\]|\\.)*+")*+')


class Directives:
    """What a response says of caching. Times: None if nothing is said, zero if it is wrong."""

    __slots__ = (
        "immutable",
        "is_targeted",
        "max_age_s",
        "must_revalidate",
        "must_understand",
        "no_cache",
        "no_cache_fields",
        "no_store",
        "no_transform",
        "private",
        "private_fields",
        "proxy_revalidate",
        "public",
        "s_maxage_s",
        "stale_if_error_s",
        "stale_while_revalidate_s",
    )

    def __init__(self) -> None:
        self.is_targeted = False
        self.public = False
        self.private = False
        self.private_fields: frozenset[bytes] = frozenset()
        self.no_store = False
        self.no_cache = False
        self.no_cache_fields: frozenset[bytes] = frozenset()
        self.no_transform = False
        self.must_revalidate = False
        self.proxy_revalidate = False
        self.must_understand = False
        self.immutable = False
        self.max_age_s: float | None = None
        self.s_maxage_s: float | None = None
        self.stale_while_revalidate_s: float | None = None
        self.stale_if_error_s: float | None = None

    def take(self, name: bytes, argument: bytes | None) -> None:
        """Add one directive, its name in lower case."""
        attribute = _TIMES.get(name)
        if attribute is not None:
            seconds = delta_seconds(argument)
            known = getattr(self, attribute)
            value = 0.0 if seconds is None else seconds
            setattr(self, attribute, value if known is None else min(known, value))
            return
        attribute = _FLAGS.get(name)
        if attribute is not None:
            if argument is None or name not in _ALLOWING:
                setattr(self, attribute, True)
        elif name == b"no-cache":
            fields = _fields(argument)
            self.no_cache |= not fields
            self.no_cache_fields |= fields
        elif name == b"private":
            fields = _fields(argument)
            self.private |= not fields
            self.private_fields |= fields


_TIMES: Final = {
    b"max-age": "max_age_s",
    b"s-maxage": "s_maxage_s",
    b"stale-while-revalidate": "stale_while_revalidate_s",
    b"stale-if-error": "stale_if_error_s",
}
_FLAGS: Final = {
    b"public": "public",
    b"no-store": "no_store",
    b"no-transform": "no_transform",
    b"must-revalidate": "must_revalidate",
    b"proxy-revalidate": "proxy_revalidate",
    b"must-understand": "must_understand",
    b"immutable": "immutable",
}

_ALLOWING: Final = frozenset({b"public", b"immutable", b"must-understand"})
"""These take no argument, and with one nobody knows what they allow."""


def members(value: bytes) -> Iterator[tuple[bytes, bytes | None]]:
    """Directives of a `Cache-Control` line: lower-case name, and argument without its quotes.

    A quote that is not closed is a character like others, so that nothing behind it is lost. With
    rubbish behind an argument (`="1"2`), or spaces around the `=`, the argument is one that no
    directive can read. Words where a comma is missing are read each, as any may forbid something.
    """
    at, end = 0, len(value)
    while True:
        between = _BETWEEN.match(value, at)
        at = at if between is None else between.end()
        if at >= end:
            return
        found = _MEMBER.match(value, at)
        if found is None:
            # A member that begins with `=` or a quote.
            at = value.find(b",", at)
            if at < 0:
                return
            continue
        name, equals, quoted, token, rest = found.groups()
        at = found.end()
        if equals is None:
            yield name.lower(), None
        elif len(equals) != 1 or rest.strip():
            yield name.lower(), _UNREADABLE
        else:
            yield name.lower(), token if quoted is None else _ESCAPED.sub(rb"\1", quoted)
        if rest:
            for word in rest.split():
                name, equals, _ = word.partition(b"=")
                yield name.lower(), _UNREADABLE if equals else None


def directives_of(values: Iterable[bytes]) -> Directives:
    found = Directives()
    for value in values:
        for name, argument in members(value):
            found.take(name, argument)
    return found


def targeted(values: Iterable[bytes]) -> Directives | None:
    """Of a targeted field; None if it does not count: empty, or not well formed."""
    text = b",".join(values).decode("latin-1").strip(" \t")
    if not text:
        return None
    said: dict[str, Item] = {}
    at = 0
    while True:
        member = _SF_MEMBER.match(text, at)
        part = "" if member is None else member[0].strip(" \t")
        try:
            parsed = parse_dictionary(part)
        except ValueError:
            return None
        if len(parsed) != 1:
            return None
        for key, value in parsed.items():
            said.pop(key, None)
            if isinstance(value, Item):
                said[key] = value
        at += 0 if member is None else len(member[0])
        if at >= len(text):
            break
        if text[at] != ",":
            return None
        at += 1
    found = Directives()
    found.is_targeted = True
    for key, item in said.items():
        argument = item.value
        if argument is False:
            continue
        if argument is True:
            found.take(key.encode(), None)
        elif type(argument) is int:
            found.take(key.encode(), str(argument).encode())
        elif isinstance(argument, str) and key in ("no-cache", "private"):
            found.take(key.encode(), argument.encode())
        else:
            found.take(key.encode(), _UNREADABLE)
    return found


def delta_seconds(argument: bytes | None) -> float | None:
    """RFC 9111 1.2.2; None if it is not a whole number that is not negative."""
    if argument is None or not argument.isdigit():
        return None
    if len(argument) > _DIGITS_MAX:
        argument = argument.lstrip(b"0") or b"0"
        if len(argument) > _DIGITS_MAX:
            return float(SECONDS_MAX)
    return float(min(int(argument), SECONDS_MAX))


def _fields(argument: bytes | None) -> frozenset[bytes]:
    """Field names of `no-cache=` and `private=`; empty if any of them is none."""
    if argument is None:
        return frozenset()
    names = [part.strip(b" \t").lower() for part in argument.split(b",")]
    names = [name for name in names if name]
    if not all(map(_NAME.fullmatch, names)):
        return frozenset()
    return frozenset(names)
