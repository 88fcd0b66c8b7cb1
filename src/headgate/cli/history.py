"""`headgate history`: questions about all figures over time, drawn in the terminal or exported."""

from __future__ import annotations

import json
import math
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlencode

import typer
from typer.core import TyperGroup

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
from headgate.security.audit.times import moment_of

__all__ = ["history", "plotted"]

_ASK_S: Final = 30.0


class _AskByDefault(TyperGroup):
    """`headgate history EXPR` is `headgate history ask EXPR`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands:
            args = ["ask", *args]
        return super().resolve_command(ctx, args)


history = typer.Typer(
    cls=_AskByDefault,
    help="Ask the history of all figures: headgate history 'rate(headgate_http_requests_total[1m])'"
    " --since 6h",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

StepOption = Annotated[str, typer.Option("--step", help="One answer every: 15s, 5m.")]


def _range(
    expr: str,
    since: str,
    step: str,
    file: Path | None,
    state_dir: Path | None,
    admin: str | None,
    form: str = "json",
) -> Any:
    asked = {"query": expr, "start": f"{_start(since):.3f}", "format": form}
    if step:
        asked["step"] = step
    client = find(file, state_dir, admin)
    said = client.ask("GET", f"/api/history/range?{urlencode(asked)}", timeout_s=_ASK_S).content
    for info in said.get("infos", ()) if isinstance(said, dict) else ():
        print(f"headgate: {info}", file=sys.stderr)
    return said


@history.command("ask")
def ask(
    expr: Annotated[str, typer.Argument(help="An expression; see docs/reference/query.md.")],
    since: SinceOption = "1h",
    step: StepOption = "",
    as_csv: Annotated[bool, typer.Option("--csv", help="As CSV.")] = False,
    as_json: JsonOption = False,
    parquet: Annotated[
        Path | None, typer.Option("--parquet", help="Into this file; needs pyarrow here.")
    ] = None,
    file: FileOption = None,
    state_dir: StateDirOption = None,
    admin: UrlOption = None,
) -> None:
    """Draw the answers to an expression over time.

    The exit code is 0 when there is an answer, and 1 when there is none.
    """
    said = _range(expr, since, step, file, state_dir, admin, "csv" if as_csv else "json")
    if as_csv:
        print(said, end="")
        return
    rows = said["data"]["result"]
    if parquet is not None:
        _write_parquet(rows, parquet)
    elif as_json:
        print(json.dumps(said["data"], indent=2))
    elif rows:
        width = max(40, min(shutil.get_terminal_size((80, 24)).columns, 160))
        happened = _markers(find(file, state_dir, admin), since)
        print(plotted(rows, width=width, height=12, markers=happened))
    if not rows:
        if not as_json:
            print("no samples", file=sys.stderr)
        raise typer.Exit(1)


@history.command("mark")
def mark(
    kind: Annotated[str, typer.Argument(help="A word, such as deploy.")],
    text: Annotated[str, typer.Argument(help="What has happened, such as 'users 2.4'.")],
    file: FileOption = None,
    state_dir: StateDirOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say that something has happened, so that charts show it."""
    order = {"kind": kind, "text": text}
    said = find(file, state_dir, url).ask("POST", "/api/markers", order).content
    print(json.dumps(said, indent=2) if as_json else _happened(said))


@history.command("markers")
def markers(
    kind: Annotated[str, typer.Option("--kind", help="Only these: deploy, config, alert.")] = "",
    since: SinceOption = "7d",
    limit: Annotated[int, typer.Option("--limit", min=1, help="So many at most.")] = 100,
    file: FileOption = None,
    state_dir: StateDirOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """List what has happened: deploys, changes of the configuration, alerts."""
    found = _markers(find(file, state_dir, url), since, kind=kind, limit=limit)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    for one in found:
        print(_happened(one))
    if not found:
        print("nothing has happened")


def _markers(
    client: AdminClient, since: str, *, kind: str = "", limit: int = 100
) -> list[dict[str, Any]]:
    start = _start(since)
    asked = {"start": f"{start:.3f}", "kind": kind, "limit": str(limit)}
    said: list[dict[str, Any]] = client.ask("GET", f"/api/markers?{urlencode(asked)}").content
    return said


def _happened(one: dict[str, Any]) -> str:
    when = time.strftime("%m-%d %H:%M:%S", time.localtime(one["at"]))
    return _printable(f"{when}  {one['kind']:<7} {one['text']}")


def _start(since: str) -> float:
    try:
        return moment_of(since, time.time())  # noqa: TID251  as samples are known
    except ValueError as error:
        raise HeadgateError(f"--since: {error}") from error


@history.command("series")
def series(
    match: Annotated[str, typer.Argument(help="A selector; all series without.")] = "",
    since: SinceOption = "1h",
    as_json: JsonOption = False,
    file: FileOption = None,
    state_dir: StateDirOption = None,
    admin: UrlOption = None,
) -> None:
    """List the series that the history has."""
    asked = {"start": f"{_start(since):.0f}"} | ({"match[]": match} if match else {})
    client = find(file, state_dir, admin)
    said = client.ask("GET", f"/api/series?{urlencode(asked)}", timeout_s=_ASK_S).content["data"]
    if as_json:
        print(json.dumps(said, indent=2))
        return
    for line in sorted(_name(one) for one in said):
        print(line)


@history.command("export")
def export(
    expr: Annotated[str, typer.Argument(help="An expression, or the name of a metric.")],
    output: Annotated[Path, typer.Option("--output", "-o", help=".csv, .json or .parquet")],
    since: SinceOption = "1h",
    step: StepOption = "",
    file: FileOption = None,
    state_dir: StateDirOption = None,
    admin: UrlOption = None,
) -> None:
    """Write the answers to an expression into a file; its name says the form."""
    form = output.suffix.removeprefix(".")
    if form not in {"csv", "json", "parquet"}:
        raise HeadgateError(f"{output} does not end in .csv, .json or .parquet")
    asked = "csv" if form == "csv" else "json"
    said = _range(expr, since, step, file, state_dir, admin, asked)
    if form == "parquet":
        _write_parquet(said["data"]["result"], output)
        return
    try:
        output.write_text(said if form == "csv" else json.dumps(said["data"]))
    except OSError as error:
        raise HeadgateError(f"{output} cannot be written: {error.strerror}") from error


def _write_parquet(rows: list[dict[str, Any]], output: Path) -> None:
    import numpy as np

    from headgate.observe.history.export import to_parquet
    from headgate.observe.query import Series

    found = [
        Series(
            row["metric"],
            np.array([at for at, _ in row["values"]]),
            np.array([_number(value) for _, value in row["values"]]),
        )
        for row in rows
    ]
    try:
        output.write_bytes(to_parquet(found))
    except OSError as error:
        raise HeadgateError(f"{output} cannot be written: {error.strerror}") from error


def _number(text: str) -> float:
    return float(text.replace("Inf", "inf").replace("NaN", "nan"))


def _name(labels: dict[str, str]) -> str:
    said = ", ".join(
        f"{name}={json.dumps(value)}" for name, value in labels.items() if name != "__name__"
    )
    name = labels.get("__name__", "")
    return f"{name}{{{said}}}" if said else name or "{}"


# ---------------------------------------------------------------------------------------- plot

_DOTS: Final = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_MARGIN: Final = 10
_LETTERS: Final = 10
"""So many things that have happened are shown below a chart: the newest."""
_COLOURS: Final = (36, 33, 35, 32, 31, 34)


def plotted(
    rows: list[dict[str, Any]],
    *,
    width: int,
    height: int,
    markers: Sequence[dict[str, Any]] = (),
) -> str:
    """Series as lines of braille dots, four by two to a letter, with a scale and the newest value
    of each, and letters below for what has happened. Colours tell series apart where there is a
    terminal.
    """
    shown = rows[: len(_COLOURS)]
    points = [
        [(float(at), _number(v)) for at, v in row["values"] if math.isfinite(_number(v))]
        for row in shown
    ]
    every = [point for line in points for point in line]
    if not every:
        return "no numbers"
    first, last = min(at for at, _ in every), max(at for at, _ in every)
    low, high = min(0.0, *(v for _, v in every)), max(v for _, v in every)
    span = (high - low) or 1.0
    columns = width - _MARGIN
    cells = [[0] * columns for _ in range(height)]
    owner = [[0] * columns for _ in range(height)]
    for number, line in enumerate(points):
        placed = [
            (
                int((at - first) / ((last - first) or 1.0) * (2 * columns - 1)),
                int((high - value) / span * (4 * height - 1)),
            )
            for at, value in line
        ]
        for x, y in _joined(placed):
            cells[y // 4][x // 2] |= _DOTS[y % 4][x % 2]
            owner[y // 4][x // 2] = number
    has_colour = sys.stdout.isatty()
    lines = []
    for row in range(height):
        scale = {0: high, height - 1: low}.get(row)
        label = f"{scale:.4g}" if scale is not None else ""
        dots = "".join(
            _coloured(chr(0x2800 + cell), owner[row][at] if has_colour else -1) if cell else " "
            for at, cell in enumerate(cells[row])
        )
        lines.append(f"{label:>{_MARGIN - 2}} |{dots}".rstrip())
    begin, end = (time.strftime("%m-%d %H:%M:%S", time.localtime(at)) for at in (first, last))
    happened = [one for one in markers if first <= one["at"] <= last][-_LETTERS:]
    if happened:
        below = [" "] * columns
        for number, one in enumerate(happened):
            below[int((one["at"] - first) / ((last - first) or 1.0) * (columns - 1))] = _letter(
                number
            )
        lines.append(" " * _MARGIN + "".join(below).rstrip())
    lines.append(" " * _MARGIN + begin + end.rjust(columns - len(begin)))
    lines += [f"{_letter(n):>2} {_happened(one)[:width]}" for n, one in enumerate(happened)]
    for number, one in enumerate(shown):
        lead = _coloured("--", number if has_colour else -1)
        name = _name(one["metric"]).replace("{}", "all")
        lines.append(f"{lead} {name}  {_number(one['values'][-1][1]):.4g}")
    if len(rows) > len(shown):
        lines.append(f"and {len(rows) - len(shown)} more; topk(5, ...) chooses, --json shows all")
    return "\n".join(
        "".join(c if c.isprintable() or c == "\x1b" else "?" for c in line) for line in lines
    )


def _joined(points: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The dots of a line through these, which breaks where figures are missing."""
    gaps = sorted(x - before for (before, _), (x, _) in pairwise(points))
    usual = gaps[len(gaps) // 2] if gaps else 0
    yield from points
    for (x, y), (next_x, next_y) in pairwise(points):
        steps = max(next_x - x, abs(next_y - y))
        if next_x - x <= 3 * usual + 1:
            for step in range(1, steps):
                yield (x + (next_x - x) * step // steps, y + (next_y - y) * step // steps)


def _letter(number: int) -> str:
    return chr(ord("a") + number)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def _coloured(text: str, number: int) -> str:
    return text if number < 0 else f"\x1b[{_COLOURS[number]}m{text}\x1b[0m"
