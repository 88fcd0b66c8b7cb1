"""What is kept under the secret of the accounts: sealed at rest, or signed by us.

Theory of operation. From each secret, independent keys are derived by HKDF-SHA256: one to seal
(AES-256-GCM), one for each kind of signature (HMAC-SHA256). The first secret seals and signs; all
of them open and verify, so a secret is exchanged by putting a new one in front and leaving the old
one behind it until nothing is sealed with it. What a sealed text is about (which row, which
column) is authenticated with it: one row's text does not open in another.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Sequence
from typing import Final, Protocol, runtime_checkable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

__all__ = ["Revealing", "Sealer", "Secret", "Unsealable", "secret_bytes"]

VERSION: Final = b"\x01"
ID_BYTES: Final = 4
NONCE_BYTES: Final = 12
MINIMUM: Final = 32
MAC_BYTES: Final = 32


@runtime_checkable
class Revealing(Protocol):
    """A secret that is shown only when asked."""

    def reveal(self) -> str | bytes: ...


Secret = str | bytes | Revealing


class Unsealable(ValueError):
    """Changed, of another row, or sealed with a secret that is not here."""


def secret_bytes(secret: Secret) -> bytes:
    shown = secret.reveal() if isinstance(secret, Revealing) else secret
    return shown.encode() if isinstance(shown, str) else bytes(shown)


def derived(secret: bytes, purpose: str) -> bytes:
    return HKDF(hashes.SHA256(), 32, b"headgate accounts", purpose.encode()).derive(secret)


class Sealer:
    def __init__(self, secrets: Sequence[Secret]) -> None:
        if not secrets:
            raise ValueError("accounts need a secret")
        self._secrets = [secret_bytes(secret) for secret in secrets]
        if any(len(secret) < MINIMUM for secret in self._secrets):
            raise ValueError(
                f"the secret of the accounts must have at least {MINIMUM} bytes; make one with "
                "python -c 'import secrets; print(secrets.token_urlsafe(32))'"
            )
        self._ciphers: dict[bytes, AESGCM] = {}
        for secret in self._secrets:
            key = derived(secret, "seal")
            self._ciphers[hashlib.sha256(key).digest()[:ID_BYTES]] = AESGCM(key)
        self._first = next(iter(self._ciphers))
        self._mac_keys: dict[str, list[bytes]] = {}

    def __repr__(self) -> str:
        return f"<Sealer {len(self._secrets)} secrets>"

    def seal(self, plain: bytes, about: str) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        sealed = self._ciphers[self._first].encrypt(nonce, plain, about.encode())
        return VERSION + self._first + nonce + sealed

    def open(self, sealed: bytes, about: str) -> bytes:
        cipher = self._ciphers.get(sealed[1 : 1 + ID_BYTES])
        if sealed[:1] != VERSION or cipher is None:
            raise Unsealable(
                f"{about} was sealed with another secret; put the old one behind the new one"
            )
        nonce = sealed[1 + ID_BYTES : 1 + ID_BYTES + NONCE_BYTES]
        try:
            return cipher.decrypt(nonce, sealed[1 + ID_BYTES + NONCE_BYTES :], about.encode())
        except (InvalidTag, ValueError):
            raise Unsealable(f"{about} was changed where it is stored") from None

    def is_newest(self, sealed: bytes) -> bool:
        """Whether the first secret has sealed it."""
        return sealed[1 : 1 + ID_BYTES] == self._first

    def _keys(self, purpose: str) -> list[bytes]:
        keys = self._mac_keys.get(purpose)
        if keys is None:
            keys = [derived(secret, purpose) for secret in self._secrets]
            self._mac_keys[purpose] = keys
        return keys

    def mac(self, purpose: str, data: bytes) -> bytes:
        return hmac.digest(self._keys(purpose)[0], data, "sha256")

    def macs(self, purpose: str, data: bytes) -> list[bytes]:
        """By every secret, the first one first: to look something up by."""
        return [hmac.digest(key, data, "sha256") for key in self._keys(purpose)]

    def is_mac(self, purpose: str, data: bytes, mac: bytes) -> bool:
        found = False
        for good in self.macs(purpose, data):
            found |= hmac.compare_digest(good, mac)
        return found
