"""What is kept out of logs, traces and query texts, and how: the settings of a `Redactor`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Mode", "OwnPattern", "RedactionRules"]

Mode = Literal["off", "mask", "hash", "drop", "partial"]
"""`mask` says what stood there, `hash` also lets equal values be recognised, `drop` leaves
nothing, `partial` leaves the last four characters."""


@dataclass(frozen=True, slots=True)
class OwnPattern:
    """A regular expression of the operator's own. Where it has a group, only that is redacted."""

    name: str
    pattern: str
    mode: Mode = "mask"


@dataclass(frozen=True, slots=True)
class RedactionRules:
    tokens: Mode = "mask"
    """Bearer and Basic credentials, JWTs and keys of known makers."""
    passwords: Mode = "mask"
    """Passwords in URLs, and values with a name that says secret."""
    private_keys: Mode = "mask"
    cards: Mode = "mask"
    ibans: Mode = "mask"
    emails: Mode = "off"
    phones: Mode = "off"
    addresses: Mode | Literal["truncate"] = "off"
    """IP addresses; `truncate` leaves the network: /24, or /48 of IPv6."""
    names: tuple[str, ...] = ()
    """Further names of fields whose values are redacted."""
    patterns: tuple[OwnPattern, ...] = ()
    key: bytes = b""
    """For `hash`."""
    most_chars: int = 65536
    """A longer text is cut there: what was not looked at is not passed on."""

    def __repr__(self) -> str:
        return "RedactionRules(...)"  # never the key

    @classmethod
    def none(cls) -> RedactionRules:
        """Everything is left as it is."""
        return cls(tokens="off", passwords="off", private_keys="off", cards="off", ibans="off")
