"""The registry away for minutes while services call each other, on several hosts of one machine.

    python -m benchmarks.mesh_outage [--minutes 10]

The gateway with the registry is killed, its host cut off, and in the middle of it one of the two
instances is killed as well and comes back. Needs the right to make network namespaces. Prints what
the callers saw.
"""

from __future__ import annotations

import argparse
import json
import signal
import tempfile
import time
from pathlib import Path

from tests.control.running import wait_until
from tests.mesh.hosts.rig import PATIENCE_S, Hosts

_TURN_S = 5.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        hosts = Hosts(Path(folder))
        try:
            said = run(hosts, options.minutes * 60)
        finally:
            hosts.close()
    print(json.dumps(said, indent=2))
    if said["failed"]:
        raise SystemExit(f"{len(said['failed'])} calls failed")


def run(hosts: Hosts, away_s: float) -> dict[str, object]:
    hosts.start_gateway()
    hosts.start_service("a")
    hosts.start_service("b")
    hosts.start_visitor("users")
    hosts.visited("a", "b")
    before = hosts.seen()
    hosts.kill_gateway()
    hosts.net.cut("g")
    began = time.monotonic()
    killed = False
    while (passed_s := time.monotonic() - began) < away_s:
        seen = hosts.seen()
        print(
            f"\r{passed_s:5.0f} of {away_s:.0f} s: {seen['ok'] - before['ok']} calls,"
            f" {len(seen['failed'])} failed ",
            end="",
            flush=True,
        )
        if not killed and passed_s > away_s / 2:
            killed = True
            hosts.services["a"].send_signal(signal.SIGKILL)
            hosts.services["a"].wait(30)
            hosts.visited("b", times=50)
            hosts.start_service("a")
        time.sleep(min(_TURN_S, max(0.0, away_s - passed_s)))
    print()
    during = hosts.seen()
    hosts.net.heal()
    back = time.monotonic()
    hosts.start_gateway()
    started_s = time.monotonic() - back
    wait_until(lambda: hosts.instances() == {"a": "up", "b": "up"}, PATIENCE_S)
    hosts.visited("a", "b")
    after = hosts.seen()
    return {
        "away_s": round(away_s),
        "calls while away": during["ok"] - before["ok"],
        "by instance": {
            name: during["by"].get(name, 0) - before["by"].get(name, 0) for name in ("a", "b")
        },
        "failed": after["failed"],
        "slowest_s": after["slowest_s"],
        "gateway up after_s": round(started_s, 1),
        "all registered after_s": round(time.monotonic() - back, 1),
    }


if __name__ == "__main__":
    main()
