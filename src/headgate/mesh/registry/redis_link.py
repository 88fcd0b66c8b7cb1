"""The one way to the Redis of a registry: scripts with a deadline, and who waits for the log.

Theory of operation. `away` says why nothing is asked, and is empty while something may be. Whoever
asks in time of somebody else's request uses `_ask`, which gives up after the deadline and from then
on is away; what the home does by itself uses `_call`, and its faults are handled in one place.

A script answers with the number of the change it made. `_wait_applied` waits until the log has told
the book of it, so that who asks next is answered by what he did; not for longer than the deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from headgate.mesh.registry.redis_script import keys
from headgate.state.redis_place import place_of
from headgate.state.redis_script import Script

if TYPE_CHECKING:
    from redis.asyncio import Redis

__all__ = ["CLOSED", "RedisLink"]

CLOSED: Final = "closed"
_TIMEOUT_MIN_S: Final = 2.0

log = logging.getLogger("headgate.mesh")


class RedisLink:
    def __init__(self, url: str, prefix: str, deadline_s: float) -> None:
        self.away = "not started"
        """Why it is away; empty while it is here."""
        self._place = place_of(url, max(_TIMEOUT_MIN_S, 2 * deadline_s))
        self._keys: tuple[str, ...] = keys(prefix)
        self._deadline_s = deadline_s
        self._client: Redis | None = None
        self._cluster: Any = None  # redis-py's cluster client is typed as the sync one in places
        self._faults = _faults()
        self._applied = 0
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []

    @property
    def place(self) -> str:
        """Its URL, without secrets."""
        return self._place.text

    def _connect(self) -> None:
        """A client, which connects when it is used."""
        self._client = self._place.connect()

    async def _greet(self) -> None:
        """See whether it answers, and whether it is one of a cluster."""
        await self._command("PING")
        if self._cluster is None and self._client is not None:
            found = await self._client.info("cluster")
            if found.get("cluster_enabled") == 1:
                self._cluster = self._place.cluster()

    async def _disconnect(self) -> None:
        self._go_away(CLOSED)
        client = self._client
        if client is not None:
            for one in (client, self._cluster, *self._place.sentinels_of(client)):
                if one is not None:
                    with contextlib.suppress(*self._faults):
                        await one.aclose()
        self._client = self._cluster = None

    async def _ask(self, script: Script, *words: str | int) -> Any:
        """What Redis says; None while it is away, from now on if it does not answer in time."""
        if self.away:
            return None
        try:
            async with asyncio.timeout(self._deadline_s):
                return await self._call(script, words)
        except TimeoutError:
            self._go_away(f"no answer within {self._deadline_s:g} s")
        except self._faults as error:
            self._go_away(self._place.words(error))
        return None

    async def _call(self, script: Script, words: Sequence[str | int]) -> Any:
        from redis.exceptions import NoScriptError

        try:
            return await self._command("EVALSHA", script.sha, len(self._keys), *self._keys, *words)
        except NoScriptError:
            return await self._command("EVAL", script.text, len(self._keys), *self._keys, *words)

    async def _command(self, *words: str | int) -> Any:
        client = self._cluster or self._client
        if client is None:
            raise ConnectionError("not started")
        return await client.execute_command(*words)

    def _go_away(self, why: str) -> None:
        if not self.away and why != CLOSED:
            log.warning("the registry in %s is away: %s", self.place, why)
        self.away = why
        waiting, self._waiting = self._waiting, []
        for _, future in waiting:
            if not future.done():
                future.set_result(None)

    async def _wait_applied(self, number: int | None) -> None:
        """Until the book has heard of this change; None: of another one. Not for longer than the
        deadline: it comes.
        """
        wanted = self._applied + 1 if number is None else number
        if wanted <= self._applied or self.away:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((wanted, future))
        await asyncio.wait((future,), timeout=self._deadline_s)
        if not future.done():
            self._waiting = [each for each in self._waiting if each[1] is not future]

    def _have_applied(self, number: int) -> None:
        self._applied = number
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for wanted, future in waiting:
                if wanted > number:
                    self._waiting.append((wanted, future))
                elif not future.done():
                    future.set_result(None)


def _faults() -> tuple[type[Exception], ...]:
    """What may happen to a connection."""
    from redis.exceptions import RedisClusterException, RedisError

    return (RedisError, RedisClusterException, OSError, TimeoutError)
