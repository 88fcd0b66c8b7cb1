"""`headgate drain`: have a running gateway finish and end; or one instance serve no more."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Annotated

import typer

from headgate.cli._instance import FileOption, StateDirOption, UrlOption, find
from headgate.control.client import Silent
from headgate.errors import HeadgateError

__all__ = ["drain"]

LOOK_EVERY_S = 0.05


def drain(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE|SERVICE",
            help="The file that the gateway runs, headgate.yaml if not said; "
            "with an instance, its service.",
        ),
    ] = None,
    instance: Annotated[
        str | None,
        typer.Argument(help="Its URL, or its id in the registry. The gateway goes on."),
    ] = None,
    file: FileOption = None,
    state_dir: StateDirOption = None,
    url: UrlOption = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Return once the gateway has ended.")
    ] = True,
    hold: Annotated[
        str | None, typer.Option("--for", help="Of an instance: how long, such as 1h.")
    ] = None,
    why: Annotated[
        str, typer.Option("--why", help="Of an instance: the reason, for lists and the audit log.")
    ] = "by hand",
    force: Annotated[
        bool, typer.Option("--force", help="Of an instance: also if nobody is left to serve.")
    ] = False,
) -> None:
    """Finish what is under way, then stop.

    No new connection is accepted; requests in flight have the time that `drain` in the file
    says. With SERVICE and INSTANCE only that instance gets no new requests: the same as
    `headgate instances drain`; `headgate instances undrain` takes it back.
    """
    if instance is not None:
        from headgate.cli._ctl import Asking

        body = {"service": what, "instance": instance, "why": why, "force": force}
        asked = Asking(find(file, state_dir, url))
        asked.order("POST", "/api/instances/drain", {**body, "hold": hold} if hold else body)
        return
    if what is not None and file is not None:
        raise HeadgateError("the file is said twice; of an instance say SERVICE and INSTANCE")
    client = find(file if what is None else Path(what), state_dir, url)
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
