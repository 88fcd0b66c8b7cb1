"""What a pool of connections says of itself, the gateway's and the mesh client's alike."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PoolSnapshot"]


@dataclass(frozen=True, slots=True)
class PoolSnapshot:
    instance: str
    open: int
    idle: int
    connecting: int
    waiting: int
    created: int
    reused: int
    failed: int
    last_failure: str | None
