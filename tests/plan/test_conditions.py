from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.config.routes import MatchSpec
from headgate.plan.conditions import MatchInput
from headgate.plan.match import rule_from_spec


def holds(spec, query="", headers=()):
    request = MatchInput("GET", "h", "/", query, tuple(headers))
    return rule_from_spec(MatchSpec(**spec), 0, "r", 0).conditions_hold(request)


@pytest.mark.parametrize(
    ("want", "lines", "fits"),
    [
        ("gold", [b"gold"], True),
        ("gold", [b"Gold"], False),
        ("gold", [b"gold", b"gold"], False),
        ("a, b", [b"a", b"b"], True),
        ("gold", [], False),
        ("", [b""], True),
        ("~g.*", [b"gold"], True),
        ("~g", [b"gold"], False),
        ("~.*", [], False),
        ("\xe9", [b"\xe9"], True),
        ({"equals": "~x"}, [b"~x"], True),
        ({"present": True}, [b""], True),
        ({"present": True}, [], False),
        ({"absent": True}, [], True),
        ({"absent": True}, [b"x"], False),
    ],
)
def test_headers(want, lines, fits):
    assert holds({"headers": {"X-Tier": want}}, headers=[(b"x-tier", v) for v in lines]) is fits


@pytest.mark.parametrize(
    ("want", "query", "fits"),
    [
        ("1", "v=1", True),
        ("1", "v=2&v=1", True),
        ("1", "v=1&v=2", True),
        ("1", "V=1", False),
        ("1", "v=01", False),
        ("a b", "v=a+b", True),
        ("a b", "v=a%20b", True),
        ("a+b", "v=a%2Bb", True),
        ("a&b", "v=a%26b", True),
        ("1", "%76=1", True),
        ("", "v", True),
        ("", "v=", True),
        ("a=b", "v=a=b", True),
        ("1", "&&&v=1&", True),
        ("%zz", "v=%zz", True),
        ("~[0-9]+", "v=12", True),
        ("~[0-9]+", "v=x&v=12", True),
        ({"present": True}, "v", True),
        ({"present": True}, "w=v", False),
        ({"absent": True}, "w=v", True),
        ({"absent": True}, "v=", False),
        ("1", "v=1;v=2", False),
    ],
)
def test_query(want, query, fits):
    assert holds({"query": {"v": want}}, query=query) is fits


@pytest.mark.parametrize(
    ("want", "lines", "fits"),
    [
        ("1", [b"c=1"], True),
        ("1", [b"a=2; c=1"], True),
        ("1", [b"a=2;c=1;"], True),
        ("1", [b"a=2", b"c=1"], True),
        ("1", [b'c="1"'], True),
        ("1", [b"c = 1"], True),
        ("1", [b"c=2; c=1"], True),
        ("1", [b"C=1"], False),
        ("a%20b", [b"c=a%20b"], True),
        ("a=b", [b"c=a=b"], True),
        ("", [b"c="], True),
        ({"present": True}, [b"c"], False),
        ({"absent": True}, [b"c; ;;=;"], True),
        ({"absent": True}, [], True),
        ('"', [b'c="'], True),
        ("\xff", [b"c=\xff"], True),
    ],
)
def test_cookies(want, lines, fits):
    assert holds({"cookies": {"c": want}}, headers=[(b"cookie", v) for v in lines]) is fits


def test_all_conditions_must_hold():
    spec = {"headers": {"a": "1", "b": "2"}, "query": {"c": "3"}}
    both = [(b"a", b"1"), (b"b", b"2")]
    assert holds(spec, "c=3", both)
    assert not holds(spec, "c=4", both)
    assert not holds(spec, "c=3", both[:1])


EVERYTHING = {
    "headers": {"a": "~.*", "b": {"absent": True}},
    "query": {"q": "~.*", "r": {"absent": True}},
    "cookies": {"c": "~.*", "d": {"absent": True}},
}


@given(
    st.text(max_size=40),
    st.lists(st.tuples(st.sampled_from([b"a", b"cookie"]), st.binary(max_size=30))),
)
def test_nothing_a_client_sends_raises(query, headers):
    request = MatchInput("GET", "h", "/", query, tuple(headers))
    rule = rule_from_spec(MatchSpec(**EVERYTHING), 0, "r", 0)
    rule.conditions_hold(request)
    assert all(check.text.isprintable() for check in rule.checks(request))


def test_a_request_shows_no_secrets():
    request = MatchInput("GET", "h", "/p", "token=s3cret", ((b"cookie", b"s3cret"),))
    assert "s3cret" not in repr(request)
