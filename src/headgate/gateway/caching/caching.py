"""A worker's cache of responses: the store, its barriers, and the fills under way.

Outlives reloads: a route keeps its responses as long as the store's settings stay. Barriers are
raised by what control tells (`asked`) and by news of other machines; what an unsafe method may have
changed is dropped here at once, and told to the other workers.
"""

from __future__ import annotations

import logging
import time
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from headgate.cache.barriers import Barriers
from headgate.cache.http.vary import normal
from headgate.cache.invalidation import Invalidation
from headgate.gateway.caching.disk import DiskStore
from headgate.gateway.caching.exchange import CachedEdited, CachedExchange, CachedFiltered
from headgate.gateway.caching.hit import hits_first
from headgate.gateway.caching.key import compile_cache_key, url_of
from headgate.gateway.caching.lower_rows import LowerCounts
from headgate.gateway.caching.redis import open_redis
from headgate.gateway.caching.route_cache import OUTCOMES, RouteCache
from headgate.gateway.caching.store import ResponseStore

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from pathlib import Path

    from headgate.gateway.caching.fill import Fill
    from headgate.gateway.caching.hit import Begin
    from headgate.gateway.caching.lower import LowerStore
    from headgate.gateway.filters.chain import Chain
    from headgate.gateway.steps import Step
    from headgate.gateway.traffic import RouteTraffic
    from headgate.observe import Rows
    from headgate.plan.caching import CachePlan, DiskPlan, StorePlan
    from headgate.plan.plan import RoutePlan
    from headgate.policy.degrade import Degrade
    from headgate.wire.message import Header

__all__ = ["CHANGED_TOPIC", "NEWS_TOPIC", "Caching"]

NEWS_TOPIC: Final = "cache.invalidate"
"""What control has stamped: an invalidation for every worker of every machine."""
CHANGED_TOPIC: Final = "cache.changed"
"""URLs that an unsafe method has changed, from worker to worker."""

_FILLS_MAX: Final = 10_000
"""Beyond that, nobody waits for another: each asks for itself."""
_NAMES_MAX: Final = 10_000

log: Final = logging.getLogger("headgate.cache")


class Caching:
    def __init__(
        self,
        spawn: Callable[[Coroutine[object, object, None]], object],
        publish: Callable[[str, Mapping[str, Any]], None],
    ) -> None:
        self._spawn = spawn
        self._publish = publish
        self.barriers = Barriers("responses")
        self.store = ResponseStore(1, self.barriers)  # until a plan says more
        self._fills: dict[tuple[object, ...], Fill] = {}
        self._vary_names: dict[str, tuple[bytes, ...]] = {}
        """By key, what the last response varied by: who asks with other values waits apart."""
        self._counts: dict[str, dict[str, int]] = {}
        self._lower_plan: tuple[DiskPlan | None, str | None] | None = None
        self._lower_counts = LowerCounts()

    # -- plans ---------------------------------------------------------------------------------

    def resize(self, bytes_max: int) -> None:
        self.store.resize(bytes_max)

    def begins(
        self,
        plan: RoutePlan,
        chain: Chain | None,
        traffic: RouteTraffic,
        degrade: Degrade | None,
        told: frozenset[bytes],
    ) -> Begin | None:
        """What begins a request on this route; None where it has no cache."""
        if plan.cache is None:
            return None
        cache = self._route(plan.name, plan.cache, traffic, degrade, told)
        if chain is not None and chain.has_hooks:
            return partial(CachedFiltered, chain=chain, traffic=traffic, cache=cache)
        begin: Begin = partial(CachedExchange, traffic=traffic, cache=cache)
        if chain is not None and chain.edits_response is not None:
            cache.edits = chain.edits_response
            begin = partial(CachedEdited, edits=cache.edits, traffic=traffic, cache=cache)
        cache.is_quick = not (traffic.before or traffic.steps)
        return hits_first(begin, self.barriers) if cache.is_quick else begin

    def _route(
        self,
        name: str,
        plan: CachePlan,
        traffic: RouteTraffic,
        degrade: Degrade | None,
        told: frozenset[bytes],
    ) -> RouteCache:
        """A route's cache under a new plan; its counts go on."""
        counts = self._counts.get(name)
        if counts is None:
            counts = self._counts[name] = dict.fromkeys(OUTCOMES, 0)
        late: tuple[Step, ...] = traffic.late
        return RouteCache(
            self,
            plan.rules,
            plan.methods,
            compile_cache_key(plan.rules.key),
            url_of,
            counts,
            late,
            traffic.for_fills(),
            degrade,
            told,
        )

    def keep(self, routes: set[str]) -> None:
        """Counts of routes that are gone go with them."""
        self._counts = {name: said for name, said in self._counts.items() if name in routes}

    def turn(self) -> None:
        """A few times a second: what is of no use to anybody any more goes."""
        self.store.sweep(time.time())  # noqa: TID251 - HTTP dates

    # -- fills ---------------------------------------------------------------------------------

    def place_of(self, key: str, fields: tuple[Header, ...]) -> tuple[object, ...]:
        """Who asks for this key with these fields may read one fill with others at this place."""
        names = self._vary_names.get(key)
        return (key,) if names is None else (key, normal(names, fields))

    def joinable(self, place: tuple[object, ...]) -> Fill | None:
        fill = self._fills.get(place)
        if fill is None or fill.version != self.barriers.version or not fill.can_be_joined:
            return None
        return fill

    def enter(self, place: tuple[object, ...], fill: Fill) -> bool:
        if len(self._fills) >= _FILLS_MAX and place not in self._fills:
            return False
        self._fills[place] = fill
        return True

    def leave(self, place: tuple[object, ...], fill: Fill) -> None:
        if self._fills.get(place) is fill:
            del self._fills[place]

    def varies(self, key: str, names: tuple[bytes, ...]) -> None:
        known = self._vary_names
        if not names:
            known.pop(key, None)
            return
        known[key] = names
        if len(known) > _NAMES_MAX:
            del known[next(iter(known))]

    # -- below memory --------------------------------------------------------------------------

    async def take_lower(self, plan: StorePlan | None, state_dir: Path) -> None:
        """Keep responses where the plan says, besides memory. What was open before is closed."""
        wanted = None if plan is None else (plan.disk, plan.redis)
        if wanted == self._lower_plan:
            return
        self._lower_plan = wanted
        before, self.store.lower = self.store.lower, None
        if before is not None:
            await before.close()
        if plan is None:
            return
        lower: LowerStore | None = None
        if plan.disk is not None:
            lower = DiskStore(state_dir / plan.disk.path, plan.disk.bytes_max)
        elif plan.redis is not None:
            lower = open_redis(plan.redis)
        if lower is not None:
            await lower.start(self.barriers)
            self.store.lower = lower

    async def close(self) -> None:
        lower, self.store.lower = self.store.lower, None
        if lower is not None:
            await lower.close()

    # -- forgetting ----------------------------------------------------------------------------

    def heard(self, message: Mapping[str, Any]) -> None:
        """An invalidation that control of some machine has stamped."""
        try:
            self.invalidate(Invalidation.from_json(message))
        except ValueError as error:
            log.error("an invalidation that cannot be read: %s", error)  # noqa: TRY400

    def invalidate(self, invalidation: Invalidation) -> int:
        return self.store.invalidate(invalidation)

    def forget_changed(self, urls: tuple[str, ...]) -> None:
        """RFC 9111 4.4, here and at the other workers."""
        self._drop(urls, is_news=False)
        self._publish(CHANGED_TOPIC, {"urls": list(urls)})

    def heard_changed(self, message: Mapping[str, Any]) -> None:
        urls = message.get("urls")
        if isinstance(urls, list):
            self._drop(tuple(url for url in urls if isinstance(url, str)), is_news=True)

    def _drop(self, urls: tuple[str, ...], *, is_news: bool) -> None:
        """Without a stamp: the clock is control's. A fill that is under way is not kept either."""
        self.store.forget(urls, is_news=is_news)
        gone = set(urls)
        for fill in tuple(self._fills.values()):
            if fill.url in gone:
                fill.keep_nothing()

    # -- for those who ask ---------------------------------------------------------------------

    async def asked(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """What control asks of every worker."""
        match asked["do"]:
            case "invalidate":
                invalidation = Invalidation.from_json(asked["invalidation"])
                return {"struck": await self.store.purge(invalidation)}
            case "inspect":
                wall = time.time()  # noqa: TID251 - HTTP dates
                return {"responses": self.store.inspect(str(asked["url"]), wall)}
            case unknown:
                raise ValueError(f"nothing is known of {unknown!r}")

    def snapshot(self) -> dict[str, Any]:
        return {
            "store": asdict(self.store.snapshot()),
            "fills": len(self._fills),
            "routes": {name: dict(counts) for name, counts in self._counts.items()},
        }

    def rows_into(self, rows: Rows) -> None:
        for route, counts in self._counts.items():
            for outcome, count in counts.items():
                if count:
                    rows["headgate_cache_total"].append(([route, outcome], count))
        said = self.store.snapshot()
        if said.bytes_max:
            rows["headgate_cache_bytes"].append(([], said.bytes))
            rows["headgate_cache_bytes_max"].append(([], said.bytes_max))
            rows["headgate_cache_responses"].append(([], said.entries))
            rows["headgate_cache_evictions_total"].append(([], said.evictions))
            rows["headgate_cache_fills"].append(([], len(self._fills)))
        self._lower_counts.rows_into(rows, said.lower)
