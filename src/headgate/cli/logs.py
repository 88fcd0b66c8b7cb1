"""`headgate logs`: search and follow what the gateway and services said; levels while it runs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, Final
from urllib.parse import urlencode

import typer
from typer.core import TyperGroup

from headgate.cli._instance import FileOption, SinceOption, StateDirOption, UrlOption, find
from headgate.control.client import AdminClient

__all__ = ["logs"]

_COLOURS: Final = {
    "debug": "\x1b[2m",
    "info": "\x1b[32m",
    "warning": "\x1b[33m",
    "error": "\x1b[31m",
    "critical": "\x1b[1;31m",
}
_UNSAID: Final = frozenset({"time", "level", "logger", "message", "host", "version", "pid"})
_PAGE: Final = 1000


class _WithText(TyperGroup):
    """`headgate logs some words` is a search; `headgate logs level ...` a command."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        if args and args[0] not in self.commands:
            return "search", self.commands["search"], args
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] != "--help"):
            args = ["search", *args]
        return super().parse_args(ctx, args)


logs = typer.Typer(
    cls=_WithText,
    help="Search and follow logs; `headgate logs [TEXT]` is `headgate logs search [TEXT]`.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@logs.command("search")
def search(
    text: Annotated[
        list[str] | None,
        typer.Argument(help='Words that must all be there; word* is a beginning, "a b" a phrase.'),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines come.")] = False,
    level: Annotated[str, typer.Option("--level", help="From this level on.")] = "",
    logger: Annotated[str, typer.Option("--logger", help="It and those below it.")] = "",
    service: Annotated[str, typer.Option("--service", help="Of this service.")] = "",
    route: Annotated[str, typer.Option("--route", help="Of this route.")] = "",
    trace: Annotated[str, typer.Option("--trace", help="Of this trace.")] = "",
    request: Annotated[str, typer.Option("--request", help="Of this request id.")] = "",
    since: SinceOption = "",
    until: Annotated[str, typer.Option("--until", help="Before this; as --since.")] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, help="So many at most.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Lines as they are kept.")] = False,
    file: FileOption = None,
    state_dir: StateDirOption = None,
    url: UrlOption = None,
) -> None:
    """Find lines, and print them in the order in which they were said."""
    client = find(file, state_dir, url)
    asked = {
        name: value
        for name, value in {
            "text": " ".join(text or ()),
            "level": level,
            "logger": logger,
            "service": service,
            "route": route,
            "trace_id": trace,
            "request_id": request,
        }.items()
        if value
    }
    colours = sys.stdout.isatty() and not as_json
    times = {name: value for name, value in (("since", since), ("until", until)) if value}
    if follow:
        limit = min(limit, 20)
    for line in reversed(_found(client, {**asked, **times}, limit)):
        _print(line, as_json=as_json, colours=colours)
    if follow:
        for line in _followed(client, asked):
            _print(line, as_json=as_json, colours=colours)


@logs.command("level")
def set_level(
    logger: Annotated[
        str, typer.Argument(help="Such as headgate.gateway; `root` is all. None: show them.")
    ] = "",
    level: Annotated[
        str, typer.Argument(help="debug, info, warning, error, critical; `file` takes it back.")
    ] = "",
    for_: Annotated[str, typer.Option("--for", help="For so long, such as 10min.")] = "",
    file: FileOption = None,
    state_dir: StateDirOption = None,
    url: UrlOption = None,
) -> None:
    """Show or set the level of a logger in control and all workers at once."""
    client = find(file, state_dir, url)
    if logger and level:
        order: dict[str, Any] = {"logger": logger, "level": None if level == "file" else level}
        if for_:
            order["for"] = for_
        said = client.ask("PUT", "/api/logs/levels", order).content
    elif logger:
        raise typer.BadParameter("say which level, as in: headgate logs level root debug")
    else:
        said = client.ask("GET", "/api/logs/levels").content
    ordered = {order["logger"]: order for order in said["orders"]}
    for name, holds in sorted(said["levels"].items()):
        print(f"{name}: {holds}{_until(ordered.get(name))}")


def _until(order: dict[str, Any] | None) -> str:
    if order is None:
        return ""
    if order["remaining_s"] is None:
        return " (set while running)"
    return f" (for another {order['remaining_s']:.0f} s)"


def _found(client: AdminClient, asked: dict[str, str], limit: int) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    cursor = ""
    while len(lines) < limit:
        page = {**asked, "limit": str(min(limit - len(lines), _PAGE)), "cursor": cursor}
        said = client.ask("GET", f"/api/logs?{urlencode(page)}", timeout_s=20.0).content
        lines += (row["line"] for row in said["lines"])
        cursor = said["next"] or ""
        if not cursor:
            break
    return lines


def _followed(client: AdminClient, asked: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Lines as they come, over ends of the stream, until the gateway is gone."""
    while True:
        for told in client.stream(f"/api/logs/tail?{urlencode(asked)}"):
            if told.event == "line" and isinstance(told.data, dict):
                yield told.data
            elif told.event == "dropped" and isinstance(told.data, dict):
                print(f"... {told.data.get('count')} lines came too fast", file=sys.stderr)
        time.sleep(1.0)


def _print(line: dict[str, Any], *, as_json: bool, colours: bool) -> None:
    print(json.dumps(line) if as_json else text_of(line, colours=colours), flush=True)


def text_of(line: dict[str, Any], *, colours: bool = False) -> str:
    """A line for people; what strangers sent cannot move the cursor."""
    level = str(line.get("level") or _level_of(line))
    moment = line.get("time", "")
    if isinstance(moment, int | float):
        moment = datetime.fromtimestamp(moment, UTC).isoformat()
    head = f"{str(moment)[:23]:<23} {level.upper():<8} {line.get('logger') or _source(line)}: "
    words = [_clean(f"{head}{line.get('message', _request(line))}")]
    for name, value in line.items():
        if name in _UNSAID or name == "error" or value in ("", None):
            continue
        shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        words.append(_clean(f"{name}={shown}"))
    text = " ".join(words)
    error = line.get("error")
    if isinstance(error, dict) and error.get("stack"):
        text = "\n    ".join((text, *map(_clean, str(error["stack"]).splitlines())))
    elif error:
        text = f"{text} error={_clean(str(error))}"
    colour = _COLOURS.get(level) if colours else None
    return f"{colour}{text}\x1b[0m" if colour else text


def _level_of(line: dict[str, Any]) -> str:
    """A line of the access log has no level; the store takes failures for errors."""
    status = line.get("status")
    return "error" if isinstance(status, int) and status >= 500 else "info"


def _source(line: dict[str, Any]) -> str:
    return "-" if "message" in line else "access"


def _request(line: dict[str, Any]) -> str:
    """A line of the access log has no message."""
    names = ("method", "path", "status")
    return " ".join(str(line[name]) for name in names if name in line)


def _clean(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)
