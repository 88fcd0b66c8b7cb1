"""`Vary`: which fields of a request choose among responses, and when two requests say the same.

Theory of operation (RFC 9111 4.1). Two requests say the same in a field if they are equal after
what cannot change their meaning: lines of one field joined, blanks around commas gone, for
`Accept*` also the case of what has none, weights written one way, and for `Accept-Encoding` the
order, which means nothing beside the weights. Whatever might mean something is kept, so two
requests that differ are at worst kept apart. A field that is not there is not one that is empty.

`Vary: *` says that what is not in the request decided: nothing ever matches it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from headgate.cache.http.stored import Stored
    from headgate.wire.message import Header

__all__ = ["ABSENT", "NAMES_MAX", "names_of", "newest", "normal", "selects"]

NAMES_MAX: Final = 32
"""A response that varies by more fields is not kept (`judge_response`)."""

ABSENT: Final = b"\x00"
"""Stands for a field that a request does not have; no field can hold it."""

_REMEMBERED_BYTES: Final = 512

_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_QUOTED: Final = re.compile(rb'("[^"]*+")')
_WEIGHT: Final = re.compile(rb"(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")
_OPAQUE: Final = frozenset({b"authorization", b"cookie", b"referer", b"user-agent"})
"""No lists: every character of them may count."""


def names_of(headers: Iterable[Header]) -> tuple[bytes, ...] | None:
    """Fields that `Vary` names, lower-case, each once, in order of the alphabet.

    None for `*`, and for something that is no name, as then nobody knows what the response depends
    on.
    """
    found: set[bytes] | None = None
    for name, value in headers:
        if name == b"vary":
            if found is None:
                found = set()
            for part in value.lower().split(b","):
                member = part.strip(b" \t")
                if member:
                    found.add(member)
    if not found:
        return ()
    if b"*" in found or not all(map(_NAME.fullmatch, found)):
        return None
    return tuple(sorted(found))


def normal(names: tuple[bytes, ...], request_headers: Iterable[Header]) -> tuple[Header, ...]:
    """What a request says in `names`, a pair for each of them, so that equal is the same."""
    if not names:
        return ()
    said = dict.fromkeys(names, ABSENT)
    for name, value in request_headers:
        known = said.get(name)
        if known is not None:
            said[name] = value if known is ABSENT else known + b"," + value
    return tuple([(name, _normal(name, value)) for name, value in said.items()])


def _normal(name: bytes, value: bytes) -> bytes:
    if value is ABSENT:
        return value
    read = _NORMAL.get(name)
    if read is None:
        return _plain(value, name)
    return _remembered(name, value) if len(value) <= _REMEMBERED_BYTES else read(value, name)


@lru_cache(maxsize=1024)
def _remembered(name: bytes, value: bytes) -> bytes:
    """Browsers say few different things in `Accept*`, and no secrets: 0.1 us in place of 5."""
    return _NORMAL[name](value, name)


def selects(stored: Stored, request_headers: Iterable[Header]) -> bool:
    """Whether a kept response is one for this request."""
    vary = stored.vary
    return not vary or normal(tuple(name for name, _ in vary), request_headers) == vary


def newest(candidates: Iterable[Stored], request_headers: tuple[Header, ...]) -> Stored | None:
    """Of several that match, the one made last (RFC 9111 4, 4.1)."""
    best: Stored | None = None
    for stored in candidates:
        if selects(stored, request_headers) and (best is None or _made(stored) >= _made(best)):
            best = stored
    return best


def _made(stored: Stored) -> float:
    return stored.received_at - stored.initial_age_s


def _plain(value: bytes, name: bytes) -> bytes:
    value = value.strip(b" \t")
    if b"," not in value or name in _OPAQUE:
        return value
    if b'"' not in value:
        members = [part.strip(b" \t") for part in value.split(b",")]
        return b",".join([member for member in members if member])
    if b"\\" in value or value.count(b'"') % 2:
        return value
    parts = _QUOTED.split(value)
    parts[::2] = [_close(part) for part in parts[::2]]
    return b"".join(parts)


def _close(text: bytes) -> bytes:
    """Without blanks around commas."""
    first, *others = text.split(b",")
    if not others:
        return text
    *between, last = others
    middle = [part.strip(b" \t") for part in between]
    return b",".join([first.rstrip(b" \t"), *middle, last.lstrip(b" \t")])


def _weighed(value: bytes) -> list[tuple[bytes, bytes]]:
    """Members of an `Accept*` and their weights, as few digits as they need."""
    found = []
    for member in _plain(value, b"").split(b","):
        first, *params = member.split(b";")
        weight, kept = b"1", [first.strip(b" \t").lower()]
        for param in params:
            key, equals, argument = param.partition(b"=")
            key, argument = key.strip(b" \t").lower(), argument.strip(b" \t")
            if key == b"q" and _WEIGHT.fullmatch(argument):
                weight = argument.rstrip(b"0").rstrip(b".") if b"." in argument else argument
            else:
                kept.append(key + equals + argument)
        found.append((b";".join(kept), weight))
    return found


def _listed(value: bytes, name: bytes) -> bytes:
    """By weight. Among equals the order is kept: some servers take it for a rank."""
    if b'"' in value:
        return _plain(value, name)
    ordered = sorted(_weighed(value), key=lambda member: -float(member[1]))
    return b",".join(
        member if weight == b"1" else member + b";q=" + weight for member, weight in ordered
    )


def _codings(value: bytes, name: bytes) -> bytes:
    if b'"' in value:
        return _plain(value, name)
    found: dict[bytes, bytes] = {}
    for member, weight in _weighed(value):
        if member:
            found.setdefault(_ALIASES.get(member, member), weight)
    ordered = sorted(found.items())
    return b",".join(
        member if weight == b"1" else member + b";q=" + weight for member, weight in ordered
    )


_ALIASES: Final = {b"x-gzip": b"gzip", b"x-compress": b"compress"}
"""RFC 9110 8.4.1: the same coding."""

_NORMAL: Final[dict[bytes, Callable[[bytes, bytes], bytes]]] = {
    b"accept": _listed,
    b"accept-charset": _listed,
    b"accept-encoding": _codings,
    b"accept-language": _listed,
}
