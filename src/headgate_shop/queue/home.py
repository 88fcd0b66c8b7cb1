"""Where messages are kept: what every home can do, and in which terms it answers.

Theory of operation
-------------------
A message is *ready*, *delayed* (its time has not come), *in flight* (a process has taken it and
holds a lease on it) or *dead*, for each of its groups by itself.

    ready -> in flight         take: the attempt is counted here, so a process that dies has made it
    in flight -> gone          finish(Done)
    in flight -> delayed       finish(Again)
    in flight -> dead          finish(Bury)
    in flight -> ready         the lease ended: its process is dead, or was stopped for too long
    delayed -> ready           its time has come
    dead -> ready              redrive, with all attempts before it again

Each take gives out a new `claim`. Whatever comes with an older one is refused: a process that was
away and comes back cannot decide about a message that another has meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from headgate_shop.queue.message import Outgoing

__all__ = [
    "Again",
    "Bury",
    "DeadLetter",
    "Done",
    "Home",
    "Put",
    "Take",
    "Taken",
    "TopicStats",
    "Verdict",
]


@dataclass(frozen=True, slots=True)
class Taken:
    """A message in flight, here."""

    id: str
    group: str
    topic: str
    body: str
    at: float
    attempt: int
    claim: str
    """Means something to its home alone."""


@dataclass(frozen=True, slots=True)
class Take:
    taken: tuple[Taken, ...]
    next_s: float | None
    """In how long something that waits for its time will be ready; None when nothing does."""


@dataclass(frozen=True, slots=True)
class Put:
    """How many messages, from the first on, are in the queue now; what kept the next one out."""

    accepted: int
    full: str = ""
    """The group that has no room."""


@dataclass(frozen=True, slots=True)
class Done:
    pass


@dataclass(frozen=True, slots=True)
class Again:
    delay_s: float
    error: str = ""
    is_counted: bool = True
    """False gives the attempt back: it was not tried."""


@dataclass(frozen=True, slots=True)
class Bury:
    error: str


Verdict = Done | Again | Bury


@dataclass(frozen=True, slots=True)
class DeadLetter:
    id: str
    group: str
    topic: str
    body: str
    at: float
    died_at: float
    attempts: int
    error: str


@dataclass(frozen=True, slots=True)
class TopicStats:
    """One topic of one group."""

    group: str
    topic: str
    ready: int = 0
    delayed: int = 0
    in_flight: int = 0
    dead: int = 0
    oldest_s: float | None = None
    """The age of the oldest that is neither done nor dead."""
    published_per_s: float = 0.0
    """Rates are those of the last minute."""
    done_per_s: float = 0.0
    failed_per_s: float = 0.0


class Home(Protocol):
    """Every method but `close` may raise QueueAway."""

    kind: str
    limit: int
    """Messages a group may have, the dead among them."""

    def on_nudge(self, told: Callable[[str], None]) -> None:
        """Call `told(group)`, in the loop, when that group may have something new."""

    async def open(self, groups: Sequence[str]) -> None:
        """Begin to listen for nudges for these groups."""

    async def close(self) -> None: ...

    async def ping(self) -> None: ...

    async def put(self, messages: Sequence[tuple[Outgoing, tuple[str, ...]]]) -> Put:
        """Take messages in for their groups, in this order; an id that is known is left out."""

    async def take(self, group: str, topics: Sequence[str], count: int, lease_s: float) -> Take: ...

    async def renew(self, taken: Sequence[Taken], lease_s: float) -> frozenset[str]:
        """Hold leases for longer; answers the claims that are lost."""

    async def finish(self, taken: Taken, verdict: Verdict) -> bool:
        """False when another has it meanwhile, and nothing was changed."""

    async def stats(self) -> list[TopicStats]: ...

    async def dead(self, group: str, limit: int, after: str) -> list[DeadLetter]:
        """In the order in which they died; `after` is the id of the last one of a page."""

    async def redrive(self, group: str, message_id: str | None) -> int: ...

    async def drop(self, group: str, message_id: str) -> int:
        """Throw a dead letter away."""

    async def purge(self) -> int:
        """Forget what is done and can no longer be published a second time."""
