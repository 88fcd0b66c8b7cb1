"""`headgate demo`: the gateway before two echo services, and what to try on it.

The two services run in this process, the gateway in a child of it, on a copy of `demo.yaml` in a
temporary folder. With --check the demo does by itself what it would suggest to a person, and says
what came of it; the tests run that.
"""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from importlib import resources
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from headgate.errors import HeadgateError
from headgate.testing.echo import EchoServer

START_S = 60.0
CACHED = "/api/catalog/chairs"
CACHED_ASKS = 20
"""So that two workers are surely both asked before the last."""
STOP_S = 15.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, reduced to what the checks look at."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict[str, object]:
        said = json.loads(self.body)
        return said if isinstance(said, dict) else {}

    def sent_headers(self) -> dict[str, str]:
        """The request headers that the echo service says it saw."""
        seen = self.json().get("headers")
        return seen if isinstance(seen, dict) else {}


@dataclass(frozen=True, slots=True)
class Try:
    """One thing to try: a line for a person, and the same request for --check."""

    title: str
    path: str
    holds: Callable[[Answer], bool]
    headers: dict[str, str] = field(default_factory=dict)
    curl: str = "curl -i"
    is_admin: bool = False


@dataclass(frozen=True, slots=True)
class Stage:
    """Where everything is."""

    file: Path
    gateway: str
    admin: str

    @property
    def log(self) -> Path:
        """What the gateway says, access log included."""
        return self.file.with_name("gateway.log")

    @property
    def token_file(self) -> Path:
        return self.file.parent / ".headgate" / "admin-token"

    def token(self) -> str:
        return self.token_file.read_text().strip()

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "headgate", *words]


TRIES = (
    Try(
        "A route by its path: the users service answers",
        "/api/users/42?full=1",
        lambda got: got.status == 200 and got.json()["service"] == "users",
    ),
    Try(
        "A template with a typed parameter, rewritten: products sees /items/7",
        "/api/products/7",
        lambda got: got.status == 200 and got.json()["path"] == "/items/7",
    ),
    Try(
        "No route: problem+json with the request id",
        "/nowhere",
        lambda got: (
            got.status == 404
            and got.headers["content-type"] == "application/problem+json"
            and bool(got.headers["x-request-id"])
        ),
    ),
    Try(
        "Header edits: x-internal is taken out, x-from put in, server hidden",
        "/api/users/me",
        lambda got: (
            got.sent_headers().get("x-from") == "the gateway"
            and "x-internal" not in got.sent_headers()
            and got.headers["x-served-by"] == "headgate"
            and "server" not in got.headers
        ),
        headers={"x-internal": "forged"},
    ),
    Try(
        "Compression of a stream, negotiated",
        "/api/products/stream/300?tick=0",
        lambda got: (
            got.headers.get("content-encoding") == "gzip"
            and gzip.decompress(got.body).count(b"piece") == 300
        ),
        headers={"accept-encoding": "gzip"},
        curl="curl --compressed -i",
    ),
    Try(
        "A redirect",
        "/users/42",
        lambda got: got.status == 308 and got.headers["location"].endswith("/api/users/42"),
    ),
    Try(
        "Server-sent events, without delay",
        "/api/products/sse?n=3&tick=0.5",
        lambda got: (
            got.headers["content-type"] == "text/event-stream"
            and got.body.count(b"event: tick") == 3
        ),
        curl="curl -N",
    ),
    Try(
        "Metrics, for Prometheus, with the token",
        "/metrics",
        lambda got: got.status == 200 and b"headgate_" in got.body,
        is_admin=True,
        curl="curl",
    ),
)


def demo(
    check: Annotated[
        bool, typer.Option("--check", help="Do what would be suggested, and end.")
    ] = False,
) -> None:
    """Run the gateway before two echo services, and say what to try. Ctrl-C ends it."""
    console = Console(highlight=False, soft_wrap=True)
    leave = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        leave.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    with stage() as (scene, gateway):
        if not wait_until_ready(scene, gateway, leave):
            return
        if check:
            if not run_checks(console, scene):
                raise typer.Exit(1)
            return
        suggest(console, scene)
        while not leave.wait(0.2):
            if gateway.poll() is not None:
                raise failed(scene, f"ended by itself, with {gateway.returncode}")
        console.print("\nstopping")


@contextlib.contextmanager
def stage() -> Iterator[tuple[Stage, subprocess.Popen[bytes]]]:
    """Both services and the gateway, running; all of it is gone afterwards."""
    with (
        tempfile.TemporaryDirectory(prefix="headgate-demo-") as folder,
        EchoServer("users") as users,
        EchoServer("products") as products,
    ):
        gateway, admin = free_address(8080), free_address(9900)
        text = resources.files("headgate.cli").joinpath("demo.yaml").read_text()
        for here, there in (
            ("127.0.0.1:8080", gateway),
            ("127.0.0.1:9900", admin),
            ("127.0.0.1:3001", users.url.removeprefix("http://")),
            ("127.0.0.1:3002", products.url.removeprefix("http://")),
        ):
            text = text.replace(here, there)
        scene = Stage(Path(folder) / "demo.yaml", f"http://{gateway}", f"http://{admin}")
        scene.file.write_text(text)
        with scene.log.open("wb") as out:
            child = subprocess.Popen(
                scene.command("run", str(scene.file)),
                stdout=out,
                stderr=subprocess.STDOUT,
                # Ctrl-C is ours alone: we stop the gateway, then the services behind it.
                start_new_session=True,
            )
        try:
            yield scene, child
        finally:
            stop(child)


def stop(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is not None:
        return
    child.terminate()
    try:
        child.wait(STOP_S)
    except subprocess.TimeoutExpired:
        # The group is the child's own; its workers must not outlive it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def free_address(port: int) -> str:
    """The usual port if nobody has it, else a free one."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def wait_until_ready(
    scene: Stage, gateway: subprocess.Popen[bytes], leave: threading.Event
) -> bool:
    """Wait for an answer through the gateway; False when somebody stops the demo meanwhile."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if gateway.poll() is not None:
            raise failed(scene, f"did not start and ended with {gateway.returncode}")
        with contextlib.suppress(OSError, http.client.HTTPException):
            if get(scene.gateway, "/api/users/health").status == 200 and scene.token_file.exists():
                return True
        if leave.wait(0.1):
            return False
    raise failed(scene, f"did not answer within {START_S:.0f} s")


def failed(scene: Stage, what: str) -> HeadgateError:
    """The gateway's last words go with the news: its log goes with the folder."""
    last = scene.log.read_text(errors="replace").splitlines()[-20:]
    return HeadgateError("\n".join((f"the gateway {what}; it said last:", *last)))


def get(base: str, path: str, headers: dict[str, str] | None = None) -> Answer:
    connection = http.client.HTTPConnection(base.removeprefix("http://"), timeout=10)
    try:
        connection.request("GET", path, headers=headers or {})
        got = connection.getresponse()
        named = {name.lower(): value for name, value in got.getheaders()}
        return Answer(got.status, named, got.read())
    finally:
        connection.close()


# ---- for a person


def suggest(console: Console, scene: Stage) -> None:
    console.print(
        f"\n[bold]The gateway answers on {scene.gateway}[/bold]; its file is {scene.file}"
    )
    for one in TRIES:
        base = scene.admin if one.is_admin else scene.gateway
        line = [one.curl]
        line += [
            f"-H {shlex.quote(f'{name}: {value}')}"
            for name, value in one.headers.items()
            if name != "accept-encoding"
        ]
        if one.is_admin:
            line.append(f'-H "Authorization: Bearer $(cat {shlex.quote(str(scene.token_file))})"')
        line.append(shlex.quote(base + one.path))
        show(console, one.title, " ".join(line))
    program = shlex.join(scene.command())
    file = shlex.quote(str(scene.file))
    show(
        console,
        "Which route a request takes, and why the others do not",
        f"{program} explain {file} GET {scene.gateway}/api/products/7",
    )
    state = shlex.quote(str(scene.token_file.parent))
    show(
        console,
        "A cached route: ask twice, and Cache-Status says that the second is a hit",
        f"curl -i {scene.gateway}{CACHED}",
    )
    show(
        console,
        "What the cache did; then have it forget what is tagged",
        f"{program} cache stats --state-dir {state}"
        f" && {program} cache purge --tag catalog --state-dir {state}",
    )
    show(
        console,
        "Change the file, then swap it in without dropping a request",
        f"sed -i 's/\"hello/\"good day/' {file} && {program} reload {file}"
        f" && curl {scene.gateway}/hello",
    )
    console.print("\nCtrl-C ends the demo.")


def show(console: Console, title: str, line: str) -> None:
    console.print(f"\n[dim]# {escape(title)}[/dim]\n{escape(line)}")


# ---- for a test


def run_checks(console: Console, scene: Stage) -> bool:
    results = [attempt(console, one.title, partial(try_one, scene, one)) for one in TRIES]
    results.append(attempt(console, "explain names the route", lambda: explains(scene)))
    results.append(attempt(console, "a cached route is a hit until purged", lambda: caches(scene)))
    results.append(attempt(console, "reload takes the changed file", lambda: reloads(scene)))
    good = sum(results)
    console.print(f"{good} of {len(results)} as promised")
    return good == len(results)


def attempt(console: Console, title: str, holds: Callable[[], str]) -> bool:
    try:
        fault = holds()
    except (OSError, http.client.HTTPException, KeyError, ValueError) as error:
        fault = f"{type(error).__name__}: {error}"
    console.print(f"{'FAILED' if fault else 'ok':<7} {escape(title)}")
    if fault:
        console.print(f"        {escape(fault)}")
    return not fault


def try_one(scene: Stage, one: Try) -> str:
    headers = dict(one.headers)
    if one.is_admin:
        headers["authorization"] = f"Bearer {scene.token()}"
    got = get(scene.admin if one.is_admin else scene.gateway, one.path, headers)
    return "" if one.holds(got) else f"{got.status} {got.headers} {got.body[:300]!r}"


def explains(scene: Stage) -> str:
    done = call(scene, "explain", str(scene.file), "GET", f"{scene.gateway}/api/products/7")
    is_named = done.returncode == 0 and "product" in done.stdout
    return "" if is_named else f"{done.returncode} {done.stdout[-500:]} {done.stderr[-500:]}"


def caches(scene: Stage) -> str:
    """Each worker has a memory of its own, and the kernel chooses whom we ask."""
    said = [get(scene.gateway, CACHED).headers["cache-status"] for _ in range(CACHED_ASKS)]
    if "; stored" not in said[0] or "; hit" not in said[-1]:
        return f"{said}"
    state = ("--state-dir", str(scene.token_file.parent))
    for words in (("stats",), ("purge", "--tag", "catalog")):
        done = call(scene, "cache", *words, *state)
        if done.returncode:
            return f"{done.returncode} {done.stdout[-500:]} {done.stderr[-500:]}"
    after = get(scene.gateway, CACHED).headers["cache-status"]
    return "" if "; hit" not in after else after


def reloads(scene: Stage) -> str:
    text = scene.file.read_text()
    scene.file.write_text(text.replace(r"hello\n", r"good day\n"))
    done = call(scene, "reload", str(scene.file))
    if done.returncode:
        return f"{done.returncode} {done.stdout[-500:]} {done.stderr[-500:]}"
    got = get(scene.gateway, "/hello")
    return "" if got.body == b"good day\n" else f"{got.status} {got.body!r}"


def call(scene: Stage, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(scene.command(*words), capture_output=True, text=True, check=False)
