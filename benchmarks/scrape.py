"""What a scrape of 10,000 series costs, in the gateway and in a service: `python -m benchmarks.scrape`.

    python -m benchmarks.scrape [--rounds 15] [--no-page]

Theory of operation. The gateway's part: two workers have counted requests of some hundred routes
(`benchmarks.history` has the traffic); each round their snapshots are made, in the steps between
which a worker serves requests, travel as they do, are read, added up and written as text. A
service's part: two processes share 10,000 series, and one of them is asked; beside it the library
that most use, with as many series, in one process and in two. Parts of a round are timed by the
processor time of the thread, in turns, and the median is shown with the least and the most: so
other work on the machine disturbs little. Whether counting goes on while somebody asks is measured
on the clock: the longest that a thread that counts was held up while another one wrote the text.

Writes benchmarks/results/scrape.json and docs/scrape-costs.md.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks.history import Traffic
from headgate.observe import Carried, Registry, WorkerStats, to_prometheus
from headgate.observe.meters.text import to_text

ROOT: Final = Path(__file__).resolve().parents[1]
RESULTS: Final = ROOT / "benchmarks" / "results" / "scrape.json"
PAGE: Final = ROOT / "docs" / "scrape-costs.md"
SERIES: Final = 10_000
BELOW_MS: Final = 50.0
_PEER: Final = """
import os, sys, time, json
import prometheus_client
from prometheus_client import multiprocess
kept = prometheus_client.CollectorRegistry()
many = bool(os.environ.get("PROMETHEUS_MULTIPROC_DIR"))
jobs = prometheus_client.Counter("jobs", "Jobs.", ["kind"], registry=None if many else kept)
for at in range(10_000):
    jobs.labels(f"s{at}").inc(at)
if len(sys.argv) > 1:
    sys.exit()
if many:
    multiprocess.MultiProcessCollector(kept)
for _ in range(int(os.environ["ROUNDS"])):
    began = time.thread_time()
    text = prometheus_client.generate_latest(kept)
    print((time.thread_time() - began) * 1000)
"""


def _ms(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.thread_time()
    found = work()
    return (time.thread_time() - began) * 1000, found


def shown(values: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 2),
        "least": round(min(values), 2),
        "most": round(max(values), 2),
    }


def samples(text: str) -> int:
    return sum(not line.startswith("#") for line in text.splitlines())


# -- the gateway -----------------------------------------------------------------------------------


def stepped(worker: WorkerStats) -> tuple[float, float, dict[str, Any]]:
    """All of a snapshot, its longest step, and what it says."""
    steps = worker.steps()
    whole = longest = 0.0
    while True:
        began = time.thread_time()
        try:
            next(steps)
        except StopIteration as done:
            took = (time.thread_time() - began) * 1000
            return whole + took, max(longest, took), done.value
        took = (time.thread_time() - began) * 1000
        whole += took
        longest = max(longest, took)


def gateway(rounds: int) -> dict[str, Any]:
    traffic, carried = Traffic(), Carried(max_sets=100_000)
    gc.freeze()  # as a worker does once it has begun
    spent: dict[str, list[float]] = {
        name: [] for name in ("snapshot", "longest step", "read", "merge", "text", "together")
    }
    text = ""
    for _ in range(rounds):
        traffic.second()
        payloads = []
        for worker in traffic.workers:
            whole, longest, said = stepped(worker)
            spent["snapshot"].append(whole)
            spent["longest step"].append(longest)
            payloads.append(json.dumps(said).encode())

        def read(payloads: list[bytes] = payloads) -> None:
            for payload in payloads:
                carried.take(json.loads(payload))

        read_ms, _ = _ms(read)
        merge_ms, merged = _ms(carried.merged)
        text_ms, text = _ms(partial(to_prometheus, merged))
        for name, took in (("read", read_ms), ("merge", merge_ms), ("text", text_ms)):
            spent[name].append(took)
        spent["together"].append(read_ms + merge_ms + text_ms)
    return {
        "samples": samples(text),
        "bytes": len(text),
        "ms": {name: shown(values) for name, values in spent.items()},
    }


# -- a service -------------------------------------------------------------------------------------


def filled() -> Registry:
    registry = Registry(max_series=SERIES)
    jobs = registry.counter("jobs", "Jobs.", ("kind",))
    for at in range(SERIES):
        jobs.add(at, f"s{at}")
    return registry


def service(rounds: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="scrape-") as folder:
        registry = filled()
        alone = [_ms(lambda: to_text(registry.collect()))[0] for _ in range(rounds)]
        other = filled().share(f"{folder}/ours", every_s=60)
        mine = registry.share(f"{folder}/ours", every_s=60)
        try:
            shared = [_ms(lambda: to_text(registry.collect()))[0] for _ in range(rounds)]
            found["held_up_ms"] = held_up(registry)
        finally:
            mine.close()
            other.close()
        found["headgate, one process"] = shown(alone)
        found["headgate, two processes"] = shown(shared)
        found["prometheus_client, one process"] = shown(peer(rounds, None))
        found["prometheus_client, two processes"] = shown(peer(rounds, f"{folder}/theirs"))
    return found


def held_up(registry: Registry) -> float:
    """The longest that counting stood still while somebody else asked for everything, ten times."""
    jobs = registry.counter("held", "", ("kind",)).labels("a")
    asked = threading.Thread(target=lambda: [to_text(registry.collect()) for _ in range(10)])
    longest = 0.0
    asked.start()
    before = time.perf_counter()
    while asked.is_alive():
        jobs.inc()
        now = time.perf_counter()
        longest = max(longest, now - before)
        before = now
    return round(longest * 1000, 2)


def peer(rounds: int, folder: str | None) -> list[float]:
    """prometheus_client in a process of its own: it looks at its environment as it is imported."""
    environment = {**os.environ, "ROUNDS": str(rounds)}
    if folder is not None:
        Path(folder).mkdir()
        environment["PROMETHEUS_MULTIPROC_DIR"] = folder
        subprocess.run(
            [sys.executable, "-c", _PEER, "only-count"], env=environment, check=True, timeout=120
        )
    said = subprocess.run(
        [sys.executable, "-c", _PEER],
        env=environment,
        check=True,
        timeout=600,
        capture_output=True,
        text=True,
    )
    return [float(line) for line in said.stdout.split()]


# -- the page --------------------------------------------------------------------------------------


def page(kept: dict[str, Any]) -> str:
    ours, services = kept["gateway"], kept["service"]
    whole = ours["ms"]["together"]
    verdict = "met" if whole["median"] < BELOW_MS else "not met"
    lines = [
        "# What a scrape costs",
        "",
        "<!-- Generated by `python -m benchmarks.scrape`; edit that, not this page. -->",
        "",
        f"**{ours['samples']:,} samples of two workers are read, added up and written as text in"
        f" {whole['median']:.0f} ms of one core; the aim is under {BELOW_MS:.0f} ms for 10,000:"
        f" {verdict}.** Measured on {kept['date']}, {kept['cores']} cores, load {kept['load']},"
        f" Python {kept['python']}, {kept['rounds']} rounds; the median of processor time, with"
        " the least and the most.",
        "",
        "| of the gateway | where | ms |",
        "|---|---|---:|",
    ]
    where = {
        "snapshot": "each worker, in steps between which it serves",
        "longest step": "the longest that a request waited for one of them",
        "read": "control, both workers",
        "merge": "control",
        "text": "control, on a thread",
        "together": "",
    }
    lines += [f"| {name} | {where[name]} | {_cell(ours['ms'][name])} |" for name in where]
    lines += [
        "",
        "A service that counts 10,000 series of its own, asked for all of them:",
        "",
        "| | ms |",
        "|---|---:|",
    ]
    lines += [
        f"| {name} | {_cell(found)} |" for name, found in services.items() if name != "held_up_ms"
    ]
    lines += [
        "",
        "While another thread asked for them ten times over, counting was held up for"
        f" {services['held_up_ms']:g} ms at most by the clock. The interpreter changes threads every 5"
        " ms; what is more is the machine's other work.",
        "",
    ]
    return "\n".join(lines)


def _cell(found: dict[str, float]) -> str:
    return f"{found['median']:.1f} ({found['least']:.1f}-{found['most']:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--no-page", action="store_true", help="print, and write nothing")
    said = parser.parse_args()
    kept: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "python": ".".join(map(str, sys.version_info[:3])),
        "rounds": said.rounds,
        "gateway": gateway(said.rounds),
        "service": service(said.rounds),
    }
    text = page(kept)
    print(text)
    if not said.no_page:
        RESULTS.write_text(json.dumps(kept, indent=1) + "\n")
        PAGE.write_text(text)


if __name__ == "__main__":
    main()
