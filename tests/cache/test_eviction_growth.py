"""What was put is there afterwards, also when it grew and others have to go for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.cache.eviction import Shelf


def test_a_little_used_value_that_grows_is_not_what_goes_for_it() -> None:
    shelf: Shelf[int] = Shelf(8, 100)
    for key, size in (("a", 0), ("b", 14), ("c", 25), ("d", 0), ("e", 0), ("f", 22)):
        shelf.put(key, 1, size)
    for key in "abcdf":
        for _ in range(5):
            shelf.get(key)
    shelf.put("d", 2, 21)
    assert shelf.put("e", 2, 25)
    assert shelf.peek("e") == 2
    assert shelf.bytes <= 100


@pytest.mark.parametrize("items", [8, 300])
def test_a_value_that_grows_in_the_window_stays(items: int) -> None:
    shelf: Shelf[int] = Shelf(items, 1000, largest_share=1.0)
    for number in range(items):
        shelf.put(f"k{number}", number, 2)
        shelf.get(f"k{number}")
    last = f"k{items - 1}"
    assert shelf.put(last, 1, 900)
    assert shelf.peek(last) == 1
    assert shelf.bytes <= 1000


@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 100), st.booleans()), max_size=60),
    st.integers(1, 10),
)
def test_what_is_put_is_there(steps: list[tuple[int, int, bool]], items: int) -> None:
    shelf: Shelf[int] = Shelf(items, 100, largest_share=1.0)
    for key, size, is_read in steps:
        assert shelf.put(f"k{key}", key, size)
        assert shelf.peek(f"k{key}") == key
        assert shelf.bytes <= 100
        assert len(shelf) <= items
        if is_read:
            shelf.get(f"k{key}")
