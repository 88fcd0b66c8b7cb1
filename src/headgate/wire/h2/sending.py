"""The sending half of a connection: frames out, flow control, fair turns.

Theory of operation
-------------------
Frames are gathered in `out` and joined once by the rim (`take`). A body goes out at once when
both windows allow it; otherwise it waits in its stream's `pending`, and `send_data` answers
False: the owner should stop until `on_writable`. So what a slow reader can make us hold is
bounded by what its owner passes on after that.

Streams that wait are served in turns of one frame each, so a large download does not starve its
neighbours; RFC 9218 priorities are read past. `is_blocked` is the transport's own back-pressure
and stops bodies alone: heads and control frames are bounded by the guards.

What an editor must not break: blocks leave in the order in which they were encoded (HPACK), so
trailers are encoded when they are sent, not when they are handed in; every path that ends a
stream goes through `_drop`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, TypeVar

from headgate.wire.h2.frames import (
    DATA,
    DEFAULT_FRAME_SIZE,
    DEFAULT_WINDOW,
    END_STREAM,
    ErrorCode,
    header_frames,
    pack_head,
    rst_stream,
    window_update,
)
from headgate.wire.h2.hpack_encoder import Encoder
from headgate.wire.h2.stream import Stream

if TYPE_CHECKING:
    from headgate.wire.message import Header

FRAME_MAX: Final = 32_768
"""Our largest DATA frame even where the peer takes more: a turn should not last too long."""
_FULL_FRAME: Final = 4096
"""From here on a DATA frame counts as useful work (see guards)."""
_REMEMBERED_RESETS: Final = 1000


S = TypeVar("S", bound=Stream)


class Sending(Generic[S]):
    def __init__(self) -> None:
        self.out: list[bytes] = []
        self.encoder = Encoder()
        self.streams: dict[int, S] = {}
        self.send_window = DEFAULT_WINDOW
        self.peer_window = DEFAULT_WINDOW
        """What the peer gives a new stream."""
        self.frame_max = DEFAULT_FRAME_SIZE
        self.is_blocked = False
        self.is_closed = False
        """A GOAWAY with an error has been sent: write what is in `out` and close."""
        self.worked = 0
        """Useful work, for the guards."""
        self.ended_streams = 0
        self._waiting: dict[int, S] = {}
        self._resets_sent: dict[int, None] = {}
        self._credit = 0
        self._credit_step = DEFAULT_WINDOW // 2
        self._stream_credit_step = DEFAULT_WINDOW // 2
        self._recv_window = DEFAULT_WINDOW

    def take(self) -> bytes:
        """Everything that is to be written now."""
        out = self.out
        if not out:
            return b""
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return data

    # -- messages ------------------------------------------------------------------------------

    def send_block(self, stream: S, block: bytes, *, end: bool) -> None:
        """A field block that was encoded just now."""
        flags = END_STREAM if end else 0
        self.out.append(header_frames(stream.stream_id, block, flags, self.frame_max))
        if end:
            self._end(stream)

    def send_data(self, stream: S, data: bytes, *, end: bool) -> bool:
        """Send a piece of body. False: not all went out, stop until `on_writable`."""
        if stream.is_gone or stream.send_closed or stream.pending_end:
            return True
        size = len(data)
        if not size and not end:
            return stream.pending is None
        if (
            stream.pending is None
            and size <= self.send_window
            and size <= stream.send_window
            and size <= self.frame_max
            and not self.is_blocked
        ):
            self.send_window -= size
            stream.send_window -= size
            head = pack_head(
                size >> 8, size & 0xFF, DATA, END_STREAM if end else 0, stream.stream_id
            )
            self.out.append(head + data)
            if size >= _FULL_FRAME:
                self.worked += 1
            if end:
                self._end(stream)
            return True
        if stream.pending is None:
            stream.pending = []
        if size:
            stream.pending.append(data)
            stream.pending_bytes += size
        stream.pending_end = end
        self._waiting[stream.stream_id] = stream
        self.pump(stream)
        return stream.pending is None

    def send_trailers(self, stream: S, fields: tuple[Header, ...]) -> None:
        """End the message with trailers, after whatever of the body still waits."""
        if stream.is_gone or stream.send_closed or stream.pending_end:
            return
        if not fields:
            self.send_data(stream, b"", end=True)
        elif stream.pending is not None:
            stream.pending_end = True
            stream.pending_trailers = fields
        else:
            self.send_block(stream, self.encoder.encode(fields), end=True)

    def reset(self, stream: S, code: ErrorCode) -> None:
        """End a stream early. Its owner hears nothing more."""
        if not stream.is_gone:
            self._reset_id(stream.stream_id, code)
            self._drop(stream)

    def consume(self, stream: S, size: int) -> None:
        """The owner has taken `size` bytes of body: let the peer send as many."""
        stream.owed -= size
        self._refund(size)
        if stream.recv_closed or stream.is_gone:
            return
        credit = stream.credit + size
        if credit >= self._stream_credit_step:
            stream.recv_window += credit
            self.out.append(window_update(stream.stream_id, credit))
            credit = 0
        stream.credit = credit

    def unblock(self) -> None:
        """The transport takes bytes again."""
        self.is_blocked = False
        self.pump()

    # -- inside --------------------------------------------------------------------------------

    def pump(self, caller: S | None = None) -> None:
        """Send what waits, one frame a stream in turns, as far as the windows reach.

        Owners whose streams are empty then hear `on_writable`, but for the one that called.
        """
        emptied: list[S] = []
        moved = True
        while moved and self._waiting and self.send_window > 0 and not self.is_blocked:
            moved = False
            for stream in tuple(self._waiting.values()):
                if stream.send_window <= 0 and stream.pending_bytes:
                    continue
                if self.send_window <= 0:
                    break
                self._send_turn(stream)
                moved = True
                if stream.pending is None:
                    del self._waiting[stream.stream_id]
                    if not stream.send_closed:
                        emptied.append(stream)
        if self._waiting and not self.is_blocked:
            self._end_bodiless()
        for stream in emptied:
            if stream is not caller and not stream.is_gone:
                stream.on_writable()

    def _end_bodiless(self) -> None:
        """An end without a payload needs no window (RFC 9113 6.9.1)."""
        for stream in tuple(self._waiting.values()):
            if not stream.pending_bytes:
                self._send_turn(stream)
                del self._waiting[stream.stream_id]

    def _send_turn(self, stream: S) -> None:
        pending = stream.pending
        if pending is None:
            return
        room = max(0, min(self.send_window, stream.send_window, self.frame_max))  # can be negative
        piece: bytes | memoryview
        if stream.pending_bytes <= room:
            piece = pending[0] if len(pending) == 1 else b"".join(pending)
            stream.pending = None
        else:
            piece = _cut(pending, room)
        size = len(piece)
        stream.pending_bytes -= size
        self.send_window -= size
        stream.send_window -= size
        if size >= _FULL_FRAME:
            self.worked += 1
        end = stream.pending is None and stream.pending_end
        trailers = stream.pending_trailers
        flags = END_STREAM if end and trailers is None else 0
        if size or flags:
            head = pack_head(size >> 8, size & 0xFF, DATA, flags, stream.stream_id)
            self.out.append(head + piece)
        if end:
            if trailers is not None:
                self.send_block(stream, self.encoder.encode(trailers), end=True)
            else:
                self._end(stream)

    def _end(self, stream: S) -> None:
        """END_STREAM has been sent."""
        stream.send_closed = True
        self.worked += 1
        if stream.recv_closed:
            self._drop(stream)
        elif stream.stop_after:
            # RFC 9113 8.1: the answer is whole, the client need not send the rest.
            self.reset(stream, ErrorCode.NO_ERROR)

    def _drop(self, stream: S) -> None:
        """The stream is closed: forget it, and give back what it held."""
        stream.is_gone = True
        self.ended_streams += 1
        if self.streams.pop(stream.stream_id, None) is None:
            return
        if stream.pending is not None:
            stream.pending = None
            stream.pending_bytes = 0
            self._waiting.pop(stream.stream_id, None)
        if stream.owed:
            self._refund(stream.owed)
            stream.owed = 0
        self._on_dropped()

    def _on_dropped(self) -> None:
        """A place for another stream is free."""

    def _reset_id(self, stream_id: int, code: ErrorCode) -> None:
        self.out.append(rst_stream(stream_id, code))
        self._expect_late(stream_id)

    def _expect_late(self, stream_id: int) -> None:
        """What the peer sent before it knew is still under way; it must not count as a fault."""
        if len(self._resets_sent) >= _REMEMBERED_RESETS:
            del self._resets_sent[next(iter(self._resets_sent))]
        self._resets_sent[stream_id] = None

    def _refund(self, size: int) -> None:
        """Let the peer send `size` more on the connection."""
        credit = self._credit + size
        if credit >= self._credit_step:
            self._recv_window += credit
            self.out.append(window_update(0, credit))
            credit = 0
        self._credit = credit


def _cut(pieces: list[bytes | memoryview], size: int) -> bytes | memoryview:
    """Take `size` bytes from the front; there are more than that."""
    taken: list[bytes | memoryview] = []
    used = 0
    while size:
        piece = pieces[used]
        if len(piece) <= size:
            taken.append(piece)
            size -= len(piece)
            used += 1
        else:
            taken.append(piece[:size])
            pieces[used] = memoryview(piece)[size:]  # no copy of the rest for every frame
            break
    del pieces[:used]
    return taken[0] if len(taken) == 1 else b"".join(taken)
