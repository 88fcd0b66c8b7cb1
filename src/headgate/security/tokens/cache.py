"""Tokens that were verified, and tokens whose signature did not fit.

Theory of operation. Entries are known by all bytes of the token, signature included. An entry is
believed from the moment it was made until its end, both by the wall clock: a clock that is set
back makes it younger than its own beginning, and it is looked at afresh instead of living longer.
The end is never after the token's own. `clear` is for a change of keys.

Full is full: the oldest goes. A verified token costs its issuer's signature, so nobody can push
others out with tokens of their own making; refused ones have a box of their own, and losing one
costs one verification.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar

T = TypeVar("T")

# What an entry weighs beside its key: claims as Python values are several times their JSON.
_ENTRY_BYTES: Final = 1500
_PER_BYTE: Final = 5


class Entry(Generic[T]):
    __slots__ = ("revision", "since", "until", "value")

    def __init__(self, value: T, since: float, until: float, revision: int) -> None:
        self.value = value
        self.since = since
        self.until = until
        self.revision = revision
        """Up to which change of revocations it has been looked at."""


class TokenCache(Generic[T]):
    def __init__(self, max_entries: int, max_bytes: int) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._entries: dict[bytes, Entry[T]] = {}
        self.bytes = 0
        self.get = self._entries.get
        """The entry of a token, whatever its age. Bound once: this is the hot path."""

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, token: bytes, entry: Entry[T]) -> None:
        self.drop(token)
        weight = weight_of(token)
        if weight > self._max_bytes or self._max_entries <= 0:
            return
        entries = self._entries
        while entries and (
            len(entries) >= self._max_entries or self.bytes + weight > self._max_bytes
        ):
            self.drop(next(iter(entries)))
        entries[token] = entry
        self.bytes += weight

    def drop(self, token: bytes) -> None:
        if self._entries.pop(token, None) is not None:
            self.bytes -= weight_of(token)

    def clear(self) -> None:
        self._entries.clear()
        self.bytes = 0


def weight_of(token: bytes) -> int:
    return len(token) * _PER_BYTE + _ENTRY_BYTES
