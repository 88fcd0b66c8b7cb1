"""One of the services that `benchmarks.invalidation` asks; a line in, a line out.

    python -m benchmarks.invalidation_service URL|none ADMIN_SOCKET|none DB

`DB` holds the version of everything. It caches what it loads under one key with one tag.

    watch N     ask the cache without pause until the answer is N; say when the last older one came
    tell N      write N, invalidate, and say when that began and returned
    serve N     a port: HTTP, what the cache holds, tagged; what `DB` says if N is 1
Times are `CLOCK_MONOTONIC`, which all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

from headgate.cache import Cache
from headgate.cache.gateway_link import GatewayLink

TAG = "product:42"
PAUSE_S = 0.0005
GIVE_UP_S = 5.0


class Service:
    def __init__(self, url: str, socket: str, db: str) -> None:
        links = [] if socket == "none" else [GatewayLink(f"unix:{socket}")]
        place = None if url == "none" else url
        self.cache = Cache(place, links=links, ttl="1h", early=0, jitter=0)
        self.db = Path(db)
        self.ask = self.get

    async def load(self) -> int:
        return int(self.db.read_text())

    async def get(self) -> int:
        found: int = await self.cache.get_or_set("product", self.load, tags=[TAG])
        return found

    async def watch(self, version: int) -> dict[str, Any]:
        last_stale = 0.0
        until = time.monotonic() + GIVE_UP_S
        while time.monotonic() < until:
            found = await self.get()
            now = time.monotonic()
            if found >= version:
                return {"last_stale": last_stale, "is_new": True}
            last_stale = now
            await asyncio.sleep(PAUSE_S)
        return {"last_stale": last_stale, "is_new": False}

    async def tell(self, version: int) -> dict[str, Any]:
        draft = self.db.with_suffix(".draft")
        draft.write_text(str(version))
        draft.replace(self.db)
        began = time.monotonic()
        done = await self.cache.invalidate(tags=[TAG])
        return {"began": began, "returned": time.monotonic(), "queued": done.is_queued}

    async def serve(self, is_fresh: int) -> dict[str, Any]:
        self.ask = self.load if is_fresh else self.get
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        return {"port": server.sockets[0].getsockname()[1]}

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                body = str(await self.ask()).encode()
                head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\ncache-tag: {TAG}\r\n"
                writer.write(head.encode() + b"cache-control: max-age=3600\r\n\r\n" + body)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


async def main(url: str, socket: str, db: str) -> None:
    service = Service(url, socket, db)
    loop = asyncio.get_running_loop()
    async with service.cache:
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            word, *rest = line.split()
            said = await getattr(service, word)(*map(int, rest))
            sys.stdout.write(json.dumps(said) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
