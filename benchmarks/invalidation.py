"""How long after an invalidation anybody still gets the old value.

    python -m benchmarks.invalidation [--rounds 200] [--only redis,links,file,hub] [--keep]

Theory of operation. Eight services and one or two gateways with two workers each, all of them
processes on one machine, hold one value. Every service asks its cache without pause, and six
connections ask each gateway, until the new value comes and stays; each notes when the last old one
came. One service changes the source, invalidates, and notes when that began and when it returned. All read
one monotonic clock. A round is over when all have the new value.

    redis   8 services and 2 gateways share a Redis
    links   8 services are linked to one gateway (`GatewayLink`); there is no Redis
    file    8 services share a file; there is no gateway
    hub     one gateway is purged over its admin socket; there is no service with a cache

What is late is counted from the call and from the return; before the return nothing is promised.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from benchmarks.invalidation_page import write_page
from benchmarks.process import Server, free_port
from headgate.cache.gateway_http import Gateway

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "invalidation.json"
SERVICES = 8
CONNECTIONS = 6
PAUSE_S = 0.0005
GIVE_UP_S = 5.0
SETTLE_S = 0.2
SETTLE_PAUSE_S = 0.004
BETWEEN_S = 0.02
TAG = "product:42"


class Service:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def start(cls, url: str, socket: str, db: Path) -> Service:
        words = ["-m", "benchmarks.invalidation_service", url, socket, str(db)]
        return cls(
            await asyncio.create_subprocess_exec(
                sys.executable,
                *words,
                cwd=ROOT,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
        )

    def say(self, *words: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write((" ".join(map(str, words)) + "\n").encode())

    async def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), 60)
        said: dict[str, Any] = json.loads(line)
        return said

    async def ask(self, *words: object) -> dict[str, Any]:
        self.say(*words)
        return await self.hear()

    async def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()


class Connection:
    """A client of a gateway that stays with one worker."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def get(self) -> int:
        if self.reader is None or self.writer is None:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writer.write(b"GET /product HTTP/1.1\r\nhost: bench\r\n\r\n")
        head = await self.reader.readuntil(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
        body = await self.reader.readexactly(length)
        return int(body) if lines[0].startswith(b"http/1.1 200") else -1

    async def watch(self, version: int) -> dict[str, Any]:
        """Goes on after the new value came: a worker may fetch an old one again."""
        last_stale = new_at = 0.0
        until = time.monotonic() + GIVE_UP_S
        while (now := time.monotonic()) < until:
            found = await self.get()
            if found < version:
                last_stale, new_at = time.monotonic(), 0.0
            elif not new_at:
                new_at = now
            elif now - new_at > SETTLE_S:
                return {"last_stale": last_stale, "is_new": True}
            await asyncio.sleep(SETTLE_PAUSE_S if new_at else PAUSE_S)
        return {"last_stale": last_stale, "is_new": False}

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


class Cast:
    """Who takes part in one case."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.db = folder / "db"
        self.db.write_text("0")
        self.services: list[Service] = []
        self.gateways: list[tuple[Server, int, Path]] = []
        self.stack = contextlib.AsyncExitStack()

    def redis(self) -> str:
        program = shutil.which("redis-server") or shutil.which("valkey-server")
        if program is None:
            raise SystemExit("the case redis needs a Redis: apt-get install redis-server")
        port = free_port()
        words = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir"]
        self._server(Server("redis", [program, *words, str(self.folder)],
                            log=self.folder / "redis.log", port=port, cpu=None))  # fmt: skip
        return f"redis://127.0.0.1:{port}/0"

    def _server(self, server: Server) -> None:
        self.stack.callback(server.stop)
        server.wait_ready(60)

    async def serve(self, url: str, socket: str = "none", count: int = SERVICES) -> None:
        for _ in range(count):
            service = await Service.start(url, socket, self.db)
            self.stack.push_async_callback(service.stop)
            self.services.append(service)

    def gateway(self, upstream: int, state: str) -> Path:
        """Its admin socket."""
        folder = self.folder / f"gateway{len(self.gateways)}"
        folder.mkdir()
        port = free_port()
        file = folder / "headgate.yaml"
        file.write_text(
            json.dumps(
                {
                    "listeners": [{"bind": f"127.0.0.1:{port}"}],
                    "admin": {"bind": f"127.0.0.1:{free_port()}"},
                    "workers": 2,
                    "state": state,
                    "access_log": {"format": "off"},
                    "services": {"shop": f"http://127.0.0.1:{upstream}"},
                    "routes": [{"to": "shop"}],
                    "cache": True,
                }
            )
        )
        command = [sys.executable, "-m", "headgate", "run", str(file)]
        server = Server("headgate", command, log=folder / "log", port=port, cpu=None)
        self._server(server)
        self.gateways.append((server, port, folder / ".headgate" / "control.sock"))
        return folder / ".headgate" / "control.sock"

    async def ready(self, has_layer: bool) -> None:
        for _, _, socket in self.gateways:
            admin = Gateway.at(f"unix:{socket}", "")
            until = time.monotonic() + 60
            while time.monotonic() < until:
                with contextlib.suppress(Exception):
                    got = await admin.ask("GET", "/api/cache/stats", None, 5)
                    layer = got.content["layer"]
                    if got.content["workers"] == 2 and (
                        not has_layer or (layer and not layer["is_away"])
                    ):
                        break
                await asyncio.sleep(0.1)
            else:
                raise SystemExit("a gateway is not ready within a minute")


@contextlib.asynccontextmanager
async def cast(case: str, folder: Path) -> AsyncIterator[Cast]:
    made = Cast(folder)
    async with made.stack:
        if case == "redis":
            url = made.redis()
            await made.serve(url)
            for service in made.services[-2:]:
                port = (await service.ask("serve", 0))["port"]
                made.gateway(port, url)
        elif case == "links":
            # Behind the gateway stands a service that is linked to it, as all others are.
            socket = folder / "gateway0" / ".headgate" / "control.sock"
            await made.serve("none", str(socket))
            made.gateway((await made.services[-1].ask("serve", 0))["port"], "memory")
        elif case == "file":
            await made.serve(f"file:{folder}/cache")
        else:
            await made.serve("none", count=1)
            made.gateway((await made.services[0].ask("serve", 1))["port"], "memory")
        await made.ready(has_layer=case == "redis")
        for service in made.services:
            await service.ask("watch", 0)
        yield made


async def purge(made: Cast, admin: Gateway, version: int) -> dict[str, Any]:
    draft = made.folder / "db.draft"
    draft.write_text(str(version))
    draft.replace(made.db)
    began = time.monotonic()
    got = await admin.ask("POST", "/api/cache/purge", {"tags": [TAG]}, 10)
    return {"began": began, "returned": time.monotonic(), "queued": got.status != 200}


async def measure(case: str, rounds: int) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="headgate-bench-") as folder:
        async with cast(case, Path(folder)) as made:
            connections = [
                Connection(port) for _, port, _ in made.gateways for _ in range(CONNECTIONS)
            ]
            for each in connections:
                made.stack.callback(each.close)
            if case == "links":
                await asyncio.sleep(6)  # those that found no gateway yet come back within five
            for version in range(1, rounds + 1):
                rows.append(await one_round(case, made, connections, version))
                await asyncio.sleep(BETWEEN_S)
    return {"rounds": rounds, "rows": rows}


async def one_round(
    case: str, made: Cast, connections: list[Connection], version: int
) -> dict[str, Any]:
    for each in connections:
        await each.get()
    watchers = [] if case == "hub" else made.services[1:]
    for service in watchers:
        service.say("watch", version)
    edges = [asyncio.ensure_future(each.watch(version)) for each in connections]
    await asyncio.sleep(0.005)
    if case == "hub":
        told = await purge(made, Gateway.at(f"unix:{made.gateways[0][2]}", ""), version)
    else:
        told = await made.services[0].ask("tell", version)
    heard = await asyncio.gather(*(service.hear() for service in watchers))
    fetched = await asyncio.gather(*edges)
    if not all(said["is_new"] for said in (*heard, *fetched)):
        raise SystemExit(f"{case}: in round {version} somebody kept the old value: {told}")
    return {
        "queued": told["queued"],
        "took_ms": round((told["returned"] - told["began"]) * 1e3, 3),
        "services_ms": late_ms(heard, told["began"]),
        "gateways_ms": late_ms(fetched, told["began"]),
    }


def late_ms(said: list[dict[str, Any]], began: float) -> float | None:
    """The last old answer of any of them, from the call; 0: none came after it."""
    if not said:
        return None
    late: list[float] = [(each["last_stale"] - began) * 1e3 for each in said]
    return round(max(0.0, *late), 3)


def main() -> None:
    words = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    words.add_argument("--rounds", type=int, default=200)
    words.add_argument("--only", default="redis,links,file,hub")
    words.add_argument("--keep", action="store_true", help="print, and write nothing")
    asked = words.parse_args()
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"cases": {}}
    for case in asked.only.split(","):
        sys.stderr.write(f"{case} ...\n")
        kept["cases"][case] = asyncio.run(measure(case, asked.rounds))
    kept["cores"] = os.cpu_count()
    kept["date"] = time.strftime("%Y-%m-%d")
    kept["load"] = round(os.getloadavg()[0], 1)
    if asked.keep:
        sys.stdout.write(write_page(kept, None))
        return
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n")
    sys.stdout.write(write_page(kept, ROOT / "docs"))


if __name__ == "__main__":
    main()
