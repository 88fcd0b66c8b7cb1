"""From what a provider says of a user to who it is for us."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from headgate.security.identity import Identity
from headgate.security.login.failed import LoginFailed
from headgate.security.login.rules import ClaimNames
from headgate.security.login.sessions import Session
from headgate.security.tokens.strict import Malformed, read_object

_MOST_NAMES: Final = 500
_LONGEST_NAME: Final = 256
_LONGEST_SUBJECT: Final = 1024


def claim(claims: Mapping[str, Any], name: str) -> Any:
    """A claim by name or by path. The whole name goes first: many are addresses, with dots."""
    if not name:
        return None
    if name in claims:
        return claims[name]
    found: Any = claims
    for step in name.split("."):
        if not isinstance(found, Mapping) or step not in found:
            return None
        found = found[step]
    return found


def names_of(claims: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """A list of names, or a text of names between spaces, as `scope` is."""
    value = claim(claims, name)
    if value is None:
        return ()
    items: Sequence[Any] = value.split() if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        raise LoginFailed("invalid", f"the claim {name} is neither a list nor text")
    found = dict.fromkeys(str(each) for each in items if isinstance(each, str | int) and each != "")
    if len(found) > _MOST_NAMES or any(len(each) > _LONGEST_NAME for each in found):
        # To leave some out would be to decide about access by accident.
        raise LoginFailed("invalid", f"the claim {name} has more than {_MOST_NAMES} names")
    if not all(each.isprintable() for each in found):
        raise LoginFailed("invalid", f"the claim {name} has control characters")
    return tuple(found)


def subject_of(claims: Mapping[str, Any], names: ClaimNames) -> str:
    value = claim(claims, names.subject)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)  # some providers number their users
    if not isinstance(value, str) or not value or len(value) > _LONGEST_SUBJECT:
        raise LoginFailed("invalid", f"the claim {names.subject} names no subject")
    if not value.isprintable():
        raise LoginFailed("invalid", f"the claim {names.subject} has control characters")
    return value


def kept(claims: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The claims that a session holds on to."""
    found = {name: claim(claims, name) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def tier_of(claims: Mapping[str, Any], names: ClaimNames) -> str:
    value = claim(claims, names.tier)
    return value[:_LONGEST_NAME] if isinstance(value, str) else ""


def identity_of(session: Session, method: str, expires: float) -> Identity:
    claims = dict(session.claims)
    claims.setdefault("sub", session.subject)
    if session.sid:
        claims.setdefault("sid", session.sid)
    return Identity(
        subject=session.subject,
        consumer=session.subject,
        tier=session.tier,
        claims=MappingProxyType(claims),
        method=method,
        roles=frozenset(session.roles),
        scopes=frozenset(session.scopes),
        groups=frozenset(session.groups),
        expires=expires,
    )


def json_object(text: bytes, what: str) -> dict[str, Any]:
    try:
        return read_object(text)
    except Malformed as error:
        raise LoginFailed("invalid", f"{what} cannot be read: {error}") from None
