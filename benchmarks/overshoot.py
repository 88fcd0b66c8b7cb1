"""What shared limits let pass, against what one limiter would: `python -m benchmarks.overshoot`.

    python -m benchmarks.overshoot [--quick] [--page]

Theory of operation
-------------------
Real gateways under uneven load: one connection asks more than the limit allows, and every worker
has a lighter one beside it (a kept connection stays with its worker). Arrivals are a Poisson stream
of a fixed seed. Each algorithm and limit has a route of its own, and all run at the same time.

    one worker                      it counts for itself
    two workers                     they share by the hub of the control process
    two gateways, two workers each  they share by one redis-server
    Redis gone and back             the same, with Redis killed in the middle and started again

How what passed is judged stands in `overshoot_counts.py`; other limiters under the same load are in
`overshoot_peers.py`. The figures go to `results/overshoot.json` and from there to
`docs/limits-measured.md` (`--page` writes only that). `--quick` prints and writes nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import uvloop

from benchmarks import machine
from benchmarks.overshoot_cast import SETTLE_S, Arrival, Connection, Gateway, Place, Redis, gateways
from benchmarks.overshoot_counts import Asked, bound, excess, single
from benchmarks.overshoot_page import write_page
from benchmarks.overshoot_peers import compare
from benchmarks.process import free_port
from headgate.policy.limiter.lease import LeaseRules
from headgate.policy.limiter.rules import Algorithm, LimitRules

RESULTS: Final = Path(__file__).parent / "results" / "overshoot.json"
ALGORITHMS: Final[tuple[Algorithm, ...]] = (
    "gcra",
    "token_bucket",
    "sliding_window",
    "sliding_log",
    "fixed_window",
)
SHARE: Final = LeaseRules().share
SEATS: Final = 10
SERVICE_S: Final = 0.08
RUNS: Final = 2
HEAVY: Final = 1.5
LIGHT: Final = 0.15
"""How much one connection asks, by the rate that is allowed to all."""
MOST_S: Final = 2.0
"""At least one request in so many seconds, also where the limit is low."""


@dataclass(frozen=True)
class Series:
    """One limit on one route."""

    name: str
    rules: LimitRules
    rate: str
    """As it is written in the file."""

    @property
    def path(self) -> str:
        return f"/{self.name}/"


def series_of(rates: dict[str, tuple[int, float]]) -> list[Series]:
    return [
        Series(
            f"{algorithm}-{rate.replace('/', '-')}",
            LimitRules(limit=limit, period_s=period_s, algorithm=algorithm),
            rate,
        )
        for rate, (limit, period_s) in rates.items()
        for algorithm in ALGORITHMS
    ]


RATES: Final = {"100/s": (100, 1.0), "20/5s": (20, 5.0), "5/min": (5, 60.0)}


# -- the load --------------------------------------------------------------------------------------


class Service:
    """Answers after a while, and knows how many requests were under way at once."""

    def __init__(self) -> None:
        self.under_way = self.most = self.served = 0
        self.busy_s = 0.0
        self.port = 0
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        gone = (OSError, asyncio.IncompleteReadError, asyncio.CancelledError)
        with contextlib.suppress(*gone):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.under_way += 1
                self.most = max(self.most, self.under_way)
                began = time.monotonic()
                await asyncio.sleep(SERVICE_S)
                self.busy_s += time.monotonic() - began
                self.under_way -= 1
                self.served += 1
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        writer.close()

    def stop(self) -> None:
        if self._server is not None:
            self._server.close()


def arrivals(
    series: Series, workers: int, seconds: float, seed: str, heavy: Sequence[int] = (0,)
) -> list[Arrival]:
    """`heavy` are the workers that have a heavy connection."""
    rules = series.rules
    rate = rules.limit / rules.period_s
    rng = random.Random(f"{seed} {series.name}")
    made: list[Arrival] = []
    for worker, part, is_heavy in [
        *((number, HEAVY, True) for number in heavy),
        *((number, LIGHT, False) for number in range(workers)),
    ]:
        per_s = max(rate * part, 1 / MOST_S)
        at = rng.expovariate(per_s)
        while at < seconds:
            made.append((at, worker, is_heavy))
            at += rng.expovariate(per_s)
    return sorted(made)


@dataclass
class Heard:
    """What became of the requests of each series, by `time.monotonic`."""

    began: float = 0.0
    asked: dict[str, list[Asked]] = field(default_factory=dict)
    marks: dict[str, float] = field(default_factory=dict)
    other: int = 0
    """Answers that are neither 200 nor 429."""
    away: int = 0
    """How often a worker found its home away."""


async def ask(connection: Connection, due: deque[tuple[float, Series]], heard: Heard) -> None:
    while due:
        at, series = due.popleft()
        await asyncio.sleep(max(0.0, heard.began + at - time.monotonic()))
        sent = time.monotonic()
        status = await connection.get(series.path)
        heard.asked[series.name].append(Asked(sent, time.monotonic(), status == 200))
        heard.other += status not in (200, 429)


async def visit(connection: Connection, until: float, rng: random.Random) -> None:
    """Ask for a seat again and again."""
    while time.monotonic() < until:
        if await connection.get("/seats/") != 200:
            await asyncio.sleep(rng.uniform(0.005, 0.015))


async def load(
    running: Sequence[Gateway],
    all_series: Sequence[Series],
    seconds: float,
    service: Service,
    weather: Callable[[Heard], Any] | None,
) -> Heard:
    workers = [(gateway.port, gateway.pids, pid) for gateway in running for pid in gateway.pids]
    heard = Heard(asked={series.name: [] for series in all_series})
    plan: dict[tuple[str, int], list[tuple[float, Series]]] = {}
    for series in all_series:
        for at, worker, heavy in arrivals(series, len(workers), seconds, "load"):
            # The heavy ones have a connection for each algorithm, lest they wait for each other.
            who = series.rules.algorithm if heavy else "light"
            plan.setdefault((who, worker), []).append((at, series))
    connections = {place: await Connection.to(*workers[place[1]]) for place in plan}
    visitors = [await Connection.to(*workers[0]) for _ in range(SEATS + 4)]
    for reached in workers:
        visitors += [await Connection.to(*reached) for _ in range(2)]
    heard.began = time.monotonic() + 0.1
    until = heard.began + (seconds if weather is None else 0.0)
    async with asyncio.TaskGroup() as group:
        for place, due in plan.items():
            group.create_task(ask(connections[place], deque(sorted(due, key=_at)), heard))
        for number, visitor in enumerate(visitors):
            group.create_task(visit(visitor, until, random.Random(number)))
        if weather is not None:
            group.create_task(weather(heard))
    for connection in (*connections.values(), *visitors):
        connection.close()
    return heard


def _at(due: tuple[float, Series]) -> float:
    return due[0]


# -- what is measured ------------------------------------------------------------------------------


PLACES: Final = (
    Place("one worker", 1, 1),
    Place("two workers, hub", 1, 2),
    Place("two gateways of two workers, Redis", 2, 2, is_redis=True),
)


def document(
    all_series: Sequence[Series], workers: int, state: str, service: int
) -> dict[str, Any]:
    routes: list[dict[str, Any]] = [
        {
            "name": series.name,
            "match": {"path": series.path},
            "respond": {"body": "ok"},
            "limit": {
                "rate": series.rate,
                "by": "route",
                "algorithm": series.rules.algorithm,
                "headers": "off",
            },
        }
        for series in all_series
    ]
    seats = {"concurrency": SEATS, "by": "route", "headers": "off"}
    routes += [
        {"name": "seats", "match": {"path": "/seats/"}, "to": "slow", "limit": seats},
        {"name": "where", "match": {"path": "/where"}, "respond": {"body": "here"}},
    ]
    return {
        "workers": workers,
        "state": state,
        "access_log": {"format": "off"},
        "services": {"slow": {"instances": [f"http://127.0.0.1:{service}"]}},
        "routes": routes,
    }


def figures(series: Series, asked: list[Asked], place: Place) -> dict[str, Any]:
    allowed = sum(each.passed for each in asked)
    expected = sum(each.passed for each in single(asked, series.rules))
    return {
        "algorithm": series.rules.algorithm,
        "rate": series.rate,
        "limit": series.rules.limit,
        "offered": len(asked),
        "allowed": allowed,
        "single": expected,
        "beyond": round(excess(asked, series.rules), 1),
        "bound": bound(series.rules, SHARE, place.holders),
        "mean_ms": round(1000 * sum(each.got - each.sent for each in asked) / len(asked), 2),
    }


def by_home_clock(asked: Sequence[Asked], place: Place) -> list[Asked]:
    """Windows are those of Redis' wall clock there, and of the machine's monotonic one elsewhere."""
    shift = time.time() - time.monotonic() if place.is_redis else 0.0
    return [Asked(each.sent + shift, each.got + shift, each.passed) for each in sorted(asked)]


def measure(
    folder: Path,
    place: Place,
    all_series: Sequence[Series],
    seconds: float,
    away: tuple[float, float] | None = None,
) -> tuple[Heard, Service]:
    """Run the load; with `away`, Redis is killed and started again at these times."""
    service = Service()

    async def main(running: Sequence[Gateway], redis: Redis | None) -> Heard:
        await service.start()

        async def weather(heard: Heard) -> None:
            if redis is None or away is None:
                return
            await asyncio.sleep(heard.began + away[0] - time.monotonic())
            heard.marks["gone"] = time.monotonic()
            await asyncio.to_thread(redis.kill)
            await asyncio.sleep(heard.began + away[1] - time.monotonic())
            await asyncio.to_thread(redis.start)
            heard.marks["back"] = time.monotonic()

        await asyncio.sleep(SETTLE_S)
        try:
            return await load(running, all_series, seconds, service, weather if away else None)
        finally:
            service.stop()

    folder.mkdir(parents=True)
    service.port = free_port()
    with ExitStack() as stack:
        redis = None
        if place.is_redis:
            redis = Redis(folder)
            stack.callback(redis.kill)
        state = redis.url if redis is not None else "memory"
        config = document(all_series, place.workers, state, service.port)
        running = stack.enter_context(gateways(folder, place.gateways, config))
        heard = uvloop.run(main(running, redis))
        for log in folder.rglob("headgate.log"):
            heard.away += log.read_text().count(" is away: ")
        return heard, service


def steady(folder: Path, place: Place, seconds: float) -> dict[str, Any]:
    """A run in which the home was there all the time, if one of `RUNS` is so: on a busy machine it
    may answer too late, and workers decide alone for a moment. That is measured by itself.
    """
    late: list[float] = []
    while True:
        found = steady_run(folder / str(len(late)), place, seconds)
        if not found["away"] or len(late) + 1 == RUNS:
            return {**found, "late_runs": late}
        late.append(max(row["beyond"] / row["limit"] for row in found["rows"]))


def steady_run(folder: Path, place: Place, seconds: float) -> dict[str, Any]:
    all_series = series_of(RATES)
    heard, service = measure(folder, place, all_series, seconds)
    rows = [
        figures(each, by_home_clock(heard.asked[each.name], place), place) for each in all_series
    ]
    seats = {
        "limit": SEATS,
        "most": service.most,
        "mean": round(service.busy_s / seconds, 1),
        "served": service.served,
    }
    return {
        "place": place.title,
        "rows": rows,
        "seats": seats,
        "other": heard.other,
        "away": heard.away,
    }


def gone_and_back(folder: Path, phase_s: float) -> dict[str, Any]:
    """Redis is killed and comes back with nothing in its memory."""
    place = PLACES[-1]
    all_series = series_of({rate: RATES[rate] for rate in ("100/s", "20/5s")})
    heard, _ = measure(folder, place, all_series, 3 * phase_s, (phase_s, 2 * phase_s))
    rows = []
    for series in all_series:
        asked = sorted(heard.asked[series.name])
        alone = single(asked, series.rules)
        gone, back = heard.marks["gone"], heard.marks["back"]
        phases = {}
        for name, begin, end in (
            ("before", 0.0, gone),
            ("gone", gone, back),
            ("after", back, 1e18),
        ):
            phases[name] = [
                sum(each.passed for each in some if begin <= each.sent < end)
                for some in (asked, alone)
            ]
        # All shares are full when Redis is lost; a period later that has been worked off.
        late = [each for each in asked if each.sent > gone + series.rules.period_s]
        rows.append(
            {
                "algorithm": series.rules.algorithm,
                "rate": series.rate,
                "phases": phases,
                "beyond": round(excess(by_home_clock(asked, place), series.rules), 1),
                "bound": bound(series.rules, SHARE, place.holders) + series.rules.limit,
                "beyond_later": round(excess(by_home_clock(late, place), series.rules), 1),
                "bound_later": bound(series.rules, SHARE, place.holders),
            }
        )
    return {"place": place.title, "phase_s": phase_s, "rows": rows, "other": heard.other}


# -- all of it -------------------------------------------------------------------------------------


def show(found: dict[str, Any]) -> None:
    said = f"away: {found['away']}, before: {found['late_runs']}" if "away" in found else ""
    print(f"\n{found['place']}; other answers: {found['other']} {said}")
    for row in found["rows"]:
        if "phases" in row:
            told = ", ".join(f"{name} {a}/{b}" for name, (a, b) in row["phases"].items())
            print(
                f"  {row['rate']:6} {row['algorithm']:15} {told}; beyond {row['beyond']:g} of "
                f"{row['bound']:g}, later {row['beyond_later']:g} of {row['bound_later']:g}"
            )
            continue
        print(
            f"  {row['rate']:6} {row['algorithm']:15} offered {row['offered']:5}, allowed "
            f"{row['allowed']:5}, one limiter {row['single']:5}, beyond {row['beyond']:5g} of "
            f"{row['bound']:g}, {row['mean_ms']:.2f} ms"
        )
    if seats := found.get("seats"):
        print(f"  seats: most {seats['most']} of {seats['limit']}, mean {seats['mean']:g}")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overshoot")
    parser.add_argument("--quick", action="store_true", help="short, printed, not written")
    parser.add_argument("--page", action="store_true", help="only write the page again")
    options = parser.parse_args()
    if options.page:
        write_page(json.loads(RESULTS.read_text()))
        return
    seconds, phase_s, peers_s = (4.0, 3.0, 2.0) if options.quick else (10.0, 7.0, 4.0)
    found: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine.describe(),
        "seconds": seconds,
        "share": SHARE,
    }
    with tempfile.TemporaryDirectory(prefix="headgate-overshoot-") as name:
        folder = Path(name)
        found["steady"] = []
        for number, place in enumerate(PLACES):
            found["steady"].append(steady(folder / str(number), place, seconds))
            show(found["steady"][-1])
        found["redis"] = gone_and_back(folder / "redis", phase_s)
        show(found["redis"])
        series = series_of(RATES)[0]
        uneven = arrivals(series, 2, peers_s, "uneven")
        even = arrivals(series, 2, peers_s, "even", heavy=(0, 1))
        found["peers"] = compare(folder / "peers", uneven, even)
    if not options.quick:
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
        write_page(found)


if __name__ == "__main__":
    main()
