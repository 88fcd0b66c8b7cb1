"""One subscription at work: it takes messages as it has hands free, and says what came of each.

Theory of operation
-------------------
It never holds a message for which no hand is free, so what waits, waits in the queue, where any
process of the group finds it. While a handler works, its lease is renewed at a third of its life;
a lease that is lost ends the handler, for the message is another's by then.

At the end it takes nothing more, lets handlers finish for `grace_s`, ends those that have not, and
gives their messages back, uncounted. A process that is killed gives nothing back: its leases run
out, and the next taker of the group goes on.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from headgate import observe
from headgate.observe import trace
from headgate_shop.queue.backoff import Backoff
from headgate_shop.queue.home import Again, Bury, Done, Home, Taken, Verdict
from headgate_shop.queue.message import Later, Message, QueueAway, Reject, decode

__all__ = ["Consumer", "Handler", "Subscription"]

Handler = Callable[[Message], Awaitable[None]]

POLL_S: Final = 2.0
"""How long at most a nudge that went astray delays a message."""
AWAY: Final = Backoff(0.1, 5.0)
FINISH_TRIES: Final = 6
ERROR_LENGTH: Final = 500

log = logging.getLogger("headgate_shop.queue")


@dataclass(frozen=True, slots=True)
class Subscription:
    topics: tuple[str, ...]
    handler: Handler
    group: str
    attempts: int = 8
    concurrency: int = 4
    timeout_s: float = 300.0
    backoff: Backoff = field(default_factory=Backoff)


class Consumer:
    def __init__(
        self, home: Home, subscription: Subscription, *, lease_s: float, rng: random.Random
    ) -> None:
        self.subscription = subscription
        self._home = home
        self._lease_s = lease_s
        self._rng = rng
        self._meter = observe.QueueMeter(subscription.group)
        self._new = asyncio.Event()
        self._freed = asyncio.Event()
        self._is_ending = False
        self._working: dict[asyncio.Task[None], Taken] = {}
        self._lost: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        name = f"queue {self.subscription.group}"
        self._tasks = [
            loop.create_task(self._run(), name=name),
            loop.create_task(self._renew(), name=f"{name} leases"),
        ]

    def nudge(self) -> None:
        self._new.set()

    async def settle(self, grace_s: float) -> None:
        """Take nothing more, finish what can be finished in time, and give the rest back."""
        self._is_ending = True
        self._new.set()
        self._freed.set()
        if self._tasks:
            await asyncio.wait(self._tasks[:1], timeout=grace_s)
        if self._working:
            await asyncio.wait(self._working, timeout=grace_s)
        for task in self._working:
            task.cancel()
        if self._working:
            await asyncio.wait(self._working, timeout=grace_s)

    def end(self) -> list[asyncio.Task[None]]:
        """After `settle`: end what is left; answers what to wait for."""
        self._is_ending = True
        left = [*self._tasks, *self._working]
        for task in left:
            task.cancel()
        return left

    # ---- taking

    async def _run(self) -> None:
        failures = 0
        while not self._is_ending:
            room = self.subscription.concurrency - len(self._working)
            if room <= 0:
                self._freed.clear()
                await self._freed.wait()
                continue
            self._new.clear()
            try:
                take = await self._home.take(
                    self.subscription.group, self.subscription.topics, room, self._lease_s
                )
            except QueueAway as error:
                failures += 1
                if failures == 1:
                    log.warning("%s hears nothing: %s", self.subscription.group, error)
                await self._rest(AWAY.delay_s(failures, self._rng))
                continue
            except Exception:
                failures += 1
                log.exception("%s could not take messages", self.subscription.group)
                await self._rest(AWAY.delay_s(failures, self._rng))
                continue
            if failures:
                log.info("%s hears the queue again", self.subscription.group)
                failures = 0
            for taken in take.taken:
                self._begin(taken)
            if len(take.taken) < room and not self._is_ending:
                await self._rest(POLL_S if take.next_s is None else min(POLL_S, take.next_s))

    async def _rest(self, longest_s: float) -> None:
        try:
            async with asyncio.timeout(max(0.001, longest_s)):
                await self._new.wait()
        except TimeoutError:
            pass

    def _begin(self, taken: Taken) -> None:
        task = asyncio.get_running_loop().create_task(
            self._give_back(taken) if self._is_ending else self._work(taken),
            name=f"queue {taken.group} {taken.topic} {taken.id}",
        )
        self._working[task] = taken
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        taken = self._working.pop(task)
        self._lost.discard(taken.claim)
        self._freed.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s %s: not finished", taken.topic, taken.id, exc_info=error)

    # ---- working

    async def _work(self, taken: Taken) -> None:
        try:
            verdict = await self._judge(taken)
        except asyncio.CancelledError:
            if taken.claim in self._lost:
                log.warning("%s %s: the lease is lost, its handler ended", taken.topic, taken.id)
                return
            verdict = Again(0.0, "its process ended", is_counted=False)
        await self._finish(taken, verdict)

    async def _give_back(self, taken: Taken) -> None:
        await self._finish(taken, Again(0.0, "its process ended", is_counted=False))

    async def _judge(self, taken: Taken) -> Verdict:
        rules = self.subscription
        what = f"{taken.topic} {taken.id}"
        if taken.attempt > rules.attempts:
            return self._bury(
                taken, f"taken {taken.attempt - 1} times, and never said to be done or failed"
            )
        try:
            data, carrier = decode(taken.body)
        except ValueError as error:
            return self._bury(taken, f"unreadable: {error}")
        message = Message(taken.id, taken.topic, data, taken.attempt, taken.at)
        try:
            with (
                trace.root(
                    f"handle {taken.topic}",
                    trace.extract(carrier),
                    {"messaging.consumer.group.name": taken.group},
                    kind="consumer",
                ),
                self._meter.processing(taken.at),
            ):
                async with asyncio.timeout(rules.timeout_s):
                    await rules.handler(message)
        except Reject as error:
            return self._bury(taken, str(error) or "rejected")
        except Later as error:
            log.info("%s: later: %s", what, error)
            return Again(max(0.0, error.retry_after_s), str(error), is_counted=False)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return self._failed(taken, RuntimeError("the handler cancelled itself"))
        except Exception as error:  # noqa: BLE001 - whatever a handler raises is a failed attempt
            return self._failed(taken, error)
        return Done()

    def _failed(self, taken: Taken, error: Exception) -> Verdict:
        told = f"{type(error).__name__}: {error}"[:ERROR_LENGTH]
        if taken.attempt >= self.subscription.attempts:
            return self._bury(taken, told, error)
        delay_s = self.subscription.backoff.delay_s(taken.attempt, self._rng)
        asked: Any = getattr(error, "retry_after_s", None)
        if isinstance(asked, int | float) and asked > delay_s:
            delay_s = float(asked)
        log.warning(
            "%s %s: attempt %d failed, again in %.1f s: %s",
            taken.topic,
            taken.id,
            taken.attempt,
            delay_s,
            told,
            exc_info=error if taken.attempt == 1 else None,
        )
        return Again(delay_s, told)

    def _bury(self, taken: Taken, why: str, error: Exception | None = None) -> Bury:
        log.error("%s %s: a dead letter: %s", taken.topic, taken.id, why, exc_info=error)
        return Bury(why[:ERROR_LENGTH])

    async def _finish(self, taken: Taken, verdict: Verdict) -> None:
        for attempt in range(1, FINISH_TRIES + 1):
            try:
                if not await self._home.finish(taken, verdict):
                    log.warning("%s %s: another has it meanwhile", taken.topic, taken.id)
                if isinstance(verdict, Again):
                    self._new.set()  # its time may come before what we wait for
                return
            except QueueAway as error:
                if attempt == FINISH_TRIES:
                    log.warning("%s %s: will come again: %s", taken.topic, taken.id, error)
                    return
                await asyncio.sleep(AWAY.delay_s(attempt, self._rng))

    # ---- leases

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._lease_s / 3)
            held = dict(self._working)
            if not held:
                continue
            try:
                lost = await self._home.renew(tuple(held.values()), self._lease_s)
            except QueueAway as error:
                log.warning("leases of %s not renewed: %s", self.subscription.group, error)
                continue
            for task, taken in held.items():
                if taken.claim in lost and task in self._working:
                    self._lost.add(taken.claim)
                    task.cancel()
