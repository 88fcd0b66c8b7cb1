"""Why nobody got a certificate: one error, and in a word whose fault it is."""

from __future__ import annotations

from typing import Literal

from headgate.errors import HeadgateError

__all__ = ["IdentityRefused", "Why"]

Why = Literal["token", "certificate", "request", "denied", "rate", "unavailable"]
"""`token`, `certificate`: what was shown is not good. `request`: what was asked for is not.
`denied`: by an operator. `rate`: too often. `unavailable`: the authority cannot sign now."""


class IdentityRefused(HeadgateError):
    """No certificate. The text names no secret and tells the way out."""

    def __init__(self, why: Why, message: str, retry_after_s: float | None = None) -> None:
        self.why: Why = why
        self.retry_after_s = retry_after_s
        super().__init__(message)
