"""The control process: reads the file, answers the admin API, gathers what workers count.

Theory of operation
-------------------
Control owns no socket and no state that serving depends on. It may be killed at any moment; the
supervisor starts it again with the committed document, and workers do not notice.

A reload is read, checked and built here first, on a thread, as a trial: what a worker would
refuse is refused before any worker hears of it. Then the resolved document goes to the
supervisor, which brings it to all workers or to none, and only its answer makes it `current`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
import uuid
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from headgate import __version__
from headgate.config import Config, Loaded, from_document, load
from headgate.control import caching_figures
from headgate.control.admin.access import Access
from headgate.control.auditing import Auditing
from headgate.control.authority import MeshAuthority
from headgate.control.ban_book import BanBook
from headgate.control.caching import Caching
from headgate.control.caching_edge import Edge
from headgate.control.certificates import Certificates
from headgate.control.channel import Channel, ChannelClosed, Message
from headgate.control.config_history import ConfigHistory
from headgate.control.current import Current, Start
from headgate.control.fault_rows import fault_row, fault_text, faults_of
from headgate.control.fleet import Fleet
from headgate.control.health import SETTLE_S, HealthProber, targets_of
from headgate.control.health import TOPIC as HEALTH_TOPIC
from headgate.control.hub import Hub
from headgate.control.launch import Outline
from headgate.control.observing import Surroundings
from headgate.control.observing.components import Components
from headgate.control.observing.departments import Departments
from headgate.control.orders import Orders
from headgate.control.registering_orders import OrdersTold
from headgate.control.reload import Reloader, ReloadResult
from headgate.control.revoked import Revoked
from headgate.control.service_docs import ServiceDocs
from headgate.control.shared import Shared
from headgate.control.state_dir import StateDir, StateDirUnusable
from headgate.control.trial import folder_of, import_from, located, trial
from headgate.control.watch import Watch, named_files
from headgate.errors import ConfigInvalid, Fault, HeadgateError
from headgate.observe import ProcessWatch, Rows, WorkerStats
from headgate.plan.build import build
from headgate.plan.members import worries as without_instances
from headgate.plan.plan import Plan
from headgate.security.ban_news import TOPIC as BANS
from headgate.security.redact import RedactionRules, Redactor, redact_logs
from headgate.security.tokens.revocations import TOPIC
from headgate.wire.resolve import Resolver

__all__ = ["Control"]

ROLL_OUT_S = 200.0  # the supervisor has deadlines of its own for every step; this is a last one
ORDER_S = 10.0
UPGRADE_S = 600.0
SILENT_S = 10.0  # a worker that has not answered for so long is a reason to worry

log = logging.getLogger("headgate.control")


class Control:
    """What the admin API and the watch act upon."""

    def __init__(self, start: Start, document: bytes, channel: Channel) -> None:
        self.start = start
        self.channel = channel
        self.state = StateDir(Path(start.state_dir))
        self.is_draining = False
        self.workers: list[dict[str, Any]] = []
        self.workers_at = 0.0
        """When the supervisor said so; ages in it are of then."""
        self.control_crashes = 0
        import_from(folder_of(Path(start.config_file)))
        self.started_mono = time.monotonic()
        decoded: dict[str, Any] = json.loads(document)
        self.current = Current(
            generation=start.generation,
            config=from_document(decoded),
            document=decoded,
            outline=start.outline,
            addresses=start.addresses,
            loaded_at=start.started,
        )
        self.token = ""
        self.access = Access(self.state.path, lambda: self.token)
        self.versions = ConfigHistory(self.state.path, Path(start.config_file))
        self.admin_address: str | None = None
        self.reloader = Reloader(self._reload)
        self.shared = Shared()
        self.hub = Hub(self.state, f"{start.supervisor}-{start.started}", self.shared)
        self.fleet = Fleet(self.shared)
        self.orders = Orders(self.plan, self._tell_order)
        self.fleet.subscribe("order", self.orders.hear)
        self.bans = BanBook(self.fleet, lambda: self.current.config)
        self.certificates = Certificates(self.state.path, self.fleet, self._is_serving)
        self.revoked = Revoked()
        self.fleet.subscribe(TOPIC, self.revoked.hear)
        self.auditing = Auditing(self.state.path, self.current.config.audit, self._redactor())
        self.fleet.subscribe(TOPIC, self.auditing.revocation_heard)
        self.fleet.subscribe(BANS, self.auditing.ban_heard)
        self.hub.hear("security", self.auditing.heard)
        self.mesh_authority = MeshAuthority(self.state.path, self.fleet, self.auditing.record)
        edge = Edge(lambda: self.hub.links, lambda: self.workers)
        self.caching = Caching(edge, self.state, self.auditing, self.fleet)
        self._tasks: set[asyncio.Task[None]] = set()
        self.resolver = Resolver(self.current.config.dns)
        self.health_checks = HealthProber(self._tell_health, self.resolver, settle_s=SETTLE_S)
        self.shared.subscribe(HEALTH_TOPIC, self.health_checks.recall)
        self.watch = Watch(self._on_changed_file)
        self.surroundings = Surroundings(
            state_dir=self.state.path,
            refresh=self.hub.refresh,
            merged=self.hub.merged,
            health=self.health,
            record=self.auditing.record,
        )
        made = Departments(
            self.surroundings,
            self.hub,
            self.shared,
            self.fleet,
            certificates=self.certificates,
            resolver=self.resolver,
            workers=lambda: self.workers,
            last_reload=lambda: self.reloader.last,
        )
        self.observing, self.live = made.observing, made.live
        self.history, self.machine, self.alerts = made.history, made.machine, made.alerts
        self.logs, self.traces = made.logs, made.traces
        self.monitors, self.registry = made.monitors, made.registry
        self.topology = made.topology
        self.registry.on_found = self._check_health
        self.orders_told = OrdersTold(
            self.orders,
            self.registry.watchers,
            lambda wait_s, act: asyncio.get_running_loop().call_later(wait_s, act),
        )
        self.components = Components(self)
        self.service_docs = ServiceDocs(self.plan, self._urls_of)
        self.slos, self.capacity = made.slos, made.capacity
        self._stats = WorkerStats("control", uuid.uuid4().hex)
        self._process = ProcessWatch("control")
        self._stats.add_source(self._process.rows_into)
        self._stats.add_source(self._rows_into)
        self._stats.add_source(self.observing.rows_into)
        self._stats.add_source(self.mesh_authority.rows_into)
        self.hub.count_ourselves(self._stats.snapshot)

    def begin(self) -> None:
        """Start what runs beside requests. On the running loop."""
        loop = asyncio.get_running_loop()
        self._process.start(loop)
        self.shared.start(loop)
        self.bans.start()
        self.orders_told.start()
        self.auditing.start()
        self.auditing.record(
            "control.started",
            "supervisor",
            target=f"generation {self.start.generation}",
            detail={
                "version": __version__,
                "incarnation": self.start.incarnation,
                "pid": self.start.supervisor,
                "file": self.start.config_file,
                "since": self.start.started,
            },
        )
        self.observing.start()
        self.components.start()
        self._take_up()
        self.versions.begin(
            self.start.started,
            self.current.generation,
            self.current.document,
            self.current.outline.hidden,
        )
        trying = loop.create_task(self.versions.keep_trying(), name="config-history")
        self._tasks.add(trying)
        trying.add_done_callback(self._tasks.discard)
        self.certificates.start()
        self.mesh_authority.start()

    def _take_up(self) -> None:
        """Act on what `current` says about control itself."""
        admin = self.current.config.admin
        self.token = admin.token or self._own_token()
        self.access.take(admin, folder_of(Path(self.start.config_file)))
        self.versions.take(admin.config_history)
        redactor = self._redactor()
        redact_logs(redactor)
        self.auditing.take(self.current.config.audit, redactor)
        self._follow_files()
        self._check_health()
        self.certificates.take(self.current.config)
        self.mesh_authority.take(self.current.config)
        self.caching.take(_told_at(self.current.config))
        self.orders.settle()
        self.observing.take(self.current.config)
        work = asyncio.get_running_loop().create_task(self.fleet.take(self.current.config.state))
        self._tasks.add(work)
        work.add_done_callback(self._tasks.discard)
        self.write_instance()

    def _redactor(self) -> Redactor:
        spec = self.current.config.redaction
        return Redactor(spec.rules() if spec else RedactionRules.none())

    def _check_health(self) -> None:
        """Check the instances of the services that ask for it, and no others."""
        config = self.current.config
        is_asked = bool(config.health) or any(spec.health for spec in config.services.values())
        self.health_checks.update(targets_of(self.plan()) if is_asked else ())

    def _tell_health(self, topic: str, message: dict[str, Any]) -> None:
        self.shared.publish(topic, message, retain=message["key"])
        self.live.health_heard(message)
        if message.get("gone"):
            self.shared.forget(topic, message["key"])

    def _tell_order(self, order: dict[str, Any], subject: str | None) -> None:
        self.fleet.publish("order", order, retain=subject)

    def _urls_of(self, service: str) -> list[str]:
        """Where a service may be asked for what it says of itself."""
        return [instance.url for instance in self.plan().services[service].instances]

    def _own_token(self) -> str:
        try:
            return self.state.make_token()
        except StateDirUnusable as error:
            # The gateway serves, and the socket in the state directory still answers; better a
            # token that nobody knows than none.
            log.error("the admin token cannot be kept: %s", error)  # noqa: TRY400
            return self.token or secrets.token_urlsafe(32)

    def committed(self, message: Message) -> None:
        """Workers took up a configuration that an earlier control process had sent."""
        document: dict[str, Any] = json.loads(message.payload)
        self.current = Current(
            generation=message.fields["generation"],
            config=from_document(document),
            document=document,
            outline=Outline.from_json(message.fields["outline"]),
            addresses=message.fields["addresses"],
            loaded_at=time.time(),  # noqa: TID251  for the operator
        )
        self._take_up()

    async def end(self) -> None:
        self.bans.stop()
        self.access.close()
        await self.components.close()
        await self.service_docs.close()
        await self.observing.close()
        await self.caching.close()
        for work in tuple(self._tasks):
            work.cancel()
        self.auditing.record("control.stopped", "supervisor")
        await self.auditing.close()
        await self.certificates.close()
        await self.mesh_authority.close()
        await self.fleet.close()
        await self.health_checks.close()
        await self.resolver.aclose()
        self._process.stop()
        self.shared.stop()
        self.hub.save()

    def write_instance(self) -> None:
        """Tell commands where we are; a full disk must not stop the gateway."""
        try:
            self.state.write_instance(
                {
                    "pid": self.start.supervisor,
                    "version": __version__,
                    "config_file": self.start.config_file,
                    "admin": self.admin_address,
                    "listeners": self.current.addresses,
                }
            )
        except StateDirUnusable as error:
            log.warning("%s", error)

    def _rows_into(self, rows: Rows) -> None:
        self._stats.generation = self.current.generation
        seated = [row for row in self.workers if row["state"] != "leaving"]
        rows["headgate_workers"].append(([], sum(row["state"] == "ready" for row in seated)))
        for row in seated:
            rows["headgate_worker_restarts_total"].append(([str(row["index"])], row["crashes"]))
        self.access.rows_into(rows)
        rows["headgate_config_versions_lost_total"].append(([], self.versions.lost))
        for result, count in self.hub.reloads.items():
            rows["headgate_reloads_total"].append(([result], count))

    # -------------------------------------------------------------------------------- reload

    async def reload(self, reason: str) -> ReloadResult:
        return await self.reloader.request(reason)

    async def _reload(self, reason: str) -> ReloadResult:
        began = time.monotonic()
        wall = time.time()  # noqa: TID251  for the operator: when it was
        served = self.current
        found = await asyncio.to_thread(self.versions.look)
        warnings: list[dict[str, Any]] = []
        try:
            loaded, plan = await asyncio.to_thread(self._read)
            warnings = [fault_row(fault) for fault in getattr(loaded, "warnings", ())]
            if (kept := self._state_dir_kept(loaded)) is not None:
                log.warning("%s", kept)
                warnings.append(fault_row(kept))
            faults = await self._roll_out(loaded, plan)
        except ConfigInvalid as error:
            faults = [fault_row(fault) for fault in error.faults if fault.level == "error"]
        except HeadgateError as error:
            faults = [{"message": str(error), "hint": ""}]
        ready = sum(row["state"] == "ready" for row in self.workers)
        result = ReloadResult(
            ok=not faults,
            generation=self.current.generation,
            workers=ready,
            took_ms=round((time.monotonic() - began) * 1000, 1),
            reason=reason,
            at=wall,
            faults=faults,
            warnings=warnings,
        )
        self.auditing.reloaded(
            reason,
            generation=result.generation,
            before=served.document,
            after=self.current.document if result.ok else None,
            hidden=(*served.outline.hidden, *self.current.outline.hidden),
            faults=faults,
        )
        version = await asyncio.to_thread(
            self.versions.keep, found, result, self.current.document, self.current.outline.hidden
        )
        if version is not None:
            self.history.mark(wall, "config", version.said, {"version": version.number})
        self.hub.reloads["ok" if result.ok else "refused"] += 1
        if result.ok:
            log.info(
                "reloaded on %s: generation %d, %d workers, %.0f ms",
                reason,
                result.generation,
                ready,
                result.took_ms,
            )
        else:
            for fault in faults:
                log.error("reload on %s refused: %s", reason, fault_text(fault))
        return result

    def _read(self) -> tuple[Loaded, Plan]:
        """Read, check and build, as a worker would. Runs on a thread."""
        path = Path(self.start.config_file)
        loaded = load(path)
        plan, warnings = trial(loaded, path)
        self.access.try_tls(loaded.config.admin, folder_of(path))
        for found in warnings:
            log.warning("%s", found)
        # Of the run, not of the file: --state-dir outlives reloads, and so does the lock.
        loaded.document["state_dir"] = self.start.state_dir
        return loaded, plan

    def _state_dir_kept(self, loaded: Loaded) -> Fault | None:
        """A warning when the file names another state directory than when the run began."""
        before = self.current.outline.state_dir
        if not before or loaded.config.state_dir == before:
            return None
        found = loaded.fault(
            ("state_dir",),
            f"is read at the start alone: this run keeps {self.start.state_dir}",
            "to move it, end this run (headgate drain) and start another",
        )
        return replace(found, level="warning")

    async def _roll_out(self, loaded: Loaded, plan: Plan) -> list[dict[str, Any]]:
        outline = replace(
            Outline.of(loaded, self.start.workers), state_dir=self.current.outline.state_dir
        )
        payload = json.dumps(loaded.document, separators=(",", ":")).encode()
        try:
            answer = await self.channel.ask(
                "apply", payload, timeout_s=ROLL_OUT_S, outline=outline.to_json()
            )
        except TimeoutError:
            return [{"message": f"the workers did not answer in {ROLL_OUT_S:g} s", "hint": ""}]
        except ChannelClosed as error:
            return [{"message": str(error), "hint": ""}]
        if answer.kind == "refused":
            return [
                fault_row(found) for found in located(loaded, faults_of(answer.fields["faults"]))
            ]
        self.current = Current(
            generation=answer.fields["generation"],
            config=loaded.config,
            document=loaded.document,
            outline=outline,
            addresses=answer.fields["addresses"],
            loaded_at=time.time(),  # noqa: TID251  for the operator
            plan=plan,
        )
        self._take_up()
        return []

    # --------------------------------------------------------------------------------- watch

    def _follow_files(self) -> None:
        wanted = self.current.config.watch if self.start.watch is None else self.start.watch
        self.watch.follow(self.watched_files() if wanted else ())

    def watched_files(self) -> Iterable[Path]:
        main = Path(self.start.config_file)
        base = folder_of(main)
        yield main
        yield from (Path(name) for name in self.current.outline.files)
        yield from named_files(self.current.document, base)

    async def _on_changed_file(self) -> None:
        await self.reload("a changed file")

    # -------------------------------------------------------------------------------- orders

    async def drain(self) -> int:
        answer = await self.channel.ask("drain", timeout_s=ORDER_S)
        self.is_draining = True
        workers: int = answer.fields["workers"]
        return workers

    async def upgrade(self) -> Message:
        return await self.channel.ask("upgrade", timeout_s=UPGRADE_S)

    async def reopen_logs(self) -> None:
        await self.channel.ask("reopen_logs", timeout_s=ORDER_S)

    def plan(self) -> Plan:
        """The plan that explain reads, with the instances that were found; the workers have their
        own.
        """
        if self.current.plan is None:
            self.current.plan = build(self.current.config)
        return self.registry.members.joined(self.current.plan)

    # -------------------------------------------------------------------------------- health

    def _is_serving(self) -> bool:
        return not self.is_draining and any(row["state"] == "ready" for row in self.workers)

    def health(self) -> tuple[Literal["ok", "degraded", "down"], list[str]]:
        """ok, degraded or down, and why it is not ok."""
        seated = [row for row in self.workers if row["state"] != "leaving"]
        ready = [row for row in seated if row["state"] == "ready"]
        reasons: list[str] = []
        if self.is_draining:
            return "down", ["draining: no new connections are accepted"]
        for row in seated:
            reasons.extend(_worries(row))
        reasons.extend(
            f"worker {link.index} (pid {link.pid}) has not answered for "
            f"{time.monotonic() - link.heard_at:.0f} s"
            for link in self.hub.links.values()
            if link.is_silent and time.monotonic() - link.heard_at > SILENT_S
        )
        last = self.reloader.last
        if last is not None and not last.ok:
            first = fault_text(last.faults[0]) if last.faults else "no reason was given"
            reasons.append(
                f"the last reload was refused, generation {self.current.generation} serves on: "
                f"{first}"
            )
        reasons.extend(self.auditing.worries())
        reasons.extend(self.access.worries())
        reasons.extend(self.versions.worries())
        reasons.extend(self.certificates.worries())
        reasons.extend(self.mesh_authority.worries())
        reasons.extend(self.observing.worries())
        reasons.extend(without_instances(self.plan()))
        told = [link.snapshot or {} for link in self.hub.links.values()]
        reasons.extend(caching_figures.worries(said.get("cache", {}) for said in told))
        if not ready:
            return "down", [*reasons, "no worker is ready"]
        return ("degraded" if reasons else "ok"), reasons


def _told_at(config: Config) -> str:
    """Where invalidations are told: the Redis that responses are in, or else that of `state`."""
    named = config.cache_store.redis
    return named if isinstance(named, str) else config.state


def _worries(row: dict[str, Any]) -> Iterable[str]:
    if row["state"] == "waiting":
        yield (
            f"worker {row['index']} is down; next start in {row['next_start_s']:.1f} s; "
            f"last end: {row['last_end']}"
        )
    elif row["state"] == "starting":
        yield f"worker {row['index']} is starting"
    if row["is_looping"] or row["crashes_last_minute"] >= 3:
        yield (
            f"worker {row['index']} crashed {row['crashes_last_minute']} times in the last minute; "
            f"last end: {row['last_end']}"
        )
