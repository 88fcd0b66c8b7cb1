"""An origin whose answers may be kept: `python -m benchmarks.clients.cache_origin PORT WAIT_S`.

`/<group>/<number>` is answered after a wait with the version of its group and when that was, on
the clock that all processes of a machine share. A line `change GROUP` on standard input makes the
next version; it is answered by a line with that version. It ends with its standard input.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter

FRESH_S = 20
BODY_BYTES = 2000


class Answering(asyncio.Protocol):
    def __init__(self, versions: Counter[str], wait_s: float) -> None:
        self._versions = versions
        self._wait_s = wait_s
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._data += data
        while b"\r\n\r\n" in self._data:
            head, _, self._data = self._data.partition(b"\r\n\r\n")
            group = head.split(b" ", 2)[1].split(b"/")[1].decode()
            said = f"{self._versions[group]} {time.monotonic():.6f} ".encode()
            lines = (
                "HTTP/1.1 200 OK",
                f"content-length: {BODY_BYTES}",
                f"cache-control: max-age={FRESH_S}",
                f"cache-tag: group-{group}",
            )
            answer = "\r\n".join((*lines, "", "")).encode() + said.ljust(BODY_BYTES, b"x")
            asyncio.get_running_loop().call_later(self._wait_s, self._answer, answer)

    def _answer(self, answer: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(answer)


async def main(port: int, wait_s: float) -> None:
    loop = asyncio.get_running_loop()
    versions: Counter[str] = Counter()
    server = await loop.create_server(lambda: Answering(versions, wait_s), "127.0.0.1", port)
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print("ready", flush=True)
    while line := await reader.readline():
        group = line.split()[1].decode()
        versions[group] += 1
        print(versions[group], flush=True)
    server.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2])))
