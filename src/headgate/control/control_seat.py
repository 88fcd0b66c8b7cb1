"""The one control process of a run: started, restarted, stopped, and told things.

Theory of operation
-------------------
Control may be away at any moment; what is said then is lost, except what it is told at its
start: the committed document, the admin sockets, and a link to every worker. So nothing that
must not be lost is said to it in passing.

The admin sockets are kept open here, as those of the workers are by `Listeners`: a command that
comes while control is being restarted waits instead of failing.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any

from headgate.control.backoff import Backoff
from headgate.control.children import Child, Children, ending
from headgate.control.launch import Outline
from headgate.control.listening import Endpoint, Listeners
from headgate.control.state_dir import StateDir

__all__ = ["ControlSeat"]

STOP_S = 3.0

log = logging.getLogger("headgate.supervisor")


class ControlSeat:
    def __init__(
        self,
        children: Children,
        state: StateDir,
        *,
        terms: Callable[[], tuple[bytes, dict[str, Any]]],
        workers: Callable[[], Iterable[Child]],
    ) -> None:
        """`terms` is what a new control process is told; `workers` are those to link it to."""
        self.child: Child | None = None
        self.admin = Listeners()
        self.backoff = Backoff()
        self._children = children
        self._state = state
        self._terms = terms
        self._workers = workers
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._is_to_be_fresh = False

    def endpoints(self, outline: Outline) -> list[Endpoint]:
        """Where control serves: a socket for this machine's own user, and the admin bind."""
        endpoints = [Endpoint(self._local, 0o600)]
        if outline.admin is not None:
            endpoints.append(Endpoint(outline.admin, 0o600))
        return endpoints

    @property
    def _local(self) -> str:
        return f"unix:{self._state.socket_path}"

    # ---------------------------------------------------------------------------- life

    def start(self) -> None:
        self._timer = None
        if self._is_closed or self.child is not None:
            return
        try:
            self.child = self._children.spawn(
                "control", 0, time.monotonic(), is_fresh=self._is_to_be_fresh
            )
        except OSError as error:
            self._start_later(f"could not be started: {error.strerror}", None)
            return
        document, fields = self._terms()
        self.child.channel.send("start", document, **fields, supervisor=os.getpid())
        self.send_admin_sockets()
        for worker in self._workers():
            self.link(worker)

    def _start_later(self, how: str, ready_at: float | None) -> None:
        # One that never became ready may have had a template to blame.
        self._is_to_be_fresh = ready_at is None
        wait_s = self.backoff.crashed(time.monotonic(), ready_at)
        log.error("control %s; workers go on; next start in %g s", how, wait_s)
        self._timer = asyncio.get_running_loop().call_later(wait_s, self.start)

    def ended(self, child: Child) -> None:
        if child is not self.child:
            return
        self.child = None
        if child.state != "leaving" and not self._is_closed:
            how = f"(pid {child.pid}) {ending(child.status or 0)}"
            self._start_later(how, child.ready_at)

    def is_ready(self, child: Child) -> None:
        child.state = "ready"
        child.ready_at = time.monotonic()
        if not child.first_news.done():
            child.first_news.set_result(None)

    def close(self) -> None:
        """Start it no more; the one that runs goes on."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()

    def tell_to_stop(self) -> None:
        """Let it answer what is in flight and end; then SIGKILL."""
        if self.child is None or self.child.state == "leaving":
            return
        self.child.state = "leaving"
        self.child.channel.send("stop")
        asyncio.get_running_loop().call_later(STOP_S, self.child.kill)

    async def wait_stopped(self) -> None:
        self.close()
        self.tell_to_stop()
        if self.child is not None:
            await self.child.ended.wait()

    def reopen(self) -> None:
        """Take back `close`: the upgrade that asked for it was given up."""
        self._is_closed = False
        self.start()

    # ------------------------------------------------------------------------- telling

    def send(self, kind: str, payload: bytes = b"", **fields: Any) -> bool:
        """Say something, if anybody is there to hear it."""
        if self.child is None:
            return False
        self.child.channel.send(kind, payload, **fields)
        return True

    def send_admin_sockets(self) -> None:
        if self.child is None:
            return
        rows = self.admin.descriptors()
        self.child.channel.send(
            "admin_sockets",
            b"",
            [fd for row in rows.values() for fd in row],
            binds=list(rows),
            local=self._local,
            addresses=self.admin.addresses(),
        )

    def link(self, worker: Child) -> None:
        """Join a worker and control directly. Either may have just started."""
        if self.child is None:
            return
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self.child.channel.send(
                "link", b"", [ours.fileno()], worker=worker.index, pid=worker.pid
            )
            worker.channel.send("link", b"", [theirs.fileno()])
