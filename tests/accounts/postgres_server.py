"""A real PostgreSQL, on 127.0.0.1 and a free port, in a folder of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from tests.ports import free_port

PATIENCE_S = 30.0
USER = "headgate"


def program(name: str) -> str:
    found = shutil.which(name)
    if found is not None:
        return found
    for path in sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True):
        return str(path)
    raise AssertionError("these tests need PostgreSQL: apt-get install postgresql")


class PostgresServer:
    def __init__(self) -> None:
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        # Not in pytest's folder: PostgreSQL refuses to run as root, and nobody else gets in there.
        self.folder = Path(tempfile.mkdtemp(prefix="headgate-postgres-"))
        self.account: str | None = None
        if os.getuid() == 0:
            self.account = "postgres"
            found = pwd.getpwnam(self.account)
            os.chown(self.folder, found.pw_uid, found.pw_gid)

    @property
    def url(self) -> str:
        return f"postgresql+asyncpg://{USER}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        data = self.folder / "data"
        made = subprocess.run(
            [
                program("initdb"),
                "-D",
                str(data),
                "-U",
                USER,
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--no-sync",
            ],
            user=self.account,
            cwd=self.folder,
            capture_output=True,
            timeout=60,
        )
        assert made.returncode == 0, made.stderr.decode()
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "fsync": "off",
            "max_connections": "60",
            "shared_buffers": "16MB",
        }
        command = [program("postgres"), "-D", str(data)]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, user=self.account, cwd=self.folder, stdout=log, stderr=log
            )
        deadline = time.monotonic() + PATIENCE_S
        while not self._is_ready():
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.05)

    def _is_ready(self) -> bool:
        asked = subprocess.run(
            [program("pg_isready"), "-h", "127.0.0.1", "-p", str(self.port), "-q"],
            timeout=10,
        )
        return asked.returncode == 0

    def stop(self) -> None:
        try:
            if self.process is not None and self.process.poll() is None:
                self.process.send_signal(signal.SIGQUIT)  # at once: nothing of it is kept
                try:
                    self.process.wait(10)
                except subprocess.TimeoutExpired:
                    self.process.kill()
                    self.process.wait()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
