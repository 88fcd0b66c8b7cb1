"""The live views of `headgate ctl`: top, requests, events."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any
from urllib.parse import urlencode

import typer
from rich.console import Group
from rich.markup import escape

from headgate.cli._ctl import Asking, Column, complete, console, ms, percent, rate, table
from headgate.control.client import NothingRuns, Refused, Silent, Told

__all__ = ["events", "requests", "top"]

Ask = Callable[[typer.Context], Asking]
Count = Annotated[
    int, typer.Option("--count", "-n", min=0, help="End after so many; 0: when you do.")
]
_AGAIN_S = 1.0


def top(ask: Ask) -> Callable[..., None]:
    def top(ctx: typer.Context, count: Count = 0) -> None:
        """The busiest routes, once a second, on the whole screen."""
        asked = ask(ctx)
        shown = _told(asked, "/api/live/overview", count, {"overview"})
        if asked.is_json or not sys.stdout.isatty():
            for told in shown:
                if asked.is_json:
                    print(json.dumps(told.data), flush=True)
                else:
                    console().print(_top(told.data))
            return
        from rich.live import Live

        with Live(console=console(), screen=True, auto_refresh=False) as live:
            for told in shown:
                live.update(_top(told.data), refresh=True)

    return top


def requests(ask: Ask) -> Callable[..., None]:
    def requests(
        ctx: typer.Context,
        route: Annotated[
            str,
            typer.Option(
                "--route", help="Only its.", autocompletion=complete("/api/routes", "name")
            ),
        ] = "",
        status: Annotated[str, typer.Option("--status", help="404, 5xx or 400-499.")] = "",
        slower: Annotated[str, typer.Option("--slower-than", help="Such as 250ms.")] = "",
        count: Count = 0,
    ) -> None:
        """Requests as they end; of many a sample."""
        asked = ask(ctx)
        query = urlencode({"route": route, "status": status, "min_duration": slower})
        for told in _told(asked, f"/api/live/requests?{query}", count, {"request", "left_out"}):
            if asked.is_json:
                print(json.dumps(told.data), flush=True)
            elif told.event == "left_out":
                more = f"({told.data['left_out']} more, worker {told.data['worker']})"
                console().print(f"[dim]{more}[/]")
            else:
                console().print(_request(told.data))

    return requests


def events(ask: Ask) -> Callable[..., None]:
    def events(
        ctx: typer.Context,
        follow: Annotated[
            bool, typer.Option("--follow", "-f", help="Go on as they come; as --watch does.")
        ] = False,
        kind: Annotated[str, typer.Option("--kind", help="Only these: breaker, reload ...")] = "",
        count: Count = 0,
    ) -> None:
        """What has happened: health, breakers, ejections, reloads, workers, bans, orders."""
        asked = ask(ctx)
        if not (follow or asked.watches):
            query = urlencode({"kind": kind, "limit": count or 100})
            found = asked.get(f"/api/events?{query}")
            if asked.is_json:
                print(json.dumps(found, indent=2))
                return
            for said in found:
                console().print(_event(said))
            if not found:
                print("nothing has happened")
            return
        for told in _told(asked, "/api/live/events", count, {kind} if kind else None):
            if asked.is_json:
                print(json.dumps({"id": told.id, "event": told.event, **told.data}), flush=True)
            else:
                console().print(_event(told.data))

    return events


def _told(asked: Asking, url: str, count: int, kinds: set[str] | None) -> Iterator[Told]:
    """Events of a view, also over a new start of control; they end with an interrupt."""
    seen = 0
    last_id = ""
    is_known = False
    try:
        while True:
            try:
                for told in asked.client.stream(url, last_id=last_id):
                    is_known = True
                    last_id = told.id or last_id
                    if kinds is not None and told.event not in kinds:
                        continue
                    yield told
                    seen += told.event != "left_out"
                    if count and seen >= count:
                        return
            except (Silent, NothingRuns, Refused) as error:
                # What has never worked is a mistake; what has worked may be back in a moment.
                if not is_known or isinstance(error, Refused | NothingRuns):
                    raise
            time.sleep(_AGAIN_S)
    except KeyboardInterrupt:
        return
    except BrokenPipeError:
        # Whoever read it has seen enough; the interpreter must not say so again at its end.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123  as long as the process


def _top(said: dict[str, Any]) -> Any:
    workers = said["workers"]
    ready = sum(worker["state"] == "ready" for worker in workers)
    mark = {"ok": "green", "degraded": "yellow", "down": "red"}.get(said["status"], "yellow")
    head = (
        f"[{mark}]{said['status']}[/]  {ready} of {len(workers)} workers  "
        f"[bold]{rate(said['requests_per_s'])}[/] requests/s  "
        f"5xx {percent(said['error_rate'])}  4xx {percent(said['client_error_rate'])}  "
        f"p50 {ms(said['p50_ms']) or '-'}  p95 {ms(said['p95_ms']) or '-'}  "
        f"p99 {ms(said['p99_ms']) or '-'}  "
        f"{said['in_flight']} in flight  {said['connections']} connections"
    )
    columns = [
        Column("ROUTE", "route"),
        Column("SERVICE", "service"),
        Column("REQ/S", lambda row: rate(row["requests_per_s"]), right=True),
        Column(
            "5XX",
            lambda row: percent(row["error_rate"]),
            right=True,
            style_of=lambda row: "red" if row["error_rate"] else "",
        ),
        Column("4XX", lambda row: percent(row["client_error_rate"]), right=True),
        Column("P50", lambda row: ms(row["p50_ms"]), right=True),
        Column("P95", lambda row: ms(row["p95_ms"]), right=True),
        Column("P99", lambda row: ms(row["p99_ms"]), right=True),
    ]
    worries = [escape(f"  {why}") for why in said["reasons"][:5]]
    rows = table(said["routes"], columns, "no requests in the last seconds")
    more = said["routes_busy"] - len(said["routes"])
    return Group(head, *worries, "", rows, *([f"and {more} routes more"] if more > 0 else []))


def _request(said: dict[str, Any]) -> str:
    status = said["status"]
    mark = "red" if status >= 500 else "yellow" if status >= 400 else "green"
    when = time.strftime("%H:%M:%S", time.localtime(said["at"]))
    words = [
        f"{when}  [{mark}]{status}[/]  {ms(said['duration_ms']):>8}",
        escape(f"{said['method']:<6} {said['host']}{said['path']}"),
        escape(f"{said['route'] or '-'} -> {said['instance'] or said['service'] or '-'}"),
    ]
    if said["error"]:
        words.append(f"[{mark}]{escape(said['error'])}[/]")
    if said["trace_id"]:
        words.append(f"[dim]trace {escape(said['trace_id'])}[/]")
    return "  ".join(_plain(word) for word in words)


def _event(said: dict[str, Any]) -> str:
    when = time.strftime("%H:%M:%S", time.localtime(said.get("at", 0)))
    kind = said.get("kind", "")
    return _plain(f"{when}  [bold]{escape(kind):<9}[/]  {escape(said['text'])}")


def _plain(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)
