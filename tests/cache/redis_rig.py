"""What tests of the Redis layer share: servers, a link that can be cut, and a small first layer."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

from headgate.cache.barriers import Standing
from headgate.cache.entry import Entry
from headgate.cache.invalidation import Invalidation
from headgate.cache.redis import RedisLayer, open_layer
from headgate.cache.redis.node import Node
from tests.listening import stop_listening
from tests.ports import free_port
from tests.state.redis_server import RedisServer

PATIENCE_S = 20.0


def run(main: Callable[[], Coroutine[Any, Any, None]], patience_s: float = 50.0) -> None:
    async def patient() -> None:
        async with asyncio.timeout(patience_s):
            await main()

    asyncio.run(patient())


async def until(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def opened(at: RedisServer | str, **settings: Any) -> AsyncIterator[RedisLayer]:
    layer = open_layer(at if isinstance(at, str) else at.url, **settings)
    await layer.start()
    try:
        yield layer
    finally:
        await layer.close()


def nodes_of(layer: RedisLayer) -> list[Node]:
    return [] if layer._router is None else layer._router.all_nodes()


async def settled(layer: RedisLayer) -> None:
    """All nodes are met, and what that may have struck has been heard."""
    await until(lambda: nodes_of(layer) and all(node.is_here for node in nodes_of(layer)))
    await until(lambda: not layer.is_away)
    await layer.get(["-"])
    await until(lambda: layer.is_coherent(time.monotonic()))


def made(layer: RedisLayer, value: Any, tags: tuple[str, ...] = (), **said: Any) -> Entry:
    said.setdefault("stamp", layer.barriers.stamp)
    return Entry(value, time.time(), tags=tags, **said)


async def value_of(layer: RedisLayer, key: str) -> Any:
    (entry,) = await layer.get([key])
    return None if entry is None else entry.value


class SmallCache:
    """A first layer by the rules of `cache.layer`, and nothing else."""

    def __init__(self, layer: RedisLayer) -> None:
        self.layer = layer
        self.held: dict[str, Entry] = {}
        layer.on_gap(self.held.clear)

    def find(self, key: str) -> Entry | None:
        entry = self.held.get(key)
        if entry is None or not self.layer.is_coherent(time.monotonic()):
            return None
        standing = self.layer.barriers.judge(key, entry.tags, entry.stamp)
        return entry if standing is Standing.ALIVE else None

    def keep(self, key: str, entry: Entry) -> None:
        self.held[key] = entry


class Proxy:
    """Between a client and Redis, in a thread: passes on, delays, stands still or is cut."""

    def __init__(self, port: int) -> None:
        self.port = free_port()
        self.delay_s = 0.0
        self.is_still = False
        """Takes and passes nothing on, with every connection open: a half-open partition."""
        self._target = port
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        self._over = asyncio.Event()
        server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self._ready.set()
        await self._over.wait()
        await stop_listening(server)
        self._cut()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        self._cut()  # what was opened meanwhile
        await asyncio.sleep(0.01)  # what was closed is closed a turn of the loop later

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while self.is_still:
                await asyncio.sleep(0.005)
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
            self._writers.add(back)
            await asyncio.gather(self._pump(reader, back), self._pump(there, writer))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                while self.is_still:
                    await asyncio.sleep(0.005)
                writer.write(data)
                await writer.drain()
        writer.close()

    def _cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def cut(self) -> None:
        self._loop.call_soon_threadsafe(self._cut)

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(10)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)
        self._loop.close()


@contextlib.contextmanager
def proxy_to(server: RedisServer) -> Iterator[Proxy]:
    proxy = Proxy(server.port)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()


@contextlib.contextmanager
def server_in(folder: Path, *options: str, port: int | None = None) -> Iterator[RedisServer]:
    folder.mkdir(exist_ok=True)
    server = RedisServer(folder, *options, port=port)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def cluster_port() -> int:
    """A node also listens 10,000 ports above."""
    while (port := free_port()) >= 22_000:
        pass
    return port


@contextlib.contextmanager
def cluster_in(folder: Path, count: int = 3) -> Iterator[list[RedisServer]]:
    with contextlib.ExitStack() as stack:
        nodes = [
            stack.enter_context(
                server_in(folder / str(n), "--cluster-enabled", "yes", port=cluster_port())
            )
            for n in range(count)
        ]
        for n, node in enumerate(nodes):
            first, last = 16384 * n // count, 16384 * (n + 1) // count - 1
            node.say("CLUSTER", "ADDSLOTSRANGE", str(first), str(last))
            node.say("CLUSTER", "SET-CONFIG-EPOCH", str(n + 1))
        for node in nodes[1:]:
            nodes[0].say("CLUSTER", "MEET", "127.0.0.1", str(node.port))
        deadline = time.monotonic() + PATIENCE_S
        while not all(
            b"cluster_state:ok" in node.say("CLUSTER", "INFO")
            and node.say("CLUSTER", "SLOTS").startswith(f"*{count}".encode())
            for node in nodes
        ):
            assert time.monotonic() < deadline, "the cluster does not come together"
            time.sleep(0.02)
        yield nodes


def of_tags(*tags: str) -> Invalidation:
    return Invalidation(tags=tags)


def of_keys(*keys: str) -> Invalidation:
    return Invalidation(keys=keys)
