"""How the supervisor makes way for new code of itself.

The trial comes first and matters most: after the exec there is nobody left who could go back. A
fresh interpreter, on the new code, imports everything that any of us needs and reads what the
supervisor would hand over. It is a template that starts and then a copy of it (`main`), so that
what has been imported is of use; where there can be none, it is a process for this alone.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable

from headgate.control.children import die_with_parent
from headgate.control.launch import Launch, exec_supervisor, python

__all__ = ["SIGNALS", "TRIAL_PASSED", "become", "main", "try_launch", "why_new_code_fails"]

TRIAL_PASSED = "headgate: trial passed"
TRIAL_TIMEOUT_S = 60.0

# Those that a supervisor handles; blocked while it has no handlers.
SIGNALS = (
    signal.SIGHUP,
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGCHLD,
)


def try_launch(launch: Launch) -> None:
    """In the new code: import all that this run needs. Raises what importing raises."""
    importlib.import_module("headgate.control.supervisor")
    importlib.import_module("headgate.control.control_main")
    worker_main = importlib.import_module("headgate.control.worker_main")
    sys.path.append(launch.folder)
    worker_main.load_worker(launch.worker_class)


def main(arguments: list[str] | None = None) -> int:
    """The trial in a copy of a template: what is found goes to the channel."""
    parser = argparse.ArgumentParser(prog="headgate.control.succession")
    for name in ("channel", "parent", "state"):
        parser.add_argument(f"--{name}", type=int, required=True)
    options = parser.parse_args(arguments)
    die_with_parent(options.parent)
    found = TRIAL_PASSED
    try:
        try_launch(Launch.from_memfd(options.state))
    except Exception as error:  # noqa: BLE001  whatever it is, this code cannot succeed
        found = f"{type(error).__name__}: {error}"
    with socket.socket(fileno=options.channel) as channel:
        channel.sendall(found.encode())
    return 0


async def why_new_code_fails(state_fd: int) -> str:
    """The same in a process of its own, when there is no template."""
    command = python("headgate.control.supervisor", "--state", str(state_fd), "--trial")

    def trial() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            pass_fds=(state_fd,),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TRIAL_TIMEOUT_S,
            check=False,
        )

    try:
        done = await asyncio.to_thread(trial)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    # What it printed decides and not its exit status: that one goes to whoever reaps first, and
    # we reap everything.
    if TRIAL_PASSED in done.stdout:
        return ""
    return (done.stderr.strip().splitlines() or ["it said nothing"])[-1]


def become(state_fd: int, kept: Iterable[int]) -> OSError:
    """Exec the new code with these descriptors open. It returns only if that failed."""
    kept = list(kept)
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    for fd in kept:
        os.set_inheritable(fd, True)
    try:
        exec_supervisor(state_fd)
    except OSError as error:
        for fd in kept:
            os.set_inheritable(fd, False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        return error
