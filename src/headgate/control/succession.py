"""How the supervisor makes way for new code of itself.

The trial comes first and matters most: after the exec there is nobody left who could go back.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterable

from headgate.control.launch import exec_supervisor, python

__all__ = ["SIGNALS", "TRIAL_PASSED", "become", "why_new_code_fails"]

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


async def why_new_code_fails(state_fd: int) -> str | None:
    """Let the new code read our state, and import all it needs, while we still live."""
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
        return None
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
