"""Who watches the registry: every change to every watcher, encoded once.

Theory of operation
-------------------
A change goes straight to the sockets of those who have taken all that came before, in one write
each: thousands of tasks woken for it would take a second. For the others it waits.

A watcher names the services it is about, or none for all. It begins with what it has missed since
the id it saw last (`<epoch>-<revision>`), and where that cannot be said, with everything (`all`).
Both, and taking a seat among those who are told, happen in one step of the loop: nothing comes
between and nothing comes twice.

What waits for a watcher who is slow is bounded. Beyond the bound it is cut: what waits is
forgotten, its stream ends, and when it comes back with its last id it is told what it missed. So a
slow watcher costs memory that is bounded, and never sees a gap.

What operators have said of instances (`registering_orders`) comes behind what is told first, and
whole again whenever it changes.

An instance is encoded when it changes. `all` is these pieces put together, so that a fleet that
comes back after a restart costs a copy each and no encoding.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Sequence
from typing import Any, Final, Protocol

from headgate.mesh.registry.model import Change, Instance

__all__ = ["WATCHERS_MAX", "Told", "Watchers", "Watching", "event_id", "position_of"]

WATCHERS_MAX: Final = 4000
WAITING_MAX: Final = 5000
WAITING_BYTES: Final = 4 * 1024 * 1024
RESUMED_MAX: Final = 2000
"""Whoever missed more than that is told everything: it is not more to read, and simpler."""


class Told(Protocol):
    """What is read of the book."""

    epoch: str
    revision: int

    def all(self) -> tuple[str, int, list[Instance]]: ...
    def of(self, service: str) -> list[Instance]: ...
    def since(self, epoch: str, revision: int) -> list[Change] | None: ...


def event_id(epoch: str, revision: int) -> str:
    return f"{epoch}-{revision}"


def position_of(id_: str) -> tuple[str, int] | None:
    """Epoch and revision of an event's id; None where it is none of ours."""
    epoch, dash, number = id_.rpartition("-")
    if not dash or not epoch or not (number.isascii() and number.isdigit()) or len(number) > 18:
        return None
    return epoch, int(number)


class _Watcher:
    __slots__ = ("is_cut", "is_idle", "news", "push", "services", "size", "waiting")

    def __init__(self, services: frozenset[str]) -> None:
        self.services = services
        self.waiting: deque[bytes] = deque()
        self.size = 0
        self.news = asyncio.Event()
        self.is_cut = False
        self.is_idle = False
        """It has been sent all that there was."""
        self.push: Callable[[bytes], bool] | None = None

    def give(self, part: bytes) -> bool:
        """False if it was too slow, and is cut by this."""
        if self.is_idle and self.push is not None and self.push(part):
            return True
        self.is_idle = False
        self.waiting.append(part)
        self.size += len(part)
        if len(self.waiting) > WAITING_MAX or self.size > WAITING_BYTES:
            self.is_cut = True
            self.waiting.clear()
        self.news.set()
        return not self.is_cut


class Watching:
    """The events of one watcher, as bytes to be sent. Whoever sends them may `attach` a shorter
    way, which says False when it cannot take a part.
    """

    def __init__(self, watcher: _Watcher, events: AsyncGenerator[bytes, None]) -> None:
        self._watcher = watcher
        self._events = events

    def attach(self, push: Callable[[bytes], bool]) -> None:
        self._watcher.push = push

    def __aiter__(self) -> Watching:
        return self

    async def __anext__(self) -> bytes:
        return await anext(self._events)

    async def aclose(self) -> None:
        await self._events.aclose()


class Watchers:
    def __init__(self, book: Told) -> None:
        self.book = book
        self._watchers: set[_Watcher] = set()
        self._pieces: dict[tuple[str, str], tuple[Instance, bytes]] = {}
        self._orders: Callable[[], list[dict[str, Any]]] | None = None
        self.cut = 0
        self.told = 0
        """Events given to watchers."""

    def __len__(self) -> int:
        return len(self._watchers)

    # ---- what happens

    def tell(self, changes: Sequence[Change]) -> None:
        """Give the changes to whoever watches their services."""
        epoch = self.book.epoch
        parts: list[tuple[str, bytes]] = []
        for change in changes:
            instance = change.instance
            if change.what == "went":
                self._pieces.pop((instance.service, instance.id), None)
            if self._watchers:
                parts.append((instance.service, self._event(epoch, change)))
        whole = b"".join([part for _, part in parts])
        for watcher in tuple(self._watchers) if parts else ():
            if not watcher.services:
                part, count = whole, len(parts)
            else:
                found = [part for service, part in parts if service in watcher.services]
                part, count = b"".join(found), len(found)
            if not count or watcher.is_cut:
                continue
            self.told += count
            if not watcher.give(part):
                self.cut += 1
                self._watchers.discard(watcher)

    def follow_orders(self, rows: Callable[[], list[dict[str, Any]]]) -> None:
        """Tell what operators have said of instances, from now on."""
        self._orders = rows
        self.tell_orders()

    def tell_orders(self) -> None:
        """It may have changed."""
        if self._orders is None:
            return
        rows = self._orders()
        parts: dict[frozenset[str], bytes] = {}
        for watcher in tuple(self._watchers):
            part = parts.get(watcher.services)
            if part is None:
                part = parts[watcher.services] = _ordered(rows, watcher.services)
            if not watcher.is_cut and not watcher.give(part):
                self.cut += 1
                self._watchers.discard(watcher)

    # ---- who watches

    def watch(self, last_id: str, services: Collection[str] = (), grace_s: float = 0.0) -> Watching:
        """Events, as they are sent: first what was missed, then what comes."""
        watcher = _Watcher(frozenset(services))
        return Watching(watcher, self._watch(watcher, last_id, grace_s))

    async def _watch(
        self, watcher: _Watcher, last_id: str, grace_s: float
    ) -> AsyncGenerator[bytes, None]:
        self._watchers.add(watcher)
        try:
            first = self._missed(last_id, watcher.services)
            begun = self._all(watcher.services, grace_s) if first is None else first
            if self._orders is not None:
                begun += _ordered(self._orders(), watcher.services)
            yield begun
            while True:
                # Asked for more: what we yielded last has been sent.
                watcher.is_idle = not watcher.waiting
                await watcher.news.wait()
                watcher.is_idle = False
                watcher.news.clear()
                if watcher.is_cut:
                    return
                if watcher.waiting:
                    part = b"".join(watcher.waiting)
                    watcher.waiting.clear()
                    watcher.size = 0
                    yield part
        finally:
            self._watchers.discard(watcher)

    def _missed(self, last_id: str, services: frozenset[str]) -> bytes | None:
        position = position_of(last_id)
        missed = self.book.since(*position) if position is not None else None
        if missed is None or len(missed) > RESUMED_MAX:
            return None
        epoch = position[0] if position is not None else ""
        rows: Iterable[Change] = missed
        if services:
            rows = (change for change in missed if change.instance.service in services)
        # A comment, so that whoever missed nothing knows that it was understood.
        return b": resumed\n\n" + b"".join([self._event(epoch, change) for change in rows])

    def _all(self, services: frozenset[str], grace_s: float) -> bytes:
        epoch, revision = self.book.epoch, self.book.revision
        if services:
            instances = [each for name in services for each in self.book.of(name)]
        else:
            instances = self.book.all()[2]
        rows = b",".join([self._piece(each) for each in instances])
        head = {"epoch": epoch, "revision": revision, "grace_s": round(grace_s, 1)}
        text = json.dumps(head, separators=(",", ":")).encode()
        return b'event: all\nid: %s\ndata: %s,"instances":[%s]}\n\n' % (
            event_id(epoch, revision).encode(),
            text[:-1],
            rows,
        )

    # ---- encoding

    def _event(self, epoch: str, change: Change) -> bytes:
        row = change.to_json()
        del row["instance"]
        text = json.dumps(row, separators=(",", ":")).encode()
        return b'event: change\nid: %s\ndata: %s,"instance":%s}\n\n' % (
            event_id(epoch, change.revision).encode(),
            text[:-1],
            self._piece(change.instance, keep=change.what != "went"),
        )

    def _piece(self, instance: Instance, *, keep: bool = True) -> bytes:
        key = (instance.service, instance.id)
        known = self._pieces.get(key)
        if known is not None and known[0] is instance:
            return known[1]
        made = json.dumps(instance.to_json(), separators=(",", ":")).encode()
        if keep:
            self._pieces[key] = (instance, made)
        return made


def _ordered(rows: Iterable[dict[str, Any]], services: frozenset[str]) -> bytes:
    """All that stands about these services. Without an id: it is no place to resume at."""
    wanted = [row for row in rows if not services or row["service"] in services]
    text = json.dumps({"orders": wanted}, separators=(",", ":"))
    return b"event: orders\ndata: %s\n\n" % text.encode()
