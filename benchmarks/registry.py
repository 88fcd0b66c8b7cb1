"""What the registry costs, and how it grows: processor a beat and a change, bytes a change, and the
time until the last watcher has it.

    python -m benchmarks.registry [--no-page]
    python -m benchmarks.registry --control http://127.0.0.1:9900 --token TOKEN [--watchers 200]

Theory of operation. The book is pure, so its time is ours: a minute of a registry of 10,000 passes as
quickly as it is computed, and what is measured is the processor time of one thread for it. Services
have ten instances each. Sizes are those of what a watcher is sent: one event of the stream a change.

The delay is measured through a control that runs, with watchers on its streams: from the moment a
change is asked for to the moment the last watcher has it. The first form starts a gateway for that,
and fills its registry first; the second asks one that runs.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import gc
import json
import os
import random
import resource
import shutil
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.process import Server, free_port
from headgate.mesh.registry.book import Asked, Book, Held
from headgate.mesh.registry.model import Change
from headgate.mesh.registry.store_redis import RedisHome
from headgate.mesh.registry.store_sqlite import SqliteStore
from headgate.policy.registering import RegistryRules

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "registry.json"
PAGE = ROOT / "docs" / "registry.md"
PLOT = ROOT / "docs" / "images" / "registry.svg"
BEGIN = "<!-- table: written by benchmarks.registry -->"
END = "<!-- end of table -->"
SIZES = (100, 300, 1000, 2000, 5000, 10_000)
WATCHERS = (50, 200, 500, 1000, 2000)
LISTED = 2000
"""Instances of 200 services that the registry of the delays has."""
CHANGES = 40
TOKEN = "registry-benchmark-token-of-a-service"
A_SERVICE = 10
TTL_S = 30.0
WALL = 1_800_000_000.0
RULES = RegistryRules(max_instances=50_000, max_services=5_000)


def asked(number: int) -> Asked:
    return Asked(
        f"service-{number // A_SERVICE}",
        f"i-{number}",
        f"http://10.{number >> 16}.{number >> 8 & 255}.{number & 255}:8080",
        zone=f"zone-{number % 3}",
        version="2026.11.1",
        metadata={"commit": "8c21f0a", "pod": f"service-{number}"},
    )


def event(epoch: str, change: Change) -> bytes:
    """As a watcher is sent it."""
    said = json.dumps(change.to_json(), separators=(",", ":"))
    return f"id: {epoch}-{change.revision}\nevent: change\ndata: {said}\n\n".encode()


def cpu_us(act: Callable[[], object], times: int) -> float:
    gc.collect()
    began = time.thread_time()
    act()
    return (time.thread_time() - began) / times * 1e6


class Filled:
    """A book of so many instances, and who holds what."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.told = 0
        self.book = Book("bench", RULES, self._on_change)
        self.now = 0.0
        self.held: list[Held] = []
        self.register_us = cpu_us(self._fill, count)

    def _on_change(self, changes: Sequence[Change]) -> None:
        self.told += len(changes)

    @property
    def wall(self) -> float:
        return WALL + self.now

    def _fill(self) -> None:
        for number in range(self.count):
            self.held.append(self.book.register(asked(number), self.now, self.wall))

    def beat(self, number: int) -> None:
        held = self.held[number]
        at = held.instance
        self.book.beat(at.service, at.id, held.fence, self.now, self.wall)

    def churn(self, number: int) -> None:
        """One goes at once, and comes again: two changes."""
        held = self.held[number]
        at = held.instance
        self.book.leave(at.service, at.id, held.fence, 0, self.now, self.wall)
        self.held[number] = self.book.register(asked(number), self.now, self.wall)

    def beats_us(self) -> float:
        turns = max(1, 50_000 // self.count)

        def act() -> None:
            for _ in range(turns):
                for number in range(self.count):
                    self.beat(number)

        return cpu_us(act, turns * self.count)

    def change_us(self) -> float:
        rng = random.Random(1)
        chosen = [rng.randrange(self.count) for _ in range(3000)]

        def act() -> None:
            for number in chosen:
                self.churn(number)

        return cpu_us(act, 2 * len(chosen))

    def idle_turn_us(self) -> float:
        self.book.turn(self.now, self.wall)

        def act() -> None:
            for _ in range(2000):
                self.book.turn(self.now, self.wall)

        return cpu_us(act, 2000)

    def minute(self, changes_a_second: float) -> float:
        """The share of one core that a minute of beats, turns and churn takes."""
        rng = random.Random(2)
        every_s = TTL_S / 3
        due = [rng.random() * every_s for _ in range(self.count)]
        slots: dict[int, list[int]] = {}
        for number, at in enumerate(due):
            while at < 60:
                slots.setdefault(int(at * 4), []).append(number)
                at += every_s * rng.uniform(0.8, 1.0)
        churn = [0] * 240
        for _ in range(int(changes_a_second * 60 / 2)):
            churn[rng.randrange(240)] += 1
        start = self.now

        def act() -> None:
            for slot in range(240):
                self.now = start + slot / 4
                for number in slots.get(slot, ()):
                    self.beat(number)
                for _ in range(churn[slot]):
                    self.churn(rng.randrange(self.count))
                self.book.turn(self.now, self.wall)

        return cpu_us(act, 1) / 60e6

    def cut_off_ms(self) -> tuple[float, float, float]:
        """Nobody is heard any more, and then everybody: the longest turn, all of them, and all up
        again.
        """
        self.now += TTL_S + 1
        turns = [cpu_us(lambda: self.book.turn(self.now, self.wall), 1) / 1000]
        while self.book.statistics().suspect < self.count:
            turns.append(cpu_us(lambda: self.book.turn(self.now, self.wall), 1) / 1000)
        longest, down = max(turns), sum(turns)

        def act() -> None:
            for number in range(self.count):
                self.beat(number)

        up = cpu_us(act, 1) / 1000
        return longest, down, up


def memory_kb(count: int) -> float:
    """A lease and what is listed of it, without its changes."""
    gc.collect()
    tracemalloc.start()
    book = Book("bench", RegistryRules(max_instances=50_000, max_services=5_000, changes_kept=1))
    for number in range(count):
        book.register(asked(number), 0.0, WALL)
    gc.collect()
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return used / count / 1024


def grown(count: int) -> dict[str, Any]:
    it = Filled(count)
    row: dict[str, Any] = {"instances": count, "services": -(-count // A_SERVICE)}
    row["register_us"] = it.register_us
    row["beat_us"] = it.beats_us()
    row["idle_turn_us"] = it.idle_turn_us()
    row["change_us"] = it.change_us()
    row["share_calm"] = it.minute(0)
    # As when everything is rolled out anew every ten minutes.
    row["churn_a_second"] = 2 * count / 600
    row["share_churning"] = it.minute(row["churn_a_second"])
    changes = it.book.history(most=200)
    row["bytes_a_change"] = statistics.fmean(len(event("a1b2c3d4", each)) for each in changes)
    row["event_us"] = cpu_us(lambda: [event("a1b2c3d4", each) for each in changes], len(changes))
    epoch, revision, listed = it.book.all()
    whole = json.dumps({"epoch": epoch, "revision": revision, "all": [e.to_json() for e in listed]})
    row["bytes_all"] = len(whole)
    row["longest_ms"], row["suspect_ms"], row["heard_ms"] = it.cut_off_ms()
    return row


def kept(count: int) -> dict[str, float]:
    """The home in a file: writing a change, writing a hundred, starting with all."""
    folder = Path(tempfile.mkdtemp(prefix="registry-"))
    try:
        it = Filled(count)
        store = SqliteStore(folder / "registry.sqlite", RULES)
        store.open()
        store.write(it.book.take_unsaved())
        times: dict[str, float] = {}
        for changes in (1, 100):
            took = []
            for turn in range(40):
                for number in range(changes // 2 or 1):
                    it.churn((turn * 97 + number) % count)
                began = time.perf_counter()
                store.write(it.book.take_unsaved())
                took.append(time.perf_counter() - began)
            times[f"write_{changes}_ms"] = statistics.median(took) * 1000
        store.close(it.book.take_unsaved())
        began = time.perf_counter()
        again = Book("again", RULES)
        second = SqliteStore(folder / "registry.sqlite", RULES)
        again.restore(second.open(), 0.0, WALL)
        times["start_ms"] = (time.perf_counter() - began) * 1000
        second.close()
        times["file_bytes"] = (folder / "registry.sqlite").stat().st_size
        return times
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def between(url: str, count: int) -> dict[str, float]:
    """Two controls: from asking one to the other's knowing, and what a beat takes."""
    first, second = Book("first", RULES), Book("second", RULES)
    homes = [RedisHome(url, book) for book in (first, second)]
    for home in homes:
        await home.start()
        if home.away:
            raise SystemExit(f"{home.place}: {home.away}")
    told: list[float] = []
    seen: list[float] = []
    try:
        for number in range(count):
            heard = asyncio.Event()
            second.on_change = lambda _, heard=heard: heard.set()
            began = time.perf_counter()
            await homes[0].register(asked(number))
            told.append(time.perf_counter() - began)
            await heard.wait()
            seen.append(time.perf_counter() - began)
        held = await homes[0].register(asked(0))
        at = held.instance
        began = time.perf_counter()
        for _ in range(5000):
            await homes[0].beat(at.service, at.id, held.fence)
        beat_us = (time.perf_counter() - began) / 5000 * 1e6
    finally:
        for home in homes:
            await home.close()
    told.sort()
    seen.sort()
    middle, late = count // 2, int(count * 0.99)
    return {
        "register_ms": told[middle] * 1000,
        "register_p99_ms": told[late] * 1000,
        "elsewhere_ms": seen[middle] * 1000,
        "elsewhere_p99_ms": seen[late] * 1000,
        "beat_us": beat_us,
    }


def shared() -> dict[str, float]:
    """The home in a Redis, on this machine."""
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        return {}
    folder = Path(tempfile.mkdtemp(prefix="registry-"))
    port = free_port()
    words = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    server = Server("redis", [program, *words], log=folder / "redis.log", port=port, cpu=None)
    try:
        server.wait_ready(30)
        return asyncio.run(between(f"redis://127.0.0.1:{port}/0", 2000))
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def reached(watchers: Sequence[int] = WATCHERS) -> list[dict[str, float]]:
    """A gateway of our own with a full registry: until the last of so many watchers has a change."""
    folder = Path(tempfile.mkdtemp(prefix="registry-"))
    port = free_port()
    config = {
        "listeners": [f"127.0.0.1:{free_port()}"],
        "admin": {
            "bind": f"127.0.0.1:{port}",
            "tokens": [{"name": "bench", "role": "service", "token": TOKEN}],
            "rate": "100000/s",
        },
        "workers": 1,
        "history": "off",
        "alerts": "off",
        "tracing": "off",
        "registry": {"ttl": "1h"},
        "routes": [{"match": {"path": "/"}, "respond": {"body": "one"}}],
    }
    file = folder / "headgate.yaml"
    file.write_text(json.dumps(config))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    command = [sys.executable, "-m", "headgate", "run", str(file)]
    server = Server("headgate", command, log=folder / "headgate.log", port=port, cpu=None)
    url = f"http://127.0.0.1:{port}"
    try:
        server.wait_ready(60)
        asyncio.run(fill(url, LISTED))
        rows = []
        for count in watchers:
            took = sorted(asyncio.run(delays(url, TOKEN, count, CHANGES)))
            rows.append(
                {
                    "watchers": count,
                    "median_ms": took[len(took) // 2] * 1000,
                    "worst_ms": took[-1] * 1000,
                }
            )
        return rows
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


async def fill(url: str, count: int) -> None:
    """Register so many instances, a few at a time."""
    import httpx

    heads = {"authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(base_url=url, headers=heads, timeout=30) as client:
        while (await client.get("/api/registry/services")).status_code == 503:
            await asyncio.sleep(0.1)
        numbers = iter(range(count))

        async def some() -> None:
            for number in numbers:
                one = asked(number)
                path = f"/api/registry/services/{one.service}/instances/{one.id}"
                body = {"url": one.url, "zone": one.zone, "metadata": dict(one.metadata)}
                (await client.put(path, json=body)).raise_for_status()

        await asyncio.gather(*[some() for _ in range(8)])


def measure() -> dict[str, Any]:
    return {
        "date": datetime.date.today().isoformat(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "rows": [grown(count) for count in SIZES],
        "memory_kb": memory_kb(2000),
        "shared": shared(),
        "reached": reached(),
        "kept": {str(count): kept(count) for count in (2000, 10_000)},
    }


def _reached_lines(rows: Sequence[dict[str, float]]) -> list[str]:
    lines = [
        "",
        f"Through a control process that lists {LISTED:,} instances of {LISTED // A_SERVICE} services, "
        "from asking for a change to the last watcher's having it:",
        "",
        "| watchers | " + " | ".join(f"{row['watchers']:,}" for row in rows) + " |",
        "|---|" + "---:|" * len(rows),
    ]
    for title, name in (("median, ms", "median_ms"), ("worst, ms", "worst_ms")):
        lines.append(f"| {title} | " + " | ".join(f"{row[name]:.0f}" for row in rows) + " |")
    return lines


def table(found: dict[str, Any]) -> str:
    rows = found["rows"]
    lines = [
        f"Of {found['date']}, {found['cores']} cores, load {found['load']}; processor time of one "
        f"thread. Ten instances a service, a ttl of {TTL_S:g} s.",
        "",
        "| | " + " | ".join(f"{row['instances']:,}" for row in rows) + " |",
        "|---|" + "---:|" * len(rows),
    ]

    def line(title: str, name: str, form: str, times: float = 1.0) -> None:
        cells = " | ".join(format(row[name] * times, form) for row in rows)
        lines.append(f"| {title} | {cells} |")

    line("a beat, µs", "beat_us", ".2f")
    line("a change, µs", "change_us", ".0f")
    line("a turn with nothing to do, µs", "idle_turn_us", ".2f")
    line("a change as an event: make it, µs (once, whoever watches)", "event_us", ".0f")
    line("a change as an event: bytes to each watcher", "bytes_a_change", ".0f")
    line("all, for who begins to watch everything: KB", "bytes_all", ".0f", 1 / 1024)
    line("calm: share of a core, %", "share_calm", ".2f", 100)
    line("changes a second when all is rolled out in 10 minutes", "churn_a_second", ".1f")
    line("the same: share of a core, %", "share_churning", ".2f", 100)
    line("nobody is heard: all suspect, ms", "suspect_ms", ".0f")
    line("of that the longest turn (of at most 1,000), ms", "longest_ms", ".0f")
    line("all are heard again, ms", "heard_ms", ".0f")
    lines += [
        "",
        f"An instance takes {found['memory_kb']:.1f} KB of memory. In the file, on its own thread:",
        "",
        "| | " + " | ".join(f"{int(count):,}" for count in found["kept"]) + " |",
        "|---|" + "---:|" * len(found["kept"]),
    ]
    for title, name, times in (
        ("write one change, ms", "write_1_ms", 1.0),
        ("write a hundred at once, ms", "write_100_ms", 1.0),
        ("start with all, ms", "start_ms", 1.0),
        ("the file, MB", "file_bytes", 1e-6),
    ):
        cells = " | ".join(f"{each[name] * times:.1f}" for each in found["kept"].values())
        lines.append(f"| {title} | {cells} |")
    redis = found["shared"]
    if redis:
        lines += [
            "",
            f"With a Redis on this machine a registration is answered after "
            f"{redis['register_ms']:.1f} ms (99 % within {redis['register_p99_ms']:.1f}), and known "
            f"to another control after {redis['elsewhere_ms']:.1f} ms (99 % within "
            f"{redis['elsewhere_p99_ms']:.1f}). A beat takes {redis['beat_us']:.1f} µs, since Redis "
            "is told of many at once.",
        ]
    if found.get("reached"):
        lines += _reached_lines(found["reached"])
    return "\n".join([*lines, "", ""])


def draw(found: dict[str, Any]) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "headgate"
    mpl.rcParams["svg.fonttype"] = "path"
    mpl.rcParams["font.size"] = 8
    from matplotlib import pyplot as plt

    rows = found["rows"]
    counts = [row["instances"] for row in rows]
    figure, (left, middle, right, last) = plt.subplots(1, 4, figsize=(12.5, 3.0))
    left.plot(counts, [row["change_us"] for row in rows], "o-", color="#d1495b", label="a change")
    left.plot(counts, [row["event_us"] for row in rows], "o-", color="#7a4fa3", label="its event")
    left.plot(counts, [row["beat_us"] for row in rows], "o-", color="#2e6f9e", label="a beat")
    left.set_ylabel("µs of a core")
    left.set_yscale("log")
    left.legend(frameon=False)
    middle.plot(counts, [100 * row["share_calm"] for row in rows], "o-", color="#2e6f9e",
                label="calm")  # fmt: skip
    middle.plot(counts, [100 * row["share_churning"] for row in rows], "o-", color="#d1495b",
                label="rolled out in 10 minutes")  # fmt: skip
    middle.set_ylabel("% of a core")
    middle.set_ylim(bottom=0)
    middle.legend(frameon=False)
    right.plot(counts, [row["bytes_a_change"] for row in rows], "o-", color="#d1495b",
               label="a change")  # fmt: skip
    right.plot(counts, [row["bytes_all"] for row in rows], "o-", color="#3f7d4e", label="all")
    right.set_ylabel("bytes to a watcher")
    right.set_yscale("log")
    right.legend(frameon=False)
    reached_by = [row["watchers"] for row in found["reached"]]
    for name, color in (("median", "#2e6f9e"), ("worst", "#d1495b")):
        took = [row[f"{name}_ms"] for row in found["reached"]]
        last.plot(reached_by, took, "o-", color=color, label=name)
    last.set_ylabel("ms until the last watcher has a change")
    last.set_yscale("log")
    last.legend(frameon=False)
    last.set_xlabel("watchers")
    for axes in (left, middle, right):
        axes.set_xlabel("instances")
    for axes in (left, middle, right, last):
        axes.set_xscale("log")
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(PLOT, metadata={"Date": None, "Creator": None})
    plt.close(figure)


# ---- through a control that runs


class Watcher(asyncio.Protocol):
    """A stream, read with as little work as can be: what is measured is the other side."""

    def __init__(self, heads: bytes, heard: Callable[[], None]) -> None:
        self._heads = heads
        self._heard = heard
        self._tail = b""
        self.needle = b"event: all"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        transport.write(self._heads)  # type: ignore[attr-defined]  # a transport of a stream

    def data_received(self, data: bytes) -> None:
        found = self._tail + data
        self._tail = found[-40:]
        if self.needle and self.needle in found:
            self.needle = b""
            self._heard()


async def delays(url: str, token: str, watchers: int, changes: int) -> list[float]:
    """Seconds from asking for a change to the last watcher's having it."""
    import httpx

    place = httpx.URL(url)
    said = (
        f"GET /api/registry/watch?services=bench HTTP/1.1\r\nHost: {place.netloc.decode()}\r\n"
        f"Authorization: Bearer {token}\r\nAccept: text/event-stream\r\n\r\n"
    )
    left = watchers
    everybody = asyncio.Event()

    def heard() -> None:
        nonlocal left
        left -= 1
        if not left:
            everybody.set()

    async def all_have_heard() -> None:
        async with asyncio.timeout(20):
            await everybody.wait()

    loop = asyncio.get_running_loop()
    found: list[Watcher] = []
    times = []
    try:
        for _ in range(watchers):
            _, one = await loop.create_connection(
                lambda: Watcher(said.encode(), heard), place.host, place.port or 80
            )
            found.append(one)
        await all_have_heard()
        heads = {"authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(base_url=url, headers=heads, timeout=30) as client:
            for number in range(changes):
                left = watchers
                everybody.clear()
                for one in found:
                    one.needle = b'"number-%d"' % number
                body = {"url": "http://127.0.0.1:1", "metadata": {"n": f"number-{number}"}}
                began = time.perf_counter()
                path = "/api/registry/services/bench/instances/i"
                answer = asyncio.create_task(client.put(path, json=body))
                await all_have_heard()
                times.append(time.perf_counter() - began)
                (await answer).raise_for_status()
    finally:
        for one in found:
            one.transport.close()
    return times


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--no-page", action="store_true")
    options.add_argument("--control")
    options.add_argument("--token", default="")
    options.add_argument("--watchers", type=int, default=200)
    options.add_argument("--changes", type=int, default=50)
    chosen = options.parse_args()
    if chosen.control:
        found = sorted(
            asyncio.run(delays(chosen.control, chosen.token, chosen.watchers, chosen.changes))
        )
        middle, worst = found[len(found) // 2] * 1000, found[-1] * 1000
        print(
            f"{chosen.watchers} watchers: median {middle:.1f} ms, worst {worst:.1f} ms to the last"
        )
        return
    measured = measure()
    said = table(measured)
    print(said)
    if chosen.no_page:
        return
    RESULTS.write_text(json.dumps(measured, indent=1) + "\n")
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{said}{END}{after}")
    draw(measured)


if __name__ == "__main__":
    main()
