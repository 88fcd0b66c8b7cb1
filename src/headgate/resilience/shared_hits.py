"""How a shared limit decides: from its lease, by asking, in turn, or alone. The inner half of
`SharedLimit`, whose docstring has the theory.

What an editor must not break: between `take` and its answer there is no `await` after the hit has
been decided, so that a cancellation finds it either undone or in its caller's hands.
"""

from __future__ import annotations

import asyncio
import threading
import time
from asyncio import events
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final, cast

from headgate.policy.limiter.lease import Ask, Back, LeaseRules
from headgate.policy.limiter.rules import LimitRules, Verdict
from headgate.policy.limiter.ruleset import Decision, Pending, Rule, RuleSet
from headgate.resilience.calls import Errors
from headgate.resilience.errors import DeadlineExceeded, RateLimited
from headgate.resilience.hop import remaining
from headgate.resilience.keys import Key
from headgate.resilience.limit import Cost
from headgate.resilience.line import Lines
from headgate.resilience.settings import Duration, Event, OnEvent, seconds
from headgate.resilience.shared_ask import Asked
from headgate.resilience.shared_keys import By, plain_text, text_by
from headgate.units import MAX_DURATION_S

if TYPE_CHECKING:
    from headgate.resilience.shared import Shared

__all__ = ["SharedHits", "let_through", "verdict_of"]

_GRACE_S: Final = 0.05
_KEYS_AN_ASK: Final = 4
_SOON_S: Final = 0.001  # a refusal that is over by now is still one


class SharedHits:
    def __init__(
        self,
        name: str,
        home: Shared,
        *rules: LimitRules,
        ids: Sequence[str],
        lease: LeaseRules,
        by: By | None = None,
        key: Key = None,
        cost: Cost = 1,
        wait_s: float | None = None,
        shadow: bool = False,
        refund_on: Errors = (),
        on_event: OnEvent | None = None,
    ) -> None:
        if not rules:
            raise ValueError(f'limit {name}: no rate is given; write limit("10/s")')
        self._seats = any(one.algorithm == "concurrency" for one in rules)
        if self._seats and len(rules) > 1:
            raise ValueError(f"limit {name}: concurrency stands alone; use two limits")
        if self._seats and refund_on:
            raise ValueError(f"limit {name}: seats come back always; refund_on is for rates")
        try:
            self._text = plain_text if by is None else text_by(by)
            self._leased = tuple(
                home.leased(rule, one, lease) for rule, one in zip(ids, rules, strict=True)
            )
        except ValueError as error:
            raise ValueError(f"limit {name}: {error}") from None
        self.name = name
        self.home = home
        self.rules = rules
        self.on_event = on_event
        self._is_by = by is not None
        self._set = RuleSet([Rule(one.id, one.leased) for one in self._leased])
        self._first = self._leased[0].leased.hit if len(rules) == 1 else self._hit_all
        self._key = key
        self._cost = cost
        self._wait_s = wait_s
        self._shadow = shadow
        self._refund_on = refund_on
        self._bound_s = 2 * home.deadline_s + _GRACE_S
        self._lock = home.lock
        self._clock = home.clock
        self._lines = Lines(self._too_many)
        self._refused_total = 0
        self._shadowed_total = 0

    def peek(self, key: Hashable = "", cost: int = 1) -> Verdict:
        """What this process knows; a key that it has not hit lately looks full."""
        text = self._text(key)
        now = self._clock()
        with self._lock:
            verdicts = [one.leased.peek(text, now, cost) for one in self._leased]
        return min(verdicts, key=lambda one: (one.allowed, one.remaining, -one.retry_after_s))

    # ---- taking

    async def take(self, key: Hashable, cost: int) -> Decision:
        """Take it, in turn if this limit waits, or raise RateLimited; ends in `end`."""
        if self._wait_s is not None:
            return await self._take_in_turn(key, cost, None)
        return self._passed(await self._try(key, cost))

    def take_blocking(self, key: Hashable, cost: int) -> Decision:
        if self._wait_s is not None:
            return self._take_in_turn_blocking(key, cost, None)
        return self._passed(self._try_blocking(key, cost))

    # ---- asking

    def _start(self, key: Hashable, cost: int) -> Verdict | Asked | Decision:
        """From the lease; else ask, or decide without the ledger."""
        text = self._text(key)
        now = self._clock()
        with self._lock:
            got = self._first(text, now, cost)
            return got if isinstance(got, Verdict) else self._ask(got, text, now, cost)

    async def _settled(self, got: Verdict | Asked | Decision) -> Verdict:
        if isinstance(got, Asked):
            got = await self._answer(got)
        return verdict_of(got) if isinstance(got, Decision) else got

    async def _settled_or_refused(self, got: Verdict | Asked | Decision) -> Verdict:
        verdict = await self._settled(got)
        if verdict.allowed:
            return verdict
        if self._shadow:
            return self._shadowed(verdict)
        raise self._refused(verdict)

    def _hit_all(self, key: str, now: float, cost: int) -> Verdict | Pending:
        count = len(self._leased)
        got = self._set.hit([key] * count, now, [cost] * count)
        return got if isinstance(got, Pending) else cast("Verdict", got.verdict)

    def _ask(self, got: Ask | Pending, key: str, now: float, cost: int) -> Asked | Decision:
        """With the lock held: bring it to the ledger, or decide without."""
        pending = got
        if isinstance(pending, Ask):
            pending = Pending([(0, pending)], [None], [key], [cost], now)
        asked = Asked(self.home, self._leased, self._set, pending)
        backs: list[tuple[str, Back]] = []
        if not self._seats:  # what was refunded is there before it is asked for again
            for one in self._leased:
                backs += [(one.id, back) for back in one.leased.expired(now, _KEYS_AN_ASK)]
        try:
            if not isinstance(cost, int):  # Redis would refuse it, and count as away
                raise TypeError(f"limit {self.name}: cost={cost!r} is no whole number")
            is_said = self.home.say(asked, backs)
        except BaseException:
            asked.undo(None, now)
            raise
        if is_said:
            return asked
        if self.home.is_away:
            for one in self._leased:
                one.leased.away(now)
        return asked.decide(now)

    def _begin(self, key: Hashable, cost: int) -> Asked | Decision:
        text = self._text(key)
        now = self._clock()
        count = len(self._leased)
        with self._lock:
            got = self._set.hit([text] * count, now, [cost] * count)
            return self._ask(got, text, now, cost) if isinstance(got, Pending) else got

    async def _try(self, key: Hashable, cost: int) -> Decision:
        got = self._begin(key, cost)
        return await self._answer(got) if isinstance(got, Asked) else got

    def _try_blocking(self, key: Hashable, cost: int) -> Decision:
        if events._get_running_loop() is not None:  # noqa: SLF001  the other raises, which is dear
            raise RuntimeError(
                f"limit {self.name}: plain code must not wait for the shared ledger in the thread "
                "of an event loop; make the function async and await hit(), or call it by "
                "asyncio.to_thread()"
            )
        got = self._begin(key, cost)
        return self._answer_blocking(got) if isinstance(got, Asked) else got

    async def _answer(self, asked: Asked) -> Decision:
        wait_s = remaining(self._bound_s)
        try:
            async with asyncio.timeout(wait_s):
                return await asyncio.wrap_future(asked.answer)
        except TimeoutError:
            return self._late(asked, by_deadline=wait_s < self._bound_s)
        except BaseException:
            self._withdraw(asked)
            raise

    def _answer_blocking(self, asked: Asked) -> Decision:
        wait_s = remaining(self._bound_s)
        try:
            return asked.answer.result(wait_s)
        except TimeoutError:
            return self._late(asked, by_deadline=wait_s < self._bound_s)
        except BaseException:  # a signal
            self._withdraw(asked)
            raise

    def _late(self, asked: Asked, *, by_deadline: bool) -> Decision:
        with self._lock:
            if not asked.answer.cancel():
                return asked.answer.result()  # it came at the last moment
            if not by_deadline:
                return asked.decide(self._clock())
        raise DeadlineExceeded

    def _withdraw(self, asked: Asked) -> None:
        """Nobody waits any more."""
        with self._lock:
            if not asked.answer.cancel():
                decision = asked.answer.result()
                if decision.allowed:
                    now = self._clock()
                    self._set.leave(decision, now)
                    self._set.refund(decision, now)

    # ---- in turn

    async def _take_in_turn(self, key: Hashable, cost: int, most: Duration | None) -> Decision:
        place = (asyncio.get_running_loop(), self._text(key))
        line = self._lines.find(place)
        if line is None:
            taken = await self._try(key, cost)
            if taken.allowed or self._shadow:
                return self._passed(taken)
            line = self._lines.join(place, asyncio.Lock)
        over_at = self._over_at(most)
        try:
            try:
                async with asyncio.timeout(over_at - self._clock()):
                    await line.turn.acquire()
            except TimeoutError:
                raise self._refused(self.peek(key, cost)) from None
            try:
                while True:
                    taken = await self._try(key, cost)
                    if taken.allowed or self._shadow:
                        return self._passed(taken)
                    await asyncio.sleep(self._pause(verdict_of(taken), over_at))
            finally:
                line.turn.release()
        finally:
            self._lines.leave(place, line)

    def _take_in_turn_blocking(self, key: Hashable, cost: int, most: Duration | None) -> Decision:
        place = (None, self._text(key))
        line = self._lines.find(place)
        if line is None:
            taken = self._try_blocking(key, cost)
            if taken.allowed or self._shadow:
                return self._passed(taken)
            line = self._lines.join(place, threading.Lock)
        over_at = self._over_at(most)
        try:
            if not line.turn.acquire(timeout=max(0.0, over_at - self._clock())):
                raise self._refused(self.peek(key, cost))
            try:
                while True:
                    taken = self._try_blocking(key, cost)
                    if taken.allowed or self._shadow:
                        return self._passed(taken)
                    time.sleep(self._pause(verdict_of(taken), over_at))
            finally:
                line.turn.release()
        finally:
            self._lines.leave(place, line)

    def _over_at(self, most: Duration | None) -> float:
        most_s = seconds("most", most)
        if most_s is None:
            most_s = MAX_DURATION_S if self._wait_s is None else self._wait_s
        return self._clock() + remaining(most_s)

    def _pause(self, verdict: Verdict, over_at: float) -> float:
        """How long to sleep, if that is worth it."""
        if self._seats:
            raise ValueError(
                f"limit {self.name}: nobody knows when a seat comes free; wait in a bulkhead"
            )
        pause_s = max(verdict.retry_after_s, _SOON_S)
        if self._clock() + pause_s > over_at:
            raise self._refused(verdict)
        return pause_s

    # ---- refusing

    def _passed(self, decision: Decision) -> Decision:
        if not decision.allowed:
            verdict = verdict_of(decision)
            if not self._shadow:
                raise self._refused(verdict)
            self._shadowed(verdict)
        return decision

    def _shadowed(self, verdict: Verdict) -> Verdict:
        self._shadowed_total += 1
        shown = let_through(verdict)
        if self.on_event is not None:
            after_s = shown.retry_after_s
            self.on_event(Event("limit", self.name, "shadowed", "limit reached", after_s))
        return shown

    def _refused(self, verdict: Verdict) -> RateLimited:
        self._refused_total += 1
        after_s = verdict.retry_after_s
        if self.on_event is not None:
            self.on_event(Event("limit", self.name, "rejected", "limit reached", after_s))
        return RateLimited(self.name, "limit reached", after_s)

    def _too_many(self) -> RateLimited:
        self._refused_total += 1
        return RateLimited(self.name, "too many wait", 0.0)


def verdict_of(decision: Decision) -> Verdict:
    return cast("Verdict", decision.verdict)  # every rule applies, so one of them decided


def let_through(verdict: Verdict) -> Verdict:
    return replace(verdict, allowed=True, retry_after_s=max(verdict.retry_after_s, _SOON_S))
