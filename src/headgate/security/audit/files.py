"""The files of an audit log, for reading: segments, checkpoints, public keys.

    20261121-000000000001.jsonl   a segment: the day it was begun, and its first entry
    checkpoints.jsonl             one signed checkpoint a line
    keys.pub                      public keys: id, blank, base64
    key.pem                       the private key, where none was named
    lock, reserve                 of the process that writes

All of it may be read while it is written: a line is whole once it has its end.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from headgate.security.audit.chain import NotALine, Sealed, key_id, read_line
from headgate.security.audit.entry import LIMIT_BYTES
from headgate.security.audit.verify import Marks, Verdict, Verifier

__all__ = [
    "CHECKPOINTS",
    "KEYS",
    "AuditUnreadable",
    "Segment",
    "last_of",
    "lines_of",
    "public_keys",
    "segments_of",
    "verify_folder",
]

CHECKPOINTS: Final = "checkpoints.jsonl"
KEYS: Final = "keys.pub"
LINE_MAX: Final = LIMIT_BYTES + 4096
_SEGMENT: Final = re.compile(r"([0-9]{8})-([0-9]{12})\.jsonl")
_TRIES: Final = 3
_BLOCK: Final = 64 * 1024


class AuditUnreadable(Exception):
    """There is no log there, or it cannot be read; the message says which and why."""


@dataclass(frozen=True, slots=True, order=True)
class Segment:
    first: int
    path: Path


def segments_of(folder: Path) -> list[Segment]:
    """All segments, in the order of their entries."""
    try:
        names = [path for path in folder.iterdir() if _SEGMENT.fullmatch(path.name)]
    except FileNotFoundError:
        raise AuditUnreadable(f"there is no audit log in {folder}") from None
    except OSError as error:
        raise AuditUnreadable(f"{folder} cannot be read: {error.strerror}") from error
    return sorted(Segment(int(path.name[9:21]), path) for path in names)


def lines_of(path: Path, until: int | None = None) -> Iterator[bytes]:
    """The lines of a file, none longer than `LINE_MAX`; the rest of such a line is passed over.

    With `until` no further than that many bytes.
    """
    left = until if until is not None else -1
    with path.open("rb") as file:
        while line := file.readline(LINE_MAX if left < 0 else min(LINE_MAX, left)):
            if left >= 0:
                left -= len(line)
            yield line
            while len(line) == LINE_MAX and not line.endswith(b"\n"):
                line = file.readline(LINE_MAX)
            if left == 0:
                return


def last_of(path: Path) -> tuple[bytes, int]:
    """The last line that has its end, and how many bytes come after it."""
    with path.open("rb") as file:
        size = at = file.seek(0, 2)
        end = 0  # where the last line that is whole ends
        while at > 0 and not end:
            step = min(_BLOCK, at)
            at -= step
            file.seek(at)
            found = file.read(step).rfind(b"\n")
            end = at + found + 1 if found >= 0 else 0
        start = max(0, end - LINE_MAX)
        file.seek(start)
        tail = file.read(end - start)
    return tail[tail.rfind(b"\n", 0, max(len(tail) - 1, 0)) + 1 :], size - end


def last_sealed(path: Path) -> Sealed | None:
    """The last entry of a segment, if it is one of ours."""
    try:
        return read_line(last_of(path)[0])
    except (NotALine, OSError):
        return None


def public_keys(path: Path) -> dict[str, bytes]:
    """Keys by id, of a file in the form of keys.pub. Raises AuditUnreadable."""
    found: dict[str, bytes] = {}
    try:
        text = path.read_text("ascii", "replace")
    except OSError as error:
        raise AuditUnreadable(f"{path} cannot be read: {error.strerror}") from error
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            key = b64decode(words[-1], validate=True)
        except ValueError:
            key = b""
        if len(key) != 32:
            raise AuditUnreadable(f"{path}:{number} is no public key: an id and 32 bytes in base64")
        found[key_id(key)] = key  # never by the id that the line claims
    return found


def verify_folder(
    folder: Path, keys: dict[str, bytes] | None = None, anchors: Iterable[Path] = ()
) -> Verdict:
    """Verify a log; with keys and checkpoints that were kept elsewhere, if there are any."""
    for attempt in range(_TRIES):
        try:
            return _verify(folder, keys, anchors)
        except FileNotFoundError as error:
            # Pruned while we read.
            if attempt == _TRIES - 1:
                raise AuditUnreadable(f"{error.filename} has gone while it was read") from error
        except OSError as error:
            raise AuditUnreadable(f"{error.filename or folder}: {error.strerror}") from error
    raise AssertionError


def _verify(folder: Path, keys: dict[str, bytes] | None, anchors: Iterable[Path]) -> Verdict:
    # Checkpoints first, no further than now: their entries are in the log already.
    own = folder / CHECKPOINTS
    size = own.stat().st_size if own.exists() else 0
    segments = segments_of(folder)
    if keys is None:
        keys = public_keys(folder / KEYS) if (folder / KEYS).exists() else {}
    marks = [Marks(CHECKPOINTS, lines_of(own, size) if size else iter(()))]
    marks += [Marks(str(path), lines_of(path), is_outside=True) for path in anchors]
    verifier = Verifier(keys, marks)
    for at, segment in enumerate(segments):
        number = 0
        is_last = at == len(segments) - 1
        for number, line in enumerate(lines_of(segment.path), 1):
            where = f"{segment.path.name}:{number}"
            if is_last and not line.endswith(b"\n") and len(line) < LINE_MAX:
                verifier.torn(where)
                break
            verifier.feed(line, where)
        if number == 0 and not is_last:
            verifier.emptied(segment.path.name, segment.first)
    return verifier.finish()
