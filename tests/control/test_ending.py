"""Start and end: the lock, draining, upgrades in place, life as PID 1."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.control.running import Gateway, Load, is_alive, wait_until

pytestmark = pytest.mark.integration


def test_a_second_run_of_one_state_directory_names_the_first(gateway: Gateway):
    second = Gateway(gateway.folder)
    try:
        second.start(wait=False)
        assert second.wait_end() == 1
        assert f"process {gateway.pid} already runs on the state directory" in second.said
        assert "Traceback" not in second.said
    finally:
        second.stop()
    assert gateway.get().body == "one"


def test_an_address_in_use_is_named_with_its_owner(stopped: Gateway):
    with socket.create_server(("127.0.0.1", stopped.port), reuse_port=True):
        stopped.start(wait=False)
        assert stopped.wait_end() == 1
    assert f"cannot listen on 127.0.0.1:{stopped.port}" in stopped.said
    assert f"is used by process {os.getpid()}" in stopped.said
    assert "Traceback" not in stopped.said


def test_a_document_that_no_worker_can_start_ends_the_run(stopped: Gateway):
    stopped.write("REFUSE")
    stopped.start(wait=False)
    assert stopped.wait_end() == 1
    assert "this worker does not like the document" in stopped.said
    assert stopped.refuses()


def test_a_worker_that_dies_at_the_first_start_ends_the_run(stopped: Gateway):
    stopped.write("EXIT")
    stopped.start(wait=False)
    assert stopped.wait_end() == 1
    assert "did not start: exit status 3" in stopped.said


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_drain_finishes_what_is_in_flight(gateway: Gateway, signum: int):
    family = gateway.children()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        slow = pool.submit(gateway.get, "/slow/0.8")
        time.sleep(0.2)
        gateway.signal(signum)
        wait_until(gateway.refuses)
        assert not slow.done()
        assert slow.result().body == "one"
    assert gateway.wait_end() == 0
    assert not any(is_alive(pid) for pid in family)
    assert not gateway.state.socket_path.exists()
    assert gateway.state.running_pid() is None


def test_a_drain_ends_at_its_deadline(stopped: Gateway):
    stopped.write(drain="300ms")
    stopped.start()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        slow = pool.submit(stopped.get, "/slow/30")
        time.sleep(0.2)
        stopped.signal(signal.SIGTERM)
        assert stopped.wait_end() == 0
        assert slow.exception() is not None


def test_a_second_signal_ends_at_once(gateway: Gateway):
    family = gateway.children()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        slow = pool.submit(gateway.get, "/slow/30")
        time.sleep(0.2)
        gateway.signal(signal.SIGTERM)
        gateway.wait_for("draining on SIGTERM")
        gateway.signal(signal.SIGTERM)
        assert gateway.wait_end() == 128 + signal.SIGTERM
        assert slow.exception() is not None
    assert not any(is_alive(pid) for pid in family)


def test_the_command_drains_and_waits(gateway: Gateway):
    done = gateway.command("drain")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("drained in ")
    assert gateway.wait_end() == 0


def test_the_command_drains_also_without_control(gateway: Gateway):
    os.kill(gateway.control_pid(), signal.SIGSTOP)
    control = gateway.control_pid()
    try:
        done = gateway.command("drain")
        assert done.returncode == 0, done.stderr
        assert gateway.wait_end() == 0
    finally:
        if is_alive(control):
            os.kill(control, signal.SIGKILL)


def test_health_says_that_it_drains(gateway: Gateway):
    with concurrent.futures.ThreadPoolExecutor() as pool:
        slow = pool.submit(gateway.get, "/slow/1")
        time.sleep(0.2)
        gateway.signal(signal.SIGTERM)
        health = wait_until(lambda: gateway.health().get("status") == "down" and gateway.health())
        assert "draining" in health["reasons"][0]
        assert slow.result().body == "one"
    assert gateway.wait_end() == 0


def test_an_upgrade_replaces_every_process_but_the_supervisors_pid(gateway: Gateway):
    before = set(gateway.children())
    with Load(gateway) as load:
        done = gateway.command("upgrade")
        load.wait_for_more()
    assert done.returncode == 0, done.stdout + done.stderr
    assert load.failures == []
    # Control, two workers and their template.
    assert not before & set(gateway.children())
    assert len(gateway.children()) == len(before) == 4
    assert gateway.health()["incarnation"] == 1
    assert len({answer.pid for answer in load.answers}) == 4
    # The successor can do all that the first could.
    gateway.write("two", workers=3)
    assert gateway.command("reload").returncode == 0
    assert len(gateway.worker_pids()) == 3
    gateway.signal(signal.SIGUSR2)
    wait_until(lambda: gateway.health().get("incarnation") == 2)
    assert gateway.get().body == "two"
    assert gateway.command("drain").returncode == 0
    assert gateway.wait_end() == 0


def test_an_upgrade_lets_long_requests_finish(gateway: Gateway):
    with concurrent.futures.ThreadPoolExecutor() as pool:
        slow = [pool.submit(gateway.get, "/slow/3") for _ in range(6)]
        time.sleep(0.2)
        done = gateway.command("upgrade")
        assert done.returncode == 0, done.stderr
        assert {job.result().body for job in slow} == {"one"}
    wait_until(lambda: len(gateway.children()) == 4)


def test_an_upgrade_to_code_that_does_not_start_is_given_up(stopped: Gateway):
    # A copy of the worker beside the configuration, where plugins may lie too.
    code = stopped.folder / "worker_of_ours.py"
    text = Path(__file__).with_name("echo_worker.py").read_text()
    code.write_text(text)
    stopped.worker_class = "worker_of_ours:EchoWorker"
    stopped.start()
    pids = stopped.worker_pids()
    code.write_text(text + "\nraise ImportError('half an installation')\n")
    done = stopped.command("upgrade")
    assert done.returncode == 1
    assert "half an installation" in done.stderr
    assert stopped.worker_pids() == pids
    assert stopped.get().body == "one"
    code.write_text(text)
    assert stopped.command("upgrade").returncode == 0
    assert stopped.get().body == "one"


def test_sigusr1_reopens_logs_in_every_worker(gateway: Gateway):
    gateway.signal(signal.SIGUSR1)
    pids = set(gateway.worker_pids())
    wait_until(
        lambda: {a.pid for a in (gateway.get() for _ in range(20)) if a.reopened == 1} == pids
    )


def can_be_pid_1() -> bool:
    """Whether this machine lets us make a PID namespace; containers often may not."""
    probe = ["unshare", "--pid", "--fork", "--mount-proc", "true"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


def zombies_of(pid: int) -> list[str]:
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        stat = Path(f"/proc/{child}/stat")
        if stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z":
            found.append(child)
    return found


def test_it_reaps_children_that_it_did_not_start(stopped: Gateway):
    """As an init must, and as happens behind a shell that ends in `exec headgate run`."""
    stopped.start(prefix=("sh", "-c", 'sleep 4 & exec "$@"', "sh"))
    assert stopped.process is not None
    pid = stopped.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children")

    def names() -> list[str]:
        found = [Path(f"/proc/{child}/comm") for child in children.read_text().split()]
        return [comm.read_text().strip() for comm in found if comm.exists()]

    wait_until(lambda: "sleep" not in names())
    wait_until(lambda: not zombies_of(pid))
    assert stopped.get().body == "one"


def test_as_pid_1_it_reaps_orphans_and_drains(stopped: Gateway):
    """Where no PID namespace can be made, what is left is that it drains as the only child."""
    is_pid_1 = can_be_pid_1()
    if is_pid_1:
        stopped.start(
            prefix=("unshare", "--pid", "--fork", "--mount-proc", "--kill-child"), wait=False
        )
        stopped.wait_for("ready: ")
        inner = int(Path(f"/proc/{stopped.pid}/task/{stopped.pid}/children").read_text())
        status = Path(f"/proc/{inner}/status").read_text()
        assert "NSpid:" in status
        assert status.split("NSpid:")[1].split("\n")[0].split()[-1] == "1"
        # An orphan: its parent ends at once, and it a moment later, as a child of PID 1.
        subprocess.run(
            ["nsenter", "-t", str(inner), "-p", "-m", "sh", "-c", "(sleep 0.3 &) ; exit 0"],
            check=True,
        )
        time.sleep(0.5)
        wait_until(lambda: not zombies_of(inner))
    else:
        stopped.start(wait=False)
        stopped.wait_for("ready: ")
        inner = stopped.pid
    assert stopped.get().body == "one"
    os.kill(inner, signal.SIGTERM)
    assert stopped.wait_end() == 0
    assert stopped.refuses()
