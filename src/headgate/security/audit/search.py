"""Finding entries: a query, and reading a log from either end.

Theory of operation. A query is asked of lines first: text that is not in the line is not in the
entry, and that is quicker than taking it apart. The newest entries come first unless asked
otherwise, and a page ends with the number to go on from; numbers never move, so pages fit together
while the log grows. A page also ends when `SCAN_MAX` entries were looked at, found or not, so that
one question takes a bounded time.

Nothing is verified here: an entry is shown as it stands.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii
from pathlib import Path
from typing import Any, Final

from headgate.security.audit.files import Segment, lines_of, segments_of

__all__ = ["SCAN_MAX", "Page", "Query", "find", "walk"]

SCAN_MAX: Final = 200_000
_BLOCK: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Query:
    """What all must hold. Texts are compared without regard to case."""

    since: float | None = None
    until: float | None = None
    actor: str = ""
    """Whole, or its beginning with `*` at the end; likewise the others."""
    action: str = ""
    target: str = ""
    origin: str = ""
    outcome: str = ""
    request_id: str = ""
    text: str = ""
    """Somewhere in the entry."""

    def may_match(self, line: bytes) -> bool:
        """False where the line cannot be one; quick."""
        return not self.text or _needle(self.text) in line.lower()

    def matches(self, entry: dict[str, Any]) -> bool:
        wall = entry.get("wall")
        if self.since is not None and not (isinstance(wall, int | float) and wall >= self.since):
            return False
        if self.until is not None and not (isinstance(wall, int | float) and wall < self.until):
            return False
        return all(
            _like(str(entry.get(name, "")), wanted)
            for name in ("actor", "action", "target", "origin", "outcome", "request_id")
            if (wanted := getattr(self, name))
        )


def _needle(text: str) -> bytes:
    return encode_basestring_ascii(text)[1:-1].lower().encode("ascii")


def _like(said: str, wanted: str) -> bool:
    said, wanted = said.lower(), wanted.lower()
    return said.startswith(wanted[:-1]) if wanted.endswith("*") else said == wanted


@dataclass(frozen=True, slots=True)
class Page:
    entries: list[dict[str, Any]]
    after: int | None
    """Ask again with this to go on; None at the end."""
    scanned: int


def walk(folder: Path, *, newest_first: bool = False, after: int | None = None) -> Iterator[bytes]:
    """Every line in turn, beyond the entry `after` in that direction."""
    segments = segments_of(folder)
    firsts = [each.first for each in segments]
    if newest_first:
        for segment in reversed(segments):
            if after is None or segment.first < after:
                yield from _backwards(segment)
        return
    for at, segment in enumerate(segments):
        is_before = after is not None and at + 1 < len(firsts) and firsts[at + 1] <= after + 1
        if not is_before:
            yield from _lines(segment)


def _lines(segment: Segment) -> Iterator[bytes]:
    try:
        yield from lines_of(segment.path)
    except FileNotFoundError:
        return  # pruned meanwhile


def _backwards(segment: Segment) -> Iterator[bytes]:
    try:
        file = segment.path.open("rb")
    except FileNotFoundError:
        return
    with file:
        at = file.seek(0, 2)
        rest = b""
        while at > 0:
            size = min(_BLOCK, at)
            at -= size
            file.seek(at)
            pieces = (file.read(size) + rest).split(b"\n")
            rest = pieces[0]
            for piece in reversed(pieces[1:]):
                if piece:
                    yield piece + b"\n"
            if len(rest) > 16 * _BLOCK:
                rest = b""  # nothing of ours
        if rest:
            yield rest + b"\n"


def find(
    folder: Path,
    query: Query,
    *,
    limit: int = 100,
    after: int | None = None,
    newest_first: bool = True,
    scan_max: int = SCAN_MAX,
) -> Page:
    """One page."""
    found: list[dict[str, Any]] = []
    scanned = 0
    last_seq: int | None = None
    for line in walk(folder, newest_first=newest_first, after=after):
        entry = parsed(line)
        if entry is None:
            continue
        seq = entry["seq"]
        if after is not None and (seq >= after if newest_first else seq <= after):
            continue
        if len(found) == limit or scanned >= scan_max:
            return Page(found, last_seq, scanned)
        scanned += 1
        last_seq = seq
        if query.may_match(line) and query.matches(entry):
            found.append(entry)
    return Page(found, None, scanned)


def parsed(line: bytes) -> dict[str, Any] | None:
    """A line as an entry; None for what is none."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict) or type(entry.get("seq")) is not int:
        return None
    return entry
