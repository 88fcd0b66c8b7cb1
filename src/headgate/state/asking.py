"""A client's side of a distant home of limits: batches, deadlines, being away.

Theory of operation. What is asked and given back in one turn of the loop goes in one batch, in its
order. `_wake` says that a batch has begun, `_cut` takes it to be sent, `_answered` brings what came
back. Each batch has one deadline, `deadline_s` after its first ask.

    here --a batch past its deadline, a lost link--> away --a probe answered in time--> here

Away, `take` raises at once and nothing is sent but probes, so a dead home costs its deadline once
and a slow one, which answers too late each time, no more than that. Who is waiting when the home is
found away is told at once.

A grant whose asker has gone (it was told "away", or its request was cancelled) is charged and not
spent: it is given back when it comes. Not so for seats when we have said since what we hold, which
the home takes as the whole truth.

What an editor must not break: a batch ends in exactly one of `_answered` and `_lost`, also one that
is past its deadline; a deadline that fires late because this very loop was held up gets one more
short turn, in which the answer that is already in the socket can be read.
"""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from math import inf
from typing import Final

from headgate.policy.limiter.lease import Back, Grant
from headgate.state.home import (
    RETAINED_MAX,
    HomeAway,
    LimitAsk,
    Listener,
    Message,
    SharedSnapshot,
)
from headgate.state.news import News

__all__ = ["DEADLINE_S", "Asking", "Batch", "Returned", "wall_version"]

DEADLINE_S: Final = 0.05
TELL_EVERY_S: Final = 10.0
_HELD_UP_S: Final = 0.01

log = logging.getLogger("headgate.state")


def wall_version() -> int:
    """A version for what is published now: decides between messages of different processes."""
    return time.time_ns() // 1000


Returned = tuple[str, Back]


class Batch:
    __slots__ = ("due", "had_grace", "number", "said", "takers", "timer")

    def __init__(self, number: int) -> None:
        self.number = number
        self.said: list[Sequence[LimitAsk] | Sequence[Returned]] = []
        """What each `take` asked and each `give_back` returned, in the order of saying."""
        self.takers: list[tuple[asyncio.Future[list[Grant]], Sequence[LimitAsk]]] = []
        self.timer: asyncio.TimerHandle | None = None
        self.due = 0.0
        self.had_grace = False

    def stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Asking(ABC):
    """A `LimitHome` and a `Board`, but for how it is sent."""

    def __init__(self, deadline_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.deadline_s = deadline_s
        self._clock = clock
        self._news = News()
        self._unsaid: dict[tuple[str, str], None] = {}
        """What was retained or forgotten while the home was away."""
        self._open: Batch | None = None
        self._sent: dict[int, Batch] = {}
        """Not answered yet, oldest first."""
        self._number = 0
        self._is_away = True
        self._was_here = False
        self._why = "not connected yet"
        self._since = clock()
        self._told_at = -inf
        self._is_told = True
        self._holders = 1
        self._asks = 0
        self._batches = 0
        self._refused = 0
        self._timed_out = 0
        self._late = 0
        self._times_away = 0
        self._published = 0
        self._heard = 0
        self._dropped = 0

    # ---- for subclasses

    @property
    @abstractmethod
    def place(self) -> str:
        """What the home is called in logs and snapshots."""

    @abstractmethod
    def _wake(self, loop: asyncio.AbstractEventLoop) -> None:
        """A batch has begun; call `_cut` in the next turn of the loop, or when there is room."""

    @abstractmethod
    def _went_away(self) -> None:
        """Begin to probe."""

    @abstractmethod
    def _say(self, topic: str, message: Message, retain: str | None, version: int) -> None:
        """Publish, while here."""

    @abstractmethod
    def _say_forget(self, topic: str, retain: str) -> None:
        """Take back what was published, while here."""

    # ---- limits

    @property
    def is_away(self) -> bool:
        return self._is_away

    @property
    def holders(self) -> int:
        return self._holders

    async def take(self, asks: Sequence[LimitAsk]) -> list[Grant]:
        if self._is_away:
            self._refused += len(asks)
            raise HomeAway(self._why)
        if not asks:
            return []
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Grant]] = loop.create_future()
        batch = self._batch(loop)
        if batch.timer is None:
            batch.due = self._clock() + self.deadline_s
            batch.timer = loop.call_later(self.deadline_s, self._on_deadline, batch)
        batch.said.append(asks)
        batch.takers.append((future, asks))
        return await future

    def give_back(self, backs: Sequence[Returned]) -> None:
        if backs and not self._is_away:
            self._batch(asyncio.get_running_loop()).said.append(backs)

    def _batch(self, loop: asyncio.AbstractEventLoop) -> Batch:
        batch = self._open
        if batch is None:
            self._number += 1
            batch = self._open = Batch(self._number)
            self._wake(loop)
        return batch

    def _cut(self) -> Batch | None:
        """What has gathered, to be sent now."""
        batch = self._open
        if batch is not None:
            self._open = None
            self._sent[batch.number] = batch
            self._batches += 1
            self._asks += sum(len(asks) for _, asks in batch.takers)
        return batch

    def _answered(self, number: int, grants: Sequence[Grant]) -> None:
        batch = self._sent.get(number)
        if batch is None:
            return
        del self._sent[number]
        batch.stop_timer()
        at = 0
        unwanted: list[Returned] = []
        for future, asks in batch.takers:
            got = list(grants[at : at + len(asks)])
            at += len(asks)
            if not future.done():
                future.set_result(got)
                continue
            self._late += 1
            for asked, grant in zip(asks, got, strict=True):
                if grant.granted and not self._said_since(asked):
                    unwanted.append((asked.rule, Back(asked.ask.key, grant.granted, grant.at)))
        if unwanted:
            # Whoever answers late is there to hear this, whatever we think of it.
            self._batch(asyncio.get_running_loop()).said.append(unwanted)

    def _said_since(self, asked: LimitAsk) -> bool:
        """Whether a younger batch says how many seats we hold. What is answered is no longer in
        `_sent`, and answers come in order: the younger are all there.
        """
        if asked.rules.algorithm != "concurrency":
            return False
        younger = [*self._sent.values()]
        if self._open is not None:
            younger.append(self._open)
        return any(
            isinstance(entry, LimitAsk)
            and entry.rule == asked.rule
            and entry.ask.key == asked.ask.key
            and entry.ask.holding is not None
            for batch in younger
            for entries in batch.said
            for entry in entries
        )

    def _lost(self, batch: Batch) -> None:
        """It will not be answered."""
        self._sent.pop(batch.number, None)
        self._tell_away(batch)

    def _lose_all(self) -> None:
        """The link is gone, and with it all that was on its way."""
        batches = [*self._sent.values()]
        if self._open is not None:
            batches.append(self._open)
        self._open = None
        for batch in batches:
            self._lost(batch)

    # ---- being away

    def _on_deadline(self, batch: Batch) -> None:
        now = self._clock()
        if now > batch.due + _HELD_UP_S and not batch.had_grace:
            batch.had_grace = True
            loop = asyncio.get_running_loop()
            batch.timer = loop.call_later(_HELD_UP_S, self._on_deadline, batch)
            return
        batch.timer = None
        self._timed_out += 1
        self._go_away(f"no answer within {self.deadline_s * 1000:g} ms")

    def _go_away(self, why: str) -> None:
        self._why = why
        if not self._is_away:
            self._is_away = True
            self._since = self._clock()
            self._times_away += 1
            # One that comes and goes all the time is worth a line now and then.
            self._is_told = self._since - self._told_at >= TELL_EVERY_S
            if self._is_told:
                self._told_at = self._since
                log.warning(
                    "shared state in %s is away: %s; each worker decides alone", self.place, why
                )
        for batch in self._sent.values():
            self._tell_away(batch)
        if self._open is not None:
            # What is given back may still go; who asks is told now and asks nobody.
            self._tell_away(self._open)
            asked = [id(asks) for _, asks in self._open.takers]
            self._open.said = [said for said in self._open.said if id(said) not in asked]
            self._open.takers = []
        self._went_away()

    def _tell_away(self, batch: Batch) -> None:
        batch.stop_timer()
        for future, _ in batch.takers:
            if not future.done():
                future.set_exception(HomeAway(self._why))

    def _come_back(self) -> None:
        if not self._is_away:
            return
        now = self._clock()
        if self._was_here and self._is_told:
            log.info("shared state in %s is back after %.1f s", self.place, now - self._since)
        self._is_away = False
        self._was_here = True
        self._since = now
        self._say_unsaid()

    # ---- news

    def subscribe(self, topic: str, listener: Listener) -> Callable[[], None]:
        return self._news.subscribe(topic, listener)

    def publish(self, topic: str, message: Message, *, retain: str | None = None) -> None:
        self._published += 1
        version = 0
        if retain is not None:
            version = max(wall_version(), self._news.version(topic, retain) + 1)
            self._news.keep(topic, retain, message, version)
        if not self._is_away:
            self._say(topic, message, retain, version)
        elif retain is None:
            self._dropped += 1
        else:
            self._say_later(topic, retain)

    def forget(self, topic: str, retain: str) -> None:
        self._news.forget(topic, retain)
        if self._is_away:
            self._say_later(topic, retain)
        else:
            self._say_forget(topic, retain)

    def _hear(self, topic: str, message: Message, retain: str | None, version: int) -> None:
        """What another published; but where we have something yet to say, we have the last word."""
        if retain is None or (topic, retain) not in self._unsaid:
            self._heard += 1
            self._news.hear(topic, message, retain, version)

    def _hear_forget(self, topic: str, retain: str) -> None:
        if (topic, retain) not in self._unsaid:
            self._news.forget(topic, retain)

    def _say_later(self, topic: str, retain: str) -> None:
        if len(self._unsaid) < RETAINED_MAX:
            self._unsaid[topic, retain] = None

    def _say_unsaid(self) -> None:
        unsaid, self._unsaid = self._unsaid, {}
        for topic, retain in unsaid:
            kept = self._news.get(topic, retain)
            if kept is None:
                self._say_forget(topic, retain)
            else:
                self._say(topic, kept.message, retain, kept.version)

    def snapshot(self, now: float) -> SharedSnapshot:
        return SharedSnapshot(
            home=self.place,
            is_away=self._is_away,
            why=self._why if self._is_away or self._times_away else "",
            for_s=now - self._since,
            holders=self._holders,
            asks=self._asks,
            batches=self._batches,
            refused_away=self._refused,
            timed_out=self._timed_out,
            late=self._late,
            times_away=self._times_away,
            published=self._published,
            heard=self._heard,
            dropped=self._dropped,
            retained=len(self._news),
        )
