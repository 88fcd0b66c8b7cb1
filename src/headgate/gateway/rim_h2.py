"""What both HTTP/2 rims share: a transport, a codec, and when to write.

Theory of operation
-------------------
The codec gathers frames; the rim writes them once per turn of the loop, however many streams had
something to say. While bytes are being fed, the write follows the feed; when a stream is spoken
to from elsewhere (the other side of its exchange), a write is scheduled with `call_soon`, once.

Streams have no timers. While a connection has streams, its deadline comes round every
`CHECK_S`, and `_inspect` looks at each of them; a connection without streams waits for its idle
time-out like any other sleeper in the wheel.

The transport's back-pressure stops bodies, not control frames; those are bounded by the codec's
guards. See `wire.h2.sending`.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from headgate.wire.h2 import Stream
from headgate.wire.wheel import NEVER

if TYPE_CHECKING:
    from headgate.wire.h2.connection import H2Connection
    from headgate.wire.wheel import Wheel

CHECK_S: Final = 0.25
_CLOSE_S: Final = 2.0
SETTINGS_S: Final = 10.0
"""How long a peer may take to acknowledge our SETTINGS (RFC 9113 6.5.3)."""

S = TypeVar("S", bound=Stream)


class RimH2(asyncio.Protocol, Generic[S]):
    transport: asyncio.Transport
    codec: H2Connection[S]

    def __init__(self, wheel: Wheel) -> None:
        self.wheel = wheel
        self.deadline = NEVER
        self.wake = NEVER
        self.is_closing = False
        self.active_at = 0.0
        """When bytes last came, or when the last stream was found gone."""
        self.blocked_at = 0.0
        """Since when the transport takes nothing; 0 while it does."""
        self._began = 0.0
        self._feeding = False
        self._flush_due = False
        self.is_watched = False
        self.call_soon = asyncio.get_running_loop().call_soon

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # a stream transport, by contract

    def data_received(self, data: bytes) -> None:
        if self.is_closing:
            return
        now = monotonic()
        self.active_at = now
        self._feeding = True
        try:
            self.codec.feed(data, now)
        finally:
            self._feeding = False
        if not self.is_watched and self.codec.unfinished_since:
            self.watch()
        self._flush()

    def flush_soon(self) -> None:
        """Something has been added to what is to be written."""
        if not self._feeding and not self._flush_due:
            self._flush_due = True
            self.call_soon(self._flush)

    def pause_writing(self) -> None:
        self.blocked_at = monotonic()
        self.codec.is_blocked = True
        self.watch()

    def resume_writing(self) -> None:
        self.blocked_at = 0.0
        self.codec.unblock()
        self.flush_soon()

    def watch(self) -> None:
        """A stream has been opened: see to its times."""
        if not self.is_watched:
            self.is_watched = True
            self.set_deadline(monotonic() + CHECK_S)

    def on_deadline(self, now: float) -> None:
        if not self.is_closing:
            self._feeding = True
            try:
                self._inspect(now)
            finally:
                self._feeding = False
            self._flush()
            self._set_next(now)

    def set_deadline(self, deadline: float) -> None:
        self.deadline = deadline
        if deadline < self.wake:
            self.wheel.arm(self)

    def close(self) -> None:
        """End the connection now; unsent bytes are given up."""
        if not self.is_closing:
            self.is_closing = True
            self.transport.abort()

    def end(self) -> None:
        """Write what is gathered, and close."""
        if not self.is_closing:
            data = self.codec.take()
            if data:
                self.transport.write(data)
            self.is_closing = True
            self.transport.close()
            # Over TLS a close waits for the peer's, and may wait long.
            asyncio.get_running_loop().call_later(_CLOSE_S, self.transport.abort)

    # -- inside --------------------------------------------------------------------------------

    def _set_next(self, now: float) -> None:
        """Set the next deadline; the wheel, whose turn it is, arms it."""
        if self.is_closing:
            return
        codec = self.codec
        if codec.streams or self.blocked_at or codec.unfinished_since or not codec.settings_acked:
            self.deadline = now + CHECK_S
        else:
            if self.is_watched:
                self.is_watched = False
                self.active_at = now
            self._rest(now)

    def _flush(self) -> None:
        self._flush_due = False
        if self.is_closing:
            return
        codec = self.codec
        data = codec.take()
        if data:
            self.transport.write(data)
        if codec.is_closed:
            self._on_fault()
            self.end()
        elif not codec.streams and self._is_over():
            self.end()

    def _is_over(self) -> bool:
        """Whether a connection without streams is to be closed."""
        return False

    def _on_fault(self) -> None:
        """The peer broke a rule of the connection: GOAWAY has been written."""

    def _inspect(self, now: float) -> None:
        """Judge the times of the connection and of its streams."""

    def _rest(self, now: float) -> None:
        """No stream is left: set the idle deadline."""
