"""What is ordered from an authority, as values; light enough for the configuration to import."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

__all__ = [
    "CHALLENGE_PREFIX",
    "LETS_ENCRYPT",
    "LETS_ENCRYPT_STAGING",
    "AcmeRules",
    "ChallengeKind",
    "domain_fault",
]

LETS_ENCRYPT: Final = "https://acme-v02.api.letsencrypt.org/directory"
LETS_ENCRYPT_STAGING: Final = "https://acme-staging-v02.api.letsencrypt.org/directory"

CHALLENGE_PREFIX: Final = "/.well-known/acme-challenge/"
ChallengeKind = Literal["http-01", "tls-alpn-01"]

_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class AcmeRules:
    """What is ordered, where, and on whose behalf."""

    directory: str = LETS_ENCRYPT
    email: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    challenge: ChallengeKind = "http-01"
    key: Literal["ecdsa", "rsa"] = "ecdsa"
    renew_before_s: float | None = None
    """None is a third of the certificate's life."""
    ca_file: str | None = None
    binding_id: str | None = None
    binding_key: str | None = None
    """The secret of the binding, base64url; never to be shown."""

    def __repr__(self) -> str:
        return f"<AcmeRules {self.directory} {self.domains}>"


def domain_fault(name: str) -> str:
    """Why no certificate for this name can be had this way; empty when it can."""
    if name.startswith("*."):
        return "is a wildcard, which takes a challenge in DNS that is not spoken here"
    labels = name.split(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        return "is not a host name in lower case; write it as DNS has it (xn-- for other letters)"
    if labels[-1].isdigit():
        return "is an address; authorities sign names"
    return ""
