"""Fuzz key sets: keys or a reason that holds nothing of them, and no weak or private key among them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import partial
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from headgate.security.tokens.algorithms import HmacKey, RsaKey
from headgate.security.tokens.jwk import RSA_MIN_BITS, read_jwks, read_keys, read_pem
from headgate.security.tokens.keys import MAX_KEYS, KeySet, KeysUnusable
from tests.security.jwt_tokens import b64, b64_int

# Always the same keys, so that a run can be seen again: none of them is random.
SECRET = hashlib.sha256(b"fuzz").digest()
SIGNER = Ed25519PrivateKey.from_private_bytes(SECRET)
MODULUS = int.from_bytes(b"\xc1" + b"".join(hashlib.sha256(bytes([i])).digest() for i in range(8))[:254] + b"\1")  # fmt: skip


def _ec(name: str, curve: ec.EllipticCurve) -> dict[str, Any]:
    numbers = ec.derive_private_key(7, curve).public_key().public_numbers()
    width = (curve.key_size + 7) // 8
    return {
        "kty": "EC",
        "crv": name,
        "x": b64_int(numbers.x, width),
        "y": b64_int(numbers.y, width),
    }


SHARED = {"kty": "oct", "k": b64(SECRET), "kid": "shared"}
ED25519 = {"kty": "OKP", "crv": "Ed25519", "x": b64(SIGNER.public_key().public_bytes_raw()), "kid": "ed"}  # fmt: skip
RSA = {"kty": "RSA", "n": b64_int(MODULUS), "e": "AQAB", "kid": "rsa"}
SMALL = {"kty": "RSA", "n": b64_int(MODULUS >> 1024 | 1), "e": "AQAB", "kid": "small"}
P256 = {**_ec("P-256", ec.SECP256R1()), "kid": "p256"}
P384 = {**_ec("P-384", ec.SECP384R1()), "kid": "p384"}


def _set(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": list(keys)}).encode()


def _pem(key: Any) -> bytes:
    made: bytes = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return made


SEEDS = (
    *(_set(key) for key in (SHARED, ED25519, RSA, SMALL, P256, P384)),
    _set(ED25519, {**P256, "use": "sig", "key_ops": ["verify"]}, {"kty": "new"}, SHARED),
    _set(ED25519, {**P256, "kid": "ed"}),
    _set({**ED25519, "d": b64(SECRET)}),
    json.dumps({**ED25519, "alg": "EdDSA"}).encode(),
    _pem(SIGNER.public_key()) + _pem(ec.derive_private_key(7, ec.SECP256R1()).public_key()),
    _pem(rsa.RSAPublicNumbers(65537, MODULUS).public_key()),
)
TELLS = SHARED["k"][:12]


def one(data: bytes) -> None:
    # Unless the secret stands where a name does.
    secret = (
        TELLS if data.count(TELLS.encode()) == 1 and f'"k": "{TELLS}'.encode() in data else "\0"
    )
    for is_public in (True, False):
        loose = _kept(partial(read_jwks, data, is_public=is_public, is_strict=False), secret)
        strict = _kept(partial(read_jwks, data, is_public=is_public, is_strict=True), secret)
        if strict is not None:
            # To be strict refuses more, and never finds other keys.
            assert loose is not None, data
            assert strict.mark == loose.mark, data
        if loose is not None and is_public:
            assert not any(isinstance(key, HmacKey) for key in loose.keys), data
    _kept(lambda: read_pem(data), secret)
    _kept(lambda: read_keys(data), secret)


def _kept(read: Callable[[], KeySet], secret: str) -> KeySet | None:
    try:
        found = read()
    except KeysUnusable as error:
        assert secret not in str(error)
        assert len(str(error)) < 5000
        return None
    assert 0 < len(found.keys) <= MAX_KEYS
    names = [key.kid for key in found.keys if key.kid]
    assert len(names) == len(set(names))
    for key in found.keys:
        assert not isinstance(key, RsaKey) or key._bytes >= RSA_MIN_BITS // 8
    assert secret not in f"{found.keys!r} {found.snapshot()!r} {found.warnings!r}"
    return found
