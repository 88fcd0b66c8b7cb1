"""A gateway of real processes: what they say is found, followed, and made louder while it runs."""

from __future__ import annotations

import io
import json
import os
import signal
import threading
from contextlib import redirect_stdout

import pytest

from headgate.cli.app import main
from tests.control.running import Gateway, wait_until

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    gateway = Gateway(tmp_path_factory.mktemp("logs"))
    gateway.worker_class = "tests.control.observing.logging_worker:LoggingWorker"
    gateway.write(
        logging={
            "format": "json",
            "sinks": ["stderr", str(gateway.folder / "own.log")],
            "repeats": False,
        }
    )
    gateway.start()
    yield gateway
    gateway.stop()


def command(gateway, *words):
    out = io.StringIO()
    with redirect_stdout(out), pytest.raises(SystemExit) as ended:
        main(["logs", *words, "--state-dir", str(gateway.state.path)])
    assert ended.value.code == 0
    return out.getvalue()


def asked(gateway):
    gateway.admin.ask("GET", "/metrics")


def test_what_every_process_says_is_found_by_the_command(gateway):
    asked(gateway)
    aloud = wait_until(lambda: command(gateway, "aloud", "--level", "warning"))
    assert "WARNING  test.worker: asked for figures, aloud" in aloud
    assert "service=headgate-worker" in aloud
    wait_until(lambda: "headgate.supervisor: ready" in command(gateway, "--logger", "headgate"))
    (line,) = command(gateway, "--json", "--limit", "1", "aloud").splitlines()
    assert json.loads(line)["level"] == "warning"


def test_a_level_reaches_all_workers_and_can_be_taken_back(gateway):
    said = command(gateway, "level", "test.worker", "debug", "--for", "10min")
    assert "test.worker: debug (for another 600 s)" in said

    def quietly():
        asked(gateway)
        lines = command(gateway, "--json", "quietly").splitlines()
        return len({json.loads(line)["pid"] for line in lines}) == 2

    wait_until(quietly)
    assert "test.worker" not in command(gateway, "level", "test.worker", "file")


def test_a_new_worker_has_the_levels_of_the_others(gateway):
    command(gateway, "level", "test.worker", "error")
    try:
        (row, *_) = gateway.admin.ask("GET", "/api/workers").content
        os.kill(row["pid"], signal.SIGKILL)

        def successor():
            rows = gateway.admin.ask("GET", "/api/workers").content
            pids = {each["pid"] for each in rows if each["state"] == "ready"}
            return pids if len(pids) == 2 and row["pid"] not in pids else None

        wait_until(successor)
        orders = gateway.admin.ask("GET", "/api/logs/levels").content["orders"]
        assert [order["logger"] for order in orders] == ["test.worker"]
    finally:
        command(gateway, "level", "test.worker", "file")


def test_the_tail_is_followed_as_lines_come(gateway):
    seen = threading.Event()
    stream = gateway.admin.stream("/api/logs/tail?text=aloud")

    def follow():
        for told in stream:
            if told.event == "line" and "aloud" in told.data["message"]:
                seen.set()
                return

    follower = threading.Thread(target=follow)
    follower.start()
    try:
        wait_until(lambda: asked(gateway) or seen.wait(0.5))
    finally:
        follower.join(20)
        stream.close()


def test_sinks_are_counted_in_the_metrics_of_every_process(gateway):
    text = wait_until(lambda: gateway.admin.ask("GET", "/metrics").content)
    for process in ("control", "worker"):
        row = f'headgate_logs_lines_total{{process="{process}'
        wait_until(
            lambda row=row: any(  # type: ignore[misc]  # what it is bound to has its type
                line.startswith(row)
                for line in gateway.admin.ask("GET", "/metrics").content.splitlines()
            )
        )
    assert "headgate_logs_store_bytes" in text


def test_the_file_has_lines_of_all_processes_and_is_begun_anew_on_sigusr1(gateway):
    path = gateway.folder / "own.log"
    wait_until(lambda: {"headgate-supervisor", "headgate-worker"} <= services(path))
    path.rename(path.with_suffix(".old"))
    gateway.signal(signal.SIGUSR1)

    def is_begun():
        asked(gateway)  # the first may still have gone into the old one
        return path.exists() and "headgate-worker" in services(path)

    wait_until(is_begun)
    assert "hunter2" not in gateway.said + path.read_text()


def services(path):
    return {json.loads(line)["service"] for line in path.read_text().splitlines() if line}
