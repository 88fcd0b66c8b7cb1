"""A worker's cache of responses: the store, its barriers, and the fills under way.

Outlives reloads: a route keeps its responses as long as the store's settings stay. Barriers are
raised by what control tells (`asked`) and by news of other machines; what an unsafe method may have
changed is dropped here at once, and told to the other workers.

Every fill under way stands here by name (`spellings`), so that a change reaches it; those that may
be joined stand at a *place* as well: their key, and what their request says in the fields by which
the last response of that key varied.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from dataclasses import asdict
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from headgate.cache.barriers import Barriers
from headgate.cache.http.vary import normal
from headgate.cache.invalidation import Invalidation
from headgate.gateway.caching.exchange import CachedEdited, CachedExchange, CachedFiltered
from headgate.gateway.caching.hit import hits_first
from headgate.gateway.caching.key import compile_cache_key, url_of
from headgate.gateway.caching.lower_life import LowerLife
from headgate.gateway.caching.route_cache import OUTCOMES, RouteCache
from headgate.gateway.caching.spellings import Spellings, name_of
from headgate.gateway.caching.store import ResponseStore

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from pathlib import Path

    from headgate.cache.http.rules import KeyRules
    from headgate.gateway.caching.fill import Fill
    from headgate.gateway.caching.hit import Begin
    from headgate.gateway.caching.remembered import Remembered
    from headgate.gateway.filters.chain import Chain
    from headgate.gateway.steps import Step
    from headgate.gateway.traffic import RouteTraffic
    from headgate.observe import Rows
    from headgate.plan.caching import CachePlan, StorePlan
    from headgate.plan.plan import RoutePlan
    from headgate.policy.degrade import Degrade
    from headgate.wire.message import Header

    Place = tuple[object, ...]

__all__ = ["CHANGED_TOPIC", "NEWS_TOPIC", "Caching"]

NEWS_TOPIC: Final = "cache.invalidate"
"""What control has stamped: an invalidation for every worker of every machine."""
CHANGED_TOPIC: Final = "cache.changed"
"""URLs that an unsafe method has changed, from worker to worker."""

_FILLS_MAX: Final = 10_000
"""Beyond that, nobody waits for another: each asks for itself."""
_BEHIND_MAX: Final = 1_000
"""Fills that nobody waits for: beyond that, what is stale stays so until it is asked for again."""
_NAMES_MAX: Final = 10_000
_HELD_MIN: Final = 16 * 1024 * 1024
"""Bodies on their way into the cache take as much memory as the cache, and this much at least."""

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
        self._fills: dict[Place, Fill] = {}
        """Those that may be joined."""
        self._under_way: dict[str, dict[Fill, None]] = {}
        """All of them, by name."""
        self._spellings = Spellings()
        self._key_rules: dict[KeyRules, None] = {}
        """Of all routes."""
        self._behind = 0
        self._held_bytes = 0
        self._held_max = 0
        self._memos: deque[Remembered] = deque()
        self._vary_names: dict[str, tuple[bytes, ...]] = {}
        """By key, what the last response varied by: who asks with other values waits apart."""
        self._counts: dict[str, dict[str, int]] = {}
        self._lower = LowerLife()

    # -- plans ---------------------------------------------------------------------------------

    def resize(self, bytes_max: int) -> None:
        self.store.resize(bytes_max)
        self._held_max = max(bytes_max, _HELD_MIN)

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
        self._key_rules[plan.rules.key] = None
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
        self._key_rules.clear()

    def turn(self) -> None:
        """A few times a second: what is of no use to anybody any more goes."""
        wall = time.time()  # noqa: TID251 - HTTP dates
        self.store.sweep(wall)
        self._forget_replies(monotonic())
        if self.store.lower is None:  # else it may be held there
            self._spellings.sweep(lambda url: bool(self.store.inspect(url, wall)))

    def remember(self, memo: Remembered) -> None:
        """A reply hangs on a head, which may outlive what is held: it is taken off in time."""
        self._memos.append(memo)

    def _forget_replies(self, now: float) -> None:
        memos = self._memos
        # Each lives for less than a second, and stands here once for every time it was made.
        while memos and memos[0].until <= now:
            memo = memos.popleft()
            memo.kept = memo.reply = None

    # -- fills ---------------------------------------------------------------------------------

    def began(self, fill: Fill) -> None:
        self._under_way.setdefault(fill.name, {})[fill] = None
        self._behind += fill.is_background

    def ended(self, fill: Fill) -> None:
        same = self._under_way.get(fill.name)
        if same is None or fill not in same:
            return
        del same[fill]
        self._behind -= fill.is_background
        if not same:
            del self._under_way[fill.name]

    def stored(self, fill: Fill) -> None:
        """What it brought is held now."""
        lost = self._spellings.note(fill.url, fill.name)
        if lost:
            self.store.forget(lost)

    def hold(self, size: int) -> bool:
        """Count what fills hold of bodies; whether there is room for more of it."""
        self._held_bytes += size
        return self._held_bytes <= self._held_max

    @property
    def has_room_behind(self) -> bool:
        return self._behind < _BEHIND_MAX

    def place_of(self, key: str, fields: tuple[Header, ...]) -> Place:
        """Who asks for this key with these fields may read one fill with others at this place."""
        names = self._vary_names.get(key)
        return (key,) if names is None else (key, normal(names, fields))

    def joinable(self, place: Place) -> Fill | None:
        fill = self._fills.get(place)
        if fill is None or fill.version != self.barriers.version or not fill.can_be_joined:
            return None
        return fill

    def enter(self, place: Place, fill: Fill) -> bool:
        if len(self._fills) >= _FILLS_MAX and place not in self._fills:
            return False
        self._fills[place] = fill
        return True

    def leave(self, place: Place, fill: Fill) -> None:
        if self._fills.get(place) is fill:
            del self._fills[place]

    def varies(self, fill: Fill, names: tuple[bytes, ...]) -> None:
        """What a fill brings varies by these: from now on it is found by its own kind."""
        known, key = self._vary_names, fill.key
        if known.get(key, ()) == names:
            return
        if names:
            known[key] = names
            if len(known) > _NAMES_MAX:
                del known[next(iter(known))]
        else:
            del known[key]
        if fill.place is not None:
            self.leave(fill.place, fill)
            place = self.place_of(key, fill.fields)
            fill.place = place if self.joinable(place) is None else None
            if fill.place is not None:
                self.enter(fill.place, fill)

    # -- below memory --------------------------------------------------------------------------

    async def take_lower(self, plan: StorePlan | None, state_dir: Path) -> None:
        """Keep responses where the plan says, besides memory. What was open before is closed."""
        await self._lower.take(plan, state_dir, self.store)

    async def close(self) -> None:
        await self._lower.close(self.store)

    # -- forgetting ----------------------------------------------------------------------------

    def heard(self, message: Mapping[str, Any]) -> None:
        """An invalidation that control of some machine has stamped."""
        try:
            self.invalidate(Invalidation.from_json(message))
        except ValueError as error:
            log.error("an invalidation that cannot be read: %s", error)  # noqa: TRY400

    def invalidate(self, invalidation: Invalidation) -> int:
        return self.store.invalidate(invalidation)

    def forget_changed(self, urls: tuple[str, ...], rules: KeyRules | None) -> None:
        """RFC 9111 4.4, here and at the other workers. `rules`: by which the route that changed
        them keeps responses; None if it keeps nothing, then they may be kept by those of any other.
        """
        known = self._key_rules if rules is None else (rules,)
        names = tuple({name_of(url, each): None for url in urls for each in known})
        self._drop(urls, names, is_news=False)
        self._publish(CHANGED_TOPIC, {"urls": list(urls), "names": list(names)})

    def heard_changed(self, message: Mapping[str, Any]) -> None:
        self._drop(_texts(message.get("urls")), _texts(message.get("names")), is_news=True)

    def _drop(self, urls: tuple[str, ...], names: tuple[str, ...], *, is_news: bool) -> None:
        """Without a stamp: the clock is control's. A fill that is under way is not kept either."""
        self.store.forget(self._spellings.of((*urls, *names)), is_news=is_news)
        for name in names:
            for fill in tuple(self._under_way.get(name, ())):
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
            "fills": sum(map(len, self._under_way.values())),
            "routes": {name: dict(counts) for name, counts in self._counts.items()},
        }

    def rows_into(self, rows: Rows) -> None:
        for route, counts in self._counts.items():
            for outcome, count in counts.items():
                if count:
                    rows["headgate_cache_total"].append(([route, outcome], count))
        said = self.store.snapshot()
        if said.bytes_max > 1:  # some route keeps something
            rows["headgate_cache_bytes"].append(([], said.bytes))
            rows["headgate_cache_bytes_max"].append(([], said.bytes_max))
            rows["headgate_cache_responses"].append(([], said.entries))
            rows["headgate_cache_evictions_total"].append(([], said.evictions))
            fills = sum(map(len, self._under_way.values()))
            rows["headgate_cache_fills"].append(([], fills))
        self._lower.rows_into(rows, said.lower)


def _texts(said: object) -> tuple[str, ...]:
    return tuple(each for each in said if isinstance(each, str)) if isinstance(said, list) else ()
