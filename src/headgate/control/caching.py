"""The way of an invalidation: from whoever asks to every cache that may hold it.

Theory of operation. There is one space of tags for the responses of the gateway and the objects of
all services. What is asked here (admin API, command, a service without Redis) gets a stamp, is kept
for the services that poll (`caching_news`), goes to all workers of this machine (`caching_edge`)
and into the audit log (`caching_audit`).

With `state: redis://...` the stamp comes from Redis, through the same layer that services use, and
all services and other gateways hear of it there; what they invalidate is heard here and passed on.
Services that poll, and those on Redis, come before the workers, which are told again where one was
late (`caching_order`), so that what is fetched comes from services that have forgotten too. If
Redis does not answer within `AT_ONCE_S`, the workers are told first, by a stamp of our own; the
layer queues the rest and says so, and when it was told after all, the workers are told again, for
they may have fetched from a service that did not know yet.

A purge that has begun is brought to its end, whether or not its client waits.

When news of Redis may have been missed, the workers forget all responses and those who poll hear of
a gap. A control process that was started anew goes on where the last one was (`caching_position`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from headgate.cache.invalidation import Invalidation
from headgate.cache.layer import LayerAway
from headgate.control.caching_audit import PurgeBook, Recorder
from headgate.control.caching_edge import Edge, Linked, Struck
from headgate.control.caching_news import News
from headgate.control.caching_order import Order
from headgate.control.caching_position import Position
from headgate.control.caching_stamps import Stamps
from headgate.errors import HeadgateError

if TYPE_CHECKING:
    from headgate.cache.layer import Invalidated, Layer
    from headgate.control.state_dir import StateDir

__all__ = ["TOPIC", "Busy", "Caching", "Others", "Purged"]

TOPIC: Final = "cache.invalidate"
"""On the board: an `Invalidation` in JSON."""
AT_ONCE_S: Final = 0.25
LAYER_S: Final = 5.0
RATE: Final = 50.0
BURST: Final = 200.0
AT_WORK_MAX: Final = 50

Others = Literal["none", "told", "queued", "away"]

log = logging.getLogger("headgate.control")


class Busy(Exception):
    """More purges than are taken; say it with fewer, that name more."""

    def __init__(self, retry_after_s: float) -> None:
        self.retry_after_s = retry_after_s
        super().__init__("more purges than are taken at a time")


@dataclass(frozen=True, slots=True)
class Purged:
    stamp: int
    struck: Struck
    others: Others
    """`none`: there are no others, or only those that poll. `queued`: Redis is away, and they are
    told when it is back. `away`: it is away, and they are not told.
    """
    why: str = ""

    @property
    def is_whole(self) -> bool:
        return self.struck.told == self.struck.of and self.others in {"none", "told"}


class _Board(Protocol):
    def publish(self, topic: str, message: Mapping[str, Any]) -> None: ...


class Caching:
    def __init__(
        self,
        edge: Edge,
        state: StateDir,
        recorder: Recorder,
        board: _Board,
        *,
        open_layer: Callable[[str], Layer] | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,  # noqa: TID251 - the clock of the barriers
    ) -> None:
        self.edge = edge
        self._stamps = Stamps(state, wall)
        self.news = News(self._stamps.told)
        self.order = Order(self.news, self._tell_again, clock)
        self._position = Position(state)
        self._book = PurgeBook(recorder)
        self._board = board
        self._open_layer = open_layer or _open_redis
        self._clock = clock
        self._url = "memory"
        self._layer: Layer | None = None
        self._is_fresh = True
        """The layer has never been reached."""
        self._ends: list[Callable[[], None]] = []
        self._taking = asyncio.Lock()
        self._purges: set[asyncio.Task[Purged]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._tokens, self._tokens_at = BURST, clock()
        self.listeners = 0

    # -- purging -------------------------------------------------------------------------------

    async def purge(self, invalidation: Invalidation, *, actor: str, origin: str = "") -> Purged:
        """Have it forgotten by all; Busy when there are too many purges."""
        self._admit()
        work = asyncio.get_running_loop().create_task(
            self._purge(invalidation, actor, origin), name="purge"
        )
        self._purges.add(work)
        work.add_done_callback(self._purges.discard)
        return await asyncio.shield(work)

    def _admit(self) -> None:
        now = self._clock()
        self._tokens = min(BURST, self._tokens + (now - self._tokens_at) * RATE)
        self._tokens_at = now
        if self._tokens < 1 or len(self._purges) >= AT_WORK_MAX:
            raise Busy(max((1 - self._tokens) / RATE, 0.1))
        self._tokens -= 1

    async def _purge(self, asked: Invalidation, actor: str, origin: str) -> Purged:
        layer, others, why = self._layer, "none", ""
        telling: asyncio.Task[Invalidated] | None = None
        if layer is not None:
            telling = asyncio.get_running_loop().create_task(layer.invalidate(asked), name="layer")
            await asyncio.wait({telling}, timeout=AT_ONCE_S)
        stamp = _stamp_of(telling)
        told = asked.at(self._stamps.heard(stamp) if stamp else self._own_stamp())
        self.news.add(told)
        late = await self.order.services(told)
        struck = await self.edge.strike(told)
        if telling is not None:
            others, why = await self._outcome(telling, told, is_late=not stamp)
            if others == "told":
                # Workers of other machines hear this even while their control does not. With the
                # stamp of Redis: ours may have been raised.
                self._board.publish(TOPIC, asked.at(_stamp_of(telling)).to_json())
            self._position.moved()
            self.order.echo(told)
        purged = Purged(told.stamp, struck, others, why)  # type: ignore[arg-type]  # one of Others
        detail: dict[str, Any] = {
            "responses": struck.responses,
            "workers": struck.told,
            "of": struck.of,
            "others": others,
        }
        if struck.silent:
            detail["silent"] = list(struck.silent)
        if late:
            detail["services_late"] = late
        if why:
            detail["why"] = why
        self._book.purged(
            told, actor=actor, origin=origin, is_whole=struck.told == struck.of, detail=detail
        )
        return purged

    async def _outcome(
        self, telling: asyncio.Task[Invalidated], told: Invalidation, *, is_late: bool
    ) -> tuple[Others, str]:
        """Whether the layer was told, waited for within a bound."""
        await asyncio.wait({telling}, timeout=LAYER_S)
        if not telling.done():
            telling.cancel()
            return "away", f"Redis has not answered in {LAYER_S:g} s"
        if telling.cancelled():
            return "away", "the state was changed by a reload"
        error = telling.exception()
        if error is not None:
            if not isinstance(error, LayerAway):
                log.error("an invalidation could not be told to Redis", exc_info=error)
                return "away", f"{type(error).__name__}; the log of the control process has more"
            return "away", str(error)
        done = telling.result()
        if done.is_queued:
            return "queued", "Redis is away"
        if is_late:
            self._pass_on(told.at(self._stamps.heard(done.stamp)))
        return "told", ""

    def _pass_on(self, told: Invalidation) -> None:
        self.news.add(told)
        self.edge.hear(told)
        self.order.echo(told)

    def _tell_again(self, told: Invalidation) -> None:
        """To the workers alone: services have heard it."""
        self.edge.hear(told.at(self._own_stamp(is_told=False)))

    # -- hearing -------------------------------------------------------------------------------

    def _heard(self, invalidation: Invalidation) -> None:
        """Somebody else has invalidated. Keys alone are a service's business, each time it sets an
        object: they go to those who poll, for they may hold the same, and nowhere else.
        """
        told = invalidation.at(self._stamps.heard(invalidation.stamp))
        if told.tags or told.urls or told.patterns or told.everything:
            self._pass_on(told)
            self._book.heard(told)
        else:
            self.news.add(told)
        self._position.moved()

    def _own_stamp(self, *, is_told: bool = True) -> int:
        return self._stamps.next(is_ours=self._layer is None, is_told=is_told)

    def _gap(self) -> None:
        """News may have been missed: nothing that is held can be relied upon."""
        stamp = self._own_stamp()
        why = "news of invalidations may have been missed"
        if self._is_fresh:
            why = "news of invalidations are heard from here on"
        log.log(
            logging.INFO if self._is_fresh else logging.WARNING,
            "%s: all responses are forgotten",
            why,
        )
        self._is_fresh = False
        self.news.lost(stamp)
        self.edge.hear(Invalidation(everything="responses", stamp=stamp, by="missed news"))
        self._book.lost(why)
        self._position.moved()

    # -- life ----------------------------------------------------------------------------------

    def take(self, url: str) -> None:
        """Reach the others by this state from now on; `memory` is this machine alone."""
        task = asyncio.get_running_loop().create_task(self._take(url), name="cache layer")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _take(self, url: str) -> None:
        async with self._taking:
            if url == self._url:
                return
            self._url = url
            await self._let_go()
            if url == "memory":
                return
            try:
                layer = self._open_layer(url)
                self._ends = [layer.listen(self._heard), layer.on_gap(self._gap)]
                self._layer = layer
                self._is_fresh = not self._position.follow(layer)
                await layer.start()
            except HeadgateError as error:
                log.warning("invalidations reach this machine alone: %s", error)
            except Exception:
                log.exception("invalidations reach this machine alone")

    async def _let_go(self) -> None:
        self._position.leave()
        layer, self._layer = self._layer, None
        ends, self._ends = self._ends, []
        for end in ends:
            end()
        if layer is not None:
            with contextlib.suppress(HeadgateError, OSError):
                await layer.close()

    def linked(self, link: Linked) -> None:
        """A worker has a link to us."""
        self.edge.linked(link, self._stamps.last)

    def hush(self) -> None:
        """Control is about to end: let go of those who wait for news."""
        self.news.close()

    async def close(self) -> None:
        self.hush()
        if self._purges:
            await asyncio.wait(set(self._purges), timeout=1.0)
        for task in (*self._purges, *self._tasks):
            task.cancel()
        await self._let_go()
        self.order.close()
        self.edge.close()
        self._book.close()
        self._stamps.close()

    def snapshot(self) -> dict[str, Any]:
        """What others may ask of the way, beside what workers hold."""
        layer = self._layer
        return {
            "stamp": self._stamps.last,
            "listeners": self.listeners,
            "layer": asdict(layer.snapshot()) if layer is not None else None,
        }


def _stamp_of(telling: asyncio.Task[Invalidated] | None) -> int:
    """What the layer has decided by now; 0 if nothing."""
    if telling is None or not telling.done() or telling.cancelled():
        return 0
    return 0 if telling.exception() is not None else telling.result().stamp


def _open_redis(url: str) -> Layer:
    from headgate.cache.redis import open_layer

    return open_layer(url)
