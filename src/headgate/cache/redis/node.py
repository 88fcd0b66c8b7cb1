"""One Redis process: found, kept up, and left alone while it is slow or away.

Theory of operation.

    away --connected, asked who it is, taken into the books (`JOIN`)--> here
    here --the connection lost, no answer for STALE_S, or no longer a master--> away

Here, three things keep callers from waiting. A batch past its deadline makes the node *stalled*:
nothing is sent until that answer has come, since all else would wait behind it. The breaker counts
batches that were late, so that a node which is slow each time is left alone too; only beats (`try`)
find out whether it is well again. And each batch has its deadline. So a node that freezes costs
those who are waiting one deadline, and whoever comes later nothing.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from headgate.cache.layer import LayerAway
from headgate.cache.redis.link import Call, Command, Entry, Link, heed_cancel, open_link
from headgate.cache.redis.scripts import ALL
from headgate.policy.answers import Rejected
from headgate.policy.breaker import Breaker, BreakerRules, Permit

__all__ = ["BREAKER", "Clustered", "Met", "Node", "pause_s"]

STALE_S: Final = 1.0
RETRY_MIN_S: Final = 0.02
RETRY_MAX_S: Final = 1.0
_UNSENT_MAX: Final = 64 * 1024 * 1024
_TIMES: Final = 1024
_TELL_EVERY_S: Final = 10.0

BREAKER: Final = BreakerRules(
    window_calls=8,
    minimum_calls=3,
    failure_rate=0.5,
    trial_calls=2,
    trial_wait_s=1.0,
    reset_s=0.25,
    reset_growth=1.5,
    reset_max_s=2.0,
    jitter=0.2,
)
"""Few calls and a short reset: a call is a batch, and trials are beats that nobody waits for."""

log = logging.getLogger("headgate.cache")


class Met:
    """What a Redis process says of itself."""

    __slots__ = ("is_cluster", "is_master", "may_evict", "run_id")

    def __init__(self, info: dict[str, str]) -> None:
        self.run_id = info.get("run_id", "")
        self.is_cluster = info.get("cluster_enabled") == "1"
        self.is_master = info.get("role", "master") == "master"
        policy = info.get("maxmemory_policy", "noeviction")
        self.may_evict = policy != "noeviction" and info.get("maxmemory", "0") != "0"


class Clustered(Exception):
    """The Redis that was met is one of a Cluster."""


class Node:
    def __init__(
        self,
        name: str,
        connect: Callable[[], Any],
        *,
        deadline_s: float,
        rules: BreakerRules,
        rng: random.Random,
        join: Callable[[Node, Link, Met], Awaitable[None]],
        gone: Callable[[Node], None],
        redirect: Callable[[Entry, str], bool],
        words: Callable[[BaseException], str],
        faults: tuple[type[Exception], ...],
    ) -> None:
        self.name = name
        self.connect = connect
        self.deadline_s = deadline_s
        self.stale_s = STALE_S
        self.breaker = Breaker(f"cache {name}", rules, time.monotonic(), rng)
        self.link: Link | None = None
        self.why = "not connected yet"
        self.since = time.monotonic()
        self.tried = asyncio.Event()
        self.failures = 0
        self.batches = 0
        self.commands = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.times: deque[float] = deque(maxlen=_TIMES)
        self._stalled = 0
        self.rng = rng
        self._join = join
        self._gone = gone
        self._redirect = redirect
        self._words = words
        self._faults = faults
        self._lost = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._told_at = -_TELL_EVERY_S

    # ---- life

    def start(self, *, seed: bool = False) -> None:
        self._task = asyncio.get_running_loop().create_task(
            self._keep_up(seed), name=f"cache redis {self.name}"
        )

    @property
    def task(self) -> asyncio.Task[None] | None:
        return self._task

    def forget(self) -> None:
        """Drop the connection; the task is cancelled by whoever closes."""
        if self._task is not None and not self._task.get_loop().is_closed():
            self._task.cancel()
        if self.link is not None:
            self.link.end("closed")

    def orphan(self) -> None:
        """This is another process now."""
        link, self.link = self.link, None
        if link is not None:
            link.orphan()

    async def _keep_up(self, seed: bool) -> None:
        try:
            await self._up_again_and_again(seed)
        finally:
            # A loop that ends with the cache unclosed cancels this, and is to find nothing open.
            if self.link is not None:
                self.link.end("closed")

    async def _up_again_and_again(self, seed: bool) -> None:
        tries = 0
        while True:
            heed_cancel()
            self._lost.clear()
            try:
                async with asyncio.timeout(STALE_S * 2):
                    await self._reach(seed)
                tries = 0
                self.tried.set()
                await self._lost.wait()
            except Clustered:
                self.tried.set()
                raise
            except self._faults as error:
                self.why = self._words(error)
            except Exception as error:
                log.exception("reaching %s failed", self.name)  # a fault of ours
                self.why = type(error).__name__
            self.tried.set()
            await asyncio.sleep(pause_s(self.rng, tries))
            tries += 1

    async def _reach(self, seed: bool) -> None:
        link = await open_link(self.connect(), self)
        try:
            met = await self._meet(link)
            if seed and met.is_cluster:
                raise Clustered
            if not met.is_master:
                raise LayerAway("it is a replica, and takes no writes")
            await self._join(self, link, met)
        except BaseException:
            link.end("not met")
            raise
        if not link.is_open:
            raise LayerAway(self.why)
        now = time.monotonic()
        self._stalled = 0
        self.link, self.since = link, now
        if self.breaker.state != "closed":
            self.breaker.force_close(now, "connected anew")

    async def _meet(self, link: Link) -> Met:
        asks: list[Command] = [
            ("INFO", part) for part in ("server", "cluster", "replication", "memory")
        ]
        asks += [("SCRIPT", "LOAD", script.text) for script in ALL]
        replies = await self.handshake(link, asks)
        info: dict[str, str] = {}
        for reply in replies[:4]:
            if isinstance(reply, bytes):
                lines = reply.decode("utf-8", "replace").splitlines()
                info |= dict(line.split(":", 1) for line in lines if ":" in line)
        for reply in replies[:1] + replies[4:]:
            if isinstance(reply, Exception):
                raise LayerAway(self._words(reply))
        return Met(info)

    async def handshake(self, link: Link, commands: Sequence[Command]) -> list[Any]:
        call = Call(len(commands), asyncio.get_running_loop(), time.monotonic())
        link.send([(call, i, command) for i, command in enumerate(commands)], STALE_S)
        return await call.future

    async def ask(self, commands: Sequence[Command]) -> list[Any]:
        """Of this very node, whatever it is asked."""
        call = Call(len(commands), asyncio.get_running_loop(), time.monotonic())
        self.send([(call, i, command) for i, command in enumerate(commands)])
        return await call.future

    # ---- sending

    @property
    def is_here(self) -> bool:
        return self.link is not None and not self._stalled and self.breaker.state == "closed"

    def send(self, entries: Sequence[Entry], *, is_trial: bool = False) -> None:
        link = self.link
        if link is None or self._stalled:
            self._refuse(entries)
            return
        now = time.monotonic()
        permit: Permit | Rejected | None = self.breaker.ready
        if permit is None:
            if not is_trial:
                self._refuse(entries)
                return
            permit = self.breaker.admit(now)
        if isinstance(permit, Rejected) or link.unsent_bytes > _UNSENT_MAX:
            self._refuse(entries)
            return
        self.batches += 1
        self.commands += len(entries)
        # What is sent on (a script that was forgotten, a slot that moved) has what is left.
        spent_s = now - min(entry[0].sent_at for entry in entries)
        link.send(entries, max(0.001, self.deadline_s - spent_s), permit)

    def _refuse(self, entries: Sequence[Entry]) -> None:
        for call, _, _ in entries:
            call.fail(self.away())

    # ---- link.Owner

    def answered(self, permit: Permit | None, took_s: float, was_late: bool) -> None:
        if permit is None:
            return
        if was_late:
            self._stalled -= 1
            return
        self.times.append(took_s)
        self.breaker.succeed(permit, time.monotonic(), took_s)

    def late(self, permit: Permit | None) -> None:
        if permit is None:
            return
        self._stalled += 1
        self.failures += 1
        self.why = f"no answer within {self.deadline_s * 1000:g} ms"
        self.breaker.fail(permit, time.monotonic(), self.deadline_s)

    def away(self) -> LayerAway:
        return LayerAway(f"{self.name}: {self.why}")

    def lost(self, link: Link, why: str) -> None:
        self.bytes_in += link.bytes_in
        self.bytes_out += link.bytes_out
        self._stalled = 0
        self.why = why
        if self.link is link:
            now = time.monotonic()
            self.link, self.since = None, now
            if why != "closed" and now - self._told_at >= _TELL_EVERY_S:
                self._told_at = now
                log.warning("the cache's %s is away: %s", self.name, why)
            self._lost.set()
            self._gone(self)

    def refused(self, entry: Entry, error: Exception) -> bool:
        text = str(error)
        kind = text.partition(" ")[0]
        if kind == "NOSCRIPT" and entry[2][0] == "EVALSHA":
            known = next((one.text for one in ALL if one.sha == entry[2][1]), None)
            if known is not None:
                command = ("EVAL", known, *entry[2][2:])
                self._again((entry[0], entry[1], command))
                return True
        if kind in ("MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN"):
            return self._redirect(entry, text)
        if kind in ("READONLY", "LOADING", "MASTERDOWN", "NOAUTH") and self.link is not None:
            link = self.link
            self.why = self._words(error)
            entry[0].fail(self.away())
            # Not within the very loop that reads its answers.
            asyncio.get_running_loop().call_soon(link.end, self.why)
            return True
        return False

    def _again(self, entry: Entry) -> None:
        if not entry[0].future.done():
            self.send([entry])


def pause_s(rng: random.Random, tries: int) -> float:
    return min(RETRY_MAX_S, RETRY_MIN_S * 2.0 ** min(tries, 10)) * rng.uniform(0.5, 1.0)
