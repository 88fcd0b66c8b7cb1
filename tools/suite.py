"""Run the checks one after the other and say at the end what became of each.

    .venv/bin/python tools/suite.py check     format, lint, types, quick tests
    .venv/bin/python tools/suite.py test      these, every test, docs drift, the wheel

A failed step does not stop the others: whoever waits for the tests wants to know all of it. The
last line counts tests and steps together: "812 passed, 0 failed".

Of twenty thousand tests some start servers, kill them and wait, on a machine that may stand still
for seconds. So when no more than FLAKY_MAX tests failed, these run once more, alone. One that
passes then does not fail the run, but it is named at the end as FLAKY: it is a test to mend, as one
that fails is. A test that is broken fails twice.

Compiled modules are kept, whatever the shell says: many shells of containers forbid it, and then
every process of every test compiles a thousand files anew.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree as ET

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"
JUNIT = CACHE / "junit.xml"

# Half of the time is spent waiting, for servers that start and for leases that end.
PROCESSES = str((os.cpu_count() or 1) + 1)
PYTEST = ("-m", "pytest", "-n", PROCESSES, "--dist", "worksteal", "-q", f"--junitxml={JUNIT}")
AGAIN = ("-m", "pytest", "-q", "--last-failed", "--last-failed-no-failures=none")
FLAKY_MAX = 5
TESTS_FAILED = 1  # pytest's exit code; others mean that it could not run

STEPS: dict[str, tuple[str, ...]] = {
    "format": ("-m", "ruff", "format", "--check", "--quiet", "."),
    "lint": ("-m", "ruff", "check", "--output-format", "concise", "."),
    "types": ("-m", "mypy"),
    "docs": ("tools/docs.py", "--check"),
    "wheel": ("tools/smoke_wheel.py",),
    "quick tests": (*PYTEST, "-m", "not slow and not integration"),
    "tests": PYTEST,
}

SUITES: dict[str, tuple[str, ...]] = {
    "check": ("format", "lint", "types", "quick tests"),
    "test": ("format", "lint", "types", "docs", "wheel", "tests"),
}


@dataclass(frozen=True)
class Outcome:
    step: str
    passed: int
    failed: int
    skipped: int
    took_s: float
    flaky: tuple[str, ...] = ()
    """Tests that failed at first and passed alone."""

    def __str__(self) -> str:
        word = "FAILED" if self.failed else "ok"
        counts = f"{self.passed} passed, {self.failed} failed" if "tests" in self.step else ""
        if self.flaky:
            counts += f", {len(self.flaky)} of them FLAKY"
        if self.skipped:
            counts += f", {self.skipped} SKIPPED"
        return f"{self.step:<12} {word:<7} {self.took_s:6.1f} s  {counts}".rstrip()


def main() -> None:
    suite = sys.argv[1] if len(sys.argv) == 2 else ""
    if suite not in SUITES:
        raise SystemExit(f"usage: suite.py {'|'.join(SUITES)}")
    CACHE.mkdir(exist_ok=True)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    outcomes = [run(step) for step in SUITES[suite]]
    print(f"\n==== make {suite}")
    for outcome in outcomes:
        print(outcome)
    failed = sum(one.failed for one in outcomes)
    for name in (name for one in outcomes for name in one.flaky):
        print(f"FLAKY {name}: failed, and passed when run alone")
    print(f"{sum(one.passed for one in outcomes)} passed, {failed} failed", flush=True)
    raise SystemExit(1 if failed else 0)


def run(step: str) -> Outcome:
    print(f"\n==== {step}", flush=True)
    JUNIT.unlink(missing_ok=True)
    start = time.monotonic()
    code = subprocess.run([sys.executable, *STEPS[step]], cwd=ROOT, check=False).returncode
    took_s = time.monotonic() - start
    if not JUNIT.exists():
        return Outcome(step, int(code == 0), int(code != 0), 0, took_s)
    outcome = counted(step, code, took_s)
    if code == TESTS_FAILED and outcome.failed <= FLAKY_MAX:
        return once_more(outcome, start)
    return outcome


def once_more(outcome: Outcome, start: float) -> Outcome:
    """Run what failed alone: a test that passes then is flaky, and not broken."""
    names = failures()
    print(f"\n==== {outcome.step}: {outcome.failed} failed; these once more, alone", flush=True)
    code = subprocess.run([sys.executable, *AGAIN], cwd=ROOT, check=False).returncode
    took_s = time.monotonic() - start
    if code != 0:
        return replace(outcome, took_s=took_s)
    passed = outcome.passed + outcome.failed
    return replace(outcome, passed=passed, failed=0, took_s=took_s, flaky=names)


def failures() -> tuple[str, ...]:
    """The tests that failed, as the report names them."""
    found = []
    for case in ET.parse(JUNIT).getroot().iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            found.append(f"{case.get('classname')}::{case.get('name')}")
    return tuple(found)


def counted(step: str, code: int, took_s: float) -> Outcome:
    """What pytest counted; a run that broke off counts as one failure at least."""
    total = failed = skipped = 0
    for suite in ET.parse(JUNIT).getroot().iter("testsuite"):
        total += int(suite.get("tests", 0))
        failed += int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        skipped += int(suite.get("skipped", 0))
    passed = max(0, total - failed - skipped)
    return Outcome(step, passed, failed or int(code != 0), skipped, took_s)


if __name__ == "__main__":
    main()
