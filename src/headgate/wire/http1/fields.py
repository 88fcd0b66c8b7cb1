"""HTTP/1.1 field lines: which are well-formed, which frame the message, what those come to.

Theory of operation
-------------------
Heads differ in a line or two (a path, a cookie, a trace), and most of their lines are those of the
head before. So what was found about a line is kept, in three memories:

- `_known`: lines of end-to-end fields, with name and value apart;
- `_known_frames`: lines of fields that frame the message or the connection;
- per kind of message in `head.py`: what a whole set of framing lines comes to, since that set is
  the same for nearly all heads of a client (`Host`, `Connection`).

Lines go into the first two when they come for the second time; see `headcache`. All are bounded
in entries and, as lines beyond 512 bytes are not kept, in bytes, and emptied when they are full:
what is in use is back at once.

What an editor must not break:
- A name that imitates another is never kept: what a response may say, a request may not.
- Refusals come in the order of the lines, so that a head is refused for its first fault.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, Literal

from headgate.wire.headcache import Kept
from headgate.wire.message import UNKNOWN_LENGTH, Header, Refusal

BAD_FIELD: Final = Refusal(400, "malformed header line")
BAD_LINE_END: Final = Refusal(400, "bare CR, LF or NUL")
BAD_HOST: Final = Refusal(400, "missing, repeated or malformed Host")
BAD_LENGTH: Final = Refusal(400, "repeated or malformed Content-Length")
BAD_CODING: Final = Refusal(400, "repeated or malformed Transfer-Encoding")
UNKNOWN_CODING: Final = Refusal(501, "transfer coding not supported")
LENGTH_AND_CODING: Final = Refusal(400, "Content-Length with Transfer-Encoding")
TWIN_FIELD: Final = Refusal(400, "header name with an underscore imitates another")

TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
BARE: Final = re.compile(rb"(?<!\r)\n|\r(?=[^\n])|\x00")
"""A line end that is no CRLF, or a NUL: wrong in whatever comes after it."""

_FIELD: Final = re.compile(rb"(" + TOKEN + rb"++):[ \t]*+([\t\x20-\x7e\x80-\xff]*+)").fullmatch
_DIGITS: Final = re.compile(rb"[0-9]{1,18}").fullmatch
_FRAMING_TWINS: Final = re.compile(
    rb"(?:content-length|transfer-encoding|host|connection|te|trailer|upgrade|expect"
    rb"|x-forwarded-.*|forwarded|x-real-ip|x-request-id|traceparent)",
    re.IGNORECASE,
)

# What a parser judges itself; everything else is end-to-end.
_HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    }
)
JUDGED: Final = _HOP_BY_HOP | {b"host", b"content-length", b"expect"}
_NOT_NAMEABLE: Final = frozenset({b"host", b"content-length", b"transfer-encoding"})
_OPTION_WORDS: Final = frozenset({b"close", b"keep-alive", b"upgrade", b"te"})

Kind = Literal["end-to-end", "framing", "twin"]

_LINE_BYTES: Final = 1024
_known: Final[Kept[bytes, Header]] = Kept(4096, _LINE_BYTES)
_known_frames: Final[Kept[bytes, Header]] = Kept(1024, _LINE_BYTES)
_known_names: Final[Kept[bytes, tuple[bytes, Kind]]] = Kept(1024, _LINE_BYTES)


def imitates(name: bytes) -> bool:
    """Whether a (lower-case) name becomes a framing or identity field once `_` is read as `-`."""
    return b"_" in name and _FRAMING_TWINS.fullmatch(name.replace(b"_", b"-")) is not None


def lines_of(block: bytes, start: int) -> list[bytes]:
    """The field lines of a block, without the empty one that ends it."""
    lines = block[start:].split(b"\r\n")
    del lines[-2:]
    return lines


def read_line(line: bytes) -> tuple[Header, Kind] | Refusal:
    """Take a line apart."""
    found = _FIELD(line)
    if found is None:
        return BAD_LINE_END if BARE.search(line) else BAD_FIELD
    raw, value = found.groups()
    name, kind = _known_names.found.get(raw) or _judge_name(raw)
    return (name, value.rstrip(b" \t")), kind


def _judge_name(raw: bytes) -> tuple[bytes, Kind]:
    name = raw.lower()
    judged: tuple[bytes, Kind] = (name, "end-to-end")
    if name in JUDGED:
        judged = (name, "framing")
    elif imitates(name):
        judged = (name, "twin")
    _known_names.put(raw, len(raw), judged)
    return judged


def sort_lines(lines: list[bytes], frames: list[bytes], *, twins: bool) -> list[Header] | Refusal:
    """Return the end-to-end fields, and append the lines of all others to `frames`.

    `frames` begins with something else, the version.

    `twins`: refuse names that imitate another with an underscore, a matter of requests, since it
    is CGI's reading of them that makes them dangerous (RFC 3875 4.1.18).
    """
    kept: list[Header] = []
    keep = kept.append
    known = _known.found.get
    frame_lines = _known_frames.found
    for line in lines:
        field = known(line)
        if field is None:
            if line in frame_lines:
                frames.append(line)
                continue
            read = read_line(line)
            if isinstance(read, Refusal):
                return _first_fault(frames, read)
            field, kind = read
            if kind == "framing":
                _known_frames.put(line, len(line), field)
                frames.append(line)
                continue
            if kind == "end-to-end":
                _known.put(line, len(line), field)
            elif twins:
                return _first_fault(frames, TWIN_FIELD)
        keep(field)
    return kept


def _first_fault(frames: list[bytes], fault: Refusal) -> Refusal:
    """The fault of a line, unless framing lines before it repeat one another."""
    said = Said.of(frames[1:])
    return said if isinstance(said, Refusal) else fault


class Said:
    """What the framing fields of one head say, field by field."""

    __slots__ = ("coding", "expect", "host", "length_line", "options", "te", "upgrade")

    def __init__(self) -> None:
        self.options: frozenset[bytes] = frozenset()
        self.host: bytes | None = None
        self.length_line: bytes | None = None
        self.coding: bytes | None = None
        self.expect: bytes | None = None
        self.te: bytes | None = None
        self.upgrade: bytes | None = None

    @classmethod
    def of(cls, lines: Iterable[bytes]) -> Said | Refusal:
        """Read lines that are known to be well-formed."""
        said = cls()
        options: bytes | None = None
        for line in lines:
            field = _known_frames.found.get(line)
            if field is None:
                read = read_line(line)
                if isinstance(read, Refusal):
                    return read
                field = read[0]
            name, value = field
            if name == b"host":
                if said.host is not None:
                    return BAD_HOST
                said.host = value
            elif name == b"content-length":
                if said.length_line is not None:
                    return BAD_LENGTH
                said.length_line = value
            elif name == b"transfer-encoding":
                if said.coding is not None:
                    return BAD_CODING
                said.coding = value
            elif name == b"connection":
                options = value if options is None else options + b"," + value
            elif name == b"expect":
                said.expect = value if said.expect is None else b"repeated"
            elif name == b"upgrade":
                said.upgrade = value if said.upgrade is None else b""
            elif name == b"te":
                said.te = value if said.te is None else said.te + b"," + value
        if options is not None:
            said.options = _options_of(options)
        return said

    def length(self, *, is_11: bool, missing: int = 0) -> int | Refusal:
        if self.coding is not None:
            if self.length_line is not None:
                return LENGTH_AND_CODING
            if not is_11:
                return BAD_CODING
            coding = self.coding.lower()
            if coding != b"chunked":
                # A list that does not end in chunked, or repeats it, cannot be framed at all.
                known = all(c.strip(b" \t").isalpha() for c in coding.split(b","))
                return UNKNOWN_CODING if known and b"chunked" not in coding else BAD_CODING
            return UNKNOWN_LENGTH
        if self.length_line is None:
            return missing
        if not _DIGITS(self.length_line):
            return BAD_LENGTH
        return int(self.length_line)

    def keeps_alive(self, *, is_11: bool) -> bool:
        return b"close" not in self.options and (is_11 or b"keep-alive" in self.options)

    def upgrade_to(self) -> str | None:
        """The protocol asked for or agreed to, if `Connection` names the field too."""
        if self.upgrade and b"upgrade" in self.options:
            return self.upgrade.decode("latin-1").lower()
        return None

    def named(self) -> frozenset[bytes]:
        """The fields that `Connection` makes hop-by-hop (RFC 9110 7.6.1)."""
        if self.options <= _OPTION_WORDS:
            return frozenset()
        return self.options - _NOT_NAMEABLE


def end_to_end(kept: list[Header], named: frozenset[bytes]) -> tuple[Header, ...]:
    """The fields that travel on: without those that `Connection` names."""
    if not named:
        return tuple(kept)
    return tuple([field for field in kept if field[0] not in named])


@lru_cache(maxsize=256)
def _options_of(value: bytes) -> frozenset[bytes]:
    return frozenset(option.strip(b" \t") for option in value.lower().split(b","))
