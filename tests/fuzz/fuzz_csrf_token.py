"""Fuzz CSRF tokens: only a token that was made for this user, in its time, is one."""

from __future__ import annotations

from headgate.security.csrf_token import NONCE_BYTES, age_of, bound_to, make_token
from headgate.security.identity import Identity

NOW = 1_700_000_000.0
SECRET = bytes(range(32))
ADA = bound_to(Identity(subject="ada", method="login"))
EVE = bound_to(Identity(subject="eve", method="login"))
TOKEN = make_token(SECRET, ADA, NOW - 10.0, bytes(NONCE_BYTES))
SEEDS = (TOKEN, make_token(SECRET, EVE, NOW, bytes(NONCE_BYTES)), make_token(SECRET, ADA, NOW + 3600.0, bytes(NONCE_BYTES)))  # fmt: skip


def one(data: bytes) -> None:
    age = age_of(data, SECRET, ADA, NOW)
    assert age is None or (data == TOKEN and age == 10.0), data
    assert age_of(data, SECRET, b"", NOW) is None, data
    # For whoever the bytes say: one user's token is no other's.
    other = bound_to(Identity(subject=data.decode("latin-1"), method="login"))
    assert age_of(TOKEN, SECRET, other, NOW) is None or data == b"ada", data
