"""Published examples: RFC 7515, 7516 and 7517 appendix A, RFC 7519 sections 3.1 and 6.1, RFC 8037
appendix A.
"""

from __future__ import annotations

import json

import pytest

from headgate.security.tokens.jwk import read_jwks
from headgate.security.tokens.keys import KeysUnusable
from headgate.security.tokens.rules import TokenRules
from headgate.security.tokens.strict import b64url
from headgate.security.tokens.verify import ENCRYPTED, EXPIRED, UNSIGNED, Flaw, Token, verify
from tests.security.jwt_tokens import b64

JOE = (
    "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
)
JOE_ENDS = 1300819380.0

A1_KEY = {
    "kty": "oct",
    "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow",
}
A1 = f"eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{JOE}.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"

A2_KEY = {
    "kty": "RSA",
    "n": (
        "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4"
        "d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5re"
        "xMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxX"
        "FvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"
    ),
    "e": "AQAB",
}
A2 = (
    f"eyJhbGciOiJSUzI1NiJ9.{JOE}."
    "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7"
    "AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4"
    "BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K"
    "0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqv"
    "hJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrB"
    "p0igcN_IoypGlUPQGe77Rw"
)

A3_KEY = {
    "kty": "EC",
    "crv": "P-256",
    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
}
A3 = (
    f"eyJhbGciOiJFUzI1NiJ9.{JOE}."
    "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
)

# Signs the text "Payload", which is no JWT: for the key alone.
A4_KEY = {
    "kty": "EC",
    "crv": "P-521",
    "x": "AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk",
    "y": "ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2",
}
A4 = (
    "eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA."
    "AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZq"
    "wqT2SI-KGDKB34XO0aw_7XdtAG8GaSwFKdCAPZgoXD2YBJZCPEX3xKpRwcdOO8Kp"
    "EHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn"
)

# The key is that of RFC 8032 section 7.1, test 1.
ED25519_KEY = {
    "kty": "OKP",
    "crv": "Ed25519",
    "x": b64(bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")),
}
ED25519 = (
    "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc."
    "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
)


def rules(algorithm: str) -> TokenRules:
    return TokenRules(algorithms=frozenset({algorithm}), issuers=frozenset({"joe"}), leeway_s=0.0)


def keys(jwk: dict[str, str]):
    return read_jwks(json.dumps(jwk).encode(), is_public=False, is_strict=True)


JWTS = [
    pytest.param(A1, A1_KEY, "HS256", id="7515-A1-HS256"),
    pytest.param(A2, A2_KEY, "RS256", id="7515-A2-RS256"),
    pytest.param(A3, A3_KEY, "ES256", id="7515-A3-ES256"),
]


@pytest.mark.parametrize("text, jwk, algorithm", JWTS)
def test_the_examples_of_rfc_7515_hold_until_they_expire(text, jwk, algorithm):
    got = verify(text.encode(), rules(algorithm), keys(jwk), JOE_ENDS - 1)
    assert isinstance(got, Token)
    assert got.claims == {"iss": "joe", "exp": 1300819380, "http://example.com/is_root": True}
    assert verify(text.encode(), rules(algorithm), keys(jwk), JOE_ENDS) == EXPIRED


@pytest.mark.parametrize("text, jwk, algorithm", JWTS)
def test_the_examples_fail_with_a_byte_changed(text, jwk, algorithm):
    changed = text.replace(JOE, JOE[:-4] + b64(b"x}}"))
    assert isinstance(verify(changed.encode(), rules(algorithm), keys(jwk), 0.0), Flaw)


@pytest.mark.parametrize(
    "text, jwk, algorithm",
    [
        pytest.param(A4, A4_KEY, "ES512", id="7515-A4-ES512"),
        pytest.param(ED25519, ED25519_KEY, "EdDSA", id="8037-A4-Ed25519"),
    ],
)
def test_signatures_of_texts_that_are_no_tokens_fit_their_keys(text, jwk, algorithm):
    (key,) = keys(jwk).keys
    signed, _, signature = text.encode().rpartition(b".")
    assert key.verify(algorithm, signed, b64url(signature))
    assert not key.verify(algorithm, signed + b"x", b64url(signature))


def test_the_unsecured_example_of_rfc_7519_is_refused():
    text = f"eyJhbGciOiJub25lIn0.{JOE}."
    assert verify(text.encode(), rules("HS256"), keys(A1_KEY), 0.0) == UNSIGNED


# RFC 7517 appendix A.1: a key for encryption, and one for signatures.
A1_SET = [
    {
        "kty": "EC",
        "crv": "P-256",
        "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
        "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
        "use": "enc",
        "kid": "1",
    },
    {
        "kty": "RSA",
        "n": (
            "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_B"
            "JECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_F"
            "DW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4"
            "vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
        ),
        "e": "AQAB",
        "alg": "RS256",
        "kid": "2011-04-29",
    },
]
# Appendix A.2: the same with what only the owner has.
A2_D = "870MB6gfuTJ4HtUnUvYMyJpr5eUZNP4Bk43bVdj3eAE"
# Appendix A.3: a secret for wrapping keys, and that of RFC 7515 appendix A.1.
A3_SET = [
    {"kty": "oct", "alg": "A128KW", "k": "GawgguFyGrWKav7AX4VKUg"},
    {**A1_KEY, "kid": "HMAC key used in JWS spec Appendix A.1 example"},
]

# RFC 7516 appendix A.1; RFC 7519 appendix A.1 differs in what is sealed.
JWE = (
    "eyJhbGciOiJSU0EtT0FFUCIsImVuYyI6IkEyNTZHQ00ifQ."
    "OKOawDo13gRp2ojaHV7LFpZcgV7T6DVZKTyKOMTYUmKoTCVJRgckCL9kiMT03JGeipsEdY3mx_etLbbWSrFr05kLzcSr4qKAq7YN7e9jwQRb23nfa6c9"
    "d-StnImGyFDbSv04uVuxIp5Zms1gNxKKK2Da14B8S4rzVRltdYwam_lDp5XnZAYpQdb76FdIKLaVmqgfwX7XWRxv2322i-vDxRfqNzo_tETKzpVLzfiw"
    "QyeyPGLBIO56YJ7eObdv0je81860ppamavo35UgoRdbYaBcoh9QcfylQr66oc6vFWXRcZ_ZT2LawVCWTIy3brGPi6UklfCpIMfIjf7iGdXKHzg."
    "48V1_ALb6US04U3b."
    "5eym8TW_c8SuK0ltJ3rpYIzOeDQz7TALvtu6UG9oMo4vpzs9tX_EFShS8iB7j6jiSdiwkIr3ajwQzaBtQD_A."
    "XFBoMYUZodetZdvTiFvSkQ"
)  # fmt: skip


def key_set(*members: dict[str, str]):
    content = json.dumps({"keys": members}).encode()
    return read_jwks(content, is_public=True, is_strict=False)


def test_of_the_set_of_rfc_7517_the_key_for_signatures_is_taken():
    (key,) = key_set(*A1_SET).keys
    assert key.kid == "2011-04-29"
    assert key.algorithms == frozenset({"RS256"})


def test_the_private_set_of_rfc_7517_is_refused_whole():
    for at in range(2):
        members = [{**each, "d": A2_D} if n == at else each for n, each in enumerate(A1_SET)]
        with pytest.raises(KeysUnusable, match="PRIVATE"):
            key_set(*members)


def test_the_secrets_of_rfc_7517_are_for_files_alone():
    with pytest.raises(KeysUnusable):
        key_set(*A3_SET)
    kept = read_jwks(json.dumps({"keys": A3_SET}).encode(), is_public=False, is_strict=False)
    (key,) = kept.keys
    assert key.kid == "HMAC key used in JWS spec Appendix A.1 example"
    assert isinstance(verify(A1.encode(), rules("HS256"), kept, JOE_ENDS - 1), Token)


def test_the_encrypted_example_of_rfc_7516_is_refused():
    assert verify(JWE.encode(), rules("RS256"), keys(A2_KEY), 0.0) == ENCRYPTED


def test_the_json_forms_of_rfc_7515_are_no_tokens():
    header, payload, signature = A2.split(".")
    flattened = {"payload": payload, "protected": header, "signature": signature}
    general = {"payload": payload, "signatures": [{"protected": header, "signature": signature}]}
    for form in (flattened, general):
        text = json.dumps(form).encode()
        assert verify(text, rules("RS256"), keys(A2_KEY), JOE_ENDS - 1) is None
