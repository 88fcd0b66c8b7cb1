"""Our end of the socket to the wings, the process that holds all others."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from headgate_shop.stage.wings import PACKET_BYTES

__all__ = ["Link"]

_ONE_THREAD: Final = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""What computes must not start threads when it is imported: they would be lost in a fork."""
_STRIPPED: Final = ("SHOP_", "HEADGATE_", "OTEL_")
"""What was meant for others."""


class Link:
    def __init__(
        self, on_news: Callable[[Mapping[str, Any]], None], on_lost: Callable[[], None]
    ) -> None:
        self._on_news = on_news
        self._on_lost = on_lost
        self._sock: socket.socket | None = None
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    async def open(self, log: Path, *, remove: Path | None) -> None:
        """Start the wings; `remove` is a folder that goes with them."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            argv = [sys.executable, "-P", "-m", "headgate_shop.stage.wings"]
            argv += ["--socket", str(theirs.fileno())]
            if remove is not None:
                argv += ["--remove", str(remove)]
            environment = {
                name: value for name, value in os.environ.items() if not name.startswith(_STRIPPED)
            }
            with log.open("wb") as out:
                self._process = await asyncio.create_subprocess_exec(
                    *argv,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    pass_fds=[theirs.fileno()],
                    env={**environment, **_ONE_THREAD},
                )
        ours.setblocking(False)
        self._sock = ours
        asyncio.get_running_loop().add_reader(ours, self._listen)

    def send(self, order: Mapping[str, Any]) -> None:
        """Orders are few and small; a socket that takes none has nobody at its other end."""
        if self._sock is None:
            return
        try:
            self._sock.send(json.dumps(order).encode())
        except OSError:
            self._on_lost()

    def _listen(self) -> None:
        while self._sock is not None:
            try:
                data = self._sock.recv(PACKET_BYTES)
            except BlockingIOError:
                return
            except ConnectionError:
                data = b""
            if not data:
                asyncio.get_running_loop().remove_reader(self._sock)
                self._on_lost()
                return
            self._on_news(json.loads(data))

    async def close(self, within_s: float) -> None:
        """They end what is left, and go."""
        if self._sock is not None:
            asyncio.get_running_loop().remove_reader(self._sock)
            self._sock.close()
            self._sock = None
        if self._process is None:
            return
        try:
            async with asyncio.timeout(within_s):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
