"""The audit log on the disk, for the one process that writes it.

Theory of operation
-------------------
`append` writes a line at once, with one call, so that the end of our process loses nothing; `sync`
brings it to the disk and is what a thread is for. Everything else happens in `turn`: a new segment
for a new day or a full one, checkpoints, and letting go of what is too old or too much.

*Order.* A checkpoint is written after its entry is on the disk. So a checkpoint without its entry
is never an accident, and a log that ends before one was cut. Pruning is on record, signed and on
the disk before the first file goes.

*A start.* A last line without an end is what kill -9 or a power cut leaves: it is cut off, and an
`audit.recovered` entry says how much. A line with an end is never touched, whatever is in it; if
the last one was changed, or entries that were signed are gone, a new segment goes on from what was
signed, so that the fault stays where it is for everybody to find.

*A full disk.* A reserve of `RESERVE_BYTES` is let go to write what is under way. From then on
`is_taking` is false until there is room for the reserve again. What could not be written is
counted, and an `audit.gap` entry says how much of what as soon as something can be.

*Two writers* there are never: the lock is held for as long as the book is open.

Methods may be called from several threads.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from headgate.security.audit.chain import (
    GENESIS,
    Checkpoint,
    NotALine,
    canonical,
    key_id,
    read_line,
    seal,
    sign_checkpoint,
)
from headgate.security.audit.entry import LIMIT_BYTES, Entry
from headgate.security.audit.files import CHECKPOINTS, last_of, last_sealed, lines_of, segments_of
from headgate.security.audit.keys import note_public, private_key, public_bytes
from headgate.security.audit.mending import (
    FULL,
    Reserve,
    add_checkpoint,
    cut_torn,
    last_checkpoint,
    shorten,
)
from headgate.security.audit.rules import AuditRules
from headgate.security.audit.verify import CLOSED, PRUNED

__all__ = ["Book", "BookLocked"]

JUMP_S: Final = 2.0
_LONG_JUMP_S: Final = 3600.0
_PRUNE_EVERY_S: Final = 600.0
_PRUNED_AT_ONCE: Final = 50
_KINDS_MAX: Final = 100
_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC


class BookLocked(Exception):
    """Another process writes this log."""


class Book:
    def __init__(
        self,
        folder: Path,
        rules: AuditRules,
        *,
        boot: str = "",
        mono: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,  # noqa: TID251 - when it was, for people
        on_checkpoint: Callable[[Checkpoint], None] | None = None,
    ) -> None:
        self.folder = folder
        self.rules = rules
        self._boot = boot
        self._mono = mono
        self._wall = wall
        self._on_checkpoint = on_checkpoint
        self._guard = threading.RLock()
        self._syncing = threading.Lock()
        self._lock_fd = -1
        self._fd = -1
        self._path = folder
        self._reserve = Reserve(folder / "reserve")
        self._size = 0
        self._day = ""
        self._seq = 0
        self._hash = GENESIS
        self._times: tuple[str, float, float] | None = None  # boot, wall, mono of the last entry
        self._signed: Checkpoint | None = None
        self._signed_at = 0.0
        self._pruned_at = 0.0
        self._is_dirty = False
        self._is_jumpy = False
        self._dropped: dict[str, int] = {}
        self.dropped = 0
        """Entries that could not be written, since the book was opened."""
        self.written = 0
        self.trouble = ""
        """Why the last write failed; empty when it did not."""
        self.is_full = False

    @property
    def is_open(self) -> bool:
        return self._fd >= 0

    @property
    def last_seq(self) -> int:
        return self._seq

    @property
    def signed_seq(self) -> int:
        return self._signed.seq if self._signed is not None else 0

    # -- opening and closing -------------------------------------------------------------------

    def open(self) -> None:
        """Take the lock, mend what a crash left, go on. Raises BookLocked, ValueError, OSError."""
        with self._guard:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            fd = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                raise BookLocked(f"another process writes the audit log in {self.folder}") from None
            try:
                self._key = private_key(self.folder, self.rules.key_file)
                self._key_id = key_id(public_bytes(self._key))
                is_other_key = note_public(self.folder, public_bytes(self._key))
                self._make_reserve()
                notes = self._take_up()
            except BaseException:
                self._close_file()
                os.close(fd)
                raise
            self._lock_fd = fd
            for action, detail in notes:
                self.append(Entry(action, "gateway", outcome="noted", detail=detail))
            if is_other_key:
                what = f"checkpoints are signed by key {self._key_id} from here on"
                detail = {"what": what, "key": self._key_id}
                self.append(Entry("audit.key_changed", "gateway", outcome="noted", detail=detail))
            self.append(
                Entry("audit.opened", "gateway", outcome="noted", detail={"key": self._key_id})
            )
            self.checkpoint()

    def close(self) -> None:
        """Write the last entry and sign it."""
        with self._guard:
            if not self.is_open:
                return
            self.append(Entry(CLOSED, "gateway", outcome="noted"))
            self.checkpoint()
            self._close_file()
            os.close(self._lock_fd)
            self._lock_fd = -1

    def abandon(self) -> None:
        """Let go of the files as the end of the process would."""
        with self._guard:
            self._close_file()
            if self._lock_fd >= 0:
                os.close(self._lock_fd)
                self._lock_fd = -1

    def _take_up(self) -> list[tuple[str, dict[str, Any]]]:
        """Find the end of the chain, and the file to go on in."""
        notes: list[tuple[str, dict[str, Any]]] = []
        self._signed = last_checkpoint(self.folder / CHECKPOINTS)
        segments = segments_of(self.folder)
        is_sound = True
        while segments:
            path = segments[-1].path
            line, torn = last_of(path)
            if torn:
                notes.append(("audit.recovered", cut_torn(path, torn)))
            if line:
                is_sound = self._follow(path, line, notes)
                break
            # Begun and nothing written: it is begun again by the same name, or on another day.
            path.unlink()
            segments.pop()
        signed = self._signed
        if signed is not None and signed.seq > self._seq:
            what = f"entries {self._seq + 1} to {signed.seq} were signed and are gone"
            notes.append(("audit.recovered", {"what": what}))
            self._seq, self._hash = signed.seq, signed.hash
            is_sound = False
        if segments and is_sound:
            path = segments[-1].path
            self._fd = os.open(path, _FLAGS, 0o600)
            self._path, self._day = path, path.name[:8]
            self._size = os.fstat(self._fd).st_size
        else:
            self._begin_segment()
        return notes

    def _follow(self, path: Path, line: bytes, notes: list[tuple[str, dict[str, Any]]]) -> bool:
        try:
            last = read_line(line)
        except NotALine as error:
            what = f"the last line of {path.name} {error}"
            notes.append(("audit.recovered", {"what": what, "file": path.name}))
            good = None
            for each in lines_of(path):
                with contextlib.suppress(NotALine):
                    good = read_line(each)
            self._seq = good.seq + 1 if good else int(path.name[9:21])
            self._hash = good.hash if good else GENESIS
            return False
        self._seq, self._hash = last.seq, last.hash
        times = (last.content.get("boot"), last.content.get("wall"), last.content.get("mono"))
        if isinstance(times[0], str) and all(isinstance(each, float | int) for each in times[1:]):
            self._times = times  # type: ignore[assignment]  # looked at above
        return True

    # -- writing -------------------------------------------------------------------------------

    def append(self, entry: Entry) -> int | None:
        """Write an entry; its number, or None where it could not be written: then it is counted."""
        with self._guard:
            if not self.is_open:
                self._count(entry)
                return None
            wall, mono = self._wall(), self._mono()
            jump = self._jump(wall, mono)
            try:
                if self._dropped:
                    self._say_gap(wall, mono)
                if abs(jump) > JUMP_S:
                    self._is_jumpy = self._is_jumpy or jump > _LONG_JUMP_S
                    way = "forward" if jump > 0 else "back"
                    what = f"the clock went {way} by {abs(jump):.0f} s"
                    detail = {"what": what, "by_s": round(jump, 3)}
                    moved = Entry("audit.clock_jumped", "gateway", outcome="noted", detail=detail)
                    self._write(moved, wall, mono)
                self._write(entry, wall, mono)
            except OSError as error:
                self._failed(error)
                self._count(entry)
                return None
            self.trouble = ""
            return self._seq

    def _jump(self, wall: float, mono: float) -> float:
        if self._times is None or self._times[0] != self._boot:
            return 0.0
        return (wall - self._times[1]) - (mono - self._times[2])

    def _write(self, entry: Entry, wall: float, mono: float) -> None:
        day = _day(wall)
        if self._size and (day > self._day or self._size >= self.rules.segment_bytes):
            self._sync_now()
            self._begin_segment()
        stamp = {"wall": round(wall, 6), "mono": round(mono, 6), "boot": self._boot}
        line, digest = seal({**_fitting(entry.content()), **stamp}, self._seq + 1, self._hash)
        try:
            self._put(line)
        except OSError as error:
            if error.errno not in FULL or not self._use_reserve():
                raise
            self._put(line)
        self._seq += 1
        self._hash = digest
        self._times = (self._boot, wall, mono)
        self.written += 1

    def _put(self, line: bytes) -> None:
        """All of it or nothing: half a line would join the next one."""
        done = 0
        try:
            while done < len(line):
                done += os.write(self._fd, line[done:])
        except OSError:
            if done:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._fd, self._size)
            raise
        self._size += len(line)
        self._is_dirty = True

    def _say_gap(self, wall: float, mono: float) -> None:
        count = sum(self._dropped.values())
        what = f"{count} entries could not be written: {self.trouble or 'the log was not open'}"
        detail = {"what": what, "lost": dict(self._dropped)}
        self._write(Entry("audit.gap", "gateway", outcome="noted", detail=detail), wall, mono)
        self._dropped = {}

    def _count(self, entry: Entry) -> None:
        self.dropped += 1
        known = entry.action in self._dropped or len(self._dropped) < _KINDS_MAX
        action = entry.action[:100] if known else "others"
        self._dropped[action] = self._dropped.get(action, 0) + 1

    def _failed(self, error: OSError) -> None:
        self.trouble = error.strerror or str(error)
        self.is_full = self.is_full or error.errno in FULL

    # -- room ----------------------------------------------------------------------------------

    def is_taking(self) -> bool:
        """Whether the next entries can be written for all we know; tries to mend what failed."""
        with self._guard:
            if not self.is_open:
                return False
            if self.is_full:
                self._make_reserve()
            if self._dropped and not self.is_full:
                wall, mono = self._wall(), self._mono()
                try:
                    self._say_gap(wall, mono)
                except OSError as error:
                    self._failed(error)
                    return False
                self.trouble = ""
            return not self.is_full and not self._dropped

    def _use_reserve(self) -> bool:
        self.is_full = True
        return self._reserve.let_go()

    def _make_reserve(self) -> None:
        try:
            self.is_full = not self._reserve.make()
        except OSError as error:
            self._failed(error)
        else:
            if self.is_full:
                self.trouble = "the disk is full"
            elif not self._dropped:
                self.trouble = ""  # there is room again, and nothing was lost

    # -- to the disk ---------------------------------------------------------------------------

    def sync(self) -> None:
        """Bring what was written to the disk. Blocks; appends go on meanwhile."""
        # One after the other: who finds nothing to do must not be ahead of who still does it.
        with self._syncing:
            with self._guard:
                if not self._is_dirty or not self.is_open:
                    return
                self._is_dirty = False
                fd = os.dup(self._fd)
            try:
                os.fsync(fd)
            except OSError as error:
                with self._guard:
                    self._is_dirty = True
                    self._failed(error)
            finally:
                os.close(fd)

    def _sync_now(self) -> None:
        if self._is_dirty:
            os.fsync(self._fd)
            self._is_dirty = False

    def _begin_segment(self) -> None:
        day = _day(self._wall())
        path = self.folder / f"{day}-{self._seq + 1:012d}.jsonl"
        fd = os.open(path, _FLAGS, 0o600)
        self._close_file()
        self._fd, self._path, self._day = fd, path, day
        self._size = os.fstat(fd).st_size
        self._sync_folder()

    def _sync_folder(self) -> None:
        fd = os.open(self.folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def _close_file(self) -> None:
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.fsync(self._fd)
            os.close(self._fd)
            self._fd = -1

    # -- now and then --------------------------------------------------------------------------

    def turn(self) -> None:
        """Checkpoints and pruning, where they are due. Blocks: not on an event loop."""
        with self._guard:
            if not self.is_open:
                return
            new = self._seq - self.signed_seq
            age_s = self._mono() - self._signed_at
            if new >= self.rules.checkpoint_entries or (new and age_s >= self.rules.checkpoint_s):
                self.checkpoint()
            if self._mono() - self._pruned_at >= _PRUNE_EVERY_S or not self._pruned_at:
                self._pruned_at = self._mono()
                self.prune()

    def checkpoint(self) -> Checkpoint | None:
        """Sign the newest entry; None if that is done, or cannot be."""
        with self._guard:
            before = self._signed
            if not self.is_open or not self._seq or self.signed_seq == self._seq:
                return None
            unsigned = Checkpoint(
                number=before.number + 1 if before is not None else 1,
                seq=self._seq,
                hash=self._hash,
                wall=round(self._wall(), 3),
                every=self.rules.checkpoint_entries,
                before=before.signature if before is not None else "",
                key=self._key_id,
            )
            made = sign_checkpoint(unsigned, self._key)
            try:
                self._sync_now()
                add_checkpoint(self.folder / CHECKPOINTS, made)
            except OSError as error:
                self._failed(error)
                return None
            self._signed = made
            self._signed_at = self._mono()
        if self._on_checkpoint is not None:
            self._on_checkpoint(made)
        return made

    def prune(self) -> int:
        """Let go of whole segments that are too old or too many; how many went."""
        with self._guard:
            segments = [each for each in segments_of(self.folder) if each.path != self._path]
            sizes = {each.path: each.path.stat() for each in segments}
            total = self._size + sum(found.st_size for found in sizes.values())
            # A clock that was set far ahead must not cost the log.
            oldest = self._wall() - self.rules.keep_s if not self._is_jumpy else float("-inf")
            going = []
            for each in segments[:_PRUNED_AT_ONCE]:
                found = sizes[each.path]
                if found.st_mtime > oldest and total <= self.rules.max_bytes:
                    break
                going.append(each)
                total -= found.st_size
            if not going:
                return 0
            rows: list[dict[str, Any]] = []
            for each in going:
                last = last_sealed(each.path)
                rows.append(
                    {
                        "file": each.path.name,
                        "first": each.first,
                        "last": last.seq if last is not None else 0,
                        "hash": last.hash if last is not None else "",
                    }
                )
            what = f"entries {rows[0]['first']} to {rows[-1]['last']} were let go by age or size"
            detail = {"what": what, "segments": rows}
            entry = Entry(PRUNED, "gateway", outcome="noted", detail=detail)
            # Not one file before its end is on record.
            if self.append(entry) is None or self.checkpoint() is None:
                return 0
            for each in going:
                each.path.unlink(missing_ok=True)
            self._sync_folder()
            shorten(self.folder / CHECKPOINTS, rows[-1]["last"])
            self._sync_folder()
            return len(going)


def _day(wall: float) -> str:
    return time.strftime("%Y%m%d", time.gmtime(wall))


def _fitting(content: dict[str, Any]) -> dict[str, Any]:
    """What fits into a line, and into JSON."""
    try:
        size = len(canonical(content))
    except (ValueError, TypeError, RecursionError):
        for name in ("before", "after", "detail"):
            if name in content:
                content[name] = {"left_out": "is nothing that JSON can hold"}
        size = len(canonical(content))
    if size <= LIMIT_BYTES:
        return content
    kept = dict(content)
    for name in ("before", "after", "detail"):
        if name in kept:
            bytes_ = len(canonical({"": kept[name]}))
            kept[name] = {"left_out": f"{bytes_} bytes; entries have at most {LIMIT_BYTES}"}
    return kept
