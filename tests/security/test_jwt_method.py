"""JWT as a method of the gateway: where tokens stand, what is remembered and for how long."""

from __future__ import annotations

import asyncio

import pytest

from headgate.security.method import Refused, Verified
from headgate.security.method_jwt import JwtMethod, RevokedFeed
from headgate.security.tokens.algorithms import EcKey
from headgate.security.tokens.cache import Entry, TokenCache, weight_of
from headgate.security.tokens.revocations import TOPIC, Revocations, revocation
from headgate.security.tokens.rules import ClaimNames
from headgate.security.tokens.source import FixedKeys
from tests.security.jwt_tokens import (
    NOW,
    Request,
    bearer,
    claims,
    jwk,
    jwt_rules,
    key_set,
    process,
    token,
    token_rules,
)

KEYS = key_set(jwk("ES256", "k1"), jwk("EdDSA", "k3"))


def method(keys=KEYS, rules=None, **more) -> JwtMethod:
    return JwtMethod(jwt_rules(rules, **more), source=FixedKeys(keys), clock=lambda: NOW)


def good(asked: JwtMethod, shown: Request, wall: float = NOW) -> Verified:
    found = asked.verify(shown, wall)
    assert isinstance(found, Verified), found
    return found


def bad(asked: JwtMethod, shown: Request, wall: float = NOW) -> Refused:
    found = asked.verify(shown, wall)
    assert isinstance(found, Refused), found
    return found


def shown(*fields: tuple[str, bytes], query: str = "") -> Request:
    return Request([(name.encode(), value) for name, value in fields], query)


# -- who it is -------------------------------------------------------------------------------


def test_claims_become_an_identity():
    made = claims(
        jti="1", azp="web", roles=["user", "admin", 5, ""], scope="read  write", groups=["staff"]
    )
    identity = good(method(name="ours"), bearer(token(made, kid="k1"))).identity
    assert (identity.subject, identity.consumer, identity.method) == ("ada", "web", "ours")
    assert identity.roles == {"user", "admin"}
    assert identity.scopes == {"read", "write"} and identity.groups == {"staff"}
    assert identity.expires == made["exp"] and identity.claims == made
    with pytest.raises(TypeError):
        identity.claims["sub"] = "bob"  # type: ignore[index]


@pytest.mark.parametrize(
    "names, more, field, value",
    [
        pytest.param({}, {"realm_access": {"roles": ["a"]}}, "roles", {"a"}, id="keycloak"),
        pytest.param({}, {"roles": "a b"}, "roles", {"a", "b"}, id="words"),
        pytest.param({}, {"scp": ["a", "b"]}, "scopes", {"a", "b"}, id="scp"),
        pytest.param({}, {"client_id": "c"}, "consumer", "c", id="client-id"),
        pytest.param({}, {"azp": "a", "client_id": "c"}, "consumer", "a", id="azp-first"),
        pytest.param({}, {}, "consumer", "ada", id="no-consumer"),
        pytest.param({}, {"sub": None, "azp": "a"}, "subject", "a", id="machine"),
        pytest.param({}, {"roles": {"a": 1}}, "roles", set(), id="roles-object"),
        pytest.param({}, {"roles": 5}, "roles", set(), id="roles-number"),
        pytest.param({"roles": ("x.y.z",)}, {"x": {"y": {"z": ["a"]}}}, "roles", {"a"}, id="path"),
        pytest.param({"roles": ("https://x.example/r",)}, {"https://x.example/r": ["a"]}, "roles", {"a"}, id="url"),
        pytest.param({"subject": "uid"}, {"uid": 7}, "subject", "7", id="number"),
        pytest.param({"subject": "email"}, {"email": "a@b.example"}, "subject", "a@b.example", id="email"),
        pytest.param({"tier": "plan"}, {"plan": "gold"}, "tier", "gold", id="tier"),
        pytest.param({"tier": "plan"}, {"plan": ["gold"]}, "tier", "", id="tier-list"),
    ],
)  # fmt: skip
def test_claims_stand_where_the_file_says(names, more, field, value):
    asked = method(claims=ClaimNames(**names))
    identity = good(asked, bearer(token(claims(**more), kid="k1"))).identity
    assert getattr(identity, field) == value


@pytest.mark.parametrize(
    "names, more, error",
    [
        pytest.param({}, {"sub": None}, "missing_claim", id="nobody"),
        pytest.param({}, {"sub": ""}, "missing_claim", id="empty"),
        pytest.param({"subject": "uid"}, {"uid": True}, "missing_claim", id="true"),
        pytest.param({"subject": "email"}, {"email": "a\r\nb"}, "malformed", id="line-break"),
        pytest.param({}, {"azp": "a\0"}, "malformed", id="consumer"),
        pytest.param({}, {"roles": ["a\nb"]}, "malformed", id="role"),
        pytest.param({"tier": "plan"}, {"plan": "a\x7f"}, "malformed", id="tier"),
    ],
)
def test_an_identity_has_a_name_without_control_characters(names, more, error):
    asked = method(claims=ClaimNames(**names))
    assert bad(asked, bearer(token(claims(**more), kid="k1"))).error == error


# -- where it stands -------------------------------------------------------------------------

GOOD = token(kid="k1")
OTHER = token(claims(sub="bob"), kid="k1")


@pytest.mark.parametrize(
    "value",
    [b"Bearer " + GOOD, b"bearer " + GOOD, b"BEARER " + GOOD, b"Bearer   " + GOOD, b"Bearer " + GOOD + b" "],
    ids=["usual", "lower", "upper", "spaces", "tail"],
)  # fmt: skip
def test_the_scheme_may_be_written_in_any_case(value):
    asked = method()
    for _ in range(2):
        assert good(asked, shown(("authorization", value))).identity.subject == "ada"


@pytest.mark.parametrize(
    "value",
    [b"", b"Bearer", b"Bearer ", b"Basic YTpi", b"Bearer\t" + GOOD, GOOD, b"BearerX " + GOOD,
     b"Bearer opaque-token", b"DPoP " + GOOD, b"\xff\xfe"],
    ids=range(10),
)  # fmt: skip
def test_what_is_no_bearer_jwt_is_left_to_others(value):
    assert method().verify(shown(("authorization", value)), NOW) is None
    assert method(cookies=("t",)).verify(shown(("authorization", value)), NOW) is None


def test_no_credentials_are_none():
    assert method().verify(shown(("host", b"x"), ("cookie", b"t=" + GOOD)), NOW) is None


@pytest.mark.parametrize("prefix", [b"", b"Bearer "], ids=["bare", "scheme"])
def test_another_header_may_carry_it_bare(prefix):
    asked = method(header="X-Token")
    assert good(asked, shown(("x-token", prefix + GOOD)))
    assert asked.verify(shown(("authorization", b"Bearer " + GOOD)), NOW) is None
    assert asked.strips.headers == {b"x-token"}


def test_cookies_and_query_are_looked_at_where_the_file_says():
    asked = method(cookies=("session", "t"), query=("access_token",))
    for request in (
        shown(("cookie", b"a=b; t=" + GOOD)),
        shown(("cookie", b"session=" + GOOD), ("cookie", b"a=b")),
        shown(query="x=1&access_token=" + GOOD.decode()),
        shown(query="access%5Ftoken=" + GOOD.decode().replace(".", "%2e")),
        shown(("authorization", b"Bearer " + GOOD)),
        shown(("authorization", b"Bearer " + GOOD), ("cookie", b"t=" + GOOD)),
        shown(("authorization", b"Basic YTpi"), ("cookie", b"t=" + GOOD)),
    ):
        assert good(asked, request).identity.subject == "ada"
    assert asked.verify(shown(("cookie", b"other=" + GOOD), query="token=x"), NOW) is None
    assert asked.strips.cookies == {b"session", b"t"}
    assert asked.strips.query == {"access_token"}
    assert asked.strips.headers == {b"authorization"}


@pytest.mark.parametrize(
    "request_",
    [
        shown(("authorization", b"Bearer " + GOOD), ("cookie", b"t=" + OTHER)),
        shown(("cookie", b"t=" + GOOD + b"; t=" + OTHER)),
        shown(("cookie", b"t=" + GOOD + b"; t=" + GOOD)),
        shown(("cookie", b"t=" + GOOD), query="access_token=" + OTHER.decode()),
        shown(query=f"access_token={GOOD.decode()}&access_token={OTHER.decode()}"),
        shown(("authorization", b"Bearer opaque"), ("cookie", b"t=" + GOOD)),
    ],
    ids=["header-cookie", "two-cookies", "cookie-twice", "cookie-query", "two-queries", "opaque"],
)
def test_two_tokens_are_no_request(request_):
    found = bad(method(cookies=("t",), query=("access_token",)), request_)
    assert found.status == 400 and found.error == "several_tokens"
    assert 'error="invalid_request"' in found.challenge


def test_two_fields_of_other_schemes_are_somebody_elses():
    request = shown(("authorization", b"Basic YTpi"), ("authorization", b"Digest x"))
    assert method().verify(request, NOW) is None


def test_refusals_speak_rfc_6750():
    found = bad(method(realm="shop"), bearer(token(claims(exp=NOW - 1), kid="k1")))
    assert found.status == 401 and found.error == "expired"
    assert found.challenge == (
        'Bearer realm="shop", error="invalid_token", error_description="the token has expired"'
    )
    assert method(realm="shop").challenge == 'Bearer realm="shop"'


# -- what is remembered ----------------------------------------------------------------------


def test_a_verified_token_is_remembered_until_its_end_or_its_age():
    asked = method(max_age_s=100.0)
    long = good(asked, bearer(GOOD))
    assert long.until == NOW + 100.0
    assert asked.verify(bearer(GOOD), NOW + 99.9) is long
    again = good(asked, bearer(GOOD), NOW + 100.0)
    assert again is not long and again.until == NOW + 200.0
    short = good(asked, bearer(token(claims(exp=NOW + 30), kid="k1")))
    assert short.until == NOW + 30


def test_a_token_that_expires_between_two_requests_of_a_connection_is_refused():
    asked = method()
    text = token(claims(exp=NOW + 30), kid="k1")
    assert good(asked, bearer(text), NOW + 29.9).until == NOW + 30
    assert bad(asked, bearer(text), NOW + 30).error == "expired"


def test_within_the_leeway_a_token_holds_for_one_request_at_a_time():
    asked = method(rules=token_rules(leeway_s=10.0))
    text = token(claims(exp=NOW), kid="k1")
    assert good(asked, bearer(text), NOW + 5).until == 0.0
    assert asked.snapshot(NOW)["verified"]["count"] == 0
    assert bad(asked, bearer(text), NOW + 10).error == "expired"


def test_a_clock_that_is_set_back_extends_nothing():
    asked = method(max_age_s=100.0)
    first = good(asked, bearer(GOOD))
    back = NOW - 3600.0
    # Now the token is from the future: what was verified then is not believed here.
    assert bad(asked, bearer(GOOD), back).error == "not_yet"
    text = token(claims(iat=None), kid="k1")
    good(asked, bearer(text))
    assert good(asked, bearer(text), back).until == back + 100.0
    assert asked.verify(bearer(GOOD), NOW + 1) is first


def test_without_exp_a_token_is_looked_at_again_after_its_age():
    asked = method(rules=token_rules(require_exp=False), max_age_s=100.0)
    found = good(asked, bearer(token(claims(exp=None), kid="k1")))
    assert found.until == NOW + 100.0 and found.identity.expires is None


def test_one_bad_token_shown_often_is_verified_once_in_a_while(monkeypatch):
    asked = method()
    text = token(kid="k1", index=1)
    counted = []
    real = EcKey.verify

    def counting(*args):
        counted.append(1)
        return real(*args)

    monkeypatch.setattr(EcKey, "verify", counting)
    first = bad(asked, bearer(text))
    for step in range(100):
        assert asked.verify(bearer(text), NOW + step / 10) is first
    assert len(counted) == 1
    assert bad(asked, bearer(text), NOW + 30).error == "bad_signature"
    assert len(counted) == 2
    assert bad(asked, bearer(text), NOW - 1).error == "bad_signature"  # the clock set back
    assert len(counted) == 3


def test_a_bad_token_is_not_remembered_longer_than_the_keys():
    asked = method()
    text = token(kid="k1", index=1)
    assert bad(asked, bearer(text)).error == "bad_signature"
    asked._source._put(key_set(jwk("ES256", "k1", index=1)))
    asked._keys_changed()
    assert good(asked, bearer(text))


def test_a_bad_token_does_not_push_out_a_good_one():
    asked = method(max_cached=2)
    good(asked, bearer(GOOD))
    for index in range(50):
        bad(asked, bearer(token(claims(jti=str(index)), kid="k1", index=1)))
    assert asked.snapshot(NOW)["verified"]["count"] == 1
    assert asked.snapshot(NOW)["refused"]["count"] == 50


def test_memory_is_bounded_by_count_and_by_bytes():
    cache: TokenCache[int] = TokenCache(3, 1_000_000)
    for index in range(10):
        cache.put(b"%d" % index, Entry(index, 0.0, 1.0, 0))
    assert len(cache) == 3 and cache.get(b"9") and not cache.get(b"6")
    assert cache.bytes == 3 * weight_of(b"1")
    small: TokenCache[int] = TokenCache(100, 2 * weight_of(b"x" * 100))
    for index in range(10):
        small.put(b"%d" % index * 100, Entry(index, 0.0, 1.0, 0))
    assert len(small) == 2
    small.put(b"x" * 1000, Entry(1, 0.0, 1.0, 0))
    assert small.get(b"x" * 1000) is None and len(small) == 2
    small.put(b"9" * 100, Entry(11, 0.0, 1.0, 0))
    assert len(small) == 2 and small.bytes == 2 * weight_of(b"x" * 100)
    small.clear()
    assert len(small) == 0 and small.bytes == 0


# -- changes while it runs -------------------------------------------------------------------


def test_a_change_of_keys_forgets_every_token():
    async def run():
        async with process() as parts:
            asked = method()
            asked.start(parts)
            good(asked, bearer(GOOD))
            before = asked.generation
            asked._source._put(key_set(jwk("ES256", "k1"), jwk("EdDSA", "k3")))  # the same
            assert asked.generation == before
            asked._source._put(key_set(jwk("ES256", "k1", index=1)))
            assert asked.generation == before + 1
            assert bad(asked, bearer(GOOD)).error == "bad_signature"
            asked.close()
            asked._source._put(KEYS)
            assert asked.generation == before + 1

    asyncio.run(run())


@pytest.mark.parametrize(
    "message, hits",
    [
        pytest.param(revocation("jti", "t1", wall=NOW), "ada1", id="jti"),
        pytest.param(revocation("sub", "bob", wall=NOW), "bob", id="sub"),
        pytest.param(revocation("sid", "s1", wall=NOW), "ada1", id="sid"),
        pytest.param(revocation("sub", "nobody", wall=NOW), "", id="nobody"),
    ],
)
def test_a_revocation_ends_a_remembered_token_at_once(message, hits):
    texts = {
        "ada1": token(claims(jti="t1", sid="s1"), kid="k1"),
        "ada2": token(claims(jti="t2"), kid="k1"),
        "bob": OTHER,
    }

    async def run():
        async with process() as parts:
            asked = method()
            asked.start(parts)
            for text in texts.values():
                good(asked, bearer(text))
            before = asked.generation
            parts.publish(TOPIC, message)
            assert asked.generation == before + 1
            for _ in range(2):
                for name, text in texts.items():
                    if name == hits:
                        assert bad(asked, bearer(text)).error == "revoked"
                    else:
                        good(asked, bearer(text))
            parts.publish(TOPIC, {"kind": "nonsense"})
            assert asked.generation == before + 1

    asyncio.run(run())


def test_what_was_revoked_stays_so_over_a_reload():
    async def run():
        async with process() as parts:
            old, new = method(), method()
            old.start(parts)
            parts.publish(TOPIC, revocation("sub", "ada", wall=NOW))
            new.start(parts)
            old.close()
            assert bad(new, bearer(GOOD)).error == "revoked"
            generation = new.generation
            parts.publish(TOPIC, revocation("sub", "bob", wall=NOW))
            assert new.generation == generation + 1
            assert bad(new, bearer(OTHER)).error == "revoked"

    asyncio.run(run())


def test_revocations_that_are_given_up_are_said(caplog):
    feed = RevokedFeed(lambda: NOW)
    feed.revocations = Revocations(4)
    for index in range(12):
        feed.hear(revocation("jti", str(index), wall=NOW, last_s=100.0 + index))
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 4 and "8 revocations were given up" in said[-1]  # 1, 2, 4, 8


def test_a_snapshot_has_no_token_and_no_key_in_it():
    keys = key_set(jwk("HS256", "s"))
    asked = method(keys=keys)
    text = token(alg="HS256", kid="s")
    good(asked, bearer(text))
    told = str(asked.snapshot(NOW))
    assert "'s'" in told and text.decode()[:20] not in told and jwk("HS256")["k"] not in told
    assert jwk("HS256")["k"] not in repr(asked.rules) + repr(keys.keys)
