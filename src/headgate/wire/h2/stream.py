"""One stream: its state, its windows, and what its owner is told.

Theory of operation
-------------------
The states of RFC 9113 5.1 are two booleans, one a direction, because every rule asks about one
of them: `recv_closed` (the peer has sent END_STREAM), `send_closed` (we have). A stream is in its
connection's `streams` from the moment it leaves "idle" until both are set or it is reset; after
that it is only an id.

The rim's own stream is a subclass: the connection makes and calls it directly, which saves an
object and an indirection for every request. The `on_...` methods are called from within
`H2Connection.feed` (or, `on_writable`, from whatever opened the window); they may send, consume
and reset at once, on this and on other streams.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headgate.wire.h2.fields import RequestFields
    from headgate.wire.h2.frames import ErrorCode
    from headgate.wire.message import Header, ResponseHead


class Stream:
    __slots__ = (
        "credit",
        "expected",
        "head_done",
        "head_sent",
        "is_gone",
        "owed",
        "pending",
        "pending_bytes",
        "pending_end",
        "pending_trailers",
        "received",
        "recv_closed",
        "recv_window",
        "send_closed",
        "send_window",
        "stop_after",
        "stream_id",
    )

    def __init__(self) -> None:
        self.stream_id = 0
        self.recv_closed = False
        self.send_closed = False
        self.is_gone = False
        """Neither side will say more on it; late calls of the owner do nothing."""
        self.head_sent = False
        self.head_done = False
        """Client: the final response head has come."""
        self.send_window = 0
        self.recv_window = 0
        self.credit = 0
        """Consumed and not yet announced by WINDOW_UPDATE."""
        self.owed = 0
        """Delivered and not yet consumed; given back to the connection when the stream goes."""
        self.expected = -1
        self.received = 0
        self.pending: list[bytes | memoryview] | None = None
        """Body that flow control holds back, oldest first."""
        self.pending_bytes = 0
        self.pending_end = False
        self.pending_trailers: tuple[Header, ...] | None = None
        self.stop_after = False
        """Server: nobody wants the rest of the request once the response is out."""

    def on_request(self, fields: RequestFields, *, end: bool) -> None:
        """Server: a request head."""

    def on_oversize(self, fields: RequestFields | None, *, end: bool) -> None:
        """Server: the field section is larger than announced; 431 would be an answer."""

    def on_informational(self, head: ResponseHead) -> None:
        """Client: a 1xx head."""

    def on_response(self, head: ResponseHead, *, end: bool) -> None:
        """Client: the final head."""

    def on_data(self, data: bytes, *, end: bool) -> None:
        """A piece of body, possibly empty at its end. Call `consume` when it has been taken."""

    def on_trailers(self, fields: tuple[Header, ...]) -> None:
        """The end of the message, with trailers."""

    def on_reset(self, code: ErrorCode | int, reason: str, *, by_peer: bool) -> None:
        """The stream has ended early, and not because its owner asked."""

    def on_refused(self) -> None:
        """Client: the peer says that it has not acted on this request (RFC 9113 8.7)."""

    def on_writable(self) -> None:
        """Everything held back has gone out."""
