"""Processes that die: workers, control, the supervisor."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import signal
import time

import pytest

from tests.control.running import Gateway, Load, is_alive, wait_until

pytestmark = pytest.mark.integration


def test_a_killed_worker_is_replaced_and_only_its_own_requests_are_lost(gateway: Gateway):
    victim, other = gateway.worker_pids()
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        slow = [pool.submit(gateway.get, "/slow/0.5") for _ in range(20)]
        time.sleep(0.1)
        os.kill(victim, signal.SIGKILL)
        # Connections that the kernel hands to the dead worker's socket wait for its successor.
        answers = [gateway.get() for _ in range(20)]
        wait_until(lambda: len(gateway.worker_pids()) == 2)
        lost = [job for job in slow if job.exception() is not None]
        kept = [job.result().pid for job in slow if job.exception() is None]
    assert {answer.body for answer in answers} == {"one"}
    assert set(kept) <= {other}
    assert len(lost) + len(kept) == 20
    (row,) = [row for row in gateway.workers() if row["crashes"]]
    assert row["crashes"] == 1
    assert "killed by SIGKILL" in row["last_end"]


def test_requests_that_kill_workers_do_not_stop_the_others(gateway: Gateway):
    for _ in range(3):
        with contextlib.suppress(Exception):
            gateway.get("/die")
    wait_until(lambda: len(gateway.worker_pids()) == 2)
    assert gateway.get().body == "one"
    assert gateway.health()["status"] in {"ok", "degraded"}


def test_a_crash_loop_backs_off_and_is_reported(gateway: Gateway):
    for _ in range(5):
        pid = wait_until(
            lambda: next(
                (r["pid"] for r in gateway.workers() if r["index"] == 0 and r["pid"]), None
            )
        )
        os.kill(pid, signal.SIGKILL)
        gateway.wait_gone(pid)
    rows = wait_until(lambda: [r for r in gateway.workers() if r["index"] == 0 and r["is_looping"]])
    assert rows[0]["crashes"] == 5
    health = gateway.health()
    assert health["status"] == "degraded"
    assert any("worker 0" in reason and "SIGKILL" in reason for reason in health["reasons"])
    gateway.wait_for("next start in 0.8 s")
    assert gateway.get().body == "one"


def test_totals_survive_the_death_of_workers_and_of_control(gateway: Gateway):
    for _ in range(10):
        gateway.get()

    def total() -> int:
        found: int = gateway.admin.ask("GET", "/api/gateway/stats").content["requests"]
        return found

    assert total() == 10
    for pid in gateway.worker_pids():
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(gateway.worker_pids()) == 2)
    assert total() == 10
    gateway.get()
    assert total() == 11
    control = gateway.control_pid()
    os.kill(control, signal.SIGKILL)
    wait_until(lambda: gateway.control_pid() not in {0, control} and gateway.health())
    assert wait_until(lambda: total() == 11)


def test_workers_go_on_while_control_is_down_and_it_comes_back(gateway: Gateway):
    pids = set(gateway.worker_pids())
    control = gateway.control_pid()
    token = gateway.state.token()
    with Load(gateway) as load:
        os.kill(control, signal.SIGKILL)
        wait_until(lambda: gateway.control_pid() not in {0, control} and gateway.health())
        load.wait_for_more()
    assert load.failures == []
    assert set(wait_until(gateway.worker_pids)) == pids
    assert gateway.state.token() == token
    assert gateway.command("reload").returncode == 0


def test_nothing_outlives_a_supervisor_that_was_killed(gateway: Gateway):
    assert len(gateway.children()) == 4  # control, two workers, and their template
    family = gateway.children()
    gateway.signal(signal.SIGKILL)
    gateway.wait_end()
    wait_until(lambda: not any(is_alive(pid) for pid in family))
    assert gateway.refuses()
    # The lock went with it, and so did the ports.
    gateway.start()
    assert gateway.get().body == "one"


def test_a_frozen_worker_does_not_keep_the_admin_api_waiting(gateway: Gateway):
    pid = gateway.worker_pids()[0]
    os.kill(pid, signal.SIGSTOP)
    try:
        rows = gateway.admin.ask("GET", "/api/gateway/stats").content["workers"]
        assert pid in {row["pid"] for row in rows}
        silent = [row for row in gateway.workers() if row["silent_s"] is not None]
        assert [row["pid"] for row in silent] == [pid]
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: all(row["silent_s"] is None for row in gateway.workers()), 10)


def test_a_worker_that_is_told_to_leave_is_succeeded_first(gateway: Gateway):
    victim = gateway.worker_pids()[0]
    with Load(gateway) as load:
        os.kill(victim, signal.SIGTERM)
        wait_until(lambda: not is_alive(victim) and len(gateway.worker_pids()) == 2)
        load.wait_for_more()
    assert load.failures == []
    assert all(row["crashes"] == 0 for row in gateway.workers())
