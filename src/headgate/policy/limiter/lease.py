"""Leases: one limit for many workers and machines, without asking at every hit.

Theory of operation. The shared home (`Home`) holds the one true limiter. A worker (`Leased`) takes
several hits at a time from it: a lease, charged at the home before it is spent. Most hits are
answered at once from the lease. When it is spent, `hit` returns an `Ask`; the rim brings it to the
home and its `Grant` back to `take`. If no answer comes, `fail` decides. Every ask ends in one of
the two.

How large. A worker asks for what it spends in half a `ttl_s` at the rate it sees on that key, at
most doubling from lease to lease, and never above `limit x share / holders` (of the burst, where
there is one). On a key seen seldom that is just the cost of the hit, and so it is always where
`limit x share / holders` is below one: 5 a minute shared by four workers is exactly 5. The home
gives no more than a quarter of what it has left, unless a hit waits for it, so that what is scarce
is not laid up. A lease half spent is filled up ahead of need (`wants`). What is unspent after
`ttl_s` goes back (`expired`).

The bound. For every algorithm, what passes is within the limit as a single limiter would hold it,
plus what was leased and unspent when the stretch of time began. All workers together never hold
more than `limit x share` unspent (and one hit each that waits for an answer), so:

- `gcra`, `token_bucket`: at most `burst x (1 + share) + rate x t` in any t seconds.
- `sliding_log`: at most `limit x (1 + share)` in any period; `sliding_window` the same in its own
  count.
- `fixed_window`: exactly `limit` in each window of the home's clock, for a lease ends with its
  window; only a hit that waits for its answer while the window turns counts in the one before.
- `concurrency`: exactly `limit`, for a seat is leased before it is taken (see `lease_seats.py`).

Under-use: of what the limit allows at most `limit x share` is unspent somewhere, for `ttl_s` at
most. A refusal is remembered until more can be had (at most `ttl_s`), so that a flood of hits on a
spent key does not reach the home; where leases are larger than one, until half of one can be had,
or the home of a hot key would be asked for every single hit.

The home is away. What is leased is still spent. Then `fail` says: `open` lets all pass, `closed`
refuses all, `local` gives each worker `limit / holders` of its own (where that is below one, one
hit in a period so much longer). These shares are full when the home is lost, so in a stretch with
that moment in it up to one limit more passes. When the home is back nothing bursts: leases start
empty; what was spent alone and still counts is reported first (`Ask.owed`), and workers go on alone
for a while, so that all have reported before any asks: for half a `ttl_s`, or for as long as the
home was away, for others may find it so much later; but no longer than `rejoin_s`. (Not at the
start of a worker, which nobody else notices.) What `open` let pass is not reported.
A home that lost its memory has a full limit again; that is outside the bound.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable
from dataclasses import dataclass
from math import isfinite
from typing import Literal, NamedTuple

from headgate.policy.limiter.rules import LimitRules, Verdict

FailMode = Literal["open", "closed", "local"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRules:
    """How much workers may hold, for how long, and what they do alone."""

    share: float = 0.1
    """How much of the limit all workers together may hold unspent: the bound of the overshoot."""
    ttl_s: float = 1.0
    """How long a lease may be spent; what is left then is given back."""
    seat_ttl_s: float = 10.0
    """`concurrency`: when the seats of a worker that says nothing more are given to others."""
    rejoin_s: float = 2.0
    """How far apart workers may find a home again that was away for long: the longest pause between
    two of their tries."""
    fail: FailMode = "local"
    """When the home is away: let all pass, refuse all, or let each worker spend its own share."""
    max_keys: int = 100_000
    """How many keys a worker remembers leases for; further ones ask at each hit."""

    def problems(self) -> tuple[str, ...]:
        """Settings without sense, in words."""
        found: list[str] = []
        if not 0 <= self.share <= 1:
            found.append(f"share={self.share:g} must be between 0 and 1")
        if not (self.ttl_s > 0 and isfinite(self.ttl_s)):
            found.append(f"ttl_s={self.ttl_s:g} must be more than 0 seconds and finite")
        if not (self.seat_ttl_s > 0 and isfinite(self.seat_ttl_s)):
            found.append(f"seat_ttl_s={self.seat_ttl_s:g} must be more than 0 seconds and finite")
        if not (self.rejoin_s >= 0 and isfinite(self.rejoin_s)):
            found.append(f"rejoin_s={self.rejoin_s:g} must be 0 seconds or more and finite")
        if self.max_keys < 1:
            found.append(f"max_keys={self.max_keys} keeps no lease; it must be at least 1")
        return tuple(found)


class Ask(NamedTuple):
    """What a worker asks its home for; `cost` and `at` it needs again in `take` or `fail`."""

    key: Hashable
    want: int
    """How many it would like; 0 only tells what is owed or held."""
    least: int
    """Fewer are of no use to the hit that waits; 0: nobody waits."""
    owed: int = 0
    """Spent without a lease: to be charged first."""
    holding: int | None = None
    """Concurrency: all the seats this worker holds; the home's record is set to it first."""
    cost: int = 0
    """Of the hit that waits. `cost - least` came from the lease and is held for it."""
    at: float = 0.0
    """When it was asked, by the worker's clock."""


class Grant(NamedTuple):
    """What the home gives."""

    granted: int
    """Between `least` and `want`, or 0."""
    remaining: int
    """What the home has left."""
    reset_s: float
    retry_after_s: float
    """When `least` could be granted; 0 if it was."""
    at: float
    """The home's clock when it charged; comes back in `Back`."""


class Back(NamedTuple):
    """What a worker gives back."""

    key: Hashable
    n: int
    at: float
    """When it was charged, by the home's clock, or a little before."""


@dataclass(frozen=True, slots=True)
class LeasedSnapshot:
    """What an operator may ask about a worker's side."""

    keys: int
    unspent: int
    """Leased and not spent, over all keys; for concurrency, seats held that are empty."""
    largest: int
    """How many this worker may lease of one key beyond what waits."""
    holders: int
    is_away: bool
    fail: FailMode


class Home(ABC):
    """The home's side; `home_of(rules)` makes that of the rules' algorithm."""

    __slots__ = ()

    @abstractmethod
    def __init__(self, rules: LimitRules, lease: LeaseRules | None = None) -> None: ...

    @property
    @abstractmethod
    def rules(self) -> LimitRules: ...

    @abstractmethod
    def grant(
        self,
        key: Hashable,
        want: int,
        least: int,
        holder: str,
        now: float,
        owed: int = 0,
        holding: int | None = None,
    ) -> Grant:
        """Charge up to `want`, not less than `least`, after what is owed."""

    @abstractmethod
    def give_back(self, key: Hashable, n: int, now: float, holder: str, at: float) -> None:
        """Take back what was not spent; `at` is from the grant."""

    @abstractmethod
    def peek(self, key: Hashable, now: float) -> Verdict:
        """How the key stands; charges nothing."""

    @abstractmethod
    def clear(self, key: Hashable) -> bool:
        """Forget what the key has used. False where that would be a lie: seats are taken."""

    @abstractmethod
    def top(self, now: float, most: int) -> list[tuple[Hashable, float]]:
        """The keys that have used most, with how much."""

    @abstractmethod
    def sweep(self, now: float, most: int = 1000) -> int:
        """Drop what is full or run out, looking at about `most` keys."""

    @abstractmethod
    def take_rules(self, rules: LimitRules, now: float) -> None:
        """Go on under other rules of the same algorithm, as the limiter does."""

    @abstractmethod
    def __len__(self) -> int: ...


class Leased(ABC):
    """A worker's side; `leased_of(rules, lease, holders)` makes that of the rules' algorithm.

        got = leased.hit(key, now)
        if isinstance(got, Ask):
            try: grant = await home(got)
            except Away: verdict = leased.fail(got, now)
            else: verdict = leased.take(got, grant, now)

    A few times in each `ttl_s` the rim sends what `expired(now)` gives back, then asks what
    `wants(now)` says. Messages of one worker reach the home in the order in which they were made.
    """

    __slots__ = ("is_away",)

    is_away: bool

    @abstractmethod
    def __init__(self, rules: LimitRules, lease: LeaseRules, holders: int = 1) -> None: ...

    @property
    @abstractmethod
    def rules(self) -> LimitRules: ...

    @property
    @abstractmethod
    def holders(self) -> int:
        """How many workers share the home, this one included; may be set at any time."""

    @holders.setter
    @abstractmethod
    def holders(self, count: int) -> None: ...

    @abstractmethod
    def hit(self, key: Hashable, now: float, cost: int = 1) -> Verdict | Ask:
        """Take `cost` from the lease, or say what to ask the home for."""

    @abstractmethod
    def peek(self, key: Hashable, now: float, cost: int = 1) -> Verdict:
        """What this worker knows of the key; it takes a key that it does not know for full."""

    @abstractmethod
    def take(self, ask: Ask, grant: Grant, now: float) -> Verdict:
        """The home's answer. Where nobody waits (`least` 0) the verdict is of no interest."""

    @abstractmethod
    def fail(self, ask: Ask, now: float) -> Verdict:
        """No answer came: decide by the fail mode. Also for what came from `wants`."""

    @abstractmethod
    def drop(self, ask: Ask, now: float) -> None:
        """The ask was never sent."""

    @abstractmethod
    def charge(self, key: Hashable, cost: int, now: float) -> None:
        """Take `cost` also where it is not there; the home is told with the next ask."""

    @abstractmethod
    def refund(self, key: Hashable, cost: int, now: float, at: float | None = None) -> None:
        """Undo a hit of `cost` made at `at`, or a moment ago. For concurrency: leave."""

    @abstractmethod
    def forgive(self, key: Hashable) -> None:
        """The home has forgotten what the key used: remember no refusal and no debt of it."""

    @abstractmethod
    def wants(self, now: float, most: int = 1000) -> list[Ask]:
        """What to tell the home, or ask it for, before a hit has to wait."""

    @abstractmethod
    def expired(self, now: float, most: int = 1000) -> list[Back]:
        """What to give back to the home."""

    @abstractmethod
    def away(self, now: float) -> None:
        """The home cannot be reached: ask no more, decide by the fail mode."""

    @abstractmethod
    def back(self, now: float) -> None:
        """The home can be reached again."""

    @abstractmethod
    def take_rules(self, rules: LimitRules, lease: LeaseRules, now: float) -> None:
        """Go on under other rules of the same algorithm; what is leased stays."""

    @abstractmethod
    def snapshot(self, now: float) -> LeasedSnapshot: ...

    @abstractmethod
    def __len__(self) -> int: ...


def home_of(rules: LimitRules, lease: LeaseRules | None = None) -> Home:
    """The home's side of these rules. ValueError if they are none."""
    return _sides(rules)[0](rules, lease)


def leased_of(rules: LimitRules, lease: LeaseRules, holders: int = 1) -> Leased:
    """A worker's side of these rules. ValueError if they are none."""
    return _sides(rules)[1](rules, lease, holders)


def _sides(rules: LimitRules) -> tuple[type[Home], type[Leased]]:
    # Chosen here, by the rules, so that who shares a limit need not know that seats are lent in
    # another way than hits; imported here because both build on this file.
    if rules.algorithm == "concurrency":
        from headgate.policy.limiter.lease_seats import LeasedSeats, SeatsHome

        return SeatsHome, LeasedSeats
    from headgate.policy.limiter.lease_hits import HitsHome, LeasedHits

    return HitsHome, LeasedHits


def check(rules: LimitRules, lease: LeaseRules) -> None:
    if problems := (*rules.problems(), *lease.problems()):
        raise ValueError("; ".join(problems))
