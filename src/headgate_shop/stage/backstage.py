"""The process behind a stage: it starts everything in order, and keeps it running.

Theory of operation
-------------------
    front       a test, a benchmark, `headgate demo`: it started us and holds our standard input
    backstage   we: one loop, the stage's API, the mail catcher; decide, and touch no service
    wings       our child and the parent of all others (`wings`); does what we say

Our standard input ends when the front does, however it ended; then we end everything. What we do is
told on standard output, a line of JSON each (`progress`).

The order of a start goes by what waits for what. The wings import the shop meanwhile keys and files
are made and real servers start; the gateway needs the services' documents, which are made again
only when the code has changed; services need the imports, and those that begin with
data have it made first, each in a process of its own. It is ready when each service is, and the
gateway answers for them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

from headgate_shop.base.settings import SERVICES
from headgate_shop.stage import asking
from headgate_shop.stage.environments import Environments
from headgate_shop.stage.layout import Layout, Reserved, fingerprint, reserve
from headgate_shop.stage.players import Player
from headgate_shop.stage.progress import step, tell
from headgate_shop.stage.seeding import wanted
from headgate_shop.stage.troupe import READY_S, Failed, Troupe, answering

__all__ = ["Backstage", "main"]

HOST: Final = "127.0.0.1"
END_S: Final = 12.0
BURST_S: Final = 180.0
"""A rate of traffic above the usual one falls back after this long without a word."""
LOG_BYTES: Final = 32 << 20
_LOOK_S: Final = 10.0
_ASK_S: Final = 0.1
_WALL: Final = time.time  # noqa: TID251  when a mail came is wall time


class Backstage:
    def __init__(self, options: argparse.Namespace, layout: Layout, *, is_temporary: bool) -> None:
        self._options = options
        self._layout = layout
        self._is_temporary = is_temporary
        self._began = time.monotonic()
        self._leave = asyncio.Event()
        self._trouble = ""
        self._troupe = Troupe(layout, self._fail)
        self._reserved = Reserved()
        self._told = Environments(layout, {}, float(options.traffic), options.workers)
        self._made_of = ""
        self._filled = {room: asyncio.Event() for room in wanted()}
        """Services that have something to begin with; set when they have it."""
        self._rate = float(options.traffic)
        self._rate_set = 0.0

    # -- the life of it ------------------------------------------------------------------------

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(signum, self._leave.set)
        loop.add_reader(0, self._heard)
        starting: asyncio.Task[None] | None = None
        try:
            remove = self._layout.folder if self._is_temporary else None
            await self._troupe.link.open(self._layout.log("stage"), remove=remove)
            starting = loop.create_task(self._start(), name="start")
            starting.add_done_callback(self._started)
            await self._leave.wait()
        finally:
            if starting is not None:
                starting.cancel()
                await asyncio.gather(starting, return_exceptions=True)
            await self._end()
        if self._trouble:
            raise Failed(self._trouble)

    def _heard(self) -> None:
        """Nothing is ever said on our standard input; it ends when the front does."""
        if not os.read(0, 4096):
            asyncio.get_running_loop().remove_reader(0)
            self._leave.set()

    def _started(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or (error := task.exception()) is None:
            return
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]  # of what went wrong together, what went wrong first
        self._fail(f"{error}" if isinstance(error, Failed) else f"start: {error!r}")

    def _fail(self, why: str) -> None:
        self._trouble = self._trouble or why
        self._leave.set()

    async def _end(self) -> None:
        """Visitors first, then the gateway, then what is behind it, then what that stands on."""
        with step("end"):
            groups = (["traffic"], ["gateway"], SERVICES, tuple(self._told.peers))
            await self._troupe.end(groups, END_S)
        self._reserved.close()
        if self._is_temporary:
            shutil.rmtree(self._layout.folder, ignore_errors=True)

    # -- the start -----------------------------------------------------------------------------

    async def _start(self) -> None:
        with step("prepare"):
            is_fresh = await asyncio.to_thread(self._prepare)
        async with self._servers():
            async with asyncio.TaskGroup() as group:
                group.create_task(self._start_peers(), name="peers")
                group.create_task(self._wait_imports(), name="imports")
            async with asyncio.TaskGroup() as group:
                group.create_task(self._start_gateway(is_fresh=is_fresh), name="gateway")
                group.create_task(self._start_services(), name="services")
                group.create_task(self._seed(), name="seeds")
            with step("open"):
                await self._wait_open()
            if self._rate:
                self._let_visitors_in()
            self._tell_ready()
            while True:
                await asyncio.sleep(_LOOK_S)
                self._look()

    def _prepare(self) -> bool:
        """Whether the documents of the services are those of this code."""
        self._layout.prepare()
        extra = tuple(self._options.peers)
        rng = random.SystemRandom()
        self._reserved = reserve(self._layout, self._options.port, extra=extra, rng=rng)
        self._told.ports = self._reserved.ports
        self._made_of = fingerprint()
        mark = self._layout.documents / "made-of"
        is_fresh = mark.exists() and mark.read_text() == self._made_of
        if not is_fresh:
            mark.unlink(missing_ok=True)
        return is_fresh

    @contextlib.asynccontextmanager
    async def _servers(self) -> AsyncIterator[None]:
        """The stage's API and the mail catcher."""
        # Loaded now: the wings are importing meanwhile, and each has a core.
        from headgate_shop.stage import api, listening, mail

        mails = mail.MailCatcher(_WALL)
        ports = self._reserved.ports
        app = api.application(self, mails, self._layout.token("stage"))
        loop = asyncio.get_running_loop()
        catcher = await loop.create_server(mails.protocol, HOST, ports["mail"])
        async with catcher, listening.served(app, HOST, ports["stage"]):
            yield

    async def _wait_imports(self) -> None:
        with step("import"):
            await self._troupe.imported

    async def _start_peers(self) -> None:
        from headgate_shop.stage import peers

        for name in self._options.peers:
            with step(name):
                port = self._reserved.ports[name]
                try:
                    found = await asyncio.to_thread(
                        peers.prepare, name, self._layout, self._reserved.ports
                    )
                except peers.PeerMissing as error:
                    raise Failed(str(error)) from error
                order = self._troupe.program(
                    name, found.argv, {}, folder=found.folder, user=found.user
                )
                probe = peers.probe(name, port)
                player = Player(
                    name, order, port, probe, is_service=False, end_signal=found.end_signal
                )
                await self._troupe.wait_for([self._troupe.begin(player)])
                self._told.peers[name] = found.url

    async def _start_gateway(self, *, is_fresh: bool) -> None:
        layout, troupe = self._layout, self._troupe
        if not is_fresh:
            with step("describe"):
                environment = self._told.service("storefront")
                environment["SHOP_DOCUMENTS"] = str(layout.documents)
                await troupe.do("describe", troupe.fork("describe", "describe", environment))
                (layout.documents / "made-of").write_text(self._made_of)
        with step("gateway"):
            argv = (sys.executable, "-P", "-m", "headgate", "run", layout.gateway_file.name)
            port = self._reserved.ports["gateway"]
            order = troupe.program("gateway", argv, self._told.gateway(), folder=layout.folder)
            probe = answering(port, "/up")
            player = troupe.begin(Player("gateway", order, port, probe, is_service=False))
            await troupe.wait_for([player])

    async def _start_services(self) -> None:
        troupe, ports = self._troupe, self._reserved.ports
        up = 0
        with step("services", of=len(SERVICES)) as progress:

            async def serve(name: str) -> None:
                nonlocal up
                # A seed writes for seconds, and two that write wait for each other.
                if filled := self._filled.get(name.removesuffix("-next")):
                    await filled.wait()
                order = troupe.fork(name, "serve", self._told.service(name))
                probe = answering(ports[name], "/health/ready")
                await troupe.wait_for([troupe.begin(Player(name, order, ports[name], probe))])
                up += 1
                progress(up, name)

            async with asyncio.TaskGroup() as group:
                for name in SERVICES:
                    group.create_task(serve(name), name=f"start {name}")

    async def _seed(self) -> None:
        folder = self._layout.folder / "seeded"
        folder.mkdir(exist_ok=True)
        rooms = tuple(self._filled)
        with step("data", of=len(rooms)) as progress:
            done = 0

            async def fill(room: str) -> None:
                nonlocal done
                mark = folder / f"{room}.{self._options.size}.json"
                if not mark.exists():
                    environment = self._told.service(room)
                    environment |= {"SHOP_SEED": self._options.size, "SHOP_SEEDED": str(mark)}
                    key = f"seed-{room}"
                    await self._troupe.do(key, self._troupe.fork(key, "seed", environment))
                self._filled[room].set()
                done += 1
                progress(done, room)

            async with asyncio.TaskGroup() as group:
                for room in rooms:
                    group.create_task(fill(room), name=f"seed {room}")

    async def _wait_open(self) -> None:
        """Until the gateway answers for the services, and knows the keys of users' tokens."""
        port = self._reserved.ports["gateway"]
        until = time.monotonic() + READY_S
        for path, status, token in (
            ("/api/products?limit=1", 200, ""),
            ("/", 200, ""),
            ("/api/users/profile", 401, "not-a-token"),
        ):
            while not await asking.answers(port, path, status, token=token):
                if time.monotonic() > until:
                    raise Failed(f"the gateway does not answer {path} with {status}")
                await asyncio.sleep(_ASK_S)

    def _let_visitors_in(self) -> None:
        order = self._troupe.fork("traffic", "traffic", self._told.traffic())
        self._troupe.begin(Player("traffic", order, 0, answering(0), is_service=False))

    def _tell_ready(self) -> None:
        tell(
            step="ready",
            took_s=round(time.monotonic() - self._began, 2),
            folder=str(self._layout.folder),
            is_temporary=self._is_temporary,
            url=self._told.url,
            admin_url=self._told.admin_url,
            operator_token=self._layout.token("operator"),
            stage_url=self._told.stage_url,
            stage_token=self._layout.token("stage"),
            pid=os.getpid(),
            wings=self._troupe.link.pid,
            peers=self._told.peers,
        )

    # -- Steering: what the API asks -----------------------------------------------------------

    def names(self) -> tuple[str, ...]:
        return tuple(one.name for one in self._troupe)

    def state(self) -> dict[str, Any]:
        self._fall_back()
        redis = self._troupe.get("redis")
        report: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            report = json.loads(self._layout.traffic_report.read_text())
        return {
            "services": [
                one.to_json() for name in SERVICES if (one := self._troupe.get(name)) is not None
            ],
            "others": [one.to_json() for one in self._troupe if not one.is_service],
            "traffic": {**report, "rate": self._rate, "base": self._told.rate},
            "redis": None if redis is None else {"state": redis.state},
            "url": self._told.url,
        }

    def kill(self, name: str) -> None:
        self._troupe.kill(name)

    def stop(self, name: str, for_s: float | None) -> None:
        self._troupe.stop(name, for_s)

    def start(self, name: str) -> None:
        self._troupe.start(name)

    def set_traffic(self, rate: float | None) -> None:
        self._rate = self._told.rate if rate is None else float(rate)
        self._rate_set = time.monotonic()
        fresh = self._layout.traffic_order.with_suffix(".new")
        fresh.write_text(json.dumps({"rate": self._rate}))
        fresh.rename(self._layout.traffic_order)
        if self._rate and self._troupe.get("traffic") is None:
            self._let_visitors_in()

    def _fall_back(self) -> None:
        if self._rate > self._told.rate and time.monotonic() - self._rate_set > BURST_S:
            self.set_traffic(None)

    def _look(self) -> None:
        """Now and then: a burst that was forgotten, logs that grow."""
        self._fall_back()
        for log in (self._layout.folder / "logs").iterdir():
            with contextlib.suppress(OSError):
                if log.stat().st_size > LOG_BYTES:
                    os.truncate(log, 0)  # whoever writes appends


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="headgate_shop.stage.backstage")
    parser.add_argument("--size", choices=("tiny", "demo"), default="demo")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--traffic", type=float, default=0.0)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--with", dest="peers", action="append", default=[])
    options = parser.parse_args(arguments)
    is_temporary = options.data is None
    folder = Path(tempfile.mkdtemp(prefix="headgate-shop-")) if is_temporary else options.data
    layout = Layout(folder.absolute())
    (layout.folder / "logs").mkdir(parents=True, exist_ok=True)
    os.set_blocking(1, False)  # somebody who does not read must not hold us up

    async def run() -> None:
        await Backstage(options, layout, is_temporary=is_temporary).run()

    try:
        asyncio.run(run())
    except Failed as error:
        tell(step="failed", why=str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
