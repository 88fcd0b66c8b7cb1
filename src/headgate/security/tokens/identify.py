"""What a verified token says about who asks."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import Any, Final

from headgate.security.identity import Identity
from headgate.security.tokens.rules import ClaimNames
from headgate.security.tokens.verify import Flaw, find_claim

# Identities are written into headers, logs and keys of limits.
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_NO_SUBJECT: Final = Flaw("missing_claim", "the token does not say whose it is")
_MANGLED: Final = Flaw("malformed", "the token cannot be read: a name has control characters in it")


def identity_of(claims: dict[str, Any], names: ClaimNames, method: str) -> Identity | Flaw:
    """Whoever the claims speak of. A machine that has no subject is its own consumer."""
    subject = _text(find_claim(claims, names.subject))
    consumer = next(
        (text for name in names.consumer if (text := _text(find_claim(claims, name)))), ""
    )
    tier = _text(find_claim(claims, names.tier)) if names.tier else ""
    roles = _set(claims, names.roles)
    scopes = _set(claims, names.scopes)
    groups = _set(claims, names.groups)
    if not (subject or consumer):
        return _NO_SUBJECT
    for text in (subject, consumer, tier, *roles, *scopes, *groups):
        if _CONTROL.search(text):
            return _MANGLED
    exp = claims.get("exp")
    return Identity(
        subject=subject or consumer,
        consumer=consumer or subject,
        tier=tier,
        claims=MappingProxyType(claims),
        method=method,
        roles=roles,
        scopes=scopes,
        groups=groups,
        expires=None if exp is None else float(exp),
    )


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    # Some issuers number their users.
    return str(value) if type(value) is int else ""


def _set(claims: dict[str, Any], names: tuple[str, ...]) -> frozenset[str]:
    """Of the first of these claims that is there: a list, or words with spaces between."""
    for name in names:
        value = find_claim(claims, name)
        if isinstance(value, str):
            return frozenset(value.split())
        if isinstance(value, list):
            return frozenset(each for each in value if isinstance(each, str) and each)
    return frozenset()
