"""Sizes are estimated upwards, whatever a value does to look small."""

from __future__ import annotations

import array
import collections
import dataclasses
import mmap
import tracemalloc
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.cache.sizes import UNSEEN_BYTES, size_of

BIG = 100_000


def text(many: int = BIG) -> str:
    return "x" * many


class LyingDict(dict[Any, Any]):
    def __sizeof__(self) -> int:
        return 1

    def __iter__(self) -> Any:
        return iter(())

    def __len__(self) -> int:
        return 0


class LyingSlots:
    __slots__ = ("held",)

    def __init__(self, held: object) -> None:
        self.held = held

    def __sizeof__(self) -> int:
        raise RuntimeError("never asked")


class LyingObject:
    def __init__(self, held: object) -> None:
        self.held = held
        self.itself = self

    @property
    def __dict__(self) -> dict[str, Any]:  # type: ignore[override]  # that is the lie
        return {}

    @property  # type: ignore[misc]  # likewise
    def __class__(self) -> type:
        return int

    def __getattribute__(self, name: str) -> object:
        raise RuntimeError("never asked")

    @property
    def nbytes(self) -> int:
        raise RuntimeError("never asked")


class LyingBytes(bytes):
    def __sizeof__(self) -> int:
        return 0

    def __len__(self) -> int:
        return 0


@dataclasses.dataclass(slots=True)
class Row:
    held: str


def closure() -> Callable[[], str]:
    held = text()
    return lambda: held


def default() -> Callable[..., object]:
    def inner(held: str = text()) -> str:
        return held

    return inner


def cycle() -> list[Any]:
    held: list[Any] = [text()]
    held.append(held)
    return held


def generator() -> Any:
    held = text()

    def inner() -> Any:
        yield held

    found = inner()
    next(found)
    return found


HOLDERS: dict[str, Callable[[], object]] = {
    "text": text,
    "bytes": lambda: bytes(BIG),
    "bytearray": lambda: bytearray(BIG),
    "wide-text": lambda: "\U0001f600" * (BIG // 4),
    "huge-number": lambda: 1 << (8 * BIG),
    "list": lambda: [text()],
    "key-of-dict": lambda: {text(): 1},
    "value-of-dict": lambda: {1: text()},
    "set": lambda: {text()},
    "frozenset": lambda: frozenset({text()}),
    "deep": lambda: [{"a": ({"b": [text()]},)}],
    "cycle": cycle,
    "lying-dict": lambda: LyingDict(a=text()),
    "lying-slots": lambda: LyingSlots(text()),
    "lying-object": lambda: LyingObject(text()),
    "lying-bytes": lambda: LyingBytes(BIG),
    "dataclass": lambda: Row(text()),
    "deque": lambda: collections.deque([text()]),
    "ordered-dict": lambda: collections.OrderedDict(a=text()),
    "default-dict": lambda: collections.defaultdict(list, a=[text()]),
    "proxy": lambda: types.MappingProxyType({"a": text()}),
    "namespace": lambda: types.SimpleNamespace(a=text()),
    "closure": closure,
    "default": default,
    "method": lambda: LyingDict(a=text()).items,
    "iterator": lambda: iter([text()]),
    "generator": generator,
    "exception": lambda: ValueError(text()),
    "array": lambda: array.array("b", bytes(BIG)),
    "view": lambda: memoryview(bytes(BIG)),
    "small-view-of-much": lambda: memoryview(bytes(BIG))[:1],
    "mmap": lambda: mmap.mmap(-1, BIG),
    "numpy": lambda: np.zeros(BIG, dtype=np.uint8),
    "small-view-of-numpy": lambda: np.zeros(BIG, dtype=np.uint8)[:1],
    "numpy-of-objects": lambda: np.array([[text()]], dtype=object),
    "numpy-over-bytes": lambda: np.frombuffer(bytes(BIG), dtype=np.uint8)[:1],
}


@pytest.mark.parametrize("name", HOLDERS)
def test_what_hangs_on_a_value_is_found(name: str) -> None:
    held = HOLDERS[name]()
    assert size_of(held) >= BIG
    assert size_of([held]) >= BIG
    assert size_of({"a": held} if name != "set" else [held]) < 5 * BIG


def test_a_value_met_twice_is_counted_once() -> None:
    row = [Row("x" * 1000)]
    assert size_of([row] * 100) < 3000


@pytest.mark.parametrize(
    "shared",
    [int, pytest, print, len, Row, text],
    ids=["class", "module", "print", "len", "dataclass", "function"],
)
def test_what_is_nobodys_is_not_charged(shared: object) -> None:
    assert size_of([shared]) < 1000


def test_a_walk_that_is_given_up_is_charged_high() -> None:
    numbers = list(range(300_000))
    assert size_of(numbers) > len(numbers) * UNSEEN_BYTES
    rows = [[number] for number in range(50_000)]
    assert size_of(rows) > 10 * 1024 * 1024
    # The much that is hidden at the end does not escape.
    assert size_of([*rows, text()]) > 10 * 1024 * 1024


def test_nesting_without_end_neither_recurses_nor_hangs() -> None:
    nested: list[Any] = []
    for _ in range(200_000):
        nested = [nested]
    assert size_of(nested) > 500_000
    pair: tuple[Any, ...] = ()
    for _ in range(200):
        pair = (pair, pair)
    assert size_of(pair) < 100_000
    while nested:  # taken apart by hand: the interpreter would do so by recursion
        nested = nested.pop()


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=40,
)


@settings(max_examples=60, deadline=None)
@given(PLAIN)
def test_the_estimate_is_not_below_what_the_allocator_gives(value: object) -> None:
    import copy
    import json

    try:
        packed = json.dumps(value)
    except TypeError:
        return  # bytes and the like; the rest is enough
    json.loads(packed)
    tracemalloc.start()  # sees nothing of what was made before, nor its end
    try:
        before = tracemalloc.get_traced_memory()[0]
        fresh = json.loads(packed)
        after = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    # The traced overhead of containers: a header of 16 bytes that `getsizeof` counts too.
    assert size_of(fresh) + 512 >= after - before
    assert size_of(copy.deepcopy(fresh)) <= 4 * (after - before) + 4096
