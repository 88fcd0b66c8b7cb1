"""Child processes: how one is started, what is known of it, how its end is noticed.

Theory of operation
-------------------
A child is no fork of the supervisor: it shares no page, lock or loop with it. It is a copy of a
template that has imported what it needs (`template`), or a fresh interpreter when there is none;
it cannot tell the difference, and neither can anybody here once it has a pid. It gets one
descriptor, its end of a channel; all else arrives as messages.

    starting   forked or exec'd; the first configuration is on its way
    ready      it has answered; a worker accepts, control serves
    leaving    told to drain, or it said that it will; it is not replaced when it ends

Two things end together: the process (SIGCHLD) and its channel. Reaping asks for every child
that there is (-1), because we inherit the orphans of others, and whatever a child said last is read
before its end is told.

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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from headgate.control.channel import Channel, Message
from headgate.control.launch import python

__all__ = [
    "MODULES",
    "Child",
    "ChildState",
    "Children",
    "Forking",
    "adopt_orphans",
    "die_with_parent",
    "ending",
    "exec_child",
    "name_process",
]

Role = Literal["worker", "control"]
ChildState = Literal["starting", "ready", "leaving"]

MODULES: dict[str, str] = {
    "worker": "headgate.control.worker_main",
    "control": "headgate.control.control_main",
    "trial": "headgate.control.succession",
}


class Forking(Protocol):
    """Whoever makes children that need not import anything."""

    def try_fork(self, role: str, arguments: Sequence[str], lent: Mapping[str, int]) -> int | None:
        """The pid of a child with duplicates of the descriptors; None when there can be none."""
        ...

    def reaped(self, pid: int, status: int) -> bool:
        """Whether it was this one's own process that has ended."""
        ...


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
        forking: Forking,
    ) -> None:
        self._forking = forking
        self._on_message = on_message
        self._on_end = on_end
        self._by_pid: dict[int, Child] = {}
        # Popen insists on reaping what it started; these are told the status that we reaped.
        self._popens: dict[int, subprocess.Popen[bytes]] = {}

    def __iter__(self) -> Any:
        return iter(list(self._by_pid.values()))

    def __len__(self) -> int:
        return len(self._by_pid)

    def spawn(
        self, role: Role, index: int, now: float, *arguments: str, is_fresh: bool = False
    ) -> Child:
        """Start a child; `is_fresh` insists on a fresh interpreter. Raises OSError."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                pid = None
                if not is_fresh:
                    lent = {"channel": theirs.fileno()}
                    pid = self._forking.try_fork(role, arguments, lent)
                if pid is None:
                    pid = self._exec(MODULES[role], theirs.fileno(), arguments)
            except OSError:
                ours.close()
                raise
        child = Child(role, index, pid, now)
        self._connect(child, ours, b"")
        return child

    def _exec(self, module: str, channel: int, arguments: Sequence[str]) -> int:
        process = exec_child(module, channel, *arguments)
        self._popens[process.pid] = process
        return process.pid

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
                self._forking.reaped(pid, status)
                continue  # or else an orphan that was handed to us
            child.status = status
            child.channel.finish()
            if not child.first_news.done():
                child.first_news.set_result(None)
            child.ended.set()
            self._on_end(child)


def exec_child(module: str, channel: int, *arguments: str) -> subprocess.Popen[bytes]:
    """A fresh interpreter for a process of ours; its end of the channel is inherited."""
    own = ("--channel", str(channel), "--parent", str(os.getpid()))
    return subprocess.Popen(
        python(module, *own, *arguments),
        stdin=subprocess.DEVNULL,
        pass_fds=(channel,),
        process_group=0,
    )


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


def adopt_orphans() -> bool:
    """Become the parent of whoever among our descendants loses its own; False if we may not."""
    libc = ctypes.CDLL(None, use_errno=True)
    pr_set_child_subreaper = 36
    return bool(libc.prctl(pr_set_child_subreaper, 1, 0, 0, 0) == 0)


def name_process(name: str) -> None:
    """What `ps -o comm` and `top` show; the kernel keeps fifteen bytes."""
    libc = ctypes.CDLL(None, use_errno=True)
    pr_set_name = 15
    libc.prctl(pr_set_name, name.encode()[:15], 0, 0, 0)
