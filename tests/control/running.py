"""A gateway of real processes for a test, and what a test asks of it."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headgate.cli.app import main
from headgate.control.client import AdminClient
from headgate.control.state_dir import StateDir
from tests.control.nursery import Process, nursery
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 20.0
START_PATIENCE_S = 60.0
"""Seven processes import what they need: 3 s when it is quiet, 25 s beside eight that compute."""
ENV = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
# A control process that keeps nothing starts in three quarters of the time; most tests are about
# something else.
UNOBSERVED: dict[str, Any] = {"history": "off", "alerts": "off", "tracing": "off"}
ECHO = "tests.control.echo_worker:EchoWorker"


def wait_until(what: Callable[[], Any], patience_s: float = PATIENCE_S) -> Any:
    """Poll until `what` is true; its answer. The longer it takes the more seldom: whoever asks
    takes the processor away from those it waits for.
    """
    began = time.monotonic()
    while True:
        found = what()
        if found:
            return found
        waited_s = time.monotonic() - began
        assert waited_s < patience_s, f"not within {patience_s} s: {what}"
        time.sleep(min(max(0.01, waited_s / 20), 0.1))


def is_alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


class Answer:
    def __init__(self, text: str) -> None:
        self.text = text
        self.body, generation, index, pid, reopened = text.split(" ")
        self.generation, self.index = int(generation), int(index)
        self.pid, self.reopened = int(pid), int(reopened)


class Gateway:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "headgate.yaml"
        self.state = StateDir(folder / "state")
        self.port = free_port()
        self.admin_port = free_port()
        self.worker_class = ECHO
        self.observes = True
        self.process: subprocess.Popen[str] | Process | None = None
        self.log: list[str] = []
        self._reader: threading.Thread | None = None

    # ------------------------------------------------------------------------------ the file

    def write(self, body: str = "one", **more: Any) -> None:
        config: dict[str, Any] = {
            "listeners": [{"bind": f"127.0.0.1:{self.port}"}],
            "admin": {"bind": f"127.0.0.1:{self.admin_port}"},
            "workers": 2,
            "drain": "5s",
            "routes": [{"match": {"path": "/"}, "respond": {"body": body}}],
            **({} if self.observes else UNOBSERVED),
            **more,
        }
        draft = self.file.with_suffix(".draft")
        draft.write_text(json.dumps(config, indent=1))
        draft.replace(self.file)

    # --------------------------------------------------------------------------- the process

    def start(self, *rest: str, prefix: tuple[str, ...] = (), wait: bool = True) -> None:
        command = [*prefix, sys.executable, "-m", "tests.control.launch_run"]
        command += [str(self.file), str(self.state.path), self.worker_class, *rest]
        self._launch(command, wait=wait)

    def _launch(self, command: list[str], *, wait: bool) -> None:
        """A module by a copy of the nursery, anything else as it stands."""
        self.log = []
        if command[:2] == [sys.executable, "-m"]:
            self.process = nursery().start(command[2], command[3:], cwd=self.folder, env=ENV)
        else:
            self.process = subprocess.Popen(
                command,
                env=ENV,
                cwd=self.folder,
                stderr=subprocess.PIPE,
                stdin=subprocess.DEVNULL,
                text=True,
            )
        self._reader = threading.Thread(
            target=self._read, args=(self.process, self.log), daemon=True
        )
        self._reader.start()
        if not wait:
            return
        try:
            self.wait_for("ready: ", patience_s=START_PATIENCE_S)
            wait_until(lambda: self.health().get("workers_ready"), START_PATIENCE_S)
        except BaseException:
            self.stop()  # a fixture that fails here has nothing to end
            raise

    @staticmethod
    def _read(process: subprocess.Popen[str] | Process, log: list[str]) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            log.append(line.rstrip())

    def wait_for(self, text: str, after: int = 0, *, patience_s: float = PATIENCE_S) -> str:
        def found() -> str | None:
            for line in self.log[after:]:
                if text in line:
                    return line
            assert self.process is None or self.process.poll() is None or text in self.said, (
                self.said
            )
            return None

        line: str = wait_until(found, patience_s)
        return line

    @property
    def said(self) -> str:
        return "\n".join(self.log)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def signal(self, signum: int) -> None:
        os.kill(self.pid, signum)

    def wait_end(self, timeout_s: float = PATIENCE_S) -> int:
        assert self.process is not None
        assert self._reader is not None
        status = self.process.wait(timeout_s)
        self._close()
        return status

    def _close(self) -> None:
        assert self.process is not None
        if self._reader is not None:
            self._reader.join(5)
        if self.process.stderr is not None:
            self.process.stderr.close()

    def stop(self) -> None:
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._close()

    # -------------------------------------------------------------------------------- asking

    def get(self, path: str = "/", *, port: int | None = None, timeout_s: float = 15.0) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=timeout_s)
        try:
            connection.request("GET", path, headers={"connection": "close"})
            return Answer(connection.getresponse().read().decode())
        finally:
            connection.close()

    def refuses(self, port: int | None = None) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", port or self.port), timeout=5):
                return False
        except ConnectionRefusedError:
            return True

    @property
    def admin(self) -> AdminClient:
        return AdminClient(self.state)

    def health(self) -> dict[str, Any]:
        with contextlib.suppress(Exception):
            content: dict[str, Any] = self.admin.ask("GET", "/api/health").content
            return content
        return {}

    def workers(self) -> list[dict[str, Any]]:
        with contextlib.suppress(Exception):
            rows: list[dict[str, Any]] = self.admin.ask("GET", "/api/workers").content
            return rows
        return []

    def worker_pids(self) -> list[int]:
        return [row["pid"] for row in self.workers() if row["state"] == "ready"]

    def wait_workers(self, count: int) -> None:
        wait_until(lambda: len(self.worker_pids()) == count)

    def wait_gone(self, pid: int) -> None:
        wait_until(lambda: all(row["pid"] != pid for row in self.workers()))

    def children(self) -> list[int]:
        return [
            int(pid)
            for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        ]

    def control_pid(self) -> int:
        for pid in self.children():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text().strip() == "headgate-ctl":
                    return pid
        return 0

    def _located(self, words: tuple[str, ...]) -> list[str]:
        if self.state.path.name == ".headgate":
            return list(words)  # beside the file, where commands look by themselves
        return [*words, "--state-dir", str(self.state.path)]

    def command(self, *words: str) -> Done:
        """A command of ours, in this process: an interpreter more would cost half a second."""
        out, err = io.StringIO(), io.StringIO()
        home = Path.cwd()
        os.chdir(self.folder)
        # A width that is left from elsewhere would cut what a test looks for.
        columns = os.environ.pop("COLUMNS", None)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                try:
                    main(self._located(words))
                except SystemExit as ended:
                    code = ended.code
        finally:
            os.chdir(home)
            if columns is not None:
                os.environ["COLUMNS"] = columns
        return Done(int(code or 0), out.getvalue(), err.getvalue())


class Load:
    """Requests without a pause on a few threads; what went wrong is kept."""

    def __init__(self, gateway: Gateway, threads: int = 3) -> None:
        self.gateway = gateway
        self.failures: list[str] = []
        self.answers: list[Answer] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.answers.append(self.gateway.get())
            except Exception as error:
                self.failures.append(repr(error))
            time.sleep(0.001)

    def wait_for_more(self, count: int = 20) -> None:
        now = len(self.answers)
        wait_until(lambda: len(self.answers) >= now + count)


@contextlib.contextmanager
def running(folder: Path, *rest: str, **config: Any) -> Iterator[Gateway]:
    gateway = Gateway(folder)
    gateway.write(**config)
    try:
        gateway.start(*rest)
        yield gateway
    finally:
        gateway.stop()


__all__ = ["ENV", "Gateway", "Load", "free_port", "is_alive", "running", "signal", "wait_until"]
