"""wrk: closed-loop HTTP/1.1 load from one thread."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_LUA = Path(__file__).resolve().parents[1] / "lua"


class ClientFailed(RuntimeError):
    """A load generator did not print a result."""


@dataclass(frozen=True, slots=True)
class WrkRun:
    """What to ask of wrk."""

    url: str
    seconds: float
    connections: int = 64
    script: str | None = None
    "Name of a file in `benchmarks/lua` without its suffix."
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WrkResult:
    """What wrk counted."""

    requests: int
    duration_s: float
    bytes_in: int
    errors: int
    error_kinds: Mapping[str, int]
    latency_ms: Mapping[str, float]


def run_wrk(run: WrkRun, folder: Path, cpu: int) -> WrkResult:
    """Run it to the end, pinned."""
    process = start_wrk(run, folder, cpu)
    out, err = process.communicate(timeout=run.seconds + 60)
    return parse_wrk(out, err)


def start_wrk(run: WrkRun, folder: Path, cpu: int) -> subprocess.Popen[str]:
    """Start it and let the caller wait."""
    script = folder / f"wrk-{run.script or 'plain'}.lua"
    parts = [_LUA / f"{run.script}.lua"] if run.script else []
    script.write_text("\n".join(part.read_text() for part in [*parts, _LUA / "report.lua"]))
    # wrk takes whole seconds.
    seconds = max(1, round(run.seconds))
    command = ["wrk", "-t1", f"-c{run.connections}", f"-d{seconds}s", "--timeout", "10s"]
    return subprocess.Popen(
        [*command, "-s", str(script), run.url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **run.env},
        preexec_fn=lambda: os.sched_setaffinity(0, {cpu}),
    )


def parse_wrk(out: str, err: str) -> WrkResult:
    """The line our script printed."""
    for line in out.splitlines():
        if line.startswith("RESULT "):
            found = json.loads(line[len("RESULT ") :])
            kinds = {key: found[key] for key in ("connect", "read", "write", "status", "timeout")}
            quantiles = ("p50", "p95", "p99", "p999", "max")
            return WrkResult(
                requests=found["requests"],
                duration_s=found["duration_us"] / 1e6,
                bytes_in=found["bytes"],
                errors=sum(kinds.values()),
                error_kinds=kinds,
                latency_ms={key: found[key] / 1000 for key in quantiles},
            )
    raise ClientFailed(f"wrk printed no result: {out[-500:]} {err[-500:]}")
