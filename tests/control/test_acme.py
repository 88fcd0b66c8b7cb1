"""Certificates ordered from a real ACME server by a real gateway."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from headgate.security.certificates.store import AcmeStore
from tests.control.pebble import Pebble, pebble
from tests.control.running import Gateway, free_port, wait_until

WORKER = "headgate.gateway.worker:Worker"
NAME = "shop.test"


class Serving(Gateway):
    """A gateway with a plain listener and one with `certificate: acme`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.worker_class = WORKER
        self.tls_port = free_port()

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
        routes = [{"match": match, "respond": {"body": "served"}}]
        body = {"acme": acme, "listeners": listeners, "routes": routes, "watch": False}
        self.write(**{"workers": 2, "state_dir": str(self.state.path), **body, **more})

    def store(self, peb: Pebble) -> AcmeStore:
        return AcmeStore(self.state.path, peb.directory)

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

    def wait_issued(self, name: str = NAME, patience_s: float = 40.0) -> x509.Certificate:
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
    gateway.write_acme(peb)
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


