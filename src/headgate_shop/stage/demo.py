"""`headgate demo`: the whole shop until Ctrl-C, or a walk through all of it.

demo                      start it, with visitors, and say where it is
demo --data DIR           keep what it has, and find it at the next start
demo --with redis,...     on real servers that are installed here
demo check [--url URL]    start one (or take one that runs), walk through it, print a table
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from headgate_shop.data.people import ACCOUNTS
from headgate_shop.stage.client import Size, Stage, StageFailed
from headgate_shop.stage.display import Display

__all__ = ["main"]

PEERS: Final = ("redis", "postgres", "prometheus")
RATE: Final = 12.0
PORT: Final = 8080


def main(words: Sequence[str]) -> int:
    options = _read(words)
    console = Console(highlight=False, soft_wrap=True)
    leave = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        leave.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, on_signal)
    try:
        if options.check:
            return _check(options, console, leave)
        return _run(options, console, leave)
    except StageFailed as error:
        sys.stderr.write(f"headgate: {error}\n")
        return 1


def _read(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="headgate demo",
        description="Run a whole shop behind the gateway. Ctrl-C ends it, and nothing is left.",
    )
    parser.add_argument(
        "what", nargs="?", choices=("check",), help="walk through the shop, and print a table"
    )
    parser.add_argument("--check", action="store_true", help="the same")
    parser.add_argument("--url", default="", help="with check: a shop that runs already")
    parser.add_argument("--stage", default="", help="with --url: its stage API, for the mails")
    parser.add_argument("--stage-token", default="", help="with --url: the token of that")
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="keep what the shop has, for the next start"
    )
    parser.add_argument(
        "--with",
        dest="peers",
        type=_peers,
        default=(),
        metavar="NAMES",
        help=f"real servers that are installed here, with commas between: {', '.join(PEERS)}",
    )
    parser.add_argument(
        "--rate", type=_rate, help="requests a second of made-up visitors; 0 for none"
    )
    parser.add_argument(
        "--port", type=_port, help=f"of the shop; {PORT} if it is free, 0 for any free one"
    )
    parser.add_argument(
        "--size", choices=("tiny", "demo"), help="how much data: a few products, or thousands"
    )
    parser.add_argument(
        "--workers", type=int, help="of the gateway; by default one for each two cores"
    )
    options = parser.parse_args(words)
    options.check = options.check or options.what == "check"
    if options.url and not options.check:
        parser.error("--url is for check")
    return options


def _peers(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if name not in PEERS:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(PEERS)}")
    return names


def _rate(text: str) -> float:
    rate = float(text)
    if not 0 <= rate <= 2000:
        raise argparse.ArgumentTypeError("0 to 2000 requests a second")
    return rate


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port < 65536:
        raise argparse.ArgumentTypeError("a port, or 0")
    return port


def _stage(
    options: argparse.Namespace, display: Display, *, size: Size, rate: float, port: int
) -> Stage:
    return Stage(
        size=options.size or size,
        traffic=rate if options.rate is None else options.rate,
        data=options.data,
        peers=options.peers,
        port=port if options.port is None else options.port,
        workers=options.workers,
        on_progress=display.show,
    )


def _run(options: argparse.Namespace, console: Console, leave: threading.Event) -> int:
    display = Display(console)
    stage = _stage(options, display, size="demo", rate=RATE, port=PORT)
    with contextlib.closing(stage):
        with display:
            if not stage.start(leave=leave):
                return 0
        _tell(console, stage)
        while not leave.wait(0.2):
            if not stage.is_running:
                raise StageFailed(f"the shop has ended by itself\n{stage.log()}")
        console.print("\nclosing the shop")
    return 0


def _tell(console: Console, stage: Stage) -> None:
    news = stage.news
    console.print(f"\n[bold]The shop is open: {stage.url}[/bold]   ({news['took_s']:.1f} s)\n")
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for _ in range(2):
        table.add_column(no_wrap=True)  # an address that is cut short or in two leads nowhere
    table.add_column(overflow="fold")
    table.add_row("Shop", stage.url)
    table.add_row("Operations", f"{stage.url}/operations/", "as the administrator below")
    table.add_row("API of all services", f"{stage.admin_url}/docs/services", "token: see below")
    for name, where in news.get("peers", {}).items():
        table.add_row(name, where)
    console.print(table)
    console.print()
    people = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("Sign in as", "with the password", ""):
        people.add_column(title, header_style="dim")
    for one in ACCOUNTS:
        people.add_row(one.email, escape(one.password), ", ".join(one.roles))
    console.print(people)
    folder = news["folder"]
    console.print(f"\nFiles, logs and [dim].headgate[/dim] are in {folder}")
    console.print("The gateway's commands work there, in another terminal:")
    console.print(f"  [dim]cd {folder}; headgate ctl top[/dim]")
    console.print(f"  [dim]cat {folder}/tokens/operator[/dim]   the token of an operator")
    if not news["is_temporary"]:
        console.print(f"What the shop has stays in {folder}.")
    console.print("\nCtrl-C closes it.")


def _check(options: argparse.Namespace, console: Console, leave: threading.Event) -> int:
    from headgate_shop.stage.story import Shop, walk

    if options.url:
        shop = Shop(options.url.rstrip("/"), options.stage, options.stage_token)
        return 0 if walk(shop, console) else 1
    display = Display(console)
    stage = _stage(options, display, size="tiny", rate=0.0, port=0)
    with contextlib.closing(stage):
        with display:
            if not stage.start(leave=leave):
                return 1
        said: dict[str, Any] = stage.news
        shop = Shop(stage.url, said["stage_url"], said["stage_token"])
        return 0 if walk(shop, console) else 1
