"""Shared state in Redis: several machines, one limit and one board.

Theory of operation. One task, `_talk`, has the one connection on which all is said, in order:
batches of asks, news, and every few seconds a beat. While a batch is on its way the next one
gathers, so that the busier it is the more goes in one call. All asks of one batch are decided by
one script (`redis_script.py`), up to `_CALL_MAX` in a call; those of one `take` are never parted.

    away --PING, then a beat that is answered within the deadline--> here
    here --a batch past its deadline, an error, a lost connection--> away

A slow answer does not cost the connection: it is waited for up to `STALE_S`, and what it granted
too late is given back. Away, tries follow each other by 0.1 to 2 s with jitter, and a request does
not wait for any of them. An error that Redis answers (a replica that may not write, no memory,
no permission) is being away, too, with that reason.

A beat says that this holder lives (for `HOLDER_TTL_S`), and learns how many do; so a worker that
died counts for that long. Who comes or goes says so, and the others beat soon. `holder=False` only
hears and says news, and does not count.

On a Redis Cluster (found out by asking) each key's asks are a call of their own, because only keys
with one hash tag, which is the limited key's digest, are sure to share a node; those of one batch
go out together. News then depends on the node that the URL names.

Redis 6 or newer, and what speaks its protocol with scripts. With an eviction policy that takes keys
which expire, limits begin anew for keys that Redis evicts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import Final

from headgate.policy.limiter.lease import Grant
from headgate.state.asking import DEADLINE_S, Batch, Returned
from headgate.state.home import LimitAsk
from headgate.state.redis_board import KEEP_S, RedisBoard
from headgate.state.redis_script import BEAT, LIMITS, Wire, grants_of, is_back

__all__ = ["RedisShared"]

HOLDER_TTL_S: Final = 10.0
BEAT_S: Final = 3.0
START_S: Final = 1.0
NUDGED_S: Final = 0.2
_CALL_MAX: Final = 64

log = logging.getLogger("headgate.state")

Row = tuple[str, str, str]


class RedisShared(RedisBoard):
    """A `LimitHome` and a `Board`. `start` before use, `close` at the end."""

    def __init__(
        self,
        url: str,
        *,
        deadline_s: float = DEADLINE_S,
        prefix: str = "headgate",
        holder: bool = True,
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(url, deadline_s=deadline_s, prefix=prefix, rng=rng, clock=clock)
        self._is_holder = holder
        self._wire = Wire(prefix)
        self._holders_key = f"{prefix}:{{board}}:holders"
        self._beat_due = False
        self._next_beat: asyncio.TimerHandle | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._tried = asyncio.Event()

    # ---- life

    async def start(self) -> None:
        """Connect. A Redis that is not there is no error: it is away, and looked for."""
        loop = asyncio.get_running_loop()
        self._client = self._place.connect()
        self._tasks = [
            loop.create_task(self._talk(), name="redis talk"),
            loop.create_task(self._listen(), name="redis listen"),
        ]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_S):
                await self._tried.wait()

    async def close(self) -> None:
        """Say goodbye, so that others count one less; what is leased is not given back here."""
        # More than once: redis-py sends within `wait_for`, which before Python 3.12 loses a
        # cancellation that comes together with its result.
        alive = {task for task in self._tasks if not task.done()}
        while alive:
            for task in alive:
                task.cancel()
            _, alive = await asyncio.wait(alive, timeout=self.deadline_s)
        if self._next_beat is not None:
            self._next_beat.cancel()
        client = self._client
        if client is not None:
            if not self._is_away and self._is_holder:
                with contextlib.suppress(*self._faults):
                    async with asyncio.timeout(self.deadline_s * 4):
                        await self._command("ZREM", self._holders_key, self._id)
                        await self._command("PUBLISH", self._channel, self._nudge)
            self._is_away = True
            self._why = "closed"
            self._lose_all()
            for one in (client, self._cluster, *self._place.sentinels_of(client)):
                if one is not None:
                    with contextlib.suppress(*self._faults):
                        await one.aclose()
            self._client = self._cluster = None

    # ---- talking

    def _wake(self, loop: asyncio.AbstractEventLoop) -> None:
        self._bell.set()

    def _went_away(self) -> None:
        self._bell.set()

    async def _talk(self) -> None:
        tries = 0
        while True:
            why = ""
            try:
                if self._is_away:
                    await self._find()
                    tries = 0
                await self._bell.wait()
                self._bell.clear()
                if not self._is_away:
                    await self._say_all()
            except self._faults as error:
                why = self._place.words(error)
            except Exception as error:
                log.exception("talking to %s failed", self.place)  # a fault of ours
                why = type(error).__name__
            if why:
                self._go_away(why)
                self._lose_all()
                self._tried.set()
                await asyncio.sleep(self._pause_s(tries))
                tries += 1

    async def _find(self) -> None:
        """See whether Redis answers, writes, and is quick enough; raise if not."""
        await self._command("PING")  # connects
        if self._cluster is None and self._client is not None:
            found = await self._client.info("cluster")
            if found.get("cluster_enabled") == 1:
                self._cluster = self._place.cluster()
        await self._say_batch()  # what came too late is given back
        began = self._clock()
        await self._beat()
        took_s = self._clock() - began
        if took_s > self.deadline_s:
            raise TimeoutError(f"a beat took {took_s * 1000:.0f} ms")
        if self._is_holder:
            self._outbox.append((None, (self._channel, self._nudge)))
        self._come_back()
        self._tried.set()
        self._bell.set()

    async def _say_all(self) -> None:
        await self._say_batch()
        while self._outbox:
            script, words = self._outbox[0]
            await self._say_news(script, words)
            self._outbox.popleft()
        if self._unsaid:
            self._say_unsaid()
        if self._beat_due:
            await self._beat()

    async def _say_batch(self) -> None:
        batch = self._cut()
        if batch is not None:
            await self._decide(batch)

    async def _beat(self) -> None:
        self._beat_due = False
        name = self._id if self._is_holder else ""
        words = (name, round(HOLDER_TTL_S * 1000), round(KEEP_S * 1000))
        found = await self._call(BEAT, [self._holders_key, self._retained_key], words)
        self._holders = max(1, int(found))
        self._beat_within(BEAT_S)

    def _beat_within(self, most_s: float) -> None:
        if self._next_beat is not None:
            self._next_beat.cancel()
        # Not all at once, though all may have started, or been nudged, at once.
        self._next_beat = asyncio.get_running_loop().call_later(
            most_s * self._rng.uniform(0.6, 1.0), self._on_beat
        )

    def _count_anew(self) -> None:
        self._beat_within(NUDGED_S)

    def _on_beat(self) -> None:
        self._next_beat = None
        self._beat_due = True
        self._bell.set()

    # ---- limits

    async def _decide(self, batch: Batch) -> None:
        grants: list[Grant] = []
        rows: list[Row] = []
        for said in batch.said:
            group = self._rows(said)
            if rows and len(rows) + len(group) > _CALL_MAX:
                grants += await self._limits(rows)
                rows = []
            rows += group
        if rows:
            grants += await self._limits(rows)
        self._answered(batch.number, grants)

    def _rows(self, said: Sequence[LimitAsk] | Sequence[Returned]) -> list[Row]:
        wire = self._wire
        rows: list[Row] = []
        for entry in said:
            if isinstance(entry, LimitAsk):
                rule, rules, ask, seat_ttl_s = entry
                rows.append(wire.ask(rule, rules, ask, seat_ttl_s))
            elif (row := wire.back(*entry)) is not None:
                rows.append(row)
        return rows

    async def _limits(self, rows: Sequence[Row]) -> list[Grant]:
        if self._cluster is not None:
            return await self._limits_by_tag(rows)
        words = [self._id]
        for _, rules, call in rows:
            words += (rules, call)
        return grants_of(await self._call(LIMITS, [row[0] for row in rows], words))

    async def _limits_by_tag(self, rows: Sequence[Row]) -> list[Grant]:
        """A call for each hash tag, all at once; the grants in the order of the asks."""
        by_tag: dict[str, list[int]] = {}
        for i, (key, _, _) in enumerate(rows):
            by_tag.setdefault(key[key.index("{") : key.index("}")], []).append(i)
        calls = []
        for places in by_tag.values():
            words = [self._id]
            for i in places:
                words += rows[i][1:]
            calls.append(self._call(LIMITS, [rows[i][0] for i in places], words))
        grants: dict[int, Grant] = {}
        replies = await asyncio.gather(*calls, return_exceptions=True)
        for places, reply in zip(by_tag.values(), replies, strict=True):
            if isinstance(reply, BaseException):
                raise reply
            asked = [i for i in places if not is_back(rows[i])]
            grants.update(zip(asked, grants_of(reply), strict=True))
        return [grants[i] for i in sorted(grants)]
