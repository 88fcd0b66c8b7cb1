"""The rim of the Redis layer: its settings, its life, and what operators ask of it."""

from __future__ import annotations

import asyncio
import os
import random
import time
from abc import abstractmethod
from collections import Counter, deque
from collections.abc import Sequence
from math import inf
from typing import Any, Final, Literal

from headgate.cache.codecs import Packer
from headgate.cache.invalidation import Invalidation
from headgate.cache.layer import LayerAway, LayerSnapshot
from headgate.cache.redis.coherence import Coherence
from headgate.cache.redis.link import Command
from headgate.cache.redis.names import Names
from headgate.cache.redis.node import BREAKER
from headgate.cache.redis.pending import Pending
from headgate.cache.redis.router import Ask, Router
from headgate.policy.breaker import BreakerRules
from headgate.state.redis_place import place_of
from headgate.state.redis_script import Script

__all__ = ["Rim", "call_of", "wall_now"]

START_S: Final = 1.0
PLACE_TIMEOUT_S: Final = 1.0


class Rim(Coherence):
    kind = "redis"

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "headgate:cache",
        packer: Packer | None = None,
        family: Literal["objects", "responses"] = "objects",
        deadline_s: float = 0.05,
        lease_s: float = 0.1,
        keep_s: float = 30 * 86_400.0,
        late_s: float = 3600.0,
        value_bytes_max: int = 8 * 1024 * 1024,
        durable: bool = False,
        breaker: BreakerRules = BREAKER,
        pending: Pending | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """`deadline_s`: no answer is waited for longer. `lease_s`: how long after an invalidation
        an old value may still be served by a process that Redis cannot reach. `keep_s`: no entry
        lives longer. `late_s`: what took longer to load is not kept. `durable`: Redis loses nothing
        that it has acknowledged, by restarts and failovers neither.
        """
        for name, span in (("deadline_s", deadline_s), ("lease_s", lease_s), ("late_s", late_s)):
            if not 0.0 < span < inf:
                raise ValueError(f"{name} is {span:g}: give seconds over 0")
        if not late_s <= keep_s <= 3650 * 86_400.0:
            raise ValueError(f"keep_s is {keep_s:g}: give at least late_s, and at most ten years")
        if value_bytes_max < 1:
            raise ValueError(f"value_bytes_max is {value_bytes_max}: give at least 1")
        super().__init__(Names(prefix), family, lease_s, durable)
        scheme, cluster, rest = url.partition("+cluster://")
        self._place = place_of(f"{scheme}://{rest}" if cluster else url, PLACE_TIMEOUT_S)
        self._packer = packer or Packer()
        self._deadline_s = deadline_s
        self._keep_ms = round(keep_s * 1000)
        self._late_ms = round(late_s * 1000)
        self._value_max = value_bytes_max
        self._rules = breaker
        self._rng = rng or random.Random()
        self._pending = pending or Pending()
        self._strikes: deque[Invalidation] = deque()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._mending: asyncio.Task[Any] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0
        self._leases = 0
        self._owed: dict[bytes, tuple[str, float]] = {}
        """Leases that may have been given without our knowing, with their token and end."""
        self._owes = asyncio.Event()
        self._is_closed = False
        self._since_at = time.monotonic()
        self.counts: Counter[str] = Counter()
        """struck, undecodable, oversized, lease_lost, refused: what was not kept or not served."""
        self._faults = _faults()

    # ---- life

    async def start(self) -> None:
        self._is_closed = False
        await self._begin(START_S)

    async def _begin(self, wait_s: float) -> None:
        if self._router is not None:
            if self._loop is asyncio.get_running_loop() and self._pid == os.getpid():
                return
            self._leave(self._router)
            self._tasks.clear()
            self._mending = self._catching = None
        self._loop, self._pid = asyncio.get_running_loop(), os.getpid()
        self._router = router = Router(
            self._place,
            self._names.clock,
            deadline_s=self._deadline_s,
            rules=self._rules,
            rng=self._rng,
            join=self._join,
            gone=self._node_gone,
            faults=self._faults,
        )
        self._owed.clear()
        self._owes = asyncio.Event()
        self._spawn(self._give_back_owed(), "cache redis leases")
        self._spawn(self._beat(), "cache redis beat")
        self._spawn(self._follow_news(), "cache redis news")
        await router.start(wait_s)

    @abstractmethod
    async def _give_back_owed(self) -> None:
        """Release, one after the other, leases whose holders could not."""

    async def close(self) -> None:
        router, self._router = self._router, None
        self._is_closed = True
        self._coherent_until = -inf
        if router is None:
            return
        if self._loop is not asyncio.get_running_loop() or self._pid != os.getpid():
            self._leave(router)
            return
        alive = set(self._tasks)
        while alive:  # more than once: before Python 3.12 `wait_for` may swallow one
            for task in alive:
                task.cancel()
            _, alive = await asyncio.wait(alive, timeout=0.05)
        await router.close()

    def _leave(self, router: Router) -> None:
        is_forked = self._pid != os.getpid()
        router.abandon(is_forked=is_forked)
        link, self._news_link = self._news_link, None
        if link is not None:
            if is_forked:
                link.orphan()
            else:
                link.end("closed")

    def _spawn(self, what: Any, name: str) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(what, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    @property
    def is_away(self) -> bool:
        return self._router is None or not self._router.home.is_here or self._pending.is_to_tell

    def _at_hand(self) -> Router | None:
        """The router, where it may be asked and nothing has to be done before; else see `_here`."""
        router = self._router
        if (
            router is None
            or self._loop is not asyncio.get_running_loop()
            or not router.home.is_here
            or self._pending.is_to_tell
        ):
            return None
        return router

    async def _here(self, *, is_telling: bool = False) -> Router:
        router = self._router
        if router is None or self._loop is not asyncio.get_running_loop():
            if self._is_closed:
                raise LayerAway("the layer is closed")
            await self._begin(0.0)  # another loop than before, or another process
            router = self._router
        if router is None or not router.home.is_here:
            why = "closed" if router is None else router.home.why
            raise LayerAway(f"{self._place.text}: {why}"[:300])
        if self._pending.is_to_tell and not is_telling:
            raise LayerAway("what was invalidated here meanwhile is not told yet")
        return router

    async def _one(self, ask: Ask) -> Any:
        router = await self._here()
        (reply,) = await router.ask([ask]).future
        return reply

    # ---- what operators ask

    def snapshot(self) -> LayerSnapshot:
        router = self._router
        nodes = [] if router is None else router.all_nodes()
        home = None if router is None else router.home
        links = [node.link for node in nodes if node.link is not None]
        times = sorted(took_s for node in nodes for took_s in node.times)
        is_away = self.is_away
        return LayerSnapshot(
            kind=self.kind,
            place=self._place.text,
            is_away=is_away,
            why=home.why if home is not None and is_away else "",
            for_s=time.monotonic() - (self._since_at if home is None else home.since),
            breaker="closed" if home is None else home.breaker.state,
            commands=sum(node.commands for node in nodes),
            batches=sum(node.batches for node in nodes),
            failures=sum(node.failures for node in nodes),
            queued=len(self._pending) + len(self._strikes),
            dropped=self._pending.dropped,
            bytes_in=sum(n.bytes_in for n in nodes) + sum(link.bytes_in for link in links),
            bytes_out=sum(n.bytes_out for n in nodes) + sum(link.bytes_out for link in links),
            latency_p50_s=times[len(times) // 2] if times else 0.0,
            latency_p99_s=times[len(times) * 99 // 100] if times else 0.0,
        )


def call_of(script: Script, keys: Sequence[bytes], *words: bytes | str | float) -> Command:
    return ("EVALSHA", script.sha, len(keys), *keys, *words)


def wall_now() -> float:
    return time.time()  # noqa: TID251  the rim: entries end by the wall clock


def _faults() -> tuple[type[Exception], ...]:
    """What may happen to a connection."""
    from redis.exceptions import RedisClusterException, RedisError

    return (RedisError, RedisClusterException, OSError, TimeoutError, LayerAway)
