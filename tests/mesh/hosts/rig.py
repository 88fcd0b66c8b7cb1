"""A gateway, a service of two instances and its callers, each on a host of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from headgate.control.client import AdminClient
from headgate.control.state_dir import StateDir
from tests.control.running import ENV, wait_until
from tests.mesh.hosts.net import Net

HERE = Path(__file__).parent
ADMIN = 9900
TOKEN = "a-token-of-the-services-0123456789"
PATIENCE_S = 40.0


class Hosts:
    """`g` has the gateway with the registry, `a` and `b` an instance each; callers are on `c`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.net = Net("g", "a", "b", "c")
        self.control = f"http://{self.net.address('g')}:{ADMIN}"
        self.env = {**ENV, "HEADGATE_TOKEN": TOKEN}
        self.state = StateDir(folder / "state")
        self.gateway: subprocess.Popen[bytes] | None = None
        self.services: dict[str, subprocess.Popen[bytes]] = {}

    def start_gateway(self) -> None:
        config = {
            "listeners": [{"bind": "0.0.0.0:8080"}],
            "admin": {
                "bind": f"0.0.0.0:{ADMIN}",
                "tokens": [{"name": "services", "role": "service", "token": TOKEN}],
            },
            "workers": 1,
            "state_dir": str(self.state.path),
            "watch": False,
            "history": "off",
            "alerts": "off",
            "tracing": "off",
            "registry": {"min_ttl": "1s"},
            "services": {"users": {"discover": "registry"}},
            "routes": [{"name": "users", "match": {"path": "/"}, "to": "users"}],
        }
        file = self.folder / "headgate.yaml"
        file.write_text(json.dumps(config))
        log = (self.folder / "gateway.log").open("ab")
        with log:
            self.gateway = self.net.start(
                "g", [sys.executable, "-m", "headgate", "run", str(file)],
                env=self.env, stdout=log, stderr=log,
            )  # fmt: skip
        wait_until(self._is_up, PATIENCE_S)

    def _is_up(self) -> bool:
        try:
            return self.ask("/api/health")["workers_ready"] == 1
        except Exception:
            return False

    def ask(self, path: str) -> Any:
        return AdminClient(self.state).ask("GET", path).content

    def start_service(self, host: str, skew_s: float = 0.0) -> None:
        command = [sys.executable, str(HERE / "serve.py"), host, "3001", self.control]
        log = (self.folder / f"{host}.log").open("ab")
        with log:
            process = self.net.start(
                host, [*command, str(skew_s)], env=self.env, stdout=subprocess.PIPE, stderr=log
            )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.stdout.close()
        self.services[host] = process

    def start_visitor(self, service: str) -> None:
        file = self.folder / "visitor.yaml"
        file.write_text(
            json.dumps(
                {
                    "listeners": [{"bind": "127.0.0.1:1"}],
                    "services": {
                        "users": {
                            "discover": "registry",
                            "timeout": {"connect": "300ms", "per_try": "300ms", "total": "10s"},
                            "retry": {"attempts": 4, "budget": "100%"},
                            "outlier": {"errors": 2, "eject": "2s"},
                        },
                        # The gateway: whatever fails there is to be seen.
                        "edge": {
                            "instances": [f"http://{self.net.address('g')}:8080"],
                            "retry": False,
                        },
                    },
                    "routes": [{"match": {"path": "/"}, "to": "users"}],
                }
            )
        )
        with (self.folder / f"visits-{service}").open("wb") as log:
            self.net.start(
                "c",
                [sys.executable, str(HERE / "visit.py"), str(file), self.control, service],
                env=self.env,
                stdout=log,
                stderr=log,
            )

    # -- what the visitor has seen ---------------------------------------------------------------

    def seen(self, service: str = "users") -> dict[str, Any]:
        lines = (self.folder / f"visits-{service}").read_text().splitlines()
        for line in reversed(lines):
            if line.startswith("{") and line.endswith("}"):
                found: dict[str, Any] = json.loads(line)
                return found
        return {"ok": 0, "failed": [], "by": {}, "slowest_s": 0.0}

    def visited(self, *hosts: str, times: int = 10, service: str = "users") -> None:
        """Wait until each of these has answered so often again."""
        before = self.seen(service)["by"]
        wait_until(
            lambda: all(
                self.seen(service)["by"].get(host, 0) >= before.get(host, 0) + times
                for host in hosts
            ),
            PATIENCE_S,
        )

    def visited_only(self, host: str) -> None:
        """Wait until so many answers in a row were of one host."""
        other = "b" if host == "a" else "a"

        def alone() -> bool:
            before = self.seen()["by"]
            self.visited(host, times=30)
            return self.seen()["by"].get(other, 0) == before.get(other, 0)

        wait_until(alone, PATIENCE_S)

    def instances(self) -> dict[str, str]:
        found = self.ask("/api/registry/services/users")
        return {each["id"]: each["state"] for each in found["instances"]}

    def kill_gateway(self) -> None:
        """All of it at once, as when its machine dies."""
        if self.gateway is None:
            raise RuntimeError("no gateway runs")
        instance = json.loads((self.state.path / "instance.json").read_text())
        os.kill(instance["pid"], signal.SIGKILL)
        self.gateway.wait(30)
        self.gateway = None

    def close(self) -> None:
        if self.gateway is not None:
            self.gateway.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.gateway.wait(30)
        self.net.close()
