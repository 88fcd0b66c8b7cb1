"""The server's side of an HTTP/2 connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from headgate.wire.h2 import frames
from headgate.wire.h2.connection import H2Connection, H2Limits
from headgate.wire.h2.fields import Malformed, RequestFields, judge_request
from headgate.wire.h2.frames import (
    DEFAULT_WINDOW,
    LARGEST_STREAM_ID,
    PREFACE,
    ConnectionFault,
    ErrorCode,
)
from headgate.wire.h2.stream import Stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from headgate.wire.h2.hpack_decoder import Block
    from headgate.wire.message import Header

S = TypeVar("S", bound=Stream)

_GAPS: Final = 32
_DRAIN_PING: Final = b"headgate"


class ServerConnection(H2Connection[S]):
    """`judge` may be a remembering form of `judge_request`."""

    _role_is_server = True

    def __init__(
        self,
        limits: H2Limits,
        make_stream: Callable[[], S],
        now: float,
        judge: Callable[[tuple[Header, ...]], RequestFields | Malformed] = judge_request,
    ) -> None:
        super().__init__(limits, now)
        self._make_stream = make_stream
        self._judge = judge
        self._preface_left = PREFACE
        self._gaps: list[tuple[int, int]] = []
        self._stream_window = limits.stream_window
        self.out.append(
            frames.settings(
                {
                    frames.MAX_CONCURRENT_STREAMS: limits.max_streams,
                    frames.INITIAL_WINDOW_SIZE: limits.stream_window,
                    frames.MAX_HEADER_LIST_SIZE: limits.list_bytes,
                    frames.ENABLE_CONNECT_PROTOCOL: 1,
                }
            )
        )
        if limits.connection_window > DEFAULT_WINDOW:
            self._refund(limits.connection_window - DEFAULT_WINDOW)

    def feed(self, data: bytes, now: float) -> None:
        left = self._preface_left
        if left and not self.is_closed:
            if data[: len(left)] != left[: len(data)]:
                self.fail(ConnectionFault(ErrorCode.PROTOCOL_ERROR, "wrong connection preface"))
                return
            self._preface_left = left[len(data) :]
            data = data[len(left) :]
            if not data:
                return
        super().feed(data, now)

    def send_response(
        self,
        stream: S,
        status: int,
        fields: tuple[Header, ...],
        passing: bytes,
        body: bytes,
        *,
        end: bool,
    ) -> bool:
        """A head with the first piece of its body; the answer is `send_data`'s.

        `fields` should be a tuple that lives as long as the head it stands in: its encoding is
        kept. `passing` is `encode_passing` of what belongs to this one response.
        """
        if stream.is_gone:
            return True
        stream.head_sent = True
        block = self.encoder.encode_response(status, fields) + passing
        self.send_block(stream, block, end=end and not body)
        if body:
            return self.send_data(stream, body, end=end)
        return True

    def send_informational(self, stream: S, status: int, fields: tuple[Header, ...]) -> None:
        if not stream.is_gone and not stream.head_sent:
            self.send_block(stream, self.encoder.encode_response(status, fields), end=False)

    def drain(self) -> None:
        """Begin a graceful end (RFC 9113 6.8).

        First a GOAWAY that refuses nothing, so that requests under way are not lost; the last
        stream is named when the PING beside it has been answered. The PING goes first: clients on
        the h2 library take none after a GOAWAY, and lose what they have read together with it.
        """
        if self.goaway_sent is None:
            self.ping(_DRAIN_PING)
            self.goaway(ErrorCode.NO_ERROR, last=LARGEST_STREAM_ID)

    def finish_drain(self) -> None:
        if self.goaway_sent != self.last_peer_stream and not self.is_closed:
            self.goaway(ErrorCode.NO_ERROR)

    def _on_ping(self, stream_id: int, flags: int, payload: bytes) -> None:
        super()._on_ping(stream_id, flags, payload)
        if flags & frames.ACK and payload == _DRAIN_PING and self.goaway_sent is not None:
            self.finish_drain()

    def _on_block(self, stream_id: int, data: bytes, *, end: bool) -> None:
        block = self.decoder.kept.get(data)
        if block is None:
            block = self._decode(data)
        last = self.last_peer_stream
        if stream_id <= last or not stream_id & 1:
            stream = self.streams.get(stream_id)
            if stream is not None:
                self._on_trailers(stream, block, end=end)
            elif self._was_skipped(stream_id):
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a stream id that is too low")
            else:
                self._judge_late(None, stream_id, "HEADERS")
            return
        if stream_id != last + 2 and stream_id > 1 and len(self._gaps) < _GAPS:
            self._gaps.append((last, stream_id))
        if self.goaway_sent is not None and stream_id > self.goaway_sent:
            self.last_peer_stream = stream_id
            self._charge_reset()
            self._expect_late(stream_id)
            return
        self.last_peer_stream = stream_id
        if len(self.streams) >= self.limits.max_streams:
            self._stream_fault(stream_id, ErrorCode.REFUSED_STREAM, "too many streams")
            return
        fields = block.judged
        if fields is None:
            fields = block.judged = self._judge_block(block)
        if type(fields) is not RequestFields:
            if block.is_oversize:
                self._open(stream_id, end=end).on_oversize(None, end=end)
                return
            reason = fields.reason if isinstance(fields, Malformed) else ""
            self._stream_fault(stream_id, ErrorCode.PROTOCOL_ERROR, reason)
            return
        if end and fields.length > 0:
            self._stream_fault(stream_id, ErrorCode.PROTOCOL_ERROR, "content-length without a body")
            return
        stream = self._open(stream_id, end=end)
        stream.expected = fields.length
        stream.on_request(fields, end=end)

    def _judge_block(self, block: Block) -> RequestFields | Malformed:
        if block.is_oversize:
            return Malformed("field section too large")
        return self._judge(block.fields)

    def _open(self, stream_id: int, *, end: bool) -> S:
        stream = self._make_stream()
        stream.stream_id = stream_id
        stream.send_window = self.peer_window
        stream.recv_window = self._stream_window
        stream.recv_closed = end
        self.streams[stream_id] = stream
        return stream

    def _was_skipped(self, stream_id: int) -> bool:
        return any(low < stream_id < high for low, high in self._gaps)

    def _is_idle(self, stream_id: int) -> bool:
        return not stream_id & 1 or stream_id > self.last_peer_stream
