"""One cache for objects, responses and everything that a tag can name.

    from headgate.cache import Cache, cached

    cache = Cache("redis://localhost:6379/0")

    @cache.cached("user:{user_id}", ttl="5min", tags=["users"])
    async def fetch_user(user_id): ...

    await cache.invalidate(tags=["users"])

Stands alone: what a service imports of it pulls in neither the gateway nor a Redis client.
"""

from __future__ import annotations

from headgate.cache.cache import Cache
from headgate.cache.decorate import Site, cached, default_cache, site_of, use_cache
from headgate.cache.entry import Entry
from headgate.cache.errors import (
    CacheClosed,
    CacheError,
    KeyUnusable,
    LoadAbandoned,
    LoadFailed,
    LoadReentered,
    LoadTimedOut,
    Unencodable,
    ValueUnusable,
)
from headgate.cache.events import CacheEvent
from headgate.cache.invalidation import Invalidation
from headgate.cache.keys import TemplateInvalid
from headgate.cache.layer import Invalidated, Layer, LayerAway
from headgate.cache.links import Link
from headgate.cache.loading import NOT_MODIFIED, Loading, loading
from headgate.cache.options import Settings
from headgate.cache.snapshots import CacheSnapshot, Health
from headgate.cache.threads import SyncCache
from headgate.cache.warming import Progress, WarmSummary

__all__ = [
    "NOT_MODIFIED",
    "Cache",
    "CacheClosed",
    "CacheError",
    "CacheEvent",
    "CacheSnapshot",
    "Entry",
    "Health",
    "Invalidated",
    "Invalidation",
    "KeyUnusable",
    "Layer",
    "LayerAway",
    "Link",
    "LoadAbandoned",
    "LoadFailed",
    "LoadReentered",
    "LoadTimedOut",
    "Loading",
    "Progress",
    "Settings",
    "Site",
    "SyncCache",
    "TemplateInvalid",
    "Unencodable",
    "ValueUnusable",
    "WarmSummary",
    "cached",
    "default_cache",
    "loading",
    "site_of",
    "use_cache",
]
