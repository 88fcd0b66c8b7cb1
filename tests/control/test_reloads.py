"""Reload: all workers or none, without losing a request."""

from __future__ import annotations

import os
import signal
import socket
import stat
from pathlib import Path

import pytest

from tests.control.running import Gateway, Load, running, wait_until
from tests.ports import free_port

pytestmark = pytest.mark.integration


def reload(gateway: Gateway):
    return gateway.command("reload")


def test_a_reload_changes_every_worker_and_no_process(gateway: Gateway):
    pids = gateway.worker_pids()
    gateway.write("two")
    with Load(gateway) as load:
        done = reload(gateway)
        load.wait_for_more()
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("reloaded: generation 2, 2 workers, ")
    assert load.failures == []
    assert {answer.body for answer in load.answers[-10:]} == {"two"}
    assert gateway.worker_pids() == pids
    assert {row["generation"] for row in gateway.workers()} == {2}


def test_sighup_reloads(gateway: Gateway):
    gateway.write("two")
    gateway.signal(signal.SIGHUP)
    gateway.wait_for("reloaded on SIGHUP")
    assert gateway.get().body == "two"


def test_a_file_with_faults_is_refused_with_their_places(gateway: Gateway):
    gateway.file.write_text(gateway.file.read_text().replace("listeners", "listners"))
    done = reload(gateway)
    assert done.returncode == 1
    assert f"{gateway.file}:2" in done.stderr
    assert "listners" in done.stderr
    assert "generation 1 serves on" in done.stderr
    assert "Traceback" not in done.stderr
    assert gateway.get().text.startswith("one 1 ")
    health = gateway.health()
    assert health["status"] == "degraded"
    assert "the last reload was refused" in health["reasons"][0]
    gateway.write("fixed")
    assert reload(gateway).returncode == 0
    assert gateway.health()["status"] == "ok"


def test_what_one_worker_refuses_no_worker_serves(gateway: Gateway):
    new_port = free_port()
    gateway.write(
        "REFUSE1", listeners=[{"bind": f"127.0.0.1:{p}"} for p in (gateway.port, new_port)]
    )
    done = reload(gateway)
    assert done.returncode == 1
    assert "this worker does not like the document" in done.stderr
    assert {gateway.get().text.split(" ")[0] for _ in range(20)} == {"one"}
    assert {row["generation"] for row in gateway.workers()} == {1}
    assert gateway.refuses(new_port)
    gateway.write("three")
    assert reload(gateway).returncode == 0


def test_a_document_that_kills_workers_is_refused(gateway: Gateway):
    gateway.write("EXIT")
    done = reload(gateway)
    assert done.returncode == 1
    assert "died twice" in done.stderr
    wait_until(lambda: len(gateway.worker_pids()) == 2)
    assert gateway.get().body == "one"


def test_a_worker_killed_in_the_middle_does_not_refuse_the_reload(gateway: Gateway):
    with Load(gateway, threads=1):
        for number in range(4):
            gateway.write(f"body{number}")
            os.kill(wait_until(gateway.worker_pids)[number % 2], signal.SIGKILL)
            done = reload(gateway)
            assert done.returncode == 0, done.stderr
    wait_until(lambda: len(gateway.worker_pids()) == 2)
    assert {gateway.get().body for _ in range(10)} == {"body3"}


def test_listeners_come_and_go(gateway: Gateway):
    second = free_port()
    gateway.write("two", listeners=[{"bind": f"127.0.0.1:{p}"} for p in (gateway.port, second)])
    with Load(gateway) as load:
        assert reload(gateway).returncode == 0
        assert gateway.get(port=second).body == "two"
        load.wait_for_more()
    assert load.failures == []
    gateway.write("three", listeners=[{"bind": f"127.0.0.1:{second}"}])
    assert reload(gateway).returncode == 0
    assert gateway.refuses()
    assert gateway.get(port=second).body == "three"


def test_a_listener_that_cannot_be_opened_refuses_the_reload(gateway: Gateway):
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as taken:
        port = taken.getsockname()[1]
        gateway.write("two", listeners=[{"bind": f"127.0.0.1:{p}"} for p in (gateway.port, port)])
        done = reload(gateway)
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
    assert "is used by process" in done.stderr
    assert gateway.get().body == "one"


def test_unix_listeners_are_shared_and_removed(gateway: Gateway):
    path = gateway.folder / "http.sock"
    gateway.write("two", listeners=[{"bind": f"unix:{path}", "mode": "600"}])
    assert reload(gateway).returncode == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert client.recv(1000).endswith(b" 0") or True
    gateway.write("three")
    assert reload(gateway).returncode == 0
    assert not path.exists()


def test_workers_are_added_and_retired_without_a_lost_request(gateway: Gateway):
    with Load(gateway) as load:
        for count in (4, 1, 3):
            gateway.write(f"with{count}", workers=count)
            done = reload(gateway)
            assert done.returncode == 0, done.stderr
            gateway.wait_workers(count)
            load.wait_for_more()
    assert load.failures == []


def test_the_number_on_the_command_line_outlives_a_reload(stopped: Gateway):
    stopped.start("3")
    stopped.write("two", workers=1)
    assert reload(stopped).returncode == 0
    assert len(stopped.worker_pids()) == 3


def test_the_admin_listener_moves(gateway: Gateway):
    old, gateway.admin_port = gateway.admin_port, free_port()
    gateway.write("two")
    assert reload(gateway).returncode == 0
    wait_until(lambda: gateway.refuses(old))
    assert not gateway.refuses(gateway.admin_port)
    assert gateway.state.instance()["admin"] == f"127.0.0.1:{gateway.admin_port}"
    gateway.write("three", admin={"bind": "off"})
    assert reload(gateway).returncode == 0
    wait_until(lambda: gateway.refuses(gateway.admin_port))
    assert gateway.command("status").returncode == 0


def test_a_changed_file_reloads_when_watched(tmp_path: Path):
    with running(tmp_path, "-", "watch", workers=1) as gateway:
        gateway.write("two", workers=1)
        gateway.wait_for("reloaded on a changed file")
        assert gateway.get().body == "two"
        # A broken one is refused, and the next good one is seen.
        gateway.file.write_text("listeners: [")
        gateway.wait_for("reload on a changed file refused")
        gateway.write("three", workers=1)
        wait_until(lambda: gateway.get().body == "three")


def test_the_document_is_never_on_the_disk(stopped: Gateway):
    secret = "s3cret-from-the-environment"
    os.environ["HEADGATE_TEST_SECRET"] = secret
    from tests.control import running as module

    module.ENV["HEADGATE_TEST_SECRET"] = secret
    try:
        stopped.write("${env:HEADGATE_TEST_SECRET}")
        stopped.start()
        assert stopped.get().body == secret
        assert reload(stopped).returncode == 0
        for path in stopped.folder.rglob("*"):
            if path.is_file():
                assert secret.encode() not in path.read_bytes()
                assert path.stat().st_mode & 0o077 == 0 or path.parent == stopped.folder
        shown = stopped.admin.ask("GET", "/api/config").content
        assert shown["document"]["routes"][0]["respond"]["body"] == "${env:HEADGATE_TEST_SECRET}"
        assert secret not in stopped.said
    finally:
        module.ENV.pop("HEADGATE_TEST_SECRET")
        os.environ.pop("HEADGATE_TEST_SECRET")


def test_a_changed_state_dir_is_not_taken_up_in_silence(gateway: Gateway):
    """Its lock is that of the run; the token and the sockets are where commands look for them."""
    said = "is read at the start alone: this run keeps " + str(gateway.state.path)
    gateway.write("two", state_dir=str(gateway.folder / "elsewhere"))
    for _ in range(2):  # also when it has been said before: it is still so
        done = gateway.command("reload")
        assert done.returncode == 0
        assert "state_dir: warning: " in done.stderr
        assert said in done.stderr
        answer = gateway.admin.ask("POST", "/api/reload").content
        assert [warning["where"] for warning in answer["warnings"]] == ["state_dir"]
    assert len([line for line in gateway.log if said in line]) == 4
    assert not (gateway.folder / "elsewhere").exists()
    assert gateway.get().body == "two"
    # Nor is it forgotten by a control process that is started again, or by new code.
    control = gateway.control_pid()
    os.kill(control, signal.SIGKILL)
    wait_until(lambda: gateway.control_pid() not in {0, control} and gateway.health())
    assert said in gateway.command("reload").stderr
    gateway.write("three")
    done = gateway.command("reload")
    assert (done.returncode, done.stderr) == (0, "")
