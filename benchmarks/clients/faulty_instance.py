"""An instance that fails on command: `python -m benchmarks.clients.faulty_instance PORT`.

A line on standard input changes how it answers from now on:

    ok            at once
    slow SECONDS  after a wait
    status CODE   with this status
    reset         with a TCP reset in place of an answer
    flap SECONDS  by turns: well for so long, then 500 for as long

It ends with its standard input. `/ready` answers like everything else, so that health checks see
what requests see.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
import time


class Mood:
    def __init__(self) -> None:
        self.word = "ok"
        self.value = 0.0
        self.since = time.monotonic()

    def change(self, line: str) -> None:
        word, _, value = line.strip().partition(" ")
        self.word, self.value = word, float(value or 0)
        self.since = time.monotonic()

    def status(self) -> int:
        if self.word == "status":
            return int(self.value)
        if self.word == "flap":
            return 500 if int((time.monotonic() - self.since) / self.value) % 2 else 200
        return 200


class Answering(asyncio.Protocol):
    def __init__(self, mood: Mood, name: bytes) -> None:
        self._mood = mood
        self._name = name
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._data += data
        while b"\r\n\r\n" in self._data:
            _, _, self._data = self._data.partition(b"\r\n\r\n")
            self._answer()

    def _answer(self) -> None:
        mood = self._mood
        if mood.word == "reset":
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()
        elif mood.word == "slow":
            asyncio.get_running_loop().call_later(mood.value, self._write, 200)
        else:
            self._write(mood.status())

    def _write(self, status: int) -> None:
        if not self._transport.is_closing():
            head = b"HTTP/1.1 %d Said\r\ncontent-length: %d\r\n\r\n"
            self._transport.write(head % (status, len(self._name)) + self._name)


async def main(port: int) -> None:
    loop = asyncio.get_running_loop()
    mood = Mood()
    server = await loop.create_server(
        lambda: Answering(mood, b"%d" % port), "127.0.0.1", port, backlog=512
    )
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print("ready", flush=True)
    while line := await reader.readline():
        mood.change(line.decode())
    server.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
