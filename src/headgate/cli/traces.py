"""`headgate traces`: search the traces of a running gateway, and show one as a tree."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Final
from urllib.parse import quote, urlencode

import typer

from headgate.cli._instance import (
    FileOption,
    JsonOption,
    SinceOption,
    StateDirOption,
    UrlOption,
    find,
)
from headgate.control.client import AdminClient
from headgate.errors import HeadgateError
from headgate.observe.tracing.queries import SUSPECT
from headgate.units import UnitError, parse_duration, rough_duration

__all__ = ["traces"]

traces = typer.Typer(
    help="Search the traces of a running gateway, and show one as a tree.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_ASK_S: Final = 15.0
_CLEAR: Final = "\x1b[H\x1b[2J"
_BAR: Final = 32
_NAME: Final = 44
_WHOLE: Final = "5s"
"""At this age a trace is whole: services send their spans every few seconds."""
_NONE: Final = "no trace fits; see `tracing` in the file for what is kept"


@traces.command("list")
def list_(
    service: Annotated[
        str, typer.Option("--service", help="In which this service took part.")
    ] = "",
    route: Annotated[str, typer.Option("--route", help="Of this route.")] = "",
    text: Annotated[str, typer.Option("--text", help="With this in the name of a span.")] = "",
    status: Annotated[str, typer.Option("--status", help="503, 5xx or 400-499.")] = "",
    attribute: Annotated[
        list[str] | None,
        typer.Option("--attribute", help="name=value of a span. May be said several times."),
    ] = None,
    longer: Annotated[str, typer.Option("--longer", help="Than this, such as 250ms.")] = "",
    shorter: Annotated[str, typer.Option("--shorter", help="Than this.")] = "",
    since: SinceOption = "",
    until: Annotated[str, typer.Option("--until", help="Before this; as --since.")] = "",
    errors: Annotated[bool, typer.Option("--errors", help="Only with something failed.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, max=500, help="So many at most.")] = 20,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Again and again, until Ctrl-C.")
    ] = False,
    every: Annotated[str, typer.Option("--every", help="With --watch: how often.")] = "2s",
    file: FileOption = None,
    state_dir: StateDirOption = None,
    admin: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """The newest traces, or those that fit."""
    client = find(file, state_dir, admin)
    said: dict[str, Any] = {
        "service": service,
        "route": route,
        "q": text,
        "status": status,
        "attribute": attribute or [],
        "min_duration": longer,
        "max_duration": shorter,
        "since": since,
        "until": until,
        "errors": "true" if errors else "",
        "limit": limit,
    }
    query = urlencode({name: value for name, value in said.items() if value}, doseq=True)
    try:
        pause_s = max(parse_duration(every), 0.2)
    except UnitError as error:
        raise typer.BadParameter(str(error), param_hint="--every") from None
    try:
        while True:
            found = _ask(client, f"/api/traces?{query}")
            if as_json:
                print(json.dumps(found, indent=None if watch else 2), flush=True)
            else:
                clear = _CLEAR if watch and sys.stdout.isatty() else ""
                print(clear + listed(found["traces"]), flush=True)
            if not watch:
                return
            time.sleep(pause_s)
    except KeyboardInterrupt:
        return


@traces.command("show")
def show(
    trace_id: Annotated[
        str, typer.Argument(help="The id, 32 hexadecimal digits; the newest trace if not said.")
    ] = "",
    route: Annotated[str, typer.Option("--route", help="Without an id: of this route.")] = "",
    longer: Annotated[
        str, typer.Option("--longer", help="Without an id: than this, such as 250ms.")
    ] = "",
    errors: Annotated[
        bool, typer.Option("--errors", help="Without an id: with something failed.")
    ] = False,
    attributes: Annotated[
        bool, typer.Option("--attributes", help="With all that is said of each span.")
    ] = False,
    file: FileOption = None,
    state_dir: StateDirOption = None,
    admin: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """One trace as a tree, with bars for when each span ran. `*` is on the critical path."""
    client = find(file, state_dir, admin)
    if not trace_id:
        said = {"route": route, "min_duration": longer, "errors": "true" if errors else ""}
        query = urlencode({"limit": 1} | {name: value for name, value in said.items() if value})
        newest = (
            _ask(client, f"/api/traces?{query}&until={_WHOLE}")["traces"]
            or _ask(client, f"/api/traces?{query}")["traces"]
        )
        if not newest:
            raise HeadgateError(_NONE)
        trace_id = newest[0]["trace_id"]
    found = _ask(client, f"/api/traces/{quote(trace_id, safe='')}/tree")
    print(json.dumps(found, indent=2) if as_json else drawn(found, with_attributes=attributes))


@traces.command("services")
def services(
    since: SinceOption = "",
    file: FileOption = None,
    state_dir: StateDirOption = None,
    admin: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """What each service did in the traces that are kept: failed and slow ones by preference."""
    client = find(file, state_dir, admin)
    found = _ask(client, "/api/traces/services" + (f"?since={quote(since)}" if since else ""))
    if as_json:
        print(json.dumps(found, indent=2))
        return
    rows = [["service", "requests", "errors", "p50", "p95", "max"]]
    for row in found:
        times = [_ms(row[name]) for name in ("p50_s", "p95_s", "max_s")]
        rows.append([_shown(row["service"]), str(row["spans"]), str(row["errors"]), *times])
    print(_table(rows) if found else "no traces are kept")


@traces.command("queries")
def statements(
    route: Annotated[str, typer.Option("--route", help="Of requests of this route.")] = "",
    service: Annotated[str, typer.Option("--service", help="That this service asked for.")] = "",
    since: SinceOption = "",
    limit: Annotated[int, typer.Option("--limit", min=1, max=500)] = 20,
    file: FileOption = None,
    state_dir: StateDirOption = None,
    admin: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Which statements a route sends to databases: those that took longest in all come first.

    `repeated` is how often one ran under one span, at most: many are often a loop that could be
    one statement.
    """
    client = find(file, state_dir, admin)
    said = {"route": route, "service": service, "since": since, "limit": str(limit)}
    query = urlencode({name: value for name, value in said.items() if value})
    found = _ask(client, f"/api/traces/queries?{query}")
    print(json.dumps(found, indent=2) if as_json else statements_listed(found))


def statements_listed(found: Sequence[Mapping[str, Any]]) -> str:
    """One line a statement, and under it the statement and where it stands."""
    if not found:
        return "no trace that is kept has a statement of a database in it"
    rows = [["fingerprint", "calls", "traces", "repeated", "failed", "total", "p95", "service"]]
    for row in found:
        rows.append(
            [
                row["fingerprint"],
                str(row["calls"]),
                str(row["traces"]),
                f"{row['repeated']}{' !' if row['repeated'] >= SUSPECT else ''}",
                str(row["failed"] or "-"),
                _ms(row["total_s"]),
                _ms(row["p95_s"]),
                _shown(row["service"]),
            ]
        )
    head, *lines = _table(rows, left=(0, 7)).split("\n")
    parts = [head]
    for line, row in zip(lines, found, strict=True):
        parts += [line, f"    {_shown(row['statement'])}"]
        if row["place"]:
            parts.append(f"    {_shown(row['place'])}")
        if row["repeated"] >= SUSPECT:
            parts.append(
                f"    ! ran {row['repeated']} times under one span: headgate traces show"
                f" {row['example']}"
            )
    return "\n".join(parts)


def _ask(client: AdminClient, path: str) -> Any:
    return client.ask("GET", path, timeout_s=_ASK_S).content


def listed(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line a trace."""
    if not rows:
        return _NONE
    table = [["trace", "when", "duration", "spans", "errors", "status", "service", "name"]]
    for row in rows:
        when = datetime.fromtimestamp(row["start"]).astimezone().strftime("%m-%d %H:%M:%S")
        table.append(
            [
                row["trace_id"],
                when,
                _ms(row["duration_s"]),
                str(row["spans"]),
                str(row["errors"] or "-"),
                str(row["status"] or "-"),
                _shown(row["service"]) or "-",
                _shown(row["route"] or row["name"]),
            ]
        )
    return _table(table, left=(0, 6, 7))


def drawn(found: Mapping[str, Any], *, with_attributes: bool = False) -> str:
    """The tree: name, times, and a bar that stands where the span ran."""
    whole_s = max(found["duration_s"], 1e-9)
    services = ", ".join(map(_shown, found["services"]))
    whole = f"{_ms(found['duration_s'])}  {len(found['nodes'])} spans  {services}"
    lines = [f"trace {found['trace_id']}  {whole}"]
    widths = [min(_NAME, len(_label(node))) for node in found["nodes"]]
    width = max(widths, default=0)
    for node in found["nodes"]:
        span = node["span"]
        label = _label(node)
        label = label if len(label) <= _NAME else label[: _NAME - 1] + "~"
        mark = "*" if node["is_critical"] else " "
        failed = " failed" if span["status"] == "error" else ""
        torn = " (its parent is missing)" if node["is_torn"] else ""
        lines.append(
            f"{mark} {label.ljust(width)}  {_ms(span['duration_s']).rjust(9)}"
            f"  self {_ms(node['self_s']).rjust(9)}  |{_bar(span, found['start'], whole_s)}|"
            f"{failed}{torn}"
        )
        if with_attributes:
            indent = "    " + "  " * min(node["depth"], 12)
            said = {"service": span["service"], "kind": span["kind"], **span["attributes"]}
            lines += [
                f"{indent}{_shown(str(k))}: {_shown(str(v))}" for k, v in said.items() if v != ""
            ]
            for event in span["events"]:
                at = _ms(max(0.0, event["at"] - span["start"]))
                more = ", ".join(f"{k}={v}" for k, v in event["attributes"].items())
                lines.append(f"{indent}+{at} {_shown(event['name'])} {_shown(more)}".rstrip())
    return "\n".join(lines)


def _label(node: Mapping[str, Any]) -> str:
    depth: int = min(node["depth"], 12)
    return "  " * depth + _shown(node["span"]["name"])


def _bar(span: Mapping[str, Any], start: float, whole_s: float) -> str:
    begin: int = min(_BAR - 1, max(0, int((span["start"] - start) / whole_s * _BAR)))
    length: int = min(max(1, round(span["duration_s"] / whole_s * _BAR)), _BAR - begin)
    return " " * begin + "=" * length + " " * (_BAR - begin - length)


def _ms(seconds: float) -> str:
    """Short: three figures at most, with the unit that fits."""
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f}us"
    return f"{seconds * 1000:.1f}ms" if seconds < 10 else rough_duration(seconds)


def _shown(text: str) -> str:
    """What a service has sent is not for the terminal to act upon."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _table(rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> str:
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if at in left else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
