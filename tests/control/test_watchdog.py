"""Workers whose loop is held: ended, with their stacks in the log, and succeeded."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.control.launch import DEFAULT_WORKER
from headgate.control.watchdog import LATE, Watch, is_traced
from tests.control.running import Gateway, wait_until

# -- the pure part


def test_who_answers_is_asked_again_and_never_overdue():
    watch = Watch()
    for turn in range(100):
        assert watch.turn(turn * 5.0, 5.0, [1, 2]) == [1, 2]
        watch.answered(1)
        watch.answered(2)
    assert watch.overdue(30.0) == []


def test_who_is_silent_is_asked_once_and_is_overdue_after_the_limit():
    watch = Watch()
    assert watch.turn(0.0, 5.0, [1, 2]) == [1, 2]
    for turn in range(1, 6):
        assert watch.turn(turn * 5.0, 5.0, [1, 2]) == ([2] if turn > 1 else [])
        watch.answered(2)
        assert watch.overdue(30.0) == []
    watch.turn(30.0, 5.0, [1, 2])
    assert watch.overdue(30.0) == [1]


def test_the_longest_silence_comes_first():
    watch = Watch()
    watch.turn(0.0, 5.0, [3])
    watch.turn(5.0, 5.0, [3, 1])
    watch.turn(10.0, 5.0, [3, 1])
    assert watch.overdue(5.0) == [3, 1]


def test_time_that_passed_while_nobody_looked_does_not_count():
    watch = Watch()
    watch.turn(0.0, 5.0, [1])
    watch.turn(8 * 3600.0, 5.0, [1])  # the lid was closed over night
    assert watch.overdue(5.0 * LATE + 0.1) == []


def test_a_clock_that_goes_back_counts_as_nothing():
    watch = Watch()
    watch.turn(100.0, 5.0, [1])
    watch.turn(0.0, 5.0, [1])
    assert watch.overdue(0.1) == []


def test_who_was_not_judged_for_a_turn_begins_anew():
    watch = Watch()
    watch.turn(0.0, 5.0, [1])
    watch.turn(5.0, 5.0, [1])
    watch.turn(10.0, 5.0, [])  # it takes a new configuration
    assert watch.turn(15.0, 5.0, [1]) == [1]
    assert watch.overdue(0.1) == []


@given(st.lists(st.floats(0.0, 1e6), min_size=1, max_size=20), st.floats(0.1, 10.0))
def test_a_silence_is_never_more_than_the_turns_that_were_taken(gaps, every_s):
    watch = Watch()
    now = 0.0
    watch.turn(now, every_s, [1])
    for gap in gaps:
        now += gap
        watch.turn(now, every_s, [1])
    assert watch.overdue(len(gaps) * LATE * every_s * 1.001 + 1e-6) == []


# -- processes

HANG = """
import time
from headgate.gateway.filters import Filter


class Hang(Filter):
    def on_request(self, request):
        if request.path == "/hang":
            hang_here_for_the_test(self)
        elif request.path == "/busy":
            time.sleep(0.7)


def hang_here_for_the_test(self):
    time.sleep(60)
"""


def ask(gateway: Gateway, path: str = "/", timeout_s: float = 15.0) -> bytes:
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=timeout_s) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n".encode())
        got = b""
        while data := sock.recv(4096):
            got += data
        return got


def hang(gateway: Gateway) -> threading.Thread:
    def run() -> None:
        with contextlib.suppress(OSError):
            ask(gateway, "/hang", 30.0)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


@pytest.fixture
def hanging(stopped: Gateway):
    """A gateway of real workers, with a plugin that may hold them."""
    stopped.worker_class = DEFAULT_WORKER
    (stopped.folder / "hang_filters.py").write_text(HANG)

    def start(**more):
        stopped.write(plugins=[{"use": "hang_filters:Hang"}], access_log={"format": "off"}, **more)
        stopped.start()
        return stopped

    return start


@pytest.mark.integration
def test_a_worker_that_a_plugin_holds_is_shown_ended_and_succeeded(hanging):
    gateway = hanging(watchdog="1s")
    before = gateway.worker_pids()
    thread = hang(gateway)
    line = gateway.wait_for("has not answered for 1 s and is ended; its stacks follow")
    victim = next(pid for pid in before if f"pid {pid}" in line)
    gateway.wait_for("in hang_here_for_the_test")
    gateway.wait_for("did not answer for 1 s and was ended")
    wait_until(lambda: len(gateway.worker_pids()) == 2 and victim not in gateway.worker_pids())
    (other,) = set(before) - {victim}
    assert other in gateway.worker_pids()
    assert all(ask(gateway).endswith(b"one") for _ in range(20))
    (row,) = [row for row in gateway.workers() if row["crashes"]]
    assert "did not answer for 1 s" in row["last_end"]
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.integration
def test_all_of_them_are_ended_one_after_the_other(hanging):
    gateway = hanging(watchdog="1s")
    before = set(gateway.worker_pids())
    held: list[threading.Thread] = []

    def is_over() -> bool:
        # The kernel chooses whose turn it is: hold one until both have been.
        if len(held) < 8:
            held.append(hang(gateway))
        return not before & set(gateway.worker_pids())

    wait_until(is_over, 30)
    wait_until(lambda: len(gateway.worker_pids()) == 2, 30)
    said = [line for line in gateway.log if "its stacks follow" in line]
    assert len(said) >= 2
    for first, second in zip(said, said[1:], strict=False):
        between = gateway.log[gateway.log.index(first) : gateway.log.index(second)]
        assert any("was ended" in line for line in between)


@pytest.mark.integration
def test_a_worker_that_is_only_busy_is_left_alone(hanging):
    gateway = hanging(watchdog="3s")  # two of the requests may come to one worker at once
    before = gateway.worker_pids()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(ask, gateway, "/busy") for _ in range(6)]
        assert all(job.result().endswith(b"one") for job in jobs)
    assert gateway.worker_pids() == before
    assert "stacks" not in gateway.said


@pytest.mark.integration
@pytest.mark.parametrize("said", ["off", 0, False], ids=["off", "zero", "false"])
def test_it_can_be_switched_off(gateway: Gateway, said):
    gateway.write(watchdog=said)
    assert gateway.command("reload").returncode == 0
    pid = gateway.worker_pids()[0]
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(2.5)
        assert "stacks" not in gateway.said
        assert Path(f"/proc/{pid}").exists()
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.integration
def test_a_stopped_worker_is_no_use_either(gateway: Gateway):
    gateway.write(watchdog="1s")
    assert gateway.command("reload").returncode == 0
    pid = gateway.worker_pids()[0]
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: pid not in gateway.worker_pids() and len(gateway.worker_pids()) == 2)
    assert gateway.get().body == "one"


@pytest.mark.integration
def test_a_family_that_was_frozen_goes_on_as_if_nothing_had_been(gateway: Gateway):
    gateway.write(watchdog="2s")
    assert gateway.command("reload").returncode == 0
    before = gateway.worker_pids()
    family = [gateway.pid, *gateway.children()]
    for _ in range(2):
        for pid in family:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(3.0)
        os.kill(gateway.pid, signal.SIGCONT)  # the worst order: who judges wakes first
        time.sleep(0.8)
        for pid in family:
            os.kill(pid, signal.SIGCONT)
        time.sleep(0.5)
    assert gateway.worker_pids() == before
    assert "stacks" not in gateway.said


@pytest.mark.integration
def test_a_worker_under_a_debugger_is_left_alone(gateway: Gateway):
    import ctypes

    gateway.write(watchdog="1s")
    assert gateway.command("reload").returncode == 0
    pid = gateway.worker_pids()[0]
    libc = ctypes.CDLL(None, use_errno=True)
    attach, detach = 16, 17
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    libc.ptrace.restype = ctypes.c_long
    if libc.ptrace(attach, pid, None, None) != 0:
        pytest.fail(f"a debugger may not attach here: {os.strerror(ctypes.get_errno())}")
    try:
        os.waitpid(pid, 0x40000000)  # __WALL: it is not our child, and has stopped for us
        assert is_traced(pid)
        time.sleep(2.5)
        assert "stacks" not in gateway.said
    finally:
        libc.ptrace(detach, pid, None, None)
    wait_until(lambda: pid in gateway.worker_pids())
    assert not is_traced(pid)
    assert gateway.get().body == "one"


@pytest.mark.integration
def test_the_wish_for_stacks_harms_nobody(gateway: Gateway):
    before = gateway.worker_pids()
    os.kill(before[0], signal.SIGUSR2)
    gateway.wait_for("most recent call first")
    assert gateway.worker_pids() == before
    assert gateway.get().body == "one"
