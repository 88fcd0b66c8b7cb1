"""The steps of a route's traffic policies: what each decides before the first attempt.

Theory of operation. A step is a plain function of the exchange, made once when the plan is taken
up. It answers None (go on), `STOP` (the exchange has been answered), `WAIT` (the exchange will hear
by `go_on`, or be refused), or hands back an awaitable for the slow path, which comes to None or
STOP. No step runs twice for one exchange.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from enum import Enum
from time import monotonic
from typing import TYPE_CHECKING, Final

from headgate.gateway import problem
from headgate.gateway.keys import compile_key, cookie_of
from headgate.policy.balancer import hash_key
from headgate.policy.bulkhead import Queued, Seat
from headgate.policy.fault import decide
from headgate.wire.http1.head import body_follows
from headgate.wire.message import find

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Mapping

    from headgate.gateway.policed import PolicedExchange
    from headgate.gateway.service import ServiceRuntime
    from headgate.plan.traffic import SplitPlan
    from headgate.policy.adaptive import AdaptiveRules, Outcome
    from headgate.policy.bulkhead import Bulkhead
    from headgate.policy.degrade import Degrade
    from headgate.policy.fault import FaultRules
    from headgate.policy.shed import Shedder
    from headgate.policy.split import Split


_NAMES: Final = (
    ("shed", "shed"),
    ("check_level", "degrade"),
    ("check_flag", "flag"),
    ("choose", "split"),
    ("inject", "fault"),
    ("Gate.", "concurrency"),
    ("Limiting.", "limit"),
    ("Authentication.", "auth"),
    ("allowing", "access"),
    ("barring", "bans"),
    ("by_address", "addresses"),
    ("by_kind", "bots"),
    ("hook", "filter"),
)


def name_of(step: Step) -> str:
    """The policy that a step stands for, in a word of the file."""
    qualified = getattr(step, "__qualname__", "")
    for part, name in _NAMES:
        if part in qualified:
            return name
    return "entrance"


class Flow(Enum):
    STOP = "stop"
    WAIT = "wait"


STOP: Final = Flow.STOP
WAIT: Final = Flow.WAIT

Answer = Flow | Awaitable[Flow | None] | None
Step = Callable[["PolicedExchange"], Answer]

_LOW: Final = 3
"""The first priority that is given up when a degradation level says `shed`."""


# -- protection of the worker ----------------------------------------------------------------------


def shedding(shedder: Shedder) -> Step:
    def shed(ex: PolicedExchange) -> Answer:
        rejected = shedder.admit(ex.priority, ex.started, ex.site.stats.in_flight)
        if rejected is None:
            return None
        ex.traffic.stats.shed += 1
        ex.error = "shed"
        if not ex.fall_back("shed", is_early=True):
            ex.refuse(503, rejected.reason, retry_after_s=rejected.retry_after_s)
        return STOP

    return shed


# -- degradation -----------------------------------------------------------------------------------


def degrading(degrade: Degrade) -> Step:
    """Answer by the fallback while the level in force says so."""

    def check_level(ex: PolicedExchange) -> Answer:
        measures = degrade.answer(ex.started).measures
        if not measures:
            return None
        if "shed" in measures and ex.priority >= _LOW:
            ex.traffic.stats.shed += 1
            ex.error = "shed"
            if not ex.fall_back("shed", is_uncounted=True):
                ex.refuse(503, "not served at this level of degradation", retry_after_s=10.0)
            return STOP
        if "stale" in measures and ex.is_cached:
            ex.is_degraded = True  # what is held comes first, then what stands below
            return None
        fallback = ex.traffic.fallback
        if fallback is None or not (
            ("static" in measures and fallback.reply is not None)
            or ("service" in measures and fallback.service is not None)
        ):
            return None
        ex.error = "degraded"
        return STOP if ex.fall_back("flag", is_uncounted=True) else None

    return check_level


def flagged(degrade: Degrade, name: str, rng: random.Random) -> Step:
    def check_flag(ex: PolicedExchange) -> Answer:
        try:
            is_on = degrade.is_on(name, ex.started, hash_key(ex.client_ip.encode()), rng)
        except KeyError:
            is_on = True  # a reload has dropped the flag while the request was under way
        if is_on:
            return None
        ex.error = "switched_off"
        if not ex.fall_back("flag", is_uncounted=True):
            ex.refuse(503, f"the flag {name} is off")
        return STOP

    return check_flag


# -- which service ---------------------------------------------------------------------------------


def splitting(
    split: Split,
    plan: SplitPlan,
    services: Mapping[str, ServiceRuntime],
    rng: random.Random,
    visitor_id: Callable[[], str],
) -> Step:
    sticky = compile_key(plan.sticky) if plan.sticky is not None else None
    pins = [
        (pin.source, pin.name.encode("latin-1"), pin.value, services[pin.service])
        for pin in plan.pins
    ]
    cookie = plan.cookie

    def choose(ex: PolicedExchange) -> Answer:
        for source, name, value, service in pins:
            if source == "header":
                found = find(ex.prep.head.headers, name)
                said = found.decode("latin-1") if found is not None else None
            else:
                said = cookie_of(ex, name)
            if said == value:
                ex.change_service(service)
                return None
        key: int | None = None
        if sticky is not None:
            key = hash_key(sticky(ex).encode("utf-8", "surrogatepass"))
        elif cookie is not None:
            visitor = cookie_of(ex, cookie)
            if visitor is None or not 8 <= len(visitor) <= 64:
                visitor = visitor_id()
                ex.add_line(
                    b"set-cookie: %b=%b; Path=/; HttpOnly; SameSite=Lax; Max-Age=2592000%b\r\n"
                    % (cookie, visitor.encode(), b"; Secure" if ex.is_secure else b"")
                )
            key = hash_key(visitor.encode("latin-1"))
        # A reload may have brought the split a part that the request's own plan does not know.
        chosen = services.get(split.choose(key, rng, ex.started))
        if chosen is not None:
            ex.change_service(chosen)
        return None

    return choose


# -- faults on purpose -----------------------------------------------------------------------------


def faulting(rules: FaultRules, rng: random.Random) -> Step:
    wanted = None
    if rules.header is not None:
        name, value = rules.header
        wanted = (
            name.lower().encode("latin-1"),
            None if value is None else value.encode("latin-1"),
        )

    def abort(ex: PolicedExchange, status: int | None) -> Flow | None:
        if status is None:
            return None
        ex.error = "fault"
        if status == 0:
            ex.cut("fault on purpose")
        elif not body_follows("GET", status):
            ex.answer(problem.local(status, b"", b""))
        else:
            ex.refuse(status, "fault on purpose")
        return STOP

    async def later(ex: PolicedExchange, delay_s: float, status: int | None) -> Flow | None:
        await asyncio.sleep(delay_s)
        return None if ex.finished else abort(ex, status)

    def inject(ex: PolicedExchange) -> Answer:
        if wanted is not None:
            found = find(ex.prep.head.headers, wanted[0])
            if found is None or (wanted[1] is not None and found != wanted[1]):
                return None
        fault = decide(rules, rng)
        if fault is None:
            return None
        ex.traffic.stats.faults += 1
        if fault.delay_s > 0:
            return later(ex, fault.delay_s, fault.abort_status)
        return abort(ex, fault.abort_status)

    return inject


# -- concurrency -----------------------------------------------------------------------------------


class Gate:
    """The concurrency limit of one place: seats, the line before them, and who is told what."""

    def __init__(
        self, name: str, bulkhead: Bulkhead, adaptive: AdaptiveRules | None = None
    ) -> None:
        self.name = name
        self.adaptive = adaptive
        self.bulkhead = bulkhead
        self._admitted: deque[Queued] = deque()
        self._is_admitting = False

    def step(self, ex: PolicedExchange) -> Answer:
        got = self.bulkhead.enter(monotonic(), ex, ex.priority)
        if isinstance(got, Seat):
            ex.gated = Held(self, got, None)
            return None
        if isinstance(got, Queued):
            ex.gated = Held(self, None, got)
            if got.evicted is not None:
                self._turn_away(got.evicted)
            return WAIT
        self._refuse(ex, got.reason, got.retry_after_s)
        return STOP

    def admit(self, waiters: Iterable[Queued]) -> None:
        """Let them in. One that fails at once gives its seat to the next: hence no recursion."""
        self._admitted.extend(waiters)
        if self._is_admitting:
            return
        self._is_admitting = True
        try:
            while self._admitted:
                queued = self._admitted.popleft()
                ex = queued.who
                held: Held | None = getattr(ex, "gated", None)
                if held is None:
                    continue
                if queued.seat is None:
                    self._turn_away(queued)  # a reload has made the line shorter
                    continue
                held.seat = queued.seat
                ex.stood_s = queued.seat.at - queued.at  # type: ignore[attr-defined]  # as below
                ex.go_on()  # type: ignore[attr-defined]  # who queues is an exchange
        finally:
            self._is_admitting = False

    def expire(self, now: float) -> None:
        for queued in self.bulkhead.expire(now):
            shedder = queued.who.traffic.shedder  # type: ignore[attr-defined]  # of an exchange
            if shedder is not None:
                shedder.waited(now - queued.at, now)  # for nothing, but it waited
            self._turn_away(queued)

    def _turn_away(self, queued: Queued) -> None:
        rejected = queued.rejected
        ex = queued.who
        if rejected is not None:
            self._refuse(ex, rejected.reason, rejected.retry_after_s)  # type: ignore[arg-type]

    def _refuse(self, ex: PolicedExchange, reason: str, retry_after_s: float) -> None:
        ex.gated = None
        ex.stop_waiting()
        ex.error = "concurrency"
        if not ex.fall_back("full"):
            ex.refuse(503, reason, retry_after_s=retry_after_s)


class Held:
    """An exchange's seat, or its place in the line."""

    __slots__ = ("gate", "queued", "seat")

    def __init__(self, gate: Gate, seat: Seat | None, queued: Queued | None) -> None:
        self.gate = gate
        self.seat = seat
        self.queued = queued

    def end(self, ex: PolicedExchange, now: float) -> None:
        bulkhead = self.gate.bulkhead
        if self.seat is None:
            if self.queued is not None:
                self.gate.admit(bulkhead.forget(self.queued, now))
            return
        outcome: Outcome = "ok"
        if ex.error == "client_gone" or ex.is_tunnel:
            outcome = "ignored"
        elif ex.status >= 500 or ex.error is not None:
            outcome = "dropped"
        self.gate.admit(bulkhead.leave(self.seat, now, now - self.seat.at, outcome))
