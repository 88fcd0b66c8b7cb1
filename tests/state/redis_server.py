"""A real redis-server, on 127.0.0.1 and a free port, in a folder of the test's."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from tests.ports import free_port

PATIENCE_S = 15.0
PROGRAMS = ("redis-server", "valkey-server")
_RNG = random.SystemRandom()


def program() -> str:
    for name in PROGRAMS:
        found = shutil.which(name)
        if found is not None:
            return found
    raise AssertionError("these tests need a Redis: apt-get install redis-server")


class RedisServer:
    def __init__(self, folder: Path, *options: str, port: int | None = None) -> None:
        self.folder = folder
        self.options = options
        self.port = port or free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        command = [program(), "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--save", "", "--appendonly", "no", "--dir", str(self.folder), *self.options]
        with (self.folder / "redis.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + PATIENCE_S
        while b"PONG" not in self._try_ping() and b"NOAUTH" not in self._try_ping():
            assert self.process.poll() is None, (self.folder / "redis.log").read_text()
            assert time.monotonic() < deadline, "Redis does not answer"
            time.sleep(0.01)

    def _try_ping(self) -> bytes:
        try:
            return self.say("PING")
        except OSError:
            return b""

    def say(self, *words: str) -> bytes:
        """One command, and the first bytes of what Redis answers."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as sock:
            parts = [f"*{len(words)}\r\n"]
            parts += [f"${len(word.encode())}\r\n{word}\r\n" for word in words]
            sock.sendall("".join(parts).encode())
            return sock.recv(65536)

    def key_names(self) -> list[str]:
        lines = self.say("KEYS", "*").decode().split("\r\n")
        return [line for line in lines if line and line[0] not in "*$"]

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()
