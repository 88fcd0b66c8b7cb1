"""`headgate doctor`: what is wrong, or will be, each with the way out."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from headgate.cli._ctl import console
from headgate.cli._doctor import Finding, examine
from headgate.cli._instance import DEFAULT_FILE
from headgate.errors import HeadgateError

__all__ = ["doctor"]

_MARKS = {"ok": "green", "warn": "yellow", "fail": "red"}


def doctor(
    file: Annotated[
        Path, typer.Argument(help="The configuration: a file, or a directory of them.")
    ] = DEFAULT_FILE,
    state_dir: Annotated[
        Path | None, typer.Option("--state-dir", help="Its state directory, if not as it says.")
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Connect to nothing and look up no name.")
    ] = False,
    is_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only what is not well.")] = False,
) -> None:
    """Look for what is wrong, or will be, and say the way out.

    The file, ports, limits of the system, clock, certificates, disk, permissions, and whether
    instances and everything else that the file names can be reached. Nothing is changed. Ends with
    0 when all is well or nearly so, 1 when something fails, 2 when there is no such file.
    """
    if not file.exists():
        print(f"headgate: there is no file {file}; write: headgate doctor FILE", file=sys.stderr)
        raise typer.Exit(2)
    found: list[Finding] = []
    try:
        for finding in examine(file, state_dir, offline=offline):
            found.append(finding)
            if not is_json and not (quiet and finding.level == "ok"):
                _print(finding)
    except HeadgateError as error:
        found.append(Finding("fail", "doctor", str(error)))
        if not is_json:
            _print(found[-1])
    counts = {level: sum(each.level == level for each in found) for level in _MARKS}
    if is_json:
        rows = [each.to_json() for each in found]
        print(json.dumps({"ok": not counts["fail"], "counts": counts, "findings": rows}, indent=2))
    else:
        print(f"{counts['ok']} ok, {counts['warn']} to look at, {counts['fail']} failed")
    raise typer.Exit(1 if counts["fail"] else 0)


def _print(finding: Finding) -> None:
    out = console()
    mark = _MARKS[finding.level]
    out.print(f"[{mark}]{finding.level:<4}[/]  {escape(f'{finding.what}: {finding.says}')}")
    if finding.way_out:
        out.print(f"      {escape(finding.way_out)}")
