"""What the namespaces of one object cache share, and what is in its memory worth.

Theory of operation. What is in memory is worth one of `Worth`, by its times, by the barriers, and
by whether the second layer's news has been heard. A value carries the version of the barriers at
which it was judged last, so that a hit asks them only after something was invalidated.

Lives in memory are measured by the monotonic clock, and become times of the wall clock where an
entry goes to the second layer, as the other way round.

While the layer does not hear news (`is_coherent`), values kept before are served only where
`stale_if_error` lets them stand in for a load that failed, or where `when_away` is "stale". What is
loaded meanwhile is kept for at most `away_ttl`. When news may have been missed (`on_gap`) every
value in memory is of an earlier gap: none is served again once the layer hears.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from headgate.cache.barriers import Barriers, Standing
from headgate.cache.copying import Copying, taken_in
from headgate.cache.early import Costs, is_due_early
from headgate.cache.entry import FOREVER, Entry
from headgate.cache.errors import CacheClosed, read_once
from headgate.cache.events import CacheEvent, Listeners
from headgate.cache.flight import Flights
from headgate.cache.held import Held, Worth
from headgate.cache.invalidation import Invalidation
from headgate.cache.layer import Layer, LayerAway
from headgate.cache.links import Links
from headgate.cache.options import Options, positive
from headgate.cache.ports import THREADS_MAX, Ports
from headgate.cache.stamps import LocalStamps
from headgate.cache.stats import Stats
from headgate.cache.sync import Home, on_fork

if TYPE_CHECKING:
    from headgate.cache.warming import Warming

__all__ = ["FirstLayer", "Ground"]

T = TypeVar("T")

_READ_ONCE: Final = frozenset({CoroutineType, GeneratorType, AsyncGeneratorType})

log = logging.getLogger("headgate.cache")


class FirstLayer(Protocol):
    """What is asked of the memory."""

    def get(self, key: str, now_wall: float) -> Any: ...

    def put(self, key: str, entry: Any) -> Any: ...

    def delete(self, key: str) -> Any: ...

    def clear(self) -> Any: ...

    def scan(self, glob: str) -> Iterable[str]: ...


class Ground:
    """All that the namespaces of one cache share."""

    def __init__(
        self,
        memory: FirstLayer,
        make_layer: Callable[[], Layer] | None = None,
        *,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] | None = None,
        rng: random.Random | None = None,
        copying: Copying = "copy",
    ) -> None:
        if copying not in ("copy", "frozen", "shared"):
            raise ValueError(f'copying={copying!r}: write "copy", "frozen" or "shared"')
        self.memory = memory
        self.copying: Copying = copying
        self.now = now
        self.clock = time.monotonic if wall is None else wall
        """By which what is in memory lives. Setting the machine's clock moves no end of it."""
        self.wall = wall or time.time  # noqa: TID251 - this is the rim
        self.rng = rng or random.Random()
        self.barriers = Barriers("objects")
        self.stamps = LocalStamps(self.wall)
        self.flights = Flights()
        self.costs = Costs()
        self.listeners = Listeners()
        self.stats = Stats()
        self.tasks: set[asyncio.Task[Any]] = set()
        self._complaints: set[str] = set()
        self.warmings: set[Warming] = set()
        self.gap = 0
        self.is_closed = False
        self.counts = dict.fromkeys(
            ("loads", "load_failures", "joined", "stale", "early", "invalidations", "dropped"), 0
        )
        self.lock = threading.RLock()
        self._threads = 0
        self._hearing: list[Callable[[], None]] = []
        self.links: Links | None = None
        self.home: Home | None = None
        if make_layer is not None:
            self.home = Home(make_layer, self._adopt)
        on_fork(self)

    # ---- the second layer

    @property
    def second(self) -> Home:
        if self.home is None:
            raise LayerAway("there is no second layer")
        return self.home

    def _adopt(self, layer: Layer) -> None:
        """A layer has been opened: what was known by another's clock means nothing any more."""
        for end in self._hearing:
            end()
        self.barriers = layer.barriers
        self.gap += 1
        self.memory.clear()
        self._hearing = [layer.listen(self._heard), layer.on_gap(self._missed)]

    def _heard(self, news: Invalidation) -> None:
        """The barriers stand already; what is named is let go now rather than when it is used."""
        self.let_go(news)
        self.told_invalidated(news, "elsewhere")

    def _missed(self) -> None:
        self.gap += 1
        self.tell("gap", why="news may have been missed")

    def is_coherent(self) -> bool:
        """Whether all news has been heard. Nobody hears where the layer's loop does not run."""
        home = self.home
        if home is None:
            return True
        loop = home.loop
        return loop is not None and loop.is_running() and home.layer.is_coherent(self.now())

    def is_away(self) -> bool:
        """Whether asking the second layer is known to be in vain."""
        home = self.home
        return home is None or (home.is_settled and home.layer.is_away)

    async def ask_layer(
        self, ports: Ports, make: Callable[[Layer], Awaitable[T]], otherwise: T
    ) -> T:
        """Of the second layer; `otherwise` if it is away."""
        home = self.second
        if self.is_away():
            return otherwise
        try:
            return await ports.layer(home, make)
        except LayerAway as away:
            self.tell("layer_away", layer=home.layer.kind, why=str(away))
        except Exception as error:
            # A call goes on without the layer whatever is wrong with it.
            log.warning("the %s layer of the cache failed", home.layer.kind, exc_info=True)
            self.tell("layer_failed", layer=home.layer.kind, why=type(error).__name__)
        return otherwise

    async def from_layer(
        self, keys: Sequence[str], families: Sequence[str], ports: Ports
    ) -> list[Held | None]:
        """What the second layer has of these, in order."""
        started = self.now()
        nothing: list[Entry | None] = [None] * len(keys)
        while True:
            gap = self.gap
            entries = await self.ask_layer(ports, lambda layer: layer.get(keys), nothing)
            if gap == self.gap or entries is nothing:
                break
            # News may have been missed since they were read, or the layer was opened only now.
        if entries is nothing:
            return [None] * len(keys)
        took_s, kind = self.now() - started, self.second.layer.kind
        found: list[Held | None] = []
        for key, family, entry in zip(keys, families, entries, strict=True):
            held = None if entry is None else self.taken_in(key, entry, gap)
            found.append(held)
            what = "layer_miss" if held is None else "layer_hit"
            self.tell(what, key, family, kind, took_s=took_s)
        return found

    def taken_in(self, key: str, entry: Entry, gap: int) -> Held | None:
        """As it is held here; None if it is over or struck."""
        held = Held.of(entry)
        held.move(-self.ahead_s())
        held.value, held.copier = taken_in(entry.value, self.copying)
        held.gap = gap
        if not self.is_alive(key, held) or self.clock() >= held.usable_until:
            return None
        return held

    def ahead_s(self) -> float:
        """The wall clock, which other processes go by, less the clock of memory."""
        return self.wall() - self.clock()

    def outgoing(self, held: Held) -> Held:
        """As the second layer is to have it: with times of the wall clock."""
        sent = Held.of(held)
        sent.move(self.ahead_s())
        return sent

    # ---- what is in memory

    def is_alive(self, key: str, held: Held) -> bool:
        version = self.barriers.version
        if held.version == version:
            return True
        standing = self.judge(key, held.tags, held.stamp)
        if standing is Standing.DEAD:
            return False
        if standing is Standing.STALE:
            held.is_struck = True
            held.plain_until = 0.0
        held.version = version
        return True

    def judge(self, key: str, tags: tuple[str, ...], stamp: int) -> Standing:
        while True:
            try:
                return self.barriers.judge(key, tags, stamp)
            except RuntimeError:
                # A thread raised a barrier while this one went through them.
                continue

    def worth(self, key: str, held: Held | None, time_s: float, options: Options) -> Worth:
        if held is None or time_s >= held.usable_until:
            return Worth.NONE
        if not self.is_alive(key, held):
            self.memory.delete(key)
            return Worth.NONE
        fallback = Worth.OLD
        if held.is_struck or time_s < held.fresh_until + options.stale_if_error_s:
            fallback = Worth.FALLBACK if options.stale_if_error_s or held.is_struck else Worth.OLD
        if self.home is not None:
            is_coherent = self.is_coherent()
            if held.gap != self.gap and is_coherent:
                self.memory.delete(key)
                return Worth.NONE
            is_old = held.gap != self.gap or (held.away_until == FOREVER and not is_coherent)
            if is_old and options.when_away != "stale":
                return fallback
            if time_s >= held.away_until:
                return fallback
        if held.is_struck:
            return Worth.BEHIND
        if time_s < held.fresh_until:
            cost_s = held.cost_s
            if (
                options.early > 0.0
                and cost_s > 0.0
                and time_s >= held.retry_at
                and is_due_early(time_s, held.fresh_until, cost_s, options.early, self.rng)
            ):
                return Worth.EARLY
            return Worth.FRESH
        if time_s < held.fresh_until + options.stale_while_revalidate_s:
            return Worth.BEHIND
        return fallback

    def is_plain(self, held: Held | None, time_s: float) -> bool:
        """Whether a hit is a hit, with nothing else to be thought of."""
        return (
            held is not None
            and time_s < held.plain_until
            and held.version == self.barriers.version
            and (self.home is None or (held.gap == self.gap and self.is_coherent()))
        )

    def keep(self, key: str, family: str, held: Held, options: Options) -> bool:
        """Put it into memory, unless it has been invalidated since its stamp."""
        if not self.is_alive(key, held):
            return False
        if self.home is not None and not self.is_coherent():
            held.away_until = self.clock() + options.away_ttl_s
        held.settle(options.early, held.cost_s)
        held.family = self.stats.family(family)
        self.memory.put(key, held)
        return True

    def made(self, value: Any, options: Options, tags: tuple[str, ...], **more: Any) -> Held | None:
        """A value with its times; None if it is not to be kept."""
        if type(value) in _READ_ONCE:
            raise read_once(value)
        time_s = self.clock()
        ttl = more.pop("ttl", None)
        if ttl is None and options.ttl_of is not None:
            ttl = options.ttl_of(value)
        if ttl is not None and ttl != 0:
            ttl = positive("ttl", ttl)
        elif ttl is None:
            ttl = options.ttl_s
            if more.get("is_nothing") and options.negative_ttl_s is not None:
                ttl = min(ttl, options.negative_ttl_s)
        if ttl <= 0.0:
            return None
        ttl *= 1.0 - options.jitter * self.rng.random()
        beyond = max(options.stale_while_revalidate_s, options.stale_if_error_s, options.retain_s)
        kept, copier = taken_in(value, self.copying)
        held = Held(kept, time_s, time_s + ttl, time_s + ttl + beyond, tags=tags, **more)
        held.copier = copier
        held.gap = self.gap
        return held

    def let_go(self, news: Invalidation) -> None:
        if news.soft:
            return
        if news.everything in ("objects", "all"):
            self.memory.clear()
        for key in news.keys:
            self.memory.delete(key)

    # ---- the rest of its life

    def take_thread(self) -> bool:
        with self.lock:
            if self._threads >= THREADS_MAX:
                return False
            self._threads += 1
            return True

    def give_thread(self) -> None:
        with self.lock:
            self._threads = max(0, self._threads - 1)

    def tell(
        self,
        what: str,
        key: str = "",
        family: str = "",
        layer: str = "",
        *,
        took_s: float = 0.0,
        why: str = "",
        tags: tuple[str, ...] = (),
    ) -> None:
        """Count what happened, and say so to whoever listens."""
        self.stats.count(what, key, family, layer, took_s, tags)
        if self.listeners.is_heard:
            self.listeners.tell(CacheEvent(what, key, family, layer, took_s, why, tags))

    def told_invalidated(self, news: Invalidation, why: str) -> None:
        self.counts["invalidations"] += 1
        heard = (*news.keys, *news.patterns, news.everything) if self.listeners.is_heard else ()
        self.tell("invalidated", ", ".join(heard)[:200], why=why, tags=news.tags)

    def strike(self, news: Invalidation) -> Invalidation:
        """Invalidate in this process alone, which keeps its own barriers."""
        with self.lock:
            struck = news.at(self.stamps.next(self.barriers.stamp))
            self.barriers.raise_for(struck)
        self.let_go(struck)
        self.told_invalidated(struck, "here")
        return struck

    def break_off(self) -> None:
        """Let go all who wait, and end what they waited for."""
        for flight in self.flights.all():
            self.flights.leave(flight)
            flight.end(error=CacheClosed())
            loop, task = flight.loop, flight.task
            if loop is not None and task is not None and not loop.is_closed():
                loop.call_soon_threadsafe(task.cancel)

    def forked(self) -> None:
        """In the child: nobody here waits for the parent's loads, and its layer is not ours."""
        self.lock = threading.RLock()
        self.stamps = LocalStamps(self.wall, self.stamps.last)
        self.flights = Flights()
        self.tasks = set()
        self._threads = 0
        renew = getattr(self.memory, "forked", None)
        if renew is not None:
            renew()
        if self.home is not None:
            self.home.forget()
        if self.links is not None:
            self.links.forked()
