"""`headgate demo`: a whole shop behind the gateway, or a walk through all of it.

The shop is a package of its own, `headgate_shop`, and needs the extra `demo`; this process becomes
it. `--small` is the gateway before a few services in one process, with nothing to install: for a
first look, and for docs/howto/incident.md.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

import typer

from headgate.errors import HeadgateError

NEEDED: Final = (
    "headgate_shop",
    "aiosmtpd",
    "aiosmtplib",
    "aiosqlite",
    "alembic",
    "jinja2",
    "jsonschema_rs",
    "python_multipart",
    "sqlalchemy",
)
"""What the extra brings."""


def demo(
    what: Annotated[
        str, typer.Argument(help="`check` walks through the shop, prints a table and ends.")
    ] = "",
    small: Annotated[
        bool,
        typer.Option("--small", help="A few services instead of the shop; needs no extra."),
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Do what would be suggested, and end.")
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="A folder that keeps what the shop has, for the next start."),
    ] = None,
    with_: Annotated[
        str,
        typer.Option(
            "--with",
            help="Real servers that are installed here: redis, postgres, prometheus, with commas.",
        ),
    ] = "",
    rate: Annotated[
        float | None,
        typer.Option("--rate", help="Requests a second of made-up visitors; 0 for none."),
    ] = None,
    port: Annotated[
        int | None, typer.Option("--port", help="Of the shop; 8080 if it is free. 0: any free one.")
    ] = None,
    size: Annotated[
        str,
        typer.Option("--size", help="How much data: tiny or demo, a few products or thousands."),
    ] = "",
    workers: Annotated[
        int | None,
        typer.Option("--workers", help="Of the gateway; by default one for each two cores."),
    ] = None,
    url: Annotated[str, typer.Option("--url", help="With check: a shop that runs already.")] = "",
    stage: Annotated[
        str, typer.Option("--stage", help="With --url: where its stage answers, for the mails.")
    ] = "",
    stage_token: Annotated[
        str, typer.Option("--stage-token", help="With --url: what opens that.")
    ] = "",
) -> None:
    """Run a whole shop behind the gateway, and say where it is. Ctrl-C ends it, leaving nothing."""
    if what not in ("", "check"):
        raise typer.BadParameter(f"{what!r} is not known here; did you mean check?")
    is_check = check or what == "check"
    said = {
        "--data": data,
        "--with": with_ or None,
        "--rate": rate,
        "--port": port,
        "--size": size or None,
        "--workers": workers,
        "--url": url or None,
        "--stage": stage or None,
        "--stage-token": stage_token or None,
    }
    if small:
        for name, value in said.items():
            if value is not None:
                raise typer.BadParameter(f"{name} is for the shop, and not for --small")
        from headgate.cli.demo_small import run_small

        run_small(is_check=is_check)
        return
    if missing := next(_missing(), None):
        raise HeadgateError(
            f"the shop needs {missing}, which the extra brings: pip install headgate[demo]; "
            "or, without it: headgate demo --small"
        )
    words = ["check"] if is_check else []
    for name, value in said.items():
        if value is not None:
            words += [name, str(value)]
    sys.stdout.flush()
    argv = [sys.executable, "-m", "headgate_shop", "demo", *words]
    os.execv(argv[0], argv)  # noqa: S606  it is this program from here on


def _missing() -> Iterator[str]:
    for name in NEEDED:
        if importlib.util.find_spec(name) is None:
            yield name
