"""`headgate capacity`: what will be full and when, how many instances services need."""

from __future__ import annotations

import json
import shutil
from datetime import datetime
from typing import Annotated, Any, Final

import typer

from headgate.cli._instance import FileOption, JsonOption, StateDirOption, UrlOption, find
from headgate.errors import HeadgateError
from headgate.observe.alerts.wording import figure
from headgate.units import rough_duration

__all__ = ["capacity", "lines_of", "plot"]

_HEIGHT: Final = 10


def capacity(
    resource: Annotated[
        str, typer.Argument(help="Draw one: disk, memory, cpu, connections, requests.")
    ] = "",
    name: Annotated[
        str, typer.Option("--name", help='Which of them: "service shop", "route all", a path.')
    ] = "",
    file: FileOption = None,
    state_dir: StateDirOption = None,
    url: UrlOption = None,
    is_json: JsonOption = False,
) -> None:
    """Show forecasts from the history: when something is full, what services need."""
    client = find(file, state_dir, url)
    drawn = bool(resource) or is_json
    said = client.ask("GET", f"/api/capacity?points={'true' if drawn else 'false'}").content
    if resource:
        said["lines"] = [
            line
            for line in said["lines"]
            if line["resource"] == resource and name in ("", line["name"])
        ]
        if not said["lines"]:
            raise HeadgateError(f"nothing is forecast of {resource} {name}".rstrip())
    if is_json:
        print(json.dumps(said, indent=2))
        return
    if resource:
        width = min(shutil.get_terminal_size((100, 24)).columns, 160)
        for line in said["lines"]:
            print(f"{_title(line)}: {_full(line)}")
            print("\n".join(plot(line, width=width)))
        return
    print("\n".join(lines_of(said)))


def lines_of(said: dict[str, Any]) -> list[str]:
    """The table."""
    if not said["lines"]:
        return ["there is no whole hour of history yet to forecast from"]
    rows: list[tuple[str, ...]] = [("RESOURCE", "NOW", "LIMIT", "A DAY", "PEAK AHEAD", "FULL")]
    for line in said["lines"]:
        rows.append(
            (
                _title(line),
                _shown(line["now"], line["unit"]),
                _shown(line["limit"], line["unit"]),
                _moved(line),
                _peak(line),
                _full(line),
            )
        )
    found = _table(rows)
    if said["services"]:
        found.append("")
        services: list[tuple[str, ...]] = [
            ("SERVICE", "INSTANCES", "WANTED", "PEAK", "EACH CAN", "")
        ]
        for each in said["services"]:
            services.append(
                (
                    each["service"],
                    str(each["instances"]),
                    _wanted(each),
                    _shown(each["peak"], "per_s"),
                    _each(each),
                    each["why"],
                )
            )
        found += _table(services)
    return found


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return [
        _plain(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _title(line: dict[str, Any]) -> str:
    return _plain(f"{line['resource']} {line['name']}".strip())


def _shown(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    if unit == "per_s":
        return f"{value:.3g}/s"
    return figure(value, unit) if unit else f"{value:.4g}"


def _moved(line: dict[str, Any]) -> str:
    per_day = line["per_day"]
    if per_day is None:
        return "-"
    sign = "+" if per_day >= 0 else "-"
    return f"{sign}{_shown(abs(per_day), line['unit'])}"


def _peak(line: dict[str, Any]) -> str:
    if line["peak"] is None:
        return "-"
    high = _shown(line["peak_high80"], line["unit"])
    return f"{_shown(line['peak'], line['unit'])} (up to {high})"


def _full(line: dict[str, Any]) -> str:
    if line["why"]:
        return str(line["why"])
    reach = rough_duration(line["reach_s"])
    full = line["full"]
    if full is None:
        return f"forecast for {reach}"
    if full["likely_s"] == 0:
        return "full now"
    soonest, latest = full["soonest_s"], full["latest_s"]
    span = ""
    if soonest is not None:
        to = "later" if latest is None else rough_duration(latest)
        span = f" ({rough_duration(soonest)} to {to})"
    if full["likely_s"] is None:
        return f"not within {reach}" + (
            f", at the soonest in {rough_duration(soonest)}" if soonest else ""
        )
    return f"in {rough_duration(full['likely_s'])}{span}"


def _wanted(each: dict[str, Any]) -> str:
    if each["wanted"] is None:
        return "-"
    return f"{each['wanted']}" if each["is_limit_seen"] else f"{each['wanted']} at most"


def _each(each: dict[str, Any]) -> str:
    if each["per_instance"] is None:
        return "-"
    more = "" if each["is_limit_seen"] else " or more"
    return f"{each['per_instance']:.3g}/s{more} within {figure(each['latency_s'], 'seconds')}"


def plot(line: dict[str, Any], *, width: int = 100, height: int = _HEIGHT) -> list[str]:
    """The past as dots, the forecast as a line in its 80 % interval, the limit as a rule."""
    past = [(at, value) for at, value in line["past"] if value is not None]
    points = line["points"]
    ahead: list[tuple[float, float, float, float]] = []
    if points is not None:
        ahead = list(
            zip(points["times"], points["middle"], points["low80"], points["high80"], strict=True)
        )
    if not past and not ahead:
        return ["nothing is known of it yet"]
    first = past[0][0] if past else ahead[0][0]
    last = ahead[-1][0] if ahead else past[-1][0]
    highs = [value for _, value in past] + [high for *_, high in ahead]
    limit = line["limit"]
    top = max(highs)
    if limit is not None and limit <= 2.5 * top:
        top = max(top, limit)
    top = top * 1.02 or 1.0
    margin = 11
    columns = max(20, width - margin)
    cells = [[" "] * columns for _ in range(height)]

    def x(at: float) -> int:
        return min(columns - 1, int((at - first) / ((last - first) or 1.0) * columns))

    def y(value: float) -> int:
        return min(height - 1, max(0, int((top - value) / top * height)))

    if limit is not None and limit <= top:
        cells[y(limit)] = ["-"] * columns
    for at, _, low, high in ahead:
        for row in range(y(high), y(low) + 1):
            cells[row][x(at)] = "░"
    for at, value in past:
        cells[y(value)][x(at)] = "•"
    for at, middle, _, _ in ahead:
        cells[y(middle)][x(at)] = "█"
    found = []
    for row, drawn in enumerate(cells):
        label = {0: _shown(top, line["unit"]), height - 1: "0"}.get(row, "")
        found.append(f"{label:>{margin - 2}} |{''.join(drawn)}".rstrip())
    begin, end = (f"{datetime.fromtimestamp(at).astimezone():%d %b %H:%M}" for at in (first, last))
    found.append(" " * margin + begin + end.rjust(columns - len(begin)))
    return found


def _plain(text: str) -> str:
    return "".join(each if each.isprintable() else "?" for each in text)
