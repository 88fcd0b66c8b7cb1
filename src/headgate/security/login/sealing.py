"""What makes a cookie unreadable and unforgeable.

Theory of operation
-------------------
    sealed = base64url( version 1 | key's sign 4 | salt 16 | nonce 12 | AES-256-GCM(text) )

The key of each message is HMAC-SHA256(key, salt): with 28 random bytes a message, a busy gateway
never comes near the bound on messages under one AES-GCM key with random nonces. What the message is
for (a session, a pending log-in, of which provider) is associated data: one cannot pass for the
other. Keys come from the operator's secrets by HKDF; of several, the first seals and all open.

Base64 is read strictly: a cookie has one spelling.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from headgate.security.kept import kept_file
from headgate.security.tokens.strict import Malformed, b64url

_VERSION: Final = b"\x01"
_HEAD: Final = 1 + 4 + 16 + 12
_TAG: Final = 16
_KEY_FILE: Final = "login-key"


class Sealer:
    def __init__(
        self,
        keys: Sequence[bytes],
        purpose: bytes,
        random: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        if not keys or any(len(key) != 32 for key in keys):
            raise ValueError("a sealer needs keys of 32 bytes each")
        self._keys = {hashlib.sha256(b"sign" + key).digest()[:4]: key for key in reversed(keys)}
        self._sign = hashlib.sha256(b"sign" + keys[0]).digest()[:4]
        self._purpose = purpose
        self._random = random

    def seal(self, text: bytes, kind: bytes) -> bytes:
        salt = self._random(16)
        nonce = self._random(12)
        head = _VERSION + self._sign + salt + nonce
        key = hmac.digest(self._keys[self._sign], salt, "sha256")
        box = AESGCM(key).encrypt(nonce, text, self._bound(kind))
        return urlsafe_b64encode(head + box).rstrip(b"=")

    def open(self, sealed: bytes, kind: bytes) -> bytes | None:
        """What was sealed; None for whatever was not sealed here, and for this."""
        try:
            raw = b64url(sealed)
        except Malformed:
            return None
        if len(raw) < _HEAD + _TAG or raw[:1] != _VERSION:
            return None
        base = self._keys.get(raw[1:5])
        if base is None:
            return None
        key = hmac.digest(base, raw[5:21], "sha256")
        try:
            return AESGCM(key).decrypt(raw[21:_HEAD], raw[_HEAD:], self._bound(kind))
        except InvalidTag:
            return None

    def is_current(self, sealed: bytes) -> bool:
        """Whether the key that seals today sealed this; if not, it is sealed anew at leisure."""
        try:
            return b64url(sealed[:8])[1:5] == self._sign
        except Malformed:
            return False

    def _bound(self, kind: bytes) -> bytes:
        return b"headgate login\0" + kind + b"\0" + self._purpose


def keys_of(secrets_: Sequence[str]) -> tuple[bytes, ...]:
    """The keys that follow from an operator's secrets, which need not be 32 bytes."""
    return tuple(
        HKDF(hashes.SHA256(), 32, salt=None, info=b"headgate login cookies").derive(each.encode())
        for each in secrets_
    )


def kept_key(directory: Path) -> bytes:
    """The key that is kept in this directory, made at the first call. Several processes may ask
    at once: whoever links its file first has made the key of all.
    """
    path = directory / _KEY_FILE
    found = kept_file(path, partial(secrets.token_bytes, 32))
    if len(found) != 32:
        raise ValueError(f"{path} is no key of 32 bytes; remove it, and a new one is made")
    return found
