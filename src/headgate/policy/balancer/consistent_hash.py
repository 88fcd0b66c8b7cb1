"""The same key to the same member, with bounded load, moving as few keys as can be.

Theory of operation
-------------------
A ring of 64-bit points, `_POINTS` for each member of mean weight, each a hash of the member's id
and a number; a key belongs to the member of the next point. All processes and machines with the
same list find the same ring. With 160 points the shares of equal members have a standard
deviation of 8 %.

- The ring is of *all* members. One that is out or excluded stays on it, and a key of its goes to
  the next point whose member is in use: only its keys move, to many members alike, and they come
  back with it. Nothing is rebuilt when health changes. When a member leaves the list its points go
  and its keys go exactly where they went while it was out.
- Points go by weight over the mean weight, rounded to a power of two so that a member more or less
  does not change everybody's points. With unequal weights, a change of the list that carries the
  mean over such a step halves or doubles all points, and moves about half of the keys, once.
- Bounded load (Mirrokni, Thorup, Zadimoghaddam: "Consistent Hashing with Bounded Loads"): a member
  takes a request only if it then has no more in flight than `bound` times its share, by weight, of
  all that is in flight, rounded up; if not, the next on the ring is asked. With `bound` over 1
  somebody always has room.
- The walk along the ring is cut after `_WALK` points, and goes on over the list of those in use,
  from a place that the key gives. It is that long only if most members are out.
- The low 20 bits of a point are no hash but the label of its member, so that the ring is one list
  of numbers and a member that joins or leaves costs a few cuts and a merge. Labels are this
  process's own affair; the 44 bits above them decide who comes next.
- A request without a key gets a place on the ring by chance.
"""

from __future__ import annotations

from array import array
from bisect import bisect, bisect_left
from collections.abc import Collection, Mapping, MutableSequence, Sequence
from hashlib import blake2b
from itertools import pairwise
from math import inf
from random import Random
from struct import Struct
from typing import Final

from headgate.policy.balancer.member import Algorithm, Member
from headgate.policy.balancer.rules import BalanceRules

__all__ = ["ConsistentHash", "hash_key"]

_POINTS: Final = 160
_POINTS_MOST: Final = 64 * _POINTS  # of one member, however heavy
_WALK: Final = 64
_EIGHT: Final = Struct("<8Q")
_LABELS: Final = (1 << 20) - 1
_FEW: Final = 8
"""Up to this part of the ring, new points are put in one by one, and not all sorted anew."""
_LONG: Final = 65536
"""Points from which on a ring is an array: eight bytes a point and not 56, which means fewer cache
misses. In a list that fits the cache, a search makes no new numbers and is quicker."""


_Points = MutableSequence[int]
"""A list or an array."""


def hash_key(key: bytes) -> int:
    """A 64-bit key, never 0, the same in every process (which `hash` is not)."""
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "little") or 1


class ConsistentHash(Algorithm):
    __slots__ = ("_bound", "_free", "_from", "_in_flight", "_known", "_owner", "_points")

    WARMS = False
    LISTENS = True

    def __init__(self, rules: BalanceRules, rng: Random) -> None:
        super().__init__(rules, rng)
        self._points: _Points = []
        self._owner: dict[int, Member] = {}
        """By label."""
        self._known: dict[Member, tuple[int, int]] = {}
        """How many points each has, and its label."""
        self._free: list[int] = []
        """Labels to be used again."""
        self._in_flight = 0
        """Of all members in use."""
        self._from = rules.bound_from if rules.bound else inf
        self._bound = 0.0
        """What `in_flight * burden` is to be under, for each request in flight."""

    def know(self, members: Sequence[Member]) -> None:
        counts = dict(zip(members, _counts([m.weight for m in members]), strict=True))
        gone = [member for member, had in self._known.items() if counts.get(member) != had[0]]
        if gone:
            self._cut(gone)
        came = [member for member in members if member not in self._known]
        if came:
            self._merge(came, counts)

    def _cut(self, gone: Sequence[Member]) -> None:
        """Take their points off the ring."""
        points = self._points
        places: list[int] = []
        for member in gone:
            count, label = self._known.pop(member)
            del self._owner[label]
            self._free.append(label)
            places += [bisect_left(points, p) for p in _points_of(member.id, count, label)]
        places.sort()
        left = points[: places[0]]
        for place, following in pairwise([*places, len(points)]):
            left += points[place + 1 : following]
        self._points = _kept(left)

    def _merge(self, came: Sequence[Member], counts: Mapping[Member, int]) -> None:
        """Put their points on the ring."""
        new: list[int] = []
        for member in came:
            label = self._free.pop() if self._free else len(self._owner)
            self._known[member] = (counts[member], label)
            self._owner[label] = member
            new += _points_of(member.id, counts[member], label)
        points = self._points
        if len(new) * _FEW > len(points):
            self._points = _kept(sorted([*points, *new]))
            return
        new.sort()
        merged = points[:0]
        before = 0
        for point in new:
            place = bisect_left(points, point, before)
            merged += points[before:place]
            merged.append(point)
            before = place
        merged += points[before:]
        self._points = _kept(merged)

    def use(self, members: Sequence[Member]) -> None:
        self.members = members
        self._in_flight = sum(member.in_flight for member in members)
        self._bound = self.rules.bound / max(1, len(members))

    def pick(self, now: float, key: int, excluded: Collection[Member]) -> Member | None:
        if not self.members:
            return None
        if not key:
            key = self.rng.getrandbits(64)
        points = self._points
        at = bisect(points, key) - len(points)  # so that the first comes after the last
        member = self._owner[points[at] & _LABELS]
        if (
            member.home is self
            and (member.in_flight < self._from or self._has_room(member))
            and not (excluded and member in excluded)
        ):
            return member
        return self._next(at, key, excluded)

    def _has_room(self, member: Member) -> bool:
        # in_flight + 1 <= ceil(bound * (all + 1) * share), without the rounding
        return member.in_flight * member.burden < self._bound * (self._in_flight + 1)

    def _next(self, at: int, key: int, excluded: Collection[Member]) -> Member | None:
        points = self._points
        members = self.members
        place = key % len(members)
        asked: Member | None = None
        least: Member | None = None
        for step in range(1, _WALK + len(members)):
            if step < _WALK:
                at = at + 1 if at < -1 else -len(points)
                member = self._owner[points[at] & _LABELS]
            else:
                place = place + 1 if place + 1 < len(members) else 0
                member = members[place]
            if member is asked or member.home is not self or member in excluded:
                continue
            if member.in_flight < self._from or self._has_room(member):
                return member
            asked = member
            if least is None or member.in_flight * member.burden < least.in_flight * least.burden:
                least = member
        # Whoever had room is excluded.
        return least

    def started(self, member: Member) -> None:
        self._in_flight += 1

    def finished(self, member: Member, took_s: float, failed: bool, now: float) -> None:
        self._in_flight -= 1


def _kept(points: _Points) -> _Points:
    """In the form that its length asks for."""
    if (len(points) < _LONG) is isinstance(points, list):
        return points
    return points.tolist() if isinstance(points, array) else array("Q", points)


def _counts(weights: Sequence[int]) -> list[int]:
    """How many points each has."""
    if not weights:
        return []
    mean = sum(weights) / len(weights)
    unit = 1.0
    while unit * 1.5 <= mean:
        unit *= 2
    return [min(_POINTS_MOST, max(1, round(_POINTS * weight / unit))) for weight in weights]


def _points_of(member_id: str, count: int, label: int) -> list[int]:
    name = member_id.encode()
    found: list[int] = []
    for block in range((count + 7) // 8):
        digest = blake2b(b"%d %s" % (block, name), digest_size=64).digest()
        found += [point & ~_LABELS | label for point in _EIGHT.unpack(digest)]
    return found[:count]
