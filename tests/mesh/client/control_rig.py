"""A control process of a test's own: the real book and the real stream behind a small server."""

from __future__ import annotations

import asyncio
import json
import re
import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

from headgate.control.registering_watch import Watchers
from headgate.mesh.registry.asked import Asked, Held, Lost, Refused
from headgate.mesh.registry.book import Book
from headgate.mesh.registry.model import Change
from headgate.policy.registering import RegistryRules
from headgate.units import parse_duration
from tests.mesh.client.mesh_rig import Instance, Seen, _read

INSTANCE = re.compile(r"/api/registry/services/([^/]+)/instances/([^/]+)(/beat)?")


class ControlRig:
    def __init__(self, epoch: str = "e1", grace_s: float = 0.0) -> None:
        self.epoch = epoch
        self.grace_s = grace_s
        self.book = Book(epoch, RegistryRules(), self._changed)
        self.watchers = Watchers(self.book)
        self.asked: list[Seen] = []
        self.reports: list[dict[str, Any]] = []
        self.portion: Any = None
        """What it says of the file; None: it knows of no such thing."""
        self.refuses: int = 0
        """Answer everything with this status."""
        self.server: asyncio.Server | None = None
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def _changed(self, changes: Any) -> None:
        found: list[Change] = list(changes)
        self.watchers.tell(found)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def add(self, service: str, instance: Instance | str, id: str = "", **more: Any) -> Held:
        url = instance if isinstance(instance, str) else instance.url
        asked = Asked(service, id or url.rpartition(":")[2], url, **more)
        return self.book.register(asked, time.monotonic(), time.time())

    def remove(self, service: str, held: Held, drain_s: float = 0.0) -> None:
        id_ = held.instance.id
        self.book.leave(service, id_, held.fence, drain_s, time.monotonic(), time.time())

    async def __aenter__(self) -> ControlRig:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        self.server = await asyncio.start_server(self._begin, "127.0.0.1", self.port)
        self.port = self.server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self.server is not None:
            self.server.close()
            self.server = None
        await self.cut()

    async def cut(self) -> None:
        """Break off what is under way."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def begin_anew(self, epoch: str, grace_s: float = 0.0) -> None:
        """Another control process in the same place."""
        self.epoch, self.grace_s = epoch, grace_s
        self.book = Book(epoch, RegistryRules(), self._changed)
        self.watchers = Watchers(self.book)

    @property
    def watched(self) -> list[Seen]:
        return [each for each in self.asked if each.path == "/api/registry/watch"]

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (seen := await _read(reader)) is not None:
                self.asked.append(seen)
                if seen.path == "/api/registry/watch" and not self.refuses:
                    await self._watch(seen, writer)
                    return
                status, content = (self.refuses, {"detail": "not today"})
                if not self.refuses:
                    status, content = self._answer(seen)
                    if seen.path == "/api/mesh/sidecar" and self.portion is not None:
                        status, content = 200, await self._said(seen)
                body = b"" if status == 204 else json.dumps(content).encode()
                head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n"
                writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            writer.transport.abort()

    async def _watch(self, seen: Seen, writer: asyncio.StreamWriter) -> None:
        query = parse_qs(urlsplit(seen.target).query)
        services = [name for name in query.get("services", [""])[0].split(",") if name]
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        last_id = seen.headers.get("last-event-id", "")
        events = self.watchers.watch(last_id, services, self.grace_s)
        try:
            async for part in events:
                if writer.transport.is_closing():
                    return
                writer.write(part)
                await writer.drain()
        finally:
            await events.aclose()

    async def _said(self, seen: Seen) -> Any:
        known = parse_qs(urlsplit(seen.target).query).get("known", [""])[0]
        while (tag := str(abs(hash(json.dumps(self.portion))))) == known:
            await asyncio.sleep(0.005)
        return {"tag": tag, "portion": self.portion}

    def _answer(self, seen: Seen) -> tuple[int, Any]:
        if seen.path == "/api/mesh/report":
            self.reports.append(json.loads(seen.body))
            return 204, None
        found = INSTANCE.fullmatch(seen.path)
        if found is None:
            return 404, {"detail": "nothing here"}
        service, id_, beat = found.groups()
        body = json.loads(seen.body) if seen.body else {}
        now, wall = time.monotonic(), time.time()
        got: Held | Lost
        if beat:
            got = self.book.beat(service, id_, body["fence"], now, wall, body.get("health", "up"))
        elif seen.method == "DELETE":
            query = parse_qs(urlsplit(seen.target).query)
            drain_s = parse_duration(query["drain"][0])
            got = self.book.leave(service, id_, int(query["fence"][0]), drain_s, now, wall)
        else:
            port = body.pop("port", None)
            url = body.pop("url", None) or f"http://127.0.0.1:{port}"
            try:
                got = self.book.register(
                    Asked(service, id_, url, ttl_s=body.pop("ttl", None), **body), now, wall
                )
            except Refused as error:
                return 422, {"detail": str(error)}
        if isinstance(got, Lost):
            return (409 if got.why == "fenced" else 404), {"detail": got.says, "lost": got.why}
        return 200, {
            "instance": got.instance.to_json(),
            "fence": got.fence,
            "ttl_s": got.ttl_s,
            "beat_every_s": got.beat_every_s,
        }
