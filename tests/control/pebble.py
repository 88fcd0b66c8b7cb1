"""Pebble, a real ACME server, on free ports with certificates of its own, for as long as a test."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from headgate.wire import local_ca
from tests.control.running import wait_until
from tests.ports import free_port


@dataclass
class Pebble:
    folder: Path
    http_port: int
    tls_port: int
    ca_file: Path
    port: int
    management_port: int
    process: subprocess.Popen[bytes] | None = None
    names: subprocess.Popen[bytes] | None = None

    @property
    def directory(self) -> str:
        return f"https://127.0.0.1:{self.port}/dir"

    def start(self, **environment: str) -> None:
        dns = f"127.0.0.1:{free_port()}"
        none = [f"-{kind}=" for kind in ("http01", "https01", "tlsalpn01")]
        options = [f"-dns01={dns}", f"-management=127.0.0.1:{free_port()}", "-defaultIPv6=", *none]
        command = [_program("pebble"), "-config", str(self.folder / "pebble.json")]
        command += ["-dnsserver", dns]
        # What it does at random otherwise is for the tests that are about it.
        steady = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_AUTHZREUSE": "0", "PEBBLE_WFE_NONCEREJECT": "0"}
        environment = {**steady, **environment}
        with (self.folder / "pebble.log").open("ab") as log:
            self.names = subprocess.Popen(
                [_program("pebble-challtestsrv"), *options], stdout=log, stderr=log
            )
            self.process = subprocess.Popen(
                command, env={**os.environ, **environment}, stdout=log, stderr=log
            )
        wait_until(self._answers)

    def stop(self) -> None:
        for process in (self.process, self.names):
            if process is not None:
                process.kill()
                process.wait()
        self.process = self.names = None

    def log(self) -> str:
        return (self.folder / "pebble.log").read_text()

    def ask(self, path: str) -> bytes:
        """The management interface."""
        url = f"https://127.0.0.1:{self.management_port}{path}"
        with urllib.request.urlopen(url, context=self._trust(), timeout=10) as answer:
            content: bytes = answer.read()
            return content

    def root(self) -> str:
        return self.ask("/roots/0").decode()

    def status(self, serial: int) -> str:
        said: dict[str, Any] = json.loads(self.ask(f"/cert-status-by-serial/{serial:x}"))
        return str(said["Status"])

    def _trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.ca_file)

    def _answers(self) -> bool:
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(self.directory, context=self._trust(), timeout=5),
        ):
            return True
        return False


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.fail(f"{name} is missing; install it with: apt-get install pebble")
    return found


@contextlib.contextmanager
def pebble(
    folder: Path,
    http_port: int,
    tls_port: int,
    *,
    binding: dict[str, str] | None = None,
    validity_s: int = 90 * 86400,
    start: bool = True,
    **environment: str,
) -> Iterator[Pebble]:
    """Pebble that validates on these ports of this machine. All names below are 127.0.0.1."""
    folder.mkdir(exist_ok=True)
    made = local_ca.ensure(folder / "own", ["127.0.0.1"], time.time())
    it = Pebble(folder, http_port, tls_port, made.ca_path, free_port(), free_port())
    config = {
        "listenAddress": f"127.0.0.1:{it.port}",
        "managementListenAddress": f"127.0.0.1:{it.management_port}",
        "certificate": str(made.path),
        "privateKey": str(made.path),
        "httpPort": http_port,
        "tlsPort": tls_port,
        "ocspResponderURL": "",
        "externalAccountBindingRequired": binding is not None,
        "externalAccountMACKeys": binding or {},
        "certificateValidityPeriod": validity_s,
    }
    (folder / "pebble.json").write_text(json.dumps({"pebble": config}))
    try:
        if start:
            it.start(**environment)
        yield it
    finally:
        it.stop()
