"""Entries to bytes and back: exactly, or a precise refusal; any other bytes are a miss."""

from __future__ import annotations

import collections
import copy
import dataclasses
import datetime as dt
import enum
import math
import pickle
import struct
import typing
import uuid
import zlib
import zoneinfo
from decimal import Decimal
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.cache.codecs import (
    Codec,
    Packer,
    Undecodable,
    Unencodable,
    decode,
    encode,
    json_codec,
    msgpack_codec,
    pickle_codec,
)
from headgate.cache.entry import FOREVER, Entry

KEY, OTHER = b"k" * 32, b"o" * 32


@dataclasses.dataclass(frozen=True)
class Product:
    id: int
    name: str
    at: dt.datetime | None = None


class Colour(enum.Enum):
    RED = 1
    BLUE = "b"


class Size(enum.Enum):
    S = 1


class Right(enum.IntFlag):
    READ = 1
    WRITE = 2


class Point(typing.NamedTuple):
    x: int
    y: float


class Broken:
    def __reduce__(self):
        return (_ran.append, (1,))


_ran: list[int] = []

TYPES = (Product, Colour, Right, Point)
PACKERS = {
    "json": Packer(json_codec(TYPES)),
    "msgpack": Packer(msgpack_codec(TYPES)),
    "pickle": Packer(pickle_codec(KEY)),
    "json-signed": Packer(json_codec(TYPES).signed(KEY)),
    "json-small": Packer(json_codec(TYPES), zstd_above=0),
}
packers = pytest.mark.parametrize("packer", PACKERS.values(), ids=PACKERS.keys())
exact_packers = pytest.mark.parametrize(
    "packer", [PACKERS["json"], PACKERS["msgpack"]], ids=["json", "msgpack"]
)


def same(a: Any, b: Any) -> bool:
    """Equal in type and value, all the way down."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        if math.isnan(a):  # whose sign means nothing
            return math.isnan(b)
        return math.copysign(1, a) == math.copysign(1, b) and (a == b)
    if isinstance(a, complex):
        return same(a.real, b.real) and same(a.imag, b.imag)
    if isinstance(a, Decimal):
        return a.as_tuple() == b.as_tuple()
    if isinstance(a, dict):
        return len(a) == len(b) and all(
            same(i, k) and same(j, m) for (i, j), (k, m) in zip(a.items(), b.items(), strict=True)
        )
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dt.datetime | dt.time):
        return a == b and a.fold == b.fold and str(a.tzinfo) == str(b.tzinfo)
    return bool(a == b)


def round_trip(packer: Packer, value: Any) -> Any:
    return packer.decode(packer.encode(Entry(value, 1.0))).value


leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()))
    | st.binary()
    | st.binary().map(bytearray)
    | st.datetimes(
        timezones=st.none()
        | st.just(dt.UTC)
        | st.just(zoneinfo.ZoneInfo("Europe/Berlin"))
        | st.integers(-86399, 86399).map(lambda s: dt.timezone(dt.timedelta(seconds=s))),
        allow_imaginary=True,
    )
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.decimals()
    | st.complex_numbers()
    | st.uuids()
    | st.builds(Product, st.integers(), st.text())
    | st.sampled_from([Colour.RED, Colour.BLUE, Right.READ, Right.READ | Right.WRITE])
    | st.builds(Point, st.integers(), st.floats(allow_nan=False))
)
hashable = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=3)
    | st.sampled_from(["$", "", "id"])
    | st.binary(max_size=3)
    | st.tuples(st.integers(), st.text(max_size=2))
    | st.frozensets(st.integers(), max_size=2)
)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(hashable, inner, max_size=4)
        | st.dictionaries(st.sampled_from(["$", "a", "b"]), inner, max_size=2)
        | st.sets(hashable, max_size=3)
        | st.frozensets(hashable, max_size=3)
    ),
    max_leaves=12,
)


@exact_packers
@settings(max_examples=150, deadline=None)
@given(value=values)
def test_every_value_comes_back_equal_in_type_and_value(packer, value):
    before = copy.deepcopy(value)
    assert same(round_trip(packer, value), value)
    assert same(value, before)


@packers
@settings(max_examples=40, deadline=None)
@given(
    made_at=st.floats(allow_nan=False),
    fresh=st.floats(allow_nan=False) | st.just(FOREVER),
    usable=st.floats(allow_nan=False) | st.just(FOREVER),
    stamp=st.integers(0, 2**64 - 1),
    tags=st.lists(st.text(st.characters(exclude_categories=())), max_size=5).map(tuple),
    validator=st.text(),
    is_nothing=st.booleans(),
)
def test_all_that_an_entry_says_comes_back(
    packer, made_at, fresh, usable, stamp, tags, validator, is_nothing
):
    entry = Entry(
        {"a": "b" * 2000},
        made_at,
        fresh,
        usable,
        stamp=stamp,
        tags=tags,
        cost_s=0.25,
        validator=validator,
        is_nothing=is_nothing,
    )
    got = packer.decode(packer.encode(entry))
    for name in Entry.__slots__:
        assert getattr(got, name) == getattr(entry, name), name


class Pair(typing.NamedTuple):
    a: int
    b: int


class Text(str):
    __slots__ = ()


class Number(int):
    pass


def _holding_itself() -> list[Any]:
    made: list[Any] = []
    made.append(made)
    return made


REFUSED = [
    ("object", object(), "object cannot be kept"),
    ("subclass-of-str", Text("x"), "would come back as a str"),
    ("subclass-of-int", Number(3), "would come back as a int"),
    ("defaultdict", collections.defaultdict(list), "would come back as a dict"),
    ("ordered", collections.OrderedDict(), "would come back as a dict"),
    ("unknown-dataclass", dataclasses.make_dataclass("Ware", ["x"])(1), "types=[Ware]"),
    ("unknown-enum", Size.S, "types=[Size]"),
    ("unknown-named-tuple", Pair(1, 2), "types=[Pair]"),
    ("function", len, "cannot be kept"),
    ("memoryview", memoryview(b"x"), "cannot be kept"),
    ("holding-itself", _holding_itself(), "deep"),
    ("named-zone", dt.datetime(2026, 1, 1, tzinfo=dt.timezone(dt.timedelta(0), "X")), "zone"),
    ("deep", eval("[" * 90 + "{'a':" * 90 + "1" + "}" * 90 + "]" * 90), "deep"),
]


@exact_packers
@pytest.mark.parametrize("value,why", [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_what_would_not_come_back_the_same_is_refused(packer, value, why):
    with pytest.raises(Unencodable) as caught:
        packer.encode(Entry(value, 1.0))
    assert why in str(caught.value)


def test_a_refusal_names_the_place():
    with pytest.raises(Unencodable, match=r"value\['items'\]\[1\]\['price'\]: "):
        encode(Entry({"items": [1, {"price": object()}]}, 1.0))


def test_an_int_that_json_cannot_write_is_refused():
    with pytest.raises(Unencodable, match="codec json cannot keep a int"):
        encode(Entry(10**5000, 1.0))


def test_an_entry_of_too_many_bytes_is_refused():
    with pytest.raises(Unencodable, match="at most 100"):
        Packer(value_max=100).encode(Entry("x" * 99, 1.0))
    with pytest.raises(Unencodable, match="do not fit"):
        encode(Entry(1, 1.0, tags=("x" * 70_000,)))


@packers
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_cut_or_garbled_bytes_are_a_miss(packer, data):
    whole = packer.encode(
        Entry({"a": [1, "two" * 500], "b": (3,)}, 1.0, tags=("x", "yy"), validator="v")
    )
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(Undecodable):
        packer.decode(whole[:cut])
    garbled = bytearray(whole)
    garbled[cut] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Undecodable):
        packer.decode(bytes(garbled))


@packers
@settings(max_examples=100, deadline=None)
@given(noise=st.binary(max_size=300))
def test_noise_is_a_miss(packer, noise):
    with pytest.raises(Undecodable):
        packer.decode(noise)
    with pytest.raises(Undecodable):
        packer.decode(b"\xca\x01" + noise)


def _resealed(data: bytes) -> bytes:
    return data[:-4] + struct.pack(">I", zlib.crc32(data[:-4]))


@pytest.mark.parametrize("at", [12, 20, 28, 36], ids=["made", "fresh", "usable", "cost"])
def test_a_time_that_is_no_number_is_a_miss_and_infinities_are_not(at):
    whole = encode(Entry("value", -math.inf, math.inf, math.inf))
    assert decode(whole).value == "value"
    garbled = whole[:at] + struct.pack(">d", math.nan) + whole[at + 8 :]
    with pytest.raises(Undecodable, match="no numbers"):
        decode(_resealed(garbled))


@pytest.mark.parametrize("text", ["12 3", '"a" "b"', "[1]]", "nul", "", "{}x"])
def test_a_text_that_goes_on_behind_its_value_is_a_miss(text):
    packer = Packer(Codec("json", str.encode, bytes.decode))
    with pytest.raises(Undecodable, match="cannot read it"):
        decode(packer.encode(Entry(text, 1.0)))


@pytest.mark.parametrize("name", ["json", "msgpack", "json-small"])
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_garbled_bytes_with_a_right_sum_are_an_entry_or_a_miss(name, data):
    packer = PACKERS[name]
    whole = bytearray(
        packer.encode(Entry({"a": [1, "two"], "b": (3, dt.date.max)}, 1.0, tags=("x",)))
    )
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(2, len(whole) - 5))] = data.draw(st.integers(0, 255))
    try:
        packer.decode(_resealed(bytes(whole)))
    except Undecodable:
        pass


@pytest.mark.parametrize(
    "text",
    [
        '{"$":["nothing",1]}',
        '{"$":1}',
        '{"$":[]}',
        '{"$":["dict",[[[],1]]]}',
        '{"$":["uuid","zz"]}',
        '{"$":["datetime",["2026-01-01","Nowhere/Land",0]]}',
        '{"$":["datetime",["2026-01-01","../../etc/passwd",0]]}',
        '{"$":["set",[[]]]}',
        '{"$":[["tuple"],1]}',
        '{"$":["timedelta",[1e308,0,0]]}',
        '{"$":["decimal","x"]}',
        "[" * 100_000,
        "",
    ],
    ids=[
        "unknown",
        "number",
        "empty",
        "unhashable-key",
        "uuid",
        "zone",
        "zone-path",
        "unhashable",
        "unhashable-name",
        "overflow",
        "decimal",
        "deep",
        "nothing",
    ],
)
def test_a_mark_that_is_none_is_a_miss(text):
    raw = Packer(Codec("json", str.encode, bytes), zstd_above=None).encode(Entry(text, 1.0))
    with pytest.raises(Undecodable):
        decode(raw)


def test_another_release_codec_or_version_is_a_miss():
    old = Packer(version="1").encode(Entry(1, 1.0))
    for reader in (Packer(), Packer(version="2"), Packer("msgpack", version="1")):
        with pytest.raises(Undecodable):
            reader.decode(old)
    assert Packer(version="1").decode(old).value == 1
    for at in (0, 1):
        future = bytearray(old)
        future[at] += 1
        with pytest.raises(Undecodable, match="another release"):
            Packer(version="1").decode(bytes(future))


def test_a_dataclass_whose_fields_have_changed_is_a_miss():
    @dataclasses.dataclass
    class Ware:
        id: int

    old = Packer(json_codec([Ware])).encode(Entry(Ware(1), 1.0))

    @dataclasses.dataclass
    class Newer:
        id: int
        stock: int = 0

    Newer.__qualname__ = Ware.__qualname__
    with pytest.raises(Undecodable):
        Packer(json_codec([Newer])).decode(old)


def test_long_values_are_compressed_and_short_ones_are_not():
    assert len(encode(Entry("x" * 100_000, 1.0))) < 300
    assert b"x" * 1000 in encode(Entry("x" * 1000, 1.0))
    assert decode(encode(Entry("x" * 100_000, 1.0))).value == "x" * 100_000


@pytest.mark.parametrize("said", [10, 2**31], ids=["short", "huge"])
def test_a_bomb_is_a_miss_and_is_not_unpacked(said):
    bomb = bytearray(Packer(value_max=2**32 - 1).encode(Entry("x" * 80_000_000, 1.0)))
    assert len(bomb) < 20_000
    with pytest.raises(Undecodable, match="longer than"):
        decode(bytes(bomb))
    bomb[50:54] = struct.pack(">I", said)
    with pytest.raises(Undecodable):
        decode(_resealed(bytes(bomb)))


def test_only_a_pickle_that_was_signed_is_ever_unpacked():
    forger = Packer(Codec("pickle", pickle.dumps, pickle.loads).signed(OTHER))
    for forged in (forger.encode(Entry(Broken(), 1.0)), encode(Entry(1, 1.0))):
        with pytest.raises(Undecodable):
            Packer(pickle_codec(KEY)).decode(forged)
    assert _ran == []


@pytest.mark.parametrize(
    "codec", ["pickle", Codec("own", pickle.dumps, pickle.loads)], ids=["name", "own"]
)
def test_pickle_without_a_key_is_refused(codec):
    with pytest.raises(ValueError, match="key to sign"):
        Packer(codec)


def test_keys_are_rotated_with_two():
    old = Packer(pickle_codec(OTHER)).encode(Entry({1}, 1.0))
    both = Packer(pickle_codec([KEY, OTHER]))
    assert both.decode(old).value == {1}
    assert Packer(pickle_codec(KEY)).decode(both.encode(Entry({2}, 1.0))).value == {2}
    with pytest.raises(Undecodable, match="no known key"):
        Packer(pickle_codec(KEY)).decode(old)


@pytest.mark.parametrize(
    "key", [b"short", [], "text" * 8, [KEY] * 5], ids=["short", "none", "text", "many"]
)
def test_a_poor_key_is_refused(key):
    with pytest.raises(ValueError, match="key"):
        pickle_codec(key)


def test_keys_are_not_shown():
    assert "kkk" not in repr(pickle_codec(KEY))


@pytest.mark.parametrize(
    "fault",
    [ValueError("no"), KeyError(1), RecursionError(), MemoryError()],
    ids=lambda e: type(e).__name__,
)
def test_a_codec_of_ones_own_may_fail_as_it_likes(fault):
    def fails(_):
        raise fault

    with pytest.raises(Unencodable):
        Packer(Codec("own", fails, bytes)).encode(Entry(1, 1.0))
    with pytest.raises(Undecodable):
        Packer(Codec("own", bytes, fails)).decode(
            Packer(Codec("own", bytes, bytes)).encode(Entry(b"x", 1.0))
        )
    with pytest.raises(Unencodable, match="made no bytes"):
        Packer(Codec("own", cast("Any", str), bytes)).encode(Entry(1, 1.0))


@pytest.mark.parametrize(
    "kind",
    [int, uuid.UUID, dataclasses.make_dataclass("A", [("x", int, dataclasses.field(init=False))])],
    ids=["int", "uuid", "not-init"],
)
def test_a_type_that_cannot_be_known_is_refused(kind):
    with pytest.raises(ValueError):
        json_codec([kind])
    with pytest.raises(ValueError, match="two types"):
        json_codec([Product, dataclasses.make_dataclass("Product", ["x"])])
