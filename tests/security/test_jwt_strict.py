"""One spelling for one value: base64url and JSON."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.security.tokens.strict import MAX_DEPTH, Malformed, b64url, read_json, read_object


@given(st.binary(max_size=100))
def test_what_is_encoded_canonically_is_read(octets):
    text = base64.urlsafe_b64encode(octets).rstrip(b"=")
    assert b64url(text) == octets


@given(st.binary(max_size=40) | st.text("AQgwBCx-_+/= \n", max_size=12).map(str.encode))
def test_what_is_read_has_no_other_spelling(text):
    try:
        octets = b64url(text)
    except Malformed:
        return
    assert base64.urlsafe_b64encode(octets).rstrip(b"=") == text


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"QQ==", id="padding"),
        pytest.param(b"QQ=", id="half-padding"),
        pytest.param(b"QR", id="bits-left-over-two"),
        pytest.param(b"QUF", id="bits-left-over-three"),
        pytest.param(b"Q", id="one-character"),
        pytest.param(b"+/+/", id="other-alphabet"),
        pytest.param(b"QQQ\n", id="line-break"),
        pytest.param(b" QQQ", id="space"),
        pytest.param(b"QQ.Q", id="dot"),
        pytest.param(b"QQ\xffQ", id="not-ascii"),
        pytest.param(b"QQ\0Q", id="nul"),
        pytest.param(b"=QQQ", id="padding-first"),
    ],
)
def test_other_spellings_of_base64_are_refused(text):
    with pytest.raises(Malformed):
        b64url(text)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b'{"a":1,"a":1}', id="twice"),
        pytest.param(b'{"a":1,"\\u0061":2}', id="twice-escaped"),
        pytest.param(b'{"a":{"b":1,"b":2}}', id="twice-within"),
        pytest.param(b'{"a":NaN}', id="nan"),
        pytest.param(b'{"a":Infinity}', id="infinity"),
        pytest.param(b'{"a":-Infinity}', id="minus-infinity"),
        pytest.param(b'{"a":1e999}', id="overflow"),
        pytest.param(b'{"a":' + b"9" * 5000 + b"}", id="many-digits"),
        pytest.param(b'{"a":"\\ud800"}', id="lone-surrogate"),
        pytest.param(b'{"a":"\xed\xa0\x80"}', id="surrogate-bytes"),
        pytest.param(b'{"a":"\xff"}', id="not-utf8"),
        pytest.param(b'\xef\xbb\xbf{"a":1}', id="bom"),
        pytest.param(b'{"a":1}x', id="tail"),
        pytest.param(b'{"a":1}{"a":1}', id="two-values"),
        pytest.param(b"{'a':1}", id="single-quotes"),
        pytest.param(b'{"a":1,}', id="comma"),
        pytest.param(b'{"a":01}', id="leading-zero"),
        pytest.param(b'{"a":"\n"}', id="raw-control"),
        pytest.param(b"", id="empty"),
        pytest.param(b"[" * 100000, id="deep-open"),
        pytest.param(b"[" * 40 + b"]" * 40, id="deep"),
        pytest.param(b'{"a":' * 40 + b"1" + b"}" * 40, id="deep-objects"),
    ],
)
def test_json_that_two_readers_could_read_differently_is_refused(text):
    with pytest.raises(Malformed):
        read_json(text)


@pytest.mark.parametrize("text", [b"[]", b"1", b'"{}"', b"null", b"true"], ids=str)
def test_only_an_object_is_an_object(text):
    with pytest.raises(Malformed):
        read_object(text)


def test_many_brackets_side_by_side_or_in_text_are_not_deep():
    wide = {"a": [[] for _ in range(100)], "b": "[" * 200 + '"{\\'}
    assert read_json(json.dumps(wide).encode()) == wide
    deep = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert read_json(deep)


def test_escaped_pairs_of_surrogates_are_text():
    assert read_json(b'{"a":"\\ud83d\\ude00"}') == {"a": "\U0001f600"}


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_what_json_says_is_what_is_read(value):
    try:
        text = json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return
    assert read_json(text) == value


@given(st.binary(max_size=60))
def test_reading_raises_nothing_else(octets):
    for read in (b64url, read_json, read_object):
        try:
            read(octets)
        except Malformed:
            pass
