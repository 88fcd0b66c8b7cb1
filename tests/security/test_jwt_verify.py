"""What a token must be and say."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.security.tokens.rules import PUBLIC_ALGORITHMS
from headgate.security.tokens.verify import (
    BAD_ALGORITHM,
    BAD_SIGNATURE,
    ENCRYPTED,
    EXPIRED,
    TOO_LARGE,
    UNKNOWN_KEY,
    UNSIGNED,
    Flaw,
    Token,
    claims_flaw,
    looks_like_token,
    read,
    verify,
)
from tests.security.jwt_tokens import (
    ALL,
    NOW,
    b64,
    claims,
    jwk,
    key_set,
    private_key,
    private_pem,
    token,
    token_rules,
)

RULES = token_rules()
KEYS = key_set(jwk("ES256", "k1"), jwk("RSA", "k2"), jwk("EdDSA", "k3"))


def error_of(text: bytes, rules=RULES, keys=KEYS, wall=NOW) -> str:
    """`good`, `not ours`, or the error's word."""
    got = verify(text, rules, keys, wall)
    if got is None:
        return "not ours"
    return got.error if isinstance(got, Flaw) else "good"


def judged(wall=NOW, rules=RULES, **more) -> str:
    flaw = claims_flaw(claims(**more), rules, wall)
    return "good" if flaw is None else flaw.error


@pytest.mark.parametrize("alg", sorted(ALL))
def test_every_algorithm_is_verified_by_its_own_key_and_no_other(alg):
    made = token(alg=alg, kid="k")
    assert error_of(made, keys=key_set(jwk(alg, "k"))) == "good"
    assert error_of(made, keys=key_set(jwk(alg, "k", index=1))) == "bad_signature"
    without = token_rules(algorithms=ALL - {alg})
    assert error_of(made, without, key_set(jwk(alg, "k"))) == "bad_algorithm"


@pytest.mark.parametrize("alg", sorted(ALL - {"Ed25519"}))  # it has only the older name
def test_tokens_of_another_library_are_verified(alg):
    import jwt  # PyJWT

    key = private_key(alg)
    made = jwt.encode(
        claims(), key if isinstance(key, bytes) else private_pem(alg), alg, headers={"kid": "k"}
    )
    assert error_of(made.encode(), keys=key_set(jwk(alg, "k"))) == "good"


@pytest.mark.parametrize("alg", sorted(PUBLIC_ALGORITHMS))
def test_keys_and_tokens_of_a_third_library_are_verified(alg):
    from joserfc import jwt
    from joserfc.jwk import ECKey, OKPKey, RSAKey

    kind = RSAKey if alg[0] in "RP" else ECKey if alg[:2] == "ES" else OKPKey
    key = kind.import_key(private_pem(alg), {"kid": "k"})
    if alg == "Ed25519":
        made = jwt.encode({"alg": alg, "kid": "k"}, claims(), key, algorithms=[alg])
    else:
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # EdDSA is an old name by now
            made = jwt.encode({"alg": alg, "kid": "k"}, claims(), key, algorithms=[alg])
    assert error_of(made.encode(), keys=key_set(key.as_dict(private=False))) == "good"


# -- time ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more, wall, said",
    [
        pytest.param({"exp": NOW + 1}, NOW, "good", id="before-exp"),
        pytest.param({"exp": NOW}, NOW, "expired", id="at-exp"),
        pytest.param({"exp": NOW + 0.5}, NOW, "good", id="broken-seconds"),
        pytest.param({"exp": None}, NOW, "no_expiry", id="no-exp"),
        pytest.param({"nbf": NOW}, NOW, "good", id="at-nbf"),
        pytest.param({"nbf": NOW + 1}, NOW, "not_yet", id="before-nbf"),
        pytest.param({"iat": NOW}, NOW, "good", id="at-iat"),
        pytest.param({"iat": NOW + 1}, NOW, "not_yet", id="issued-later"),
        pytest.param({"iat": None}, NOW, "good", id="no-iat"),
        pytest.param({"exp": str(int(NOW) + 600)}, NOW, "malformed", id="exp-text"),
        pytest.param({"exp": True}, NOW, "malformed", id="exp-true"),
        pytest.param({"exp": [NOW + 600]}, NOW, "malformed", id="exp-list"),
        pytest.param({"exp": 10**400}, NOW, "malformed", id="exp-huge"),
        pytest.param({"exp": -(10**400)}, NOW, "malformed", id="exp-huge-negative"),
        pytest.param({"nbf": "0"}, NOW, "malformed", id="nbf-text"),
        pytest.param({"nbf": False}, NOW, "malformed", id="nbf-false"),
        pytest.param({"iat": {}}, NOW, "malformed", id="iat-object"),
        pytest.param({"exp": 1e300}, NOW, "malformed", id="exp-float-huge"),
    ],
)
def test_dates_are_kept(more, wall, said):
    assert judged(wall, **more) == said


def test_a_date_that_is_null_is_no_date():
    for name in ("exp", "nbf", "iat"):
        flaw = claims_flaw({**claims(), name: None}, RULES, NOW)
        assert flaw is not None and flaw.error == "malformed"


def test_leeway_moves_all_three_dates():
    rules = token_rules(leeway_s=30.0)
    assert judged(rules=rules, exp=NOW - 29) == "good"
    assert judged(rules=rules, exp=NOW - 30) == "expired"
    assert judged(rules=rules, nbf=NOW + 30, iat=NOW + 30) == "good"
    assert judged(rules=rules, nbf=NOW + 31) == "not_yet"
    assert judged(rules=rules, iat=NOW + 31) == "not_yet"


def test_a_token_may_live_forever_only_where_that_is_said():
    assert judged(rules=token_rules(require_exp=False), exp=None) == "good"
    assert judged(rules=token_rules(require_exp=False), exp=NOW) == "expired"


# -- whose, for whom -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "aud, said",
    [
        pytest.param("shop", "good", id="ours"),
        pytest.param(["other", "shop"], "good", id="among-others"),
        pytest.param("Shop", "wrong_audience", id="case"),
        pytest.param("shop ", "wrong_audience", id="space"),
        pytest.param("shopping", "wrong_audience", id="prefix"),
        pytest.param([], "wrong_audience", id="nobody"),
        pytest.param([["shop"]], "wrong_audience", id="nested"),
        pytest.param({"shop": 1}, "wrong_audience", id="object"),
        pytest.param(None, "wrong_audience", id="missing"),
        pytest.param(5, "wrong_audience", id="number"),
        pytest.param([5, None, "shop"], "good", id="mixed"),
    ],
)
def test_a_token_must_be_meant_for_us(aud, said):
    assert judged(aud=aud) == said


def test_any_audience_is_taken_where_none_or_all_are_named():
    for audiences in (frozenset(), frozenset({"*"})):
        assert judged(rules=token_rules(audiences=audiences), aud="other") == "good"
        assert judged(rules=token_rules(audiences=audiences), aud=None) == "good"


@pytest.mark.parametrize(
    "iss",
    [None, "https://issuer.example/", "HTTPS://issuer.example", "", 5, ["https://issuer.example"]],
    ids=["missing", "slash", "case", "empty", "number", "list"],
)
def test_a_token_of_another_issuer_is_not_ours(iss):
    assert error_of(token(claims(iss=iss), kid="k1")) == "not ours"


def test_without_an_issuer_every_token_is_ours():
    rules = token_rules(issuers=frozenset())
    assert error_of(token(claims(iss=None), kid="k1"), rules) == "good"
    assert error_of(token(claims(iss="x"), kid="nope"), rules) == "unknown_key"


# -- required claims -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "required, more, is_good",
    [
        pytest.param({"jti": ()}, {"jti": "1"}, True, id="there"),
        pytest.param({"jti": ()}, {}, False, id="missing"),
        pytest.param({"email_verified": ("true",)}, {"email_verified": True}, True, id="true"),
        pytest.param({"email_verified": ("true",)}, {"email_verified": False}, False, id="false"),
        pytest.param({"email_verified": ("true",)}, {"email_verified": 1}, False, id="one"),
        pytest.param({"org": ("a", "b")}, {"org": "b"}, True, id="one-of"),
        pytest.param({"org": ("a", "b")}, {"org": "c"}, False, id="none-of"),
        pytest.param({"org": ("a",)}, {"org": ["c", "a"]}, True, id="in-list"),
        pytest.param({"org": ("a",)}, {"org": [["a"]]}, False, id="nested-list"),
        pytest.param({"org": ("a",)}, {"org": {"a": 1}}, False, id="object"),
        pytest.param({"level": ("3",)}, {"level": 3}, True, id="number"),
        pytest.param({"a.b": ("x",)}, {"a": {"b": "x"}}, True, id="path"),
        pytest.param({"a.b": ("x",)}, {"a": "x"}, False, id="path-into-text"),
        pytest.param({"https://x.example/b": ("x",)}, {"https://x.example/b": "x"}, True, id="url"),
    ],
)
def test_required_claims_are_there_with_their_values(required, more, is_good):
    rules = token_rules(required=tuple((k, frozenset(v)) for k, v in required.items()))
    assert judged(rules=rules, **more) == ("good" if is_good else "missing_claim")


@pytest.mark.parametrize("name", ["sub", "jti", "sid"])
@pytest.mark.parametrize("value", [5, ["a"], "a\r\nx-admin: 1", "a\0", "\x85"], ids=repr)
def test_names_are_plain_text(name, value):
    assert judged(**{name: value}) == "malformed"


# -- the header ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "types, typ, is_good",
    [
        pytest.param((), None, True, id="none-asked"),
        pytest.param((), "JWT", True, id="jwt"),
        pytest.param((), "at+jwt", True, id="at"),
        pytest.param((), "logout+jwt", False, id="logout-token"),
        pytest.param((), "application/DPoP+JWT", False, id="dpop-proof"),
        pytest.param(("at+jwt",), "at+jwt", True, id="asked"),
        pytest.param(("at+jwt",), "application/AT+JWT", True, id="asked-long"),
        pytest.param(("at+jwt",), "JWT", False, id="id-token"),
        pytest.param(("at+jwt",), None, False, id="asked-missing"),
        pytest.param(("at+jwt",), ["at+jwt"], False, id="asked-list"),
        pytest.param(("dpop+jwt",), "dpop+jwt", True, id="asked-other"),
    ],
)
def test_a_token_is_of_a_type_that_is_taken(types, typ, is_good):
    made = token(kid="k1") if typ is None else token(kid="k1", typ=typ)
    got = error_of(made, token_rules(types=frozenset(types)))
    assert got == ("good" if is_good else "wrong_type")


@pytest.mark.parametrize(
    "head, said",
    [
        pytest.param({"crit": ["exp"]}, "malformed", id="crit"),
        pytest.param({"crit": []}, "malformed", id="crit-empty"),
        pytest.param({"crit": ["b64"], "b64": False}, "malformed", id="b64"),
        pytest.param({"b64": False}, "malformed", id="b64-alone"),
        pytest.param({"b64": 0}, "malformed", id="b64-zero"),
        pytest.param({"enc": "A256GCM"}, "encrypted", id="enc"),
        pytest.param({"zip": "DEF"}, "encrypted", id="zip"),
        pytest.param({"cty": "JWT"}, "malformed", id="nested"),
        pytest.param({"kid": 5}, "malformed", id="kid-number"),
        pytest.param({"kid": ""}, "malformed", id="kid-empty"),
        pytest.param({"kid": ["k1"]}, "malformed", id="kid-list"),
        pytest.param({"kid": "k" * 257}, "malformed", id="kid-long"),
        pytest.param({"alg": ["ES256"]}, "malformed", id="alg-list"),
        pytest.param({"alg": None}, "malformed", id="alg-null"),
        pytest.param({"alg": "es256"}, "bad_algorithm", id="alg-case"),
        pytest.param({"alg": "ES256 "}, "bad_algorithm", id="alg-space"),
        pytest.param({"alg": "HS1"}, "bad_algorithm", id="alg-weak"),
        pytest.param({"alg": "RS1"}, "bad_algorithm", id="alg-sha1"),
        pytest.param({"alg": "ES256K"}, "bad_algorithm", id="alg-other-curve"),
        pytest.param({"alg": "dir"}, "bad_algorithm", id="alg-of-jwe"),
    ],
)
def test_headers_that_ask_for_something_else_are_refused(head, said):
    made = token(header={"alg": "ES256", "kid": "k1", **head})
    assert error_of(made) == said


def test_a_header_may_say_what_nobody_asks():
    assert error_of(token(kid="k1", x5t="abc", cty="json", b64=True, other={"a": [1]})) == "good"


# -- keys ------------------------------------------------------------------------------------


def test_kid_chooses_the_key():
    assert error_of(token(kid="k1")) == "good"
    assert error_of(token(alg="RS256", kid="k1")) == "bad_algorithm"
    assert error_of(token(kid="k2")) == "bad_algorithm"
    assert error_of(token(kid="nope")) == "unknown_key"


def test_a_token_without_kid_may_mean_any_key_that_fits():
    assert error_of(token(alg="RS256")) == "good"
    assert error_of(token(alg="ES384")) == "bad_algorithm"
    two = key_set(jwk("ES256", "a", index=1), jwk("ES256", "b"))
    assert error_of(token(), keys=two) == "good"


def test_a_key_without_kid_may_be_meant_by_any_token():
    assert error_of(token(kid="any"), keys=key_set(jwk("ES256"))) == "good"
    both = key_set(jwk("ES256"), jwk("ES256", "named", index=1))
    assert error_of(token(kid="named"), keys=both) == "bad_signature"
    assert error_of(token(kid="other"), keys=both) == "good"


def test_no_token_makes_us_try_many_keys():
    many = key_set(*(jwk("EdDSA", f"k{index}", index=index) for index in range(9)))
    assert error_of(token(alg="EdDSA"), keys=many) == "unknown_key"
    assert error_of(token(alg="EdDSA", kid="k8", index=8), keys=many) == "good"


# -- bytes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [b"", b"opaque", b"a.b", b"a.b.c", b"eyJ", b"ey.a", b"ey.a.b.c", b"...", b"Basic eyJ.a.b"],
    ids=repr,
)
def test_what_is_no_jwt_is_left_to_others(text):
    assert not looks_like_token(text)
    assert verify(text, RULES, KEYS, NOW) is None


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"ey..", id="empty-parts"),
        pytest.param(b"eyJ.e30.", id="half-header"),
        pytest.param(b"ey" + b"A" * 40 + b".e30.AA", id="binary-header"),
        pytest.param(b64(b'{"alg":"ES256"}').encode() + b"..AA", id="no-payload"),
        pytest.param(b64(b'{"alg":"ES256"}').encode() + b".e3.AA", id="half-payload"),
        pytest.param(token(payload=b"[]"), id="payload-list"),
        pytest.param(token(payload=b"null"), id="payload-null"),
        pytest.param(token(payload=b'"text"'), id="payload-text"),
        pytest.param(token(payload=b'{"iss":NaN}'), id="payload-nan"),
        pytest.param(token(payload=b"{" + b" " * 20), id="payload-cut"),
        pytest.param(token(kid="k1") + b"=", id="padded"),
        pytest.param(token(kid="k1").replace(b".", b"=.", 1), id="padded-header"),
        pytest.param(token(kid="k1") + b"\n", id="line-break"),
        pytest.param(token(kid="k1") + b"%2e", id="percent"),
        pytest.param(token(kid="k1") + b"\xff", id="not-ascii"),
        pytest.param(token(kid="k1") + b" , " + b"ey.", id="listed"),
    ],
)
def test_malformed_tokens_are_refused(text):
    assert error_of(text) in ("malformed", "not ours")


def test_pretty_printed_headers_are_headers():
    made = token(header=b'{\n  "alg": "ES256",\r\n\t"kid": "k1"\n}')
    assert error_of(made) == "good"


def test_size_is_bounded_before_anything_is_read():
    rules = token_rules(max_bytes=1000)
    small = token(claims(pad="x" * 300), kid="k1")
    assert len(small) <= 1000 and error_of(small, rules) == "good"
    assert verify(token(claims(pad="x" * 1000), kid="k1"), rules, KEYS, NOW) == TOO_LARGE


def test_flaws_hold_nothing_of_the_token():
    secret = "s3cr3t"
    tokens = [
        token(claims(sub=secret + "\n"), kid="k1"),
        token(kid=secret),
        token(claims(aud=secret)),
        token(header={"alg": secret}),
        token(payload=f'{{"iss":"{secret}","iss":1}}'.encode()),
    ]
    for text in tokens:
        got = verify(text, RULES, KEYS, NOW)
        assert isinstance(got, Flaw) and secret not in got.reason + got.error


# -- invariants ------------------------------------------------------------------------------

GOOD = {alg: token(alg=alg, kid="k") for alg in ("HS256", "RS256", "PS256", "ES256", "EdDSA")}
GOOD_KEYS = {alg: key_set(jwk(alg, "k")) for alg in GOOD}


@pytest.mark.parametrize("alg", sorted(GOOD))
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_flipped_bit_is_refused(alg, data):
    text = bytearray(GOOD[alg])
    bit = data.draw(st.integers(0, len(text) * 8 - 1))
    text[bit // 8] ^= 1 << bit % 8
    assert not isinstance(verify(bytes(text), RULES, GOOD_KEYS[alg], NOW), Token)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_cut_or_repeated_piece_is_refused(data):
    text = GOOD["ES256"]
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    piece = text[start:end]
    if not piece:
        return
    for changed in (text[:start] + text[end:], text[:end] + piece + text[end:]):
        assert not isinstance(verify(changed, RULES, GOOD_KEYS["ES256"], NOW), Token)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=5,
)
header_names = st.sampled_from(["alg", "kid", "typ", "cty", "crit", "b64", "enc", "zip", "jku"])
claim_names = st.sampled_from(["iss", "aud", "sub", "exp", "nbf", "iat", "jti", "sid", "roles"])


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(header_names, json_values | st.sampled_from(["HS256", "none", "k", "at+jwt"])),
    st.dictionaries(claim_names, json_values | st.sampled_from([NOW, "shop"])),
    st.binary(max_size=70),
)
def test_no_token_made_without_the_key_is_taken_and_none_raises(header, payload, signature):
    text = b".".join(
        b64(part).encode()
        for part in (json.dumps(header).encode(), json.dumps(payload).encode(), signature)
    )
    rules = token_rules(issuers=frozenset(), audiences=frozenset(), require_exp=False)
    for keys in GOOD_KEYS.values():
        got = verify(text, rules, keys, NOW)
        assert got is None or isinstance(got, Flaw)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(claim_names, json_values | st.sampled_from([NOW, "shop"])))
def test_signed_nonsense_raises_nothing(payload):
    rules = token_rules(issuers=frozenset(), audiences=frozenset(), require_exp=False)
    text = token(json.dumps(payload).encode(), alg="HS256", kid="k")
    got = verify(text, rules, GOOD_KEYS["HS256"], NOW)
    assert isinstance(got, (Flaw, Token))


@given(st.binary(max_size=80))
def test_no_bytes_raise(octets):
    for text in (octets, b"eyJ" + octets, b"eyJhbGciOiJFUzI1NiJ9." + octets + b".AA"):
        assert not isinstance(read(text, RULES), Token) or b"." in octets or text.count(b".") == 2
        assert not isinstance(verify(text, RULES, KEYS, NOW), Token)


def test_the_constants_are_the_errors_that_the_manual_names():
    named = {UNSIGNED, BAD_SIGNATURE, UNKNOWN_KEY, BAD_ALGORITHM, TOO_LARGE, ENCRYPTED, EXPIRED}
    assert {flaw.error for flaw in named} == {
        "unsigned", "bad_signature", "unknown_key", "bad_algorithm", "too_large", "encrypted",
        "expired",
    }  # fmt: skip
