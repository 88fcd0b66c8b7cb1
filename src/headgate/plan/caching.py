"""What a plan says of the cache of responses: a route's rules, and where all of it is kept.

A response is kept under a URL, and any route may change what is behind it. So a route that keeps
nothing still makes the cache forget, where it takes requests that change something and another
route keeps answers for the same path.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from headgate.cache.http.rules import CacheRules
from headgate.config.routes import targets

if TYPE_CHECKING:
    from collections.abc import Iterable

    from headgate.config import Config, RouteSpec
    from headgate.config.caching import CacheSpec
    from headgate.config.routes import MatchSpec
    from headgate.plan.levels import Levels

__all__ = ["CachePlan", "DiskPlan", "StorePlan", "cache_of", "kept_paths", "store_of"]

ANSWERED: Final = frozenset({"GET", "HEAD"})
SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})

Path = tuple[str | None, str | None, str | None]


@dataclass(frozen=True, slots=True)
class CachePlan:
    rules: CacheRules
    methods: frozenset[str] = ANSWERED
    """Those that may be answered from the cache. Empty: the route only makes it forget."""

    @property
    def keeps(self) -> bool:
        return bool(self.methods)


@dataclass(frozen=True, slots=True)
class DiskPlan:
    path: str
    """As the file says it: relative to the state directory."""
    bytes_max: int


@dataclass(frozen=True, slots=True)
class StorePlan:
    """Where responses are: in memory, and behind it on disk or in a Redis."""

    memory_bytes: int
    """In each worker."""
    name: str
    disk: DiskPlan | None = None
    redis: str | None = None
    """A URL, which may hold a password."""

    def __repr__(self) -> str:
        behind = "disk" if self.disk is not None else "redis" if self.redis is not None else "none"
        return f"<StorePlan {self.name} memory_bytes={self.memory_bytes} behind={behind}>"


def store_of(config: Config) -> StorePlan | None:
    """None where no route keeps anything."""
    spec = config.cache_store
    redis = spec.redis
    if redis is True:
        redis = config.state
    disk = DiskPlan(spec.disk.path, spec.disk.size) if spec.disk else None
    return StorePlan(spec.memory, spec.name, disk, redis or None)


def cache_of(
    spec: RouteSpec, levels: Levels, config: Config, kept: frozenset[Path]
) -> CachePlan | None:
    """The cache of a route; None where it has nothing to do with one. `kept`: see `kept_paths`."""
    services = targets(spec)
    if not services:
        return None
    said = levels.nearest("cache")
    cache = cast("CacheSpec | bool | None", said.value)
    if cache is None and changes(spec.match) and _path_of(spec.match) in kept:
        return CachePlan(CacheRules(name=config.cache_store.name), frozenset())
    if cache is None or isinstance(cache, bool):
        return None
    if len(services) > 1:
        levels.amend("each service of the split apart")
    return CachePlan(cache.rules(config.cache_store.name), answered(spec.match))


def kept_paths(routes: Iterable[tuple[RouteSpec, Levels]]) -> frozenset[Path]:
    """Paths of which some route keeps answers."""
    return frozenset(
        _path_of(spec.match)
        for spec, levels in routes
        if targets(spec) and answered(spec.match) and levels.value_of("cache")
    )


def answered(match: MatchSpec) -> frozenset[str]:
    """Methods of a route that may be answered from a cache. GET takes HEAD as well."""
    if not match.methods or "GET" in match.methods:
        return ANSWERED
    return ANSWERED & frozenset(match.methods)


def changes(match: MatchSpec) -> bool:
    """Whether the route takes methods that change something."""
    return not match.methods or not SAFE.issuperset(match.methods)


def _path_of(match: MatchSpec) -> Path:
    path = match.path
    if path is not None and "{" not in path:
        path = path.removesuffix("/")  # a prefix with and without its final slash is one
    return (path, match.exact, match.regex)
