"""The instances of one service as those see them who send requests there.

Theory of operation
-------------------
`Serving` brings together what each policy knows of its own: the balancer's group, breakers of the
service or of its instances, outlier ejection, the latencies that hedging goes by. It outlives
plans: `take` brings it in line with a newer one, whether the file was read again or only instances
have come and gone, and touches only what differs. What stays keeps all that is known of it. There
may be no instance at all, at the start or later; then nothing is picked.

Whether an instance may serve is asked of several sources, kept apart so that one may change its
mind without the others.

- As guesses, which panic may overrule (`tiers`): active health checks (`down`), ejection for its
  answers (`ejected`, our own and peers'), and `put_out`, an operator's word that it is to count as
  ejected. The group sees their sum.
- As facts: what an operator has taken out of work (`drained`), what was not checked yet where that
  is asked for (`unchecked`), and what is `leaving`: it said itself that it is about to go, and ends
  what it has begun. A leaving instance is asked all the same while nobody else is in work, because
  an answer from it is better than none.

An operator's weight stands in place of the plan's until it is taken back, or until the plan itself
says another one.

`pick` answers with a member, with `Rejected` when breakers are open, or None when nothing can
serve. A permit that was taken goes to the asker at once, so that there is nothing to give back
here.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final, Protocol

from headgate.policy.answers import Rejected
from headgate.policy.balancer import BalanceRules, Group, Member, MemberSpec
from headgate.policy.breaker import Breaker, BreakerRules, Permit, Transition
from headgate.policy.health import HealthRules
from headgate.policy.hedge import HedgeDelay, HedgeRules
from headgate.policy.outlier import Ejected, Outlier, OutlierRules, Restored

__all__ = ["Asks", "BreakerUse", "Served", "Serving"]

_OTHERS_TRIED: Final = 16
"""Instances whose breakers are asked before the request is turned away."""


class BreakerUse(Protocol):
    """How a plan wants breakers to be used."""

    @property
    def rules(self) -> BreakerRules: ...
    @property
    def per(self) -> str:
        """`service` or `instance`."""


class Served(Protocol):
    """What is read of a service's plan."""

    @property
    def name(self) -> str: ...
    @property
    def members(self) -> tuple[MemberSpec, ...]: ...
    @property
    def balance_rules(self) -> BalanceRules: ...
    @property
    def breaker(self) -> BreakerUse | None: ...
    @property
    def outlier(self) -> OutlierRules | None: ...
    @property
    def health(self) -> HealthRules | None: ...


class Asks(Protocol):
    """Who wants an instance: a request, or another one beside it."""

    key: int
    tried: tuple[Member, ...]
    came_back_to: Member | None

    def take_permit(self, breaker: Breaker, permit: Permit) -> None: ...


class Serving:
    """What is known of a service's instances, under the service's name."""

    def __init__(self, plan: Served, now: float, rng: random.Random) -> None:
        self.name = plan.name
        self._rng = rng
        self._plan = plan
        self.weights: dict[str, tuple[int, int]] = {}
        """Weights that an operator gave, with what the plan said then."""
        self.breaker: Breaker | None = None
        self.breakers: dict[str, Breaker] = {}
        """By instance, where each has its own."""
        self.outlier: Outlier | None = None
        self.hedge_delays: dict[HedgeRules, HedgeDelay] = {}
        """Several routes may hedge, each by its own rules; all see the same latencies."""
        self.down: dict[str, str] = {}
        self.ejected: dict[str, str] = {}
        self.drained: dict[str, str] = {}
        self.put_out: dict[str, str] = {}
        """Ejected by an operator's word, whose end comes from outside as well."""
        self.unchecked: set[str] = set()
        """Instances that may not serve before their first check (`health: {start: down}`)."""
        self.leaving: set[str] = set()
        """Instances that are about to go and get nothing new."""
        self._known: dict[str, MemberSpec] = {}
        self._breaker_rules: BreakerRules | None = None
        self.on_breaker: Callable[[str, Transition], None] | None = None
        self.on_ejected: Callable[[str, Ejected], None] | None = None
        self.on_restored: Callable[[str, Restored], None] | None = None
        self.group = Group(plan.balance_rules, (), now, rng)
        self.take(plan, now)

    # -- plans ---------------------------------------------------------------------------------

    def take(self, plan: Served, now: float) -> set[str]:
        """Instances, breakers and ejections that stay keep what they know. Says which came."""
        before = self._known
        known = self._known = {member.id: member for member in plan.members}
        came = known.keys() - before.keys()
        has_same_ids = not came and len(known) == len(before)
        self._plan = plan
        outs = (self.down, self.ejected, self.put_out)
        to_settle = {url for source in outs for url in source}
        self._take_breakers(plan, known, now)
        if not has_same_ids:
            for source in (self.drained, *outs):
                for gone in source.keys() - known.keys():
                    del source[gone]
        if self.weights:
            self.weights = {
                url: said
                for url, said in self.weights.items()
                if url in known and known[url].weight == said[1]
            }
        if plan.health is None:
            self.down.clear()
        waits = plan.health is not None and plan.health.start == "down"
        # Until the first check has said something; `say` hears of it.
        self.unchecked = (self.unchecked | came) & known.keys() if waits else set()
        self.leaving = {member.id for member in plan.members if member.leaving}
        self._update_group(now)
        self._take_outlier(plan, now, has_same_ids=has_same_ids)
        for url in to_settle & known.keys():
            self._settle(url, now)
        return came

    def _take_outlier(self, plan: Served, now: float, *, has_same_ids: bool) -> None:
        if plan.outlier is None:
            self.outlier = None
            self.ejected.clear()
            return
        if self.outlier is None:
            self.outlier = Outlier(plan.outlier, self._known, now)
            return
        for news in self.outlier.take_rules(plan.outlier, now):
            self._hear(news, now)
        if not has_same_ids:
            for news in self.outlier.update(self._known, now):
                self._hear(news, now)

    def _take_breakers(self, plan: Served, urls: Iterable[str], now: float) -> None:
        wanted = plan.breaker
        before, self._breaker_rules = self._breaker_rules, wanted.rules if wanted else None
        if wanted is None or wanted.per != "instance":
            self.breakers.clear()
        if wanted is None:
            self.breaker = None
            return
        if wanted.per != "instance":
            if self.breaker is None:
                self.breaker = self._make_breaker(self.name, wanted.rules, now)
            else:
                self.breaker.take_rules(wanted.rules, now)
            return
        self.breaker = None
        if before != wanted.rules:
            for breaker in self.breakers.values():
                breaker.take_rules(wanted.rules, now)
        breakers = self.breakers
        for gone in breakers.keys() - set(urls):
            del breakers[gone]
        for url in urls:
            if url not in breakers:
                breakers[url] = self._make_breaker(f"{self.name} {url}", wanted.rules, now)

    def _make_breaker(self, name: str, rules: BreakerRules, now: float) -> Breaker:
        breaker = Breaker(name, rules, now, self._rng)

        def changed(transition: Transition) -> None:
            if self.on_breaker is not None:
                self.on_breaker(name, transition)

        breaker.on_change = changed
        return breaker

    def take_hedging(self, wanted: Iterable[HedgeRules], now: float) -> None:
        """The rules of all that may hedge here; latencies are kept where rules stay."""
        self.hedge_delays = {
            rules: self.hedge_delays.get(rules) or HedgeDelay(rules, now) for rules in wanted
        }

    def took(self, took_s: float, now: float) -> None:
        """An instance has needed so long, or at least so long."""
        for delay in self.hedge_delays.values():
            delay.record(took_s, now)

    def is_broken_at(self, now: float) -> bool:
        """A breaker of it is open. One that is due for trials is not, though no call has come to
        make one: what follows from an open breaker may be just what keeps calls away from it.
        """
        return any(
            breaker.state_at(now) in ("open", "forced_open") for breaker in self.all_breakers()
        )

    def all_breakers(self) -> list[Breaker]:
        own = [self.breaker] if self.breaker is not None else []
        return [*own, *self.breakers.values()]

    # -- may it serve? -------------------------------------------------------------------------

    def has(self, url: str) -> bool:
        """Whether it is an instance of this service."""
        return url in self._known

    def say(self, source: dict[str, str], url: str, why: str | None, now: float) -> None:
        """Note why an instance is out according to one source; None: it is not."""
        if source is self.down and url in self.unchecked:
            self.unchecked.discard(url)
            self._take_out(url, now)
        if why is None:
            source.pop(url, None)
        else:
            source[url] = why
        self._settle(url, now)

    def drain(self, url: str, why: str | None, now: float) -> None:
        """An operator takes an instance out of work; None: puts it back. Unlike the others this
        is no guess, so that it holds also when few are left.
        """
        if why is None:
            self.drained.pop(url, None)
        else:
            self.drained[url] = why
        self._take_out(url, now)

    def weigh(self, url: str, weight: int | None, of_plan: int, now: float) -> bool:
        """An operator gives an instance another weight, where the plan still says `of_plan`; None
        gives it back to the plan. Says whether it holds.
        """
        known = self._known.get(url)
        before = self.weights.get(url)
        if weight is None or known is None or known.weight != of_plan:
            self.weights.pop(url, None)
        else:
            self.weights[url] = (weight, of_plan)
        if self.weights.get(url) != before:
            self._update_group(now)
        return weight is not None and url in self.weights

    def readmit(self, url: str, why: str, now: float) -> None:
        """An operator lets in again what was ejected, by hand or for its answers."""
        self.put_out.pop(url, None)
        restored = self.outlier.restore(url, why, now) if self.outlier is not None else None
        if restored is not None:
            self._hear(restored, now)
        self.say(self.ejected, url, None, now)

    def eject(self, url: str, for_s: float, why: str, now: float) -> None:
        """A peer has put an instance out."""
        if self.outlier is not None:
            news = self.outlier.eject(url, for_s, why, now)
            if news is not None:
                self.say(self.ejected, url, news.why, now)

    def sweep(self, now: float) -> None:
        """From time to time: ejections that are over."""
        if self.outlier is None:
            return
        for news in self.outlier.sweep(now):
            self._hear(news, now)

    def _update_group(self, now: float) -> None:
        """All members, with their weights and who of them is out of work."""
        members: Sequence[MemberSpec] = self._plan.members
        if self.weights:
            members = [
                replace(member, weight=self.weights[member.id][0])
                if member.id in self.weights
                else member
                for member in members
            ]
        self.group.update(self._plan.balance_rules, members, now, self._out_of_work())

    def _take_out(self, url: str, now: float) -> None:
        """One may have come to be out of work, or to be in work again."""
        if self.leaving:
            self._update_group(now)  # who is leaving may be needed now, or no longer
        else:
            self.group.set_drained(url, url in self.drained or url in self.unchecked, now)

    def _out_of_work(self) -> set[str]:
        out = self.unchecked.union(self.drained)
        leaving = self.leaving
        if leaving and any(
            (member.weight or member.id in self.weights)
            and member.id not in leaving
            and member.id not in out
            for member in self._plan.members
        ):
            out |= leaving
        return out

    def _settle(self, url: str, now: float) -> None:
        why = self.down.get(url) or self.put_out.get(url) or self.ejected.get(url)
        self.group.set_usable(url, why is None, why or "", now)

    def _hear(self, news: Ejected | Restored, now: float) -> None:
        if isinstance(news, Ejected):
            self.say(self.ejected, news.id, news.why, now)
            if self.on_ejected is not None:
                self.on_ejected(self.name, news)
        else:
            self.say(self.ejected, news.id, None, now)
            if self.on_restored is not None:
                self.on_restored(self.name, news)

    # -- requests ------------------------------------------------------------------------------

    def pick(self, ex: Asks, now: float) -> Member | Rejected | None:
        breaker = self.breaker
        if breaker is not None:
            got = breaker.ready
            if got is None:
                trial = breaker.admit(now)
                if isinstance(trial, Rejected):
                    return trial
                got = trial
            ex.take_permit(breaker, got)
        member = ex.came_back_to
        if member is None or member in ex.tried or member.index < 0:
            member = self.group.pick(now, ex.key, ex.tried)
        if member is None and ex.tried:
            # Every instance has been tried; the last resort is to try one again.
            member = self.group.pick(now, ex.key, ())
        if not self.breakers or member is None:
            return member
        return self._past_breakers(ex, member, now)

    def _past_breakers(self, ex: Asks, first: Member, now: float) -> Member | Rejected | None:
        member: Member | None = first
        tried = ex.tried
        soonest: Rejected | None = None
        for _ in range(_OTHERS_TRIED):
            if member is None:
                break
            breaker = self.breakers.get(member.id)
            if breaker is None:
                return member
            got = breaker.admit(now)
            if not isinstance(got, Rejected):
                ex.take_permit(breaker, got)
                return member
            if soonest is None or got.retry_after_s < soonest.retry_after_s:
                soonest = got
            tried = (*tried, member)
            member = self.group.pick(now, ex.key, tried)
        return soonest

    def note(self, member: Member, failed: bool, took_s: float, now: float, kind: str = "") -> None:
        """An attempt has ended with a say; `kind` names the failure for those who ask why."""
        outlier = self.outlier
        if outlier is not None:
            ejected = outlier.record(member.id, failed, took_s, now, kind)
            if ejected is not None:
                self._hear(ejected, now)
        if self.hedge_delays and not failed:
            self.took(took_s, now)
