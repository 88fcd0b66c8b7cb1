"""What a second layer offers: entries that outlive the process, news, and leases.

Theory of operation. A layer owns the clock of the barriers for all who share it. `put` keeps an
entry only if no barrier above its stamp stands on its key or tags, decided where the entries are;
`get` never answers with an entry that a barrier has struck. What is invalidated anywhere is heard
by every process (`listen`), and its own barriers are raised before anything else may look.

A layer that cannot be reached raises LayerAway, at once while it is known to be away. It never
slows a call beyond its deadline. Writes meanwhile are kept, within a bound, and reconciled.
`is_coherent` says whether news would have been heard: while it is not, what was held of others'
making must not be served, and `on_gap` listeners are called when news may have been missed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from headgate.cache.barriers import Barriers
from headgate.cache.entry import Entry
from headgate.cache.invalidation import Invalidation
from headgate.errors import HeadgateError

__all__ = ["Invalidated", "Layer", "LayerAway", "LayerSnapshot", "Lease"]


class LayerAway(HeadgateError):
    """The second layer does not answer; go on without it."""


@dataclass(frozen=True, slots=True)
class Invalidated:
    stamp: int
    is_queued: bool = False
    """The layer is away: it holds in this process, and is told to the others when it is back."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to load one key, for a time. `fence` grows with every lease of the key."""

    key: str
    fence: int
    until: float
    """Monotonic."""


@dataclass(frozen=True, slots=True)
class LayerSnapshot:
    kind: str
    """`redis`, `file`."""
    place: str
    """Where it is, without its password."""
    is_away: bool
    why: str
    for_s: float
    breaker: str
    commands: int
    batches: int
    failures: int
    queued: int
    """Writes and invalidations that wait for the layer to come back."""
    dropped: int
    bytes_in: int
    bytes_out: int
    latency_p50_s: float
    latency_p99_s: float


class Layer(Protocol):
    kind: str
    barriers: Barriers

    @property
    def is_away(self) -> bool: ...

    def is_coherent(self, now: float) -> bool:
        """Whether all news up to a moment ago has been heard. Cheap: asked at each hit."""
        ...

    async def start(self) -> None:
        """Reach the layer, if it can be reached; it may come later."""
        ...

    async def close(self) -> None: ...

    async def get(self, keys: Sequence[str]) -> list[Entry | None]:
        """An entry for each key, in order; never one that is invalidated or over."""
        ...

    async def put(self, items: Mapping[str, Entry], lease: Lease | None = None) -> None:
        """Keep these, unless something newer has been said. With a lease that another has taken
        over meanwhile, nothing is kept. Does not wait for a layer that is away.
        """
        ...

    async def touch(self, keys: Sequence[str], usable_until: float, fresh_until: float) -> int:
        """Move the end of what is there; how many were."""
        ...

    async def add(self, key: str, amount: int, ttl_s: float | None) -> int:
        """Count atomically over all processes, on from a whole number that was put; `ttl_s` holds
        from the first. What `get` answers of a count is held for as long as news may take.
        OverflowError beyond 64 bits, TypeError where something else is kept.
        """
        ...

    async def invalidate(self, invalidation: Invalidation) -> Invalidated:
        """Forget, everywhere. When this returns unqueued, the layer serves nothing of it, and every
        process that is coherent has been told.
        """
        ...

    async def lease(self, key: str, ttl_s: float) -> Lease | None:
        """The right to load this key; None while another has it."""
        ...

    async def release(self, lease: Lease) -> None: ...

    def scan(self, pattern: str) -> AsyncIterator[str]:
        """Keys that fit, in no order; each at least once if it was there all the time."""
        ...

    def listen(self, hear: Callable[[Invalidation], None]) -> Callable[[], None]:
        """Hear what others invalidate, after the barriers are raised; the answer ends it."""
        ...

    def on_gap(self, hear: Callable[[], None]) -> Callable[[], None]:
        """Be told when news may have been missed: drop what is held of others' making."""
        ...

    def snapshot(self) -> LayerSnapshot: ...
