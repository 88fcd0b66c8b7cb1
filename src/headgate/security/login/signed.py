"""ID tokens and logout tokens: whose they are, for whom and for what.

Theory of operation
-------------------
Keys, signatures and encodings are those of `security.tokens`: the kind of the key decides the
algorithm, there is no `none`, and no HMAC, so that the client's secret is no signing key.

An ID token must be for this client and this log-in (OpenID Connect Core 1.0 section 3.1.3.7). A
logout token looks alike and must not pass for one, nor the other way round (Back-Channel Logout
1.0 section 2.6): the one has a nonce, the other must not.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import Any, Final

from headgate.security.login.failed import LoginFailed
from headgate.security.login.flow import b64url
from headgate.security.tokens.keys import KeySet
from headgate.security.tokens.rules import PUBLIC_ALGORITHMS, TokenRules
from headgate.security.tokens.verify import (
    UNKNOWN_KEY,
    Flaw,
    Token,
    judge,
    read,
    seek_key,
    signature_flaw,
)

MAX_TOKEN_BYTES: Final = 32 * 1024
_LOGOUT_EVENT: Final = "http://schemas.openid.net/event/backchannel-logout"
_LOGOUT_FRESH_S: Final = 600.0
_LONGEST_NAME: Final = 512
# Most providers say "JWT" of everything, and some say nothing.
_ID_TYPES: Final = frozenset({"", "jwt"})
_LOGOUT_TYPES: Final = frozenset({"", "jwt", "logout+jwt"})


class KeyUnknown(LoginFailed):
    """Signed with a key that is not among those at hand: the provider may have new ones."""


def _rules(issuer: str, client_id: str, leeway_s: float, types: frozenset[str]) -> TokenRules:
    return TokenRules(
        algorithms=frozenset(PUBLIC_ALGORITHMS),
        issuers=frozenset({issuer}),
        audiences=frozenset({client_id}),
        types=types,
        # `exp` of logout tokens was not asked for in drafts that are still about; `iat` bounds it.
        require_exp=types is _ID_TYPES,
        leeway_s=leeway_s,
        max_bytes=MAX_TOKEN_BYTES,
    )


def _believed(text: str, keys: KeySet, rules: TokenRules, wall: float, what: str) -> Token:
    token = read(text.encode("utf-8", "replace"), rules)
    if token is None:
        raise LoginFailed("invalid", f"{what} is from another issuer")
    if isinstance(token, Flaw):
        raise _failed(token, what)
    flaw = judge(token, rules, wall)
    if flaw is not None:
        raise _failed(flaw, what)
    found = seek_key(token, keys)
    if found is UNKNOWN_KEY:
        raise KeyUnknown("invalid", f"{what}: the key that it names is not the provider's")
    if isinstance(found, Flaw):
        raise _failed(found, what)
    flaw = signature_flaw(token, found)
    if flaw is not None:
        raise _failed(flaw, what)
    return token


def _failed(flaw: Flaw, what: str) -> LoginFailed:
    clocks = "; do the clocks agree?" if flaw.error in {"expired", "not_yet"} else ""
    return LoginFailed("invalid", f"{what} is not taken: {flaw.reason}{clocks}")


def verify_id_token(
    text: str,
    keys: KeySet,
    *,
    issuer: str,
    client_id: str,
    nonce: str | None,
    access_token: str,
    wall: float,
    leeway_s: float,
) -> dict[str, Any]:
    """The claims of an ID token. `nonce=None` is for one that came with a refresh, which need not
    repeat it.
    """
    what = "the ID token"
    token = _believed(text, keys, _rules(issuer, client_id, leeway_s, _ID_TYPES), wall, what)
    claims = token.claims
    if "events" in claims:
        raise LoginFailed("invalid", "what came as the ID token is another kind of token")
    if "iat" not in claims:
        raise LoginFailed("invalid", "the ID token does not say when it was issued")
    if not isinstance(claims.get("sub"), str) or not claims["sub"]:
        raise LoginFailed("invalid", "the ID token names no subject")
    party = claims.get("azp")
    if party is not None and party != client_id:
        raise LoginFailed("invalid", "the ID token was made for another party (azp)")
    audience = claims.get("aud")
    if party is None and isinstance(audience, list) and len(audience) > 1:
        raise LoginFailed("invalid", "the ID token is for several clients and names no party (azp)")
    said = claims.get("nonce")
    if nonce is not None and not (isinstance(said, str) and _equal(said, nonce)):
        raise LoginFailed("invalid", "the ID token belongs to another log-in (nonce)")
    bound = claims.get("at_hash")
    if bound is not None and access_token:
        meant = half_hash(token.algorithm, access_token)
        if not isinstance(bound, str) or not _equal(bound, meant):
            raise LoginFailed("invalid", "the ID token belongs to another access token (at_hash)")
    return claims


def half_hash(algorithm: str, text: str) -> str:
    """OpenID Connect Core 1.0 section 3.1.3.6; Ed25519 hashes by SHA-512."""
    name = "sha512" if algorithm.startswith("Ed") else f"sha{algorithm[2:]}"
    digest = hashlib.new(name, text.encode()).digest()
    return b64url(digest[: len(digest) // 2])


def verify_logout_token(
    text: str, keys: KeySet, *, issuer: str, client_id: str, wall: float, leeway_s: float
) -> tuple[Sequence[tuple[str, str]], float]:
    """What ended, as (`sid` or `sub`, value), and when by the provider's clock. Shown twice, it
    ends the same sessions twice, which is once.
    """
    what = "the logout token"
    rules = _rules(issuer, client_id, leeway_s, _LOGOUT_TYPES)
    token = _believed(text, keys, rules, wall, what)
    claims = token.claims
    events = claims.get("events")
    if not isinstance(events, dict) or not isinstance(events.get(_LOGOUT_EVENT), dict):
        raise LoginFailed("invalid", "what came as the logout token is another kind of token")
    if "nonce" in claims:
        raise LoginFailed("invalid", "a logout token must not have a nonce")
    at = claims.get("iat")
    if at is None or wall > at + _LOGOUT_FRESH_S:
        raise LoginFailed("invalid", "the logout token is too old")
    for kind in ("sid", "sub"):
        value = claims.get(kind)
        if isinstance(value, str) and 0 < len(value) <= _LONGEST_NAME:
            # With a session named, only that one ends: the subject beside it says whose it is.
            return [(kind, value)], float(at)
    raise LoginFailed("invalid", "the logout token names neither a session nor a subject")


def _equal(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())
