"""Which keys are used at all."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from headgate.security.tokens.jwk import read_jwks, read_keys
from headgate.security.tokens.keys import KeysUnusable, secret_keys
from headgate.security.tokens.rules import HMAC_ALGORITHMS
from tests.security.jwt_tokens import (
    SECRET,
    b64,
    b64_int,
    jwk,
    key_set,
    private_key,
    private_pem,
    public_pem,
)

HS = frozenset(HMAC_ALGORITHMS)


def weak_rsa(bits: int) -> dict[str, str]:
    numbers = rsa.generate_private_key(65537, bits).public_key().public_numbers()
    return {"kty": "RSA", "n": b64_int(numbers.n), "e": "AQAB"}


def changed(made: dict, **more) -> dict:
    return {name: value for name, value in {**made, **more}.items() if value is not None}


def n_of() -> int:
    return private_key("RSA").public_key().public_numbers().n


FAULTS = [
    pytest.param(lambda: weak_rsa(1024), "RSA with 1024 bits; it needs 2048", id="rsa-1024"),
    pytest.param(
        lambda: {"kty": "RSA", "n": b64_int((1 << 20000) + 1), "e": "AQAB"},
        "at most 8192",
        id="rsa-20000",
    ),
    pytest.param(lambda: jwk("RSA", e=b64_int(65536)), "exponent is even", id="rsa-even-e"),
    pytest.param(lambda: jwk("RSA", e=b64_int(1)), "exponent", id="rsa-e-1"),
    pytest.param(lambda: jwk("RSA", e=b64_int((1 << 2000) + 1)), "exponent", id="rsa-huge-e"),
    pytest.param(lambda: jwk("RSA", n=b64_int(n_of() - 1)), "modulus is even", id="rsa-even-n"),
    pytest.param(lambda: jwk("RSA", n=jwk("RSA")["n"] + "="), "base64url", id="rsa-padded"),
    pytest.param(lambda: jwk("RSA", e="AQAC/"), "base64url", id="rsa-other-alphabet"),
    pytest.param(lambda: jwk("RSA", e="AR"), "bits are left over", id="rsa-not-canonical"),
    pytest.param(lambda: changed(jwk("RSA"), e=None), '"e" is missing', id="rsa-no-e"),
    pytest.param(lambda: jwk("RSA", n=5), '"n" is missing or no text', id="rsa-n-number"),
    pytest.param(lambda: jwk("RSA", alg="ES256"), "alg does not fit", id="rsa-with-es"),
    pytest.param(lambda: jwk("RSA", alg="HS256"), "alg does not fit", id="rsa-with-hs"),
    pytest.param(lambda: jwk("RSA", alg="none"), "alg does not fit", id="rsa-with-none"),
    pytest.param(lambda: jwk("RSA", alg=5), "alg does not fit", id="alg-number"),
    pytest.param(lambda: jwk("ES256", alg="ES384"), "alg does not fit", id="ec-curve-alg"),
    pytest.param(lambda: jwk("ES256", crv="P-384"), "48 bytes each", id="ec-wrong-curve"),
    pytest.param(lambda: jwk("ES256", x=b64(b"\1" * 32)), "not on its curve", id="ec-off-curve"),
    pytest.param(lambda: jwk("ES256", x=b64(bytes(32)), y=b64(bytes(32))), "curve", id="ec-zero"),
    pytest.param(lambda: jwk("ES256", x=b64(b"\0" * 33)), "32 bytes each", id="ec-long-x"),
    pytest.param(lambda: jwk("EdDSA", x=b64(b"\1" * 31)), "32 bytes", id="ed-short"),
    pytest.param(lambda: jwk("EdDSA", x=b64(bytes(32))), "small order", id="ed-small-order"),
    pytest.param(
        lambda: jwk("EdDSA", x=b64(b"\1" + bytes(30) + b"\x80")), "small order", id="ed-signed-one"
    ),
    pytest.param(lambda: {"kty": "oct", "k": b64(b"x" * 31)}, "32 bytes", id="hmac-short"),
    pytest.param(lambda: {"kty": "oct", "k": ""}, '"k" is missing', id="hmac-empty"),
    pytest.param(
        lambda: {"kty": "oct", "k": b64(b"x" * 32), "alg": "HS512"}, "does not fit", id="hmac-alg"
    ),
    pytest.param(lambda: {**jwk("RSA"), "kid": 5}, "kid is not text", id="kid-number"),
    pytest.param(lambda: jwk("RSA", kid="k" * 300), "kid is not text", id="kid-long"),
    pytest.param(lambda: jwk("RSA", use=["sig"]), "not for signatures", id="use-list"),
    pytest.param(lambda: jwk("RSA", key_ops="verify"), "key_ops is not a list", id="ops-text"),
    pytest.param(lambda: 5, "not a JSON object", id="number"),
    pytest.param(lambda: {"kty": ["RSA"]}, "not known here", id="kty-list"),
]


@pytest.mark.parametrize("make, said", FAULTS)
def test_a_file_with_a_key_that_must_not_be_used_is_refused(make, said):
    with pytest.raises(KeysUnusable) as error:
        key_set(make(), jwk("ES384", "good"))
    assert said in str(error.value)


@pytest.mark.parametrize("make, said", FAULTS)
def test_a_fetched_set_goes_on_without_such_a_key_and_says_so(make, said):
    keys = key_set(make(), jwk("ES384", "good"), is_public=True, is_strict=False)
    assert [key.kid for key in keys.keys] == ["good"]
    assert len(keys.warnings) == 1


def test_a_secret_in_a_public_set_is_left_out():
    keys = key_set(jwk("HS256", "s"), jwk("ES256", "e"), is_public=True, is_strict=False)
    assert [key.kid for key in keys.keys] == ["e"]
    assert "once it is published" in keys.warnings[0]
    with pytest.raises(KeysUnusable, match="no usable key"):
        key_set(jwk("HS256", "s"), is_public=True, is_strict=False)


@pytest.mark.parametrize("is_strict", [True, False], ids=["file", "fetched"])
@pytest.mark.parametrize("member", ["d", "p", "q", "dp", "dq", "qi", "oth"])
def test_a_private_key_refuses_the_whole_set_and_is_not_repeated(is_strict, member):
    with pytest.raises(KeysUnusable) as error:
        key_set(
            jwk("ES256", "good"), {**jwk("RSA", "bad"), member: "c2VjcmV0"}, is_strict=is_strict
        )
    assert "PRIVATE" in str(error.value) and "'bad'" in str(error.value)
    assert "c2VjcmV0" not in str(error.value)


@pytest.mark.parametrize("is_strict", [True, False], ids=["file", "fetched"])
def test_a_private_key_of_an_unknown_kind_is_seen_too(is_strict):
    with pytest.raises(KeysUnusable, match="PRIVATE"):
        key_set(jwk("ES256"), {"kty": "AKP", "alg": "ML-DSA-44", "d": "xx"}, is_strict=is_strict)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(lambda: jwk("ES256", "same", index=1), id="two-keys"),
        pytest.param(lambda: jwk("ES256", "same"), id="one-key-twice"),
        pytest.param(lambda: jwk("RSA", "same"), id="two-kinds"),
        pytest.param(lambda: {"kty": "new", "kid": "same"}, id="one-unknown"),
        pytest.param(lambda: jwk("RSA", "same", use="enc"), id="one-for-encryption"),
    ],
)
def test_a_name_for_two_keys_refuses_the_set(other):
    for is_strict in (True, False):
        with pytest.raises(KeysUnusable, match="same kid"):
            key_set(jwk("ES256", "same"), other(), is_strict=is_strict)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"kty": "AKP", "alg": "ML-DSA-44", "pub": "xx"}, id="unknown-kty"),
        pytest.param({"kty": "EC", "crv": "secp256k1", "x": "", "y": ""}, id="unknown-curve"),
        pytest.param({"kty": "OKP", "crv": "X25519", "x": ""}, id="x25519"),
        pytest.param({"kty": "RSA", "use": "enc", "n": "AQAB", "e": "AQAB"}, id="for-encryption"),
        pytest.param({"kty": "RSA", "key_ops": ["encrypt"], "n": "AQAB"}, id="other-operations"),
    ],
)
def test_keys_for_something_else_are_passed_over_also_in_files(other):
    keys = key_set(other, jwk("ES256", "good", use="sig", key_ops=["verify"]))
    assert [key.kid for key in keys.keys] == ["good"] and len(keys.warnings) == 1


@pytest.mark.parametrize(
    "octets",
    [
        b"", b"{}", b"[]", b'{"keys":{}}', b'{"keys":[]}', b'{"keys":null}', b"garbage", b"\xff",
        b'{"keys":[],"keys":[]}', b"{" * 100, b'{"keys":[null]}',
        json.dumps({"keys": [{"kty": "x", "kid": str(i)} for i in range(300)]}).encode(),
    ],
    ids=lambda octets: f"{len(octets)}-bytes-{octets[:8].hex()}",
)  # fmt: skip
def test_what_is_no_key_set_is_refused(octets):
    with pytest.raises(KeysUnusable):
        read_jwks(octets, is_public=True, is_strict=False)


@pytest.mark.parametrize(
    "algorithm, algorithms",
    [
        ("RSA", {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
        ("ES256", {"ES256"}),
        ("ES384", {"ES384"}),
        ("ES512", {"ES512"}),
        ("EdDSA", {"EdDSA", "Ed25519"}),
    ],
)
def test_the_kind_of_a_key_decides_its_algorithms(algorithm, algorithms):
    for octets in (public_pem(algorithm), json.dumps(jwk(algorithm)).encode()):
        (key,) = read_keys(octets).keys
        assert key.algorithms == algorithms


def test_alg_narrows_a_key_and_both_names_of_ed25519_are_one():
    (key,) = key_set(jwk("RSA", alg="PS384")).keys
    assert key.algorithms == {"PS384"}
    for name in ("EdDSA", "Ed25519"):
        (key,) = key_set(jwk("EdDSA", alg=name)).keys
        assert key.algorithms == {"EdDSA", "Ed25519"}


def test_a_pem_file_may_hold_several_keys():
    keys = read_keys(b"# ours\n" + public_pem("RSA") + public_pem("ES256") + public_pem("EdDSA"))
    assert [key.kind for key in keys.keys] == ["RSA", "EC", "OKP"]


@pytest.mark.parametrize("algorithm", ["RSA", "ES256", "EdDSA"])
def test_a_private_pem_is_refused_with_the_way_out(algorithm):
    with pytest.raises(KeysUnusable, match="openssl pkey -in KEY -pubout"):
        read_keys(private_pem(algorithm))


def pem_of(key) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: pem_of(rsa.generate_private_key(65537, 1024)), id="rsa-1024"),
        pytest.param(lambda: pem_of(ec.generate_private_key(ec.SECP256K1())), id="k1"),
        pytest.param(lambda: pem_of(ed448.Ed448PrivateKey.generate()), id="ed448"),
        pytest.param(lambda: b"-----BEGIN PUBLIC KEY-----\nxx\n-----END PUBLIC KEY-----", id="bad"),
        pytest.param(lambda: b"-----BEGIN PUBLIC KEY-----", id="cut"),
        pytest.param(lambda: b"plain text", id="text"),
    ],
)
def test_a_pem_file_with_a_key_that_must_not_be_used_is_refused(make):
    with pytest.raises(KeysUnusable):
        read_keys(make())


def test_the_table_of_small_points_holds_those_whose_order_divides_8():
    from headgate.security.tokens.jwk import _SMALL_ORDER

    p = 2**255 - 19
    d = -121665 * pow(121666, -1, p) % p

    def order_divides_8(octets: bytes) -> bool:
        y = int.from_bytes(octets, "little") % p
        u, v = (y * y - 1) % p, (d * y * y + 1) % p
        x2 = u * pow(v, -1, p) % p
        x = pow(x2, (p + 3) // 8, p)
        if (x * x - x2) % p:
            x = x * pow(2, (p - 1) // 4, p) % p
        if (x * x - x2) % p:
            return False
        point = (x, y)
        for _ in range(3):
            (a, b), (e, f) = point, point
            k = d * a * b % p * e % p * f % p
            point = (
                (a * f + b * e) * pow(1 + k, -1, p) % p,
                (b * f + a * e) * pow(1 - k, -1, p) % p,
            )
        return point == (0, 1)

    assert len(_SMALL_ORDER) == 7 and all(order_divides_8(each) for each in _SMALL_ORDER)
    good = ed25519.Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    assert not order_divides_8(good[:-1] + bytes([good[-1] & 0x7F]))


@pytest.mark.parametrize(
    "octets, algorithms",
    [(32, {"HS256"}), (47, {"HS256"}), (48, {"HS256", "HS384"}), (64, HS), (200, HS)],
    ids=["32", "47", "48", "64", "200"],
)
def test_a_secret_serves_the_digests_that_it_is_long_enough_for(octets, algorithms):
    (key,) = secret_keys(["x" * octets], "text", HS, named=False).keys
    assert key.algorithms == algorithms


@pytest.mark.parametrize(
    "secret, encoding, algorithms, said",
    [
        pytest.param("x" * 31, "text", HS, "31 bytes and needs 32", id="short"),
        pytest.param("x" * 32, "text", {"HS512"}, "32 bytes and needs 64", id="short-for-512"),
        pytest.param("x" * 32, "text", {"HS256", "HS384"}, "needs 48", id="short-for-one"),
        pytest.param(b64(b"x" * 24), "base64", HS, "24 bytes", id="base64-is-counted-decoded"),
        pytest.param("zz" * 32, "hex", HS, "is not hex", id="hex"),
        pytest.param("!" * 44, "base64", HS, "is not base64", id="base64"),
        pytest.param("-----BEGIN PUBLIC KEY-----", "text", HS, "PEM", id="pem"),
    ],
)
def test_a_secret_that_must_not_be_used_is_refused_without_being_told(
    secret, encoding, algorithms, said
):
    named = algorithms != HS
    with pytest.raises(KeysUnusable) as error:
        secret_keys([secret], encoding, frozenset(algorithms), named=named)
    assert said in str(error.value) and secret not in str(error.value)


def test_secrets_may_stand_beside_each_other_but_not_twice():
    first, second = "a" * 32, "b" * 64
    keys = secret_keys([first, second], "text", HS, named=False)
    assert len(keys.find("any")) == 2
    with pytest.raises(KeysUnusable, match="twice"):
        secret_keys([first, first], "text", HS, named=False)


def test_no_key_shows_its_material():
    secret = SECRET.decode()
    keys = secret_keys([secret], "text", HS, named=False)
    for text in (repr(keys.keys), repr(keys), str(keys.snapshot())):
        assert secret[:8] not in text


def test_sets_that_verify_the_same_have_the_same_mark():
    one, two = jwk("ES256", "1"), jwk("RSA", "2")
    same = key_set(one, two).mark
    assert key_set(two, one).mark == same
    assert key_set({**one, "x5t": "ignored"}, two, {"kty": "new"}).mark == same
    assert key_set(one).mark != same
    assert key_set(one, jwk("RSA", "3")).mark != same
    assert key_set(one, jwk("RSA", "2", index=1)).mark != same
    assert key_set(one, jwk("RSA", "2", alg="RS256")).mark != same


jsonish = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)
members = st.sampled_from(["kty", "kid", "use", "key_ops", "alg", "n", "e", "crv", "x", "y", "k"])
values = jsonish | st.sampled_from(
    ["RSA", "EC", "OKP", "oct", "P-256", "Ed25519", "AQAB", "sig", "verify", "RS256"]
)


@given(st.lists(st.dictionaries(members, values), max_size=4), st.booleans())
def test_reading_a_set_raises_nothing_else(listed, is_strict):
    try:
        read_jwks(json.dumps({"keys": listed}).encode(), is_public=False, is_strict=is_strict)
    except KeysUnusable:
        pass


@given(st.binary(max_size=80))
def test_reading_a_file_raises_nothing_else(octets):
    for made in (octets, b"-----BEGIN PUBLIC KEY-----\n" + octets + b"\n-----END PUBLIC KEY-----"):
        try:
            read_keys(made)
        except KeysUnusable:
            pass
