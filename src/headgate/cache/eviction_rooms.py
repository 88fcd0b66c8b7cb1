"""The two rooms of a shelf: who comes in, who goes. Not locked; `eviction.Shelf` does that.

Theory of operation. Every new value comes in through the *window*. What leaves the window at its
old end is a candidate; it gets a seat in the *main* room only if it was asked for more often than
what would have to go for it (the idea of TinyLFU). So a scan passes through the window and harms
nothing, a loop longer than the shelf keeps what it has, and what was put can be read at once.

What differs from W-TinyLFU is where the work is. A hit is one look into a dictionary and one
addition: no list is reordered, no sketch is touched, because a value that is here carries its own
count. Only the counts of what has *left* are in a sketch (`eviction_sketch`), asked when a key
comes in and told when one goes. The main room is a clock: the victim is the least used of a few at
the hand, and stands for a few duels. Counts are halved, some at a time, as often as `_AGE_AFTER`
requests per value went by, so that yesterday's favourites leave.

Which share the window deserves depends on the load: nearly none where frequency rules, most where
what is new is what is asked for. Climbing by the hit ratio, as Caffeine does, needs long periods,
for the ratio is noisy. Here two rates are compared that are at hand: how often a seat more in the
window would have been hit (keys asked for again soon after they were refused a seat), and how often
the victims of the main room were. The window grows while the first is larger.

A value larger than those it would displace is weighed against all of them together.

An editor must not break: `_bytes` equals the sum over `_nodes`, and neither number exceeds its
bound when `_put` or `_settle` returns; a node is in exactly one room; `_main[node.at] is node`;
whatever leaves is added to `dropped` exactly once.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Generic, Literal, TypeVar

from headgate.cache.eviction_sketch import COUNT_MAX, Sketch

__all__ = ["Dropped", "Drops", "Node", "Rooms"]

V = TypeVar("V")

Dropped = Literal["evicted", "replaced", "removed", "expired", "too big", "cleared"]
Drops = list[tuple[str, V, Dropped]]

_WINDOW_LEAST: Final = 0.01
_WINDOW_MOST: Final = 0.8
_DUELS: Final = 4
"""For how many candidates a victim stands before another is chosen."""
_LOOKED_AT: Final = 8
"""Nodes at the hand among which the victim is chosen. More cost more and win nothing (measured)."""
_AGE_AFTER: Final = 15
"""Requests per value, after which counts are halved. W-TinyLFU: 10; 15 is better on zipf, 20 slower
to follow what shifts."""
_REFUSED_SHARE: Final = 0.125
"""Of the items: how many keys are remembered that were refused a seat, on average."""
_TICK: Final = 64
"""Puts between two looks at what is due."""
_HALVED_AT_ONCE: Final = 256
_STEP: Final = 0.02
_OFTEN: Final = 1.1
"""The window moves only if one rate is this much larger than the other."""

_IN_WINDOW: Final = -1
_GONE: Final = -2


class Node(Generic[V]):
    __slots__ = ("at", "key", "size", "uses", "value")

    def __init__(self, key: str, value: V, size: int, uses: int) -> None:
        self.key = key
        self.value = value
        self.size = size
        self.uses = uses
        self.at = _IN_WINDOW
        """Its seat in the main room, or which other place."""


class Rooms(Generic[V]):
    # Slots not for the memory: with more than thirty attributes a plain object is twice as slow.
    __slots__ = (
        "_age_at",
        "_back",
        "_balance_at",
        "_balance_from",
        "_before",
        "_bytes",
        "_duels",
        "_halved_to",
        "_hand",
        "_largest",
        "_lately",
        "_lately_half",
        "_lately_most",
        "_main",
        "_nodes",
        "_puts",
        "_sketch",
        "_tick_at",
        "_victim",
        "_victim_uses",
        "_victims",
        "_window",
        "_window_bytes",
        "_window_bytes_most",
        "_window_items",
        "_window_items_most",
        "_window_share",
        "bytes_max",
        "evictions",
        "hits",
        "items_max",
        "largest_share",
        "misses",
        "refused",
    )

    def __init__(self, items_max: int, bytes_max: int, largest_share: float) -> None:
        self.items_max = items_max
        self.bytes_max = bytes_max
        self.largest_share = largest_share
        """No value may have more than this share of the bytes."""
        self.hits = 0
        self.misses = 0
        self.evictions = 0
        self.refused = 0
        self._widen(_WINDOW_LEAST)
        self._nodes: dict[str, Node[V]] = {}
        """The same dictionary for ever: its methods are bound where it is hot."""
        self._main: list[Node[V]] = []
        self._hand = 0
        self._victim: Node[V] | None = None
        self._duels = 0
        self._halved_to = 0
        self._window: deque[Node[V]] = deque()
        """With what was taken out of its midst; skipped when it comes to the end."""
        self._window_items = 0
        self._window_bytes = 0
        self._bytes = 0
        self._puts = 0
        self._sketch = Sketch()
        self._tick_at = self._age_at = 0
        self._lately: set[int] = set()
        """Hashes of keys that were lately refused a seat."""
        self._before: set[int] = set()
        """Those before them. When there are enough of the first, these are forgotten: two sets cost
        a third of one that forgets them one by one."""
        self._lately_most = 8
        self._lately_half = _half(8)
        self._back = 0
        """How many of them came back."""
        self._victims = self._victim_uses = 0
        self._balance_at = self._balance_from = 0

    def _put(self, key: str, value: V, size: int, dropped: Drops[V]) -> bool:
        node = self._nodes.get(key)
        if size > self._largest:
            self.refused += 1
            if node is not None:
                self._remove(node, "too big", dropped)
            return False
        if node is None:
            hashed = hash(key)
            if hashed in self._lately or hashed in self._before:
                self._lately.discard(hashed)
                self._before.discard(hashed)
                self._back += 1
            sketch = self._sketch
            node = Node(key, value, size, sketch.counts[hashed & sketch.mask] + 1)
            self._window.append(node)
            self._bytes += size
            if (
                self._window_items == self._window_items_most
                and self._window_bytes + size <= self._window_bytes_most
                and self._bytes <= self.bytes_max
                and len(self._nodes) == self.items_max
                and self._main
            ):
                self._nodes[key] = node
                self._window_bytes += size
                self._turn(dropped)
                self._puts += 1
                if self._puts >= self._tick_at:
                    self._tick()
                return True
            self._nodes[key] = node
            self._window_items += 1
            self._window_bytes += size
        else:
            if node.value is not value:
                dropped.append((key, node.value, "replaced"))
                node.value = value
            more = size - node.size
            if more:
                node.size = size
                self._bytes += more
                if node.at == _IN_WINDOW:
                    self._window_bytes += more
        self._puts += 1
        if self._puts >= self._tick_at:
            self._tick()
        if (
            self._window_items > self._window_items_most
            or self._window_bytes > self._window_bytes_most
            or self._bytes > self.bytes_max
            or len(self._nodes) > self.items_max
        ):
            self._settle(dropped, node)
        # A value that grew may, rarely, have been the one that had to go for another.
        return node.at != _GONE

    def _turn(self, dropped: Drops[V]) -> None:
        """What `_settle` does when all is full and one of a fitting size came: one in, one out.

        The usual case of a cache that is full, in one piece: in a third of the time.
        """
        window, sketch = self._window, self._sketch
        node = window.popleft()
        while node.at != _IN_WINDOW:
            node = window.popleft()
        self._window_bytes -= node.size
        victim = self._victim
        if victim is None or victim.at < 0 or self._duels <= 0:
            victim = self._choose()
        self._duels -= 1
        self._victims += 1
        self._victim_uses += victim.uses
        if node.uses <= victim.uses:
            key, uses = node.key, node.uses
            hashed = hash(key)
            lately = self._lately
            lately.add(hashed)
            if len(lately) > self._lately_half:
                self._before, self._lately = lately, set()
        else:
            self._unseat(victim)
            self._seat(node)
            node = victim
            key, uses = node.key, node.uses
            hashed = hash(key)
        at = hashed & sketch.mask
        if uses > sketch.counts[at]:
            sketch.counts[at] = min(uses, COUNT_MAX)
        self.evictions += 1
        node.at = _GONE
        del self._nodes[key]
        self._bytes -= node.size
        dropped.append((key, node.value, "evicted"))
        node.value = None  # type: ignore[assignment]  # a seat may outlive what sat there

    def _settle(self, dropped: Drops[V], new: Node[V] | None = None) -> None:
        """Bring both rooms within their bounds. What has just been put, and may have grown, is not
        the first to go for it.
        """
        window = self._window
        while (items := self._window_items) > 1 and (
            items > self._window_items_most or self._window_bytes > self._window_bytes_most
        ):
            node = window.popleft()
            if node is new:
                window.append(node)
            elif node.at == _IN_WINDOW:
                self._window_items = items - 1
                self._window_bytes -= node.size
                self._admit(node, dropped)
        while len(self._nodes) > self.items_max or self._bytes > self.bytes_max:
            main = self._main
            if len(main) > 1 or (main and main[0] is not new):
                victim = self._choose()
                if victim is new:
                    victim = main[victim.at - 1]  # its neighbour; of the first, the last
                self._unseat(victim)
                self._let_go(victim, dropped)
            elif (node := window.popleft()).at == _IN_WINDOW:
                self._window_items -= 1
                self._window_bytes -= node.size
                self._let_go(node, dropped)

    def _admit(self, node: Node[V], dropped: Drops[V]) -> None:
        """Give a candidate a seat, if it is worth more than what has to go for it."""
        over_items = len(self._nodes) - self.items_max
        over_bytes = self._bytes - self.bytes_max
        worth = node.uses
        victims: list[Node[V]] = []
        while (over_items > 0 or over_bytes > 0) and self._main:
            victim = self._victim
            if victim is None or victim.at < 0 or self._duels <= 0:
                victim = self._choose()
            self._duels -= 1
            uses = victim.uses
            self._victims += 1
            self._victim_uses += uses
            worth -= uses
            if worth <= 0:
                # What would have to go is worth as much: all stay where they are.
                for each in victims:
                    self._seat(each)
                lately = self._lately
                lately.add(hash(node.key))
                if len(lately) > self._lately_half:
                    self._before, self._lately = lately, set()
                self._let_go(node, dropped)
                return
            over_items -= 1
            over_bytes -= victim.size
            if over_items <= 0 and over_bytes <= 0 and not victims:
                # The usual case, one for one: it takes the very seat.
                self._unseat(victim)
                self._seat(node)
                self._let_go(victim, dropped)
                return
            self._unseat(victim)
            victims.append(victim)
        for each in victims:
            self._let_go(each, dropped)
        self._seat(node)

    def _choose(self) -> Node[V]:
        """The least used of a few at the hand, which moves on. It is the victim of a few duels."""
        main, hand = self._main, self._hand
        if hand >= len(main):
            hand = 0
        end = self._hand = hand + _LOOKED_AT
        self._duels = _DUELS
        victim = main[hand]
        least = victim.uses
        for node in main[hand + 1 : end]:  # `min` with a key takes three times as long
            uses = node.uses
            if uses < least:
                victim, least = node, uses
        self._victim = victim
        return victim

    def _seat(self, node: Node[V]) -> None:
        node.at = len(self._main)
        self._main.append(node)

    def _unseat(self, node: Node[V]) -> None:
        last = self._main.pop()
        if last is not node:
            self._main[node.at] = last
            last.at = node.at
        node.at = _GONE

    def _let_go(self, node: Node[V], dropped: Drops[V]) -> None:
        """Drop what is in neither room any more."""
        key, uses, sketch = node.key, node.uses, self._sketch
        at = hash(key) & sketch.mask
        if uses > sketch.counts[at]:
            sketch.counts[at] = min(uses, COUNT_MAX)
        self.evictions += 1
        node.at = _GONE
        del self._nodes[key]
        self._bytes -= node.size
        dropped.append((key, node.value, "evicted"))
        node.value = None  # type: ignore[assignment]  # a seat may outlive what sat there

    def _remove(self, node: Node[V], why: Dropped, dropped: Drops[V]) -> None:
        """Drop it from wherever it is, because somebody said so. Its count is forgotten with it."""
        del self._nodes[node.key]
        self._bytes -= node.size
        if node.at >= 0:
            self._unseat(node)
        else:
            node.at = _GONE
            self._window_items -= 1
            self._window_bytes -= node.size
            if len(self._window) > 2 * self._window_items + 64:
                self._window = deque(each for each in self._window if each.at == _IN_WINDOW)
        dropped.append((node.key, node.value, why))
        node.value = None  # type: ignore[assignment]  # likewise, until the window comes by

    def _tick(self) -> None:
        """What is done once in a while, on the back of a `put`."""
        self._tick_at = self._puts + _TICK
        items, requests = len(self._nodes), self.hits + self._puts
        if self._puts >= self._balance_at:
            self._balance(items, requests)
        if requests >= self._age_at:
            # A period is over: all counts are halved, some at each tick.
            self._age_at = requests + _AGE_AFTER * max(_TICK, items)
            self._halved_to = 0
            self._sketch.serve(items)
            self._sketch.age()
        if self._sketch.is_ageing:
            self._sketch.step()
        if self._halved_to < len(self._main):
            start, end = self._halved_to, self._halved_to + _HALVED_AT_ONCE
            for node in self._main[start:end]:
                uses = node.uses
                node.uses = min(uses, COUNT_MAX) >> 1
            self._halved_to = end

    def _balance(self, items: int, requests: int) -> None:
        """Move the wall between the rooms towards where a seat is hit less."""
        if self._victims >= 8 and (self._lately or self._before):
            period = _AGE_AFTER * items / (requests - self._balance_from)
            in_window = self._back / self._lately_most * period
            # A count is what came in the last period and half of the one before, and so on.
            in_main = self._victim_uses / self._victims / 2
            share = self._window_share
            if in_window > in_main * _OFTEN:
                self._widen(min(_WINDOW_MOST, share * 1.2 + _STEP))
            elif in_window * _OFTEN < in_main:
                self._widen(max(_WINDOW_LEAST, share / 1.2 - _STEP))
        self._lately_most = 8 + int(items * _REFUSED_SHARE)
        self._lately_half = _half(self._lately_most)
        self._back = self._victims = self._victim_uses = 0
        self._balance_from = requests
        self._balance_at = self._puts + max(_TICK, items // 2)

    def _widen(self, share: float) -> None:
        self._window_share = share
        self._window_items_most = max(1, int(self.items_max * share))
        self._window_bytes_most = int(self.bytes_max * share)
        self._largest = self.bytes_max * self.largest_share


def _half(most: int) -> int:
    """Of two sets that hold so many on average: the second is full, the first half full."""
    return max(4, most * 2 // 3)
