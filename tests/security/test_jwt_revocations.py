"""Tokens that hold no more before their time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.security.tokens.revocations import Revocations, retain_key, revocation
from tests.security.jwt_tokens import ISSUER, NOW, claims


def revoked(*messages, wall=NOW, max_entries=100) -> Revocations:
    made = Revocations(max_entries)
    for message in messages:
        made.take(message, wall)
    return made


@pytest.mark.parametrize(
    "message, more, is_revoked",
    [
        pytest.param(revocation("jti", "t1", wall=NOW), {"jti": "t1"}, True, id="jti"),
        pytest.param(revocation("jti", "t1", wall=NOW), {"jti": "t2"}, False, id="other-jti"),
        pytest.param(revocation("jti", "t1", wall=NOW), {}, False, id="no-jti"),
        pytest.param(revocation("jti", "t1", wall=NOW), {"jti": "t1", "iat": NOW + 9}, True, id="jti-new"),
        pytest.param(revocation("sub", "ada", wall=NOW), {}, True, id="sub"),
        pytest.param(revocation("sub", "bob", wall=NOW), {}, False, id="other-sub"),
        pytest.param(revocation("sub", "ada", wall=NOW), {"iat": NOW - 1}, True, id="before"),
        pytest.param(revocation("sub", "ada", wall=NOW), {"iat": NOW}, False, id="after"),
        pytest.param(revocation("sub", "ada", wall=NOW), {"iat": None}, True, id="no-iat"),
        pytest.param(revocation("sid", "s1", wall=NOW), {"sid": "s1"}, True, id="sid"),
        pytest.param(revocation("sid", "ada", wall=NOW), {}, False, id="sid-is-not-sub"),
        pytest.param(revocation("sub", "ada", wall=NOW, issuer=ISSUER), {}, True, id="issuer"),
        pytest.param(revocation("sub", "ada", wall=NOW, issuer="x"), {}, False, id="other-issuer"),
        pytest.param(revocation("sub", "ada", wall=NOW, issuer="x"), {"iss": None}, False, id="no-issuer"),
        pytest.param({"kind": "sub", "value": "ada", "until": NOW + 9}, {"iat": NOW + 5}, True, id="all"),
    ],
)  # fmt: skip
def test_a_revocation_means_the_tokens_it_names(message, more, is_revoked):
    assert revoked(message).is_revoked(claims(**more), NOW) is is_revoked


def test_a_user_may_be_named_by_another_claim():
    list_ = revoked(revocation("sub", "7", wall=NOW))
    assert not list_.is_revoked(claims(uid=7), NOW)
    assert list_.is_revoked(claims(uid=7), NOW, "7")


def test_a_revocation_ends():
    list_ = revoked(revocation("jti", "t", wall=NOW, last_s=100.0))
    assert list_.is_revoked(claims(jti="t"), NOW + 99)
    assert not list_.is_revoked(claims(jti="t"), NOW + 100)
    assert list_.take(revocation("jti", "u", wall=NOW + 101), NOW + 101)
    assert len(list_) == 1


def test_one_that_has_ended_already_is_not_taken():
    list_ = Revocations()
    assert not list_.take(revocation("jti", "t", wall=NOW - 200, last_s=100.0), NOW)
    assert list_.revision == 0


def test_hearing_it_twice_changes_nothing():
    list_ = Revocations()
    message = revocation("sub", "ada", wall=NOW)
    assert list_.take(message, NOW) and not list_.take(message, NOW)
    assert list_.revision == 1 and len(list_) == 1


def test_of_two_the_stricter_holds_whichever_comes_first():
    early = revocation("sub", "ada", wall=NOW, last_s=500.0)
    late = revocation("sub", "ada", wall=NOW + 50, last_s=100.0)
    for order in ((early, late), (late, early)):
        list_ = revoked(*order)
        assert list_.is_revoked(claims(iat=NOW + 49), NOW + 60)
        assert list_.is_revoked(claims(iat=NOW + 49), NOW + 499)
        assert not list_.is_revoked(claims(iat=NOW + 49), NOW + 500)


@pytest.mark.parametrize(
    "message",
    [
        {}, {"kind": "jti"}, {"kind": "all", "value": "x", "until": NOW + 9},
        {"kind": "jti", "value": 5, "until": NOW + 9}, {"kind": "jti", "value": "", "until": NOW + 9},
        {"kind": "jti", "value": "x", "until": "soon"}, {"kind": "jti", "value": "x", "until": True},
        {"kind": "jti", "value": "x", "until": float("nan")}, {"kind": "jti", "value": "x" * 600, "until": NOW + 9},
        {"kind": "sub", "value": "x", "until": NOW + 9, "before": "now"},
        {"kind": "sub", "value": "x", "until": NOW + 9, "issuer": 5},
        {"kind": ["jti"], "value": "x", "until": NOW + 9}, None, "jti", ["jti"],
    ],
    ids=range(15),
)  # fmt: skip
def test_messages_without_sense_are_counted_and_change_nothing(message):
    list_ = revoked(message)
    assert len(list_) == 0 and list_.revision == 0 and list_.ignored == 1


@pytest.mark.parametrize(
    "kind, value, more",
    [("all", "x", {}), ("jti", "", {}), ("jti", "x" * 600, {}), ("jti", "x", {"last_s": 0.0}),
     ("jti", "x", {"last_s": 1e12})],
    ids=["kind", "empty", "long", "no-time", "for-ever"],
)  # fmt: skip
def test_a_message_without_sense_is_not_made(kind, value, more):
    with pytest.raises(ValueError):
        revocation(kind, value, wall=NOW, **more)


def test_full_the_one_that_ends_soonest_is_given_up_and_counted():
    list_ = Revocations(3)
    for name, last_s in (("a", 300.0), ("b", 100.0), ("c", 200.0)):
        list_.take(revocation("jti", name, wall=NOW, last_s=last_s), NOW)
    assert list_.take(revocation("jti", "d", wall=NOW, last_s=400.0), NOW)
    assert [list_.is_revoked({"jti": each}, NOW) for each in "abcd"] == [True, False, True, True]
    assert not list_.take(revocation("jti", "e", wall=NOW, last_s=50.0), NOW)
    assert list_.snapshot() == {"count": 3, "lost": 2, "ignored": 0}


def test_each_is_kept_under_its_own_name():
    keys = {
        retain_key(revocation(kind, value, wall=NOW, issuer=issuer))
        for kind in ("jti", "sub", "sid")
        for value in "ab"
        for issuer in ("", "i")
    }
    assert len(keys) == 12


@given(
    st.lists(
        st.tuples(st.sampled_from("abcdef"), st.integers(1, 50), st.integers(0, 5)), max_size=60
    )
)
def test_nothing_is_forgotten_but_what_has_ended_and_the_list_stays_small(steps):
    list_ = Revocations(100)
    ends: dict[str, float] = {}
    wall = NOW
    for name, last_s, passed in steps:
        wall += passed
        list_.take(revocation("jti", name, wall=wall, last_s=float(last_s)), wall)
        ends[name] = max(ends.get(name, 0.0), wall + last_s)
        for each, end in ends.items():
            assert list_.is_revoked({"jti": each}, wall) == (wall < end)
        assert len(list_) <= 6 and len(list_._ends) <= 2 * len(list_) + 65
