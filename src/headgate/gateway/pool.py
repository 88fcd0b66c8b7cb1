"""Connections to one instance: kept, bounded, lent to one exchange at a time.

Theory of operation
-------------------
`take` answers at once where it can: an idle connection (the newest, which is the least likely to
have been closed by its server), else None and the exchange waits in line while a connection is
made, or an `UpstreamFailed` when the line is full. Counts are kept, never recounted: `open` is
connections made or being made, `idle` the list itself, `waiting` a dict used as an ordered set,
so that an exchange that gives up leaves the line in constant time.

Connections are made for the line, not for an exchange: the first that is ready serves the first
in line. An exchange that leaves while "its" connection is being made therefore harms nobody, and
the connection is kept for the next.

A pool outlives reloads; it is keyed by what it takes to reach the instance (address, TLS,
protocol). A reload that changes only sizes changes them in place.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from headgate.errors import UpstreamFailed
from headgate.wire.pools import PoolSnapshot

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from headgate.gateway.exchange import Asker, Upstream
    from headgate.gateway.upstream_h1 import UpstreamH1
    from headgate.observe import InstanceStats


@dataclass(frozen=True, slots=True)
class PoolSizes:
    connections: int = 256
    idle: int = 64
    idle_timeout_s: float = 55.0
    queue: int = 1024
    queue_timeout_s: float = 5.0
    connect_timeout_s: float = 5.0


class Line(Protocol):
    """What serves exchanges with connections to one instance: a `Pool`, or its HTTP/2 sibling."""

    name: str
    authority: str
    sizes: PoolSizes
    stats: InstanceStats

    def take(self, ex: Asker) -> Upstream | UpstreamFailed | None: ...
    def forget(self, ex: Asker) -> None: ...
    def sweep(self, now: float) -> None: ...
    def close(self) -> None: ...
    def snapshot(self) -> PoolSnapshot: ...


def ended_waits(waiting: dict[Asker, float], now: float) -> list[tuple[Asker, bool]]:
    """Who has stood in line for long enough, and whether its time as a whole is spent."""
    return [
        (ex, ex.expires_at <= now)
        for ex, until in waiting.items()
        if until <= now or ex.expires_at <= now
    ]


class Pool:
    """The connections to one instance over HTTP/1.1."""

    __slots__ = (
        "_connect",
        "_spawn",
        "authority",
        "connecting",
        "failed",
        "idle",
        "is_closed",
        "last_failure",
        "name",
        "open",
        "sizes",
        "stats",
        "waiting",
    )

    def __init__(
        self,
        name: str,
        authority: str,
        sizes: PoolSizes,
        stats: InstanceStats,
        connect: Callable[[Pool], Awaitable[UpstreamH1]],
        spawn: Callable[[Coroutine[object, object, None]], object],
    ) -> None:
        self.name = name
        self.authority = authority
        self.sizes = sizes
        self.stats = stats
        self._connect = connect
        self._spawn = spawn
        self.idle: list[UpstreamH1] = []
        self.waiting: dict[Asker, float] = {}
        self.open = 0
        self.connecting = 0
        self.failed = 0
        self.last_failure: str | None = None
        self.is_closed = False

    def take(self, ex: Asker) -> Upstream | UpstreamFailed | None:
        ex.instance = self.name
        if ex.attempts > 1:
            self.stats.retries += 1
        idle = self.idle
        while idle:
            conn = idle.pop()
            if not conn.is_closing:
                self.stats.reused += 1
                return conn
        if self.is_closed:
            return UpstreamFailed("closed", self.name)
        if len(self.waiting) >= self.sizes.queue:
            return UpstreamFailed("queue_full", self.name)
        self.waiting[ex] = monotonic() + self.sizes.queue_timeout_s
        ex.waiting_on = self
        self._grow()
        return None

    def forget(self, ex: Asker) -> None:
        """The exchange no longer waits; a connection being made is kept for the next."""
        self.waiting.pop(ex, None)

    def give(self, conn: UpstreamH1) -> None:
        """Take a connection back that can serve again, or a new one."""
        if self.is_closed:
            conn.close()
            return
        waiting = self.waiting
        if waiting:
            ex = next(iter(waiting))
            del waiting[ex]
            ex.on_connected(conn)
        elif len(self.idle) < self.sizes.idle:
            self.idle.append(conn)
        else:
            conn.close()

    def lost(self, conn: UpstreamH1) -> None:
        """A connection is closed; called once for each that was made."""
        self.open -= 1
        if conn in self.idle:
            self.idle.remove(conn)
        self._grow()

    def sweep(self, now: float) -> None:
        """End waits that are over: the place in line has timed out, or the exchange as a whole."""
        for ex, is_spent in ended_waits(self.waiting, now):
            if self.waiting.pop(ex, None) is None:
                continue  # an exchange that ended just before has changed the line
            if is_spent:
                failure = UpstreamFailed("timeout", self.name)
            elif self.connecting >= self.open:
                failure = UpstreamFailed("connect", f"{self.name}: no answer in time")
            else:
                failure = UpstreamFailed("queue_timeout", self.name)
            ex.on_upstream_failed(failure, unsent=True)

    def close(self) -> None:
        """Lend nothing more; what is lent ends with its exchange."""
        self.is_closed = True
        for conn in self.idle:
            conn.close()
        self.idle.clear()
        self._fail_line(UpstreamFailed("closed", self.name), everyone=True)

    def snapshot(self) -> PoolSnapshot:
        return PoolSnapshot(
            self.name,
            self.open,
            len(self.idle),
            self.connecting,
            len(self.waiting),
            self.stats.created,
            self.stats.reused,
            self.failed,
            self.last_failure,
        )

    def _grow(self) -> None:
        while (
            self.connecting < len(self.waiting)
            and self.open < self.sizes.connections
            and not self.is_closed
        ):
            self.open += 1
            self.connecting += 1
            self._spawn(self._make())

    async def _make(self) -> None:
        try:
            conn = await self._connect(self)
        except UpstreamFailed as failure:
            self.open -= 1
            self.connecting -= 1
            self.failed += 1
            self.last_failure = str(failure)
            # While other connections stand, this failure is one exchange's bad luck; with none
            # left it is news for everybody in line.
            self._fail_line(failure, everyone=self.open <= self.connecting)
            self._grow()
        except BaseException:
            self.open -= 1
            self.connecting -= 1
            raise
        else:
            self.connecting -= 1
            self.stats.created += 1
            if conn.is_closing:
                # Lost between the handshake and here; `lost` has counted it. Whoever waits for it
                # must hear of it: with `_grow` alone an instance that closes whatever it accepts
                # would be dialled without end.
                self.failed += 1
                slammed = UpstreamFailed("connect", f"{self.name}: closed as soon as accepted")
                self.last_failure = str(slammed)
                self._fail_line(slammed, everyone=self.open <= self.connecting)
                self._grow()
                return
            self.give(conn)

    def _fail_line(self, failure: UpstreamFailed, *, everyone: bool) -> None:
        failed = list(self.waiting) if everyone else list(self.waiting)[:1]
        for ex in failed:
            if self.waiting.pop(ex, None) is not None:
                ex.on_upstream_failed(failure, unsent=True)
