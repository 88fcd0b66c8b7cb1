"""What stands for the rest of control, and for Redis, in tests of the cache's way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from headgate.cache.barriers import Barriers
from headgate.cache.entry import Entry
from headgate.cache.invalidation import Invalidation
from headgate.cache.layer import Invalidated, LayerAway, LayerSnapshot, Lease
from headgate.control.channel import ChannelClosed, Message


class Link:
    """A worker as control sees it; `held` are names that a purge may strike."""

    def __init__(self, index: int, *, held: int = 3) -> None:
        self.index = index
        self.pid = 100 + index
        self.held = held
        self.channel: Any = self
        self.backlog = 0
        self.heard: list[Invalidation] = []
        self.clock = 0
        self.rows: list[dict[str, Any]] = []
        self.mood = "answers"
        self.asked = asyncio.Event()
        self.go = asyncio.Event()
        self.snapshot: dict[str, Any] | None = None

    def send(self, kind: str, payload: bytes = b"", **_fields: Any) -> None:
        assert kind == "cache"
        self.do(json.loads(payload))

    def do(self, asked: dict[str, Any]) -> dict[str, Any]:
        if asked["do"] == "inspect":
            return {"responses": self.rows}
        invalidation = Invalidation.from_json(asked["invalidation"])
        if invalidation.is_empty:
            self.clock = invalidation.stamp
        else:
            self.heard.append(invalidation)
        struck, self.held = self.held, 0
        return {"struck": struck}

    async def ask(self, kind: str, payload: bytes, *, timeout_s: float) -> Message:
        assert kind == "cache"
        self.asked.set()
        match self.mood:
            case "silent":
                raise TimeoutError
            case "dies":
                await self.go.wait()
                raise ChannelClosed("the process has gone")
            case "waits":
                await self.go.wait()
            case "fails":
                return Message("cached", {}, b'{"error": "ValueError"}')
            case "garbles":
                return Message("cached", {}, b"{")
            case "lies":
                return Message("cached", {}, b'{"struck": "many"}')
        return Message("cached", {}, json.dumps(self.do(json.loads(payload))).encode())


class Shop:
    """Workers, as hub and supervisor know them."""

    def __init__(self, *links: Link) -> None:
        self.links: dict[int, Link] = {link.pid: link for link in links}
        self.workers: list[dict[str, Any]] = [
            {"index": link.index, "pid": link.pid, "state": "ready"} for link in links
        ]

    async def refresh(self) -> None:
        await asyncio.sleep(0)


class Records:
    def __init__(self) -> None:
        self.rows: list[SimpleNamespace] = []

    def record(self, action: str, actor: str, **more: Any) -> int:
        self.rows.append(SimpleNamespace(action=action, actor=actor, **more))
        return len(self.rows)


class Board:
    def __init__(self) -> None:
        self.said: list[tuple[str, Mapping[str, Any]]] = []

    def publish(self, topic: str, message: Mapping[str, Any]) -> None:
        self.said.append((topic, message))


class Space:
    """One Redis, as far as invalidations go."""

    def __init__(self, stamp: int = 1_000) -> None:
        self.stamp = stamp
        self.layers: list[MemoryLayer] = []
        self.is_away = False
        self.go = asyncio.Event()
        self.go.set()


class MemoryLayer:
    """A `Layer` on a `Space`: of entries it knows nothing."""

    kind = "memory"

    def __init__(self, space: Space) -> None:
        self.space = space
        self.barriers = Barriers()
        self.queue: list[Invalidation] = []
        self.listeners: list[Callable[[Invalidation], None]] = []
        self.gaps: list[Callable[[], None]] = []
        self.is_started = self.is_closed = False

    @property
    def is_away(self) -> bool:
        return self.space.is_away

    def is_coherent(self, now: float) -> bool:
        return not self.is_away

    async def start(self) -> None:
        self.is_started = True
        self.space.layers.append(self)

    async def close(self) -> None:
        self.is_closed = True
        if self in self.space.layers:
            self.space.layers.remove(self)

    async def invalidate(self, invalidation: Invalidation) -> Invalidated:
        await self.space.go.wait()
        self.space.stamp += 1
        at = invalidation.at(self.space.stamp)
        if self.is_away:
            self.queue.append(at)
            return Invalidated(at.stamp, is_queued=True)
        for layer in self.space.layers:
            if layer is not self:
                for hear in layer.listeners:
                    hear(at)
        return Invalidated(at.stamp)

    def listen(self, hear: Callable[[Invalidation], None]) -> Callable[[], None]:
        self.listeners.append(hear)
        return lambda: self.listeners.remove(hear)

    def on_gap(self, hear: Callable[[], None]) -> Callable[[], None]:
        self.gaps.append(hear)
        return lambda: self.gaps.remove(hear)

    def snapshot(self) -> LayerSnapshot:
        queued = len(self.queue)
        return LayerSnapshot(
            self.kind, "here", self.is_away, "", 0, "closed", 0, 0, 0, queued, 0, 0, 0, 0, 0
        )

    async def get(self, keys: Sequence[str]) -> list[Entry | None]:
        raise LayerAway("no entries here")

    async def put(self, items: Mapping[str, Entry], lease: Lease | None = None) -> None:
        raise LayerAway("no entries here")

    async def touch(self, keys: Sequence[str], usable_until: float, fresh_until: float) -> int:
        raise LayerAway("no entries here")

    async def add(self, key: str, amount: int, ttl_s: float | None) -> int:
        raise LayerAway("no entries here")

    async def lease(self, key: str, ttl_s: float) -> Lease | None:
        raise LayerAway("no entries here")

    async def release(self, lease: Lease) -> None:
        raise LayerAway("no entries here")

    async def _none(self) -> AsyncIterator[str]:
        names: tuple[str, ...] = ()
        for name in names:
            yield name

    def scan(self, pattern: str) -> AsyncIterator[str]:
        return self._none()
