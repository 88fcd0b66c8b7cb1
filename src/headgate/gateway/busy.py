"""Whether a worker has been at work, as the kernel tells it.

Theory of operation. A loop that runs late is overloaded only if it had no rest. On a machine that
others use as well it also runs late because it is woken late, with little to do; to turn requests
away then would help nobody, and as it does not end the delay, ever more would be turned away. So
the time that this thread has run, and that it stood in line for a processor, is compared with what
has passed (`/proc/thread-self/schedstat`, in nanoseconds). Where the kernel does not tell, it is
taken to be busy.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

__all__ = ["BUSY", "Busy"]

BUSY: Final = 0.8
"""From this share of the time on a worker counts as having had no rest."""
_SCHEDSTAT: Final = Path("/proc/thread-self/schedstat")
_READ: Final = 100


class Busy:
    """Of the thread that makes it."""

    def __init__(self, file: Path = _SCHEDSTAT) -> None:
        try:
            self._fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._fd = -1
        self._at = 0.0
        self._worked_s = 0.0

    def share(self, now: float) -> float:
        """How much of the time since the last question it worked, or wanted to; 1.0 if unknown."""
        worked_s = self._read_s()
        if worked_s is None:
            return 1.0
        passed_s, self._at = now - self._at, now
        done_s, self._worked_s = worked_s - self._worked_s, worked_s
        return done_s / passed_s if passed_s > 0.0 else 1.0

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _read_s(self) -> float | None:
        if self._fd < 0:
            return None
        try:
            ran_ns, waited_ns, *_ = os.pread(self._fd, _READ, 0).split()
            return (int(ran_ns) + int(waited_ns)) / 1e9
        except (OSError, ValueError):
            return None
