"""A shelf within its bounds, against a naive model."""

from __future__ import annotations

import random
import threading
from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from headgate.cache.eviction import Dropped, Shelf
from headgate.cache.eviction_sketch import COUNT_MAX, Sketch


def check(shelf: Shelf[int]) -> None:
    nodes = list(shelf._nodes.values())
    assert len(shelf) <= shelf.items_max
    assert shelf.bytes <= shelf.bytes_max
    assert shelf.bytes == sum(node.size for node in nodes)
    window = [node for node in nodes if node.at == -1]
    assert shelf._window_items == len(window)
    assert shelf._window_bytes == sum(node.size for node in window)
    assert all(node.at == place for place, node in enumerate(shelf._main))
    assert len(window) + len(shelf._main) == len(nodes)
    assert len(shelf._window) <= 2 * 60 + 64
    assert len(shelf._lately) <= 8 + 60
    assert not shelf._is_busy


KEYS = st.sampled_from([f"k{number}" for number in range(30)])


class AgainstModel(RuleBasedStateMachine):
    """The model keeps what was put until it is told that it was dropped, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[str, int] = {}
        self.told: list[tuple[str, int, Dropped]] = []
        self.shelf: Shelf[int] = Shelf(8, 100, self.hear)
        self.number = 1000
        self.hits = self.misses = 0

    def hear(self, key: str, value: int, why: Dropped) -> None:
        self.told.append((key, value, why))

    def settle(self) -> None:
        for key, value, _why in self.told:
            if self.model.get(key) == value:
                del self.model[key]
        self.told.clear()

    @rule(key=KEYS, size=st.integers(0, 40))
    def put(self, key: str, size: int) -> None:
        self.number += 1
        before = self.model.get(key)
        is_kept = self.shelf.put(key, self.number, size)
        if before is not None:
            assert [each[1] for each in self.told].count(before) == 1
        self.settle()
        if is_kept:
            self.model[key] = self.number
        assert is_kept == (size <= self.shelf.bytes_max / 4)

    @rule(key=KEYS)
    def get(self, key: str) -> None:
        want = self.model.get(key)
        assert self.shelf.get(key) == want
        self.hits += want is not None
        self.misses += want is None

    @rule(key=KEYS)
    def peek(self, key: str) -> None:
        assert self.shelf.peek(key) == self.model.get(key)
        assert (key in self.shelf) == (key in self.model)

    @rule(key=KEYS)
    def pop(self, key: str) -> None:
        want = self.model.get(key)
        assert self.shelf.pop(key) == want
        assert [each[2] for each in self.told] == ["removed"] * (want is not None)
        self.settle()
        assert key not in self.model

    @rule(key=KEYS, size=st.integers(0, 40))
    def resized(self, key: str, size: int) -> None:
        was_here = key in self.model
        is_kept = self.shelf.resized(key, size)
        self.settle()
        assert is_kept == (was_here and key in self.model)

    @rule(items=st.integers(1, 20), size=st.integers(1, 200))
    def resize(self, items: int, size: int) -> None:
        self.shelf.resize(items, size)
        self.settle()

    @rule()
    def clear(self) -> None:
        many = len(self.model)
        assert self.shelf.clear() == many
        self.settle()
        assert not self.model

    @invariant()
    def all_agrees(self) -> None:
        check(self.shelf)
        assert sorted(self.shelf.keys()) == sorted(self.model)
        said = self.shelf.snapshot()
        assert (said.hits, said.misses, said.items) == (self.hits, self.misses, len(self.model))


AgainstModel.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestAgainstModel = AgainstModel.TestCase


def test_what_is_put_can_be_read_at_once_even_when_all_others_are_popular() -> None:
    shelf: Shelf[int] = Shelf(10, 10_000)
    for number in range(10):
        shelf.put(f"k{number}", number, 1)
    for _ in range(100):
        for number in range(10):
            shelf.get(f"k{number}")
    shelf.put("new", 1, 1)
    assert shelf.get("new") == 1


@pytest.mark.parametrize(("items", "size"), [(0, 1), (1, 0), (-1, 5)])
def test_bounds_below_one_are_refused(items: int, size: int) -> None:
    with pytest.raises(ValueError, match="write 1 or more"):
        Shelf(items, size)
    shelf: Shelf[int] = Shelf(1, 1)
    with pytest.raises(ValueError, match="write 1 or more"):
        shelf.resize(items, size)


def test_a_negative_size_is_refused() -> None:
    with pytest.raises(ValueError, match="size of 'a' is -1"):
        Shelf[int](1, 1).put("a", 1, -1)


def test_what_is_too_large_replaces_nothing_but_its_own_key() -> None:
    told: list[tuple[str, int, Dropped]] = []
    shelf: Shelf[int] = Shelf(10, 100, lambda *each: told.append(each))
    shelf.put("a", 1, 10)
    shelf.put("b", 2, 10)
    assert not shelf.put("a", 3, 26)
    assert shelf.keys() == ["b"]
    assert told == [("a", 1, "too big")]
    assert shelf.snapshot().refused == 1


def test_a_scan_does_not_displace_what_is_used() -> None:
    shelf: Shelf[int] = Shelf(100, 10**9)
    for _ in range(5):
        for number in range(90):
            if shelf.get(f"hot{number}") is None:
                shelf.put(f"hot{number}", number, 1)
    for number in range(500):
        shelf.put(f"scan{number}", number, 1)
    assert sum(f"hot{number}" in shelf for number in range(90)) > 80


def test_a_large_value_is_weighed_against_all_that_it_would_displace() -> None:
    shelf: Shelf[int] = Shelf(1000, 1000, largest_share=0.5)
    for number in range(100):
        shelf.put(f"small{number}", number, 10)
        shelf.get(f"small{number}")
    for number in range(50):
        shelf.put(f"large{number}", number, 400)
    # The latest large one is in the window and has its room; no more were let in.
    assert sum(f"small{number}" in shelf for number in range(100)) >= 55
    assert sum(f"large{number}" in shelf for number in range(50)) == 1


def test_yesterdays_favourites_leave() -> None:
    shelf: Shelf[int] = Shelf(100, 10**9)
    for day in range(2):
        rng = random.Random(day)
        for _ in range(30_000):
            key = f"{day}:{rng.randrange(90)}"
            if shelf.get(key) is None:
                shelf.put(key, 1, 1)
    assert sum(key.startswith("1:") for key in shelf.keys()) >= 85  # noqa: SIM118 - a method


def test_pop_if_spares_what_has_come_since() -> None:
    shelf: Shelf[str] = Shelf(10, 100)
    old, new = "x" * 3, "y" * 3
    shelf.put("a", old, 1)
    shelf.put("a", new, 1)
    assert not shelf.pop_if("a", old)
    assert shelf.pop_if("a", new)
    assert not shelf.pop_if("a", new)


def test_a_listener_may_come_back_into_the_shelf() -> None:
    shelf: Shelf[int] = Shelf(4, 100)

    def hear(key: str, value: int, why: Dropped) -> None:
        if value > 0:
            shelf.put("from listener", -1, 1)
            shelf.pop("k3")

    shelf.on_drop = hear
    for number in range(20):
        shelf.put(f"k{number}", number + 1, 1)
        check(shelf)


def test_whoever_comes_back_in_the_midst_of_a_change_is_declined_or_heard_later() -> None:
    shelf: Shelf[int] = Shelf(4, 100)
    shelf.put("a", 1, 1)
    shelf.put("b", 1, 1)
    shelf._is_busy = True  # as a finalizer would find it
    assert not shelf.put("c", 1, 1)
    assert shelf.pop("a") == 1
    assert "a" in shelf
    assert shelf.get("b") == 1
    shelf._is_busy = False
    shelf.put("d", 1, 1)
    assert sorted(shelf.keys()) == ["b", "d"]
    check(shelf)


def test_threads_beside_each_other_leave_it_whole() -> None:
    told: Counter[Dropped] = Counter()
    count_lock = threading.Lock()

    def hear(key: str, value: int, why: Dropped) -> None:
        with count_lock:
            told[why] += 1

    shelf: Shelf[int] = Shelf(50, 2000, hear)
    wrong: list[object] = []
    kept = Counter[str]()

    def work(seed: int) -> None:
        rng = random.Random(seed)
        try:
            for _ in range(4000):
                number = rng.randrange(200)
                match rng.randrange(12):
                    case 0:
                        shelf.pop(f"k{number}")
                    case 1:
                        shelf.resize(rng.randrange(20, 60), rng.randrange(500, 2000))
                    case 2:
                        shelf.keys()
                    case 3 | 4 | 5 | 6:
                        if shelf.put(f"k{number}", number, rng.randrange(60)):
                            with count_lock:
                                kept["puts"] += 1
                    case _:
                        found = shelf.get(f"k{number}")
                        if found not in (None, number):
                            wrong.append((number, found))
        except Exception as error:  # whatever it is, the test is to show it
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not wrong
    check(shelf)


def test_a_sketch_that_ages_halves_all() -> None:
    sketch = Sketch()
    want = {number * 7919: number % (COUNT_MAX + 1) for number in range(200)}
    for hashed, count in want.items():
        sketch.counts[hashed & sketch.mask] = count
    before = bytes(sketch.counts)
    sketch.age()
    while sketch.is_ageing:
        sketch.step()
    assert sketch.counts == bytes(count // 2 for count in before)


def test_a_sketch_that_grows_keeps_its_estimates() -> None:
    sketch = Sketch()
    for number in range(300):
        sketch.counts[hash(f"k{number}") & sketch.mask] = 5
    sketch.serve(5000)
    assert sketch.mask + 1 == 524_288
    assert all(sketch.counts[hash(f"k{number}") & sketch.mask] == 5 for number in range(300))


def hit_ratio(shelf: Shelf[int], keys: list[str]) -> float:
    before = shelf.hits
    for key in keys:
        if shelf.get(key) is None:
            shelf.put(key, 1, 1)
    return (shelf.hits - before) / len(keys)


def test_a_loop_longer_than_the_shelf_is_hit_nearly_as_often_as_can_be() -> None:
    shelf: Shelf[int] = Shelf(500, 10**9)
    loop = [f"k{number % 600}" for number in range(30_000)]
    assert hit_ratio(shelf, loop) > 0.75  # 500 / 600 is the most


def test_the_window_grows_where_what_is_new_is_asked_for_and_shrinks_again() -> None:
    rng = random.Random(1)
    shelf: Shelf[int] = Shelf(500, 10**9)
    recent = [f"k{number // 4 - int(rng.expovariate(1 / 100))}" for number in range(40_000)]
    hit_ratio(shelf, recent)
    assert shelf.snapshot().window_share > 0.3
    popular = [f"p{int(5000 ** rng.random())}" for _ in range(60_000)]
    hit_ratio(shelf, popular)
    assert shelf.snapshot().window_share < 0.1
