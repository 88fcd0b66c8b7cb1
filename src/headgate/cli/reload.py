"""`headgate reload`: have a running gateway read its file again."""

from __future__ import annotations

import sys

import typer

from headgate.cli._instance import File, StateDirOption, UrlOption, find
from headgate.control.client import Refused
from headgate.errors import Fault

__all__ = ["reload"]

RELOAD_S = 240.0


def reload(file: File = None, state_dir: StateDirOption = None, url: UrlOption = None) -> None:
    """Make a running gateway read its file again.

    All workers take the new configuration, or none does: then the faults are printed, the old
    one serves on, and the exit code is 1.
    """
    client = find(file, state_dir, url)
    try:
        answer = client.ask("POST", "/api/reload", timeout_s=RELOAD_S)
    except Refused as refused:
        faults = refused.problem.get("faults")
        if not faults:
            raise
        for fault in faults:
            print(
                Fault(**{"file": "", "line": 0, "column": 0, "where": "", **fault}), file=sys.stderr
            )
        generation = refused.problem.get("generation")
        print(f"headgate: not reloaded; generation {generation} serves on", file=sys.stderr)
        raise typer.Exit(1) from None
    result = answer.content
    for warning in result["warnings"]:
        print(Fault(**warning, level="warning"), file=sys.stderr)
    workers = result["workers"]
    print(
        f"reloaded: generation {result['generation']}, "
        f"{workers} worker{'' if workers == 1 else 's'}, {result['took_ms']:.0f} ms"
    )
