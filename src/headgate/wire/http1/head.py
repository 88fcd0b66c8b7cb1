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
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from headgate.wire.headcache import HeadCache
from headgate.wire.host import parse_authority
from headgate.wire.message import UNKNOWN_LENGTH, Refusal, RequestHead, ResponseHead
from headgate.wire.target import BadTarget, parse_target

if TYPE_CHECKING:
    from headgate.wire.message import Header

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_REQUEST_LINE: Final = re.compile(rb"(" + _TOKEN + rb"++) ([\x21-\x7e]++) HTTP/1\.([01])\r\n")
_STATUS_LINE: Final = re.compile(
    rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*+))?\r\n"
)
_FIELD: Final = re.compile(rb"(" + _TOKEN + rb"++):[ \t]*+([\t\x20-\x7e\x80-\xff]*+)")
is_method: Final = re.compile(r"[A-Z][A-Z0-9_-]{0,31}").fullmatch
"""Whether a word is a method that we forward."""
_VERSION: Final = re.compile(rb"[^\r\n]* HTTP/([0-9]+)\.[0-9]+\r\n")
_DIGITS: Final = re.compile(rb"[0-9]{1,18}")
_BARE: Final = re.compile(rb"(?<!\r)\n|\r(?=[^\n])|\x00")
"""A line end that is no CRLF, or a NUL: wrong in whatever comes after it."""

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
_JUDGED: Final = _HOP_BY_HOP | {b"host", b"content-length", b"expect"}
_NOT_NAMEABLE: Final = frozenset({b"host", b"content-length", b"transfer-encoding"})

# RFC 9110 6.5.1: fields that must not travel in a trailer section; with them those by which we
# tell services who asks, which nobody may say behind our back.
FORBIDDEN_TRAILERS: Final = _JUDGED | {
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
BAD_FIELD: Final = Refusal(400, "malformed header line")
BAD_LINE_END: Final = Refusal(400, "bare CR, LF or NUL")
URL_TOO_LONG: Final = Refusal(414, "request target too long")
HEAD_TOO_LARGE: Final = Refusal(431, "header fields too large")
TOO_MANY_FIELDS: Final = Refusal(431, "too many header fields")
BAD_HOST: Final = Refusal(400, "missing, repeated or malformed Host")
BAD_LENGTH: Final = Refusal(400, "repeated or malformed Content-Length")
BAD_CODING: Final = Refusal(400, "repeated or malformed Transfer-Encoding")
UNKNOWN_CODING: Final = Refusal(501, "transfer coding not supported")
LENGTH_AND_CODING: Final = Refusal(400, "Content-Length with Transfer-Encoding")
TWIN_FIELD: Final = Refusal(400, "header name with an underscore imitates another")
BAD_METHOD: Final = Refusal(501, "method not supported")
BAD_VERSION: Final = Refusal(505, "HTTP version not supported")
BAD_EXPECT: Final = Refusal(417, "unknown expectation")
BAD_STATUS_LINE: Final = Refusal(502, "malformed status line")
BAD_RESPONSE_FIELD: Final = Refusal(502, "malformed response header")
BAD_RESPONSE_LENGTH: Final = Refusal(502, "malformed response framing")


def imitates(name: bytes) -> bool:
    """Whether a (lower-case) name becomes a framing or identity field once `_` is read as `-`."""
    return b"_" in name and _FRAMING_TWINS.fullmatch(name.replace(b"_", b"-")) is not None


def judge_partial(data: bytes | bytearray, limits: HeadLimits) -> Refusal | None:
    """Judge a head that has not come whole: is it already too large, or already wrong?

    Without this a request that ends its lines with a bare LF would wait for its time-out.
    """
    if _BARE.search(data):
        return BAD_LINE_END
    line_end = data.find(b"\r\n")
    if (line_end if line_end >= 0 else len(data)) > limits.url_bytes + 48:
        return URL_TOO_LONG
    if len(data) > limits.head_bytes + limits.url_bytes:
        return HEAD_TOO_LARGE
    return None


def parse_request_head(block: bytes, limits: HeadLimits, scheme: str) -> RequestHead | Refusal:
    line = _REQUEST_LINE.match(block)
    if line is None:
        return _why_not_a_request_line(block, limits)
    method = line[1].decode("ascii")
    if not is_method(method):
        return BAD_METHOD
    if len(line[2]) > limits.url_bytes:
        return URL_TOO_LONG
    start = line.end()
    if len(block) - start > limits.head_bytes:
        return HEAD_TOO_LARGE
    lines = _lines_of(block, start)
    if len(lines) > limits.field_count:
        return TOO_MANY_FIELDS
    fields = _judge_fields(lines, twins=True)
    if isinstance(fields, Refusal):
        return fields
    is_11 = line[3] == b"1"
    length = fields.length(is_11=is_11)
    if isinstance(length, Refusal):
        return length

    target = parse_target(method, line[2])
    if isinstance(target, BadTarget):
        return Refusal(target.status, target.reason)
    raw_host = fields.host
    if raw_host is None and is_11:
        return BAD_HOST
    # RFC 9112 3.2.2: an authority in the target replaces the Host field, which must still be sane.
    authority = parse_authority(raw_host) if raw_host is not None else None
    if raw_host is not None and authority is None:
        return BAD_HOST
    if target.authority is not None:
        authority = target.authority
    expects = fields.expect is not None
    if fields.expect is not None and fields.expect.lower() != b"100-continue":
        return BAD_EXPECT

    options = fields.options
    return RequestHead(
        method,
        authority.text if authority else "",
        authority.host if authority else "",
        target.path,
        target.query,
        fields.end_to_end(),
        has_query=target.has_query,
        scheme=scheme,
        length=length,
        version=11 if is_11 else 10,
        keep_alive=b"close" not in options and (is_11 or b"keep-alive" in options),
        # RFC 9110 10.1.1: the expectation of an HTTP/1.0 client or of no body is ignored.
        expects_continue=expects and is_11 and length != 0,
        upgrade=_upgrade(fields) if is_11 and length == 0 else None,
        te_trailers=fields.te is not None and b"trailers" in fields.te.lower(),
    )


def parse_response_head(block: bytes, limits: HeadLimits) -> ResponseHead | Refusal:
    """Judge what an instance says.

    `length` is what the head announces; whether a body follows at all depends on the request as
    well (RFC 9112 6.3), so the reader asks `body_follows`.
    """
    line = _STATUS_LINE.match(block)
    if line is None:
        return BAD_STATUS_LINE
    start = line.end()
    lines = _lines_of(block, start)
    if len(lines) > limits.field_count or len(block) > limits.head_bytes:
        return BAD_RESPONSE_FIELD
    fields = _judge_fields(lines, twins=False)
    if isinstance(fields, Refusal):
        return BAD_RESPONSE_FIELD
    is_11 = line[1] == b"1"
    status = int(line[2])
    length = fields.length(is_11=is_11, missing=UNKNOWN_LENGTH)
    if isinstance(length, Refusal):
        return BAD_RESPONSE_LENGTH
    chunked = fields.coding is not None
    if status < 200 or status == 204:
        # RFC 9112 6.1, RFC 9110 8.6: these carry neither field. A server that sends one may
        # also send the body that goes with it, and that would be read as the next response.
        if chunked or length > 0:
            return BAD_RESPONSE_LENGTH
        length = 0
    options = fields.options
    return ResponseHead(
        status,
        fields.end_to_end(),
        reason=line[3] or b"",
        length=length,
        chunked=chunked,
        keep_alive=b"close" not in options and (is_11 or b"keep-alive" in options),
        upgrade=_upgrade(fields) if status == 101 else None,
    )


def body_follows(method: str, status: int) -> bool:
    """RFC 9112 6.3, rules 1 and 2: some responses end with their head, whatever it announces."""
    return method != "HEAD" and status >= 200 and status not in (204, 304)


def parse_trailers(block: bytes, limits: HeadLimits) -> tuple[Header, ...] | Refusal:
    """The trailer section with its empty line; forbidden fields are dropped (RFC 9110 6.5.1)."""
    lines = _lines_of(block, 0)
    if len(lines) > limits.field_count or len(block) > limits.head_bytes:
        return TOO_MANY_FIELDS
    kept: list[Header] = []
    for line in lines:
        judged = _judge_line(line, twins=True)
        if isinstance(judged, Refusal):
            return judged
        field, _ = judged
        if field[0] not in FORBIDDEN_TRAILERS and not field[0].startswith(b"x-forwarded-"):
            kept.append(field)
    return tuple(kept)


class _Fields:
    """The fields of one head, sorted into what frames the message and what travels on."""

    __slots__ = ("all", "coding", "expect", "host", "length_line", "options", "te", "upgrade")

    def __init__(self) -> None:
        self.all: list[Header] = []
        self.options: frozenset[bytes] = frozenset()
        self.host: bytes | None = None
        self.length_line: bytes | None = None
        self.coding: bytes | None = None
        self.expect: bytes | None = None
        self.te: bytes | None = None
        self.upgrade: bytes | None = None

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
        if not _DIGITS.fullmatch(self.length_line):
            return BAD_LENGTH
        return int(self.length_line)

    def end_to_end(self) -> tuple[Header, ...]:
        if not self.options <= _OPTION_WORDS:
            named = self.options - _NOT_NAMEABLE
            return tuple(f for f in self.all if f[0] not in named)
        return tuple(self.all)


_OPTION_WORDS: Final = frozenset({b"close", b"keep-alive", b"upgrade", b"te"})


def _lines_of(block: bytes, start: int) -> list[bytes]:
    """The field lines of a block, without the empty one that ends it."""
    lines = block[start:].split(b"\r\n")
    del lines[-2:]
    return lines


_judged_lines: Final[HeadCache[tuple[Header, bool]]] = HeadCache(4096)
"""Field lines seen before, with whether they frame the message. Heads differ in a line or two (a
path, a cookie), and most of their lines are those of the head before."""
_LINE_KEPT_MAX: Final = 512


def _judge_line(line: bytes, *, twins: bool) -> tuple[Header, bool] | Refusal:
    found = _FIELD.fullmatch(line)
    if found is None:
        return BAD_LINE_END if _BARE.search(line) else BAD_FIELD
    name = found[1].lower()
    judged = ((name, found[2].rstrip(b" \t")), name in _JUDGED)
    if imitates(name):
        # Never remembered: what a response may say, a request may not.
        return TWIN_FIELD if twins else judged
    if len(line) <= _LINE_KEPT_MAX:
        _judged_lines.put(line, judged)
    return judged


def _judge_fields(lines: list[bytes], *, twins: bool) -> _Fields | Refusal:
    """Sort the fields. `twins`: refuse names that imitate another with an underscore, a matter of
    requests, since it is CGI's reading of them that makes them dangerous (RFC 3875 4.1.18).
    """
    fields = _Fields()
    keep = fields.all.append
    known = _judged_lines.young.get
    options: bytes | None = None
    for line in lines:
        judged = known(line) or _judged_lines.get(line)
        if judged is None:
            got = _judge_line(line, twins=twins)
            if isinstance(got, Refusal):
                return got
            judged = got
        field, frames = judged
        if not frames:
            keep(field)
            continue
        name, value = field
        if name == b"host":
            if fields.host is not None:
                return BAD_HOST
            fields.host = value
        elif name == b"content-length":
            if fields.length_line is not None:
                return BAD_LENGTH
            fields.length_line = value
        elif name == b"transfer-encoding":
            if fields.coding is not None:
                return BAD_CODING
            fields.coding = value
        elif name == b"connection":
            options = value if options is None else options + b"," + value
        elif name == b"expect":
            fields.expect = value if fields.expect is None else b"repeated"
        elif name == b"upgrade":
            fields.upgrade = value if fields.upgrade is None else b""
        elif name == b"te":
            fields.te = value if fields.te is None else fields.te + b"," + value
    if options is not None:
        fields.options = _options_of(options)
    return fields


@lru_cache(maxsize=256)
def _options_of(value: bytes) -> frozenset[bytes]:
    return frozenset(option.strip(b" \t") for option in value.lower().split(b","))


def _upgrade(fields: _Fields) -> str | None:
    if fields.upgrade and b"upgrade" in fields.options:
        return fields.upgrade.decode("latin-1").lower()
    return None


def _why_not_a_request_line(block: bytes, limits: HeadLimits) -> Refusal:
    end = block.find(b"\r\n")
    if end > limits.url_bytes + 48:
        return URL_TOO_LONG
    if _BARE.search(block[: end + 2]):
        return BAD_LINE_END
    version = _VERSION.match(block)
    if version is not None and _OTHER_VERSION.match(block):
        return BAD_VERSION
    return BAD_LINE


_OTHER_VERSION: Final = re.compile(_TOKEN + rb"+ [\x21-\x7e]+ HTTP/(?!1\.[01]\r)[0-9]\.[0-9]\r\n")
