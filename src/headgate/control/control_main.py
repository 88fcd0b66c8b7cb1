"""The control process: its channel, its admin listeners and its end."""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import gc
import logging
import os
import signal
import socket
import sys
import time

from fastapi import FastAPI

from headgate.control import process_logs
from headgate.control.admin.app import make_api, make_app
from headgate.control.admin.server import AdminServer
from headgate.control.channel import Channel, Message
from headgate.control.children import die_with_parent, name_process
from headgate.control.control import Control
from headgate.control.current import Start
from headgate.observe import logs

__all__ = ["ControlProcess", "main"]

STOP_S = 2.0

log = logging.getLogger("headgate.control")


class ControlProcess:
    """Dispatches what the supervisor says. Messages before "start" are none of ours."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = Channel(channel, self._heard, _end_at_once)
        self._control: Control | None = None
        self._servers: dict[str, AdminServer] = {}
        self._unserved: dict[str, socket.socket] = {}
        self._api: FastAPI | None = None
        self._local = ""
        self._done = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[object]] = set()

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(signum, signal.SIG_IGN)
        # The supervisor says when we end; a SIGTERM meant for us alone is a restart.
        loop.add_signal_handler(signal.SIGTERM, self._stop)
        self._channel.start()
        await self._done
        if self._control is not None:
            self._control.caching.hush()
            self._control.access.streams.close()
            self._control.registry.streams.close()
        for server in self._servers.values():
            server.stop()
        deadline = loop.time() + STOP_S
        for server in self._servers.values():
            await server.wait_stopped(max(0.0, deadline - loop.time()))
        if self._control is not None:
            await self._control.watch.close()
            await self._control.end()
        for task in self._tasks:
            task.cancel()
        return 0

    def _stop(self) -> None:
        if not self._done.done():
            self._done.set_result(None)

    def _spawn(self, work: object, name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)  # type: ignore[arg-type, var-annotated]  # every caller passes a coroutine
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("%s failed", task.get_name(), exc_info=task.exception())

    def _heard(self, message: Message) -> None:
        if message.kind == "start":
            self._start(message)
            return
        control = self._control
        if control is None:
            log.warning("the supervisor said %r before it said start", message.kind)
            return
        match message.kind:
            case "admin_sockets":
                self._spawn(self._serve(control, message), "admin sockets")
            case "workers":
                control.workers = message.fields["workers"]
                control.workers_at = time.monotonic()
                control.control_crashes = message.fields["control_crashes"]
            case "link":
                pid = message.fields["pid"]
                control.hub.connect(message.fields["worker"], pid, message.fds[0])
                control.caching.linked(control.hub.links[pid])
            case "reload":
                self._spawn(control.reload(message.fields["reason"]), "reload")
            case "committed":
                control.committed(message)
            case "draining":
                control.is_draining = True
            case "stop":
                self._stop()
            case "logs":
                control.logs.told_by_supervisor(message.fields["event"])
            case "reopen_logs":
                logs.reopen()
            case _:
                log.warning("the supervisor said %r, which means nothing", message.kind)

    def _start(self, message: Message) -> None:
        try:
            self._control = Control(Start.of(message), message.payload, self._channel)
            self._control.begin()
        except Exception:
            # To the supervisor a crash, to be tried again ever more seldom: there is no use in a
            # control process that has not begun.
            log.exception("control cannot start")
            logs.flush()
            os._exit(70)
        self._spawn(self._control.hub.poll(), "poll")

    async def _serve(self, control: Control, message: Message) -> None:
        """Serve on the sockets that we were given, and only there."""
        binds: list[str] = message.fields["binds"]
        local: str = message.fields["local"]
        self._local = local
        control.access.on_change = lambda: self._spawn(self._renew(control), "admin servers")
        for bind, fd in zip(binds, message.fds, strict=True):
            if bind in self._servers or bind in self._unserved:
                os.close(fd)
                continue
            await self._serve_one(control, bind, socket.socket(fileno=fd), is_local=bind == local)
        for bind in self._servers.keys() - set(binds):
            self._servers.pop(bind).stop()
        for bind in self._unserved.keys() - set(binds):
            self._unserved.pop(bind).close()
        public = [bind for bind in binds if bind != local]
        addresses: dict[str, str] = message.fields["addresses"]
        control.admin_address = addresses.get(public[0]) if public else None
        control.write_instance()
        self._channel.send("ready")

    async def _serve_one(
        self, control: Control, bind: str, sock: socket.socket, *, is_local: bool
    ) -> None:
        tls = None if is_local else control.access.tls
        if tls is None and control.access.wants_tls and not is_local:
            # Its certificate cannot be had; health says so, and plain text would betray tokens.
            self._unserved[bind] = sock
            return
        api = self._api = self._api or make_api(control)
        server = AdminServer(make_app(api, control, is_local=is_local, bind=bind), tls)
        await server.start(sock)
        self._servers[bind] = server

    async def _renew(self, control: Control) -> None:
        """After a reload: servers that have to begin or end to speak TLS."""
        for bind, server in tuple(self._servers.items()):
            if bind == self._local or server.tls is control.access.tls:
                continue
            sock = server.hand_over()
            if sock is not None:
                del self._servers[bind]
                await self._serve_one(control, bind, sock, is_local=False)
        for bind in tuple(self._unserved):
            await self._serve_one(control, bind, self._unserved.pop(bind), is_local=False)


def _end_at_once() -> None:
    os._exit(1)  # the supervisor is gone; the workers end too


async def _run(channel: socket.socket) -> int:
    return await ControlProcess(channel).run()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="headgate.control.control_main")
    parser.add_argument("--channel", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    options = parser.parse_args(arguments)
    die_with_parent(options.parent)
    os.set_inheritable(options.channel, False)
    name_process("headgate-ctl")
    faulthandler.enable()
    process_logs.begin("control")
    gc.freeze()
    return asyncio.run(_run(socket.socket(fileno=options.channel)))


if __name__ == "__main__":
    sys.exit(main())
