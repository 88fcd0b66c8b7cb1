"""The configuration over the admin API, against a real gateway: try, compare, apply, go back."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from headgate.control.client import Refused
from headgate.errors import HeadgateError
from tests.control.running import Gateway, wait_until

pytestmark = pytest.mark.integration


class Written(Gateway):
    """A gateway whose file may be written by the API."""

    def text(self, body: str = "one", **more: Any) -> bytes:
        config = {
            "listeners": [{"bind": f"127.0.0.1:{self.port}"}],
            "admin": {"bind": f"127.0.0.1:{self.admin_port}", "config_writes": True},
            "workers": 2,
            "watch": False,
            "drain": "5s",
            "routes": [{"name": "all", "match": {"path": "/"}, "respond": {"body": body}}],
            **more,
        }
        return json.dumps(config, indent=1).encode()

    def write(self, body: str = "one", **more: Any) -> None:
        self.file.write_bytes(self.text(body, **more))

    def ask(self, method: str, path: str, body: Any = None, **fields: str) -> Any:
        named = {name.replace("_", "-"): value for name, value in fields.items()}
        return self.admin.ask(method, path, body, timeout_s=60, fields=named)

    def tag(self) -> str:
        tag: str = self.ask("GET", "/api/config").headers["etag"]
        return tag

    def put(self, text: bytes, tag: str | None = None) -> Any:
        return self.ask("PUT", "/api/config", text, if_match=tag or self.tag()).content

    def refused(self, method: str, path: str, body: Any = None, **fields: str) -> Refused:
        with pytest.raises(Refused) as caught:
            self.ask(method, path, body, **fields)
        return caught.value


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Written]:
    gateway = Written(tmp_path_factory.mktemp("written"))
    gateway.write("first")
    try:
        gateway.start()
        yield gateway
    finally:
        gateway.stop()


def test_a_text_is_applied_and_shows_in_the_history(gateway: Written):
    before = gateway.file.read_bytes()
    done = gateway.put(gateway.text("second"))
    assert done["ok"]
    wait_until(lambda: gateway.get().body == "second")
    assert gateway.file.read_bytes() == gateway.text("second")
    assert gateway.file.with_name("headgate.yaml.bak").read_bytes() == before
    newest = gateway.ask("GET", "/api/config/history?limit=1").content["versions"][0]
    assert newest["ok"]
    assert newest["reason"].startswith("PUT /api/config by uid:")
    assert newest["words"] == ['route all: respond.body "first" -> "second"']
    assert newest["is_restorable"]


def test_a_version_is_restored_word_for_word(gateway: Written):
    text = b"# a remark that people need\n" + gateway.text("third")
    gateway.put(text)
    third = gateway.ask("GET", "/api/config/history?limit=1").content["versions"][0]["number"]
    gateway.put(gateway.text("fourth"))
    gateway.ask("POST", f"/api/config/rollback/{third}")
    assert gateway.file.read_bytes() == text
    wait_until(lambda: gateway.get().body == "third")


def test_a_text_with_faults_changes_nothing_and_says_where(gateway: Written):
    before = gateway.file.read_bytes()
    text = gateway.text("x", routes=[{"name": "a", "match": {"path": "/"}, "to": "nobody"}])
    said = gateway.refused("PUT", "/api/config", text, if_match=gateway.tag())
    assert said.status == 422
    (fault,) = said.problem["faults"]
    assert fault["line"] > 1
    assert fault["file"] == str(gateway.file)
    assert "nobody" in fault["message"]
    assert gateway.file.read_bytes() == before
    assert not list(gateway.folder.glob(".*.draft"))


def test_a_text_that_the_workers_cannot_serve_brings_the_old_file_back(gateway: Written):
    before, history = gateway.file.read_bytes(), "/api/config/history?limit=1"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        text = gateway.text("x", listeners=[{"bind": bind}])
        said = gateway.refused("PUT", "/api/config", text, if_match=gateway.tag())
    assert said.status == 422
    assert "the file is as it was" in str(said)
    assert gateway.file.read_bytes() == before
    newest = gateway.ask("GET", history).content["versions"][0]
    assert not newest["ok"]
    assert newest["faults"]
    gateway.admin.ask("POST", "/api/reload", timeout_s=60)  # and health is well again


def test_validate_says_faults_or_what_would_change(gateway: Written):
    wrong = gateway.ask("POST", "/api/config/validate", b"listeners: 7\n").content
    assert not wrong["ok"]
    assert wrong["faults"][0]["line"] == 1
    right = gateway.ask("POST", "/api/config/validate", gateway.text("other")).content
    assert right["ok"]
    assert right["diff"]["count"] == 1


def test_routes_that_come_and_go_are_told_in_words(gateway: Written):
    routes = [{"name": "new", "match": {"path": "/new"}, "respond": {"body": "n"}}]
    found = gateway.ask("POST", "/api/config/diff", gateway.text("x", routes=routes)).content
    assert {"route all removed", "route new added"} <= set(found["words"])


def test_an_update_that_would_be_lost_is_refused(gateway: Written):
    text = gateway.text("lost")
    assert gateway.refused("PUT", "/api/config", text).status == 428
    assert gateway.refused("PUT", "/api/config", text, if_match='"old"').status == 412
    tag = gateway.tag()
    gateway.file.write_bytes(gateway.file.read_bytes() + b"\n")  # an editor, without a reload
    assert gateway.refused("PUT", "/api/config", text, if_match=tag).status == 412


def test_of_two_at_once_one_wins(gateway: Written):
    tag = gateway.tag()
    statuses: list[int] = []

    def put(body: str) -> None:
        try:
            gateway.put(gateway.text(body), tag)
            statuses.append(200)
        except Refused as error:
            statuses.append(error.status)

    threads = [threading.Thread(target=put, args=(f"racer {index}",)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(statuses) == [200, 412, 412]


def test_an_unchanged_configuration_is_not_sent_again(gateway: Written):
    tag = gateway.tag()
    assert gateway.ask("GET", "/api/config", if_none_match=tag).status == 304


def test_what_a_reference_brings_in_is_in_no_version(gateway: Written, tmp_path):
    secret = "a-secret-of-thirty-letters-here"
    named = gateway.folder / "secret.txt"
    named.write_text(secret)
    gateway.put(gateway.text("with-${file:secret.txt}-inside"))
    wait_until(lambda: secret in gateway.get().text)
    for path in (gateway.state.path / "config-history").iterdir():
        assert secret.encode() not in path.read_bytes()
    shown = gateway.ask("GET", "/api/config/history?limit=1").content["versions"][0]
    whole = gateway.ask("GET", f"/api/config/history/{shown['number']}").content
    assert whole["document"]["routes"][0]["respond"]["body"] == "with-${file:secret.txt}-inside"


def test_a_version_with_a_secret_as_it_is_cannot_be_restored(gateway: Written):
    secret = "literal-secret-of-this-file"
    headers = {"request": {"set": {"authorization": f"Bearer {secret}"}}}
    gateway.put(gateway.text("secret", headers=headers))
    newest = gateway.ask("GET", "/api/config/history?limit=1").content["versions"][0]
    assert not newest["is_restorable"]
    assert "authorization" in newest["why_not"]
    for path in (gateway.state.path / "config-history").iterdir():
        assert secret.encode() not in path.read_bytes()
    said = gateway.refused("POST", f"/api/config/rollback/{newest['number']}")
    assert said.status == 409


def test_the_commands_show_compare_apply_and_go_back(gateway: Written):
    (gateway.folder / "next.yaml").write_bytes(gateway.text("by-command"))
    told = gateway.command("diff", "next.yaml")
    assert told.returncode == 0
    assert "by-command" in told.stdout
    done = gateway.command("config", "apply", "next.yaml", "--yes")
    assert done.returncode == 0, done.stderr
    wait_until(lambda: "by-command" in gateway.get().text)
    listed = json.loads(gateway.command("config", "history", "--format", "json").stdout)
    earlier = next(row for row in listed[1:] if row["is_restorable"])
    back = gateway.command("config", "rollback", str(earlier["number"]))
    assert back.returncode == 0, back.stderr
    shown = gateway.command("config", "show")
    assert "routes:" in shown.stdout


def test_a_worker_that_crashes_during_an_apply_leaves_file_and_service_agreed(gateway: Written):
    for number in range(2):
        pids = gateway.worker_pids()
        killer = threading.Thread(target=os.kill, args=(pids[number % 2], signal.SIGKILL))
        killer.start()
        with contextlib.suppress(Refused):
            gateway.put(gateway.text(f"crash-{number}"))
        killer.join()
        served = gateway.ask("GET", "/api/config").content["document"]["routes"][0]["respond"]
        written = json.loads(gateway.file.read_bytes())["routes"][0]["respond"]
        assert served == written
        gateway.wait_workers(2)


def test_control_killed_during_an_apply_leaves_the_old_file_or_the_new(gateway: Written):
    for number in range(1, 3):
        before, text = gateway.file.read_bytes(), gateway.text(f"killed-{number}")
        tag, pid = gateway.tag(), gateway.control_pid()
        put = threading.Thread(target=put_quietly, args=(gateway, text, tag))
        put.start()
        time.sleep(0.04 * number)  # somewhere on the way; each place must do
        os.kill(pid, signal.SIGKILL)
        put.join(60)
        assert gateway.file.read_bytes() in {before, text}
        wait_until(lambda: gateway.health().get("workers_ready") == 2)
        gateway.admin.ask("POST", "/api/reload", timeout_s=60)


def put_quietly(gateway: Written, text: bytes, tag: str) -> None:
    with contextlib.suppress(HeadgateError):
        gateway.put(text, tag)


def test_nothing_is_written_where_the_file_does_not_allow_it(gateway: Written):
    admin = {"bind": f"127.0.0.1:{gateway.admin_port}"}
    gateway.put(gateway.text("closed", admin=admin))
    before = gateway.file.read_bytes()
    assert gateway.refused("PUT", "/api/config", gateway.text("x"), if_match="*").status == 403
    assert gateway.file.read_bytes() == before
