from __future__ import annotations

import secrets
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.security.accounts.totp import (
    STEP_S,
    canonical_recovery,
    code_at,
    is_totp,
    matching_step,
    recovery_code,
    secret_text,
    uri,
)

SEED = b"12345678901234567890"

# RFC 6238 appendix B: time, digest, code of eight digits. The seed is repeated to the digest's size.
VECTORS = [
    (59, "sha1", "94287082"),
    (59, "sha256", "46119246"),
    (59, "sha512", "90693936"),
    (1111111109, "sha1", "07081804"),
    (1111111109, "sha256", "68084774"),
    (1111111109, "sha512", "25091201"),
    (1111111111, "sha1", "14050471"),
    (1234567890, "sha1", "89005924"),
    (1234567890, "sha256", "91819424"),
    (2000000000, "sha1", "69279037"),
    (2000000000, "sha512", "38618901"),
    (20000000000, "sha1", "65353130"),
    (20000000000, "sha256", "77737706"),
    (20000000000, "sha512", "47863826"),
]
SIZES = {"sha1": 20, "sha256": 32, "sha512": 64}


@pytest.mark.parametrize(
    ("wall", "digest", "code"), VECTORS, ids=[f"{wall}-{digest}" for wall, digest, _ in VECTORS]
)
def test_the_vectors_of_the_rfc(wall, digest, code):
    seed = (SEED * 4)[: SIZES[digest]]
    assert code_at(seed, wall // STEP_S, 8, digest) == code


@pytest.mark.parametrize(
    ("counter", "code"),
    list(
        enumerate(
            [
                "755224",
                "287082",
                "359152",
                "969429",
                "338314",
                "254676",
                "287922",
                "162583",
                "399871",
                "520489",
            ]
        )
    ),
)
def test_the_vectors_of_hotp(counter, code):
    assert code_at(SEED, counter) == code


@pytest.mark.parametrize("drift", [0, 1, 2])
@pytest.mark.parametrize("offset", [-3, -2, -1, 0, 1, 2, 3])
def test_a_code_is_good_within_the_drift(drift, offset):
    wall = 1_800_000_015.0
    step = int(wall // STEP_S) + offset
    found = matching_step(SEED, code_at(SEED, step), wall, drift, None)
    assert found == (step if abs(offset) <= drift else None)


def test_the_same_step_is_refused_and_so_is_an_earlier_one():
    wall = 1_800_000_015.0
    step = int(wall // STEP_S)
    code = code_at(SEED, step)
    assert matching_step(SEED, code, wall, 1, step - 1) == step
    assert matching_step(SEED, code, wall, 1, step) is None
    assert matching_step(SEED, code_at(SEED, step - 1), wall, 1, step) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "12345",
        "1234567",
        "12345a",
        "\uff11\uff12\uff13\uff14\uff15\uff16",
        "\u0660\u0661\u0662\u0663\u0664\u0665",
        "-12345",
    ],
    ids=list("abcdefg"),
)
def test_what_is_no_code(text):
    assert not is_totp(text)
    assert matching_step(SEED, text, 59.0, 1, None) is None


@given(st.binary(min_size=20, max_size=20), st.floats(0, 4e9), st.text(max_size=8))
def test_a_match_is_in_the_window_and_after_the_last_step(secret, wall, text):
    now = int(wall // STEP_S)
    for code in (text, code_at(secret, now)):
        found = matching_step(secret, code, wall, 1, now - 1)
        assert found is None or now - 1 < found <= now + 1


def test_the_uri_names_issuer_account_and_secret():
    made = urllib.parse.urlsplit(uri(SEED, "shop.example", "a+b@shop.example"))
    assert (made.scheme, made.netloc) == ("otpauth", "totp")
    assert urllib.parse.unquote(made.path) == "/shop.example:a+b@shop.example"
    query = dict(urllib.parse.parse_qsl(made.query))
    assert query["secret"] == secret_text(SEED) == "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
    assert query["issuer"] == "shop.example"


def test_a_recovery_code_is_the_same_however_it_is_typed():
    code = recovery_code(secrets.choice)
    assert len(code) == 19
    plain = code.replace("-", "")
    for typed in (code, plain, code.upper(), f"  {plain[:8]} {plain[8:]} "):
        assert canonical_recovery(typed) == plain
    assert not is_totp(code)
