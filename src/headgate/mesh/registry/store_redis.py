"""A Redis as the home of several controls: what one is told, all know; what one ends, ends once.

Theory of operation. Redis decides who holds a lease and in which order things happen
(`redis_script.py`); every control has the whole book and decides by the same rules what is to end.

    register, leave, a health that changes   asked of Redis, and heard back by the log before it is
                                             answered, so that all books change in one order
    beats                                    answered from the book at once; told to Redis in one
                                             call every `FLUSH_S`, and what others heard is read
                                             every `PULL_S`
    the end of a lease, a suspicion          found by the book, carried out by Redis if it agrees

    away --connect, read all--> here --a fault, or no answer within the deadline--> away

*Away*, nobody is turned away: registrations, beats and leaves are held in the book, with fences by
the own clock that are a minute ahead, so that they are above what Redis may just have given. No
lease ends, since nobody knows who was heard elsewhere. What was held is offered when Redis is back,
and counts unless somebody else has registered the id since. The instances that others register
meanwhile at their controls are not known here until then.

*Lost memory.* Who finds a Redis without a mark, or with another than before, offers all it knows:
the controls fill it again together, and the fences say what is the latest.

A reader that missed a number in the log, and everyone who connects, reads all. A lease read anew
has a full ttl to be heard.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from headgate.mesh.registry.book import Asked, Book, Held, Lost, Over, Refused
from headgate.mesh.registry.model import Health
from headgate.mesh.registry.redis_link import RedisLink
from headgate.mesh.registry.redis_rows import (
    Key,
    field_of,
    followed,
    key_of,
    number_of,
    pairs_of,
    read_row,
    said_of,
)
from headgate.mesh.registry.redis_script import (
    ALL,
    BEATS,
    BEGIN,
    CHANGE,
    DROP,
    HEARD,
    OFFER,
    REGISTER,
)
from headgate.mesh.registry.remembered import LeaseRow

__all__ = ["RedisHome"]

DEADLINE_S: Final = 1.0
FLUSH_S: Final = 0.25
PULL_S: Final = 1.0
START_S: Final = 2.0
FENCES_AHEAD_US: Final = 60_000_000
_FENCES_APART_US: Final = 1_000_000
_BLOCK_MS: Final = 500
_READ_MOST: Final = 500
_BEATS_A_CALL: Final = 1000
_RETRY_MIN_S: Final = 0.1
_RETRY_MAX_S: Final = 2.0
_CANCEL_S: Final = 0.05
_STOOD_STILL_S: Final = 2.0
_AGAIN_S: Final = 2.0
"""After so long an end that Redis did not agree to is looked at again."""

log = logging.getLogger("headgate.mesh")


class RedisHome(RedisLink):
    """`start` it after the book was made; ask it in place of the book for what changes leases."""

    def __init__(
        self,
        url: str,
        book: Book,
        *,
        prefix: str = "headgate",
        deadline_s: float = DEADLINE_S,
        flush_s: float = FLUSH_S,
        pull_s: float = PULL_S,
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,  # noqa: TID251  told to people, and in fences
    ) -> None:
        super().__init__(url, prefix, deadline_s)
        self.book = book
        self.resyncs = 0
        self.offered = 0
        self.unreadable = 0
        """What stands in Redis, or came by the log, and is none of ours."""
        self._flush_s = flush_s
        self._pull_s = pull_s
        self._rng = rng or random.Random()
        self._clock = clock
        self._wall = wall
        self._mark = ""
        self._place_in_log = "0-0"
        self._pulled_ms = 0
        self._beaten: dict[Key, int] = {}
        """Fences of those heard since the last flush."""
        self._held: dict[Key, int] = {}
        """Decided while it was away: to be offered, or dropped by this fence."""
        self._tasks: list[asyncio.Task[None]] = []
        self._tried = asyncio.Event()

    # ---- life

    @property
    def worry(self) -> str:
        if not self.away:
            return ""
        kept = f", {len(self._held)} changes are held until then" if self._held else ""
        return f"{self.place} is away ({self.away}): no registration ends{kept}"

    async def start(self, *, offers_all: bool = False) -> None:
        """Connect, and read what is there. That it is away is no error: it is looked for.
        `offers_all`: the leases of the book count there too, unless they are known in another way.
        """
        if offers_all:
            rows = [row.instance for row in self.book.leases()]
            self._held = {(one.service, one.id): one.fence for one in rows}
        loop = asyncio.get_running_loop()
        self._connect()
        self._tasks = [
            loop.create_task(self._follow(), name="registry follow"),
            loop.create_task(self._keep_time(), name="registry time"),
        ]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_S):
                await self._tried.wait()

    async def close(self) -> None:
        """Tell what was heard last, and go."""
        if not self.away:
            with contextlib.suppress(*self._faults):
                await self._flush()
        alive = {task for task in self._tasks if not task.done()}
        while alive:  # more than once: before Python 3.12 `wait_for` may lose a cancellation
            for task in alive:
                task.cancel()
            _, alive = await asyncio.wait(alive, timeout=_CANCEL_S)
        await self._disconnect()

    # ---- who registers

    async def register(self, asked: Asked) -> Held:
        """List it, or take its lease over. Raises Refused."""
        row = self.book.judge(asked)
        key = (row.instance.service, row.instance.id)
        got = await self._ask(REGISTER, field_of(key), said_of(row))
        if got is None:
            now, wall = self._clock(), self._wall()
            # Others may be away as well, and know the same fences: none of them may give the same.
            chance = self._rng.randrange(1, _FENCES_APART_US)
            self.book.skip_fences(int(wall * 1e6) + FENCES_AHEAD_US, chance)
            held = self.book.register(asked, now, wall)
            self._held[key] = held.fence
            return held
        fence, number, had = int(got[0]), int(got[1]), bool(got[2])
        self.book.count(row.instance.service, "registrations")
        await self._wait_applied(number)
        found = self.book.lease(*key)
        if found is None or found.fence != fence:
            # The log is behind, or somebody registered it again already: it will hear.
            instance = replace(row.instance, fence=fence)
            found = Held(instance, fence, row.ttl_s, row.ttl_s / 3)
        return replace(found, created=not had)

    async def beat(
        self, service: str, instance_id: str, fence: int, health: Health = "up"
    ) -> Held | Lost:
        """It lives. Raises Refused for a health that is none."""
        key = (service, instance_id)
        held = self.book.lease(service, instance_id)
        if held is None or held.fence != fence:
            status = await self._ask(BEATS, field_of(key), str(fence))
            if status is not None and status[0] == 1:
                await self._wait_applied(None)  # registered elsewhere a moment ago
                held = self.book.lease(service, instance_id)
            elif status is not None and status[0] == 0 and held is None:
                return followed(key)
        if held is not None and held.fence == fence:
            said = held.instance
            if said.health != health or said.state == "suspect":
                return await self._beat_that_changes(held, health)
            self._beaten[key] = fence
        return self.book.beat(service, instance_id, fence, self._clock(), self._wall(), health)

    async def leave(
        self, service: str, instance_id: str, fence: int, drain_s: float | None
    ) -> Held | Lost:
        """It goes: at once, or after it has drained."""
        key = (service, instance_id)
        now, wall = self._clock(), self._wall()
        held = self.book.lease(service, instance_id)
        row = self.book.row(service, instance_id)
        if held is None or row is None or held.fence != fence:
            return self.book.leave(service, instance_id, fence, drain_s, now, wall)
        drain_s = self.book.rules.drain_s if drain_s is None else drain_s
        drain_s = min(max(0.0, drain_s), self.book.rules.max_drain_s)
        until = wall + drain_s
        if row.drain_until is not None:
            until = min(until, row.drain_until)
        said = replace(row.instance, state="draining") if until > wall else row.instance
        if until > wall:
            drained = said_of(replace(row, instance=said, drain_until=until))
            number = await self._ask(CHANGE, field_of(key), str(fence), drained, "draining", 0)
        else:
            number = await self._ask(DROP, field_of(key), str(fence), "deregistered", 0)
        if number is None:
            left = self.book.leave(service, instance_id, fence, drain_s, now, wall)
            self._held[key] = fence
            return left
        if int(number) == 0:
            return followed(key)
        if row.instance.state != "draining":
            self.book.count(service, "left")
        await self._wait_applied(int(number))
        found = self.book.lease(service, instance_id)
        if found is not None and found.fence == fence:
            return found
        return replace(held, instance=said)

    async def _beat_that_changes(self, held: Held, health: Health) -> Held | Lost:
        said = held.instance
        key = (said.service, said.id)
        row = self.book.row(*key)
        state = "up" if said.state == "suspect" else said.state
        why = " and ".join(
            ["heard again"] * (said.state == "suspect")
            + [f"says it is {health}"] * (said.health != health)
        )
        if health not in ("up", "degraded", "down"):
            raise Refused(f"health: {health!r:.40} is none of up, degraded, down")
        if row is not None:
            row = replace(
                row, instance=replace(said, state=state, health=health), suspect_since=None
            )
            number = await self._ask(CHANGE, field_of(key), str(held.fence), said_of(row), why, 0)
            if number is not None:
                await self._wait_applied(int(number))
                found = self.book.lease(*key)
                if found is not None and found.fence == held.fence:
                    self.book.overheard(*key, self._clock())
                    return found
            else:
                self._held[key] = held.fence
        return self.book.beat(*key, held.fence, self._clock(), self._wall(), health)

    # ---- time

    async def _keep_time(self) -> None:
        next_pull = 0.0
        last = self._clock()
        while True:
            await asyncio.sleep(self._flush_s * self._rng.uniform(0.8, 1.0))
            now = self._clock()
            if now - last > _STOOD_STILL_S:
                # Who was silent may have spoken to a process that stood still.
                self.book.forgive(now)
            last = now
            if self.away:
                continue
            try:
                await self._flush()
                await self._offer()
                if self._clock() >= next_pull:
                    next_pull = self._clock() + self._pull_s
                    await self._pull()
                await self._end_what_is_over()
            except self._faults as error:
                self._go_away(self._place.words(error))
            except Exception as error:
                log.exception("the registry in %s", self.place)  # a fault of ours
                self._go_away(type(error).__name__)

    async def _flush(self) -> None:
        while self._beaten:
            batch: list[str | int] = []
            taken: dict[Key, int] = {}
            while self._beaten and len(taken) < _BEATS_A_CALL:
                key, fence = self._beaten.popitem()
                taken[key] = fence
                batch += (field_of(key), str(fence))
            try:
                await self._call(BEATS, batch)
            except BaseException:
                self._beaten = taken | self._beaten
                raise

    async def _pull(self) -> None:
        at, mark, found = await self._call(HEARD, [self._pulled_ms])
        if mark.decode() != self._mark:
            raise ConnectionError("its memory is another's now")
        # Again from a little before: a clock that steps by some ms loses nothing.
        self._pulled_ms = int(at) - 100
        now = self._clock()
        for field in found:
            key = key_of(field)
            if key is not None:
                self.book.overheard(*key, now)

    async def _end_what_is_over(self) -> None:
        for over in self.book.over(self._clock(), _AGAIN_S, most=200):
            await self._end(over)

    async def _end(self, over: Over) -> None:
        lease, what, why = over
        key = (lease.instance.service, lease.instance.id)
        fence = str(lease.instance.fence)
        # As Redis sees it, and not to the millisecond.
        silent_ms = max(1, round(lease.ttl_s * 900))
        if what == "suspect":
            row = self.book.row(*key)
            if row is None or lease.instance.state == "suspect":
                return
            suspect = replace(
                row, instance=replace(row.instance, state="suspect"), suspect_since=self._wall()
            )
            await self._call(CHANGE, [field_of(key), fence, said_of(suspect), why, silent_ms])
            return
        if what == "drained":
            silent_ms = 0
        number = await self._call(DROP, [field_of(key), fence, why, silent_ms])
        if number and what == "ran out":
            self.book.count(key[0], "expired")

    # ---- following

    async def _follow(self) -> None:
        tries = 0
        while True:
            why = ""
            try:
                if self.away:
                    await self._find()
                    tries = 0
                await self._read()
            except self._faults as error:
                why = self._place.words(error)
            except Exception as error:
                log.exception("the registry in %s", self.place)  # a fault of ours
                why = type(error).__name__
            if why or self.away:
                self._go_away(why or self.away)
                self._tried.set()
                pause_s = min(_RETRY_MAX_S, _RETRY_MIN_S * 2.0 ** min(tries, 10))
                await asyncio.sleep(pause_s * self._rng.uniform(0.5, 1.0))
                tries += 1

    async def _find(self) -> None:
        await self._greet()
        await self._read_all()
        self.book.forgive(self._clock())
        self.away = ""
        self._tried.set()
        log.info("the registry is in %s", self.place)

    async def _read_all(self) -> None:
        own = secrets.token_hex(8)
        mark = (await self._call(BEGIN, [own])).decode()
        if mark == own or (self._mark and mark != self._mark):
            # New, or emptied since: what is known here may be all there is.
            for row in self.book.leases():
                key = (row.instance.service, row.instance.id)
                self._held.setdefault(key, row.instance.fence)
        await self._offer()
        _, number, place, leases, fences, at = await self._call(ALL, [])
        fence_of = pairs_of(fences)
        now, wall = self._clock(), self._wall()
        there: set[Key] = set()
        for field, said in pairs_of(leases).items():
            found = self._row(field, fence_of.get(field, b""), said)
            if found is None:
                continue
            there.add((found.instance.service, found.instance.id))
            self._adopt(found, now, wall, "known elsewhere")
        for row in self.book.leases():
            key = (row.instance.service, row.instance.id)
            if key not in there and key not in self._held:
                self.book.lose(*key, row.instance.fence, now, wall, "it ended elsewhere")
        self._mark = mark
        self._place_in_log = place.decode()
        self._pulled_ms = int(at)
        self.resyncs += 1
        self._have_applied(int(number))

    def _adopt(self, row: LeaseRow, now: float, wall: float, why: str) -> None:
        known = self.book.lease(row.instance.service, row.instance.id)
        if known is not None and known.fence > row.instance.fence:
            # Of a backup, perhaps: ours is the later one, and is offered with the next beats.
            self._held[row.instance.service, row.instance.id] = known.fence
            return
        self.book.adopt(row, now, wall, why)

    async def _offer(self) -> None:
        for key, fence in list(self._held.items()):
            row = self.book.row(*key)
            if row is not None:
                words = [field_of(key), str(row.instance.fence), said_of(row), "known elsewhere"]
                await self._call(OFFER, words)
            else:
                await self._call(DROP, [field_of(key), str(fence), "deregistered", 0])
            self.offered += 1
            if self._held.get(key) == fence:  # else it was held anew meanwhile
                del self._held[key]

    async def _read(self) -> None:
        got = await self._command(
            "XREAD",
            "COUNT",
            _READ_MOST,
            "BLOCK",
            _BLOCK_MS,
            "STREAMS",
            self._keys[3],
            self._place_in_log,
        )
        if self.away or not got:
            return
        now, wall = self._clock(), self._wall()
        entries = got[self._keys[3].encode()][0] if isinstance(got, dict) else got[0][1]
        for place, words in entries:
            entry = words if isinstance(words, dict) else pairs_of(words)
            number = number_of(entry.get(b"n"))
            if number != self._applied + 1:
                await self._read_all()
                return
            self._place_in_log = place.decode()
            self._apply(entry, now, wall)
            self._have_applied(number)

    def _apply(self, entry: dict[bytes, bytes], now: float, wall: float) -> None:
        field, fence = entry.get(b"field", b""), entry.get(b"fence", b"")
        why = entry.get(b"why", b"").decode("utf-8", "replace")
        if entry.get(b"op") == b"put":
            row = self._row(field, fence, entry.get(b"said", b""))
            if row is not None:
                self._adopt(row, now, wall, why)
        else:
            key = key_of(field)
            if key is not None:
                self.book.lose(*key, number_of(fence), now, wall, why)

    def _row(self, field: bytes, fence: bytes, said: bytes) -> LeaseRow | None:
        row = read_row(field, fence, said, self.book.rules)
        if row is None:
            self.unreadable += 1
            log.debug("in %s is what is none of ours: %.200r", self.place, said)
        return row
