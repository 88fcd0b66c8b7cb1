"""Who of many processes loads a value, and what the others get of it.

Theory of operation. Among the processes that share a second layer one has the lease of a key and
loads; the others look from time to time whether it has, up to `lease_wait`. The layer refuses what
comes from a lease that has been taken over. Whoever knows what a load of this family takes waits
for no longer than ten of them: the other may have died with its lease.

A value that the layer's codec cannot keep stays in this process's memory, where it is invalidated
as all else is; other processes load it for themselves. That is told by an event each time, and
logged once for each family of keys.
"""

from __future__ import annotations

import logging
from typing import Final

from headgate.cache.errors import Unencodable
from headgate.cache.flight import Flight
from headgate.cache.ground import Ground
from headgate.cache.held import Held, Worth
from headgate.cache.layer import Layer, LayerAway, Lease
from headgate.cache.loading import Ask
from headgate.cache.ports import Ports

__all__ = ["Sharing"]

log = logging.getLogger("headgate.cache")

_LEASE_LEAST_S: Final = 5.0
_LEASE_MOST_S: Final = 60.0
_PATIENCE_S: Final = 0.25
"""Beyond ten usual loads: who has the lease may be cut off, or dead."""
_POLL_FIRST_S: Final = 0.005
_POLL_MOST_S: Final = 0.1
_COMPLAINTS_MAX: Final = 1000


class Sharing(Ground):
    async def _found(self, flight: Flight, ask: Ask, ports: Ports) -> Held | None:
        """What another process has made, if it does for us."""
        (found,) = await self.from_layer((ask.key,), (ask.family,), ports)
        if found is None:
            return None
        old, time_s = flight.old, self.clock()
        if old is not None and found.made_at <= old.made_at:
            return None
        worth = self.worth(ask.key, found, time_s, ask.options)
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
        usual_s = 10 * self.costs.of(ask.family)
        ttl_s = min(max(_LEASE_LEAST_S, usual_s), most + 1.0)
        wait_s = min(options.lease_wait_s, _PATIENCE_S + usual_s if usual_s else _LEASE_MOST_S)
        until, pause_s = self.now() + wait_s, _POLL_FIRST_S
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

    async def _store(self, ask: Ask, ports: Ports, held: Held | None, lease: Lease | None) -> None:
        """Put into the second layer what was made, and let the next one load."""
        if self.home is None or (held is None and lease is None):
            return

        async def put(layer: Layer) -> None:
            try:
                if held is not None:
                    await layer.put({ask.key: self.outgoing(held)}, lease)
            finally:
                if lease is not None:
                    await layer.release(lease)

        try:
            await ports.behind(self.second, put)
        except LayerAway:
            pass
        except Unencodable as error:
            self.tell("unencodable", ask.key, ask.family, self.second.layer.kind, why=str(error))
            if ask.family not in self._complaints and len(self._complaints) < _COMPLAINTS_MAX:
                self._complaints.add(ask.family)
                log.warning(
                    "%r is kept in memory alone, the %s layer cannot: %s (said once for %r)",
                    ask.key[:100],
                    self.second.layer.kind,
                    error,
                    ask.family[:100],
                )
        except Exception:
            log.warning("%r could not be put into the second layer", ask.key[:100], exc_info=True)
