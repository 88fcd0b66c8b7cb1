"""The receiving half of a connection: bytes in, calls on streams.

Theory of operation
-------------------
Sans-IO. The rim calls `feed(data, now)`, which reads frames straight from the buffer and calls
the streams' `on_...` methods; whatever is to be written has then gathered in `out`. Nothing is
buffered but one unfinished frame and one unfinished field block, both bounded.

Faults follow RFC 9113 5.4. A `ConnectionFault` raised anywhere inside `feed` is turned into
GOAWAY, after which `is_closed` is set and everything else is ignored. Stream faults go through
`_stream_fault`: RST_STREAM, a charge to the `resets` guard, `on_reset` for the owner.

Frames on a stream that is not open (RFC 9113 5.1):

    idle                       connection error PROTOCOL_ERROR (PRIORITY passes)
    half-closed by the peer    DATA, HEADERS: stream error STREAM_CLOSED
    reset by us                ignored, but decoded (HPACK) and credited (flow control)
    closed otherwise           WINDOW_UPDATE, RST_STREAM, PRIORITY: ignored
                               DATA, HEADERS: connection error STREAM_CLOSED

What an editor must not break: every field block is decoded, in order, whatever happens to its
stream; every DATA byte, padding included, is taken from the connection's window and given back
exactly once; after any call on a stream the connection may be closed or the stream gone.

`server.py` and `client.py` hold what differs between the roles.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

from headgate.wire.h2 import frames
from headgate.wire.h2.fields import Malformed, judge_trailers
from headgate.wire.h2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    DEFAULT_FRAME_SIZE,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    FRAME_HEAD_BYTES,
    GOAWAY,
    HEADERS,
    LARGEST_FRAME_SIZE,
    LARGEST_STREAM_ID,
    LARGEST_WINDOW,
    PADDED,
    PING,
    PRIORITIZED,
    PRIORITY,
    PRIORITY_UPDATE,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    ConnectionFault,
    ErrorCode,
    unpack_head,
    unpack_setting,
    unpack_u32,
)
from headgate.wire.h2.guards import GuardLimits, Guards
from headgate.wire.h2.hpack_decoder import Block, Decoder, HeaderBomb, HpackFault
from headgate.wire.h2.sending import FRAME_MAX, Sending
from headgate.wire.h2.stream import Stream

if TYPE_CHECKING:
    from collections.abc import Callable

_PRIORITY_BYTES: Final = 5
_PING_BYTES: Final = 8
_GOAWAY_BYTES: Final = 8
_SETTING_BYTES: Final = 6
_QUEUED_WHILE_BLOCKED: Final = 2000
"""Frames written into `out` or the transport while it takes nothing."""

S = TypeVar("S", bound=Stream)


@dataclass(frozen=True, slots=True)
class H2Limits:
    """What we announce and what we bear; one object serves all connections of a listener."""

    max_streams: int = 128
    stream_window: int = 262_144
    connection_window: int = 1_048_576
    list_bytes: int = 65_536
    guards: GuardLimits = field(default_factory=GuardLimits)


class H2Connection(Sending[S], ABC):
    """Both roles. `make_stream` makes the rim's own kind of `Stream`."""

    _role_is_server: bool = False

    def __init__(self, limits: H2Limits, now: float) -> None:
        super().__init__()
        self.limits = limits
        self.guards = Guards(limits.guards, now)
        self.decoder = Decoder(limits.list_bytes)
        self.fault: ConnectionFault | None = None
        self.peer_settings: dict[int, int] = {}
        self.peer_goaway: int | None = None
        """The last stream id that the peer's GOAWAY lets through."""
        self.peer_goaway_code: int = 0
        self.goaway_sent: int | None = None
        self.settings_acked = False
        self.last_peer_stream = 0
        self.on_goaway: Callable[[int, int], None] | None = None
        self.on_settings: Callable[[], None] | None = None
        self.on_ping_ack: Callable[[bytes], None] | None = None
        self._now = now
        self._tail = b""
        self._tail_since = 0.0
        self._block_since = 0.0
        self._settings_seen = False
        self._block_of = 0
        self._block_flags = 0
        self._block_priority_on = 0
        self._block_parts: list[bytes] = []
        self._block_bytes = 0
        self._stream_window = DEFAULT_WINDOW
        self._credit_step = limits.connection_window // 2
        self._stream_credit_step = limits.stream_window // 2
        self._rare: Final = {
            PRIORITY: self._on_priority,
            RST_STREAM: self._on_rst_stream,
            SETTINGS: self._on_settings,
            PUSH_PROMISE: self._on_push_promise,
            PING: self._on_ping,
            GOAWAY: self._on_goaway,
            WINDOW_UPDATE: self._on_window_update,
            CONTINUATION: self._on_continuation,
            PRIORITY_UPDATE: self._on_priority_update,
        }

    # -- for the rim ---------------------------------------------------------------------------

    def feed(self, data: bytes, now: float) -> None:
        """Read what has come. Afterwards write `take()`, and close if `is_closed`."""
        if self.is_closed:
            return
        self._now = now
        if self._tail:
            data = self._tail + data
        try:
            used = self._read_frames(data)
        except ConnectionFault as fault:
            self.fail(fault)
            return
        self._tail = tail = data[used:] if used else data
        if not tail:
            self._tail_since = 0.0
        elif used or not self._tail_since:
            self._tail_since = now

    def fail(self, fault: ConnectionFault) -> None:
        """End the connection for the peer's fault."""
        self.fault = fault
        self.goaway(fault.code, fault.reason)
        self.is_closed = True
        self._tail = b""

    def goaway(self, code: ErrorCode, reason: str = "", last: int | None = None) -> None:
        """Say that no further stream will be served; streams up to `last` still are."""
        self.goaway_sent = self.last_peer_stream if last is None else last
        self.out.append(frames.goaway(self.goaway_sent, code, reason.encode("ascii", "replace")))

    def ping(self, payload: bytes) -> None:
        self.out.append(frames.ping(payload))

    @property
    def unfinished_since(self) -> float:
        """Since when a field block, or else a frame, waits for its rest; 0 when none does."""
        return self._block_since if self._block_of else self._tail_since

    @property
    def is_in_block(self) -> bool:
        return self._block_of != 0

    @property
    def has_room(self) -> bool:
        """Whether the peer may send a whole frame of body, if its stream has room for one.

        Without it a peer is silent because other streams are not read, and not because it is slow.
        """
        return self._recv_window >= FRAME_MAX

    @property
    def is_draining(self) -> bool:
        return self.goaway_sent is not None or self.peer_goaway is not None

    # -- frames --------------------------------------------------------------------------------

    def _read_frames(self, data: bytes) -> int:
        """Handle all whole frames; how many bytes they were."""
        pos = 0
        end = len(data)
        while end - pos >= FRAME_HEAD_BYTES:
            high, low, kind, flags, stream_id = unpack_head(data, pos)
            length = high << 8 | low
            if length > DEFAULT_FRAME_SIZE:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {length} bytes")
            start = pos + FRAME_HEAD_BYTES
            stop = start + length
            if stop > end:
                break
            pos = stop
            stream_id &= LARGEST_STREAM_ID
            if self._block_of and (kind != CONTINUATION or stream_id != self._block_of):
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a frame inside a field block")
            if kind == HEADERS and self._settings_seen:
                if flags & (PADDED | PRIORITIZED) or not flags & END_HEADERS:
                    self._on_headers(stream_id, flags, data[start:stop])
                else:
                    self._on_block(stream_id, data[start:stop], end=bool(flags & END_STREAM))
            elif kind == DATA and self._settings_seen:
                self._on_data(stream_id, flags, data[start:stop])
            elif not self._settings_seen and (kind != SETTINGS or flags & ACK):
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")
            else:
                handle = self._rare.get(kind)
                if handle is not None:
                    handle(stream_id, flags, data[start:stop])
                else:
                    self._charge_control()  # RFC 9113 4.1: unknown types are ignored
            if self.is_closed:
                return end
        return pos

    def _on_data(self, stream_id: int, flags: int, payload: bytes) -> None:
        size = len(payload)
        window = self._recv_window - size
        if window < 0:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "DATA beyond the window")
        self._recv_window = window
        stream = self.streams.get(stream_id)
        if stream is None or stream.recv_closed:
            self._refund(size)
            self._judge_late(stream, stream_id, "DATA")
            return
        window = stream.recv_window - size
        if window < 0:
            self._refund(size)
            self._stream_fault(stream_id, ErrorCode.FLOW_CONTROL_ERROR, "DATA beyond the window")
            return
        stream.recv_window = window
        stream.owed += size
        if flags & PADDED:
            whole = size
            payload = _strip_padding(payload, 0)
            size = len(payload)
            self.consume(stream, whole - size)
        received = stream.received = stream.received + size
        if flags & END_STREAM:
            stream.recv_closed = True
            if stream.expected >= 0 and received != stream.expected:
                self._stream_fault(
                    stream_id, ErrorCode.PROTOCOL_ERROR, "body and content-length differ"
                )
                return
            stream.on_data(payload, end=True)
            if stream.send_closed:
                self._drop_if_open(stream)
            return
        if not size and not self.guards.empty.take(self._now, 0):
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many empty frames")
        if 0 <= stream.expected < received:
            self._stream_fault(
                stream_id, ErrorCode.PROTOCOL_ERROR, "body longer than content-length"
            )
            return
        stream.on_data(payload, end=False)

    def _on_headers(self, stream_id: int, flags: int, payload: bytes) -> None:
        """HEADERS with padding, priority, or an unfinished block."""
        if stream_id == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "HEADERS on stream 0")
        depends_on = -1
        if flags & PRIORITIZED:
            at = 1 if flags & PADDED else 0
            if len(payload) < at + _PRIORITY_BYTES:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "HEADERS too short")
            depends_on = unpack_u32(payload, at)[0] & LARGEST_STREAM_ID
        extra = _PRIORITY_BYTES if flags & PRIORITIZED else 0
        if flags & PADDED:
            payload = _strip_padding(payload, extra)
        payload = payload[extra:] if extra else payload
        if flags & END_HEADERS:
            self._on_block(stream_id, payload, end=bool(flags & END_STREAM))
        else:
            self._check_piece(payload)
            self._block_of = stream_id
            self._block_since = self._now
            self._block_flags = flags
            self._block_parts = [payload]
            self._block_bytes = len(payload)
            self._block_priority_on = depends_on
            return
        self._check_dependency(stream_id, depends_on)

    def _on_continuation(self, stream_id: int, flags: int, payload: bytes) -> None:
        if not self._block_of:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        bounds = self.limits.guards
        self._check_piece(payload)
        self._block_parts.append(payload)
        self._block_bytes += len(payload)
        if (
            len(self._block_parts) > bounds.continuations + 1
            or self._block_bytes > bounds.block_bytes
        ):
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "a field block without end")
        if flags & END_HEADERS:
            block = b"".join(self._block_parts)
            self._block_of = 0
            self._block_parts = []
            self._on_block(stream_id, block, end=bool(self._block_flags & END_STREAM))
            self._check_dependency(stream_id, self._block_priority_on)

    def _check_piece(self, payload: bytes) -> None:
        if not payload and not self.guards.empty.take(self._now, 0):
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many empty frames")

    def _check_dependency(self, stream_id: int, depends_on: int) -> None:
        """RFC 7540 5.3.1. Priorities are obsolete, this rule is still asked for by suites."""
        if depends_on == stream_id and not self.is_closed:
            self._stream_fault(stream_id, ErrorCode.PROTOCOL_ERROR, "a stream depends on itself")

    def _decode(self, data: bytes) -> Block:
        try:
            return self.decoder.decode(data)
        except HpackFault as fault:
            raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, str(fault)) from fault
        except HeaderBomb as fault:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, str(fault)) from fault

    @abstractmethod
    def _on_block(self, stream_id: int, data: bytes, *, end: bool) -> None:
        """A whole field block; each role knows what it opens or answers."""

    def _on_trailers(self, stream: S, block: Block, *, end: bool) -> None:
        """A block after the head of the message."""
        if stream.recv_closed:
            self._stream_fault(stream.stream_id, ErrorCode.STREAM_CLOSED, "HEADERS after the end")
            return
        if not end:  # RFC 9113 8.1
            self._stream_fault(
                stream.stream_id, ErrorCode.PROTOCOL_ERROR, "trailers that do not end the stream"
            )
            return
        trailers = Malformed("too large") if block.is_oversize else judge_trailers(block.fields)
        if isinstance(trailers, Malformed):
            self._stream_fault(stream.stream_id, ErrorCode.PROTOCOL_ERROR, trailers.reason)
            return
        stream.recv_closed = True
        if stream.expected >= 0 and stream.received != stream.expected:
            self._stream_fault(
                stream.stream_id, ErrorCode.PROTOCOL_ERROR, "body and content-length differ"
            )
            return
        stream.on_trailers(trailers)
        if stream.send_closed:
            self._drop_if_open(stream)

    def _on_priority(self, stream_id: int, flags: int, payload: bytes) -> None:
        del flags
        if stream_id == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PRIORITY on stream 0")
        self._charge_control()
        if len(payload) != _PRIORITY_BYTES:
            self._stream_fault(stream_id, ErrorCode.FRAME_SIZE_ERROR, "PRIORITY of a wrong size")
            return
        self._check_dependency(stream_id, unpack_u32(payload, 0)[0] & LARGEST_STREAM_ID)

    def _on_priority_update(self, stream_id: int, flags: int, payload: bytes) -> None:
        """RFC 9218 7.1: a hint, and we take none."""
        del flags
        if stream_id != 0 or not self._role_is_server:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PRIORITY_UPDATE out of place")
        if len(payload) < 4:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "PRIORITY_UPDATE too short")
        if unpack_u32(payload, 0)[0] & LARGEST_STREAM_ID == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PRIORITY_UPDATE for stream 0")
        self._charge_control()

    def _on_rst_stream(self, stream_id: int, flags: int, payload: bytes) -> None:
        del flags
        if stream_id == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "RST_STREAM on stream 0")
        if len(payload) != 4:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "RST_STREAM of a wrong size")
        stream = self.streams.get(stream_id)
        if stream is None:
            if self._is_idle(stream_id):
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "RST_STREAM on an idle stream")
            self._charge_control()
            return
        (code,) = unpack_u32(payload, 0)
        self._charge_reset()
        self._drop(stream)
        self._peer_reset(stream, code)

    def _peer_reset(self, stream: S, code: int) -> None:
        stream.on_reset(code, "reset by the peer", by_peer=True)

    def _on_settings(self, stream_id: int, flags: int, payload: bytes) -> None:
        if stream_id != 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "SETTINGS on a stream")
        if flags & ACK:
            if payload:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS ACK with a payload")
            self.settings_acked = True
            self._charge_control()
            return
        if len(payload) % _SETTING_BYTES:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS of a wrong size")
        if self._settings_seen:
            self._charge_control(1 + len(payload) // 64)
        self._settings_seen = True
        for key, value in unpack_setting(payload):
            self._apply_setting(key, value)
        self.out.append(frames.SETTINGS_ACK)
        if self.on_settings is not None:
            self.on_settings()

    def _apply_setting(self, key: int, value: int) -> None:
        """RFC 9113 6.5.2; in order, each as if it came alone."""
        if key == frames.INITIAL_WINDOW_SIZE:
            if value > LARGEST_WINDOW:
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE")
            change = value - self.peer_window
            self.peer_window = value
            for stream in self.streams.values():
                stream.send_window += change
                if stream.send_window > LARGEST_WINDOW:
                    raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE")
            if change > 0:
                self.pump()
        elif key == frames.MAX_FRAME_SIZE:
            if not DEFAULT_FRAME_SIZE <= value <= LARGEST_FRAME_SIZE:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "MAX_FRAME_SIZE")
            self._allow_frames(value)
        elif key == frames.HEADER_TABLE_SIZE:
            self.encoder.allow(value)
        elif key == frames.ENABLE_PUSH:
            if value > (1 if self._role_is_server else 0):
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "ENABLE_PUSH")
        elif key in {frames.ENABLE_CONNECT_PROTOCOL, frames.NO_RFC7540_PRIORITIES}:
            if value > 1:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"setting {key} is not 0 or 1")
        elif key not in {frames.MAX_CONCURRENT_STREAMS, frames.MAX_HEADER_LIST_SIZE}:
            return  # unknown settings are ignored, and not kept: there are 65,000 of them
        self.peer_settings[key] = value

    def _on_push_promise(self, stream_id: int, flags: int, payload: bytes) -> None:
        """To a server never legal; as a client we said ENABLE_PUSH=0."""
        del stream_id, flags, payload
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PUSH_PROMISE")

    def _on_ping(self, stream_id: int, flags: int, payload: bytes) -> None:
        if stream_id != 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PING on a stream")
        if len(payload) != _PING_BYTES:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "PING of a wrong size")
        self._charge_control()
        if not flags & ACK:
            self.out.append(frames.ping(payload, ack=True))
        elif self.on_ping_ack is not None:
            self.on_ping_ack(payload)

    def _on_goaway(self, stream_id: int, flags: int, payload: bytes) -> None:
        del flags
        if stream_id != 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "GOAWAY on a stream")
        if len(payload) < _GOAWAY_BYTES:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY too short")
        self._charge_control()
        last = unpack_u32(payload, 0)[0] & LARGEST_STREAM_ID
        (code,) = unpack_u32(payload, 4)
        if self.peer_goaway is not None and last > self.peer_goaway:
            last = self.peer_goaway  # RFC 9113 6.8: it must not grow
        self.peer_goaway = last
        self.peer_goaway_code = code
        self._peer_goes(last)
        if self.on_goaway is not None:
            self.on_goaway(last, code)

    def _peer_goes(self, last: int) -> None:
        """Client: streams beyond `last` were not acted on."""

    def _on_window_update(self, stream_id: int, flags: int, payload: bytes) -> None:
        del flags
        if len(payload) != 4:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "WINDOW_UPDATE of a wrong size")
        increment = unpack_u32(payload, 0)[0] & LARGEST_WINDOW
        if not self.guards.updates.take(self._now, self.worked):
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many WINDOW_UPDATE frames")
        if stream_id == 0:
            if not increment:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE by 0")
            self.send_window += increment
            if self.send_window > LARGEST_WINDOW:
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "WINDOW_UPDATE beyond 2^31-1")
            if self._waiting:
                self.pump()
            return
        stream = self.streams.get(stream_id)
        if stream is None:
            if self._is_idle(stream_id):
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE on an idle stream")
            return
        if not increment:
            self._stream_fault(stream_id, ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE by 0")
            return
        stream.send_window += increment
        if stream.send_window > LARGEST_WINDOW:
            self._stream_fault(
                stream_id, ErrorCode.FLOW_CONTROL_ERROR, "WINDOW_UPDATE beyond 2^31-1"
            )
        elif stream.pending is not None:
            self.pump()

    # -- faults --------------------------------------------------------------------------------

    def _stream_fault(self, stream_id: int, code: ErrorCode, reason: str) -> None:
        """The peer broke a rule that ends one stream."""
        if self._is_idle(stream_id):  # RST_STREAM there would be a fault of ours
            raise ConnectionFault(code, reason)
        self._charge_reset()
        self._reset_id(stream_id, code)
        stream = self.streams.get(stream_id)
        if stream is not None:
            self._drop(stream)
            stream.on_reset(code, reason, by_peer=False)

    def _judge_late(self, stream: S | None, stream_id: int, what: str) -> None:
        """DATA or HEADERS on a stream that is not open: see the table above."""
        if stream is not None:
            self._stream_fault(stream_id, ErrorCode.STREAM_CLOSED, f"{what} after the end")
        elif stream_id == 0 or self._is_idle(stream_id):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"{what} on an idle stream")
        elif stream_id not in self._resets_sent:
            raise ConnectionFault(ErrorCode.STREAM_CLOSED, f"{what} on a closed stream")

    @abstractmethod
    def _is_idle(self, stream_id: int) -> bool:
        """Whether the stream has not been opened by either side."""

    def _charge_reset(self) -> None:
        if not self.guards.resets.take(self._now, self.worked):
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many streams end early")

    def _charge_control(self, cost: int = 1) -> None:
        if not self.guards.control.take(self._now, self.worked, cost) or (
            self.is_blocked and len(self.out) > _QUEUED_WHILE_BLOCKED
        ):
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many control frames")

    def _drop_if_open(self, stream: S) -> None:
        if not stream.is_gone:
            self._drop(stream)

    def _allow_frames(self, size: int) -> None:
        self.frame_max = min(size, FRAME_MAX)


def _strip_padding(payload: bytes, extra: int) -> bytes:
    """RFC 9113 6.1, 6.2: padding may not reach into what comes before it."""
    if not payload:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a padded frame without a pad length")
    kept = len(payload) - payload[0]
    if kept < 1 + extra:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "more padding than payload")
    return payload[1:kept]
