"""What the start of a gateway costs: `python -m benchmarks.start`.

`headgate run` of a small file with two workers, several times, and the medians: the time until it
is ready and until the admin API answers, the processor time that each process took until then, what
is used in the seconds after, and the memory of each process. The command and the supervisor are one
process, one after the other: what it used before it became the supervisor counts as the command's.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.run import RESULTS
from headgate.control.client import AdminClient
from headgate.control.state_dir import StateDir
from headgate.errors import HeadgateError

_POLL_S = 0.005
_PATIENCE_S = 120.0
_SETTLE_S = 6.0
_MEGABYTE = 1024 * 1024
_COMMAND, _SUPERVISOR = "command", "supervisor"


def config(port: int, workers: int) -> dict[str, Any]:
    """A file as small as a useful one is."""
    return {
        "listeners": [{"bind": f"127.0.0.1:{port}"}],
        "admin": {"bind": "off"},
        "workers": workers,
        "access_log": {"format": "off"},
        "services": {"users": {"instances": ["http://127.0.0.1:9"]}},
        "routes": [{"match": {"path": "/users/"}, "to": "users", "limit": "100/s"}],
    }


class Watched:
    """One gateway from its first instruction on."""

    def __init__(self, folder: Path, workers: int) -> None:
        self.folder = folder
        self.workers = workers
        self.began = time.monotonic()
        self._log = (folder / "log").open("wb+")
        self.process = subprocess.Popen(
            [str(Path(sys.executable).with_name("headgate")), "run", "headgate.yaml"],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stderr=self._log,
            start_new_session=True,
        )
        self.command_s = 0.0
        self._is_supervisor = False

    @property
    def _said(self) -> str:
        return (self.folder / "log").read_text()

    def _look(self) -> None:
        if self.process.poll() is not None:
            raise SystemExit(f"the gateway ended:\n{self._said}")
        if self._is_supervisor:
            return
        used = machine.cpu_seconds([self.process.pid])
        if "headgate.control.supervisor" in machine.command_line(self.process.pid):
            self._is_supervisor = True
        else:
            self.command_s = used

    def until(self, found: Any) -> float:
        """Seconds from the start until `found()` is true."""
        while not found():
            self._look()
            if time.monotonic() - self.began > _PATIENCE_S:
                raise SystemExit(f"not ready in {_PATIENCE_S:g} s:\n{self._said}")
            time.sleep(_POLL_S)
        return time.monotonic() - self.began

    def is_ready(self) -> bool:
        return "ready: " in self._said

    def is_administered(self) -> bool:
        try:
            health = AdminClient(StateDir(self.folder / ".headgate")).ask("GET", "/api/health")
        except (HeadgateError, OSError):
            return False
        return bool(health.content.get("workers_ready") == self.workers)

    def _family(self) -> Iterator[tuple[str, int]]:
        """Each process with the name that it goes by."""
        yield _SUPERVISOR, self.process.pid
        for pid in machine.descendants(self.process.pid):
            yield machine.name(pid), pid

    def processor(self) -> dict[str, float]:
        """Processor seconds by process; "ended" is what those that have ended took."""
        used = {name: machine.cpu_seconds([pid]) for name, pid in self._family()}
        used[_SUPERVISOR] -= self.command_s
        used[_COMMAND] = self.command_s
        used["ended"] = ended_seconds([pid for _, pid in self._family()])
        used["all"] = sum(used.values())
        return used

    def memory(self) -> dict[str, tuple[float, float]]:
        """RSS and PSS in MB by process."""
        found = {}
        for name, pid in self._family():
            held = machine.memory([pid])
            found[name] = (held.rss_bytes / _MEGABYTE, held.pss_bytes / _MEGABYTE)
        held = machine.memory([pid for _, pid in self._family()])
        found["all"] = (held.rss_bytes / _MEGABYTE, held.pss_bytes / _MEGABYTE)
        return found

    def stop(self) -> None:
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._log.close()


def ended_seconds(pids: Iterable[int]) -> float:
    """What children that these have reaped used."""
    ticks = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += int(fields[13]) + int(fields[14])
    return ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def watched(workers: int) -> Iterator[Watched]:
    with tempfile.TemporaryDirectory(prefix="headgate-start-") as name:
        folder = Path(name)
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
        (folder / "headgate.yaml").write_text(json.dumps(config(port, workers)))
        gateway = Watched(folder, workers)
        try:
            yield gateway
        finally:
            gateway.stop()


def once(workers: int) -> dict[str, Any]:
    with watched(workers) as gateway:
        ready_s = gateway.until(gateway.is_ready)
        administered_s = gateway.until(gateway.is_administered)
        until_ready = gateway.processor()
        time.sleep(_SETTLE_S)
        return {
            "ready_s": ready_s,
            "administered_s": administered_s,
            "processor_s": until_ready,
            "settled_s": gateway.processor(),
            "memory_mb": gateway.memory(),
        }


def median_of(runs: list[dict[str, Any]]) -> dict[str, Any]:
    def of(key: str, name: str, place: int | None = None) -> float:
        values = [run[key].get(name, 0.0) for run in runs]
        if place is not None:
            values = [value[place] if value else 0.0 for value in values]
        return float(statistics.median(values))

    return {
        "ready_s": statistics.median(run["ready_s"] for run in runs),
        "administered_s": statistics.median(run["administered_s"] for run in runs),
        "processor_s": {name: of("processor_s", name) for name in runs[0]["processor_s"]},
        "settled_s": {name: of("settled_s", name) for name in runs[0]["settled_s"]},
        "memory_mb": {
            name: (of("memory_mb", name, 0), of("memory_mb", name, 1))
            for name in runs[0]["memory_mb"]
        },
    }


def show(found: dict[str, Any]) -> None:
    print(
        f"ready after {found['ready_s']:.2f} s, administered after {found['administered_s']:.2f} s"
    )
    print(f"{'':<16}{'CPU s to then':>14}{'CPU s settled':>14}{'RSS MB':>9}{'PSS MB':>9}")
    for name in found["settled_s"]:
        rss, pss = found["memory_mb"].get(name, (0.0, 0.0))
        memory = f"{rss:9.1f}{pss:9.1f}" if rss else ""
        then = found["processor_s"].get(name, 0.0)
        print(f"{name:<16}{then:14.2f}{found['settled_s'][name]:14.2f}{memory}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--save", action="store_true", help="write results/start.json")
    options = parser.parse_args()
    found = median_of([once(options.workers) for _ in range(options.runs)])
    show(found)
    if options.save:
        body = {"machine": machine.describe(), "workers": options.workers, **found}
        (RESULTS / "start.json").write_text(json.dumps(body, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
