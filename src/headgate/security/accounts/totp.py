"""Codes of an authenticator app (RFC 6238 over RFC 4226) and recovery codes.

Theory of operation. A code stands for a step of 30 seconds. It is looked for in the steps around
now, and only in those after the last one that was used: a code that was seen over a shoulder or on
the wire is worth nothing. The caller stores the step on the condition that it is still larger.

SHA-1, six digits and 30 seconds are what every app takes; several ignore any other choice without
a word. HMAC-SHA-1 is not touched by collisions of SHA-1.
"""

from __future__ import annotations

import base64
import hmac
import urllib.parse
from collections.abc import Callable
from typing import Final

__all__ = [
    "STEP_S",
    "canonical_recovery",
    "code_at",
    "is_totp",
    "matching_step",
    "recovery_code",
    "secret_text",
    "uri",
]

STEP_S: Final = 30
DIGITS: Final = 6
SECRET_BYTES: Final = 20
ALPHABET: Final = "23456789abcdefghjkmnpqrstuvwxyz"
"""For recovery codes: nothing that is read as something else."""
RECOVERY_LENGTH: Final = 16
"""79 bits: nothing that is found by trying, even where the stored hashes are known."""


def code_at(secret: bytes, step: int, digits: int = DIGITS, digest: str = "sha1") -> str:
    """RFC 4226 section 5.3."""
    mac = hmac.digest(secret, step.to_bytes(8, "big"), digest)
    at = mac[-1] & 15
    number = int.from_bytes(mac[at : at + 4], "big") & 0x7FFFFFFF
    return str(number % 10**digits).zfill(digits)


def is_totp(code: str) -> bool:
    """Whether it has the form of one, rather than of a recovery code."""
    return len(code) == DIGITS and code.isascii() and code.isdigit()


def matching_step(
    secret: bytes, code: str, wall: float, drift: int, last_step: int | None
) -> int | None:
    """The step a code stands for, where it may still be used."""
    if not is_totp(code):
        return None
    now = int(wall // STEP_S)
    found = None
    for step in range(max(0, now - drift), now + drift + 1):
        is_equal = hmac.compare_digest(code_at(secret, step).encode(), code.encode())
        if is_equal and (last_step is None or step > last_step):
            found = step
    return found


def secret_text(secret: bytes) -> str:
    """As an app takes it when it is typed."""
    return base64.b32encode(secret).decode().rstrip("=")


def uri(secret: bytes, issuer: str, email: str) -> str:
    """What the QR code says."""
    label = urllib.parse.quote(f"{issuer}:{email}", safe="")
    query = urllib.parse.urlencode(
        {
            "secret": secret_text(secret),
            "issuer": issuer,
            "algorithm": "SHA1",
            "digits": DIGITS,
            "period": STEP_S,
        },
        quote_via=urllib.parse.quote,
    )
    return f"otpauth://totp/{label}?{query}"


def recovery_code(choose: Callable[[str], str]) -> str:
    """A new one; `choose` takes one character of a text by chance that cannot be foreseen."""
    text = "".join(choose(ALPHABET) for _ in range(RECOVERY_LENGTH))
    return "-".join(text[at : at + 4] for at in range(0, RECOVERY_LENGTH, 4))


def canonical_recovery(code: str) -> str:
    """As it is hashed: people type them with spaces, in capitals, without dashes."""
    return "".join(char for char in code[:64].casefold() if char in ALPHABET)
