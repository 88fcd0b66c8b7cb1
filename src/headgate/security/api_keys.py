"""API keys: how they look, how they are kept, and whether one may be used now.

Theory of operation
-------------------
    hg_7f3k9q2m4x1z_<43 characters: 256 random bits><6 characters: CRC-32 of all before>
    ^  ^
    |  id: public, shown in logs, lists and limits
    prefix: secret scanners find keys by it

The checksum tells a mistyped or cut-off key from a wrong one before anything is looked up; it is
no protection and hides nothing. Found by its id, a key is compared by its digest in constant time.
An id that nobody knows costs a digest and a comparison too.

What is kept is SHA-256 of the whole key, or HMAC-SHA256 with a pepper. A slow hash (argon2) is
for what people make up: it makes each guess dear where there are few to make. There are 2^256 of
these keys, so no guess ever succeeds, and a gateway that spent 50 ms on each request to find out
would be put down by anybody who sends wrong ones. The pepper guards against somebody who can write
the file of keys but does not know the pepper: they cannot add a key of their own.

Nothing but "unknown" is said of a key until its digest has matched: who does not have it learns
neither that it exists nor that it was revoked.
"""

from __future__ import annotations

import hmac
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from headgate.security.entries import (
    BadEntry,
    Fields,
    IPNetwork,
    is_within,
    parse_document,
    with_line,
)
from headgate.security.identity import Identity

PREFIX: Final = "hg"
LONGEST: Final = 256
_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"  # none that is read for another
_SECRET_CHARS: Final = 43
_CHECK_CHARS: Final = 6
_ID: Final = re.compile(r"[0-9A-Za-z]{4,32}")
_PREFIX: Final = re.compile(r"[a-z][a-z0-9]{0,11}")
_KEY: Final = re.compile(r"([a-z][a-z0-9]{0,11})_([0-9A-Za-z]{4,32})_([0-9A-Za-z]{49})")
_PLAIN: Final = (
    "holds a key in plain; keep only its hash, which `headgate keys new` writes for you, and give "
    "everybody who has the plain one a new key"
)
_FIELDS: Final = (
    "id",
    "hash",
    "consumer",
    "note",
    "tier",
    "roles",
    "scopes",
    "groups",
    "created",
    "not_before",
    "expires",
    "revoked",
    "networks",
)


@dataclass(frozen=True, slots=True)
class ApiKeyRules:
    """What a method of keys goes by."""

    name: str = "api_key"
    header: str = "x-api-key"
    schemes: tuple[str, ...] = ()
    query: str = ""
    prefix: str = PREFIX
    realm: str = "api"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is known of one key; never the key."""

    id: str
    digest: bytes
    is_peppered: bool
    identity: Identity
    not_before: float | None = None
    expires: float | None = None
    is_revoked: bool = False
    networks: tuple[IPNetwork, ...] = ()
    note: str = ""
    created: float | None = None

    def state(self, wall: float) -> str:
        """`live`, `revoked`, `expired` or `early`."""
        if self.is_revoked:
            return "revoked"
        if self.expires is not None and wall >= self.expires:
            return "expired"
        if self.not_before is not None and wall < self.not_before:
            return "early"
        return "live"

    def __repr__(self) -> str:
        return f"ApiKey({self.id})"


@dataclass(frozen=True, slots=True)
class Wrong:
    """Why a key is not accepted: one word, and a sentence for the client."""

    error: str
    reason: str


UNKNOWN: Final = Wrong("unknown_key", "This API key is not valid.")
MISTYPED: Final = Wrong(
    "mistyped", "This API key is mistyped or cut off: its checksum does not match."
)
MALFORMED: Final = Wrong("malformed", "This is not an API key of this gateway.")
_STATES: Final = {
    "revoked": Wrong("revoked", "This API key has been revoked."),
    "expired": Wrong("expired", "This API key has expired."),
    "early": Wrong("not_yet", "This API key is not valid yet."),
}
ELSEWHERE: Final = Wrong("wrong_network", "This API key may not be used from this address.")


def make_key(id_: str, secret: bytes, prefix: str = PREFIX) -> str:
    """Put a key together from its public id and 32 random bytes."""
    if not _ID.fullmatch(id_):
        raise ValueError("an id has 4 to 32 letters and digits")
    if not _PREFIX.fullmatch(prefix):
        raise ValueError("a prefix has up to 12 lower-case letters and digits")
    if len(secret) != 32:
        raise ValueError("a key is made of 32 random bytes")
    body = f"{prefix}_{id_}_{_base62(int.from_bytes(secret, 'big'), _SECRET_CHARS)}"
    return body + _checksum(body)


def make_id(random: bytes) -> str:
    """A public id of 12 characters from 12 random bytes."""
    return "".join(_ID_ALPHABET[byte & 31] for byte in random[:12])


def digest_of(key: str, pepper: bytes = b"") -> bytes:
    """What is kept of a key."""
    if pepper:
        return hmac.digest(pepper, key.encode(), "sha256")
    return sha256(key.encode()).digest()


def hash_text(key: str, pepper: bytes = b"") -> str:
    """What stands in the file as `hash`."""
    return f"{'hmac-sha256' if pepper else 'sha256'}:{digest_of(key, pepper).hex()}"


def read_key(text: str, prefix: str = PREFIX) -> str | Wrong:
    """The id of a key whose form and checksum are right."""
    if len(text) > LONGEST:
        return MALFORMED
    found = _KEY.fullmatch(text)
    if found is None:
        return MISTYPED if text.startswith(f"{prefix}_") else MALFORMED
    if found[1] != prefix:
        return MALFORMED
    if _checksum(text[:-_CHECK_CHARS]) != text[-_CHECK_CHARS:]:
        return MISTYPED
    return found[2]


class KeyRing:
    """All keys of one method, by id."""

    __slots__ = ("_keys", "_pepper", "_prefix", "has_networks")

    def __init__(
        self, keys: Iterable[ApiKey] = (), pepper: bytes = b"", prefix: str = PREFIX
    ) -> None:
        self._keys: dict[str, ApiKey] = {key.id: key for key in keys}
        self._pepper = pepper
        self._prefix = prefix
        self.has_networks = any(key.networks for key in self._keys.values())

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Any:
        return iter(self._keys.values())

    def find(self, text: str, client_ip: str, wall: float) -> ApiKey | Wrong:
        """The key that this is, if it may be used now and from there."""
        id_ = read_key(text, self._prefix)
        if isinstance(id_, Wrong):
            return id_
        key = self._keys.get(id_)
        # The same work for an id that nobody knows.
        kept = key.digest if key is not None else _NOBODY
        pepper = self._pepper if key is None or key.is_peppered else b""
        if not hmac.compare_digest(digest_of(text, pepper), kept) or key is None:
            return UNKNOWN
        wrong = _STATES.get(key.state(wall))
        if wrong is not None:
            return wrong
        if key.networks and not is_within(client_ip, key.networks):
            return ELSEWHERE
        return key


_NOBODY: Final = bytes(32)


def read_keys(
    given: object, method: str, *, has_pepper: bool, where: Sequence[str | int] = ("keys",)
) -> list[ApiKey]:
    """Judge a list of entries; BadEntry says which and why."""
    if given is None:
        return []
    if not isinstance(given, (list, tuple)):
        raise BadEntry(where, "must be a list of keys")
    keys: list[ApiKey] = []
    seen: dict[str, int] = {}
    for index, entry in enumerate(given):
        key = _read_entry(Fields(entry, (*where, index), _FIELDS, _PLAIN), method, has_pepper)
        first = seen.setdefault(key.id, index)
        if first != index:
            raise BadEntry((*where, index, "id"), f"stands twice, first at {where[-1]}[{first}]")
        keys.append(key)
    return keys


def read_key_file(content: bytes, method: str, *, has_pepper: bool) -> list[ApiKey]:
    """The keys of a file: a list, or a mapping with `keys`. ValueError with line and entry."""
    document = parse_document(content)
    if document is None:
        return []
    where: tuple[str | int, ...] = ()
    if isinstance(document, Mapping):
        where = ("keys",)
        unknown = [str(key) for key in document if key != "keys"]
        if unknown:
            raise ValueError(f"{unknown[0]!r}: expected `keys` and nothing else at the top")
        document = document.get("keys")
    try:
        return read_keys(document, method, has_pepper=has_pepper, where=where)
    except BadEntry as error:
        raise ValueError(with_line(content, error)) from None


def _read_entry(fields: Fields, method: str, has_pepper: bool) -> ApiKey:
    id_ = fields.needed("id")
    if not _ID.fullmatch(id_):
        raise fields.fault("id", "must have 4 to 32 letters and digits")
    digest, is_peppered = _read_hash(fields, has_pepper)
    consumer = fields.needed("consumer")
    expires = fields.time("expires")
    return ApiKey(
        id=id_,
        digest=digest,
        is_peppered=is_peppered,
        identity=Identity(
            subject=consumer,
            consumer=consumer,
            api_key=id_,
            tier=fields.text("tier"),
            method=method,
            roles=fields.words("roles"),
            scopes=fields.words("scopes"),
            groups=fields.words("groups"),
            expires=expires,
        ),
        not_before=fields.time("not_before"),
        expires=expires,
        is_revoked=fields.flag("revoked"),
        networks=fields.networks("networks"),
        note=fields.text("note"),
        created=fields.time("created"),
    )


def _read_hash(fields: Fields, has_pepper: bool) -> tuple[bytes, bool]:
    text = fields.needed("hash")
    if _KEY.fullmatch(text):
        raise fields.fault("hash", _PLAIN)
    kind, _, digits = text.partition(":")
    if kind not in {"sha256", "hmac-sha256"} or not re.fullmatch(r"[0-9a-fA-F]{64}", digits):
        raise fields.fault("hash", "is not sha256: or hmac-sha256: and 64 hexadecimal digits")
    if kind == "hmac-sha256" and not has_pepper:
        raise fields.fault("hash", "was made with a pepper, and this method has no pepper_file")
    return bytes.fromhex(digits), kind == "hmac-sha256"


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), _CHECK_CHARS)


def _base62(number: int, width: int) -> str:
    digits = []
    while number:
        number, rest = divmod(number, 62)
        digits.append(_ALPHABET[rest])
    return "".join(reversed(digits)).rjust(width, "0")
