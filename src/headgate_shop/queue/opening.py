"""From a URL to a queue."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from headgate_shop.queue.backoff import Backoff
from headgate_shop.queue.home import Home
from headgate_shop.queue.queue import Queue
from headgate_shop.queue.topics import GROUPS

__all__ = ["open_queue"]

LIMIT: Final = 100_000


def open_queue(
    url: str,
    *,
    service: str,
    groups: Mapping[str, Sequence[str]] = GROUPS,
    limit: int = LIMIT,
    lease_s: float = 30.0,
    grace_s: float = 5.0,
    backoff: Backoff | None = None,
    rng: random.Random | None = None,
) -> Queue:
    """The queue at `sqlite:///path` or `redis://host:port/n`. `service` is its group by default; a
    canary (`products-next`) works for the group of its room.

    `limit` is how many messages a group may have, `lease_s` how long a message is held before
    another process of the group may take it; leases are renewed while handlers work.
    """
    return Queue(
        _home(url, limit),
        group=service.removesuffix("-next"),
        groups=groups,
        lease_s=lease_s,
        grace_s=grace_s,
        backoff=backoff,
        rng=rng,
    )


def _home(url: str, limit: int) -> Home:
    scheme, _, rest = url.partition("://")
    if scheme == "sqlite" and rest.startswith("/") and len(rest) > 1:
        from headgate_shop.queue.sqlite import SqliteHome

        return SqliteHome(Path(rest[1:]), limit=limit)
    if scheme in ("redis", "rediss"):
        try:
            from headgate_shop.queue.redis import RedisHome
        except ModuleNotFoundError as error:
            raise ValueError(f"for {scheme}:// install headgate[redis]: {error}") from error

        return RedisHome(url, limit=limit)
    raise ValueError(
        f"the queue's URL begins with {scheme}://; write sqlite:///path/queue.db or redis://host"
    )
