"""The department of forecasts: what will be full, and how many instances services need.

Theory of operation
-------------------
A round comes every quarter of an hour, on one thread of the department's own: it reads the hours of
the history, continues each series, and leaves the finished `Outlook` for whoever asks. Alerts
compare the figures of the outlook. A series of which too little is known has no figures, and the
outlook says why. At most `_MOST` series are forecast; routes beyond are left out by their number of
requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from headgate.config import Config
from headgate.config.budgets import planning_of
from headgate.config.routes import default_name
from headgate.control.observing.history import History, HistoryOff
from headgate.control.observing.observing import Surroundings
from headgate.observe import Rows
from headgate.observe.forecast.planning import Planning
from headgate.observe.slo.rules import Matching

if TYPE_CHECKING:
    from headgate.observe.forecast.filling import Full
    from headgate.observe.forecast.forecasting import Forecast, TooLittle
    from headgate.observe.forecast.instances import Knee, Wanted
    from headgate.observe.forecast.regular import Regular

__all__ = ["Capacity", "Line", "Outlook", "ServiceOutlook"]

_FIRST_S: Final = 20.0
_HOUR_S: Final = 3600.0
_KNEE_DAYS: Final = 7
_MOST: Final = 60
_MOST_ROUTES: Final = 20
_MOST_SERVICES: Final = 20
_REQUESTS: Final = "headgate_http_requests_total"

log = logging.getLogger("headgate.control")


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """One series with what comes of it."""

    resource: str
    """`requests`, `cpu`, `memory`, `disk`, `connections` or `concurrency`."""
    name: str
    """Empty for the whole; or `route x`, `service x`, a path, a limit."""
    unit: str
    past: Regular
    forecast: Forecast | TooLittle
    limit: float | None = None
    full: Full | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ServiceOutlook:
    service: str
    target_s: float
    headroom: float
    spare: int
    now: int
    knee: Knee | None
    wanted: Wanted | None
    why: str = ""
    """Why nothing can be said."""


@dataclass(frozen=True, slots=True, eq=False)
class Outlook:
    at: float
    took_ms: float
    lines: tuple[Line, ...] = ()
    services: tuple[ServiceOutlook, ...] = ()


@dataclass(frozen=True, slots=True)
class _Asked:
    """What of the configuration a round needs."""

    planning: Planning
    routes: tuple[str, ...]
    services: tuple[str, ...]
    connections_a_worker: int
    every_s: float


class Capacity:
    name = "capacity"

    def __init__(
        self,
        surroundings: Surroundings,
        history: History,
        *,
        wall: Callable[[], float] = time.time,  # noqa: TID251  forecasts are about days
        first_s: float = _FIRST_S,
    ) -> None:
        self._surroundings = surroundings
        self._history = history
        self._wall = wall
        self._first_s = first_s
        self._asked: _Asked | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._failure = ""
        self._counts: dict[str, int] = {}
        self.outlook: Outlook | None = None

    def start(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="capacity")
        self._task = asyncio.get_running_loop().create_task(self._run(), name="capacity")

    def take(self, config: Config) -> None:
        planning = planning_of(config)
        if planning is None:
            self._asked = self.outlook = None
            return
        asked = _Asked(
            planning,
            tuple(dict.fromkeys(each.name or default_name(each) for each in config.routes)),
            tuple(config.services),
            config.limits.connections,
            getattr(config.history, "every", 1.0),
        )
        if asked != self._asked:
            self._asked = asked
            self._wake.set()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def worries(self) -> Iterable[str]:
        if self._failure:
            yield f"capacity: {self._failure}"

    def rows_into(self, rows: Rows) -> None:
        for result, count in self._counts.items():
            rows["headgate_capacity_forecasts_total"].append(([result], count))
        outlook = self.outlook
        if outlook is None:
            return
        gone_s = max(0.0, self._wall() - outlook.at)
        for line in outlook.lines:
            if line.full is None:
                continue
            for bound, seconds in (
                ("likely", line.full.likely_s),
                ("soonest", line.full.soonest_s),
                ("latest", line.full.latest_s),
            ):
                if seconds is not None:
                    key = [line.resource, line.name, bound]
                    left_s = round(max(0.0, seconds - gone_s), 1)
                    rows["headgate_capacity_full_seconds"].append((key, left_s))
        for each in outlook.services:
            if each.wanted is not None:
                name = "headgate_capacity_instances_wanted"
                rows[name].append(([each.service], each.wanted.instances))

    # -- rounds ----------------------------------------------------------------------------------

    async def _run(self) -> None:
        await asyncio.sleep(self._first_s)
        while True:
            self._wake.clear()
            asked = self._asked
            if asked is not None:
                await self.look()
            every_s = asked.planning.every_s if asked is not None else 900.0
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(every_s):
                    await self._wake.wait()

    async def look(self) -> Outlook | None:
        """Make the forecasts now."""
        asked, pool = self._asked, self._pool
        if asked is None or pool is None:
            return None
        loop = asyncio.get_running_loop()
        try:
            made = await loop.run_in_executor(pool, self._looked, asked, self._wall())
        except HistoryOff:
            self._failure = "there is no history to forecast from"
            return None
        except Exception as error:
            self._counts["failed"] = self._counts.get("failed", 0) + 1
            if not self._failure:
                log.exception("no forecast can be made")
            self._failure = f"no forecast can be made: {error}"
            return None
        self._failure = ""
        for line in made.lines:
            result = "short" if hasattr(line.forecast, "why") else "made"
            self._counts[result] = self._counts.get(result, 0) + 1
        if asked == self._asked:
            self.outlook = made
        return made

    def _looked(self, asked: _Asked, now: float) -> Outlook:
        began = time.perf_counter()
        round_ = _Round(self._history.store, asked, now)
        lines = round_.lines()[:_MOST]
        services = round_.services(lines)
        took_ms = round((time.perf_counter() - began) * 1000, 1)
        return Outlook(now, took_ms, tuple(lines), tuple(services))


@dataclass(slots=True)
class _Round:
    """One round, on a thread."""

    store: Any
    asked: _Asked
    now: float
    start: float = field(init=False)
    end: float = field(init=False)

    def __post_init__(self) -> None:
        self.end = self.now // _HOUR_S * _HOUR_S
        self.start = self.end - self.asked.planning.history_s // _HOUR_S * _HOUR_S

    def lines(self) -> list[Line]:
        found = [*self._machine(), *self._connections(), *self._concurrency(), *self._requests()]
        order = {"disk": 0, "memory": 1, "cpu": 2, "connections": 3, "concurrency": 4}
        return sorted(found, key=lambda line: order.get(line.resource, 5))

    def _line(
        self, resource: str, name: str, unit: str, past: Regular, limit: float | None = None
    ) -> Line:
        from headgate.observe.forecast.filling import full
        from headgate.observe.forecast.forecasting import Forecast, forecast

        most = limit if resource == "cpu" else None
        made = forecast(past, self.asked.planning.horizon_s, most=most)
        if limit is None or not isinstance(made, Forecast) or resource == "cpu":
            return Line(resource, name, unit, past, made, limit)
        known = past.trimmed().values
        newest = float(known[-1]) if len(known) else None
        return Line(resource, name, unit, past, made, limit, full(made, limit, now=newest))

    def _gauges(self, name: str, *, is_peak: bool = False) -> Mapping[Any, Regular]:
        from headgate.observe.forecast.reading import gauges

        return gauges(self.store, name, (), self.start, self.end, is_peak=is_peak)

    def _machine(self) -> Iterable[Line]:
        from headgate.observe.forecast.regular import Regular

        for past in self._gauges("headgate_system_cpu_usage_ratio").values():
            yield self._line("cpu", "", "percent", past, 1.0)
        pairs = (
            ("memory", "headgate_system_memory", "available"),
            ("disk", "headgate_system_disk", "free"),
        )
        for resource, name, rest in pairs:
            totals = self._gauges(f"{name}_total_bytes")
            for labels, free in self._gauges(f"{name}_{rest}_bytes").items():
                total = totals.get(labels)
                if total is None or not len(known := total.trimmed().values):
                    continue
                used = Regular(free.start, free.step_s, total.values - free.values)
                path = dict(labels).get("path", "")
                yield self._line(resource, path, "bytes", used, float(known[-1]))

    def _connections(self) -> Iterable[Line]:
        import numpy as np

        from headgate.observe.forecast.regular import Regular

        open_now = [each.values for each in self._gauges("headgate_connections").values()]
        workers = list(self._gauges("headgate_workers").values())
        if not open_now or not workers:
            return
        matrix = np.array(open_now)
        known = np.isfinite(matrix).any(axis=0)
        sums = np.where(known, np.nansum(matrix, axis=0), np.nan)
        seats = workers[0].trimmed().values
        limit = float(seats[-1]) * self.asked.connections_a_worker if len(seats) else None
        past = Regular(self.start, _HOUR_S, sums)
        yield self._line("connections", "", "", past, limit or None)

    def _concurrency(self) -> Iterable[Line]:
        limits = self._gauges("headgate_concurrency_limit")
        for labels, past in self._gauges("headgate_concurrency_in_flight", is_peak=True).items():
            if labels in limits and len(known := limits[labels].trimmed().values):
                name = dict(labels).get("limit", "")
                yield self._line("concurrency", name, "", past, float(known[-1]))

    def _requests(self) -> Iterable[Line]:
        import numpy as np

        from headgate.observe.forecast.reading import rates

        asked = self.asked
        named: list[tuple[str, Matching]] = [("", ())]
        named += [(f"service {one}", (("service", "=", one),)) for one in asked.services]
        named += [(f"route {one}", (("route", "=", one),)) for one in asked.routes]
        named = named[: 1 + 5 * _MOST]
        found = rates(
            self.store,
            [(_REQUESTS, where) for _, where in named],
            self.start,
            self.end,
            every_s=asked.every_s,
        )
        sized = [
            (float(np.nansum(past.values)), name, past)
            for (name, _), past in zip(named, found, strict=True)
        ]
        for kind, most in (("", 1), ("service ", _MOST_SERVICES), ("route ", _MOST_ROUTES)):
            some = [one for one in sized if one[1].partition(" ")[0] == kind.strip() and one[0] > 0]
            for _, name, past in sorted(some, key=lambda one: -one[0])[:most]:
                yield self._line("requests", name, "per_s", past)

    def services(self, lines: list[Line]) -> list[ServiceOutlook]:
        by_name = {line.name: line for line in lines if line.resource == "requests"}
        found = []
        for service in self.asked.services:
            line = by_name.get(f"service {service}")
            if line is not None:
                found.append(self._service(service, line))
        return found

    def _service(self, service: str, line: Line) -> ServiceOutlook:
        from headgate.observe.forecast.forecasting import Forecast
        from headgate.observe.forecast.instances import knee, wanted
        from headgate.observe.forecast.reading import loads

        plan = self.asked.planning.of(service)
        start = self.end - _KNEE_DAYS * 86400.0
        each, took, facts = loads(self.store, service, start, self.end, every_s=self.asked.every_s)
        now = int(facts.get("instances", 0))
        found = knee(each, took, plan.latency_s)
        common = (service, plan.latency_s, plan.headroom, plan.spare, now, found)
        if found is None:
            return ServiceOutlook(*common, None, "too little traffic to measure an instance by")
        if not isinstance(line.forecast, Forecast):
            return ServiceOutlook(*common, None, line.forecast.why)
        peak = float(line.forecast.high80.max())
        need = wanted(peak, found, headroom=plan.headroom, spare=plan.spare)
        return ServiceOutlook(*common, need)
