"""The process that has imported the whole shop, and that all others of a stage are children of.

Theory of operation
-------------------
What a service imports takes seconds of a core, and is the same for all of them. So one process
imports it once, and forks: a service runs some milliseconds after it was wanted, and shares the
pages that nobody writes to. A fork is harmless while nothing lives that it would break: this
process has one thread, no loop, no open database.

It also is the place that nothing gets past. Whatever runs for a stage was forked here: services,
seeds, the gateway and other programs (by an exec), in process groups of their own. Its parent, the
backstage, tells it what to do over a socket. When the socket ends, because the parent was killed
for example, it ends all it has started, removes the folder if that was a temporary one, and goes.
If it is killed itself, the kernel ends its children (`parent.die_with_parent`).

What is said over the socket is one packet of JSON each:

    ->  {"do": "fork", "key", "job", "environment", "log"}      a function of `JOBS`
    ->  {"do": "exec", "key", "argv", "environment", "log", "folder", "user"}
    ->  {"do": "signal", "key", "signum"}
    <-  {"begun": key, "pid"}                   forked; a fork waits until all is imported
    <-  {"ended": key, "pid", "status"}         an exit code, or a signal's number below zero
    <-  {"failed": key, "why"}                  it could not be started
    <-  {"imported": seconds}
    <-  {"cannot": why}                         the shop cannot be imported; nothing will be forked

Orders are done between one import and the next, so the gateway can start meanwhile.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import importlib
import json
import os
import pwd
import select
import shutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn

from headgate_shop.base.settings import SERVICES
from headgate_shop.stage.parent import adopt_orphans, die_with_parent
from headgate_shop.stage.seeding import module, wanted

__all__ = ["JOBS", "PACKET_BYTES", "main"]

PACKET_BYTES: Final = 128 * 1024
JOBS: Final = {
    "serve": "headgate_shop.stage.jobs:serve",
    "seed": "headgate_shop.stage.jobs:seed",
    "describe": "headgate_shop.stage.jobs:describe",
    "traffic": "headgate_shop.stage.jobs:traffic",
}
LAST_WORD_S: Final = 6.0
"""How long children have to end by themselves when the backstage is gone."""
_PAUSE_S: Final = 0.02
_EX_SOFTWARE: Final = 70


_WARM: Final = (
    "httpcore",
    "pydantic.v1",
    "uvicorn.lifespan.on",
    "uvicorn.loops.uvloop",
    "uvicorn.protocols.http.httptools_impl",
    "headgate_shop.queue.sqlite",
    "alembic.context",
    "aiosqlite",
    "sqlalchemy.dialects.sqlite.aiosqlite",
)
"""What services load when they start. Whatever of it is not installed they do not need either."""


def modules() -> Iterator[str]:
    """What is imported, the largest libraries first."""
    yield from ("pydantic", "fastapi", "uvicorn", "sqlalchemy.ext.asyncio", "headgate")
    yield "headgate_shop.stage.jobs"
    for room in dict.fromkeys(name.removesuffix("-next") for name in SERVICES):
        yield f"headgate_shop.{room}.app"
    yield from (module(room) for room in wanted())


def rehearse() -> None:
    """Load what is loaded on use by every service."""
    import fastapi

    import headgate

    for name in _WARM:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    headgate.harden(fastapi.FastAPI(), service="rehearsal")


class Wings:
    def __init__(self, sock: socket.socket, folder: str) -> None:
        self._sock = sock
        self._folder = folder
        """To be removed when nobody else can; empty if it stays."""
        self._pids: dict[int, str] = {}
        self._waiting: list[dict[str, Any]] | None = []
        """Forks that wait for the imports; None when these are done."""
        self._failed = ""
        self._wake, self._woken = os.pipe()
        for fd in (self._wake, self._woken):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: None)  # we go when the socket ends
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    # -- the life of it ------------------------------------------------------------------------

    def run(self) -> None:
        began = time.monotonic()
        try:
            self._import()
            self._say({"imported": round(time.monotonic() - began, 3)})
            for order in self._waiting or ():
                self._fork(order)
            self._waiting = None
            while self._attend(None):
                pass
        except ConnectionError:
            pass
        self._end()

    def _import(self) -> None:
        gc.disable()  # what is imported stays
        work: list[tuple[str, Callable[[], object]]] = [
            (name, partial(importlib.import_module, name)) for name in modules()
        ]
        for name, load in (*work, ("what services need when they start", rehearse)):
            try:
                load()
                if _has_threads():
                    raise RuntimeError("it has started a thread")
            except Exception as error:  # noqa: BLE001  told to whoever asked for the shop
                self._failed = f"{name}: {type(error).__name__}: {error}"
                traceback.print_exc()
                self._say({"cannot": self._failed})
                break
            if not self._attend(0):
                raise ConnectionError
        gc.collect()
        gc.freeze()  # no collection of a child touches these pages
        gc.enable()

    def _attend(self, wait_s: float | None) -> bool:
        """Do what there is to do; False when nobody is there any more to ask for more."""
        sock = self._sock.fileno()
        ready, _, _ = select.select([sock, self._wake], [], [], wait_s)
        if self._wake in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake, 4096)
        self._reap()
        while sock in ready:
            data = self._sock.recv(PACKET_BYTES)
            if not data:
                return False
            self._do(json.loads(data))
            ready, _, _ = select.select([sock], [], [], 0)
        return True

    def _do(self, order: Mapping[str, Any]) -> None:
        match order["do"]:
            case "fork" if self._waiting is not None:
                self._waiting.append(dict(order))
            case "fork":
                self._fork(order)
            case "exec":
                self._start(order)
            case "signal":
                self._signal(order["key"], order["signum"])

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            key = self._pids.pop(pid, None)
            if key is not None:
                code = os.waitstatus_to_exitcode(status)
                self._say({"ended": key, "pid": pid, "status": code})

    def _say(self, what: Mapping[str, Any]) -> None:
        self._sock.send(json.dumps(what).encode())

    # -- children ------------------------------------------------------------------------------

    def _signal(self, key: str, signum: int) -> None:
        """The group of it: a program may have children of its own. Reaped ones are not in
        `_pids`, so nobody else who has such a pid by now can be meant.
        """
        for pid, held in self._pids.items():
            if held == key:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signum) if signum == signal.SIGKILL else os.kill(pid, signum)

    def _fork(self, order: Mapping[str, Any]) -> None:
        if self._failed:
            self._say({"failed": order["key"], "why": self._failed})
            return
        parent = os.getpid()
        self._begun(order, os.fork(), lambda: self._be_job(order, parent))

    def _start(self, order: Mapping[str, Any]) -> None:
        parent = os.getpid()
        self._begun(order, os.fork(), lambda: self._be_program(order, parent))

    def _begun(self, order: Mapping[str, Any], pid: int, child: Any) -> None:
        if pid == 0:
            child()
        self._pids[pid] = order["key"]
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)  # so that it can be signalled before it has said so itself
        self._say({"begun": order["key"], "pid": pid})

    def _part(self, order: Mapping[str, Any], parent: int) -> None:
        """In the child: hold nothing of ours."""
        signal.set_wakeup_fd(-1)
        for signum in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(signum, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if os.getpgid(0) != os.getpid():
            os.setpgid(0, 0)  # Ctrl-C in a terminal is not for us
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        self._sock.close()
        for fd in (log, null, self._wake, self._woken):
            os.close(fd)
        user = order.get("user")
        if user:
            found = pwd.getpwnam(user)
            os.setgroups([])
            os.setgid(found.pw_gid)
            os.setuid(found.pw_uid)
        die_with_parent(parent)  # after the change of the user, which clears it
        if folder := order.get("folder"):
            os.chdir(folder)

    def _be_job(self, order: Mapping[str, Any], parent: int) -> NoReturn:
        status = _EX_SOFTWARE
        try:
            self._part(order, parent)
            os.environ.update(order["environment"])
            _name_process(order["key"])
            module, _, name = JOBS[order["job"]].partition(":")
            status = getattr(importlib.import_module(module), name)(order["environment"])
        except SystemExit as left:
            status = left.code if isinstance(left.code, int) else 1
        except KeyboardInterrupt:
            status = 0
        except BaseException:  # noqa: BLE001  as an interpreter does at its end
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)

    def _be_program(self, order: Mapping[str, Any], parent: int) -> NoReturn:
        try:
            self._part(order, parent)
            argv = order["argv"]
            environment = {**os.environ, **order["environment"]}
            os.execvpe(argv[0], argv, environment)  # noqa: S606  the stage wrote it
        except BaseException:  # noqa: BLE001  there is nobody to raise to
            traceback.print_exc()
        finally:
            os._exit(_EX_SOFTWARE)

    # -- the end -------------------------------------------------------------------------------

    def _end(self) -> None:
        """The backstage has gone. If it ended well there is nothing left to do."""
        # From here on nothing is heard but children; each ends politely, or is ended.
        for signum, wait_s in ((signal.SIGTERM, LAST_WORD_S), (signal.SIGKILL, LAST_WORD_S)):
            for pid in self._pids:
                with contextlib.suppress(OSError):
                    os.killpg(pid, signum) if signum == signal.SIGKILL else os.kill(pid, signum)
            until = time.monotonic() + wait_s
            while self._has_children() and time.monotonic() < until:
                time.sleep(_PAUSE_S)
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _has_children(self) -> bool:
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            self._pids.pop(pid, None)


def _has_threads() -> bool:
    """Also those that Python does not know of. A fork would lose them."""
    return len(list(Path("/proc/self/task").iterdir())) > 1


def _name_process(name: str) -> None:
    """What `ps -o comm` and `top` show."""
    with contextlib.suppress(Exception):
        ctypes.CDLL(None).prctl(15, f"shop-{name}"[:15].encode(), 0, 0, 0)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="headgate_shop.stage.wings")
    parser.add_argument("--socket", type=int, required=True)
    parser.add_argument("--remove", default="")
    options = parser.parse_args(arguments)
    os.set_inheritable(options.socket, False)
    adopt_orphans()
    Wings(socket.socket(fileno=options.socket), options.remove).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
