"""Keep a caller from changing what the cache holds.

Theory of operation. Three ways, chosen once for a cache:

- ``copy`` (the default): the cache keeps a copy of its own and hands out copies. A value that
  nobody can change is kept and handed out as it is, at no cost. Plain data (dict, list, set and
  tuple over scalars, however deep) is copied by a short walk; the rest by `copy.deepcopy`.
- ``frozen``: the value is made unchangeable when it comes in (dict to a read-only mapping, list to
  tuple, set to frozenset, bytearray to bytes) and handed out as it is. Nothing to pay at a hit, but
  the caller gets other types than he put. What cannot be made unchangeable is refused.
- ``shared``: everybody gets the same object. The fastest for large mutable values; whoever changes
  one changes it for all.

`copy` is the default because a spoiled cache shows far from its cause, while the copy shows in a
profile, where it is, by name.

What is unchangeable is decided by exact type: a subclass may carry attributes. A frozen dataclass,
a named tuple, an enum count as long as everything in them does.
"""

from __future__ import annotations

import copy
import dataclasses
import datetime
import re
import sys
from collections.abc import Callable
from enum import Enum
from types import BuiltinFunctionType, FunctionType, MappingProxyType
from typing import Any, Final, Literal

from headgate.errors import HeadgateError

__all__ = ["SCALARS", "Copying", "NotCopyable", "copier_for", "is_unchangeable", "taken_in"]

Copying = Literal["copy", "frozen", "shared"]

_DEPTH_MAX: Final = 200
"""Deeper nesting is not walked: it is not plain data."""

SCALARS: Final[frozenset[type]] = frozenset({str, int, float, bool, type(None), bytes, complex})
_UNCHANGEABLE: Final[set[type]] = {
    *SCALARS,
    datetime.datetime,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    datetime.timezone,
    range,
    re.Pattern,
    type(Ellipsis),
    type(NotImplemented),
    BuiltinFunctionType,
    FunctionType,
    type,
}
_IF_IMPORTED: Final = {
    "decimal": {"Decimal"},
    "fractions": {"Fraction"},
    "ipaddress": {"IPv4Address", "IPv6Address", "IPv4Network", "IPv6Network"},
    "pathlib": {"PurePosixPath", "PureWindowsPath", "PosixPath", "WindowsPath"},
    "uuid": {"UUID"},
    "zoneinfo": {"ZoneInfo"},
}
"""Unchangeable too. Not imported for that: whoever has such a value has the module."""


class NotCopyable(HeadgateError, TypeError):
    """The caller's: a value that this cache cannot protect from being changed."""


def is_unchangeable(value: object) -> bool:
    """Whether nobody who holds this value can change it, or anything in it."""
    if type(value) in _UNCHANGEABLE:
        return True
    # Not by recursion, and each but once: values are nested as their makers like.
    seen: set[int] = set()
    waiting: list[Any] = [value]
    while waiting:
        each = waiting.pop()
        kind = type(each)
        if kind in _UNCHANGEABLE or id(each) in seen or issubclass(kind, Enum):
            continue
        seen.add(id(each))
        if kind is tuple or kind is frozenset or _is_named_tuple(kind):
            waiting.extend(each)
        elif _is_late(kind):
            continue
        elif (parts := _parts_of_frozen(each, kind)) is not None:
            waiting.extend(parts)
        else:
            return False
    return True


def _is_late(kind: type) -> bool:
    name, module = kind.__qualname__, kind.__module__
    if name not in _IF_IMPORTED.get(module, ()):
        return False
    if getattr(sys.modules.get(module), name, None) is not kind:
        return False  # it only says so
    _UNCHANGEABLE.add(kind)
    return True


def _is_named_tuple(kind: type) -> bool:
    return issubclass(kind, tuple) and hasattr(kind, "_fields") and not kind.__dictoffset__


def _parts_of_frozen(value: Any, kind: type) -> list[Any] | None:
    """What a frozen dataclass consists of; None if it is none."""
    params = kind.__dict__.get("__dataclass_params__")
    if params is None or not params.frozen:
        return None
    names = [field.name for field in dataclasses.fields(kind)]
    more = getattr(value, "__dict__", {})
    if any(name not in names for name in more):
        return None  # it carries what is not declared, a cached property perhaps
    return [getattr(value, name, None) for name in names]


def copier_for(value: object) -> Callable[[Any], Any] | None:
    """By what this value is copied; None if it need not be."""
    if is_unchangeable(value):
        return None
    return copy_plain if _is_plain_tree(value, set(), 0) else copy_any


def _is_plain_tree(value: Any, seen: set[int], depth: int) -> bool:
    """Scalars in built-in containers, none of which is met twice: what is shared must stay so."""
    kind = type(value)
    if kind in SCALARS:
        return True
    if kind is not list and kind is not dict and kind is not set and kind is not tuple:
        return is_unchangeable(value)
    if depth > _DEPTH_MAX:
        return False
    if id(value) in seen:
        # Equal literals are one tuple; they need no memory of having been copied.
        return kind is tuple and all(type(each) in SCALARS for each in value)
    seen.add(id(value))
    if kind is dict:
        return all(
            (type(key) in SCALARS or is_unchangeable(key))
            and (type(each) in SCALARS or _is_plain_tree(each, seen, depth + 1))
            for key, each in value.items()
        )
    if kind is set:
        return all(is_unchangeable(each) for each in value)
    return all(type(each) in SCALARS or _is_plain_tree(each, seen, depth + 1) for each in value)


def copy_plain(value: Any) -> Any:
    """Copy what `_is_plain_tree` has found to be one."""
    kind = type(value)
    scalars = SCALARS
    if kind is dict:
        return {
            key: each if type(each) in scalars else copy_plain(each) for key, each in value.items()
        }
    if kind is list:
        return [each if type(each) in scalars else copy_plain(each) for each in value]
    if kind is tuple:
        return tuple([each if type(each) in scalars else copy_plain(each) for each in value])
    if kind is set:
        return value.copy()
    return value


def copy_any(value: Any) -> Any:
    try:
        return copy.deepcopy(value)
    except Exception as error:  # any class may have its own way of being copied
        raise NotCopyable(
            f"a {type(value).__qualname__} cannot be copied ({type(error).__name__}: {error}); "
            'keep plain data, or choose copying="shared" if nobody changes it'
        ) from error


def freeze(value: Any) -> Any:
    """The same, unchangeable."""
    return value if is_unchangeable(value) else _freeze(value, {}, 0)


def _freeze(value: Any, done: dict[int, Any], depth: int) -> Any:
    kind = type(value)
    if kind in _UNCHANGEABLE:
        return value
    if id(value) in done:
        return done[id(value)]
    if depth > _DEPTH_MAX:
        raise NotCopyable(f"nested more than {_DEPTH_MAX} deep, or in itself; it cannot be frozen")
    frozen: Any
    if kind is dict or kind is MappingProxyType:
        frozen = {key: _freeze(each, done, depth + 1) for key, each in value.items()}
        frozen = MappingProxyType(frozen)
    elif kind is list or kind is tuple:
        frozen = tuple([_freeze(each, done, depth + 1) for each in value])
    elif kind is set:
        frozen = frozenset([_freeze(each, done, depth + 1) for each in value])
    elif kind is bytearray:
        frozen = bytes(value)
    elif is_unchangeable(value):
        frozen = value
    else:
        raise NotCopyable(
            f"a {kind.__qualname__} cannot be frozen; make it a frozen dataclass of unchangeable "
            'fields, or plain data, or choose copying="copy"'
        )
    done[id(value)] = frozen
    return frozen


def taken_in(value: Any, how: Copying) -> tuple[Any, Callable[[Any], Any] | None]:
    """What the cache keeps of a value, and by what it is copied for whoever asks for it."""
    if how == "shared":
        return value, None
    if how == "frozen":
        return freeze(value), None
    copier = copier_for(value)
    return (value, None) if copier is None else (copier(value), copier)
