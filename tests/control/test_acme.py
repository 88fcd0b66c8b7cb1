"""Certificates ordered from a real ACME server by a real gateway."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from headgate.control.state_dir import StateDir
from headgate.security.certificates.store import AcmeStore
from tests.control import running
from tests.control.pebble import Pebble, pebble
from tests.control.running import Gateway
from tests.ports import free_port

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

WORKER = "headgate.gateway.worker:Worker"
NAME = "shop.test"
LONG_S = 60.0
"""A machine that is busy with other tests is not what is tested here."""


def wait_until(what: Callable[[], Any], patience_s: float = LONG_S) -> Any:
    return running.wait_until(what, patience_s)


class Serving(Gateway):
    """A gateway with a plain listener and one with `certificate: acme`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.worker_class = WORKER
        self.tls_port = free_port()

    def start(self, *rest: str, prefix: tuple[str, ...] = (), wait: bool = True) -> None:
        super().start(*rest, prefix=prefix, wait=False)
        wait_until(lambda: "ready: " in self.said)
        wait_until(lambda: self.health().get("workers_ready"))

    def write_acme(self, peb: Pebble, *hosts: str, **more: Any) -> None:
        acme = {
            "agree_terms": True,
            "email": "ops@shop.test",
            "directory": peb.directory,
            "ca_file": str(peb.ca_file),
            **more.pop("acme", {}),
        }
        listeners = [
            {"bind": f"127.0.0.1:{self.port}"},
            {"bind": f"127.0.0.1:{self.tls_port}", "tls": more.pop("tls", "acme")},
        ]
        match = {"path": "/", "host": list(hosts or (NAME,))}
        route = {"match": match, **more.pop("route", {"respond": {"body": "served"}})}
        body = {"acme": acme, "listeners": listeners, "routes": [route], "watch": False}
        self.write(**{"workers": 2, "state_dir": str(self.state.path), **body, **more})

    def store(self, peb: Pebble) -> AcmeStore:
        return AcmeStore(self.state.path, peb.directory)

    def has_failed(self, times: int) -> bool:
        (row,) = self.admin.ask("GET", "/api/certificates").content
        return bool(row["failures"] == times)

    def shown(self, name: str = NAME) -> x509.Certificate:
        return x509.load_der_x509_certificate(self.connect(name)[1])

    def connect(self, name: str, trust: str | None = None) -> tuple[ssl.SSLSocket, bytes]:
        context = ssl.create_default_context(cadata=trust)
        if trust is None:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        sock = socket.create_connection(("127.0.0.1", self.tls_port), timeout=10)
        with context.wrap_socket(sock, server_hostname=name) as tls:
            der = tls.getpeercert(binary_form=True)
            assert der is not None
            return tls, der

    def issuer(self, name: str = NAME) -> str:
        with contextlib.suppress(OSError):
            return self.shown(name).issuer.rfc4514_string()
        return ""

    def wait_issued(self, name: str = NAME, patience_s: float = LONG_S) -> x509.Certificate:
        try:
            wait_until(lambda: "Pebble" in self.issuer(name), patience_s)
        except AssertionError:
            pytest.fail(f"{name} has no certificate; the gateway said:\n{self.said}")
        return self.shown(name)


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Serving]:
    it = Serving(tmp_path / "gateway")
    it.folder.mkdir()
    yield it
    it.stop()


@pytest.fixture
def peb(tmp_path: Path, gateway: Serving) -> Iterator[Pebble]:
    with pebble(tmp_path / "pebble", gateway.port, gateway.tls_port, start=False) as it:
        yield it


def test_a_certificate_is_ordered_and_taken_up_without_a_restart(gateway, peb):
    peb.start(PEBBLE_WFE_NONCEREJECT="50")
    # An authority's question is answered before any route is looked at.
    gateway.write_acme(peb, route={"redirect": "https://elsewhere.test{path}"})
    gateway.start()
    leaf = gateway.wait_issued()
    pids = gateway.worker_pids()
    gateway.connect(NAME, trust=peb.root())
    assert gateway.store(peb).path(NAME).stat().st_mode & 0o777 == 0o600
    wait_until(lambda: gateway.health()["status"] == "ok")
    (row,) = gateway.admin.ask("GET", "/api/certificates").content
    assert row["served"] == "acme"
    assert row["failures"] == 0
    assert row["not_after"] == leaf.not_valid_after_utc.timestamp()
    assert gateway.worker_pids() == pids
    assert "is served the local one" in gateway.said


def test_a_certificate_is_ordered_by_a_challenge_within_tls(tmp_path, gateway):
    # Where it would come to by HTTP there is nobody.
    with pebble(tmp_path / "pebble", free_port(), gateway.tls_port) as peb:
        gateway.write_acme(peb, acme={"challenge": "tls-alpn-01"})
        gateway.start()
        gateway.wait_issued()
        gateway.connect(NAME, trust=peb.root())
    # An authority's question is answered for as long as it is asked, and no longer.
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["acme-tls/1"])
    with (
        socket.create_connection(("127.0.0.1", gateway.tls_port), timeout=10) as sock,
        context.wrap_socket(sock, server_hostname=NAME) as tls,
    ):
        assert tls.selected_alpn_protocol() is None


def test_a_renewal_closes_no_connection_and_a_revocation_brings_another(gateway, peb):
    peb.start()
    gateway.write_acme(peb, NAME, "api.test")
    gateway.start()
    first = gateway.wait_issued()
    other = gateway.wait_issued("api.test")
    connection = http.client.HTTPSConnection(
        NAME, gateway.tls_port, context=ssl.create_default_context(cadata=peb.root()), timeout=20
    )
    connection._create_connection = lambda *_how: socket.create_connection(  # type: ignore[attr-defined]  # no name of a test is in DNS
        ("127.0.0.1", gateway.tls_port), 20
    )
    connection.request("GET", "/")
    assert connection.getresponse().read() == b"served"
    wait_until(lambda: gateway.health()["status"] == "ok")

    done = gateway.command("certs", "renew", NAME, "--file", str(gateway.file))
    assert done.stdout == f"{NAME} is being ordered\n", done.stderr
    wait_until(lambda: gateway.shown().serial_number != first.serial_number)
    assert gateway.shown("api.test") == other
    # The connection of before is served as before.
    connection.request("GET", "/")
    assert connection.getresponse().read() == b"served"
    connection.close()

    second = gateway.shown()
    done = gateway.command(
        "certs", "revoke", NAME, "--file", str(gateway.file), "--reason", "key-compromise"
    )
    assert done.stdout.startswith(f"the certificate of {NAME} is void\n"), done.stderr
    assert peb.status(second.serial_number) == "Revoked"
    wait_until(lambda: gateway.shown().serial_number != second.serial_number)
    assert gateway.shown().public_key() != second.public_key()
    wait_until(lambda: gateway.health()["status"] == "ok")


def test_an_authority_that_cannot_come_in_is_told_in_words_and_waited_for(tmp_path, gateway):
    with pebble(tmp_path / "pebble", free_port(), free_port()) as peb:
        gateway.write_acme(peb)
        gateway.start()
        wait_until(lambda: "no certificate for shop.test" in gateway.said)
        wait_until(partial(gateway.has_failed, 1))
        (row,) = gateway.admin.ask("GET", "/api/certificates").content
        assert "shop.test is invalid" in row["why"]
        assert 60 < row["next_try"] - time.time() <= 121
        assert row["served"] == "local"
        assert any("is served the local one" in why for why in gateway.health()["reasons"])
        # The local one it is, meanwhile.
        assert "Headgate local authority" in gateway.issuer()
        # Wishing for it more often does not go beyond what authorities bear.
        for expected in range(2, 6):
            gateway.command("certs", "renew", "--file", str(gateway.file))
            wait_until(partial(gateway.has_failed, expected))
        done = gateway.command("certs", "renew", "--file", str(gateway.file))
        assert "as the authority limits failures" in done.stdout


def test_an_authority_that_is_away_is_asked_again(gateway, peb):
    gateway.write_acme(peb)
    gateway.start()
    wait_until(lambda: "cannot be asked" in gateway.said)
    peb.start()
    gateway.command("certs", "renew", "--file", str(gateway.file))
    gateway.wait_issued()


def test_an_account_that_the_authority_has_lost_is_made_again(gateway, peb):
    peb.start()
    gateway.write_acme(peb)
    gateway.start()
    first = gateway.wait_issued()
    # It keeps nothing over a restart, and has another root afterwards.
    peb.stop()
    peb.start()
    gateway.command("certs", "renew", "--file", str(gateway.file))
    wait_until(lambda: gateway.shown().issuer != first.issuer)
    assert gateway.said.count("an account was made") == 2


def test_an_account_is_bound_to_one_that_the_authority_knows(tmp_path, gateway):
    secret = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
    folder = tmp_path / "pebble"
    with pebble(folder, gateway.port, gateway.tls_port, binding={"kid-1": secret}) as peb:
        gateway.write_acme(peb)
        gateway.start()
        wait_until(lambda: "write what it gave you in acme.external_account" in gateway.said)
        gateway.write_acme(
            peb, acme={"external_account": {"id": "kid-1", "secret": secret}}, body="again"
        )
        assert gateway.command("reload").returncode == 0
        gateway.command("certs", "renew", "--file", str(gateway.file))
        gateway.wait_issued()
        assert secret not in gateway.said


def test_control_that_is_killed_within_an_order_goes_on_with_it(gateway, peb):
    # It sleeps before it looks, so that there is a middle.
    peb.start(PEBBLE_VA_NOSLEEP="0", PEBBLE_VA_SLEEPTIME="3")
    gateway.write_acme(peb)
    gateway.start()
    store = gateway.store(peb)
    url = wait_until(lambda: store.folder.exists() and store.order(NAME))
    key = store.order_key(NAME)
    os.kill(gateway.control_pid(), signal.SIGKILL)
    gateway.wait_issued()
    kept = store.certificate(NAME)
    assert kept is not None
    # The same order, and the key that was kept for it.
    assert peb.log().count("POST /order-plz") == 1, url
    assert key is not None
    ours = load_pem_private_key(key, None).public_key()
    assert kept.leaf.public_key() == ours
    wait_until(lambda: store.order(NAME) is None)


def test_a_full_disk_ends_nothing_and_the_order_is_fetched_later(gateway, peb, tmp_path):
    peb.start()
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(small)],
        check=False,
        capture_output=True,
        text=True,
    )
    if mounted.returncode:
        pytest.skip(f"needs a small disk of its own; run as root ({mounted.stderr.strip()})")
    try:
        gateway.state = StateDir(small / "state")
        gateway.observes = False
        gateway.write_acme(peb)
        gateway.start()
        first = gateway.wait_issued()
        wait_until(lambda: gateway.health()["status"] == "ok")
        fill = small / "fill"
        with contextlib.suppress(OSError), fill.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        gateway.command("certs", "renew", "--file", str(gateway.file))
        wait_until(lambda: "No space left on device" in gateway.said)
        assert gateway.shown() == first
        fill.unlink()
        gateway.command("certs", "renew", "--file", str(gateway.file))
        wait_until(lambda: gateway.shown() != first)
    finally:
        gateway.stop()
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_two_gateways_on_one_directory_of_certificates_order_once(gateway, peb, tmp_path):
    peb.start()
    shared = tmp_path / "acme"
    shared.mkdir(mode=0o700)
    second = Serving(tmp_path / "second")
    second.folder.mkdir()
    try:
        for each in (gateway, second):
            each.state.path.mkdir(mode=0o700)
            (each.state.path / "acme").symlink_to(shared)
        gateway.write_acme(peb)
        second.write_acme(peb)
        gateway.start()
        second.start()
        leaf = gateway.wait_issued()
        wait_until(lambda: second.issuer() and second.shown() == leaf)
        assert peb.log().count("POST /order-plz") == 1
    finally:
        second.stop()
