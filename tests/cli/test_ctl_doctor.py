"""`headgate doctor`, and `headgate ctl` where no gateway runs."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from headgate.cli.app import main


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


def write(folder: Path, port: int, **more: Any) -> Path:
    file = folder / "headgate.yaml"
    config = {
        "listeners": [f"127.0.0.1:{port}"],
        "admin": {"bind": "127.0.0.1:0"},
        "services": {"users": "http://127.0.0.1:1"},
        "routes": [{"name": "users", "match": {"path": "/"}, "to": "users"}],
        **more,
    }
    file.write_text(json.dumps(config))
    return file


def findings(out: str) -> dict[str, list[dict[str, str]]]:
    by_what: dict[str, list[dict[str, str]]] = {}
    for row in json.loads(out)["findings"]:
        by_what.setdefault(row["what"], []).append(row)
    return by_what


def test_what_is_away_is_said_with_the_way_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    code, out, _ = run(capsys, "doctor", str(write(tmp_path, 0)), "--json")
    (row,) = findings(out)["instance of users"]
    assert (row["level"], row["says"]) == ("warn", "127.0.0.1:1: connection refused")
    assert "start it" in row["way_out"]
    assert code == 0


def test_a_port_in_use_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        file = write(tmp_path, port)
        code, out, _ = run(capsys, "doctor", str(file), "--offline", "--quiet")
    assert code == 1
    assert f"127.0.0.1:{port}" in out
    assert "ss -ltnp" in out


def test_faults_of_the_file_are_told_and_nothing_else_is_tried(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    file = write(tmp_path, 0, routes=[{"name": "x", "match": {}, "to": "usres"}])
    code, out, _ = run(capsys, "doctor", str(file), "--json")
    assert code == 1
    assert 'did you mean "users"?' in json.dumps(findings(out)["file"], ensure_ascii=False).replace(
        '\\"', '"'
    )
    assert "port" not in findings(out)


def test_a_state_directory_that_is_open_to_others_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    state = tmp_path / ".headgate"
    state.mkdir(mode=0o755)
    state.chmod(0o755)
    _, out, _ = run(capsys, "doctor", str(write(tmp_path, 0)), "--offline", "--json")
    (row,) = findings(out)["state directory"]
    assert (row["level"], row["way_out"]) == ("fail", f"chmod 700 {state}")


def test_a_file_that_is_not_there_is_a_wrong_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    code, _, err = run(capsys, "doctor", str(tmp_path / "none.yaml"))
    assert code == 2
    assert "there is no file" in err


@pytest.mark.parametrize("words", [["routes"], ["top"], ["get", "health"]], ids=" ".join)
def test_where_nothing_runs_ctl_ends_with_three(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
):
    code, _, err = run(capsys, "ctl", *words, "--state-dir", str(tmp_path))
    assert code == 3
    assert "start it with `headgate run`" in err


def test_a_key_that_opens_secrets_is_for_its_owner_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run(capsys, "secrets", "init", str(tmp_path / "secrets.enc"))
    key = tmp_path / "secrets.key"
    more = {"secrets": {"file": "secrets.enc", "key_file": "secrets.key"}}
    file = write(tmp_path, 0, **more)
    for mode in (0o600, 0o644):
        key.chmod(mode)
        _, out, _ = run(capsys, "doctor", str(file), "--offline", "--json")
        told = [row for row in findings(out).get("permissions", []) if str(key) in row["says"]]
        assert len(told) == (mode == 0o644)
