"""Requests as they end, for whoever looks at the live view; nothing while nobody looks.

Theory of operation
-------------------
Control says on the board's topic `live` what is looked for and for how long: it says it again while
somebody looks, so a worker that hears no more of it stops by itself. While it holds, the access log
tells of every request (`AccessLog.watch`); the request path is the same as with an
access log, and without both nothing is told at all.

Of what fits, `ROWS_MAX` a second are told, drawn at random so that a busy route does not hide the
others, but failures first: a row with a status of 500 or more takes the place of one without. How
many there were is told with them.

No query, no header and no address leaves the worker: who may look at figures need not be allowed
to see who asked for what.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from headgate.gateway.access_log import AccessLog
    from headgate.gateway.exchange import Exchange
    from headgate.gateway.prepared import Prepared
    from headgate.state.home import Board

__all__ = ["ROWS_MAX", "TOPIC", "LiveRequests", "Wanted"]

TOPIC: Final = "live"
ROWS_MAX: Final = 400
EVERY_S: Final = 1.0
HOLD_MAX_S: Final = 60.0
_FILTERS_MAX: Final = 64
_PATH_MAX: Final = 200
_FAILED: Final = 500


class Wanted:
    """What one who looks wants to see."""

    __slots__ = ("least_s", "low", "route", "top")

    def __init__(self, said: Mapping[str, Any]) -> None:
        self.route = str(said.get("route") or "")
        self.low = int(said.get("low") or 0)
        self.top = int(said.get("top") or 999)
        self.least_s = float(said.get("least_s") or 0.0)

    def fits(self, route: str, status: int, duration_s: float) -> bool:
        return (
            self.low <= status <= self.top
            and duration_s >= self.least_s
            and (not self.route or self.route == route)
        )


class LiveRequests:
    def __init__(self, report: Callable[[dict[str, Any]], None], rng: random.Random) -> None:
        self._report = report
        self._rng = rng
        self._log: AccessLog | None = None
        self._wanted: tuple[Wanted, ...] = ()
        self._until = -inf
        self._told_at = -inf
        self._rows: list[list[Any]] = []
        self._seen = 0

    def listen(self, board: Board) -> None:
        board.subscribe(TOPIC, self._heard)

    def follow(self, log: AccessLog) -> None:
        self._log = log

    def _heard(self, message: Mapping[str, Any]) -> None:
        self._wanted = tuple(Wanted(said) for said in list(message["wanted"])[:_FILTERS_MAX])
        self._until = monotonic() + min(float(message["for_s"]), HOLD_MAX_S)
        if self._log is not None:
            self._log.watch(self.take if self._wanted else None)
        if not self._wanted:
            self._rows.clear()
            self._seen = 0

    def take(
        self, asked: Prepared, ex: Exchange, wall: float, duration_s: float, trace_id: bytes
    ) -> None:
        """A request that is over."""
        rows, status = self._rows, ex.status
        route = asked.route.name if asked.route is not None else ""
        if not any(each.fits(route, status, duration_s) for each in self._wanted):
            return
        self._seen += 1
        if len(rows) < ROWS_MAX:
            rows.append(_row(asked, ex, wall, duration_s, trace_id))
            return
        at = self._rng.randrange(self._seen if status < _FAILED else ROWS_MAX)
        if at < ROWS_MAX and (status >= _FAILED or rows[at][2] < _FAILED):
            rows[at] = _row(asked, ex, wall, duration_s, trace_id)

    def turn(self, now: float) -> None:
        """A few times a second."""
        if not self._wanted:
            return
        if now >= self._until:
            self._wanted = ()
            if self._log is not None:
                self._log.watch(None)
        if self._seen and now - self._told_at >= EVERY_S:
            self._told_at = now
            rows, self._rows = self._rows, []
            seen, self._seen = self._seen, 0
            rows.sort(key=lambda row: float(row[0]))
            self._report({"event": "requests", "rows": rows, "seen": seen})


def _row(
    asked: Prepared, ex: Exchange, wall: float, duration_s: float, trace_id: bytes
) -> list[Any]:
    head = asked.told_head
    return [
        round(wall + duration_s, 3),
        round(duration_s, 6),
        ex.status,
        head.method if head is not None else "",
        head.host if head is not None else "",
        head.path[:_PATH_MAX] if head is not None else "",
        asked.route.name if asked.route is not None else "",
        ex.service.name if ex.service is not None else "",
        ex.instance or "",
        ex.request_id.decode("latin-1")[:100],
        trace_id.decode("latin-1"),
        ex.error or "",
    ]
