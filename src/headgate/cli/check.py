"""`headgate check`: every fault of a file, for people and for CI.

Exit codes: 0 when the file is good, 1 when it has faults (with --strict, also when it has
warnings), 2 when there is no such file or it may not be read.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from headgate.cli._instance import DEFAULT_FILE
from headgate.config import Config, ConfigInvalid, Fault, Loaded, load

_SHOWN_ROUTES = 20
_SHOWN_FAULTS = 100


class Format(StrEnum):
    """How the report is written."""

    text = "text"
    json = "json"


def check(
    file: Annotated[
        Path, typer.Argument(help="The configuration: a file, or a directory of them.")
    ] = DEFAULT_FILE,
    format: Annotated[  # noqa: A002 - the option is called so
        Format, typer.Option("--format", help="A report for people, or JSON for programs.")
    ] = Format.text,
    strict: Annotated[bool, typer.Option("--strict", help="Take warnings for errors.")] = False,
    offline: Annotated[
        bool,
        typer.Option("--offline", help="Ask no Vault and open no encrypted file."),
    ] = False,
) -> None:
    """Check a configuration and report every fault in it, with file, line and column.

    Nothing is started, bound or written. Plugins are imported and built once, with their options;
    certificates and keys are read. Ends with 0 when the file is good, 1 when it has faults, 2 when
    it cannot be read.
    """
    if fault := _unreadable(file):
        print(f"headgate: {fault}", file=sys.stderr)
        raise typer.Exit(2)
    config: Config | None = None
    try:
        loaded = load(file, offline=offline)
        faults = _on_trial(loaded, file)
        if all(fault.level == "warning" for fault in faults):
            config = loaded.config
    except ConfigInvalid as error:
        faults = error.faults
    is_good = config is not None and not (strict and faults)
    if format is Format.json:
        print(json.dumps(_as_json(config, faults, is_good), indent=2, ensure_ascii=False))
    else:
        _print_text(file, config, faults, is_good)
    raise typer.Exit(0 if is_good else 1)


def _on_trial(loaded: Loaded, file: Path) -> tuple[Fault, ...]:
    """What only building it finds: plugins, header templates, certificates."""
    # The gateway is heavy, and a file with faults is refused without it.
    from headgate.control.trial import certificate_faults, trial

    wall = time.time()  # noqa: TID251 - certificates live in wall time
    notes = [fault for fault in certificate_faults(loaded, wall) if fault.level == "warning"]
    try:
        notes += trial(loaded, file.absolute()).warnings
    except ConfigInvalid as error:
        notes += loaded.judged(error.faults)
    return (*loaded.warnings, *notes)


def _unreadable(file: Path) -> str:
    try:
        if not file.exists():
            return f"{file}: no such file"
    except OSError as error:
        return f"{file}: {(error.strerror or 'cannot be read').lower()}"
    if not os.access(file, os.R_OK):
        return f"{file}: may not be read by this user"
    return ""


def _as_json(config: Config | None, faults: Sequence[Fault], is_good: bool) -> dict[str, Any]:
    report: dict[str, Any] = {
        "ok": is_good,
        "faults": [
            {
                "file": fault.file,
                "line": fault.line,
                "column": fault.column,
                "where": fault.where,
                "message": fault.message,
                "hint": fault.hint,
                "level": fault.level,
            }
            for fault in faults
        ],
    }
    if config is not None:
        report["listeners"] = [
            {"bind": spec.bind, "name": spec.label, "tls": spec.tls is not None}
            for spec in config.listeners
        ]
        report["services"] = {name: len(spec.instances) for name, spec in config.services.items()}
        report["routes"] = [route.name for route in config.routes]
    return report


def _print_text(file: Path, config: Config | None, faults: Sequence[Fault], is_good: bool) -> None:
    # rich is heavy and only wanted for people: a log file gets plain lines.
    paint = _coloured if sys.stdout.isatty() and "NO_COLOR" not in os.environ else print
    for fault in faults[:_SHOWN_FAULTS]:
        paint(str(fault))
    if len(faults) > _SHOWN_FAULTS:
        print(f"... and {len(faults) - _SHOWN_FAULTS} more")
    errors = sum(fault.level == "error" for fault in faults)
    if config is None or not is_good:
        warnings = len(faults) - errors
        print(f"{file}: {_count(errors, 'error')}, {_count(warnings, 'warning')}")
        return
    for line in summary(config):
        print(line)
    print(f"{file}: good" + (f", {_count(len(faults), 'warning')}" if faults else ""))


def summary(config: Config) -> list[str]:
    """What a good file sets up, in a few lines."""
    lines = ["listeners"]
    for listener in config.listeners:
        kind = "https" if listener.tls is not None else "http"
        lines.append(f"  {kind:<5} {listener.bind} ({', '.join(listener.protocols)})")
    lines.append(f"  admin {config.admin.bind}")
    lines.append(f"services ({len(config.services)})")
    for name, service in list(config.services.items())[:_SHOWN_ROUTES]:
        found = [spec.url for spec in service.instances[:4]]
        if service.discover is not None:
            found.append(f"discovered: {', '.join(service.discover.ways)}")
        lines.append(f"  {name}: {', '.join(found)}")
    if len(config.services) > _SHOWN_ROUTES:
        lines.append(f"  ... and {len(config.services) - _SHOWN_ROUTES} more")
    lines.append(f"routes ({len(config.routes)})")
    lines.extend(f"  {route.name}" for route in config.routes[:_SHOWN_ROUTES])
    if len(config.routes) > _SHOWN_ROUTES:
        lines.append(f"  ... and {len(config.routes) - _SHOWN_ROUTES} more")
    return lines


def _coloured(line: str) -> None:
    from rich.console import Console
    from rich.text import Text

    place, _, rest = line.partition(": ")
    text = Text(place, style="bold")
    text.append(": ")
    text.append(rest, style="yellow" if "warning: " in line else "red")
    Console(soft_wrap=True).print(text)


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
