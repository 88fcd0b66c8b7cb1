"""What a layer under the memory of responses offers: larger, shared, or there after a restart.

A lower layer is never waited for beyond its bound, and never a reason for a request to fail: what
it cannot do is a miss, or is dropped and counted. It serves nothing that a barrier struck.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from headgate.cache.barriers import Barriers
    from headgate.cache.invalidation import Invalidation
    from headgate.gateway.caching.variants import Kept
    from headgate.wire.message import Header

__all__ = ["LowerSnapshot", "LowerStore"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LowerSnapshot:
    kind: str
    """`disk`, `redis`."""
    place: str
    """Where it is, without its password."""
    is_away: bool
    why: str
    """Why it is away, or the last that went wrong."""
    entries: int
    """-1: not known, as others write beside us."""
    bytes: int
    bytes_max: int
    hits: int
    misses: int
    writes: int
    evictions: int
    struck: int
    queued: int
    dropped: int
    """Writes for which there was no room in the queue, or that were too large."""
    spoilt: int
    """Responses found garbled, cut short or of another format: taken away, and not served."""
    failures: int


class LowerStore(Protocol):
    kind: str

    async def start(self, barriers: Barriers) -> None:
        """Open it, if it can be opened; what it knows of invalidations goes into the barriers."""
        ...

    async def close(self) -> None:
        """Write what is queued, within a bound, and let go."""
        ...

    async def find(self, key: str, fields: tuple[Header, ...], url: str = "") -> Kept | None:
        """The response that this request fits. `url`: what was asked for, which saves a trip where
        responses are judged elsewhere. Never raises but for cancellation.
        """
        ...

    def put(self, kept: Kept) -> None:
        """Keep it, if there is room in the queue. Never waits."""
        ...

    def remove(self, kept: Kept) -> None:
        """Let go of this one. Never waits."""
        ...

    def invalidate(self, invalidation: Invalidation) -> None:
        """Strike what is there. Never waits, and is never dropped: a queue that is too long
        becomes one barrier over everything.
        """
        ...

    def forget(self, urls: tuple[str, ...], *, is_news: bool = False) -> None:
        """Let go of what is there now under these URLs; the clock of the barriers knows nothing of
        it. `is_news`: another worker of this machine has been told the same.
        """
        ...

    async def settle(self) -> bool:
        """Wait until every invalidation so far also holds after a crash; False: it may not."""
        ...

    def snapshot(self) -> LowerSnapshot: ...
