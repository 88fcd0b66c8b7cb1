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
import contextlib
import logging
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from headgate.control.backoff import Backoff
from headgate.control.channel import Message
from headgate.control.children import Child, Children, ending, name_process
from headgate.control.crew import Candidate, Crew, Refused, fault
from headgate.control.launch import HandoverUnreadable, Launch, Outline, exec_supervisor, python
from headgate.control.listening import BindRefused, Endpoint, Listeners
from headgate.control.state_dir import StateDir
from headgate.errors import AlreadyRunning, HeadgateError

__all__ = ["Supervisor", "main"]

SIGNALS = (
    signal.SIGHUP,
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGCHLD,
)
CONTROL_STOP_S = 3.0
TRIAL_TIMEOUT_S = 30.0
DRAINED_TWICE = 128  # exit status of a drain that was cut short is this and the signal's number

log = logging.getLogger("headgate.supervisor")


class Supervisor:
    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        self._state = StateDir(Path(launch.state_dir))
        self._children = Children(self._heard, self._ended)
        self._admin = Listeners()
        self._lock_fd = -1
        self._started_wall = 0.0
        self._control: Child | None = None
        self._control_backoff = Backoff()
        self._control_respawn: asyncio.TimerHandle | None = None
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
            on_change=self._changed,
            on_spawn=self._link,
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
        self._start_control()
        self._crew.fill()
        status = await self._done
        for task in self._tasks:
            task.cancel()
        return status

    def _start(self) -> None:
        self._state.prepare()
        self._lock_fd = self._state.lock()
        self._started_wall = time.time()  # noqa: TID251  for the operator: since when it runs
        outline = self._launch.outline
        self._crew.listeners.open(outline.listeners, outline.workers)
        self._admin.open(self._admin_endpoints(outline), 1)

    def _admin_endpoints(self, outline: Outline) -> list[Endpoint]:
        """Where control serves: a socket for this machine's own user, and the admin bind."""
        endpoints = [Endpoint(f"unix:{self._state.socket_path}", 0o600)]
        if outline.admin is not None:
            endpoints.append(Endpoint(outline.admin, 0o600))
        return endpoints

    # ------------------------------------------------------------------------------ control

    def _start_control(self) -> None:
        self._control_respawn = None
        if self._is_draining or self._control is not None:
            return
        try:
            self._control = self._children.spawn("control", 0, time.monotonic())
        except OSError as error:
            self._respawn_control(f"could not be started: {error.strerror}", None)
            return
        launch, committed = self._launch, self._crew.committed
        self._control.channel.send(
            "start",
            committed.document,
            config_file=launch.config_file,
            state_dir=launch.state_dir,
            workers=launch.workers,
            watch=launch.watch,
            generation=committed.generation,
            outline=committed.outline.to_json(),
            incarnation=launch.incarnation,
            supervisor=os.getpid(),
            started=self._started_wall,
            addresses=self._crew.listeners.addresses(),
        )
        self._send_admin_sockets()
        for child in self._children:
            if child.role == "worker":
                self._link(child)
        self._changed()

    def _send_admin_sockets(self) -> None:
        if self._control is None:
            return
        rows = self._admin.descriptors()
        self._control.channel.send(
            "admin_sockets",
            b"",
            [fd for row in rows.values() for fd in row],
            binds=list(rows),
            local=f"unix:{self._state.socket_path}",
            addresses=self._admin.addresses(),
        )

    def _respawn_control(self, how: str, ready_at: float | None) -> None:
        wait_s = self._control_backoff.crashed(time.monotonic(), ready_at)
        log.error("control %s; workers go on; next start in %g s", how, wait_s)
        loop = asyncio.get_running_loop()
        self._control_respawn = loop.call_later(wait_s, self._start_control)

    def _link(self, worker: Child) -> None:
        """Join a worker and control directly. Either may have just started."""
        if self._control is None:
            return
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self._control.channel.send(
                "link", b"", [ours.fileno()], worker=worker.index, pid=worker.pid
            )
            worker.channel.send("link", b"", [theirs.fileno()])

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
        if self._control is not None:
            self._control.channel.send(
                "workers", workers=workers, control_crashes=self._control_backoff.crashes
            )

    def _announce(self, ready: int) -> None:
        self._is_announced = True
        _notify("READY=1")
        if self._launch.incarnation:
            log.info("the supervisor runs the new code (pid %d)", os.getpid())
            return
        where = ", ".join(self._crew.listeners.addresses().values())
        admin = next(
            (
                address
                for bind, address in self._admin.addresses().items()
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

    # ------------------------------------------------------------------------------- events

    def _ended(self, child: Child) -> None:
        if child.role == "worker":
            if not self._has_served and not self._is_draining:
                self._give_up(child)
                return
            self._crew.ended(child)
        elif child is self._control:
            self._control = None
            if not self._is_draining and child.state != "leaving":
                self._respawn_control(
                    f"(pid {child.pid}) {ending(child.status or 0)}", child.ready_at
                )
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
                child.state = "ready"
                child.ready_at = time.monotonic()
                if not child.first_news.done():
                    child.first_news.set_result(None)
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
        if self._control is None:
            log.warning("SIGHUP: control is being restarted; send it again in a moment")
        else:
            self._control.channel.send("reload", reason="SIGHUP")

    def _on_terminate(self, signum: signal.Signals) -> None:
        if self._is_draining:
            log.warning("%s again: ending at once", signum.name)
            self._finish(DRAINED_TWICE + signum)
        else:
            self._drain(signum.name)

    def _on_upgrade(self) -> None:
        self._spawn_task(self._upgrade(None, None), "upgrade")

    def _reopen_logs(self) -> None:
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
            _notify("RELOADING=1")
            refused = await self._try_apply(candidate)
            _notify("READY=1")
            if refused is not None:
                control.channel.answer(message, "refused", faults=refused.faults)
                return
            rows = self._crew.snapshot()
            control.channel.answer(
                message,
                "applied",
                generation=candidate.generation,
                workers=sum(row["state"] == "ready" for row in rows),
                addresses=self._crew.listeners.addresses(),
            )

    async def _try_apply(self, candidate: Candidate) -> Refused | None:
        outline = candidate.outline
        try:
            opened = self._crew.listeners.open(outline.listeners, outline.workers)
        except BindRefused as error:
            return Refused([fault(str(error))])
        try:
            admin_opened = self._admin.open(self._admin_endpoints(outline), 1)
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
        self._admin.close_all_but(self._admin_endpoints(outline))
        self._send_admin_sockets()
        return None

    # --------------------------------------------------------------------------------- drain

    def _drain(self, reason: str) -> None:
        if self._is_draining:
            return
        self._is_draining = True
        _notify("STOPPING=1")
        drain_s = self._crew.committed.outline.drain_s
        log.info("draining on %s: requests in flight have %g s", reason, drain_s)
        if self._control is not None:
            self._control.channel.send("draining")
        if self._control_respawn is not None:
            self._control_respawn.cancel()
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
        control = self._control
        if control is None:
            self._finish(0)
        elif control.state != "leaving":
            control.state = "leaving"
            control.channel.send("stop")
            asyncio.get_running_loop().call_later(CONTROL_STOP_S, control.kill)

    def _finish(self, status: int) -> None:
        if self._done.done():
            return
        for child in self._children:
            child.kill()
        for listeners in (self._crew.listeners, self._admin):
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
            await self._stop_control()
            if self._crew.is_draining:
                return  # the order came meanwhile
            self._exec()

    async def _try_upgrade(self) -> Refused | None:
        state_fd = self._handover().to_memfd()
        try:
            refused = await self._try_new_code(state_fd)
        finally:
            os.close(state_fd)
        if refused is not None:
            return refused
        for slot in list(self._crew.slots):
            if self._is_draining:
                return None
            refused = await self._crew.replace(slot)
            if refused is not None:
                return refused
            log.info("upgrade: worker %d runs the new code", slot.index)
        return None

    @staticmethod
    async def _try_new_code(state_fd: int) -> Refused | None:
        """Let the new code read our state, and import all it needs, while we still live."""
        command = python("headgate.control.supervisor", "--state", str(state_fd), "--trial")

        def trial() -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                command,
                pass_fds=(state_fd,),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=TRIAL_TIMEOUT_S,
                check=False,
            )

        try:
            done = await asyncio.to_thread(trial)
        except (OSError, subprocess.TimeoutExpired) as error:
            return Refused([fault(f"the new code does not start: {error}")])
        if "headgate: trial passed" in done.stdout:
            return None
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return Refused([fault(f"the new code does not start: {last}")])

    async def _stop_control(self) -> None:
        control = self._control
        if control is None:
            if self._control_respawn is not None:
                self._control_respawn.cancel()
            return
        control.state = "leaving"
        control.channel.send("stop")
        try:
            async with asyncio.timeout(CONTROL_STOP_S):
                await control.ended.wait()
        except TimeoutError:
            control.kill()
            await control.ended.wait()

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
                "admin": self._admin.descriptors(),
                "admin_modes": self._admin.modes(),
                "workers": workers,
                "crashes": self._crew.history(),
            },
        )

    def _exec(self) -> None:
        """Become the new code. On failure everything goes on as it was."""
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        channels = [child.channel for child in self._children if child.role == "worker"]
        for channel in channels:
            if not channel.flush(1.0):
                log.warning("a worker did not read its channel; it will be replaced")
        descriptors = self._kept_descriptors()
        state_fd = self._handover().to_memfd()
        for fd in descriptors:
            os.set_inheritable(fd, True)
        log.info("upgrade: the supervisor restarts itself")
        try:
            exec_supervisor(self._launch, state_fd=state_fd)
        except OSError as error:
            log.error("the supervisor goes on with the old code: %s", error)  # noqa: TRY400
            for fd in descriptors:
                os.set_inheritable(fd, False)
            os.close(state_fd)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            self._start_control()

    def _kept_descriptors(self) -> list[int]:
        kept = [self._lock_fd]
        for listeners in (self._crew.listeners, self._admin):
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
        self._admin.adopt(running["admin"], running["admin_modes"])
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


def _notify(state: str) -> None:
    """Tell systemd, when it started us with Type=notify (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    if state == "RELOADING=1":
        state += f"\nMONOTONIC_USEC={time.monotonic_ns() // 1000}"
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(state.encode(), address)


def _say(text: str) -> None:
    print(f"headgate: {text}", file=sys.stderr, flush=True)  # noqa: T201  the run's own terminal


def _raise_descriptor_limit() -> None:
    """As many open files as we may have: a connection through the gateway takes two, and the
    usual soft limit of 1024 exists only for programs that use select().
    """
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _run(launch: Launch) -> int:
    return await Supervisor(launch).run()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="headgate.control.supervisor")
    parser.add_argument("--state", type=int, required=True)
    parser.add_argument("--trial", action="store_true")
    options = parser.parse_args(arguments)
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    try:
        launch = Launch.from_memfd(options.state)
        if options.trial:
            import headgate.control.control_main
            import headgate.control.worker_main

            headgate.control.worker_main.load_worker(launch.worker_class)
            print("headgate: trial passed")  # noqa: T201
            return 0
        os.close(options.state)
        _raise_descriptor_limit()
        name_process("headgate")
        return asyncio.run(_run(launch))
    except (HandoverUnreadable, AlreadyRunning, BindRefused, HeadgateError) as error:
        _say(str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main())
