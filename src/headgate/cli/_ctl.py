"""What all of `headgate ctl` has in common: which gateway, tables, JSON, watching.

Theory of operation
-------------------
Where the gateway is and how it is to be shown (`--url`, `--json`, `--watch` ...) may be said
anywhere on the line: `Anywhere` moves such options to the front before anything is parsed, so that
each command has only what is its own. A noun alone is its list; a noun and a name that is no verb
shows the one of that name: `Noun` puts the verb in.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final
from urllib.parse import quote

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from typer.core import TyperGroup

from headgate.cli._instance import find
from headgate.control.client import AdminClient, NothingRuns, Refused, Silent
from headgate.errors import HeadgateError
from headgate.units import UnitError, parse_duration

__all__ = [
    "Anywhere",
    "Asking",
    "Column",
    "Noun",
    "asking",
    "complete",
    "console",
    "ms",
    "path",
    "percent",
    "rate",
    "show",
    "table",
]

NO_ANSWER: Final = 3
"""The exit code where no gateway answers."""

_VALUED: Final = ("--url", "--token", "--state-dir", "--file", "--every")
_PLAIN: Final = ("--json", "--watch", "-w")


class Anywhere(TyperGroup):
    """A group whose own options may stand behind the names of its commands."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # typer's own click's Context
        first: list[str] = []
        rest: list[str] = []
        left = list(args)
        while left:
            word = left.pop(0)
            if word == "--":
                rest += [word, *left]
                break
            name, equals, _ = word.partition("=")
            if name in _VALUED and (equals or left):
                first += [word] if equals else [word, left.pop(0)]
            elif word in _PLAIN:
                first.append(word)
            else:
                rest.append(word)
        return TyperGroup.parse_args(self, ctx, [*first, *self.with_verb(rest)])

    def with_verb(self, args: list[str]) -> list[str]:
        return args


class Noun(TyperGroup):
    """`users` is `show users`, and nothing at all is `list`."""

    alone: ClassVar[str] = "list"
    named: ClassVar[str] = "show"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # typer's own click's Context
        return super().parse_args(ctx, self.with_verb(args))

    def with_verb(self, args: list[str]) -> list[str]:
        word = args[0] if args else ""
        if word in self.commands or word in ("--help", "-h"):
            return args
        if not word or (word.startswith("-") and self.alone in self.commands):
            return [self.alone, *args]
        return [self.named, *args] if self.named in self.commands else args


@dataclass(slots=True)
class Asking:
    """Which gateway, and how it is shown."""

    client: AdminClient
    is_json: bool = False
    watches: bool = False
    every_s: float = 2.0

    def get(self, url: str) -> Any:
        return self.client.ask("GET", url).content

    def list(self, url: str) -> list[Any]:
        return self.client.listed(url)

    def order(self, method: str, url: str, body: Mapping[str, Any] | None = None) -> None:
        """Give an order and say what became of it."""
        said = self.client.ask(method, url, dict(body) if body is not None else None).content
        if self.is_json:
            print(json.dumps(said, indent=2))
            return
        print(said["message"])
        order = said.get("order")
        if order is None:
            return
        taken, of = order["workers"], order["workers_of"]
        note = f"  {taken} of {of} workers have taken it"
        if order["remaining_s"]:
            note += f"; it ends in {seconds(order['remaining_s'])}"
        print(note)
        if taken < of:
            print("  the others take it as soon as they listen again", file=sys.stderr)


@dataclass(frozen=True, slots=True)
class Column:
    title: str
    value: Callable[[Mapping[str, Any]], Any] | str
    """A function of a row, or the path of a field."""
    right: bool = False
    style_of: Callable[[Mapping[str, Any]], str] | None = field(default=None)

    def text(self, row: Mapping[str, Any]) -> str:
        found = path(row, self.value) if isinstance(self.value, str) else self.value(row)
        return "-" if found is None or found == "" else str(found)


def asking(
    file: Path | None,
    state_dir: Path | None,
    url: str | None,
    token: str | None,
    *,
    is_json: bool,
    watches: bool,
    every: str,
) -> Asking:
    try:
        every_s = parse_duration(every)
    except UnitError as error:
        raise typer.BadParameter(str(error), param_hint="--every") from None
    if token is not None and url is None:
        raise typer.BadParameter("a token is for --url; the socket asks for none")
    if url is not None and token is not None:
        client = AdminClient(None, url=url, token=token)
    else:
        client = find(file, state_dir, url)
    return Asking(client, is_json, watches, max(every_s, 0.2))


def show(asked: Asking, fetch: Callable[[], Any], draw: Callable[[Any], Any]) -> None:
    """Show once, or again and again until somebody ends it."""
    if not asked.watches:
        found = fetch()
        if asked.is_json:
            print(json.dumps(found, indent=2))
        else:
            put(draw(found))
        return
    try:
        if asked.is_json or not sys.stdout.isatty():
            while True:
                found = fetch()
                if asked.is_json:
                    print(json.dumps(found), flush=True)
                else:
                    put(draw(found))
                    print(flush=True)
                time.sleep(asked.every_s)
        from rich.live import Live

        with Live(console=console(), screen=True, auto_refresh=False) as live:
            while True:
                try:
                    drawn = draw(fetch())
                except (Silent, NothingRuns, Refused) as error:
                    drawn = escape(str(error))  # it may be back in a moment
                live.update(drawn, refresh=True)
                time.sleep(asked.every_s)
    except (KeyboardInterrupt, BrokenPipeError):
        return


def put(drawn: Any) -> None:
    """Print; without the blanks at the ends of lines where nobody but a program would see them."""
    out = console()
    if sys.stdout.isatty():
        out.print(drawn)
        return
    with out.capture() as got:
        out.print(drawn)
    print("\n".join(line.rstrip() for line in got.get().rstrip("\n").split("\n")))


def table(rows: Iterable[Mapping[str, Any]], columns: Sequence[Column], nothing: str) -> Any:
    listed = list(rows)
    if not listed:
        return escape(nothing)
    made = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for column in columns:
        made.add_column(
            column.title,
            justify="right" if column.right else "left",
            no_wrap=not _is_wide(column),
            overflow="fold",
        )
    for row in listed:
        cells = []
        for column in columns:
            text = escape(_safe(column.text(row)))
            style = column.style_of(row) if column.style_of is not None else ""
            cells.append(f"[{style}]{text}[/]" if style else text)
        made.add_row(*cells)
    return made


def console() -> Console:
    # A pipe has no width: nothing is cut or wrapped there.
    if sys.stdout.isatty():
        return Console(highlight=False)
    width = int(os.environ.get("COLUMNS", "2000"))
    # With a height too, as otherwise TERM=dumb is taken for eighty columns.
    return Console(highlight=False, width=width, height=1000, soft_wrap=True)


def path(row: Any, dotted: str) -> Any:
    for part in dotted.split("."):
        if not isinstance(row, Mapping):
            return None
        row = row.get(part)
    return row


def rate(value: float | None) -> str | None:
    if value is None:
        return None
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def ms(value: float | None) -> str | None:
    if value is None:
        return None
    if value >= 1000:
        return f"{value / 1000:.2f} s"
    return f"{value:.1f} ms" if value < 100 else f"{value:.0f} ms"


def percent(part: float | None, whole: float | None = 1.0) -> str | None:
    if part is None or not whole:
        return None
    share = part / whole * 100
    return "0%" if not share else f"{share:.2f}%" if share < 1 else f"{share:.1f}%"


def seconds(value: float) -> str:
    if value < 120:
        return f"{value:.0f} s"
    if value < 7200:
        return f"{value / 60:.0f} min"
    return f"{value / 3600:.0f} h" if value < 172_800 else f"{value / 86_400:.0f} d"


def segment(text: str) -> str:
    """Text as a part of a path; URLs and names with slashes stay as they are."""
    return quote(text, safe="/:@")


def complete(url: str, field_name: str) -> Callable[[typer.Context, str], list[str]]:
    """Names for the completion of a shell, from the gateway that runs; none if none runs."""

    def found(ctx: typer.Context, incomplete: str) -> list[str]:
        said: dict[str, Any] = {}
        walk: Any = ctx
        while walk is not None:
            said = {**walk.params, **said}
            walk = walk.parent
        try:
            client = find(said.get("file"), said.get("state_dir"), said.get("url"))
            rows = client.ask("GET", url, timeout_s=1.0).content
        except (HeadgateError, OSError, ValueError):
            return []
        names = {str(path(row, field_name)) for row in rows}
        return sorted(name for name in names if name.startswith(incomplete))

    return found


def _is_wide(column: Column) -> bool:
    return column.title in ("WHY", "MATCH", "TARGET", "HEALTH", "NOTE", "SAYS")


def _safe(text: str) -> str:
    """Without what a terminal would take for an order: paths come from clients."""
    return "".join(char if char.isprintable() else "?" for char in text)
