"""`headgate keys`: make, list, revoke and rotate API keys; hash a password.

A file of keys is changed under a lock, written under another name and moved into place, with mode
0600, so that no reader ever finds half of it and two commands at once do not lose a key. What the
file held beside the keys (comments) is lost when it is written. The key itself is printed once, to
standard output alone, and is nowhere else afterwards.
"""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import json
import os
import secrets
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer
import yaml

from headgate.errors import HeadgateError
from headgate.security.api_keys import (
    PREFIX,
    ApiKey,
    hash_text,
    make_id,
    make_key,
    read_key_file,
)
from headgate.security.entries import parse_document, wall_of
from headgate.units import UnitError, parse_duration

__all__ = ["keys"]

keys = typer.Typer(
    help="Make, list, revoke and rotate API keys; hash passwords.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_MIN_PEPPER_BYTES: Final = 32
_HEAD: Final = "# API keys, by their hashes. Written by `headgate keys`; comments do not last.\n"

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
    with _open(file, may_be_new=True) as book:
        key = book.add(entry, pepper, prefix, wall)
    _show(key, file)


@keys.command("list")
def list_keys(
    file: File,
    form: Annotated[str, typer.Option("--format", help="text or json.")] = "text",
) -> None:
    """Show the keys of a file: ids, consumers and states. There are no keys in it to show."""
    wall = _now()
    found = _read(file)
    if form == "json":
        print(json.dumps([_as_plain(key, wall) for key in found], indent=2))
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
            _written(key.expires) if key.expires is not None else "never",
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
    with _open(file) as book:
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
    with _open(file) as book:
        old = book.find(id_)
        if old.get("revoked"):
            raise HeadgateError(f"{file}: {id_} is revoked; make a new key instead")
        ends = wall_of(old["expires"]) if old.get("expires") is not None else None
        if ends is not None and ends <= wall:
            raise HeadgateError(f"{file}: {id_} has expired; make a new key instead")
        entry = {
            name: value
            for name, value in old.items()
            if name not in {"id", "hash", "created", "not_before", "revoked"}
        }
        until = wall + grace_s
        old["expires"] = _written(until if ends is None else min(until, ends))
        key = book.add(entry, pepper, prefix, wall)
    _show(key, file)
    print(f"{id_} holds until {old['expires']}", file=sys.stderr)


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


class _Book:
    """The entries of a file while it is changed."""

    def __init__(self, path: Path, entries: list[dict[str, Any]]) -> None:
        self._path = path
        self.entries = entries

    def find(self, id_: str) -> dict[str, Any]:
        for entry in self.entries:
            if str(entry.get("id")) == id_:
                return entry
        raise HeadgateError(f"{self._path}: there is no key {id_}")

    def add(self, entry: dict[str, Any], pepper: bytes, prefix: str, wall: float) -> str:
        known = {str(each.get("id")) for each in self.entries}
        id_ = make_id(secrets.token_bytes(12))
        while id_ in known:
            id_ = make_id(secrets.token_bytes(12))
        try:
            key = make_key(id_, secrets.token_bytes(32), prefix)
        except ValueError as error:
            raise HeadgateError(str(error)) from None
        self.entries.append(
            {"id": id_, "hash": hash_text(key, pepper), "created": _written(wall), **entry}
        )
        return key


@contextlib.contextmanager
def _open(path: Path, *, may_be_new: bool = False) -> Iterator[_Book]:
    """The file's entries, written back at the end if nothing went wrong."""
    lock = path.with_name(f".{path.name}.lock")
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HeadgateError(f"{path}: cannot be written: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        entries: list[dict[str, Any]] = []
        if path.exists() or not may_be_new:
            _read(path)  # a file with faults is not written over
            document = parse_document(path.read_bytes())
            listed = document.get("keys") if isinstance(document, dict) else document
            entries = [dict(entry) for entry in listed or []]
        book = _Book(path, entries)
        yield book
        _write(path, book.entries)
    finally:
        os.close(descriptor)


def _read(path: Path) -> list[ApiKey]:
    try:
        # Whether hashes have a pepper does not matter here; nothing is compared.
        return read_key_file(path.read_bytes(), "api_key", has_pepper=True)
    except OSError as error:
        raise HeadgateError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise HeadgateError(f"{path}: {error}") from None


def _write(path: Path, entries: list[dict[str, Any]]) -> None:
    plain = {"keys": [{name: _plain(value) for name, value in each.items()} for each in entries]}
    if path.suffix == ".json":
        text = json.dumps(plain, indent=2, ensure_ascii=False) + "\n"
    else:
        text = _HEAD + yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
    try:
        # What would be refused when it is read must not be written.
        read_key_file(text.encode(), "api_key", has_pepper=True)
    except ValueError as error:
        raise HeadgateError(str(error)) from None
    target = path.resolve()  # a link stays a link
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)
            with contextlib.suppress(OSError):  # the gateway may run as its owner
                found = target.stat()
                os.fchown(descriptor, found.st_uid, found.st_gid)
            file.write(text.encode())
            file.flush()
            os.fsync(descriptor)
        draft.replace(target)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise HeadgateError(f"{path}: cannot be written: {error.strerror}") from error


def _plain(value: object) -> object:
    """Times of YAML as text again."""
    if isinstance(value, datetime):
        return _written(value.timestamp())
    return value if isinstance(value, (str, int, float, bool, list)) else str(value)


def _as_plain(key: ApiKey, wall: float) -> dict[str, Any]:
    identity = key.identity
    return {
        "id": key.id,
        "state": key.state(wall),
        "consumer": identity.consumer,
        "tier": identity.tier,
        "roles": sorted(identity.roles),
        "scopes": sorted(identity.scopes),
        "networks": [str(network) for network in key.networks],
        "created": _written(key.created) if key.created is not None else None,
        "not_before": _written(key.not_before) if key.not_before is not None else None,
        "expires": _written(key.expires) if key.expires is not None else None,
        "note": key.note,
    }


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
        return _written(wall + parse_duration(text))
    except UnitError:
        pass
    try:
        return _written(wall_of(text))
    except ValueError as error:
        raise typer.BadParameter(f"{error}, or a duration such as 90d", param_hint=option) from None


def _written(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _now() -> float:
    return time.time()  # noqa: TID251 - a command; keys live in wall time
