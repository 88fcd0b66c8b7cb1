"""Child processes: how one is started, what is known of it, how its end is noticed.

Theory of operation
-------------------
A child is a fresh interpreter, not a fork: after an upgrade it runs the new code, and it shares
no page, lock or loop with the supervisor. It gets one descriptor, its end of a channel; all
else arrives as messages.

    starting   exec'd; the first configuration is on its way, or, for a worker in reserve, not yet
    ready      it has answered; a worker accepts, control serves
    leaving    told to drain, or it said that it will; it is not replaced when it ends

Two things end together: the process (SIGCHLD) and its channel. Reaping asks for every child
that there is (-1), because as PID 1 of a container we inherit orphans of others, and whatever a
child said last is read before its end is told.

Children sit in process groups of their own: Ctrl-C in a terminal reaches the supervisor alone,
which then drains the others in order. They die with it, whatever kills it: the kernel sends
them SIGKILL (`die_with_parent`), and the end of the channel tells them the same.
"""

from __future__ import annotations

import asyncio
import base64
import ctypes
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from headgate.control.channel import Channel, Message
from headgate.control.launch import python

__all__ = ["Child", "ChildState", "Children", "die_with_parent", "ending"]

Role = Literal["worker", "control"]
ChildState = Literal["starting", "ready", "leaving"]

_MODULES: dict[Role, str] = {
    "worker": "headgate.control.worker_main",
    "control": "headgate.control.control_main",
}


@dataclass(eq=False, slots=True)
class Child:
    role: Role
    index: int
    pid: int
    started_at: float
    state: ChildState = "starting"
    ready_at: float | None = None
    generation: int = 0
    sockets: set[str] = field(default_factory=set)  # names of those it holds
    deadline: float | None = None  # of a leaving one: when it is killed
    refusal: list[dict[str, Any]] = field(default_factory=list)
    verdict: str = ""  # why we ended it ourselves, if we did
    channel: Channel = field(init=False)
    first_news: asyncio.Future[None] = field(init=False)  # ready, refused, or dead
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    status: int | None = None  # of waitpid, once it has ended

    @property
    def is_seated(self) -> bool:
        """Whether it has, or had, a seat; the worker in reserve has none."""
        return self.index >= 0

    def kill(self, signum: int = signal.SIGKILL) -> None:
        if self.status is None:
            os.kill(self.pid, signum)

    def to_json(self) -> dict[str, Any]:
        return {
            "role": self.role,
            "index": self.index,
            "pid": self.pid,
            "started_at": self.started_at,
            "state": self.state,
            "ready_at": self.ready_at,
            "generation": self.generation,
            "sockets": sorted(self.sockets),
            "deadline": self.deadline,
            "fd": self.channel.fileno(),
            "pending": base64.b64encode(self.channel.pending).decode(),
        }


class Children:
    """All living children of this supervisor."""

    def __init__(
        self,
        on_message: Callable[[Child, Message], None],
        on_end: Callable[[Child], None],
    ) -> None:
        self._on_message = on_message
        self._on_end = on_end
        self._by_pid: dict[int, Child] = {}
        # Popen insists on reaping what it started; these are told the status that we reaped.
        self._popens: dict[int, subprocess.Popen[bytes]] = {}

    def __iter__(self) -> Any:
        return iter(list(self._by_pid.values()))

    def __len__(self) -> int:
        return len(self._by_pid)

    def spawn(self, role: Role, index: int, now: float, *arguments: str) -> Child:
        ours, theirs = socket.socketpair()
        with theirs:
            command = python(
                _MODULES[role],
                "--channel",
                str(theirs.fileno()),
                "--parent",
                str(os.getpid()),
                *arguments,
            )
            try:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    process_group=0,
                )
            except OSError:
                ours.close()
                raise
        child = Child(role, index, process.pid, now)
        self._popens[process.pid] = process
        self._connect(child, ours, b"")
        return child

    def adopt(self, content: dict[str, Any]) -> Child:
        """Take over a child of the supervisor that we were before the re-exec."""
        fd = content.pop("fd")
        pending = base64.b64decode(content.pop("pending"))
        content["sockets"] = set(content["sockets"])
        child = Child(**content)
        os.set_inheritable(fd, False)
        self._connect(child, socket.socket(fileno=fd), pending)
        if child.state == "ready":
            child.first_news.set_result(None)
        return child

    def _connect(self, child: Child, sock: socket.socket, pending: bytes) -> None:
        child.first_news = asyncio.get_running_loop().create_future()
        child.channel = Channel(
            sock,
            on_message=lambda message: self._on_message(child, message),
            on_closed=lambda: self._on_channel_closed(child),
            pending=pending,
        )
        child.channel.start()
        self._by_pid[child.pid] = child

    def _on_channel_closed(self, child: Child) -> None:
        # It can no longer be told anything. If it is dying, this does no harm.
        child.kill()

    def reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            process = self._popens.pop(pid, None)
            if process is not None:
                process.returncode = os.waitstatus_to_exitcode(status)
            child = self._by_pid.pop(pid, None)
            if child is None:
                continue  # an orphan that was handed to us as PID 1
            child.status = status
            child.channel.finish()
            if not child.first_news.done():
                child.first_news.set_result(None)
            child.ended.set()
            self._on_end(child)


def ending(status: int) -> str:
    """How a process ended, in words: "killed by SIGKILL", "exit status 3"."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def die_with_parent(parent: int) -> None:
    """Ask the kernel for SIGKILL when our parent ends. The first thing a child does.

    The parent may have ended before the request was made; then we are somebody else's child by
    now and end ourselves.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    pr_set_pdeathsig = 1
    libc.prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def name_process(name: str) -> None:
    """What `ps -o comm` and `top` show; the kernel keeps fifteen bytes."""
    libc = ctypes.CDLL(None, use_errno=True)
    pr_set_name = 15
    libc.prctl(pr_set_name, name.encode()[:15], 0, 0, 0)
