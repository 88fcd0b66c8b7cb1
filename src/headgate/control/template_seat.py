"""The one template of a run as the supervisor knows it: started, asked for copies, replaced.

Theory of operation
-------------------
There is one, or none: when it dies, or does not answer, children are fresh interpreters until
another has imported everything. Nobody waits for that but the first start, where a fresh
interpreter would not be ready sooner, and an upgrade: a template that starts is the first half of
its trial, and a copy that reads our handover the second (`succession`).

A copy is asked for and waited for in one breath. It takes milliseconds, in which the loop stands,
as it does while a process is exec'd.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import Any

from headgate.control.backoff import Backoff
from headgate.control.children import ending, exec_child
from headgate.control.succession import TRIAL_PASSED, why_new_code_fails
from headgate.control.template import PACKET_BYTES, pair

__all__ = ["TemplateSeat"]

ANSWER_S = 5.0  # it takes milliseconds, and longer where the machine stands still
READY_S = 60.0
AFTER_S = 2.0  # a machine on which one has died may want its breath back first
MODULE = "headgate.control.template"

log = logging.getLogger("headgate.supervisor")


class _Template:
    """One process, and whether it can be asked."""

    def __init__(
        self, pid: int, sock: socket.socket, popen: subprocess.Popen[bytes] | None = None
    ) -> None:
        self.why_not = ""  # what it said of why it cannot be one
        self.pid = pid
        self.popen = popen  # it insists on being told the status that we reaped
        self.started_at = time.monotonic()
        self.sock = sock
        sock.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self.news: asyncio.Future[bool] = self._loop.create_future()
        """True when it is ready; False when it will never be."""
        self._loop.add_reader(sock.fileno(), self._on_readable)

    @property
    def is_ready(self) -> bool:
        return self.news.done() and self.news.result()

    def _on_readable(self) -> None:
        try:
            data = self.sock.recv(PACKET_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        said = json.loads(data) if data else {"failed": "it said nothing"}
        if "failed" in said:
            self.why_not = self.why_not or said["failed"]
            self.end()
        else:
            self.tell(is_ready=True)

    def tell(self, *, is_ready: bool) -> None:
        if not self.news.done():
            self.news.set_result(is_ready)

    def try_copy(self, role: str, arguments: Sequence[str], lent: Mapping[str, int]) -> int | None:
        """The pid of a copy that holds duplicates of what is lent to it."""
        if not self.is_ready or self.sock.fileno() < 0:
            return None
        order = {"role": role, "arguments": list(arguments), "lent": list(lent)}
        self.sock.settimeout(ANSWER_S)
        try:
            socket.send_fds(self.sock, [json.dumps(order).encode()], list(lent.values()))
            answer = json.loads(self.sock.recv(PACKET_BYTES))
            pid = answer.get("pid")
        except (OSError, ValueError, AttributeError) as error:
            # What it does later is lost on us: its copy finds its channel closed and ends.
            log.warning("the template of processes (pid %d) does not answer: %s", self.pid, error)
            self.end()
            return None
        finally:
            if self.sock.fileno() >= 0:
                self.sock.setblocking(False)
        if pid is None:
            log.warning("a process could not be copied: %s", answer.get("failed"))
            return None
        return int(pid)

    def end(self) -> None:
        self.close()
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        self.tell(is_ready=False)
        if self.sock.fileno() >= 0:
            self._loop.remove_reader(self.sock.fileno())
            self.sock.close()

    def reaped(self, status: int) -> None:
        if self.popen is not None:
            self.popen.returncode = os.waitstatus_to_exitcode(status)
        self.pid = 0  # it may be somebody else's by now
        self.close()


class TemplateSeat:
    def __init__(self) -> None:
        self._now: _Template | None = None
        self._others: dict[int, _Template] = {}  # the next one, and those that end
        self._backoff = Backoff()
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    # ---------------------------------------------------------------------------- life

    async def begin(self, left: dict[str, int] | None) -> None:
        """Take over the one that was left to us, or start one; and wait until it can be asked, or
        it is clear that it never can.
        """
        if left:
            os.set_inheritable(left["fd"], False)
            self._now = _Template(left["pid"], socket.socket(fileno=left["fd"]))
            if left.get("is_ready"):
                self._now.tell(is_ready=True)
        else:
            self._now = self._try_start()
        if self._now is not None:
            await self._until_ready(self._now)

    def _try_start(self) -> _Template | None:
        ours, theirs = pair()
        with theirs:
            try:
                process = exec_child(MODULE, theirs.fileno())
            except OSError as error:
                ours.close()
                log.warning("no template for processes: %s", error)
                return None
        return _Template(process.pid, ours, process)

    @staticmethod
    async def _until_ready(template: _Template) -> bool:
        try:
            async with asyncio.timeout(READY_S):
                return await asyncio.shield(template.news)
        except TimeoutError:
            template.why_not = f"it was not ready in {READY_S:g} s"
            template.end()
            return False

    async def try_new_code(self, state_fd: int) -> str:
        """Have a template of the code that is installed now, and a copy of it try our handover. Why
        that fails, or nothing; the template before this one is kept until all is well.
        """
        fresh = self._try_start()
        if fresh is None:
            return await why_new_code_fails(state_fd)
        self._others[fresh.pid] = fresh
        why = ""
        if await self._until_ready(fresh):
            why = await self._trial(fresh, state_fd)
        else:
            why = fresh.why_not or "it did not start"
        if why or self._is_closed:
            fresh.end()
            return why
        self._dismiss()
        self._now = self._others.pop(fresh.pid, None)
        return ""

    @staticmethod
    async def _trial(template: _Template, state_fd: int) -> str:
        ours, theirs = socket.socketpair()
        with ours:
            ours.setblocking(False)
            with theirs:
                lent = {"channel": theirs.fileno(), "state": state_fd}
                if template.try_copy("trial", (), lent) is None:
                    return "no process could be made for the trial"
            said = b""
            try:
                async with asyncio.timeout(READY_S):
                    while data := await asyncio.get_running_loop().sock_recv(ours, PACKET_BYTES):
                        said += data
            except TimeoutError:
                return f"its trial took more than {READY_S:g} s"
        if said == TRIAL_PASSED.encode():
            return ""
        return said.decode("utf-8", "replace") or "its trial said nothing"

    def _dismiss(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        before, self._now = self._now, None
        if before is not None:
            if before.pid:
                self._others[before.pid] = before
            before.end()

    def drop(self) -> None:
        """Have none any more."""
        self._is_closed = True
        self._dismiss()
        for other in tuple(self._others.values()):
            other.end()

    def reaped(self, pid: int, status: int) -> bool:
        other = self._others.pop(pid, None)
        if other is not None:
            other.reaped(status)
            return True
        now = self._now
        if now is None or now.pid != pid:
            return False
        self._now = None
        wait_s = max(self._backoff.crashed(time.monotonic(), now.started_at), AFTER_S)
        now.reaped(status)
        log.warning(
            "the template of processes (pid %d) %s; another in %g s", pid, ending(status), wait_s
        )
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._start_again)
        return True

    def _start_again(self) -> None:
        self._timer = None
        if self._now is None and not self._is_closed:
            self._now = self._try_start()

    # -------------------------------------------------------------------------- copies

    def try_fork(self, role: str, arguments: Sequence[str], lent: Mapping[str, int]) -> int | None:
        return None if self._now is None else self._now.try_copy(role, arguments, lent)

    # -------------------------------------------------------------------------- handing over

    def to_json(self) -> dict[str, Any] | None:
        """What the supervisor that we become must know of it."""
        now = self._now
        if now is None or now.sock.fileno() < 0:
            return None
        return {"pid": now.pid, "fd": now.sock.fileno(), "is_ready": now.is_ready}

    def descriptors(self) -> list[int]:
        now = self._now
        return [] if now is None or now.sock.fileno() < 0 else [now.sock.fileno()]
