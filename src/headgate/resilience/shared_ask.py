"""A hit that waits for the shared ledger, and how it ends.

Theory of operation. Whatever happens to who waits (cancelled, a deadline, an exception), the
question goes its way: when the answer comes and nobody wants it any more, what it granted goes into
the lease, and the hit is undone. So a hit is taken if and only if its caller was told so.

    waiting --answer--> told
    waiting --caller gone--> void: never sent, or undone when the answer comes
    waiting --no answer in time--> decided alone; what comes later goes back to the ledger
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING

from headgate.policy.limiter.lease import Back, Grant
from headgate.policy.limiter.ruleset import Decision, Pending, RuleSet

if TYPE_CHECKING:
    from headgate.resilience.shared import Shared
    from headgate.resilience.shared_talk import LeasedRule
    from headgate.state.home import LimitAsk

__all__ = ["Asked"]


class Asked:
    """A hit that waits for the ledger. All but `answer` is touched with the lock held."""

    __slots__ = ("_home", "_rules", "_set", "answer", "asks", "is_decided", "pending")

    def __init__(
        self, home: Shared, rules: Sequence[LeasedRule], made: RuleSet, pending: Pending
    ) -> None:
        self._home = home
        self._rules = rules
        self._set = made
        self.pending = pending
        self.asks: Sequence[LimitAsk] = [rules[at].ask(ask) for at, ask in pending.asks]
        self.answer: Future[Decision] = Future()
        self.is_decided = False
        """Alone, for want of an answer in time."""

    @property
    def is_void(self) -> bool:
        return self.answer.cancelled()

    def told(self, grants: Sequence[Grant] | None, now: float) -> None:
        if self.is_decided:
            self._return(grants)
        elif self.answer.set_running_or_notify_cancel():
            self.answer.set_result(
                self._alone(now) if grants is None else self._set.settle(self.pending, grants, now)
            )
        else:
            self.undo(grants, now)

    def decide(self, now: float) -> Decision:
        """No answer, or nobody was asked: by the fail mode."""
        self.is_decided = True
        return self._alone(now)

    def _alone(self, now: float) -> Decision:
        pending = self.pending
        decision = self._set.settle(pending, [None] * len(self.asks), now)
        if decision.allowed and self._rules[0].lease.fail == "open":
            costs = list(pending.costs)
            for at, _ in pending.asks:
                if self._rules[at].rules.algorithm != "concurrency":
                    costs[at] = 0  # nothing was taken, so nothing can be given back
            decision.costs = costs
        return decision

    def undo(self, grants: Sequence[Grant] | None, now: float) -> None:
        """Nobody waits: what was granted is leased, what was taken for the hit goes back."""
        pending = self.pending
        for number, (at, ask) in enumerate(pending.asks):
            leased = self._rules[at].leased
            if grants is None:
                leased.drop(ask, now)
            else:
                pending.verdicts[at] = leased.take(ask, grants[number], now)
        for at, verdict in enumerate(pending.verdicts):
            if verdict is not None and verdict.allowed:
                key, cost = pending.keys[at], pending.costs[at]
                self._rules[at].leased.refund(key, cost, now, pending.at)

    def _return(self, grants: Sequence[Grant] | None) -> None:
        """The answer came after all, and was not waited for."""
        backs = [
            (asked.rule, Back(asked.ask.key, grant.granted, grant.at))
            for asked, grant in zip(self.asks, grants or (), strict=False)
            if grant.granted
        ]
        if backs:
            self._home.give_back(backs)
