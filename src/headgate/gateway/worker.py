"""A worker: one event loop that serves every listener of one plan.

Theory of operation
-------------------
`apply` builds everything that can fail first (plan, filters, certificates, TLS contexts), then
swaps references, then starts what is new and stops what is gone. Before the swap nothing that
serves has been touched, so any failure leaves the old plan serving.

State that outlives a plan is kept here under stable keys: listeners by bind, pools by what it
takes to reach an instance, counters by name. A reload that does not mention a thing changes
nothing about it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeVar

from headgate.config import ConfigInvalid, from_document
from headgate.gateway import limits
from headgate.gateway.access_log import AccessLog
from headgate.gateway.affinity import Affinity, kept_secret
from headgate.gateway.caching.caching import CHANGED_TOPIC, NEWS_TOPIC, Caching
from headgate.gateway.compile import compile_plan
from headgate.gateway.credentials import credential_names
from headgate.gateway.entrance import Entrance
from headgate.gateway.identity_headers import told_of
from headgate.gateway.listener import Listener
from headgate.gateway.live import LiveRequests
from headgate.gateway.log_text import Hidden
from headgate.gateway.parts import WorkerParts
from headgate.gateway.pool import Pool, PoolSizes
from headgate.gateway.pool_h2 import PoolH2
from headgate.gateway.route import RouteRuntime
from headgate.gateway.served_certificates import served_certificates
from headgate.gateway.service import ServiceRuntime
from headgate.gateway.site import Site, read_error_pages
from headgate.gateway.states import States, key_of_service
from headgate.gateway.tracing import KeptTraces, Tracing
from headgate.gateway.upstream_h1 import UpstreamH1
from headgate.gateway.upstream_h2 import UpstreamH2
from headgate.gateway.wheel import TICK_S, Wheel
from headgate.observe import ProcessWatch, WorkerStats
from headgate.plan.build import build
from headgate.policy.affinity import Affinity as Signer
from headgate.security.certificates.challenges import CERTIFICATES_TOPIC, ChallengeBook
from headgate.security.certificates.challenges import TOPIC as ACME_TOPIC
from headgate.security.redact import RedactionRules, Redactor, redact_logs
from headgate.security.shown import ShownRequest
from headgate.wire.connect import Endpoint, Tls, connect
from headgate.wire.headcache import HeadCache
from headgate.wire.http1.head import HeadLimits
from headgate.wire.resolve import Resolver
from headgate.wire.tls import (
    HTTP1,
    CertificateStore,
    TlsProfile,
    upstream_context,
)

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence

    from headgate.config import Config, ListenerSpec
    from headgate.gateway.pool import Line
    from headgate.plan.plan import InstancePlan, Plan, ServicePlan
    from headgate.state.home import Board, LimitHome
    from headgate.state.hub import HubShared
    from headgate.state.redis import RedisShared
    from headgate.wire.message import ResponseHead
    from headgate.wire.tls import Certificate

log = logging.getLogger("headgate.gateway")

_UPSTREAM_LIMITS: Final = HeadLimits(head_bytes=64 * 1024, field_count=200)
_CLOSING_TURNS: Final = 50
_CLOSING_TURN_S: Final = 0.01
_OLD_RESOLVER_S: Final = 30.0
_ACCEPT_LAST_S: Final = 0.02
_LAG_EVERY_S: Final = 0.05
_STEP_LINES: Final = 50
_WRITE_HIGH: Final = 256 * 1024
_WRITE_LOW: Final = 64 * 1024


_C = TypeVar("_C")


def _timed(make: Callable[[], _C], moments: list[float]) -> Callable[[], _C]:
    """Note when a connection stands, before TLS begins: then its protocol is made."""

    def begin() -> _C:
        moments.append(monotonic())
        return make()

    return begin


def _made(moments: list[float], tls: Tls | None) -> tuple[float, float, float]:
    ready = monotonic()
    return moments[0], moments[-1] if tls is not None else ready, ready


def _template(config: Config, index: int) -> str:
    """What a route matches, for the spans of its requests."""
    match = config.routes[index].match
    return match.path or match.exact or ""


class Worker:
    def __init__(self, index: int, report: Callable[[dict[str, Any]], None]) -> None:
        self._report = report
        self._stats = WorkerStats(f"worker-{index}", f"{os.getpid()}-{monotonic():.6f}")
        self._index = index
        self._wheel = Wheel(monotonic())
        self._response_heads: HeadCache[ResponseHead] = HeadCache()
        self._listeners: dict[str, Listener] = {}
        self._lines: dict[tuple[object, ...], Line] = {}
        self._retired: list[Line] = []
        self._resolver: Resolver | None = None
        self._log: AccessLog | None = None
        self._plan: Plan | None = None
        self._watch = ProcessWatch(self._stats.process)
        self._rng = random.Random()
        self._hub: HubShared | None = None
        self._redis: RedisShared | None = None
        self._redis_url = ""
        self._states = States(self._rng, self._limit_home, self._board)
        self._live = LiveRequests(report, self._rng)
        self._entrance = Entrance(WorkerParts(self._spawn, self._board))
        self._entrance.on_banned = self._shut_soon
        self._is_shutting = False
        self._certificates_said = 0
        self._is_refreshing = False
        self._challenges = ChallengeBook(self._show_challenges)
        self._entrance.parts.subscribe(ACME_TOPIC, self._challenges.hear)
        self._entrance.parts.subscribe(
            CERTIFICATES_TOPIC, lambda _message: self._spawn(self.refresh_certificates())
        )
        self._caching = Caching(self._spawn, self._entrance.parts.publish)
        self._entrance.parts.subscribe(NEWS_TOPIC, self._caching.heard)
        self._entrance.parts.subscribe(CHANGED_TOPIC, self._caching.heard_changed)
        self._affinity_key = b""
        self._traces = KeptTraces()
        self._tracing: Tracing | None = None
        self._is_alone = True
        self._leasing = False
        self._lag_at = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.generation = 0

    # -- life ----------------------------------------------------------------------------------

    async def apply(
        self,
        document: dict[str, Any],
        sockets: Mapping[str, Sequence[socket.socket]],
        generation: int,
    ) -> None:
        """Take up a configuration, at the start and at every reload; raise to refuse it."""
        config = from_document(document)
        plan = build(config)
        compiled = compile_plan(plan)
        pages = read_error_pages(config.error_pages)
        said = self._certificates_said
        stores = served_certificates(config)
        for service in plan.services.values():
            for instance in service.instances:
                self._tls_of(service, instance)

        key = self._entrance.ready(plan, compiled)
        redis = self._redis_for(plan)

        # From here on nothing is refused.
        self._start(config)
        await self._take_redis(redis, plan.state)
        log = self._log
        if log is None:
            raise RuntimeError("the access log is made by _start")
        hidden = (*config.access_log.redact, *credential_names(compiled.methods.values()))
        redactor = Redactor(config.redaction.rules()) if config.redaction else None
        tracing = None
        if config.tracing:
            told_of_requests = Hidden(hidden, redactor.text if redactor is not None else None)
            tracing = Tracing(
                config.tracing.rules(),
                self._traces,
                told_of_requests,
                self._index,
                config.tracing.tell_clients,
            )
        log.configure(
            config.access_log.model_copy(update={"redact": hidden}),
            redactor.text if redactor is not None else None,
        )
        self._entrance.parts.redactor = redactor or Redactor(RedactionRules.none())
        redact_logs(self._entrance.parts.redactor)
        self._take_dns(config)
        self._stats.keep(
            [(route.name, service) for route in plan.routes for service in route.services]
            + [("", "")],
            [(s.name, i.url) for s in plan.services.values() for i in s.instances],
            [listener.bind for listener in plan.listeners],
        )
        self._is_alone = config.workers == 1
        now = monotonic()
        self._states.take_services(plan, now)
        services = self._take_services(plan)
        self._entrance.take(plan, compiled, key, now)
        entries = [
            self._entrance.steps(route, parts)
            for route, parts in zip(plan.routes, compiled.routes, strict=True)
        ]
        traffics = self._states.take_routes(plan, services, now, entries)
        told = told_of(config) | {config.request_id.header.lower().encode("ascii")}
        if tracing is not None:
            told |= tracing.names
        self._caching.resize(plan.cache_store.memory_bytes if plan.cache_store is not None else 1)
        state_dir = Path(config.state_dir or ".headgate")
        await self._caching.take_lower(plan.cache_store, state_dir)
        self._caching.keep({route.name for route in plan.routes})
        routes = tuple(
            RouteRuntime(
                route,
                services[route.service] if route.service is not None else None,
                parts.chain,
                self._stats,
                traffic,
                self._caching.begins(route, parts.chain, traffic, self._states.degrade, told),
                _template(config, route.index),
            )
            for route, parts, traffic in zip(plan.routes, compiled.routes, traffics, strict=True)
        )
        self._plan = plan
        if tracing is not None:
            tracing.watch(routes, self._tracing)
        self._tracing = tracing
        self.generation = self._stats.generation = generation
        owned = self._entrance.owned()
        for spec in plan.listeners:
            site = Site(
                plan,
                spec,
                routes,
                self._stats,
                log,
                pages,
                self._spawn,
                self._rng,
                self._entrance.parts.bans,
                owned,
                challenge=self._challenges.answer,
                tracing=tracing,
            )
            await self._take_listener(spec, site, sockets[spec.bind], stores.get(spec.bind))
        self._show_challenges(self._challenges)
        if said != self._certificates_said:
            # Files have changed since they were read above.
            self._spawn(self.refresh_certificates())
        named = {spec.bind for spec in plan.listeners}
        for bind in self._listeners.keys() - named:
            gone = self._listeners.pop(bind)
            gone.stop_listening()
            gone.drain()

    async def drain(self, deadline_s: float) -> None:
        """Stop accepting, let what is in flight finish, close what is left at the deadline."""
        for listener in self._listeners.values():
            listener.drain()
        # What the kernel has already taken in for us is accepted before the sockets are let go.
        await asyncio.sleep(_ACCEPT_LAST_S)
        for listener in self._listeners.values():
            listener.stop_listening()
        # A connection that was accepted last is made known to us a turn of the loop later.
        await asyncio.sleep(_ACCEPT_LAST_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline_s):
                for listener in self._listeners.values():
                    await listener.wait_empty()
        for listener in self._listeners.values():
            listener.close_all()
        self._tell_security(monotonic(), is_last=True)
        self._tell_traces(monotonic(), is_last=True)
        lines = [*self._lines.values(), *self._retired]
        for line in lines:
            line.close()
        # Closing takes a turn of the loop, with TLS several; a loop closed before that can hang.
        for _ in range(_CLOSING_TURNS):
            if not any(x.connections for x in self._listeners.values()) and not any(
                line.snapshot().open for line in lines
            ):
                break
            await asyncio.sleep(_CLOSING_TURN_S)
        if self._resolver is not None:
            await self._resolver.aclose()
        await self._caching.close()
        if self._redis is not None:
            await self._redis.close()
        for task in tuple(self._tasks):
            task.cancel()
        if self._log is not None:
            self._log.close(1.0)

    def snapshot(self) -> dict[str, Any]:
        steps = self.snapshot_steps()
        while True:
            try:
                next(steps)
            except StopIteration as done:
                found: dict[str, Any] = done.value
                return found

    def snapshot_steps(self) -> Generator[None, None, dict[str, Any]]:
        """What is counted and how policies stand, in steps between which requests are served."""
        pools: list[dict[str, Any]] = []
        for at, line in enumerate(list(self._lines.values())):
            said = line.snapshot()
            line.stats.idle = said.idle
            line.stats.active = said.open - said.idle - said.connecting
            line.stats.queued = said.waiting
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
        found = yield from self._stats.steps()
        found["pools"] = pools
        yield
        found["policies"] = self._states.snapshot(monotonic())
        yield
        found["entrance"] = self._entrance.snapshot(monotonic())
        yield
        found["cache"] = self._caching.snapshot()
        return found

    async def cache_asked(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """What control wants done to the cache, or to know of it."""
        return await self._caching.asked(asked)

    async def judge(self, asked: Mapping[str, Any]) -> dict[str, Any] | None:
        """Whether a request would be let in, for `headgate explain --live`."""
        headers = tuple(
            (name.encode("latin-1"), value.encode("latin-1", "replace"))
            for name, value in asked["headers"]
        )
        shown = ShownRequest(**{**asked["shown"], "headers": headers})
        found = await self._entrance.judge(asked["route"], shown, asked["params"], monotonic())
        return found.to_json() if found is not None else None

    def traffic_asked(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """What control wants to know of one limit here."""
        return self._states.asked(asked, monotonic())

    def reopen_logs(self) -> None:
        if self._log is not None:
            self._log.reopen()

    def tap_access(self, tap: Callable[[bytes, int], None] | None) -> None:
        """Hand batches of lines of the access log over as well; None ends that."""
        if self._log is not None:
            self._log.tap = tap

    # -- building ------------------------------------------------------------------------------

    def _start(self, config: Config) -> None:
        """What is made once, with the first configuration that is accepted."""
        if self._loop is not None:
            return
        self._loop = asyncio.get_running_loop()
        self._log = AccessLog(config.access_log, self._stats.log, worker=self._index)
        self._log.start(self._loop)
        self._live.follow(self._log)
        self._watch.start(self._loop)
        self._stats.add_source(self._watch.rows_into)
        self._stats.add_source(self._traces.rows_into)
        self._stats.add_source(self._states.rows_into)
        self._stats.add_source(self._entrance.rows_into)
        self._stats.add_source(self._caching.rows_into)
        self._loop.call_later(TICK_S, self._turn)
        self._lag_at = monotonic() + _LAG_EVERY_S
        self._loop.call_later(_LAG_EVERY_S, self._feel_lag)

    def _take_dns(self, config: Config) -> None:
        """Look names up as the configuration says; look-ups under way end with the old resolver."""
        before = self._resolver
        if before is not None and self._plan is not None and self._plan.config.dns == config.dns:
            return
        self._resolver = Resolver(config.dns)
        if before is not None and self._loop is not None:
            self._loop.call_later(_OLD_RESOLVER_S, lambda: self._spawn(before.aclose()))

    def _resolving(self) -> Resolver:
        if self._resolver is None:
            raise RuntimeError("the resolver is made before any pool")
        return self._resolver

    def _shut_soon(self) -> None:
        """Close what the banned have open: once, however many are banned at once."""
        if self._loop is not None and not self._is_shutting:
            self._is_shutting = True
            self._loop.call_soon(self._shut)

    def _shut(self) -> None:
        self._is_shutting = False
        for listener in self._listeners.values():
            listener.shut_banned(monotonic())

    def _turn(self) -> None:
        """The worker's one recurring duty: everything with a deadline."""
        if self._loop is None:
            return
        self._loop.call_later(TICK_S, self._turn)
        now = monotonic()
        self._wheel.turn(now)
        self._states.turn(now)
        self._live.turn(now)
        self._caching.turn()
        self._tell_security(now)
        self._tell_traces(now)
        home = self._limit_home()
        if home is not None and not self._leasing:
            leased = [state for state in self._states.limits.values() if state.home is home]
            if leased:
                self._leasing = True
                self._spawn(self._lease(leased, home, now))
        for line in tuple(self._lines.values()):
            line.sweep(now)
        for line in tuple(self._retired):
            line.sweep(now)

    def _tell_security(self, now: float, *, is_last: bool = False) -> None:
        told = self._entrance.parts.told(now, is_last=is_last)
        if told is not None:
            self._report(told)

    def _tell_traces(self, now: float, *, is_last: bool = False) -> None:
        if self._tracing is not None:
            self._tracing.turn(now)
        told = self._traces.told(now, is_last=is_last)
        while told is not None:
            self._report(told)
            told = self._traces.told(now, is_last=True) if is_last else None

    async def _lease(self, leased: list[limits.LimitState], home: LimitHome, now: float) -> None:
        try:
            await limits.turn(leased, home, now)
        finally:
            self._leasing = False

    def _feel_lag(self) -> None:
        """Tell the shedder how late the loop runs its timers."""
        if self._loop is None:
            return
        shedder = self._states.shedder
        now = monotonic()
        if shedder is not None:
            shedder.tick(now, max(now - self._lag_at, 0.0), self._stats.in_flight)
        # Without a shedder the timer only looks whether a reload has brought one.
        wait_s = _LAG_EVERY_S if shedder is not None else 1.0
        self._lag_at = now + wait_s
        self._loop.call_later(wait_s, self._feel_lag)

    # -- what is shared ------------------------------------------------------------------------

    def take_shared(self, hub: HubShared) -> None:
        """The hub of this machine; said once, before the first configuration."""
        self._hub = hub
        self._states.news.listen(hub)
        self._live.listen(hub)
        self._entrance.parts.listen(hub)

    def _board(self) -> Board | None:
        redis = self._redis
        # While Redis is away, at least the workers of this machine hear of it.
        return redis if redis is not None and not redis.is_away else self._hub

    def _limit_home(self) -> LimitHome | None:
        if self._redis is not None:
            return self._redis
        return None if self._is_alone else self._hub

    def _redis_for(self, plan: Plan) -> RedisShared | None:
        """The client for the state that this plan names; may be refused."""
        if plan.state == "memory":
            return None
        if plan.state == self._redis_url:
            return self._redis
        from headgate.state.redis import RedisShared

        return RedisShared(plan.state)

    async def _take_redis(self, redis: RedisShared | None, url: str) -> None:
        before = self._redis
        if redis is before:
            return
        self._redis = redis
        self._redis_url = url if redis is not None else ""
        if redis is not None:
            self._states.news.listen(redis)
            self._entrance.parts.listen(redis)
            await redis.start()
        if before is not None:
            self._entrance.parts.leave(before)
            await before.close()

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def refresh_certificates(self) -> None:
        """Read the certificate files again; where they cannot be read, those of before serve on."""
        self._certificates_said += 1
        if self._is_refreshing:
            return  # and is told to read once more
        self._is_refreshing = True
        try:
            while (plan := self._plan) is not None:
                said = self._certificates_said
                try:
                    stores = await asyncio.to_thread(served_certificates, plan.config)
                except (ConfigInvalid, OSError) as error:
                    log.error("certificates cannot be taken up: %s", error)  # noqa: TRY400
                    return
                if plan is not self._plan:
                    continue  # a reload came in between
                for bind, made in stores.items():
                    listener = self._listeners.get(bind)
                    if listener is not None and listener.store is not None:
                        listener.store.replace(*made)
                if said == self._certificates_said:
                    return
        finally:
            self._is_refreshing = False

    def _show_challenges(self, book: ChallengeBook) -> None:
        book.show_on([each.store for each in self._listeners.values() if each.store is not None])

    def _take_services(self, plan: Plan) -> dict[str, ServiceRuntime]:
        """Point every service at its pools: those there are, and new ones for the rest."""
        kept: dict[tuple[object, ...], Line] = {}
        services = {}
        for service in plan.services.values():
            spec = service.pool
            sizes = PoolSizes(
                spec.connections,
                spec.idle,
                spec.idle_timeout,
                spec.queue,
                spec.queue_timeout,
                service.connect_timeout_s,
            )
            lines = []
            for instance in service.instances:
                key = service.pool_key(instance)
                line = kept.get(key) or self._lines.get(key)
                if line is None:
                    line = self._make_line(service, instance, sizes)
                line.sizes = sizes
                kept[key] = line
                lines.append(line)
            state = self._states.services[service.name]
            affinity = None
            if service.affinity is not None:
                said = service.affinity.secret
                secret = said.encode() if said is not None else self._own_key(plan.config)
                signer = Signer(secret, [instance.url for instance in service.instances])
                affinity = Affinity(service.affinity, signer, state.group)
            services[service.name] = ServiceRuntime(
                service, lines, state, key_of=key_of_service(service), affinity=affinity
            )
        for key, line in self._lines.items():
            if key not in kept:
                line.close()
                self._retired.append(line)
        self._lines = kept
        self._retired = [line for line in self._retired if line.snapshot().open]
        return services

    def _own_key(self, config: Config) -> bytes:
        """What signs affinity cookies when the file says nothing: one for all workers and runs."""
        if not self._affinity_key:
            self._affinity_key = kept_secret(Path(config.state_dir or ".headgate") / "affinity-key")
        return self._affinity_key

    def _make_line(self, service: ServicePlan, instance: InstancePlan, sizes: PoolSizes) -> Line:
        loop = asyncio.get_running_loop()
        stats = self._stats.instance(service.name, instance.url)
        found = instance.endpoint
        endpoint = Endpoint(found.host, found.port, found.path)
        authority = found.authority
        wheel, heads = self._wheel, self._response_heads

        if service.http == "2":

            async def connect_h2(pool: PoolH2) -> UpstreamH2:
                tls = self._tls_of(service, instance)
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
            tls = self._tls_of(service, instance)
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

    def _tls_of(self, service: ServicePlan, instance: InstancePlan) -> Tls | None:
        if instance.endpoint.scheme != "https":
            return None
        alpn = ("h2",) if service.http == "2" else HTTP1
        context = upstream_context(service.tls, alpn)
        return Tls(context, service.tls.server_name or instance.endpoint.host)

    async def _take_listener(
        self,
        spec: ListenerSpec,
        site: Site,
        sockets: Sequence[socket.socket],
        certificates: tuple[tuple[Certificate, ...], TlsProfile] | None,
    ) -> None:
        listener = self._listeners.get(spec.bind)
        if listener is not None and (listener.store is None) == (certificates is None):
            before = listener.site.spec
            context = listener.store.context if listener.store is not None else None
            if listener.store is not None and certificates is not None:
                listener.store.replace(*certificates)
            listener.take_up(site)
            after = listener.store.context if listener.store is not None else None
            if (
                list(sockets) != listener.sockets
                or before.proxy_protocol != spec.proxy_protocol
                or context is not after
            ):
                listener.stop_listening()
                await listener.listen(sockets)
            return
        if listener is not None:
            listener.stop_listening()
            listener.drain()
        listener = Listener(
            spec.bind,
            site,
            self._wheel,
            self._stats.listener(spec.bind),
            self._stats,
            CertificateStore(*certificates) if certificates is not None else None,
            self._spawn,
        )
        self._listeners[spec.bind] = listener
        await listener.listen(sockets)
