"""Is the log what was written? One pass over all lines, in bounded memory.

Theory of operation
-------------------
`Verifier` is fed the lines of all segments in order, and the checkpoints as an iterator that runs
along: each is compared when its entry comes by. Found are:

- *edits*: a line does not fit its hash, or is none of ours;
- *insertion, deletion, order*: the number or the link to the one before is not what it must be;
- *a new chain*: a signed checkpoint has another hash for that number;
- *a missing beginning*: the first entry is not number 1, and no `audit.pruned` entry further on
  says that all before it was let go, up to this link;
- *a missing end*: a checkpoint is for an entry that does not come; or more entries than a
  checkpoint may leave open come after the last one; or the log was closed without one;
- *checkpoints* that are missing, out of order, or not signed by a known key.

After a fault the chain is taken up from what the line says, so that one edit is one finding.
Findings are bounded; beyond the bound they are counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from headgate.security.audit.chain import (
    GENESIS,
    Checkpoint,
    NotALine,
    Sealed,
    read_checkpoint,
    read_line,
)

__all__ = ["Finding", "Marks", "Verdict", "Verifier"]

FINDINGS_MAX: Final = 100
CLOSED: Final = "audit.closed"
PRUNED: Final = "audit.pruned"
_TOLD: Final = frozenset(
    {"audit.recovered", "audit.gap", "audit.clock_jumped", "audit.key_changed", PRUNED}
)


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault, or a note of something that the log itself tells."""

    where: str
    """File and line."""
    seq: int | None
    what: str
    is_fault: bool = True

    def __str__(self) -> str:
        number = f" (entry {self.seq})" if self.seq is not None else ""
        return f"{self.where}{number}: {self.what}"


@dataclass(slots=True)
class Verdict:
    entries: int = 0
    first: int | None = None
    last: int | None = None
    head: str = GENESIS
    """The hash of the last entry."""
    checkpoints: int = 0
    signed_to: int = 0
    """The last entry that a checkpoint with a good signature stands for."""
    anchored_to: int = 0
    """The same of checkpoints that were kept elsewhere."""
    faults: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        return not self.faults

    def to_json(self) -> dict[str, Any]:
        return {
            "ok": self.is_good,
            "entries": self.entries,
            "first": self.first,
            "last": self.last,
            "head": self.head,
            "checkpoints": self.checkpoints,
            "signed_to": self.signed_to,
            "anchored_to": self.anchored_to,
            "faults": self.faults,
            "findings": [
                {"where": f.where, "entry": f.seq, "what": f.what, "fault": f.is_fault}
                for f in self.findings
            ],
        }


class Marks:
    """Checkpoints of one place, read along with the entries."""

    def __init__(self, name: str, lines: Iterator[bytes], *, is_outside: bool = False) -> None:
        self.name = name
        self.is_outside = is_outside
        self._lines = lines
        self.line = 0
        self.last: Checkpoint | None = None
        self.next: Checkpoint | None = None
        self.is_torn = False

    def advance(self, verdict: _Report, keys: Mapping[str, bytes]) -> None:
        """Read on to the next checkpoint that can be believed."""
        if self.next is not None:
            self.last = self.next
        self.next = None
        for raw in self._lines:
            self.line += 1
            where = f"{self.name}:{self.line}"
            if self.is_outside:
                if b'"sig"' not in raw:
                    continue  # a log that holds other lines as well
                raw = raw[max(raw.find(b"{"), 0) :]
            if not raw.strip():
                continue
            try:
                found = read_checkpoint(raw)
            except NotALine as error:
                if not raw.endswith(b"\n"):
                    self.is_torn = True
                    verdict.note(where, None, "the last checkpoint is torn: a write was cut short")
                    return
                verdict.fault(where, None, str(error))
                continue
            public = keys.get(found.key)
            if public is None:
                verdict.fault(
                    where, found.seq, f"is signed by a key that is not known: {found.key}"
                )
                continue
            if not found.is_signed_by(public):
                verdict.fault(where, found.seq, "the signature of this checkpoint does not hold")
                continue
            self._in_order(found, where, verdict)
            self.next = found
            return

    def _in_order(self, found: Checkpoint, where: str, verdict: _Report) -> None:
        last = self.last
        if last is None:
            return
        if found.seq < last.seq or found.number <= last.number:
            verdict.fault(where, found.seq, "checkpoints are out of order")
        elif not self.is_outside and (
            found.number != last.number + 1 or found.before != last.signature
        ):
            verdict.fault(
                where,
                found.seq,
                f"checkpoints are missing between number {last.number} and {found.number}",
            )


class _Report:
    def __init__(self, verdict: Verdict) -> None:
        self._verdict = verdict
        self._kept = {True: 0, False: 0}  # apart: notes must not crowd out faults

    def fault(self, where: str, seq: int | None, what: str) -> None:
        self._verdict.faults += 1
        self._keep(Finding(where, seq, what))

    def note(self, where: str, seq: int | None, what: str) -> None:
        self._keep(Finding(where, seq, what, is_fault=False))

    def _keep(self, finding: Finding) -> None:
        self._kept[finding.is_fault] += 1
        if self._kept[finding.is_fault] <= FINDINGS_MAX:
            self._verdict.findings.append(finding)


class Verifier:
    """Feed it every line in order, then `finish`."""

    def __init__(self, keys: Mapping[str, bytes], marks: Iterator[Marks] | list[Marks]) -> None:
        self.verdict = Verdict()
        self._report = _Report(self.verdict)
        self._keys = keys
        self._marks = list(marks)
        self._last: Sealed | None = None
        self._start_prev: str | None = None
        self._start_told_at: int | None = None
        self._where = ""
        for mark in self._marks:
            mark.advance(self._report, keys)

    def feed(self, line: bytes, where: str) -> None:
        verdict = self.verdict
        verdict.entries += 1
        try:
            found = read_line(line)
        except NotALine as error:
            expected = self._last.seq + 1 if self._last is not None else None
            self._report.fault(where, expected, f"this line {error}")
            found_anyway = _as_it_says(line)
            if found_anyway is not None:
                # Its own hash is wrong; the next line tells what it was.
                self._last = found_anyway
                verdict.last = found_anyway.seq
                self._pass_marks(found_anyway, where, is_broken=True)
            self._where = where
            return
        last = self._last
        if last is None:
            self._begin(found)
        elif found.seq != last.seq + 1:
            self._misplaced(found, last, where)
        elif found.prev != last.hash:
            self._report.fault(
                where, found.seq, f"does not follow upon entry {last.seq}: the chain is broken here"
            )
        self._last = found
        self._where = where
        if verdict.first is None:
            verdict.first = found.seq
        verdict.last = found.seq
        verdict.head = found.hash
        self._pass_marks(found, where)
        action = found.content.get("action")
        if action in _TOLD:
            self._told(found, str(action), where)

    def torn(self, where: str) -> None:
        """The very last line has no end."""
        self._report.note(where, None, "the last line is torn, or being written")

    def emptied(self, where: str, first: int) -> None:
        """A segment without a line, with others after it."""
        self._report.fault(where, first, "this segment is empty")

    def _begin(self, found: Sealed) -> None:
        if found.seq == 1:
            self._start_told_at = 0
            if found.prev != GENESIS:
                self._report.fault(self._where, 1, "the first entry follows upon something")
        else:
            self._start_prev = found.prev
        self.verdict.first = found.seq
        for mark in self._marks:
            # What was pruned has checkpoints elsewhere still, and may have here.
            while mark.next is not None and mark.next.seq < found.seq:
                mark.advance(self._report, self._keys)

    def _misplaced(self, found: Sealed, last: Sealed, where: str) -> None:
        if found.seq > last.seq + 1:
            missing = (
                f"entry {last.seq + 1} is missing"
                if found.seq == last.seq + 2
                else f"entries {last.seq + 1} to {found.seq - 1} are missing"
            )
            self._report.fault(where, found.seq, f"{missing} before this one")
        else:
            self._report.fault(
                where, found.seq, f"stands after entry {last.seq}: inserted, or out of order"
            )

    def _pass_marks(self, found: Sealed, where: str, *, is_broken: bool = False) -> None:
        for mark in self._marks:
            while mark.next is not None and mark.next.seq <= found.seq:
                due = mark.next
                if due.seq == found.seq:
                    if due.hash == found.hash:
                        if not is_broken:
                            self._believe(mark, due)
                    else:
                        self._report.fault(
                            where,
                            found.seq,
                            f"is not the entry that was signed ({mark.name}, checkpoint "
                            f"{due.number}): it and what is before it were written anew",
                        )
                mark.advance(self._report, self._keys)

    def _believe(self, mark: Marks, due: Checkpoint) -> None:
        self.verdict.checkpoints += 1
        if mark.is_outside:
            self.verdict.anchored_to = due.seq
        else:
            self.verdict.signed_to = due.seq

    def _told(self, found: Sealed, action: str, where: str) -> None:
        detail = found.content.get("detail")
        detail = detail if isinstance(detail, dict) else {}
        if action == PRUNED:
            first = self.verdict.first or 1
            for segment in detail.get("segments", ()):
                if (
                    isinstance(segment, dict)
                    and segment.get("last") == first - 1
                    and segment.get("hash") == self._start_prev
                ):
                    self._start_told_at = found.seq
        words = detail.get("what")
        self._report.note(where, found.seq, f"{action}: {words}" if words else action)

    def finish(self) -> Verdict:
        verdict, report = self.verdict, self._report
        last = self._last
        end = last.seq if last is not None else 0
        for mark in self._marks:
            first = mark.next
            if first is None:
                continue
            farthest = max(each.seq for each in self._rest(mark))
            report.fault(
                self._where or mark.name,
                end + 1,
                f"the log ends at entry {end}, but entry {farthest} was signed "
                f"({mark.name}, checkpoint {first.number}): the end was cut off",
            )
        if last is None:
            return verdict
        told_at = self._start_told_at
        # Pruning is signed before anything goes: an entry that is not was put there by others.
        if told_at is None or told_at > max(verdict.signed_to, verdict.anchored_to):
            first_seq = verdict.first or 1
            report.fault(
                "beginning",
                first_seq,
                f"entries 1 to {first_seq - 1} are missing, and no pruning is on record for them",
            )
        for mark in self._marks:
            if not mark.is_outside:
                self._check_end(mark, last)
        return verdict

    def _rest(self, mark: Marks) -> Iterator[Checkpoint]:
        """What is left of the checkpoints, the next one first."""
        while (due := mark.next) is not None:
            yield due
            mark.advance(self._report, self._keys)

    def _check_end(self, mark: Marks, last: Sealed) -> None:
        known = mark.last
        if known is None:
            self._report.fault(mark.name, None, "there are entries and no checkpoint for them")
            return
        open_entries = last.seq - known.seq
        # Two: for a run that ended in between, and wrote some before it said so.
        if open_entries > 2 * known.every + 100:
            self._report.fault(
                mark.name,
                known.seq,
                f"{open_entries} entries follow upon the last checkpoint, where one is made every "
                f"{known.every}: checkpoints were cut off",
            )
        elif open_entries and last.content.get("action") == CLOSED and not mark.is_torn:
            self._report.fault(
                mark.name, last.seq, "the log was closed, and its last checkpoint is missing"
            )
        elif open_entries > 0:
            self._report.note(
                mark.name,
                last.seq,
                f"{open_entries} entries since checkpoint {known.number} are not signed yet",
            )


def _as_it_says(line: bytes) -> Sealed | None:
    """A changed line, by what it claims of itself, to go on from."""
    import json

    try:
        content = json.loads(line)
        seq, prev, said = content["seq"], content["prev"], content["hash"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if type(seq) is not int or not isinstance(prev, str) or not isinstance(said, str):
        return None
    return Sealed(seq, prev, said, content)
