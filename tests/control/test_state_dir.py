from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from headgate.control.state_dir import StateDir, StateDirUnusable
from headgate.errors import AlreadyRunning
from tests.control.running import ENV


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_it_is_made_for_its_owner_alone(tmp_path: Path):
    state = StateDir(tmp_path / "a" / "b")
    state.prepare()
    assert mode(state.path) == 0o700
    assert list(state.path.iterdir()) == []


def test_one_that_others_could_enter_is_tightened(tmp_path: Path):
    path = tmp_path / "state"
    path.mkdir(mode=0o755)
    StateDir(path).prepare()
    assert mode(path) == 0o700


def test_the_token_is_made_once_and_is_hard_to_guess(tmp_path: Path):
    state = StateDir(tmp_path)
    assert state.token() is None
    token = state.make_token()
    assert len(token) >= 40
    assert state.make_token() == token == state.token()
    assert mode(tmp_path / "admin-token") == 0o600


def test_a_token_file_that_others_could_read_is_tightened(tmp_path: Path):
    (tmp_path / "admin-token").write_text("chosen\n")
    assert StateDir(tmp_path).make_token() == "chosen"
    assert mode(tmp_path / "admin-token") == 0o600


def test_the_lock_names_its_holder_and_ends_with_it(tmp_path: Path):
    state = StateDir(tmp_path)
    assert state.running_pid() is None
    fd = state.lock()
    assert not os.get_inheritable(fd)
    with pytest.raises(AlreadyRunning) as refused:
        StateDir(tmp_path).lock()
    assert refused.value.pid == os.getpid()
    assert state.running_pid() == os.getpid()
    os.close(fd)
    assert state.running_pid() is None
    os.close(state.lock())


def test_a_file_is_whole_or_absent(tmp_path: Path):
    state = StateDir(tmp_path)
    assert state.read_json("totals.json") == {}
    (tmp_path / "totals.json").write_text('{"half')
    assert state.read_json("totals.json") == {}
    state.write_json("totals.json", {"a": 1})
    assert state.read_json("totals.json") == {"a": 1}
    assert mode(tmp_path / "totals.json") == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["totals.json"]


def test_a_plain_file_in_the_way_is_told(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StateDirUnusable, match="is a plain file; move it away"):
        StateDir(tmp_path / "file").prepare()
    with pytest.raises(StateDirUnusable, match="has a plain file in its path"):
        StateDir(tmp_path / "file" / "state").prepare()


PREPARE = """
import errno, os, sys
from pathlib import Path
from headgate.control.state_dir import StateDir, StateDirUnusable
if sys.argv[2]:
    def refuse(*_):
        raise OSError(getattr(errno, sys.argv[2]), os.strerror(getattr(errno, sys.argv[2])))
    os.write = os.mkdir = refuse
try:
    StateDir(Path(sys.argv[1])).prepare()
except StateDirUnusable as error:
    print(error)
"""


@pytest.mark.integration
@pytest.mark.parametrize(
    ("mount", "error", "says"),
    [
        (
            "mount -t tmpfs -o size=4k none {d} && dd if=/dev/zero of={d}/f bs=4k count=1",
            "ENOSPC",
            "full disk",
        ),
        ("mount -t tmpfs -o ro none {d}", "EROFS", "is on a read-only file system"),
    ],
)
def test_a_disk_that_takes_nothing_is_told_with_the_way_out(tmp_path, mount, error, says):
    """A real disk where this machine lets us mount one; elsewhere the system's answer is played."""
    namespaces = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    script = f"{mount.format(d=tmp_path)} 2>/dev/null && echo mounted"
    tried = subprocess.run([*namespaces, "sh", "-c", script], capture_output=True, check=False)
    prepare = f"exec {sys.executable} -c '{PREPARE}' {tmp_path}/s"
    if tried.stdout:
        command = [*namespaces, "sh", "-c", f"{mount.format(d=tmp_path)}; {prepare} ''"]
    else:
        command = ["sh", "-c", f"{prepare} {error}"]
    done = subprocess.run(command, capture_output=True, text=True, env=ENV, check=False)
    assert says in done.stdout, done.stdout + done.stderr
    assert "choose another with --state-dir" in done.stdout


def test_a_directory_of_another_user_is_refused(tmp_path: Path, monkeypatch):
    path = tmp_path / "state"
    path.mkdir()
    owner = os.geteuid()
    if owner == 0:  # what root owns is fine for everybody
        owner = 12345
        os.chown(path, owner, owner)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(StateDirUnusable, match=f"belongs to user {owner}"):
        StateDir(path).prepare()
