"""A control process, two processes with a sidecar each, and clients that know nothing of a mesh."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.control.running import ENV, PATIENCE_S, UNOBSERVED, Gateway, free_port, wait_until

DOMAIN = "shop.example"
ACCESS = {
    "rules": [
        {"from": ["orders", "users"], "to": "users", "methods": "GET", "paths": "/users/"},
        {"from": "users", "to": "orders", "paths": "/slow"},
        {"from": "anonymous", "to": "users", "paths": "/health"},
    ],
}


class Process:
    """A plain HTTP server: tells what it was asked; `/slow` answers when `goes_on` is set."""

    def __init__(self, path: str = "") -> None:
        self.goes_on = threading.Event()
        self.came = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if self.path == "/slow":
                    outer.came.set()
                    outer.goes_on.wait(PATIENCE_S)
                length = int(self.headers.get("content-length") or 0)
                said = {
                    "path": self.path,
                    "headers": {name.lower(): value for name, value in self.headers.items()},
                    "body": self.rfile.read(length).decode(),
                }
                content = json.dumps(said).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_POST = do_GET  # noqa: N815 - the library's name

            def address_string(self) -> str:
                return "-"

            def log_message(self, *_: Any) -> None:
                """Nobody reads it."""

        class Server(ThreadingHTTPServer):
            address_family = socket.AF_UNIX if path else socket.AF_INET
            daemon_threads = True

            def server_bind(self) -> None:
                self.socket.bind(self.server_address)
                self.server_name, self.server_port = "localhost", 0

        self.server = Server(path or ("127.0.0.1", 0), Handler)  # type: ignore[arg-type]
        self.port = 0 if path else self.server.socket.getsockname()[1]
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))

    def __enter__(self) -> Process:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.goes_on.set()
        self.server.shutdown()
        self.server.server_close()
        self._thread.join(PATIENCE_S)


class Sidecar:
    """`headgate sidecar`, as somebody would type it."""

    def __init__(self, folder: Path, name: str, *words: str, env: dict[str, str]) -> None:
        self.inbound, self.outbound = free_port(), free_port()
        self._log = folder / f"{name}.log"
        command = [sys.executable, "-m", "headgate", "sidecar", "--name", name]
        command += ["--inbound", f"127.0.0.1:{self.inbound}"]
        command += ["--outbound", f"127.0.0.1:{self.outbound}", "--drain", "15s", *words]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, env={**ENV, **env}, stdin=subprocess.DEVNULL, stderr=log
            )

    @property
    def said(self) -> str:
        return self._log.read_text()

    def end(self) -> int:
        """SIGTERM, and how it ended."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    # -- asking it -----------------------------------------------------------------------------

    def ask(self, host: str, target: str, method: str = "GET", **headers: str) -> tuple[int, Any]:
        """As the process beside it would, over a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.outbound, timeout=PATIENCE_S)
        try:
            connection.request(method, target, headers={"host": host, **headers})
            got = connection.getresponse()
            return got.status, json.loads(got.read())
        finally:
            connection.close()


def raw_exchange(port: int, *requests: bytes) -> list[tuple[int, bytes]]:
    """One keep-alive connection, each response read to its end before the next request."""
    found = []
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as sock:
        reader = sock.makefile("rb")
        with contextlib.closing(reader):
            for request in requests:
                sock.sendall(request)
                status = int(reader.readline().split()[1])
                length = 0
                while (line := reader.readline()) not in (b"\r\n", b""):
                    name, _, value = line.partition(b":")
                    if name.lower() == b"content-length":
                        length = int(value)
                found.append((status, reader.read(length)))
    return found


class Mesh:
    def __init__(self, folder: Path, gateway: Gateway, users: Process, orders: Process) -> None:
        self.folder = folder
        self.gateway = gateway
        self.users_process, self.orders_process = users, orders
        control = f"http://127.0.0.1:{gateway.admin_port}"
        self.token = self._made("/api/tokens", {"name": "sidecars", "role": "service"})
        self.control = control
        self.users = self._sidecar("users", "--port", str(users.port), "--health", "/health")
        self.orders = self._sidecar(
            "orders", "--process", f"unix:{folder}/o.sock", "--mtls", "permissive"
        )

    def _made(self, path: str, order: dict[str, Any]) -> str:
        made = self.gateway.admin.ask("POST", path, order).content
        token: str = made["token"]
        return token

    def _sidecar(self, name: str, *words: str) -> Sidecar:
        joined = self._made("/api/mesh/tokens", {"service": name, "expires_in": "1h", "uses": 1})
        env = {"HEADGATE_TOKEN": self.token, "HEADGATE_JOIN_TOKEN": joined}
        return Sidecar(self.folder, name, "--control", self.control, *words, env=env)

    def registered(self) -> dict[str, tuple[int, int]]:
        """How many instances are up, and how many are leaving, by service."""
        rows = self.gateway.admin.ask("GET", "/api/registry/services").content
        return {row["service"]: (row["up"], row["draining"]) for row in rows}

    def wait_ready(self) -> None:
        """Both are registered, and each can call the other."""
        try:
            wait_until(lambda: self.registered() == {"users": (1, 0), "orders": (1, 0)}, 60.0)
            wait_until(lambda: self.orders.ask("users", "/users/0")[0] == 200, 60.0)
            wait_until(lambda: self.users.ask("orders", "/0")[0] == 403, 60.0)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.users.said}\n{self.orders.said}") from None

    def close(self) -> None:
        self.users.close()
        self.orders.close()


@contextlib.contextmanager
def running_mesh(folder: Path) -> Iterator[Mesh]:
    gateway = Gateway(folder)
    gateway.write(
        workers=1,
        mesh={"trust_domain": DOMAIN, "access": ACCESS},
        services={"users": {"discover": "registry"}, "orders": {"discover": "registry"}},
        **UNOBSERVED,
    )
    mesh = None
    with Process() as users, Process(str(folder / "o.sock")) as orders:
        try:
            gateway.start()
            mesh = Mesh(folder, gateway, users, orders)
            mesh.wait_ready()
            yield mesh
        finally:
            if mesh is not None:
                mesh.close()
            gateway.stop()
