"""A real Prometheus with made-up series, and the same series as a `Source`."""

from __future__ import annotations

import json
import random
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from headgate.observe.query import Matcher, Series

BASE = 1_700_000_000
LONG_S = 3600


class Table:
    """Series in memory."""

    def __init__(self, series: Sequence[Series]) -> None:
        self.series = list(series)

    def select(
        self, name: str, matchers: Sequence[Matcher], start: float, end: float
    ) -> Sequence[Series]:
        found = []
        for one in self.series:
            if name and one.labels["__name__"] != name:
                continue
            if all(matcher.is_met(one.labels) for matcher in matchers):
                kept = (one.times >= start) & (one.times <= end)
                if kept.any():
                    found.append(Series(one.labels, one.times[kept], one.values[kept]))
        return found


def made_up(seed: int = 7) -> Table:
    """Counters that restart, gauges with gaps, histograms; some regular, some not.

    No two counters ever stand alike, and all numbers are whole parts of 1024: sums of them are
    exact, in whichever order they are added, so no answer hangs on how a sum was rounded.
    """
    rng = random.Random(seed)
    found: list[Series] = []

    def add(labels: Mapping[str, str], every_s: int, value: Any, *, gaps: bool = False) -> None:
        times, values = [], []
        at = BASE + rng.randrange(every_s)
        is_away = False
        while at <= BASE + LONG_S:
            if gaps and rng.random() < 0.02:
                is_away = not is_away
            number = value()
            if not is_away:
                times.append(float(at))
                values.append(float(number))
            at += every_s if not gaps else rng.randint(1, 2 * every_s)
        found.append(Series(dict(labels), np.array(times), np.array(values)))

    def counter(step: float, restarts: float, begins: float) -> Any:
        total = begins

        def value() -> float:
            nonlocal total
            total = (
                begins if rng.random() < restarts else total + rng.choice((0, 0, step, 2.5 * step))
            )
            return total

        return value

    def gauge(size: float) -> Any:
        now = 0.0

        def value() -> float:
            nonlocal now
            now += round(rng.uniform(-size, size) * 1024) / 1024
            return now

        return value

    for at, route in enumerate("abc"):
        for code in ("200", "500"):
            begins = (2 * at + (code == "500")) / 16
            labels = {"__name__": "requests_total", "route": route, "code": code}
            add(labels, 15, counter(7, 0.02, begins), gaps=route == "c")
    for route in "ab":
        add({"__name__": "load", "route": route, "zone": "z" + route}, 15, gauge(3), gaps=True)
    add({"__name__": "level", "route": "a"}, 60, gauge(1))
    add({"__name__": "info", "route": "a", "version": "1"}, 30, lambda: 1)
    add({"__name__": "info", "route": "b", "version": "2"}, 30, lambda: 1)
    add({"__name__": "single"}, 30, lambda: 3)
    for route in "ab":
        seed_here = rng.random()
        for bound, share in (("0.1", 0.3), ("0.5", 0.7), ("1", 0.9), ("+Inf", 1.0)):
            rng_here = random.Random(seed_here)
            total = [0]

            def value(
                share: float = share, rng_here: Any = rng_here, total: list[int] = total
            ) -> float:
                total[0] += int(rng_here.randrange(100) * share)
                return total[0]

            add({"__name__": "took_bucket", "route": route, "le": bound}, 15, value)
    return Table(found)


def _open_metrics(table: Table) -> str:
    lines = []
    for one in table.series:
        said = ",".join(f'{n}="{v}"' for n, v in one.labels.items() if n != "__name__")
        head = f"{one.labels['__name__']}{{{said}}}" if said else one.labels["__name__"]
        lines += [
            f"{head} {value!r} {at:.3f}"
            for at, value in zip(one.times.tolist(), one.values.tolist(), strict=True)
        ]
    return "\n".join([*lines, "# EOF\n"])


class Prometheus:
    def __init__(self, port: int, version: int) -> None:
        self._port = port
        self.version = version

    def ask(self, path: str, **fields: Any) -> Any:
        url = f"http://127.0.0.1:{self._port}/api/v1/{path}?{urllib.parse.urlencode(fields)}"
        try:
            with urllib.request.urlopen(url, timeout=20) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return json.load(error)


@contextmanager
def running(table: Table, folder: Path) -> Iterator[Prometheus]:
    """A Prometheus that holds the table, and scrapes nothing."""
    (folder / "in.txt").write_text(_open_metrics(table))
    (folder / "prometheus.yml").write_text("global: {}\n")
    subprocess.run(
        ["promtool", "tsdb", "create-blocks-from", "openmetrics", "in.txt", "data"],
        cwd=folder,
        check=True,
        capture_output=True,
        timeout=60,
    )
    said = subprocess.run(
        ["prometheus", "--version"], check=True, capture_output=True, text=True, timeout=20
    )
    version = int((said.stdout or said.stderr).split("version ")[1].split(".")[0])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [
            "prometheus",
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=data",
            "--storage.tsdb.retention.time=100y",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(300):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=5):
                    break
            except OSError:
                time.sleep(0.1)
        yield Prometheus(port, version)
    finally:
        process.terminate()
        process.wait(20)
