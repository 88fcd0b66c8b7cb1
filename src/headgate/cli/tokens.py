"""`headgate tokens`: who may use the admin API of a running gateway, and as what."""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import quote

import typer

from headgate.cli._instance import FileOption, StateDirOption, UrlOption, find
from headgate.control.admin.tokens import digest_of
from headgate.errors import HeadgateError

__all__ = ["tokens"]

_LIST_MAX = 1000
_PIPED_MAX = 4096

tokens = typer.Typer(
    help="Make, list and revoke tokens of the admin API.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


class RoleName(StrEnum):
    viewer = "viewer"
    operator = "operator"
    admin = "admin"
    ingest = "ingest"
    service = "service"
    purge = "purge"
    revoke = "revoke"


class Format(StrEnum):
    text = "text"
    json = "json"


FormatOption = Annotated[Format, typer.Option("--format", help="text or json (--json).")]


@tokens.command()
def make(
    name: Annotated[str, typer.Argument(help="What the audit log calls whoever shows it.")],
    role: Annotated[
        RoleName,
        typer.Option("--role", help="viewer, operator, admin, ingest, service, purge or revoke."),
    ] = RoleName.viewer,
    expires: Annotated[
        str | None,
        typer.Option("--expires", help="After how long, such as 90d; never if not said."),
    ] = None,
    service: Annotated[
        list[str] | None,
        typer.Option(
            "--service",
            help="With --role service: the one that it speaks for; may be said more than once.",
        ),
    ] = None,
    file: FileOption = None,
    state_dir: StateDirOption = None,
    url: UrlOption = None,
    form: FormatOption = Format.text,
) -> None:
    """Make a token. It is printed once; the gateway keeps a hash.

    `headgate tokens make ci --role operator --expires 90d > ci.token`
    """
    order = {"name": name, "role": role.value, "expires_in": expires, "services": service or []}
    made = find(file, state_dir, url).ask("POST", "/api/tokens", order).content
    if form is Format.json:
        print(json.dumps(made, indent=2))
        return
    print(made["token"])
    until = f", until {_moment(made['expires'])}" if made["expires"] else ""
    whose = f" of {', '.join(made['services'])}" if made["services"] else ""
    told = f"{made['id']}: {name}, {made['role']}{whose}{until}; it is not shown again"
    print(told, file=sys.stderr)


@tokens.command("list")
def listed(
    file: FileOption = None,
    state_dir: StateDirOption = None,
    url: UrlOption = None,
    form: FormatOption = Format.text,
) -> None:
    """List the tokens with their roles, and when they were last used."""
    path = f"/api/tokens?limit={_LIST_MAX}"
    rows = find(file, state_dir, url).ask("GET", path).content["tokens"]
    if form is Format.json:
        print(json.dumps(rows, indent=2))
        return
    if not rows:
        print("there are none but the first one, in admin-token")
    for row in rows:
        print(_line(row))


@tokens.command()
def revoke(
    token: Annotated[str, typer.Argument(help="Its id, or its name.")],
    file: FileOption = None,
    state_dir: StateDirOption = None,
    url: UrlOption = None,
) -> None:
    """Refuse a token from now on."""
    client = find(file, state_dir, url)
    rows = client.ask("GET", f"/api/tokens?limit={_LIST_MAX}").content["tokens"]
    found = [row for row in rows if token == row["id"]]
    found = found or [row for row in rows if token == row["name"]]
    if not found:
        raise HeadgateError(f'there is no token "{token}"; see headgate tokens list')
    if len(found) > 1:
        raise HeadgateError(f'several tokens are named "{token}"; say the id')
    gone = client.ask("DELETE", f"/api/tokens/{quote(found[0]['id'], safe='')}").content
    print(f"{gone['name']} ({gone['id']}) is refused from now on")


@tokens.command("hash")
def hashed() -> None:
    """Print the hash of the token on standard input, for `admin.tokens` in the file."""
    given = sys.stdin.read(_PIPED_MAX).strip()
    if not given:
        raise HeadgateError("give the token on standard input: headgate tokens hash < token")
    print(f"sha256:{digest_of(given)}")


def _line(row: dict[str, Any]) -> str:
    words = [f"{row['id']:<16}", f"{row['name']:<20}", f"{row['role']:<8}"]
    if row.get("services"):
        words.append(f"of {', '.join(row['services'])}")
    if row["is_over"]:
        words.append("expired")
    elif row["expires"]:
        words.append(f"until {_moment(row['expires'])}")
    used = row["last_used"]
    now = time.time()  # noqa: TID251 - for people
    words.append("never used" if used is None else f"used {max(0, now - used):.0f} s ago")
    return "  ".join(words)


def _moment(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%d %H:%MZ")
