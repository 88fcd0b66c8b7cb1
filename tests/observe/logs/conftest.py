"""Servers and carriers for tests of sinks: real sockets, scripted answers."""

from __future__ import annotations

import contextlib
import http.server
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from headgate.observe.logs.installing import _logging
from headgate.observe.logs.pump import Line, Pump, Sent
from tests.observe.logs.given_back import logging_given_back


def lines(*texts: str, level: int = 20) -> list[Line]:
    return [Line(1_700_000_000.5, level, "shop", f'{{"message":"{t}"}}'.encode()) for t in texts]


def wait_until(what: Callable[[], Any], patience_s: float = 20.0) -> Any:
    deadline = time.monotonic() + patience_s
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)
    return found


class Scripted:
    """An HTTP server that answers as told; (status, headers, body) each, the last again and again."""

    def __init__(self, *answers: tuple[int, dict[str, str], bytes]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, dict[str, str], bytes]] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                heads = {k.lower(): v for k, v in self.headers.items()}
                outer.asked.append((self.path, heads, body))
                answers = outer.answers
                status, headers, content = answers.pop(0) if len(answers) > 1 else answers[0]
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()


@pytest.fixture
def scripted():
    made: list[Scripted] = []

    def make(*answers: tuple[int, dict[str, str], bytes]) -> Scripted:
        made.append(Scripted(*answers))
        return made[-1]

    yield make
    for server in made:
        server.close()


class Noted:
    """A carrier in memory that does what its script says."""

    name = "noted"
    is_local = False

    def __init__(self, *script: Any) -> None:
        self.script = list(script)
        self.taken: list[bytes] = []
        self.batches = 0
        self.reopened = 0
        self.gate = threading.Event()
        self.gate.set()

    def send(self, batch: Any, deadline: float) -> Sent:
        self.gate.wait(max(0.0, min(20.0, deadline - time.monotonic())))
        self.batches += 1
        step = self.script.pop(0) if self.script else None
        if isinstance(step, BaseException):
            raise step
        if step is not None:
            return step(batch)
        self.taken += [line.data for line in batch]
        return Sent(len(batch))

    def reopen(self) -> None:
        self.reopened += 1

    def close(self) -> None:
        pass


@pytest.fixture
def pumped():
    made: list[Pump] = []

    def make(carrier: Any, **said: Any) -> Pump:
        made.append(Pump(carrier, **{"queue_bytes": 1_000_000, **said}))
        return made[-1]

    yield make
    for pump in made:
        gate = getattr(pump.carrier, "gate", None)
        if gate is not None:
            gate.set()
        pump.close(2.0)
        with contextlib.suppress(Exception):
            pump.carrier.close()


@pytest.fixture
def own_logging():
    """The logging of this process, given back as it was."""
    with logging_given_back():
        yield _logging
        _logging.remove()
