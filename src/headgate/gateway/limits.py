"""Rate limits in the gateway: from a request to a verdict, and back when it is over.

Theory of operation
-------------------
`LimitState` outlives plans, one for each limit and tier of the file. With one worker, or when the
limit says `share: worker`, it is a limiter of our own. Otherwise it is a lease on the shared home:
most hits are answered at once from what has been leased; when that is spent, the request waits for
the home, together with all its other rules, in one question. `turn` asks ahead, gives back what was
not used, and sweeps.

Of several rules every one must agree; what earlier rules have charged is given back when a later
one refuses. A refused request costs nothing. Costs that are only known at the end (a response
header, a refund for outcomes that should not count, a seat) are settled there, once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Final

from headgate.gateway.keys import compile_keys
from headgate.gateway.steps import STOP, Answer, Flow
from headgate.policy.limiter import LIMITERS, Verdict, leased_of
from headgate.policy.limiter.headers import LimitHeaders
from headgate.policy.limiter.lease import Ask, Leased, LeaseRules
from headgate.state.home import HomeAway, LimitAsk
from headgate.wire.message import find

if TYPE_CHECKING:
    from headgate.gateway.policed import PolicedExchange
    from headgate.plan.traffic import LimitPlan
    from headgate.policy.limiter import Limiter, LimitRules
    from headgate.policy.limiter.lease import Back
    from headgate.state.home import LimitHome

log: Final = logging.getLogger("headgate.gateway")

_COST_DIGITS: Final = 9


class LimitState:
    """One limit's buckets, in this worker or as leases on the shared home."""

    def __init__(
        self, name: str, rules: LimitRules, lease: LeaseRules, home: LimitHome | None, now: float
    ) -> None:
        self.id = name
        self.rules = rules
        self.lease = lease
        self.home = home
        self.allowed = 0
        self.refused = 0
        self.shadowed = 0
        self._own: Limiter | None = None
        self.leased: Leased | None = None
        if home is None:
            self._own = LIMITERS[rules.algorithm](rules)
            self.hit: Callable[[str, float, int], Verdict | Ask] = self._own.hit
        else:
            self.leased = leased_of(rules, lease, holders=max(home.holders, 1))
            self.hit = self.leased.hit

    def take_rules(self, rules: LimitRules, lease: LeaseRules, now: float) -> None:
        self.rules = rules
        self.lease = lease
        if self._own is not None:
            self._own.take_rules(rules, now)
        elif self.leased is not None:
            self.leased.take_rules(rules, lease, now)

    def refund(self, key: str, cost: int, now: float, at: float) -> None:
        (self._own or self.leased).refund(key, cost, now, at)  # type: ignore[union-attr]  # one is

    def refund_at_once(self, key: str, cost: int, now: float, at: float) -> None:
        """As `refund`, and the home hears of it now: the next hit may need just this."""
        self.refund(key, cost, now, at)
        if self.leased is not None and self.home is not None:
            backs = self.leased.expired(now, 0)
            if backs:
                self.home.give_back([(self.id, back) for back in backs])

    def charge(self, key: str, cost: int, now: float) -> None:
        (self._own or self.leased).charge(key, cost, now)  # type: ignore[union-attr]  # one is

    def sweep(self, now: float) -> None:
        if self._own is not None:
            self._own.sweep(now)

    def take_holders(self) -> None:
        if self.leased is not None and self.home is not None:
            self.leased.holders = max(self.home.holders, 1)

    def forget(self, key: str) -> None:
        """The key has used nothing: an operator says so. Where the limit is shared, its home has
        been told already.
        """
        if self._own is not None:
            self._own.clear(key)
        elif self.leased is not None:
            self.leased.forgive(key)

    def top(self, now: float, most: int) -> list[tuple[str, float]]:
        """The keys that have used most here; none where the limit is shared."""
        return [(str(key), used) for key, used in self._own.top(now, most)] if self._own else []

    def peek(self, key: str, now: float) -> Verdict | None:
        return self._own.peek(key, now) if self._own is not None else None

    def keys(self) -> int:
        return len(self._own or self.leased or ())


class LimitRule:
    """One limit on one route: whose bucket, what it costs, what the client is told."""

    __slots__ = (
        "_headers",
        "_settles",
        "_tiers",
        "is_simple",
        "key_of",
        "lines_of",
        "plan",
        "state",
    )

    def __init__(self, plan: LimitPlan, state: LimitState, tiers: Mapping[str, LimitState]) -> None:
        self.plan = plan
        self.state = state
        self._tiers = tiers
        self.key_of = compile_keys(plan.keys, plan.ipv6_prefix)
        self._headers = {
            made.id: LimitHeaders(plan.name, made.rules, plan.headers)
            for made in (state, *tiers.values())
            if plan.headers != "off"
        }
        self._settles = bool(
            plan.refund or plan.cost_header is not None or plan.rules.algorithm == "concurrency"
        )
        self.is_simple = not (tiers or plan.shadow or self._settles)
        own = self._headers.get(state.id)
        self.lines_of = own.lines if own is not None else None

    def state_for(self, ex: PolicedExchange) -> LimitState:
        if self._tiers:
            who = ex.identity
            if who is not None:
                return self._tiers.get(who.tier, self.state)
        return self.state

    def charged(self, ex: PolicedExchange, state: LimitState, key: str, at: float) -> None:
        """The hit stands; whether it stays so may depend on what becomes of the request."""
        state.allowed += 1
        if self._settles:
            tell = partial(self._settle, state=state, key=key, at=at)
            ex.spent = (*ex.spent, tell)

    def lines(self, state: LimitState, verdict: Verdict) -> bytes | None:
        headers = self._headers.get(state.id)
        return headers.lines(verdict) if headers is not None else None

    def _settle(self, ex: PolicedExchange, *, state: LimitState, key: str, at: float) -> None:
        plan = self.plan
        now = monotonic()
        if plan.rules.algorithm == "concurrency":
            state.refund(key, plan.cost, now, at)
            return
        if ex.status in plan.refund:
            state.refund_at_once(key, plan.cost, now, at)
            return
        if plan.cost_header is not None:
            said = find(ex.told, plan.cost_header)
            if said is not None and said.isdigit() and len(said) <= _COST_DIGITS:
                cost = int(said) - plan.cost
                if cost > 0:
                    state.charge(key, cost, now)
                elif cost < 0:
                    state.refund_at_once(key, -cost, now, at)


Taken = tuple[LimitRule, LimitState, str]


class Limiting:
    """The step: all limits of a route, decided together."""

    def __init__(self, rules: Sequence[LimitRule]) -> None:
        self._rules = tuple(rules)

    @property
    def quickest(self) -> Callable[[PolicedExchange], Answer]:
        """The step, in the shortest form that these rules allow."""
        if len(self._rules) == 1 and self._rules[0].is_simple:
            return self._alone
        return self.step

    def _alone(self, ex: PolicedExchange) -> Answer:
        """One limit that has neither tiers nor anything to settle: what most routes have."""
        rule = self._rules[0]
        state = rule.state
        key = rule.key_of(ex)
        now = monotonic()
        got = state.hit(key, now, rule.plan.cost)
        if got.__class__ is not Verdict:
            return self._ask(ex, 0, (rule, state, key, got), now, ())  # type: ignore[arg-type]  # an Ask
        if not got.allowed:
            return self._refuse(ex, (), (rule, state, key), got, now)
        state.allowed += 1
        if rule.lines_of is not None:
            ex.extra += rule.lines_of(got)
        return None

    def step(self, ex: PolicedExchange) -> Answer:
        now = monotonic()
        tightest: Verdict | None = None
        told: Taken | None = None
        charged: list[Taken] = []
        for at, rule in enumerate(self._rules):
            state = rule.state_for(ex)
            key = rule.key_of(ex)
            got = state.hit(key, now, rule.plan.cost)
            if isinstance(got, Ask):
                return self._ask(ex, at, (rule, state, key, got), now, charged)
            verdict = got
            if not verdict.allowed:
                if rule.plan.shadow:
                    state.shadowed += 1
                    continue
                return self._refuse(ex, charged, (rule, state, key), verdict, now)
            if not rule.plan.shadow and (
                tightest is None or verdict.remaining < tightest.remaining
            ):
                tightest, told = verdict, (rule, state, key)
            rule.charged(ex, state, key, now)
            charged.append((rule, state, key))
        if tightest is not None and told is not None:
            lines = told[0].lines(told[1], tightest)
            if lines is not None:
                ex.add_line(lines)
        return None

    def _refuse(
        self,
        ex: PolicedExchange,
        charged: Sequence[Taken],
        by: Taken,
        verdict: Verdict,
        now: float,
    ) -> Flow:
        rule, state, _ = by
        state.refused += 1
        _give_back(ex, charged, now)
        ex.error = "rate_limited"
        lines = rule.lines(state, verdict)
        if lines is not None:
            ex.add_line(lines)
        ex.refuse(
            rule.plan.status,
            f"the rate limit {rule.plan.name} is used up",
            retry_after_s=verdict.retry_after_s if verdict.retry_after_s != inf else None,
        )
        return STOP

    async def _ask(
        self,
        ex: PolicedExchange,
        first: int,
        ask: tuple[LimitRule, LimitState, str, Ask],
        began: float,
        charged: Sequence[Taken],
    ) -> Flow | None:
        """Ask the shared home for the rules from `first` on, all in one question."""
        asked = [ask]
        verdicts: list[tuple[LimitRule, LimitState, str, Verdict]] = []
        for rule in self._rules[first + 1 :]:
            state = rule.state_for(ex)
            key = rule.key_of(ex)
            got = state.hit(key, began, rule.plan.cost)
            if isinstance(got, Ask):
                asked.append((rule, state, key, got))
            else:
                verdicts.append((rule, state, key, got))
        home = next(state.home for _, state, _, _ in asked if state.home is not None)
        try:
            grants = await home.take(
                [LimitAsk(state.id, state.rules, sent) for _, state, _, sent in asked]
            )
        except BaseException as error:
            now = monotonic()
            is_away = isinstance(error, HomeAway)
            for rule, state, key, sent in asked:
                if state.leased is None:
                    continue
                if is_away:
                    verdicts.append((rule, state, key, state.leased.fail(sent, now)))
                else:
                    state.leased.drop(sent, now)  # nothing was charged, nothing is given back
            if not is_away:
                _undo(verdicts, now, began)
                raise
        else:
            now = monotonic()
            for (rule, state, key, sent), grant in zip(asked, grants, strict=True):
                if state.leased is not None:
                    verdicts.append((rule, state, key, state.leased.take(sent, grant, now)))
        if ex.finished:
            # The client has left meanwhile; what was charged for it is not lost.
            _undo(verdicts, now, began)
            return STOP
        return self._decide(ex, charged, verdicts, began, now)

    def _decide(
        self,
        ex: PolicedExchange,
        charged: Sequence[Taken],
        verdicts: Sequence[tuple[LimitRule, LimitState, str, Verdict]],
        began: float,
        now: float,
    ) -> Flow | None:
        refused = None
        for rule, state, key, verdict in verdicts:
            if not verdict.allowed and rule.plan.shadow:
                state.shadowed += 1
            elif not verdict.allowed and refused is None:
                refused = ((rule, state, key), verdict)
        if refused is not None:
            _undo(verdicts, now, began)
            return self._refuse(ex, charged, *refused, now)
        tightest: Verdict | None = None
        told: Taken | None = None
        for rule, state, key, verdict in verdicts:
            if not verdict.allowed:
                continue
            rule.charged(ex, state, key, began)
            if not rule.plan.shadow and (
                tightest is None or verdict.remaining < tightest.remaining
            ):
                tightest, told = verdict, (rule, state, key)
        if tightest is not None and told is not None:
            lines = told[0].lines(told[1], tightest)
            if lines is not None:
                ex.add_line(lines)
        return None


def _give_back(ex: PolicedExchange, charged: Sequence[Taken], now: float) -> None:
    """Undo what the first rules have charged: a refused request costs nothing."""
    ex.spent = ()
    for rule, state, key in charged:
        state.allowed -= 1
        state.refund(key, rule.plan.cost, now, now)


def _undo(
    verdicts: Sequence[tuple[LimitRule, LimitState, str, Verdict]], now: float, began: float
) -> None:
    for rule, state, key, verdict in verdicts:
        if verdict.allowed:
            state.refund(key, rule.plan.cost, now, began)


async def turn(states: Sequence[LimitState], home: LimitHome, now: float) -> None:
    """Between requests: lease ahead of need, and give back what was not spent."""
    asks: list[tuple[LimitState, Ask]] = []
    backs: list[tuple[str, Back]] = []
    for state in states:
        leased = state.leased
        if leased is None:
            continue
        state.take_holders()  # first, because a share is made by how many they are
        if home.is_away != leased.is_away:
            if home.is_away:
                leased.away(now)
            else:
                leased.back(now)
        backs.extend((state.id, back) for back in leased.expired(now))
        asks.extend((state, ask) for ask in leased.wants(now))
    if backs:
        home.give_back(backs)
    if not asks:
        return
    try:
        grants = await home.take([LimitAsk(state.id, state.rules, ask) for state, ask in asks])
    except BaseException as error:
        now = monotonic()
        for state, ask in asks:
            if state.leased is not None:
                state.leased.fail(ask, now)
        if not isinstance(error, Exception):
            raise
        if not isinstance(error, HomeAway):
            log.exception("the home of shared limits failed")
        return
    now = monotonic()
    for (state, ask), grant in zip(asks, grants, strict=True):
        if state.leased is not None:
            state.leased.take(ask, grant, now)
