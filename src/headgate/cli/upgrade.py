"""`headgate upgrade`: restart every process on the code that is now installed."""

from __future__ import annotations

import sys
import time

import typer

from headgate.cli._instance import File, StateDirOption, UrlOption, find
from headgate.control.client import NothingRuns, Refused, Silent
from headgate.errors import Fault, HeadgateError

__all__ = ["upgrade"]

UPGRADE_S = 660.0
RESTART_S = 30.0
LOOK_EVERY_S = 0.1


def upgrade(file: File = None, state_dir: StateDirOption = None, url: UrlOption = None) -> None:
    """Restart the workers one by one, on the code now installed.

    The listening sockets stay open throughout, so no connection is refused. The new code is
    tried first; if it does not start, everything goes on as it was and the exit code is 1.
    """
    client = find(file, state_dir, url)
    try:
        answer = client.ask("POST", "/api/upgrade", timeout_s=UPGRADE_S)
    except Refused as refused:
        for fault in refused.problem.get("faults") or []:
            print(
                Fault(**{"file": "", "line": 0, "column": 0, "where": "", **fault}), file=sys.stderr
            )
        print("headgate: not upgraded", file=sys.stderr)
        raise typer.Exit(1) from None
    wanted = answer.content["incarnation"]
    deadline = time.monotonic() + RESTART_S
    while time.monotonic() < deadline:
        try:
            health = client.ask("GET", "/api/health").content
        except (NothingRuns, Silent):
            time.sleep(LOOK_EVERY_S)
            continue
        if health["incarnation"] >= wanted:
            print(
                f"upgraded to {health['version']}: {health['workers_ready']} workers, "
                "control and supervisor"
            )
            return
        time.sleep(LOOK_EVERY_S)
    raise HeadgateError(
        f"the workers run the new code, but the supervisor has not come back in {RESTART_S:g} s; "
        "see its log"
    )
