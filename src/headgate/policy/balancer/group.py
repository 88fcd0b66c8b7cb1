"""The instances of one service and the choice among them: tiers, zones, slow start, health.

Theory of operation
-------------------
Members of one priority are a *tier*; where the gateway has a zone, a tier has two *pools*, its
own zone and the others. Each pool has an algorithm of its own (one of `ALGORITHMS`) over the
members in use. `tiers.py` says what share of the traffic goes to which pool and which tiers are
in panic; nearly always one pool has all of it, and then a pick is one comparison and one call.

What changes the pools (a member goes out or comes back, a reload, a step of slow start) is only
noted; the next pick works it out once, however many changes there were. A thousand health results
in one message cost one rebuild. `_refresh_at` is the one thing a pick compares: it is minus
infinity when something changed and the next step when somebody is in slow start.

- A member with weight 0, or drained, is listed but never picked, in panic either.
- A pick never gives an excluded member. If all in the chosen pool are excluded, the other pools
  are asked in order, backups with no share of the traffic included: a retry may use a backup. If
  every usable member is excluded the answer is None, and whether to try one again is the caller's
  decision.
- Slow start: a member that joined a running group or came back counts for a tenth of its weight
  at first and for all of it after `slow_start_s`, in steps of a tenth of that time. The members of
  a new group have all their weight: it is the others that a newcomer has to be spared from.
- The consistent hash divides keys, not requests, between pools, so that a key stays where it is
  while the shares stay as they are.

What an editor must not break: the number of a member's requests in flight belongs to the member.
A result may come after the member was moved to another pool, went out or was removed; `home` says
which algorithm is to hear of it, and a member that is not picked has none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final, Literal

from headgate.policy.balancer.consistent_hash import ConsistentHash, hash_key
from headgate.policy.balancer.least_connections import LeastConnections
from headgate.policy.balancer.member import Algorithm, Member, MemberSpec
from headgate.policy.balancer.peak_ewma import PeakEwma
from headgate.policy.balancer.power_of_two import PowerOfTwo
from headgate.policy.balancer.random_choice import RandomChoice
from headgate.policy.balancer.round_robin import Turns
from headgate.policy.balancer.rules import BalanceBy, BalanceRules
from headgate.policy.balancer.tiers import Weights, share_of_own_zone, shares_of_tiers

__all__ = [
    "ALGORITHMS",
    "Algorithm",
    "BalanceBy",
    "BalanceRules",
    "Group",
    "GroupSnapshot",
    "Member",
    "MemberSnapshot",
    "MemberSpec",
    "TierSnapshot",
    "hash_key",
]

ALGORITHMS: Final[Mapping[BalanceBy, type[Algorithm]]] = {
    "round_robin": Turns,
    "least_connections": LeastConnections,
    "power_of_two": PowerOfTwo,
    "peak_ewma": PeakEwma,
    "consistent_hash": ConsistentHash,
    "random": RandomChoice,
}

_WARM_STEPS: Final = 10
_COLD: Final = 0.1  # the part of its weight that a newcomer starts with
_NOW: Final = -math.inf  # as a time of refresh: at the next pick
_SPREAD: Final = 0x9E3779B97F4A7C15  # 2**64 over the golden ratio: mixes a key for the shares
_MASK: Final = (1 << 64) - 1
_ALL: Final = 1 - 1e-9

_Side = Literal["all", "own", "others"]


@dataclass(frozen=True, slots=True)
class MemberSnapshot:
    id: str
    weight: int
    effective_weight: float
    priority: int
    zone: str
    in_flight: int
    usable: bool
    out_reason: str | None
    is_drained: bool
    since_s: float
    """For how long it has been in or out."""
    is_warming: bool
    latency_s: float
    """As peak EWMA remembers it; 0.0 if it has not been measured."""


@dataclass(frozen=True, slots=True)
class TierSnapshot:
    priority: int
    share: float
    """Of all traffic."""
    usable_share: float
    """Of the tier's own weight."""
    is_panicking: bool
    """Its health is not believed: all its members are used."""
    own_zone_share: float | None
    """Of this tier's traffic; None when zones do not matter in it."""


@dataclass(frozen=True, slots=True)
class GroupSnapshot:
    by: BalanceBy
    tiers: tuple[TierSnapshot, ...]
    members: tuple[MemberSnapshot, ...]


@dataclass(slots=True)
class _Tier:
    """Members of one priority that are in work: with weight, and not drained."""

    priority: int
    members: list[Member]
    own: list[Member] = field(default_factory=list)
    others: list[Member] = field(default_factory=list)
    has_zones: bool = False
    """There are members in the own zone and in others."""


class Group:
    """The instances of one service."""

    __slots__ = (
        "_by_id",
        "_only",
        "_pools",
        "_refresh_at",
        "_rng",
        "_rules",
        "_shares",
        "_slow_start_s",
        "_tiers",
        "_tiers_now",
        "members",
    )

    def __init__(
        self, rules: BalanceRules, members: Sequence[MemberSpec], now: float, rng: Random
    ) -> None:
        self._rng = rng
        self._rules = rules
        self._by_id: dict[str, Member] = {}
        self.members: tuple[Member, ...] = ()
        """In the order of the file."""
        self._tiers: list[_Tier] = []
        self._tiers_now: tuple[TierSnapshot, ...] = ()
        self._pools: dict[tuple[int, _Side], Algorithm] = {}
        """Kept while the algorithm stays the same; a pool may be without members or traffic."""
        self._shares: list[tuple[float, Algorithm]] = []
        """The pools with members in use, in order of preference, with the sum of the shares up to
        and with each."""
        self._only: Callable[[float, int, Collection[Member]], Member | None] | None = None
        """`pick` of the pool that has all the traffic."""
        self._refresh_at = _NOW
        """When the pools are to be worked out again, at the earliest pick from then on."""
        self._slow_start_s = 0.0
        self.update(rules, members, now)

    def member(self, member_id: str) -> Member | None:
        return self._by_id.get(member_id)

    def pick(self, now: float, key: int = 0, excluded: Collection[Member] = ()) -> Member | None:
        """A member for one request, which `started` is to follow. `key` is 0 or a 64-bit hash.

        None: there is no usable member, or all are excluded.
        """
        if now >= self._refresh_at:
            self._refresh(now)
        if self._only is not None:
            found = self._only(now, key, excluded)
            if found is not None:
                return found
        return self._pick_of_many(now, key, excluded)

    def started(self, member: Member) -> None:
        """A request was given to this member."""
        member.in_flight += 1
        home = member.home
        if home is not None:
            home.started(member)

    def finished(self, member: Member, took_s: float, failed: bool, now: float) -> None:
        """It ended, one way or the other; once for each `started`.

        Also right for a member that is out or has been removed since.
        """
        if member.in_flight <= 0:
            return
        member.in_flight -= 1
        member.done += 1
        member.done_s += took_s
        home = member.home
        if home is not None:
            home.finished(member, took_s, failed, now)

    def set_usable(self, member_id: str, usable: bool, reason: str | None, now: float) -> bool:
        """Take a member out, with the reason, or back in.

        False if nothing changed: it was so before, or there is no such member (late news of one
        that has been removed). The reason is taken over all the same.
        """
        member = self._by_id.get(member_id)
        if member is None:
            return False
        member.out_reason = None if usable else reason
        if member.usable is usable:
            return False
        member.usable = usable
        member.since = now
        member.warming = usable and self._slow_start_s > 0
        self._refresh_at = _NOW
        return True

    def set_drained(self, member_id: str, drained: bool, now: float) -> bool:
        """Take a member out of work by an operator's word, or put it back; as weight 0 would.

        What differs from `set_usable`: panic does not bring it back, and its weight is not missing
        in its tier, so that two of three drained is no panic. False if nothing changed.
        """
        member = self._by_id.get(member_id)
        if member is None or member.drained is drained:
            return False
        member.drained = drained
        member.since = now
        member.warming = not drained and self._slow_start_s > 0
        self._arrange()
        self._refresh_at = _NOW
        return True

    def update(
        self,
        rules: BalanceRules,
        specs: Sequence[MemberSpec],
        now: float,
        drained: Collection[str] | None = None,
    ) -> None:
        """A reload of rules and members; `drained` names all that are out of work, as
        `set_drained` has it (None: those that were).

        Members that stay, by id, keep what is in flight, health, draining, latency and slow start,
        also with another weight, priority or zone and under another algorithm. New ones begin
        usable and, in a running group, in slow start. Removed ones are forgotten, health included;
        results that are still to come for them are taken and change nothing else. An id that is
        listed twice is one member with the weights added.
        """
        if rules != self._rules:
            self._pools.clear()
        self._rules = rules
        self._slow_start_s = rules.slow_start_s if ALGORITHMS[rules.by].WARMS else 0.0
        before = self._by_id
        is_running = bool(before)
        self._by_id = {}
        for spec in specs:
            member = before.pop(spec.id, None)
            is_drained = spec.id in drained if drained is not None else None
            if (
                member is not None
                and member.spec is spec
                and (is_drained is None or is_drained is member.drained)
            ):
                self._by_id[spec.id] = member
                continue  # of many there are few that change
            twin = self._by_id.get(spec.id)
            if twin is not None:
                twin.weight += max(0, spec.weight)
                twin.spec = None
                continue
            if member is None:
                member = Member(spec, now)
                member.drained = bool(is_drained)
                member.warming = is_running and self._slow_start_s > 0 and not is_drained
            elif is_drained is not None and is_drained is not member.drained:
                member.drained = is_drained
                member.since = now
                member.warming = not is_drained and self._slow_start_s > 0
            member.spec = spec
            member.weight = max(0, spec.weight)
            member.priority = spec.priority
            member.zone = spec.zone
            self._by_id[spec.id] = member
        for gone in before.values():
            gone.index = -1
            gone.home = None
        self.members = tuple(self._by_id.values())
        self._arrange()
        self._refresh_at = _NOW

    def snapshot(self, now: float) -> GroupSnapshot:
        """What a pick at this time would find."""
        by, tiers = self.tiers(now)
        return GroupSnapshot(by, tiers, seen(self.members, now))

    def tiers(self, now: float) -> tuple[BalanceBy, tuple[TierSnapshot, ...]]:
        """The same without the members."""
        if now >= self._refresh_at:
            self._refresh(now)
        return self._rules.by, self._tiers_now

    def _arrange(self) -> None:
        """Sort the members into tiers and zones."""
        for at, member in enumerate(self.members):
            member.index = at
        by_priority: dict[int, _Tier] = {}
        zone = self._rules.zone
        for member in self.members:
            if not member.weight or member.drained:
                continue
            tier = by_priority.get(member.priority)
            if tier is None:
                tier = by_priority[member.priority] = _Tier(member.priority, [])
            tier.members.append(member)
            if zone:
                (tier.own if member.zone == zone else tier.others).append(member)
        self._tiers = [by_priority[priority] for priority in sorted(by_priority)]
        kept: dict[tuple[int, _Side], Algorithm] = {}
        for tier in self._tiers:
            tier.has_zones = bool(tier.own and tier.others)
            sides: dict[_Side, list[Member]] = {
                "all": tier.members,
                "own": tier.own,
                "others": tier.others,
            }
            for side, members in sides.items():
                pool = self._pools.get((tier.priority, side))
                if pool is not None:
                    pool.know(members)
                    kept[tier.priority, side] = pool
        self._pools = kept

    def _refresh(self, now: float) -> None:
        """Work out tiers, zones and pools from what is usable and how warm it is."""
        self._warm(now)
        for member in self.members:
            member.home = None
        rules = self._rules
        usables = [[member for member in tier.members if member.usable] for tier in self._tiers]
        weights = [
            _weights(tier.members, usable)
            for tier, usable in zip(self._tiers, usables, strict=True)
        ]
        shares = shares_of_tiers(weights, rules.spill, rules.panic)
        idle = dict(self._pools)
        self._shares = []
        seen = []
        upto = 0.0
        for tier, usable, weight, given in zip(self._tiers, usables, weights, shares, strict=True):
            own_share: float | None = None
            parts: list[tuple[_Side, list[Member], list[Member], float]]
            if given.is_panicking:
                parts = [("all", tier.members, tier.members, 1.0)]
            elif tier.has_zones:
                own = [member for member in tier.own if member.usable]
                others = [member for member in tier.others if member.usable]
                own_share = share_of_own_zone(
                    _weights(tier.own, own), _weights(tier.others, others), rules.zone_spill
                )
                parts = [
                    ("own", tier.own, own, own_share),
                    ("others", tier.others, others, 1 - own_share),
                ]
            else:
                parts = [("all", tier.members, usable, 1.0)]
            for side, known, members, part in parts:
                if members:
                    upto += given.share * part
                    pool = self._pool(tier.priority, side, known)
                    idle.pop((tier.priority, side), None)
                    _use(pool, members)
                    self._shares.append((upto, pool))
            seen.append(
                TierSnapshot(
                    tier.priority, given.share, weight.usable_share, given.is_panicking, own_share
                )
            )
        for pool in idle.values():
            pool.use(())
        self._tiers_now = tuple(seen)
        before = 0.0
        self._only = None
        for upto, pool in self._shares:
            if upto - before >= _ALL:
                self._only = pool.pick
            before = upto

    def _warm(self, now: float) -> None:
        """Set the weights that count now, and when they are to be set next."""
        self._refresh_at = math.inf
        slow_start_s = self._slow_start_s
        for member in self.members:
            part = 1.0
            if member.warming:
                age_s = now - member.since
                if age_s < slow_start_s:
                    part = _COLD + (1 - _COLD) * max(0.0, age_s) / slow_start_s
                    self._refresh_at = now + slow_start_s / _WARM_STEPS
                else:
                    member.warming = False
            member.effective = member.weight * part

    def _pool(self, priority: int, side: _Side, known: Sequence[Member]) -> Algorithm:
        """Made on first use: the pool of a tier in panic, over all zones, is seldom needed."""
        pool = self._pools.get((priority, side))
        if pool is None:
            pool = ALGORITHMS[self._rules.by](self._rules, self._rng)
            pool.know(known)
            self._pools[priority, side] = pool
        return pool

    def _pick_of_many(self, now: float, key: int, excluded: Collection[Member]) -> Member | None:
        """By the shares of the pools; or `_only` has nobody left and the others are asked."""
        tried: Algorithm | None = None
        if self._only is None and self._shares:
            if key and self._rules.by == "consistent_hash":
                place = (key * _SPREAD & _MASK) / (_MASK + 1)
            else:
                place = self._rng.random()
            tried = next((pool for upto, pool in self._shares if place < upto), None)
            found = tried.pick(now, key, excluded) if tried is not None else None
            if found is not None:
                return found
        for _, pool in self._shares:
            if pool is not tried:
                found = pool.pick(now, key, excluded)
                if found is not None:
                    return found
        return None


def seen(members: Iterable[Member], now: float) -> tuple[MemberSnapshot, ...]:
    """Some of a group's members, for whoever tells of many in steps."""
    return tuple([_seen(member, now) for member in members])


def _use(pool: Algorithm, members: Sequence[Member]) -> None:
    mean = sum(member.effective for member in members) / len(members)
    home = pool if pool.LISTENS else None
    for member in members:
        member.burden = mean / member.effective
        member.home = home
    pool.use(members)


def _weights(members: Sequence[Member], usable: Sequence[Member]) -> Weights:
    return Weights(
        sum(member.weight for member in usable), sum(member.weight for member in members)
    )


def _seen(member: Member, now: float) -> MemberSnapshot:
    return MemberSnapshot(
        id=member.id,
        weight=member.weight,
        effective_weight=member.effective,
        priority=member.priority,
        zone=member.zone,
        in_flight=member.in_flight,
        usable=member.usable,
        out_reason=member.out_reason,
        is_drained=member.drained,
        since_s=max(0.0, now - member.since),
        is_warming=member.warming,
        latency_s=member.ewma_s,
    )
