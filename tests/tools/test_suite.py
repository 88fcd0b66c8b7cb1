"""A test that fails once and passes alone is named, and one that is broken fails the run."""

from __future__ import annotations

import importlib.util
import sys
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


def test_many_failures_are_no_bad_luck(suite: ModuleType, tmp_path: Path):
    for number in range(suite.FLAKY_MAX + 1):
        (tmp_path / f"test_{number}.py").write_text(
            FLAKY.replace('"seen"', f'"seen{number}"').replace("def test_b", f"def test_b{number}")
        )
    outcome = suite.run("tests")
    assert outcome.failed == suite.FLAKY_MAX + 1
