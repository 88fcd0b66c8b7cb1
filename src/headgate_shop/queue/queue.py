"""The queue as services use it: publish, subscribe, and look at what became of things.

Theory of operation
-------------------
At least once: a message that was published is handed to each group of its topic until a handler
ends well, or its attempts are used up and it is a dead letter. To have an effect exactly once, a
handler writes the message's id into its own database together with the effect (`Inbox`).

Within a group the message of the highest priority is next, and of those the one published first.
That is an order of beginning: with `concurrency=1`, one process and no failure it is the order of
handling too. A message that failed and comes again has its old place in the line.
"""

from __future__ import annotations

import asyncio
import logging
import random
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Final, Self

from headgate import observe
from headgate.observe import trace
from headgate_shop.base.whole import whole
from headgate_shop.queue.backoff import Backoff
from headgate_shop.queue.consumer import Consumer, Handler, Subscription
from headgate_shop.queue.home import DeadLetter, Home, Put, TopicStats
from headgate_shop.queue.message import MessageInvalid, Outgoing, QueueAway, QueueFull, wall_time

__all__ = ["Queue", "QueueStats"]

PURGE_S: Final = 60.0
FIGURES: Final = ("ready", "delayed", "in_flight", "dead")
RATES: Final = ("published_per_s", "done_per_s", "failed_per_s")

log = logging.getLogger("headgate_shop.queue")


@dataclass(frozen=True, slots=True)
class QueueStats:
    kind: str
    limit: int
    topics: tuple[TopicStats, ...]

    def document(self) -> dict[str, Any]:
        """As JSON: all, by group, and in each by topic."""
        names = sorted({row.group for row in self.topics})
        groups = []
        for name in names:
            rows = [row for row in self.topics if row.group == name]
            topics = [{k: v for k, v in asdict(row).items() if k != "group"} for row in rows]
            groups.append({"group": name, **_sum(rows), "topics": topics})
        return {
            "kind": self.kind,
            "limit": self.limit,
            **_sum(self.topics),
            "groups": groups,
        }


def _sum(rows: Sequence[TopicStats]) -> dict[str, Any]:
    ages = [row.oldest_s for row in rows if row.oldest_s is not None]
    return {
        **{name: sum(getattr(row, name) for row in rows) for name in FIGURES},
        "oldest_s": max(ages, default=None),
        **{name: round(sum(getattr(row, name) for row in rows), 3) for name in RATES},
    }


class Queue:
    """Made by `open_queue`; works while it is entered."""

    def __init__(
        self,
        home: Home,
        *,
        group: str,
        groups: Mapping[str, Sequence[str]],
        lease_s: float = 30.0,
        grace_s: float = 5.0,
        backoff: Backoff | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._home = home
        self._group = group
        self._groups = {topic: tuple(names) for topic, names in groups.items()}
        self._lease_s = lease_s
        self._grace_s = grace_s
        self._backoff = backoff or Backoff()
        self._rng = rng or random.Random()
        self._consumers: list[Consumer] = []
        self._subscriptions: list[Subscription] = []
        self._meters: dict[str, observe.QueueMeter] = {}
        self._upkeep: asyncio.Task[None] | None = None
        home.on_nudge(self._nudged)

    # ---- life

    async def __aenter__(self) -> Self:
        """A queue that is away at this moment does not keep the service from starting."""
        try:
            await self._home.open(sorted({one.group for one in self._subscriptions}))
        except QueueAway as error:
            log.warning("the queue is away; what is published waits in outboxes: %s", error)
        except BaseException:
            await whole(self._home.close())
            raise
        for subscription in self._subscriptions:
            self._start(subscription)
        self._upkeep = asyncio.get_running_loop().create_task(self._purge(), name="queue upkeep")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        consumers, self._consumers = self._consumers, []
        upkeep, self._upkeep = self._upkeep, None
        await whole(self._leave(consumers, upkeep))

    async def _leave(self, consumers: list[Consumer], upkeep: asyncio.Task[None] | None) -> None:
        await asyncio.gather(*(one.settle(self._grace_s) for one in consumers))
        left = [task for one in consumers for task in one.end()]
        if upkeep is not None:
            upkeep.cancel()
            left.append(upkeep)
        await asyncio.gather(*left, return_exceptions=True)
        await self._home.close()

    async def ping(self) -> None:
        """For a health check: raise QueueAway when it cannot be used."""
        await self._home.ping()

    # ---- publishing

    async def publish(
        self,
        topic: str,
        data: dict[str, Any],
        *,
        id: str | None = None,  # noqa: A002 - as callers call it
        delay_s: float = 0.0,
        priority: int = 0,
    ) -> str:
        """Keep a message for each group of the topic, and answer its id.

        The same id again, within a day, is the same message: nothing happens. Raises
        MessageInvalid, QueueFull or QueueAway, and then it is in no group's queue, but for
        QueueAway, where nobody knows. Use an `Outbox` where that matters.
        """
        outgoing = self.outgoing(topic, data, id=id, delay_s=delay_s, priority=priority)
        put = await self.put([outgoing])
        if put.full:
            raise QueueFull(put.full, self.limit)
        return outgoing.id

    def outgoing(
        self,
        topic: str,
        data: dict[str, Any],
        *,
        id: str | None = None,  # noqa: A002 - as callers call it
        delay_s: float = 0.0,
        priority: int = 0,
    ) -> Outgoing:
        """The message, checked, with the trace of whoever makes it."""
        self.groups_of(topic)
        carrier: dict[str, str] = {}
        trace.inject(carrier)
        return Outgoing.checked(
            topic,
            data,
            id=uuid.uuid4().hex if id is None else id,
            wall=wall_time(),
            delay_s=delay_s,
            priority=priority,
            trace=carrier,
        )

    async def put(self, messages: Sequence[Outgoing]) -> Put:
        """Several at once, in order; those behind one that finds no room are not taken in."""
        put = await self._home.put([(one, self.groups_of(one.topic)) for one in messages])
        for one in messages[: put.accepted]:
            for group in self.groups_of(one.topic):
                self._meter(group).added()
        return put

    @property
    def limit(self) -> int:
        """How many messages a group may have."""
        return self._home.limit

    def is_heard(self, topic: str) -> bool:
        return bool(self._groups.get(topic))

    def groups_of(self, topic: str) -> tuple[str, ...]:
        groups = self._groups.get(topic)
        if not groups:
            known = ", ".join(sorted(self._groups))
            raise MessageInvalid(f"no group hears {topic!r} (queue/topics.py); known are {known}")
        return groups

    # ---- hearing

    def subscribe(
        self,
        topics: str | Sequence[str],
        handler: Handler,
        *,
        group: str = "",
        attempts: int = 8,
        concurrency: int = 4,
        timeout_s: float = 300.0,
    ) -> None:
        """Have `handler` called for each message of these topics that is this group's.

        A handler that ends well has done it; one that raises gets it again after a growing wait,
        `attempts` times in all, and then it is a dead letter. It may raise `Reject` (a dead letter
        at once) and `Later` (again after a while, not counted).
        """
        names = (topics,) if isinstance(topics, str) else tuple(topics)
        group = group or self._group
        for topic in names:
            if group not in self._groups.get(topic, ()):
                raise ValueError(f"{group!r} is not a group of {topic!r} in queue/topics.py")
        taken = {t for one in self._subscriptions if one.group == group for t in one.topics}
        if twice := taken.intersection(names):
            raise ValueError(f"{group!r} has a handler for {', '.join(sorted(twice))} already")
        if not names or attempts < 1 or concurrency < 1 or not timeout_s > 0:
            raise ValueError("topics, attempts, concurrency and timeout_s must be more than none")
        if self._upkeep is not None:
            raise RuntimeError("subscribe before the queue is opened")
        self._subscriptions.append(
            Subscription(names, handler, group, attempts, concurrency, timeout_s, self._backoff)
        )

    def _start(self, subscription: Subscription) -> None:
        consumer = Consumer(self._home, subscription, lease_s=self._lease_s, rng=self._rng)
        self._consumers.append(consumer)
        consumer.start()

    def _nudged(self, group: str) -> None:
        for consumer in self._consumers:
            if consumer.subscription.group == group:
                consumer.nudge()

    # ---- looking

    async def stats(self) -> QueueStats:
        """Every topic of every group, also those with nothing in them."""
        rows = {(row.group, row.topic): row for row in await self._home.stats()}
        for topic, groups in self._groups.items():
            for group in groups:
                rows.setdefault((group, topic), TopicStats(group, topic))
        return QueueStats(
            self._home.kind, self._home.limit, tuple(rows[key] for key in sorted(rows))
        )

    async def dead(self, group: str, *, limit: int = 100, after: str = "") -> list[DeadLetter]:
        """The dead letters of a group, the longest dead first."""
        return await self._home.dead(group, limit, after)

    async def redrive(self, group: str, id: str | None = None) -> int:  # noqa: A002 - as above
        """Give one dead letter of a group, or all, their attempts again; answers how many."""
        return await self._home.redrive(group, id)

    async def drop(self, group: str, id: str) -> int:  # noqa: A002 - as above
        """Throw a dead letter away."""
        return await self._home.drop(group, id)

    # ---- upkeep

    async def _purge(self) -> None:
        while True:
            await asyncio.sleep(PURGE_S * self._rng.uniform(0.5, 1.5))
            try:
                while await self._home.purge():  # noqa: ASYNC110 - others write as well
                    await asyncio.sleep(0.05)
            except QueueAway as error:
                log.info("not purged: %s", error)

    def _meter(self, group: str) -> observe.QueueMeter:
        meter = self._meters.get(group)
        if meter is None:
            meter = self._meters[group] = observe.QueueMeter(group)
        return meter
