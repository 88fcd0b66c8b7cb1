"""What every home of shared state offers: limits (`LimitHome`) and news (`Board`).

Theory of operation. A home holds the one true limiter of every rule, and lends from it (see
`policy/limiter/lease.py`). A rule is known by a stable id; its `LimitRules` travel with the asks,
so that a home needs no configuration, and the last rules that it was told hold.

The asks of one `take` are decided together: at one time, in their order, with nobody in between.
Each is charged by itself. A request that one rule refuses puts what the others granted back into
its own lease, which costs no message; so nothing here is "all or none".

What one worker says, asks and gives back reaches the home in that order. Where that is broken (a
time-out, a lost link) nothing is spent twice: an answer that comes too late is given back by the
home's client itself, one that is lost stays charged until it has run out.

`take` either answers within the home's deadline or raises `HomeAway`. A home that is away says so
at once, without waiting, until it is found again: a dead home costs one deadline, once.

The board. `publish` tells all others and not the publisher, who has acted already. News is for now:
who is away misses it. With `retain` the last message of each (topic, retain) is kept and told to
whoever subscribes or comes back later, so a subscriber must take the same message twice. While the
home is away, what is published with `retain` waits, and the rest is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

from headgate.errors import HeadgateError
from headgate.policy.limiter.lease import Ask, Back, Grant, LeaseRules
from headgate.policy.limiter.rules import LimitRules

__all__ = [
    "RETAINED_MAX",
    "Board",
    "HomeAway",
    "LimitAsk",
    "LimitGrant",
    "LimitHome",
    "Listener",
    "Message",
    "SharedSnapshot",
    "StateUnusable",
]

RETAINED_MAX: Final = 10_000
"""Retained messages of a board; a further one pushes out the one written longest ago."""

_SEAT_TTL_S: Final = LeaseRules().seat_ttl_s

LimitGrant = Grant
Message = Mapping[str, Any]
Listener = Callable[[Message], None]


class HomeAway(HeadgateError):
    """The home of shared state does not answer; decide alone (`Leased.fail`)."""


class StateUnusable(HeadgateError):
    """The place named for shared state cannot be one; the operator's file is at fault."""


class LimitAsk(NamedTuple):
    """One question of one rule."""

    rule: str
    """Stable id, as in `route:orders/limit[0]`."""
    rules: LimitRules
    ask: Ask
    """Its key is text: it leaves this process."""
    seat_ttl_s: float = _SEAT_TTL_S
    """`LeaseRules.seat_ttl_s`, for concurrency."""


class LimitHome(Protocol):
    @property
    def is_away(self) -> bool:
        """Nobody answers: `take` raises at once."""
        ...

    @property
    def holders(self) -> int:
        """How many workers share this home, this one included; the last known while away."""
        ...

    async def take(self, asks: Sequence[LimitAsk]) -> list[Grant]:
        """A grant for each ask, in order. HomeAway if there is no answer in time."""
        ...

    def give_back(self, backs: Sequence[tuple[str, Back]]) -> None:
        """Return what was leased of each rule. Best effort: dropped while the home is away."""
        ...


class Board(Protocol):
    def publish(self, topic: str, message: Message, *, retain: str | None = None) -> None:
        """Tell all others; with `retain`, also those who come later."""
        ...

    def forget(self, topic: str, retain: str) -> None:
        """Keep that message no longer. Nobody is told."""
        ...

    def subscribe(self, topic: str, listener: Listener) -> Callable[[], None]:
        """Hear what others publish, first of all what is retained; the answer unsubscribes."""
        ...


@dataclass(frozen=True, slots=True)
class SharedSnapshot:
    """What an operator may ask about a home, from where this process stands."""

    home: str
    """`memory`, `hub`, or where Redis is, without its password."""
    is_away: bool
    why: str
    """Why it is away, or was the last time."""
    for_s: float
    """Since when it is as it is."""
    holders: int
    asks: int
    batches: int
    """Messages the asks went in."""
    refused_away: int
    """Asks that were not brought to the home because it was away."""
    timed_out: int
    late: int
    """Answers that came after their deadline and were given back."""
    times_away: int
    published: int
    heard: int
    dropped: int
    """News that was published while the home was away."""
    retained: int
