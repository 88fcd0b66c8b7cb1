"""Tokens are issued in one form, and nothing else is read."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from headgate.security.accounts.signing import (
    ALGORITHMS,
    Key,
    Unverified,
    _sign,
    b64,
    compact,
    issue,
    made,
    new_key,
    opened,
    read,
    unb64,
)

KEYS = {algorithm: new_key(algorithm, 1, 0.0) for algorithm in ALGORITHMS}
CLAIMS = {"sub": "ada", "iat": 1, "exp": 2, "name": "Zoë"}


def forged(header: object, payload: object = CLAIMS, signature: bytes = b"") -> str:
    return f"{b64(compact(header))}.{b64(compact(payload))}.{b64(signature)}"


def ring(*keys: Key) -> dict[str, Key]:
    return {key.kid: key for key in keys}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_token_is_read_by_its_key_only(algorithm):
    token = issue(KEYS[algorithm], CLAIMS)
    assert read(token, ring(*KEYS.values())) == CLAIMS
    with pytest.raises(Unverified, match="not one of ours"):
        read(token, ring(*(key for name, key in KEYS.items() if name != algorithm)))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_published_key_verifies_by_another_reading_of_the_rfcs(algorithm):
    key = KEYS[algorithm]
    token = issue(key, CLAIMS)
    data, _, signature_text = token.rpartition(".")
    signature = unb64(signature_text)
    jwk = key.jwk
    assert not {"d", "p", "q", "dp", "dq", "qi", "k"} & jwk.keys()
    if jwk["kty"] == "OKP":
        ed25519.Ed25519PublicKey.from_public_bytes(unb64(jwk["x"])).verify(signature, data.encode())
    elif jwk["kty"] == "EC":
        x, y = (int.from_bytes(unb64(jwk[part]), "big") for part in "xy")
        pair = (int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
        public = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
        public.verify(encode_dss_signature(*pair), data.encode(), ec.ECDSA(hashes.SHA256()))
    else:
        n, e = (int.from_bytes(unb64(jwk[part]), "big") for part in "ne")
        assert n.bit_length() == 2048
        rsa.RSAPublicNumbers(e, n).public_key().verify(
            signature, data.encode(), padding.PKCS1v15(), hashes.SHA256()
        )


def test_the_thumbprint_of_rfc_8037():
    secret = unb64("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A")
    key = made(ed25519.Ed25519PrivateKey.from_private_bytes(secret), "EdDSA", 1, 0.0)
    assert key.kid == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"  # appendix A.3
    assert key.jwk["x"] == "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_key_is_the_same_after_it_was_stored(algorithm):
    key = KEYS[algorithm]
    again = opened(key.private_bytes(), algorithm, 1, 0.0)
    assert again.kid == key.kid
    assert read(issue(again, CLAIMS), ring(key)) == CLAIMS
    assert "private" not in repr(key)


def attacks() -> dict[str, str]:
    key = KEYS["RS256"]
    good = issue(key, CLAIMS)
    head, body, signature = good.split(".")
    header = {"alg": "RS256", "typ": "at+jwt", "kid": key.kid}
    twice = compact(header)[:-1] + b',"alg":"none"}'
    public = json.dumps(dict(key.jwk)).encode()
    hs = f"{b64(compact({**header, 'alg': 'HS256'}))}.{body}"
    return {
        "none": forged({**header, "alg": "none"}),
        "None": forged({**header, "alg": "None"}),
        "empty signature": f"{head}.{body}.",
        "hs with the public key": f"{hs}.{b64(hmac.digest(public, hs.encode(), 'sha256'))}",
        "other claims": f"{head}.{b64(compact({'sub': 'root'}))}.{signature}",
        "jku": forged({**header, "jku": "https://evil.example/k"}, CLAIMS, unb64(signature)),
        "jwk": forged({**header, "jwk": dict(key.jwk)}, CLAIMS, unb64(signature)),
        "x5u": forged({**header, "x5u": "https://evil.example"}, CLAIMS, unb64(signature)),
        "crit": forged({**header, "crit": ["exp"]}, CLAIMS, unb64(signature)),
        "typ": forged({**header, "typ": "JWT"}, CLAIMS, unb64(signature)),
        "kid path": forged({**header, "kid": "../../dev/null"}),
        "kid number": forged({**header, "kid": 1}),
        "kid list": forged({**header, "kid": [key.kid]}),
        "no kid": forged({"alg": "RS256", "typ": "at+jwt"}),
        "twice alg": f"{b64(twice)}.{body}.{signature}",
        "padding": f"{head}=.{body}.{signature}",
        "other spelling": good[:-1] + ("B" if good[-1] != "B" else "C"),
        "four parts": good + ".x",
        "two parts": f"{head}.{body}",
        "nothing": "",
        "dots": "..",
        "space": " " + good,
        "newline": good + "\n",
        "plus": good.replace("-", "+").replace("_", "/") + "+",
        "not ascii": good + "é",
        "surrogate": "\ud800",
        "huge": "a" * 10_000_000,
        "deep": f"{b64(b'[' * 9000)}.{body}.{signature}",
        "list": f"{b64(b'[]')}.{body}.{signature}",
        "digest": forged(header, CLAIMS, hashlib.sha256(b"").digest()),
    }


ATTACKS = attacks()


@pytest.mark.parametrize("name", ATTACKS)
def test_a_forged_token_is_refused(name):
    with pytest.raises(Unverified):
        read(ATTACKS[name], ring(*KEYS.values()))


@pytest.mark.parametrize(
    "changed",
    [
        {"typ": "JWT"},
        {"jku": "https://evil.example"},
        {"crit": ["b64"], "b64": False},
        {"alg": "ES256"},
    ],
    ids=["type", "jku", "crit", "algorithm"],
)
def test_a_header_that_is_not_ours_is_refused_even_when_our_key_has_signed_it(changed):
    key = KEYS["EdDSA"]
    header = {"alg": "EdDSA", "typ": "at+jwt", "kid": key.kid, **changed}
    data = f"{b64(compact(header))}.{b64(compact(CLAIMS))}"
    with pytest.raises(Unverified, match="not one that we write"):
        read(f"{data}.{b64(_sign(key, data.encode()))}", ring(key))


def test_a_signature_has_one_spelling():
    token = issue(KEYS["EdDSA"], CLAIMS)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for char in alphabet.replace(token[-1], ""):
        with pytest.raises(Unverified):
            read(token[:-1] + char, ring(KEYS["EdDSA"]))


@given(st.binary(max_size=80))
def test_base64url_has_one_spelling(data):
    assert unb64(b64(data)) == data
    assert b64(data) == base64.urlsafe_b64encode(data).decode().rstrip("=")


@given(st.text(max_size=60))
def test_no_text_is_a_token(text):
    with pytest.raises(Unverified):
        read(text, ring(*KEYS.values()))
