"""Fuzz tokens: what is not signed with our keys is never believed, and whatever is signed by them is
judged without a raise.

The first byte chooses: the bytes as a token; as header and claims of a token that is signed well;
as base64url; as JSON.
"""

from __future__ import annotations

import base64
import hmac
import json

from headgate.security.identity import Identity
from headgate.security.tokens.identify import identity_of
from headgate.security.tokens.jwk import read_jwks
from headgate.security.tokens.rules import ClaimNames, TokenRules
from headgate.security.tokens.strict import MAX_DEPTH, Malformed, b64url, read_json
from headgate.security.tokens.verify import Flaw, Token, verify
from tests.fuzz.fuzz_jwks import ED25519, SECRET, SHARED, SIGNER
from tests.security.jwt_tokens import AUDIENCE, ISSUER, NOW, claims, token

KEYS = read_jwks(json.dumps({"keys": [SHARED, ED25519]}).encode(), is_public=False, is_strict=True)
RULES = TokenRules(
    algorithms=frozenset({"HS256", "EdDSA"}),
    issuers=frozenset({ISSUER}),
    audiences=frozenset({AUDIENCE}),
    required=(("email.verified", frozenset({"true"})),),
)
LOOSE = TokenRules(algorithms=frozenset({"HS256", "EdDSA"}))
NAMES = ClaimNames(tier="plan.name")
WHO = f'"iss":"{ISSUER}","aud":["{AUDIENCE}"],"sub":"ada","exp":{NOW + 60},"nbf":{NOW}'.encode()
GOOD = frozenset(
    {
        token(claims(email={"verified": True}), alg="HS256", kid="shared", key=SECRET),
        token(claims(roles=["a"], scope="b c"), alg="EdDSA", kid="ed", key=SIGNER),
    }
)
SEEDS = (
    *(b"\0" + each for each in GOOD),
    b"\0e30.e30.",
    b'\1{"alg":"HS256","kid":"shared"}\n{' + WHO + b',"email":{"verified":true}}',
    b'\1{"alg":"HS256","typ":"at+jwt","kid":"shared"}\n{' + WHO + b',"roles":["x",1],"groups":{}}',
    b'\1{"alg":"HS256","crit":["x"],"b64":false}\n{"exp":1e999,"aud":7,"sub":"\\ud800"}',
    b"\2YQ\2",
    b"\2-_-_",
    b'\3{"a":[1,2.5e3,"\\u00e9\\ud83d\\ude00"],"b":{"c":null}}',
    b'\3{"a":1,"a":2}',
)


def one(data: bytes) -> None:
    kind, rest = data[:1], data[1:]
    match kind[0] & 3 if kind else 0:
        case 0:
            _as_token(rest)
        case 1:
            _as_parts(*rest.partition(b"\n")[::2])
        case 2:
            _as_base64url(rest)
        case _:
            _as_json(rest)


def _as_token(text: bytes) -> None:
    for rules in (RULES, LOOSE):
        found = verify(text, rules, KEYS, NOW)
        assert not isinstance(found, Token) or text in GOOD, text


def _b64(octets: bytes) -> bytes:
    return base64.urlsafe_b64encode(octets).rstrip(b"=")


def _as_parts(header: bytes, payload: bytes) -> None:
    signed = _b64(header) + b"." + _b64(payload)
    text = signed + b"." + _b64(hmac.digest(SECRET, signed, "sha256"))
    found = verify(text, LOOSE, KEYS, NOW)
    strict = verify(text, RULES, KEYS, NOW)
    if isinstance(strict, Token):
        assert strict == found, text
        assert strict.claims["iss"] == ISSUER
        assert strict.claims["email"]["verified"] in (True, "true", ["true"], [True])
    if not isinstance(found, Token):
        return
    assert found.header["alg"] == "HS256"
    assert found.claims["exp"] + LOOSE.leeway_s > NOW
    assert isinstance(verify(text[:-4], LOOSE, KEYS, NOW), Flaw)
    assert isinstance(verify(text, LOOSE, KEYS, found.claims["exp"] + 31.0), Flaw)
    who = identity_of(found.claims, NAMES, "jwt")
    assert isinstance(who, Identity | Flaw)
    if isinstance(who, Identity):
        # It goes into headers and logs, so it can be written and begins no line there.
        for said in (who.subject, who.consumer, who.tier, *who.roles, *who.scopes, *who.groups):
            assert not set(said.encode()) & {0, 10, 13}, said


def _as_base64url(text: bytes) -> None:
    try:
        octets = b64url(text)
    except Malformed as error:
        assert str(error).isascii()
        return
    assert _b64(octets) == text


def _as_json(text: bytes) -> None:
    try:
        value = read_json(text)
    except Malformed as error:
        assert str(error).isascii()
        return
    assert repr(json.loads(text)) == repr(value)
    assert _depth(value) <= MAX_DEPTH
    json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


def _depth(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0
