"""Instances that die, freeze, slow down and lie, under steady load: `make chaos`.

    python -m benchmarks.weather [--seconds 5] [--rate 300] [--slack 1] [--check]

Theory of operation
-------------------
Real processes throughout: a gateway, four instances (`clients.faulty_instance`), a Redis server,
and a client with a schedule of its own, so that a slow answer delays no other question. Each fault
lasts for three quarters of its phase. The same schedule is run twice: with what `policies` says,
and with nothing. Requests are GETs, which may be asked twice; with policies none may fail, since
three good instances are left at any time. `--check` ends with status 1 if one does.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.process import Server, free_port

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
INSTANCES = 4
BUCKET_S = 0.25
CLIENT_TIMEOUT_S = 5.0  # times the slack


def policies(slack: float) -> dict[str, Any]:
    """What the gateway is told; `slack` is for machines that are slow themselves."""

    def wait(milliseconds: float) -> str:
        return f"{milliseconds * slack:g}ms"

    return {
        "balance": "power_of_two",
        "health": {"path": "/ready", "every": "500ms", "timeout": wait(300), "fall": 2, "rise": 2},
        "outlier": {"errors": 3, "eject": "2s", "max_ejected": "75%"},
        "breaker": {"per": "instance", "window": "5s", "reset_after": "2s"},
        "retry": {"attempts": 4, "wait": "5ms", "when": {"status": ["5xx"]}, "budget": "30%"},
        "hedge": {"after": wait(100)},
        "timeout": {"per_try": wait(300), "connect": wait(250), "total": wait(4000)},
    }


# -- the cast --------------------------------------------------------------------------------------


class Instance:
    def __init__(self) -> None:
        self.port = free_port()
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.clients.faulty_instance", str(self.port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )
        if process.stdout is None or process.stdout.readline() != b"ready\n":
            raise RuntimeError("an instance did not start")
        return process

    def say(self, line: str) -> None:
        if self.process.stdin is not None:
            self.process.stdin.write(f"{line}\n".encode())
            self.process.stdin.flush()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        self.process = self._start()

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.kill()


class Redis:
    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._folder = folder
        self.start()

    def start(self) -> None:
        program = shutil.which("redis-server") or shutil.which("valkey-server")
        if program is None:
            raise SystemExit("redis-server is missing: apt-get install redis-server")
        options = ["--save", "", "--appendonly", "no", "--bind", "127.0.0.1"]
        self.server = Server(
            "redis",
            [program, "--port", str(self.port), *options],
            log=self._folder / "redis.log",
            port=self.port,
            cpu=None,
        )
        self.server.wait_ready()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.server.root_pid, signal.SIGKILL)
        self.server.stop()


@dataclass
class Cast:
    instances: list[Instance]
    redis: Redis


Act = Callable[[Cast], None]


@dataclass(frozen=True)
class Phase:
    title: str
    begin: Act = lambda _cast: None
    end: Act = lambda _cast: None


def _say(line: str) -> Act:
    return lambda cast: cast.instances[0].say(line)


PHASES = (
    Phase("calm"),
    Phase("killed", lambda c: c.instances[0].kill(), lambda c: c.instances[0].restart()),
    Phase("frozen", lambda c: c.instances[0].freeze(), lambda c: c.instances[0].thaw()),
    Phase("slow", _say("slow 1.5"), _say("ok")),
    Phase("500", _say("status 500"), _say("ok")),
    Phase("resetting", _say("reset"), _say("ok")),
    Phase("flapping", _say("flap 0.4"), _say("ok")),
    Phase("no Redis", lambda c: c.redis.kill(), lambda c: c.redis.start()),
    Phase("calm again"),
)


# -- the client ------------------------------------------------------------------------------------


@dataclass
class Story:
    """What became of each request: when it was due, how long it took, whether it was answered."""

    began: float = 0.0
    told: list[tuple[float, float, bool]] = field(default_factory=list)
    why: dict[str, int] = field(default_factory=dict)
    phases: list[tuple[str, float, float]] = field(default_factory=list)

    def fail(self, why: str) -> None:
        self.why[why] = self.why.get(why, 0) + 1

    @property
    def failed(self) -> int:
        return sum(not ok for _, _, ok in self.told)

    def series(self) -> dict[str, list[float]]:
        """Success rate and p99 by bucket of time."""
        buckets: dict[int, list[tuple[float, bool]]] = {}
        for due, took, ok in self.told:
            buckets.setdefault(int(due / BUCKET_S), []).append((took, ok))
        made: dict[str, list[float]] = {"at": [], "success": [], "p50": [], "p99": []}
        for number in sorted(buckets):
            rows = buckets[number]
            times = sorted(took for took, _ in rows)
            made["at"].append(number * BUCKET_S)
            made["success"].append(sum(ok for _, ok in rows) / len(rows))
            made["p50"].append(times[len(times) // 2] * 1000)
            made["p99"].append(times[max(math.ceil(len(times) * 0.99) - 1, 0)] * 1000)
        return made


class Client:
    """Asks at its own pace on kept connections; opens another when none is free."""

    def __init__(self, port: int, story: Story, slack: float) -> None:
        self._port = port
        self._timeout_s = CLIENT_TIMEOUT_S * slack
        self._story = story
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._asked: set[asyncio.Task[None]] = set()

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
        ok = False
        try:
            async with asyncio.timeout(self._timeout_s):
                ok = await self._exchange()
        except TimeoutError:
            self._story.fail("no answer")
        except (OSError, asyncio.IncompleteReadError) as error:
            self._story.fail(type(error).__name__)
        self._story.told.append((due - self._story.began, time.monotonic() - due, ok))

    async def _exchange(self) -> bool:
        if self._idle:
            reader, writer = self._idle.pop()
        else:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(b"GET /items/42 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
        except BaseException:
            writer.close()
            raise
        self._idle.append((reader, writer))
        status = head.split(b" ", 2)[1].decode()
        if status != "200":
            self._story.fail(status)
        return status == "200"


# -- one run ---------------------------------------------------------------------------------------


def document(cast: Cast, port: int, slack: float, *, with_policies: bool) -> dict[str, Any]:
    service: dict[str, Any] = {
        "instances": [f"http://127.0.0.1:{each.port}" for each in cast.instances]
    }
    made: dict[str, Any] = {
        "listeners": [f"127.0.0.1:{port}"],
        "admin": {"bind": "off"},
        "access_log": {"format": "off"},
        "workers": 2,
        "services": {"items": service},
        "routes": [{"to": "items"}],
    }
    if with_policies:
        service.update(policies(slack))
        made["limit"] = {"rate": "100000/s", "by": "ip"}
        made["state"] = f"redis://127.0.0.1:{cast.redis.port}"
    return made


async def play(cast: Cast, port: int, rate: float, phase_s: float, slack: float) -> Story:
    loop = asyncio.get_running_loop()
    story = Story(began=time.monotonic() + 0.2)
    client = Client(port, story, slack)
    total = phase_s * len(PHASES)
    asking = loop.create_task(client.run(rate, story.began + total))
    for number, phase in enumerate(PHASES):
        at = story.began + number * phase_s
        await asyncio.sleep(max(at - time.monotonic(), 0))
        await asyncio.to_thread(phase.begin, cast)
        # The last quarter of each phase is for getting well again.
        await asyncio.sleep(max(at + phase_s * 0.75 - time.monotonic(), 0))
        await asyncio.to_thread(phase.end, cast)
        story.phases.append((phase.title, at - story.began, at + phase_s * 0.75 - story.began))
    await asking
    return story


def run(folder: Path, rate: float, phase_s: float, slack: float, *, with_policies: bool) -> Story:
    cast = Cast([Instance() for _ in range(INSTANCES)], Redis(folder))
    port = free_port()
    file = folder / f"gateway-{with_policies}.yaml"
    file.write_text(json.dumps(document(cast, port, slack, with_policies=with_policies)))
    gateway = Server(
        "gateway",
        [
            sys.executable,
            *("-m", "headgate", "run", str(file)),
            *("--state-dir", str(folder / f"state-{with_policies}")),
        ],
        log=folder / f"gateway-{with_policies}.log",
        port=port,
        cpu=None,
        env={"PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT)))},
        traffic_pids=lambda pid: [pid],
    )
    try:
        gateway.wait_ready()
        return asyncio.run(play(cast, port, rate, phase_s, slack))
    finally:
        gateway.stop()
        for instance in cast.instances:
            instance.end()
        cast.redis.kill()


def table(stories: dict[str, Story]) -> str:
    lines = [
        "| phase | failed without | failed with | p99 without, ms | p99 with, ms |",
        "|---|---:|---:|---:|---:|",
    ]
    for number, phase in enumerate(PHASES):
        cells = [phase.title]
        figures: dict[str, tuple[int, float]] = {}
        for name, story in stories.items():
            _, began, _ = story.phases[number]
            after = began + (story.phases[1][1] - story.phases[0][1])
            rows = [row for row in story.told if began <= row[0] < after]
            times = sorted(took for _, took, _ in rows)
            p99 = times[max(math.ceil(len(times) * 0.99) - 1, 0)] * 1000 if times else 0.0
            figures[name] = (sum(not ok for _, _, ok in rows), p99)
        cells += [str(figures["without"][0]), str(figures["with"][0])]
        cells += [f"{figures['without'][1]:,.0f}", f"{figures['with'][1]:,.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.weather", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each phase")
    parser.add_argument("--rate", type=float, default=300.0, help="requests a second")
    parser.add_argument("--slack", type=float, default=1.0, help="times all time-outs")
    parser.add_argument("--check", action="store_true", help="only with policies; no plot")
    options = parser.parse_args()
    stories: dict[str, Story] = {}
    with tempfile.TemporaryDirectory(prefix="headgate-weather-") as name:
        for label in ("with",) if options.check else ("without", "with"):
            print(f"{label} policies: {len(PHASES)} phases of {options.seconds:g} s", flush=True)
            story = run(
                Path(name),
                options.rate,
                options.seconds,
                options.slack,
                with_policies=label == "with",
            )
            stories[label] = story
            said = ", ".join(f"{why}: {n}" for why, n in sorted(story.why.items())) or "none"
            print(f"  {len(story.told):,} requests, {story.failed:,} failed ({said})", flush=True)
    if not options.check:
        from benchmarks.plots import draw_weather

        print(table(stories))
        series = {label: story.series() for label, story in stories.items()}
        phases = stories["with"].phases
        RESULTS.mkdir(exist_ok=True)
        result = {
            "rate": options.rate,
            "phase_s": options.seconds,
            "phases": phases,
            "series": series,
            "failed": {label: story.failed for label, story in stories.items()},
            "requests": {label: len(story.told) for label, story in stories.items()},
            "table": table(stories),
        }
        (RESULTS / "weather.json").write_text(json.dumps(result, indent=1) + "\n")
        draw_weather(series, phases, ROOT / "docs" / "images" / "weather.svg")
    if stories["with"].failed:
        print(f"{stories['with'].failed} requests failed although good instances were left")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
