"""The key with which the gateway signs what it tells services of who asks (RFC 7519)."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from headgate.security.kept import kept_file

if TYPE_CHECKING:
    from headgate.security.identity import Identity

_Private = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
_RSA_BITS: Final = 2048


class IdentityKey:
    def __init__(self, key: _Private, issuer: str = "headgate") -> None:
        self._key = key
        self._issuer = issuer
        self.public = _public(key)
        head = {"alg": self.public["alg"], "typ": "JWT", "kid": self.public["kid"]}
        self._head = _b64(json.dumps(head, separators=(",", ":")).encode())

    def sign(self, identity: Identity, audience: str, wall: float, ttl_s: float) -> bytes:
        now = int(wall)
        ends = now + max(int(ttl_s), 1)
        if identity.expires is not None:
            # Not beyond what it was made from.
            ends = max(min(ends, int(identity.expires)), now + 1)
        claims: dict[str, Any] = {
            "iss": self._issuer,
            "sub": identity.subject,
            "aud": audience,
            "iat": now,
            "exp": ends,
            "jti": secrets.token_hex(8),
        }
        for name in ("consumer", "tier", "method"):
            if value := getattr(identity, name):
                claims[name] = value
        for name in ("roles", "scopes", "groups"):
            if values := getattr(identity, name):
                claims[name] = sorted(values)
        body = self._head + b"." + _b64(json.dumps(claims, separators=(",", ":")).encode())
        return body + b"." + _b64(self._signature(body))

    def _signature(self, body: bytes) -> bytes:
        key = self._key
        if isinstance(key, ed25519.Ed25519PrivateKey):
            return key.sign(body)
        if isinstance(key, rsa.RSAPrivateKey):
            return key.sign(body, padding.PKCS1v15(), hashes.SHA256())
        r, s = decode_dss_signature(key.sign(body, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def load(path: str) -> IdentityKey:
    """A private key in PEM. Raises ValueError in plain words."""
    try:
        found = load_pem_private_key(Path(path).read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(f"{path} holds no private key that can be read: {error}") from error
    if isinstance(found, ec.EllipticCurvePrivateKey) and found.curve.name != "secp256r1":
        raise ValueError(f"{path} holds a key of the curve {found.curve.name}; P-256 is needed")
    if isinstance(found, rsa.RSAPrivateKey) and found.key_size < _RSA_BITS:
        raise ValueError(f"{path} holds an RSA key of {found.key_size} bits; 2048 are needed")
    if not isinstance(found, _Private):
        raise ValueError(f"{path} holds a key of another kind; Ed25519, EC P-256 or RSA is needed")
    return IdentityKey(found)


def kept(path: Path) -> IdentityKey:
    """The key of this gateway, made at the first call; several workers may call at once."""
    kept_file(path, _new)
    return load(str(path))


def _new() -> bytes:
    return ed25519.Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )


def _public(key: _Private) -> dict[str, Any]:
    public = key.public_key()
    jwk: dict[str, Any]
    if isinstance(public, ed25519.Ed25519PublicKey):
        jwk = {"crv": "Ed25519", "kty": "OKP", "x": _text(public.public_bytes_raw())}
        alg = "EdDSA"
    elif isinstance(public, rsa.RSAPublicKey):
        numbers = public.public_numbers()
        jwk = {"e": _number(numbers.e), "kty": "RSA", "n": _number(numbers.n)}
        alg = "RS256"
    else:
        point = public.public_numbers()
        x, y = (_text(part.to_bytes(32, "big")) for part in (point.x, point.y))
        jwk = {"crv": "P-256", "kty": "EC", "x": x, "y": y}
        alg = "ES256"
    # RFC 7638: the digest of the members that make the key, in this order.
    digest = hashlib.sha256(json.dumps(jwk, separators=(",", ":")).encode()).digest()
    return {**jwk, "alg": alg, "use": "sig", "kid": _text(digest)}


def _number(value: int) -> str:
    return _text(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def _b64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _text(data: bytes) -> str:
    return _b64(data).decode()
