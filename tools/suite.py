"""Run the checks one after the other and say at the end what became of each.

    .venv/bin/python tools/suite.py check     format, lint, types, quick tests
    .venv/bin/python tools/suite.py test      these, every test, docs drift, the wheel

A failed step does not stop the others: whoever waits for the tests wants to know all of it. The
last line counts tests and steps together: "812 passed, 0 failed".
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"
JUNIT = CACHE / "junit.xml"

PYTEST = ("-m", "pytest", "-n", "auto", "--dist", "worksteal", "-q", f"--junitxml={JUNIT}")

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

    def __str__(self) -> str:
        word = "FAILED" if self.failed else "ok"
        counts = f"{self.passed} passed, {self.failed} failed" if "tests" in self.step else ""
        if self.skipped:
            counts += f", {self.skipped} SKIPPED"
        return f"{self.step:<12} {word:<7} {self.took_s:6.1f} s  {counts}".rstrip()


def main() -> None:
    suite = sys.argv[1] if len(sys.argv) == 2 else ""
    if suite not in SUITES:
        raise SystemExit(f"usage: suite.py {'|'.join(SUITES)}")
    CACHE.mkdir(exist_ok=True)
    outcomes = [run(step) for step in SUITES[suite]]
    print(f"\n==== make {suite}")
    for outcome in outcomes:
        print(outcome)
    failed = sum(one.failed for one in outcomes)
    print(f"{sum(one.passed for one in outcomes)} passed, {failed} failed", flush=True)
    raise SystemExit(1 if failed else 0)


def run(step: str) -> Outcome:
    print(f"\n==== {step}", flush=True)
    JUNIT.unlink(missing_ok=True)
    start = time.monotonic()
    code = subprocess.run([sys.executable, *STEPS[step]], cwd=ROOT, check=False).returncode
    took_s = time.monotonic() - start
    if JUNIT.exists():
        return counted(step, code, took_s)
    return Outcome(step, int(code == 0), int(code != 0), 0, took_s)


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
