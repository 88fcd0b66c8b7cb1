"""How a client's HTTP/1.1 connection ends: at once, after what is on its way, or lingering.

Theory of operation. When an answer goes out before all that the client has sent was read, closing
at once would reset the connection, and a reset can destroy the answer on its way. So our side is
closed alone, and what still arrives is thrown away for a moment (*lingering*, RFC 9112 9.6), up to
a bound. A client that takes nothing has its write time-out and no longer.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from time import monotonic
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from headgate.gateway.listener import Listener
    from headgate.gateway.site import Site

_LINGER_S: Final = 2.0
_LINGER_BYTES: Final = 1024 * 1024


class EndingH1(asyncio.Protocol, ABC):
    """What a connection needs to end, and its deadline in the wheel."""

    __slots__ = (
        "_buffer",
        "_linger_bytes",
        "_lingering",
        "_paused",
        "_site",
        "deadline",
        "is_closing",
        "listener",
        "transport",
        "wake",
    )

    _buffer: bytes
    _linger_bytes: int
    _lingering: bool
    _paused: bool
    _site: Site
    deadline: float
    is_closing: bool
    listener: Listener
    transport: asyncio.Transport
    wake: float

    @abstractmethod
    def on_deadline(self, now: float) -> None: ...

    def close(self) -> None:
        """End the connection now; unsent bytes are given up."""
        if not self.is_closing:
            self.is_closing = True
            self.transport.abort()

    def _end(self, *, linger: bool) -> None:
        self._buffer = b""
        if not linger:
            self.is_closing = True
            self._set_deadline(monotonic() + self._site.write_timeout_s)
            self.transport.close()
            return
        self._lingering = True
        self._linger_bytes = 0
        if self._paused:
            self._paused = False
            self.transport.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._set_deadline(monotonic() + _LINGER_S)

    def _drop(self, data: bytes) -> None:
        """What comes while it lingers."""
        self._linger_bytes += len(data)
        if self._linger_bytes > _LINGER_BYTES:
            self.close()

    def _set_deadline(self, deadline: float) -> None:
        self.deadline = deadline
        if deadline < self.wake:
            self.listener.wheel.arm(self)
