"""A service at run time: which instance serves a request, and what becomes of the news about it.

Theory of operation
-------------------
`ServiceState` outlives plans: the balancer's group, breakers, outlier ejection, the latencies that
hedging goes by. `ServiceRuntime` is made anew with each plan and only points at it and at the
pools. A request that waits through a reload is given an instance of the group as it is by then, so
`line_of` belongs to the state: the runtimes of all plans see the pools there are.

Whether an instance may serve is asked of three sources, kept apart so that one may change its mind
without the others: active health checks (`down`, from control), passive ejection (`ejected`, our
own and peers'), and what an operator said (`drained`, or `put_out` as if it had been ejected). The
group sees their sum. An operator's weight stands in place of the file's until it is taken back, or
until the file itself says another one.

`pick` answers with a member, with `Rejected` when breakers are open, or None when nothing can
serve. A permit that was taken goes to the asker at once, so that there is nothing to give back
here.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from headgate.policy.answers import Rejected
from headgate.policy.balancer import Group
from headgate.policy.breaker import Breaker
from headgate.policy.hedge import HedgeDelay, HedgeRules
from headgate.policy.outlier import Ejected, Outlier, Restored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from headgate.gateway.affinity import Affinity
    from headgate.gateway.attempts import AttemptedExchange
    from headgate.gateway.pool import Line
    from headgate.plan.plan import ServicePlan
    from headgate.policy.balancer import Member, MemberSpec
    from headgate.policy.breaker import Permit, Transition

_OTHERS_TRIED: int = 16
"""Instances whose breakers are asked before the request is turned away."""


class Asks(Protocol):
    """Who wants an instance: an exchange, or a request beside one."""

    key: int
    tried: tuple[Member, ...]
    came_back_to: Member | None

    def take_permit(self, breaker: Breaker, permit: Permit) -> None: ...


class ServiceState:
    """What outlives a plan, under the service's name."""

    def __init__(self, plan: ServicePlan, now: float, rng: random.Random) -> None:
        self.name = plan.name
        self._rng = rng
        self._plan = plan
        self.weights: dict[str, tuple[int, int]] = {}
        """Weights that an operator gave, with what the file said then."""
        self.group = Group(plan.balance_rules, plan.members, now, rng)
        self.breaker: Breaker | None = None
        self.breakers: dict[str, Breaker] = {}
        self.outlier: Outlier | None = None
        self.hedge_delays: dict[HedgeRules, HedgeDelay] = {}
        """Several routes may hedge, each by its own rules; all see the same latencies."""
        self.line_of: dict[str, Line] = {}
        """Pools by the instance's URL, as the newest plan has them."""
        self.runtime: ServiceRuntime | None = None
        """Of the newest plan."""
        self.down: dict[str, str] = {}
        self.ejected: dict[str, str] = {}
        self.drained: dict[str, str] = {}
        self.put_out: dict[str, str] = {}
        """Ejected by an operator's word; `news` ends it."""
        self.unchecked: set[str] = set()
        """Instances that may not serve before their first check (`health: {start: down}`)."""
        self._checked: set[str] = set()
        self.on_breaker: Callable[[str, Transition], None] | None = None
        self.on_ejected: Callable[[str, Ejected], None] | None = None
        self.on_restored: Callable[[str, Restored], None] | None = None
        self._take(plan, now)

    def take(self, plan: ServicePlan, now: float) -> None:
        """A reload: instances, breakers and ejections that stay keep what they know."""
        for gone in self.drained.keys() - {member.id for member in plan.members}:
            del self.drained[gone]
        of_file = {member.id: member.weight for member in plan.members}
        self.weights = {
            url: said for url, said in self.weights.items() if of_file.get(url) == said[1]
        }
        self._plan = plan
        self._weigh(now)
        self._take(plan, now)

    def _take(self, plan: ServicePlan, now: float) -> None:
        urls = [member.id for member in plan.members]
        self._take_breakers(plan, urls, now)
        if plan.outlier is None:
            self.outlier = None
            self.ejected.clear()
        elif self.outlier is None:
            self.outlier = Outlier(plan.outlier, urls, now)
        else:
            for news in (
                *self.outlier.take_rules(plan.outlier, now),
                *self.outlier.update(urls, now),
            ):
                self._hear(news, now)
        known = set(urls)
        waits = plan.health is not None and plan.health.start == "down"
        # Until the first check has said something; `say` hears of it from control.
        self.unchecked = (self.unchecked | (known - self._checked)) & known if waits else set()
        for url in urls:
            self.group.set_drained(url, url in self.drained or url in self.unchecked, now)
        if plan.health is None:
            self.down.clear()
        self._checked = known
        for source in (self.down, self.ejected, self.put_out):
            for gone in source.keys() - known:
                del source[gone]
        for url in urls:
            self._settle(url, now)

    def _take_breakers(self, plan: ServicePlan, urls: Sequence[str], now: float) -> None:
        wanted = plan.breaker
        names: list[str] = []
        if wanted is not None and wanted.per == "instance":
            names = list(urls)
        for gone in self.breakers.keys() - set(names):
            del self.breakers[gone]
        if wanted is None:
            self.breaker = None
            return
        for url in names:
            known = self.breakers.get(url)
            if known is not None:
                known.take_rules(wanted.rules, now)
            else:
                self.breakers[url] = self._make_breaker(f"{self.name} {url}", plan, now)
        if wanted.per == "instance":
            self.breaker = None
        elif self.breaker is not None:
            self.breaker.take_rules(wanted.rules, now)
        else:
            self.breaker = self._make_breaker(self.name, plan, now)

    def _make_breaker(self, name: str, plan: ServicePlan, now: float) -> Breaker:
        if plan.breaker is None:
            raise RuntimeError("a breaker is made where the plan has one")
        breaker = Breaker(name, plan.breaker.rules, now, self._rng)

        def changed(transition: Transition) -> None:
            if self.on_breaker is not None:
                self.on_breaker(name, transition)

        breaker.on_change = changed
        return breaker

    def take_hedging(self, wanted: Iterable[HedgeRules], now: float) -> None:
        """The rules of all routes that may hedge here; latencies are kept where rules stay."""
        self.hedge_delays = {
            rules: self.hedge_delays.get(rules) or HedgeDelay(rules, now) for rules in wanted
        }

    def took(self, took_s: float, now: float) -> None:
        """An instance has needed so long, or at least so long."""
        for delay in self.hedge_delays.values():
            delay.record(took_s, now)

    @property
    def is_broken(self) -> bool:
        """A breaker of it is open."""
        return any(breaker.state in ("open", "forced_open") for breaker in self.all_breakers())

    def all_breakers(self) -> list[Breaker]:
        own = [self.breaker] if self.breaker is not None else []
        return [*own, *self.breakers.values()]

    # -- may it serve? -------------------------------------------------------------------------

    def say(self, source: dict[str, str], url: str, why: str | None, now: float) -> None:
        """Note why an instance is out according to one source; None: it is not."""
        if source is self.down and url in self.unchecked:
            self.unchecked.discard(url)
            self.group.set_drained(url, url in self.drained, now)
        if why is None:
            source.pop(url, None)
        else:
            source[url] = why
        self._settle(url, now)

    def has(self, url: str) -> bool:
        """Whether it is an instance of this service."""
        return url in self._checked

    def drain(self, url: str, why: str | None, now: float) -> None:
        """An operator takes an instance out of work; None: puts it back. Unlike the others this
        is no guess, so that it holds also when few are left.
        """
        if why is None:
            self.drained.pop(url, None)
        else:
            self.drained[url] = why
        self.group.set_drained(url, url in self.drained or url in self.unchecked, now)

    def weigh(self, url: str, weight: int | None, of_file: int, now: float) -> bool:
        """An operator gives an instance another weight, where the file still says `of_file`; None
        gives it back to the file. Says whether it holds.
        """
        said = next((member.weight for member in self._plan.members if member.id == url), None)
        before = dict(self.weights)
        if weight is None or said != of_file:
            self.weights.pop(url, None)
        else:
            self.weights[url] = (weight, of_file)
        if self.weights != before:
            self._weigh(now)
        return weight is not None and url in self.weights

    def _weigh(self, now: float) -> None:
        members: list[MemberSpec] = [
            replace(member, weight=self.weights[member.id][0])
            if member.id in self.weights
            else member
            for member in self._plan.members
        ]
        self.group.update(self._plan.balance_rules, members, now)

    def readmit(self, url: str, why: str, now: float) -> None:
        """An operator lets in again what was ejected, by hand or for its answers."""
        self.put_out.pop(url, None)
        restored = self.outlier.restore(url, why, now) if self.outlier is not None else None
        if restored is not None:
            self._hear(restored, now)
        self.say(self.ejected, url, None, now)

    def _settle(self, url: str, now: float) -> None:
        why = self.down.get(url) or self.put_out.get(url) or self.ejected.get(url)
        self.group.set_usable(url, why is None, why or "", now)

    def sweep(self, now: float) -> None:
        if self.outlier is None:
            return
        for news in self.outlier.sweep(now):
            self._hear(news, now)

    def _hear(self, news: object, now: float) -> None:
        if isinstance(news, Ejected):
            self.say(self.ejected, news.id, news.why, now)
            if self.on_ejected is not None:
                self.on_ejected(self.name, news)
        else:
            self.say(self.ejected, getattr(news, "id", ""), None, now)
            if isinstance(news, Restored) and self.on_restored is not None:
                self.on_restored(self.name, news)

    def eject(self, url: str, for_s: float, why: str, now: float) -> None:
        """Another worker has put an instance out."""
        if self.outlier is not None:
            news = self.outlier.eject(url, for_s, why, now)
            if news is not None:
                self.say(self.ejected, url, news.why, now)

    def note(self, member: Member, failed: bool, took_s: float, now: float, kind: str = "") -> None:
        """An attempt has ended with a say; `kind` names the failure for those who ask why."""
        outlier = self.outlier
        if outlier is not None:
            ejected = outlier.record(member.id, failed, took_s, now, kind)
            if ejected is not None:
                self._hear(ejected, now)
        if self.hedge_delays and not failed:
            self.took(took_s, now)


class ServiceRuntime:
    __slots__ = (
        "affinity",
        "errors",
        "failures",
        "group",
        "host",
        "is_plain",
        "key_of",
        "line",
        "line_of",
        "lines",
        "name",
        "note",
        "plan",
        "size",
        "state",
    )

    def __init__(
        self,
        plan: ServicePlan,
        lines: Sequence[Line],
        state: ServiceState,
        *,
        key_of: Callable[[AttemptedExchange], int] | None = None,
        affinity: Affinity | None = None,
    ) -> None:
        self.plan = plan
        self.name = plan.name
        self.host = plan.host
        self.state = state
        self.group = state.group
        self.note = state.note if plan.outlier is not None or state.hedge_delays else None
        """Whom to tell what became of attempts, where anybody listens."""
        self.lines = tuple(lines)
        self.line = self.lines[0]
        self.size = len(self.lines)
        self.line_of: Mapping[str, Line] = state.line_of
        state.line_of.clear()
        for instance, line in zip(plan.instances, lines, strict=True):
            state.line_of[instance.url] = line
        self.key_of = key_of
        self.affinity = affinity
        breaker = plan.breaker
        self.failures: frozenset[int] = breaker.statuses if breaker is not None else _SERVER_ERRORS
        """Statuses that count against the instance."""
        self.errors: frozenset[str] | None = breaker.errors if breaker is not None else None
        """Kinds of failure that count; None: all."""
        self.is_plain = (
            self.size == 1
            and plan.instances[0].weight > 0
            and breaker is None
            and plan.outlier is None
            and plan.health is None
            and affinity is None
        )
        """Nothing to choose and nothing to learn: the only instance is asked."""
        before, state.runtime = state.runtime, self
        if before is not None and before.line is not self.line:
            before.is_plain = False  # its only instance has moved: ask the group

    def pick(self, ex: Asks, now: float) -> Member | Rejected | None:
        state = self.state
        breaker = state.breaker
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
        if not state.breakers or member is None:
            return member
        return self._past_breakers(ex, member, now)

    def _past_breakers(self, ex: Asks, first: Member, now: float) -> Member | Rejected | None:
        member: Member | None = first
        tried = ex.tried
        soonest: Rejected | None = None
        for _ in range(_OTHERS_TRIED):
            if member is None:
                break
            breaker = self.state.breakers.get(member.id)
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

    def counts(self, kind: str) -> bool:
        """Whether a failure of this kind says something about the instance."""
        return self.errors is None or kind in self.errors


_SERVER_ERRORS = frozenset(range(500, 600))
