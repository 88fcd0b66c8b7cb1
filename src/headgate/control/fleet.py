"""The board that reaches every gateway of a fleet: this machine's workers, and Redis where the file
names one.

What an operator says here (orders, bans, revocations) is meant for all machines, while what control
finds out about this one (health) stays on `Shared`. Workers listen to both, so they may hear the
same word twice, which the rules of a `Board` allow. A Redis that is away costs nothing but reach:
what is retained is told when it is back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from headgate.errors import HeadgateError

if TYPE_CHECKING:
    from headgate.control.shared import Shared
    from headgate.state.redis import RedisShared

log: Final = logging.getLogger("headgate.control")

Listener = Callable[[Mapping[str, Any]], None]


class Fleet:
    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._redis: RedisShared | None = None
        self._url = "memory"
        self._listeners: list[tuple[str, Listener]] = []

    async def take(self, url: str) -> None:
        """Reach the fleet by this state from now on; `memory` is this machine alone."""
        if url == self._url:
            return
        before, self._redis = self._redis, None
        self._url = url
        if before is not None:
            await before.close()
        if url == "memory":
            return
        from headgate.state.redis import RedisShared

        try:
            redis = RedisShared(url, holder=False)
        except HeadgateError as error:
            log.warning("orders reach this machine alone: %s", error)
            return
        self._redis = redis
        for topic, listener in self._listeners:
            redis.subscribe(topic, listener)
        await redis.start()

    def publish(self, topic: str, message: Mapping[str, Any], *, retain: str | None = None) -> None:
        self._shared.publish(topic, message, retain=retain)
        if self._redis is not None:
            self._redis.publish(topic, message, retain=retain)

    def forget(self, topic: str, retain: str) -> None:
        self._shared.forget(topic, retain)
        if self._redis is not None:
            self._redis.forget(topic, retain)

    def subscribe(self, topic: str, listener: Listener) -> None:
        """Hear this from workers of this machine, and from other machines."""
        self._listeners.append((topic, listener))
        self._shared.subscribe(topic, listener)
        if self._redis is not None:
            self._redis.subscribe(topic, listener)

    async def close(self) -> None:
        if self._redis is not None:
            await self._redis.close()
            self._redis = None
