"""A service as a process of its own: NAME PORT FOLDER CACHE_URL|none ADMIN_SOCKET|none.

`FOLDER/db` holds the version of everything. What is asked for is cached by its path, tagged with
it, and answered with both; the response carries the tag. While `FOLDER/hold-NAME` exists, loads
that have read the version stop; `FOLDER/held-NAME` has a letter for each.

    GET  /product:42            from the cache, or loaded
    GET  /raw/product:42        loaded each time: a slow upstream
    GET  /peek/product:42       what the cache holds, and nothing else
    POST /invalidate/product:42 and `?soft`: forget the tag, everywhere
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import uvicorn

from headgate.cache import Cache
from headgate.cache.asgi import CacheHeaders, CacheRule, tag_response
from headgate.cache.gateway_link import GatewayLink

LONG = "public, max-age=3600, stale-while-revalidate=3600"


class Service:
    def __init__(self, name: str, folder: Path, url: str, socket: str) -> None:
        self.name = name
        self.folder = folder
        links = [] if socket == "none" else [GatewayLink(f"unix:{socket}", name=name)]
        self.cache = Cache(
            None if url == "none" else url,
            links=links,
            ttl="1h",
            jitter=0,
            early=0,
        )

    async def load(self) -> str:
        version = (self.folder / "db").read_text()
        hold, held = self.folder / f"hold-{self.name}", self.folder / f"held-{self.name}"
        if hold.exists():
            with held.open("a") as file:
                file.write("x")
        while hold.exists():
            await asyncio.sleep(0.005)
        return version

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self.live(receive, send)
            return
        _, *words = scope["path"].split("/")
        tag = words[-1]
        match words:
            case ["invalidate", _]:
                done = await self.cache.invalidate(
                    tags=[tag], soft=scope["query_string"] == b"soft"
                )
                said = json.dumps({"queued": done.is_queued})
            case ["peek", _]:
                said = json.dumps(await self.cache.get(tag))
            case ["raw", _]:
                tag_response(tag)
                said = f"{tag} v{await self.load()} from {self.name}"
            case [_]:
                tag_response(tag)
                value = await self.cache.get_or_set(tag, self.load, tags=[tag])
                said = f"{tag} v{value} from {self.name}"
            case _:
                raise ValueError(scope["path"])
        body = said.encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def live(self, receive: Any, send: Any) -> None:
        await receive()
        await self.cache.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.cache.close()
        await send({"type": "lifespan.shutdown.complete"})


def main(name: str, port: str, folder: str, url: str, socket: str) -> None:
    service = Service(name, Path(folder), url, socket)
    rules = [
        CacheRule("no-store", path="/peek/*"),
        CacheRule("no-store", path="/invalidate/*"),
        CacheRule(LONG, path="/*"),
    ]
    app = CacheHeaders(service, rules=rules)
    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning", lifespan="on")


if __name__ == "__main__":
    main(*sys.argv[1:])
