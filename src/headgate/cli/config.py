"""`headgate config`: what serves, what a file would change, and the way back."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from headgate.cli._instance import FileOption, StateDirOption, UrlOption, find
from headgate.control.client import AdminClient, Refused
from headgate.errors import HeadgateError

__all__ = ["config", "show_diff"]

_APPLY_S = 300.0
_WORDS_SHOWN = 3

config = typer.Typer(
    help="Show, compare, apply and restore the configuration of a running gateway.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


class Format(StrEnum):
    yaml = "yaml"
    json = "json"


class Shown(StrEnum):
    text = "text"
    json = "json"


@config.command()
def show(
    version: Annotated[
        int | None, typer.Argument(help="A version of the history; what serves if not said.")
    ] = None,
    file: FileOption = None,
    state_dir: StateDirOption = None,
    url: UrlOption = None,
    form: Annotated[Format, typer.Option("--format", help="yaml or json (--json).")] = Format.yaml,
) -> None:
    """Show the configuration that serves, or that of a version, without its secrets."""
    path = "/api/config" if version is None else f"/api/config/history/{version}"
    document = find(file, state_dir, url).ask("GET", path).content["document"]
    if form is Format.json:
        print(json.dumps(document, indent=2))
    else:
        print(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), end="")


@config.command()
def diff(
    what: Annotated[str, typer.Argument(help="A file, or the number of a version.")],
    to: Annotated[
        int | None, typer.Argument(help="After a version: another; what serves if not said.")
    ] = None,
    file: FileOption = None,
    state_dir: StateDirOption = None,
    url: UrlOption = None,
    form: Annotated[Shown, typer.Option("--format", help="text or json (--json).")] = Shown.text,
) -> None:
    """Say what a file would change, or what is different between two versions."""
    client = find(file, state_dir, url)
    if not what.isdigit():
        show_diff(client, Path(what), as_json=form is Shown.json)
        return
    path = f"/api/config/diff?from={what}" + (f"&to={to}" if to is not None else "")
    _print_diff(client.ask("GET", path).content, as_json=form is Shown.json)


@config.command()
def history(
    file: FileOption = None,
    state_dir: StateDirOption = None,
    url: UrlOption = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="So many at most.")] = 20,
    form: Annotated[Shown, typer.Option("--format", help="text or json (--json).")] = Shown.text,
) -> None:
    """List the versions that served and those that were refused, the newest first."""
    path = f"/api/config/history?limit={limit}"
    rows = find(file, state_dir, url).ask("GET", path).content["versions"]
    if form is Shown.json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        when = datetime.fromtimestamp(row["at"], UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        result = "served " if row["ok"] else "refused"
        told = row["words"] if row["ok"] else row["faults"]
        more = f" and {len(told) - _WORDS_SHOWN} more" if len(told) > _WORDS_SHOWN else ""
        kept = "" if row["is_restorable"] or not row["ok"] else "  (cannot be restored)"
        print(f"{row['number']:>5}  {when}  {result}  {row['reason']}{kept}")
        if told:
            print(f"       {'; '.join(told[:_WORDS_SHOWN])}{more}")


@config.command("apply")
def applied(
    source: Annotated[Path, typer.Argument(help="The text to write; - is standard input.")],
    file: FileOption = None,
    state_dir: StateDirOption = None,
    url: UrlOption = None,
    is_sure: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Write the gateway's file and reload. It says what would change and asks first.

    Needs `admin.config_writes: on`. The old file stays beside it as `NAME.bak`.
    """
    client = find(file, state_dir, url)
    text = _read(source)
    tag = client.ask("GET", "/api/config").headers.get("etag", "*")
    found = client.ask("POST", "/api/config/diff", text, timeout_s=_APPLY_S).content
    _print_diff(found, as_json=False)
    if not is_sure and not (sys.stdin.isatty() and typer.confirm("apply this?")):
        raise HeadgateError("nothing was changed; say --yes to apply without being asked")
    fields = {"if-match": tag}
    done = client.ask("PUT", "/api/config", text, timeout_s=_APPLY_S, fields=fields).content
    print(f"generation {done['generation']} serves on {done['workers']} workers")


@config.command()
def rollback(
    version: Annotated[int, typer.Argument(help="Its number, as in the history.")],
    file: FileOption = None,
    state_dir: StateDirOption = None,
    url: UrlOption = None,
) -> None:
    """Write the file as it was in a version, and reload. Needs `admin.config_writes: on`."""
    client = find(file, state_dir, url)
    path = f"/api/config/rollback/{version}"
    done = client.ask("POST", path, timeout_s=_APPLY_S).content
    print(f"version {version} serves again, as generation {done['generation']}")


def show_diff(client: AdminClient, source: Path, *, as_json: bool) -> None:
    """What this file would change in the running gateway."""
    try:
        found = client.ask("POST", "/api/config/diff", _read(source), timeout_s=60).content
    except Refused as error:
        faults = error.problem.get("faults") or []
        for fault in faults:
            where = f"{fault['file']}:{fault['line']}: " if fault.get("line") else ""
            print(f"{where}{fault['where']}: {fault['message']}", file=sys.stderr)
        if faults:
            raise HeadgateError(f"{source} would be refused: {len(faults)} faults") from error
        raise
    _print_diff(found, as_json=as_json)


def _read(source: Path) -> bytes:
    if str(source) == "-":
        return sys.stdin.buffer.read()
    try:
        return source.read_bytes()
    except OSError as error:
        raise HeadgateError(f"{source} cannot be read: {(error.strerror or '').lower()}") from error


def _print_diff(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(found, indent=2))
        return
    if not found["count"]:
        print("nothing would change")
    for words in found["words"]:
        print(words)
    if found["count"] > len(found["words"]):
        print(f"and {found['count'] - len(found['words'])} more")
