"""`headgate drain`: have a running gateway finish and end."""

from __future__ import annotations

import os
import signal
import time
from typing import Annotated

import typer

from headgate.cli._instance import File, StateDirOption, UrlOption, find
from headgate.control.client import Silent

__all__ = ["drain"]

LOOK_EVERY_S = 0.05


def drain(
    file: File = None,
    state_dir: StateDirOption = None,
    url: UrlOption = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Return once the gateway has ended.")
    ] = True,
) -> None:
    """Finish what is under way, then stop.

    No new connection is accepted; requests in flight have the time that `drain` in the file
    says.
    """
    client = find(file, state_dir, url)
    pid = client.running_pid()
    try:
        client.ask("POST", "/api/drain")
    except Silent:
        # Control may be dead; the supervisor listens to signals all the same.
        if pid is None:
            raise
        os.kill(pid, signal.SIGTERM)
    if client.state is None or not wait:
        print("draining")
        return
    began = time.monotonic()
    while client.running_pid() == pid and pid is not None:
        time.sleep(LOOK_EVERY_S)
    print(f"drained in {time.monotonic() - began:.1f} s")
