"""Something else when a call fails.

    @fallback(to=cached_user)            # called with the same arguments
    async def user(user_id): ...

    @fallback(value=())
    def recommendations(): ...

The error that led there is `sys.exception()` inside `to`. If `to` fails too, its error is raised.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Final, ParamSpec, TypeVar, cast

from headgate.resilience.calls import Errors, is_async, is_one_of, name_of, refuse_generators
from headgate.resilience.settings import Event, OnEvent

__all__ = ["Fallback", "fallback"]

P = ParamSpec("P")
R = TypeVar("R")

_NONE: Final = object()


class Fallback:
    """Made by `fallback()`."""

    def __init__(
        self,
        to: Callable[..., Any],
        *,
        on: Errors = Exception,
        name: str = "fallback",
        on_event: OnEvent | None = None,
    ) -> None:
        self.name = name
        self.on_event = on_event
        self._to = to
        self._on = on

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate a function, plain or async."""
        refuse_generators(function, "a fallback")
        to = self._to
        if is_async(function):
            awaited = cast("Callable[P, Awaitable[Any]]", function)

            @functools.wraps(function)
            async def replaced_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                try:
                    return await awaited(*args, **kwargs)
                except Exception as error:
                    if not self._wants(error):
                        raise
                    result = to(*args, **kwargs)
                    return await result if inspect.isawaitable(result) else result

            return cast("Callable[P, R]", replaced_async)
        if is_async(to):
            raise TypeError(
                f"the plain function {name_of(function)} cannot fall back to the async "
                f"{name_of(to)}"
            )

        @functools.wraps(function)
        def replaced(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return function(*args, **kwargs)
            except Exception as error:
                if not self._wants(error):
                    raise
                return cast("R", to(*args, **kwargs))

        return replaced

    def _wants(self, error: Exception) -> bool:
        wanted = is_one_of(error, self._on)
        if wanted and self.on_event is not None:
            self.on_event(Event("fallback", self.name, "fell_back", type(error).__name__))
        return wanted


def fallback(
    *,
    to: Callable[..., Any] | None = None,
    value: Any = _NONE,
    on: Errors = Exception,
    name: str = "fallback",
    on_event: OnEvent | None = None,
) -> Fallback:
    """Give `to`, a function of the same arguments, or a `value`."""
    if (to is None) == (value is _NONE):
        raise TypeError("fallback takes one of: to, a function; value, the result itself")

    def constant(*args: object, **kwargs: object) -> Any:
        return value

    return Fallback(to or constant, on=on, name=name, on_event=on_event)
