"""No caller can change what a cache holds, unless it was told to share."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import ipaddress
import pathlib
import threading
import types
import uuid
import zoneinfo
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.cache.copying import (
    NotCopyable,
    copier_for,
    copy_any,
    copy_plain,
    freeze,
    is_unchangeable,
    taken_in,
)
from headgate.errors import HeadgateError


class Colour(enum.Enum):
    RED = 1


class Pair(NamedTuple):
    left: Any
    right: Any


@dataclasses.dataclass(frozen=True)
class Point:
    at: Any


@dataclasses.dataclass(frozen=True, slots=True)
class SlottedPoint:
    at: Any


@dataclasses.dataclass
class Loose:
    at: Any


class Word(str):  # noqa: SLOT000 - that is the point
    """It has attributes."""


class LooseTuple(tuple[Any, ...]):  # noqa: SLOT001 - likewise
    """So has this."""


UNCHANGEABLE: dict[str, Any] = {
    "none": None,
    "text": "a",
    "bytes": b"a",
    "number": 1 << 100,
    "moment": datetime.datetime(2020, 1, 1),
    "decimal": decimal.Decimal("1.5"),
    "uuid": uuid.UUID(int=5),
    "address": ipaddress.ip_address("127.0.0.1"),
    "path": pathlib.PurePosixPath("/a"),
    "zone": zoneinfo.ZoneInfo("UTC"),
    "enum": Colour.RED,
    "tuple": (1, ("a", b"c")),
    "frozenset": frozenset({1, (2, 3)}),
    "named-tuple": Pair(1, "a"),
    "frozen-dataclass": Point((1, 2)),
    "slotted-dataclass": SlottedPoint(Pair(1, 2)),
}
CHANGEABLE: dict[str, Any] = {
    "list": [1],
    "dict": {"a": 1},
    "set": {1},
    "bytearray": bytearray(b"a"),
    "list-in-tuple": (1, [2]),
    "list-in-named-tuple": Pair(1, [2]),
    "list-in-frozen-dataclass": Point([1]),
    "list-in-slotted-dataclass": SlottedPoint([1]),
    "dataclass": Loose(1),
    "subclass-of-str": Word("a"),
    "subclass-of-tuple": LooseTuple((1, 2)),
    "view-of-a-dict": types.MappingProxyType({"a": 1}),
    "object": types.SimpleNamespace(a=1),
}


@pytest.mark.parametrize("name", UNCHANGEABLE)
def test_what_cannot_be_changed_is_kept_and_handed_out_as_it_is(name: str) -> None:
    value = UNCHANGEABLE[name]
    assert is_unchangeable(value)
    for how in ("copy", "frozen", "shared"):
        kept, copier = taken_in(value, how)
        assert kept is value
        assert copier is None


@pytest.mark.parametrize("name", CHANGEABLE)
def test_what_can_be_changed_is_seen(name: str) -> None:
    assert not is_unchangeable(CHANGEABLE[name])
    assert copier_for(CHANGEABLE[name]) is not None


@pytest.mark.parametrize("name", [name for name in CHANGEABLE if name != "view-of-a-dict"])
def test_a_copy_is_equal_and_of_the_same_type(name: str) -> None:
    value = CHANGEABLE[name]
    kept, copier = taken_in(value, "copy")
    assert copier is not None
    assert type(kept) is type(value)
    assert kept == value
    assert kept is not value
    assert copier(kept) == value


def test_a_class_that_only_says_it_is_a_uuid_is_copied() -> None:
    liar = type("UUID", (), {"__module__": "uuid"})()
    assert not is_unchangeable(liar)


def test_a_frozen_dataclass_with_more_than_its_fields_is_copied() -> None:
    point = Point(1)
    object.__setattr__(point, "more", [1])
    assert not is_unchangeable(point)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text() | st.tuples(st.integers()), inner, max_size=4)
        | st.tuples(inner, inner)
        | st.sets(st.integers() | st.text(), max_size=4)
    ),
    max_leaves=20,
)


def changeable_parts(value: Any) -> set[int]:
    found: set[int] = set()
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            found.add(id(each))
            waiting.extend(each.values())
        elif isinstance(each, list | tuple):
            if isinstance(each, list):
                found.add(id(each))
            waiting.extend(each)
        elif isinstance(each, set):
            found.add(id(each))
    return found


@given(PLAIN)
def test_a_copy_shares_nothing_that_can_be_changed(value: Any) -> None:
    kept, copier = taken_in(value, "copy")
    assert kept == value
    if copier is None:
        assert not changeable_parts(value)
        return
    given_out = copier(kept)
    assert given_out == value
    assert not changeable_parts(value) & changeable_parts(kept)
    assert not changeable_parts(kept) & changeable_parts(given_out)


@given(PLAIN)
def test_what_is_frozen_has_no_part_that_can_be_changed(value: Any) -> None:
    frozen = freeze(value)
    assert not changeable_parts(frozen)
    assert freeze(frozen) == frozen


def test_plain_data_is_copied_by_the_short_walk_and_the_rest_by_deepcopy() -> None:
    assert copier_for({"a": [1, {"b": {1, 2}}], "c": (1, [2])}) is copy_plain
    assert copier_for([(1, 2), (1, 2)]) is copy_plain
    assert copier_for([Loose(1)]) is copy_any
    assert copier_for(collections.OrderedDict(a=1)) is copy_any


def test_what_is_shared_within_a_value_stays_shared_in_its_copy() -> None:
    inner = [1]
    kept, copier = taken_in([inner, inner], "copy")
    assert kept[0] is kept[1]
    assert copier is not None
    given_out = copier(kept)
    assert given_out[0] is given_out[1]
    assert given_out[0] is not kept[0]


def test_a_value_that_contains_itself_is_copied() -> None:
    value: list[Any] = [1]
    value.append(value)
    kept, _ = taken_in(value, "copy")
    assert kept[1] is kept
    with pytest.raises(NotCopyable, match="or in itself"):
        freeze(value)


def test_a_value_in_which_all_is_met_very_often_takes_no_time() -> None:
    pair: Any = ()
    for _ in range(150):
        pair = (pair, pair)
    assert is_unchangeable(pair)
    loose: Any = [1]
    for _ in range(150):
        loose = [loose, loose]
    kept, copier = taken_in(loose, "copy")
    assert copier is copy_any
    assert kept[0] is kept[1]
    frozen = freeze(loose)
    assert frozen[0] is frozen[1]


def test_what_is_nested_too_deeply_is_refused_with_the_way_out() -> None:
    value: list[Any] = []
    for _ in range(20_000):
        value = [value]
    with pytest.raises(NotCopyable, match='copying="shared"'):
        taken_in(value, "copy")
    with pytest.raises(NotCopyable, match="200 deep"):
        taken_in(value, "frozen")
    while value:
        value = value.pop()


def test_what_cannot_be_copied_is_refused_with_the_way_out() -> None:
    with pytest.raises(NotCopyable, match='a lock cannot be copied.*copying="shared"') as caught:
        taken_in(threading.Lock(), "copy")
    assert isinstance(caught.value, HeadgateError)
    assert isinstance(caught.value, TypeError)
    with pytest.raises(NotCopyable, match='a Loose cannot be frozen.*copying="copy"'):
        taken_in([Loose(1)], "frozen")


def test_frozen_plain_data_is_read_only_in_every_part() -> None:
    frozen = freeze({"a": [1, {"b": {2}}], "c": bytearray(b"x")})
    assert frozen == {"a": (1, {"b": frozenset({2})}), "c": b"x"}
    with pytest.raises(TypeError):
        frozen["a"] = 1
    with pytest.raises(TypeError):
        frozen["a"][1]["b"] = 1


def test_a_read_only_view_that_somebody_else_can_write_through_is_not_kept() -> None:
    below = {"a": [1]}
    kept, _ = taken_in(types.MappingProxyType(below), "frozen")
    below["b"] = [2]
    below["a"].append(3)
    assert kept == {"a": (1,)}


def test_shared_is_the_same_object() -> None:
    value = [1]
    assert taken_in(value, "shared") == (value, None)
    assert taken_in(value, "shared")[0] is value
