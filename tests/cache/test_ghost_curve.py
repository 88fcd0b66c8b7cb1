"""The ghost's curve is near what caches of those sizes really hit."""

from __future__ import annotations

import random

import pytest

from headgate.cache.eviction import Shelf
from headgate.cache.ghost import SAMPLE_MOST, SCALES, Ghost


def popular(many: int, seed: int, keys: int = 20_000) -> list[str]:
    rng = random.Random(seed)
    # Zipf of skew one, over so many keys.
    return [f"k{int(keys ** rng.random())}" for _ in range(many)]


def real_ratio(keys: list[str], size: int) -> float:
    shelf: Shelf[int] = Shelf(size, 10**12)
    for key in keys:
        if shelf.get(key) is None:
            shelf.put(key, 1, 1)
    return shelf.hits / len(keys)


def run(ghost: Ghost, keys: list[str], size: int) -> None:
    shelf: Shelf[int] = Shelf(size, 10**12)
    for key in keys:
        is_sampled = ghost.is_sampled(key)
        if shelf.get(key) is None:
            shelf.put(key, 1, 1)
            if is_sampled:
                ghost.missed(key)
                ghost.came(key, 1)
        elif is_sampled:
            ghost.used(key, 1)
    ghost.heard(len(keys))


@pytest.mark.parametrize("size", [1000, 4000])
def test_the_curve_is_near_the_truth(size: int) -> None:
    keys = popular(60_000, size)
    ghost = Ghost(size, 10**12)
    run(ghost, keys, size)
    curve = ghost.curve()
    assert [point.scale for point in curve] == list(SCALES)
    for point in curve:
        # The sample is of a few hundred keys, drawn anew in each process by the hash.
        assert point.ratio == pytest.approx(real_ratio(keys, point.items), abs=0.15)


def test_the_curve_never_falls() -> None:
    ghost = Ghost(500, 10**12)
    run(ghost, popular(30_000, 3), 500)
    ratios = [point.ratio for point in ghost.curve()]
    assert ratios == sorted(ratios)
    assert all(0 <= ratio <= 1 for ratio in ratios)


def test_nothing_is_said_while_little_was_seen() -> None:
    ghost = Ghost(1000, 10**6)
    run(ghost, popular(100, 1), 1000)
    assert ghost.curve() == ()


@pytest.mark.parametrize("items", [1, 100, 10_000, 1_000_000])
def test_its_memory_is_bounded(items: int) -> None:
    ghost = Ghost(items, 10**9)
    most = max(shelf.items_max for shelf in ghost._shelves)
    assert most <= SAMPLE_MOST


def test_a_key_is_sampled_always_or_never_and_one_in_so_many_is() -> None:
    ghost = Ghost(10_000, 10**9)
    assert ghost.rate >= 16
    keys = [f"k{number}" for number in range(20_000)]
    first = [ghost.is_sampled(key) for key in keys]
    assert first == [ghost.is_sampled("k" + key[1:]) for key in keys]
    assert sum(first) == pytest.approx(len(keys) / ghost.rate, rel=0.35)


def test_nothing_is_said_of_a_cache_too_small_for_a_sample() -> None:
    ghost = Ghost(20, 10**6)
    run(ghost, popular(30_000, 1), 20)
    assert ghost.curve() == ()


def test_what_was_removed_is_not_taken_for_a_hit() -> None:
    ghost = Ghost(100, 10**6)
    ghost.came("a", 1)
    ghost.went("a")
    ghost.missed("a")
    assert all(shelf.hits == 0 and shelf.misses == 1 for shelf in ghost._shelves)


def test_a_value_that_grew_weighs_more_in_the_ghost_too() -> None:
    ghost = Ghost(100, 100_000)
    ghost.came("a", 10)
    ghost.came("a", 50)
    assert all(shelf.bytes == 50 for shelf in ghost._shelves)


def test_the_curve_follows_the_load() -> None:
    ghost = Ghost(500, 10**12)
    loop = [f"k{number % 100}" for number in range(100_000)]
    shelf_size = 500
    run(ghost, popular(40_000, 1), shelf_size)
    before = ghost.curve()[2].ratio
    ghost._at = 0
    run(ghost, loop, shelf_size)
    assert ghost.curve()[2].ratio > before
