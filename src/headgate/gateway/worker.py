"""A worker: one event loop that serves every listener of one plan.

Theory of operation
-------------------
`apply` builds everything that can fail first (plan, filters, certificates, TLS contexts), then
swaps references, then starts what is new and stops what is gone. Before the swap nothing that
serves has been touched, so any failure leaves the old plan serving.

State that outlives a plan is kept by the worker's parts under stable keys: listeners by bind
(`listeners`), pools by what it takes to reach an instance (`lines`), instances that were found
(`members`), what policies know (`states`), counters by name. A reload that does not mention a thing
changes nothing about it.
"""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from headgate.gateway import limits
from headgate.gateway.access_log import AccessLog
from headgate.gateway.affinity import Affinity, kept_secret
from headgate.gateway.busy import BUSY, Busy
from headgate.gateway.caching.caching import CHANGED_TOPIC, NEWS_TOPIC, Caching
from headgate.gateway.compile import compile_plan
from headgate.gateway.credentials import credential_names
from headgate.gateway.entrance import Entrance
from headgate.gateway.homes import Homes
from headgate.gateway.identity_headers import told_of
from headgate.gateway.lines import Lines
from headgate.gateway.listeners import Listeners
from headgate.gateway.live import LiveRequests
from headgate.gateway.log_text import Hidden
from headgate.gateway.members import ServiceMembers
from headgate.gateway.parts import WorkerParts
from headgate.gateway.route import RouteRuntime
from headgate.gateway.service import ServiceRuntime
from headgate.gateway.site import Site, read_error_pages
from headgate.gateway.states import States, key_of_service
from headgate.gateway.states_told import rows_steps, told_steps
from headgate.gateway.tracing import KeptTraces, Tracing
from headgate.observe import ProcessWatch, WorkerStats
from headgate.plan.build import build
from headgate.security.certificates.challenges import CERTIFICATES_TOPIC
from headgate.security.certificates.challenges import TOPIC as ACME_TOPIC
from headgate.security.redact import RedactionRules, Redactor, redact_logs
from headgate.security.shown import ShownRequest
from headgate.wire.wheel import TICK_S, Wheel

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence

    from headgate.config import Config
    from headgate.plan.plan import Plan
    from headgate.state.home import Board, LimitHome
    from headgate.state.hub import HubShared

_CLOSING_TURNS: Final = 50
_CLOSING_TURN_S: Final = 0.01
_LAG_EVERY_S: Final = 0.05


def _template(config: Config, index: int) -> str:
    """What a route matches, for the spans of its requests."""
    match = config.routes[index].match
    return match.path or match.exact or ""


def _from_document(document: dict[str, Any]) -> Config:
    from headgate.config import from_document  # what checks is heavy, and a sidecar does without

    return from_document(document)


class Worker:
    def __init__(
        self,
        index: int,
        report: Callable[[dict[str, Any]], None],
        read: Callable[[Any], Config] = _from_document,
    ) -> None:
        """`read` makes a configuration of what `apply` is given."""
        self._report = report
        self._read = read
        self._stats = WorkerStats(f"worker-{index}", f"{os.getpid()}-{monotonic():.6f}")
        self._index = index
        self._wheel = Wheel(monotonic())
        self._lines = Lines(self._stats, self._wheel, self._spawn)
        self._listeners = Listeners(self._stats, self._wheel, self._spawn, self._config)
        self._log: AccessLog | None = None
        self._plan: Plan | None = None
        self._watch = ProcessWatch(self._stats.process)
        self._rng = random.Random()
        self._homes = Homes()
        self._states = States(self._rng, self._homes.limits, self._homes.board)
        news = self._states.news
        self._members = ServiceMembers(self._states, self._lines, self._stats, news.tell_again)
        news.on_members = self._members.hear
        self._live = LiveRequests(report, self._rng)
        self._entrance = Entrance(WorkerParts(self._spawn, self._homes.board))
        self._entrance.on_banned = self._shut_soon
        subscribe = self._entrance.parts.subscribe
        subscribe(ACME_TOPIC, self._listeners.challenges.hear)
        subscribe(CERTIFICATES_TOPIC, lambda _message: self._spawn(self._listeners.refresh()))
        self._caching = Caching(self._spawn, self._entrance.parts.publish)
        subscribe(NEWS_TOPIC, self._caching.heard)
        subscribe(CHANGED_TOPIC, self._caching.heard_changed)
        self._affinity_key = b""
        self._traces = KeptTraces()
        self._tracing: Tracing | None = None
        self._leasing = False
        self._lag_at = 0.0
        self._busy: Busy | None = None
        """Where somebody sheds."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.generation = 0

    # -- life ----------------------------------------------------------------------------------

    async def apply(
        self,
        document: Any,
        sockets: Mapping[str, Sequence[socket.socket]],
        generation: int,
    ) -> None:
        """Take up a configuration, at the start and at every reload; raise to refuse it."""
        config = self._read(document)
        of_file = build(config)
        compiled = compile_plan(of_file)
        pages = read_error_pages(config.error_pages)
        said, stores = self._listeners.read(config)
        for service in of_file.services.values():
            self._lines.check(service)
        key = self._entrance.ready(of_file, compiled)
        redis = self._homes.ready(of_file)
        if self._plan is None:
            await self._members.wait_for_news(
                of_file, self._homes.hub, Path(config.state_dir or ".headgate")
            )

        # From here on nothing is refused.
        self._start(config)
        await self._homes.take(redis, of_file.state, self._listen, self._entrance.parts.leave)
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
        self._lines.take_dns(config.dns)
        # What is found comes and goes by itself, so from here to the swap nothing is awaited.
        plan = self._members.join(of_file)
        self._stats.keep(
            [(route.name, service) for route in plan.routes for service in route.services]
            + [("", "")],
            [(s.name, i.url) for s in plan.services.values() for i in s.instances],
            [listener.bind for listener in plan.listeners],
        )
        self._homes.is_alone = config.workers == 1
        now = monotonic()
        self._states.take_services(plan, now)
        services = self._take_services(plan)
        self._members.take(of_file.services)
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
                challenge=self._listeners.challenges.answer,
                tracing=tracing,
            )
            await self._listeners.take(spec, site, sockets[spec.bind], stores.get(spec.bind))
        self._listeners.settle([spec.bind for spec in plan.listeners], said)

    async def drain(self, deadline_s: float) -> None:
        """Stop accepting, let what is in flight finish, close what is left at the deadline."""
        await self._listeners.drain(deadline_s)
        self._tell_security(monotonic(), is_last=True)
        self._tell_traces(monotonic(), is_last=True)
        self._lines.close()
        # Closing takes a turn of the loop, with TLS several; a loop closed before that can hang.
        for _ in range(_CLOSING_TURNS):
            if not self._listeners.has_open and not self._lines.has_open:
                break
            await asyncio.sleep(_CLOSING_TURN_S)
        await self._lines.aclose_resolver()
        await self._caching.close()
        await self._homes.close()
        if self._busy is not None:
            self._busy.close()
        for task in tuple(self._tasks):
            task.cancel()
        if self._log is not None:
            self._log.close(1.0)

    def take_shared(self, hub: HubShared) -> None:
        """The hub of this machine; said once, before the first configuration."""
        self._homes.hub = hub
        self._listen(hub)
        self._live.listen(hub)

    # -- for those who ask ---------------------------------------------------------------------

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
        pools = yield from self._lines.snapshot_steps()
        found = yield from self._stats.steps()
        found["pools"] = pools
        yield
        found["policies"] = yield from told_steps(self._states, monotonic())
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

    def tap_access(self, tap: Callable[[bytes], None] | None, *, is_all: bool) -> None:
        """Hand lines of the access log over as well (`AccessLog.tap`)."""
        if self._log is not None:
            self._log.tap(tap, is_all=is_all)

    # -- time ----------------------------------------------------------------------------------

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
        self._stats.add_source(lambda rows: rows_steps(self._states, rows))
        self._stats.add_source(self._entrance.rows_into)
        self._stats.add_source(self._caching.rows_into)
        self._stats.add_source(self._members.rows_into)
        self._loop.call_later(TICK_S, self._turn)
        self._lag_at = monotonic() + _LAG_EVERY_S
        self._loop.call_later(_LAG_EVERY_S, self._feel_lag)

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
        home = self._homes.limits()
        if home is not None and not self._leasing:
            leased = [state for state in self._states.limits.values() if state.home is home]
            if leased:
                self._leasing = True
                self._spawn(self._lease(leased, home, now))
        self._lines.sweep(now)

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
            busy = self._busy = self._busy or Busy()
            lag_s = max(now - self._lag_at, 0.0)
            is_busy = busy.share(now) >= BUSY
            shedder.tick(now, lag_s, self._stats.in_flight, is_busy=is_busy)
        # Without a shedder the timer only looks whether a reload has brought one.
        wait_s = _LAG_EVERY_S if shedder is not None else 1.0
        self._lag_at = now + wait_s
        self._loop.call_later(wait_s, self._feel_lag)

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

    # -- building ------------------------------------------------------------------------------

    def _take_services(self, plan: Plan) -> dict[str, ServiceRuntime]:
        """Point every service at its pools: those there are, and new ones for the rest."""
        services = {}
        went = []
        for service in plan.services.values():
            state = self._states.services[service.name]
            went += self._lines.take(service, state.line_of)
            affinity = None
            if service.affinity is not None:
                said = service.affinity.secret
                secret = said.encode() if said is not None else self._own_key(plan.config)
                signer = state.take_signer(secret)
                affinity = Affinity(service.affinity, signer, state.group)
            services[service.name] = ServiceRuntime(
                service, state, key_of=key_of_service(service), affinity=affinity
            )
        went += self._lines.keep(services)
        self._lines.let_go(went)
        return services

    def _own_key(self, config: Config) -> bytes:
        """What signs affinity cookies when the file says nothing: one for all workers and runs."""
        if not self._affinity_key:
            self._affinity_key = kept_secret(Path(config.state_dir or ".headgate") / "affinity-key")
        return self._affinity_key

    def _config(self) -> Config | None:
        return self._plan.config if self._plan is not None else None

    def _listen(self, board: Board) -> None:
        self._states.news.listen(board)
        self._entrance.parts.listen(board)

    def _shut_soon(self) -> None:
        if self._loop is not None:
            self._listeners.shut_soon()

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
