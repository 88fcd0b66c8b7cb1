"""Leases of seats: the side of `lease.py` for limits of concurrency.

Theory of operation. The home lends seats to workers and knows how many each holds of each key, and
until when. A worker seats its requests on what it holds, so that of all workers together never
more than `limit` are under way. It keeps some empty seats on a busy key, as many as it uses but no
more than `limit x share / holders`, and gives back the rest with the next `expired`.

A worker says again what it holds three times in each `seat_ttl_s` (`wants`, with `holding`). The
seats of one that says nothing for that long are lent to others: a dead worker's seats come back.
One that was only stuck, and still has requests under way, says so when it speaks again, and the
home takes its word: until those end, more than `limit` are under way, by what it held at most. The
same words make good a home that lost its memory, and answers that got lost.

The home is away: `open` seats everybody, `closed` only on seats that are held, `local` also up to
`limit / holders` (at least one). Who held more than that share keeps it while in use and lets it go
seat by seat. So in the worst case twice the limit is under way for as long as the longest request
that began before; back at the home, each worker says what it uses, and nobody is seated anew until
that is below the limit.

What an editor must not break: what a worker says it holds counts only if nothing else it said is
still on its way, so `holding` is left out while an ask for the key is unanswered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from heapq import nlargest
from itertools import islice
from math import inf
from typing import Final

from headgate.policy.limiter.lease import (
    Ask,
    Back,
    Grant,
    Home,
    Leased,
    LeasedSnapshot,
    LeaseRules,
    check,
)
from headgate.policy.limiter.rules import LimitRules, Verdict

_SPARE_PART: Final = 4
"""What nobody waits for is at most this part of the seats that are free."""
_RENEWALS: Final = 3
"""How often a worker says what it holds in each `seat_ttl_s`."""
_LOOKED: Final = 100_000
"""Keys that a question for the fullest looks at."""
_COOL_S: Final = 0.05
"""How long a refusal is remembered: nobody can know when a seat comes free elsewhere."""


class SeatsHome(Home):
    __slots__ = ("_keys", "_queue", "_rules", "_ttl_s")

    def __init__(self, rules: LimitRules, lease: LeaseRules | None = None) -> None:
        lease = lease or LeaseRules()
        check(rules, lease)
        self._rules = rules
        self._ttl_s = lease.seat_ttl_s
        self._keys: dict[Hashable, dict[str, tuple[int, float]]] = {}
        """By key and holder: how many seats, and until when."""
        self._queue: deque[Hashable] = deque()
        """Each key once, to be looked at in turn."""

    @property
    def rules(self) -> LimitRules:
        return self._rules

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
        rules = self._rules
        wait_s = rules.period_s
        holders = self._keys.get(key)
        if holders is None:
            if not want and not holding:
                return Grant(0, rules.limit, 0.0, 0.0, now)
            if len(self._keys) >= rules.max_keys and not holding:
                return Grant(0, 0, wait_s, wait_s, now)
            holders = self._keys[key] = {}
            self._queue.append(key)
        else:
            _drop_expired(holders, now)
        held = holders.get(holder, (0, 0.0))[0] if holding is None else holding
        holders[holder] = (held, now + self._ttl_s)
        free = rules.limit - sum(n for n, _ in holders.values())
        n = max(least, 0)
        if want > n:
            n = max(n, min(want, free // _SPARE_PART))
        if n > free:
            retry_s = inf if n > rules.limit else wait_s if n else 0.0
            return Grant(0, max(0, free), wait_s, retry_s, now)
        holders[holder] = (held + n, now + self._ttl_s)
        return Grant(n, free - n, wait_s, 0.0, now)

    def peek(self, key: Hashable, now: float) -> Verdict:
        rules = self._rules
        free = max(0, rules.limit - self._lent(key, now))
        wait_s = 0.0 if free else rules.period_s
        return Verdict(free > 0, rules.limit, free, wait_s, wait_s)

    def clear(self, key: Hashable) -> bool:
        return key not in self._keys

    def top(self, now: float, most: int) -> list[tuple[Hashable, float]]:
        lent = ((key, float(self._lent(key, now))) for key in islice(self._keys, _LOOKED))
        return nlargest(most, (row for row in lent if row[1] > 0), key=lambda row: row[1])

    def _lent(self, key: Hashable, now: float) -> int:
        return sum(n for n, until in self._keys.get(key, {}).values() if until > now)

    def give_back(self, key: Hashable, n: int, now: float, holder: str, at: float) -> None:
        holders = self._keys.get(key)
        if holders is not None and holder in holders:
            held, until = holders[holder]
            holders[holder] = (max(0, held - n), until)

    def sweep(self, now: float, most: int = 1000) -> int:
        queue = self._queue
        gone = 0
        for _ in range(min(most, len(queue))):
            key = queue.popleft()
            holders = self._keys[key]
            _drop_expired(holders, now)
            if any(n for n, _ in holders.values()):
                queue.append(key)
            else:
                del self._keys[key]
                gone += 1
        return gone

    def take_rules(self, rules: LimitRules, now: float) -> None:
        """Keep who sits; a lower limit lends nothing until enough have left."""
        check(rules, LeaseRules())
        self._rules = rules

    def __len__(self) -> int:
        return len(self._keys)


def _drop_expired(holders: dict[str, tuple[int, float]], now: float) -> None:
    for holder in [holder for holder, (_, until) in holders.items() if until <= now]:
        del holders[holder]


class _Seats:
    """What a worker has of one key."""

    __slots__ = ("asking", "held", "peak", "refused_until", "remaining", "used")

    def __init__(self) -> None:
        self.used = 0
        """Under way here, and free seats kept for a hit that waits for more."""
        self.held = 0
        """Lent to us."""
        self.peak = 0
        """The most that were used lately."""
        self.asking = 0
        """Asks not yet answered."""
        self.remaining = 0
        """What the home had left."""
        self.refused_until = -inf

    @property
    def is_idle(self) -> bool:
        return not (self.used or self.held or self.asking)


class LeasedSeats(Leased):
    __slots__ = (
        "_holders",
        "_keys",
        "_largest",
        "_lease",
        "_limit",
        "_renewals",
        "_renewed_s",
        "_rules",
        "_share",
        "_spare",
    )

    def __init__(self, rules: LimitRules, lease: LeaseRules, holders: int = 1) -> None:
        check(rules, lease)
        self._keys: dict[Hashable, _Seats] = {}
        self._renewals: deque[tuple[float, Hashable, _Seats]] = deque()
        """When to tell the home what we hold, in order; of forgotten keys as well."""
        self._spare: dict[Hashable, None] = {}
        """Keys that may have seats to give back."""
        self._holders = max(1, holders)
        self._rules = rules
        self._lease = lease
        self.is_away = False
        self._set()

    def _set(self) -> None:
        self._limit = self._rules.limit
        self._largest = int(self._limit * self._lease.share / self._holders)
        self._share = max(1, self._limit // self._holders)
        self._renewed_s = self._lease.seat_ttl_s / _RENEWALS

    @property
    def rules(self) -> LimitRules:
        return self._rules

    @property
    def holders(self) -> int:
        return self._holders

    @holders.setter
    def holders(self, count: int) -> None:
        if count != self._holders and count > 0:
            self._holders = count
            self._set()

    def take_rules(self, rules: LimitRules, lease: LeaseRules, now: float) -> None:
        check(rules, lease)
        self._rules = rules
        self._lease = lease
        self._set()

    # ---- hits

    def hit(self, key: Hashable, now: float, cost: int = 1) -> Verdict | Ask:
        if cost < 1:
            return self.peek(key, now, cost)
        limit = self._limit
        if cost > limit:
            return Verdict(False, limit, limit, 0.0, inf)
        seats = self._keys.get(key)
        if seats is None:
            seats = self._seats(key, now)
        used = seats.used + cost
        if used <= seats.held:
            return self._seat(seats, cost)
        if self.is_away:
            return self._decide_alone(seats, cost)
        if now < seats.refused_until:
            return self._refused(seats)
        holding = None
        if seats.used > seats.held and not seats.asking:  # seated alone, when the home failed us
            holding = seats.held = seats.used
        # Free seats are kept for this hit while it waits for the rest.
        kept = max(0, seats.held - seats.used)
        least = cost - kept
        extra = 0 if seats.asking else min(self._largest, seats.used)
        seats.used += kept
        seats.asking += 1
        return Ask(key, least + extra, least, 0, holding, cost, now)

    def _seats(self, key: Hashable, now: float) -> _Seats:
        seats = self._keys[key] = _Seats()
        self._renewals.append((now + self._renewed_s, key, seats))
        return seats

    def _seat(self, seats: _Seats, cost: int) -> Verdict:
        seats.used += cost
        seats.peak = max(seats.peak, seats.used)
        return Verdict(True, self._limit, self._left(seats), self._rules.period_s, 0.0)

    def _refused(self, seats: _Seats) -> Verdict:
        wait_s = self._rules.period_s
        return Verdict(False, self._limit, self._left(seats), wait_s, wait_s)

    def _left(self, seats: _Seats) -> int:
        return min(self._limit, max(0, seats.held - seats.used) + seats.remaining)

    def peek(self, key: Hashable, now: float, cost: int = 1) -> Verdict:
        if cost < 0:
            raise ValueError(f"cost={cost} must not be negative; refund gives back")
        limit = self._limit
        seats = self._keys.get(key)
        left = limit
        wait_s = 0.0
        if seats is not None and not seats.is_idle:
            left = self._left(seats)
            wait_s = self._rules.period_s
        if cost <= left or not cost:
            return Verdict(True, limit, left, wait_s, 0.0)
        return Verdict(False, limit, left, wait_s, inf if cost > limit else self._rules.period_s)

    def take(self, ask: Ask, grant: Grant, now: float) -> Verdict:
        seats = self._keys[ask.key]  # never forgotten while it asks
        seats.asking -= 1
        seats.held += grant.granted
        seats.remaining = grant.remaining
        if not ask.least:
            return self._refused(seats)
        kept = ask.cost - ask.least
        seats.used -= kept
        if grant.granted >= ask.least:
            seats.refused_until = -inf
            if grant.granted > ask.least:
                self._spare[ask.key] = None
            return self._seat(seats, ask.cost)
        if kept:
            self._spare[ask.key] = None
        seats.refused_until = now + min(_COOL_S, self._rules.period_s)
        return self._refused(seats)

    def fail(self, ask: Ask, now: float) -> Verdict:
        self.drop(ask, now)
        seats = self._keys[ask.key]
        if not ask.least:
            return self._refused(seats)
        return self._decide_alone(seats, ask.cost)

    def drop(self, ask: Ask, now: float) -> None:
        seats = self._keys[ask.key]
        seats.asking -= 1
        if ask.least:
            seats.used -= ask.cost - ask.least

    # ---- without a home

    def _decide_alone(self, seats: _Seats, cost: int) -> Verdict:
        mode = self._lease.fail
        most: float = seats.held
        if mode == "open":
            most = inf
        elif mode == "local":
            most = max(most, self._share)
        seats.remaining = 0
        if seats.used + cost > most:
            return self._refused(seats)
        return self._seat(seats, cost)

    def away(self, now: float) -> None:
        self.is_away = True

    def back(self, now: float) -> None:
        """Tell the home of every key with the next `wants`."""
        if self.is_away:
            self.is_away = False
            self._renewals = deque((now, key, seats) for key, seats in self._keys.items())

    # ---- afterwards

    def charge(self, key: Hashable, cost: int, now: float) -> None:
        if cost > 0:
            seats = self._keys.get(key) or self._seats(key, now)
            seats.used += cost

    def forgive(self, key: Hashable) -> None:
        # Seats are held, not used up: there is no debt, and what is held stays held.
        if seats := self._keys.get(key):
            seats.refused_until = -inf

    def refund(self, key: Hashable, cost: int, now: float, at: float | None = None) -> None:
        seats = self._keys.get(key)
        if seats is None or cost < 1:
            return
        seats.used = max(0, seats.used - cost)
        seats.refused_until = -inf
        if self.is_away and seats.held > self._share:
            seats.held = max(seats.used, self._share)
        self._spare[key] = None

    def wants(self, now: float, most: int = 1000) -> list[Ask]:
        asks: list[Ask] = []
        renewals = self._renewals
        for _ in range(min(most, len(renewals))):
            if renewals[0][0] > now:
                break
            _, key, seats = renewals.popleft()
            if self._keys.get(key) is not seats:
                continue
            if seats.is_idle:
                del self._keys[key]
                continue
            renewals.append((now + self._renewed_s, key, seats))
            if self.is_away:
                continue
            holding = None
            if not seats.asking:
                holding = seats.held = max(seats.held, seats.used)
            seats.asking += 1
            asks.append(Ask(key, 0, 0, 0, holding, 0, now))
        return asks

    def expired(self, now: float, most: int = 1000) -> list[Back]:
        backs: list[Back] = []
        if self.is_away:
            return backs
        spare = self._spare
        again: list[Hashable] = []
        for _ in range(min(most, len(spare))):
            key, _none = spare.popitem()
            seats = self._keys.get(key)
            if seats is None:
                continue
            kept = max(seats.used, min(seats.peak, seats.used + self._largest))
            if seats.held > kept:
                backs.append(Back(key, seats.held - kept, now))
                seats.held = kept
            seats.peak = seats.used
            if seats.held > seats.used:
                again.append(key)
        for key in again:
            spare[key] = None
        return backs

    def snapshot(self, now: float) -> LeasedSnapshot:
        return LeasedSnapshot(
            keys=len(self._keys),
            unspent=sum(max(0, seats.held - seats.used) for seats in self._keys.values()),
            largest=self._largest,
            holders=self._holders,
            is_away=self.is_away,
            fail=self._lease.fail,
        )

    def __len__(self) -> int:
        return len(self._keys)
