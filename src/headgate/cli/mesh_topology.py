"""Commands of `headgate mesh` about calls: who calls whom, and who may."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from headgate.cli._instance import (
    DEFAULT_FILE,
    FileOption,
    JsonOption,
    StateDirOption,
    UrlOption,
    find,
)
from headgate.errors import HeadgateError
from headgate.units import rough_duration

__all__ = ["add_topology_commands"]


def add_topology_commands(group: typer.Typer) -> None:
    group.command()(topology)
    group.command()(may)
    group.command()(refused)


def topology(
    file: FileOption = None,
    state_dir: StateDirOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show which service calls which: rate, errors, latency, retries, breakers."""
    rows = find(file, state_dir, url).ask("GET", "/api/mesh/calls").content
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    if not rows:
        print(
            "nothing is known of calls: neither the gateway, nor a client or sidecar has told any"
        )
        return
    heads = (
        "from",
        "to",
        "req/s",
        "requests",
        "errors",
        "p50",
        "p95",
        "p99",
        "retries",
        "breakers",
    )
    cells = [heads, *(_cells(row) for row in rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(heads))]
    for row in cells:
        left = [row[at].ljust(widths[at]) for at in (0, 1)]
        right = [row[at].rjust(widths[at]) for at in range(2, len(heads) - 1)]
        print("  ".join([*left, *right, row[-1]]).rstrip())


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    rate = row["error_rate"]
    took = row["latency"]
    seen = "" if row["seen_by"] == "caller" else " *"
    return (
        row["source"] + seen,
        row["destination"],
        f"{row['requests_per_s']:.1f}",
        str(row["requests"]),
        "-" if rate is None else f"{rate:.1%}",
        *(_ms(took[name]) for name in ("p50_ms", "p95_ms", "p99_ms")),
        str(row["retries"]),
        ", ".join(f"{count} {state}" for state, count in sorted(row["breakers"].items()))
        or "closed",
    )


def _ms(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value / 1000:.2f}s" if value >= 1000 else f"{value:.1f}ms"


def may(
    source: Annotated[
        str, typer.Argument(help="A service, an identity spiffe://..., or `anonymous`.")
    ],
    destination: Annotated[str, typer.Argument(help="The service that is called.")],
    method: Annotated[str, typer.Argument()] = "GET",
    path: Annotated[str, typer.Argument()] = "/",
    file: FileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say whether a service may call another by the file's `mesh.access`, and why.

    `headgate mesh may orders users GET /users/42`. Ends with 1 if it may not.
    """
    from headgate.config import load

    found = file or DEFAULT_FILE
    if not Path(found).exists():
        raise HeadgateError(f"there is no file {found}")
    config = load(found, offline=True).config
    if destination not in config.services:
        known = ", ".join(sorted(config.services)[:8]) or "none"
        raise HeadgateError(f'no service is named "{destination}"; known are {known}')
    allowed, passes, why = _judged(config, source, destination, method.upper(), path)
    if as_json:
        print(json.dumps({"allowed": allowed, "passes": passes, "why": why}))
    else:
        said = "may" if allowed else "may not"
        print(f"{source} {said} {method.upper()} {path} of {destination}: {why}")
        if passes and not allowed:
            print(
                "it passes all the same: mesh.access.mode is permissive, so it is told and counted"
            )
    if not passes:
        raise typer.Exit(1)


def _judged(
    config: Any, source: str, destination: str, method: str, path: str
) -> tuple[bool, bool, str]:
    """Whether the rules allow it, whether it passes, and why."""
    from headgate.config.mesh_access import name_of_caller
    from headgate.security.mesh_access import ANONYMOUS, MeshAccess
    from headgate.wire.target import BadTarget, parse_target

    mesh = config.mesh
    if mesh is None:
        return True, True, "there is no mesh: in the file, and nobody is asked"
    if mesh.access is None:
        return True, True, "the file says no mesh.access, so every service may call every other"
    target = parse_target(method, path.encode("utf-8", "replace"))
    if isinstance(target, BadTarget):
        raise HeadgateError(f"{path!r} is answered with {target.status}: {target.reason}")
    caller = None if source == ANONYMOUS else name_of_caller(source, mesh.trust_domain)
    access = MeshAccess(mesh.access.compiled_from(mesh.trust_domain))
    verdict = access.towards(destination).judge(caller, method, target.path)
    passes = verdict.allowed or mesh.access.mode == "permissive"
    return verdict.allowed, passes, verdict.in_words()


def refused(
    file: FileOption = None,
    state_dir: StateDirOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show who was refused by `mesh.access`, where and why, since control was started."""
    rows = find(file, state_dir, url).ask("GET", "/api/mesh/refusals").content
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    if not rows:
        print("nobody was refused")
        return
    table = [("from", "to", "calls", "why", "mode", "last")]
    for row in rows:
        ago = row["last_ago_s"]
        last = "" if ago is None else f"{rough_duration(ago)} ago"
        names = (row["source"], row["destination"], str(row["count"]))
        table.append((*names, _WHY[row["why"]], row["mode"], last))
    widths = [max(len(row[at]) for row in table) for at in range(len(table[0]))]
    for line in table:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        )


_WHY = {"rule": "a rule refuses it", "default": "no rule allows it", "no_identity": "no identity"}
