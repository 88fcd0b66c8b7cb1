"""An instance that can do so much and no more: `... bounded_instance PORT SLOTS SECONDS BYTES`.

A request takes SECONDS in one of SLOTS places; the others stand in a line without end, as in a server
with a pool of threads. Who was asked goes on when nobody waits for the answer any more, as most
servers do: that is what turns a load that is too high into an outage. With SLOTS 0 it answers at
once. The answer is JSON of about BYTES, so that there is something to compress, and each a little
different, so that nothing is gained by remembering it.

It ends with its standard input.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import deque
from collections.abc import Iterator
from itertools import count
from random import Random
from typing import Final

NUMBER: Final = b"#########"


def body_of(size: int) -> bytes:
    """Rows as an API would list them; the first holds `NUMBER`."""
    rng = Random(7)
    rows: list[dict[str, object]] = [{"answer": NUMBER.decode()}]
    length = 0
    while length < size:
        row = {
            "id": rng.randrange(10**9),
            "name": " ".join(rng.choice(("red", "fine", "old", "blue", "cup")) for _ in range(4)),
            "price": rng.randrange(100_000) / 100,
            "stock": rng.randrange(500),
        }
        rows.append(row)
        length += len(json.dumps(row)) + 2
    return json.dumps(rows).encode()


class Slots:
    def __init__(self, slots: int, seconds: float) -> None:
        self._free = slots
        self._seconds = seconds
        self._line: deque[Answering] = deque()

    def enter(self, who: Answering) -> None:
        if self._free:
            self._free -= 1
            self._serve(who)
        else:
            self._line.append(who)

    def _serve(self, who: Answering) -> None:
        asyncio.get_running_loop().call_later(self._seconds, self._done, who)

    def _done(self, who: Answering) -> None:
        who.answer()
        if self._line:
            self._serve(self._line.popleft())
        else:
            self._free += 1


class Answering(asyncio.Protocol):
    def __init__(self, slots: Slots | None, answer: bytes, numbers: Iterator[int]) -> None:
        self._slots = slots
        self._before, _, self._after = answer.partition(NUMBER)
        self._numbers = numbers
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._data += data
        while b"\r\n\r\n" in self._data:
            _, _, self._data = self._data.partition(b"\r\n\r\n")
            if self._slots is None:
                self.answer()
            else:
                self._slots.enter(self)

    def answer(self) -> None:
        if not self._transport.is_closing():
            number = b"%09d" % next(self._numbers)
            self._transport.write(b"".join((self._before, number, self._after)))


async def main(port: int, slots: int, seconds: float, size: int) -> None:
    body = body_of(size)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    answer = head % len(body) + body
    numbers = count()
    shared = Slots(slots, seconds) if slots else None
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Answering(shared, answer, numbers), "127.0.0.1", port, backlog=4096
    )
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print("ready", flush=True)
    await reader.read()
    server.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])))
