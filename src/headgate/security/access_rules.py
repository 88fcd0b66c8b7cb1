"""What it takes to be let through, as values: the tree that access is compiled from.

Theory of operation. A rule is a condition or a combination of rules. A condition about who asks
does not hold while nobody is known. `AnyOf(())` never holds, `AllOf(())` always does.

Claims are compared as text, in the spelling of JSON: `true`, `5` and `"5"` are what they look
like, because issuers do not agree whether a flag is a boolean or text. A claim that is a list
holds if one of its members fits; a mapping never fits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, Literal

__all__ = [
    "AccessRules",
    "AllOf",
    "AnyOf",
    "Claim",
    "During",
    "From",
    "HasAll",
    "HasAny",
    "Held",
    "Is",
    "Known",
    "Methods",
    "Network",
    "Not",
    "OverTls",
    "Own",
    "Window",
    "address_of",
    "claim_path",
    "claim_texts",
]

Held = Literal["roles", "scopes", "groups"]
Named = Literal["subject", "consumer", "method"]
Network = IPv4Network | IPv6Network

DAY_MIN: Final = 24 * 60
_LARGEST: Final = 2**63
_ADDRESSES: Final = 4096


@dataclass(frozen=True, slots=True)
class Known:
    """Somebody is known, whoever it is."""


@dataclass(frozen=True, slots=True)
class HasAny:
    """One of these roles, scopes or groups."""

    of: Held
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HasAll:
    """Every one of them."""

    of: Held
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Is:
    """Who it is, whose key it is, or what vouches for it, by name."""

    of: Named
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim with one of these values, or one that a pattern matches as a whole."""

    path: str
    values: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Methods:
    """The request's method."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class From:
    """The client's address."""

    networks: tuple[Network, ...]


@dataclass(frozen=True, slots=True)
class Window:
    """Hours of days between two dates, all by the clocks of one time zone."""

    days: frozenset[int] = frozenset(range(7))
    """0 is Monday. Hours over midnight belong to the day on which they begin."""
    begin_min: int = 0
    end_min: int = DAY_MIN
    """Not in it any more. Before `begin_min`: on the next day."""
    zone: str = "UTC"
    since: datetime | None = None
    until: datetime | None = None
    """Not in it any more."""


@dataclass(frozen=True, slots=True)
class During:
    """One of these windows is open."""

    windows: tuple[Window, ...]


@dataclass(frozen=True, slots=True)
class Own:
    """A path parameter equals what is known of who asks, or one of it."""

    param: str
    of: str
    """`subject`, `consumer`, `roles`, `scopes`, `groups`, or `claim:PATH`."""


@dataclass(frozen=True, slots=True)
class OverTls:
    """The client's connection is encrypted."""


@dataclass(frozen=True, slots=True)
class AnyOf:
    rules: tuple[AccessRules, ...]


@dataclass(frozen=True, slots=True)
class AllOf:
    rules: tuple[AccessRules, ...]


@dataclass(frozen=True, slots=True)
class Not:
    rule: AccessRules


Condition = Known | HasAny | HasAll | Is | Claim | Methods | From | During | Own | OverTls
AccessRules = Condition | AnyOf | AllOf | Not


# -- reading what is known -----------------------------------------------------------------------

_DOT: Final = re.compile(r"(?<!\\)\.")


@lru_cache(maxsize=1024)
def claim_path(text: str) -> tuple[str, ...]:
    r"""The steps of a claim's path: `realm_access.roles`. A dot that is part of a name is written
    `\.`; a name with `://` in it, as namespaced claims have, needs none of that.
    """
    if "://" in text and "\\" not in text:
        return (text,)
    return tuple(step.replace("\\.", ".") for step in _DOT.split(text))


def claim_texts(claims: Mapping[str, object], path: tuple[str, ...]) -> tuple[str, ...]:
    """What a claim says, as texts; none where it is not there."""
    found = claims.get(path[0])
    for step in path[1:]:
        # Asking for the abstract type first would cost more than everything else here.
        if type(found) is not dict and not isinstance(found, Mapping):
            return ()
        found = found.get(step)
    if type(found) is str:
        return (found,)
    if isinstance(found, list | tuple | set | frozenset):
        return tuple(text for each in found if (text := _text(each)) is not None)
    text = _text(found)
    return () if text is None else (text,)


def _text(value: object) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value) if -_LARGEST < value < _LARGEST else None
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < _LARGEST else repr(value)
    return None


@lru_cache(maxsize=_ADDRESSES)
def address_of(text: str) -> tuple[int, int] | None:
    """Version and number of an address; IPv4 in IPv6 clothes is IPv4. None for what is none."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.version, int(address)
