"""The second layer of the cache in Redis: single, behind Sentinel, or a Cluster."""

from __future__ import annotations

from typing import Any

from headgate.cache.codecs import ZSTD_ABOVE, Codec, Packer
from headgate.cache.redis.layer import RedisLayer

__all__ = ["RedisLayer", "open_layer"]


def open_layer(
    url: str,
    *,
    codec: Codec | str = "json",
    version: str = "",
    zstd_above: int | None = ZSTD_ABOVE,
    **settings: Any,
) -> RedisLayer:
    """A layer in the Redis that `url` names (`state.redis_place`), not started yet. All processes
    that share it must be given the same `codec` and `version`; further settings are those of
    `RedisLayer`. A Cluster is found out by asking; `redis+cluster://` says it, too.
    """
    packer = Packer(codec, version=version, zstd_above=zstd_above)
    return RedisLayer(url, packer=packer, **settings)
