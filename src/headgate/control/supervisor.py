"""The supervisor: starts, watches, reloads and drains the others; nothing else.

Theory of operation
-------------------
One thread, one loop, no parsing of configurations, no HTTP. It must outlive everything, so it
holds what must not be lost: the lock, the listening sockets, the committed document, the
children.

    signal            what it does                        also asked for by
    SIGHUP            control reloads the file            `headgate reload`, the watch
    SIGTERM, SIGINT   drain and end; again: end at once   `headgate drain`
    SIGUSR1           logs are reopened everywhere
    SIGUSR2           upgrade in place                    `headgate upgrade`

Control is the brain and may die: workers go on, and it is started again with the committed
document. Whoever of control and a worker starts later, both get one end of a fresh socket pair
(the *link*), over which control asks for snapshots and workers tell events; the supervisor
sees none of that traffic.

A worker that lives and serves nobody, because something holds its loop, is ended like one that
has crashed; see `watchdog`.

The first start is strict: if no worker ever became ready and one refuses or dies, the run ends
with the reason, because somebody is watching. From then on nothing but an order ends it.

An upgrade in place goes from the outside in: a trial process reads our handover with the new
code; workers are replaced one by one; control is stopped; then we exec ourselves. The sockets,
the lock and the channels stay open across the exec and the children remain our children. All
signals are blocked from before the exec until their handlers stand again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from headgate.control import process_logs
from headgate.control.channel import Message
from headgate.control.children import Child, Children, adopt_orphans, ending, name_process
from headgate.control.control_seat import ControlSeat
from headgate.control.crew import Candidate, Crew, Refused, fault
from headgate.control.launch import HandoverUnreadable, Launch, Outline
from headgate.control.listening import BindRefused, Listeners
from headgate.control.service_manager import notify, raise_descriptor_limit
from headgate.control.state_dir import StateDir
from headgate.control.succession import SIGNALS, TRIAL_PASSED, become, try_launch
from headgate.control.template_seat import TemplateSeat
from headgate.control.watchdog import Watchdog
from headgate.errors import AlreadyRunning, HeadgateError
from headgate.observe import logs
from headgate.observe.logs import StoreRules

__all__ = ["Supervisor", "main"]

DRAINED_TWICE = 128  # exit status of a drain that was cut short is this and the signal's number

log = logging.getLogger("headgate.supervisor")


class Supervisor:
    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        self._state = StateDir(Path(launch.state_dir))
        self._template = TemplateSeat()
        self._children = Children(self._heard, self._ended, self._template)
        self._lock_fd = -1
        self._started_wall = 0.0
        self._operation = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._last_generation = 1
        self._is_draining = False
        self._has_served = False
        self._is_announced = False
        self._told_control = False
        self._done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._crew = Crew(
            self._children,
            Listeners(),
            Candidate(1, launch.outline, launch.document),
            worker_class=launch.worker_class,
            folder=launch.folder,
            on_change=self._changed,
            on_seated=self._link,
        )
        self._watchdog = Watchdog(self._crew)
        self._feed = process_logs.Feed(lambda event: self._control.send("logs", event=event))
        self._control = ControlSeat(
            self._children, self._state, terms=self._control_terms, workers=self._crew.processes
        )

    # ---------------------------------------------------------------------------- starting

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        if self._launch.running:
            self._take_over(self._launch.running)
        else:
            self._start()
        handlers: dict[signal.Signals, Callable[[], None]] = {
            signal.SIGHUP: self._on_hangup,
            signal.SIGTERM: lambda: self._on_terminate(signal.SIGTERM),
            signal.SIGINT: lambda: self._on_terminate(signal.SIGINT),
            signal.SIGUSR1: self._reopen_logs,
            signal.SIGUSR2: self._on_upgrade,
            signal.SIGCHLD: self._children.reap,
        }
        for signum, handler in handlers.items():
            loop.add_signal_handler(signum, handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        self._children.reap()  # who ended while SIGCHLD had no handler
        self._feed.take(StoreRules())
        self._turn_feed()
        async with self._operation:
            await self._template.begin(
                self._launch.template or self._launch.running.get("template")
            )
        if not self._done.done():
            self._control.start()
            self._crew.fill()
            self._spawn_task(self._watchdog.run(), "watchdog")
        status = await self._done
        for task in self._tasks:
            task.cancel()
        return status

    def _turn_feed(self) -> None:
        """Once a second: our own lines to control, for the searchable store."""
        child = self._control.child
        if child is not None and child.state == "ready":
            self._feed.turn()
        asyncio.get_running_loop().call_later(1.0, self._turn_feed)

    def _start(self) -> None:
        self._state.prepare()
        self._lock_fd = self._state.lock()
        self._started_wall = time.time()  # noqa: TID251  for the operator: since when it runs
        outline = self._launch.outline
        self._crew.listeners.open(outline.listeners, outline.workers)
        self._control.admin.open(self._control.endpoints(outline), 1)

    def _control_terms(self) -> tuple[bytes, dict[str, Any]]:
        launch, committed = self._launch, self._crew.committed
        return committed.document, {
            "config_file": launch.config_file,
            "state_dir": launch.state_dir,
            "workers": launch.workers,
            "watch": launch.watch,
            "generation": committed.generation,
            "outline": committed.outline.to_json(),
            "incarnation": launch.incarnation,
            "started": self._started_wall,
            "addresses": self._crew.listeners.addresses(),
        }

    def _changed(self) -> None:
        """Something about the workers changed: tell control, once for many changes."""
        if self._told_control:
            return
        self._told_control = True
        asyncio.get_running_loop().call_soon(self._tell_control)

    def _tell_control(self) -> None:
        self._told_control = False
        workers = self._crew.snapshot()
        ready = sum(row["state"] == "ready" for row in workers)
        if ready:
            self._has_served = True
        if not self._is_announced and ready == len(self._crew.slots) and not self._is_draining:
            self._announce(ready)
        self._control.send(
            "workers", workers=workers, control_crashes=self._control.backoff.crashes
        )

    def _announce(self, ready: int) -> None:
        self._is_announced = True
        notify("READY=1")
        if self._launch.incarnation:
            log.info("the supervisor runs the new code (pid %d)", os.getpid())
            return
        where = ", ".join(self._crew.listeners.addresses().values())
        admin = next(
            (
                address
                for bind, address in self._control.admin.addresses().items()
                if bind == self._crew.committed.outline.admin
            ),
            "off",
        )
        log.info(
            "ready: %d worker%s on %s; admin on %s; state in %s",
            ready,
            "" if ready == 1 else "s",
            where,
            admin,
            self._state.path,
        )

    def _link(self, worker: Child) -> None:
        self._control.link(worker)

    # ------------------------------------------------------------------------------- events

    def _ended(self, child: Child) -> None:
        if child.role == "worker":
            if not self._has_served and not self._is_draining:
                self._give_up(child)
                return
            self._crew.ended(child)
        else:
            self._control.ended(child)
            self._changed()
        if self._is_draining:
            self._maybe_done()

    def _give_up(self, child: Child) -> None:
        """The very first start failed: say why and end."""
        if child.refusal:
            for entry in child.refusal:
                hint = f"; {entry['hint']}" if entry.get("hint") else ""
                where = f"{entry['where']}: " if entry.get("where") else ""
                _say(f"{where}{entry['message']}{hint}")
        else:
            _say(f"worker {child.index} did not start: {ending(child.status or 0)}")
        self._finish(1)

    def _heard(self, child: Child, message: Message) -> None:
        if child.role == "worker":
            self._crew.heard(child, message)
            return
        match message.kind:
            case "ready":
                self._control.is_ready(child)
                self._changed()
            case "apply":
                self._spawn_task(self._apply(child, message), "apply")
            case "drain":
                child.channel.answer(message, "draining", workers=len(self._crew.slots))
                self._drain("the admin API")
            case "upgrade":
                self._spawn_task(self._upgrade(child, message), "upgrade")
            case "reopen_logs":
                self._reopen_logs()
                child.channel.answer(message, "reopened")
            case _:
                log.warning("control said %r, which means nothing", message.kind)

    def _spawn_task(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("%s failed", task.get_name(), exc_info=task.exception())

    # ------------------------------------------------------------------------------- signals

    def _on_hangup(self) -> None:
        if not self._control.send("reload", reason="SIGHUP"):
            log.warning("SIGHUP: control is being restarted; send it again in a moment")

    def _on_terminate(self, signum: signal.Signals) -> None:
        if self._is_draining:
            log.warning("%s again: ending at once", signum.name)
            self._finish(DRAINED_TWICE + signum)
        else:
            self._drain(signum.name)

    def _on_upgrade(self) -> None:
        self._spawn_task(self._upgrade(None, None), "upgrade")

    def _reopen_logs(self) -> None:
        logs.reopen()
        for child in self._children:
            child.channel.send("reopen_logs")

    # -------------------------------------------------------------------------------- reload

    async def _apply(self, control: Child, message: Message) -> None:
        """Control has a validated document: bring everybody to it, or nobody."""
        async with self._operation:
            if self._is_draining:
                control.channel.answer(
                    message, "refused", faults=[fault("the gateway is draining")]
                )
                return
            self._last_generation += 1
            candidate = Candidate(
                self._last_generation,
                Outline.from_json(message.fields["outline"]),
                message.payload,
            )
            notify("RELOADING=1")
            refused = await self._try_apply(candidate)
            notify("READY=1")
            if refused is not None:
                control.channel.answer(message, "refused", faults=refused.faults)
                return
            addresses = self._crew.listeners.addresses()
            control.channel.answer(
                message, "applied", generation=candidate.generation, addresses=addresses
            )
            if self._control.child is not control:
                # It died meanwhile, and its successor was told the configuration before this one.
                self._control.send(
                    "committed",
                    candidate.document,
                    generation=candidate.generation,
                    outline=candidate.outline.to_json(),
                    addresses=addresses,
                )

    async def _try_apply(self, candidate: Candidate) -> Refused | None:
        outline = candidate.outline
        try:
            opened = self._crew.listeners.open(outline.listeners, outline.workers)
        except BindRefused as error:
            return Refused([fault(str(error))])
        try:
            admin_opened = self._control.admin.open(self._control.endpoints(outline), 1)
        except BindRefused as error:
            opened.undo()
            return Refused([fault(str(error))])
        refused = await self._crew.roll_out(candidate)
        if refused is not None:
            opened.undo()
            admin_opened.undo()
            return refused
        # Workers have let go of what the new configuration does not name; so do we.
        self._crew.listeners.close_all_but(outline.listeners)
        self._control.admin.close_all_but(self._control.endpoints(outline))
        self._control.send_admin_sockets()
        return None

    # --------------------------------------------------------------------------------- drain

    def _drain(self, reason: str) -> None:
        if self._is_draining:
            return
        self._is_draining = True
        notify("STOPPING=1")
        drain_s = self._crew.committed.outline.drain_s
        log.info("draining on %s: requests in flight have %g s", reason, drain_s)
        self._control.send("draining")
        self._control.close()
        self._template.drop()
        # Our own copies first: when the workers close theirs, the kernel must refuse newcomers
        # at once and not queue them for nobody.
        for bind in self._crew.listeners.descriptors():
            self._crew.listeners.close(bind)
        self._crew.drain()
        self._changed()
        self._maybe_done()

    def _maybe_done(self) -> None:
        if any(child.role == "worker" for child in self._children):
            return
        if self._control.child is None:
            self._finish(0)
        else:
            self._control.tell_to_stop()

    def _finish(self, status: int) -> None:
        if self._done.done():
            return
        self._template.drop()
        for child in self._children:
            child.kill()
        for listeners in (self._crew.listeners, self._control.admin):
            for bind in listeners.descriptors():
                listeners.close(bind)
        self._state.forget_instance()
        self._done.set_result(status)

    # ------------------------------------------------------------------------------- upgrade

    async def _upgrade(self, control: Child | None, message: Message | None) -> None:
        def answer(kind: str, **fields: Any) -> None:
            if control is not None and message is not None:
                control.channel.answer(message, kind, **fields)

        if self._operation.locked():
            log.info("upgrade: waiting for what is under way")
        async with self._operation:
            refused = await self._try_upgrade()
            if refused is not None or self._is_draining:
                faults = refused.faults if refused else [fault("the gateway is draining")]
                for entry in faults:
                    log.error("upgrade given up: %s", entry["message"])
                answer("refused", faults=faults)
                return
            answer(
                "upgraded", workers=len(self._crew.slots), incarnation=self._launch.incarnation + 1
            )
            await self._control.wait_stopped()
            if self._crew.is_draining:
                return  # the order came meanwhile
            self._exec()

    async def _try_upgrade(self) -> Refused | None:
        state_fd = self._handover().to_memfd()
        try:
            why = await self._template.try_new_code(state_fd)
        finally:
            os.close(state_fd)
        if why:
            return Refused([fault(f"the new code does not start: {why}")])
        for slot in list(self._crew.slots):
            if self._is_draining:
                return None
            refused = await self._crew.replace(slot)
            if refused is not None:
                return refused
            log.info("upgrade: worker %d runs the new code", slot.index)
        return None

    def _handover(self) -> Launch:
        # One whose channel is closed is being killed; the successor starts another.
        workers = [
            child.to_json()
            for child in self._children
            if child.role == "worker" and not child.channel.is_closed
        ]
        launch = self._launch
        committed = self._crew.committed
        return Launch(
            config_file=launch.config_file,
            state_dir=launch.state_dir,
            outline=committed.outline,
            document=committed.document,
            workers=launch.workers,
            watch=launch.watch,
            worker_class=launch.worker_class,
            incarnation=launch.incarnation + 1,
            running={
                "pid": os.getpid(),
                "lock_fd": self._lock_fd,
                "started_wall": self._started_wall,
                "generation": committed.generation,
                "last_generation": self._last_generation,
                "listeners": self._crew.listeners.descriptors(),
                "modes": self._crew.listeners.modes(),
                "admin": self._control.admin.descriptors(),
                "admin_modes": self._control.admin.modes(),
                "workers": workers,
                "crashes": self._crew.history(),
                "template": self._template.to_json(),
            },
        )

    def _exec(self) -> None:
        """Become the new code. On failure everything goes on as it was."""
        for child in self._children:
            if child.role == "worker" and not child.channel.flush(1.0):
                log.warning("worker %d does not read its channel", child.index)
        log.info("upgrade: the supervisor restarts itself")
        state_fd = self._handover().to_memfd()
        logs.flush()
        error = become(state_fd, self._kept_descriptors())
        log.error("the supervisor goes on with the old code: %s", error)
        os.close(state_fd)
        self._control.reopen()

    def _kept_descriptors(self) -> list[int]:
        kept = [self._lock_fd, *self._template.descriptors()]
        for listeners in (self._crew.listeners, self._control.admin):
            kept.extend(fd for row in listeners.descriptors().values() for fd in row)
        kept.extend(
            child.channel.fileno()
            for child in self._children
            if child.role == "worker" and not child.channel.is_closed
        )
        return kept

    def _take_over(self, running: dict[str, Any]) -> None:
        """Be the supervisor that exec'd us."""
        if running["pid"] != os.getpid():
            raise HandoverUnreadable("this state belongs to another process")
        self._lock_fd = running["lock_fd"]
        self._started_wall = running["started_wall"]
        self._last_generation = running["last_generation"]
        self._crew.listeners.adopt(running["listeners"], running["modes"])
        self._control.admin.adopt(running["admin"], running["admin_modes"])
        for fd in [
            self._lock_fd,
            *(fd for row in running["listeners"].values() for fd in row),
            *(fd for row in running["admin"].values() for fd in row),
        ]:
            os.set_inheritable(fd, False)
        self._crew.committed = Candidate(
            running["generation"], self._launch.outline, self._launch.document
        )
        self._crew.adopt(running["workers"], running["crashes"])
        self._has_served = True


def _say(text: str) -> None:
    print(f"headgate: {text}", file=sys.stderr, flush=True)  # noqa: T201  the run's own terminal


async def _run(launch: Launch) -> int:
    return await Supervisor(launch).run()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="headgate.control.supervisor")
    parser.add_argument("--state", type=int, required=True)
    parser.add_argument("--trial", action="store_true")
    options = parser.parse_args(arguments)
    process_logs.begin("supervisor")
    try:
        launch = Launch.from_memfd(options.state)
        if options.trial:
            try_launch(launch)
            print(TRIAL_PASSED)  # noqa: T201
            return 0
        os.close(options.state)
        document = json.loads(launch.document)
        if document.get("logging"):  # what reads it takes memory that most supervisors can spare
            process_logs.take(process_logs.spec_of(document))
        raise_descriptor_limit()
        name_process("headgate")
        adopt_orphans()
        return asyncio.run(_run(launch))
    except (HandoverUnreadable, AlreadyRunning, BindRefused, HeadgateError) as error:
        _say(str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main())
