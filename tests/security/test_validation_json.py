"""JSON from a stranger: what is refused, and that bounds are looked at before it is read."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.security.validation.json_text import JsonReader, JsonRefused

READER = JsonReader(max_depth=64, max_values=10_000)

REFUSED = {
    "duplicate": (b'{"a":1,"a":2}', "uniqueKeys"),
    "duplicate_deep": (b'[{"b":{"a":1,"a":1}}]', "uniqueKeys"),
    "duplicate_escaped": (rb'{"a":1,"\u0061":2}', "uniqueKeys"),
    "nan": (b'{"a":NaN}', "number"),
    "infinity": (b"[-Infinity]", "number"),
    "1e400": (b"[1e400]", "number"),
    "minus_1e400": (b"[-1e400]", "number"),
    "long_float": (b"[" + b"9" * 400 + b".0]", "number"),
    "many_digits": (b"[" + b"9" * 5000 + b"]", "number"),
    "not_utf8": (b'["\xff\xfe"]', "encoding"),
    "overlong": (b'["\xc0\xaf"]', "encoding"),
    "utf16": ('{"a":1}'.encode("utf-16"), "encoding"),
    "bom": (b"\xef\xbb\xbf{}", "json"),
    "surrogate": (rb'["\ud800"]', "encoding"),
    "surrogate_key": (rb'{"\uDFFF":1}', "encoding"),
    "raw_nul": (b'["a\x00"]', "json"),
    "raw_newline": (b'["a\n"]', "json"),
    "trailing_comma": (b"[1,]", "json"),
    "single_quotes": (b"{'a':1}", "json"),
    "two_values": (b"{}{}", "json"),
    "comment": (b"[1]//x", "json"),
    "empty": (b"", "json"),
    "space": (b"  ", "json"),
    "open": (b"[", "json"),
    "plus": (b"[+1]", "json"),
    "zeros": (b"[01]", "json"),
    "hex": (b"[0x10]", "json"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_parsers_read_two_ways_is_refused(case):
    text, keyword = REFUSED[case]
    with pytest.raises(JsonRefused) as caught:
        READER.read(text)
    assert caught.value.keyword == keyword


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"1" * 300, int("1" * 300)),
        (b"[1e308, -1.5E-7, 0.1]", [1e308, -1.5e-7, 0.1]),
        (b"[1e-400]", [0.0]),
        (rb'["\ud83d\ude00", "\u0000"]', ["\U0001f600", "\0"]),
        (b' {"a" : [ ] } \n', {"a": []}),
        (b"null", None),
    ],
    ids=["big_int", "floats", "tiny", "pairs", "spaces", "null"],
)
def test_what_is_json_is_read(text, value):
    assert READER.read(text) == value


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 100_000,
        b"[" * 65 + b"]" * 65,
        b'[{"a":' * 33,
    ],
    ids=["open", "closed", "objects", "just_over", "mixed"],
)
def test_deep_nesting_is_refused_before_it_is_read(text):
    with pytest.raises(JsonRefused) as caught:
        JsonReader(64, 10_000_000).read(text)
    assert caught.value.keyword == "depth"


def test_what_is_wide_but_not_deep_passes_and_is_counted_exactly():
    reader = JsonReader(max_depth=2, max_values=10)
    assert reader.read(b"[[],[],[]]") == [[], [], []]
    assert reader.read(b'["[[[[,,,,,,,,,,,,,,","{\\"{{"]') == ["[[[[,,,,,,,,,,,,,,", '{"{{']
    with pytest.raises(JsonRefused, match="more than 10 values"):
        reader.read(b"[1,2,3,4,5,6,7,8,9,10]")
    assert len(reader.read(b"[1,2,3,4,5,6,7,8,9]")) == 9


@pytest.mark.parametrize(
    "text",
    [b'"' + b'\\"' * 200_000, b'["' + b"\\" * 200_001, b'"' * 200_001, b'"a"' * 100_000],
    ids=["escaped", "backslashes", "quotes", "strings"],
)
def test_measuring_is_linear_also_where_strings_never_close(text):
    # Quadratic matching would take minutes here and meet the time-out.
    with pytest.raises(JsonRefused):
        JsonReader(1, 2).read(b"[" * 2 + text)


def test_duplicates_pass_where_told():
    assert JsonReader(64, 100, unique_keys=False).read(b'{"a":1,"a":2}') == {"a": 2}


def test_messages_hold_nothing_of_the_text():
    for name, (text, _) in REFUSED.items():
        with pytest.raises(JsonRefused) as caught:
            READER.read(text if "escaped" in name else text.replace(b"a", b"secretsecret"))
        assert "secret" not in caught.value.detail


def test_many_keys_made_to_collide_are_read():
    # Python's text hashes are keyed at random; numbers as text do not collide by design of theirs.
    keys = {f"{i * (2**61 - 1)}": i for i in range(5000)}
    assert JsonReader(64, 100_000).read(json.dumps(keys).encode()) == keys


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=30,
)


def _depth(value) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0


@given(VALUES, st.booleans())
def test_whatever_is_written_as_json_is_read_back(value, is_ascii):
    assert READER.read(json.dumps(value, ensure_ascii=is_ascii).encode()) == value


@given(VALUES)
def test_depth_is_counted_as_it_is(value):
    text = json.dumps(value).encode()
    depth = _depth(value)
    JsonReader(max(depth, 1), 10_000).read(text)
    if depth > 1:
        with pytest.raises(JsonRefused):
            JsonReader(depth - 1, 10_000).read(text)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data):
    try:
        READER.read(data)
    except JsonRefused:
        pass
