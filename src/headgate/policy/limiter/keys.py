"""Keys: whom a limit counts together.

Theory of operation. An IPv6 subscriber has at least 2^64 addresses and can use a new one for every
request, so an IPv6 client is counted by its network, by default the /64. An IPv4 address in IPv6
form (`::ffff:192.0.2.1`, RFC 4291 section 2.5.5.2) is what an IPv4 client looks like on a socket
that takes both, and counts as the IPv4 address it is. Text that is no address counts as it stands,
cut to a length that no address has.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from socket import AF_INET6, inet_ntop, inet_pton
from typing import Final

_KEPT: Final = 16_384
_LONGEST: Final = 64
_LONGEST_VALUE: Final = 96
_MAPPED: Final = bytes(10) + b"\xff\xff"


# A cache of a pure function: the same address comes many times, and parsing one costs 2 us.
@lru_cache(maxsize=_KEPT)
def client_ip_key(ip: str, v6_prefix: int = 64) -> str:
    """The address itself for IPv4, its network of `v6_prefix` bits for IPv6."""
    if ":" not in ip:
        return ip[:_LONGEST]
    try:
        packed = inet_pton(AF_INET6, ip.partition("%")[0])
    except (OSError, ValueError):
        return ip[:_LONGEST]
    if packed.startswith(_MAPPED):
        return ".".join(map(str, packed[12:]))
    if v6_prefix >= 128:
        return inet_ntop(AF_INET6, packed)
    kept = int.from_bytes(packed) >> (128 - v6_prefix) << (128 - v6_prefix)
    return f"{inet_ntop(AF_INET6, kept.to_bytes(16))}/{v6_prefix}"


def short_key(value: str) -> str:
    """The value, or its digest where it is long or is no text that can leave this process: a key is
    state, and a client must not choose how much of it.
    """
    if len(value) <= _LONGEST_VALUE and (value.isascii() or _is_whole(value)):
        return value
    return blake2b(value.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _is_whole(value: str) -> bool:
    """JSON may name half a character (a lone surrogate), which no encoding has."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def measured_key(parts: Sequence[str]) -> str:
    """Several parts, each with its length before it, so that none can run into the next."""
    return "".join([f"{len(part)}:{part}" for part in parts])


def joined_key(*parts: str) -> str:
    """One key of several parts; different parts never give the same key."""
    return "|".join(
        [
            part.replace("\\", "\\\\").replace("|", "\\|") if "|" in part or "\\" in part else part
            for part in parts
        ]
    )
