"""Connections to one instance over HTTP/2: few, each with many streams.

Theory of operation. Beside what `pool` says: a place is a stream, so one connection serves many
exchanges and another is opened only when those that stand have no room. A connection may serve
once its SETTINGS have come; until then it is *greeting*. Requests that an instance has certainly
not acted on (`Retry`) come back into the line and are asked again.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final

from headgate.errors import UpstreamFailed
from headgate.gateway.pool import PoolSizes, ended_waits
from headgate.gateway.upstream_h2 import Retry, StreamUp, UpstreamH2
from headgate.wire.pools import PoolSnapshot

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from headgate.gateway.exchange import Asker, Upstream
    from headgate.observe import InstanceStats

_GUESSED_STREAMS: Final = 100
"""How many streams a connection being made is expected to carry."""


class PoolH2:
    """The connections to one instance over HTTP/2; see `pool.Line`."""

    def __init__(
        self,
        name: str,
        authority: str,
        sizes: PoolSizes,
        stats: InstanceStats,
        connect: Callable[[PoolH2], Awaitable[UpstreamH2]],
        spawn: Callable[[Coroutine[object, object, None]], object],
        call_soon: Callable[[Callable[[], None]], object],
    ) -> None:
        self.name = name
        self.authority = authority
        self.sizes = sizes
        self.stats = stats
        self.waiting: dict[Asker, float] = {}
        self.is_closed = False
        self.connecting = 0
        self.failed = 0
        self.last_failure: str | None = None
        self._connect = connect
        self._spawn = spawn
        self._call_soon = call_soon
        self._conns: list[UpstreamH2] = []
        self._greeting: set[UpstreamH2] = set()
        self._serving = False
        self._retries: dict[Asker, Retry] = {}

    def take(self, ex: Asker) -> Upstream | UpstreamFailed | None:
        ex.instance = self.name
        if ex.attempts > 1:
            self.stats.retries += 1
        for conn in self._conns:
            if conn.room:
                self.stats.reused += 1
                return StreamUp(conn)
        if self.is_closed:
            return UpstreamFailed("closed", self.name)
        if len(self.waiting) >= self.sizes.queue:
            return UpstreamFailed("queue_full", self.name)
        self._enqueue(ex)
        return None

    def again(self, ex: Asker, retry: Retry) -> None:
        """Repeat a request that the instance has not acted on."""
        ex.up = None
        for conn in self._conns:
            if conn.room:
                ex.on_connected(StreamUp(conn, retry))
                return
        if self.is_closed or len(self.waiting) >= self.sizes.queue:
            ex.on_upstream_failed(UpstreamFailed("closed", self.name))
            return
        self._retries[ex] = retry
        self._enqueue(ex)

    def forget(self, ex: Asker) -> None:
        self.waiting.pop(ex, None)
        self._retries.pop(ex, None)

    def serve(self) -> None:
        """Give what room there is to who waits, and make more."""
        self._serving = False
        for conn in tuple(self._conns):
            while self.waiting and conn.room:
                ex = next(iter(self.waiting))
                del self.waiting[ex]
                ex.on_connected(StreamUp(conn, self._retries.pop(ex, None)))
        self._grow()

    def serve_soon(self) -> None:
        """Not at once: a stream ends in the middle of somebody's turn."""
        if self.waiting and not self._serving:
            self._serving = True
            self._call_soon(self.serve)

    def on_ready(self, conn: UpstreamH2) -> None:
        if conn in self._greeting:
            self._greeting.remove(conn)
            self._admit(conn)

    def lost(self, conn: UpstreamH2) -> None:
        if conn in self._conns:
            self._conns.remove(conn)
        if conn in self._greeting:
            self._greeting.remove(conn)
            self._failed_to_connect(_no_greeting(conn))
        self._grow()

    def sweep(self, now: float) -> None:
        for ex, is_spent in ended_waits(self.waiting, now):
            if ex not in self.waiting:
                continue  # an exchange that ended just before has changed the line
            self.forget(ex)
            if is_spent:
                failure = UpstreamFailed("timeout", self.name)
            elif self._conns:
                failure = UpstreamFailed("queue_timeout", self.name)
            else:
                failure = UpstreamFailed("connect", f"{self.name}: no answer in time")
            ex.on_upstream_failed(failure, unsent=True)

    def close(self) -> None:
        """Lend nothing more; streams in flight end with their exchanges."""
        self.is_closed = True
        for conn in tuple(self._conns):
            if not conn.codec.streams:
                conn.close()  # a worker may be about to end: no time for TLS to say goodbye
        self._fail_line(UpstreamFailed("closed", self.name), everyone=True)

    def snapshot(self) -> PoolSnapshot:
        return PoolSnapshot(
            self.name,
            len(self._conns) + self.connecting,
            sum(1 for conn in self._conns if not conn.codec.streams),
            self.connecting,
            len(self.waiting),
            self.stats.created,
            self.stats.reused,
            self.failed,
            self.last_failure,
        )

    # -- inside --------------------------------------------------------------------------------

    def _enqueue(self, ex: Asker) -> None:
        self.waiting[ex] = monotonic() + self.sizes.queue_timeout_s
        ex.waiting_on = self
        self._grow()

    def _grow(self) -> None:
        while (
            self.connecting * _GUESSED_STREAMS < len(self.waiting)
            and len(self._conns) + self.connecting < self.sizes.connections
            and not self.is_closed
        ):
            self.connecting += 1
            self._spawn(self._make())

    async def _make(self) -> None:
        try:
            conn = await self._connect(self)
        except UpstreamFailed as failure:
            self._failed_to_connect(failure)
        except BaseException:
            self.connecting -= 1
            raise
        else:
            if conn.is_closing:
                self._failed_to_connect(_no_greeting(conn))
            elif conn.is_ready:
                self._admit(conn)
            else:
                self._greeting.add(conn)

    def _admit(self, conn: UpstreamH2) -> None:
        self.connecting -= 1
        self.stats.created += 1
        if self.is_closed:
            conn.close()
            return
        self._conns.append(conn)
        self.serve_soon()

    def _failed_to_connect(self, failure: UpstreamFailed) -> None:
        self.connecting -= 1
        self.failed += 1
        self.last_failure = str(failure)
        self._fail_line(failure, everyone=not self._conns and not self.connecting)
        self._grow()

    def _fail_line(self, failure: UpstreamFailed, *, everyone: bool) -> None:
        for ex in list(self.waiting) if everyone else list(self.waiting)[:1]:
            if ex in self.waiting:
                self.forget(ex)
                ex.on_upstream_failed(failure, unsent=True)


def _no_greeting(conn: UpstreamH2) -> UpstreamFailed:
    fault = conn.codec.fault
    if fault is None:
        return UpstreamFailed("reset", f"{conn.pool.name}: closed before its SETTINGS")
    return UpstreamFailed("protocol", f"{conn.pool.name}: no HTTP/2: {fault.reason}")
