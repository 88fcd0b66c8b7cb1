"""The one message: what it says is read back, and what is none is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.cache.invalidation import ITEMS_MAX, TEXT_MAX, Invalidation

texts = st.lists(st.text(min_size=1, max_size=20), max_size=5).map(tuple)
messages = st.builds(
    Invalidation,
    tags=texts,
    keys=texts,
    patterns=texts,
    urls=texts,
    everything=st.sampled_from(["", "objects", "responses", "all"]),
    soft=st.booleans(),
    stamp=st.integers(0, 2**53),
    by=st.text(max_size=200),
)


@given(messages)
def test_what_is_said_is_read_back(said: Invalidation):
    assert Invalidation.from_json(json.loads(json.dumps(said.to_json()))) == said
    assert said.is_empty == (
        not {*said.to_json()} & {"tags", "keys", "patterns", "urls", "everything"}
    )


@given(
    st.dictionaries(
        st.sampled_from(["tags", "keys", "patterns", "urls", "everything", "soft", "stamp", "by"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=5,
        ),
    )
)
def test_what_is_none_is_a_value_error(said):
    try:
        read = Invalidation.from_json(said)
    except ValueError:
        return
    assert all(map(len, (*read.tags, *read.keys, *read.patterns, *read.urls)))
    assert len(read.by) <= 200
    hash(read)


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ({"tags": "t"}, "tags is not a list"),
        ({"tags": {"a": 1}}, "tags is not a list"),
        ({"keys": 5}, "keys is not a list"),
        ({"urls": [""]}, "urls holds something that is not a text"),
        ({"patterns": [None]}, "patterns holds"),
        ({"keys": ["x" * (TEXT_MAX + 1)]}, f"more than {TEXT_MAX}"),
        ({"tags": ["t"] * ITEMS_MAX, "keys": ["k"]}, f"more than {ITEMS_MAX}"),
        ({"everything": "some"}, 'write "objects"'),
        ({"everything": []}, 'write "objects"'),
        ({"stamp": -1}, "stamp"),
        ({"stamp": True}, "stamp"),
        ({"stamp": 1.0}, "stamp"),
        ({"soft": 1}, "soft"),
    ],
    ids=["text", "mapping", "number", "empty", "none", "long", "many", "word", "list", "negative",
         "bool", "float", "soft"],
)  # fmt: skip
def test_it_says_what_is_wrong(said, match):
    with pytest.raises(ValueError, match=match):
        Invalidation.from_json(said)


def test_a_stamp_makes_another_message():
    said = Invalidation(tags=("t",))
    assert said.at(5) == Invalidation(tags=("t",), stamp=5)
    assert said.stamp == 0
