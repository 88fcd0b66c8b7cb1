"""The commands, with the gateway itself and without one."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.control.running import ENV, Gateway

pytestmark = pytest.mark.integration


class RealGateway(Gateway):
    """As `headgate run` starts it, with the workers of the gateway."""

    def start(self, *rest: str, prefix: tuple[str, ...] = (), wait: bool = True) -> None:
        self._launch([*prefix, sys.executable, "-m", "headgate", "run", *rest], wait=wait)

    def fetch(self, path: str = "/") -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            got = connection.getresponse()
            return got.status, got.read()
        finally:
            connection.close()


@pytest.fixture
def real(tmp_path: Path) -> Iterator[RealGateway]:
    gateway = RealGateway(tmp_path)
    gateway.state.path = tmp_path / ".headgate"
    gateway.write("one")
    yield gateway
    gateway.stop()


def test_the_gateway_runs_reloads_upgrades_and_drains(real: RealGateway):
    real.start("--workers", "1")
    assert real.fetch() == (200, b"one")
    real.write("two", listeners=[{"bind": f"127.0.0.1:{real.port}"}])
    done = real.command("reload")
    assert done.stdout.startswith("reloaded: generation 2, 1 worker, "), done.stderr
    assert real.fetch() == (200, b"two")
    shown = real.command("status").stdout
    assert shown.startswith("ok: headgate ")
    assert f"listens on 127.0.0.1:{real.port}" in shown
    assert json.loads(real.command("status", "--format", "json").stdout)["stats"]["requests"] == 2
    assert real.command("upgrade").stdout.startswith("upgraded to ")
    assert real.fetch() == (200, b"two")
    assert real.command("drain").stdout.startswith("drained in ")
    assert real.wait_end() == 0
    assert "Traceback" not in real.said


def test_a_file_with_faults_is_not_run(real: RealGateway):
    real.write("one", routs=[], services={"a": {"instances": []}})
    real.start(wait=False)
    assert real.wait_end() == 1
    assert f"{real.file}:" in real.said
    assert "routs" in real.said
    assert "Traceback" not in real.said


def test_a_plugin_that_is_not_there_is_told_with_its_line(real: RealGateway):
    real.write(
        "one",
        plugins=[{"use": "nowhere_to_be_found:Plugin"}],
    )
    real.start(wait=False)
    assert real.wait_end() == 1
    (line,) = [line for line in real.log if "nowhere_to_be_found" in line]
    assert line.startswith(f"{real.file}:")
    assert "Traceback" not in real.said


def test_no_file_is_told(real: RealGateway):
    real.file.unlink()
    real.start(wait=False)
    assert real.wait_end() == 1
    assert "headgate.yaml" in real.said
    assert "Traceback" not in real.said


@pytest.mark.parametrize("words", [["reload"], ["drain"], ["status"], ["upgrade"]])
def test_where_nothing_runs_a_command_says_so(real: RealGateway, words: list[str]):
    done = real.command(*words)
    assert done.returncode == 1
    assert "nothing is running on the state directory" in done.stderr
    assert "headgate run" in done.stderr
    assert "Traceback" not in done.stderr


def test_commands_find_the_state_directory_that_the_file_names(real: RealGateway):
    real.write("one", state_dir="elsewhere")
    done = subprocess.run(
        [sys.executable, "-m", "headgate", "status"],
        cwd=real.folder,
        env=ENV,
        capture_output=True,
        text=True,
        check=False,
    )
    assert str(real.folder / "elsewhere") in done.stderr
    # Also when the file has faults by now, since `reload` is to report them.
    real.write("one", state_dir="elsewhere", nonsense=1)
    done = subprocess.run(
        [sys.executable, "-m", "headgate", "reload", "headgate.yaml"],
        cwd=real.folder,
        env=ENV,
        capture_output=True,
        text=True,
        check=False,
    )
    assert str(real.folder / "elsewhere") in done.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["explain", "GET"], "expected METHOD URL"),
        (["explain", "GET", "nowhere"], "is no URL"),
        (["explain", "GET", "/", "-H", "x"], "name: value"),
        (["explain", "GET", "/", "absent.yaml"], "absent.yaml"),
    ],
)
def test_explain_says_what_it_expects(real: RealGateway, words: list[str], says: str):
    done = real.command(*words)
    assert done.returncode != 0
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_explain_takes_the_file_first_or_last(real: RealGateway):
    after = real.command("explain", "GET", "http://a/b", str(real.file))
    before = real.command("explain", str(real.file), "GET", "http://a/b")
    assert after.returncode == before.returncode == 0, after.stderr
    assert after.stdout == before.stdout
    assert "GET a/b" in after.stdout


def test_the_only_worker_is_killed_and_a_client_just_waits(real: RealGateway):
    real.start("--workers", "1")
    (pid,) = real.worker_pids()
    os.kill(pid, signal.SIGKILL)
    assert real.fetch() == (200, b"one")
    assert real.worker_pids() != [pid]
