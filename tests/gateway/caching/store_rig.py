"""A store of responses, short ways to fill it, and a lower layer that writes down what it is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from headgate.cache.barriers import Barriers
from headgate.cache.http.stored import Stored
from headgate.cache.http.vary import normal
from headgate.cache.invalidation import Invalidation
from headgate.gateway.caching.store import Kept, ResponseStore
from headgate.wire.message import Header

MB = 1024 * 1024


def stored(
    tags: tuple[str, ...] = (), vary: tuple[Header, ...] = (), *, at: float = 1000.0, **said: Any
) -> Stored:
    about: dict[str, Any] = {"fresh_s": 60.0, "initial_age_s": 0.0, "etag": b'"1"'} | said
    return Stored(
        200,
        b"OK",
        ((b"content-type", b"text/html"), (b"etag", b'"1"')),
        received_at=at,
        tags=tags,
        vary=vary,
        **about,
    )


def keep(
    store: ResponseStore,
    name: str,
    *tags: str,
    body: bytes = b"body",
    stamp: int = 0,
    fields: tuple[Header, ...] = (),
    names: tuple[bytes, ...] = (),
    **said: Any,
) -> Kept | None:
    about = stored(tags, normal(names, fields), **said)
    return store.put(name, f"https://h/{name}", about, body, (), fields, stamp)


@dataclass
class Below:
    """A lower layer that writes down what it is told."""

    kind: str = "below"
    held: dict[str, Kept] = field(default_factory=dict)
    said: list[Invalidation] = field(default_factory=list)
    removed: list[Kept] = field(default_factory=list)
    settled: int = 0

    async def start(self, barriers: Barriers) -> None: ...

    async def close(self) -> None: ...

    async def find(self, key: str, fields: tuple[Header, ...], url: str = "") -> Kept | None:
        return self.held.get(key)

    def put(self, kept: Kept) -> None:
        self.held[kept.key] = kept

    def remove(self, kept: Kept) -> None:
        self.removed.append(kept)

    def forget(self, urls: tuple[str, ...], *, is_news: bool = False) -> None:
        for url in urls:
            self.held.pop(url.removeprefix("https://h/"), None)

    def invalidate(self, invalidation: Invalidation) -> None:
        self.said.append(invalidation)

    async def settle(self) -> bool:
        self.settled += 1
        return True

    def snapshot(self) -> Any:
        return None
