"""Several limits decided at once, all or nothing.

Theory of operation. A hit is taken from one limit after the other. When one refuses, those before
it get back what they gave (a refund at the same time undoes a hit exactly), those after it are only
looked at, and nobody is charged. The decision is told by its tightest limit: of those that refuse
the one that refuses longest, else the one with the least remaining.

A rule with `shadow` counts like the others and never refuses; what it would have refused is named
in the decision. A key of None says that the rule does not apply (no user is known).

Leased limits may have to ask. Then `hit` returns `Pending`: what could be taken at once is held,
the asks wait to be sent, together. `settle` takes the answers and decides; every `Pending` ends
there, once. An ask that got no answer is settled with None and decided by its fail mode.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import inf

from headgate.policy.limiter.lease import Ask, Grant, Leased
from headgate.policy.limiter.rules import Limiter, Verdict


@dataclass(frozen=True, slots=True)
class Rule:
    """One limit of a set."""

    name: str
    limiter: Limiter | Leased
    cost: int = 1
    shadow: bool = False


@dataclass(slots=True)
class Decision:
    """The answer of a set."""

    allowed: bool
    verdicts: list[Verdict | None]
    """By rule; None where the rule did not apply."""
    tightest: int
    """Which rule decided, or is nearest to refusing; -1 if none applied."""
    keys: Sequence[Hashable | None]
    costs: Sequence[int]
    at: float
    shadowed: tuple[int, ...] = ()
    """Rules that would have refused, had they not been shadows."""

    @property
    def verdict(self) -> Verdict | None:
        return None if self.tightest < 0 else self.verdicts[self.tightest]


@dataclass(slots=True)
class Pending:
    """Some limits must ask their homes."""

    asks: list[tuple[int, Ask]]
    """By rule."""
    verdicts: list[Verdict | None]
    keys: Sequence[Hashable | None]
    costs: Sequence[int]
    at: float


class RuleSet:
    """Limits that hold together."""

    __slots__ = ("_costs", "_hits", "_rules", "_seats", "_shadows")

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = tuple(rules)
        self._costs = tuple(rule.cost for rule in rules)
        self._hits = tuple((rule.limiter.hit, rule.shadow) for rule in rules)
        self._shadows = frozenset(at for at, rule in enumerate(rules) if rule.shadow)
        self._seats = frozenset(
            at for at, rule in enumerate(rules) if rule.limiter.rules.algorithm == "concurrency"
        )

    @property
    def rules(self) -> tuple[Rule, ...]:
        return self._rules

    def hit(
        self,
        keys: Sequence[Hashable | None],
        now: float,
        costs: Sequence[int] | None = None,
    ) -> Decision | Pending:
        """Take from every limit, or from none; keys and costs are by rule."""
        if costs is None:
            costs = self._costs
        if len(keys) != len(self._hits) or len(costs) != len(keys):
            raise ValueError(f"{len(self._hits)} rules need as many keys and costs")
        verdicts: list[Verdict | None] = []
        asks: list[tuple[int, Ask]] = []
        at = -1
        for take, shadow in self._hits:
            at += 1  # enumerate() makes a tuple each time
            key = keys[at]
            if key is None:
                verdicts.append(None)
                continue
            got = take(key, now, costs[at])
            if isinstance(got, Ask):
                asks.append((at, got))
                verdicts.append(None)
                continue
            verdicts.append(got)
            if not (got.allowed or shadow):
                return self._refuse(verdicts, asks, keys, costs, now)
        if asks:
            return Pending(asks, verdicts, keys, costs, now)
        return self._decide(verdicts, keys, costs, now)

    def _refuse(
        self,
        verdicts: list[Verdict | None],
        asks: list[tuple[int, Ask]],
        keys: Sequence[Hashable | None],
        costs: Sequence[int],
        now: float,
    ) -> Decision:
        """The last of the verdicts refuses: undo the others, look at the rest."""
        self._undo(verdicts, keys, costs, now, now)
        for at, ask in asks:
            leased = self._rules[at].limiter
            if isinstance(leased, Leased):
                leased.drop(ask, now)
                verdicts[at] = leased.peek(ask.key, now, ask.cost)
        for at in range(len(verdicts), len(self._rules)):
            key = keys[at]
            limiter = self._rules[at].limiter
            verdicts.append(None if key is None else limiter.peek(key, now, costs[at]))
        return self._decide(verdicts, keys, costs, now)

    def settle(self, pending: Pending, grants: Sequence[Grant | None], now: float) -> Decision:
        """Decide with the homes' answers, in the order of the asks; None where none came."""
        verdicts, keys, costs = pending.verdicts, pending.keys, pending.costs
        for (at, ask), grant in zip(pending.asks, grants, strict=True):
            leased = self._rules[at].limiter
            if isinstance(leased, Leased):
                verdicts[at] = (
                    leased.fail(ask, now) if grant is None else leased.take(ask, grant, now)
                )
        decision = self._decide(verdicts, keys, costs, pending.at)
        if not decision.allowed:
            self._undo(verdicts, keys, costs, pending.at, now)
        return decision

    def leave(self, decision: Decision, now: float) -> None:
        """Give back the seats of an allowed hit, when what it let in is over."""
        for at in self._seats:
            self._give_back(decision, at, now)

    def refund(self, decision: Decision, now: float) -> None:
        """Undo an allowed hit, but for its seats."""
        for at in range(len(self._rules)):
            if at not in self._seats:
                self._give_back(decision, at, now)

    def charge(self, decision: Decision, cost: int, now: float) -> None:
        """Take `cost` more from all limits of an allowed hit, but for its seats."""
        for at, (rule, key) in enumerate(zip(self._rules, decision.keys, strict=True)):
            if key is not None and at not in self._seats:
                rule.limiter.charge(key, cost, now)

    def _undo(
        self,
        verdicts: list[Verdict | None],
        keys: Sequence[Hashable | None],
        costs: Sequence[int],
        taken_at: float,
        now: float,
    ) -> None:
        """Nobody is charged, and the verdicts say how things stand."""
        for at, verdict in enumerate(verdicts):
            key = keys[at]
            if verdict is not None and verdict.allowed and key is not None:
                limiter = self._rules[at].limiter
                limiter.refund(key, costs[at], now, taken_at)
                verdicts[at] = limiter.peek(key, now, costs[at])

    def _give_back(self, decision: Decision, at: int, now: float) -> None:
        verdict = decision.verdicts[at]
        key = decision.keys[at]
        if verdict is not None and verdict.allowed and key is not None:
            self._rules[at].limiter.refund(key, decision.costs[at], now, decision.at)

    def _decide(
        self,
        verdicts: list[Verdict | None],
        keys: Sequence[Hashable | None],
        costs: Sequence[int],
        at: float,
    ) -> Decision:
        tightest = -1
        allowed = True
        measure = inf
        shadows = self._shadows
        shadowed: tuple[int, ...] = ()
        number = -1
        for verdict in verdicts:
            number += 1  # enumerate() makes a tuple each time
            if verdict is None:
                continue
            if shadows and number in shadows:
                if not verdict.allowed:
                    shadowed += (number,)
            elif not verdict.allowed:
                if allowed or verdict.retry_after_s > measure:
                    allowed, tightest, measure = False, number, verdict.retry_after_s
            elif allowed and verdict.remaining < measure:
                tightest, measure = number, verdict.remaining
        return Decision(allowed, verdicts, tightest, keys, costs, at, shadowed)
