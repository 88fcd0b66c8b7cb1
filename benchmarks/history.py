"""What a history of 10,000 series costs: processor, bytes, answers, and coming back.

    python -m benchmarks.history [--seconds 300] [--no-page]

Theory of operation. Two workers count requests of a few hundred routes as a gateway does: some
routes are busy, most are not, a few have not been asked for hours. Each second their snapshots are
packed as they travel, and what control does with them is timed by the processor time of the thread:
reading them, adding them up, flattening, the store. Then a day by the second-to-minute and a week by
the minute are made from the same counters, and questions are asked; and a store that was killed in
the middle is opened again.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import random
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from headgate.observe import Carried, WorkerStats
from headgate.observe.history import Family, Keep, KeepRules
from headgate.observe.history import block as blocks
from headgate.observe.history.asking import ask_range
from headgate.observe.history.families import families_of
from headgate.observe.history.series import SeriesSet
from headgate.observe.history.store import Store
from headgate.observe.query import parse

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "history.json"
PAGE = ROOT / "docs" / "history.md"
PLOT = ROOT / "docs" / "images" / "history.svg"
BEGIN = "<!-- table: written by benchmarks.history -->"
END = "<!-- end of table -->"
ROUTES = 230
BASE = 1_800_000_000 - 1_800_000_000 % 86400
QUESTIONS = (
    "headgate_http_requests_in_flight",
    "sum(rate(headgate_http_requests_total[5m]))",
    "topk(5, sum by (route) (rate(headgate_http_requests_total[5m])))",
    "percentile(0.95, headgate_http_request_duration_seconds, 5m)",
    'percentile(0.95, headgate_http_request_duration_seconds{route="r7"}, 5m)',
)


class Traffic:
    """Two workers, and what a second of requests does to them."""

    def __init__(self) -> None:
        self._rng = random.Random(4)
        self.workers = [WorkerStats(f"worker-{n}", "a") for n in range(2)]
        self._routes = [
            [worker.route(f"r{n}", f"s{n % 20}") for n in range(ROUTES)] for worker in self.workers
        ]
        for routes in self._routes:
            for route in routes:
                for status in (200, 404, 503):
                    route.record("GET", status, 0.01, 0.008, 0, 100)
        for worker in self.workers:
            for n in range(60):
                worker.instance(f"s{n % 20}", f"http://10.0.0.{n}:80").created += 1

    def second(self) -> None:
        rng = self._rng
        for worker, routes in zip(self.workers, self._routes, strict=True):
            worker.in_flight = rng.randrange(40)
            for n, route in enumerate(routes):
                mean = 60 / (1 + n)
                for _ in range(int(rng.expovariate(1 / mean))):
                    took_s = rng.lognormvariate(-4.5, 0.7)
                    status = 200 if rng.random() > 0.02 else rng.choice((404, 503))
                    route.record("GET", status, took_s, took_s * 0.9, 0, rng.randrange(200, 9000))

    def snapshots(self) -> list[bytes]:
        return [json.dumps(worker.snapshot()).encode() for worker in self.workers]


def gathering(folder: Path, seconds: int) -> dict[str, Any]:
    traffic, carried = Traffic(), Carried(max_sets=100_000)
    store = Store(folder)
    spent: dict[str, list[float]] = {"read": [], "add": [], "flatten": [], "store": []}
    for second in range(seconds):
        traffic.second()
        payloads = traffic.snapshots()
        marks = [time.thread_time()]
        for payload in payloads:
            carried.take(json.loads(payload))
        marks.append(time.thread_time())
        merged = carried.merged()
        marks.append(time.thread_time())
        families = list(families_of(merged))
        marks.append(time.thread_time())
        store.append(BASE + second, float(second), families)
        marks.append(time.thread_time())
        for name, before, after in zip(spent, marks, marks[1:], strict=False):
            spent[name].append((after - before) * 1000)
    if store._disk is not None:
        store._disk.close()  # as a kill does: the lock is free, and nothing is sealed
    sealed = [one for one in store._blocks if one.tier == 0]
    samples = sum(len(one.times) for one in sealed) * store.figures.series
    took = {name: statistics.fmean(values) for name, values in spent.items()}
    return {
        "series": store.figures.series,
        "seconds": seconds,
        "ms_a_second": took,
        "share": sum(took.values()) / 1000,
        "longest_ms": {name: max(values) for name, values in spent.items()},
        "bytes_a_sample": sum(one.size for one in sealed) / samples,
        "set_bytes": store._disk.sets_bytes() if store._disk else 0,
        "traffic_bytes": sum(map(len, payloads)),
    }


def recovery(folder: Path) -> dict[str, Any]:
    """The lock is free, as after a kill, and the log has part of a minute."""
    began = time.perf_counter()
    store = Store(folder)
    store.append(BASE + 1e6, 1.0, [Family("x", "gauge", (), {(): 1.0})])
    took_s = time.perf_counter() - began
    store.close()
    return {"s": took_s, "blocks": len(store._blocks)}


def rolled(folder: Path, tier: int, hours: int, series: SeriesSet) -> dict[str, Any]:
    """Blocks of the minute tier, straight from counters and gauges that move as those above."""
    rng = np.random.default_rng(5)
    (folder / "1min").mkdir(parents=True)
    (folder / "sets").mkdir()
    (folder / "sets" / f"{series.digest}.hgs").write_bytes(series.to_bytes())
    rows = len(series.keys)
    is_counter = np.array(series.is_counter)
    gauges = np.flatnonzero(~is_counter).astype(np.int64)
    level = np.zeros(rows)
    pace = 3600.0 / (1 + np.arange(rows) % ROUTES)
    size = 0
    for hour in range(hours):
        steps = rng.poisson(np.broadcast_to(pace[:, None], (rows, 60))).astype(np.float64)
        last = level[:, None] + np.cumsum(steps, axis=1)
        level = last[:, -1]
        last[gauges] = rng.integers(0, 40, (len(gauges), 60))
        held = last[gauges]
        fields = {
            "last": (last, None),
            "count": (np.full(held.shape, 60.0), gauges),
            "sum": (held * 60, gauges),
            "min": (np.maximum(held - 3, 0), gauges),
            "max": (held + 3, gauges),
        }
        times = BASE - (hours - hour) * 3600.0 + 59.0 + np.arange(60) * 60.0
        data = blocks.to_bytes(tier, hour + 1, series.digest, times, fields)
        (folder / "1min" / f"{int(times[0] * 1000):014d}-{hour + 1:08d}.hgb").write_bytes(data)
        size += len(data)
    return {"bytes_a_sample": size / (rows * 60 * hours), "hours": hours}


def asked(store: Store, span_s: float, end: float) -> dict[str, float]:
    found = {}
    for question in QUESTIONS:
        text = question.replace("5m]", "20m]").replace(", 5m)", ", 20m)")
        expr = parse(question if span_s <= 3600 else text)
        times = []
        for _ in range(2):
            began = time.perf_counter()
            answer = ask_range(expr, store, end - span_s, end, span_s / 250, seconds=120.0)
            times.append((time.perf_counter() - began) * 1000)
        found[question] = min(times) if answer else float("nan")
    return found


def measure(seconds: int) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(prefix="history-"))
    try:
        kept: dict[str, Any] = {
            "date": datetime.date.today().isoformat(),
            "cores": os.cpu_count(),
            "load": round(os.getloadavg()[0], 1),
            "gathering": gathering(folder / "a", seconds),
        }
        kept["recovery"] = recovery(folder / "a")
        store = Store(folder / "a")
        store._open_disk(0.0)
        kept["asked"] = {"last minutes, by the second": asked(store, seconds, BASE + seconds - 1)}
        digest = next(one.series for one in store._blocks if one.tier == 0)
        series = store._disk.series(digest) if store._disk else SeriesSet([], [])
        store.close()
        kept["minutes"] = rolled(folder / "b", 1, 7 * 24, series)
        week = Store(folder / "b", Keep(disk_bytes=10**10, keep=KeepRules()))
        week._open_disk(0.0)
        kept["asked"]["1 hour, by the minute"] = asked(week, 3600, BASE)
        kept["asked"]["24 hours"] = asked(week, 86400, BASE)
        kept["asked"]["7 days"] = asked(week, 7 * 86400, BASE)
        week.close()
        return kept
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def table(kept: dict[str, Any]) -> str:
    found = kept["gathering"]
    lines = [
        f"Of {kept['date']}, {kept['cores']} cores, load {kept['load']}; "
        f"{found['series']} series of two workers, each second, {found['seconds']} seconds.",
        "",
        "| each second | ms of a core | longest |",
        "|---|---:|---:|",
    ]
    titles = {
        "read": "read the snapshots",
        "add": "add them up",
        "flatten": "flatten",
        "store": "the store: open block, log, sealing, roll-up",
    }
    for name, title in titles.items():
        cost, longest = found["ms_a_second"][name], found["longest_ms"][name]
        lines.append(f"| {title} | {cost:.1f} | {longest:.0f} |")
    lines += [
        f"| together | {found['share'] * 1000:.1f} ({found['share'] * 100:.1f} %) | |",
        "",
        f"By the second {found['bytes_a_sample']:.2f} bytes a sample, by the minute "
        f"{kept['minutes']['bytes_a_sample']:.2f} (of gauges five figures each). "
        f"Open again after a kill, with {kept['recovery']['blocks']} blocks that were not rolled "
        f"up: {kept['recovery']['s']:.2f} s.",
        "",
        "| 250 answers each, in ms | " + " | ".join(kept["asked"]) + " |",
        "|---|" + "---:|" * len(kept["asked"]),
    ]
    for question in QUESTIONS:
        cells = " | ".join(f"{rows[question]:.0f}" for rows in kept["asked"].values())
        lines.append(f"| `{question}` | {cells} |")
    return "\n".join([*lines, "", ""])


def draw(kept: dict[str, Any]) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "headgate"
    mpl.rcParams["svg.fonttype"] = "path"
    from matplotlib import pyplot as plt

    spans = list(kept["asked"])
    figure, axes = plt.subplots(figsize=(7.5, 3.2))
    for at, question in enumerate(QUESTIONS):
        places = [n + (at - 2) * 0.16 for n in range(len(spans))]
        label = question if len(question) < 60 else f"{question[:57]}..."
        axes.bar(places, [kept["asked"][span][question] for span in spans], 0.15, label=label)
    axes.set_xticks(range(len(spans)), spans, fontsize=8)
    axes.set_yscale("log")
    axes.set_ylabel("ms (logarithmic)", fontsize=8)
    axes.set_title(f"250 answers from {kept['gathering']['series']} series", fontsize=9)
    axes.legend(fontsize=6, loc="upper left")
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(PLOT, metadata={"Date": None})


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--seconds", type=int, default=300)
    options.add_argument("--no-page", action="store_true")
    chosen = options.parse_args()
    kept = measure(chosen.seconds)
    said = table(kept)
    print(said)
    if chosen.no_page:
        return
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n")
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{said}{END}{after}")
    draw(kept)


if __name__ == "__main__":
    main()
