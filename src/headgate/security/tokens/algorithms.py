"""Keys that verify, each bound to its algorithms.

Theory of operation. The kind of the key decides which algorithms it serves; the header of a token
only chooses among those (RFC 8725 section 3.1). A public key is no HMAC secret here whatever a
header says, because `RsaKey` has no HMAC in it. Every `verify` answers False for bytes of any kind
and raises nothing.

Signatures have one form: RSA as long as the modulus, ECDSA two halves of the curve's width
(RFC 7518 section 3.4), neither of them zero or beyond the order, which the libraries check too;
one of them forgot once, for years.
"""

from __future__ import annotations

import hashlib
import hmac
from abc import ABC, abstractmethod
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

_HASHES: Final[dict[str, hashes.HashAlgorithm]] = {
    "256": hashes.SHA256(),
    "384": hashes.SHA384(),
    "512": hashes.SHA512(),
}
_PKCS1: Final = padding.PKCS1v15()
_RSA: Final[dict[str, tuple[padding.AsymmetricPadding, hashes.HashAlgorithm]]] = {
    **{f"RS{bits}": (_PKCS1, each) for bits, each in _HASHES.items()},
    # The salt is as long as the digest (RFC 7518 section 3.5).
    **{
        f"PS{bits}": (padding.PSS(padding.MGF1(each), each.digest_size), each)
        for bits, each in _HASHES.items()
    },
}
RSA_ALGORITHMS: Final = frozenset(_RSA)
HMAC_DIGESTS: Final = {"HS256": "sha256", "HS384": "sha384", "HS512": "sha512"}
ED25519_ALGORITHMS: Final = frozenset({"EdDSA", "Ed25519"})  # RFC 8037, RFC 9864

# RFC 7518 section 3.4 and FIPS 186-4 D.1.2: algorithm, bytes of a half, order of the group.
CURVES: Final[dict[str, tuple[str, int, int]]] = {
    "secp256r1": (
        "ES256",
        32,
        0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    ),
    "secp384r1": (
        "ES384",
        48,
        int(
            "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF"
            "C7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973",
            16,
        ),
    ),
    "secp521r1": (
        "ES512",
        66,
        int(
            "01FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFA"
            "51868783BF2F966B7FCC0148F709A5D03BB5C9B8899C47AEBB6FB71E91386409",
            16,
        ),
    ),
}


class VerifyKey(ABC):
    """A key of one kind, with a name and the algorithms it may be used with."""

    kind: str
    __slots__ = ("algorithms", "kid", "mark")

    def __init__(self, kid: str, algorithms: frozenset[str], mark: bytes) -> None:
        self.kid = kid
        self.algorithms = algorithms
        self.mark = mark
        """A digest that tells it from every other key."""

    @abstractmethod
    def verify(self, algorithm: str, signed: bytes, signature: bytes) -> bool:
        """Whether this key made the signature. ``algorithm`` is one of its own."""

    def __repr__(self) -> str:
        return f"<{self.kind} key {self.kid!r} for {', '.join(sorted(self.algorithms))}>"


def _mark(kind: str, material: bytes) -> bytes:
    return hashlib.sha256(kind.encode() + b"\0" + material).digest()


class HmacKey(VerifyKey):
    kind = "oct"
    __slots__ = ("_secret",)

    def __init__(self, kid: str, algorithms: frozenset[str], secret: bytes) -> None:
        super().__init__(kid, algorithms, _mark("oct", secret))
        self._secret = secret

    def verify(self, algorithm: str, signed: bytes, signature: bytes) -> bool:
        made = hmac.digest(self._secret, signed, HMAC_DIGESTS[algorithm])
        return hmac.compare_digest(made, signature)


class RsaKey(VerifyKey):
    kind = "RSA"
    __slots__ = ("_bytes", "_key")

    def __init__(self, kid: str, algorithms: frozenset[str], key: RSAPublicKey) -> None:
        numbers = key.public_numbers()
        super().__init__(kid, algorithms, _mark("RSA", f"{numbers.n}.{numbers.e}".encode()))
        self._key = key
        self._bytes = (key.key_size + 7) // 8

    def verify(self, algorithm: str, signed: bytes, signature: bytes) -> bool:
        if len(signature) != self._bytes:
            return False
        scheme, digest = _RSA[algorithm]
        try:
            self._key.verify(signature, signed, scheme, digest)
        except (InvalidSignature, ValueError):
            return False
        return True


class EcKey(VerifyKey):
    kind = "EC"
    __slots__ = ("_half", "_key", "_order", "_scheme")

    def __init__(
        self, kid: str, algorithms: frozenset[str], key: ec.EllipticCurvePublicKey
    ) -> None:
        numbers = key.public_numbers()
        curve = key.curve.name
        material = f"{curve}.{numbers.x}.{numbers.y}".encode()
        super().__init__(kid, algorithms, _mark("EC", material))
        algorithm, self._half, self._order = CURVES[curve]
        self._scheme = ec.ECDSA(_HASHES[algorithm[2:]])
        self._key = key

    def verify(self, algorithm: str, signed: bytes, signature: bytes) -> bool:
        half = self._half
        if len(signature) != 2 * half:
            return False
        r = int.from_bytes(signature[:half], "big")
        s = int.from_bytes(signature[half:], "big")
        if not (0 < r < self._order and 0 < s < self._order):
            return False
        try:
            self._key.verify(encode_dss_signature(r, s), signed, self._scheme)
        except (InvalidSignature, ValueError):
            return False
        return True


class Ed25519Key(VerifyKey):
    kind = "OKP"
    __slots__ = ("_key",)

    def __init__(self, kid: str, algorithms: frozenset[str], key: Ed25519PublicKey) -> None:
        super().__init__(kid, algorithms, _mark("OKP", key.public_bytes_raw()))
        self._key = key

    def verify(self, algorithm: str, signed: bytes, signature: bytes) -> bool:
        try:
            self._key.verify(signature, signed)
        except (InvalidSignature, ValueError):
            return False
        return True
