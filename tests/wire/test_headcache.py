"""The cache of heads: bounded in entries and bytes, and it keeps what is used."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headgate.wire.headcache import _BYTES, _ENTRY_BYTES, HeadCache, Kept, Sightings


def put_twice(cache, block, value):
    cache.put(block, value)
    cache.put(block, value)


def test_it_gives_back_what_was_put_for_the_second_time():
    cache: HeadCache[int] = HeadCache()
    cache.put(b"a", 1)
    cache.put(b"a", 1)
    assert cache.get(b"a") == 1
    assert cache.get(b"b") is None


def test_heads_that_come_once_take_no_room():
    cache: HeadCache[int] = HeadCache()
    for at in range(10_000):
        cache.put(b"%d" % at, at)
    # One in 256 is mistaken for one that came before.
    assert len(cache) < 120


def test_entries_are_bounded_and_what_is_used_stays():
    cache: HeadCache[int] = HeadCache(100)
    put_twice(cache, b"used", -1)
    for at in range(10_000):
        put_twice(cache, b"%d" % at, at)
        if at % 50 == 0:
            assert cache.get(b"used") == -1
        assert len(cache) <= 200
    assert cache.get(b"used") == -1
    assert cache.get(b"5") is None


def test_bytes_are_bounded():
    cache: HeadCache[int] = HeadCache(10**9)
    block = bytes(4000)
    for at in range(2000):
        put_twice(cache, b"%04d" % at + block, at)
        held = sum(map(len, cache._old)) + sum(map(len, cache.young))
        assert held <= 2 * _BYTES
    assert len(cache) > 100


def test_a_large_head_is_not_kept():
    cache: HeadCache[int] = HeadCache()
    put_twice(cache, bytes(_ENTRY_BYTES + 1), 1)
    assert len(cache) == 0


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=300))
def test_it_never_gives_back_anything_else(steps):
    cache: HeadCache[int] = HeadCache(5)
    for is_put, at in steps:
        if is_put:
            cache.put(b"%d" % at, at)
        else:
            assert cache.get(b"%d" % at) in (None, at)
        assert len(cache) <= 10


def test_a_sighting_is_noted_and_forgotten_after_many_others():
    seen = Sightings()
    first = [b"x%d" % at for at in range(100)]
    assert sum(map(seen.again, first)) < 10
    assert sum(map(seen.again, first)) > 90
    for at in range(100_000):
        seen.again(b"%d" % at)
    assert sum(map(seen.again, first)) < 10


# Numbers whose hashes, which are themselves, have places and marks of their own.
KEYS = [at * 8193 for at in range(1, 42)]


@given(st.lists(st.sampled_from(KEYS), max_size=300))
def test_kept_is_bounded_and_gives_back_nothing_else(keys):
    kept: Kept[int, str] = Kept(5, key_bytes=10, bytes_max=30)
    seen = set()
    for key in keys:
        size = key // 8193 % 12
        kept.put(key, size, str(key))
        assert (key in kept.found) is (key in seen and size <= 10)
        assert all(str(found) == value for found, value in kept.found.items())
        assert len(kept.found) <= 5
        assert sum(found // 8193 % 12 for found in kept.found) <= 30
        if size <= 10:
            seen.add(key)


def test_what_is_in_use_is_back_soon_after_it_was_emptied():
    kept: Kept[int, int] = Kept(5, key_bytes=10)
    for at in range(6):
        for _ in range(2):
            kept.put(KEYS[at], 1, at)
    assert kept.found == {KEYS[5]: 5}
    kept.put(KEYS[0], 1, 0)
    assert kept.found == {KEYS[5]: 5, KEYS[0]: 0}


def test_bytes_of_what_was_emptied_do_not_count():
    kept: Kept[int, int] = Kept(100, key_bytes=10, bytes_max=30)
    for key in KEYS[:5] * 2:
        kept.put(key, 10, key)
    assert list(kept.found) == KEYS[3:5]
