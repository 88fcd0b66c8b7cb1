"""Standard output and standard error."""

from __future__ import annotations

import errno
import os
import select
import stat
import time
from collections.abc import Sequence
from typing import Final

from headgate.observe.logs.pump import Line, Sent

__all__ = ["StreamCarrier"]

_DESCRIPTORS: Final = {"stdout": 1, "stderr": 2}
_STALL_S: Final = 5.0


class StreamCarrier:
    """A pipe that several processes share takes up to PIPE_BUF bytes at once, so lines are written
    in pieces that end with a line; a longer line may be mixed with another's.
    """

    is_local = True

    def __init__(self, name: str) -> None:
        self.name = name
        self._fd = _DESCRIPTORS[name]
        self._is_torn = False
        try:
            mode = os.fstat(self._fd).st_mode
        except OSError:
            mode = 0
        self._is_whole = stat.S_ISREG(mode) or mode == 0

    def send(self, lines: Sequence[Line], deadline: float) -> Sent:
        data = b"".join([part for line in lines for part in (line.data, b"\n")])
        if self._is_torn:
            data = b"\n" + data
        at = 0
        until = min(deadline, time.monotonic() + _STALL_S)
        try:
            while at < len(data):
                if not self._is_whole:
                    self._wait(until)
                try:
                    at += os.write(self._fd, data[at : self._end(data, at)])
                except BlockingIOError:
                    continue
                until = min(deadline, time.monotonic() + _STALL_S)
        except OSError as error:
            lost = min(len(lines), data.count(b"\n", at))
            if at:
                self._is_torn = data[at - 1] != 0x0A
            return Sent(len(lines) - lost, lost, why=error.strerror or str(error))
        self._is_torn = False
        return Sent(len(lines))

    def _end(self, data: bytes, at: int) -> int:
        if self._is_whole or len(data) - at <= select.PIPE_BUF:
            return len(data)
        end = data.rfind(b"\n", at, at + select.PIPE_BUF) + 1
        return end or at + select.PIPE_BUF

    def _wait(self, until: float) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        while not poll.poll(max(1, min(200, int((until - time.monotonic()) * 1000)))):
            if time.monotonic() > until:
                raise TimeoutError(errno.ETIMEDOUT, "the reader does not read")

    def reopen(self) -> None:
        """The descriptor is not ours."""

    def close(self) -> None:
        """Likewise."""
