"""The responses that one worker holds in memory.

Theory of operation. A key leads to one response, or to a slot of several that differ by `Vary`
(`variants`). A shelf bounds it all in bytes and decides what stays. Invalidations raise barriers at
once, and every response is judged when it is next used and the barriers have moved since
(`Kept.seen`); so nothing struck is served from the moment on that `invalidate` was entered. To give
back the memory, and to say how many were struck, the store then goes through what it holds: by an
index of URLs and one of tags where these were named, through everything else in steps. `purge`
yields to the loop between the steps; `invalidate` does the first steps and leaves the rest to
`sweep`.

What an editor must not break: a live response is in the shelf, in the roll (`store_index`)
and, where there is one, in its slot; one that left is in none, and is not `is_live`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from headgate.cache.barriers import Barriers, Standing
from headgate.cache.eviction import Shelf
from headgate.cache.http.reuse import keep_until
from headgate.gateway.caching.purging import Fitting
from headgate.gateway.caching.store_index import Roll
from headgate.gateway.caching.store_passes import Passes
from headgate.gateway.caching.store_told import StoreSnapshot, told
from headgate.gateway.caching.variants import Kept, Slot, can_vary

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from headgate.cache.http.stored import Stored
    from headgate.cache.invalidation import Invalidation
    from headgate.gateway.caching.lower import LowerStore
    from headgate.wire.message import Header

__all__ = ["Kept", "ResponseStore", "StoreSnapshot"]

BYTES_MAX: Final = 256 * 1024 * 1024
ITEMS_MAX: Final = 10_000_000
"""The bound is in bytes; a response takes more than a kilobyte in any case."""
_STEP: Final = 200
"""Responses looked at before the loop gets a turn: about a millisecond."""
_STEPS_AT_ONCE: Final = 10
_WALKS_MAX: Final = 100
_SLOT_SHARE: Final = 8
"""All variants of one key take no more than this part of the memory, unless it is only one."""
_AHEAD_MAX_S: Final = 60.0
"""A response from further in the future came before the clock was set back: its age is unknown."""
_KEEP_S: Final = 3600.0


class ResponseStore:
    def __init__(
        self,
        bytes_max: int = BYTES_MAX,
        barriers: Barriers | None = None,
        lower: LowerStore | None = None,
    ) -> None:
        self.barriers = Barriers("responses") if barriers is None else barriers
        self.lower = lower
        self._bytes_max = bytes_max
        self._shelf: Shelf[Kept | Slot] = Shelf(ITEMS_MAX, bytes_max)
        self._shelf.on_drop = self._dropped
        self._look = self._shelf.get
        self._roll = Roll()
        self._walks: deque[Iterator[int]] = deque()
        self._passes = Passes()
        self.mark_pass = self._passes.mark
        self.passes = self._passes.holds
        self._puts = self._declined = self._evictions = self._replaced = self._expired = 0
        self._struck = self._struck_soft = 0

    def __len__(self) -> int:
        return len(self._roll)

    def find(self, key: str, fields: tuple[Header, ...]) -> Kept | None:
        """The response that a request with these fields may get, fresh or not."""
        held = self._look(key)
        if held is None:
            return None
        if held.__class__ is Kept:
            kept = held
        else:
            chosen = held.choose(fields)  # type: ignore[union-attr]  # a slot: see above
            if chosen is None:
                return None
            kept = chosen
        if kept.seen != self.barriers.version and not self._judged(kept):
            # What was struck may have hidden an older one that was not.
            return None if held is kept else self.find(key, fields)
        kept.hits += 1
        return kept

    def _judged(self, kept: Kept) -> bool:
        standing = self._standing(kept)
        if standing is Standing.DEAD:
            self._struck += 1
            self._take_out(kept)
            return False
        kept.seen = self.barriers.version
        if standing is Standing.STALE and not kept.is_soft_struck:
            self._struck_soft += 1
            kept.is_soft_struck = True
        return True

    def _standing(self, kept: Kept) -> Standing:
        return self.barriers.judge(kept.url, kept.stored.tags, kept.stamp)

    def put(
        self,
        key: str,
        url: str,
        stored: Stored,
        body: bytes,
        trailers: tuple[Header, ...],
        fields: tuple[Header, ...],
        stamp: int,
        *,
        keep_s: float = _KEEP_S,
    ) -> Kept | None:
        """Keep a response to a request with these fields, that was begun at `stamp`.

        None: it was struck meanwhile, it does not fit, or no request could be told to get it.
        `keep_s`: how long after its freshness it is worth holding to be validated.
        """
        until = keep_until(stored, keep_s)
        kept = Kept(key, url, stored, bytes(body), trailers, stamp=stamp, keep_until=until)
        if not self._keep(kept, fields):
            return None
        self._passes.unmark(key)
        if self.lower is not None:
            self.lower.put(kept)
        return kept

    def adopt(self, kept: Kept) -> Kept | None:
        """Take in what the lower layer had; None: struck meanwhile."""
        if self._has_another(kept):
            return self.find(kept.key, kept.stored.vary)
        return kept if self._keep(kept, None) else None

    async def fetch(self, key: str, fields: tuple[Header, ...], url: str = "") -> Kept | None:
        """Look in the lower layer, and take in what is there."""
        lower = self.lower
        found = None if lower is None else await lower.find(key, fields, url)
        return None if found is None else self.adopt(found)

    def refresh(
        self, kept: Kept, stored: Stored, stamp: int | None = None, *, keep_s: float = _KEEP_S
    ) -> Kept:
        """The response after the origin said that it holds (304), with its new metadata.

        `stamp`: what the clock of the barriers stood at before the origin was asked; without it, a
        response that was struck softly stays so. What comes back can answer this request in any
        case; it is live only if it is kept.
        """
        now = Kept(
            kept.key,
            kept.url,
            stored,
            kept.body,
            kept.trailers,
            stamp=kept.stamp if stamp is None else max(stamp, kept.stamp),
            keep_until=keep_until(stored, keep_s),
        )
        now.hits = kept.hits
        if not kept.is_live and self._has_another(kept):
            # A whole answer came meanwhile: it is newer than what the origin confirmed.
            now.is_live = False
            return now
        is_kept = stored.is_storable and self._keep(now, None)
        now.is_live = is_kept
        if kept.is_live:
            # It was not replaced: the other is not kept, or varies by other fields.
            self._take_out(kept)
        if self.lower is not None:
            if is_kept:
                self.lower.put(now)
            if not is_kept or kept.stored.vary != stored.vary:
                self.lower.remove(kept)
        return now

    def _keep(self, kept: Kept, fields: tuple[Header, ...] | None) -> bool:
        stored, key = kept.stored, kept.key
        standing = self._standing(kept)
        self._puts += 1
        room = self._bytes_max * self._shelf.largest_share
        if standing is Standing.DEAD or kept.size > room or not can_vary(stored):
            return self._decline(kept)
        kept.is_soft_struck |= standing is Standing.STALE
        kept.seen = self.barriers.version
        held = before = self._shelf.peek(key)
        if isinstance(held, Kept) and held.stored.vary == stored.vary:
            self._replaced += 1
            self._roll.leave(held)
            before = None
        if before is None and not stored.vary:
            if self._shelf.put(key, kept, kept.size):
                self._roll.enter(kept)
                return True
            return self._decline(kept)
        slot = self._slot_of(before)
        gone = slot.fitting(fields) if fields is not None else []
        for each in gone:
            slot.remove(each)
        gone += slot.add(kept)
        gone += slot.shrink(max(self._bytes_max // _SLOT_SHARE, kept.size), kept)
        self._replaced += len(gone)
        for each in gone:
            self._roll.leave(each)
        # A slot is for what varies; who no longer does is found the short way again.
        after = kept if len(slot) == 1 and not stored.vary else slot
        if self._shelf.put(key, after, slot.size):
            self._roll.enter(kept)
            return True
        for each in slot:
            self._roll.leave(each)
        return self._decline(kept)

    def _has_another(self, kept: Kept) -> bool:
        held = self._shelf.peek(kept.key)
        if isinstance(held, Slot):
            return any(each.stored.vary == kept.stored.vary for each in held)
        return held is not None and held.stored.vary == kept.stored.vary

    def _slot_of(self, held: Kept | Slot | None) -> Slot:
        if isinstance(held, Slot):
            return held
        slot = Slot()
        if held is not None:
            slot.add(held)
        return slot

    def _decline(self, kept: Kept) -> bool:
        self._declined += 1
        kept.is_live = False
        return False

    def _take_out(self, kept: Kept) -> None:
        """Out of the shelf and of everything else."""
        held = self._shelf.peek(kept.key)
        if held is kept:
            self._shelf.pop(kept.key)
        elif isinstance(held, Slot) and held.remove(kept):
            if held:
                self._shelf.resized(kept.key, held.size)
            else:
                self._shelf.pop(kept.key)
        self._roll.leave(kept)

    def _dropped(self, _key: str, held: Kept | Slot, why: str) -> None:
        """The shelf let go of it. What this store takes out itself, it also takes care of."""
        if why != "evicted":
            return
        for kept in [held] if isinstance(held, Kept) else held:
            self._evictions += 1
            self._roll.leave(kept)

    def invalidate(self, invalidation: Invalidation) -> int:
        """Strike; holds from here on. How many were struck in the first steps: all, unless it names
        more than a few thousand or needs a walk; the rest follows with `sweep`.
        """
        steps = self._begin(invalidation)
        struck = 0
        for _ in range(_STEPS_AT_ONCE):
            got = next(steps, None)
            if got is None:
                return struck
            struck += got
        self._walks.append(steps)
        if len(self._walks) > _WALKS_MAX:
            # The barriers stand; only its memory is given back later, as it is used or runs out.
            self._walks.popleft()
        return struck

    async def purge(self, invalidation: Invalidation) -> int:
        """The same, to its end: how many were struck. Returns once it would outlast a crash."""
        steps = self._begin(invalidation)
        struck = 0
        for got in steps:
            struck += got
            await asyncio.sleep(0)
        if self.lower is not None:
            await self.lower.settle()
        return struck

    def forget(self, urls: tuple[str, ...], *, is_news: bool = False) -> int:
        """Let go of what is held under these URLs now, without a barrier; how many it were. What is
        under way is the caller's. `is_news`: the worker that says so has told the lower layer.
        """
        gone = [kept for url in urls for kept in self._roll.at(url)]
        for kept in gone:
            self._take_out(kept)
        if self.lower is not None:
            self.lower.forget(urls, is_news=is_news)
        return len(gone)

    def _begin(self, invalidation: Invalidation) -> Iterator[int]:
        if not invalidation.stamp:
            invalidation = invalidation.at(self.barriers.stamp + 1)
        self.barriers.raise_for(invalidation)
        if self.lower is not None:
            self.lower.invalidate(invalidation)
        if invalidation.everything in ("responses", "all"):
            self._passes.clear()
        return self._strike(invalidation)

    def _strike(self, asked: Invalidation) -> Iterator[int]:
        """The steps of one invalidation; each says how many it struck."""
        fitting = Fitting(asked)
        struck = 0
        among = self._roll.walk() if Fitting.needs_all(asked) else self._roll.named_by(asked)
        for looked, kept in enumerate(among, 1):
            if looked % _STEP == 0:
                yield struck
                struck = 0
            is_older = kept.is_live and kept.stamp < asked.stamp
            if is_older and fitting.fits(kept.url, kept.stored.tags):
                struck += self._strike_one(kept, soft=asked.soft)
        yield struck

    def _strike_one(self, kept: Kept, *, soft: bool) -> bool:
        if not soft:
            self._struck += 1
            self._take_out(kept)
            return True
        if kept.is_soft_struck:
            return False
        self._struck_soft += 1
        kept.is_soft_struck = True
        return True

    def drop(self, kept: Kept) -> None:
        """Let go of this one."""
        if kept.is_live:
            self._take_out(kept)
            if self.lower is not None:
                self.lower.remove(kept)

    def sweep(self, wall: float, most: int = _STEP) -> int:
        """Go on with what was begun, and look at some more: let go of what nobody can use. How many
        went for being over. Call it ten times a second or so; it takes a millisecond or two.
        """
        for _ in range(_STEPS_AT_ONCE):
            if not self._walks:
                break
            if next(self._walks[0], None) is None:
                self._walks.popleft()
        else:
            return 0
        gone = 0
        for _ in range(min(most, len(self._roll))):
            kept = self._roll.next()
            if kept is None:
                break
            if kept.seen != self.barriers.version and not self._judged(kept):
                continue
            if wall > kept.keep_until or kept.stored.received_at > wall + _AHEAD_MAX_S:
                gone += 1
                self._take_out(kept)
        self._expired += gone
        return gone

    def resize(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._shelf.resize(ITEMS_MAX, bytes_max)

    def clear(self) -> None:
        """Give all memory back. No invalidation: a lower layer keeps what it has."""
        while (kept := self._roll.last()) is not None:
            self._take_out(kept)
        self._passes.clear()
        self._walks.clear()

    def inspect(self, url: str, wall: float) -> list[dict[str, Any]]:
        """What is held for a URL, for an operator."""
        return [told(kept, wall) for kept in self._roll.at(url)]

    def snapshot(self) -> StoreSnapshot:
        return StoreSnapshot(
            entries=len(self._roll),
            keys=len(self._shelf),
            bytes=self._shelf.bytes,
            bytes_max=self._bytes_max,
            passes=len(self._passes),
            puts=self._puts,
            declined=self._declined,
            evictions=self._evictions,
            replaced=self._replaced,
            struck=self._struck,
            struck_soft=self._struck_soft,
            expired=self._expired,
            lower=None if self.lower is None else self.lower.snapshot(),
        )
