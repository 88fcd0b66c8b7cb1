"""How a value is found, made and kept: the algorithm behind every call of the object cache.

Theory of operation. A key is looked for in memory, in the second layer, and is then made by its
loader; `obtain` goes that way, `fly` is one load (`flight`), and both are written once for loops
and threads (`ports`).

The stamp is noted before the loader begins. What was invalidated meanwhile is given to those who
had asked before the invalidation, and kept nowhere; who asked later asks again.

Who of many processes loads, and what becomes of it in the second layer, is in `sharing`.
"""

from __future__ import annotations

import asyncio
import copy
from typing import Any, Final

from headgate.cache.asgi_tags import used_stale
from headgate.cache.barriers import Standing
from headgate.cache.copying import taken_in
from headgate.cache.errors import CacheClosed, LoadAbandoned, LoadTimedOut
from headgate.cache.flight import Flight, check_entry, waiting_in
from headgate.cache.held import Held, Worth
from headgate.cache.keys import check_key
from headgate.cache.layer import Lease
from headgate.cache.loading import CHAIN, LOADING, NOT_MODIFIED, Ask, Loading
from headgate.cache.options import checked_tags
from headgate.cache.ports import Ports
from headgate.cache.sharing import Sharing

__all__ = ["Core", "bare"]

_TRIES: Final = 20
_BREAKS: Final = 3
"""So often a load is begun again that was broken off from without."""


class Core(Sharing):
    """One cache, with all its namespaces."""

    # ---- one value

    async def obtain(self, ask: Ask, ports: Ports, held: Held | None, time_s: float) -> Held:
        """What is under this key, made if need be. `held` is what memory has."""
        check_key(ask.key)
        key, options = ask.key, ask.options
        for _ in range(_TRIES):
            worth = self.worth(key, held, time_s, options)
            if held is not None and worth <= Worth.BEHIND:
                return self._served(ask, ports, held, worth, time_s)
            if held is not None and worth is Worth.FALLBACK and time_s < held.retry_at:
                return self._stale(ask, held, "its load has just failed")
            if self.is_closed:
                raise CacheClosed
            self.tell("miss", key, ask.family, "memory")
            found = await self._fetch(ask, ports, held if worth is not Worth.NONE else None)
            if found is not None:
                return found
            time_s = self.clock()
            held = self.memory.get(key, time_s)
        raise LoadAbandoned(key, f"it was invalidated {_TRIES} times in a row while it was loaded")

    def _served(self, ask: Ask, ports: Ports, held: Held, worth: Worth, time_s: float) -> Held:
        if worth is Worth.FRESH:
            self.tell("hit", ask.key, ask.family, "memory")
            return held
        if time_s >= held.retry_at and not self.is_closed:
            self.refresh(ask, ports, held)
        if worth is Worth.EARLY:
            self.counts["early"] += 1
            self.tell("early", ask.key, ask.family, "memory")
            return held
        return self._stale(ask, held, "it is made anew behind")

    def _stale(self, ask: Ask, held: Held, why: str) -> Held:
        self.counts["stale"] += 1
        used_stale()
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
            self.tell("joined", key, ask.family)
        with waiting_in(chain, flight):
            if not await self._wait(flight, ask, ports):
                fallback = self._fallback(ask, old or flight.old)
                if fallback is not None:
                    return self._stale(ask, fallback, "its load takes longer than soft_timeout")
                await self._wait(flight, ask, ports, is_soft=False)
        if flight.is_void:
            ask.breaks += 1
            if ask.breaks >= _BREAKS:
                raise LoadAbandoned(key, f"it was cancelled {_BREAKS} times in a row")
            return None
        error = flight.error
        if error is not None:
            fallback = self._fallback(ask, old or flight.old)
            is_failure = isinstance(error, Exception) and not isinstance(error, options.negative)
            if fallback is not None and is_failure:
                return self._stale(ask, fallback, f"its load failed: {type(error).__name__}")
            return flight.outcome()
        held = flight.outcome()
        if flight.version != version and not self.is_alive(key, held):
            return None  # it was read before an invalidation that came before this caller
        if self.worth(key, held, self.clock(), options) is Worth.BEHIND:
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
        worth = self.worth(ask.key, old, self.clock(), ask.options)
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
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 - `pytest.fail` is one
            self.give_up(flight, ask, error)
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
                self.keep(ask.key, ask.family, found, ask.options)
                self.flights.leave(flight)
                flight.end(found)
                return
        held: Held | None = None
        try:
            held = await self._load(flight, ask, ports)
        finally:
            await self._store(ask, ports, held, lease)

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
        self.tell("load", ask.key, ask.family, took_s=cost_s, tags=tags)
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
            held = Held(None, self.clock(), 0.0, 0.0, stamp=stamp, tags=tags)
            held.value, held.copier = taken_in(value, self.copying)
        if is_kept and not self.keep(ask.key, ask.family, held, options):
            is_kept = False
            self.counts["dropped"] += 1
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

    def give_up(self, flight: Flight, ask: Ask, error: BaseException) -> None:
        """End a flight with an error, which its waiters get; or remember it as an answer."""
        if flight.is_done:
            return
        options, time_s = ask.options, self.clock()
        is_answer = isinstance(error, options.negative) and not flight.is_superseded
        if isinstance(error, Exception) and is_answer:
            self._remember(flight, ask, error)
        else:
            self.counts["load_failures"] += 1
            old = flight.old
            if old is not None:
                old.retry_at = time_s + options.pause_s
                if self.memory.get(ask.key, time_s) is None and self.is_alive(ask.key, old):
                    old.family = self.stats.family(ask.family)
                    self.memory.put(ask.key, old)  # it came from the second layer
        self.tell("load_failed", ask.key, ask.family, why=type(error).__name__)
        self.flights.leave(flight)
        flight.end(error=error)

    def _remember(self, flight: Flight, ask: Ask, error: Exception) -> None:
        ttl_s = ask.options.negative_ttl_s
        ttl_s = min(10.0, ask.options.ttl_s) if ttl_s is None else ttl_s
        if ttl_s <= 0.0:
            return
        time_s = self.clock()
        until = time_s + ttl_s
        held = Held(None, time_s, until, until, stamp=flight.stamp, tags=ask.tags, is_nothing=True)
        held.error = bare(error)
        held.gap = self.gap
        self.keep(ask.key, ask.family, held, ask.options)

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
