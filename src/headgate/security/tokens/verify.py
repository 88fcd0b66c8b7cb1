"""A token against rules and keys.

Theory of operation. In this order, each step only after the one before:

    glance     is this a JWT at all? by its first bytes and its dots, nothing is decoded
    read       both JSON parts, strictly; whose token it says it is
    judge      the header: algorithm, type, what must not be there; then the claims and the time
    signature  by the keys that the header names

Claims are judged before the signature because it is cheaper: nothing that a client learns from
the answer is more than what it wrote itself, and nothing is believed before the last step.
`seek_key` stands apart from `signature_flaw`, since a key that is not known may be fetched between.

Headers that bring or name keys (`jwk`, `jku`, `x5c`, `x5u`) are never read. `crit` is refused
whatever it names, because we know no extension (RFC 7515 section 4.1.11); so is `b64: false`
(RFC 7797), compression, and encryption. A token that says by `typ` that it is something else than
an access token (`logout+jwt`, `dpop+jwt`) is not taken for one (RFC 8725 section 3.11).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from headgate.security.tokens.algorithms import VerifyKey
from headgate.security.tokens.keys import MAX_TRIES, KeySet
from headgate.security.tokens.rules import ANY_AUDIENCE, TokenRules
from headgate.security.tokens.strict import Malformed, b64url, read_object

MAX_KID: Final = 256
_MAX_DATE: Final = 2.0**53
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# A JSON object begins with "{" and then a quote, or white space and one later.
_BEGINS: Final = (b"ey", b"ew")


@dataclass(frozen=True, slots=True)
class Flaw:
    """Why a token is not taken. Nothing of the token is in it."""

    error: str
    reason: str


@dataclass(frozen=True, slots=True)
class Token:
    """Read, and not believed."""

    header: dict[str, Any]
    claims: dict[str, Any]
    signed: bytes
    signature: bytes

    @property
    def algorithm(self) -> str:
        alg = self.header.get("alg")
        return alg if isinstance(alg, str) else ""

    @property
    def kid(self) -> str | None:
        kid = self.header.get("kid")
        return kid if isinstance(kid, str) else None


UNSIGNED: Final = Flaw("unsigned", "the token is not signed")
BAD_SIGNATURE: Final = Flaw("bad_signature", "the signature does not fit")
UNKNOWN_KEY: Final = Flaw("unknown_key", "the key that the token names is not known")
BAD_ALGORITHM: Final = Flaw("bad_algorithm", "the algorithm is not allowed or not the key's own")
TOO_LARGE: Final = Flaw("too_large", "the token is too large")
ENCRYPTED: Final = Flaw("encrypted", "encrypted tokens are not taken")
EXPIRED: Final = Flaw("expired", "the token has expired")
_NO_KID: Final = Flaw("unknown_key", "the token does not say which of many keys it means")
_NOT_YET: Final = Flaw("not_yet", "the token does not hold yet")
_FROM_LATER: Final = Flaw("not_yet", "the token was issued in the future")
_AUDIENCE: Final = Flaw("wrong_audience", "the token is meant for somebody else")
_TYPE: Final = Flaw("wrong_type", "the token is of another type")
_NO_EXP: Final = Flaw("no_expiry", "the token never expires")
_CRITICAL: Final = Flaw("malformed", "the token asks for an extension that is not known")
_NESTED: Final = Flaw("malformed", "the token holds another token")


def malformed(reason: str) -> Flaw:
    return Flaw("malformed", f"the token cannot be read: {reason}")


def looks_like_token(text: bytes) -> bool:
    """Whether this is a JWT, signed or encrypted, good or bad; else it is of another kind."""
    return text.startswith(_BEGINS) and text.count(b".") in (2, 4)


def read(text: bytes, rules: TokenRules) -> Token | Flaw | None:
    """The token; None when it says that it is of an issuer who is not ours."""
    if len(text) > rules.max_bytes:
        return TOO_LARGE
    parts = text.split(b".")
    try:
        header = read_object(b64url(parts[0]))
        if len(parts) != 3:
            return ENCRYPTED if "enc" in header else malformed("it has not three parts")
        if plain_type(header.get("cty")) == "jwt":
            return _NESTED
        claims = read_object(b64url(parts[1]))
        signature = b64url(parts[2])
    except Malformed as error:
        return malformed(str(error))
    if rules.issuers:
        issuer = claims.get("iss")
        if not isinstance(issuer, str) or issuer not in rules.issuers:
            return None
    return Token(header, claims, text[: len(parts[0]) + 1 + len(parts[1])], signature)


def judge(token: Token, rules: TokenRules, wall: float) -> Flaw | None:
    """What is wrong with the token, its signature aside."""
    return _header_flaw(token, rules) or claims_flaw(token.claims, rules, wall)


def _header_flaw(token: Token, rules: TokenRules) -> Flaw | None:
    header = token.header
    alg = header.get("alg")
    if not isinstance(alg, str):
        return malformed("it names no algorithm")
    if alg not in rules.algorithms:
        return UNSIGNED if alg.strip().lower() == "none" else BAD_ALGORITHM
    if not token.signature:
        return UNSIGNED
    if "crit" in header or header.get("b64", True) is not True:
        return _CRITICAL
    if "enc" in header or "zip" in header:
        return ENCRYPTED
    kid = header.get("kid")
    if kid is not None and (not isinstance(kid, str) or not 0 < len(kid) <= MAX_KID):
        return malformed("its kid is no text, empty or too long")
    said = plain_type(header.get("typ"))
    if said not in rules.types if rules.types else said.endswith("+jwt") and said != "at+jwt":
        return _TYPE
    return None


def plain_type(said: object) -> str:
    """RFC 7515 section 4.1.9: "application/" may be left out, and case does not count."""
    return said.lower().removeprefix("application/") if isinstance(said, str) else ""


def claims_flaw(claims: dict[str, Any], rules: TokenRules, wall: float) -> Flaw | None:
    """RFC 7519 section 4.1."""
    leeway_s = rules.leeway_s
    for name in ("exp", "nbf", "iat"):
        date = claims.get(name)
        if date is None:
            if name in claims:
                return malformed(f"its {name} is no date")
            if name == "exp" and rules.require_exp:
                return _NO_EXP
            continue
        # True is an int in Python, and a date of 400 digits overflows later.
        if type(date) not in (int, float) or not -_MAX_DATE < date < _MAX_DATE:
            return malformed(f"its {name} is no date")
        if name == "exp":
            if wall >= date + leeway_s:
                return EXPIRED
        elif wall < date - leeway_s:
            return _NOT_YET if name == "nbf" else _FROM_LATER
    if rules.audiences and ANY_AUDIENCE not in rules.audiences:
        said = claims.get("aud")
        if isinstance(said, str):
            if said not in rules.audiences:
                return _AUDIENCE
        elif not isinstance(said, list) or rules.audiences.isdisjoint(_texts(said)):
            return _AUDIENCE
    for name, values in rules.required:
        value = find_claim(claims, name)
        if value is None or (values and values.isdisjoint(_as_texts(value))):
            return Flaw("missing_claim", "the token does not say what is asked for")
    for name in ("sub", "jti", "sid"):
        value = claims.get(name)
        if value is not None and (not isinstance(value, str) or _CONTROL.search(value)):
            return malformed(f"its {name} is no plain text")
    return None


def find_claim(claims: dict[str, Any], name: str) -> Any:
    """By its whole name, which may be a URL full of dots; else the dots lead into objects."""
    found = claims.get(name)
    if found is None and "." in name:
        found = claims
        for step in name.split("."):
            found = found.get(step) if isinstance(found, dict) else None
    return found


def _texts(values: list[Any]) -> list[str]:
    return [value for value in values if isinstance(value, str)]


def _as_texts(value: Any) -> list[str]:
    """A claim as it would be written in the file."""
    if isinstance(value, bool):
        return ["true" if value else "false"]
    if isinstance(value, list):
        return [text for each in value if not isinstance(each, list) for text in _as_texts(each)]
    return [str(value)] if isinstance(value, (str, int, float)) else []


def seek_key(token: Token, keys: KeySet) -> tuple[VerifyKey, ...] | Flaw:
    """The keys that may have signed it; `UNKNOWN_KEY` when the set does not have its name."""
    named = keys.find(token.kid)
    if not named:
        return UNKNOWN_KEY
    algorithm = token.algorithm
    fitting = tuple(key for key in named if algorithm in key.algorithms)
    if not fitting:
        return BAD_ALGORITHM
    if len(fitting) > MAX_TRIES:
        return _NO_KID
    return fitting


def signature_flaw(token: Token, keys: tuple[VerifyKey, ...]) -> Flaw | None:
    algorithm = token.algorithm
    for key in keys:
        if key.verify(algorithm, token.signed, token.signature):
            return None
    return BAD_SIGNATURE


def verify(text: bytes, rules: TokenRules, keys: KeySet, wall: float) -> Token | Flaw | None:
    """All of it, for whoever has the keys at hand. None: not a token, or not one of ours."""
    if not looks_like_token(text):
        return None
    token = read(text, rules)
    if not isinstance(token, Token):
        return token
    flaw = judge(token, rules, wall)
    if flaw is not None:
        return flaw
    found = seek_key(token, keys)
    if isinstance(found, Flaw):
        return found
    return signature_flaw(token, found) or token
