"""The `headgate` program, put together from one file a command.

Theory of operation
-------------------
`COMMANDS` is the whole table: the command `run` is the function `run` in `headgate.cli.run`. Only
the module of the command that was called is imported; the others are listed with the line from
the table. So `headgate --help` is quick, and a command that cannot be loaded breaks no other one.

To add a command: write `cli/<name>.py` with a function `<name>` (typer reads its signature and its
docstring), and add a line here.

Exit codes, for scripts: 0 done, 1 refused or failed (the reason is on standard error), 2 a wrong
command line. An error that Headgate raises on purpose is one line, never a stack trace.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, NoReturn

import typer

from headgate import __version__
from headgate.errors import HeadgateError

COMMANDS: dict[str, str] = {
    "run": "Run the gateway that a file describes.",
    "sidecar": "Stand beside one process, in any language, and speak to the mesh for it.",
    "check": "Check a file and report every fault in it.",
    "explain": "Show which route a request takes, and why.",
    "access": "Show who is let in where, and which routes ask nobody.",
    "bans": "List whom a running gateway shuts out, add or lift bans.",
    "cache": "Purge the cache of a running gateway, show its figures and what it holds.",
    "history": "Ask the history of all figures, and export it.",
    "audit": "Verify, search and export the audit log.",
    "monitors": "Things outside that a running gateway asks now and then: uptime by day.",
    "alerts": "Show what fires in a running gateway; silence, acknowledge, replay a rule.",
    "slo": "Show what is left of error budgets, check them, write reports.",
    "capacity": "Show what will be full and when, and how many instances services need.",
    "keys": "Make, list, revoke and rotate API keys; hash passwords.",
    "secrets": "Keep secrets in an encrypted file.",
    "certs": "Certificates: an authority of your own, those served, and a check of any server.",
    "config": "Show, compare, apply and restore the configuration of a running gateway.",
    "diff": "Say what a file would change in a running gateway.",
    "tokens": "Make, list and revoke tokens of the admin API.",
    "mesh": "Identities of services: join tokens, who has one, who may not any more.",
    "reload": "Make a running gateway read its file again.",
    "services": "Services of a running gateway: who serves, who registered, what happened.",
    "instances": "Instances of a running gateway: who is out and why; drain, weigh, eject.",
    "drain": "Finish what is under way, then stop; or give one instance no new requests.",
    "weight": "Give an instance another weight than the file or itself says.",
    "upgrade": "Restart the workers one by one, on the code now installed.",
    "logs": "Search and follow logs, and change levels while it runs.",
    "traces": "Search the traces of a running gateway, and show one as a tree.",
    "status": "Show what a running gateway is doing.",
    "ctl": "Look at a running gateway and steer it: routes, instances, breakers, limits, top.",
    "doctor": "Look for what is wrong, or will be, and say the way out.",
    "export": "Write files for Prometheus, Alertmanager, Grafana and Elastic.",
    "schema": "Print the JSON Schema of the file, for editors.",
    "new": "Begin a service or a gateway: files that work, with tests.",
    "echo": "Run a service that answers with what it received.",
    "demo": "Run a whole shop behind the gateway, or walk through it; --small runs a few services.",
    "version": "Print the version.",
}


_WITH_FORMAT = frozenset(
    {"access", "audit", "bans", "certs", "check", "config", "explain", "keys", "status", "tokens"}
)
"""Where JSON is one of several forms. `--json` means it there, as everywhere else."""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit with its code."""
    words = list(sys.argv[1:] if argv is None else argv)
    called = next((word for word in words if not word.startswith("-")), None)
    if called in _WITH_FORMAT:
        words = ["--format=json" if word == "--json" else word for word in words]
    try:
        assemble(called)(args=words, prog_name="headgate")
    except HeadgateError as error:
        print(f"headgate: {error}", file=sys.stderr)
        sys.exit(1)
    sys.exit(0)


def assemble(called: str | None) -> typer.Typer:
    """The program with the called command loaded and the others as lines of its help.

    The completion of a shell asks for the options of any command, so it gets them all, short of
    those that cannot be loaded.
    """
    app = typer.Typer(
        help="Headgate: an API gateway in one process tree, one file in.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,  # its frames show the values of variables: secrets too
        rich_markup_mode=None,
    )
    app.callback()(_program)
    is_completing = "_HEADGATE_COMPLETE" in os.environ
    for name, summary in COMMANDS.items():
        function = _listed_only
        if name == called:
            function = load(name)
        elif is_completing:
            with contextlib.suppress(HeadgateError):
                function = load(name)
        if isinstance(function, typer.Typer):
            app.add_typer(function, name=name, short_help=summary)
        else:
            app.command(name, short_help=summary)(function)
    return app


def load(name: str) -> Callable[..., Any]:
    """The function behind one command, or the program of a command that has commands."""
    try:
        with _uncollected():
            module = importlib.import_module(f"headgate.cli.{name}")
        function: Callable[..., Any] = getattr(module, name)
    except (ImportError, AttributeError) as error:
        raise HeadgateError(f'the command "{name}" cannot be loaded: {error}') from error
    return function


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """What is imported stays: looking through it for what may go takes a tenth of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _listed_only() -> None:
    """Stand in for a command that was not called."""


def _show_version(is_asked: bool) -> None:
    if is_asked:
        print(f"headgate {__version__}")
        raise typer.Exit


def _program(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Headgate: an API gateway in one process tree, one file in."""
