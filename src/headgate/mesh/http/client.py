"""The client: a pool for each instance, one future a request, no task.

Theory of operation
-------------------
`send` renders the head, gives the exchange to its instance's pool and waits on the exchange's
future; everything else happens in callbacks of connections. A client belongs to the loop it is
first used in. When that loop has been closed (a second `asyncio.run`), it begins anew in the next
one; used in two loops at a time it refuses, since pools know no threads.

Pools are made on use and let go with their last connection, so a client holds nothing about
instances that have gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Sequence
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Final, Self

from headgate.errors import UpstreamFailed
from headgate.mesh.http.connection import Connection
from headgate.mesh.http.exchange import DEFAULT_TIMEOUTS, Exchange, Timeouts, no_time_left
from headgate.mesh.http.forks import generation, keep
from headgate.mesh.http.names import Lookups, Names
from headgate.mesh.http.pool import Pool, PoolSizes
from headgate.mesh.http.request import CHUNKED, host_line, render
from headgate.mesh.http.ticking import Ticking
from headgate.wire.connect import Endpoint, Resolving, Tls, connect
from headgate.wire.headcache import HeadCache
from headgate.wire.http1.head import HeadLimits
from headgate.wire.pools import PoolSnapshot

if TYPE_CHECKING:
    from headgate.mesh.http.exchange import Body
    from headgate.mesh.http.response import Response
    from headgate.wire.message import Header, ResponseHead

BODY_BYTES_MAX: Final = 64 * 1024 * 1024
_LEAVING_S: Final = 2.0


class HttpClient:
    """HTTP/1.1 to instances given by address. Close it with `aclose`, or use `async with`."""

    def __init__(
        self,
        sizes: PoolSizes | None = None,
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
        *,
        body_bytes_max: float = BODY_BYTES_MAX,
        limits: HeadLimits | None = None,
        lookups: Lookups | None = None,
        resolver: Resolving | None = None,
    ) -> None:
        """`body_bytes_max`: how large a response may be that is not taken as a stream."""
        self._sizes = sizes or PoolSizes()
        self._timeouts = timeouts
        self._body_bytes_max = body_bytes_max
        self._limits = limits or HeadLimits()
        self._lookups = lookups or Lookups()
        self._own_resolver = resolver
        self._heads: HeadCache[ResponseHead] = HeadCache()
        self._is_closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._begin()

    def _begin(self) -> None:
        self._generation = generation()
        self._pools: dict[tuple[Endpoint, Tls | None], Pool] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ticking: Ticking | None = None
        self._names = Names(self._lookups)
        self._emptied: asyncio.Future[None] | None = None

    async def send(
        self,
        endpoint: Endpoint,
        tls: Tls | None,
        method: str,
        target: bytes,
        headers: Sequence[Header] = (),
        body: Body = None,
        deadline: float | None = None,
        *,
        timeouts: Timeouts | None = None,
        stream: bool = False,
        body_bytes_max: float | None = None,
    ) -> Response:
        """Send a request and return its response, whole unless `stream`.

        `deadline` is a point of the monotonic clock, for everything up to the last byte. Raise
        UpstreamFailed when there is no whole response, BodyTooLarge when there is too much of it,
        ValueError when the request cannot be put into bytes. A streamed response must be read to
        its end or closed.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._settle(loop)
        if body is None:
            length = 0
        elif isinstance(body, bytes):
            length = len(body)
        elif isinstance(body, AsyncIterable):
            length = CHUNKED
        else:
            raise TypeError(
                f"a body is bytes or an async iterable of bytes, not {type(body).__name__}"
            )
        pool = self._pools.get((endpoint, tls))
        if pool is None:
            pool = self._open_pool(endpoint, tls)
        if stream:
            bytes_max: float = inf
        else:
            bytes_max = self._body_bytes_max if body_bytes_max is None else body_bytes_max
        future: asyncio.Future[Response] = loop.create_future()
        now = monotonic()
        try:
            if deadline is None:
                deadline = inf
            elif deadline <= now:
                raise no_time_left(pool.name)
            head = render(method, target, pool.host, headers, length)
            ex = Exchange(
                future,
                method,
                head,
                body,
                deadline,
                timeouts or self._timeouts,
                bytes_max,
                is_stream=stream,
            )
            pool.put(ex, now)
        except BaseException:
            pool.tell_when_empty()
            raise
        try:
            return await future
        except asyncio.CancelledError:
            ex.leave(future)
            raise

    async def aclose(self) -> None:
        """End every connection, also those in use: their callers are told `closed`."""
        self._is_closed = True
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            return
        for pool in list(self._pools.values()):
            pool.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_LEAVING_S)
        if self._pools:
            self._emptied = loop.create_future()
            await asyncio.wait([self._emptied], timeout=_LEAVING_S)
        if self._ticking is not None:
            self._ticking.stop()
        await self._names.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def snapshot(self) -> tuple[PoolSnapshot, ...]:
        """Return every pool that has connections or callers."""
        return tuple(pool.snapshot() for pool in self._pools.values())

    # -- inside --------------------------------------------------------------------------------

    def _settle(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is not None:
            if self._generation != generation():
                keep((self._loop, self._pools, self._tasks, self._ticking, self._names))
            elif not self._loop.is_closed():
                raise RuntimeError(
                    "this client belongs to another event loop that still runs; make one for each"
                )
            self._begin()
        self._loop = loop
        self._ticking = Ticking(loop)

    def _open_pool(self, endpoint: Endpoint, tls: Tls | None) -> Pool:
        name = str(endpoint)
        loop, ticking = self._loop, self._ticking
        if self._is_closed or loop is None or ticking is None:
            raise UpstreamFailed("closed", f"{name}: the client is closed")
        resolver = self._own_resolver or self._names
        heads, limits = self._heads, self._limits

        async def make(pool: Pool, timeout_s: float) -> Connection:
            def factory() -> Connection:
                return Connection(pool, ticking, heads, limits)

            _, conn = await connect(loop, factory, endpoint, tls, timeout_s, resolver)
            return conn

        def let_go(pool: Pool) -> None:
            if self._pools.get(key) is pool:
                del self._pools[key]
            if not self._pools and self._emptied is not None and not self._emptied.done():
                self._emptied.set_result(None)

        key = (endpoint, tls)
        host = host_line(endpoint, is_tls=tls is not None)
        pool = self._pools[key] = Pool(name, host, self._sizes, ticking, self._tasks, make, let_go)
        return pool
