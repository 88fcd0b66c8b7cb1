"""`headgate run`: check the file, then become the supervisor of the gateway it describes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from headgate.cli._instance import DEFAULT_FILE, print_faults
from headgate.config import load
from headgate.control.launch import Launch, Outline, exec_supervisor
from headgate.control.template import fork_template
from headgate.control.trial import trial
from headgate.errors import ConfigInvalid, HeadgateError

__all__ = ["run"]


def run(
    file: Annotated[
        Path, typer.Argument(help="The configuration: a file, or a directory of *.yaml.")
    ] = DEFAULT_FILE,
    workers: Annotated[
        int | None,
        typer.Option("--workers", "-w", min=1, max=1024, help="Worker processes, over the file's."),
    ] = None,
    state_dir: Annotated[
        Path | None, typer.Option("--state-dir", help="Where token, lock and sockets are kept.")
    ] = None,
    watch: Annotated[
        bool | None,
        typer.Option("--watch/--no-watch", help="Reload when a file of the configuration changes."),
    ] = None,
) -> None:
    """Run the gateway that a file describes.

    SIGHUP reloads, SIGTERM drains and ends (twice: at once), SIGUSR1 reopens logs, SIGUSR2
    upgrades in place.
    """
    path = file.absolute()
    template = fork_template()  # of what has been imported, and not of what the file says
    try:
        loaded = load(path)
        trial(loaded, path)
    except ConfigInvalid as error:
        print_faults(error.faults)
        raise typer.Exit(1) from None
    print_faults(loaded.warnings)
    home = state_dir or Path(loaded.config.state_dir or path.parent / ".headgate")
    outline = Outline.of(loaded, workers)  # first: it fills in what the document leaves open
    document = {**loaded.document, "state_dir": str(home.absolute())}
    launch = Launch(
        config_file=str(path),
        state_dir=str(home.absolute()),
        outline=outline,
        document=json.dumps(document, separators=(",", ":")).encode(),
        workers=workers,
        watch=watch,
        template=template,
    )
    try:
        exec_supervisor(launch.to_memfd())
    except OSError as error:
        raise HeadgateError(f"the supervisor cannot be started: {error}") from error
