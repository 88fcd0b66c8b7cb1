"""A bound on one await.

    @timeout("2s")
    async def fetch(): ...

    async with timeout("2s"): ...

There is none for plain functions: a thread cannot be stopped. Give the time to what blocks, as in
`requests.get(url, timeout=remaining("2s"))`.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import ParamSpec, TypeVar

from headgate.resilience.calls import Entries, is_async, name_of
from headgate.resilience.errors import CallTimedOut
from headgate.resilience.settings import Duration, Event, OnEvent, checked, seconds

__all__ = ["Timeout", "timeout"]

P = ParamSpec("P")
R = TypeVar("R")


class Timeout:
    """Made by `timeout()`; may be entered by many tasks at once."""

    def __init__(
        self, after_s: float, *, name: str = "timeout", on_event: OnEvent | None = None
    ) -> None:
        checked("timeout", () if after_s > 0.0 else (f"{after_s:g} seconds are over at once",))
        self.after_s = after_s
        self.name = name
        self.on_event = on_event
        self._entries = Entries[asyncio.Timeout]()

    def __call__(self, function: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
        if not is_async(function):
            raise TypeError(
                f"timeout cannot stop the plain function {name_of(function)}; "
                "give remaining() to what blocks in it"
            )
        name = self.name if self.name != "timeout" else name_of(function)

        @functools.wraps(function)
        async def timed(*args: P.args, **kwargs: P.kwargs) -> R:
            timer = asyncio.timeout(self.after_s)
            try:
                async with timer:
                    return await function(*args, **kwargs)
            except TimeoutError as error:
                if timer.expired():
                    raise self._over(name) from error
                raise

        return timed

    async def call_async(
        self, function: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        async with self:
            return await function(*args, **kwargs)

    async def __aenter__(self) -> None:
        timer = asyncio.timeout(self.after_s)
        await timer.__aenter__()
        self._entries.push(timer)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        timer = self._entries.pop()
        try:
            await timer.__aexit__(kind, error, trace)
        except TimeoutError as late:
            raise self._over(self.name) from late

    def _over(self, name: str) -> CallTimedOut:
        if self.on_event is not None:
            self.on_event(Event("timeout", name, "timed_out", "", self.after_s))
        return CallTimedOut(name, self.after_s)


def timeout(after: Duration, *, name: str = "timeout", on_event: OnEvent | None = None) -> Timeout:
    """Raise CallTimedOut, which is a TimeoutError, after this time."""
    return Timeout(seconds("after", after) or 0.0, name=name, on_event=on_event)
