"""Connections to one instance: kept, bounded, lent to one exchange at a time.

Theory of operation
-------------------
`put` starts an exchange at once on an idle connection (the newest, which its server is the least
likely to have closed), else it stands in line while a connection is made, or fails when the line is
full. Connections are made for the line and not for an exchange: the first that is ready serves the
first in line, so one that leaves harms nobody. `open` counts connections made or being made, and
is never above `sizes.connections`. Such a permit is the maker's until the connection stands in
`made`, then the connection's until `lost`.

Kept connections are closed by us before their servers do it: most wait five seconds (uvicorn,
Node), some two. One that has been idle for longer than WARY_S is looked at before it is used.

The wheel wakes the pool for whoever has stood in line for too long, as it does connections.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Final

from headgate.errors import UpstreamFailed
from headgate.mesh.http.exchange import NOT_IN_TIME, no_time_left
from headgate.wire.pools import PoolSnapshot
from headgate.wire.wheel import NEVER

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from headgate.mesh.http.connection import Connection
    from headgate.mesh.http.exchange import Exchange
    from headgate.mesh.http.ticking import Ticking

WARY_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class PoolSizes:
    """Bounds for each instance."""

    connections: int = 100
    idle: int = 100
    idle_timeout_s: float = 4.0
    queue: int = 1000
    """How many calls may wait for a connection."""


class Pool:
    __slots__ = (
        "_connect",
        "_on_empty",
        "_ticking",
        "connecting",
        "created",
        "deadline",
        "failed",
        "host",
        "idle",
        "is_closed",
        "last_failure",
        "made",
        "name",
        "open",
        "reused",
        "sizes",
        "tasks",
        "waiting",
        "wake",
    )

    def __init__(
        self,
        name: str,
        host: bytes,
        sizes: PoolSizes,
        ticking: Ticking,
        tasks: set[asyncio.Task[None]],
        connect: Callable[[Pool, float], Awaitable[Connection]],
        on_empty: Callable[[Pool], None],
    ) -> None:
        self.name = name
        self.host = host
        """Its `Host` line."""
        self.sizes = sizes
        self._ticking = ticking
        self.tasks = tasks
        """What runs for the client; it ends them when it is closed."""
        self._connect = connect
        self._on_empty = on_empty
        self.idle: list[Connection] = []
        self.waiting: dict[Exchange, float] = {}
        self.made: set[Connection] = set()
        self.open = 0
        self.connecting = 0
        self.created = 0
        self.reused = 0
        self.failed = 0
        self.last_failure: str | None = None
        self.is_closed = False
        self.deadline = NEVER
        self.wake = NEVER

    # -- from exchanges ------------------------------------------------------------------------

    def put(self, ex: Exchange, now: float) -> None:
        """Start it, or let it wait; raise UpstreamFailed if it can do neither."""
        idle = self.idle
        while idle:
            conn = idle.pop()
            if conn.is_closing:
                continue
            if now - conn.idle_since > WARY_S and conn.has_news():
                conn.close()
                continue
            self.reused += 1
            conn.start(ex, now)
            return
        self._stand_in_line(ex, now)

    def again(self, ex: Exchange) -> None:
        """Start it on another connection, as the one it was sent on had been closed."""
        now = monotonic()
        while self.idle:
            # They are as old as the one that has just failed.
            conn = self.idle.pop()
            if conn.is_closing or conn.has_news():
                conn.close()
                continue
            conn.start(ex, now)
            return
        try:
            self._stand_in_line(ex, now)
        except UpstreamFailed as failure:
            ex.fail(failure)

    def forget(self, ex: Exchange) -> None:
        """The exchange no longer waits; a connection being made is kept for the next."""
        self.waiting.pop(ex, None)

    # -- from connections ----------------------------------------------------------------------

    def give(self, conn: Connection, now: float) -> None:
        """Take a connection back that can serve again, or a new one."""
        if self.is_closed:
            conn.close()
            return
        waiting = self.waiting
        while waiting:
            ex = next(iter(waiting))
            del waiting[ex]
            ex.pool = None
            if ex.deadline <= now:
                ex.fail(no_time_left(self.name))
            elif not ex.is_over:
                conn.start(ex, now)
                return
        if len(self.idle) < self.sizes.idle:
            conn.deadline = deadline = now + self.sizes.idle_timeout_s
            if deadline < conn.wake:
                self._ticking.arm(conn)
            self.idle.append(conn)
        else:
            conn.close()

    def lost(self, conn: Connection) -> None:
        """A connection is closed."""
        if conn not in self.made:
            return  # not made to its end: the permit is still its maker's
        self.made.remove(conn)
        self.open -= 1
        if conn in self.idle:
            self.idle.remove(conn)
        self._grow()
        self.tell_when_empty()

    # -- from the wheel and the client ---------------------------------------------------------

    def on_deadline(self, now: float) -> None:
        """End waits that are over."""
        ended = [ex for ex, until in self.waiting.items() if until <= now]
        for ex in ended:
            del self.waiting[ex]
            ex.pool = None
            ex.fail(self._why_ended(ex, now))
        self.deadline = min(self.waiting.values(), default=NEVER)

    def close(self) -> None:
        """End every connection, also those in use."""
        self.is_closed = True
        self.idle.clear()
        self._fail_line(self._closed())
        for conn in list(self.made):
            conn.end(self._closed())

    def snapshot(self) -> PoolSnapshot:
        return PoolSnapshot(
            self.name,
            self.open,
            len(self.idle),
            self.connecting,
            len(self.waiting),
            self.created,
            self.reused,
            self.failed,
            self.last_failure,
        )

    # -- inside --------------------------------------------------------------------------------

    def _stand_in_line(self, ex: Exchange, now: float) -> None:
        if self.is_closed:
            raise self._closed()
        if len(self.waiting) >= self.sizes.queue:
            raise UpstreamFailed(
                "queue_full",
                f"{self.name}: {self.open} connections are taken and {self.sizes.queue} calls wait",
            )
        # While connections are being made it is the time for that which counts.
        times = ex.timeouts
        is_growing = self.open < self.sizes.connections
        until = now + (max(times.queue_s, times.connect_s) if is_growing else times.queue_s)
        until = min(until, ex.deadline)
        self.waiting[ex] = until
        ex.pool = self
        if until < self.deadline:
            self.deadline = until
            if until < self.wake:
                self._ticking.arm(self)
        self._grow()

    def _why_ended(self, ex: Exchange, now: float) -> UpstreamFailed:
        if ex.deadline <= now:
            return UpstreamFailed("timeout", f"{self.name}: no connection before the deadline")
        if self.connecting >= self.open:
            return UpstreamFailed("connect", f"{self.name}: {NOT_IN_TIME}", NOT_IN_TIME)
        return UpstreamFailed(
            "queue_timeout",
            f"{self.name}: no connection came free within {ex.timeouts.queue_s:g} s",
        )

    def _grow(self) -> None:
        if (
            self.connecting >= len(self.waiting)
            or self.open >= self.sizes.connections
            or self.is_closed
        ):
            return
        # Each is made with the time that the one has who will get it if nobody leaves.
        for ex in list(self.waiting)[self.connecting :]:
            if self.open >= self.sizes.connections:
                return
            self.open += 1
            self.connecting += 1
            task = ex.loop.create_task(
                self._make(ex.timeouts.connect_s), name=f"connect {self.name}"
            )
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _make(self, timeout_s: float) -> None:
        try:
            conn = await self._connect(self, timeout_s)
        except asyncio.CancelledError:
            self.open -= 1
            self.connecting -= 1
            self.tell_when_empty()
            raise
        except Exception as error:  # noqa: BLE001 - those in line must hear of it, whatever it is
            self.open -= 1
            self.connecting -= 1
            failure = error
            if not isinstance(failure, UpstreamFailed):
                failure = UpstreamFailed("connect", f"{self.name}: {error}")
                failure.__cause__ = error
            self._failed_to_make(failure)
        else:
            self.connecting -= 1
            self.created += 1
            if conn.is_closing:
                # Lost between the handshake and here. Whoever waits for it must hear of it: with
                # `_grow` alone an instance that closes whatever it accepts would be dialled
                # without end.
                self.open -= 1
                self._failed_to_make(
                    UpstreamFailed("connect", f"{self.name}: closed as soon as accepted")
                )
                return
            self.made.add(conn)
            self.give(conn, monotonic())

    def _failed_to_make(self, failure: UpstreamFailed) -> None:
        self.failed += 1
        self.last_failure = str(failure)
        # While other connections stand, this failure is one exchange's bad luck; with none left it
        # is news for everybody in line.
        if self.open <= self.connecting:
            self._fail_line(failure)
        elif self.waiting:
            ex = next(iter(self.waiting))
            del self.waiting[ex]
            ex.pool = None
            ex.fail(failure)
        self._grow()
        self.tell_when_empty()

    def _fail_line(self, failure: UpstreamFailed) -> None:
        failed = list(self.waiting)
        self.waiting.clear()
        for ex in failed:
            ex.pool = None
            # One each: a traceback grows with every caller that raises the same.
            each = UpstreamFailed(failure.kind, failure.detail, failure.reason)
            each.__cause__ = failure.__cause__
            ex.fail(each)

    def _closed(self) -> UpstreamFailed:
        return UpstreamFailed("closed", f"{self.name}: the client is closed")

    def tell_when_empty(self) -> None:
        if not self.open and not self.waiting:
            self._on_empty(self)
