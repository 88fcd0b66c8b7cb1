"""`headgate new`: what it writes works, and it writes over nothing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path, PurePosixPath

import pytest

from headgate.cli.new import NameInvalid, Place, module_of, rendered, written
from headgate.cli.new import gateway as new_gateway
from headgate.cli.new import service as new_service
from headgate.errors import HeadgateError
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
LONG_S = 60.0


def headgate(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "headgate", *words],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=LONG_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HEADGATE_")}
    return {**kept, "PYTHONPATH": str(ROOT / "src"), "PYTHONDONTWRITEBYTECODE": "1", **more}


@pytest.mark.parametrize("name", ["orders", "order-mails", "a", "v2", "a1-b2-c3", "x" * 50])
def test_a_name_that_can_be_one_is_taken(name):
    assert module_of(name) == name.replace("-", "_")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "no name"),
        ("Orders", "small letters"),
        ("2nd", "beginning with a letter"),
        ("a_b", "no name"),
        ("a--b", "single dashes"),
        ("a-", "no name"),
        ("-a", "no name"),
        ("a/b", "no name"),
        ("../a", "no name"),
        ("a.b", "no name"),
        ("a\n", "no name"),
        ("\u00fcber", "no name"),
        ("x" * 51, "up to 50"),
        ("class", "word of Python"),
        ("match", "word of Python"),
        ("json", "hide the module json"),
        ("headgate", "hide the module headgate"),
        ("tests", "hide the module"),
    ],
    ids=str,
)
def test_a_name_that_cannot_be_one_is_refused_with_the_reason(name, why):
    with pytest.raises(NameInvalid, match=why):
        module_of(name)


WORDS = {"name": "order-mails", "module": "order_mails", "port": "3001", "headgate": "0.1.0"}


def test_a_template_is_filled_in_its_paths_too():
    files = rendered("service", WORDS, "order_mails")
    names = {str(path) for path in files}
    assert {
        ".dockerignore",
        ".gitignore",
        "Dockerfile",
        "README.md",
        "order_mails/__init__.py",
        "order_mails/__main__.py",
        "order_mails/app.py",
        "pyproject.toml",
        "tests/test_app.py",
    } == names
    assert not [text for text in files.values() if "{{" in text]


def test_nothing_is_written_over_and_nothing_else_is_written_then(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/two").write_text("mine")
    place = Place(tmp_path / "a", {PurePosixPath("one"): "1", PurePosixPath("two"): "2"})
    with pytest.raises(HeadgateError, match=r"there already: .*two"):
        written(place)
    assert (tmp_path / "a/two").read_text() == "mine"
    assert not (tmp_path / "a/one").exists()


def test_a_link_that_leads_nowhere_is_not_written_through(tmp_path):
    (tmp_path / "one").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(HeadgateError, match="one"):
        written(Place(tmp_path, {PurePosixPath("one"): "1"}))
    assert not (tmp_path / "elsewhere").exists()


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path):
    (tmp_path / "b").write_text("a file")
    files = {PurePosixPath("new/deep/one"): "1", PurePosixPath("b/two"): "2"}
    with pytest.raises(HeadgateError, match="nothing was written"):
        written(Place(tmp_path, files))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b"]


def test_other_files_in_the_folder_are_no_hindrance(tmp_path):
    (tmp_path / "notes").write_text("mine")
    written(Place(tmp_path, {PurePosixPath("one"): "1"}))
    assert (tmp_path / "one").read_text() == "1"


def answer(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as got:
            return got.status, got.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


def until(url: str, status: int = 200) -> str:
    over = time.monotonic() + LONG_S
    while True:
        got, body = answer(url)
        if got == status:
            return body
        assert time.monotonic() < over, (url, got, body)
        time.sleep(0.1)


@pytest.mark.integration
def test_a_service_and_a_gateway_that_were_begun_work(tmp_path, capsys):
    port, admin_port, service_port = free_port(), free_port(), free_port()
    new_service("order-mails", tmp_path, service_port)
    assert "pytest" in capsys.readouterr().out
    new_gateway(tmp_path / "edge", ["order-mails"], port, admin_port)
    service, gateway = tmp_path / "order-mails", tmp_path / "edge"

    with pytest.raises(HeadgateError, match="there already"):
        new_service("order-mails", tmp_path)
    started: list[subprocess.Popen[bytes]] = []
    log = (tmp_path / "log").open("wb")

    def start(*words: str, cwd: Path, **more: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", *words],
            cwd=cwd,
            env=environment(**more),
            stdout=log,
            stderr=log,
        )
        started.append(process)
        return process

    try:
        start("headgate", "run", cwd=gateway)
        # Meanwhile:
        assert headgate("check", "--strict", cwd=gateway).stdout.endswith("good\n")

        tests = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"],
            cwd=service,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=LONG_S,
        )
        assert re.search(r"\b5 passed", tests.stdout), tests.stdout + tests.stderr
        url = f"http://127.0.0.1:{port}/order-mails/hello/Ada"
        until(url, 503)  # it serves, and nobody has registered yet
        mails = start("order_mails", cwd=service, HEADGATE_FILE=str(gateway / "headgate.yaml"))
        assert until(url) == '{"message":"Hello, Ada!"}'
        assert answer(f"http://127.0.0.1:{port}/order-mails/hello/nobody")[0] == 404
        assert answer(f"http://127.0.0.1:{service_port}/health/ready")[0] == 200
        mails.send_signal(signal.SIGTERM)
        assert mails.wait(LONG_S) in {0, -signal.SIGTERM}
        assert until(url, 503)
    finally:
        for process in started:
            process.terminate()
        for process in started:
            try:
                process.wait(LONG_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        log.close()
    lines = (tmp_path / "log").read_text()
    assert "Traceback" not in lines, lines


@pytest.mark.integration
def test_the_program_refuses_in_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "headgate", "new", "service", "json"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=LONG_S,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "hide the module json" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_gateway_of_one_port_for_both_is_refused(tmp_path):
    with pytest.raises(HeadgateError, match="8080"):
        new_gateway(tmp_path / "edge", ["a"], 8080, 8080)
