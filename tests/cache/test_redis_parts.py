"""The pure parts of the Redis layer: names, what was heard, what waits, slots."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.cache.invalidation import Invalidation
from headgate.cache.redis.heard import Heard, read_clock, read_record
from headgate.cache.redis.names import HEAD, Names, digits, read_barriers, read_head
from headgate.cache.redis.pending import Pending, Write
from headgate.cache.redis.router import slot_of

keys = st.text(alphabet=st.characters(), max_size=20)


def record(stamp: int, before: int, tag: str = "t", who: bytes = b"me") -> list[object]:
    text = json.dumps(Invalidation(tags=(tag,)).to_json()).encode()
    return [f"{stamp}-0".encode(), [b"i", text, b"p", str(before).encode(), b"o", who]]


# ---- names


@given(keys)
def test_a_key_is_read_back_from_its_name_and_shares_its_slot(key: str):
    names = Names("p:q")
    assert names.key_of(names.entry(key)) == key
    assert len({slot_of(names.of(kind, key)) for kind in "enlf"}) == 1


@given(st.lists(keys, min_size=2, max_size=2, unique=True))
def test_two_keys_have_two_names(two: list[str]):
    names = Names("p")
    assert names.entry(two[0]) != names.entry(two[1])


@pytest.mark.parametrize(
    ("name", "slot"),
    [(b"foo", 12182), (b"{foo}.bar", 12182), (b"foo{}{bar}", 8363), (b"{user1000}", 3443)],
    ids=["plain", "tag", "empty-tag", "alone"],
)
def test_slots_are_those_of_redis(name: bytes, slot: int):
    assert slot_of(name) == slot


def test_only_stars_are_special_in_a_pattern():
    assert Names("p*").matching("a*b?[c]\\") == b"p\\*:e:{=a*b\\?\\[c\\]\\\\}"


@given(st.integers(0, 10**16 - 1), st.integers(0, 10**16 - 1), st.integers(0, 10**16 - 1))
def test_a_head_is_read_back(hard: int, soft: int, stamp: int):
    value = f"E{digits(hard)}{digits(soft)}{digits(stamp)}".encode()
    assert len(value) == HEAD
    assert read_head(value + b"rest") == (hard, soft, stamp)
    assert read_barriers(value[1:33]) == (hard, soft)


@given(st.integers(0, 10**16 - 1))
def test_the_head_of_a_key_that_was_never_struck_is_read_back(stamp: int):
    assert read_head(f"E{'0' * 32}{digits(stamp)}rest".encode()) == (0, 0, stamp)


@pytest.mark.parametrize("own", [b"", b"123456789012345", b"12345678901234x6", b" 234567890123456"])
def test_a_stamp_that_is_none_makes_no_head(own: bytes):
    assert read_head(b"E" + b"0" * 32 + own) is None


@given(st.binary(max_size=60))
def test_any_other_bytes_are_no_head(value: bytes):
    read = read_head(value)
    assert read is None or value[:1] == b"E"
    read_barriers(value)


# ---- what was heard


def heard_at(said: int, epoch: str = "x") -> Heard:
    heard = Heard()
    heard.follow((said, said, epoch))
    return heard


@pytest.mark.parametrize(
    ("text", "said_when_asked", "verdict"),
    [
        (b"10 10 x", 10, "same"),
        (b"15 10 x", 10, "same"),
        (b"15 12 x", 10, "behind"),
        (b"10 9 x", 10, "lost"),
        (b"10 9 x", 9, "same"),
        (b"15 15 y", 10, "lost"),
        (None, 10, "lost"),
        (b"", 10, "lost"),
        (b"a b c", 10, "lost"),
        (b"1 2", 10, "lost"),
        (5, 10, "lost"),
        (b"9" * 500 + b" 1 x", 10, "lost"),
    ],
    ids=["same", "tick", "news", "forgot", "overtaken", "other", "gone", "empty", "words", "short",
         "number", "long"],
)  # fmt: skip
def test_a_reading_of_the_clock_tells(text: object, said_when_asked: int, verdict: str):
    assert heard_at(10).judge(text, said_when_asked) == verdict


def test_an_older_reading_does_not_turn_the_clock_back():
    heard = heard_at(10)
    assert heard.judge(b"20 10 x", 10) == "same"
    assert heard.judge(b"15 10 x", 10) == "same"
    assert heard.clock == 20


def test_records_are_taken_in_order_and_once():
    heard = heard_at(10)
    new, is_gap = heard.take([record(9, 8), record(11, 10), record(15, 11)])
    assert ([said.stamp for said, _ in new], is_gap) == ([11, 15], False)
    assert heard.take([record(11, 10), record(15, 11)]) == ([], False)


@pytest.mark.parametrize(
    "bad",
    [
        record(16, 15),
        [b"12-0", [b"i", b"{}"]],
        [b"12-0", [b"i", b'{"tags":5}', b"p", b"11"]],
        [b"12-0", None],
        [b"x-0", [b"i", b"{}", b"p", b"11"]],
        [b"12-0", [b"i", b"[" * 100_000, b"p", b"11"]],
        [b"12-0", [b"i"]],
    ],
    ids=["hole", "no-before", "no-list", "empty", "no-stamp", "deep", "odd"],
)
def test_a_hole_or_what_cannot_be_read_is_a_gap(bad: list[object]):
    heard = heard_at(10)
    new, is_gap = heard.take([record(11, 10), bad])
    assert ([said.stamp for said, _ in new], is_gap) == ([11], True)
    assert heard.said == 11


@given(st.lists(st.integers(1, 5), max_size=10), st.data())
def test_however_records_come_none_is_lost_unnoticed(steps: list[int], data: st.DataObject):
    stamps = [10]
    for step in steps:
        stamps.append(stamps[-1] + step)
    records = [record(b, a) for a, b in zip(stamps, stamps[1:], strict=False)]
    heard, taken = heard_at(10), []
    for _ in range(4):
        start = data.draw(st.integers(0, len(records)))
        end = data.draw(st.integers(start, len(records)))
        new, _ = heard.take(records[start:end])
        taken += [said.stamp for said, _ in new]
        assert taken == stamps[1 : len(taken) + 1]
        assert heard.said == stamps[len(taken)]


@given(st.recursive(st.none() | st.integers() | st.binary(max_size=9), st.lists, max_leaves=6))
def test_nothing_breaks_the_readers(value: object):
    read_clock(value)
    read_record(value)


# ---- what waits


def write(size: int = 10, stamp: int = 1) -> Write:
    return Write(b"x" * size, stamp, (), float("inf"))


def test_the_newest_write_of_a_key_waits():
    pending = Pending()
    old, new = write(10, 5), write(20, 6)
    pending.write("k", old)
    pending.write("k", new)
    pending.write("k", write(30, 4))  # knows less
    pending.put_back("k", write(40, 9))  # was taken out before
    assert (len(pending), pending.bytes) == (1, 20)
    assert pending.some_writes(10) == {"k": new}
    assert (len(pending), pending.bytes) == (0, 0)


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 40)), max_size=40))
def test_what_waits_stays_within_its_bounds(said: list[tuple[str, int]]):
    pending = Pending(writes_max=3, bytes_max=60)
    for key, size in said:
        pending.write(key, write(size))
        held: Callable[[], int] = lambda: len(pending)  # noqa: E731
        assert held() <= 3
        assert pending.bytes <= 60
    assert pending.bytes == sum(len(one.data) for one in pending.some_writes(10).values())


def test_too_many_invalidations_become_one_of_everything():
    pending = Pending(invalidations_max=3)
    said = [Invalidation(tags=(f"t{n}",), stamp=n) for n in range(1, 5)]
    for one in said[:3]:
        pending.invalidate(one)
    assert pending.some_invalidations(2) == said[:2]
    pending.told(said[0])
    assert pending.some_invalidations(9) == said[1:3]
    pending.invalidate(said[0])
    pending.invalidate(said[3])
    (all_,) = pending.some_invalidations(9)
    assert (all_.everything, all_.stamp, pending.is_to_tell) == ("all", 4, True)
    pending.told(said[1])  # became part of the larger one: that one still waits
    assert len(pending) == 1
