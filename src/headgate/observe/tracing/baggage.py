"""W3C Baggage: values that travel with a trace. https://www.w3.org/TR/baggage/

    baggage: user=alice,tenant=a%20b;secret=no

Read leniently, member by member: one that breaks the grammar is let go and the others stay. Sent
strictly: what cannot be said in the limits that all others have to carry (64 members, 8192 bytes)
is not sent. Of two members with one key the last one counts. Baggage is what a stranger says;
nothing may be decided by it that matters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote_to_bytes

__all__ = ["Baggage", "Entry", "parse_baggage", "write_baggage"]

_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_OCTETS: Final = re.compile(r"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*")
_SAFE: Final = "!#$&'()*+-./:<=>?@[]^_`{|}~"  # baggage-octets, without the percent sign
MOST_MEMBERS: Final = 64
MOST_BYTES: Final = 8192


@dataclass(frozen=True, slots=True)
class Entry:
    value: str
    properties: tuple[tuple[str, str | None], ...] = ()
    """What is said of the value, after it; keys alone have None."""


Baggage = Mapping[str, Entry]


def parse_baggage(values: Sequence[str]) -> dict[str, Entry]:
    """All `baggage` headers of a request."""
    found: dict[str, Entry] = {}
    room = MOST_BYTES
    for value in values:
        for each in value[: MOST_BYTES + 1].split(","):
            room -= len(each) + 1
            if room < -1:
                return found
            member = _member(each)
            if member is None:
                continue
            key, entry = member
            if key not in found and len(found) >= MOST_MEMBERS:
                continue
            found[key] = entry
    return found


def _pair(text: str) -> tuple[str, str] | None:
    key, equals, value = text.partition("=")
    key, value = key.strip(" \t"), value.strip(" \t")
    if not equals or _TOKEN.fullmatch(key) is None or _OCTETS.fullmatch(value) is None:
        return None
    return key, unquote_to_bytes(value).decode("utf-8", "replace")


def _member(text: str) -> tuple[str, Entry] | None:
    first, *others = text.split(";")
    pair = _pair(first)
    if pair is None:
        return None
    properties: list[tuple[str, str | None]] = []
    for other in others:
        if "=" in other:
            said = _pair(other)
            if said is None:
                return None
            properties.append(said)
            continue
        key = other.strip(" \t")
        if _TOKEN.fullmatch(key) is None:
            return None
        properties.append((key, None))
    return pair[0], Entry(pair[1], tuple(properties))


def write_baggage(baggage: Baggage) -> str:
    """One header; "" for none. What goes beyond the limits is left out, from the end."""
    written: list[str] = []
    room = MOST_BYTES
    for key, entry in baggage.items():
        if _TOKEN.fullmatch(key) is None:
            raise ValueError(f"{key!r} is no key of baggage: letters, digits and some signs only")
        parts = [f"{key}={_quoted(entry.value)}"]
        for name, value in entry.properties:
            if _TOKEN.fullmatch(name) is None:
                raise ValueError(f"{name!r} is no property of baggage")
            parts.append(name if value is None else f"{name}={_quoted(value)}")
        text = ";".join(parts)
        room -= len(text) + (1 if written else 0)
        if room < 0 or len(written) >= MOST_MEMBERS:
            break
        written.append(text)
    return ",".join(written)


def _quoted(text: str) -> str:
    return quote(text.encode("utf-8", "replace"), safe=_SAFE)
