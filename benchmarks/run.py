"""Measure all peers and write the report: `python -m benchmarks.run` (what `make bench` does).

Theory of operation
-------------------
For each scenario every peer is started, each with a config of its own, all pinned to the proxy's
core; only one at a time is given load, the others sleep. Then the rounds are interleaved: in every
round each peer is measured once, in an order that moves by one from round to round. Ratios are
taken within a round and the median of those is reported, because on a shared or virtual machine
the clock itself drifts by tens of per cent in minutes: two peers measured within seconds of each
other can be compared, two that were measured minutes apart cannot.

A fixed amount of pure computation is timed on the proxy's core before every round; its spread
says how steady the machine was.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import machine
from benchmarks.clients.wrk import ClientFailed
from benchmarks.credentials import make_credentials
from benchmarks.machine import Cores
from benchmarks.peers import PEERS, Peer
from benchmarks.process import Server, free_port
from benchmarks.scenarios import SCENARIOS, Ground, Scenario, Target
from benchmarks.spec import Measurement, ProxySpec, Site
from benchmarks.upstream import Upstream

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
DIRECT = "direct"


@dataclass(frozen=True, slots=True)
class Stage:
    """The upstream and all that proxies need to be started before it."""

    ground: Ground
    site: Site
    "Of no proxy yet: `site_for` gives it a folder and a port."

    def site_for(self, name: str) -> Site:
        """A fresh folder and port."""
        folder = self.ground.folder / f"{name}-{time.monotonic_ns()}"
        folder.mkdir()
        return replace(self.site, folder=folder, port=free_port())

    def start(self, peer: Peer, spec: ProxySpec) -> Server:
        """Start a peer and wait until it answers."""
        server = peer.start(spec, self.site_for(peer.name))
        try:
            server.wait_ready()
        except BaseException:
            server.stop()
            raise
        return server


@contextlib.contextmanager
def stage(seconds: float) -> Iterator[Stage]:
    """Set up a temporary folder, credentials and the upstream; take all of it down again."""
    machine.raise_file_limit()
    cores = Cores.pick()
    # Ourselves and the children that are not pinned elsewhere (supervisor and control among them).
    os.sched_setaffinity(0, {cores.client, cores.upstream})
    folder = Path(tempfile.mkdtemp(prefix="headgate-bench-"))
    upstream: Upstream | None = None
    try:
        secrets = make_credentials(folder)
        tokens_file = folder / "tokens.txt"
        tokens_file.write_text("\n".join(secrets.tokens) + "\n")
        upstream = Upstream(folder / "upstream", cores.upstream)
        upstream.wait_ready()
        site = Site(
            folder=folder,
            port=0,
            upstream_port=upstream.port,
            echo_port=upstream.echo_port,
            cpu=cores.proxy,
            cert_file=secrets.cert_file,
            key_file=secrets.key_file,
            jwks_file=secrets.jwks_file,
        )
        yield Stage(Ground(folder, cores, seconds, upstream.port, tokens_file), site)
    finally:
        if upstream is not None:
            upstream.stop()
        shutil.rmtree(folder, ignore_errors=True)


def available(names: Sequence[str]) -> dict[str, str]:
    """The installed ones of these peers, with versions; the others are named on standard error."""
    found: dict[str, str] = {}
    for name in names:
        version = PEERS[name].version()
        if version is None:
            print(f"{name}: not installed, left out", file=sys.stderr)
        else:
            found[name] = version
    return found


def measure_scenario(
    scenario: Scenario, names: Sequence[str], on: Stage, rounds: int
) -> dict[str, object]:
    """All peers, all rounds of one scenario."""
    servers: dict[str, Server] = {}
    failed: dict[str, str] = {}
    runs: dict[str, list[Measurement]] = {}
    calibration: list[float] = []
    try:
        targets: dict[str, Target] = {}
        for name in names:
            if scenario.peers and name not in scenario.peers:
                continue
            if not PEERS[name].can_serve(scenario.spec):
                continue
            try:
                servers[name] = on.start(PEERS[name], scenario.spec)
                targets[name] = Target(name, servers[name].port, tuple(servers[name].pids))
                _warm_up(scenario, on.ground, targets[name])
            except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
                failed[name] = _brief(error)
                targets.pop(name, None)
                print(f"  {name}: {str(error)[-1500:]}", file=sys.stderr)
        if scenario.with_direct:
            port = on.site.echo_port if scenario.spec.websocket else on.site.upstream_port
            targets[DIRECT] = Target(DIRECT, port)
        order = list(targets)
        for number in range(rounds):
            calibration.append(_calibrate(on.ground.cores))
            for name in order[number % len(order) :] + order[: number % len(order)]:
                if name in failed:
                    continue
                try:
                    got = scenario.run(on.ground, targets[name])
                    if got.operations == 0:
                        raise ClientFailed("nothing was answered")
                except (RuntimeError, OSError, ValueError, subprocess.TimeoutExpired) as error:
                    failed[name] = _brief(error)
                    print(f"  {name}: {str(error)[-1500:]}", file=sys.stderr)
                    continue
                runs.setdefault(name, []).append(got)
                print(
                    f"  {scenario.name:18} {name:9} round {number + 1}: {got.value:11,.2f} "
                    f"{scenario.unit}, proxy CPU {got.proxy_cpu:.2f}, errors {got.errors}",
                    flush=True,
                )
    finally:
        for server in servers.values():
            server.stop()
    return {
        "runs": {name: [run.as_json() for run in each] for name, each in runs.items()},
        "failed": failed,
        "calibration": calibration,
    }


def _brief(error: Exception) -> str:
    """The last line, without the folders of this machine: results are kept with the report."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return re.sub(r"/[\w./-]*/", "", lines[-1] if lines else repr(error))[:300]


def _warm_up(scenario: Scenario, ground: Ground, target: Target) -> None:
    """Fill pools and caches, and let branch predictors and allocators settle."""
    scenario.run(replace(ground, seconds=1), target)


def _calibrate(cores: Cores) -> float:
    """Milliseconds that a fixed computation takes on the proxy's core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cores.proxy})
    try:
        started = time.perf_counter()
        total = 0
        for number in range(500_000):
            total += number
        return (time.perf_counter() - started) * 1000
    finally:
        os.sched_setaffinity(0, before)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default 5)")
    parser.add_argument("--seconds", type=float, default=4, help="of one run (default 4)")
    parser.add_argument(
        "--only", action="append", choices=list(SCENARIOS), help="this scenario (repeatable)"
    )
    parser.add_argument("--peers", default=",".join(PEERS), help="comma-separated")
    parser.add_argument("--quick", action="store_true", help="one round of one second each")
    parser.add_argument(
        "--output",
        type=Path,
        help="the report (default docs/benchmarks.md; nothing is written with --only or --quick "
        "unless this is given)",
    )
    parser.add_argument("--json", type=Path, help="results (default benchmarks/results/run.json)")
    parser.add_argument(
        "--report-only", action="store_true", help="write the report from the last results"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and report."""
    # matplotlib is slow to load and only needed here.
    from benchmarks.report import print_summary, write_report

    options = _arguments(argv)
    is_partial = bool(options.only) or options.quick
    results_file: Path = options.json or RESULTS / ("partial.json" if is_partial else "run.json")
    output: Path | None = options.output or (None if is_partial else ROOT / "docs/benchmarks.md")
    if not options.report_only:
        results = _measure(options)
        results_file.parent.mkdir(parents=True, exist_ok=True)
        results_file.write_text(json.dumps(results, indent=1) + "\n")
    results = json.loads(results_file.read_text())
    print_summary(results)
    if output is not None or options.report_only:
        write_report(results, output or ROOT / "docs/benchmarks.md", RESULTS)


def _measure(options: argparse.Namespace) -> dict[str, object]:
    seconds, rounds = (1.0, 1) if options.quick else (options.seconds, options.rounds)
    versions = available([name for name in options.peers.split(",") if name])
    scenarios: dict[str, object] = {}
    with stage(seconds) as on:
        for name in options.only or SCENARIOS:
            print(f"{name}: {SCENARIOS[name].title}", flush=True)
            scenarios[name] = measure_scenario(SCENARIOS[name], list(versions), on, rounds)
        cores = on.ground.cores
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine.describe(),
        "cores": {"proxy": cores.proxy, "client": cores.client, "upstream": cores.upstream},
        "versions": versions,
        "tools": {
            "wrk": machine.first_line("wrk", "-v").removeprefix("wrk ").split(" [")[0],
            "h2load": machine.first_line("h2load", "--version").removeprefix("h2load "),
        },
        "seconds": seconds,
        "rounds": rounds,
        "scenarios": scenarios,
    }


if __name__ == "__main__":
    main()
