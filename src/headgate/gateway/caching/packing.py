"""A kept response as bytes, for the layers under the memory.

    magic (4) | digest of the rest (16) | length of the head (4) | head, JSON | body

The magic holds the version of the format: another version is not read, which is a miss. The digest
finds what was cut short or garbled. It is no signature: whoever may write to the disk or to Redis
decides what is served.
"""

from __future__ import annotations

import json
import math
import struct
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from headgate.cache.http.stored import Stored
from headgate.errors import HeadgateError
from headgate.gateway.caching.variants import Kept

if TYPE_CHECKING:
    from collections.abc import Iterable

    from headgate.wire.message import Header

__all__ = ["FORMAT", "Spoilt", "digest_of", "pack", "unpack"]

FORMAT: Final = 1
_MAGIC: Final = b"HGR" + bytes((0x30 + FORMAT,))
_DIGEST_BYTES: Final = 16
_START: Final = struct.Struct(">4s16sI")

_NUMBERS: Final = (
    "received_at",
    "initial_age_s",
    "fresh_s",
    "stale_while_revalidate_s",
    "stale_if_error_s",
)
_FLAGS: Final = (
    "is_heuristic",
    "needs_validation",
    "must_revalidate",
    "may_be_stale",
    "is_immutable",
)


class Spoilt(HeadgateError):
    """These bytes are no response, or none of this format."""


def digest_of(*parts: bytes) -> bytes:
    """A name of fixed length for any bytes; the lengths are in it, so that no two run together."""
    hashed = blake2b(digest_size=_DIGEST_BYTES)
    for part in parts:
        hashed.update(len(part).to_bytes(8, "big"))
        hashed.update(part)
    return hashed.digest()


def pack(kept: Kept) -> bytes:
    stored = kept.stored
    said: dict[str, Any] = {
        "key": kept.key,
        "url": kept.url,
        "stamp": kept.stamp,
        "keep_until": kept.keep_until,
        "soft": kept.is_soft_struck,
        "trailers": _texts(kept.trailers),
        "status": stored.status,
        "reason": stored.reason.decode("latin-1"),
        "headers": _texts(stored.headers),
        "vary": _texts(stored.vary),
        "etag": None if stored.etag is None else stored.etag.decode("latin-1"),
        "last_modified": stored.last_modified,
        "stripped": sorted(name.decode("latin-1") for name in stored.stripped_fields),
        "tags": stored.tags,
    }
    for name in (*_NUMBERS, *_FLAGS):
        said[name] = getattr(stored, name)
    head = json.dumps(said, separators=(",", ":")).encode()
    length = len(head).to_bytes(4, "big")
    hashed = blake2b(length, digest_size=_DIGEST_BYTES)
    hashed.update(head)
    hashed.update(kept.body)
    return b"".join((_MAGIC, hashed.digest(), length, head, kept.body))


def unpack(data: bytes) -> Kept:
    """Spoilt: whatever is wrong with it."""
    if len(data) < _START.size:
        raise Spoilt("cut short")
    magic, digest, length = _START.unpack_from(data)
    if magic != _MAGIC:
        raise Spoilt("of another format")
    hashed = blake2b(memoryview(data)[_START.size - 4 :], digest_size=_DIGEST_BYTES)
    if hashed.digest() != digest:
        raise Spoilt("garbled, or cut short")
    end = _START.size + length
    try:
        return _read(json.loads(data[_START.size : end]), data[end:])
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as wrong:
        raise Spoilt(f"not a response: {type(wrong).__name__}") from wrong


def _read(said: dict[str, Any], body: bytes) -> Kept:
    plain: dict[str, Any] = {name: _number(said[name]) for name in _NUMBERS}
    plain |= {name: bool(said[name]) for name in _FLAGS}
    etag, modified = said["etag"], said["last_modified"]
    status = said["status"]
    if type(status) is not int or not 100 <= status <= 599:
        raise ValueError("status")
    stored = Stored(
        status,
        said["reason"].encode("latin-1"),
        _fields(said["headers"]),
        etag=None if etag is None else etag.encode("latin-1"),
        last_modified=None if modified is None else _number(modified),
        vary=_fields(said["vary"]),
        stripped_fields=frozenset(name.encode("latin-1") for name in said["stripped"]),
        tags=tuple(map(str, said["tags"])),
        **plain,
    )
    return Kept(
        str(said["key"]),
        str(said["url"]),
        stored,
        body,
        _fields(said["trailers"]),
        stamp=int(said["stamp"]),
        keep_until=_number(said["keep_until"]),
        is_soft_struck=bool(said["soft"]),
    )


def _number(said: object) -> float:
    number = float(said)  # type: ignore[arg-type]  # TypeError is heard above
    if math.isnan(number):
        raise ValueError("not a number")
    return number


def _texts(fields: Iterable[Header]) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields]


def _fields(said: Iterable[tuple[str, str]]) -> tuple[Header, ...]:
    return tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in said)
