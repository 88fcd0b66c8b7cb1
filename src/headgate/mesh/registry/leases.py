"""Leases and their times: who was heard, who is silent, who ran out.

Theory of operation.

    heard --silent for 60 percent of its ttl--> silent --its ttl is over--> (the book decides)
    any of them --a beat--> heard

A lease is heard every third of its ttl. When the network breaks, all were heard within a third of a
ttl before: so when the first runs out, all others have been silent for two thirds of theirs. That
is why the silent are counted, by service and in all, and not those that ran out: nobody is lost
before it shows that everybody is silent. Who leaves and drains is not counted; it need not beat.

A beat writes one number. Times stand in a heap with one living entry a lease, which says when to
look at it at the earliest; a look that finds the lease heard since goes to the back. So a lease
costs about two looks a ttl, and nobody walks over all.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Final

from headgate.mesh.registry.asked import Held
from headgate.mesh.registry.model import Instance
from headgate.wire.instance_url import InstanceUrl

__all__ = ["Group", "Lease", "Leases"]

SILENT_SHARE: Final = 0.6
_SLACK: Final = 64
_NEVER: Final = float("inf")


class Group:
    """Leases that are judged together: those of a service, and all."""

    __slots__ = ("leases", "silent")

    def __init__(self) -> None:
        self.leases = 0
        """Without those that drain."""
        self.silent = 0
        """Of them: silent, or suspect."""


class Lease:
    """One, from its registration to its end; registered again, it is the same object."""

    __slots__ = (
        "beaten_at",
        "beats",
        "drain_until",
        "due",
        "group",
        "held",
        "instance",
        "is_live",
        "is_silent",
        "place",
        "suspect_at",
        "ttl_s",
        "until",
    )

    def __init__(
        self, instance: Instance, place: InstanceUrl, held: Held, ttl_s: float, now: float
    ) -> None:
        self.instance = instance
        self.place = place
        self.held = held
        self.ttl_s = ttl_s
        self.until = now + ttl_s
        self.beaten_at = now
        self.beats = 0
        self.is_live = False
        self.is_silent = False
        self.suspect_at: float | None = None
        """Since when, while it is suspect."""
        self.drain_until: float | None = None
        """Till when, while it drains."""
        self.due = _NEVER
        """Of its living entry in the heap."""
        self.group: Group | None = None


class Leases:
    """All of them, and when to look at which."""

    def __init__(self) -> None:
        self.all = Group()
        self._heap: list[tuple[float, int, Lease]] = []
        self._number = 0
        self._live = 0

    def __len__(self) -> int:
        return self._live

    def add(self, lease: Lease, group: Group) -> None:
        lease.group = group
        lease.is_live = True
        self._live += 1
        self._count(lease, 1)
        self._schedule(lease)

    def remove(self, lease: Lease) -> None:
        self._hear(lease)
        if lease.drain_until is None:
            self._count(lease, -1)
        lease.is_live = False
        lease.due = _NEVER
        self._live -= 1
        self._sweep()

    def heard(self, lease: Lease, now: float) -> None:
        """The slow half of a beat: it was silent, or suspect, or its ttl is another."""
        lease.beaten_at = now
        lease.until = now + lease.ttl_s
        self._hear(lease)
        lease.suspect_at = None
        self._schedule(lease)

    def drain(self, lease: Lease, until: float) -> None:
        if lease.drain_until is None:
            self._hear(lease)
            self._count(lease, -1)
        lease.suspect_at = None
        lease.drain_until = until
        self._schedule(lease)

    def undrain(self, lease: Lease, now: float) -> None:
        if lease.drain_until is not None:
            lease.drain_until = None
            self._count(lease, 1)
        self.heard(lease, now)

    def suspect(self, lease: Lease, since: float, look_at: float) -> None:
        """It stays, silent as it is, and is looked at again then."""
        self._fall_silent(lease)
        lease.suspect_at = since
        lease.until = look_at
        self._schedule(lease)

    def postpone(self, lease: Lease, until: float) -> None:
        """Look at it again then; whoever has to end it has not answered yet."""
        lease.until = until
        if lease.drain_until is not None:
            lease.drain_until = until
        self._schedule(lease)

    def next_over(self, now: float) -> Lease | None:
        """A lease that ran out or has drained, one after another in the order of time. Whoever gets
        it ends it, or says when to look again.
        """
        heap = self._heap
        while heap and heap[0][0] <= now:
            at, _, lease = heappop(heap)
            if not lease.is_live or at != lease.due:
                continue
            lease.due = _NEVER
            if lease.drain_until is not None:
                if lease.drain_until <= now:
                    return lease
            elif lease.until <= now and lease.is_silent:
                return lease
            elif not lease.is_silent and self._silent_at(lease) <= now:
                self._fall_silent(lease)
            self._schedule(lease)
        return None

    def next_look(self) -> float | None:
        """When there may be something to do; None for never."""
        return self._heap[0][0] if self._heap else None

    def _silent_at(self, lease: Lease) -> float:
        return lease.beaten_at + lease.ttl_s * SILENT_SHARE

    def _schedule(self, lease: Lease) -> None:
        if lease.drain_until is not None:
            at = lease.drain_until
        elif lease.is_silent:
            at = lease.until
        else:
            at = self._silent_at(lease)
        if at < lease.due:
            lease.due = at
            self._number += 1
            heappush(self._heap, (at, self._number, lease))
            self._sweep()

    def _fall_silent(self, lease: Lease) -> None:
        if not lease.is_silent:
            lease.is_silent = True
            self.all.silent += 1
            if lease.group is not None:
                lease.group.silent += 1

    def _hear(self, lease: Lease) -> None:
        if lease.is_silent:
            lease.is_silent = False
            self.all.silent -= 1
            if lease.group is not None:
                lease.group.silent -= 1

    def _count(self, lease: Lease, by: int) -> None:
        self.all.leases += by
        if lease.group is not None:
            lease.group.leases += by

    def _sweep(self) -> None:
        """Dead entries are passed over when their time comes; many of them are too many."""
        if len(self._heap) > 2 * self._live + _SLACK:
            self._heap = [
                entry for entry in self._heap if entry[2].is_live and entry[0] == entry[2].due
            ]
            heapify(self._heap)
