"""`headgate access`: who is let in where, route by route."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from headgate.cli._instance import DEFAULT_FILE, print_faults
from headgate.config import load
from headgate.errors import ConfigInvalid
from headgate.plan.build import build
from headgate.plan.plan import RoutePlan

__all__ = ["access"]


class Format(StrEnum):
    text = "text"
    json = "json"


def access(
    file: Annotated[
        Path | None, typer.Argument(help="The file; headgate.yaml if not said.", show_default=False)
    ] = None,
    open_only: Annotated[
        bool,
        typer.Option(
            "--open", help="Only routes that ask nobody who they are; exit code 1 if there are any."
        ),
    ] = False,
    form: Annotated[Format, typer.Option("--format", help="text or json (--json).")] = Format.text,
) -> None:
    """Show who is let in where, and which routes ask nobody.

    With --open it is a check for CI: every route must ask, or say `auth: false` on purpose and be
    listed in review.
    """
    try:
        plan = build(load((file or DEFAULT_FILE).absolute(), offline=True).config)
    except ConfigInvalid as error:
        print_faults(error.faults)
        raise typer.Exit(1) from None
    rows = [_row(route) for route in plan.routes]
    if open_only:
        rows = [row for row in rows if row["is_open"]]
    if form is Format.json:
        print(json.dumps(rows, indent=2))
    elif rows:
        _print(rows)
    else:
        print("every route asks who it is")
    if open_only and rows:
        raise typer.Exit(1)


def _row(route: RoutePlan) -> dict[str, Any]:
    said = {policy: value for policy, value, _ in route.policies}
    asks = list(route.auth.methods) if route.auth is not None else []
    return {
        "route": route.name,
        "target": route.target,
        "auth": asks,
        "anonymous": route.auth is not None and route.auth.anonymous,
        "allow": said.get("allow", ""),
        "is_open": not asks and not route.is_unsaid,
        "is_shut": route.is_unsaid,
    }


def _print(rows: list[dict[str, Any]]) -> None:
    table = Table(box=None, pad_edge=False)
    for title in ("route", "to", "who is asked", "who is let in"):
        table.add_column(title, overflow="fold")
    for row in rows:
        who = ", ".join(row["auth"]) or ("nobody: shut" if row["is_shut"] else "nobody: open")
        if row["anonymous"]:
            who += ", or nobody"
        table.add_row(row["route"], row["target"], who, row["allow"] or "everybody")
    Console(highlight=False, markup=False).print(table)
