"""Clients with little patience: `python -m benchmarks.clients.hurried PORT PATIENCE SEED PHASE...`.

Theory of operation
-------------------
A PHASE is `SECONDS:RATE`. Requests are due at random moments (Poisson) at that rate, whatever becomes
of those before. Each is asked on a kept connection, or on a new one where none is free, and given up
PATIENCE seconds after it was due: then its connection is closed, as a browser does. Nobody asks
again, so what is measured is what the gateway makes of the load and not what the load makes of itself.

A request is of one of three paths by chance: `/first/` 20 %, `/usual/` 60 %, `/last/` 20 %. On standard
output comes one line of JSON: for each request when it was due, how long it took, its path's letter,
and what came of it (`good`, `refused`, `late`, `broken`).

`RATE` 0 stands for a closed loop of 32 that ask again at once: how much is there to be had?
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from collections import deque
from random import Random
from time import monotonic
from typing import Final

import uvloop

Row = tuple[float, float, str, str]

CLOSED_LOOP: Final = 32
_SWEEP_S: Final = 0.01
_PATHS: Final = {"f": "/first/", "u": "/usual/", "l": "/last/"}
_ASK: Final = {
    letter: (
        f"GET {path}items HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\n\r\n"
    ).encode()
    for letter, path in _PATHS.items()
}
_REFUSALS: Final = frozenset({429, 503})


class Asking(asyncio.Protocol):
    """One connection, with at most one request on it."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self._data = bytearray()
        self._need = 0
        self._status = 0
        self.due = 0.0
        self.letter = ""
        self.is_asking = False
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        made: asyncio.Transport = transport  # type: ignore[assignment]
        self.transport = made
        if self.is_asking:
            self._send()
        else:
            made.abort()  # given up before there was a connection

    def ask(self, due: float, letter: str) -> None:
        self.due, self.letter, self.is_asking = due, letter, True
        if self.transport is not None:
            self._send()

    def _send(self) -> None:
        if self.transport is not None:
            self.transport.write(_ASK[self.letter])

    def data_received(self, data: bytes) -> None:
        self._data += data
        if not self._need:
            end = self._data.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self._data[:end]).lower()
            self._status = int(head[9:12])
            at = head.find(b"content-length:")
            if at >= 0:
                stop = head.find(b"\r", at)
                length = int(head[at + 15 : stop if stop > 0 else end])
                self._need = end + 4 + length
            else:
                self._need = -1  # chunked: its last piece is what an answer ends with
        is_whole = (
            self._data.endswith(b"0\r\n\r\n") if self._need < 0 else len(self._data) >= self._need
        )
        if is_whole and self.is_asking:
            self._data.clear()
            self._need = 0
            said = "good" if self._status == 200 else "broken"
            self._end("refused" if self._status in _REFUSALS else said)
            self._crowd.idle.append(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self.is_asking:
            self._end("broken")
        elif self in self._crowd.idle:
            self._crowd.idle.remove(self)

    def give_up(self) -> None:
        self._end("late")
        if self.transport is not None:
            self.transport.abort()

    def fail(self) -> None:
        """There was no connection to be had."""
        if self.is_asking:
            self._end("broken")

    def _end(self, what: str) -> None:
        self.is_asking = False
        self._crowd.ended(self, what)


class Crowd:
    def __init__(self, port: int, patience_s: float, seed: int) -> None:
        self._port = port
        self._patience_s = patience_s
        self._rng = Random(seed)
        self._began = 0.0
        self._waiting: deque[tuple[float, Asking]] = deque()
        self._connecting: set[asyncio.Task[None]] = set()
        self._is_closed_loop = False
        self.idle: deque[Asking] = deque()
        self.rows: list[Row] = []

    async def run(self, phases: list[tuple[float, float]]) -> None:
        loop = asyncio.get_running_loop()
        self._began = at = monotonic() + 0.1
        sweeping = loop.create_task(self._sweep())
        for seconds, rate in phases:
            until = at + seconds
            if not rate:
                await self._closed(until)
                at = until
                continue
            while (at := at + self._rng.expovariate(rate)) < until:
                # Also when it is behind: answers have to be read meanwhile.
                await asyncio.sleep(max(at - monotonic(), 0.0))
                self._ask(at)
            at = until
        while self._waiting:
            await asyncio.sleep(_SWEEP_S)
        sweeping.cancel()

    async def _closed(self, until: float) -> None:
        self._is_closed_loop = True
        for _ in range(CLOSED_LOOP):
            self._ask(monotonic())
        await asyncio.sleep(until - monotonic())
        self._is_closed_loop = False

    def _ask(self, due: float) -> None:
        letter = self._rng.choices("ful", (20, 60, 20))[0]
        if self.idle:
            asking = self.idle.pop()
        else:
            asking = Asking(self)
            task = asyncio.get_running_loop().create_task(self._connect(asking))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)
        self._waiting.append((due, asking))
        asking.ask(due, letter)

    async def _connect(self, asking: Asking) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: asking, "127.0.0.1", self._port)
        except OSError:
            asking.fail()

    async def _sweep(self) -> None:
        """All have the same patience, so those who were due first are out of it first."""
        while True:
            await asyncio.sleep(_SWEEP_S)
            over = monotonic() - self._patience_s
            waiting = self._waiting
            while waiting and (
                waiting[0][0] <= over
                or not waiting[0][1].is_asking
                or waiting[0][1].due != waiting[0][0]
            ):
                due, asking = waiting.popleft()
                if asking.is_asking and asking.due == due:
                    asking.give_up()

    def ended(self, asking: Asking, what: str) -> None:
        took = monotonic() - asking.due
        if what == "good" and took > self._patience_s:
            what = "late"  # it came, and nobody waits for it any more
        self.rows.append((asking.due - self._began, took, asking.letter, what))
        if self._is_closed_loop:
            asyncio.get_running_loop().call_soon(self._ask, monotonic())


async def _main() -> None:
    port, patience_s, seed = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    phases = [
        (float(seconds), float(rate))
        for seconds, _, rate in (said.partition(":") for said in sys.argv[4:])
    ]
    crowd = Crowd(port, patience_s, seed)
    gc.collect()
    gc.disable()
    await crowd.run(phases)
    rows = [(round(due, 4), round(took, 4), letter, what) for due, took, letter, what in crowd.rows]
    sys.stdout.write(json.dumps(rows))


if __name__ == "__main__":
    uvloop.run(_main())
