"""How much memory a value holds: an estimate that errs upwards.

Theory of operation. All that hangs on the value is walked, each object once, by the references that
the garbage collector knows: attributes, slots, items, cells, whatever the class makes of its own
`__dict__`, `__iter__` or `__class__`. What an object says of itself is not asked: `__sizeof__` is
taken from the built-in type that the class is derived from, never from Python code. Memory that is
not made of objects is found through the buffer protocol and through `base` (a view of ten bytes
keeps the whole array), and an `nbytes` can raise the estimate but not lower it.

The walk is bounded in steps. What is left when it ends is charged with `UNSEEN_BYTES` an object,
and what was seen twice over: whoever wants such a value kept says its size himself. What several
entries share is charged to each of them. Classes, modules and functions that are not
closures are nobody's; they are not charged and not walked.

Not to be seen from here: memory that a C extension hides from both the collector and the buffer
protocol (and a handle of a database, a tensor on a card). Such values need a size from the caller.
"""

from __future__ import annotations

import gc
import sys
from enum import Enum
from logging import Logger
from types import (
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import Any, Final

__all__ = ["STEPS_MAX", "UNSEEN_BYTES", "size_of"]

STEPS_MAX: Final = 50_000
"""Objects without children count one, others five: about ten milliseconds at worst."""
UNSEEN_BYTES: Final = 4096

_LEAVES: Final = frozenset({str, bytes, int, float, complex, bool, type(None), bytearray})
_BULKS: Final = frozenset({list, tuple, set, frozenset})
_NOBODYS: Final = (
    type,
    ModuleType,
    CodeType,
    Enum,
    Logger,
    GetSetDescriptorType,
    MemberDescriptorType,
)
_HEAP_TYPE: Final = 1 << 9
_HEADER: Final = 16
"""What the collector and the allocator put before an object."""
_WORD: Final = 8

_getsizeof: Final = sys.getsizeof


def size_of(value: object, steps_max: int = STEPS_MAX) -> int:
    """Bytes of memory that go when this value goes; more rather than less."""
    kind = type(value)
    if kind in _LEAVES:
        return _getsizeof(value)
    seen: set[int] = {id(value)}
    # The list keeps alive what is made on the way, so that no id is used twice.
    waiting: list[Any] = [value]
    total = steps = 0
    while waiting:
        each = waiting.pop()
        kind = type(each)
        if kind in _LEAVES:
            total += _getsizeof(each)
            steps += 1
        else:
            children = _children(each, kind)
            total += _own_bytes(each, kind)
            steps += 5 + len(children) // 16
            if len(children) > steps_max - steps:
                return _given_up(total, len(children) + len(waiting))
            for child in children:
                if type(child) in _LEAVES:
                    # Met twice, counted twice: cheaper than to remember it, and on the high side.
                    total += _getsizeof(child)
                    steps += 1
                elif id(child) not in seen:
                    seen.add(id(child))
                    waiting.append(child)
        if steps > steps_max:
            return _given_up(total, len(waiting))
    return total


def _given_up(total: int, unseen: int) -> int:
    return 2 * total + unseen * UNSEEN_BYTES


def _children(value: Any, kind: type) -> Any:
    if kind is list or kind is tuple:
        return value
    if kind in _BULKS:
        return list(value)  # in one step: another thread may be changing the set
    if kind is dict:
        return [*value, *value.values()]
    if issubclass(kind, _NOBODYS):
        return ()
    if kind is FunctionType:
        # Not its globals: they are the module's.
        return [*(value.__closure__ or ()), *(value.__defaults__ or ()), value.__dict__]
    found = gc.get_referents(value)
    base = _base_of(value, kind)
    if base is not None:
        found.append(base)
    return [each for each in found if not issubclass(type(each), _NOBODYS)]


def _base_of(value: Any, kind: type) -> Any:
    """What an array of numpy keeps without telling the collector."""
    if kind.__module__.partition(".")[0] != "numpy" or not hasattr(kind, "base"):
        return None
    items: list[Any] = []
    if getattr(getattr(value, "dtype", None), "hasobject", False):
        items = value.ravel().tolist() if value.size <= STEPS_MAX else [value] * STEPS_MAX
    return (value.base, items)


def _own_bytes(value: Any, kind: type) -> int:
    if issubclass(kind, _NOBODYS):
        return 0
    own = _header_and_body(value, kind)
    if kind in _BULKS or kind is dict:
        return own
    return max(own, _buffer_bytes(value, kind))


def _header_and_body(value: Any, kind: type) -> int:
    if not kind.__flags__ & _HEAP_TYPE:
        return _getsizeof(value)
    for base in kind.__mro__:
        told = base.__dict__.get("__sizeof__")
        if isinstance(told, MethodDescriptorType | WrapperDescriptorType):
            # Attributes live in an array beside the object, a word each, or in a dictionary, which
            # the collector shows.
            return int(told(value)) + _HEADER + _WORD * len(gc.get_referents(value))
    return _getsizeof(value)  # pragma: no cover - `object` has told


def _buffer_bytes(value: Any, kind: type) -> int:
    try:
        with memoryview(value) as view:
            return view.nbytes + 2 * _HEADER
    except (TypeError, ValueError, BufferError):
        pass
    for base in kind.__mro__:
        said = base.__dict__.get("nbytes")
        if isinstance(said, GetSetDescriptorType | MemberDescriptorType):
            told = said.__get__(value, kind)
            return told if type(told) is int and told > 0 else 0
    return 0
