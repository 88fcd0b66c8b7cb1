"""A client that proves itself by a key instead of a secret: `private_key_jwt` (RFC 7523)."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from headgate.security.login.flow import b64url

_LASTS_S: Final = 60
_CURVES: Final[dict[str, tuple[str, hashes.HashAlgorithm, int]]] = {
    "secp256r1": ("ES256", hashes.SHA256(), 32),
    "secp384r1": ("ES384", hashes.SHA384(), 48),
    "secp521r1": ("ES512", hashes.SHA512(), 66),
}


class ClientKey:
    """Raises ValueError for what is no key that can be used, without a word of what it is."""

    def __init__(
        self, pem: bytes, key_id: str = "", token: Callable[[], str] = secrets.token_urlsafe
    ) -> None:
        try:
            key = load_pem_private_key(pem, None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise ValueError("it is no unencrypted private key in PEM") from None
        if isinstance(key, rsa.RSAPrivateKey):
            if key.key_size < 2048:
                raise ValueError("it is an RSA key of fewer than 2048 bits")
            self._alg = "RS256"
        elif isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES:
            self._alg = _CURVES[key.curve.name][0]
        elif isinstance(key, ed25519.Ed25519PrivateKey):
            self._alg = "EdDSA"
        else:
            raise ValueError("it is no RSA, EC P-256/384/521 or Ed25519 key")
        self._key = key
        self._key_id = key_id
        self._token = token

    def assertion(self, client_id: str, audience: str, wall: float) -> str:
        head = {"alg": self._alg, "typ": "JWT", **({"kid": self._key_id} if self._key_id else {})}
        claims = {
            "iss": client_id,
            "sub": client_id,
            "aud": audience,
            "jti": self._token(),
            "iat": int(wall),
            "exp": int(wall) + _LASTS_S,
        }
        signed = f"{b64url(json.dumps(head).encode())}.{b64url(json.dumps(claims).encode())}"
        return f"{signed}.{b64url(self._sign(signed.encode()))}"

    def _sign(self, text: bytes) -> bytes:
        key = self._key
        if isinstance(key, rsa.RSAPrivateKey):
            return key.sign(text, padding.PKCS1v15(), hashes.SHA256())
        if isinstance(key, ec.EllipticCurvePrivateKey):
            _, digest, size = _CURVES[key.curve.name]
            r, s = utils.decode_dss_signature(key.sign(text, ec.ECDSA(digest)))
            return r.to_bytes(size, "big") + s.to_bytes(size, "big")
        if isinstance(key, ed25519.Ed25519PrivateKey):
            return key.sign(text)
        raise TypeError("a key of another kind")
