"""HTTP/1.1 message heads: strict parsing of requests and responses.

Theory of operation
-------------------
The rim hands over one complete block: start line, field lines and the empty line. Possessive
regular expressions say what a well-formed line is, and every line must match whole, so anything
they do not describe (bare CR or LF, obs-fold, a space before the colon, NUL, control characters)
refuses the message. Nothing is repaired: a repair is a second reading of the
same bytes, and two readings are what request smuggling needs (RFC 9112 11.2).

Stricter than the RFC, on purpose:
- several `Content-Length` lines are refused even when equal (RFC 9112 6.3 lets them pass);
- `Transfer-Encoding` must be one line saying `chunked`, never with `Content-Length` (6.1);
- a field that turns into a framing or identity field once `_` is read as `-` is refused, because
  CGI, WSGI and their descendants do read it so;
- methods are upper-case words: a lower-case `get` is a different method to us and the same one
  to many origins.

An editor must not let a value that depends on the connection or the clock into these objects:
they are shared by all messages with the same bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from headgate.wire.headcache import Kept
from headgate.wire.host import parse_authority
from headgate.wire.http1.fields import (
    BAD_CODING,
    BAD_FIELD,
    BAD_HOST,
    BAD_LENGTH,
    BAD_LINE_END,
    BARE,
    JUDGED,
    LENGTH_AND_CODING,
    TOKEN,
    TWIN_FIELD,
    UNKNOWN_CODING,
    Said,
    end_to_end,
    imitates,
    lines_of,
    read_line,
    sort_lines,
)
from headgate.wire.message import UNKNOWN_LENGTH, Refusal, RequestHead, ResponseHead
from headgate.wire.target import PLAIN, BadTarget, parse_target

if TYPE_CHECKING:
    from headgate.wire.host import Authority
    from headgate.wire.message import Header

__all__ = [
    "BAD_CODING",
    "BAD_EXPECT",
    "BAD_FIELD",
    "BAD_HOST",
    "BAD_LENGTH",
    "BAD_LINE",
    "BAD_LINE_END",
    "BAD_METHOD",
    "BAD_RESPONSE_FIELD",
    "BAD_RESPONSE_LENGTH",
    "BAD_STATUS_LINE",
    "BAD_VERSION",
    "FORBIDDEN_TRAILERS",
    "HEAD_TOO_LARGE",
    "LENGTH_AND_CODING",
    "TOO_MANY_FIELDS",
    "TWIN_FIELD",
    "UNKNOWN_CODING",
    "URL_TOO_LONG",
    "HeadLimits",
    "body_follows",
    "imitates",
    "is_method",
    "judge_partial",
    "parse_request_head",
    "parse_response_head",
    "parse_trailers",
]

_REQUEST_LINE: Final = re.compile(rb"(" + TOKEN + rb"++) ([\x21-\x7e]++) HTTP/1\.[01]\r\n").match
# Nearly all: a method that we forward and a target in normal form.
_PLAIN_LINE: Final = re.compile(
    rb"(?!CONNECT )([A-Z][A-Z0-9_-]{0,31}+) " + PLAIN + rb" HTTP/1\.[01]\r\n"
).match
_AFTER_TARGET: Final = len(b" HTTP/1.1\r\n")
_STATUS_LINE: Final = re.compile(
    rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*+))?\r\n"
).match
is_method: Final = re.compile(r"[A-Z][A-Z0-9_-]{0,31}").fullmatch
"""Whether a word is a method that we forward."""
_METHOD_MAX: Final = 1024
"""RFC 9112 3: 501 is for a method that is longer than those we know; this long it is none."""
_VERSION: Final = re.compile(rb"[^\r\n]* HTTP/([0-9]+)\.[0-9]+\r\n")

# RFC 9110 6.5.1: fields that must not travel in a trailer section; with them those by which we
# tell services who asks, which nobody may say behind our back.
FORBIDDEN_TRAILERS: Final = JUDGED | {
    b"authorization",
    b"set-cookie",
    b"cookie",
    b"trailer",
    b"content-encoding",
    b"content-type",
    b"content-range",
    b"cache-control",
    b"age",
    b"expires",
    b"date",
    b"location",
    b"retry-after",
    b"vary",
    b"forwarded",
    b"x-real-ip",
    b"x-request-id",
    b"traceparent",
    b"tracestate",
    b"via",
    b"max-forwards",
    b"range",
    b"if-match",
    b"if-none-match",
    b"if-modified-since",
    b"if-unmodified-since",
    b"if-range",
    b"www-authenticate",
}


@dataclass(frozen=True, slots=True)
class HeadLimits:
    """How large a head may be; the numbers come from `limits` in the file."""

    url_bytes: int = 8 * 1024
    head_bytes: int = 32 * 1024
    field_count: int = 100


BAD_LINE: Final = Refusal(400, "malformed request line")
URL_TOO_LONG: Final = Refusal(414, "request target too long")
HEAD_TOO_LARGE: Final = Refusal(431, "header fields too large")
TOO_MANY_FIELDS: Final = Refusal(431, "too many header fields")
BAD_METHOD: Final = Refusal(501, "method not supported")
BAD_VERSION: Final = Refusal(505, "HTTP version not supported")
BAD_EXPECT: Final = Refusal(417, "unknown expectation")
BAD_STATUS_LINE: Final = Refusal(502, "malformed status line")
BAD_RESPONSE_FIELD: Final = Refusal(502, "malformed response header")
BAD_RESPONSE_LENGTH: Final = Refusal(502, "malformed response framing")


def judge_partial(data: bytes | bytearray, limits: HeadLimits) -> Refusal | None:
    """Judge a head that has not come whole: is it already too large, or already wrong?

    Without this a request that ends its lines with a bare LF would wait for its time-out.
    """
    if BARE.search(data):
        return BAD_LINE_END
    line_end = data.find(b"\r\n")
    if (line_end if line_end >= 0 else len(data)) > limits.url_bytes + 48:
        return URL_TOO_LONG if b" " in data[:_METHOD_MAX] else BAD_LINE
    if len(data) > limits.head_bytes + limits.url_bytes:
        return HEAD_TOO_LARGE
    return None


def parse_request_head(block: bytes, limits: HeadLimits, scheme: str) -> RequestHead | Refusal:
    line = _PLAIN_LINE(block)
    odd = None
    if line is None:
        line = _REQUEST_LINE(block)
        if line is None:
            return _why_not_a_request_line(block, limits)
        word, odd = line.groups()
        path = mark = query = b""
        if not is_method(word.decode("ascii")):
            return BAD_METHOD if len(word) < _METHOD_MAX else BAD_LINE
    else:
        word, path, mark, query = line.groups(b"")
    start = line.end()
    if start - _AFTER_TARGET - line.start(2) > limits.url_bytes:
        return URL_TOO_LONG
    if len(block) - start > limits.head_bytes:
        return HEAD_TOO_LARGE
    # The version's digit and all the fields: what stays the same when a client asks for
    # something else.
    rest = block[start - 3 :]
    read = _known_rests.get(rest)
    if read is None:
        judged = _read_rest(rest, limits)
        if isinstance(judged, Refusal):
            return judged
        _rests.put(rest, len(rest), judged)
        read = judged
    headers, framing, count = read
    if count > limits.field_count:
        return TOO_MANY_FIELDS
    if odd is not None:
        return _finish_odd(word.decode(), odd, headers, framing, scheme)
    if framing.refusal is not None:
        return framing.refusal
    return RequestHead(
        word.decode(),
        framing.authority,
        framing.host,
        path.decode(),
        query.decode(),
        headers,
        has_query=mark != b"",
        scheme=scheme,
        length=framing.length,
        version=framing.version,
        keep_alive=framing.keep_alive,
        expects_continue=framing.expects_continue,
        upgrade=framing.upgrade,
        te_trailers=framing.te_trailers,
    )


def _finish_odd(
    method: str, raw: bytes, headers: tuple[Header, ...], framing: _RequestFraming, scheme: str
) -> RequestHead | Refusal:
    """The same for a target that has to be normalised, or has an authority of its own."""
    target = parse_target(method, raw)
    if isinstance(target, BadTarget):
        return Refusal(target.status, target.reason)
    if framing.refusal is not None:
        return framing.refusal
    # RFC 9112 3.2.2: an authority in the target replaces the Host field, which must still be sane.
    said = target.authority
    return RequestHead(
        method,
        said.text if said else framing.authority,
        said.host if said else framing.host,
        target.path,
        target.query,
        headers,
        has_query=target.has_query,
        scheme=scheme,
        length=framing.length,
        version=framing.version,
        keep_alive=framing.keep_alive,
        expects_continue=framing.expects_continue,
        upgrade=framing.upgrade,
        te_trailers=framing.te_trailers,
    )


class _RequestFraming:
    """What the framing lines of a request come to. Shared by all heads that have the same ones."""

    __slots__ = (
        "authority",
        "expects_continue",
        "host",
        "keep_alive",
        "length",
        "named",
        "refusal",
        "te_trailers",
        "upgrade",
        "version",
    )

    def __init__(self, said: Said, length: int, *, is_11: bool) -> None:
        raw = said.host
        authority: Authority | None = parse_authority(raw) if raw is not None else None
        self.refusal: Refusal | None = None
        """A fault that is judged after the target."""
        if is_11 if raw is None else authority is None:
            self.refusal = BAD_HOST
        elif said.expect is not None and said.expect.lower() != b"100-continue":
            self.refusal = BAD_EXPECT
        self.authority = authority.text if authority else ""
        self.host = authority.host if authority else ""
        self.length = length
        self.version = 11 if is_11 else 10
        self.keep_alive = said.keeps_alive(is_11=is_11)
        # RFC 9110 10.1.1: the expectation of an HTTP/1.0 client or of no body is ignored.
        self.expects_continue = said.expect is not None and is_11 and length != 0
        self.upgrade = said.upgrade_to() if is_11 and length == 0 else None
        self.te_trailers = said.te is not None and b"trailers" in said.te.lower()
        self.named = said.named()


_Rest = tuple[tuple["Header", ...], _RequestFraming, int]
"""End-to-end fields, what the others come to, and the number of all."""
_rests: Final[Kept[bytes, _Rest]] = Kept(1024, 4096)
_known_rests: Final = _rests.found
_framings: Final[Kept[tuple[bytes, ...], _RequestFraming]] = Kept(2048, 1024)


def _read_rest(rest: bytes, limits: HeadLimits) -> _Rest | Refusal:
    lines = rest.split(b"\r\n")
    frames = [lines[0]]
    lines = lines[1:-2]
    if len(lines) > limits.field_count:
        return TOO_MANY_FIELDS
    kept = sort_lines(lines, frames, twins=True)
    if isinstance(kept, Refusal):
        return kept
    key = tuple(frames)
    framing = _framings.found.get(key)
    if framing is None:
        judged = _frame_request(key)
        if isinstance(judged, Refusal):
            return judged
        framing = judged
        _framings.put(key, sum(map(len, key)), judged)
    return end_to_end(kept, framing.named), framing, len(lines)


def _frame_request(key: tuple[bytes, ...]) -> _RequestFraming | Refusal:
    """Judge the version's digit and the lines that frame the message."""
    digit, *lines = key
    is_11 = digit == b"1"
    said = Said.of(lines)
    if isinstance(said, Refusal):
        return said
    length = said.length(is_11=is_11)
    return length if isinstance(length, Refusal) else _RequestFraming(said, length, is_11=is_11)


def parse_response_head(block: bytes, limits: HeadLimits) -> ResponseHead | Refusal:
    """Judge what an instance says.

    `length` is what the head announces; whether a body follows at all depends on the request as
    well (RFC 9112 6.3), so the reader asks `body_follows`.
    """
    line = _STATUS_LINE(block)
    if line is None:
        return BAD_STATUS_LINE
    lines = lines_of(block, line.end())
    if len(lines) > limits.field_count or len(block) > limits.head_bytes:
        return BAD_RESPONSE_FIELD
    digit, code, reason = line.groups(b"")
    frames: list[bytes] = [digit]
    kept = sort_lines(lines, frames, twins=False)
    said = kept if isinstance(kept, Refusal) else Said.of(frames[1:])
    if isinstance(kept, Refusal) or isinstance(said, Refusal):
        return BAD_RESPONSE_FIELD
    is_11 = digit == b"1"
    status = int(code)
    length = said.length(is_11=is_11, missing=UNKNOWN_LENGTH)
    if isinstance(length, Refusal):
        return BAD_RESPONSE_LENGTH
    chunked = said.coding is not None
    if status < 200 or status == 204:
        # RFC 9112 6.1, RFC 9110 8.6: these carry neither field. A server that sends one may
        # also send the body that goes with it, and that would be read as the next response.
        if chunked or length > 0:
            return BAD_RESPONSE_LENGTH
        length = 0
    return ResponseHead(
        status,
        end_to_end(kept, said.named()),
        reason=reason,
        length=length,
        chunked=chunked,
        keep_alive=said.keeps_alive(is_11=is_11),
        upgrade=said.upgrade_to() if status == 101 else None,
    )


def body_follows(method: str, status: int) -> bool:
    """RFC 9112 6.3, rules 1 and 2: some responses end with their head, whatever it announces."""
    return method != "HEAD" and status >= 200 and status not in (204, 304)


def parse_trailers(block: bytes, limits: HeadLimits) -> tuple[Header, ...] | Refusal:
    """The trailer section with its empty line; forbidden fields are dropped (RFC 9110 6.5.1)."""
    lines = lines_of(block, 0)
    if len(lines) > limits.field_count or len(block) > limits.head_bytes:
        return TOO_MANY_FIELDS
    kept: list[Header] = []
    for line in lines:
        read = read_line(line)
        if isinstance(read, Refusal):
            return read
        field, kind = read
        if kind == "twin":
            return TWIN_FIELD
        if field[0] not in FORBIDDEN_TRAILERS and not field[0].startswith(b"x-forwarded-"):
            kept.append(field)
    return tuple(kept)


def _why_not_a_request_line(block: bytes, limits: HeadLimits) -> Refusal:
    end = block.find(b"\r\n")
    if end > limits.url_bytes + 48 and b" " in block[:_METHOD_MAX]:
        return URL_TOO_LONG
    if BARE.search(block[: end + 2]):
        return BAD_LINE_END
    version = _VERSION.match(block)
    if version is not None and _OTHER_VERSION.match(block):
        return BAD_VERSION
    return BAD_LINE


_OTHER_VERSION: Final = re.compile(TOKEN + rb"+ [\x21-\x7e]+ HTTP/(?!1\.[01]\r)[0-9]\.[0-9]\r\n")
