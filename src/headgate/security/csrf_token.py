"""Tokens that show that a page could read what was sent to its own host.

A token is when it was made, chance, and a signature over both and over who it is for. It needs no
memory: whoever has the secret can judge it. That it comes twice, in a cookie and in a header, shows
that the page could read the cookie; the signature, that the cookie is ours and for this user, and
not one that another host of the same site has put there.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error
from hashlib import sha256
from typing import Final

from headgate.security.identity import Identity

__all__ = ["NONCE_BYTES", "age_of", "bound_to", "make_token"]

NONCE_BYTES: Final = 16
_STAMP: Final = 8
_MAC: Final = 32
_LENGTH: Final = _STAMP + NONCE_BYTES + _MAC
_TEXT: Final = -(-_LENGTH // 3) * 4
_FUTURE_S: Final = 60.0
"""A machine whose clock is ahead by so much may have made it."""
_PURPOSE: Final = b"headgate csrf 1\0"


def bound_to(identity: Identity | None) -> bytes:
    """Who a token is for; nobody known is somebody of their own."""
    if identity is None:
        return b""
    method, subject = (
        text.encode(errors="replace") for text in (identity.method, identity.subject)
    )
    return b"%d:%b%b" % (len(method), method, subject)


def make_token(secret: bytes, bound: bytes, wall: float, nonce: bytes) -> bytes:
    """A new token; `nonce` is `NONCE_BYTES` of chance."""
    plain = int(wall).to_bytes(_STAMP, "big") + nonce
    return urlsafe_b64encode(plain + _mac(secret, bound, plain))


def age_of(token: bytes, secret: bytes, bound: bytes, wall: float) -> float | None:
    """How old a token is; None when it is not ours, for somebody else or from the future."""
    if len(token) != _TEXT:
        return None
    try:
        whole = urlsafe_b64decode(token)
    except (Error, ValueError):
        return None
    if len(whole) != _LENGTH:
        return None
    plain, mac = whole[: _STAMP + NONCE_BYTES], whole[_STAMP + NONCE_BYTES :]
    if not hmac.compare_digest(mac, _mac(secret, bound, plain)):
        return None
    age = wall - int.from_bytes(plain[:_STAMP], "big")
    return max(age, 0.0) if age >= -_FUTURE_S else None


def _mac(secret: bytes, bound: bytes, plain: bytes) -> bytes:
    return hmac.new(secret, _PURPOSE + plain + bound, sha256).digest()
