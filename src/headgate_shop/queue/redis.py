"""The queue in Redis, for services on several machines.

What is told to be done is in Redis; how much of it outlives Redis is its own matter: it needs
`appendonly yes`, and `maxmemory-policy noeviction`, or a cache's eviction takes messages away.
Wake-ups go by publish/subscribe; one that is lost costs at most a look of a consumer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, cast

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from headgate_shop.base.whole import whole
from headgate_shop.queue import redis_scripts as scripts
from headgate_shop.queue.backoff import Backoff
from headgate_shop.queue.home import (
    Again,
    Bury,
    DeadLetter,
    Put,
    Take,
    Taken,
    TopicStats,
    Verdict,
)
from headgate_shop.queue.message import Outgoing, QueueAway, wall_time

__all__ = ["RedisHome"]

PREFIX: Final = "{shop-queue}:"
"""The braces keep all keys on one node of a cluster."""
CONNECTIONS: Final = 8
ANSWER_S: Final = 5.0
CONNECT_S: Final = 2.0
LISTEN_S: Final = 20.0
REDRIVE_ROWS: Final = 500
RATE_S: Final = 60.0
AWAY: Final = Backoff(0.2, 5.0)

log = logging.getLogger("headgate_shop.queue")


class RedisHome:
    kind = "redis"

    def __init__(
        self,
        url: str,
        *,
        limit: int,
        wall: Callable[[], float] = wall_time,
        rng: random.Random | None = None,
    ) -> None:
        self.limit = limit
        self._wall = wall
        self._rng = rng or random.Random()
        self._owner = uuid.uuid4().hex[:12]
        self._told: Callable[[str], None] = lambda _group: None
        self._listener: asyncio.Task[None] | None = None
        self._groups: tuple[str, ...] = ()
        self._redis = Redis.from_pool(
            BlockingConnectionPool.from_url(
                url,
                max_connections=CONNECTIONS,
                timeout=ANSWER_S,
                decode_responses=True,
                socket_timeout=ANSWER_S,
                socket_connect_timeout=CONNECT_S,
                retry=Retry(NoBackoff(), 0),  # who asks decides when to ask again
            )
        )
        self._where = url.rpartition("@")[2]
        self._scripts = {
            text: self._redis.register_script(text)
            for text in (
                scripts.PUT,
                scripts.TAKE,
                scripts.RENEW,
                scripts.FINISH,
                scripts.REDRIVE,
                scripts.DROP,
                scripts.DEAD,
                scripts.STATS,
            )
        }

    def on_nudge(self, told: Callable[[str], None]) -> None:
        self._told = told

    # ---- life

    async def open(self, groups: Sequence[str]) -> None:
        self._groups = tuple(groups)
        if groups:
            self._listener = asyncio.get_running_loop().create_task(
                self._listen(), name="queue wake-ups"
            )
        await self.ping()

    async def close(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)
        with contextlib.suppress(RedisError, OSError):
            await self._redis.aclose()

    async def ping(self) -> None:
        """A write, for a replica or a full Redis answers a PING as well."""
        try:
            await whole(self._redis.set(f"{PREFIX}ping", "1", ex=60))
        except (RedisError, OSError) as error:
            raise self._away(error) from error

    async def _listen(self) -> None:
        failures = 0
        while True:
            try:
                async with self._redis.pubsub() as channel:
                    await whole(channel.subscribe(f"{PREFIX}wake"))
                    failures = 0
                    for group in self._groups:
                        self._told(group)  # what came while nobody listened
                    asked = time.monotonic()
                    while True:
                        said = await channel.get_message(
                            ignore_subscribe_messages=True, timeout=LISTEN_S
                        )
                        if said is not None and said["type"] == "message":
                            self._told(said["data"])
                        elif time.monotonic() - asked > LISTEN_S / 2:
                            asked = time.monotonic()
                            await channel.ping()  # a connection that is dead is silent as well
            except (RedisError, OSError) as error:
                failures += 1
                if failures == 1:
                    log.warning("%s: no wake-ups; consumers poll: %s", self._where, error)
                await asyncio.sleep(AWAY.delay_s(failures, self._rng))

    async def _call(self, script: str, *arguments: str | float) -> Any:
        try:
            asked = cast("Awaitable[Any]", self._scripts[script](args=[PREFIX, *arguments]))
            # A client that is cancelled while it connects leaves its connection open.
            return await whole(asked)
        except (RedisError, OSError) as error:
            raise self._away(error) from error

    def _away(self, error: Exception) -> QueueAway:
        return QueueAway(f"{self._where}: {type(error).__name__}: {error}")

    # ---- in

    async def put(self, messages: Sequence[tuple[Outgoing, tuple[str, ...]]]) -> Put:
        now = self._wall()
        arguments: list[str | int | float] = []
        for one, groups in messages:
            delay_ms = max(0, round((one.due - now) * 1000))
            arguments += [one.id, one.topic, one.body, one.at, delay_ms, one.priority]
            arguments += [len(groups), *groups]
        if not arguments:
            return Put(0)
        accepted, full = await self._call(scripts.PUT, self.limit, *arguments)
        return Put(accepted, full)

    # ---- out

    async def take(self, group: str, topics: Sequence[str], count: int, lease_s: float) -> Take:
        rows, next_ms = await self._call(
            scripts.TAKE, group, self._owner, round(lease_s * 1000), count, *topics
        )
        taken = tuple(
            Taken(id_, group, topic, body, float(at), attempt, f"{id_}:{claim}")
            for id_, topic, body, at, attempt, claim in rows
        )
        return Take(taken, None if next_ms < 0 else next_ms / 1000)

    async def renew(self, taken: Sequence[Taken], lease_s: float) -> frozenset[str]:
        arguments: list[str] = []
        for one in taken:
            arguments += [one.group, one.id, _claim(one)]
        lost = await self._call(scripts.RENEW, round(lease_s * 1000), *arguments)
        return frozenset(taken[int(place)].claim for place in lost)

    async def finish(self, taken: Taken, verdict: Verdict) -> bool:
        what, delay_ms, error, back = "done", 0, "", 0
        if isinstance(verdict, Bury):
            what, error = "bury", verdict.error
        elif isinstance(verdict, Again):
            what, error = "again", verdict.error
            delay_ms = round(verdict.delay_s * 1000)
            back = 0 if verdict.is_counted else 1
        return bool(
            await self._call(
                scripts.FINISH, taken.group, taken.id, _claim(taken), what, delay_ms, error, back
            )
        )

    # ---- looking

    async def stats(self) -> list[TopicStats]:
        figures: dict[tuple[str, str], dict[str, float]] = {}
        for group, topic, name, value in await self._call(scripts.STATS):
            row = figures.setdefault((group, topic), {})
            if name in ("published", "done", "failed"):
                rate = f"{name}_per_s"
                row[rate] = row.get(rate, 0.0) + int(value) / RATE_S
            elif name == "oldest_s":
                row[name] = float(value)
            else:
                row[name] = int(value)
        return [TopicStats(*key, **row) for key, row in figures.items()]  # type: ignore[arg-type] # counts are whole

    async def dead(self, group: str, limit: int, after: str) -> list[DeadLetter]:
        rows = await self._call(scripts.DEAD, group, limit, after)
        return [
            DeadLetter(id_, group, topic, body, float(at), float(died) / 1000, int(tries), error)
            for id_, topic, body, at, died, tries, error in rows
        ]

    async def redrive(self, group: str, message_id: str | None) -> int:
        if message_id == "":
            return 0
        if message_id is not None:
            return int(await self._call(scripts.REDRIVE, group, message_id, 1))
        # Those that die again meanwhile are not driven round and round.
        try:
            left = int(await whole(self._redis.zcard(f"{PREFIX}dead:{group}")))
        except (RedisError, OSError) as error:
            raise self._away(error) from error
        count = 0
        while left > 0:
            done = int(await self._call(scripts.REDRIVE, group, "", min(left, REDRIVE_ROWS)))
            if not done:
                break
            count += done
            left -= done
        return count

    async def drop(self, group: str, message_id: str) -> int:
        return int(await self._call(scripts.DROP, group, message_id))

    async def purge(self) -> int:
        """Ids that need no longer be known go by themselves."""
        return 0


def _claim(taken: Taken) -> str:
    return taken.claim.rpartition(":")[2]
