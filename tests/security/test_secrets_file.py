"""The encrypted file and `headgate secrets`: what opens, what is told, what never stays behind."""

from __future__ import annotations

import base64
import contextlib
import io
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.cli.app import main
from headgate.security.secrets import (
    FileKey,
    NotASecretFile,
    Passphrase,
    SecretFile,
    SecretFileBusy,
    SecretFileCorrupt,
    SecretFileError,
    SecretFileForged,
    SecretFileMissing,
    WrongKey,
    envelope,
    read_key_file,
    secret_file,
    write_key_file,
)
from headgate.security.secrets.envelope import (
    Content,
    key_text,
    open_content,
    parse_key,
    read_head,
    seal_content,
)

KEY = FileKey(bytes(range(32)))
OTHER = FileKey(bytes(32))
VALUES = {"DB": "s3cret-canary", "CERT": "-----BEGIN\nlines\n-----END\n", "EMPTY": ""}


def sealed(values: dict[str, str] | None = None, key: Any = KEY, **more: Any) -> bytes:
    return seal_content(Content(VALUES if values is None else values, 3), key, **more)


# ---- what opens and what does not


def test_what_was_sealed_opens():
    data = sealed()
    content = open_content(data, KEY)
    assert (content.values, content.revision) == (VALUES, 3)
    head = read_head(data)
    assert (head.kind, head.names, head.revision) == ("file", ("CERT", "DB", "EMPTY"), 3)
    assert b"canary" not in data
    assert base64.b64encode(b"canary")[:6] not in data


names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.\-]{0,20}", fullmatch=True)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)


@given(st.dictionaries(names, texts, max_size=6), st.binary(min_size=32, max_size=32))
@settings(max_examples=60, deadline=None)
def test_any_values_come_back(values, key):
    data = seal_content(Content(values, 1), FileKey(key))
    assert open_content(data, FileKey(key)).values == values


def test_two_sealings_share_nothing_but_the_names():
    one, two = sealed(), sealed()
    lines = zip(one.split(b"\n"), two.split(b"\n"), strict=True)
    assert [a == b for a, b in lines] == [True, False, False, False, True]


def test_every_changed_bit_is_noticed():
    """Also without a key, but for the first line; and never is another content read."""
    data = sealed({"DB": "s3cret"})
    for at in range(len(data)):
        for bit in range(8):
            changed = data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :]
            with pytest.raises((SecretFileCorrupt, NotASecretFile)):
                open_content(changed, KEY)


def test_every_changed_bit_is_noticed_by_the_key_alone():
    """The sum is for people: whoever changes the file on purpose makes a new one."""
    import hashlib

    data = sealed({"DB": "s3cret"})
    cut = data.rfind(b"\n", 0, -1) + 1
    kinds = set()
    for at in range(cut):
        for bit in (0, 1, 5, 7):
            text = data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 : cut]
            forged = text + f"sha256 {hashlib.sha256(text).hexdigest()}\n".encode()
            with pytest.raises(SecretFileError) as caught:
                open_content(forged, KEY)
            kinds.add(type(caught.value))
    assert kinds == {SecretFileForged, WrongKey, SecretFileCorrupt, NotASecretFile}


@pytest.mark.parametrize("cut", [0, 1, 16, 19, 60, -200, -70, -2, -1])
def test_a_torn_file_is_noticed(cut: int):
    with pytest.raises((SecretFileCorrupt, NotASecretFile)):
        open_content(sealed()[:cut], KEY)


@given(st.binary(max_size=300), st.integers(0, 2))
@settings(max_examples=200, deadline=None)
def test_no_bytes_raise_anything_else(junk, how):
    data = [junk, b"headgate-secrets 1\n" + junk, sealed({"A": "b"}) + junk][how]
    if how == 2 and not junk:
        return
    for read in (read_head, lambda one: open_content(one, KEY)):
        with pytest.raises(SecretFileError):
            read(data)


def with_sum(text: str) -> bytes:
    import hashlib

    return f"{text}sha256 {hashlib.sha256(text.encode()).hexdigest()}\n".encode()


@pytest.mark.parametrize(
    ("header", "body"),
    [
        ("[]", ""),
        ("{}", ""),
        ("null", ""),
        ('{"kdf":{},"names":[],"revision":1,"wrapped":""}', ""),
        (
            '{"kdf":{"kind":"scrypt","log_n":40,"salt":"AAAAAAAAAAAAAAAAAAAAAA=="},"names":[],"revision":1,"wrapped":"'
            + "A" * 80
            + '"}',
            "",
        ),
        (
            '{"kdf":{"kind":"scrypt","log_n":true,"salt":"AAAAAAAAAAAAAAAAAAAAAA=="},"names":[],"revision":1,"wrapped":"'
            + "A" * 80
            + '"}',
            "",
        ),
        (
            '{"kdf":{"kind":"file","salt":"AAAAAAAAAAAAAAAAAAAAAA=="},"names":["b","a"],"revision":1,"wrapped":"'
            + "A" * 80
            + '"}',
            "",
        ),
        (
            '{"kdf":{"kind":"file","salt":1},"names":[],"revision":1,"wrapped":"' + "A" * 80 + '"}',
            "",
        ),
        ("[" * 100000, ""),
    ],
    ids=["list", "empty", "null", "none", "costly", "bool", "order", "salt", "deep"],
)
def test_a_header_that_nobody_would_write_is_refused(header, body):
    with pytest.raises(SecretFileCorrupt):
        read_head(with_sum(f"headgate-secrets 1\n{header}\n{body}\n"))


def test_a_file_of_a_later_version_is_told_as_that():
    with pytest.raises(NotASecretFile, match="another version"):
        read_head(with_sum("headgate-secrets 2\nwho knows\n"))


def test_wrong_keys_are_told_apart_from_damage():
    with pytest.raises(WrongKey, match="this key does not open it"):
        open_content(sealed(), OTHER)
    with pytest.raises(WrongKey, match="opens with a key file"):
        open_content(sealed(), Passphrase("a long passphrase"))
    words = sealed(key=Passphrase("a long passphrase"), scrypt_log_n=14)
    assert open_content(words, Passphrase("a long passphrase")).values == VALUES
    with pytest.raises(WrongKey):
        open_content(words, Passphrase("another passphrase"))
    with pytest.raises(WrongKey, match="opens with a passphrase"):
        open_content(words, KEY)


def test_values_of_one_file_do_not_fit_into_another():
    one, two = sealed({"A": "1"}), sealed({"A": "2"})
    a, b = one.split(b"\n"), two.split(b"\n")
    mixed = b"\n".join([a[0], a[1], b[2], b""]).decode()
    with pytest.raises(SecretFileForged):
        open_content(with_sum(mixed), KEY)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("", "x"),
        ("1A", "x"),
        ("a b", "x"),
        ("a" * 129, "x"),
        ("A}", "x"),
        ("A", "\ud800"),
        ("A", "x" * 300_000),
    ],
    ids=["empty", "digit", "blank", "long", "brace", "half", "large"],
)
def test_names_and_values_have_bounds(name, value):
    with pytest.raises(SecretFileError) as caught:
        sealed({name: value})
    assert "xxxx" not in str(caught.value)


def test_keys_are_read_as_written_and_never_shown():
    assert parse_key(key_text(KEY)) == KEY
    assert parse_key(f"  {key_text(KEY)}\n") == KEY
    for text in (
        "",
        "abc",
        "headgate-key-1:",
        "headgate-key-1:AAAA",
        key_text(KEY)[:-2],
        "x" * 100000,
    ):
        with pytest.raises(SecretFileError) as caught:
            parse_key(text)
        assert len(str(caught.value)) < 100
    shown = repr(KEY) + repr(Passphrase("s3cret-canary")) + repr(Content(VALUES))
    assert "canary" not in shown
    assert "\\x" not in shown


def test_a_new_passphrase_must_be_long():
    with pytest.raises(SecretFileError, match="12 characters"):
        Passphrase("short").check()


# ---- on disk


@pytest.fixture
def store(tmp_path: Path) -> SecretFile:
    found = SecretFile(tmp_path / "s.enc")
    found.create(KEY)
    return found


def test_a_file_is_made_for_its_owner_alone_and_not_over_another(store: SecretFile):
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    with pytest.raises(SecretFileError, match="exists already"):
        store.create(KEY)


def test_a_change_is_written_whole_or_not_at_all(store: SecretFile):
    with store.change(KEY) as draft:
        draft.set("A", "1")
    before = store.path.read_bytes()
    with pytest.raises(RuntimeError), store.change(KEY) as draft:
        draft.set("B", "2")
        raise RuntimeError
    assert store.path.read_bytes() == before
    with store.change(KEY):
        pass
    assert store.path.read_bytes() == before  # nothing changed, nothing written
    assert store.read(KEY).revision == 2
    assert {path.name for path in store.path.parent.iterdir()} == {"s.enc", ".s.enc.lock"}


def test_a_full_disk_leaves_the_old_file(store: SecretFile, monkeypatch):
    before = store.path.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SecretFileError, match="no space left"), store.change(KEY) as draft:
        draft.set("A", "1")
    assert store.path.read_bytes() == before
    assert {path.name for path in store.path.parent.iterdir()} == {"s.enc", ".s.enc.lock"}


def test_a_link_stays_a_link(store: SecretFile, tmp_path: Path):
    (tmp_path / "link.enc").symlink_to(store.path)
    with SecretFile(tmp_path / "link.enc").change(KEY) as draft:
        draft.set("A", "1")
    assert (tmp_path / "link.enc").is_symlink()
    assert store.read(KEY).values == {"A": "1"}


def test_many_writers_at_once_lose_nothing(store: SecretFile):
    def write(number: int) -> None:
        for at in range(5):
            with SecretFile(store.path).change(KEY) as draft:
                draft.set(f"N{number}_{at}", str(number))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(store.read(KEY).values) == 30
    assert store.read(KEY).revision == 31


def test_a_writer_that_waits_too_long_says_so(store: SecretFile, monkeypatch):
    monkeypatch.setattr(secret_file, "LOCK_S", 0.1)
    with (
        store.change(KEY),
        pytest.raises(SecretFileBusy, match="another command"),
        SecretFile(store.path).change(KEY),
    ):
        pass


@pytest.mark.parametrize("kind", ["none", "folder", "pipe", "large"])
def test_what_is_no_file_is_told(tmp_path: Path, kind: str, monkeypatch):
    path = tmp_path / "x"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "large":
        monkeypatch.setattr(secret_file, "MAX_FILE_BYTES", 10)
        path.write_bytes(b"x" * 11)
    with pytest.raises(SecretFileError) as caught:
        SecretFile(path).read(KEY)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_key_file_is_for_its_owner_alone_and_not_over_another(tmp_path: Path):
    write_key_file(tmp_path / "k", KEY)
    assert stat.S_IMODE((tmp_path / "k").stat().st_mode) == 0o600
    assert read_key_file(tmp_path / "k") == KEY
    with pytest.raises(SecretFileError, match="exists already"):
        write_key_file(tmp_path / "k", OTHER)
    with pytest.raises(SecretFileMissing):
        read_key_file(tmp_path / "none")


# ---- the command


Run = Callable[..., Any]
ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(tmp_path: Path, monkeypatch) -> Run:
    def run(*words: str, stdin: str = "", **env: str) -> Done:
        """The command in this process: an interpreter more would cost a second."""
        out, err = io.StringIO(), io.StringIO()
        code: Any = 0
        with (
            contextlib.chdir(tmp_path),
            mock.patch.dict(os.environ, env),
            mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()))),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                main(["secrets", *words])
            except SystemExit as ended:
                code = ended.code
        return Done(int(code or 0), out.getvalue(), err.getvalue())

    return run


def test_the_life_of_a_secret(run: Run, tmp_path: Path):
    made = run("init", "s.enc")
    assert made.returncode == 0, made.stderr
    assert {path.name for path in tmp_path.iterdir()} >= {"s.enc", "s.key"}
    assert "headgate-key-1" not in made.stdout + made.stderr
    for name, value in (("DB", "one\n"), ("DB", "two"), ("API", "x\ny\n")):
        done = run("set", "s.enc", name, stdin=value)
        assert done.returncode == 0, done.stderr
        assert done.stdout == ""
    assert run("get", "s.enc", "DB").stdout == "two"
    assert run("get", "s.enc", "API").stdout == "x\ny"
    (tmp_path / "s.key").rename(tmp_path / "away.key")
    assert run("list", "s.enc").stdout == "API\nDB\n"
    assert "cannot be read" in run("get", "s.enc", "DB").stderr
    assert run("get", "s.enc", "DB", "-k", "away.key").stdout == "two"
    text = (tmp_path / "away.key").read_text()
    assert run("get", "s.enc", "DB", HEADGATE_SECRETS_KEY=text).stdout == "two"
    assert run("rm", "s.enc", "DB", "-k", "away.key").returncode == 0
    gone = run("get", "s.enc", "DB", "-k", "away.key")
    assert (gone.returncode, gone.stderr) == (1, "headgate: s.enc: there is no secret DB\n")
    again = run("init", "s.enc")
    assert again.returncode == 1
    assert "exists already" in again.stderr


def test_a_new_key_opens_it_and_the_old_one_does_not(run: Run, tmp_path: Path):
    run("init", "s.enc")
    run("set", "s.enc", "DB", stdin="two")
    (tmp_path / "old.key").write_bytes((tmp_path / "s.key").read_bytes())
    done = run("rotate-key", "s.enc")
    assert done.returncode == 0, done.stderr
    assert run("get", "s.enc", "DB").stdout == "two"
    refused = run("get", "s.enc", "DB", "-k", "old.key")
    assert refused.returncode == 1
    assert "this key does not open it" in refused.stderr
    assert {path.name for path in tmp_path.iterdir()} == {
        "s.enc",
        "s.key",
        "old.key",
        ".s.enc.lock",
    }
    (tmp_path / "words").write_text("a long passphrase\n")
    assert run("rotate-key", "s.enc", "--new-passphrase-file", "words").returncode == 0
    assert run("get", "s.enc", "DB", "--passphrase-file", "words").stdout == "two"
    assert "give --passphrase-file" in run("get", "s.enc", "DB").stderr


def editor(tmp_path: Path, body: str) -> str:
    path = tmp_path / "editor"
    path.write_text(
        f"#!{sys.executable}\nimport sys, os, pathlib, time\npath = pathlib.Path(sys.argv[1])\n{body}\n"
    )
    path.chmod(0o700)
    return str(path)


def leftovers() -> set[str]:
    places = [os.environ.get("XDG_RUNTIME_DIR", ""), "/dev/shm", "/tmp"]
    return {
        str(path)
        for place in places
        if place and os.path.isdir(place)
        for path in Path(place).glob("headgate-*/secrets.yaml*")
    }


def test_an_editor_sees_and_changes_all_of_them(run: Run, tmp_path: Path):
    run("init", "s.enc")
    run("set", "s.enc", "DB", stdin="s3cret-canary")
    run("set", "s.enc", "PEM", stdin="a\nb\n\n")
    body = (
        "text = path.read_text()\n"
        "mode = oct(path.stat().st_mode)[-3:] + oct(path.parent.stat().st_mode)[-3:]\n"
        f"open({str(tmp_path / 'seen')!r}, 'w').write(mode + str(path) + text)\n"
        "path.with_suffix('.yaml~').write_text(text)\n"
        "path.write_text(text.replace('s3cret-canary', '0123') + 'NEW: yes\\n')\n"
    )
    done = run("edit", "s.enc", EDITOR=editor(tmp_path, body))
    assert done.returncode == 0, done.stderr
    seen = (tmp_path / "seen").read_text()
    assert seen.startswith("600700/")
    assert "DB: s3cret-canary" in seen
    assert run("get", "s.enc", "DB").stdout == "0123"
    assert run("get", "s.enc", "NEW").stdout == "yes"
    assert run("get", "s.enc", "PEM").stdout == "a\nb\n"
    assert not leftovers()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("sys.exit(3)", "ended with 3; nothing was kept"),
        ("path.write_text('a: [1')", "is not YAML"),
        ("path.write_text('DB: {a: canary}')", "line 1: a value is text"),
        ("path.write_text('DB: canary\\nDB: canary')", "line 2: DB stands there twice"),
        ("path.write_text('1x: canary')", "line 1: a name is letters"),
        ("path.write_text('canary')", "this is not NAME: value"),
        ("path.write_text('')", "nothing changed"),
        ("path.unlink()", ""),
    ],
    ids=["exit", "yaml", "deep", "twice", "name", "text", "empty", "gone"],
)
def test_an_edit_that_went_wrong_changes_nothing(run: Run, tmp_path: Path, body, words):
    run("init", "s.enc")
    run("set", "s.enc", "DB", stdin="kept")
    before = (tmp_path / "s.enc").read_bytes()
    done = run("edit", "s.enc", EDITOR=editor(tmp_path, body))
    assert words in done.stderr
    assert "canary" not in done.stderr
    assert (tmp_path / "s.enc").read_bytes() == before
    assert not leftovers()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["term", "hup"])
def test_a_killed_edit_leaves_nothing_behind(run: Run, tmp_path: Path, number: int):
    run("init", "s.enc")
    run("set", "s.enc", "DB", stdin="kept")
    body = f"open({str(tmp_path / 'seen')!r}, 'w').write(str(path))\ntime.sleep(30)"
    process = subprocess.Popen(
        [sys.executable, "-m", "headgate", "secrets", "edit", "s.enc"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "EDITOR": editor(tmp_path, body)},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 20
    while not (tmp_path / "seen").exists() or not (tmp_path / "seen").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert Path((tmp_path / "seen").read_text()).exists()
    os.killpg(process.pid, number)
    assert process.wait(20) != 0
    assert not leftovers()


def test_a_value_is_in_no_list_of_processes(run: Run, tmp_path: Path):
    """There is no option for it: `set FILE NAME VALUE` is a wrong command line."""
    run("init", "s.enc")
    assert run("set", "s.enc", "DB", "s3cret-canary").returncode == 2
    assert envelope.MAGIC == "headgate-secrets"
