"""Processes that end when the one that started them ends, whatever ended it (Linux)."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

__all__ = ["adopt_orphans", "die_with_parent"]

_SET_DEATH_SIGNAL = 1
_SET_CHILD_SUBREAPER = 36


def die_with_parent(parent: int, signum: int = signal.SIGKILL) -> None:
    """Have the kernel send us `signum` when `parent`, who made us, has ended.

    It holds over an exec, and not over a change of the user.
    """
    _prctl(_SET_DEATH_SIGNAL, signum)
    if os.getppid() != parent:  # it ended before we could ask
        os.kill(os.getpid(), signum)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent has ended."""
    _prctl(_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)
