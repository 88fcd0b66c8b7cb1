"""Keeps one connector in step with its partner.

Theory of operation
-------------------
A round pushes what waits, oldest first and a batch at a time, then pulls pages until there is no
more. What was settled is written after each batch, and the cursor with each page: a process that is
killed at any point begins there again, and what it had told already is told once more, which
changes nothing over there (`jobs`, `connectors`).

A round begins when there is news, when somebody asks for it, and every EVERY_S. One that fails ends
there, is noted, and the next waits longer, up to WAIT_MAX_S, or as long as the partner says;
meanwhile things wait in the database, and nothing is lost. A partner that refuses one thing does
not hold up the others.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Final

from headgate import observe
from headgate_shop.base.background import Background
from headgate_shop.base.database import Database
from headgate_shop.integrations import standing
from headgate_shop.integrations.connectors import Connector
from headgate_shop.integrations.line import Away

__all__ = ["Syncing"]

EVERY_S: Final = 20.0
WAIT_S: Final = 1.0
WAIT_MAX_S: Final = 60.0
PAGES_MAX: Final = 200
"""In one round; what is left comes in the next."""

log = logging.getLogger("headgate_shop.integrations")


class Syncing(Background):
    """Round after round while it is entered."""

    def __init__(
        self,
        connector: Connector,
        database: Database,
        wall: Callable[[], float],
        *,
        rng: random.Random | None = None,
        registry: observe.Registry = observe.REGISTRY,
    ) -> None:
        self.task_name = f"integration {connector.name}"
        self.connector = connector
        self.is_running = False
        self.is_up: bool | None = None
        """None until somebody has looked."""
        self.trouble = ""
        self._database = database
        self._wall = wall
        self._rng = rng or random.Random()
        self._turn = asyncio.Lock()
        self._failures = 0
        self._looked_at: float | None = None
        self._told = (0, 0)
        self._is_asked = False
        name = connector.name
        labels = ("connector",)
        self._up = registry.gauge(
            "shop_integration_up", "Whether the partner answers.", labels
        ).labels(connector=name)
        self._waiting = registry.gauge(
            "shop_integration_waiting", "Things that are to go out.", labels
        ).labels(connector=name)

    def heard(self) -> None:
        """There is something to push."""
        self.wake()

    def ask(self) -> None:
        """Somebody wants a round now, however long ago the last one failed."""
        self._is_asked = True
        self.wake()

    async def _run(self) -> None:
        while not self.is_ending():
            self._is_asked = False
            wait_s = EVERY_S
            try:
                if not await self.round():
                    wait_s = self._next_wait()
            except Exception:
                log.exception("%s: a round has ended in an error", self.connector.name)
                wait_s = self._next_wait()
            await self._until(wait_s)

    def _next_wait(self) -> float:
        self._failures += 1
        longest = min(WAIT_MAX_S, WAIT_S * 2.0 ** min(10, self._failures))
        return self._rng.uniform(longest / 2, longest)

    async def _until(self, wait_s: float) -> None:
        """Until news comes; after a failure until the time is over, news or not, or being asked."""
        loop = asyncio.get_running_loop()
        until = loop.time() + wait_s
        while not (self._is_asked or self.is_ending()):
            await self.rest(max(0.0, until - loop.time()))
            if loop.time() >= until or not self._failures:
                return

    async def round(self) -> bool:
        """Push and pull; False if the partner did not go along."""
        name = self.connector.name
        async with self._turn:
            async with self._database.reading() as connection:
                now = await standing.standing(connection, name)
            if not now["enabled"]:
                self._looked_at, self.is_up, self.trouble = None, None, ""
                return True
            self.is_running = True
            try:
                await self._push()
                await self._pull(now["cursor"])
            except Away as away:
                await self._end(is_up=False, why=str(away))
                return False
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                # An answer of another shape than was agreed: theirs has changed, or a proxy's.
                await self._end(is_up=False, why=f"an answer was not understood: {error!r}")
                return False
            finally:
                self.is_running = False
            await self._end(is_up=True, why="")
            return True

    async def _push(self) -> None:
        name = self.connector.name
        while True:
            async with self._database.reading() as connection:
                some, versions = await standing.waiting(connection, name, self.connector.batch)
                count = (await standing.counts(connection, name))["waiting"]
            self._waiting.set(count)
            if not some or self.is_ending():
                return
            pushed = await self.connector.push(some)
            async with self._database.writing() as connection:
                await standing.settle(connection, name, pushed, versions, self._wall())
                for one in pushed:
                    if one.refused:
                        text = f"{one.key} was refused: {one.refused}"
                        await standing.note_fault(connection, name, text, self._wall())
            if not pushed:
                raise Away("nothing was settled")

    async def _pull(self, cursor: str) -> None:
        for _ in range(PAGES_MAX):
            pulled = await self.connector.pull(cursor)
            if pulled.records or pulled.cursor != cursor:
                async with self._database.writing() as connection:
                    await standing.take_in(connection, self.connector.name, pulled, self._wall())
            if not pulled.has_more or pulled.cursor == cursor or self.is_ending():
                return
            cursor = pulled.cursor

    async def _end(self, *, is_up: bool, why: str) -> None:
        name, wall = self.connector.name, self._wall()
        line = self.connector.line
        calls, failures = line.calls_total - self._told[0], line.failures_total - self._told[1]
        self._told = (line.calls_total, line.failures_total)
        if why and why != self.trouble:
            log.warning("%s: %s", name, why)
        async with self._database.writing() as connection:
            if why:
                await standing.note_fault(connection, name, why, wall)
            await standing.note_time(
                connection,
                name,
                is_up=is_up,
                since=self._looked_at,
                wall=wall,
                calls=calls,
                failures=failures,
            )
        self._looked_at = wall
        self.is_up, self.trouble = is_up, why
        self._up.set(1 if is_up else 0)
        if is_up:
            self._failures = 0
