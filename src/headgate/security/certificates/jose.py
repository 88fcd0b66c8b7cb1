"""Signed requests as ACME wants them: flattened JWS over a key of ours (RFC 8555 6.2, RFC 7515).

Only what an account needs: ES256 and RS256 by keys made here, HS256 for the binding to an account
that the authority knows by other ways (RFC 8555 7.3.4). Nothing is verified here, and nothing of
anybody else's is read but the base64 of that one secret.
"""

from __future__ import annotations

import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

__all__ = ["AccountKey", "b64", "bind_account", "unb64"]

_COORDINATE_BYTES: Final = 32


def b64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def unb64(text: str) -> bytes:
    """Raises ValueError. Padding may be there or not, as authorities print it either way."""
    plain = text.strip().rstrip("=")
    if not plain.isascii() or not plain.replace("-", "").replace("_", "").isalnum():
        raise ValueError("is not base64url")
    return urlsafe_b64decode(plain + "=" * (-len(plain) % 4))


def _canonical(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


class AccountKey:
    """The key of an account: ECDSA P-256, or RSA where it was made elsewhere."""

    def __init__(self, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
        self._key = key

    def __repr__(self) -> str:
        return f"<AccountKey {self.thumbprint}>"

    @classmethod
    def make(cls) -> AccountKey:
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def from_pem(cls, pem: bytes) -> AccountKey:
        """Raises ValueError."""
        try:
            key = load_pem_private_key(pem, password=None)
        except (TypeError, ValueError):
            raise ValueError("is not a PEM private key without a pass phrase") from None
        if isinstance(key, rsa.RSAPrivateKey) or (
            isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name == "secp256r1"
        ):
            return cls(key)
        raise ValueError("is a key of another kind than RSA and ECDSA P-256")

    def pem(self) -> bytes:
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def jwk(self) -> dict[str, str]:
        """The public key, with the members that RFC 7638 counts and no others."""
        if isinstance(self._key, rsa.RSAPrivateKey):
            numbers = self._key.public_key().public_numbers()
            return {"kty": "RSA", "n": b64(_unsigned(numbers.n)), "e": b64(_unsigned(numbers.e))}
        point = self._key.public_key().public_numbers()
        x, y = (value.to_bytes(_COORDINATE_BYTES) for value in (point.x, point.y))
        return {"kty": "EC", "crv": "P-256", "x": b64(x), "y": b64(y)}

    @property
    def thumbprint(self) -> str:
        return b64(sha256(_canonical(self.jwk)).digest())

    def sign(
        self, url: str, nonce: str, payload: Mapping[str, Any] | None, account_url: str | None
    ) -> bytes:
        """A body to post: `payload` None is "POST-as-GET". Without an account, the key is shown."""
        header: dict[str, Any] = {"nonce": nonce, "url": url}
        if account_url is None:
            header["jwk"] = self.jwk
        else:
            header["kid"] = account_url
        if isinstance(self._key, rsa.RSAPrivateKey):
            header["alg"] = "RS256"
        else:
            header["alg"] = "ES256"
        protected = b64(_canonical(header))
        body = "" if payload is None else b64(_canonical(payload))
        return _canonical(
            {
                "protected": protected,
                "payload": body,
                "signature": b64(self._signature(f"{protected}.{body}".encode())),
            }
        )

    def _signature(self, message: bytes) -> bytes:
        if isinstance(self._key, rsa.RSAPrivateKey):
            return self._key.sign(message, padding.PKCS1v15(), hashes.SHA256())
        r, s = decode_dss_signature(self._key.sign(message, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(_COORDINATE_BYTES) + s.to_bytes(_COORDINATE_BYTES)


def bind_account(key: AccountKey, url: str, key_id: str, secret: bytes) -> dict[str, str]:
    """The `externalAccountBinding` of a new account."""
    protected = b64(_canonical({"alg": "HS256", "kid": key_id, "url": url}))
    payload = b64(_canonical(key.jwk))
    signature = hmac.digest(secret, f"{protected}.{payload}".encode(), "sha256")
    return {"protected": protected, "payload": payload, "signature": b64(signature)}


def _unsigned(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8)
