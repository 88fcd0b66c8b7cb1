"""What a loader knows and may say while it makes one value.

    async def fetch(entry):
        got = await client.get(url, headers=if_none_match(entry.validator))
        if got.status_code == 304:
            return NOT_MODIFIED
        entry.validator = got.headers.get("etag", "")
        entry.ttl = 3600 if got.is_final else 10
        entry.tags = [f"product:{got.id}"]
        return got

A loader that is a decorated function has no parameter for it and asks `loading()`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextvars import ContextVar
from typing import Any, Final, TypeAlias, TypeVar, final

from headgate.cache.flight import Flight
from headgate.cache.options import Duration, Options

__all__ = [
    "CHAIN",
    "LOADING",
    "NOT_MODIFIED",
    "Ask",
    "AsyncLoader",
    "Loading",
    "NotModified",
    "PlainLoader",
    "loading",
]


T = TypeVar("T")


@final
class NotModified:
    """The type of NOT_MODIFIED, of which there is one."""

    def __repr__(self) -> str:
        return "NOT_MODIFIED"

    def __reduce__(self) -> str:
        return "NOT_MODIFIED"


NOT_MODIFIED: Final = NotModified()
"""Answered by a loader that was given an old value: it is still what it was."""


class Loading:
    """One load. `old` is there if an earlier value was kept (`retain`, `stale_...`)."""

    __slots__ = ("has_old", "key", "keep", "old", "old_validator", "tags", "ttl", "validator")

    def __init__(
        self, key: str, old: Any, has_old: bool, validator: str, tags: tuple[str, ...]
    ) -> None:
        self.key = key
        """As the caller gave it, with its namespace."""
        self.old = old
        self.has_old = has_old
        self.old_validator = validator
        self.validator = validator
        """By which the source will say that it has not changed; set it to the new one."""
        self.ttl: Duration | None = None
        """How long to keep what is made, if it is not what the settings say."""
        self.tags: Iterable[str] = tags
        """At first those of the settings; those of the value may be added or put instead."""
        self.keep = True
        """False: give it to who waits and forget it."""


AsyncLoader: TypeAlias = (
    Callable[[], Awaitable[T | NotModified]] | Callable[[Loading], Awaitable[T | NotModified]]
)
PlainLoader: TypeAlias = Callable[[], T | NotModified] | Callable[[Loading], T | NotModified]

LOADING: Final[ContextVar[Loading | None]] = ContextVar("headgate.cache.loading", default=None)
CHAIN: Final[ContextVar[tuple[Flight, ...]]] = ContextVar("headgate.cache.chain", default=())
"""The loads in whose midst this code runs."""


class Ask:
    """A key and how its value is made and kept."""

    __slots__ = ("breaks", "call", "family", "key", "options", "tags")

    def __init__(
        self,
        key: str,
        family: str,
        options: Options,
        call: Callable[[Loading], Any],
        tags: tuple[str, ...],
    ) -> None:
        self.breaks = 0
        self.key = key
        self.family = family
        self.options = options
        self.call = call
        self.tags = tags


def loading() -> Loading:
    """The load in whose midst this is called; RuntimeError if there is none."""
    found = LOADING.get()
    if found is None:
        raise RuntimeError("loading() was called outside of a load by the cache")
    return found


_KNOWN: dict[Any, bool] = {}
_KNOWN_MAX: Final = 1000


def wants_loading(loader: Callable[..., Any]) -> bool:
    """Whether a loader has a place for its `Loading`: one parameter that must be given."""
    code = getattr(loader, "__code__", None)
    if code is not None and code in _KNOWN and not getattr(loader, "__defaults__", None):
        return _KNOWN[code]
    import inspect

    try:
        found = inspect.signature(loader).parameters.values()
    except (TypeError, ValueError):
        return False  # written in C: called plainly
    must = [
        each
        for each in found
        if each.default is each.empty
        and each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
    ]
    if len(must) > 1:
        names = ", ".join(each.name for each in must)
        raise TypeError(
            f"loader {loader!r} must be given {names}; "
            "a loader takes nothing, or one parameter, which is its Loading"
        )
    if code is not None and len(_KNOWN) < _KNOWN_MAX and not getattr(loader, "__defaults__", None):
        _KNOWN[code] = bool(must)
    return bool(must)
