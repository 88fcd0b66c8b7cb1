"""What a worker lends to methods of authentication, guards and filters: see `security.method`.

Theory of operation. Whatever must outlive a reload is kept here under a key of its owner's own; a
plan being taken up asks for what it needs, and what it did not ask for is let go when it stands.
News goes over the board of the time: the worker may change from hub to Redis under its users.
Whoever borrows has a `Loan`, which knows what was kept and subscribed in its name: it is renewed
with every plan that still has the borrower, and ended with it.
"""

from __future__ import annotations

import json
import logging
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from headgate.security.audit.tally import Tally, brief
from headgate.security.redact import Redactor

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Mapping

    from headgate.security.bans import Bans
    from headgate.state.home import Board

T = TypeVar("T")

AUDITED: Final = frozenset({"bad_credentials", "login_failed", "injection", "csrf", "bot"})
"""Of what makes suspect, what the audit log counts."""
_TOLD_EVERY_S: Final = 10.0
_PAIRS_MAX: Final = 200

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
        self._hearers: list[_Hearer] = []
        self._kept: dict[tuple[object, ...], object] = {}
        self._asked: set[tuple[object, ...]] = set()
        self.redactor = Redactor()
        self._tally = Tally(_TOLD_EVERY_S, _PAIRS_MAX)
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

    def subscribe(
        self, topic: str, hear: Callable[[Mapping[str, Any]], None]
    ) -> Callable[[], None]:
        """Hear this on every board there is and will be; the answer ends that."""
        hearer = _Hearer(topic, hear)
        self._hearers.append(hearer)
        for board in self._boards:
            hearer.listen(board)

        def end() -> None:
            if hearer in self._hearers:
                self._hearers.remove(hearer)
            hearer.end()

        return end

    def lend(self) -> Loan:
        return Loan(self)

    def suspect(self, client_ip: str, kind: str, weight: float = 1.0) -> None:
        if self.bans is not None:
            self.bans.saw(client_ip, kind, weight)
        if kind in AUDITED:
            self._see(kind, client_ip, {})

    def note(self, kind: str, fields: Mapping[str, Any]) -> None:
        clean = self.redactor.fields(fields)
        log.warning("%s", json.dumps({"event": kind, **clean}, default=str))
        self._see(kind, str(fields.get("client_ip", "")), clean)

    def _see(self, kind: str, address: str, example: Mapping[str, Any]) -> None:
        wall = time.time()  # noqa: TID251 - for the audit log
        self._tally.see(kind, address, brief(example), now=time.monotonic(), wall=wall)

    def told(self, now: float, *, is_last: bool = False) -> dict[str, Any] | None:
        """What control's audit log is told: counts, every few seconds."""
        rows = self._tally.take_all() if is_last else self._tally.take(now)
        if not rows:
            return None
        return {"event": "security", "counted": [row.to_json() for row in rows]}

    # -- for the worker ------------------------------------------------------------------------

    def count(self, policy: str, outcome: str) -> None:
        key = (policy, outcome)
        self.counts[key] = self.counts.get(key, 0) + 1

    def listen(self, board: Board) -> None:
        """Hear what this board tells as well. Once for each board."""
        self._boards.append(board)
        for hearer in self._hearers:
            hearer.listen(board)

    def leave(self, board: Board) -> None:
        if board in self._boards:
            self._boards.remove(board)
        for hearer in self._hearers:
            hearer.leave(board)

    def begin(self) -> None:
        """A plan is being taken up: what it asks for stays."""
        self._asked.clear()

    def renew(self, keys: Collection[tuple[object, ...]]) -> None:
        """Whoever asked for these is still there."""
        self._asked.update(keys)

    def settle(self) -> None:
        """The plan stands: let go of what it did not ask for."""
        for key in self._kept.keys() - self._asked:
            gone = self._kept.pop(key)
            close = getattr(gone, "close", None)
            if close is not None:
                close()


class _Hearer:
    def __init__(self, topic: str, hear: Callable[[Mapping[str, Any]], None]) -> None:
        self._topic = topic
        self._hear = hear
        self._ends: list[tuple[Board, Callable[[], None]]] = []

    def listen(self, board: Board) -> None:
        self._ends.append((board, board.subscribe(self._topic, self._hear)))

    def leave(self, board: Board) -> None:
        left = [end for known, end in self._ends if known is board]
        self._ends = [pair for pair in self._ends if pair[0] is not board]
        for end in left:
            end()

    def end(self) -> None:
        ends, self._ends = self._ends, []
        for _, end in ends:
            end()


class Loan:
    """What one borrower sees of the parts: see `security.method.Parts`."""

    def __init__(self, parts: WorkerParts) -> None:
        self._parts = parts
        self._keys: set[tuple[object, ...]] = set()
        self._ends: list[Callable[[], None]] = []
        self._is_over = False

    def spawn(self, work: Coroutine[object, object, None]) -> object:
        return self._parts.spawn(work)

    def keep(self, key: tuple[object, ...], make: Callable[[], T]) -> T:
        self._keys.add(key)
        return self._parts.keep(key, make)

    def publish(self, topic: str, message: Mapping[str, Any], retain: str | None = None) -> None:
        self._parts.publish(topic, message, retain)

    def subscribe(self, topic: str, hear: Callable[[Mapping[str, Any]], None]) -> None:
        if not self._is_over:
            self._ends.append(self._parts.subscribe(topic, hear))

    def suspect(self, client_ip: str, kind: str, weight: float = 1.0) -> None:
        self._parts.suspect(client_ip, kind, weight)

    def note(self, kind: str, fields: Mapping[str, Any]) -> None:
        self._parts.note(kind, fields)

    def count(self, policy: str, outcome: str) -> None:
        self._parts.count(policy, outcome)

    def renew(self) -> None:
        self._parts.renew(self._keys)

    def end(self) -> None:
        self._is_over = True
        ends, self._ends = self._ends, []
        for each in ends:
            each()
