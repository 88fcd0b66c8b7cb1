"""The least in flight for its weight; ties in turn.

Theory of operation
-------------------
A heap of entries (load, turn, number, member), one *live* entry a member: the one `member.entry`
points at. Load is `in_flight * burden`. A live entry never says more load than there is, so:

- a start changes nothing in the heap; the entry now says too little, and a pick that finds it on
  top puts it right and looks again. There is at most one such correction for each start.
- an end puts in a new entry only if the live one says too much, which it does only if a pick had
  corrected it since. The old entry is dead, and dropped when it comes up or when the dead are three
  times the living.

So under light load, when most members are idle, a pick is one replacement at the top of the heap.
All steps are O(log n), amortised.

Ties. A pick gives its member the next turn: `turn` grows by `burden`, so that of equally loaded
members each is picked in proportion to its weight, as in weighted fair queueing. A member that
has not had a turn for long does not get them all at once: turns missed while loaded are lost.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from heapq import heapify, heappop, heappush, heapreplace
from random import Random

from headgate.policy.balancer.member import Algorithm, Member
from headgate.policy.balancer.rules import BalanceRules

__all__ = ["LeastConnections"]

Entry = tuple[float, float, int, Member]


class LeastConnections(Algorithm):
    __slots__ = ("_heap", "_most", "_number", "_turn")

    LISTENS = True

    def __init__(self, rules: BalanceRules, rng: Random) -> None:
        super().__init__(rules, rng)
        self._heap: list[Entry] = []
        self._most = 0
        """Entries at which the dead are cleared away."""
        self._number = 0
        """Makes entries differ before a comparison comes to the member."""
        self._turn = 0.0
        """The furthest turn that a picked member has had."""

    def use(self, members: Sequence[Member]) -> None:
        self.members = members
        for member in members:
            if member.entry is None:
                # Scattered: if all began with a turn, the light ones would begin as the heavy ones.
                member.turn = self._turn + member.burden * self.rng.random()
            else:
                # One from another tier may be far ahead; it waits no longer than after a turn here.
                member.turn = min(member.turn, self._turn + member.burden)
        self._heap = [self._entry(member) for member in members]
        heapify(self._heap)
        self._most = 4 * len(members) + 16

    def _entry(self, member: Member) -> Entry:
        self._number += 1
        entry = (member.in_flight * member.burden, member.turn, self._number, member)
        member.entry = entry
        return entry

    def pick(self, now: float, key: int, excluded: Collection[Member]) -> Member | None:
        heap = self._heap
        passed: list[Entry] = []
        found = None
        while heap:
            top = heap[0]
            load, turn, _, member = top
            if member.entry is not top:
                heappop(heap)
                continue
            actual = member.in_flight * member.burden
            if actual > load:
                self._number += 1
                member.entry = top = (actual, turn, self._number, member)
                heapreplace(heap, top)
                continue
            if excluded and member in excluded:
                passed.append(heappop(heap))
                continue
            if turn < self._turn:
                turn = self._turn
            else:
                self._turn = turn
            member.turn = turn = turn + member.burden
            self._number += 1
            member.entry = entry = (load, turn, self._number, member)
            heapreplace(heap, entry)
            found = member
            break
        for entry in passed:
            heappush(heap, entry)
        return found

    def finished(self, member: Member, took_s: float, failed: bool, now: float) -> None:
        entry = member.entry
        if entry is None:
            return
        load = member.in_flight * member.burden
        if load < entry[0]:
            self._number += 1
            member.entry = entry = (load, member.turn, self._number, member)
            heappush(self._heap, entry)
            if len(self._heap) > self._most:
                self._heap = [entry for entry in self._heap if entry[3].entry is entry]
                heapify(self._heap)
