"""`headgate audit`: read the audit log, and find out whether it is what was written.

The commands read the files themselves, so they work while nothing runs, and on a copy elsewhere
(`--folder`). None of them writes.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from headgate.cli._instance import StateDirOption, state_dir_of
from headgate.errors import HeadgateError
from headgate.security.audit.export import to_csv
from headgate.security.audit.files import AuditUnreadable, public_keys, verify_folder
from headgate.security.audit.search import Query, parsed, walk
from headgate.security.audit.times import moment_of
from headgate.security.audit.verify import Verdict

__all__ = ["audit"]

audit = typer.Typer(
    help="Verify, search and export the audit log.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

FileOption = Annotated[
    Path | None, typer.Option("--file", help="The file that the gateway runs or ran.")
]
FolderOption = Annotated[
    Path | None, typer.Option("--folder", help="The folder of the log itself, such as a copy.")
]
KeyOption = Annotated[
    Path | None,
    typer.Option("--keys", help="Public keys that you kept, in place of keys.pub beside the log."),
]
AnchorOption = Annotated[
    list[Path] | None,
    typer.Option("--anchor", help="Checkpoints that were kept elsewhere; may be given again."),
]
SinceOption = Annotated[
    str | None, typer.Option("--since", help="2026-01-31, 2026-01-31T12:00:00Z, or an age: 2h.")
]
UntilOption = Annotated[str | None, typer.Option("--until", help="Before this; as --since.")]
ActorOption = Annotated[str, typer.Option("--actor", help="Who; with * at the end a beginning.")]
ActionOption = Annotated[str, typer.Option("--action", help="What, such as config.* or ban.added.")]
TargetOption = Annotated[str, typer.Option("--target", help="Of what.")]
OriginOption = Annotated[str, typer.Option("--origin", help="From where.")]
OutcomeOption = Annotated[str, typer.Option("--outcome", help="ok, refused, failed or noted.")]
TextOption = Annotated[str, typer.Option("--text", help="Somewhere in the entry.")]


class Format(StrEnum):
    text = "text"
    json = "json"


class ExportFormat(StrEnum):
    jsonl = "jsonl"
    csv = "csv"


@audit.command("verify")
def verify(
    file: FileOption = None,
    state_dir: StateDirOption = None,
    folder: FolderOption = None,
    keys: KeyOption = None,
    anchor: AnchorOption = None,
    form: Annotated[Format, typer.Option("--format", help="text or json (--json).")] = Format.text,
) -> None:
    """Find out whether entries were changed, taken away, put in or cut off.

    Exits with 1 where they were.
    """
    verdict = _verdict(_folder(file, state_dir, folder), keys, anchor)
    print(json.dumps(verdict.to_json(), indent=2) if form is Format.json else _told(verdict))
    if not verdict.is_good:
        raise typer.Exit(1)


@audit.command("search")
def search(
    file: FileOption = None,
    state_dir: StateDirOption = None,
    folder: FolderOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    actor: ActorOption = "",
    action: ActionOption = "",
    target: TargetOption = "",
    origin: OriginOption = "",
    outcome: OutcomeOption = "",
    text: TextOption = "",
    limit: Annotated[int, typer.Option("--limit", min=1, help="So many at most.")] = 50,
    form: Annotated[Format, typer.Option("--format", help="text or json (--json).")] = Format.text,
) -> None:
    """Find entries, the newest first."""
    query = _query(since, until, actor, action, target, origin, outcome, text)
    where = _folder(file, state_dir, folder)
    found = 0
    for _, entry in _matching(where, query, newest_first=True):
        print(json.dumps(entry) if form is Format.json else line_of(entry))
        found += 1
        if found == limit:
            break
    if not found and form is Format.text:
        print("nothing was found")


@audit.command("show")
def show(
    number: Annotated[int, typer.Argument(metavar="NUMBER", min=1, help="The entry's number.")],
    file: FileOption = None,
    state_dir: StateDirOption = None,
    folder: FolderOption = None,
) -> None:
    """Show one entry whole."""
    where = _folder(file, state_dir, folder)
    for _, entry in _matching(where, Query(), newest_first=False, after=number - 1):
        if entry["seq"] == number:
            print(json.dumps(entry, indent=2))
            return
    raise HeadgateError(f"there is no entry {number}; `headgate audit verify` says from where on")


@audit.command("export")
def export(
    file: FileOption = None,
    state_dir: StateDirOption = None,
    folder: FolderOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    actor: ActorOption = "",
    action: ActionOption = "",
    target: TargetOption = "",
    origin: OriginOption = "",
    outcome: OutcomeOption = "",
    text: TextOption = "",
    keys: KeyOption = None,
    anchor: AnchorOption = None,
    form: Annotated[ExportFormat, typer.Option("--format", help="jsonl or csv.")] = (
        ExportFormat.jsonl
    ),
) -> None:
    """Write entries to standard output, the oldest first: lines as they stand, or a table.

    Whether the log holds is said on standard error, and by the exit code as with verify.
    """
    query = _query(since, until, actor, action, target, origin, outcome, text)
    where = _folder(file, state_dir, folder)
    verdict = _verdict(where, keys, anchor)
    count = 0

    def counted() -> Iterator[tuple[bytes, dict[str, Any]]]:
        nonlocal count
        for found in _matching(where, query, newest_first=False):
            count += 1
            yield found

    if form is ExportFormat.csv:
        for row in to_csv(entry for _, entry in counted()):
            sys.stdout.write(row)
    else:
        for line, _ in counted():
            sys.stdout.write(line.decode("utf-8", "replace"))
    sys.stdout.flush()
    print(f"{count} entries exported\n{_told(verdict)}", file=sys.stderr)
    if not verdict.is_good:
        raise typer.Exit(1)


def line_of(entry: dict[str, Any]) -> str:
    """An entry as one line; what strangers sent cannot move the cursor."""
    wall = entry.get("wall")
    moment = "?"
    if isinstance(wall, int | float) and 0 <= wall < 253402300800:
        moment = datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    words = [f"{entry['seq']:>7}", moment, str(entry.get("outcome", "?")).ljust(7)]
    words += [str(entry.get(name, "")) for name in ("action", "actor") if entry.get(name)]
    words += [str(entry[name]) for name in ("target",) if entry.get(name)]
    if entry.get("origin"):
        words.append(f"from {entry['origin']}")
    detail = entry.get("detail")
    if isinstance(detail, dict):
        for name in ("what", "why", "count", "changed"):
            if name in detail:
                words.append(str(detail[name]) if name == "what" else f"{name}: {detail[name]}")
    text = "  ".join(words)
    return "".join(char if char.isprintable() else "?" for char in text)


def _folder(file: Path | None, state_dir: Path | None, folder: Path | None) -> Path:
    return folder if folder is not None else state_dir_of(file, state_dir) / "audit"


def _verdict(folder: Path, keys: Path | None, anchor: list[Path] | None) -> Verdict:
    try:
        known = public_keys(keys) if keys is not None else None
        return verify_folder(folder, known, anchor or ())
    except AuditUnreadable as error:
        raise HeadgateError(str(error)) from error


def _told(verdict: Verdict) -> str:
    lines = [f"{'FAULT' if found.is_fault else 'note '}  {found}" for found in verdict.findings]
    more = verdict.faults - sum(found.is_fault for found in verdict.findings)
    if more > 0:
        lines.append(f"and {more} more faults")
    if verdict.entries == 0:
        lines.append("the log is empty")
        return "\n".join(lines)
    lines.append(
        f"{verdict.entries} entries, {verdict.first} to {verdict.last}; {verdict.checkpoints} "
        f"checkpoints hold, signed up to entry {verdict.signed_to}"
        + (f", anchored up to {verdict.anchored_to}" if verdict.anchored_to else "")
    )
    lines.append(f"the newest hash is {verdict.head}")
    lines.append(
        "the log is what was written"
        if verdict.is_good
        else f"THE LOG IS NOT WHAT WAS WRITTEN: {verdict.faults} faults"
    )
    return "\n".join(lines)


def _query(
    since: str | None,
    until: str | None,
    actor: str,
    action: str,
    target: str,
    origin: str,
    outcome: str,
    text: str,
) -> Query:
    wall = time.time()  # noqa: TID251 - an age counts from now
    try:
        return Query(
            moment_of(since, wall) if since else None,
            moment_of(until, wall) if until else None,
            actor,
            action,
            target,
            origin,
            outcome,
            text=text,
        )
    except ValueError as error:
        raise HeadgateError(str(error)) from error


def _matching(
    folder: Path, query: Query, *, newest_first: bool, after: int | None = None
) -> Iterator[tuple[bytes, dict[str, Any]]]:
    try:
        for line in walk(folder, newest_first=newest_first, after=after):
            if not query.may_match(line):
                continue
            entry = parsed(line)
            if entry is not None and query.matches(entry):
                yield line, entry
    except AuditUnreadable as error:
        raise HeadgateError(str(error)) from error
    except OSError as error:
        raise HeadgateError(f"{error.filename or folder}: {error.strerror}") from error
