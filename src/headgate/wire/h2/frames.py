"""Frame types, flags, error codes and settings of HTTP/2, and the bytes of outgoing frames.

Numbers are plain integers under a `Final` name: they are compared for every frame, and an enum
member costs an attribute look-up and a call where an integer costs neither. `ErrorCode` is an
enum because it is printed, counted and seldom touched.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client sends first (RFC 9113 3.4)."""

FRAME_HEAD_BYTES: Final = 9

# Frame types (RFC 9113 6; PRIORITY_UPDATE is RFC 9218 7.1).
DATA: Final = 0x0
HEADERS: Final = 0x1
PRIORITY: Final = 0x2
RST_STREAM: Final = 0x3
SETTINGS: Final = 0x4
PUSH_PROMISE: Final = 0x5
PING: Final = 0x6
GOAWAY: Final = 0x7
WINDOW_UPDATE: Final = 0x8
CONTINUATION: Final = 0x9
PRIORITY_UPDATE: Final = 0x10

# Flags. ACK shares its bit with END_STREAM, on other frame types.
ACK: Final = 0x1
END_STREAM: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITIZED: Final = 0x20

# Settings (RFC 9113 6.5.2; 0x8 is RFC 8441 3; 0x9 is RFC 9218 2.1).
HEADER_TABLE_SIZE: Final = 0x1
ENABLE_PUSH: Final = 0x2
MAX_CONCURRENT_STREAMS: Final = 0x3
INITIAL_WINDOW_SIZE: Final = 0x4
MAX_FRAME_SIZE: Final = 0x5
MAX_HEADER_LIST_SIZE: Final = 0x6
ENABLE_CONNECT_PROTOCOL: Final = 0x8
NO_RFC7540_PRIORITIES: Final = 0x9

DEFAULT_WINDOW: Final = 65_535
DEFAULT_FRAME_SIZE: Final = 16_384
LARGEST_FRAME_SIZE: Final = 16_777_215
LARGEST_WINDOW: Final = 2_147_483_647
LARGEST_STREAM_ID: Final = 2_147_483_647


class ErrorCode(IntEnum):
    """RFC 9113 7."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


def name_code(code: int) -> str:
    """The name of an error code for logs; unknown ones are legal (RFC 9113 7)."""
    try:
        return ErrorCode(code).name
    except ValueError:
        return f"0x{code:x}"


class ConnectionFault(Exception):
    """The peer broke a rule that ends the whole connection (RFC 9113 5.4.1)."""

    def __init__(self, code: ErrorCode, reason: str) -> None:
        super().__init__(f"{code.name}: {reason}")
        self.code = code
        self.reason = reason


_HEAD: Final = Struct(">HBBBI")
_U32: Final = Struct(">I")
_SETTING: Final = Struct(">HI")

unpack_head: Final = _HEAD.unpack_from
"""(length >> 8, length & 255, type, flags, reserved bit and stream id)."""
pack_head: Final = _HEAD.pack
unpack_u32: Final = _U32.unpack_from
unpack_setting: Final = _SETTING.iter_unpack

_pack_short: Final = Struct(">HBBBII").pack

SETTINGS_ACK: Final = pack_head(0, 0, SETTINGS, ACK, 0)


def frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    length = len(payload)
    return pack_head(length >> 8, length & 0xFF, kind, flags, stream_id) + payload


def settings(values: dict[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(key, values[key]) for key in values))


def window_update(stream_id: int, increment: int) -> bytes:
    return _pack_short(0, 4, WINDOW_UPDATE, 0, stream_id, increment)


def rst_stream(stream_id: int, code: int) -> bytes:
    return _pack_short(0, 4, RST_STREAM, 0, stream_id, code)


def ping(payload: bytes, *, ack: bool = False) -> bytes:
    return frame(PING, ACK if ack else 0, 0, payload)


def goaway(last_stream_id: int, code: int, reason: bytes = b"") -> bytes:
    return frame(GOAWAY, 0, 0, _U32.pack(last_stream_id) + _U32.pack(code) + reason)


def header_frames(stream_id: int, block: bytes, flags: int, frame_size: int) -> bytes:
    """A field block as HEADERS and as many CONTINUATION frames as it takes (RFC 9113 4.3)."""
    length = len(block)
    if length <= frame_size:
        return (
            pack_head(length >> 8, length & 0xFF, HEADERS, flags | END_HEADERS, stream_id) + block
        )
    parts = [frame(HEADERS, flags, stream_id, block[:frame_size])]
    for start in range(frame_size, length, frame_size):
        piece = block[start : start + frame_size]
        last = END_HEADERS if start + frame_size >= length else 0
        parts.append(frame(CONTINUATION, last, stream_id, piece))
    return b"".join(parts)
