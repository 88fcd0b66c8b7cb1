"""The registry in `headgate services`: who is registered, what happened, and the figures of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import urlencode

import typer
from rich.console import Group
from rich.markup import escape

from headgate.cli._ctl import Asking, Column, complete, seconds, segment, show, table

__all__ = ["add_registry"]

Ask = Callable[[typer.Context], Asking]
Said = Mapping[str, Any]

_STATES = {"up": "green", "draining": "yellow", "suspect": "red"}
_WHATS = {"came": "green", "went": "red"}


def add_registry(services: typer.Typer, ask: Ask) -> None:
    @services.command("registered")
    def registered(
        ctx: typer.Context,
        name: Annotated[
            str,
            typer.Argument(
                help="One service, with all that is said of its instances.",
                autocompletion=complete("/api/registry/services", "service"),
            ),
        ] = "",
    ) -> None:
        """What the registry knows: services, also those that no route leads to."""
        asked = ask(ctx)
        if name:
            where = f"/api/registry/services/{segment(name)}"
            show(asked, lambda: asked.get(where), _one)
            return
        url = "/api/registry/services"
        nothing = "the registry knows of no services"
        show(asked, lambda: asked.list(url), lambda rows: table(rows, _SERVICES, nothing))

    @services.command("history")
    def history(
        ctx: typer.Context,
        name: Annotated[
            str,
            typer.Argument(
                help="Only this service.",
                autocompletion=complete("/api/registry/services", "service"),
            ),
        ] = "",
        instance: Annotated[str, typer.Option("--instance", help="Only the one of this id.")] = "",
        limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="So many.")] = 50,
    ) -> None:
        """Instances that came, changed and went, the newest first."""
        asked = ask(ctx)
        query = urlencode({"service": name, "instance": instance, "limit": limit})
        show(
            asked,
            lambda: asked.get(f"/api/registry/history?{query}"),
            lambda said: table(said["changes"], _CHANGES, "nothing has happened"),
        )

    @services.command("stats")
    def stats(ctx: typer.Context) -> None:
        """The registry in figures, since the control process began."""
        asked = ask(ctx)
        show(asked, lambda: asked.get("/api/registry/stats"), _stats)


def _named(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


_SERVICES = [
    Column("SERVICE", "service"),
    Column("UP", "up", right=True),
    Column("DRAINING", lambda row: row["draining"] or None, right=True),
    Column(
        "SUSPECT",
        lambda row: row["suspect"] or None,
        right=True,
        style_of=lambda row: "red" if row["suspect"] else "",
    ),
    Column("DOWN", lambda row: row["down"] or None, right=True),
    Column("SOURCES", lambda row: _named(row["sources"])),
    Column("ZONES", lambda row: _named(row["zones"])),
    Column("VERSIONS", lambda row: _named(row["versions"])),
    Column("DISCOVER", lambda row: ", ".join(row["discover"])),
]

_SEEN = [
    Column("INSTANCE", "id"),
    Column("URL", "url"),
    Column(
        "STATE",
        lambda row: row["state"] if row["is_listed"] else "hidden",
        style_of=lambda row: _STATES[row["state"]] if row["is_listed"] else "dim",
    ),
    Column("SAYS", lambda row: None if row["health"] == "up" else row["health"]),
    Column("SOURCE", lambda row: f"{row['source']} {row['named_by']}".rstrip()),
    Column("WEIGHT", "weight", right=True),
    Column("PRIORITY", "priority", right=True),
    Column("ZONE", "zone"),
    Column("VERSION", "version"),
    Column("SINCE", lambda row: _when(row["since"]) if row["since"] else None),
    Column(
        "SILENT",
        lambda row: (
            f"{row['silent_s']:.0f} of {row['ttl_s']:.0f} s" if row["ttl_s"] is not None else None
        ),
        right=True,
    ),
]

_CHANGES = [
    Column("WHEN", lambda row: _when(row["at"])),
    Column("WHAT", "what", style_of=lambda row: _WHATS.get(row["what"], "")),
    Column("SERVICE", "instance.service"),
    Column("INSTANCE", "instance.id"),
    Column("URL", "instance.url"),
    Column("STATE", "instance.state"),
    Column("WHY", "why"),
]


def _one(said: Said) -> Any:
    return Group(
        table([said], _SERVICES, ""),
        "",
        table(said["instances"], _SEEN, "there are no instances"),
    )


def _stats(said: Said) -> Any:
    counts = said["counts"]
    grace = f"; {seconds(said['grace_s'])} of grace are left" if said["grace_s"] else ""
    where = said["home"] + ("" if said["is_kept"] else ", where it cannot be written")
    leases = [f"{said[name]} {name}" for name in ("silent", "suspect", "draining")]
    lines = [
        f"instances   {said['instances']} of {said['services']} services, {said['hidden']} hidden",
        f"registered  {said['leases']}: {', '.join(leases)}",
        f"revision    {said['revision']} of epoch {said['epoch']}{grace}",
        f"kept in     {where}",
        f"watchers    {said['watchers']}; {said['watchers_cut']} were too slow",
        f"workers     told {said['members_told']} times",
        f"counted     {', '.join(f'{count} {name}' for name, count in counts.items())}",
        f"refused     {said['refused']}",
    ]
    rows = [{"service": name, **each} for name, each in sorted(said["by_service"].items())]
    columns = [
        Column("SERVICE", "service"),
        Column("INSTANCES", "instances", right=True),
        Column("REGISTERED", "registrations", right=True),
        Column("BEATS", "beats", right=True),
        Column("LEFT", "left", right=True),
        Column("RAN OUT", "expired", right=True),
        Column("FENCED", "fenced", right=True),
        Column("CHANGES", "changes", right=True),
    ]
    return Group(*(escape(line) for line in lines), "", table(rows, columns, "no services"))


def _when(at: float) -> str:
    return f"{datetime.fromtimestamp(at).astimezone():%Y-%m-%d %H:%M:%S}"
