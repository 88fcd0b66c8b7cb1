"""An echo worker that holds responses, as far as the tests of purging go.

/cache/I         what the worker with this index was told, by tags and everything
/cache/I/hold    it answers no purge from now on, until it is asked for /cache/I/go
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from typing import Any

from headgate.cache.invalidation import Invalidation
from headgate.state.hub import HubShared
from tests.control.echo_worker import EchoWorker

URL = "http://shop.example/a"


class CachingWorker(EchoWorker):
    told: list[Invalidation]
    go: asyncio.Event

    def take_shared(self, shared: HubShared) -> None:
        self.told = []
        self.go = asyncio.Event()
        self.go.set()
        self.board: list[Invalidation] = []
        shared.subscribe(
            "cache.invalidate", lambda said: self.board.append(Invalidation.from_json(said))
        )

    async def cache_asked(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        if asked["do"] == "inspect":
            held = {"url": asked["url"], "status": 200, "tags": ["a"], "hits": 1, "age_s": 1.0}
            return {"responses": [held] if asked["url"] == URL else []}
        invalidation = Invalidation.from_json(asked["invalidation"])
        if invalidation.is_empty:
            return {"struck": 0}
        await self.go.wait()
        self.told.append(invalidation)
        return {"struck": 5}

    def snapshot(self) -> dict[str, Any]:
        store = {"entries": 2, "bytes": 10, "bytes_max": 100}
        routes = {"shop": {"hit": 3, "miss": 1}}
        return {**super().snapshot(), "cache": {"routes": routes, "store": store}}

    async def answer(self, path: str, writer: asyncio.StreamWriter, close: bool) -> None:
        if not path.startswith("/cache/"):
            await super().answer(path, writer, close)
            return
        index, *words = path.split("/")[2:]
        said: dict[str, Any] = {"pid": os.getpid(), "index": self.index}
        if index == str(self.index):
            if words == ["hold"]:
                self.go.clear()
            elif words == ["go"]:
                self.go.set()
            said["told"] = [each.to_json() for each in self.told]
        text = json.dumps(said)
        writer.write(
            f"HTTP/1.1 200 OK\r\ncontent-length: {len(text)}\r\nconnection: close\r\n\r\n"
            f"{text}".encode()
        )
        await writer.drain()
