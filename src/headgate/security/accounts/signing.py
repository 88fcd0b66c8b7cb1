"""Keys that sign access tokens, and the tokens: JWS compact (RFC 7515), EdDSA, ES256 or RS256.

Theory of operation. We issue tokens in one form only and accept nothing else: three parts, each
in canonical base64url, a header with exactly `alg`, `typ` and `kid`, `alg` being the one of the
key that `kid` names. There is no way for a token to choose how it is verified.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)

__all__ = ["ALGORITHMS", "Algorithm", "Key", "Unverified", "issue", "new_key", "opened", "read"]

Algorithm = Literal["EdDSA", "ES256", "RS256"]
ALGORITHMS: Final[tuple[Algorithm, ...]] = ("EdDSA", "ES256", "RS256")
TYPE: Final = "at+jwt"  # RFC 9068: never to be taken for an ID token
LONGEST: Final = 16384

Private = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class Unverified(ValueError):
    """Not a token of ours."""


@dataclass(frozen=True, slots=True)
class Key:
    kid: str
    number: int
    algorithm: Algorithm
    signs_from: float
    jwk: Mapping[str, str]
    """The public key, as it is published."""
    private: Private = field(repr=False)

    def private_bytes(self) -> bytes:
        """PKCS#8, to be sealed."""
        return self.private.private_bytes(
            serialization.Encoding.DER,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def unb64(text: str) -> bytes:
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        raise Unverified("a part is no base64url") from None
    if b64(data) != text:
        raise Unverified("a part is not canonical")
    return data


def compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _number(value: int, size: int) -> str:
    return b64(value.to_bytes(size, "big"))


def _public(private: Private) -> dict[str, str]:
    """RFC 7518 section 6, RFC 8037 section 2: the members a thumbprint is made of."""
    if isinstance(private, ed25519.Ed25519PrivateKey):
        raw = private.public_key().public_bytes_raw()
        return {"crv": "Ed25519", "kty": "OKP", "x": b64(raw)}
    if isinstance(private, ec.EllipticCurvePrivateKey):
        point = private.public_key().public_numbers()
        return {"crv": "P-256", "kty": "EC", "x": _number(point.x, 32), "y": _number(point.y, 32)}
    numbers = private.public_key().public_numbers()
    sizes = ((numbers.e.bit_length() + 7) // 8, (numbers.n.bit_length() + 7) // 8)
    return {"e": _number(numbers.e, sizes[0]), "kty": "RSA", "n": _number(numbers.n, sizes[1])}


def made(private: Private, algorithm: Algorithm, number: int, signs_from: float) -> Key:
    public = _public(private)
    # RFC 7638: members in the order of their names
    kid = b64(hashlib.sha256(compact(dict(sorted(public.items())))).digest())
    jwk = {**public, "kid": kid, "use": "sig", "alg": algorithm}
    return Key(kid, number, algorithm, signs_from, jwk, private)


def new_key(algorithm: Algorithm, number: int, signs_from: float) -> Key:
    """A new key; an RSA key takes a noticeable time to find."""
    private: Private
    match algorithm:
        case "EdDSA":
            private = ed25519.Ed25519PrivateKey.generate()
        case "ES256":
            private = ec.generate_private_key(ec.SECP256R1())
        case "RS256":
            private = rsa.generate_private_key(65537, 2048)
    return made(private, algorithm, number, signs_from)


def opened(pkcs8: bytes, algorithm: Algorithm, number: int, signs_from: float) -> Key:
    """A stored key."""
    private = serialization.load_der_private_key(pkcs8, None)
    if not isinstance(
        private, ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    ):
        raise ValueError("a stored key is of a kind that we do not make")
    return made(private, algorithm, number, signs_from)


def _sign(key: Key, data: bytes) -> bytes:
    if isinstance(key.private, ed25519.Ed25519PrivateKey):
        return key.private.sign(data)
    if isinstance(key.private, ec.EllipticCurvePrivateKey):
        r, s = decode_dss_signature(key.private.sign(data, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")
    return key.private.sign(data, padding.PKCS1v15(), hashes.SHA256())


def _check(key: Key, signature: bytes, data: bytes) -> None:
    try:
        if isinstance(key.private, ed25519.Ed25519PrivateKey):
            key.private.public_key().verify(signature, data)
        elif isinstance(key.private, ec.EllipticCurvePrivateKey):
            if len(signature) != 64:
                raise Unverified("the signature has another length")
            pair = (int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
            key.private.public_key().verify(
                encode_dss_signature(*pair), data, ec.ECDSA(hashes.SHA256())
            )
        else:
            key.private.public_key().verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        raise Unverified("the signature does not hold") from None


def issue(key: Key, claims: Mapping[str, Any]) -> str:
    header = {"alg": key.algorithm, "typ": TYPE, "kid": key.kid}
    data = f"{b64(compact(header))}.{b64(compact(claims))}"
    return f"{data}.{b64(_sign(key, data.encode()))}"


def read(token: str, keys: Mapping[str, Key]) -> dict[str, Any]:
    """The claims of a token that one of our keys has signed. Their meaning is the caller's."""
    if len(token) > LONGEST or not token.isascii():
        raise Unverified("too long, or not text")
    parts = token.split(".")
    if len(parts) != 3:
        raise Unverified("not three parts")
    header_bytes = unb64(parts[0])
    try:
        header = json.loads(header_bytes)
    except (ValueError, RecursionError):
        raise Unverified("the header is no JSON") from None
    if not isinstance(header, dict) or not isinstance(kid := header.get("kid"), str):
        raise Unverified("the header names no key")
    key = keys.get(kid)
    if key is None:
        raise Unverified("the key is not one of ours, or no longer")
    if header_bytes != compact({"alg": key.algorithm, "typ": TYPE, "kid": key.kid}):
        raise Unverified("the header is not one that we write")
    _check(key, unb64(parts[2]), f"{parts[0]}.{parts[1]}".encode())
    try:
        claims = json.loads(unb64(parts[1]))
    except ValueError:
        raise Unverified("the claims are no JSON") from None
    if not isinstance(claims, dict):
        raise Unverified("the claims are no object")
    return claims
