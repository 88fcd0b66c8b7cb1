"""Shared state within one process: several members around one ledger.

For one worker alone, for services that share nothing, and for tests of what is built on a home.
`join` makes a further member, as a second worker would be: it shares the limits and hears the news.
Old keys are swept on the way, by whoever asks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from headgate.policy.limiter.lease import Back, Grant
from headgate.policy.limiter.rules import LimitRules
from headgate.state.home import HomeAway, LimitAsk, Listener, Message, SharedSnapshot
from headgate.state.ledger import Ledger
from headgate.state.news import News

__all__ = ["MemoryShared"]

_SWEEP_EVERY_S: Final = 0.1
_SWEEP_KEYS: Final = 2000
_RULES_MAX: Final = 20_000


class _Room:
    """What all members share."""

    __slots__ = ("clock", "ledger", "members", "named", "swept_at", "version")

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.ledger = Ledger()
        self.members: list[MemoryShared] = []
        self.named = 0
        self.swept_at = clock()
        self.version = 0


class MemoryShared:
    """A `LimitHome` and a `Board`."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, *, _room: _Room | None = None
    ) -> None:
        self._room = room = _room or _Room(clock)
        room.named += 1
        self.name = f"member-{room.named}"
        self._news = News()
        if room.members:
            for kept in room.members[0]._news.kept():  # noqa: SLF001  of one room
                self._news.keep(kept.topic, kept.retain, kept.message, kept.version)
        room.members.append(self)
        self._declared: dict[str, LimitRules] = {}
        self._left_at: float | None = None
        self._joined_at = room.clock()
        self._asks = 0
        self._batches = 0
        self._refused = 0
        self._published = 0
        self._heard = 0

    def join(self) -> MemoryShared:
        """A further member of the same room."""
        return MemoryShared(_room=self._room)

    def leave(self) -> None:
        """Be gone, as a worker that died; asks are answered no more."""
        if self._left_at is None:
            self._left_at = self._room.clock()
            self._room.members.remove(self)
            self._room.ledger.leave(self.name, self._left_at)

    # ---- limits

    @property
    def is_away(self) -> bool:
        return self._left_at is not None

    @property
    def holders(self) -> int:
        return max(1, len(self._room.members))

    async def take(self, asks: Sequence[LimitAsk]) -> list[Grant]:
        if self._left_at is not None:
            self._refused += len(asks)
            raise HomeAway("this member has left")
        room = self._room
        ledger = room.ledger
        now = room.clock()
        if now - room.swept_at >= _SWEEP_EVERY_S:
            room.swept_at = now
            ledger.sweep(now, _SWEEP_KEYS)
        self._asks += len(asks)
        self._batches += 1
        grants = []
        for rule, rules, ask, seat_ttl_s in asks:
            if self._declared.get(rule) is not rules:
                ledger.declare(rule, rules, seat_ttl_s, now)
                if len(self._declared) >= _RULES_MAX:
                    self._declared.clear()
                self._declared[rule] = rules
            grants.append(ledger.take(rule, rules, seat_ttl_s, ask, self.name, now))
        return grants

    def give_back(self, backs: Sequence[tuple[str, Back]]) -> None:
        if self._left_at is None:
            now = self._room.clock()
            for rule, back in backs:
                self._room.ledger.give_back(rule, back, self.name, now)

    # ---- news

    def publish(self, topic: str, message: Message, *, retain: str | None = None) -> None:
        self._published += 1
        self._room.version += 1
        if retain is not None:
            self._news.keep(topic, retain, message, self._room.version)
        for member in tuple(self._room.members):
            if member is not self:
                member._heard += 1  # noqa: SLF001  of one room
                member._news.hear(topic, message, retain, self._room.version)  # noqa: SLF001

    def forget(self, topic: str, retain: str) -> None:
        for member in self._room.members:
            member._news.forget(topic, retain)  # noqa: SLF001  of one room

    def subscribe(self, topic: str, listener: Listener) -> Callable[[], None]:
        return self._news.subscribe(topic, listener)

    def snapshot(self, now: float) -> SharedSnapshot:
        return SharedSnapshot(
            home="memory",
            is_away=self.is_away,
            why="" if self._left_at is None else "this member has left",
            for_s=now - (self._joined_at if self._left_at is None else self._left_at),
            holders=self.holders,
            asks=self._asks,
            batches=self._batches,
            refused_away=self._refused,
            timed_out=0,
            late=0,
            times_away=int(self.is_away),
            published=self._published,
            heard=self._heard,
            dropped=0,
            retained=len(self._news),
        )
