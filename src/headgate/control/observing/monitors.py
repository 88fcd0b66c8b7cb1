"""The department that looks at things outside: payment providers, mail servers, databases.

Theory of operation
-------------------
Each monitor has a task of its own: it looks, waits for `every` give or take a tenth, looks again.
At most 32 look at once. A look that is over its time is ended; one that does not end even so is
not started again until it has (see `headgate.observe.health.running`). Who asks for a check while
one is under way gets that one.

What is told of a monitor follows `fall`: fewer failures in a row than that are `degraded`. What is
counted by day is what was told. A failure that we noticed much too late, because this process was
held up, says nothing of the other side: it is tried again, and only the third in a row counts.

What is known is written every few seconds on a thread of its own; `kill -9` loses those seconds,
which are unknown then, and nothing else. A store that cannot be written is a worry: monitors go on,
and what is in memory is written when it can be again.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from headgate.config import Config
from headgate.config.monitoring import monitors_of
from headgate.control.observing.monitors_probe import Look, Looking, look
from headgate.control.observing.monitors_store import (
    KEEP_DAYS,
    KEEP_RESULTS,
    Found,
    MonitorStore,
    Seen,
    Stood,
)
from headgate.control.observing.observing import Surroundings
from headgate.errors import HeadgateError
from headgate.observe import Rows
from headgate.observe.health.monitoring import Monitor
from headgate.observe.health.outcome import Outcome, Status
from headgate.observe.health.running import Runs
from headgate.observe.health.uptime import Day, Uptime, day_of
from headgate.wire.connect import Resolving
from headgate.wire.resolve import Resolver

__all__ = ["Monitors", "NoSuchMonitor", "Watched"]

Mark = Callable[[float, str, str, Mapping[str, Any]], object]
Ask = Callable[[Monitor, Looking], Any]

AT_ONCE: Final = 32
_JITTER: Final = 0.1
_SPREAD_S: Final = 2.0
_FLUSH_S: Final = 5.0
_CLOSE_S: Final = 5.0
_LATE_S: Final = 1.0
_VOID_MAX: Final = 2
_AGAIN_S: Final = 1.0
_WAITING: Final = 5000
_QUANTILES: Final = (0.5, 0.95, 0.99)

log = logging.getLogger("headgate.control.monitors")


class NoSuchMonitor(HeadgateError):
    """No monitor has this name."""


class Watched:
    """One monitor with what is known of it."""

    def __init__(self, monitor: Monitor) -> None:
        self.monitor = monitor
        self.uptime = Uptime(monitor.every_s, slack_of(monitor), KEEP_DAYS)
        self.status: Status = "unknown"
        self.since: float | None = None
        self.why = ""
        self.last: Seen | None = None
        self.expires: float | None = None
        self.results: deque[Seen] = deque(maxlen=KEEP_RESULTS)
        self.failed_in_a_row = 0
        self.voids = 0
        self.due: float | None = None
        """Monotonic."""
        self.counts: dict[str, int] = {"ok": 0, "degraded": 0, "failing": 0}
        self.task: asyncio.Task[None] | None = None
        self.run: asyncio.Task[None] | None = None
        self.is_changed = False


def slack_of(monitor: Monitor) -> float:
    """How late the next check may come: jitter, its own time, and a busy machine."""
    return monitor.every_s * 2 * _JITTER + 2 * monitor.timeout_s + 5.0


class Monitors:
    name = "monitors"

    def __init__(
        self,
        surroundings: Surroundings,
        resolver: Resolving,
        mark: Mark | None = None,
        *,
        ask: Ask = look,
        mono: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,  # noqa: TID251 - days and certificates go by it
        rng: random.Random | None = None,
        flush_s: float = _FLUSH_S,
        spread_s: float = _SPREAD_S,
    ) -> None:
        self._folder = surroundings.state_dir / self.name
        self._mark = mark
        self._ask = ask
        self._mono = mono
        self._wall = wall
        self._rng = rng if rng is not None else random.Random()
        self._flush_s = flush_s
        self._spread_s = spread_s
        self._dns: Any = None
        self._looking = Looking(resolver, self._fresh_resolver, wall)
        self._runs = Runs()
        self._places = asyncio.Semaphore(AT_ONCE)
        self._watched: dict[str, Watched] = {}
        self._store = MonitorStore(self._folder / "monitors.db")
        self._kept = Found()
        self._loaded = asyncio.Event()
        self._is_needed = False
        self._fault = ""
        self._waiting: deque[tuple[str, Seen]] = deque(maxlen=_WAITING)
        self._lost = 0
        self._pool: ThreadPoolExecutor | None = None
        self._task: asyncio.Task[None] | None = None

    def _fresh_resolver(self) -> Resolver:
        return Resolver(self._dns)

    # -- a department's life ---------------------------------------------------------------------

    def start(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="monitor-store")
        self._task = asyncio.get_running_loop().create_task(self._keep(), name="monitors")

    def take(self, config: Config) -> None:
        self._dns = config.dns
        wanted = {each.name: each for each in monitors_of(config.monitors)}
        for name in [each for each in self._watched if each not in wanted]:
            self._end(self._watched.pop(name))
        for name, monitor in wanted.items():
            watched = self._watched.get(name)
            if watched is None:
                self._watched[name] = watched = Watched(monitor)
                self._restore(watched)
            elif watched.monitor == monitor:
                continue
            else:
                self._change(watched, monitor)
            self._begin(watched)
        # In the order of the file, as they are listed.
        self._watched = {name: self._watched[name] for name in wanted}
        self._is_needed = self._is_needed or bool(wanted)

    def _change(self, watched: Watched, monitor: Monitor) -> None:
        """What was found of the old one is history; it says nothing of what is asked now."""
        if watched.task is not None:
            watched.task.cancel()
        if watched.run is not None:
            watched.run.cancel()
            watched.run = None
        watched.uptime.until(self._mono(), self._wall())
        watched.uptime.every_s, watched.uptime.slack_s = monitor.every_s, slack_of(monitor)
        watched.monitor = monitor
        watched.failed_in_a_row = watched.voids = 0
        watched.expires = None

    def _begin(self, watched: Watched) -> None:
        name = f"monitor {watched.monitor.name}"
        loop = asyncio.get_running_loop()
        watched.task = loop.create_task(self._again_and_again(watched), name=name)

    def _end(self, watched: Watched) -> None:
        for task in (watched.task, watched.run):
            if task is not None:
                task.cancel()
        watched.uptime.until(self._mono(), self._wall())
        if self._store.is_open and self._pool is not None:
            days = [(watched.monitor.name, watched.uptime.days[d]) for d in watched.uptime.changed]
            self._kept.days[watched.monitor.name] = dict(watched.uptime.days)
            self._kept.results[watched.monitor.name] = list(watched.results)
            self._pool.submit(self._write_quietly, days, [], [])

    async def close(self) -> None:
        tasks = [each for one in self._watched.values() for each in (one.task, one.run)]
        live = [each for each in (*tasks, self._task) if each is not None]
        for task in live:
            task.cancel()
        await asyncio.gather(*live, return_exceptions=True)
        for watched in self._watched.values():
            watched.uptime.until(self._mono(), self._wall())
        if self._pool is None:
            return
        try:
            async with asyncio.timeout(_CLOSE_S):
                if self._store.is_open:
                    await self._flush()
                loop = asyncio.get_running_loop()
                await loop.run_in_executor(self._pool, self._store.close)
        except TimeoutError:
            log.warning("monitors: the disk is too slow; the last seconds are lost")
        self._pool.shutdown(wait=False)

    def worries(self) -> Iterable[str]:
        if self._fault:
            yield f"monitors: {self._fault}"
        yield from (f"monitors: {each}" for each in self._store.faults[:3])
        for one in self._watched.values():
            if one.monitor.critical and one.status == "failing":
                yield f"monitor {one.monitor.name} is down: {one.why}"

    def rows_into(self, rows: Rows) -> None:
        if not self._watched:
            return
        wall = self._wall()
        today = day_of(wall)
        for name, one in self._watched.items():
            critical = "true" if one.monitor.critical else "false"
            if one.last is not None and one.status != "unknown":
                up = 0 if one.status == "failing" else 1
                rows["headgate_monitor_up"].append(([name, critical], up))
                degraded = 1 if one.status == "degraded" else 0
                rows["headgate_monitor_degraded"].append(([name], degraded))
            if one.last is not None:
                took = round(one.last.took_s, 6)
                rows["headgate_monitor_duration_seconds"].append(([name], took))
            for status, count in one.counts.items():
                rows["headgate_monitor_checks_total"].append(([name, status], count))
            if one.expires is not None:
                left = round(one.expires - wall)
                rows["headgate_monitor_certificate_expiry_seconds"].append(([name], left))
            day = one.uptime.days.get(today)
            if day is not None and day.uptime is not None:
                share = round(day.uptime, 6)
                rows["headgate_monitor_uptime_ratio"].append(([name], share))
        rows["headgate_monitor_results_lost_total"].append(([], self._lost))

    # -- looking -----------------------------------------------------------------------------------

    async def _again_and_again(self, watched: Watched) -> None:
        await self._loaded.wait()
        first_s = self._rng.uniform(0.0, min(self._spread_s, watched.monitor.every_s))
        watched.due = self._mono() + first_s
        await asyncio.sleep(first_s)
        while True:
            await self._check_once(watched)
            wait_s = watched.monitor.every_s * (1.0 + self._rng.uniform(-_JITTER, _JITTER))
            if watched.voids:
                wait_s = min(wait_s, _AGAIN_S)
            watched.due = self._mono() + wait_s
            await asyncio.sleep(wait_s)

    async def check(self, name: str) -> Watched:
        """Look now, and answer what is known then. Raises NoSuchMonitor."""
        watched = self.get(name)
        await self._loaded.wait()
        await self._check_once(watched)
        return watched

    async def _check_once(self, watched: Watched) -> None:
        run = watched.run
        if run is None or run.done():
            loop = asyncio.get_running_loop()
            name = f"check of monitor {watched.monitor.name}"
            run = watched.run = loop.create_task(self._look(watched), name=name)
        await asyncio.wait((run,))
        if not run.cancelled() and run.exception() is not None:
            log.error(
                "the monitor %s cannot be checked", watched.monitor.name, exc_info=run.exception()
            )

    async def _look(self, watched: Watched) -> None:
        monitor = watched.monitor
        found: list[Look] = []

        async def ask() -> Outcome:
            found.append(await self._ask(monitor, self._looking))
            return found[-1].outcome

        async with self._places:
            began = self._mono()
            outcome = await self._runs.run(monitor.name, ask, monitor.timeout_s)
            took_s = self._mono() - began
        if watched.monitor is not monitor or self._watched.get(monitor.name) is not watched:
            return
        is_late = not found and took_s > monitor.timeout_s + _LATE_S
        if is_late and watched.voids < _VOID_MAX:
            watched.voids += 1
            return
        watched.voids = 0
        seen = found[-1] if found else Look(outcome, took_s)
        self._take(watched, seen)

    def _take(self, watched: Watched, seen: Look) -> None:
        now, wall = self._mono(), self._wall()
        monitor = watched.monitor
        outcome = seen.outcome
        status, why = outcome.status, outcome.why
        watched.counts[status] = watched.counts.get(status, 0) + 1
        watched.failed_in_a_row = watched.failed_in_a_row + 1 if status == "failing" else 0
        if status == "failing" and watched.failed_in_a_row < monitor.fall:
            was_down = watched.status == "failing"
            status = "failing" if was_down else "degraded"
            why = f"failure {watched.failed_in_a_row} of {monitor.fall}: {why}"
        result = Seen(wall, status, seen.took_s, why, seen.status)
        watched.last = result
        watched.results.append(result)
        if len(self._waiting) == _WAITING:
            self._lost += 1
        self._waiting.append((monitor.name, result))
        if seen.expires is not None:
            watched.expires = seen.expires
        watched.uptime.saw(status, seen.took_s, now, wall)
        was, watched.why = watched.status, why
        if status != was:
            watched.status, watched.since = status, wall
            watched.is_changed = True
            self._tell(monitor, was, status, why, wall)

    def _tell(self, monitor: Monitor, was: Status, status: Status, why: str, wall: float) -> None:
        words = {"ok": "up", "degraded": "degraded", "failing": "down", "unknown": "unknown"}
        text = f"{monitor.name} is {words[status]}{f': {why}' if why else ''}"
        if was == "unknown" and status == "ok":
            log.debug("monitor %s", text)
            return
        level = logging.INFO if status == "ok" else logging.WARNING
        log.log(level, "monitor %s", text, extra={"monitor": monitor.name, "status": status})
        if self._mark is not None:
            self._mark(wall, "monitor", text, {"monitor": monitor.name, "status": status})

    # -- keeping -----------------------------------------------------------------------------------

    async def _keep(self) -> None:
        while True:
            if not self._store.is_open and self._is_needed:
                await self._open()
            elif self._store.is_open:
                await self._flush()
            await asyncio.sleep(self._flush_s if self._loaded.is_set() else 0.05)

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            kept = await loop.run_in_executor(self._pool, self._store.open, self._wall())
        except (OSError, sqlite3.Error) as error:
            if not self._fault:
                log.warning("what monitors find cannot be kept: %s", error)
            self._fault = f"what they find cannot be kept: {error}"
        else:
            self._fault = ""
            self._kept = kept
            if kept.left_out:
                log.warning("monitors: %d rows could not be read", kept.left_out)
            for watched in self._watched.values():
                self._restore(watched)
        self._loaded.set()

    def _restore(self, watched: Watched) -> None:
        """Take up what an earlier process, or an earlier file, knew of it."""
        name = watched.monitor.name
        uptime = watched.uptime
        for number, day in self._kept.days.pop(name, {}).items():
            there = uptime.days.get(number)
            if there is None:
                uptime.days[number] = day
            else:
                _add(there, day)
        kept = self._kept.results.pop(name, [])
        if kept:
            watched.results.extendleft(reversed(kept))
        stood = self._kept.stood.pop(name, None)
        if stood is not None and watched.status == stood.status:
            watched.since = stood.since
        elif stood is not None and watched.last is None:
            # So that the first look tells a change, and not a beginning.
            watched.status, watched.since, watched.why = stood.status, stood.since, stood.why

    async def _flush(self) -> None:
        days: list[tuple[str, Day]] = []
        stood: list[tuple[str, Stood]] = []
        taken: list[tuple[Watched, set[int], bool]] = []
        for name, one in self._watched.items():
            changed, one.uptime.changed = one.uptime.changed, set()
            days += [(name, one.uptime.days[day]) for day in changed if day in one.uptime.days]
            if one.is_changed and one.since is not None:
                stood.append((name, Stood(one.status, one.since, one.why)))
            taken.append((one, changed, one.is_changed))
            one.is_changed = False
        results = list(self._waiting)
        self._waiting.clear()
        if not (days or results or stood):
            return
        loop = asyncio.get_running_loop()
        # Copies: the loop goes on counting while the thread writes.
        copies = [(name, Day.of_json(day.day, day.to_json())) for name, day in days]
        try:
            await loop.run_in_executor(
                self._pool, self._store.write, copies, results, stood, day_of(self._wall())
            )
        except sqlite3.Error as error:
            if not self._fault:
                log.warning("what monitors find cannot be kept: %s", error)
            self._fault = f"what they find cannot be kept: {error}"
            for one, changed, is_changed in taken:
                one.uptime.changed |= changed & set(one.uptime.days)
                one.is_changed = one.is_changed or is_changed
            room = _WAITING - len(self._waiting)
            self._lost += max(0, len(results) - room)
            self._waiting.extendleft(reversed(results[-room:] if room else []))
        else:
            self._fault = ""

    def _write_quietly(
        self,
        days: Sequence[tuple[str, Day]],
        results: Sequence[tuple[str, Seen]],
        stood: Sequence[tuple[str, Stood]],
    ) -> None:
        try:
            self._store.write(days, results, stood, day_of(self._wall()))
        except sqlite3.Error as error:
            log.warning("what monitors find cannot be kept: %s", error)

    # -- questions ---------------------------------------------------------------------------------

    def get(self, name: str) -> Watched:
        """Raises NoSuchMonitor."""
        found = self._watched.get(name)
        if found is None:
            raise NoSuchMonitor(f'there is no monitor "{name}"')
        return found

    @property
    def names(self) -> list[str]:
        return list(self._watched)

    def all(self) -> list[Watched]:
        """In the order of the file."""
        return list(self._watched.values())

    def state(self, watched: Watched, days: int = 30) -> dict[str, Any]:
        """What a list shows of one."""
        now, wall = self._mono(), self._wall()
        monitor, uptime = watched.monitor, watched.uptime
        today = day_of(wall)
        shares: list[float | None] = []
        for number in range(today - days + 1, today + 1):
            day = uptime.days.get(number)
            shares.append(None if day is None or day.uptime is None else round(day.uptime, 6))
        whole = uptime.over(days, wall)
        p50, p95, p99 = (_ms(each) for each in whole.times.quantiles(_QUANTILES))
        return {
            "name": monitor.name,
            "kind": monitor.kind,
            "target": monitor.shown,
            "critical": monitor.critical,
            "status": watched.status,
            "why": watched.why,
            "since": watched.since,
            "last_at": watched.last.at if watched.last else None,
            "last_ms": _ms(watched.last.took_s) if watched.last else None,
            "next_in_s": None if watched.due is None else round(max(0.0, watched.due - now), 1),
            "every_s": monitor.every_s,
            "timeout_s": monitor.timeout_s,
            "certificate_ends": watched.expires,
            "days": days,
            "uptime": None if whole.uptime is None else round(whole.uptime, 6),
            "known_s": round(whole.known_s, 1),
            "p50_ms": p50,
            "p95_ms": p95,
            "p99_ms": p99,
            "uptime_by_day": shares,
        }

    def days_of(self, watched: Watched, days: int) -> list[dict[str, Any]]:
        """Day by day, the oldest first; a day of which nothing is known is all unknown."""
        wall = self._wall()
        today = day_of(wall)
        found = []
        for number in range(today - days + 1, today + 1):
            day = watched.uptime.days.get(number) or Day(number)
            p50, p95, p99 = (_ms(each) for each in day.times.quantiles(_QUANTILES))
            found.append(
                {
                    "date": day.date,
                    "uptime": None if day.uptime is None else round(day.uptime, 6),
                    "up_s": round(day.up_s, 1),
                    "degraded_s": round(day.degraded_s, 1),
                    "down_s": round(day.down_s, 1),
                    "unknown_s": round(day.unknown_s(wall), 1),
                    "checks": day.checks,
                    "failures": day.failures,
                    "p50_ms": p50,
                    "p95_ms": p95,
                    "p99_ms": p99,
                    "longest_ms": _ms(day.longest_s) if day.checks else None,
                }
            )
        return found


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)


def _add(there: Day, more: Day) -> None:
    there.up_s += more.up_s
    there.degraded_s += more.degraded_s
    there.down_s += more.down_s
    there.checks += more.checks
    there.failures += more.failures
    there.longest_s = max(there.longest_s, more.longest_s)
    there.times.add(more.times)
