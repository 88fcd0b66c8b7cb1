"""`headgate monitors`: things outside that a running gateway asks now and then."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Final
from urllib.parse import quote

import typer

from headgate.cli._instance import FileOption, JsonOption, StateDirOption, UrlOption, find
from headgate.errors import HeadgateError
from headgate.units import format_percent, rough_duration

__all__ = ["monitors", "sparkline", "table"]

DaysOption = Annotated[int, typer.Option("--days", min=1, max=90, help="So many days of history.")]
_CHECK_S: Final = 75.0
_BARS: Final = "▁▂▃▄▅▆▇█"
_WORDS: Final = {"ok": "up", "failing": "DOWN", "degraded": "degraded", "unknown": "unknown"}

monitors = typer.Typer(
    help="Things outside that a running gateway asks now and then.",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
)


@monitors.callback()
def _list(
    context: typer.Context,
    days: DaysOption = 30,
    file: FileOption = None,
    state_dir: StateDirOption = None,
    url: UrlOption = None,
    is_json: JsonOption = False,
) -> None:
    """List them: how they are, and a mark for each day."""
    if context.invoked_subcommand is not None:
        return
    rows = find(file, state_dir, url).listed(f"/api/monitors?limit=1000&days={days}")
    if is_json:
        print(json.dumps(rows, indent=2))
    elif not rows:
        print("there are no monitors; say some under `monitors` in the file")
    else:
        print("\n".join(table(rows, _now())))


def _now() -> float:
    return time.time()  # noqa: TID251 - the gateway tells times of the clock


def sparkline(shares: Sequence[float | None]) -> str:
    """One mark a day: a full bar is all up, a dot is nothing known."""
    return "".join("·" if share is None else _bar(share) for share in shares)


def _bar(share: float) -> str:
    if share >= 1.0:
        return _BARS[-1]
    # From 100 % down to 90 % and less: nobody tells 50 % from 60 % by a bar, but 99.9 % from 100 %.
    return _BARS[max(0, min(6, int((share - 0.9) * 70)))]


def table(rows: Sequence[Mapping[str, Any]], now: float) -> list[str]:
    """The list, for people."""
    cells = [
        (
            row["name"],
            _WORDS.get(row["status"], row["status"]),
            "" if row["since"] is None else rough_duration(max(0.0, now - row["since"])),
            "-" if row["last_ms"] is None else f"{row['last_ms']:.0f} ms",
            "-" if row["p95_ms"] is None else f"{row['p95_ms']:.0f} ms",
            "-" if row["uptime"] is None else _share(row["uptime"]),
            sparkline(row["uptime_by_day"]),
        )
        for row in rows
    ]
    days = rows[0]["days"] if rows else 0
    heads = ("MONITOR", "STATE", "FOR", "LAST", "P95", "UPTIME", f"{days} DAYS (UTC)")
    widths = [max(len(line[at]) for line in (heads, *cells)) for at in range(len(heads))]
    lines = []
    for line in (heads, *cells):
        parts = [
            cell.rjust(width) if at in {3, 4, 5} else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        lines.append("  ".join(parts).rstrip())
    whys = [f"{row['name']}: {row['why']}" for row in rows if row["why"]]
    return [*lines, *whys]


def _share(share: float) -> str:
    # Rounded down: 100% is said of what was never down.
    return format_percent(int(share * 100_000) / 100_000)


@monitors.command("show")
def show(
    name: Annotated[str, typer.Argument(help="The name of a monitor.")],
    days: DaysOption = 30,
    results: Annotated[
        int, typer.Option("--results", min=0, max=500, help="The last so many.")
    ] = 10,
    file: FileOption = None,
    state_dir: StateDirOption = None,
    url: UrlOption = None,
    is_json: JsonOption = False,
) -> None:
    """Show one, day by day, with its last results."""
    path = f"/api/monitors/{quote(name, safe='')}?days={days}&results={results}"
    said = find(file, state_dir, url).ask("GET", path).content
    if is_json:
        print(json.dumps(said, indent=2))
        return
    print("\n".join(table([said], _now())))
    print(f"{said['kind']} {said['target']}, every {rough_duration(said['every_s'])}")
    if said["certificate_ends"] is not None:
        left_s = said["certificate_ends"] - _now()
        print(f"its certificate ends in {rough_duration(max(0.0, left_s))}")
    known = [day for day in said["by_day"] if day["uptime"] is not None]
    if known:
        heads = f"{'P50':>10}{'P95':>10}{'P99':>10}"
        print(f"\nDAY           UPTIME      DOWN   UNKNOWN  CHECKS  FAILED{heads}")
    for day in known:
        times = "".join(
            f"{'-' if day[each] is None else format(day[each], '.0f') + ' ms':>10}"
            for each in ("p50_ms", "p95_ms", "p99_ms")
        )
        print(
            f"{day['date']}  {_share(day['uptime']):>8}  {rough_duration(day['down_s']):>8}"
            f"  {rough_duration(day['unknown_s']):>8}"
            f"  {day['checks']:>6}  {day['failures']:>6}{times}"
        )
    if said["results"]:
        print()
    for each in said["results"]:
        print(_result(each))


def _result(each: Mapping[str, Any]) -> str:
    at = datetime.fromtimestamp(each["at"]).astimezone()
    code = "" if each["code"] is None else f"  {each['code']}"
    word = _WORDS.get(each["status"], each["status"])
    return f"{at:%Y-%m-%d %H:%M:%S}  {word:<8}  {each['ms']:>7.0f} ms{code}  {each['why']}".rstrip()


@monitors.command("check")
def check(
    names: Annotated[
        list[str] | None, typer.Argument(help="Monitors to check; all if not said.")
    ] = None,
    file: FileOption = None,
    state_dir: StateDirOption = None,
    url: UrlOption = None,
    is_json: JsonOption = False,
) -> None:
    """Check now. The exit code is 1 if any is down."""
    client = find(file, state_dir, url)
    wanted = names or [row["name"] for row in client.listed("/api/monitors?limit=1000")]
    found = []
    for name in wanted:
        path = f"/api/monitors/{quote(name, safe='')}/check"
        said = client.ask("POST", path, timeout_s=_CHECK_S).content
        found.append(said)
        if not is_json:
            word = _WORDS.get(said["status"], said["status"])
            took = "" if said["last_ms"] is None else f"{said['last_ms']:.0f} ms"
            print(f"{word:<8}  {name:<24} {took:>9}  {said['why']}".rstrip(), flush=True)
    if is_json:
        print(json.dumps(found, indent=2))
    down = sum(said["status"] == "failing" for said in found)
    if down:
        raise HeadgateError(f"{down} of {len(found)} {'is' if down == 1 else 'are'} down")
