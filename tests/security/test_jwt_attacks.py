"""The classic attacks on JWT, each by its name, against a method as the gateway builds it."""

from __future__ import annotations

import base64
import hmac
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from headgate.security.method import Refused, Verified
from headgate.security.method_jwt import JwtMethod
from headgate.security.tokens.algorithms import CURVES
from headgate.security.tokens.rules import PUBLIC_ALGORITHMS
from headgate.security.tokens.source import FixedKeys
from tests.security.jwt_tokens import (
    ALL,
    ISSUER,
    NOW,
    SECRET,
    Request,
    b64,
    bearer,
    claims,
    jwk,
    jwt_rules,
    key_set,
    private_key,
    public_pem,
    signature,
    token,
    token_rules,
)

KEYS = key_set(jwk("RSA", "rsa"), jwk("ES256", "ec"), jwk("EdDSA", "ed"), jwk("HS256", "secret"))


def method(**more) -> JwtMethod:
    return JwtMethod(jwt_rules(token_rules(**more)), source=FixedKeys(KEYS))


def said(text: bytes, **more) -> str:
    found = method(**more).verify(bearer(text), NOW)
    if isinstance(found, Refused):
        assert found.status == 401 and 'error="invalid_token"' in found.challenge
        return found.error
    return "taken" if isinstance(found, Verified) else "not ours"


def with_header(text: bytes, header: object) -> bytes:
    """The token under another header, its signature as it was."""
    _, payload, signed = text.split(b".")
    return b".".join((b64(json.dumps(header).encode()).encode(), payload, signed))


def test_the_tokens_of_this_page_are_good_before_they_are_attacked():
    for alg, kid in (("RS256", "rsa"), ("ES256", "ec"), ("EdDSA", "ed"), ("HS256", "secret")):
        assert said(token(alg=alg, kid=kid)) == "taken"


@pytest.mark.parametrize(
    "name", ["none", "None", "NONE", "nOnE", " none", "none ", "\tnone", "NoNe\n"], ids=repr
)
@pytest.mark.parametrize("tail", [b"", b"AA", b"x" * 86], ids=["empty", "short", "long"])
def test_alg_none_in_all_spellings(name, tail):
    head, payload, _ = token(header={"alg": name, "kid": "ec"}).split(b".")
    assert said(b".".join((head, payload, tail))) in ("unsigned", "malformed")


@pytest.mark.parametrize("name", ["", "null", "n\u043ene", "none\0", "0"], ids=ascii)
def test_alg_that_means_nothing(name):
    head, payload, _ = token(header={"alg": name, "kid": "ec"}).split(b".")
    assert said(b".".join((head, payload, b""))) == "bad_algorithm"


@pytest.mark.parametrize("alg", ["HS256", "HS384", "HS512"])
@pytest.mark.parametrize("kid", ["rsa", None], ids=["kid", "no-kid"])
def test_public_key_as_hmac_secret(alg, kid):
    pem = public_pem("RSA")
    der = (
        private_key("RSA")
        .public_key()
        .public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    )
    modulus = base64.urlsafe_b64decode(jwk("RSA")["n"] + "==")
    for secret in (pem, pem.strip(), der, modulus, jwk("RSA")["n"].encode(), b""):
        made = token(alg=alg, kid=kid, key=secret)
        assert said(made) in ("bad_algorithm", "bad_signature")
        assert said(made, algorithms=frozenset(PUBLIC_ALGORITHMS)) == "bad_algorithm"


@pytest.mark.parametrize("alg", sorted(ALL))
@pytest.mark.parametrize(
    "kid, own", [("rsa", "RP"), ("ec", "ES256"), ("ed", "Ed"), ("secret", "HS256")]
)
def test_algorithm_of_another_kind_of_key(alg, kid, own):
    fits = alg[0] in own if own == "RP" else alg.startswith(own)
    assert said(token(alg=alg, kid=kid)) == ("taken" if fits else "bad_algorithm")


@pytest.mark.parametrize(
    "kid",
    [
        "../../../../dev/null",
        "/dev/null",
        "/proc/sys/kernel/randomize_va_space",
        "file:///dev/null",
        "..\\..\\windows\\win.ini",
        "x' UNION SELECT 'aaaa'; --",
        "'; DROP TABLE keys; --",
        "| sleep 10",
        "$(id)",
        "`id`",
        "https://attacker.example/key",
        "rsa\0.pem",
        "{{7*7}}",
        "%2e%2e%2fdev%2fnull",
        "ec\r\nx-admin: 1",
    ],
    ids=ascii,
)
def test_kid_that_is_a_path_a_query_or_a_command(kid):
    for alg, key in (("HS256", b""), ("HS256", b"aaaa"), ("ES256", None)):
        assert said(token(alg=alg, kid=kid, key=key)) == "unknown_key"


@pytest.mark.parametrize("place", ["jwk", "jku", "x5u", "x5c", "x5t", "x5t#S256"])
def test_key_that_the_token_brings_along(place):
    """Signed by the attacker's own key, which the header offers or points at."""
    own = private_key("ES256", 7)
    offered = {
        "jwk": jwk("ES256", "ec", index=7),
        "jku": "https://attacker.example/jwks.json",
        "x5u": "http://127.0.0.1:1/cert.pem",
        "x5c": [base64.b64encode(b"certificate").decode()],
        "x5t": "abc",
        "x5t#S256": "abc",
    }[place]
    for kid in ({"kid": "ec"}, {}):
        made = token(header={"alg": "ES256", place: offered, **kid}, key=own)
        assert said(made) == "bad_signature"
    good = token(header={"alg": "ES256", "kid": "ec", place: offered})
    assert said(good) == "taken"  # it is ignored and not asked


@pytest.mark.parametrize(
    "alg, kid", [("RS256", "rsa"), ("ES256", "ec"), ("EdDSA", "ed"), ("HS256", "secret")]
)
def test_empty_signature(alg, kid):
    stripped = token(alg=alg, kid=kid).rpartition(b".")[0] + b"."
    assert said(stripped) == "unsigned"


def test_signature_cut_off_with_its_dot():
    assert said(token(kid="ec").rpartition(b".")[0]) == "not ours"


@pytest.mark.parametrize(
    "alg, kid", [("RS256", "rsa"), ("ES256", "ec"), ("EdDSA", "ed"), ("HS256", "secret")]
)
@pytest.mark.parametrize("octets", [1, 16, 31, 33, 63, 65, 255, 257, 600])
def test_signature_of_another_length(alg, kid, octets):
    signed, _, good = token(alg=alg, kid=kid).rpartition(b".")
    whole = base64.urlsafe_b64decode(good + b"==")
    for made in (whole[:octets], (whole + bytes(600))[:octets], bytes(octets)):
        if made != whole:
            text = signed + b"." + b64(made).encode()
            assert said(text, max_bytes=8192) == "bad_signature"


@pytest.mark.parametrize("name", sorted(CURVES))
def test_the_orders_of_the_curves_are_their_orders(name):
    made = {"secp256r1": ec.SECP256R1(), "secp384r1": ec.SECP384R1(), "secp521r1": ec.SECP521R1()}
    curve, order = made[name], CURVES[name][2]
    minus_one = ec.derive_private_key(order - 1, curve).public_key().public_numbers()
    assert minus_one.x == ec.derive_private_key(1, curve).public_key().public_numbers().x


def ecdsa_pairs(name: str) -> list[tuple[int, int]]:
    order = CURVES[name][2]
    return [(0, 0), (0, 1), (1, 0), (order, 0), (0, order), (order, order), (1, 1), (order, 1)]


@pytest.mark.parametrize("alg, name", [(each[0], name) for name, each in CURVES.items()])
def test_psychic_signature(alg, name):
    width = CURVES[name][1]
    keys = key_set(jwk(alg, "k"))
    asked = JwtMethod(jwt_rules(), source=FixedKeys(keys))
    signed = token(alg=alg, kid="k").rpartition(b".")[0]
    for r, s in ecdsa_pairs(name):
        made = r.to_bytes(width, "big") + s.to_bytes(width, "big")
        found = asked.verify(bearer(signed + b"." + b64(made).encode()), NOW)
        assert isinstance(found, Refused) and found.error == "bad_signature"


def test_ecdsa_signature_in_der():
    signed = token(kid="ec").rpartition(b".")[0]
    from cryptography.hazmat.primitives import hashes

    der = private_key("ES256").sign(signed, ec.ECDSA(hashes.SHA256()))
    assert said(signed + b"." + b64(der).encode()) == "bad_signature"


def test_ecdsa_signature_with_a_zero_more():
    """The numbers are the same, so only the length tells."""
    signed, _, good = token(kid="ec").rpartition(b".")
    whole = base64.urlsafe_b64decode(good + b"==")
    longer = whole[:32] + b"\0" + whole[32:]
    assert said(signed + b"." + b64(longer).encode()) == "bad_signature"


def test_ed25519_signature_with_the_order_added():
    """S + L verifies under the same equation; RFC 8032 section 5.1.7 refuses it."""
    signed, _, good = token(alg="EdDSA", kid="ed").rpartition(b".")
    made = base64.urlsafe_b64decode(good + b"==")
    order = 2**252 + 27742317777372353535851937790883648493
    s = int.from_bytes(made[32:], "little") + order
    forged = made[:32] + s.to_bytes(32, "little")
    assert said(signed + b"." + b64(forged).encode()) == "bad_signature"


def test_rsa_signature_without_padding_check():
    """Bleichenbacher 2006: what stands behind the digest is checked too."""
    n = private_key("RSA").public_key().public_numbers().n
    signed = token(alg="RS256", kid="rsa").rpartition(b".")[0]
    for number in (0, 1, n - 1, n, n + 1, 2 ** (8 * 256) - 1):
        made = number.to_bytes(256, "big")
        assert said(signed + b"." + b64(made).encode()) == "bad_signature"


def test_pss_signature_with_another_salt():
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding

    signed = token(alg="PS256", kid="rsa").rpartition(b".")[0]
    for salt in (0, 20, 64):
        scheme = padding.PSS(padding.MGF1(hashes.SHA256()), salt)
        made = private_key("RSA").sign(signed, scheme, hashes.SHA256())
        assert said(signed + b"." + b64(made).encode()) == "bad_signature"


def test_signature_of_one_algorithm_under_the_name_of_another():
    good = token(alg="RS256", kid="rsa")
    for alg in ("RS384", "PS256", "PS512"):
        assert said(with_header(good, {"alg": alg, "kid": "rsa"})) == "bad_signature"


def test_wrong_curve():
    made = token(alg="ES384", kid="ec")
    assert said(made) == "bad_algorithm"
    assert said(with_header(made, {"alg": "ES256", "kid": "ec"})) == "bad_signature"


@pytest.mark.parametrize("octets", [8 * 1024, 100_000, 10_000_000], ids=str)
def test_huge_token(octets):
    assert said(token(claims(pad="x" * octets), kid="ec")) == "too_large"
    assert said(b"ey" + b"A" * octets + b"." + b"." * 1) == "too_large"
    assert said(b"eyJ." + b"." * octets) == "not ours"


def test_deeply_nested_claims():
    deep = b'{"a":' + b"[" * 3000 + b"]" * 3000 + b"}"
    assert said(token(deep, kid="ec")) == "malformed"


@pytest.mark.parametrize(
    "payload",
    [
        f'{{"iss":"{ISSUER}","sub":"ada","sub":"admin","exp":1900000000,"aud":"shop"}}',
        f'{{"iss":"{ISSUER}","exp":1,"exp":1900000000,"aud":"shop","sub":"ada"}}',
        f'{{"iss":"{ISSUER}","exp":1900000000,"aud":"shop","sub":"a","r":{{"x":1,"x":2}}}}',
        f'{{"iss":"{ISSUER}","\\u0069ss":"x","exp":1900000000,"aud":"shop","sub":"a"}}',
    ],
    ids=["sub", "exp", "within", "escaped"],
)
def test_duplicate_claims(payload):
    assert said(token(payload.encode(), kid="ec")) == "malformed"


def test_duplicate_header_members():
    for header in (
        b'{"alg":"none","alg":"ES256","kid":"ec"}',
        b'{"alg":"ES256","kid":"x","kid":"ec"}',
    ):
        assert said(token(header=header)) == "malformed"


def test_jwe():
    head = b64(json.dumps({"alg": "RSA-OAEP", "enc": "A256GCM", "kid": "rsa"}).encode()).encode()
    assert said(head + b".AAAA.AAAA.AAAA.AAAA") == "encrypted"


def test_nested_jwe_in_a_signed_token():
    inner = b64(b'{"alg":"dir","enc":"A256GCM"}') + "..AAAA.AAAA.AAAA"
    assert said(token(inner.encode(), kid="ec", cty="JWT")) == "malformed"
    assert said(token(inner.encode(), kid="ec")) == "malformed"


def test_json_serialisation_of_a_jws():
    head, payload, signed = token(kid="ec").decode().split(".")
    text = json.dumps({"protected": head, "payload": payload, "signature": signed})
    assert said(text.encode()) == "not ours"


def test_secret_that_is_guessed():
    for secret in (b"", b"secret", b"a" * 32, SECRET[:31], SECRET[:33]):
        assert said(token(alg="HS256", kid="secret", key=secret)) == "bad_signature"


def test_hmac_signature_cut_short():
    signed = token(alg="HS256", kid="secret").rpartition(b".")[0]
    whole = hmac.digest(SECRET[:32], signed, "sha256")
    for octets in (1, 16, 31):
        assert said(signed + b"." + b64(whole[:octets]).encode()) == "bad_signature"


def test_signature_moved_to_other_claims():
    head, _, signed = token(kid="ec").split(b".")
    other = token(claims(sub="admin"), kid="ec").split(b".")[1]
    assert said(b".".join((head, other, signed))) == "bad_signature"


def test_white_space_and_padding_make_no_second_token():
    """A token that was revoked or refused by its bytes cannot come back in other ones."""
    good = token(kid="ec")
    parts = good.split(b".")
    for changed in (
        good + b"=",
        good.replace(b".", b". "),
        b".".join((parts[0], parts[1], parts[2] + b"==")),
        b".".join((parts[0] + b"\n", parts[1], parts[2])),
    ):
        assert said(changed) == "malformed"


def test_two_authorization_headers():
    good = token(kid="ec")
    asked = method()
    for other in (b"Bearer " + good, b"Bearer x", b"Basic YTpi", b""):
        for fields in ((b"Bearer " + good, other), (other, b"Bearer " + good)):
            found = asked.verify(Request([(b"authorization", each) for each in fields]), NOW)
            assert isinstance(found, Refused) and found.status == 400
            assert 'error="invalid_request"' in found.challenge


def test_two_tokens_in_one_header():
    good = token(kid="ec")
    for text in (good + b", Bearer " + good, good + b"," + good, good + b" " + good):
        assert said(text) in ("malformed", "not ours")


def test_challenge_cannot_be_split():
    asked = JwtMethod(jwt_rules(realm='a"\r\nset-cookie: x=1\\'), source=FixedKeys(KEYS))
    assert asked.challenge == 'Bearer realm="aset-cookie: x=1"'


def test_signature_over_other_bytes_with_the_same_meaning():
    """The signature is over what was sent, not over what it means."""
    head, payload, signed = token(kid="ec").split(b".")
    again = b64(json.dumps(claims(), separators=(", ", ": ")).encode()).encode()
    assert again != payload
    assert said(b".".join((head, again, signed))) == "bad_signature"
    assert signature("HS256", b"x", b"k") != signature("HS256", b"y", b"k")
