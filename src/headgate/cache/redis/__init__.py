"""The second layer of the cache in Redis: single, behind Sentinel, or a Cluster."""

from __future__ import annotations

from typing import Any

from headgate.cache.redis.layer import RedisLayer

__all__ = ["RedisLayer", "open_layer"]


def open_layer(url: str, **settings: Any) -> RedisLayer:
    """A layer in the Redis that `url` names (`state.redis_place`), not started yet. Settings are
    those of `RedisLayer`. A Cluster is found out by asking; `redis+cluster://` says it, too.
    """
    return RedisLayer(url, **settings)
