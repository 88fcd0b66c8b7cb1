"""The pools of a worker: one for each instance of each service, made and let go as these come.

Theory of operation
-------------------
A pool outlives plans as long as its instance is there and is reached in the same way: the protocol
and the TLS of its service. `take` makes what a service lacks and hands back what it needs no
longer; whoever called it first settles who serves (`ServiceState.take`), so that a request that is
turned out of a closing pool finds another instance, and only then lets those pools go (`let_go`).
They lend nothing more. What is lent ends with its exchange, and until then they are watched here.

Where instances come and go all the time, each change costs what it changes: the pools of the others
are not looked at.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeVar

from headgate.gateway.pool import Pool, PoolSizes
from headgate.gateway.pool_h2 import PoolH2
from headgate.gateway.upstream_h1 import UpstreamH1
from headgate.gateway.upstream_h2 import UpstreamH2
from headgate.wire.connect import Endpoint, Tls, connect
from headgate.wire.headcache import HeadCache
from headgate.wire.http1.head import HeadLimits
from headgate.wire.resolve import Resolver
from headgate.wire.tls import HTTP1, upstream_context

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Generator, Mapping
    from ssl import SSLContext

    from headgate.config import DnsSpec
    from headgate.gateway.pool import Line
    from headgate.observe import WorkerStats
    from headgate.plan.plan import InstancePlan, ServicePlan
    from headgate.wire.message import ResponseHead
    from headgate.wire.pools import PoolSnapshot
    from headgate.wire.wheel import Wheel

_UPSTREAM_LIMITS: Final = HeadLimits(head_bytes=64 * 1024, field_count=200)
_OLD_RESOLVER_S: Final = 30.0
_STEP_LINES: Final = 50
_WRITE_HIGH: Final = 256 * 1024
_WRITE_LOW: Final = 64 * 1024

_C = TypeVar("_C")


class Lines:
    def __init__(
        self,
        stats: WorkerStats,
        wheel: Wheel,
        spawn: Callable[[Coroutine[object, object, None]], None],
    ) -> None:
        self._stats = stats
        self._wheel = wheel
        self._spawn = spawn
        self._heads: HeadCache[ResponseHead] = HeadCache()
        self._services: dict[str, Mapping[str, Line]] = {}
        """Of each service of the newest plan, by the instance's URL."""
        self._ways: dict[str, tuple[object, ...]] = {}
        """How each is reached: the protocol and TLS; and the sizes of its pools."""
        self._retired: list[Line] = []
        self._resolver: Resolver | None = None
        self._dns: DnsSpec | None = None

    # -- what a plan has -----------------------------------------------------------------------

    def take(self, plan: ServicePlan, line_of: dict[str, Line]) -> list[Line]:
        """Make `line_of` what the service needs; the answer is what it needs no longer."""
        spec = plan.pool
        sizes = PoolSizes(
            spec.connections,
            spec.idle,
            spec.idle_timeout,
            spec.queue,
            spec.queue_timeout,
            plan.connect_timeout_s,
        )
        way = (plan.http, plan.tls, sizes)
        before = self._ways.get(plan.name)
        self._ways[plan.name] = way
        self._services[plan.name] = line_of
        gone: list[Line] = []
        if before is not None and before[:2] != way[:2]:
            gone = list(line_of.values())
            line_of.clear()
        elif before is not None and before != way:
            for line in line_of.values():
                line.sizes = sizes
        for instance in plan.instances:
            if instance.url not in line_of:
                line_of[instance.url] = self._make(plan, instance, sizes)
        wanted = {instance.url for instance in plan.instances}
        if len(line_of) > len(wanted):
            gone += [line_of.pop(url) for url in line_of.keys() - wanted]
        return gone

    def keep(self, services: Collection[str]) -> list[Line]:
        """The plan has these services and no others; the answer is what they leave behind."""
        gone = [name for name in self._services if name not in services]
        for name in gone:
            del self._ways[name]
        return [line for name in gone for line in self._services.pop(name).values()]

    def let_go(self, lines: Collection[Line]) -> None:
        """Lend nothing more of these."""
        self._retired += lines
        for line in lines:
            line.close()

    def check(self, plan: ServicePlan) -> None:
        """Raise what is wrong with the files that its TLS needs."""
        if plan.discover is not None or any(
            instance.endpoint.scheme == "https" for instance in plan.instances
        ):
            _context_of(plan)

    def take_dns(self, dns: DnsSpec) -> None:
        """Look names up as the file says; look-ups under way end with the old resolver."""
        before = self._resolver
        if before is not None and self._dns == dns:
            return
        self._dns = dns
        self._resolver = Resolver(dns)
        if before is not None:
            loop = asyncio.get_running_loop()
            loop.call_later(_OLD_RESOLVER_S, lambda: self._spawn(before.aclose()))

    # -- all of them ---------------------------------------------------------------------------

    def values(self) -> list[Line]:
        """Those that lend."""
        return [line for lines in self._services.values() for line in lines.values()]

    @property
    def has_open(self) -> bool:
        """Whether any connection stands."""
        return any(line.snapshot().open for line in (*self.values(), *self._retired))

    def sweep(self, now: float) -> None:
        for line in self.values():
            line.sweep(now)
        for line in tuple(self._retired):
            line.sweep(now)
            if not line.snapshot().open:
                self._retired.remove(line)
                _count(line)

    def snapshot_steps(self) -> Generator[None, None, list[dict[str, Any]]]:
        """How they stand, in steps between which requests are served."""
        pools: list[dict[str, Any]] = []
        # An instance that has come back shares its counters with the pool it had before.
        for line in self._retired:
            _count(line)
        for at, line in enumerate(self.values()):
            said = _count(line)
            pools.append(
                {
                    "instance": said.instance,
                    "open": said.open,
                    "idle": said.idle,
                    "waiting": said.waiting,
                    "last_failure": said.last_failure,
                }
            )
            if at % _STEP_LINES == _STEP_LINES - 1:
                yield
        return pools

    def close(self) -> None:
        for line in (*self.values(), *self._retired):
            line.close()

    async def aclose_resolver(self) -> None:
        if self._resolver is not None:
            await self._resolver.aclose()

    # -- making one ----------------------------------------------------------------------------

    def _resolving(self) -> Resolver:
        if self._resolver is None:
            raise RuntimeError("the resolver is made before any pool")
        return self._resolver

    def _make(self, service: ServicePlan, instance: InstancePlan, sizes: PoolSizes) -> Line:
        loop = asyncio.get_running_loop()
        stats = self._stats.instance(service.name, instance.url)
        found = instance.endpoint
        endpoint = Endpoint(found.host, found.port, found.path)
        authority = found.authority
        wheel, heads = self._wheel, self._heads

        if service.http == "2":

            async def connect_h2(pool: PoolH2) -> UpstreamH2:
                tls = _tls_of(service, instance)
                moments = [monotonic()]
                _transport, conn = await connect(
                    loop,
                    _timed(lambda: UpstreamH2(pool, wheel), moments),
                    endpoint,
                    tls,
                    pool.sizes.connect_timeout_s,
                    self._resolving(),
                )
                conn.made = _made(moments, tls)
                return conn

            return PoolH2(
                instance.url, authority, sizes, stats, connect_h2, self._spawn, loop.call_soon
            )

        async def connect_h1(pool: Pool) -> UpstreamH1:
            tls = _tls_of(service, instance)
            moments = [monotonic()]
            transport, conn = await connect(
                loop,
                _timed(lambda: UpstreamH1(pool, wheel, heads, _UPSTREAM_LIMITS), moments),
                endpoint,
                tls,
                pool.sizes.connect_timeout_s,
                self._resolving(),
            )
            transport.set_write_buffer_limits(_WRITE_HIGH, _WRITE_LOW)
            conn.made = _made(moments, tls)
            return conn

        return Pool(instance.url, authority, sizes, stats, connect_h1, self._spawn)


def _count(line: Line) -> PoolSnapshot:
    said = line.snapshot()
    line.stats.idle = said.idle
    line.stats.active = said.open - said.idle - said.connecting
    line.stats.queued = said.waiting
    return said


def _context_of(service: ServicePlan) -> SSLContext:
    return upstream_context(service.tls, ("h2",) if service.http == "2" else HTTP1)


def _tls_of(service: ServicePlan, instance: InstancePlan) -> Tls | None:
    if instance.endpoint.scheme != "https":
        return None
    return Tls(_context_of(service), service.tls.server_name or instance.endpoint.host)


def _timed(make: Callable[[], _C], moments: list[float]) -> Callable[[], _C]:
    """Note when a connection stands, before TLS begins: then its protocol is made."""

    def begin() -> _C:
        moments.append(monotonic())
        return make()

    return begin


def _made(moments: list[float], tls: Tls | None) -> tuple[float, float, float]:
    ready = monotonic()
    return moments[0], moments[-1] if tls is not None else ready, ready
