"""`headgate keys`: make, list, revoke and rotate API keys; hash a password.

How a file of keys is changed is in `control.key_file`. The key itself is printed once, to standard
output alone, and is nowhere else afterwards.
"""

from __future__ import annotations

import getpass
import json
import sys
import time
from pathlib import Path
from typing import Annotated, Final

import typer

from headgate.control.key_file import as_plain, open_keys, read_keys, written
from headgate.errors import HeadgateError
from headgate.security.api_keys import PREFIX
from headgate.security.entries import wall_of
from headgate.units import UnitError, parse_duration

__all__ = ["keys"]

keys = typer.Typer(
    help="Make, list, revoke and rotate API keys; hash passwords.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_MIN_PEPPER_BYTES: Final = 32

File = Annotated[Path, typer.Argument(help="The file of keys, YAML or JSON.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="The id of the key: its middle part.")]
PepperOption = Annotated[
    Path | None, typer.Option("--pepper-file", help="The pepper_file of the method, if it has one.")
]
PrefixOption = Annotated[str, typer.Option("--prefix", help="What the key begins with.")]


@keys.command("new")
def new(
    file: File,
    consumer: Annotated[str, typer.Option("--consumer", "-c", help="Whose key it is.")],
    expires: Annotated[
        str, typer.Option(help="When it ends: 90d, or 2027-01-31T12:00:00Z. By default never.")
    ] = "",
    not_before: Annotated[str, typer.Option(help="When it begins; by default now.")] = "",
    tier: Annotated[str, typer.Option(help="The consumer's tier.")] = "",
    role: Annotated[
        list[str] | None, typer.Option(help="A role; may be said several times.")
    ] = None,
    scope: Annotated[list[str] | None, typer.Option(help="A scope; likewise.")] = None,
    network: Annotated[
        list[str] | None, typer.Option(help="Only from this network; likewise.")
    ] = None,
    note: Annotated[str, typer.Option(help="For people.")] = "",
    pepper_file: PepperOption = None,
    prefix: PrefixOption = PREFIX,
) -> None:
    """Make a key, write its hash to the file and print the key, once."""
    wall = _now()
    said = {
        "consumer": consumer,
        "note": note,
        "tier": tier,
        "roles": role,
        "scopes": scope,
        "networks": network,
        "not_before": _time(not_before, wall, "--not-before"),
        "expires": _time(expires, wall, "--expires"),
    }
    entry = {name: value for name, value in said.items() if value}
    pepper = _pepper(pepper_file)
    with open_keys(file, may_be_new=True) as book:
        key = book.add(entry, pepper, prefix, wall)
    _show(key, file)


@keys.command("list")
def list_keys(
    file: File,
    form: Annotated[str, typer.Option("--format", help="text or json (--json).")] = "text",
) -> None:
    """Show the keys of a file: ids, consumers and states. There are no keys in it to show."""
    wall = _now()
    found = read_keys(file)
    if form == "json":
        print(json.dumps([as_plain(key, wall) for key in found], indent=2))
        return
    if form != "text":
        raise typer.BadParameter("text or json", param_hint="--format")
    rows = [("ID", "STATE", "CONSUMER", "TIER", "EXPIRES", "NOTE")]
    rows += [
        (
            key.id,
            key.state(wall),
            key.identity.consumer,
            key.identity.tier or "-",
            written(key.expires) if key.expires is not None else "never",
            key.note,
        )
        for key in found
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        line = "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
        print(line.rstrip())


@keys.command("revoke")
def revoke(file: File, id_: Id) -> None:
    """Let a key hold no more. Running gateways see it within seconds."""
    with open_keys(file) as book:
        entry = book.find(id_)
        entry["revoked"] = True
    print(f"revoked {id_}")


@keys.command("rotate")
def rotate(
    file: File,
    id_: Id,
    grace: Annotated[
        str, typer.Option(help="How long the old key holds on beside the new one.")
    ] = "7d",
    pepper_file: PepperOption = None,
    prefix: PrefixOption = PREFIX,
) -> None:
    """Make a second key for the same consumer, with the same rights; the old one ends soon."""
    wall = _now()
    try:
        grace_s = parse_duration(grace)
    except UnitError as error:
        raise typer.BadParameter(str(error), param_hint="--grace") from None
    pepper = _pepper(pepper_file)
    with open_keys(file) as book:
        key, ends = book.rotate(id_, grace_s, pepper, prefix, wall)
    _show(key, file)
    print(f"{id_} holds until {ends}", file=sys.stderr)


@keys.command("hash-password")
def hash_password() -> None:
    """Ask for a password, or read one line of standard input, and print its hash."""
    from headgate.security.passwords import make_hash

    if sys.stdin.isatty():
        password = getpass.getpass("Password: ")
        if getpass.getpass("Once more: ") != password:
            raise HeadgateError("the two are not the same")
    else:
        line = sys.stdin.readline(64 * 1024)
        password = line.removesuffix("\n").removesuffix("\r")
    try:
        print(make_hash(password))
    except ValueError as error:
        raise HeadgateError(str(error)) from None


def _show(key: str, file: Path) -> None:
    print(key)
    print(f"Its hash is in {file}. The key is shown this once.", file=sys.stderr)


def _pepper(path: Path | None) -> bytes:
    if path is None:
        return b""
    try:
        pepper = path.read_bytes().removesuffix(b"\n").removesuffix(b"\r")
    except OSError as error:
        raise HeadgateError(f"{path}: cannot be read: {error.strerror}") from error
    if len(pepper) < _MIN_PEPPER_BYTES:
        raise HeadgateError(f"{path}: a pepper has {_MIN_PEPPER_BYTES} bytes or more")
    return pepper


def _time(text: str, wall: float, option: str) -> str:
    if not text:
        return ""
    try:
        return written(wall + parse_duration(text))
    except UnitError:
        pass
    try:
        return written(wall_of(text))
    except ValueError as error:
        raise typer.BadParameter(f"{error}, or a duration such as 90d", param_hint=option) from None


def _now() -> float:
    return time.time()  # noqa: TID251 - a command; keys live in wall time
