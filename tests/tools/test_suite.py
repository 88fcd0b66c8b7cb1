"""A test that fails once and passes alone is named, and one that is broken fails the run."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.integration

FLAKY = """
from pathlib import Path
SEEN = Path(__file__).with_name("seen")

def test_a():
    was_seen = SEEN.exists()
    SEEN.touch()
    assert was_seen

def test_b():
    pass
"""
BROKEN = "def test_a():\n    assert False\n"
LEAVING = """
import os, time
from pathlib import Path

def test_a():
    child = os.fork()
    if not child:
        time.sleep(600)
    Path(__file__).with_name("pids").open("a").write(f"{child}\\n")
    {end}

def test_b():
    pass
"""


@pytest.fixture
def suite(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("suite", repository / "tools" / "suite.py")
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "suite", made)
    spec.loader.exec_module(made)
    junit = tmp_path / "junit.xml"
    # A folder of its own: this repository's settings and its list of failed tests are not theirs.
    own = ("-m", "pytest", "-q", "-c", str(tmp_path / "none.ini"), str(tmp_path))
    (tmp_path / "none.ini").write_text("[pytest]\n")
    monkeypatch.setattr(made, "ROOT", tmp_path)
    monkeypatch.setattr(made, "JUNIT", junit)
    monkeypatch.setattr(made, "STEPS", {"tests": (*own, f"--junitxml={junit}")})
    monkeypatch.setattr(made, "AGAIN", (*own, *made.AGAIN[3:]))
    return made


def test_what_passes_alone_is_flaky_and_named(suite: ModuleType, tmp_path: Path):
    (tmp_path / "test_flaky.py").write_text(FLAKY)
    outcome = suite.run("tests")
    assert (outcome.passed, outcome.failed) == (2, 0)
    assert outcome.flaky == ("test_flaky::test_a",)
    assert "1 of them FLAKY" in str(outcome)


def test_what_fails_twice_fails_the_run(suite: ModuleType, tmp_path: Path):
    (tmp_path / "test_broken.py").write_text(BROKEN)
    outcome = suite.run("tests")
    assert (outcome.passed, outcome.failed, outcome.flaky) == (0, 1, ())


def test_a_process_that_could_not_collect_is_not_run_again(
    suite: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    report = (
        '<testsuites><testsuite tests="1" errors="1"><testcase classname="" name="gw0"><error/>'
    )
    report += "</testcase></testsuite></testsuites>"
    broken = f"open({str(suite.JUNIT)!r}, 'w').write({report!r}); raise SystemExit(1)"
    monkeypatch.setattr(suite, "STEPS", {"tests": ("-c", broken)})
    monkeypatch.setattr(suite, "AGAIN", ("-c", "pass"))
    outcome = suite.run("tests")
    assert (outcome.failed, outcome.flaky) == (1, ())


def test_many_failures_are_no_bad_luck(suite: ModuleType, tmp_path: Path):
    for number in range(suite.FLAKY_MAX + 1):
        (tmp_path / f"test_{number}.py").write_text(
            FLAKY.replace('"seen"', f'"seen{number}"').replace("def test_b", f"def test_b{number}")
        )
    outcome = suite.run("tests")
    assert outcome.failed == suite.FLAKY_MAX + 1


def children_of(tmp_path: Path) -> list[int]:
    return [int(line) for line in (tmp_path / "pids").read_text().split()]


def ends(pid: int) -> bool:
    """Whether it is dead within a while; who got it need not have asked yet."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


def test_a_worker_that_dies_and_leaves_children_does_not_stop_the_run(
    suite: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
):
    # As a test that hangs does, by pytest-timeout: the worker is gone, its fork has its pipe.
    (tmp_path / "test_leaving.py").write_text(LEAVING.replace("{end}", "os._exit(1)"))
    monkeypatch.setattr(suite, "LOOK_S", 0.3)
    monkeypatch.setattr(suite, "FLAKY_MAX", 0)
    monkeypatch.setitem(suite.STEPS, "tests", (*suite.STEPS["tests"], "-n", "1"))
    began = time.monotonic()
    outcome = suite.run("tests")
    assert time.monotonic() - began < 60
    assert (outcome.passed, outcome.failed) == (1, 1)
    assert "what it had forked has its pipe" in capfd.readouterr().out
    assert all(map(ends, children_of(tmp_path)))


def test_what_a_step_has_started_ends_with_it(
    suite: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
):
    # Also what has a session of its own, as servers of tests have.
    (tmp_path / "test_leaving.py").write_text(LEAVING.replace("{end}", "assert child"))
    text = (tmp_path / "test_leaving.py").read_text()
    (tmp_path / "test_leaving.py").write_text(
        text.replace("time.sleep(600)", "(os.setsid(), time.sleep(600))")
    )
    monkeypatch.setattr(suite, "GRACE_S", 0.2)
    outcome = suite.run("tests")
    assert (outcome.passed, outcome.failed) == (2, 0)
    out = capfd.readouterr().out
    (child,) = children_of(tmp_path)
    assert "tests: is over" in out and f"    {child} " in out
    assert ends(child)


def test_nobody_elses_processes_are_taken_for_leftovers(suite: ModuleType):
    processes = suite.running()
    assert suite.is_of(os.getpid(), os.getppid(), processes)
    assert not suite.is_of(os.getppid(), os.getpid(), processes)
    assert suite.marked("no such mark, in any environment at all") == []
