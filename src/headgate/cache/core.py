"""How a value is found, made and kept: the algorithm behind every call of the object cache.

Theory of operation. A key is looked for in memory, in the second layer, and is then made by its
loader; `obtain` goes that way, `fly` is one load (`flight`), and both are written once for loops
and threads (`ports`).

The stamp is noted before the loader begins. What was invalidated meanwhile is given to those who
had asked before the invalidation, and kept nowhere; who asked later asks again.

Among the processes that share a second layer one has the lease of a key and loads; the others look
from time to time whether it has, up to `lease_wait`. The layer refuses what comes from a lease that
has been taken over.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Callable
from typing import Any, Final

from headgate.cache.barriers import Standing
from headgate.cache.copying import taken_in
from headgate.cache.errors import CacheClosed, LoadAbandoned, LoadTimedOut
from headgate.cache.flight import Flight, check_entry, waiting_in
from headgate.cache.ground import Ground, Worth
from headgate.cache.held import Held
from headgate.cache.keys import check_key
from headgate.cache.layer import Layer, LayerAway, Lease
from headgate.cache.loading import CHAIN, LOADING, NOT_MODIFIED, Loading
from headgate.cache.options import Options, checked_tags
from headgate.cache.ports import Ports

__all__ = ["Ask", "Core", "Worth", "bare"]

log = logging.getLogger("headgate.cache")

_TRIES: Final = 20
_LEASE_LEAST_S: Final = 5.0
_LEASE_MOST_S: Final = 60.0
_POLL_FIRST_S: Final = 0.005
_POLL_MOST_S: Final = 0.1


class Ask:
    """A key and how its value is made and kept."""

    __slots__ = ("call", "family", "key", "options", "tags")

    def __init__(
        self,
        key: str,
        family: str,
        options: Options,
        call: Callable[[Loading], Any],
        tags: tuple[str, ...],
    ) -> None:
        self.key = key
        self.family = family
        self.options = options
        self.call = call
        self.tags = tags


class Core(Ground):
    """One cache, with all its namespaces."""

    # ---- one value

    async def obtain(self, ask: Ask, ports: Ports, held: Held | None, wall: float) -> Held:
        """What is under this key, made if need be. `held` is what memory has."""
        check_key(ask.key)
        key, options = ask.key, ask.options
        for _ in range(_TRIES):
            worth = self.worth(key, held, wall, options)
            if held is not None and worth <= Worth.BEHIND:
                return self._served(ask, ports, held, worth, wall)
            if held is not None and worth is Worth.FALLBACK and wall < held.retry_at:
                return self._stale(ask, held, "its load has just failed")
            if self.is_closed:
                raise CacheClosed
            if self.listeners.is_heard:
                self.tell("miss", key, ask.family, "memory")
            found = await self._fetch(ask, ports, held if worth is not Worth.NONE else None)
            if found is not None:
                return found
            wall = self.wall()
            held = self.memory.get(key, wall)
        raise LoadAbandoned(key, f"it was invalidated or broken off {_TRIES} times in a row")

    def _served(self, ask: Ask, ports: Ports, held: Held, worth: Worth, wall: float) -> Held:
        if worth is Worth.FRESH:
            if self.listeners.is_heard:
                self.tell("hit", ask.key, ask.family, "memory")
            return held
        if wall >= held.retry_at and not self.is_closed:
            self.refresh(ask, ports, held)
        if worth is Worth.EARLY:
            self.counts["early"] += 1
            if self.listeners.is_heard:
                self.tell("early", ask.key, ask.family, "memory")
            return held
        return self._stale(ask, held, "it is made anew behind")

    def _stale(self, ask: Ask, held: Held, why: str) -> Held:
        self.counts["stale"] += 1
        if self.listeners.is_heard:
            self.tell("stale", ask.key, ask.family, "memory", why=why)
        return held

    def refresh(self, ask: Ask, ports: Ports, old: Held | None) -> None:
        """Make it anew behind, if nobody does."""
        flight, is_new = self.flights.join(ask.key, lambda: self._flight(ask.key), _any)
        if not is_new:
            return
        flight.is_behind = True
        flight.old = old
        if not ports.start(self, flight, ask, ()):
            self.flights.leave(flight)
            flight.end(is_void=True)

    def _flight(self, key: str) -> Flight:
        version = self.barriers.version
        return Flight(self.flights, key, self.barriers.stamp, version)

    async def _fetch(self, ask: Ask, ports: Ports, old: Held | None) -> Held | None:
        """Begin or join the load, and wait for it. None: look again."""
        key, options, chain = ask.key, ask.options, CHAIN.get()
        if chain:
            check_entry(self.flights, key, chain)
        here = ports.here()

        def may_join(flight: Flight) -> bool:
            if not flight.can_end(here):
                return False
            return (
                flight.version == self.barriers.version
                or self.judge(key, ask.tags, flight.stamp) is not Standing.DEAD
            )

        flight, is_new = self.flights.join(key, lambda: self._flight(key), may_join)
        version = self.barriers.version
        if is_new:
            flight.old = old
            ports.start(self, flight, ask, chain)
        else:
            self.counts["joined"] += 1
            if self.listeners.is_heard:
                self.tell("joined", key, ask.family)
        with waiting_in(chain, flight):
            if not await self._wait(flight, ask, ports):
                fallback = self._fallback(ask, old or flight.old)
                if fallback is not None:
                    return self._stale(ask, fallback, "its load takes longer than soft_timeout")
                await self._wait(flight, ask, ports, is_soft=False)
        if flight.is_void:
            return None
        if flight.error is not None:
            fallback = self._fallback(ask, old or flight.old)
            if fallback is not None and not isinstance(flight.error, options.negative):
                return self._stale(ask, fallback, f"its load failed: {type(flight.error).__name__}")
            return flight.outcome()
        held = flight.outcome()
        if flight.version != version and not self.is_alive(key, held):
            return None  # it was read before an invalidation that came before this caller
        if self.worth(key, held, self.wall(), options) is Worth.BEHIND:
            self.refresh(ask, ports, held)
        return held

    async def _wait(self, flight: Flight, ask: Ask, ports: Ports, is_soft: bool = True) -> bool:
        soft_s = ask.options.soft_timeout_s if is_soft else None
        left_s = None if flight.deadline is None else max(0.0, flight.deadline - self.now())
        if left_s is None or (soft_s is not None and soft_s < left_s):
            return await ports.wait(flight, soft_s)
        if not await ports.wait(flight, left_s):
            hard_s = ask.options.hard_timeout_s
            self.give_up(
                flight, ask, LoadTimedOut(flight.key, left_s if hard_s is None else hard_s)
            )
        return True

    def _fallback(self, ask: Ask, old: Held | None) -> Held | None:
        worth = self.worth(ask.key, old, self.wall(), ask.options)
        return old if worth <= Worth.FALLBACK else None

    # ---- one load

    async def fly(self, flight: Flight, ask: Ask, ports: Ports, chain: tuple[Flight, ...]) -> None:
        """Run a load to its end, whatever that is. Cancelled only by who owns the flight."""
        token = CHAIN.set((*chain, flight))
        try:
            await self._make(flight, ask, ports)
        except Exception as error:  # noqa: BLE001 - it goes to those who wait
            self.give_up(flight, ask, error)
        except asyncio.CancelledError:
            task = flight.task
            if task is None or not task.cancelling():
                self.give_up(flight, ask, LoadAbandoned(flight.key, "its loader cancelled itself"))
                return
            raise
        finally:
            CHAIN.reset(token)
            if not flight.is_done:
                # Broken off from without: nobody is to suffer for that, who waits asks again.
                self.flights.leave(flight)
                flight.end(is_void=True)

    async def _make(self, flight: Flight, ask: Ask, ports: Ports) -> None:
        lease: Lease | None = None
        if not self.is_away():
            found = await self._found(flight, ask, ports)
            if found is None and ask.options.lease:
                lease, found = await self._take_lease(flight, ask, ports)
            if found is not None:
                self.keep(ask.key, found, ask.options)
                self.flights.leave(flight)
                flight.end(found)
                return
        held: Held | None = None
        try:
            held = await self._load(flight, ask, ports)
        finally:
            await self._store(ask, ports, held, lease)

    async def _found(self, flight: Flight, ask: Ask, ports: Ports) -> Held | None:
        """What another process has made, if it does for us."""
        found = await self.from_layer(ask.key, ports)
        if found is None:
            return None
        old, wall = flight.old, self.wall()
        if old is not None and found.made_at <= old.made_at:
            return None
        worth = self.worth(ask.key, found, wall, ask.options)
        if worth <= Worth.EARLY or (worth is Worth.BEHIND and not flight.is_behind):
            return found
        if worth <= Worth.OLD:
            flight.old = found
        return None

    async def _take_lease(
        self, flight: Flight, ask: Ask, ports: Ports
    ) -> tuple[Lease | None, Held | None]:
        """The right to load among all processes; or what the one who had it has made."""
        key, options = ask.key, ask.options
        most = options.hard_timeout_s or _LEASE_MOST_S
        ttl_s = min(max(_LEASE_LEAST_S, 10 * self.costs.of(ask.family)), most + 1.0)
        until, pause_s = self.now() + options.lease_wait_s, _POLL_FIRST_S
        nobody: Lease | None = Lease("", 0, 0.0)
        lease: Lease | None

        async def lease_of(layer: Layer) -> Lease | None:
            return await layer.lease(key, ttl_s)

        while True:
            lease = await self.ask_layer(ports, lease_of, nobody)
            if lease is nobody:
                return None, None
            # Also with a lease at the first try: its last holder may have ended a moment ago.
            try:
                found = await self._found(flight, ask, ports)
            except BaseException:
                await self._store(ask, ports, None, lease)
                raise
            if found is not None:
                await self._store(ask, ports, None, lease)
                return None, found
            if lease is not None or self.now() >= until or flight.is_done:
                return lease, None
            await ports.sleep(pause_s * (0.75 + 0.5 * self.rng.random()))
            pause_s = min(_POLL_MOST_S, 1.6 * pause_s)

    async def _load(self, flight: Flight, ask: Ask, ports: Ports) -> Held | None:
        """Call the loader; what is to be kept in the second layer."""
        old, options = flight.old, ask.options
        flight.version = self.barriers.version
        stamp = flight.stamp = self.barriers.stamp
        gap = self.gap
        entry = Loading(
            ask.key,
            None if old is None else old.given(),
            old is not None and old.error is None,
            "" if old is None else old.validator,
            ask.tags,
        )
        call_off = ports.limit(self, flight, ask)
        token = LOADING.set(entry)
        started = self.now()
        try:
            value = await ports.result(ask.call(entry))
        finally:
            LOADING.reset(token)
            if call_off is not None:
                call_off()
        cost_s = self.now() - started
        self.counts["loads"] += 1
        mean_s = self.costs.learn(ask.family, cost_s)
        if flight.is_done:
            return None  # too late
        tags = self._tags(ask, entry, value, old)
        if value is NOT_MODIFIED:
            if old is None or not entry.has_old:
                raise LoadAbandoned(
                    ask.key, "its loader answered NOT_MODIFIED without an old value"
                )
            value = old.value
        if self.listeners.is_heard:
            what = "load"
            self.tell(what, ask.key, ask.family, took_s=cost_s, tags=tags)
        held = self.made(
            value,
            options,
            tags,
            ttl=entry.ttl,
            stamp=stamp,
            cost_s=mean_s,
            validator=entry.validator,
            is_nothing=value is None,
        )
        is_kept = held is not None and entry.keep and not flight.is_superseded
        if held is not None:
            held.gap = gap  # what was missed while it was loaded concerns it, too
        if held is None:
            held = Held(None, self.wall(), 0.0, 0.0, stamp=stamp, tags=tags)
            held.value, held.copier = taken_in(value, self.copying)
        if is_kept and not self.keep(ask.key, held, options):
            is_kept = False
            self.counts["dropped"] += 1
            if self.listeners.is_heard:
                self.tell("dropped", ask.key, ask.family, why="invalidated while it was loaded")
        self.flights.leave(flight)
        flight.end(held)
        return held if is_kept else None

    def _tags(self, ask: Ask, entry: Loading, value: Any, old: Held | None) -> tuple[str, ...]:
        if value is NOT_MODIFIED:
            if entry.tags is ask.tags and old is not None:
                return old.tags
            return checked_tags(entry.tags)
        tags = ask.tags if entry.tags is ask.tags else checked_tags(entry.tags)
        tags_of = ask.options.tags_of
        return tags if tags_of is None else checked_tags((*tags, *tags_of(value)))

    async def _store(self, ask: Ask, ports: Ports, held: Held | None, lease: Lease | None) -> None:
        """Put into the second layer what was made, and let the next one load."""
        if self.home is None or (held is None and lease is None):
            return

        async def put(layer: Layer) -> None:
            try:
                if held is not None:
                    await layer.put({ask.key: held}, lease)
            finally:
                if lease is not None:
                    await layer.release(lease)

        try:
            await ports.behind(self.second, put)
        except LayerAway:
            pass
        except Exception:
            log.warning("%r could not be put into the second layer", ask.key[:100], exc_info=True)

    def give_up(self, flight: Flight, ask: Ask, error: Exception) -> None:
        """End a flight with an error, which its waiters get; or remember it as an answer."""
        if flight.is_done:
            return
        options, wall = ask.options, self.wall()
        if isinstance(error, options.negative) and not flight.is_superseded:
            self._remember(flight, ask, error)
        else:
            self.counts["load_failures"] += 1
            old = flight.old
            if old is not None:
                old.retry_at = wall + options.pause_s
                if self.memory.get(ask.key, wall) is None and self.is_alive(ask.key, old):
                    self.memory.put(ask.key, old)  # it came from the second layer
        if self.listeners.is_heard:
            self.tell("load_failed", ask.key, ask.family, why=type(error).__name__)
        self.flights.leave(flight)
        flight.end(error=error)

    def _remember(self, flight: Flight, ask: Ask, error: Exception) -> None:
        ttl_s = ask.options.negative_ttl_s
        ttl_s = min(10.0, ask.options.ttl_s) if ttl_s is None else ttl_s
        if ttl_s <= 0.0:
            return
        wall = self.wall()
        until = wall + ttl_s
        held = Held(None, wall, until, until, stamp=flight.stamp, tags=ask.tags, is_nothing=True)
        held.error = bare(error)
        held.gap = self.gap
        self.keep(ask.key, held, ask.options)

    def cancel_alone(self, flight: Flight) -> None:
        """Its last waiter has left, and it is not to go on."""
        self.flights.leave(flight)
        loop, task = flight.loop, flight.task
        if loop is not None and task is not None and not loop.is_closed():
            loop.call_soon_threadsafe(task.cancel)


def _any(flight: Flight) -> bool:
    return True


def bare(error: Exception) -> Exception:
    """An exception without the frames and causes that it would keep alive."""
    try:
        found = copy.copy(error)
    except Exception:  # noqa: BLE001 - its own __reduce__ may do anything
        found = error
    if type(found) is not type(error):
        found = error
    found.__cause__ = found.__context__ = None
    return found.with_traceback(None)
