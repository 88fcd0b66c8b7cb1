"""How a process knows that it has heard everything, and what it does when it has not.

Theory of operation. Every batch that reads entries, and a beat when there is none, reads the clock.
If that says that all has been heard (`heard`), then all that was told before the batch was sent has
been, and the process is coherent until `lease_s` after the sending. So whoever invalidates knows,
without asking anybody, that the old value is served for no longer than `lease_s` after: by then a
process has either heard of it, or not heard from Redis at all. News are pushed as well, by a
blocking read on a connection of its own, which is why it mostly takes a millisecond.

    coherent --a reading that is all heard--> coherent until then + lease_s
    coherent --nothing new for lease_s; the connection lost--> not coherent
    any --a history that is another, or has holes--> gap: the floor is raised, listeners drop all

What is read from Redis is judged by `_mirror`, which knows all barriers since `_since`; the tags of
an entry older than that are looked up, each once. An entry that stood the test carries the clock it
was tested at from then on, so that the floor of a gap does not strike it too.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from math import inf
from typing import Any, Final, Literal

from headgate.cache.barriers import Barriers
from headgate.cache.invalidation import Invalidation
from headgate.cache.layer import LayerAway
from headgate.cache.redis.heard import Heard, read_clock, read_record
from headgate.cache.redis.link import Call, Link, heed_cancel, open_link
from headgate.cache.redis.names import Names
from headgate.cache.redis.node import STALE_S, Met, Node, pause_s
from headgate.cache.redis.router import Router
from headgate.cache.redis.scripts import JOIN, TICK
from headgate.policy.breaker import Permit

__all__ = ["Coherence"]

RECORDS: Final = 1000
_TICK_S: Final = 20.0
_BLOCK_S: Final = 5.0

log = logging.getLogger("headgate.cache")


class Coherence(ABC):
    """The half of `RedisLayer` that hears."""

    def __init__(
        self, names: Names, family: Literal["objects", "responses"], lease_s: float, durable: bool
    ) -> None:
        self.barriers = Barriers(family)
        self.lease_s = lease_s
        self._family = family
        self._names = names
        self._is_durable = durable
        self._heard = Heard()
        self._mirror = Barriers(family)
        self._since = 0
        self._known: dict[bytes, tuple[int, int]] = {}
        """Barriers of tags and URLs that were looked up."""
        self._is_forgetful = False
        """Redis may evict barriers: what is older than `_since` and has tags is not believed."""
        self._coherent_until = -inf
        self._id = uuid.uuid4().hex.encode()
        self._catching: asyncio.Future[None] | None = None
        self._listeners: list[Callable[[Invalidation], None]] = []
        self._gap_listeners: list[Callable[[], None]] = []
        self._router: Router | None = None
        self._news_link: Link | None = None
        self._gaps = 0
        self._faults: tuple[type[Exception], ...] = ()

    def is_coherent(self, now: float) -> bool:
        return now < self._coherent_until

    def listen(self, hear: Callable[[Invalidation], None]) -> Callable[[], None]:
        return _added(self._listeners, hear)

    def on_gap(self, hear: Callable[[], None]) -> Callable[[], None]:
        return _added(self._gap_listeners, hear)

    @property
    def position(self) -> tuple[int, int, str]:
        """How far news were heard: the clock, the stamp of the last, and their history."""
        heard = self._heard
        return heard.clock, heard.said, heard.epoch

    def resume(self, position: tuple[int, int, str]) -> None:
        """Go on listening where another process has stopped, before the start. For a process that
        listens and reads no entries: barriers from before are not known to it.
        """
        self._heard.follow(position)
        self._since = position[1]
        self.barriers.heard(position[0])

    # ---- a reading of the clock

    async def _settle(self, text: object, said: int, sent_at: float) -> None:
        """Hear all that a reading of the clock speaks of; LayerAway if that cannot be."""
        heard = self._heard
        while True:
            verdict = heard.judge(text, said)
            if verdict == "same":
                self._all_is_heard(sent_at)
                return
            if verdict == "lost":
                self._lose_home("it has forgotten what was invalidated")
                raise LayerAway("the Redis of the cache has lost its memory")
            before, is_mine = heard.said, False
            if self._catching is None or self._catching.done():
                # One that is done must not be waited for: that would not let the loop go on.
                is_mine = True
                self._catching = asyncio.get_running_loop().create_task(
                    self._read_on(), name="cache redis reads on"
                )
                self._catching.add_done_callback(_seen)
            await asyncio.shield(self._catching)
            # Pushed news may have been quicker; but if nothing came after this reading, it is lost.
            if is_mine and heard.said == before:
                self._lose_home("news are not there any more")
                raise LayerAway("news are not there any more")

    def _all_is_heard(self, sent_at: float) -> None:
        until = sent_at + self.lease_s
        if until > self._coherent_until and self._home_is_here():
            self._coherent_until = until
        self.barriers.heard(self._heard.clock)

    async def _read_on(self) -> None:
        router = self._router
        if router is None:
            raise LayerAway("closed")
        stream = self._names.stream
        start = f"{self._heard.said}-1"  # just behind it; `(` is not known to Redis 6.0
        call = router.ask([(stream, ("XRANGE", stream, start, "+", "COUNT", RECORDS))])
        (records,) = await call.future
        if isinstance(records, Exception) or not self._hear(records):
            self._lose_home("news were missed")
            raise LayerAway("news were missed")

    def _hear(self, records: Sequence[Any]) -> bool:
        """Take records in; False if some were missed."""
        new, is_gap = self._heard.take(records)
        for invalidation, who in new:
            self._raise(invalidation, is_own=who == self._id)
        return not is_gap

    def _raise(self, invalidation: Invalidation, *, is_own: bool) -> None:
        self.barriers.raise_for(invalidation)
        self._mirror.raise_for(invalidation)
        if is_own:
            return
        for hear in (*self._listeners,):
            try:
                hear(invalidation)
            except Exception:
                log.exception("a listener to invalidations failed")

    def _home_is_here(self) -> bool:
        return self._router is not None and self._router.home.link is not None

    def _lose_home(self, why: str) -> None:
        self._coherent_until = -inf
        router = self._router
        if router is not None and router.home.link is not None:
            router.home.link.end(why)

    def _node_gone(self, node: Node) -> None:
        if self._router is None or node is self._router.home:
            self._coherent_until = -inf

    # ---- joining

    async def _join(self, node: Node, link: Link, met: Met) -> None:
        """On each new connection, before anything else is said on it."""
        router = self._router
        if router is None:
            raise LayerAway("closed")
        names = self._names
        keys = (names.clock, names.stream, names.wide, names.nodes)
        run = "" if self._is_durable else met.run_id
        words = (run, self.barriers.stamp, uuid.uuid4().hex, RECORDS)
        command = ("EVALSHA", JOIN.sha, len(keys), *keys, *words)
        if node is not router.home:
            call = router.ask([(names.clock, command)])
            (reply,) = await call.future
            if isinstance(reply, Exception):
                raise reply
            return
        sent_at = time.monotonic()
        (reply,) = await node.handshake(link, [command])
        if isinstance(reply, Exception):
            raise reply
        self._adopt(reply, met)
        await self._tell_pending(node, link)
        self._coherent_until = sent_at + self.lease_s
        self._renew_news()

    def _adopt(self, reply: Any, met: Met) -> None:
        text, wide, records = reply
        clock = read_clock(text)
        if clock is None:
            raise LayerAway("its clock cannot be read")
        self._is_forgetful = met.may_evict
        records = records[::-1]
        heard = self._heard
        if heard.epoch == clock[2] and heard.said <= clock[1]:
            was = heard.said
            if self._hear(records) and heard.said == clock[1]:
                heard.clock = max(heard.clock, clock[0])
                self.barriers.heard(heard.clock)
                return
            log.debug("%d was heard and %d said: a gap", was, clock[1])
        self._begin_anew(clock, wide, records)

    def _begin_anew(self, clock: tuple[int, int, str], wide: Sequence[bytes], records: Any) -> None:
        self._gaps += 1
        self._mirror = mirror = Barriers(self._family)
        self._since = clock[1]
        self._known.clear()
        stood = [_wide(wide[i], wide[i + 1]) for i in range(0, len(wide), 2)]
        said = [read for read in map(read_record, records) if read is not None]
        if said and len(said) == len(records):
            self._since = min(self._since, said[0][1])
        stood += [invalidation for invalidation, *_ in said]
        for invalidation in sorted(
            (one for one in stood if one is not None), key=lambda one: one.stamp
        ):
            mirror.raise_for(invalidation)
        self._heard.follow(clock)
        self.barriers.raise_floor(clock[0])
        for hear in (*self._gap_listeners,):
            try:
                hear()
            except Exception:
                log.exception("a listener to gaps failed")

    @abstractmethod
    async def _tell_pending(self, node: Node, link: Link) -> None:
        """Bring what waited while Redis was away, before anything is read again."""

    # ---- beats and pushed news

    async def _beat(self) -> None:
        ticked_at = time.monotonic()
        while (router := self._router) is not None:
            await asyncio.sleep(min(self.lease_s / 3, _TICK_S / 4))
            home = router.home
            now = time.monotonic()
            is_tick_due = now - ticked_at > _TICK_S
            is_renewed = self._coherent_until - now > self.lease_s * 0.6  # by what was read
            if home.link is None or (is_renewed and not is_tick_due):
                continue
            with contextlib.suppress(LayerAway):
                said = self._heard.said
                call = router.ask((), clock=True, is_trial=True)
                (text,) = await call.future
                await self._settle(text, said, call.sent_at)
                if is_tick_due:
                    ticked_at = now
                    clock = self._names.clock
                    command = ("EVALSHA", TICK.sha, 1, clock, self._heard.epoch)
                    await router.ask([(clock, command)]).future

    def _renew_news(self) -> None:
        if self._news_link is not None:
            self._news_link.end("home is another")

    async def _follow_news(self) -> None:
        tries = 0
        loop = asyncio.get_running_loop()
        while (router := self._router) is not None:
            heed_cancel()
            await asyncio.sleep(pause_s(router.home.rng, tries))
            tries += 1
            if router.home.link is None:
                tries = min(tries, 1)
                continue
            link: Link | None = None
            try:
                async with asyncio.timeout(STALE_S):
                    self._news_link = link = await open_link(router.home.connect(), _Alone())
                while True:
                    stream = self._names.stream
                    words = ("BLOCK", int(_BLOCK_S * 1000), "COUNT", RECORDS, "STREAMS", stream)
                    call = Call(1, loop, time.monotonic())
                    command = ("XREAD", *words, f"{self._heard.said}-0")
                    link.send([(call, 0, command)], 2 * _BLOCK_S)
                    (reply,) = await call.future
                    if isinstance(reply, Exception):
                        raise LayerAway(str(reply))
                    tries = 0
                    if reply and not self._hear(reply[0][1]):
                        self._lose_home("news were missed")
                        break
            except self._faults as error:
                log.debug("news of the cache are not pushed: %s", error)
            finally:
                self._news_link = None
                if link is not None:
                    link.end("over")


def _seen(done: asyncio.Future[None]) -> None:
    if not done.cancelled():
        done.exception()


class _Alone:
    """Owns a connection that nobody else uses."""

    stale_s = STALE_S
    deadline_s = STALE_S

    def answered(self, permit: Permit | None, took_s: float, was_late: bool) -> None:
        pass

    def late(self, permit: Permit | None) -> None:
        pass

    def away(self) -> LayerAway:
        return LayerAway("the connection of the news is lost")

    def lost(self, link: Link, why: str) -> None:
        pass

    def refused(self, entry: Any, error: Exception) -> bool:
        return False


def _added(listeners: list[Any], one: Any) -> Callable[[], None]:
    listeners.append(one)

    def end() -> None:
        with contextlib.suppress(ValueError):
            listeners.remove(one)

    return end


def _wide(field: bytes, stamp: bytes) -> Invalidation | None:
    """A barrier that stands on many names (`wide_fields`)."""
    text = field.decode("utf-8", "surrogatepass")
    kind, name = text[1:2], text[2:]
    said: dict[str, Any] = {"soft": text[:1] == "s", "stamp": int(stamp)}
    if kind == "!":
        said["everything"] = name
    else:
        said["patterns" if kind == "*" else "urls"] = [name]
    try:
        return Invalidation.from_json(said)
    except ValueError:
        return None
