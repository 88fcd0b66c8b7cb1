"""The part of a gateway's admin API that a linked cache speaks to."""

from __future__ import annotations

import asyncio
import json
from types import TracebackType
from typing import Self


class AdminApi:
    def __init__(self) -> None:
        self.purged: set[str] = set()
        self.tokens: set[str] = set()
        self.is_away = False
        self._stamp = 1
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            fields = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
            body = await reader.readexactly(int(fields.get("content-length", 0)))
            status, answer = self._answer(head[0], fields, body)
            content = json.dumps(answer).encode()
            writer.write(
                f"HTTP/1.0 {status} x\r\ncontent-type: application/json\r\n"
                f"content-length: {len(content)}\r\n\r\n".encode()
                + content
            )
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def _answer(self, line: str, fields: dict[str, str], body: bytes) -> tuple[int, object]:
        if self.is_away:
            return 503, {"detail": "away"}
        if not line.startswith("POST /api/cache/purge"):
            return 404, {"detail": "not here"}
        self.tokens.add(fields.get("authorization", "").replace("bearer", "Bearer"))
        self.purged.update(json.loads(body).get("tags", ()))
        self._stamp += 1
        told = {"stamp": self._stamp, "responses": 0, "workers": 1, "workers_of": 1, "silent": []}
        more = {"others": "none", "why": "", "queued": False, "listeners": 0, "complete": True}
        return 200, told | more
