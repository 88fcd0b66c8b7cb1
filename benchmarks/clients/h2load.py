"""h2load: HTTP/2 load from one thread."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass

from benchmarks.clients.wrk import ClientFailed


@dataclass(frozen=True, slots=True)
class H2loadResult:
    """What h2load counted."""

    requests: int
    per_second: float
    errors: int


def run_h2load(
    url: str, seconds: float, cpu: int, *, connections: int, streams: int
) -> H2loadResult:
    """Closed loop with `streams` concurrent streams on each connection."""
    length = max(1, round(seconds))
    command = ["h2load", "-t1", f"-c{connections}", f"-m{streams}", "-D", str(length)]
    done = subprocess.run(
        [*command, url],
        capture_output=True,
        text=True,
        timeout=length + 60,
        check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, {cpu}),
    )
    rate = re.search(r"finished in .*?, ([\d.]+) req/s", done.stdout)
    counts = re.search(
        r"requests: \d+ total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed, "
        r"(\d+) errored",
        done.stdout,
    )
    statuses = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", done.stdout)
    if rate is None or counts is None or statuses is None:
        raise ClientFailed(f"h2load printed no result: {done.stdout[-500:]} {done.stderr[-500:]}")
    wrong = sum(int(statuses.group(n)) for n in (3, 4))
    return H2loadResult(
        requests=int(counts.group(2)),
        per_second=float(rate.group(1)),
        errors=int(counts.group(3)) + wrong,
    )
