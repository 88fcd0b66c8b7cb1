"""What the primitives share: telling kinds of functions apart, and entering by `with`.

Theory of operation. `with users:` enters a shared object; which permit is to be given back at the
end must be found by the task or thread that entered. A context variable keeps a chain of what its
context has entered. An async generator may be closed in another context than it ran in (the event
loop finalises them so): then the entry cannot be found there, and the newest one of the object is
given back in its place. Permits and seats are alike, so nothing leaks; at most two calls have
their durations swapped.

There is one variable for all objects: a context keeps every variable it has ever seen.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextvars import ContextVar
from types import CoroutineType
from typing import Any, Final, Generic, TypeAlias, TypeVar

__all__ = [
    "Entries",
    "Errors",
    "is_async",
    "is_one_of",
    "name_of",
    "refuse_coroutine",
    "refuse_generators",
]

Errors: TypeAlias = (
    type[BaseException] | tuple[type[BaseException], ...] | Callable[[BaseException], object]
)
"""Which exceptions: a class, several, or a function that says yes or no."""

T = TypeVar("T")


class _Entered:
    """One entry in the chain of a context."""

    __slots__ = ("before", "owner", "value")

    def __init__(self, owner: Entries[Any] | None, value: Any, before: _Entered | None) -> None:
        self.owner = owner  # None: left
        self.value = value
        self.before = before


_CHAIN: Final[ContextVar[_Entered | None]] = ContextVar("headgate_entered", default=None)


class Entries(Generic[T]):
    """What has been entered by `with` and not been left."""

    __slots__ = ("_inside",)

    def __init__(self) -> None:
        self._inside: dict[_Entered, None] = {}

    def push(self, value: T) -> None:
        before = _CHAIN.get()
        while before is not None and before.owner is None:
            before = before.before
        entered = _Entered(self, value, before)
        self._inside[entered] = None
        _CHAIN.set(entered)

    def pop(self) -> T:
        top = found = _CHAIN.get()
        while found is not None and found.owner is not self:
            found = found.before
        if found is None:
            found, _ = self._inside.popitem()
        else:
            del self._inside[found]
        found.owner = None
        while top is not None and top.owner is None:
            top = top.before
        _CHAIN.set(top)
        value: T = found.value
        found.value = None
        return value


def is_one_of(error: BaseException, errors: Errors) -> bool:
    if isinstance(errors, (type, tuple)):
        return isinstance(error, errors)
    return bool(errors(error))


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling it answers a coroutine, as far as can be told before."""
    if inspect.iscoroutinefunction(function):
        return True
    inner = getattr(function, "func", None)  # functools.partial
    if inner is not None and callable(inner):
        return is_async(inner)
    return inspect.iscoroutinefunction(getattr(type(function), "__call__", None))  # noqa: B004 - asked of the type, not whether it is callable


def refuse_generators(function: Callable[..., Any], what: str) -> None:
    """A generator function returns before its body has run, so there is nothing to judge."""
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(
            f"{what} cannot wrap the generator {name_of(function)}: it returns before it runs; "
            "wrap the loop over it instead"
        )


def refuse_coroutine(result: object, what: str) -> None:
    """A coroutine was made by a call that was taken for a plain one."""
    if isinstance(result, CoroutineType):
        result.close()
        raise TypeError(f"{what} was given a function that answers a coroutine; use call_async")


def name_of(function: Callable[..., Any]) -> str:
    inner = getattr(function, "func", function)
    return getattr(inner, "__qualname__", None) or type(inner).__qualname__
