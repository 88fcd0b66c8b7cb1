"""The audit log on the disk: crashes, full disks, clocks, days, pruning, two writers."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headgate.security.audit import AuditRules, Book, BookLocked, Entry, verify_folder
from headgate.security.audit.chain import Checkpoint, read_checkpoint, read_line, seal
from headgate.security.audit.entry import LIMIT_BYTES
from headgate.security.audit.keys import PRIVATE

DAY_S = 86400.0


class Clock:
    def __init__(self) -> None:
        self.at = 1_700_000_000.0
        self.mono = 1000.0

    def pass_s(self, seconds: float) -> None:
        self.at += seconds
        self.mono += seconds


@pytest.fixture
def clock():
    return Clock()


def book_at(folder, clock, rules=AuditRules(), boot="boot-1", **more):
    return Book(folder, rules, boot=boot, mono=lambda: clock.mono, wall=lambda: clock.at, **more)


@pytest.fixture
def opened(tmp_path, clock):
    """Makes books on one folder, and lets go of them."""
    made = []

    def make(rules=AuditRules(), **more):
        book = book_at(tmp_path / "audit", clock, rules, **more)
        made.append(book)
        book.open()
        return book

    yield make
    for book in made:
        book.abandon()


def entry(target="x", **more):
    return Entry("admin.post", "uid:0", target=target, **more)


def contents(folder):
    return [
        read_line(line).content
        for path in sorted(folder.glob("2*.jsonl"), key=lambda path: path.name[9:])
        for line in path.read_bytes().splitlines(True)
    ]


def actions(folder):
    return [content["action"] for content in contents(folder)]


def notes(folder):
    return [str(found) for found in verify_folder(folder).findings]


def segment(folder):
    return max(folder.glob("2*.jsonl"), key=lambda path: path.name[9:])


def test_everything_is_for_the_owner_alone(opened):
    book = opened()
    book.append(entry())
    book.close()
    for path in book.folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE(book.folder.stat().st_mode) == 0o700


def test_entries_have_what_was_said_and_nothing_that_is_empty(opened, clock):
    book = opened()
    number = book.append(entry("/api/x", origin="::1", before=1, after={"a": None}, request_id="r"))
    (found,) = [each for each in contents(book.folder) if each["seq"] == number]
    del found["prev"]
    assert found == {
        "action": "admin.post",
        "actor": "uid:0",
        "after": {"a": None},
        "before": 1,
        "boot": "boot-1",
        "mono": clock.mono,
        "origin": "::1",
        "outcome": "ok",
        "request_id": "r",
        "seq": number,
        "target": "/api/x",
        "wall": clock.at,
    }


def test_the_chain_goes_on_over_runs(opened, clock):
    for _ in range(3):
        book = opened()
        book.append(entry())
        book.close()
        clock.pass_s(10)
    verdict = verify_folder(book.folder)
    assert (verdict.is_good, verdict.entries, verdict.signed_to) == (True, 9, 9)


def test_two_processes_never_write(opened, tmp_path, clock):
    book = opened()
    other = book_at(tmp_path / "audit", clock)
    with pytest.raises(BookLocked, match="another process writes"):
        other.open()
    assert other.append(entry()) is None and other.dropped == 1
    book.close()
    other.open()
    assert "audit.gap" in actions(book.folder)
    other.close()
    assert verify_folder(book.folder).is_good


# ---- crashes


@settings(
    max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(cut=st.integers(1, 250))
def test_a_torn_line_is_cut_off_and_told(tmp_path_factory, clock, cut):
    folder = tmp_path_factory.mktemp("torn") / "audit"
    book = book_at(folder, clock)
    book.open()
    for _ in range(5):
        book.append(entry())
    book.abandon()
    path = segment(folder)
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    is_torn = not path.read_bytes().endswith(b"\n")
    assert verify_folder(folder).is_good
    book.open()
    book.close()
    verdict = verify_folder(folder)
    assert verdict.is_good
    assert ("audit.recovered" in actions(folder)) == is_torn


def test_zeros_after_a_power_cut_are_cut_off(opened):
    book = opened()
    book.append(entry())
    book.abandon()
    with segment(book.folder).open("ab") as file:
        file.write(b"\0" * 5000)
    book = opened()
    assert "audit.recovered" in actions(book.folder)
    book.close()
    assert verify_folder(book.folder).is_good


def test_a_torn_checkpoint_is_cut_off(opened):
    book = opened()
    book.append(entry())
    book.checkpoint()
    book.abandon()
    path = book.folder / "checkpoints.jsonl"
    path.write_bytes(path.read_bytes()[:-30])
    assert verify_folder(book.folder).is_good
    book = opened()
    book.close()
    assert verify_folder(book.folder).is_good


def test_signed_entries_that_are_gone_at_the_start_stay_missing(opened):
    book = opened()
    for _ in range(5):
        book.append(entry())
    book.checkpoint()
    book.abandon()
    path = segment(book.folder)
    lines = path.read_bytes().splitlines(True)
    path.write_bytes(b"".join(lines[:3]))
    book = opened()
    book.close()
    verdict = verify_folder(book.folder)
    assert verdict.faults == 1
    assert "entries 4 to 6 are missing" in str(verdict.findings[0])
    assert any("were signed and are gone" in note for note in notes(book.folder))


def test_a_log_that_was_taken_away_stays_missing(opened):
    book = opened()
    book.append(entry())
    book.close()
    segment(book.folder).unlink()
    book = opened()
    book.close()
    assert any("entries 1 to 3 are missing" in note for note in notes(book.folder))


def test_a_last_line_that_was_changed_is_left_to_be_found(opened):
    book = opened()
    book.append(entry())
    book.close()
    path = segment(book.folder)
    path.write_bytes(
        path.read_bytes().replace(b"uid:0", b"uid:9").replace(b"audit.closed", b"audit.clozed")
    )
    before = path.read_bytes()
    book = opened()
    book.close()
    assert path.read_bytes() == before
    found = [str(each) for each in verify_folder(book.folder).findings if each.is_fault]
    assert any(f"{path.name}:2" in fault for fault in found)
    assert any(f"{path.name}:3" in fault for fault in found)


WRITER = """
import sys
from pathlib import Path
from headgate.security.audit import AuditRules, Book, Entry
book = Book(Path(sys.argv[1]), AuditRules(checkpoint_entries=7, segment_bytes=20_000), boot="b")
book.open()
while True:
    number = book.append(Entry("admin.post", "uid:0", target="x" * 300))
    book.turn()
    print(number, flush=True)
"""


def test_kill_9_loses_nothing_that_was_written(tmp_path):
    folder = tmp_path / "audit"
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        last = 0
        for _ in range(120):
            last = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().split()
        process.wait(10)
        process.stdout.close()
        last = int(rest[-1]) if rest and rest[-1].isdigit() else last
        verdict = verify_folder(folder)
        assert verdict.is_good, verdict.findings
        assert verdict.last is not None and verdict.last >= last - 1
        assert len(list(folder.glob("2*.jsonl"))) > 1


# ---- time


def test_a_new_day_is_a_new_file(opened, clock):
    book = opened()
    first = segment(book.folder)
    clock.pass_s(DAY_S)
    book.append(entry())
    assert segment(book.folder).name == f"20231115-{2:012d}.jsonl"
    assert segment(book.folder) != first


@pytest.mark.parametrize(("by", "words"), [(3600, "forward by 3600 s"), (-120, "back by 120 s")])
def test_a_clock_that_jumped_is_told(opened, clock, by, words):
    book = opened()
    clock.pass_s(5)
    book.append(entry())
    clock.at += by
    book.append(entry())
    assert any(words in note for note in notes(book.folder))
    assert verify_folder(book.folder).is_good


def test_a_clock_that_jumped_while_nothing_ran_is_told(opened, clock):
    opened().close()
    clock.mono += 5
    clock.at += 605
    opened().close()
    book = opened(boot="boot-2")
    clock.at += 1000
    clock.mono = 3.0
    book.close()
    assert actions(book.folder).count("audit.clock_jumped") == 2


def test_a_clock_set_back_over_midnight_goes_on_in_the_same_file(opened, clock):
    book = opened()
    clock.at -= 2 * DAY_S
    book.append(entry())
    assert len(list(book.folder.glob("2*.jsonl"))) == 1


# ---- letting go

SMALL = AuditRules(keep_s=10 * DAY_S, segment_bytes=3000, checkpoint_entries=5)


def age(folder, clock):
    """Files are dated by the real clock; date them by ours."""
    for path in folder.glob("2*.jsonl"):
        last = read_line(path.read_bytes().splitlines(True)[-1])
        os.utime(path, (last.content["wall"],) * 2)


def test_what_is_too_old_goes_and_the_log_still_holds(opened, clock):
    book = opened(SMALL)
    for _ in range(40):
        book.append(entry())
        book.turn()
        clock.pass_s(DAY_S / 2)
    age(book.folder, clock)
    before = len(list(book.folder.glob("2*.jsonl")))
    assert book.prune() > 5
    assert len(list(book.folder.glob("2*.jsonl"))) < before
    verdict = verify_folder(book.folder)
    assert verdict.is_good, verdict.findings
    assert verdict.first is not None and verdict.first > 1
    assert any("were let go by age or size" in note for note in notes(book.folder))
    signed = [
        read_checkpoint(x)
        for x in (book.folder / "checkpoints.jsonl").read_bytes().splitlines(True)
    ]
    assert signed[0].seq >= verdict.first
    clock.pass_s(5 * DAY_S)
    book.append(entry())
    age(book.folder, clock)
    assert book.prune()
    book.close()
    assert opened(SMALL) and verify_folder(book.folder).is_good


def test_what_is_too_much_goes(opened, clock):
    book = opened(AuditRules(segment_bytes=3000, max_bytes=9000))
    for _ in range(100):
        book.append(entry())
        clock.pass_s(1)
    book.prune()
    assert sum(path.stat().st_size for path in book.folder.glob("2*.jsonl")) < 12_000
    assert verify_folder(book.folder).is_good


def test_a_crash_amid_pruning_leaves_a_log_that_holds(opened, clock, monkeypatch):
    book = opened(SMALL)
    for _ in range(40):
        book.append(entry())
        clock.pass_s(DAY_S / 2)
    age(book.folder, clock)
    gone: list[Path] = []

    def unlink(path, missing_ok=False):
        if len(gone) == 2:
            raise KeyboardInterrupt
        gone.append(path)
        os.unlink(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", unlink)
        with pytest.raises(KeyboardInterrupt):
            book.prune()
    book.abandon()
    assert verify_folder(book.folder).is_good
    assert opened(SMALL).prune()
    assert verify_folder(book.folder).is_good


def test_pruning_that_nobody_signed_is_none(opened):
    book = opened(SMALL)
    for _ in range(40):
        book.append(entry())
    book.close()
    first, *_ = sorted(book.folder.glob("2*.jsonl"), key=lambda path: path.name[9:])
    last = read_line(first.read_bytes().splitlines(True)[-1])
    rows = [{"file": first.name, "first": 1, "last": last.seq, "hash": last.hash}]
    end = segment(book.folder)
    newest = read_line(end.read_bytes().splitlines(True)[-1])
    forged = {"action": "audit.pruned", "actor": "gateway", "detail": {"segments": rows}}
    with end.open("ab") as file:
        file.write(seal(forged, newest.seq + 1, newest.hash)[0])
    first.unlink()
    assert any("no pruning is on record" in note for note in notes(book.folder))


@pytest.mark.parametrize("zeros", [100, 70_000, 300_000])
def test_a_long_tail_of_zeros_costs_no_entry(opened, zeros):
    book = opened()
    for number in range(700):
        book.append(entry("x" * 300 + str(number)))
    book.abandon()
    with segment(book.folder).open("ab") as file:
        file.write(b"\0" * zeros)
    book = opened()
    book.close()
    verdict = verify_folder(book.folder)
    assert verdict.is_good and verdict.entries == 704


def test_a_clock_set_far_ahead_does_not_cost_the_log(opened, clock):
    book = opened(SMALL)
    for _ in range(20):
        book.append(entry())
    clock.at += 9999 * DAY_S
    book.append(entry())
    assert book.prune() == 0


# ---- no room


class Disk:
    """Room for so many bytes; what is beyond is refused as by a full disk, or written in part."""

    def __init__(self, monkeypatch) -> None:
        self.left = 10**9
        self.code = errno.ENOSPC
        self._write = os.write
        monkeypatch.setattr(os, "write", self.write)
        monkeypatch.setattr(os, "posix_fallocate", self.fallocate)

    def write(self, fd, data):
        if self.left <= 0:
            raise OSError(self.code, os.strerror(self.code))
        done = self._write(fd, bytes(data[: self.left]))
        self.left -= done
        return done

    def fallocate(self, fd, offset, length):
        if self.left < length:
            raise OSError(errno.ENOSPC, "full")


def test_a_full_disk_takes_the_entry_under_way_and_then_no_changes(opened, monkeypatch):
    book = opened()
    disk = Disk(monkeypatch)
    assert book.is_taking()
    disk.left = 100
    let_go = Path.unlink

    def unlink(path, missing_ok=False):
        disk.left += 4096 if path.name == "reserve" else 0
        let_go(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    assert book.append(entry()) is not None
    assert book.is_full and not book.is_taking()
    disk.left = 10**9
    assert book.is_taking() and not book.is_full
    book.close()
    assert verify_folder(book.folder).is_good


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_what_could_not_be_written_is_counted_and_told(opened, monkeypatch, code):
    book = opened()
    disk = Disk(monkeypatch)
    disk.left, disk.code = 150, code  # in part: half a line must not stay
    assert book.append(entry()) is None
    assert book.append(entry()) is None
    assert book.append(Entry("ban.added", "rule:x")) is None
    assert (book.dropped, bool(book.trouble)) == (3, True)
    assert not book.is_taking()
    disk.left = 10**9
    assert book.is_taking() and not book.trouble
    assert book.append(entry()) is not None
    (gap,) = [each for each in contents(book.folder) if each["action"] == "audit.gap"]
    assert gap["detail"]["lost"] == {"admin.post": 2, "ban.added": 1}
    book.close()
    assert verify_folder(book.folder).is_good


def test_no_checkpoint_is_made_of_what_is_not_on_the_disk(opened, monkeypatch):
    book = opened()
    book.append(entry())
    before = book.signed_seq

    def fail(fd):
        raise OSError(errno.EIO, "broken")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        assert book.checkpoint() is None
    assert book.signed_seq == before and book.trouble == "broken"
    assert book.checkpoint() is not None


# ---- what is written


@pytest.mark.parametrize(
    "content",
    [
        {"a": object()},
        {"a": float("nan")},
        {"a": {1, 2}},
        {"a": "\ud800"},
        {1: "x"},
        {"a": "é\n\x1b"},
    ],
    ids=["object", "nan", "set", "surrogate", "number-key", "odd-text"],
)
def test_what_json_cannot_hold_does_not_stop_the_log(opened, content):
    book = opened()
    assert book.append(entry(detail=content)) is not None
    book.close()
    assert verify_folder(book.folder).is_good


def test_a_huge_entry_is_shortened_and_says_so(opened):
    book = opened()
    number = book.append(entry("t" * 9999, before="b" * 50_000, after="a" * 50_000))
    (found,) = [each for each in contents(book.folder) if each["seq"] == number]
    assert "left_out" in found["before"] and len(found["target"]) == 1000
    assert all(
        len(line) < LIMIT_BYTES + 4096
        for line in segment(book.folder).read_bytes().splitlines(True)
    )


def test_threads_write_one_chain(opened):
    book = opened(AuditRules(segment_bytes=20_000, checkpoint_entries=50))

    def write():
        for _ in range(100):
            book.append(entry())
            book.sync()
            book.turn()

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    book.close()
    verdict = verify_folder(book.folder)
    assert verdict.is_good and verdict.entries == 402


def test_the_log_is_verified_while_it_is_written(opened):
    book = opened(AuditRules(segment_bytes=8000, checkpoint_entries=10))
    done = threading.Event()

    def write():
        while not done.is_set():
            book.append(entry())
            book.turn()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(10):
            verdict = verify_folder(book.folder)
            assert verdict.is_good, verdict.findings
    finally:
        done.set()
        thread.join(10)


# ---- keys


def test_another_key_is_told_and_both_are_known(opened):
    book = opened()
    book.close()
    (book.folder / PRIVATE).unlink()
    book = opened()
    book.close()
    assert "audit.key_changed" in actions(book.folder)
    assert len((book.folder / "keys.pub").read_text().splitlines()) == 2
    assert verify_folder(book.folder).is_good


def test_a_key_may_be_given_and_a_wrong_one_is_refused(opened, tmp_path):
    book = opened()
    book.close()
    given_key = tmp_path / "own.pem"
    given_key.write_bytes((book.folder / PRIVATE).read_bytes())
    opened(AuditRules(key_file=str(given_key))).close()
    assert verify_folder(book.folder).is_good
    given_key.write_text("secret-canary")
    with pytest.raises(ValueError, match="holds no Ed25519 private key") as caught:
        opened(AuditRules(key_file=str(given_key)))
    assert "canary" not in str(caught.value)
    opened().close()  # the lock was given back


def test_checkpoints_are_handed_on(opened):
    told: list[Checkpoint] = []
    book = opened(on_checkpoint=told.append)
    book.append(entry())
    book.close()
    assert [each.seq for each in told] == [1, 3]
