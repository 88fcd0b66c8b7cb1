"""The static table of HPACK (RFC 7541 Appendix A) and what both directions share."""

from __future__ import annotations

from typing import Final

ENTRY_OVERHEAD: Final = 32
"""What an entry counts beyond its octets (RFC 7541 4.1)."""

DEFAULT_TABLE_BYTES: Final = 4096

STATIC: Final[tuple[tuple[bytes, bytes], ...]] = (
    (b"", b""),  # index 0 is not used (RFC 7541 6.1)
    (b":authority", b""),
    (b":method", b"GET"),
    (b":method", b"POST"),
    (b":path", b"/"),
    (b":path", b"/index.html"),
    (b":scheme", b"http"),
    (b":scheme", b"https"),
    (b":status", b"200"),
    (b":status", b"204"),
    (b":status", b"206"),
    (b":status", b"304"),
    (b":status", b"400"),
    (b":status", b"404"),
    (b":status", b"500"),
    (b"accept-charset", b""),
    (b"accept-encoding", b"gzip, deflate"),
    (b"accept-language", b""),
    (b"accept-ranges", b""),
    (b"accept", b""),
    (b"access-control-allow-origin", b""),
    (b"age", b""),
    (b"allow", b""),
    (b"authorization", b""),
    (b"cache-control", b""),
    (b"content-disposition", b""),
    (b"content-encoding", b""),
    (b"content-language", b""),
    (b"content-length", b""),
    (b"content-location", b""),
    (b"content-range", b""),
    (b"content-type", b""),
    (b"cookie", b""),
    (b"date", b""),
    (b"etag", b""),
    (b"expect", b""),
    (b"expires", b""),
    (b"from", b""),
    (b"host", b""),
    (b"if-match", b""),
    (b"if-modified-since", b""),
    (b"if-none-match", b""),
    (b"if-range", b""),
    (b"if-unmodified-since", b""),
    (b"last-modified", b""),
    (b"link", b""),
    (b"location", b""),
    (b"max-forwards", b""),
    (b"proxy-authenticate", b""),
    (b"proxy-authorization", b""),
    (b"range", b""),
    (b"referer", b""),
    (b"refresh", b""),
    (b"retry-after", b""),
    (b"server", b""),
    (b"set-cookie", b""),
    (b"strict-transport-security", b""),
    (b"transfer-encoding", b""),
    (b"user-agent", b""),
    (b"vary", b""),
    (b"via", b""),
    (b"www-authenticate", b""),
)

LAST_STATIC: Final = len(STATIC) - 1

STATIC_FIELDS: Final = {field: index for index, field in enumerate(STATIC) if index}
STATIC_NAMES: Final = {
    STATIC[index][0]: index for index in range(LAST_STATIC, 0, -1)
}  # the lowest index of a name wins


class NeverIndexed(bytes):
    """A field value that its sender marked "never indexed".

    An intermediary must pass the mark on (RFC 7541 6.2.3). It travels as the value's type, so
    that fields stay plain pairs of bytes for everybody who does not care.
    """

    __slots__ = ()


def encode_integer(value: int, prefix_bits: int, first: int) -> bytes:
    """RFC 7541 5.1; `first` holds the bits above the prefix."""
    limit = (1 << prefix_bits) - 1
    if value < limit:
        return bytes((first | value,))
    out = bytearray((first | limit,))
    value -= limit
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
