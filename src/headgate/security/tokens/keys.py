"""A set of keys, and which of them a token asks for.

Theory of operation. A token names its key by `kid` and its algorithm by `alg`. `find` goes by the
name alone: a name that is known and an algorithm that does not fit is a bad token, not an unknown
key, and never causes a fetch. Keys without a name (PEM files, secrets) may be meant by any token.
A token without a name may mean any key, but no token makes us try more than `MAX_TRIES` of them.

Sets are values. `mark` is equal for sets that verify the same tokens.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Sequence
from typing import Final

from headgate.security.tokens.algorithms import HMAC_DIGESTS, HmacKey, VerifyKey
from headgate.security.tokens.rules import SecretEncoding

MAX_KEYS: Final = 256
MAX_TRIES: Final = 8
_DIGEST_BYTES: Final = {
    name: hashlib.new(digest).digest_size for name, digest in HMAC_DIGESTS.items()
}


class KeysUnusable(ValueError):
    """Keys that must not be used. The reason holds nothing of them."""


class PrivateKeyShown(KeysUnusable):
    """Somebody's signing key is where everybody can read it."""


class KeySet:
    """Keys by their names."""

    __slots__ = ("_by_kid", "_nameless", "keys", "mark", "warnings")

    def __init__(self, keys: Iterable[VerifyKey], warnings: Sequence[str] = ()) -> None:
        self.keys = tuple(keys)
        self.warnings = tuple(warnings)
        """What was left out, and why."""
        if not self.keys:
            left_out = "; ".join(self.warnings[:4])
            raise KeysUnusable(
                f"there is no usable key in it: {left_out}" if left_out else "there is no key in it"
            )
        if len(self.keys) > MAX_KEYS:
            raise KeysUnusable(f"there are more than {MAX_KEYS} keys in it")
        self._by_kid: dict[str, tuple[VerifyKey, ...]] = {}
        for key in self.keys:
            if key.kid in self._by_kid:
                raise KeysUnusable(
                    "two keys have the same kid, so that nobody knows which one is meant"
                )
            if key.kid:
                self._by_kid[key.kid] = (key,)
        self._nameless = tuple(key for key in self.keys if not key.kid)
        whole = hashlib.sha256()
        for mark in sorted(
            b"\0".join((key.kid.encode(), ",".join(sorted(key.algorithms)).encode(), key.mark))
            for key in self.keys
        ):
            whole.update(hashlib.sha256(mark).digest())
        self.mark = whole.digest()

    def find(self, kid: str | None) -> tuple[VerifyKey, ...]:
        """The keys that a token of this `kid` may mean; none when the name is unknown."""
        if kid is None:
            return self.keys
        return self._by_kid.get(kid, self._nameless)

    def snapshot(self) -> list[dict[str, object]]:
        return [
            {"kid": key.kid, "kind": key.kind, "algorithms": sorted(key.algorithms)}
            for key in self.keys
        ]


def secret_octets(secret: str, encoding: SecretEncoding) -> bytes:
    """A secret as it is written in the file."""
    if "-----BEGIN" in secret:
        raise KeysUnusable("it is a PEM file and no shared secret; name the file under keys_file")
    try:
        if encoding == "hex":
            return bytes.fromhex(secret)
        if encoding == "base64":
            text = secret.strip().replace("-", "+").replace("_", "/").rstrip("=")
            return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (ValueError, binascii.Error):
        raise KeysUnusable(f"it is not {encoding}") from None
    return secret.encode()


def hmac_algorithms(octets: int, allowed: Iterable[str]) -> frozenset[str]:
    """Those that a secret of so many bytes is long enough for (RFC 7518 section 3.2)."""
    return frozenset(name for name in allowed if 0 < _DIGEST_BYTES.get(name, 0) <= octets)


def secret_keys(
    secrets: Sequence[str], encoding: SecretEncoding, algorithms: frozenset[str], *, named: bool
) -> KeySet:
    """Shared secrets. With ``named`` the file has said the algorithms: all of them must fit."""
    keys = []
    for index, secret in enumerate(secrets):
        which = f"secret {index + 1}: " if len(secrets) > 1 else "secret: "
        try:
            octets = secret_octets(secret, encoding)
        except KeysUnusable as error:
            raise KeysUnusable(which + str(error)) from None
        wanted = algorithms & _DIGEST_BYTES.keys()
        fitting = hmac_algorithms(len(octets), wanted)
        if not fitting or (named and fitting != wanted):
            needed = max if named else min
            bytes_needed = needed(_DIGEST_BYTES[name] for name in wanted or _DIGEST_BYTES)
            raise KeysUnusable(
                f"{which}it has {len(octets)} bytes and needs {bytes_needed}, as many as the "
                f"digest; make one with: openssl rand -base64 {bytes_needed}"
            )
        keys.append(HmacKey("", fitting, octets))
    if len({key.mark for key in keys}) != len(keys):
        raise KeysUnusable("the same secret stands twice")
    return KeySet(keys)
