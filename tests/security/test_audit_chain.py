"""The chain of the audit log: what is done to it is found, and where."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.security.audit import AuditRules, Book, Entry, verify_folder
from headgate.security.audit.chain import GENESIS, NotALine, read_line, seal
from headgate.security.audit.files import AuditUnreadable, public_keys
from headgate.security.audit.verify import FINDINGS_MAX

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(st.dictionaries(st.text(max_size=8), JSON, max_size=5))
def test_what_is_sealed_is_read_as_it_was(content):
    content = {k: v for k, v in content.items() if k not in {"seq", "prev", "hash"}}
    line, digest = seal(content, 7, GENESIS)
    found = read_line(line)
    assert (found.seq, found.prev, found.hash) == (7, GENESIS, digest)
    said = {k: v for k, v in found.content.items() if k not in {"seq", "prev"}}
    assert said == json.loads(json.dumps(content))
    assert line.count(b"\n") == 1 and line.isascii()


@settings(max_examples=300)
@given(st.data())
def test_any_other_byte_is_noticed(data):
    line, _ = seal({"action": "config.reloaded", "actor": "uid:0"}, 7, "ab" * 32)
    at = data.draw(st.integers(0, len(line) - 2))
    byte = data.draw(st.integers(0, 255).filter(lambda byte: byte != line[at]))
    changed = line[:at] + bytes([byte]) + line[at + 1 :]
    if b"\n" in changed[:-1]:
        return  # two lines, of which none is one
    with pytest.raises(NotALine):
        read_line(changed)


@given(st.binary(max_size=300))
def test_rubbish_is_no_line(data):
    with pytest.raises(NotALine):
        read_line(data)


@pytest.mark.parametrize(
    "body",
    [
        b'{"seq":0,"prev":"%s"' % (b"0" * 64),
        b'{"seq":true,"prev":"%s"' % (b"0" * 64),
        b'{"seq":1.0,"prev":"%s"' % (b"0" * 64),
        b'{"seq":1,"prev":"zz"',
        b'{"seq":1',
        b"[1",
        b'{"seq":1,"prev":null',
        b"[" * 5000,
    ],
    ids=["zero", "true", "float", "prev", "no-prev", "list", "null", "deep"],
)
def test_a_line_with_a_good_hash_must_still_be_an_entry(body):
    from hashlib import blake2b

    digest = blake2b(body, digest_size=32, person=b"headgate audit").hexdigest()
    with pytest.raises(NotALine):
        read_line(body + b',"hash":"' + digest.encode() + b'"}\n')


# ---- a whole log, tampered with


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Three segments of some entries, and a checkpoint after every fourth."""
    folder = tmp_path / "audit"
    rules = AuditRules(checkpoint_entries=4, segment_bytes=4000)
    book = Book(folder, rules, boot="b")
    book.open()
    for number in range(30):
        book.append(Entry("admin.post", "uid:0", target=f"/api/{number}"))
        book.turn()
    book.close()
    assert len(segments(folder)) >= 3
    assert verify_folder(folder).is_good
    return folder


def segments(folder):
    return sorted(folder.glob("2*.jsonl"))


def every_line(folder):
    return [
        (path, line) for path in segments(folder) for line in path.read_bytes().splitlines(True)
    ]


def rewrite(path, change):
    lines = path.read_bytes().splitlines(True)
    change(lines)
    path.write_bytes(b"".join(lines))


def faults(folder, **more):
    verdict = verify_folder(folder, **more)
    return [str(found) for found in verdict.findings if found.is_fault]


def test_an_edit_is_found_at_its_line_alone(log):
    path = segments(log)[1]

    def edit(lines):
        lines[2] = lines[2].replace(b"uid:0", b"uid:9")

    rewrite(path, edit)
    (fault,) = faults(log)
    assert f"{path.name}:3" in fault and "does not fit its hash" in fault


def test_an_edit_with_a_new_hash_breaks_the_chain_at_the_next_line(log):
    path = segments(log)[1]

    def edit(lines):
        found = read_line(lines[2])
        content = {k: v for k, v in found.content.items() if k not in {"seq", "prev"}}
        lines[2], _ = seal({**content, "actor": "uid:9"}, found.seq, found.prev)

    rewrite(path, edit)
    found = faults(log)
    assert any(f"{path.name}:4" in fault and "the chain is broken" in fault for fault in found)


def test_a_whole_new_chain_is_not_what_was_signed(log):
    prev, first = GENESIS, None
    for path in segments(log):
        lines = path.read_bytes().splitlines(True)
        for at, line in enumerate(lines):
            found = read_line(line)
            content = {k: v for k, v in found.content.items() if k not in {"seq", "prev"}}
            if found.seq == 3:
                content["actor"], first = "uid:9", 3
            lines[at], prev = seal(content, found.seq, prev)
        path.write_bytes(b"".join(lines))
    assert first == 3
    found = faults(log)
    assert found and all("is not the entry that was signed" in fault for fault in found)


@pytest.mark.parametrize("at", [0, 1, 3])
def test_a_deleted_line_is_found(log, at):
    path = segments(log)[1]
    number = read_line(path.read_bytes().splitlines(True)[at]).seq
    rewrite(path, lambda lines: lines.pop(at))
    assert any(f"entry {number} is missing" in fault for fault in faults(log))


def test_a_deleted_file_in_the_middle_is_found(log):
    _, second, third = segments(log)[:3]
    second.unlink()
    (fault, *_) = faults(log)
    numbers = int(second.name[9:21]), int(third.name[9:21]) - 1
    assert f"entries {numbers[0]} to {numbers[1]} are missing" in fault
    assert f"{third.name}:1" in fault


def test_a_deleted_beginning_is_found(log):
    segments(log)[0].unlink()
    assert any("no pruning is on record" in fault for fault in faults(log))


def test_a_deleted_end_is_found_by_the_checkpoints(log):
    segments(log)[-1].unlink()
    (fault,) = faults(log)
    assert "the end was cut off" in fault


@pytest.mark.parametrize("count", [1, 3])
def test_lines_cut_off_the_end_are_found_by_the_checkpoints(log, count):
    def cut(lines):
        del lines[-count:]

    rewrite(segments(log)[-1], cut)
    assert any("the end was cut off" in fault for fault in faults(log))


def test_the_end_cut_off_with_its_checkpoints_is_seen_where_they_are_missing(log):
    """A closed log without its last entries looks like one that was killed: the anchor tells."""
    anchor = log.parent / "anchor.jsonl"
    anchor.write_bytes((log / "checkpoints.jsonl").read_bytes())
    lines = (log / "checkpoints.jsonl").read_bytes().splitlines(True)
    (log / "checkpoints.jsonl").write_bytes(b"".join(lines[:3]))
    last = json.loads(lines[2])["seq"]
    for path in segments(log):
        rewrite(
            path,
            lambda lines: lines.__setitem__(
                slice(None), [x for x in lines if read_line(x).seq <= last]
            ),
        )
        if not path.stat().st_size:
            path.unlink()
    assert faults(log) == []  # said in the docs: nothing within can show this
    assert any("the end was cut off" in fault for fault in faults(log, anchors=[anchor]))


def test_lines_that_changed_places_are_found(log):
    def swap(lines):
        lines[1], lines[2] = lines[2], lines[1]

    rewrite(segments(log)[1], swap)
    assert any("out of order" in fault or "missing" in fault for fault in faults(log))


@pytest.mark.parametrize("kind", ["copy", "made", "rubbish", "blank", "huge"])
def test_an_inserted_line_is_found(log, kind):
    path = segments(log)[1]
    lines = path.read_bytes().splitlines(True)
    found = read_line(lines[2])
    line = {
        "copy": lines[0],
        "made": seal({"action": "x", "actor": "y"}, found.seq + 1, found.hash)[0],
        "rubbish": b"{}\n",
        "blank": b"\n",
        "huge": b"x" * 500_000 + b"\n",
    }[kind]
    rewrite(path, lambda lines: lines.insert(3, line))
    found_faults = faults(log)
    assert found_faults and any(f"{path.name}:{at}" in found_faults[0] for at in (4, 5))


def test_a_line_with_a_key_given_twice_is_an_edit(log):
    def edit(lines):
        lines[1] = lines[1].replace(b'{"action"', b'{"action":"other","action"')

    rewrite(segments(log)[0], edit)
    assert len(faults(log)) == 1


def test_missing_checkpoints_are_found(log):
    path = log / "checkpoints.jsonl"
    rewrite(path, lambda lines: lines.pop(2))
    assert any("checkpoints are missing between number 2 and 4" in fault for fault in faults(log))
    path.unlink()
    assert any("no checkpoint" in fault for fault in faults(log))


def test_a_checkpoint_that_was_changed_does_not_hold(log):
    def edit(lines):
        said = json.loads(lines[1])
        lines[1] = json.dumps({**said, "hash": "0" * 64}).encode() + b"\n"

    rewrite(log / "checkpoints.jsonl", edit)
    assert any("signature of this checkpoint does not hold" in fault for fault in faults(log))


def test_the_last_checkpoint_of_a_closed_log_is_missed(log):
    rewrite(log / "checkpoints.jsonl", lambda lines: lines.pop())
    assert any("its last checkpoint is missing" in fault for fault in faults(log))


def test_a_log_that_was_made_anew_is_shown_by_the_key_that_was_kept(log):
    kept = log.parent / "kept.pub"
    kept.write_bytes((log / "keys.pub").read_bytes())
    anchor = log.parent / "anchor.jsonl"
    anchor.write_bytes(b"other line\n" + (log / "checkpoints.jsonl").read_bytes())
    for path in log.iterdir():
        path.unlink()
    book = Book(log, AuditRules(), boot="b")
    book.open()
    book.close()
    assert faults(log) == []
    assert any("a key that is not known" in fault for fault in faults(log, keys=public_keys(kept)))
    assert faults(log, anchors=[anchor])


def test_no_id_is_believed_of_a_file_of_keys(log):
    path = log / "keys.pub"
    path.write_text("0123456789abcdef " + path.read_text().split()[1] + "\n")
    assert faults(log) == []
    path.write_text("x AAAA\n")
    with pytest.raises(AuditUnreadable, match="keys.pub:1 is no public key"):
        verify_folder(log)


def test_findings_are_bounded_and_notes_do_not_crowd_them_out(log):
    for path in segments(log):
        path.write_bytes(path.read_bytes().replace(b"uid:0", b"uid:9") + b"{}\n" * 300)
    verdict = verify_folder(log)
    assert verdict.faults > FINDINGS_MAX
    assert sum(found.is_fault for found in verdict.findings) == FINDINGS_MAX


def test_a_log_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(AuditUnreadable, match="there is no audit log"):
        verify_folder(tmp_path / "none")
