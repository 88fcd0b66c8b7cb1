"""What a worker lends to methods of authentication, guards and filters: see `security.method`.

Theory of operation. Whatever must outlive a reload is kept here under a key of its owner's own; a
plan being taken up asks for what it needs, and what it did not ask for is let go when it stands.
News goes over the board of the time: the worker may change from hub to Redis under its users.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from headgate.security.bans import Bans
    from headgate.state.home import Board

T = TypeVar("T")

log: Final = logging.getLogger("headgate.security")


class WorkerParts:
    def __init__(
        self,
        spawn: Callable[[Coroutine[object, object, None]], object],
        board: Callable[[], Board | None],
    ) -> None:
        self._spawn = spawn
        self._board = board
        self._boards: list[Board] = []
        self._heard: list[tuple[str, Callable[[Mapping[str, Any]], None]]] = []
        self._kept: dict[tuple[object, ...], object] = {}
        self._asked: set[tuple[object, ...]] = set()
        self.bans: Bans | None = None
        self.counts: dict[tuple[str, str], int] = {}
        """What was decided, by policy and outcome; for metrics."""

    # -- what is lent --------------------------------------------------------------------------

    def spawn(self, work: Coroutine[object, object, None]) -> object:
        return self._spawn(work)

    def keep(self, key: tuple[object, ...], make: Callable[[], T]) -> T:
        self._asked.add(key)
        if key not in self._kept:
            self._kept[key] = make()
        return cast("T", self._kept[key])

    def publish(self, topic: str, message: Mapping[str, Any], retain: str | None = None) -> None:
        board = self._board()
        if board is not None:
            board.publish(topic, message, retain=retain)

    def subscribe(self, topic: str, hear: Callable[[Mapping[str, Any]], None]) -> None:
        self._heard.append((topic, hear))
        for board in self._boards:
            board.subscribe(topic, hear)

    def suspect(self, client_ip: str, kind: str, weight: float = 1.0) -> None:
        if self.bans is not None:
            self.bans.saw(client_ip, kind, weight)

    def note(self, kind: str, fields: Mapping[str, Any]) -> None:
        log.warning("%s", json.dumps({"event": kind, **fields}, default=str))

    # -- for the worker ------------------------------------------------------------------------

    def count(self, policy: str, outcome: str) -> None:
        key = (policy, outcome)
        self.counts[key] = self.counts.get(key, 0) + 1

    def listen(self, board: Board) -> None:
        """Hear what this board tells as well. Once for each board."""
        self._boards.append(board)
        for topic, hear in self._heard:
            board.subscribe(topic, hear)

    def leave(self, board: Board) -> None:
        if board in self._boards:
            self._boards.remove(board)

    def begin(self) -> None:
        """A plan is being taken up: what it asks for stays."""
        self._asked.clear()

    def settle(self) -> None:
        """The plan stands: let go of what it did not ask for."""
        for key in self._kept.keys() - self._asked:
            gone = self._kept.pop(key)
            close = getattr(gone, "close", None)
            if close is not None:
                close()
