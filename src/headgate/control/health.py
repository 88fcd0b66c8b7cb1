"""Active health checks: when each instance is checked, and who is told what came of it.

Theory of operation
-------------------
Control checks, for all workers, and goes on whether or not there are any. One task looks at the
heap of due times and starts a task for each check that is due; at most `at_once` run at a time,
and the rest waits in the order of due times. What a check means is counted by `HealthState`,
which also spreads the times (jitter); here is only the clock.

News is published under the topic "health", one message for each change:

    {"service", "instance", "key", "up": bool, "why": str, "at": wall time}

`key` is "service instance-url": a later message with the same key replaces the earlier one for
those who come later. An instance of which no news has come yet is used as the `start` of its
rules says, by every worker for itself: nothing is published before the first check, so that a
restart of control does not turn what workers know into "unknown". When a target goes, whether the
instance or only its check, the last message says `"gone": true` with `up` true: who is not
checked is used.

A time-out that we noticed late, because this process was held up (stopped, starved of the
processor), says nothing about the instance. Such a check is void: it is made again soon, and only
the `_VOID_MAX`-th in a row counts.

`recall` takes what workers remember of the checks that an earlier control process made: it stands
in place of a first check, so that after a new start one failed check decides as little as before.
It comes with the links of the workers, a moment after the start; `settle_s` is how long first
checks wait for it.

Of one service only a share of `at_once` is under way at a time, where several are checked: one
whose instances all hang does not hold up the news of the others.

State of targets that stay is kept over `update`, by service and URL. If what is asked changes, a
check under way is given up and the next one comes soon; see `HealthState.take_rules`.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from time import monotonic
from typing import Any, Final

from headgate.control.probing import Seen, Target, probe
from headgate.plan.plan import Plan
from headgate.policy.health import FIRST_WITHIN_S, Health, HealthKind, HealthState
from headgate.wire.connect import Resolving

__all__ = ["TOPIC", "CheckedInstance", "HealthProber", "PastChange", "Target", "targets_of"]

TOPIC: Final = "health"
AT_ONCE: Final = 128
"""Checks under way at a time. If all of them hang for the default 2 s, 64 a second are made."""
OF_ONE_SERVICE: Final = 4
"""One service may have this part of them, where it is not the only one."""
SETTLE_S: Final = 0.3
"""How long control waits with its first checks for what the workers remember."""
_RECALLED_MAX: Final = 10_000

_LATE_S: Final = 0.25
_VOID_MAX: Final = 3

log = logging.getLogger("headgate.control.health")


@dataclass(frozen=True, slots=True)
class PastChange:
    at: float
    """Wall time, as everything that operators read."""
    was: Health
    became: Health
    why: str


@dataclass(frozen=True, slots=True)
class CheckedInstance:
    """What an operator may ask about a checked instance."""

    service: str
    instance: str
    kind: HealthKind
    state: Health
    up: bool
    """Whether it is used, as far as checks have a say."""
    since: float
    """Wall time since when it is in this state."""
    why: str
    last_ok: bool | None
    last_why: str
    last_ms: float
    checks: int
    failures: int
    next_in_s: float | None
    """None while a check is under way."""
    in_words: str
    history: tuple[PastChange, ...]


class _Watched:
    __slots__ = ("due", "state", "target", "task", "voids")

    def __init__(self, target: Target, now: float) -> None:
        self.target = target
        self.state = HealthState(target.rules, now)
        self.due = now
        self.task: asyncio.Task[None] | None = None
        """The check under way, whose result is wanted."""
        self.voids = 0
        """Checks in a row that came to nothing."""

    @property
    def key(self) -> str:
        return f"{self.target.service} {self.target.instance}"

    def give_up(self) -> None:
        if self.task is not None:
            self.task.cancel()
            self.task = None


class HealthProber:
    """All active checks of one control process. End it with `close`."""

    def __init__(
        self,
        publish: Callable[[str, dict[str, Any]], None],
        resolver: Resolving,
        *,
        at_once: int = AT_ONCE,
        settle_s: float = 0.0,
        rng: random.Random | None = None,
        clock: Callable[[], float] = monotonic,
        wall: Callable[[], float] = time.time,  # noqa: TID251 - operators read wall time
    ) -> None:
        self.resolver = resolver
        """May be replaced at any time, for instance by a reload."""
        self._publish = publish
        self._at_once = at_once
        self._rng = rng or random.Random()
        self._clock = clock
        self._wall = wall
        self._watched: dict[tuple[str, str], _Watched] = {}
        self._due: list[tuple[float, int, _Watched]] = []
        self._order = count()
        """Breaks ties in the heap."""
        self._running: set[asyncio.Task[None]] = set()
        self._of_one = at_once
        self._running_of: Counter[str] = Counter()
        self._held_back: dict[str, deque[_Watched]] = {}
        """Due, while their service has as many checks under way as it may have."""
        self._settle_s = settle_s
        self._begins_at: float | None = None
        self._recalled: dict[tuple[str, str], Mapping[str, Any]] = {}
        """Of instances that nobody has asked us to check yet."""
        self._wake = asyncio.Event()
        self._runner: asyncio.Task[None] | None = None
        self._is_closed = False

    def update(self, targets: Iterable[Target], now: float | None = None) -> None:
        """Check these from now on, and no others. Call it on the running loop."""
        if self._is_closed:
            raise RuntimeError("the health checks have been ended")
        now = self._clock() if now is None else now
        if self._begins_at is None:
            self._begins_at = now + self._settle_s
        before, self._watched = self._watched, {}
        for target in targets:
            key = (target.service, target.instance)
            watched = before.pop(key, None) or self._watched.get(key)
            if watched is None:
                watched = _Watched(target, now)
                watched.due = watched.state.next_check(now, self._rng)
                if now < self._begins_at:
                    wait_s = (watched.due - now) * (1.0 - self._settle_s / FIRST_WITHIN_S)
                    watched.due = self._begins_at + wait_s
                said = self._recalled.pop(key, None)
                if said is not None:
                    _recall(watched, said, now)
            elif target != watched.target:
                self._change(watched, target, now)
            self._watched[key] = watched
        for gone in before.values():
            gone.give_up()
            self._tell(gone, up=True, why="not checked any more", gone=True)
        self._due = [
            (watched.due, next(self._order), watched)
            for watched in self._watched.values()
            if watched.task is None
        ]
        heapq.heapify(self._due)
        self._held_back.clear()
        is_alone = len({service for service, _ in self._watched}) < 2
        self._of_one = self._at_once if is_alone else max(1, self._at_once // OF_ONE_SERVICE)
        if self._runner is None and self._watched:
            loop = asyncio.get_running_loop()
            self._runner = loop.create_task(self._run(), name="health checks")
            self._runner.add_done_callback(_tell_end)
        self._wake.set()

    def recall(self, message: Mapping[str, Any]) -> None:
        """What a worker remembers of the checks before us: a message as we publish them."""
        if message.get("gone") or not isinstance(message.get("up"), bool):
            return
        place = (str(message.get("service")), str(message.get("instance")))
        watched = self._watched.get(place)
        if watched is not None:
            _recall(watched, message, self._clock())
        elif len(self._recalled) < _RECALLED_MAX:
            self._recalled[place] = message

    async def close(self) -> None:
        """End all checks. Nothing is published any more."""
        self._is_closed = True
        for watched in self._watched.values():
            watched.give_up()
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.wait((self._runner,))

    def snapshot(self, now: float | None = None) -> tuple[CheckedInstance, ...]:
        """All instances, by service and URL."""
        now = self._clock() if now is None else now
        wall = self._wall()
        return tuple(_show(self._watched[key], now, wall) for key in sorted(self._watched))

    # -- inside --------------------------------------------------------------------------------

    def _change(self, watched: _Watched, target: Target, now: float) -> None:
        old = watched.target
        watched.target = target
        if replace(old, rules=target.rules) == target and target.rules.asks_like(old.rules):
            watched.state.take_rules(target.rules, now)
            if watched.task is None:
                watched.due = watched.state.next_check(now, self._rng)
            return
        watched.state.take_rules(target.rules, now, asks_anew=True)
        watched.give_up()
        watched.voids = 0
        watched.due = watched.state.soon(now, self._rng)

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as checks:
            while True:
                now = self._clock()
                while self._due and self._due[0][0] <= now and len(self._running) < self._at_once:
                    _, _, watched = heapq.heappop(self._due)
                    service = watched.target.service
                    if self._running_of[service] >= self._of_one:
                        self._held_back.setdefault(service, deque()).append(watched)
                        continue
                    name = f"health check of {watched.key}"
                    watched.state.begun()
                    watched.task = checks.create_task(self._check(watched), name=name)
                    self._running.add(watched.task)
                    self._running_of[service] += 1
                    watched.task.add_done_callback(partial(self._ended, service))
                self._wake.clear()
                wait_s = None
                if self._due and len(self._running) < self._at_once:
                    wait_s = self._due[0][0] - now
                try:
                    async with asyncio.timeout(wait_s):
                        await self._wake.wait()
                except TimeoutError:
                    pass

    def _ended(self, service: str, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._running_of[service] -= 1
        held_back = self._held_back.get(service)
        if held_back:
            watched = held_back.popleft()
            heapq.heappush(self._due, (watched.due, next(self._order), watched))
        self._wake.set()

    async def _check(self, watched: _Watched) -> None:
        target = watched.target
        try:
            seen = await probe(target, self.resolver)
        except Exception as error:
            log.exception("%s cannot be checked", watched.key)
            seen = Seen(False, f"could not be checked: {error}", 0.0)
        now = self._clock()
        is_late = seen.timed_out and seen.took_s > target.rules.timeout_s + _LATE_S
        if is_late and watched.voids + 1 < _VOID_MAX:
            watched.voids += 1
            watched.due = watched.state.soon(now, self._rng)
        else:
            watched.voids = 0
            self._take(watched, seen, now)
            watched.due = watched.state.next_check(now, self._rng)
        if watched.task is not asyncio.current_task():
            return  # given up by somebody who heard the news
        watched.task = None
        heapq.heappush(self._due, (watched.due, next(self._order), watched))

    def _take(self, watched: _Watched, seen: Seen, now: float) -> None:
        change = watched.state.saw(seen.ok, seen.why, now, seen.took_s)
        if change is None:
            return
        level = logging.INFO if change.became == "up" else logging.WARNING
        if (change.was, change.became) == ("unknown", "up"):
            level = logging.DEBUG  # or every start would say it of every instance
        log.log(
            level,
            "%s of %s is %s: %s",
            watched.target.instance,
            watched.target.service,
            change.became,
            change.why,
        )
        self._tell(watched, up=change.became == "up", why=change.why)

    def _tell(self, watched: _Watched, *, up: bool, why: str, gone: bool = False) -> None:
        message: dict[str, Any] = {
            "service": watched.target.service,
            "instance": watched.target.instance,
            "key": watched.key,
            "up": up,
            "why": why,
            "at": self._wall(),
        }
        if gone:
            message["gone"] = True
        try:
            self._publish(TOPIC, message)
        except Exception:
            log.exception("the health of %s cannot be told", watched.key)


def _recall(watched: _Watched, message: Mapping[str, Any], now: float) -> None:
    is_up = bool(message["up"])
    why = f"as before control started anew: {str(message.get('why', ''))[:500]}"
    if watched.state.recall(is_up, why, now):
        log.debug("%s is %s, %s", watched.key, "up" if is_up else "down", why)


def _tell_end(runner: asyncio.Task[None]) -> None:
    if not runner.cancelled() and runner.exception() is not None:
        log.error("health checks have stopped", exc_info=runner.exception())


def targets_of(plan: Plan) -> list[Target]:
    """Every instance that the plan has checked."""
    found: list[Target] = []
    for service in plan.services.values():
        rules = service.health
        if rules is None:
            continue
        if rules.host is None and service.host not in ("preserve", "instance"):
            rules = replace(rules, host=service.host)  # what requests bring is what checks bring
        found.extend(
            Target(service.name, each.url, each.endpoint, rules, service.tls, service.http)
            for each in service.instances
        )
    return found


def _show(watched: _Watched, now: float, wall: float) -> CheckedInstance:
    health = watched.state.snapshot(now)
    return CheckedInstance(
        service=watched.target.service,
        instance=watched.target.instance,
        kind=watched.target.rules.kind,
        state=health.state,
        up=health.is_usable,
        since=wall - health.for_s,
        why=health.why,
        last_ok=health.last_ok,
        last_why=health.last_why,
        last_ms=round(health.last_took_s * 1000, 1),
        checks=health.checks,
        failures=health.failures,
        next_in_s=health.next_in_s,
        in_words=health.in_words,
        history=tuple(
            PastChange(wall - (now - each.at), each.was, each.became, each.why)
            for each in health.history
        ),
    )
