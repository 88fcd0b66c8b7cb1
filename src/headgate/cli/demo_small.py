"""`headgate demo --small`: the gateway before two echo services and a small shop, and what to try.

The services run in this process, the gateway in a child of it, on a copy of `demo.yaml` in a
temporary folder. A few visitors look into baskets of the shop all the time, so that there is
something to see. With --check the demo does by itself what it would suggest to a person, and says
what came of it; the tests run that.
"""

from __future__ import annotations

import contextlib
import http.client
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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from types import FrameType

import typer
from rich.console import Console
from rich.markup import escape

from headgate.cli.demo_shop import ShopInstance, observe_shop, observe_shop_no_more
from headgate.cli.demo_tries import LINES, TRIES, Answer, Line, Try
from headgate.control.client import AdminClient
from headgate.control.state_dir import StateDir
from headgate.errors import HeadgateError
from headgate.testing.echo import EchoServer

START_S = 60.0
CACHED = "/api/catalog/chairs"
CACHED_ASKS = 20
"""So that two workers are surely both asked before the last."""
STOP_S = 15.0
LINE_S = 60.0
LINES_AT_ONCE = 3
SOON_S = 30.0
"""For what is told once a second or so, on a machine that is busy."""
VISITORS = 4
PAUSE_S = 0.25


@dataclass(frozen=True, slots=True)
class Stage:
    """Where everything is."""

    file: Path
    gateway: str
    admin: str
    shops: tuple[str, ...] = ()
    """The instances of the shop."""

    @property
    def log(self) -> Path:
        """What the gateway says, access log included."""
        return self.file.with_name("gateway.log")

    @property
    def state(self) -> Path:
        return self.file.parent / ".headgate"

    @property
    def token_file(self) -> Path:
        return self.state / "admin-token"

    def token(self) -> str:
        return self.token_file.read_text().strip()

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "headgate", *words]


def run_small(*, is_check: bool) -> None:
    """Run the gateway before a few services, and say what to try. Ctrl-C ends it."""
    console = Console(highlight=False, soft_wrap=True)
    leave = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        leave.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    with stage() as (scene, gateway):
        if not wait_until_ready(scene, gateway, leave):
            return
        observe(scene)
        with visited(scene):
            if is_check:
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
        ShopInstance(free_port(3003)) as shop,
        ShopInstance(free_port(3004)) as other_shop,
    ):
        gateway, admin = (f"127.0.0.1:{free_port(port)}" for port in (8080, 9900))
        text = resources.files("headgate.cli").joinpath("demo.yaml").read_text()
        for here, there in (
            ("127.0.0.1:8080", gateway),
            ("127.0.0.1:9900", admin),
            ("127.0.0.1:3001", users.url.removeprefix("http://")),
            ("127.0.0.1:3002", products.url.removeprefix("http://")),
            ("127.0.0.1:3003", shop.url.removeprefix("http://")),
            ("127.0.0.1:3004", other_shop.url.removeprefix("http://")),
        ):
            text = text.replace(here, there)
        shops = (shop.url, other_shop.url)
        scene = Stage(Path(folder) / "demo.yaml", f"http://{gateway}", f"http://{admin}", shops)
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
            observe_shop_no_more()
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


def free_port(port: int) -> int:
    """The usual port if nobody has it, else a free one."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        found: int = probe.getsockname()[1]
        return found


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


def observe(scene: Stage) -> None:
    """Have the shop send its spans and lines to the gateway, with a token of its own."""
    order = {"name": "shop", "role": "ingest"}
    made = AdminClient(StateDir(scene.state)).ask("POST", "/api/tokens", order)
    observe_shop(scene.admin, made.content["token"])


@contextlib.contextmanager
def visited(scene: Stage) -> Iterator[None]:
    """People who look into their baskets, meanwhile."""
    leave = threading.Event()

    def visit(number: int) -> None:
        while not leave.wait(PAUSE_S):
            number += VISITORS
            with contextlib.suppress(OSError, http.client.HTTPException):
                get(scene.gateway, f"/baskets/{number}")

    visitors = [threading.Thread(target=visit, args=(number,)) for number in range(VISITORS)]
    for visitor in visitors:
        visitor.start()
    try:
        yield
    finally:
        leave.set()
        for visitor in visitors:
            visitor.join()


# ---- for a person


def suggest(console: Console, scene: Stage) -> None:
    console.print(
        f"\n[bold]The gateway answers on {scene.gateway}[/bold]; its file is {scene.file}"
    )
    show(console, "In another terminal, first", prelude(scene))
    for one in TRIES:
        base = scene.admin if one.is_admin else scene.gateway
        line = [one.curl]
        line += [
            f"-H {shlex.quote(f'{name}: {value}')}"
            for name, value in one.headers.items()
            if name != "accept-encoding"
        ]
        if one.is_admin:
            line.append('-H "Authorization: Bearer $(cat .headgate/admin-token)"')
        line.append(shlex.quote(base + one.path))
        show(console, one.title, " ".join(line))
    show(
        console,
        "A cached route: ask twice, and Cache-Status says that the second is a hit",
        f"curl -i {scene.gateway}{CACHED}",
    )
    for each in LINES:
        show(console, each.title, filled(each, scene))
    console.print("\nCtrl-C ends the demo.")


def prelude(scene: Stage) -> str:
    """Where the lines are for, and what `headgate` is there."""
    folder = shlex.quote(str(scene.file.parent))
    return f'cd {folder}; headgate() {{ {shlex.join(scene.command())} "$@"; }}'


def filled(line: Line, scene: Stage) -> str:
    return line.code.format(gateway=scene.gateway, shop=scene.shops[-1])


def show(console: Console, title: str, line: str) -> None:
    console.print(f"\n[dim]# {escape(title)}[/dim]\n{escape(line)}")


# ---- for a test


def run_checks(console: Console, scene: Stage) -> bool:
    results = [attempt(console, one.title, partial(try_one, scene, one)) for one in TRIES]
    results.append(attempt(console, "a cached route is a hit until purged", lambda: caches(scene)))
    # Some wait most of their time; a few at once, and told in order.
    with ThreadPoolExecutor(LINES_AT_ONCE) as hands:
        told = [(each.title, hands.submit(try_line, scene, each)) for each in LINES]
        results += [attempt(console, title, each.result) for title, each in told]
    good = sum(results)
    console.print(f"{good} of {len(results)} as promised")
    return good == len(results)


def attempt(console: Console, title: str, holds: Callable[[], str]) -> bool:
    try:
        fault = holds()
    except (OSError, http.client.HTTPException, subprocess.SubprocessError) as error:
        fault = f"{type(error).__name__}: {error}"
    except (KeyError, ValueError) as error:
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


def try_line(scene: Stage, line: Line) -> str:
    """As somebody would: again in a moment, when it shows nothing yet."""
    code = f"{prelude(scene)}; {filled(line, scene)}{line.ends}"
    until = time.monotonic() + SOON_S
    while True:
        done = subprocess.run(
            ["/bin/sh", "-c", code], capture_output=True, text=True, check=False, timeout=LINE_S
        )
        if done.returncode == 0 and line.holds(done.stdout):
            return ""
        if time.monotonic() > until:
            return f"{done.returncode} {done.stdout[-500:]} {done.stderr[-500:]}"
        time.sleep(0.5)


def caches(scene: Stage) -> str:
    """Each worker has a memory of its own, and the kernel chooses whom we ask."""
    said = [get(scene.gateway, CACHED).headers["cache-status"] for _ in range(CACHED_ASKS)]
    if "; stored" not in said[0] or "; hit" not in said[-1]:
        return f"{said}"
    done = subprocess.run(
        scene.command("cache", "purge", "--tag", "catalog", "--state-dir", str(scene.state)),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return f"{done.returncode} {done.stdout[-500:]} {done.stderr[-500:]}"
    after = get(scene.gateway, CACHED).headers["cache-status"]
    return "" if "; hit" not in after else after
