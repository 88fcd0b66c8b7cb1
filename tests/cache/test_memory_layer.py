"""The first layer: time, bounds, copies and counts, against a naive model."""

from __future__ import annotations

import gc
import random
import threading
import tracemalloc
import weakref
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from headgate.cache.copying import NotCopyable
from headgate.cache.entry import FOREVER, Entry
from headgate.cache.eviction import Dropped
from headgate.cache.memory import BYTES_MAX, ENTRY_BYTES, ITEMS_MAX, Memory
from headgate.cache.sizing import Size, SizingRules


def entry(value: Any, until: float = FOREVER, tags: tuple[str, ...] = ()) -> Entry:
    return Entry(value, 0.0, until, until, tags=tags)


def check(memory: Memory) -> None:
    assert memory.items <= memory.items_max
    assert memory.bytes <= memory.bytes_max
    ends = {key: memory._shelf.peek(key) for key in memory.scan()}
    timed = [key for key, held in ends.items() if held is not None and held.until != FOREVER]
    assert memory._wheel.keys == len(timed)
    assert memory._wheel.buckets <= 2 * len(timed) + 130
    assert memory._sweep_at == memory._wheel.next_at
    assert not memory._to_tell


KEYS = st.sampled_from([f"k{number}" for number in range(20)])


class AgainstModel(RuleBasedStateMachine):
    """The model forgets when it is told, and at the end of an entry's time; never otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[str, Entry] = {}
        self.now = 1000.0
        self.number = 0
        self.hits = self.misses = self.puts = 0
        self.memory = Memory(8, 8 * (ENTRY_BYTES + 400), on_drop=self.hear)

    def hear(self, key: str, dropped: Entry, why: Dropped) -> None:
        if self.model.get(key) is dropped:
            del self.model[key]
            assert why != "expired" or self.now >= dropped.usable_until

    @rule(
        key=KEYS,
        ttl=st.sampled_from([0.0, 0.5, 1.0, 3.0, 100.0, FOREVER]),
        many=st.integers(0, 900),
    )
    def put(self, key: str, ttl: float, many: int) -> None:
        self.number += 1
        self.puts += 1
        value = f"{self.number}:" + "x" * many
        made = Entry(value, self.now, self.now + ttl, self.now + ttl)
        if self.memory.put(key, made):
            self.model[key] = made
        assert (key in self.model) == (self.memory._shelf.peek(key) is not None)

    @rule(key=KEYS)
    def get(self, key: str) -> None:
        want = self.model.get(key)
        if want is not None and self.now >= want.usable_until:
            want = None
        assert self.memory.get(key, self.now) is want
        assert self.memory.peek(key, self.now) is want
        self.hits += want is not None
        self.misses += want is None

    @rule(key=KEYS)
    def delete(self, key: str) -> None:
        was_here = key in self.model
        assert self.memory.delete(key) == was_here
        assert key not in self.model

    @rule(step=st.floats(0, 20))
    def later(self, step: float) -> None:
        self.now += step

    @rule()
    def earlier(self) -> None:
        self.now -= 5

    @rule()
    def sweep(self) -> None:
        self.memory.sweep(self.now, 100)
        assert all(held.usable_until + 1 > self.now for held in self.model.values())

    @rule(items=st.integers(1, 12), share=st.integers(1, 12))
    def resize(self, items: int, share: int) -> None:
        self.memory.resize(items, share * (ENTRY_BYTES + 400))

    @rule()
    def clear(self) -> None:
        many = len(self.model)
        assert self.memory.clear() == many
        assert not self.model

    @invariant()
    def all_agrees(self) -> None:
        check(self.memory)
        assert sorted(self.memory.scan("*")) == sorted(self.model)
        said = self.memory.snapshot()
        assert (said.hits, said.misses, said.puts) == (self.hits, self.misses, self.puts)
        assert said.items == len(self.model)


AgainstModel.TestCase.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
TestAgainstModel = AgainstModel.TestCase


def test_the_defaults_are_ten_thousand_items_and_a_hundred_megabytes() -> None:
    memory = Memory()
    assert (memory.items_max, memory.bytes_max) == (ITEMS_MAX, BYTES_MAX) == (10_000, 104_857_600)
    assert memory.copying == "copy"


def test_an_entry_is_served_to_the_moment_and_not_beyond() -> None:
    memory = Memory()
    memory.put("a", entry(1, 10.25))
    assert memory.get("a", 10.2499) is not None
    assert memory.get("a", 10.25) is None
    assert memory.items == 0
    said = memory.snapshot()
    assert (said.hits, said.misses, said.expirations) == (1, 1, 1)


def test_what_is_over_goes_when_anything_is_asked_for() -> None:
    memory = Memory()
    for number in range(100):
        memory.put(f"k{number}", entry(number, 5.0 + number % 3))
    memory.put("stays", entry(1))
    rounds = 0
    while memory.items > 1 and rounds < 10:
        memory.get("something else", 9.0)
        rounds += 1
    assert list(memory.scan()) == ["stays"]
    assert memory.snapshot().expirations == 100


def test_the_memory_of_what_is_over_is_free() -> None:
    class Value:
        pass

    memory = Memory(copying="shared")
    value = Value()
    gone = weakref.ref(value)
    memory.put("a", entry(value, 5.0))
    del value
    gc.collect()
    assert gone() is not None
    memory.get("b", 7.0)
    assert gone() is None


def test_a_second_at_which_much_is_over_is_swept_in_steps() -> None:
    memory = Memory()
    for number in range(1000):
        memory.put(f"k{number}", entry(number, 5.0))
    memory.get("k", 7.0)
    assert 900 < memory.items < 1000
    while memory.sweep(7.0):
        pass
    assert memory.items == 0


def test_ends_of_all_kinds_leave_no_trace_in_the_wheel() -> None:
    memory = Memory(10, 10**6)
    for number in range(5000):
        memory.put(f"k{number % 20}", entry(number, 1e6 + number * 37.0))
        check(memory)
    memory.put("far", entry(1, 1e300))
    memory.put("past", entry(1, -5.0))
    check(memory)
    assert memory.get("past", 0.0) is None
    with pytest.raises(ValueError, match="usable_until of 'a' is not a number"):
        memory.put("a", entry(1, float("nan")))


def test_a_caller_cannot_spoil_what_is_kept() -> None:
    memory = Memory()
    mine = {"a": [1]}
    memory.put("k", entry(mine))
    mine["a"].append(2)
    first = memory.get("k", 0.0)
    assert first is not None
    first.value["a"].append(3)
    second = memory.get("k", 0.0)
    assert second is not None
    assert second.value == {"a": [1]}


def test_an_unchangeable_value_is_handed_out_as_the_same_entry() -> None:
    memory = Memory(has_ghost=False)
    kept = entry(("a", 1))
    memory.put("k", kept)
    assert memory.get("k", 0.0) is kept


def test_frozen_values_are_read_only_and_shared() -> None:
    memory = Memory(copying="frozen")
    memory.put("k", entry({"a": [1]}))
    first, second = memory.get("k", 0.0), memory.get("k", 0.0)
    assert first is second
    assert first is not None
    assert first.value == {"a": (1,)}


def test_a_value_that_cannot_be_copied_leaves_things_as_they_were() -> None:
    memory = Memory()
    memory.put("k", entry(1))
    with pytest.raises(NotCopyable):
        memory.put("k", entry([threading.Lock()]))
    found = memory.get("k", 0.0)
    assert found is not None
    assert found.value == 1


def test_what_else_an_entry_carries_survives_the_copy() -> None:
    memory = Memory()
    made = Entry(
        [1], 1.0, 2.0, 3.0, stamp=4, tags=("t",), cost_s=5.0, validator="v", is_nothing=True
    )
    memory.put("k", made)
    found = memory.get("k", 0.0)
    assert found is not None
    for name in Entry.__slots__:
        assert getattr(found, name) == getattr(made, name)


@pytest.mark.parametrize("key", [1, b"a", None, type("Text", (str,), {})("a")], ids=repr)
def test_a_key_that_is_not_a_str_is_refused(key: Any) -> None:
    with pytest.raises(TypeError, match="a key is a str"):
        Memory().put(key, entry(1))


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match='"copy", "frozen" or "shared"'):
        Memory(copying="deep")  # type: ignore[arg-type]  # that is what is tested
    with pytest.raises(ValueError, match="sizing needs the ghost"):
        Memory(has_ghost=False, sizing=SizingRules(Size(1, 1), Size(2, 2)))


def test_scan_takes_a_glob_and_survives_changes() -> None:
    memory = Memory()
    for number in range(30):
        memory.put(f"user:{number}:name", entry(number))
        memory.put(f"item:{number}", entry(number))
    found = memory.scan("user:*:name")
    assert next(found).startswith("user:")
    memory.clear()
    assert len(list(found)) == 29
    assert list(memory.scan("user:*")) == []


def test_what_the_caller_says_of_the_size_is_believed() -> None:
    memory = Memory(10, 100_000)
    assert not memory.put("a", entry("x"), size=30_000)
    assert memory.put("a", entry("x" * 30_000), size=100)
    assert memory.bytes < 2000


def test_tags_and_long_keys_are_charged() -> None:
    memory = Memory()
    memory.put("k" * 5000, entry(1, tags=("t" * 3000,)))
    assert memory.bytes > 8000
    assert not Memory(10, 100_000).put("k" * 50_000, entry(1))


def test_real_memory_stays_below_the_bound_for_a_load_of_many_kinds() -> None:
    bound = 1_000_000
    rng = random.Random(5)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        memory = Memory(10**6, bound, has_ghost=False)
        for number in range(1200):
            value: Any = rng.choice(
                [
                    "x" * rng.randrange(3000),
                    list(range(rng.randrange(1000, 1300))),
                    {f"f{at}": [at, str(at)] for at in range(rng.randrange(20))},
                    None,
                    number,
                ]
            )
            memory.put(f"key:{number}", entry(value, 10.0 + number * 1.5))
        del value
        gc.collect()
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert memory.bytes > bound * 0.95
    assert used <= bound


def test_a_flood_of_keys_costs_no_more_than_the_bound() -> None:
    memory = Memory(200, 10**6)
    for number in range(20):
        memory.put(f"hot{number}", entry(number))
    for number in range(8000):
        if memory.get(f"flood{number}", 0.0) is None:
            memory.put(f"flood{number}", entry("x"))
        memory.get(f"hot{number % 20}", 0.0)
    assert all(memory.peek(f"hot{number}", 0.0) is not None for number in range(20))
    assert memory.items == 200
    assert len(memory._shelf._lately) <= 40
    assert memory._shelf._sketch.mask < 1 << 15


def test_size_moves_within_its_bounds_where_that_pays() -> None:
    each = ENTRY_BYTES + 300
    rules = SizingRules(Size(100, 100 * each), Size(2000, 2000 * each))
    memory = Memory(400, 400 * each, sizing=rules)
    rng = random.Random(2)
    for _ in range(60_000):
        key = f"k{rng.randrange(1500)}"
        if memory.get(key, 0.0) is None:
            memory.put(key, entry("x"))
    assert 800 < memory.items_max <= 2000
    assert memory.items > 700


def test_threads_beside_each_other_leave_it_whole() -> None:
    told: list[Dropped] = []
    memory = Memory(60, 10**6, on_drop=lambda key, dropped, why: told.append(why))
    wrong: list[object] = []

    def work(seed: int) -> None:
        rng = random.Random(seed)
        try:
            for step in range(2500):
                number = rng.randrange(150)
                now = float(step // 100)
                match rng.randrange(10):
                    case 0:
                        memory.delete(f"k{number}")
                    case 1:
                        memory.sweep(now)
                    case 2 | 3 | 4:
                        until = rng.choice([now + 1, now + 5, FOREVER])
                        memory.put(f"k{number}", entry([number], until))
                    case _:
                        found = memory.get(f"k{number}", now)
                        if found is not None and found.value != [number]:
                            wrong.append(found.value)
        except Exception as error:  # whatever it is, the test is to show it
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not wrong
    check(memory)
    memory.clear()
    assert len(told) > 100
    assert memory.bytes == 0
    check(memory)


def test_a_listener_may_use_the_cache_and_no_lock_is_held_meanwhile() -> None:
    memory = Memory(4, 10**6)
    is_asked: list[bool] = []
    is_free: list[bool] = []

    def hear(key: str, dropped: Entry, why: Dropped) -> None:
        def probe() -> None:
            memory.put("probe", entry(1))
            is_free.append(True)

        if not is_asked:
            is_asked.append(True)
            thread = threading.Thread(target=probe)
            thread.start()
            thread.join(10)

    memory.on_drop = hear
    for number in range(20):
        memory.put(f"k{number}", entry(number))
    assert is_free == [True]
