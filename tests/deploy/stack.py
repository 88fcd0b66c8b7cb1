"""A gateway with a Prometheus and an Alertmanager beside it, as `headgate export` sets them up."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import subprocess
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from headgate.cli.export import Kind, export
from tests.control.running import wait_until
from tests.control.serving import Instance, Serving
from tests.observe.alerts.alert_peer import Peer
from tests.ports import free_port

TOKEN = "viewer-token-of-the-stack-0123456789"
PATIENCE_S = 60.0


def program(*names: str) -> str:
    for name in names:
        if found := shutil.which(name):
            return found
    raise AssertionError(f"{names[0]} is missing: make os-test, or apt-get install {names[0]}")


def ask(url: str, token: str = "", **fields: str) -> Any:
    """The answer of something that speaks as Prometheus does; None while it is not there."""
    if fields:
        url += "?" + urllib.parse.urlencode(fields)
    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=20
        ) as answer:
            text = answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            raise AssertionError(f"{url}: {error.code} {error.read()[:500]!r}") from error
    except OSError:
        return None
    return json.loads(text) if text.startswith(("{", "[")) else text


class Figures:
    """A service that shows its own figures."""

    def __init__(self, text: str) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = text.encode()
                self.send_response(200)
                self.send_header("content-type", "text/plain; version=0.0.4")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(20)


class Stack:
    def __init__(self, folder: Path, figures: str) -> None:
        self._ends = ExitStack()
        self.folder = folder
        self.good = self._ends.enter_context(Instance("good"))
        self.bad = self._ends.enter_context(Instance("bad"))
        self.bad.status = 500
        self.peer = Peer()
        self._ends.callback(self.peer.close)
        self.figures = Figures(figures)
        self._ends.callback(self.figures.close)
        self.gateway = Serving(folder)
        self._ends.callback(self.gateway.stop)
        self.prometheus_port = free_port()
        self.alertmanager_port = free_port()
        self.sent = 0

    # -- setting up ----------------------------------------------------------------------------

    def start(self) -> None:
        self.gateway.write(
            admin={
                "bind": f"127.0.0.1:{self.gateway.admin_port}",
                "tokens": [{"name": "prometheus", "role": "viewer", "token": TOKEN}],
            },
            services={
                "users": {"instances": [self.good.url]},
                "pay": {"instances": [self.bad.url], "breaker": False},
                "inside": {"instances": [self.figures.url]},
            },
            routes=[
                {"name": "users", "match": {"path": "/users"}, "to": "users", "limit": "9999/s"},
                {"name": "pay", "match": {"path": "/pay"}, "to": "pay"},
                {
                    "name": "catalog",
                    "match": {"path": "/catalog"},
                    "to": "users",
                    "cache": {"ttl": "10min"},
                },
            ],
            access_log={"path": str(self.folder / "access.log")},
            history={"scrape": [{"service": "inside", "every": "1s"}]},
            tracing={"keep_errors": True},
            slos=[{"name": "pay", "route": "pay", "availability": "99%"}],
            alerts={
                "every": "1s",
                "rules": {"error-rate": {"for": "1s"}},
                "receivers": {"hook": {"webhook": f"{self.peer.url}/headgate"}},
                "route": {"to": "hook", "group_wait": "0s", "group_interval": "1s"},
            },
        )
        self._export("prometheus")
        self._export("alertmanager")
        self._configure()
        self._launch(
            program("prometheus-alertmanager", "alertmanager"),
            "--config.file=alertmanager/alertmanager.yml",
            f"--storage.path={self.folder / 'alertmanager-data'}",
            f"--web.listen-address=127.0.0.1:{self.alertmanager_port}",
            "--cluster.listen-address=",
            "--log.level=warn",
        )
        self._launch(
            program("prometheus"),
            "--config.file=prometheus/prometheus.yml",
            f"--storage.tsdb.path={self.folder / 'prometheus-data'}",
            f"--web.listen-address=127.0.0.1:{self.prometheus_port}",
            "--enable-feature=exemplar-storage",
            "--log.level=warn",
        )
        self.gateway.start()

    def _export(self, kind: str) -> None:
        # As `headgate export KIND FILE` does; an interpreter more would cost a second.
        export(Kind(kind), self.gateway.file, self.folder / kind)

    def _configure(self) -> None:
        """What whoever installs it fills in; and all goes by the second."""
        (self.folder / "prometheus/headgate-token").write_text(TOKEN)
        for file in (self.folder / "prometheus").rglob("*.yml"):
            text = re.sub(r"(interval: )\d+s", r"\g<1>1s", file.read_text())
            text = text.replace("127.0.0.1:9093", f"127.0.0.1:{self.alertmanager_port}")
            file.write_text(text)
        file = self.folder / "alertmanager/alertmanager.yml"
        file.write_text(
            file.read_text().replace("http://127.0.0.1:9/", f"{self.peer.url}/alertmanager")
        )

    def _launch(self, *words: str) -> None:
        with (self.folder / f"{Path(words[0]).name}.log").open("wb") as log:
            process = subprocess.Popen(
                words,
                cwd=self.folder,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={"PATH": os.environ["PATH"], "GOMAXPROCS": "1"},
            )

        def end() -> None:
            process.kill()
            process.wait()

        self._ends.callback(end)

    def close(self) -> None:
        self._ends.close()

    # -- asking --------------------------------------------------------------------------------

    def visit(self, path: str, times: int = 1) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.gateway.port, timeout=20)
        try:
            for _ in range(times):
                connection.request("GET", path)
                connection.getresponse().read()
        finally:
            connection.close()
        self.sent += times

    def query(self, which: str, path: str, **fields: str) -> Any:
        """The data that Prometheus, or Headgate, answers; None while it is not there."""
        port, token = self.prometheus_port, ""
        if which == "headgate":
            port, token = self.gateway.admin_port, TOKEN
        answer = ask(f"http://127.0.0.1:{port}/api/v1/{path}", token, **fields)
        return None if answer is None else answer["data"]

    def values(
        self, which: str, expr: str, **fields: str
    ) -> dict[tuple[tuple[str, str], ...], float]:
        """By their labels, without those that only Prometheus gives."""
        data = self.query(which, "query", query=expr, **fields)
        if data is None:
            return {}
        if data["resultType"] == "scalar":
            return {(): float(data["result"][1])}
        own = ("__name__", "instance", "job")
        return {
            tuple(sorted((n, v) for n, v in one["metric"].items() if n not in own)): float(
                one["value"][1]
            )
            for one in data["result"]
        }

    def wait_counted(self, count: int) -> None:
        """Until both have seen so many requests."""
        expr = 'sum(headgate_http_requests_total{route=~"users|pay|catalog"})'
        for which in ("prometheus", "headgate"):
            try:
                wait_until(lambda: self.values(which, expr).get((), 0.0) >= count, PATIENCE_S)
            except AssertionError:
                logs = {path.name: path.read_text()[-2000:] for path in self.folder.glob("*.log")}
                found = self.values(which, expr)
                raise AssertionError(f"{which} counts {found}, not {count}; {logs}") from None

    def told(self, who: str) -> list[dict[str, Any]]:
        """The alerts that `/headgate` or `/alertmanager` was told of."""
        return [
            alert
            for path, _, body in list(self.peer.got)
            if path == f"/{who}"
            for alert in json.loads(body)["alerts"]
        ]


@contextmanager
def stack(folder: Path, figures: str) -> Iterator[Stack]:
    made = Stack(folder, figures)
    try:
        made.start()
        yield made
    finally:
        made.close()
