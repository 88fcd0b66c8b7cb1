"""Leases of hits: the rates' side of `lease.py`, which has the theory.

What an editor must not break: a token is in one place only: at the home, in a purse, held by an ask
(`Ask.cost - Ask.least`), or spent. A purse holds at most `_largest` tokens, those asked for ahead
(`purse.coming`) included; what waits for an answer comes on top and is spent when it arrives.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
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
from headgate.policy.limiter.table import make

_SPARE_PART: Final = 4
"""What nobody waits for is at most this part of what the home has."""
_COOL_PART: Final = 2
"""After a refusal, wait until this part of a lease has refilled."""


class HitsHome(Home):
    __slots__ = ("_limiter",)

    def __init__(self, rules: LimitRules, lease: LeaseRules | None = None) -> None:
        self._limiter = make(rules)

    @property
    def rules(self) -> LimitRules:
        return self._limiter.rules

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
        limiter = self._limiter
        if owed > 0:
            limiter.charge(key, owed, now)
        n = max(least, 0)
        if want > n:
            spare = limiter.peek(key, now, 0).remaining // _SPARE_PART
            n = max(n, min(want, spare))
        verdict = limiter.hit(key, now, n)
        granted = n if verdict.allowed else 0
        return Grant(granted, verdict.remaining, verdict.reset_s, verdict.retry_after_s, now)

    def give_back(self, key: Hashable, n: int, now: float, holder: str, at: float) -> None:
        self._limiter.refund(key, n, now, at)

    def peek(self, key: Hashable, now: float) -> Verdict:
        return self._limiter.peek(key, now)

    def clear(self, key: Hashable) -> bool:
        self._limiter.clear(key)
        return True

    def top(self, now: float, most: int) -> list[tuple[Hashable, float]]:
        return self._limiter.top(now, most)

    def sweep(self, now: float, most: int = 1000) -> int:
        return self._limiter.sweep(now, most)

    def take_rules(self, rules: LimitRules, now: float) -> None:
        self._limiter.take_rules(rules, now)

    def __len__(self) -> int:
        return len(self._limiter)


class _Purse:
    """What a worker has of one key."""

    __slots__ = (
        "asked_at",
        "charged_at",
        "coming",
        "ends",
        "had",
        "low",
        "refused_cost",
        "refused_until",
        "remaining",
        "reset_at",
        "retry_at",
        "size",
        "tokens",
    )

    def __init__(self, now: float) -> None:
        self.tokens = 0
        self.ends = now
        """Until when the tokens may be spent."""
        self.charged_at = 0.0
        """By the home's clock: when the oldest of the tokens were charged."""
        self.low = 0
        """With fewer tokens, ask ahead."""
        self.coming = 0
        """Asked for ahead of need and not yet answered."""
        self.size = 0
        """How many it wanted to have at the last ask."""
        self.had = 0
        """Tokens after the last ask; what is missing since was spent."""
        self.asked_at = now
        self.refused_until = -inf
        self.refused_cost = 0
        self.retry_at = 0.0
        self.reset_at = now
        self.remaining = 0
        """What the home had left."""


class LeasedHits(Leased):
    __slots__ = (
        "_alone",
        "_alone_since",
        "_alone_until",
        "_backs",
        "_capacity",
        "_cool_s",
        "_debts",
        "_ends_with_window",
        "_holders",
        "_largest",
        "_lease",
        "_local",
        "_low",
        "_offset_s",
        "_purses",
        "_queue",
        "_rules",
        "_was_here",
    )

    def __init__(self, rules: LimitRules, lease: LeaseRules, holders: int = 1) -> None:
        check(rules, lease)
        self._purses: dict[Hashable, _Purse] = {}
        self._queue: deque[tuple[float, Hashable]] = deque()
        """Each purse once, by about when it ends."""
        self._low: dict[Hashable, None] = {}
        self._backs: list[Back] = []
        self._debts: dict[Hashable, int] = {}
        self._alone: dict[Hashable, int] = {}
        """Spent while the home was away and not yet reported."""
        self._alone_since = inf
        self._alone_until = -inf
        """While in between, hits are decided alone."""
        self._was_here = False
        """The home has answered: what it is away for since, others may be rid of later than we."""
        self._offset_s = 0.0
        """The home's clock less ours, the way to it included."""
        self._holders = max(1, holders)
        self._rules = rules
        self._lease = lease
        self._local = make(self._local_rules())
        self.is_away = False
        self._set()

    def _set(self) -> None:
        rules = self._rules
        self._capacity = rules.capacity
        self._largest = int(rules.capacity * self._lease.share / self._holders)
        gap_s = rules.period_s / rules.limit
        self._cool_s = min(self._largest // _COOL_PART * gap_s, self._lease.ttl_s / _COOL_PART)
        self._ends_with_window = rules.algorithm == "fixed_window"

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
        self._local.take_rules(self._local_rules(), now)

    # ---- hits

    def hit(self, key: Hashable, now: float, cost: int = 1) -> Verdict | Ask:
        if cost < 1:
            return self.peek(key, now, cost)
        purse = self._purses.get(key)
        if purse is None:
            if cost > self._capacity:
                return Verdict(False, self._capacity, self._capacity, 0.0, inf)
            if now < self._alone_until:
                return self._decide_alone(key, now, cost)
            # Seen for the first time, or seldom: just this hit.
            return Ask(key, cost, cost, self._owed(key, now), None, cost, now)
        tokens = purse.tokens
        if cost <= tokens and now < purse.ends:
            purse.tokens = tokens = tokens - cost
            if tokens < purse.low and not purse.coming:
                self._low[key] = None
            capacity = self._capacity
            left = tokens + purse.remaining
            if left > capacity:  # noqa: PLR1730  min() costs a call
                left = capacity
            reset_s = purse.reset_at - now
            if reset_s < 0.0:  # noqa: PLR1730
                reset_s = 0.0
            return Verdict(True, capacity, left, reset_s, 0.0)
        if now >= purse.ends:
            self._give_up(key, purse)
        return self._short(key, purse, now, cost)

    def _short(self, key: Hashable, purse: _Purse, now: float, cost: int) -> Verdict | Ask:
        """The lease does not cover the hit."""
        if cost > self._capacity:
            return self.peek(key, now, cost)
        if now < purse.refused_until and cost >= purse.refused_cost:
            return self._still_refused(purse, now)
        if now < self._alone_until:
            return self._decide_alone(key, now, cost)
        held = purse.tokens  # of no use alone: they wait with the hit for the rest
        least = cost - held
        extra = 0
        if purse.coming:
            purse.had += least
        else:
            extra = purse.coming = self._ahead(purse, now, least)
        purse.tokens = 0
        return Ask(key, least + extra, least, self._owed(key, now), None, cost, now)

    def _ahead(self, purse: _Purse, now: float, waiting: int) -> int:
        """How much to lease beyond what waits, from what was spent since the last lease."""
        took_s = now - purse.asked_at
        spent = purse.had - purse.tokens + waiting
        purse.asked_at = now
        purse.had = purse.tokens
        if took_s <= 0.0:
            want = 2 * purse.size + 1
        else:
            want = int(spent * self._lease.ttl_s / 2 / took_s)
            want = min(want, 2 * purse.size + 1)
        purse.size = max(0, min(want, self._largest))
        return max(0, purse.size - purse.tokens)

    def _still_refused(self, purse: _Purse, now: float) -> Verdict:
        return Verdict(
            False,
            self._capacity,
            min(self._capacity, purse.tokens + purse.remaining),
            max(0.0, purse.reset_at - now),
            max(0.0, purse.retry_at - now),
        )

    def peek(self, key: Hashable, now: float, cost: int = 1) -> Verdict:
        if cost < 0:
            raise ValueError(f"cost={cost} must not be negative; refund gives back")
        capacity = self._capacity
        purse = self._purses.get(key)
        if purse is None:
            if now < self._alone_until and self._lease.fail == "local":
                return self._local.peek(key, now, cost)
            fits = cost <= capacity
            return Verdict(fits, capacity, capacity, 0.0, 0.0 if fits else inf)
        if cost and now < purse.refused_until and cost >= purse.refused_cost:
            return self._still_refused(purse, now)
        left = min(capacity, purse.tokens + purse.remaining)
        reset_s = max(0.0, purse.reset_at - now)
        if cost <= left or not cost:
            return Verdict(True, capacity, left, reset_s, 0.0)
        return Verdict(False, capacity, left, reset_s, inf if cost > capacity else 0.0)

    # ---- the home's answers

    def take(self, ask: Ask, grant: Grant, now: float) -> Verdict:
        key = ask.key
        granted, remaining, reset_s, retry_after_s, at = grant
        self._offset_s = at - ask.at
        self._was_here = True
        served = granted >= ask.least
        if not ask.want:  # it only told the home something
            return self._answer(ask, grant, served, 0)
        purse = self._purses.get(key)
        extra = granted - ask.least if served else granted
        if purse is None and (purse := self._new_purse(key, now, ask.at)) is None:
            if extra > 0:
                self._backs.append(Back(key, extra, at))
            return self._answer(ask, grant, served, 0)
        if ask.want > ask.least:
            purse.coming = 0
        purse.remaining = remaining
        purse.reset_at = now + reset_s
        if served:
            if granted:
                purse.refused_until = -inf
        else:
            self._return_held(ask, purse, now)
            wait_s = min(max(retry_after_s, self._cool_s), self._lease.ttl_s)
            purse.refused_until = now + wait_s
            purse.retry_at = now + max(retry_after_s, wait_s)
            purse.refused_cost = ask.cost
        if extra > 0:
            if now >= purse.ends:
                self._give_up(key, purse)
            if not purse.tokens:
                purse.charged_at = at
            purse.tokens += extra
            purse.had += extra
            purse.low = purse.tokens // 2
            purse.ends = ask.at + self._lease.ttl_s
            if self._ends_with_window:  # it ended no sooner, for the home looked after we asked
                purse.ends = min(purse.ends, ask.at + reset_s)
        verdict = self._answer(ask, grant, served, purse.tokens)
        if not served:
            verdict.retry_after_s = purse.retry_at - now
        return verdict

    def _answer(self, ask: Ask, grant: Grant, served: bool, tokens: int) -> Verdict:
        left = tokens + grant.remaining
        retry_s = 0.0 if served else grant.retry_after_s
        return Verdict(served, self._capacity, left, grant.reset_s, retry_s)

    def _new_purse(self, key: Hashable, now: float, asked_at: float) -> _Purse | None:
        if len(self._purses) >= self._lease.max_keys:
            return None
        purse = self._purses[key] = _Purse(now)
        purse.asked_at = asked_at
        self._queue.append((now + self._lease.ttl_s, key))
        return purse

    def fail(self, ask: Ask, now: float) -> Verdict:
        self.drop(ask, now)
        if not ask.least:
            return Verdict(False, self._capacity, 0, 0.0, 0.0)
        return self._decide_alone(ask.key, now, ask.cost)

    def drop(self, ask: Ask, now: float) -> None:
        key = ask.key
        purse = self._purses.get(key)
        if purse is not None:
            if ask.want > ask.least:
                purse.coming = 0
            self._return_held(ask, purse, now)
        self._owe(key, ask.owed)

    def _return_held(self, ask: Ask, purse: _Purse, now: float) -> None:
        held = ask.cost - ask.least
        if held and now < purse.ends:
            purse.tokens += held
        elif held:
            self._backs.append(Back(ask.key, held, purse.charged_at))

    def _give_up(self, key: Hashable, purse: _Purse) -> None:
        """Tokens past their time: back to the home, which knows whether they still count."""
        if purse.tokens:
            self._backs.append(Back(key, purse.tokens, purse.charged_at))
            purse.had -= purse.tokens
            purse.tokens = 0

    # ---- without a home

    def _decide_alone(self, key: Hashable, now: float, cost: int) -> Verdict:
        mode = self._lease.fail
        capacity = self._capacity
        if mode == "open":
            return Verdict(True, capacity, capacity, 0.0, 0.0)
        ttl_s = self._lease.ttl_s
        if mode == "closed":
            return Verdict(False, capacity, 0, ttl_s, ttl_s)
        verdict = self._local.hit(key, now, cost)
        if verdict.allowed:
            self._note_alone(key, cost)
        elif verdict.retry_after_s == inf:  # more than the share, not more than the limit
            verdict.retry_after_s = ttl_s
        return verdict

    def _local_rules(self) -> LimitRules:
        """A share of the limit, such that all shares together are the limit."""
        rules = self._rules
        holders = self._holders
        limit = rules.limit // holders
        period_s = rules.period_s
        if limit < 1:
            limit = 1
            period_s *= holders / rules.limit
        return LimitRules(
            limit=limit,
            period_s=period_s,
            algorithm=rules.algorithm,
            burst=None if rules.burst is None else max(1, rules.burst // holders),
            max_keys=min(rules.max_keys, self._lease.max_keys),
        )

    def away(self, now: float) -> None:
        if self.is_away:
            return
        self.is_away = True
        if now >= self._alone_until:
            self._alone_since = now
        self._alone_until = inf
        self._low.clear()
        self._local.take_rules(self._local_rules(), now)

    def back(self, now: float) -> None:
        """Report first; ask again when the others will have reported too."""
        if self.is_away:
            self.is_away = False
            wait_s = 0.0
            if self._lease.fail == "local":
                wait_s = self._lease.ttl_s / 2
                if self._was_here:
                    away_s = now - self._alone_since
                    wait_s = max(wait_s, min(away_s, self._lease.rejoin_s))
            self._alone_until = now + wait_s

    def _note_alone(self, key: Hashable, cost: int) -> None:
        if key in self._alone or len(self._alone) < self._lease.max_keys:
            self._alone[key] = self._alone.get(key, 0) + cost

    def _owe(self, key: Hashable, cost: int) -> None:
        """Note what the home does not know of; beyond `max_keys` keys it never will."""
        if cost > 0 and (key in self._debts or len(self._debts) < self._lease.max_keys):
            self._debts[key] = self._debts.get(key, 0) + cost

    def _owed(self, key: Hashable, now: float) -> int:
        """What the home does not know of yet; asking tells it."""
        owed = self._debts.pop(key, 0) if self._debts else 0
        if self._alone and (alone := self._alone.pop(key, 0)):
            # Of a long time alone only what still counts.
            verdict = self._local.peek(key, now, 0)
            owed += min(alone, verdict.limit - verdict.remaining)
        return owed

    # ---- afterwards

    def charge(self, key: Hashable, cost: int, now: float) -> None:
        if cost < 1:
            return
        purse = self._purses.get(key)
        if purse is not None and now < purse.ends:
            paid = min(cost, purse.tokens)
            purse.tokens -= paid
            cost -= paid
        if now < self._alone_until:
            if cost and self._lease.fail == "local":
                self._local.charge(key, cost, now)
                self._note_alone(key, cost)
        else:
            self._owe(key, cost)

    def refund(self, key: Hashable, cost: int, now: float, at: float | None = None) -> None:
        if cost < 1:
            return
        made = now if at is None else at
        if self._alone_since <= made < self._alone_until:
            self._local.refund(key, cost, now, at)
            if key in self._alone:
                self._alone[key] = max(0, self._alone[key] - cost)
            return
        purse = self._purses.get(key)
        kept = 0
        if purse is not None:
            purse.refused_until = -inf
            if now < purse.ends and made + self._offset_s >= purse.charged_at:
                kept = max(0, min(cost, self._largest - purse.tokens - purse.coming))
                purse.tokens += kept
                purse.had += kept
        if cost > kept:
            self._backs.append(Back(key, cost - kept, made + self._offset_s))

    def forgive(self, key: Hashable) -> None:
        purse = self._purses.get(key)
        if purse is not None:
            purse.refused_until = -inf
            purse.remaining = self._capacity
        self._debts.pop(key, None)
        self._alone.pop(key, None)
        self._local.clear(key)

    def wants(self, now: float, most: int = 1000) -> list[Ask]:
        asks: list[Ask] = []
        if self.is_away:
            self._local.sweep(now, most)
            return asks
        while self._low and len(asks) < most:
            key, _ = self._low.popitem()
            purse = self._purses.get(key)
            if purse is None or purse.coming or now < purse.refused_until:
                continue
            extra = self._ahead(purse, now, 0)
            if extra > 0:
                purse.coming = extra
                asks.append(Ask(key, extra, 0, self._owed(key, now), None, 0, now))
        for owing in (self._debts, self._alone):
            for _ in range(min(most, len(owing))):
                key = next(reversed(owing))
                if owed := self._owed(key, now):
                    asks.append(Ask(key, 0, 0, owed, None, 0, now))
        return asks

    def expired(self, now: float, most: int = 1000) -> list[Back]:
        queue = self._queue
        purses = self._purses
        ttl_s = self._lease.ttl_s
        for _ in range(min(most, len(queue))):
            if queue[0][0] > now:
                break
            _, key = queue.popleft()
            purse = purses[key]
            if now >= purse.ends:
                self._give_up(key, purse)
            if (
                purse.tokens
                or purse.coming
                or now < purse.refused_until
                or purse.asked_at > now - ttl_s
            ):
                queue.append((purse.ends if purse.ends > now else now + ttl_s / 4, key))
            else:
                del purses[key]
        backs, self._backs = self._backs, []
        return [] if self.is_away else backs

    def snapshot(self, now: float) -> LeasedSnapshot:
        return LeasedSnapshot(
            keys=len(self._purses),
            unspent=sum(purse.tokens for purse in self._purses.values()),
            largest=self._largest,
            holders=self._holders,
            is_away=self.is_away,
            fail=self._lease.fail,
        )

    def __len__(self) -> int:
        return len(self._purses)
