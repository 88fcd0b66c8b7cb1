"""`headgate alerts`: what fires in a running gateway, silences, acknowledgements, replays."""

from __future__ import annotations

import json
import time
from datetime import datetime
from typing import Annotated, Any, Final
from urllib.parse import quote

import typer

from headgate.cli._instance import FileOption, JsonOption, StateDirOption, UrlOption, find
from headgate.control.client import AdminClient
from headgate.errors import HeadgateError
from headgate.observe.alerts.wording import figure
from headgate.units import rough_duration

__all__ = ["alerts"]

_REPLAY_S: Final = 90.0
_CHECK_S: Final = 60.0

alerts = typer.Typer(
    help="What fires in a running gateway; silences, acknowledgements, replays.",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
)


@alerts.callback()
def _list(
    context: typer.Context,
    file: FileOption = None,
    state_dir: StateDirOption = None,
    url: UrlOption = None,
    is_json: JsonOption = False,
) -> None:
    """List what fires, is about to, or ended a moment ago."""
    if context.invoked_subcommand is not None:
        return
    said = find(file, state_dir, url).ask("GET", "/api/alerts?limit=1000").content
    if is_json:
        print(json.dumps(said, indent=2))
        return
    if not said["alerts"]:
        print("all is quiet")
    for each in said["alerts"]:
        print(_line(each))
    if said["total"] > len(said["alerts"]):
        print(f"and {said['total'] - len(said['alerts'])} more")


def _line(alert: dict[str, Any]) -> str:
    notes = []
    if alert["flapping"]:
        notes.append("flapping")
    if alert["silenced_by"]:
        notes.append(f"silenced by {alert['silenced_by']}")
    if alert["inhibited_by"]:
        notes.append(f"explained by {alert['inhibited_by']}")
    if alert["acknowledged_by"]:
        notes.append(f"acknowledged by {alert['acknowledged_by']}")
    at = alert["resolved_at"] or alert["fired_at"] or alert["since"]
    age = rough_duration(max(0.0, time.time() - at))  # noqa: TID251 - for people
    more = f" ({'; '.join(notes)})" if notes else ""
    return (
        f"{alert['id']}  {alert['state']:<8} {alert['level']:<8} {age:>7}  {alert['summary']}{more}"
    )


@alerts.command("rules")
def rules(
    file: FileOption = None,
    state_dir: StateDirOption = None,
    url: UrlOption = None,
    is_json: JsonOption = False,
) -> None:
    """List the rules, their state and their last value."""
    said = find(file, state_dir, url).ask("GET", "/api/alerts/rules").content
    if is_json:
        print(json.dumps(said, indent=2))
        return
    width = max((len(each["name"]) for each in said), default=0)
    for each in said:
        values = [one["value"] for one in each["last_values"] if one["value"] is not None]
        worst = None
        if values:
            worst = max(values) if each["direction"] == "above" else min(values)
        bounds = " ".join(
            f"{level} {figure(bound, each['unit'])}" for level, bound in each["thresholds"].items()
        )
        shown = "-" if worst is None else figure(worst, each["unit"])
        error = f"  ERROR: {each['error']}" if each["error"] else ""
        print(f"{each['name']:<{width}}  {each['state']:<8} {shown:>10}  {bounds}{error}".rstrip())


@alerts.command("silence")
def silence(
    matchers: Annotated[
        list[str] | None,
        typer.Argument(help='Conditions on labels: alertname=cpu "route=~api-.*"; none lists.'),
    ] = None,
    hold: Annotated[str, typer.Option("--for", help="How long, such as 30min.")] = "1h",
    comment: Annotated[str, typer.Option("--comment", help="Why, for lists.")] = "",
    author: Annotated[
        str, typer.Option("--author", help="Who; the token's name if not said.")
    ] = "",
    end: Annotated[str | None, typer.Option("--end", help="End the silence with this id.")] = None,
    file: FileOption = None,
    state_dir: StateDirOption = None,
    url: UrlOption = None,
    is_json: JsonOption = False,
) -> None:
    """Keep alerts from being told for a while; list silences, or end one."""
    client = find(file, state_dir, url)
    if end is not None:
        said = client.ask("DELETE", f"/api/alerts/silences/{quote(end, safe='')}").content
        print(json.dumps(said, indent=2) if is_json else said["message"])
        return
    if matchers:
        order = {"matchers": matchers, "for": hold, "comment": comment, "author": author}
        made = client.ask("POST", "/api/alerts/silences", order).content
        print(json.dumps(made, indent=2) if is_json else f"{_silence(made)}")
        return
    listed = client.ask("GET", "/api/alerts/silences").content
    if is_json:
        print(json.dumps(listed, indent=2))
    else:
        print("\n".join(_silence(each) for each in listed) or "there are no silences")


def _silence(each: dict[str, Any]) -> str:
    left = rough_duration(max(0.0, each["ends"] - time.time()))  # noqa: TID251 - for people
    why = f": {each['comment']}" if each["comment"] else ""
    return f"{each['id']}  {left} left  {', '.join(each['matchers'])}  by {each['author']}{why}"


@alerts.command("ack")
def ack(
    alert: Annotated[str, typer.Argument(help="The id that the list shows.")],
    comment: Annotated[str, typer.Option("--comment", help="For lists and receivers.")] = "",
    by: Annotated[str, typer.Option("--by", help="Who; the token's name if not said.")] = "",
    file: FileOption = None,
    state_dir: StateDirOption = None,
    url: UrlOption = None,
    is_json: JsonOption = False,
) -> None:
    """Say that somebody is at it: no repeats and no escalation until it ends."""
    order = {"by": by, "comment": comment}
    path = f"/api/alerts/{quote(alert, safe='')}/ack"
    said = find(file, state_dir, url).ask("POST", path, order).content
    print(json.dumps(said, indent=2) if is_json else _line(said))


@alerts.command("test")
def replayed(
    rule: Annotated[str, typer.Argument(help="The name of a rule.")],
    since: Annotated[str, typer.Option("--since", help="How far back, such as 7d.")] = "7d",
    step: Annotated[
        str,
        typer.Option("--step", help="From one evaluation to the next; the rule's own if not said."),
    ] = "",
    file: FileOption = None,
    state_dir: StateDirOption = None,
    url: UrlOption = None,
    is_json: JsonOption = False,
) -> None:
    """Hold a rule against the history: when it would have fired, and how often it would be told."""
    path = (
        f"/api/alerts/rules/{quote(rule, safe='')}/replay?since={quote(since)}&step={quote(step)}"
    )
    client = find(file, state_dir, url)
    said = client.ask("GET", path, timeout_s=_REPLAY_S).content
    print(json.dumps(said, indent=2) if is_json else replay_text(said))


def replay_text(said: dict[str, Any]) -> str:
    """What a replay found, for people."""
    unit = said["unit"]
    count = len(said["firings"])
    span = rough_duration(said["end"] - said["start"])
    lines = [
        (
            f"{said['rule']} over {span}: fired {count} time{'' if count == 1 else 's'}, for"
            f" {rough_duration(said['firing_s'])} in all; {said['notifications']} notifications"
            f" ({said['evaluations']} evaluations, every {said['step_s']:g} s)"
        )
    ]
    if said["errors"]:
        lines.append(f"{said['errors']} evaluations failed: {said['error']}")
    lines += plot(said["plot"]["values"], said["thresholds"], unit)
    for each in said["firings"][:50]:
        began = datetime.fromtimestamp(each["fired_at"]).astimezone()
        lasted = (each["ended_at"] or said["end"]) - each["fired_at"]
        labels = ", ".join(f"{k}={v}" for k, v in each["labels"].items() if k != "alertname")
        peak = "" if each["peak"] is None else f"  peak {figure(each['peak'], unit)}"
        on = "" if each["ended_at"] else " and still does"
        lines.append(
            f"{began:%Y-%m-%d %H:%M:%S}  {each['level']:<8} {rough_duration(lasted):>7}{on}"
            f"{peak}{'  flapping' if each['flapping'] else ''}  {labels}".rstrip()
        )
    if count > 50:
        lines.append(f"and {count - 50} more; see --json")
    return "\n".join(lines)


_BARS: Final = " ▁▂▃▄▅▆▇█"


def plot(
    values: list[float | None], bounds: dict[str, float], unit: str, width: int = 72
) -> list[str]:
    """The worst value in each stretch of time as a row of bars, with its scale."""
    known = [each for each in values if each is not None]
    if not known:
        return ["there are no figures in this time"]
    top = max([*known, *bounds.values()])
    low = min(0.0, *known)
    span = (top - low) or 1.0
    rows = []
    for place in range(min(width, len(values))):
        first = place * len(values) // min(width, len(values))
        after = (place + 1) * len(values) // min(width, len(values))
        some = [each for each in values[first:after] if each is not None]
        share = (max(some) - low) / span if some else None
        rows.append("·" if share is None else _BARS[min(8, max(1, round(share * 8)))])
    marks = ", ".join(f"{level} at {figure(bound, unit)}" for level, bound in bounds.items())
    scale = f"{figure(low, unit)} to {figure(top, unit)}"
    return ["".join(rows), f"{scale}; {marks}" if marks else scale]


@alerts.command("check")
def check(
    receivers: Annotated[
        list[str] | None, typer.Argument(help="Receivers to try; all if not said.")
    ] = None,
    file: FileOption = None,
    state_dir: StateDirOption = None,
    url: UrlOption = None,
    is_json: JsonOption = False,
) -> None:
    """Send a test message to receivers, and say what became of it."""
    client = find(file, state_dir, url)
    names = receivers or client.ask("GET", "/api/alerts/receivers").content
    found = {name: _tried(client, name) for name in names}
    if is_json:
        print(json.dumps(found, indent=2))
    else:
        for rows in found.values():
            for row in rows:
                word = "ok" if row["ok"] else "FAILED"
                print(f"{word:<6}  {row['channel']} ({row['place']})  {row['detail']}".rstrip())
    failed = sum(not row["ok"] for rows in found.values() for row in rows)
    if failed:
        raise HeadgateError(f"{failed} test message{'' if failed == 1 else 's'} did not arrive")


def _tried(client: AdminClient, name: str) -> list[dict[str, Any]]:
    order = {"receiver": name}
    rows: list[dict[str, Any]] = client.ask(
        "POST", "/api/alerts/test", order, timeout_s=_CHECK_S
    ).content
    return rows


@alerts.command("notifications")
def notifications(
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="So many at most.")] = 50,
    file: FileOption = None,
    state_dir: StateDirOption = None,
    url: UrlOption = None,
    is_json: JsonOption = False,
) -> None:
    """List what was sent to whom, and what became of it."""
    client = find(file, state_dir, url)
    said = client.ask("GET", f"/api/alerts/notifications?limit={limit}").content
    if is_json:
        print(json.dumps(said, indent=2))
        return
    for row in said["notifications"]:
        at = datetime.fromtimestamp(row["at"]).astimezone()
        print(
            f"{at:%Y-%m-%d %H:%M:%S}  {row['outcome']:<8} {row['receiver']:<24} {row['subject']}"
            f"{'  ' + row['detail'] if row['outcome'] != 'sent' else ''}"
        )
