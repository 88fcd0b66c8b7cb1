"""The department of budgets: judges every objective from the history, twice a minute.

Theory of operation
-------------------
What is asked is a window of a month, and most of it does not change any more: the part up to the
last whole hour but one is read once an hour and kept as a tally, the rest at every turn. All
reading happens on one thread of the department's own; the loop only takes the finished standings
over, so a slow disk makes them old (`headgate_slo_age_seconds`) and nothing else.

Times that do not count are applied when a window is asked for, so one that is said afterwards
corrects what is past. They are kept in `exclusions.json`; a file that makes no sense is moved aside
and told.

Alerts compare the figures of this department (`observe.slo.burning`). When it cannot judge, there
are no figures, and the worry of `/api/health` says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from headgate.config import Config
from headgate.config.budgets import slos_of
from headgate.control.observing.history import History, HistoryOff
from headgate.control.observing.observing import Surroundings
from headgate.errors import HeadgateError
from headgate.observe import Rows
from headgate.observe.slo.closed import Exclusion, Span, Weekly, spans_in
from headgate.observe.slo.rules import WINDOWS, Slo

if TYPE_CHECKING:
    from headgate.observe.slo.budget import Standing
    from headgate.observe.slo.report import Report
    from headgate.observe.slo.tally import Tally

__all__ = ["NoSuchSlo", "Slos", "Standings"]

TURN_S: Final = 30.0
_FIRST_S: Final = 3.0
_HOUR_S: Final = 3600.0
_OLD_S: Final = 300.0
_MOST_EXCLUSIONS: Final = 500
_KEEP_S: Final = 400 * 86400.0
_MOST_POINTS: Final = 200
Closed = Span | Weekly | Exclusion

log = logging.getLogger("headgate.control")


class NoSuchSlo(HeadgateError):
    """No SLO, or no exclusion, has this name."""


@dataclass(frozen=True, slots=True)
class Standings:
    """All objectives of one SLO at one moment."""

    slo: Slo
    at: float
    objectives: tuple[Standing, ...]
    quantiles: Mapping[str, float | None]
    took_ms: float


@dataclass(frozen=True, slots=True, eq=False)
class _Read:
    """What was counted up to an hour that is over."""

    slo: Slo
    cut: float
    tally: Tally
    buckets: Tally | None


class Slos:
    name = "slos"

    def __init__(
        self,
        surroundings: Surroundings,
        history: History,
        *,
        wall: Callable[[], float] = time.time,  # noqa: TID251  budgets are about days
        turn_s: float = TURN_S,
    ) -> None:
        self._folder = surroundings.state_dir / self.name
        self._history = history
        self._wall = wall
        self._turn_s = turn_s
        self._first_s = min(turn_s, _FIRST_S)
        self._every_s = 1.0
        self._slos: tuple[Slo, ...] = ()
        self._read: dict[str, _Read] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._failure = ""
        self._file_worry = ""
        self.standings: dict[str, Standings] = {}
        self.exclusions: dict[str, Exclusion] = self._load()

    # -- a department's life ---------------------------------------------------------------------

    def start(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="slos")
        self._task = asyncio.get_running_loop().create_task(self._run(), name="slos")

    def take(self, config: Config) -> None:
        self._every_s = getattr(config.history, "every", 1.0)
        self._slos = slos_of(config)
        by_name = {slo.name: slo for slo in self._slos}
        self.standings = {
            name: held for name, held in self.standings.items() if by_name.get(name) == held.slo
        }
        self._failure = ""
        self._wake.set()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def worries(self) -> Iterable[str]:
        if self._failure:
            yield f"slos: {self._failure}"
        if self._file_worry:
            yield f"slos: {self._file_worry}"

    def rows_into(self, rows: Rows) -> None:
        now = self._wall()
        for held in self.standings.values():
            age_s = max(0.0, now - held.at)
            rows["headgate_slo_age_seconds"].append(([held.slo.name], round(age_s, 3)))
            if age_s > _OLD_S:
                continue  # a figure that stands still would say that nothing happens
            for one in held.objectives:
                key = [held.slo.name, one.objective.name]
                rows["headgate_slo_target_ratio"].append((key, one.objective.target))
                if one.spent.ratio is not None:
                    rows["headgate_slo_good_ratio"].append((key, one.spent.ratio))
                if one.spent.left is not None:
                    rows["headgate_slo_budget_left_ratio"].append((key, one.spent.left))
                for window, burn in one.burn.items():
                    if burn is None:
                        continue
                    counted = one.events[window]
                    rows["headgate_slo_burn_rate"].append(([*key, window], burn))
                    name = "headgate_slo_window_events"
                    rows[name].append(([*key, window, "all"], counted.total))
                    rows[name].append(([*key, window, "bad"], counted.bad))

    # -- judging ---------------------------------------------------------------------------------

    async def _run(self) -> None:
        await asyncio.sleep(self._first_s)
        while True:
            self._wake.clear()
            try:
                if self._slos:
                    await self.judge()
            except Exception:
                log.exception("a turn of budgets failed")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._turn_s):
                    await self._wake.wait()

    async def judge(self) -> None:
        """Judge all objectives now."""
        pool = self._pool
        if pool is None:
            return
        loop = asyncio.get_running_loop()
        now = self._wall()
        failures = []
        slos = self._slos
        for slo in slos:
            closed = self._closed(slo)
            try:
                made = await loop.run_in_executor(pool, self._judged, slo, now, closed)
            except HistoryOff:
                failures.append("there is no history to judge by")
                break
            except Exception as error:
                if not self._failure:
                    log.exception("the objectives of %s cannot be judged", slo.name)
                failures.append(f"{slo.name} cannot be judged: {error}")
                continue
            if slo in self._slos:  # a reload may have come between
                self.standings[slo.name] = made
        self._failure = "; ".join(failures[:3])
        names = {slo.name for slo in self._slos}
        self._read = {name: held for name, held in self._read.items() if name in names}

    def _closed(self, slo: Slo) -> tuple[Closed, ...]:
        said = [each for each in self.exclusions.values() if each.slo in ("", slo.name)]
        return (*slo.closed, *said)

    def _judged(self, slo: Slo, now: float, closed: tuple[Closed, ...]) -> Standings:
        from headgate.observe.slo.budget import standing
        from headgate.observe.slo.report import QUANTILES, quantile_of
        from headgate.observe.slo.tally import Tally

        began = time.perf_counter()
        start = now - slo.window_s
        tally, buckets = self._counted(slo, start, now)
        spans = spans_in(closed, start, now)
        made = []
        for number, objective in enumerate(slo.objectives):
            own = Tally(tally.times, tally.sums[2 * number : 2 * number + 2], tally.known)
            made.append(standing(slo, objective, own, now, spans))
        quantiles: dict[str, float | None] = {}
        if buckets is not None:
            counts = buckets.between(start, now, spans)
            quantiles = {name: quantile_of(counts, share) for name, share in QUANTILES.items()}
        took_ms = round((time.perf_counter() - began) * 1000, 2)
        return Standings(slo, now, tuple(made), quantiles, took_ms)

    def _counted(self, slo: Slo, start: float, now: float) -> tuple[Tally, Tally | None]:
        """Good and total of each objective, and the buckets of durations."""
        from headgate.observe.slo.reading import read
        from headgate.observe.slo.report import bucket_columns
        from headgate.observe.slo.tally import joined

        store = self._history.store
        columns = [terms for one in slo.objectives for terms in (one.good, one.total)]
        of_buckets = bucket_columns(slo)
        cut = now // _HOUR_S * _HOUR_S - _HOUR_S
        held = self._read.get(slo.name)
        if held is None or held.slo != slo or held.cut != cut:
            older = read(store, columns, start - _HOUR_S, cut, every_s=self._every_s)
            spread = None
            if of_buckets:
                spread = read(store, of_buckets, start, cut, each_s=_HOUR_S, every_s=self._every_s)
            held = self._read[slo.name] = _Read(slo, cut, older, spread)
        newer = read(store, columns, cut, now, every_s=self._every_s)
        tally = joined(held.tally, newer)
        if held.buckets is None:
            return tally, None
        more = read(store, of_buckets, held.cut - _HOUR_S, now, each_s=_HOUR_S)
        return tally, joined(held.buckets, more)

    # -- questions -------------------------------------------------------------------------------

    @property
    def slos(self) -> tuple[Slo, ...]:
        return self._slos

    def of(self, name: str) -> Slo:
        """Raises NoSuchSlo."""
        for slo in self._slos:
            if slo.name == name:
                return slo
        known = ", ".join(each.name for each in self._slos) or "none"
        raise NoSuchSlo(f"there is no SLO of this name; there are: {known}")

    async def report(self, period: str, zone: str, names: Iterable[str] = ()) -> Report:
        """What was kept in a period. Raises NoSuchSlo, NoPeriod, HistoryOff."""
        from headgate.observe.slo.periods import period_of

        now = self._wall()
        start, end = period_of(period, now, zone)
        wanted = tuple(self.of(name) for name in names) or self._slos
        said = [(slo, self._closed(slo)) for slo in wanted]
        if self._pool is None:
            raise HistoryOff("nothing is judged any more")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self._reported, said, start, end, zone, now)

    def _reported(
        self,
        said: list[tuple[Slo, tuple[Closed, ...]]],
        start: float,
        end: float,
        zone: str,
        now: float,
    ) -> Report:
        from headgate.observe.slo.reading import read
        from headgate.observe.slo.report import Report, bucket_columns, report_on

        store = self._history.store
        made = []
        for slo, closed in said:
            columns = [terms for one in slo.objectives for terms in (one.good, one.total)]
            tally = read(store, columns, start, end, every_s=self._every_s)
            of_buckets = bucket_columns(slo)
            buckets = None
            if of_buckets:
                buckets = read(store, of_buckets, start, end, each_s=_HOUR_S, every_s=self._every_s)
            spans = spans_in(closed, start, end)
            made.append(report_on(slo, tally, buckets, start, end, zone, spans))
        return Report(start, end, zone, now, tuple(made), is_whole=end < now)

    async def plot(self, name: str) -> dict[str, list[tuple[float, float]]]:
        """By objective: how much of the budget was left, over the window up to now."""
        slo = self.of(name)
        closed = self._closed(slo)
        now = self._wall()
        if self._pool is None:
            raise HistoryOff("nothing is judged any more")

        def work() -> dict[str, list[tuple[float, float]]]:
            from headgate.observe.slo.report import report_on

            start = now - slo.window_s
            tally, _ = self._counted(slo, start, now)
            spans = spans_in(closed, start, now)
            made = report_on(slo, tally, None, start, now, "UTC", spans)
            return {one.objective.name: list(one.left) for one in made.objectives}

        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    # -- times that do not count -----------------------------------------------------------------

    def exclude(self, slo: str, start: float, end: float, why: str, author: str) -> Exclusion:
        """Raises NoSuchSlo, and HeadgateError when it makes no sense."""
        now = self._wall()
        if slo:
            self.of(slo)
        if not start < end:
            raise HeadgateError("it must end after it begins")
        if start < now - _KEEP_S or end > now + _KEEP_S:
            raise HeadgateError("it must lie within 400 days of now")
        kept = {k: e for k, e in self.exclusions.items() if e.end > now - _KEEP_S}
        if len(kept) >= _MOST_EXCLUSIONS:
            raise HeadgateError(f"there are {_MOST_EXCLUSIONS} of them; take some back first")
        made = Exclusion(secrets.token_hex(6), slo, start, end, why, author, now)
        self.exclusions = {**kept, made.id: made}
        self._save()
        self._history.mark(now, "slo", f"does not count: {why or 'no reason given'}", {"slo": slo})
        self._wake.set()
        return made

    def include(self, ident: str) -> Exclusion:
        """Take an exclusion back. Raises NoSuchSlo."""
        found = self.exclusions.get(ident)
        if found is None:
            raise NoSuchSlo("there is no such exclusion")
        self.exclusions = {k: e for k, e in self.exclusions.items() if k != ident}
        self._save()
        self._wake.set()
        return found

    def _load(self) -> dict[str, Exclusion]:
        path = self._folder / "exclusions.json"
        try:
            text = path.read_text("utf-8")
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            self._file_worry = f"times that do not count cannot be read: {error}"
            return {}
        found: dict[str, Exclusion] = {}
        try:
            for said in json.loads(text):
                one = Exclusion.of_json(said)
                found[one.id] = one
        except (ValueError, TypeError, KeyError, RecursionError):
            aside = path.with_name(f"{path.name}.spoilt-{int(self._wall())}")
            with contextlib.suppress(OSError):
                path.replace(aside)
            self._file_worry = f"what times do not count is lost; the file is now {aside.name}"
        return found

    def _save(self) -> None:
        path = self._folder / "exclusions.json"
        rows = [each.to_json() for each in self.exclusions.values()]
        part = path.with_suffix(".part")
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(rows, file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except OSError as error:
            self._file_worry = f"times that do not count are in memory only: {error}"
        else:
            self._file_worry = ""

    def shown(self, held: Standings) -> dict[str, Any]:
        """A standing for the admin API."""
        slo = held.slo
        return {
            "name": slo.name,
            "of": slo.of,
            "description": slo.description,
            "window_s": slo.window_s,
            "at": held.at,
            "took_ms": held.took_ms,
            "quantiles_s": dict(held.quantiles),
            "objectives": [_objective(one) for one in held.objectives],
        }


def _objective(one: Standing) -> dict[str, Any]:
    return {
        "name": one.objective.name,
        "said": one.objective.said,
        "target": one.objective.target,
        "bound_s": one.objective.bound_s,
        "is_exact": one.objective.is_exact,
        "state": one.state,
        "ratio": one.spent.ratio,
        "events": one.spent.total,
        "bad": one.spent.bad,
        "budget_left": one.spent.left,
        "budget_left_events": one.spent.left_events,
        "burn": {name: one.burn.get(name) for name in WINDOWS if name in one.burn},
        "lasts_s": one.lasts_s,
        "known_share": one.known_share,
        "excluded_s": one.excluded_s,
    }
