"""Processes that are copies of a template: what they share, and what they must not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from headgate.control import template
from headgate.control.template import fork_template
from tests.control.running import ENV, Gateway, is_alive, wait_until

pytestmark = pytest.mark.integration

DICE = """
import os, random, secrets, ssl, sys, uuid
from pathlib import Path
from tests.control.echo_worker import EchoWorker

HERE = Path(__file__).parent


class DiceWorker(EchoWorker):
    def __init__(self, index, report):
        super().__init__(index, report)
        if (HERE / "die").exists():
            is_fresh = b"worker_main" in Path("/proc/self/cmdline").read_bytes()
            with (HERE / "died").open("a") as died:
                print("fresh" if is_fresh else "copy", file=died, flush=True)
            os._exit(3)
        drawn = [random.random(), uuid.uuid4(), secrets.token_hex(8), ssl.RAND_bytes(8).hex()]
        self.dice = "/".join(map(str, drawn))

    async def apply(self, document, sockets, generation):
        await super().apply(document, sockets, generation)
        if self.body == "dice":
            self.body = self.dice
        elif self.body == "path":
            self.body = ":".join(sys.path)
"""


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that came from a fresh interpreter, as a user's does."""
    gateway = Gateway(tmp_path_factory.mktemp("family"))
    gateway.observes = False
    (gateway.folder / "dice.py").write_text(DICE)
    gateway.worker_class = "dice:DiceWorker"
    gateway.write("dice")
    try:
        gateway.start(prefix=("env",))
        yield gateway
    finally:
        gateway.stop()


def name_of(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def template_of(gateway: Gateway) -> int:
    return next((pid for pid in gateway.children() if name_of(pid) == "headgate-t"), 0)


def is_copy(pid: int) -> bool:
    """A fresh interpreter of a worker says so in its words."""
    return b"worker_main" not in Path(f"/proc/{pid}/cmdline").read_bytes()


def open_files(pid: int) -> dict[int, str]:
    folder = Path(f"/proc/{pid}/fd")
    return {int(entry.name): str(entry.readlink()) for entry in folder.iterdir()}


def wait_imported(gateway: Gateway) -> None:
    """Until there is a template that has imported everything, or is about to have."""

    def is_there() -> bool:
        pid = template_of(gateway)
        return pid != 0 and "/uvloop/" in Path(f"/proc/{pid}/maps").read_text()  # its last one

    wait_until(is_there, 60)


def kill_worker(gateway: Gateway, seat: int = 0) -> int:
    """End a worker; the pid of the one after it."""
    victim: int = gateway.workers()[seat]["pid"]
    os.kill(victim, signal.SIGKILL)

    def successor() -> int:
        row = gateway.workers()[seat : seat + 1]
        is_there = row and row[0]["state"] == "ready" and row[0]["pid"] != victim
        return int(row[0]["pid"]) if is_there else 0

    found: int = wait_until(successor)
    return found


def test_workers_are_copies_and_children_of_the_supervisor(family: Gateway):
    pids = family.worker_pids()
    assert all(is_copy(pid) for pid in pids)
    assert {*pids, family.control_pid(), template_of(family)} == set(family.children())
    assert sorted(map(name_of, pids)) == ["headgate-w0", "headgate-w1"]
    groups = [os.getpgid(pid) for pid in family.children()]
    assert groups == family.children()  # Ctrl-C in a terminal is the supervisor's alone


def test_copies_draw_numbers_of_their_own(family: Gateway):
    drawn: set[str] = set()

    def heard_both() -> bool:
        drawn.add(family.get().body)
        return len(drawn) == 2

    wait_until(heard_both)
    first, second = (body.split("/") for body in drawn)
    assert len(first) == 4
    assert not set(first) & set(second)


def test_a_template_holds_nothing_but_its_output_and_the_supervisor(family: Gateway):
    held = open_files(template_of(family))
    assert held[0] == "/dev/null"
    assert held.keys() - {0, 1, 2} == {fd for fd, what in held.items() if "socket:" in what} - {
        1,
        2,
    }
    assert len(held) == 4
    assert len(os.listdir(f"/proc/{template_of(family)}/task")) == 1
    # Nor does a copy hold the end by which templates are asked.
    asked = {what for fd, what in held.items() if fd > 2}
    for pid in family.worker_pids():
        assert not asked & set(open_files(pid).values())


def test_a_copy_may_open_as_many_files_as_the_supervisor(family: Gateway):
    def limit(pid: int) -> str:
        lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
        return next(line for line in lines if line.startswith("Max open files"))

    assert {limit(pid) for pid in family.children()} == {limit(family.pid)}


def test_the_folder_of_the_file_is_looked_in_last_and_that_of_the_call_never(family: Gateway):
    family.write("path")
    assert family.command("reload").returncode == 0
    *before, last = family.get().body.split(":")
    assert last == str(family.folder)
    assert "" not in before
    assert str(family.folder) not in before


def test_without_a_template_workers_come_all_the_same_and_another_follows(family: Gateway):
    first = template_of(family)
    os.kill(first, signal.SIGKILL)
    family.wait_for(f"the template of processes (pid {first}) killed by SIGKILL; another in 2 s")
    assert not is_copy(kill_worker(family))
    second = wait_until(lambda: template_of(family))
    assert second != first
    # It is asked as soon as it has imported everything, and nobody waits for that.
    wait_imported(family)
    wait_until(lambda: is_copy(kill_worker(family)), 60)
    assert family.health()["workers_ready"] == 2


def test_a_template_that_does_not_answer_is_replaced(family: Gateway):
    frozen = wait_until(lambda: template_of(family))
    os.kill(frozen, signal.SIGSTOP)
    assert not is_copy(kill_worker(family))
    assert f"the template of processes (pid {frozen}) does not answer" in family.said
    wait_until(lambda: not is_alive(frozen))
    wait_until(lambda: template_of(family) not in {0, frozen})


def test_who_never_became_ready_is_succeeded_by_a_fresh_interpreter(family: Gateway):
    """What it died of may have been in the head of the template."""
    wait_imported(family)
    wait_until(lambda: is_copy(kill_worker(family, 1)), 60)
    (family.folder / "die").touch()
    died = family.folder / "died"
    os.kill(family.workers()[1]["pid"], signal.SIGKILL)
    wait_until(lambda: died.exists() and len(died.read_text().split()) >= 2)
    (family.folder / "die").unlink()
    wait_until(lambda: len(family.worker_pids()) == 2)
    kinds = died.read_text().split()
    assert kinds[0] == "copy"
    assert set(kinds[1:]) == {"fresh"}


# -- without a gateway


def test_a_process_with_threads_leaves_no_template_behind():
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    try:
        assert fork_template() is None
    finally:
        over.set()
        thread.join()


def test_what_was_imported_from_where_the_command_was_called_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert not template._came_from(str(tmp_path))
    module = ModuleType("of_the_folder")
    module.__file__ = str(tmp_path / "of_the_folder.py")
    monkeypatch.setitem(sys.modules, "of_the_folder", module)
    assert template._came_from(str(tmp_path))
    package = ModuleType("package_of_the_folder")
    package.__file__ = str(tmp_path / "deep" / "package_of_the_folder" / "__init__.py")
    monkeypatch.setitem(sys.modules, "package_of_the_folder", package)
    assert template._came_from(str(tmp_path / "deep"))
    assert not template._came_from(str(tmp_path / "deep" / "package_of_the_folder"))


ENDS = """
import os, sys
from headgate.control.template import run_to_the_end

for work in (
    lambda: 0,
    lambda: 3,
    lambda: sys.exit(4),
    lambda: sys.exit(),
    lambda: sys.exit("some words"),
    lambda: 1 // 0,
):
    pid = os.fork()
    if pid == 0:
        import atexit
        atexit.register(print, "bye")
        run_to_the_end(work)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


def test_a_copy_ends_as_an_interpreter_does():
    done = subprocess.run(
        [sys.executable, "-c", ENDS], capture_output=True, text=True, env=ENV, timeout=60
    )
    assert done.stdout.split() == [
        "bye",
        "0",
        "bye",
        "3",
        "bye",
        "4",
        "bye",
        "0",
        "bye",
        "1",
        "bye",
        "70",
    ]
    assert "some words" in done.stderr
    assert done.stderr.count("Traceback") == 1
    assert "ZeroDivisionError" in done.stderr
