"""Refresh tokens: which one is good, and what showing an old one means.

Theory of operation. A session has one good refresh token. Using it makes its successor the good
one. A token names its session and its number in it, holds 256 bits of chance, and is signed by us:

    hgr_ base64url( session 16 | number 4 | chance 32 | signature 32 )

The store keeps the hash of the good one and, while the grace lasts, of those before it together
with their successors, each sealed with the very token it succeeds: what is stored opens nothing.
So a session is one row however long it lives, and a signed token with an old number is known to
have been good once, without a list of all that ever were. Whoever shows such a one, after the
grace, holds a copy or was copied from, and the session ends: both the thief and the owner have to
log in. What carries no signature of ours ends nothing; it is not looked up.

Within the grace an old token gives the newest one again: two tabs that refresh at once, or a
client that lost the answer, go on with the same token.

    good                            Rotate
    used, within the grace          Again(the newest successor)
    used, after it                  Reused: end the session
    signed, but a number to come    Unknown: a store that was set back from a backup
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = [
    "Again",
    "Parsed",
    "Past",
    "Reused",
    "Rotate",
    "State",
    "Unknown",
    "decide",
    "fingerprint",
    "parse",
    "payload",
    "rotated",
    "written",
]

PREFIX: Final = "hgr_"
PAYLOAD: Final = 16 + 4 + 32
SIGNED: Final = PAYLOAD + 32
PASTS: Final = 8
"""So many rotations within one grace are kept; more of them is no browser."""


@dataclass(frozen=True, slots=True)
class Parsed:
    session_id: str
    number: int
    payload: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Past:
    """A token that was used a moment ago."""

    fingerprint: str
    used_at: float
    successor: bytes
    """Sealed with the token itself."""


@dataclass(frozen=True, slots=True)
class State:
    number: int
    fingerprint: str
    pasts: tuple[Past, ...] = ()
    """The latest last."""


@dataclass(frozen=True, slots=True)
class Rotate:
    pass


@dataclass(frozen=True, slots=True)
class Again:
    token: str


@dataclass(frozen=True, slots=True)
class Reused:
    pass


@dataclass(frozen=True, slots=True)
class Unknown:
    pass


def payload(session_id: str, number: int, chance: bytes) -> bytes:
    return bytes.fromhex(session_id) + number.to_bytes(4, "big") + chance


def written(body: bytes, signature: bytes) -> str:
    return PREFIX + base64.urlsafe_b64encode(body + signature).decode().rstrip("=")


def parse(token: str) -> Parsed | None:
    """A token's parts; its signature is not looked at."""
    if not token.startswith(PREFIX) or len(token) != len(PREFIX) + (SIGNED * 4 + 2) // 3:
        return None
    text = token[len(PREFIX) :]
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return None
    if len(raw) != SIGNED or written(raw[:PAYLOAD], raw[PAYLOAD:]) != token:
        return None  # only one spelling is a token
    number = int.from_bytes(raw[16:20], "big")
    return Parsed(raw[:16].hex(), number, raw[:PAYLOAD], raw[PAYLOAD:])


def fingerprint(token: str) -> str:
    """What is stored of it. A fast hash is enough for 256 bits of chance."""
    return hashlib.sha256(token.encode()).hexdigest()


def _cipher(token: str) -> AESGCM:
    # Another hash than the stored one: that one must not open anything.
    return AESGCM(hashlib.sha256(b"successor of " + token.encode()).digest())


NONCE: Final = bytes(12)
"""The key is used once: a token has one successor."""


def rotated(state: State, token: str, successor: str, wall: float, grace_s: float) -> State:
    """The session after its good `token` was used."""
    past = Past(fingerprint(token), wall, _cipher(token).encrypt(NONCE, successor.encode(), None))
    kept = [one for one in state.pasts if abs(wall - one.used_at) <= grace_s]
    return State(state.number + 1, fingerprint(successor), tuple([*kept, past][-PASTS:]))


def decide(
    state: State, token: str, number: int, wall: float, grace_s: float
) -> Rotate | Again | Reused | Unknown:
    """What showing a signed token of this session means."""
    shown = fingerprint(token)
    if hmac.compare_digest(shown, state.fingerprint):
        return Rotate()
    if number > state.number:
        return Unknown()
    for at, past in enumerate(state.pasts):
        if past.fingerprint != shown:
            continue
        if not -grace_s <= wall - past.used_at <= grace_s:
            return Reused()
        for step in state.pasts[at:]:
            if fingerprint(token) != step.fingerprint:
                return Unknown()
            try:
                token = _cipher(token).decrypt(NONCE, step.successor, None).decode()
            except (InvalidTag, UnicodeDecodeError):
                return Unknown()
        return Again(token)
    # Two tokens with the number of the good one cannot both be ours, unless a store was set back.
    return Reused() if number < state.number else Unknown()
