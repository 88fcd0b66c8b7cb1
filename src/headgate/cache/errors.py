"""What the object cache raises on purpose.

HeadgateError
  CacheError
    CacheClosed        the cache was closed while the call waited, or before it
    KeyUnusable        what was given cannot be (made) a key
    ValueUnusable      what was given or loaded can be read once only, and so not be kept
    Unencodable        the codec of the second layer cannot keep this value exactly
    LoadFailed         a load came to no end of its own
      LoadTimedOut     it took longer than `hard_timeout`; a TimeoutError as well
      LoadReentered    it asked for the very value that it is to make
      LoadAbandoned    it was cancelled from within, or ended with the interpreter

Whatever else a loader raises goes to those who wait for it as it is.
"""

from __future__ import annotations

from types import CoroutineType

from headgate.errors import HeadgateError
from headgate.units import format_duration

__all__ = [
    "CacheClosed",
    "CacheError",
    "KeyUnusable",
    "LoadAbandoned",
    "LoadFailed",
    "LoadReentered",
    "LoadTimedOut",
    "Unencodable",
    "ValueUnusable",
]


class CacheError(HeadgateError):
    """Everything that the object cache raises on purpose."""


class CacheClosed(CacheError):
    def __init__(self) -> None:
        super().__init__("this cache is closed; start() opens it again")


class KeyUnusable(CacheError, TypeError):
    """What was given cannot be made a key, or is none."""


class ValueUnusable(CacheError, TypeError):
    """What was given or loaded can be read once only, and so not be kept."""


def read_once(value: object) -> ValueUnusable:
    """What is wrong with a coroutine or a generator as a value."""
    if isinstance(value, CoroutineType):
        value.close()
        way = "await it, and keep what it answers"
    else:
        way = "keep a list of what it yields"
    return ValueUnusable(f"a {type(value).__name__} can be read once only: {way}")


class Unencodable(CacheError):
    """This value cannot be kept exactly; nothing was kept."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why
        self.path: list[str] = []

    def __str__(self) -> str:
        return f"value{''.join(reversed(self.path))}: {self.why}"


class LoadFailed(CacheError):
    """A load came to no end of its own."""


class LoadTimedOut(LoadFailed, TimeoutError):
    def __init__(self, key: str, after_s: float) -> None:
        self.key = key
        self.after_s = after_s
        super().__init__(key, after_s)

    def __str__(self) -> str:
        return f"loading {self.key!r} took longer than hard_timeout={format_duration(self.after_s)}"


class LoadReentered(LoadFailed):
    def __init__(self, key: str, chain: tuple[str, ...] = ()) -> None:
        self.key = key
        self.chain = chain
        super().__init__(key, chain)

    def __str__(self) -> str:
        way = " -> ".join(repr(each) for each in (*self.chain, self.key))
        return (
            f"loading {self.key!r} waits for itself: {way}; "
            "read what it needs without the cache, or under another key"
        )


class LoadAbandoned(LoadFailed):
    def __init__(self, key: str, why: str) -> None:
        self.key = key
        self.why = why
        super().__init__(key, why)

    def __str__(self) -> str:
        return f"loading {self.key!r} came to no end: {self.why}"
