"""What limits count by and balancers hash, from whatever a client may send."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.config.keys import parse_key
from headgate.gateway.keys import compile_key, compile_keys, cookie_of
from headgate.gateway.states import hashed
from headgate.policy.limiter.keys import client_ip_key
from headgate.security.identity import Identity

LONGEST = 160
"""Characters that one key may have, with the name of what it is."""


def asking(
    *headers: tuple[bytes, bytes],
    query: str = "",
    ip: str = "192.0.2.1",
    identity: Identity | None = None,
    params: dict[str, str] | None = None,
    passport: Any = None,
) -> Any:
    """As much of an exchange as a key looks at."""
    head = SimpleNamespace(headers=headers, query=query)
    prep = SimpleNamespace(head=head, memo={}, params=params or {})
    route = SimpleNamespace(name="all")
    return SimpleNamespace(
        prep=prep, client_ip=ip, identity=identity, route=route, passport=passport
    )


def key(text: str, ex: Any) -> str:
    return compile_key(parse_key(text))(ex)


@pytest.mark.parametrize(
    ("text", "ex", "expected"),
    [
        ("ip", asking(), "192.0.2.1"),
        ("ip", asking(ip="2001:db8::1:2:3"), "2001:db8::/64"),
        ("route", asking(), "route=all"),
        ("header:x-a", asking((b"x-a", b"1")), "header:x-a=1"),
        ("header:x-a", asking((b"x-a", b"1"), (b"x-a", b"2")), "header:x-a=1, 2"),
        ("header:x-a", asking((b"x-a", b"\xff\x80")), "header:x-a=\xff\x80"),
        ("header:x-a", asking((b"x-a", b"")), "header:x-a="),
        ("header:x-a", asking(), "192.0.2.1"),
        ("cookie:c", asking((b"cookie", b"a=b; c=d; c=e")), "cookie:c=d"),
        ("cookie:c", asking((b"cookie", b"a=b"), (b"cookie", b"c=d")), "cookie:c=d"),
        ("cookie:c", asking((b"cookie", b"cc=d;;=;c")), "cookie:c="),
        ("cookie:c", asking((b"cookie", b"xc=d")), "192.0.2.1"),
        ("query:q", asking(query="a=1&q=2&q=3"), "query:q=2"),
        ("query:q", asking(query="q=%00"), "query:q=\x00"),
        ("query:q", asking(query="q=%ED%A0%80"), "query:q=\ufffd\ufffd\ufffd"),
        ("query:q", asking(query="q=%zz%"), "query:q=%zz%"),
        ("query:q", asking(query="%71=2"), "query:q=2"),
        ("query:q", asking(query="&&&=&q"), "query:q="),
        ("query:q", asking(), "192.0.2.1"),
        ("user", asking(identity=Identity("anna")), "user=anna"),
        ("user", asking(), "192.0.2.1"),
        ("claim:n", asking(identity=Identity("anna", claims={"n": 3})), "claim:n=3"),
        ("claim:n", asking(identity=Identity("anna", claims={"n": None})), "192.0.2.1"),
        ("param:id", asking(params={"id": "7"}), "param:id=7"),
    ],
)
def test_a_key_is_what_it_says(text, ex, expected):
    assert key(text, ex) == expected


@pytest.mark.parametrize(
    "text", ["header:x-a", "cookie:c", "query:q", "param:id", "claim:n", "user"]
)
@pytest.mark.parametrize(
    "value",
    ["x" * 1_000_000, "\x00" * 200, "\xff" * 200, "\ud800", "a\udcff", "\u20ac" * 200],
    ids=["long", "nul", "latin", "half a character", "escaped byte", "euro"],
)
def test_no_value_makes_a_key_that_is_large_or_cannot_travel(text, value):
    raw = value.encode("utf-8", "surrogatepass")
    ex = asking(
        (b"x-a", raw),
        (b"cookie", b"c=" + raw),
        query="q=" + "".join(f"%{byte:02X}" for byte in raw[:3000]),
        identity=Identity(value, claims={"n": value}),
        params={"id": value},
    )
    made = key(text, ex)
    assert len(made) <= LONGEST
    made.encode()
    assert hashed(compile_key(parse_key(text)))(ex)


def test_different_values_that_cannot_travel_are_different_keys():
    made = {
        key("user", asking(identity=Identity(name)))
        for name in ("\ud800", "\ud801", "x\ud800", "x")
    }
    assert len(made) == 4


def test_nobody_can_name_the_key_of_a_client_without_the_header():
    assert key("header:x-a", asking((b"x-a", b"192.0.2.1"))) != key("header:x-a", asking())


def test_what_is_missing_is_not_remembered_for_the_next_client():
    ex = asking()
    first = key("header:x-a", ex)
    ex.client_ip = "192.0.2.2"
    assert key("header:x-a", ex) != first


text = st.text(st.characters(codec="latin-1"), max_size=30)


@given(text, text, text, text)
def test_the_parts_of_a_key_do_not_run_into_each_other(a, b, c, d):
    def made(one: str, two: str) -> tuple[str, str]:
        ex = asking((b"x-a", one.encode("latin-1")), (b"x-b", two.encode("latin-1")))
        keys = [parse_key("header:x-a"), parse_key("header:x-b")]
        return compile_keys(keys)(ex), key("{header.x-a} {header.x-b}", ex)

    assert (made(a, b)[0] == made(c, d)[0]) == ((a, b) == (c, d))
    assert (made(a, b)[1] == made(c, d)[1]) == ((a, b) == (c, d))


@given(st.lists(st.tuples(st.sampled_from([b"cookie", b"x"]), st.binary(max_size=40)), max_size=4))
def test_any_cookie_header_can_be_read(headers):
    found = cookie_of(asking(*headers), b"c")
    assert found is None or isinstance(found, str)


@given(st.text(max_size=80))
def test_any_address_makes_a_key(ip):
    assert len(client_ip_key(ip)) <= 64


def test_what_an_identity_comes_to_is_kept_with_the_passport_unless_a_filter_says_another():
    first, second = Identity(subject="first"), Identity(subject="second")
    passport = SimpleNamespace(identity=first, memo={})
    by_user = compile_key(parse_key("user"))
    assert by_user(asking(identity=first, passport=passport)) == "user=first"
    assert passport.memo == {"user=": "user=first"}
    assert by_user(asking(identity=first, passport=passport)) == "user=first"
    assert by_user(asking(identity=second, passport=passport)) == "user=second"
    assert by_user(asking(passport=passport)) == "192.0.2.1"
    nobody = SimpleNamespace(identity=None, memo={})
    assert by_user(asking(passport=nobody)) == "192.0.2.1"
    assert not nobody.memo
    assert passport.memo == {"user=": "user=first"}
