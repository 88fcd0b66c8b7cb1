"""The registry in the control process: who owns the book, keeps it, feeds it, and tells of it.

Theory of operation
-------------------
    endpoints --register, beat, leave--+
    the file, DNS, directories --name--+--> Book --changes--> watchers  (at once, encoded once)
    a turn every `TURN_S` -------------+                 +--> workers   (`members`, in 20 ms)
                                                         +--> events, and soon the home

The book is pure and lives on the loop. What it knows is kept in a SQLite file by a thread of its
own, and nobody waits for that: what could not be written is written again, and health says so
meanwhile. Until the file has said what it remembers, nobody is let register (503, in a moment).

Control may be killed at any time. Leases come back with a full ttl; workers and watchers go on with
what they were told last. Where the end was in order, epoch and revision go on and watchers resume.
Otherwise there is another epoch, and a time of grace: see `registering_members`.

A service of the file takes registrations only if it says `discover: registry`: whoever has a token
of the role `service` could else draw the traffic of any service by its name.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final, Protocol

from headgate.config import Config
from headgate.control.admin.live import Streams
from headgate.control.observing import Surroundings
from headgate.control.registering_events import (
    ENTRIES_A_MINUTE,
    EVENTS_A_SECOND,
    Allowance,
    events_of,
)
from headgate.control.registering_home import Home, redis_of
from headgate.control.registering_kept import KeptMembers
from headgate.control.registering_members import TOPIC, Members
from headgate.control.registering_networks import why_outside
from headgate.control.registering_sources import Sources
from headgate.control.registering_watch import WATCHERS_MAX, Watchers
from headgate.mesh.registry.asked import Asked, Held, Lost
from headgate.mesh.registry.book import Book
from headgate.mesh.registry.counts import Seen, Statistics
from headgate.mesh.registry.model import Change, Health, Instance, Source
from headgate.mesh.registry.remembered import Remembered
from headgate.observe import Rows
from headgate.policy.registering import RegistryRules
from headgate.wire.resolve import Resolver

__all__ = ["Board", "Registering"]

TURN_S: Final = 0.25
SAVE_AFTER_S: Final = 0.05
STOOD_STILL_S: Final = 2.0
GRACE_LEAST_S: Final = 10.0
GRACE_MOST_S: Final = 120.0
FIRST_HOLD_S: Final = 0.2
"""Where nothing was ever kept: nearly always the first start of all."""
STATISTICS_S: Final = 1.0
FOUND_TOGETHER_S: Final = 0.25
_LOGGED_MOST: Final = 5
_OTHERS_MOST: Final = 100
_OTHERS: Final = "(others)"
_BEATEN: Final = (
    b'{"fence":%d,"ttl_s":%a,"beat_every_s":%a,"state":"%s","epoch":"%s","revision":%d}'
)

log = logging.getLogger("headgate.control")


class Board(Protocol):
    """What reaches the workers of this machine."""

    def publish(
        self, topic: str, message: Mapping[str, Any], *, retain: str | None = None
    ) -> None: ...
    def forget(self, topic: str, retain: str) -> None: ...
    def subscribe(self, topic: str, listener: Callable[[Mapping[str, Any]], None]) -> object: ...


class Registering:
    name = "registry"

    def __init__(
        self,
        around: Surroundings,
        board: Board,
        resolver: Resolver,
        tell: Callable[..., None],
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,  # noqa: TID251  told to people and other machines
    ) -> None:
        self._around = around
        self._tell_live = tell
        self._clock = clock
        self._wall = wall
        self.book = Book(_new_epoch(), RegistryRules(), self._changed)
        self.watchers = Watchers(self.book)
        self.streams = Streams(WATCHERS_MAX)
        self.members = Members(
            self.book,
            lambda topic, message, retain: board.publish(topic, message, retain=retain),
            board.forget,
            lambda wait_s, act: asyncio.get_running_loop().call_later(wait_s, act),
        )
        self.members.on_told = self._tell_found
        board.subscribe(TOPIC, self.members.hear)
        self.on_found: Callable[[], None] = lambda: None
        """Called in a while after instances that were found came or went."""
        self._telling_found: asyncio.TimerHandle | None = None
        self.sources = Sources(resolver, self._name, self.book.owners)
        self.discovered: dict[str, tuple[str, ...]] = {}
        """Services of the file that say `discover`, with how."""
        self._closed: frozenset[str] = frozenset()
        """Services of the file that take no registrations."""
        self._config: Config | None = None
        path = around.state_dir / self.name / "registry.sqlite"
        self.home = Home(self.book, path, clock, wall)
        self.kept = KeptMembers(self.members, around.state_dir, clock, wall)
        self._is_ready = False
        self._is_ending = False
        self._grace_until = 0.0
        self._running: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._is_saving_soon = False
        self._events = Allowance(EVENTS_A_SECOND, 1.0)
        self._entries = Allowance(ENTRIES_A_MINUTE, 60.0)
        self._left_out: dict[str, list[str]] = {}
        """What sources named that was not taken, by source."""
        self._counted: tuple[float, Statistics] | None = None

    # ---- life

    def start(self) -> None:
        self._running = asyncio.get_running_loop().create_task(self._run(), name="registry")

    def take(self, config: Config) -> None:
        self._config = config
        self.book.rules = config.registry.rules() if config.registry else RegistryRules()
        self.discovered = {
            name: spec.discover.ways
            for name, spec in config.services.items()
            if spec.discover is not None
        }
        self._closed = frozenset(
            name
            for name, spec in config.services.items()
            if spec.discover is None or not spec.discover.registry
        )
        if self._is_ready:
            self._take_up(config)
        self._wake.set()

    def _take_up(self, config: Config) -> None:
        """Act on the file; once the home has said what it remembers."""
        now, wall = self._clock(), self._wall()
        for row in self.book.leases():
            one = row.instance
            if self.closed_to(one.service) is not None:
                why = "nobody may register for this service any more"
                self.book.lose(one.service, one.id, one.fence, now, wall, why)
        self.sources.take(config)
        self.members.take({name: name not in self._closed for name in self.discovered})

    async def close(self) -> None:
        self._is_ending = True
        await self.kept.close()
        if self._telling_found is not None:
            self._telling_found.cancel()
        self.members.hush()
        self.streams.close()
        await self.sources.close()
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        await self.home.close()

    async def _run(self) -> None:
        known = await self.home.open()
        last = self._clock()
        if known.epoch is None:
            self._begin_grace(known, last)
        await self.home.follow(redis_of(self._config), is_first=True)
        self._is_ready = True
        if self._config is not None:
            self._take_up(self._config)
        await self.kept.open()  # nobody who registers waits for it
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TURN_S):
                    await self._wake.wait()
            self._wake.clear()
            now = self._clock()
            try:
                if now - last > STOOD_STILL_S:
                    # Whoever was silent meanwhile may have spoken to a process that stood still.
                    self.book.forgive(now)
                self._turn(now)
                await self.home.follow(redis_of(self._config))
            except Exception:
                log.exception("a turn of the registry failed")
            last = now

    def _begin_grace(self, known: Remembered, now: float) -> None:
        ttl_s = max((row.ttl_s for row in known.leases), default=0.0)
        self._grace_until = now + max(
            GRACE_LEAST_S, self.book.rules.ttl_s, min(ttl_s, GRACE_MOST_S)
        )
        is_first = not (known.leases or known.lost or known.revision)
        self.members.begin_grace(*((FIRST_HOLD_S,) if is_first else ()))

    def _turn(self, now: float) -> None:
        if self.home.redis is None:
            self.book.turn(now, self._wall())
        if self._grace_until and now >= self._grace_until:
            self._grace_until = 0.0
            self.members.end_grace()
        self._tell_left_out(now)
        self.home.save()
        self.kept.turn()

    # ---- who registers itself

    @property
    def unready(self) -> str:
        """Why nothing can be asked yet; empty when it can."""
        if self._is_ending:
            return "the control process ends; another begins in a moment"
        return "" if self._is_ready else "the registry begins; ask again in a moment"

    @property
    def grace_s(self) -> float:
        """For how long what is missing may only be late."""
        return max(0.0, self._grace_until - self._clock()) if self._grace_until else 0.0

    def closed_to(self, service: str) -> str | None:
        """Why nobody may register for this service; None if they may."""
        if self._config is not None and not self._config.registry:
            return "the file has the registry off; take `registry: off` out of it"
        if service in self._closed:
            return (
                f"the file names the instances of {service} itself; for more to register, "
                "write `discover: registry` at that service"
            )
        return None

    def stranger(self, client: str, url: str) -> str | None:
        """Why nobody at this address may register this URL; None if they may."""
        spec = self._config.registry if self._config is not None else None
        return why_outside(spec.networks, client, url) if spec else None

    async def register(self, asked: Asked, *, by: str, origin: str) -> Held:
        """List it. Raises Refused."""
        before = self.book.lease(asked.service, asked.id)
        if self.home.redis is not None:
            held = await self.home.redis.register(asked)
        else:
            held = self.book.register(asked, self._clock(), self._wall())
        self._save_soon()
        if held.created:
            self._record("registered", held.instance, by, origin)
        elif before is not None and before.instance.url != held.instance.url:
            self._record("taken_over", held.instance, by, origin, before=before.instance.url)
        return held

    async def beat(self, service: str, instance_id: str, fence: int, health: Health) -> Held | Lost:
        if self.home.redis is not None:
            return await self.home.redis.beat(service, instance_id, fence, health)
        return self.book.beat(service, instance_id, fence, self._clock(), self._wall(), health)

    async def leave(
        self,
        service: str,
        instance_id: str,
        fence: int | None,
        drain_s: float | None,
        *,
        by: str,
        origin: str,
    ) -> Held | Lost:
        """It goes. Without a fence, whoever holds the lease now."""
        if fence is None:
            held = self.book.lease(service, instance_id)
            fence = held.fence if held is not None else 0
        now, wall = self._clock(), self._wall()
        if self.home.redis is not None:
            found = await self.home.redis.leave(service, instance_id, fence, drain_s)
        else:
            found = self.book.leave(service, instance_id, fence, drain_s, now, wall)
        if isinstance(found, Held):
            self._save_soon()
            self._record("deregistered", found.instance, by, origin)
        return found

    def beaten(self, held: Held) -> bytes:
        """The answer to a beat."""
        return _BEATEN % (
            held.fence,
            held.ttl_s,
            held.beat_every_s,
            held.instance.state.encode(),
            self.book.epoch.encode(),
            self.book.revision,
        )

    def _record(self, what: str, instance: Instance, by: str, origin: str, **more: str) -> None:
        if not self._entries.take(self._clock()):
            return
        detail = {"url": instance.url, "zone": instance.zone, "version": instance.version, **more}
        target = f"{instance.service}/{instance.id}"
        self._around.record(f"registry.{what}", by, target=target, origin=origin, detail=detail)

    def _save_soon(self) -> None:
        if not self._is_saving_soon:
            self._is_saving_soon = True
            asyncio.get_running_loop().call_later(SAVE_AFTER_S, self._save_now)

    def _save_now(self) -> None:
        self._is_saving_soon = False
        self._wake.set()

    # ---- what happens

    def _name(self, source: Source, key: str, instances: Sequence[Instance]) -> None:
        """A source has named all that it knows."""
        told = self.book.name(source, key, instances, self._clock(), self._wall())
        place = f"{source} {key}".rstrip()
        if told and self._left_out.get(place) != told:
            for line in told[:_LOGGED_MOST]:
                log.warning("the registry leaves out what %s names: %s", place, line)
        if told and source != "file":
            self._left_out[place] = told
        else:
            # What stands in the file serves, listed or not: that is no reason to worry.
            self._left_out.pop(place, None)

    def _changed(self, changes: Sequence[Change]) -> None:
        self.watchers.tell(changes)
        self.members.changed({change.instance.service for change in changes})
        now = self._clock()
        for event in events_of(changes):
            if self._events.take(now):
                self._tell_live("registry", event.text, **event.attributes)

    def _tell_left_out(self, now: float) -> None:
        if events := self._events.left_out(now):
            self._tell_live("registry", f"{events} more things happened", count=events)
        if entries := self._entries.left_out(now):
            detail = {"count": entries}
            self._around.record("registry.more", "services", target="registry", detail=detail)

    def _tell_found(self) -> None:
        if self._telling_found is None and not self._is_ending:
            loop = asyncio.get_running_loop()
            self._telling_found = loop.call_later(FOUND_TOGETHER_S, self._tell_found_now)

    def _tell_found_now(self) -> None:
        self._telling_found = None
        self.on_found()

    # ---- asked

    def claims(self, service: str) -> list[Seen]:
        return self.book.claims(service, self._clock())

    def found(self, service: str) -> list[Instance]:
        """What workers are told beside what stands in the file."""
        if service not in self.discovered:
            return []
        return [one for one in self.book.of(service) if one.source != "file"]

    def worries(self) -> Iterable[str]:
        if not self._is_ready:
            return
        yield from self.home.worries()
        if self.kept.worry:
            yield f"{self.kept.path} cannot be written: {self.kept.worry}"
        for place, told in self._left_out.items():
            yield f"the registry leaves out what {place} names: {told[0]}"
        yield from self.sources.worries()
        said = self.statistics()
        if said.suspect:
            yield (
                f"{said.suspect} of {said.leases} registered instances have run out at once: the "
                "network is suspected, and they are kept in use"
            )

    def rows_into(self, rows: Rows) -> None:
        said = self.statistics()
        counts = said.counts
        states: Counter[tuple[str, str]] = Counter()
        others = 0
        for service in self.book.services():
            found = self.book.of(service)
            # Of services that nobody wrote into the file there may be as many as somebody likes.
            is_named = service in self._closed or service in self.discovered
            others += not is_named and bool(found)
            name = service if is_named or others <= _OTHERS_MOST else _OTHERS
            for one in found:
                states[name, one.state] += 1
        for service in self.discovered:
            states[service, "up"] += 0
        for (service, state), count in states.items():
            rows["headgate_registry_instances"].append(([service, state], count))
        for event, count in (
            ("registered", counts.registrations),
            ("beat", counts.beats),
            ("left", counts.left),
            ("expired", counts.expired),
            ("suspected", counts.suspected),
            ("fenced", counts.fenced),
            ("unknown", counts.unknown),
            ("refused", said.refused),
            ("changed", counts.changes),
        ):
            rows["headgate_registry_events_total"].append(([event], count))
        rows["headgate_registry_leases"].append(([], said.leases))
        rows["headgate_registry_watchers"].append(([], len(self.watchers)))
        rows["headgate_registry_watchers_cut_total"].append(([], self.watchers.cut))
        rows["headgate_registry_members_told_total"].append(([], self.members.told))
        rows["headgate_registry_writes_total"].append((["done"], self.home.store.writes))
        rows["headgate_registry_writes_total"].append((["failed"], self.home.store.failures))

    def statistics(self) -> Statistics:
        """At most a second old: it looks at every lease."""
        now = self._clock()
        if self._counted is None or now - self._counted[0] >= STATISTICS_S:
            self._counted = (now, self.book.statistics())
        return self._counted[1]

    def snapshot(self) -> dict[str, Any]:
        said = self.book.statistics()
        return {
            "epoch": said.epoch,
            "revision": said.revision,
            "services": said.services,
            "instances": said.instances,
            "hidden": said.hidden,
            "leases": said.leases,
            "silent": said.silent,
            "suspect": said.suspect,
            "draining": said.draining,
            "refused": said.refused,
            "watchers": len(self.watchers),
            "watchers_cut": self.watchers.cut,
            "members_told": self.members.told,
            "home": self.home.place,
            "is_kept": self.home.is_kept,
            "grace_s": round(self.grace_s, 1),
            "counts": asdict(said.counts),
            "by_service": {
                name: {"instances": shown, **asdict(each)}
                for name, (shown, each) in said.by_service.items()
            },
        }


def _new_epoch() -> str:
    return secrets.token_hex(6)
