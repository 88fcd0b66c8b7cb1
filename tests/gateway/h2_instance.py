"""An HTTP/2 service whose every answer a test writes: one callback for each request."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

from headgate.wire.h2 import H2Limits, RequestFields, ServerConnection, Stream
from headgate.wire.message import Header


class Served(Stream):
    """A request as the service sees it; `act` is called again for each event of its body."""

    def __init__(self, conn: Conn) -> None:
        super().__init__()
        self.conn = conn
        self.fields: RequestFields | None = None
        self.body = b""
        self.ended = False
        self.trailers: tuple[Header, ...] = ()
        self.was_reset: int | None = None

    def on_request(self, fields: RequestFields, *, end: bool) -> None:
        self.fields = fields
        self.ended = end
        self.conn.instance.requests.append(self)
        self.conn.instance.act(self)

    def on_data(self, data: bytes, *, end: bool) -> None:
        self.body += data
        self.ended = end
        self.conn.codec.consume(self, len(data))
        self.conn.instance.act(self)

    def on_trailers(self, fields: tuple[Header, ...]) -> None:
        self.trailers = fields
        self.ended = True
        self.conn.instance.act(self)

    def on_reset(self, code: int, reason: str, *, by_peer: bool) -> None:
        self.was_reset = int(code)

    @property
    def path(self) -> str:
        return self.fields.path if self.fields is not None else ""

    def header(self, name: bytes) -> bytes | None:
        assert self.fields is not None
        return dict(self.fields.headers).get(name)

    def answer(
        self,
        status: int = 200,
        body: bytes = b"",
        fields: tuple[Header, ...] = (),
        *,
        end: bool = True,
    ) -> None:
        self.conn.codec.send_response(self, status, fields, b"", body, end=end)


class Conn(asyncio.Protocol):
    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.number = len(instance.conns)
        instance.conns.append(self)
        self.codec: ServerConnection[Served] = ServerConnection(
            instance.limits, lambda: Served(self), time.monotonic()
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.flush()

    def data_received(self, data: bytes) -> None:
        self.codec.feed(data, time.monotonic())
        self.flush()

    def flush(self) -> None:
        data = self.codec.take()
        if data and not self.transport.is_closing():
            self.transport.write(data)


class Instance:
    """Runs on a thread of its own; `act` runs there."""

    def __init__(self, act: Callable[[Served], None], limits: H2Limits | None = None) -> None:
        self.act = act
        self.limits = limits or H2Limits()
        self.conns: list[Conn] = []
        self.requests: list[Served] = []
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Instance:
        self._thread.start()
        assert self._ready.wait(5)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def later(self, delay_s: float, call: Callable[[], object], conn: Conn) -> None:
        """From within `act`: do something after a while, and write."""

        def run() -> None:
            call()
            conn.flush()

        self._loop.call_later(delay_s, run)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)

        async def start() -> asyncio.Server:
            return await self._loop.create_server(lambda: Conn(self), "127.0.0.1", 0)

        server = self._loop.run_until_complete(start())
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        for conn in self.conns:
            conn.transport.abort()
        server.close()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()
