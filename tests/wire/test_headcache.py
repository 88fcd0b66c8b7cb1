"""The cache of heads: bounded in entries and bytes, and it keeps what is used."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headgate.wire.headcache import _BYTES, _ENTRY_BYTES, HeadCache


def test_it_gives_back_what_was_put():
    cache: HeadCache[int] = HeadCache()
    cache.put(b"a", 1)
    assert cache.get(b"a") == 1
    assert cache.get(b"b") is None


def test_entries_are_bounded_and_what_is_used_stays():
    cache: HeadCache[int] = HeadCache(100)
    cache.put(b"used", -1)
    for at in range(10_000):
        cache.put(b"%d" % at, at)
        if at % 50 == 0:
            assert cache.get(b"used") == -1
        assert len(cache) <= 200
    assert cache.get(b"used") == -1
    assert cache.get(b"5") is None


def test_bytes_are_bounded():
    cache: HeadCache[int] = HeadCache(10**9)
    block = bytes(4000)
    for at in range(2000):
        cache.put(b"%04d" % at + block, at)
        held = sum(map(len, cache._old)) + sum(map(len, cache.young))
        assert held <= 2 * _BYTES


def test_a_large_head_is_not_kept():
    cache: HeadCache[int] = HeadCache()
    cache.put(bytes(_ENTRY_BYTES + 1), 1)
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
