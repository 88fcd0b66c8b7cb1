"""An exchange that may ask a second instance beside the first, when the first is slow.

Theory of operation. A `Hedge` is a request of its own (`side`). Whichever answers first is the
attempt, the others are called off; when the first comes to nothing, one that is under way takes
its place before anything is tried anew. Each costs the retry budget what a retry costs.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

from headgate.gateway.attempts import AttemptedExchange
from headgate.gateway.side import Hedge

if TYPE_CHECKING:
    from headgate.gateway.service import ServiceRuntime


class RacedExchange(AttemptedExchange):
    # No slots, as in what it derives from.

    sides = 0
    """Hedges that were begun."""

    def _plan_hedge(self, service: ServiceRuntime, now: float) -> None:
        delay = self.traffic.hedge_delays.get(service.name)
        if (
            delay is None
            or self.finished
            or self._is_judged
            or self.forward is None
            or self.forward.upgrade is not None  # a tunnel is no question with an answer
            or not self._has_whole_request()
            or self.prep.head.method not in self.traffic.hedged_methods
            or not self._can_repeat()
        ):
            return
        after_s = delay.delay_s(now)
        if after_s is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(after_s, self._start_hedge)

    def _start_hedge(self) -> None:
        self._timer = None
        service, member, traffic = self.service, self.member, self.traffic
        if self.finished or self._is_judged or service is None or member is None:
            return
        now = monotonic()
        if traffic.budget is not None and not traffic.budget.try_take(now):
            traffic.stats.budget_spent += 1
            return
        body = b"".join(self._replay or ())
        asked = [hedge.member for hedge in self._hedges if hedge.member is not None]
        self.sides += 1
        hedge = Hedge.begin(self, service, (member, *asked), body, now)
        if hedge is None:
            if traffic.budget is not None:
                traffic.budget.put_back(now)
            return
        self._hedges = [*self._hedges, hedge]
        traffic.stats.hedges += 1
        if len(self._hedges) < traffic.hedges:
            self._plan_hedge(service, now)

    def _promote_hedge(self) -> bool:
        """The first attempt is over: go on with one that is under way beside it."""
        while self._hedges:
            hedge = self._hedges[0]
            self.lose(hedge)
            if hedge.promote():
                return True
        return False

    def _call_off_hedges(self) -> None:
        hedges, self._hedges = self._hedges, ()
        for hedge in hedges:
            hedge.cancel()

    def lose(self, hedge: Hedge) -> None:
        """A further attempt came to nothing; the first goes on."""
        self._hedges = [other for other in self._hedges if other is not hedge]

    def take_over(self, hedge: Hedge) -> None:
        """The second attempt answers first, or is the only one left: it is the attempt now."""
        now = monotonic()
        service = self.service
        if not self._is_judged and service is not None:
            # It would have taken longer still; left out, the slow ones would be missing.
            service.state.took(now - self._attempt_at, now)
        if not self._is_judged:
            self.note_attempt(now, None)
        self._settle(None, now)
        self._let_go()
        self.down.resume()  # all of the request is here; the first may have asked to wait
        self._leave_member(now, failed=False)
        self.lose(hedge)
        self._call_off_hedges()
        self.up = hedge
        self.line = hedge.line
        self.instance = hedge.instance
        self.member = hedge.member
        self._attempt_at = hedge.begun_at
        self.taken_over = hedge.number
        self._is_judged = False
        self._breaker, self._permit = hedge.breaker, hedge.permit
        self._time_try(now)
        self.traffic.stats.hedges_won += 1
