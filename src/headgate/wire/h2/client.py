"""The client's side of an HTTP/2 connection: ours towards an instance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from headgate.wire.h2 import frames
from headgate.wire.h2.connection import H2Connection, H2Limits
from headgate.wire.h2.fields import Malformed, judge_response
from headgate.wire.h2.frames import (
    DEFAULT_WINDOW,
    LARGEST_STREAM_ID,
    PREFACE,
    ConnectionFault,
    ErrorCode,
)
from headgate.wire.h2.stream import Stream
from headgate.wire.message import ResponseHead

if TYPE_CHECKING:
    from headgate.wire.h2.hpack_decoder import Block

S = TypeVar("S", bound=Stream)

_STREAMS_BEFORE_SETTINGS: Final = 100
"""RFC 9113 6.5.2 recommends that no server allows less; asked before its SETTINGS have come."""
_BODILESS: Final = frozenset({204, 304})


class ClientConnection(H2Connection[S]):
    def __init__(self, limits: H2Limits, now: float) -> None:
        super().__init__(limits, now)
        self._next_id = 1
        self._stream_window = limits.stream_window
        self.out.append(PREFACE)
        self.out.append(
            frames.settings(
                {
                    frames.ENABLE_PUSH: 0,
                    frames.INITIAL_WINDOW_SIZE: limits.stream_window,
                    frames.MAX_HEADER_LIST_SIZE: limits.list_bytes,
                }
            )
        )
        if limits.connection_window > DEFAULT_WINDOW:
            self._refund(limits.connection_window - DEFAULT_WINDOW)

    @property
    def room(self) -> int:
        """How many more streams may be opened now."""
        if self.is_closed or self.is_draining or self._next_id > LARGEST_STREAM_ID:
            return 0
        allowed = self.peer_settings.get(
            frames.MAX_CONCURRENT_STREAMS,
            self.limits.max_streams if self._settings_seen else _STREAMS_BEFORE_SETTINGS,
        )
        return max(0, min(allowed, self.limits.max_streams) - len(self.streams))

    def open(self, stream: S, block: bytes, *, end: bool) -> None:
        """Send a request head that `encoder.encode_request` made just now. Needs `room`."""
        stream.stream_id = self._next_id
        self._next_id += 2
        stream.send_window = self.peer_window
        stream.recv_window = self._stream_window
        stream.head_sent = True
        self.streams[stream.stream_id] = stream
        self.send_block(stream, block, end=end)

    def _on_block(self, stream_id: int, data: bytes, *, end: bool) -> None:
        block = self.decoder.kept.get(data)
        if block is None:
            block = self._decode(data)
        stream = self.streams.get(stream_id)
        if stream is None or stream.recv_closed:
            self._judge_late(stream, stream_id, "HEADERS")
            return
        if stream.head_done:
            self._on_trailers(stream, block, end=end)
            return
        head = block.judged
        if head is None:
            head = block.judged = self._judge_block(block)
        if type(head) is not ResponseHead:
            reason = head.reason if isinstance(head, Malformed) else ""
            self._stream_fault(stream_id, ErrorCode.PROTOCOL_ERROR, reason)
            return
        if head.status < 200:
            if end:
                self._stream_fault(stream_id, ErrorCode.PROTOCOL_ERROR, "a stream that ends in 1xx")
            elif not self.guards.empty.take(self._now, 0):
                raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many 1xx responses")
            else:
                stream.on_informational(head)
            return
        stream.head_done = True
        if end:
            stream.recv_closed = True
            if head.length > 0 and not (stream.expected == 0 or head.status in _BODILESS):
                self._stream_fault(
                    stream_id, ErrorCode.PROTOCOL_ERROR, "content-length without a body"
                )
                return
        elif stream.expected == 0 or head.status in _BODILESS:
            stream.expected = 0  # an empty DATA frame may still end it; a body may not come
        else:
            stream.expected = head.length
        stream.on_response(head, end=end)
        if end and stream.send_closed:
            self._drop_if_open(stream)

    def _judge_block(self, block: Block) -> ResponseHead | Malformed:
        if block.is_oversize:
            return Malformed("field section too large")
        return judge_response(block.fields)

    def _peer_goes(self, last: int) -> None:
        for stream in [s for s in self.streams.values() if s.stream_id > last]:
            self._drop(stream)
            stream.on_refused()

    def _peer_reset(self, stream: S, code: int) -> None:
        if code == ErrorCode.REFUSED_STREAM and not stream.head_done:
            stream.on_refused()
        elif code == ErrorCode.NO_ERROR and stream.recv_closed:
            return  # RFC 9113 8.1: the answer is whole, the rest of the request is not wanted
        else:
            super()._peer_reset(stream, code)

    def _is_idle(self, stream_id: int) -> bool:
        return not stream_id & 1 or stream_id >= self._next_id
