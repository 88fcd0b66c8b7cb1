"""A TCP proxy with a delay: `python -m benchmarks.clients.slow_proxy PORT TARGET_PORT`.

A line on standard input changes what it does from now on:

    delay SECONDS   what the server says arrives so much later
    cut             break off all connections now

It ends with its standard input.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

CHUNK = 65_536


class Proxy:
    def __init__(self, target: int) -> None:
        self._target = target
        self.delay_s = 0.0
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, thither = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._open |= {writer, thither}
        back = asyncio.get_running_loop().create_task(self._pass(there, writer, is_late=True))
        self._tasks.add(back)
        back.add_done_callback(self._tasks.discard)
        await self._pass(reader, thither, is_late=False)
        self._open -= {writer, thither}

    async def _pass(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, is_late: bool
    ) -> None:
        loop = asyncio.get_running_loop()
        due = 0.0
        with contextlib.suppress(OSError):
            while data := await source.read(CHUNK):
                # Each piece has its own delay, as on a long way; they stay in order.
                due = max(loop.time() + (self.delay_s if is_late else 0.0), due)
                loop.call_at(due, _write, sink, data)
        loop.call_at(max(due, loop.time()), sink.transport.abort)

    def cut(self) -> None:
        for writer in self._open:
            writer.transport.abort()


def _write(sink: asyncio.StreamWriter, data: bytes) -> None:
    if not sink.transport.is_closing():
        sink.write(data)


async def main(port: int, target: int) -> None:
    loop = asyncio.get_running_loop()
    proxy = Proxy(target)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", port)
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print("ready", flush=True)
    while line := (await reader.readline()).decode().split():
        if line[0] == "cut":
            proxy.cut()
        else:
            proxy.delay_s = float(line[1])
    server.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
