"""The checks of one service: when each runs, what is known of it, what the three questions get.

Theory of operation
-------------------
What a check found is good for `every`. Whoever asks in that time gets what is known; the first who
asks later starts a run, and all who ask meanwhile wait for that same run. It belongs to the checks
and not to who asked: a prober that gives up takes nothing from the others. After `start` they are
refreshed in the background, each at its own pace with some jitter, and probes wait for nothing.

    liveness    is this process to be restarted? Only what it says of itself; no check is asked,
                or one database that is away would restart every service there is.
    readiness   is it to be sent requests? No critical check fails, nothing is `not_ready`, and it
                does not drain. A critical check that has not run yet is waited for.
    startup     has it been ready once, its holds aside? Then for ever.

For `start_grace` after the beginning, a check that has never been ok is `unknown` instead of
failing: not ready, but no alarm. One that was ok once has no more grace.

Checks may be used from several loops one after another, as tests do: a run that belongs to a loop
that has ended is forgotten. Asking from two threads at once is not meant.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from headgate.observe.health.outcome import Outcome, Result, Status, overall
from headgate.observe.health.running import PLACES, Check, Runs
from headgate.observe.meters import REGISTRY, Registry
from headgate.units import parse_duration

__all__ = ["Checks", "Hold", "Report"]

F = TypeVar("F", bound=Callable[..., Any])

MOST: Final = 200
_JITTER: Final = 0.1
_LEAST_EVERY_S: Final = 0.05
_FIGURES: Final[dict[Status, float]] = {"ok": 1.0, "degraded": 0.5, "failing": 0.0}

log = logging.getLogger("headgate.health")
_SILENT: Final = logging.getLogger("headgate.health.unheard")
_SILENT.disabled = True


@dataclass(frozen=True, slots=True)
class Report:
    """The answer to one of the questions."""

    status: Status
    """Of all there is: ok, unknown, degraded or failing."""
    is_fine: bool
    """What a prober wants to know."""
    reasons: tuple[str, ...] = ()
    checks: tuple[Result, ...] = ()


class Hold:
    """A reason not to be ready, until it is released. May be a `with` block."""

    def __init__(self, checks: Checks, why: str) -> None:
        self._checks = checks
        self.why = why

    def release(self) -> None:
        """May be called twice."""
        self._checks._release(self)  # noqa: SLF001 - the other half of it

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


class _Watched:
    """One check with what is known of it."""

    def __init__(
        self, name: str, check: Check, *, critical: bool, timeout_s: float, every_s: float
    ) -> None:
        self.check = check
        self.timeout_s = timeout_s
        self.every_s = every_s
        self.result = Result(name, "unknown", "", critical)
        self.mono: float | None = None
        self.run: asyncio.Task[None] | None = None
        self.was_ok = False

    @property
    def name(self) -> str:
        return self.result.name


class Checks:
    """Make one, give it checks, and show it by `HealthEndpoints`.

    checks = Checks(service="orders", version="1.4.2")

    @checks.check("database", critical=True, timeout="2s", every="10s")
    async def database() -> None:
        await pool.fetchval("SELECT 1")

    checks.add("disk", health.disk("/var/lib/orders", fail_free="5%"))
    """

    def __init__(
        self,
        service: str = "",
        *,
        version: str = "",
        description: str = "",
        start_grace: str | float = 0.0,
        registry: Registry | None = REGISTRY,
        places: int = PLACES,
        logger: logging.Logger | None = log,
        mono: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,  # noqa: TID251 - people read when it was
        rng: random.Random | None = None,
    ) -> None:
        self.service = service
        self.version = version
        self.description = description
        self.start_grace_s = parse_duration(start_grace)
        self._log = logger if logger is not None else _SILENT
        self._mono = mono
        self._wall = wall
        self._rng = rng if rng is not None else random.Random()
        self._watched: dict[str, _Watched] = {}
        self._runs = Runs(places)
        self._holds: dict[Hold, None] = {}
        self._dead = ""
        self.is_draining = False
        self._has_started = False
        self._began = mono()
        self._background: list[asyncio.Task[None]] = []
        self._meters = _Meters(registry) if registry is not None else None

    # -- saying what is checked ------------------------------------------------------------------

    def check(
        self,
        name: str,
        *,
        critical: bool = False,
        timeout: str | float = 2.0,
        every: str | float = 10.0,
    ) -> Callable[[F], F]:
        """Decorate a function, sync or async, that answers None, a bool or an Outcome."""

        def keep(function: F) -> F:
            self.add(name, function, critical=critical, timeout=timeout, every=every)
            return function

        return keep

    def add(
        self,
        name: str,
        check: Check,
        *,
        critical: bool = False,
        timeout: str | float = 2.0,
        every: str | float = 10.0,
    ) -> None:
        """Likewise for one that was made elsewhere, such as `health.disk("/")`."""
        timeout_s, every_s = parse_duration(timeout), parse_duration(every)
        if not name or len(name) > 100 or not name.isprintable():
            raise ValueError("a check needs a name of at most 100 printable characters")
        if name in self._watched:
            raise ValueError(f'there is already a check "{name}"; remove it, or name this other')
        if not callable(check):
            raise TypeError(f'the check "{name}" cannot be called')
        if timeout_s <= 0:
            raise ValueError(f'the check "{name}" has no time at all; write timeout="2s"')
        if every_s < _LEAST_EVERY_S:
            raise ValueError(
                f'the check "{name}" runs too often; {_LEAST_EVERY_S:g} s is the least'
            )
        if len(self._watched) >= MOST:
            raise ValueError(f"{MOST} checks are the most; is this called for every request?")
        watched = _Watched(name, check, critical=critical, timeout_s=timeout_s, every_s=every_s)
        self._watched[name] = watched
        if self._background:
            self._background.append(self._follow(watched))

    def remove(self, name: str) -> None:
        """Check it no longer; it need not be there."""
        watched = self._watched.pop(name, None)
        if watched is not None and watched.run is not None:
            watched.run.cancel()

    # -- what the service says of itself -----------------------------------------------------------

    def not_ready(self, why: str) -> Hold:
        """Be sent no requests until the hold is released: while caches warm, say."""
        hold = Hold(self, why)
        self._holds[hold] = None
        self._log.info("not ready: %s", why)
        return hold

    def _release(self, hold: Hold) -> None:
        if hold in self._holds:
            del self._holds[hold]
            self._log.info("no longer held back: %s", hold.why)

    def drain(self) -> None:
        """Be sent no more requests: this process is about to end."""
        if not self.is_draining:
            self.is_draining = True
            self._log.info("draining: readiness says no from now on")

    def give_up(self, why: str) -> None:
        """Say that only a restart helps: liveness fails from now on."""
        self._dead = why or "given up"
        self._log.error("to be restarted: %s", self._dead)

    # -- the questions -----------------------------------------------------------------------------

    def liveness(self) -> Report:
        """Waits for nothing: that it is answered at all says that the loop turns."""
        if self._dead:
            return Report("failing", is_fine=False, reasons=(self._dead,))
        return Report("ok", is_fine=True)

    async def readiness(self) -> Report:
        """Of the critical checks; others cannot take a service out."""
        results = await self._fresh([one for one in self._watched.values() if self._counts(one)])
        return self._readiness(results)

    async def startup(self) -> Report:
        if self._has_started:
            return Report("ok", is_fine=True)
        results = await self._fresh([one for one in self._watched.values() if self._counts(one)])
        status, reasons = overall(results)
        if status not in {"ok", "degraded"}:
            return Report(status, is_fine=False, reasons=tuple(reasons), checks=tuple(results))
        if self._holds:
            whys = tuple(hold.why for hold in self._holds)
            return Report("unknown", is_fine=False, reasons=whys, checks=tuple(results))
        self._has_started = True
        return Report("ok", is_fine=True, checks=tuple(results))

    async def report(self) -> Report:
        """Everything, and one status for it."""
        results = await self._fresh(list(self._watched.values()))
        ready = self._readiness([one for one in results if one.critical])
        status, reasons = overall(results)
        if self._dead:
            return Report("failing", False, (self._dead, *reasons), tuple(results))
        if not ready.is_fine:
            more = [why for why in ready.reasons if why not in reasons]
            status = "failing" if status == "failing" else ready.status
            return Report(status, False, (*more, *reasons), tuple(results))
        return Report(status, True, tuple(reasons), tuple(results))

    def known(self) -> tuple[Result, ...]:
        """What is known now, without a run."""
        return tuple(one.result for one in self._watched.values())

    @staticmethod
    def _counts(watched: _Watched) -> bool:
        return watched.result.critical

    def _readiness(self, results: list[Result]) -> Report:
        status, reasons = overall(results)
        held = [hold.why for hold in self._holds]
        if self.is_draining:
            held.insert(0, "draining")
        if self._dead:
            held.insert(0, self._dead)
        is_fine = not held and status in {"ok", "degraded"}
        if is_fine:
            self._has_started = True
        elif status in {"ok", "degraded"}:
            status = "unknown" if not (self.is_draining or self._dead) else "failing"
        if self._meters is not None:
            self._meters.ready.set(1.0 if is_fine else 0.0)
        return Report(status, is_fine, (*held, *reasons), tuple(results))

    # -- running -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Refresh in the background from now on. On the running loop; may be called twice."""
        loop = asyncio.get_running_loop()
        self._background = [
            task for task in self._background if not task.done() and task.get_loop() is loop
        ]
        if not self._background:
            self._background = [self._follow(one) for one in self._watched.values()]

    async def close(self) -> None:
        """End the background. What is known can still be asked for."""
        tasks, self._background = self._background, []
        loop = asyncio.get_running_loop()
        for watched in self._watched.values():
            if watched.run is not None:
                tasks.append(watched.run)
                watched.run = None
        mine = [task for task in tasks if task.get_loop() is loop]
        for task in mine:
            task.cancel()
        await asyncio.gather(*mine, return_exceptions=True)

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.close()

    def _follow(self, watched: _Watched) -> asyncio.Task[None]:
        name = f"health {watched.name}"
        return asyncio.get_running_loop().create_task(self._again_and_again(watched), name=name)

    async def _again_and_again(self, watched: _Watched) -> None:
        # Not all at once, and soon: a probe may come within a second.
        await asyncio.sleep(self._rng.uniform(0.0, min(0.5, watched.every_s)))
        while self._watched.get(watched.name) is watched:
            await self._run_once(watched)
            spread = 1.0 + self._rng.uniform(-_JITTER, _JITTER)
            await asyncio.sleep(watched.every_s * spread)

    async def _fresh(self, wanted: list[_Watched]) -> list[Result]:
        stale = [one for one in wanted if not self._is_fresh(one)]
        if stale:
            waits: list[Awaitable[None]] = [self._run_once(one) for one in stale]
            if len(waits) == 1:
                await waits[0]
            else:
                await asyncio.gather(*waits)
        return [one.result for one in wanted]

    def _is_fresh(self, watched: _Watched) -> bool:
        if watched.mono is None:
            return False
        good_for_s = watched.every_s
        if self._background:
            good_for_s = good_for_s * (1 + 2 * _JITTER) + watched.timeout_s + 1.0
        return self._mono() - watched.mono < good_for_s

    async def _run_once(self, watched: _Watched) -> None:
        """Run it, or wait for the run that is under way."""
        loop = asyncio.get_running_loop()
        run = watched.run
        if run is None or run.done() or run.get_loop() is not loop:
            name = f"check {watched.name}"
            run = watched.run = loop.create_task(self._run(watched), name=name)
        await asyncio.wait((run,))
        if run.done() and not run.cancelled() and run.exception() is not None:
            self._log.error("the check %s cannot be run", watched.name, exc_info=run.exception())

    async def _run(self, watched: _Watched) -> None:
        began = self._mono()
        found = await self._runs.run(watched.name, watched.check, watched.timeout_s)
        now = self._mono()
        if self._watched.get(watched.name) is watched:
            self._take(watched, found, now, now - began)

    def _take(self, watched: _Watched, found: Outcome, now: float, took_s: float) -> None:
        before = watched.result
        status, why = found.status, found.why
        watched.was_ok = watched.was_ok or status in {"ok", "degraded"}
        if status == "failing" and not watched.was_ok and now - self._began < self.start_grace_s:
            status, why = "unknown", f"starting: {why}"
        wall = self._wall()
        changed = status != before.status
        watched.mono = now
        watched.result = replace(
            before,
            status=status,
            why=why,
            value=found.value,
            unit=found.unit,
            at=wall,
            took_s=took_s,
            since=wall if changed or before.since is None else before.since,
            runs=before.runs + 1,
            failures=before.failures + (found.status == "failing"),
        )
        if self._meters is not None:
            self._meters.take(watched.result, found.status)
        if changed:
            self._say(before, watched.result)

    def _say(self, before: Result, after: Result) -> None:
        is_first_and_fine = before.at is None and after.status == "ok"
        level = logging.INFO
        if after.status == "failing":
            level = logging.ERROR if after.critical else logging.WARNING
        elif after.status == "degraded":
            level = logging.WARNING
        elif is_first_and_fine:
            level = logging.DEBUG  # or every start would say it of every check
        self._log.log(
            level,
            "%s is %s%s%s",
            after.name,
            after.status,
            f" ({after.why})" if after.why else "",
            f"; it was {before.status}" if before.at is not None else "",
            extra={"check": after.name, "status": after.status, "critical": after.critical},
        )


class _Meters:
    """Figures of checks; several `Checks` of one process share them."""

    def __init__(self, registry: Registry) -> None:
        labels = ("check",)
        self._status = registry.gauge(
            "health_check_status",
            "1 is ok, 0.5 degraded, 0 failing; nothing where it is not known.",
            labels,
            merge="min",
        )
        self._took = registry.timer(
            "health_check_duration_seconds", "How long checks took.", labels
        )
        self._runs = registry.counter(
            "health_check_runs", "Runs of checks, by what they found.", ("check", "status")
        )
        self.ready = registry.gauge(
            "health_ready", "1 while requests are wanted here.", merge="min"
        ).labels()

    def take(self, result: Result, found: Status) -> None:
        if result.status in _FIGURES:
            self._status.labels(result.name).set(_FIGURES[result.status])
        self._took.put(result.took_s, result.name)
        self._runs.add(1, result.name, found)
