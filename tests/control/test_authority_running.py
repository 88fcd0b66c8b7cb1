"""A gateway that is in the mesh: services join it, it serves them and calls them by identity."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from headgate.cli.app import main
from headgate.control.launch import DEFAULT_WORKER
from headgate.mesh.identity import Agent, SpiffeId
from headgate.mesh.identity.agent import NoIdentity
from headgate.security.service_identity.contexts import IdentityFiles, own_files, peer_id
from tests.control.running import UNOBSERVED, Gateway, free_port, wait_until

pytestmark = pytest.mark.integration

DOMAIN = "shop.internal"


class Service:
    """Answers with who called, over TLS, by the identity that it has at the moment."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.context: ssl.SSLContext | None = None
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> Service:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for each in tuple(self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(20)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                raw, _ = self.listener.accept()
                self._threads.append(threading.Thread(target=self._serve, args=(raw,)))
                self._threads[-1].start()

    def _serve(self, raw: socket.socket) -> None:
        self._open.add(raw)
        context = self.context
        assert context is not None
        with (
            contextlib.suppress(OSError),
            raw,
            context.wrap_socket(raw, server_side=True) as tls,
        ):
            body = f"{peer_id(tls, DOMAIN)}".encode()
            while tls.recv(65536):
                head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
                tls.sendall(head % len(body) + body)
                break
        self._open.discard(raw)


@pytest.fixture(scope="module")
def users() -> Iterator[Service]:
    with Service() as service:
        yield service


@pytest.fixture(scope="module")
def gateway(users: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    made = Gateway(tmp_path_factory.mktemp("mesh"))
    made.worker_class = DEFAULT_WORKER
    mesh_port = free_port()
    made.write(
        **UNOBSERVED,
        workers=1,
        state_dir=str(made.state.path),
        listeners=[
            {"bind": f"127.0.0.1:{made.port}"},
            {"bind": f"127.0.0.1:{mesh_port}", "name": "mesh", "tls": "mesh"},
        ],
        mesh={"trust_domain": DOMAIN, "identity": {"ttl": "1h"}},
        services={
            "users": {
                "instances": f"https://127.0.0.1:{users.port}",
                "tls": {"identity": "mesh"},
                "retry": False,
                "breaker": False,
                "outlier": False,
            },
        },
        routes=[
            {"match": {"path": "/hi"}, "respond": {"body": "hello"}},
            {"match": {"path": "/"}, "to": "users"},
        ],
    )
    made.mesh_port = mesh_port  # type: ignore[attr-defined]  # of these tests alone
    try:
        made.start()
        files = own_files(made.state.path)
        wait_until(lambda: files.identity.exists() and files.bundle.exists())
        yield made
    finally:
        made.stop()


def admin_url(gateway: Gateway) -> str:
    return f"http://127.0.0.1:{gateway.admin_port}"


def joined(gateway: Gateway, service: str, folder: Path) -> Agent:
    made = gateway.command("mesh", "token", service)
    assert made.returncode == 0, made.stderr
    agent = Agent(folder, control=admin_url(gateway), service=service, token=made.stdout.strip())
    agent.start()
    return agent


def served(gateway: Gateway, agent: Agent, path: str = "/hi") -> tuple[str, str]:
    """What the listener of the mesh answers, and the serial number it shows."""
    port = gateway.mesh_port  # type: ignore[attr-defined]
    with (
        socket.create_connection(("127.0.0.1", port), 20) as raw,
        agent.contexts().client.wrap_socket(raw, server_hostname=f"gateway.{DOMAIN}") as tls,
    ):
        assert agent.peer(tls) == SpiffeId(DOMAIN, "gateway")
        tls.sendall(f"GET {path} HTTP/1.1\r\nhost: g\r\nconnection: close\r\n\r\n".encode())
        answer = http.client.HTTPResponse(tls)
        answer.begin()
        said = tls.getpeercert()
        assert said is not None
        return answer.read().decode(), str(said["serialNumber"])


def called(gateway: Gateway) -> tuple[int, str]:
    """What a client gets that calls `users` through the gateway."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=20)
    try:
        connection.request("GET", "/users")
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_services_of_the_mesh_are_served_and_others_are_not(
    gateway: Gateway, tmp_path: Path
) -> None:
    own = joined(gateway, "orders", tmp_path / "orders")
    try:
        answer = wait_until(lambda: _served_or_none(gateway, own))
        assert answer[0] == "hello"
        stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        stranger.load_verify_locations(own.files.bundle)
        port = gateway.mesh_port  # type: ignore[attr-defined]
        with (
            socket.create_connection(("127.0.0.1", port), 20) as raw,
            pytest.raises(OSError, match=r"(?i)certificate|reset|closed|eof"),
            stranger.wrap_socket(raw, server_hostname=f"gateway.{DOMAIN}") as tls,
        ):
            tls.sendall(b"GET /hi HTTP/1.1\r\nhost: g\r\n\r\n")
            if not tls.recv(100):
                raise ConnectionResetError("closed")
    finally:
        own.close()


def _served_or_none(gateway: Gateway, agent: Agent) -> tuple[str, str] | None:
    """The worker may not have read the first identity yet."""
    with contextlib.suppress(OSError):
        return served(gateway, agent)
    return None


def test_the_gateway_shows_who_it_is_and_takes_no_other_service_for_the_right_one(
    gateway: Gateway, users: Service, tmp_path: Path
) -> None:
    own, other = (joined(gateway, name, tmp_path / name) for name in ("users", "billing"))
    try:
        users.context = own.contexts().server
        assert called(gateway) == (200, f"spiffe://{DOMAIN}/service/gateway")
        users.context = other.contexts().server
        status, _ = called(gateway)
        assert status == 502
        users.context = own.contexts().server
        assert called(gateway)[0] == 200
    finally:
        own.close()
        other.close()


def test_a_renewed_identity_is_taken_up_without_a_reload_of_workers(
    gateway: Gateway, users: Service, tmp_path: Path
) -> None:
    own = joined(gateway, "users", tmp_path / "users")
    try:
        users.context = own.contexts().server
        before = wait_until(lambda: _served_or_none(gateway, own))[1]
        files = own_files(gateway.state.path)
        files.identity.unlink()
        # Handshakes go on by the last good one until control has looked.
        assert called(gateway)[0] == 200
        assert gateway.command("reload").returncode == 0
        wait_until(lambda: (found := _served_or_none(gateway, own)) and found[1] != before)
        assert called(gateway)[0] == 200
        assert own.snapshot().failures == 0
        own.renew_soon()
        wait_until(lambda: own.snapshot().renewals == 2)
        assert called(gateway)[0] == 200
    finally:
        own.close()


def test_commands_show_and_order_what_operators_want(gateway: Gateway, tmp_path: Path) -> None:
    own = joined(gateway, "stock", tmp_path / "stock")
    own.close()
    rows = json.loads(gateway.command("mesh", "identities", "--json").stdout)
    row = next(each for each in rows if each["service"] == "stock")
    assert "stock" in gateway.command("mesh", "identities").stdout
    assert DOMAIN in gateway.command("mesh", "authority").stdout
    said = gateway.command("mesh", "deny", row["joining"], "--joining", "--why", "sold")
    assert "no more" in said.stdout
    assert "sold" in gateway.command("mesh", "denied").stdout
    with pytest.raises(NoIdentity, match="denied"):
        again = Agent(own.files.folder, control=admin_url(gateway))
        again.renew_soon()
        again.turn()
        raise NoIdentity(again.snapshot().trouble)
    assert gateway.command("mesh", "allow", row["joining"], "--joining").returncode == 0
    token = json.loads(gateway.command("mesh", "token", "x", "--json").stdout)
    assert token["id"] in gateway.command("mesh", "tokens").stdout
    assert gateway.command("mesh", "revoke", token["id"]).returncode == 0
    assert gateway.command("mesh", "token", "Not A Name").returncode != 0


def test_a_program_of_any_language_has_its_files_kept_fresh(
    gateway: Gateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "token").write_text(gateway.command("mesh", "token", "stock").stdout)
    words = ["mesh", "agent", str(tmp_path / "own"), "--control", admin_url(gateway)]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--token-file", str(tmp_path / "token"), "--once"])
    assert not ended.value.code
    assert f"spiffe://{DOMAIN}/service/stock" in capsys.readouterr().out
    assert IdentityFiles(tmp_path / "own").identity.exists()
