"""Sidecars beside plain programs: by name, by identity, by the rules, also while control is away.

The last two tests end what the others use.
"""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.control.running import PATIENCE_S, wait_until
from tests.mesh.sidecar.sidecar_rig import DOMAIN, Mesh, raw_exchange, running_mesh

pytestmark = pytest.mark.integration

NODE = """
const http = require('http');
const agent = new http.Agent({keepAlive: true, maxSockets: 1});
const ask = (path) => new Promise((done, failed) => {
  const options = {host: '127.0.0.1', port: +process.argv[1], path, agent, headers: {Host: 'users'}};
  http.get(options, (got) => {
    let text = '';
    got.on('data', (piece) => { text += piece; });
    got.on('end', () => done([got.statusCode, JSON.parse(text)]));
  }).on('error', failed);
});
(async () => {
  const found = [];
  for (let at = 0; at < 5; at++) found.push(await ask('/users/' + at));
  console.log(JSON.stringify(found));
  agent.destroy();
})();
"""


@pytest.fixture(scope="module")
def mesh(tmp_path_factory) -> Iterator[Mesh]:
    with running_mesh(tmp_path_factory.mktemp("mesh")) as made:
        yield made


def test_a_plain_client_calls_a_service_by_its_name_over_one_connection(mesh):
    request = b"GET /users/%d HTTP/1.1\r\nHost: users\r\nx-headgate-caller: admin\r\n\r\n"
    found = raw_exchange(mesh.orders.outbound, *(request % at for at in range(3)))
    for at, (status, body) in enumerate(found):
        said = json.loads(body)
        assert (status, said["path"]) == (200, f"/users/{at}")
        # Who calls is told by the certificate, whatever the request says.
        assert said["headers"]["x-headgate-caller"] == "orders"
        assert said["headers"]["host"] == "users"


@pytest.mark.parametrize(
    ("host", "target", "path"),
    [
        ("127.0.0.1", "http://users/users/7", "/users/7"),
        (f"users.{DOMAIN}", "/users/7", "/users/7"),
        ("localhost", "/users/users/7", "/users/7"),
    ],
    ids=["proxy", "full-name", "path"],
)
def test_a_service_is_named_by_a_whole_url_by_its_host_or_by_the_path(mesh, host, target, path):
    status, said = mesh.orders.ask(host, target)
    assert (status, said["path"]) == (200, path)


def test_a_name_that_nobody_has_is_not_found_and_goes_nowhere_else(mesh):
    assert mesh.orders.ask("example.org", "/x")[0] == 404
    assert mesh.orders.ask("x", "http://example.org/")[0] == 404


def test_what_follows_a_call_passes_through(mesh):
    sent = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "x-request-id": "r-1"}
    _, said = mesh.orders.ask("users", "/users/1", **sent, **{"x-headgate-deadline": "5000"})
    assert said["headers"]["traceparent"].split("-")[1] == "a" * 32
    assert said["headers"]["x-request-id"] == "r-1"
    assert 0 < int(said["headers"]["x-headgate-deadline"]) <= 5000


def test_what_no_rule_allows_is_refused_and_told(mesh):
    status, said = mesh.orders.ask("users", "/users/1", "POST")
    assert (status, said["detail"]) == (403, "orders may not POST this of users")
    assert mesh.orders.ask("users", "/admin")[0] == 403
    assert mesh.users.ask("orders", "/users/1")[1]["detail"] == "users may not GET this of orders"
    wait_until(lambda: '"source": "orders", "destination": "users"' in mesh.users.said)


def _is_alone(pid: int) -> bool:
    return not Path(f"/proc/{pid}/task/{pid}/children").read_text()


def test_a_sidecar_is_one_process_of_less_than_sixty_megabytes(mesh):
    for sidecar in (mesh.users, mesh.orders):
        pid = sidecar.process.pid
        # What it starts for a moment has ended.
        wait_until(partial(_is_alone, pid))
        rows = dict(
            line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        )
        assert int(rows["VmRSS"].split()[0]) < 60 * 1024


def test_a_program_of_node_calls_by_name(mesh):
    node = shutil.which("node") or shutil.which("nodejs")
    assert node is not None, "tools/bootstrap.py programs test installs it"
    done = subprocess.run(
        [node, "-e", NODE, str(mesh.orders.outbound)],
        capture_output=True,
        timeout=60,
        check=True,
    )
    found = json.loads(done.stdout)
    assert [(status, said["path"]) for status, said in found] == [
        (200, f"/users/{at}") for at in range(5)
    ]


def test_who_shows_no_identity_of_the_mesh_does_not_get_in_where_it_is_strict(mesh):
    with pytest.raises((OSError, ssl.SSLError)):
        stranger(mesh.users.inbound, "/users/1")
    with socket.create_connection(("127.0.0.1", mesh.users.inbound), timeout=PATIENCE_S) as sock:
        sock.sendall(b"GET /users/1 HTTP/1.1\r\nHost: users\r\n\r\n")
        assert closed(sock)


def test_a_permissive_sidecar_takes_plain_connections_and_strict_rules_hold_for_them(mesh):
    ((status, body),) = raw_exchange(
        mesh.orders.inbound, b"GET /x HTTP/1.1\r\nHost: orders\r\n\r\n"
    )
    # The connection is taken, the rules still hold: nobody may call orders.
    assert status == 403
    assert b"a certificate of the mesh is needed" in body
    assert stranger(mesh.orders.inbound, "/x").startswith(b"HTTP/1.1 403")


def test_who_calls_whom_is_told_to_control(mesh):
    def calls():
        rows = mesh.gateway.admin.ask("GET", "/api/mesh/calls").content
        return {(row["source"], row["destination"]): row for row in rows}

    edge = wait_until(lambda: calls().get(("orders", "users")), 30.0)
    assert edge["requests"] >= 1 and edge["seen_by"] == "caller"
    assert edge["latency"]["p50_ms"] > 0
    stats = mesh.gateway.admin.ask("GET", "/api/mesh/stats").content
    assert any(
        (one["source"], one["target"]) == ("service:orders", "service:users")
        for one in stats["edges"]
    )
    shown = mesh.gateway.command("mesh", "topology")
    assert shown.returncode == 0 and "orders" in shown.stdout


def test_who_was_refused_is_told_to_control_with_the_reason(mesh):
    assert mesh.orders.ask("users", "/none")[0] == 403

    def refusals():
        rows = mesh.gateway.admin.ask("GET", "/api/mesh/refusals").content
        return {(row["source"], row["destination"], row["why"]): row for row in rows}

    found = wait_until(lambda: refusals().get(("orders", "users", "default")), 30.0)
    assert (found["mode"], found["count"] >= 1) == ("strict", True)
    shown = mesh.gateway.command("mesh", "refused")
    assert "no rule allows it" in shown.stdout
    entries = mesh.gateway.admin.ask("GET", "/api/audit?action=mesh.refused").content
    assert any(each["actor"] == "orders" for each in entries["entries"])


def test_rules_that_change_are_followed_without_a_new_start(mesh):
    """Access is opened for one more path, and every sidecar goes by it."""
    content = json.loads(mesh.gateway.file.read_text())
    rules = content["mesh"]["access"]["rules"]
    rules.append({"from": "orders", "to": "users", "paths": "/new"})
    mesh.gateway.file.write_text(json.dumps(content))
    assert mesh.orders.ask("users", "/new")[0] == 403
    mesh.gateway.admin.ask("POST", "/api/reload")
    wait_until(lambda: mesh.orders.ask("users", "/new")[0] == 200, 60.0)


def test_a_request_under_way_is_finished_before_a_sidecar_ends(mesh):
    """And the registry knows that it goes."""
    got: list[tuple[int, object]] = []
    slow = threading.Thread(target=lambda: got.append(mesh.users.ask("orders", "/slow")))
    slow.start()
    assert mesh.orders_process.came.wait(PATIENCE_S), f"{got}\n{mesh.orders.said}"
    ended: list[int] = []
    ending = threading.Thread(target=lambda: ended.append(mesh.orders.end()))
    ending.start()
    wait_until(lambda: mesh.registered()["orders"] == (0, 1))
    mesh.orders_process.goes_on.set()
    for thread in (slow, ending):
        thread.join(PATIENCE_S)
    assert got[0][0] == 200
    assert ended == [0]
    assert mesh.registered()["orders"] == (0, 0)


def test_while_control_is_away_the_last_that_was_known_holds(mesh):
    """A process calls its own service, too: by the mesh, as it would any other."""
    mesh.gateway.stop()
    for at in range(5):
        status, said = mesh.users.ask("users", f"/users/{at}")
        assert (status, said["headers"]["x-headgate-caller"]) == (200, "users")
    assert mesh.users.end() == 0


def stranger(port: int, path: str) -> bytes:
    """What a TLS client without a certificate is answered."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as raw,
        context.wrap_socket(raw, server_hostname=f"users.{DOMAIN}") as tls,
    ):
        tls.sendall(b"GET %b HTTP/1.1\r\nHost: users\r\n\r\n" % path.encode())
        found = tls.recv(65536)
        if not found:
            raise OSError("closed")
        return found


def closed(sock: socket.socket) -> bool:
    try:
        return sock.recv(1000) == b""
    except OSError:
        return True
