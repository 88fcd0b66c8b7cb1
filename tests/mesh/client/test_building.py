from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.mesh.client.building import body_of, headers_of, target_of
from headgate.mesh.http.request import _TARGET


@pytest.mark.parametrize(
    ("path", "params", "target"),
    [
        ("/users/42", None, b"/users/42"),
        ("users", None, b"/users"),
        ("", None, b"/"),
        ("/a b", None, b"/a%20b"),
        ("/a%20b", None, b"/a%20b"),
        ("/100%", None, b"/100%25"),
        ("/ä?q=ö", None, b"/%C3%A4?q=%C3%B6"),
        ("/a?b=c", {"d": 1}, b"/a?b=c&d=1"),
        ("/", {"a": True, "b": None, "c": [1, "x y"]}, b"/?a=true&b=&c=1&c=x%20y"),
        ("/", [("a", 1), ("a", 2)], b"/?a=1&a=2"),
        ("/", "?a=b&c", b"/?a=b&c"),
        ("/", {}, b"/"),
        ("/", {"a": "b&c=d#e"}, b"/?a=b%26c%3Dd%23e"),
    ],
)
def test_a_target_is_quoted_where_it_must_be(path, params, target):
    assert target_of(path, params) == target


@given(st.text(max_size=30), st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3))
def test_whatever_is_asked_for_is_one_target_or_refused(path, params):
    try:
        target = target_of(path, params)
    except (ValueError, UnicodeEncodeError):
        return
    assert _TARGET(target)


def test_names_of_headers_are_in_lower_case():
    assert headers_of({"X-A": "b"}) == [(b"x-a", b"b")]
    assert headers_of([("a", "1"), ("A", "2")]) == [(b"a", b"1"), (b"a", b"2")]
    assert headers_of(None) == []


@pytest.mark.parametrize("headers", [{"x": "→"}, {"ä": "x"}], ids=["value", "name"])
def test_letters_that_http_cannot_carry_are_named(headers):
    with pytest.raises(ValueError, match="cannot carry"):
        headers_of(headers)


def test_a_type_that_was_said_stays():
    fields = headers_of({"Content-Type": "application/merge-patch+json"})
    assert body_of(fields, json={}) == b"{}"
    assert len(fields) == 1


def test_what_json_cannot_say_is_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        body_of([], json=float("nan"))
