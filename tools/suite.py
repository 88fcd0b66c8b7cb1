"""Run the checks one after the other and say at the end what became of each.

    .venv/bin/python tools/suite.py check     format, lint, types, quick tests
    .venv/bin/python tools/suite.py test      these, every test, docs drift, the wheel

A failed step does not stop the others: whoever waits for the tests wants to know all of it. The
last line counts tests and steps together: "812 passed, 0 failed".

Of twenty thousand tests some start servers, kill them and wait, on a machine that may stand still
for seconds. So when no more than FLAKY_MAX tests failed, these run once more, alone. One that
passes then does not fail the run, but it is named at the end as FLAKY: it is a test to mend, as one
that fails is. A test that is broken fails twice.

A test that hangs ends its worker after a while, and what that worker had forked may live on with
its end of the pipe to pytest, which then waits for ever at 99 percent. So while a step runs its
dead children are looked at: when one stays unburied, those that share a pipe with pytest and are no
child of a living worker are ended, and named. And when a step is over, so is all that it has
started (told by a mark in the environment), or whoever reads our output would wait for its end.

Compiled modules are kept, whatever the shell says: many shells of containers forbid it, and then
every process of every test compiles a thousand files anew.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable
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
LOOK_S = 5.0
"""How often a step that runs is looked at: so long a dead child may wait to be noticed."""
GRACE_S = 3.0
"""How long what a step has started may take to end after it."""
MARK = "HEADGATE_SUITE_STEP"

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
    code = carry_out(step, STEPS[step])
    took_s = time.monotonic() - start
    if not JUNIT.exists():
        return Outcome(step, int(code == 0), int(code != 0), 0, took_s)
    outcome = counted(step, code, took_s)
    names = failures()
    # What belongs to no module is no test: a process that could not collect them, for one.
    are_tests = all(not name.startswith("::") for name in names)
    if code == TESTS_FAILED and outcome.failed <= FLAKY_MAX and are_tests:
        return once_more(outcome, names, start)
    return outcome


def once_more(outcome: Outcome, names: tuple[str, ...], start: float) -> Outcome:
    """Run what failed alone: a test that passes then is flaky, and not broken."""
    print(f"\n==== {outcome.step}: {outcome.failed} failed; these once more, alone", flush=True)
    code = carry_out(outcome.step, AGAIN)
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
            found.append(f"{case.get('classname') or ''}::{case.get('name')}")
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


# -- what steps leave behind ---------------------------------------------------------------------


@dataclass(frozen=True)
class Process:
    """A line of `/proc/PID/stat`, as far as it matters here."""

    pid: int
    parent: int
    is_dead: bool
    """It has ended and nobody has asked how."""

    def __str__(self) -> str:
        try:
            words = Path(f"/proc/{self.pid}/cmdline").read_bytes().replace(b"\0", b" ")
        except OSError:
            words = b""
        return f"{self.pid} {words.decode(errors='replace').strip()[:100]}".rstrip()


def carry_out(step: str, command: tuple[str, ...]) -> int:
    """Run a step to its end, and end what it leaves behind."""
    mark = uuid.uuid4().hex
    # A step may run a suite itself: what that starts is ours as well.
    env = {**os.environ, MARK: f"{os.environ.get(MARK, '')} {mark}".strip()}
    unburied: set[int] = set()
    code: int | None = None
    try:
        with subprocess.Popen([sys.executable, *command], cwd=ROOT, env=env) as process:
            while code is None:
                try:
                    code = process.wait(LOOK_S)
                except subprocess.TimeoutExpired:
                    unburied = look_after(step, process.pid, unburied)
    finally:
        clear_up(step, mark)
    return code


def clear_up(step: str, mark: str) -> None:
    """End what a step that is over has started, if it does not end by itself."""
    left = marked(mark)
    deadline = time.monotonic() + GRACE_S
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        left = marked(mark)
    end(left, f"==== {step}: is over, and what it has started was not; ended:")


def look_after(step: str, runner: int, before: set[int]) -> set[int]:
    """Free a runner that waits for children which are dead since the last look.

    Return who is dead and unburied now.
    """
    processes = running()
    dead = {one.pid for one in processes.values() if one.parent == runner and one.is_dead}
    waited_for = dead & before
    if waited_for:
        pipes = pipes_of(runner)
        holders = [
            one
            for one in processes.values()
            if one.pid != os.getpid()
            and not is_of(one.pid, runner, processes)
            and not pipes.isdisjoint(pipes_of(one.pid))
        ]
        whose = ", ".join(map(str, sorted(waited_for)))
        end(
            holders,
            f"==== {step}: worker {whose} has died, and what it had forked has its pipe; ended:",
        )
    return dead


def running() -> dict[int, Process]:
    """All processes there are; none where there is no `/proc`."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = stat.read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        pid = int(stat.parent.name)
        found[pid] = Process(pid, int(words[1]), words[0] == "Z")
    return found


def is_of(pid: int, ancestor: int, processes: dict[int, Process]) -> bool:
    """Whether a process, or one above it with none but living ones between, is `ancestor`."""
    while pid != ancestor and pid in processes and not processes[pid].is_dead:
        pid = processes[pid].parent
    return pid == ancestor


def pipes_of(pid: int) -> set[str]:
    """The pipes that a process has open; those of standard error are everybody's."""
    found = set()
    try:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            if link.name not in ("0", "1", "2"):
                found.add(str(link.readlink()))
    except OSError:
        pass  # it has ended, or is not ours
    return {place for place in found if place.startswith("pipe:")}


def marked(mark: str) -> list[Process]:
    """Who has been started with this mark, by whomever."""
    found = []
    for one in running().values():
        try:
            environment = Path(f"/proc/{one.pid}/environ").read_bytes()
        except OSError:
            continue
        if mark.encode() in environment and not one.is_dead:
            found.append(one)
    return found


def end(processes: Iterable[Process], why: str) -> None:
    for at, one in enumerate(processes):
        if at == 0:
            print(f"\n{why}", flush=True)
        print(f"    {one}", flush=True)
        try:
            os.kill(one.pid, signal.SIGKILL)
        except OSError:
            pass


if __name__ == "__main__":
    main()
