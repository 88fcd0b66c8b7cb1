"""`headgate slo`: how budgets stand, a check for pipelines, reports, times that do not count."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote, urlencode

import typer

from headgate.cli._instance import FileOption, JsonOption, StateDirOption, UrlOption, find
from headgate.errors import HeadgateError
from headgate.units import rough_duration

__all__ = ["slo", "table"]

_REPORT_S: Final = 180.0
_BAR: Final = 12

slo = typer.Typer(
    help="Budgets of a running gateway: what was promised, what is left, what was kept.",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
)


@slo.callback()
def _list(
    context: typer.Context,
    file: FileOption = None,
    state_dir: StateDirOption = None,
    url: UrlOption = None,
    is_json: JsonOption = False,
) -> None:
    """Show every objective: what is reached, what is left of its budget, how fast it goes."""
    if context.invoked_subcommand is not None:
        return
    said = find(file, state_dir, url).ask("GET", "/api/slos").content
    if is_json:
        print(json.dumps(said, indent=2))
        return
    print("\n".join(table(said, has_colour=sys.stdout.isatty())))


_COLOURS: Final = {"met": "32", "at_risk": "33", "missed": "31", "unknown": "90"}


def table(said: list[dict[str, Any]], *, has_colour: bool = False) -> list[str]:
    """One line for each objective."""
    if not said:
        return ["no objectives are in the file; write slos:, see docs/howto/slos.md"]
    rows = [("SLO", "OBJECTIVE", "TARGET", "NOW", "BUDGET LEFT", "BURN 1h / 6h", "SPENT IN", "")]
    states = [""]
    for each in said:
        if not each["objectives"]:
            rows.append((each["name"], "not judged yet", "", "", "", "", "", ""))
            states.append("unknown")
        for one in each["objectives"]:
            burn = one["burn"]
            rows.append(
                (
                    each["name"],
                    _plain(one["name"]),
                    f"{one['target'] * 100:.6g}%",
                    _ratio(one["ratio"], one["target"]),
                    f"{bar(one['budget_left'])} {_left(one['budget_left'])}",
                    f"{_times(burn.get('1h'))} / {_times(burn.get('6h'))}",
                    _lasts(one),
                    one["state"].replace("_", " "),
                )
            )
            states.append(one["state"])
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = []
    for row, state in zip(rows, states, strict=True):
        cells = [_plain(cell).ljust(width) for cell, width in zip(row, widths, strict=True)]
        if has_colour and state:
            cells[-1] = f"\x1b[{_COLOURS[state]}m{cells[-1].rstrip()}\x1b[0m"
        lines.append("  ".join(cells).rstrip())
    return lines


def bar(left: float | None, width: int = _BAR) -> str:
    """What is left as a bar."""
    if left is None:
        return "·" * width
    full = min(width * 8, max(0, round(left * width * 8)))
    if left > 0:
        full = max(1, full)
    part = " ▏▎▍▌▋▊▉"[full % 8] if full % 8 else ""
    return ("█" * (full // 8) + part).ljust(width, "░")


def _left(left: float | None) -> str:
    if left is None:
        return "-"
    return f"{left * 100:.0f}%" if left >= 0 else f"{-left * 100:.0f}% over"


def _ratio(ratio: float | None, target: float) -> str:
    if ratio is None:
        return "-"
    digits = len(f"{target * 100:.6g}".partition(".")[2]) + 2
    shown = f"{ratio * 100:.{digits}f}"
    if ratio < 1 and float(shown) >= 100:
        shown = f"{100 - 10**-digits:.{digits}f}"
    return f"{shown}%"


def _times(burn: float | None) -> str:
    if burn is None:
        return "-"
    return f"{burn:.1f}x" if burn < 100 else f"{burn:.0f}x"


def _lasts(one: dict[str, Any]) -> str:
    lasts = one["lasts_s"]
    if one["budget_left"] is None:
        return "-"
    if lasts == 0:
        return "spent"
    return "not so" if lasts is None else rough_duration(lasts)


def _plain(text: str) -> str:
    return "".join(each if each.isprintable() else "?" for each in text)


@slo.command("check")
def check(
    names: Annotated[list[str] | None, typer.Argument(help="SLOs; all if not said.")] = None,
    left: Annotated[
        float, typer.Option("--left", min=0.0, max=100.0, help="So much must be left, in percent.")
    ] = 0.0,
    strict: Annotated[
        bool, typer.Option("--strict", help="What cannot be judged fails, too.")
    ] = False,
    file: FileOption = None,
    state_dir: StateDirOption = None,
    url: UrlOption = None,
    is_json: JsonOption = False,
) -> None:
    """Exit with 1 when a budget is spent, for pipelines: no deploy on an empty budget."""
    said = find(file, state_dir, url).ask("GET", "/api/slos").content
    known = {each["name"] for each in said}
    for name in names or ():
        if name not in known:
            raise HeadgateError(f"there is no SLO {name}; there are: {', '.join(sorted(known))}")
    meant = [each for each in said if not names or each["name"] in names]
    if is_json:
        print(json.dumps(meant, indent=2))
    failed = []
    for each in meant:
        if not each["objectives"] and strict:
            failed.append(f"{each['name']}: not judged yet")
        for one in each["objectives"]:
            title = f"{each['name']} ({one['name']})"
            rest = one["budget_left"]
            if rest is None:
                if strict:
                    failed.append(f"{title}: there were no events")
            elif rest <= 0 or rest * 100 < left:
                failed.append(f"{title}: {_left(rest)} of the budget")
    for line in failed:
        print(_plain(line), file=sys.stderr)
    if failed:
        count = len(failed)
        raise HeadgateError(f"{count} objective{'' if count == 1 else 's'} without enough budget")
    if not is_json:
        print(f"{sum(len(each['objectives']) for each in meant)} objectives have budget left")


@slo.command("report")
def report(
    output: Annotated[Path, typer.Option("--output", "-o", help=".html, .csv or .json")],
    month: Annotated[str, typer.Option("--month", help="Such as 2026-10.")] = "",
    period: Annotated[
        str, typer.Option("--period", help="Or 2026-10-03/2026-10-15, 30d, last-month.")
    ] = "",
    zone: Annotated[str, typer.Option("--zone", help="Whose days, such as Europe/Berlin.")] = "UTC",
    only: Annotated[list[str] | None, typer.Option("--slo", help="Only this one; repeat.")] = None,
    file: FileOption = None,
    state_dir: StateDirOption = None,
    url: UrlOption = None,
) -> None:
    """Write what was promised and kept in a period as a page, or as figures."""
    form = output.suffix.removeprefix(".")
    if form not in {"html", "csv", "json"}:
        raise HeadgateError(f"{output} does not end in .html, .csv or .json")
    if month and period:
        raise HeadgateError("say one of --month and --period")
    asked = [("period", month or period or "month"), ("format", form), ("zone", zone)]
    asked += [("slo", name) for name in only or ()]
    path = f"/api/slos/report?{urlencode(asked)}"
    said = find(file, state_dir, url).ask("GET", path, timeout_s=_REPORT_S).content
    text = said if isinstance(said, str) else json.dumps(said, indent=2)
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise HeadgateError(f"{output} cannot be written: {error.strerror}") from error
    print(f"written to {output}")


@slo.command("exclude")
def exclude(
    hold: Annotated[str, typer.Option("--for", help="From now on, for so long.")] = "",
    start: Annotated[str, typer.Option("--from", help="Or from 2026-10-03T22:00Z")] = "",
    end: Annotated[str, typer.Option("--to", help="to 2026-10-03T23:30Z.")] = "",
    name: Annotated[str, typer.Option("--slo", help="For this one; all if not said.")] = "",
    why: Annotated[str, typer.Option("--why", help="For lists.")] = "",
    back: Annotated[str, typer.Option("--end", help="Take back the one with this id.")] = "",
    file: FileOption = None,
    state_dir: StateDirOption = None,
    url: UrlOption = None,
    is_json: JsonOption = False,
) -> None:
    """Say that a time does not count; list such times, or take one back."""
    client = find(file, state_dir, url)
    if back:
        said = [client.ask("DELETE", f"/api/slos/exclusions/{quote(back, safe='')}").content]
    elif hold or start or end:
        order: dict[str, Any] = {"slo": name, "why": why}
        if hold:
            order["for"] = hold
        if start:
            order["start"] = _moment(start)
        if end:
            order["end"] = _moment(end)
        said = [client.ask("POST", "/api/slos/exclusions", order).content]
    else:
        said = client.ask("GET", "/api/slos/exclusions").content
    if is_json:
        print(json.dumps(said, indent=2))
        return
    for one in said:
        first, last = _shown(one["start"]), _shown(one["end"])
        of = one["slo"] or "all"
        print(
            _plain(
                f"{one['id']}  {first} to {last}  {of}  by {one['author']}  {one['why']}"
            ).rstrip()
        )
    if not said:
        print("all time counts")


def _moment(text: str) -> float:
    from datetime import datetime

    try:
        return datetime.fromisoformat(text).astimezone().timestamp()
    except (ValueError, OverflowError, OSError) as error:
        raise HeadgateError(f"{text!r} is no moment; write 2026-10-03T22:00Z") from error


def _shown(at: float) -> str:
    from datetime import datetime

    return f"{datetime.fromtimestamp(at).astimezone():%Y-%m-%d %H:%M}"
