"""Published examples: RFC 7515 appendix A, RFC 7519 sections 3.1 and 6.1, RFC 8037 appendix A."""

from __future__ import annotations

import json

import pytest

from headgate.security.tokens.jwk import read_jwks
from headgate.security.tokens.rules import TokenRules
from headgate.security.tokens.strict import b64url
from headgate.security.tokens.verify import EXPIRED, UNSIGNED, Flaw, Token, verify
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
