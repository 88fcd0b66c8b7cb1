"""`headgate history`: questions about all figures over time, drawn in the terminal or exported."""

from __future__ import annotations

import json
import math
import shutil
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlencode

import typer
from typer.core import TyperGroup

from headgate.cli._instance import StateDirOption, UrlOption, find
from headgate.errors import HeadgateError

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

FileOption = Annotated[Path | None, typer.Option("--file", help="The file that the gateway runs.")]
SinceOption = Annotated[str, typer.Option("--since", help="How far back: 15m, 6h, 7d.")]
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
    asked = {"query": expr, "since": since, "format": form} | ({"step": step} if step else {})
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
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
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
        print(plotted(rows, width=width, height=12))
    if not rows:
        if not as_json:
            print("no samples", file=sys.stderr)
        raise typer.Exit(1)


@history.command("series")
def series(
    match: Annotated[str, typer.Argument(help="A selector; all series without.")] = "",
    since: SinceOption = "1h",
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    file: FileOption = None,
    state_dir: StateDirOption = None,
    admin: UrlOption = None,
) -> None:
    """List the series that the history has."""
    from headgate.units import parse_duration

    start = time.time() - parse_duration(since)  # noqa: TID251  as samples are known
    asked = {"start": f"{start:.0f}"} | ({"match[]": match} if match else {})
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
_COLOURS: Final = (36, 33, 35, 32, 31, 34)


def plotted(rows: list[dict[str, Any]], *, width: int, height: int) -> str:
    """Series as lines of braille dots, four by two to a letter, with a scale and the newest value
    of each. Colours tell them apart where there is a terminal.
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
        for at, value in line:
            x = int((at - first) / ((last - first) or 1.0) * (2 * columns - 1))
            y = int((high - value) / span * (4 * height - 1))
            cells[y // 4][x // 2] |= _DOTS[y % 4][x % 2]
            owner[y // 4][x // 2] = number
    has_colour = sys.stdout.isatty()
    lines = []
    for row in range(height):
        scale = {0: high, height - 1: low}.get(row)
        label = f"{scale:.4g}" if scale is not None else ""
        dots = "".join(
            _coloured(chr(0x2800 + cell), owner[row][at] if has_colour and cell else -1)
            for at, cell in enumerate(cells[row])
        )
        lines.append(f"{label:>{_MARGIN - 2}} |{dots}".rstrip())
    begin, end = (time.strftime("%m-%d %H:%M:%S", time.localtime(at)) for at in (first, last))
    lines.append(" " * _MARGIN + begin + end.rjust(columns - len(begin)))
    for number, one in enumerate(shown):
        lead = _coloured("--", number if has_colour else -1)
        lines.append(f"{lead} {_name(one['metric'])}  {one['values'][-1][1]}")
    if len(rows) > len(shown):
        lines.append(f"and {len(rows) - len(shown)} more; topk(5, ...) chooses, --json shows all")
    return "\n".join(
        "".join(c if c.isprintable() or c == "\x1b" else "?" for c in line) for line in lines
    )


def _coloured(text: str, number: int) -> str:
    return text if number < 0 else f"\x1b[{_COLOURS[number]}m{text}\x1b[0m"
