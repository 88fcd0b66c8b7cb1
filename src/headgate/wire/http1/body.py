"""HTTP/1.1 message bodies: where one ends, and the chunked coding (RFC 9112 6, 7).

Theory of operation
-------------------
A reader is fed what follows the head and returns the payload found, whether the body is over,
and what is left of the bytes. It keeps no payload. `ChunkedReader` moves through four states:
size line -> data -> data end -> (size 0) trailer. Every line ends in CRLF and nothing else; a
bare LF or CR is where two parsers start to disagree, so it is refused in sizes, extensions and
trailers alike.

Chunk extensions are dropped: nobody uses them, and forwarding them is a way through
(RFC 9112 7.1.1 lets a recipient ignore them). They are bounded so that they cannot be used to
send without end.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from headgate.wire.http1.head import HeadLimits, parse_trailers
from headgate.wire.message import Refusal

if TYPE_CHECKING:
    from headgate.wire.message import Header

# chunk-ext of RFC 9112 7.1.1 to the letter: a quote left open would let another parser read past
# the line end.
_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_QUOTED: Final = rb'"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*+"'
_SIZE_LINE: Final = re.compile(
    rb"([0-9A-Fa-f]{1,15})"
    rb"(?:[ \t]*+;[ \t]*+"
    + _TOKEN
    + rb"(?:[ \t]*+=[ \t]*+(?:"
    + _TOKEN
    + rb"|"
    + _QUOTED
    + rb"))?+)*+"
    rb"\r\n"
)
_SIZE_LINE_MAX: Final = 256
_EXTENSIONS_MAX: Final = 16 * 1024

BAD_CHUNK: Final = Refusal(400, "malformed chunk")
BAD_TRAILER: Final = Refusal(400, "malformed trailer")
EXTENSIONS_TOO_LONG: Final = Refusal(400, "chunk extensions too long")


class LengthReader:
    """A body of known length."""

    __slots__ = ("left",)

    def __init__(self, length: int) -> None:
        self.left = length

    @property
    def trailers(self) -> tuple[Header, ...]:
        return ()

    @property
    def is_done(self) -> bool:
        return self.left == 0

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Return (payload, rest); rest is not empty only when the body is over."""
        if len(data) <= self.left:
            self.left -= len(data)
            return data, b""
        payload, rest = data[: self.left], data[self.left :]
        self.left = 0
        return payload, rest


class UntilCloseReader:
    """A response body that ends with the connection (RFC 9112 6.3, rule 8)."""

    __slots__ = ()
    is_done = False
    trailers: tuple[Header, ...] = ()

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        return data, b""


class ChunkedReader:
    """A chunked body. `refusal` is set once the peer has broken the coding; feed no more then."""

    __slots__ = ("_extension_bytes", "_held", "_left", "_limits", "_state", "refusal", "trailers")

    _SIZE, _DATA, _DATA_END, _TRAILER, _DONE = range(5)

    def __init__(self, limits: HeadLimits) -> None:
        self._limits = limits
        self._state = self._SIZE
        self._left = 0
        self._held = b""
        self._extension_bytes = 0
        self.trailers: tuple[Header, ...] = ()
        self.refusal: Refusal | None = None

    @property
    def is_done(self) -> bool:
        return self._state == self._DONE

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Return (payload, rest). Look at `refusal` and `is_done` afterwards."""
        if self._held:
            data = self._held + data
            self._held = b""
        pieces: list[bytes] = []
        at = 0
        end = len(data)
        while at < end and self.refusal is None:
            state = self._state
            if state == self._DATA:
                taken = min(self._left, end - at)
                pieces.append(data[at : at + taken])
                at += taken
                self._left -= taken
                if self._left == 0:
                    self._state = self._DATA_END
            elif state == self._DATA_END:
                if data.startswith(b"\r\n", at):
                    at += 2
                    self._state = self._SIZE
                elif data[at:] == b"\r":
                    break
                else:
                    self.refusal = BAD_CHUNK
            elif state == self._SIZE:
                line = _SIZE_LINE.match(data, at)
                if line is None:
                    self._judge_partial_size(data, at)
                    break
                at = self._take_size(line)
            elif state == self._TRAILER:
                at = self._take_trailer(data, at)
                if self._state != self._DONE:
                    break
            else:
                break
        if self._state == self._DONE:
            return b"".join(pieces), data[at:]
        self._held = data[at:] if self.refusal is None else b""
        return pieces[0] if len(pieces) == 1 else b"".join(pieces), b""

    def _take_size(self, line: re.Match[bytes]) -> int:
        digits = line[1]
        length = line.end() - line.start()
        self._extension_bytes += length - len(digits) - 2
        if length > _SIZE_LINE_MAX or self._extension_bytes > _EXTENSIONS_MAX:
            self.refusal = EXTENSIONS_TOO_LONG
        self._left = int(digits, 16)
        self._state = self._DATA if self._left else self._TRAILER
        return line.end()

    def _judge_partial_size(self, data: bytes, at: int) -> None:
        """A size line that has not come whole may go on only while it still can be one."""
        if len(data) - at > _SIZE_LINE_MAX or not _SIZE_START.fullmatch(data, at):
            self.refusal = BAD_CHUNK

    def _take_trailer(self, data: bytes, at: int) -> int:
        if data.startswith(b"\r\n", at):
            self._state = self._DONE
            return at + 2
        end = data.find(b"\r\n\r\n", at)
        if end < 0:
            if len(data) - at > self._limits.head_bytes or _BARE_IN_TRAILER.search(data, at):
                self.refusal = BAD_TRAILER
            return at
        found = parse_trailers(data[at : end + 4], self._limits)
        if isinstance(found, Refusal):
            self.refusal = BAD_TRAILER
            return at
        self.trailers = found
        self._state = self._DONE
        return end + 4


_SIZE_START: Final = re.compile(rb"[0-9A-Fa-f]{1,15}(?:[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?)?\r?")
_BARE_IN_TRAILER: Final = re.compile(rb"(?<!\r)\n|\r(?=[^\n])|\x00")

BodyReader = LengthReader | ChunkedReader | UntilCloseReader


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def last_chunk(trailers: tuple[Header, ...] = ()) -> bytes:
    if not trailers:
        return b"0\r\n\r\n"
    lines = b"".join(b"%b: %b\r\n" % field for field in trailers)
    return b"0\r\n%b\r\n" % lines
