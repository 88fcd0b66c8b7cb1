"""Control's list of bans: what workers and other machines say, and what an operator orders.

Theory of operation. It is a `Bans` like that of each worker, only that nothing happens here and
nobody is refused: it hears of bans and lifts, and tells them where an operator orders it. It also
tends the board: bans that have ended are taken off.

The rules are those of the configuration that serves; they are taken over when the next news or
order comes after a reload.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from headgate.config.guarding import ban_rules_of
from headgate.security.bans import Bans

if TYPE_CHECKING:
    from headgate.config.model import Config
    from headgate.security.ban_rules import BanRules

__all__ = ["BanBook"]


class _Board(Protocol):
    """That which reaches all machines."""

    def publish(
        self, topic: str, message: Mapping[str, Any], *, retain: str | None = None
    ) -> None: ...
    def forget(self, topic: str, retain: str) -> None: ...
    def subscribe(self, topic: str, listener: Callable[[Mapping[str, Any]], None]) -> object: ...


class BanBook:
    def __init__(
        self,
        board: _Board,
        config: Callable[[], Config],
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,  # noqa: TID251 - what processes have in common
    ) -> None:
        self._board = board
        self._config = config
        self._taken = config()
        self._task: asyncio.Task[None] | None = None
        self._bans = Bans(self._rules(), clock(), clock, wall)
        self._clock = clock

    def _rules(self) -> BanRules:
        return ban_rules_of(self._taken.bans, self._taken.trusted_proxies)

    @property
    def bans(self) -> Bans:
        """The list, by the rules that hold now."""
        config = self._config()
        if config is not self._taken:
            self._taken = config
            self._bans.take_rules(self._rules(), self._clock())
        return self._bans

    def start(self) -> None:
        """Hear from now on. On the running loop."""
        self.bans.attach(self, self._board.forget)

    def stop(self) -> None:
        self._bans.close()
        if self._task is not None:
            self._task.cancel()
            self._task = None

    # -- what is lent to the list --------------------------------------------------------------

    def spawn(self, work: Coroutine[object, object, None]) -> object:
        self._task = asyncio.get_running_loop().create_task(work, name="bans")
        return self._task

    def publish(self, topic: str, message: Mapping[str, Any], retain: str | None = None) -> None:
        self._board.publish(topic, message, retain=retain)

    def subscribe(self, topic: str, hear: Callable[[Mapping[str, Any]], None]) -> None:
        def heard(message: Mapping[str, Any]) -> None:
            # Its rules may have come with a reload that this news is the first to follow.
            self.bans.on_news(message)

        self._board.subscribe(topic, heard)
