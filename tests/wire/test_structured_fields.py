"""Structured fields: what is read is written the same, and what is wrong is refused."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.wire.structured_fields import (
    InnerList,
    Item,
    Token,
    parse_dictionary,
    write_item,
    write_list,
)


@pytest.mark.parametrize(
    "text, member",
    [
        ("a=1", Item(1)),
        ("a=-999999999999999", Item(-999999999999999)),
        ("a=1.5", Item(Decimal("1.5"))),
        ("a", Item(True)),
        ("a=?0", Item(False)),
        ('a="x\\"y\\\\"', Item('x"y\\')),
        ("a=tok/en:1", Item(Token("tok/en:1"))),
        ("a=:AQI=:", Item(b"\1\2")),
        ("a=::", Item(b"")),
        ("a=()", InnerList(())),
        ('a=("x"  "y";q );z=1', InnerList((Item("x"), Item("y", {"q": True})), {"z": 1})),
    ],
    ids=["int", "low", "dec", "true", "false", "str", "tok", "bytes", "nobytes", "empty", "list"],
)
def test_every_kind_of_member_is_read(text, member):
    found: Any = parse_dictionary(text)["a"]
    assert found == member
    if isinstance(member, Item):
        assert type(found.value) is type(member.value)


@pytest.mark.parametrize(
    "text",
    [
        "a=",
        "A=1",
        "a=1,",
        "a=1 b=2",
        "a=(1",
        'a=("x""y")',
        'a="x',
        'a="\x7f"',
        "a=1234567890123456",
        "a=1.2345",
        "a=1234567890123.0",
        "a=:!:",
        "a=:A:",
        "a=?2",
        "a=1, a=2",
        "a=1;b=1;b=2",
        "a=((1))",
        "a=\u0661",
        ",",
        "a\tb",
        "a=(" + '"x" ' * 65 + ")",
        "a=1" + " " * 4096 + ", b=1",
    ],
    ids=range(22),
)
def test_what_is_wrong_anywhere_is_no_field(text):
    with pytest.raises(ValueError):
        parse_dictionary(text)


names = st.from_regex(r"[a-z*][a-z0-9_.*-]{0,8}", fullmatch=True)
bare = st.one_of(
    st.integers(-(10**15) + 1, 10**15 - 1),
    st.booleans(),
    st.binary(max_size=20),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20),
    st.from_regex(r"[A-Za-z*][A-Za-z0-9:/!]{0,8}", fullmatch=True).map(Token),
    st.decimals(-(10**12) + 1, 10**12 - 1, places=3).map(lambda d: d.normalize()),
)
items = st.builds(Item, bare, st.dictionaries(names, bare, max_size=3))


@given(st.dictionaries(names, st.lists(items, max_size=4), max_size=4))
def test_what_is_written_is_read_again(document):
    lists = {name: InnerList(tuple(each)) for name, each in document.items()}
    text = ", ".join(f"{name}={write_list(each)}" for name, each in lists.items())
    assert parse_dictionary(text) == lists


@given(items)
def test_an_item_is_written_in_one_way(item):
    read: Any = parse_dictionary(f"a={write_item(item)}")["a"]
    assert write_item(read) == write_item(item)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text):
    try:
        parse_dictionary(text)
    except ValueError:
        pass
