"""The Redis of cached responses killed, frozen, slow and cut off, under steady load.

    python -m benchmarks.cache_weather [--seconds 7] [--rate 250] [--check]

Theory of operation
-------------------
Real processes throughout: a gateway with two workers and little memory, so that most of what it
holds is in Redis; a Redis behind a proxy that can delay; an origin that takes its time; and a client
with a schedule of its own, so that a slow answer delays no other question. Each trouble lasts for
three quarters of its phase.

Meanwhile something changes at the origin twice a second, and is purged by its tag. From the
moment on that the purge has been acknowledged no answer may be older than it; and no answer may ever
be older than `max-age`. `--check` ends with status 1 if a request fails, if one answer is too old,
or if the hit ratio does not come back.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.clients.cache_origin import FRESH_S
from benchmarks.process import Server, free_port
from benchmarks.weather import Redis
from headgate.control.client import AdminClient
from headgate.control.state_dir import StateDir

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
BUCKET_S = 0.5
GROUPS = 20
PAGES = 40
ORIGIN_S = 0.02
CHANGE_S = 0.5
CLIENT_TIMEOUT_S = 20.0
"""A hang; a machine that is busy takes less."""
START_S = 60.0
CLOCK_S = 1.5
"""`Age` counts whole seconds."""
RECOVERED = 0.5
"""Of the hit ratio in the first calm. What memory alone answers is less; what chance does to a short
phase, and a busy machine to lookups that have 50 ms, is not as much."""


# -- the cast --------------------------------------------------------------------------------------


class Part:
    """A program of ours that is told what to do by lines."""

    def __init__(self, module: str, *words: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"benchmarks.clients.{module}", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )
        if self.hear() != "ready":
            raise RuntimeError(f"{module} did not start")

    def say(self, line: str) -> None:
        if self._process.stdin is not None:
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()

    def hear(self) -> str:
        out = self._process.stdout
        return out.readline().decode().strip() if out is not None else ""

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


@dataclass
class Cast:
    origin: Part
    proxy: Part
    redis: Redis

    def signal(self, signum: int) -> None:
        os.kill(self.redis.server.root_pid, signum)


Act = Callable[[Cast], None]


@dataclass(frozen=True)
class Phase:
    title: str
    begin: Act = lambda _cast: None
    end: Act = lambda _cast: None


def _delay(seconds: float) -> Act:
    return lambda cast: cast.proxy.say(f"delay {seconds}")


PHASES = (
    Phase("filling"),
    Phase("calm"),
    Phase("killed", lambda c: c.redis.kill(), lambda c: c.redis.start()),
    Phase("calm again"),
    Phase("frozen", lambda c: c.signal(signal.SIGSTOP), lambda c: c.signal(signal.SIGCONT)),
    Phase("20 ms late", _delay(0.02), _delay(0)),
    Phase("0.5 s late", _delay(0.5), _delay(0)),
    Phase("cut off", lambda c: c.proxy.say("cut")),
    Phase("calm at last"),
)


# -- the client ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asked:
    due: float
    took: float
    """From sending to the last byte; how late it was sent is `lag`."""
    ok: bool
    lag: float = 0.0
    """How late the machine let us ask: what it does to us it does to the others."""
    hit: bool = False
    late_s: float = 0.0
    """By how much the answer is older than it may be."""


@dataclass
class Story:
    began: float = 0.0
    told: list[Asked] = field(default_factory=list)
    why: Counter[str] = field(default_factory=Counter)
    phases: list[tuple[str, float, float]] = field(default_factory=list)
    changes: int = 0
    least: Counter[str] = field(default_factory=Counter)
    """By group: the version of which a purge has been acknowledged."""

    def between(self, began: float, ended: float) -> list[Asked]:
        return [row for row in self.told if began <= row.due < ended]

    def series(self) -> dict[str, list[float]]:
        """Hit ratio, median and p99 by bucket of time."""
        made: dict[str, list[float]] = {"at": [], "hits": [], "p50": [], "p99": []}
        last = max(row.due for row in self.told)
        for number in range(int(last / BUCKET_S) + 1):
            rows = self.between(number * BUCKET_S, (number + 1) * BUCKET_S)
            if rows:
                made["at"].append(number * BUCKET_S)
                made["hits"].append(sum(row.hit for row in rows) / len(rows))
                made["p50"].append(_share_of((row.took for row in rows), 0.5))
                made["p99"].append(_share_of((row.took for row in rows), 0.99))
        return made


def _share_of(seconds: Iterable[float], share: float) -> float:
    """The milliseconds that this share of them does not pass."""
    times = sorted(seconds)
    return times[min(int(len(times) * share), len(times) - 1)] * 1000 if times else 0.0


class Client:
    """Asks at its own pace on kept connections; opens another when none is free."""

    def __init__(self, port: int, story: Story, pages: int) -> None:
        self._port = port
        self._pages = pages
        self._story = story
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._asked: set[asyncio.Task[None]] = set()
        self._rng = random.Random(1)  # the same pages each time

    async def run(self, rate: float, until: float) -> None:
        loop = asyncio.get_running_loop()
        number = 0
        while (due := self._story.began + number / rate) < until:
            await asyncio.sleep(max(due - time.monotonic(), 0))
            task = loop.create_task(self._ask(due))
            self._asked.add(task)
            task.add_done_callback(self._asked.discard)
            number += 1
        if self._asked:
            await asyncio.wait(self._asked)
        for _, writer in self._idle:
            writer.close()

    async def _ask(self, due: float) -> None:
        story = self._story
        group = str(self._rng.randrange(GROUPS))
        page = self._rng.randrange(self._pages)
        least = story.least[group]
        at = due - story.began
        began = time.monotonic()
        lag = began - due
        try:
            async with asyncio.timeout(CLIENT_TIMEOUT_S):
                head, body = await self._exchange(f"/{group}/{page}")
        except (TimeoutError, OSError, asyncio.IncompleteReadError) as error:
            story.why[type(error).__name__] += 1
            story.told.append(Asked(at, time.monotonic() - began, ok=False, lag=lag))
            return
        now = time.monotonic()
        status = head.split(b" ", 2)[1].decode()
        if status != "200":
            story.why[status] += 1
            story.told.append(Asked(at, now - began, ok=False, lag=lag))
            return
        version, made, *_ = body.split(b" ")
        # By when it was asked for: what is on its way for long was no older when it was served.
        late_s = max(began - float(made) - FRESH_S - CLOCK_S, 0.0)
        if int(version) < least:
            story.why["older than a purge"] += 1
            late_s = max(late_s, now - float(made))
        hit = b"; hit" in head
        story.told.append(Asked(at, now - began, ok=True, lag=lag, hit=hit, late_s=late_s))

    async def _exchange(self, path: str) -> tuple[bytes, bytes]:
        if self._idle:
            reader, writer = self._idle.pop()
        else:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            body = await reader.readexactly(length)
        except BaseException:
            writer.close()
            raise
        self._idle.append((reader, writer))
        return head, body


async def change(cast: Cast, admin: AdminClient, story: Story, until: float) -> None:
    """Something changes, is purged, and from then on the old is too old."""
    rng = random.Random(2)

    def once() -> tuple[str, int]:
        group = str(rng.randrange(GROUPS))
        cast.origin.say(f"change {group}")
        version = int(cast.origin.hear())
        order = {"tags": [f"group-{group}"]}
        done = admin.ask("POST", "/api/cache/purge", order, timeout_s=30).content
        # A worker that has not answered acts on it later; then nothing was promised.
        return group, version if done["workers"] == done["workers_of"] else 0

    while time.monotonic() < until:
        group, version = await asyncio.to_thread(once)
        story.least[group] = max(story.least[group], version)
        story.changes += 1
        await asyncio.sleep(CHANGE_S)


# -- one run ---------------------------------------------------------------------------------------


async def play(
    cast: Cast, port: int, admin: AdminClient, rate: float, phase_s: float, pages: int
) -> Story:
    loop = asyncio.get_running_loop()
    story = Story(began=time.monotonic() + 0.2)
    until = story.began + phase_s * len(PHASES)
    asking = loop.create_task(Client(port, story, pages).run(rate, until))
    changing = loop.create_task(change(cast, admin, story, until))
    for number, phase in enumerate(PHASES):
        at = story.began + number * phase_s
        await asyncio.sleep(max(at - time.monotonic(), 0))
        await asyncio.to_thread(phase.begin, cast)
        # The last quarter of each phase is for getting well again.
        await asyncio.sleep(max(at + phase_s * 0.75 - time.monotonic(), 0))
        await asyncio.to_thread(phase.end, cast)
        story.phases.append((phase.title, at - story.began, at + phase_s * 0.75 - story.began))
    await asking
    await changing
    return story


def run(folder: Path, rate: float, phase_s: float, pages: int) -> Story:
    redis = Redis(folder)
    origin_port, proxy_port, port = free_port(), free_port(), free_port()
    origin = Part("cache_origin", str(origin_port), str(ORIGIN_S))
    proxy = Part("slow_proxy", str(proxy_port), str(redis.port))
    file, state = folder / "gateway.yaml", folder / "state"
    document = {
        "listeners": [f"127.0.0.1:{port}"],
        "admin": {"bind": "off"},
        "access_log": {"format": "off"},
        "workers": 2,
        "state": f"redis://127.0.0.1:{proxy_port}",
        "cache": True,
        "cache_store": {"memory": "1MB", "redis": True},
        "services": {"pages": f"http://127.0.0.1:{origin_port}"},
        "routes": [{"to": "pages"}],
    }
    file.write_text(json.dumps(document))
    gateway = Server(
        "gateway",
        [sys.executable, "-m", "headgate", "run", str(file), "--state-dir", str(state)],
        log=folder / "gateway.log",
        port=port,
        cpu=None,
        env={"PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT)))},
        traffic_pids=lambda pid: [pid],
    )
    cast = Cast(origin, proxy, redis)
    try:
        gateway.wait_ready(START_S)
        admin = AdminClient(StateDir(state))
        return asyncio.run(play(cast, port, admin, rate, phase_s, pages))
    finally:
        gateway.stop()
        with contextlib.suppress(ProcessLookupError):
            cast.signal(signal.SIGCONT)
        redis.kill()
        proxy.end()
        origin.end()


def phases_of(story: Story) -> dict[str, list[Asked]]:
    step = story.phases[1][1] - story.phases[0][1]
    return {title: story.between(began, began + step) for title, began, _ in story.phases}


def hit_ratio(rows: list[Asked]) -> float:
    return sum(row.hit for row in rows) / max(len(rows), 1)


def table(story: Story) -> str:
    lines = [
        "| phase | requests | failed | too old | hits | median, ms | p99, ms | p99 of the machine |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for title, rows in phases_of(story).items():
        cells = [
            title,
            f"{len(rows):,}",
            str(sum(not row.ok for row in rows)),
            str(sum(row.late_s > 0 for row in rows)),
            f"{hit_ratio(rows):.0%}",
            f"{_share_of((row.took for row in rows), 0.5):,.0f}",
            f"{_share_of((row.took for row in rows), 0.99):,.0f}",
            f"{_share_of((row.lag for row in rows), 0.99):,.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def faults_of(story: Story) -> list[str]:
    said = []
    if failed := sum(not row.ok for row in story.told):
        said.append(f"{failed} requests failed: {dict(story.why)}")
    if old := sum(row.late_s > 0 for row in story.told):
        said.append(f"{old} answers were too old, one by {max(r.late_s for r in story.told):.2f} s")
    found = phases_of(story)
    before, after = hit_ratio(found["calm"]), hit_ratio(found["calm at last"])
    if after < before * RECOVERED:
        said.append(f"the hit ratio has not come back: {before:.0%} before, {after:.0%} after")
    return said


def write_page(story: Story, rate: float, phase_s: float, load: float) -> None:
    """The part of the page that the figures are on."""
    page = DOCS / "cache-weather.md"
    text = page.read_text()
    before, _, rest = text.partition("<!-- figures -->\n")
    _, _, after = rest.partition("<!-- end of figures -->\n")
    day = time.strftime("%Y-%m-%d")
    said = (
        f"Of {day}: {rate:g} requests a second, phases of {phase_s:g} s, {len(story.told):,} "
        f"requests,\n{story.changes} purges. {os.cpu_count()} cores, niceness {os.nice(0)} throughout; "
        f"before it the machine had a\nload of {load:.1f} from other work. Times are from sending "
        "a request to the last byte of its answer.\n\n"
        f"{table(story)}\n"
    )
    page.write_text(f"{before}<!-- figures -->\n{said}<!-- end of figures -->\n{after}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cache_weather", description=__doc__)
    parser.add_argument("--seconds", type=float, default=7.0, help="of each phase")
    parser.add_argument("--rate", type=float, default=250.0, help="requests a second")
    parser.add_argument("--pages", type=int, default=PAGES, help="in each of the groups")
    parser.add_argument("--check", action="store_true", help="no plot and no page")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="headgate-cache-weather-") as name:
        story = run(Path(name), options.rate, options.seconds, options.pages)
    print(table(story))
    failed = sum(not row.ok for row in story.told)
    old = sum(row.late_s > 0 for row in story.told)
    print(f"{len(story.told):,} requests, {failed} failed, {old} too old, {story.changes} purges")
    if not options.check:
        from benchmarks.plots import draw_cache_weather

        draw_cache_weather(story.series(), story.phases, DOCS / "images" / "cache-weather.svg")
        write_page(story, options.rate, options.seconds, load)
    faults = faults_of(story)
    for fault in faults:
        print(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
