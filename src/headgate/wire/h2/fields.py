"""Which field sections are HTTP messages (RFC 9113 8.2, 8.3).

Theory of operation
-------------------
Pure functions from decoded fields to a judged head, or to `Malformed` with the reason. They are
strict because whatever passes here is written into HTTP/1.1 to an instance: a value with a line
break, a second length or a hidden `transfer-encoding` would split there into another request.

Departures from the letter of the RFC, all on the strict side:
- every control character in a value is refused, not only NUL, CR and LF;
- a repeated `content-length` is refused even when both say the same;
- `host` beside `:authority` must say the same, letter case aside, and may not be repeated;
- framing and routing fields in trailers are dropped (RFC 9110 6.5.1).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from headgate.wire.message import UNKNOWN_LENGTH, Header, ResponseHead

if TYPE_CHECKING:
    from collections.abc import Iterable

_is_name: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+").fullmatch
_is_method: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_is_length: Final = re.compile(rb"[0-9]{1,18}").fullmatch
_is_target: Final = re.compile(rb"[\x21-\x7e\x80-\xff]+").fullmatch
_is_authority: Final = re.compile(rb"[\x21-\x2e\x30-\x3e\x41-\x7e]+").fullmatch  # no "/", "?", "@"
_spoils_value: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]|\A[ \t]|[ \t]\Z").search

_CONNECTION_FIELDS: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    }
)
_NOT_IN_TRAILERS: Final = frozenset(
    {
        b"content-length",
        b"content-encoding",
        b"content-type",
        b"content-range",
        b"host",
        b"te",
        b"trailer",
        b"expect",
        b"authorization",
        b"proxy-authorization",
        b"set-cookie",
        b"cookie",
    }
)


# Fields that need no further thought, by name and value: judged once, then a look-up.
_clean: dict[Header, None] = {}
_CLEAN_FIELDS: Final = 4096
_CLEAN_BYTES: Final = 256
_SPECIAL: Final = frozenset({b"cookie", b"host", b"content-length", b"te", b"expect"})


def _note_clean(header: Header) -> None:
    if header[0] not in _SPECIAL and len(header[0]) + len(header[1]) <= _CLEAN_BYTES:
        if len(_clean) >= _CLEAN_FIELDS:
            _clean.clear()
        _clean[header] = None


class Malformed:
    """Not an HTTP message; ends the stream with PROTOCOL_ERROR (RFC 9113 8.1.1)."""

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __repr__(self) -> str:
        return f"<Malformed {self.reason}>"


class RequestFields:
    """A request head as HTTP/2 says it. Shared between equal requests like its block.

    `whole` and `streamed` are for the rim: what it made of these fields for a stream that ends
    with them, and for one that goes on.
    """

    __slots__ = (
        "authority",
        "expects_continue",
        "headers",
        "length",
        "method",
        "path",
        "protocol",
        "scheme",
        "streamed",
        "te_trailers",
        "whole",
    )

    def __init__(
        self,
        method: str,
        scheme: str,
        authority: str,
        path: str,
        protocol: str | None,
        headers: tuple[Header, ...],
        length: int,
        *,
        te_trailers: bool,
        expects_continue: bool,
    ) -> None:
        self.method = method
        self.scheme = scheme
        self.authority = authority
        self.path = path
        self.protocol = protocol
        self.headers = headers
        self.length = length
        self.te_trailers = te_trailers
        self.expects_continue = expects_continue
        self.whole: object = None
        self.streamed: object = None


def _fault_in(name: bytes, value: bytes) -> str | None:
    """What is wrong with a regular field wherever it stands (RFC 9113 8.2)."""
    if not _is_name(name):
        return f"field name {name!r}"
    if name in _CONNECTION_FIELDS:
        return f"connection-specific field {name.decode()}"
    if _spoils_value(value):
        return f"value of field {name.decode()}"
    return None


def judge_request(
    fields: Iterable[Header],
) -> RequestFields | Malformed:
    pseudo: dict[bytes, bytes] = {}
    headers: list[Header] = []
    cookies: list[bytes] = []
    host: bytes | None = None
    length = UNKNOWN_LENGTH
    te_trailers = expects_continue = False
    in_pseudo = True
    for header in fields:
        if header in _clean:
            in_pseudo = False
            headers.append(header)
            continue
        name, value = header
        if name[:1] == b":":
            if not in_pseudo:
                return Malformed("pseudo-field after a regular one")
            if name not in _REQUEST_PSEUDO:
                return Malformed(f"unknown pseudo-field {name!r}")
            if name in pseudo:
                return Malformed(f"repeated {name.decode()}")
            pseudo[name] = value
            continue
        in_pseudo = False
        fault = _fault_in(name, value)
        if fault is not None:
            return Malformed(fault)
        if name == b"cookie":
            cookies.append(value)
            if len(cookies) == 1:
                headers.append(header)
        elif name == b"host":
            if host is not None:
                return Malformed("repeated host")
            host = value
        elif name == b"content-length":
            if length != UNKNOWN_LENGTH:
                return Malformed("repeated content-length")
            if not _is_length(value):
                return Malformed("content-length is not a number")
            length = int(value)
        elif name == b"te":
            if value.lower() != b"trailers":
                return Malformed("te other than trailers")
            te_trailers = True
        elif name == b"expect" and value.lower() == b"100-continue":
            expects_continue = True
        else:
            headers.append(header)
            _note_clean(header)
    if len(cookies) > 1:  # RFC 9113 8.2.3
        joined = b"; ".join(cookies)
        headers = [(name, joined if name == b"cookie" else value) for name, value in headers]
    fault = _judge_pseudo(pseudo, host)
    if fault is not None:
        return Malformed(fault)
    get = pseudo.get
    protocol = get(b":protocol")
    return RequestFields(
        pseudo[b":method"].decode("latin-1"),
        get(b":scheme", b"").decode("latin-1").lower(),
        (get(b":authority") or host or b"").decode("latin-1"),
        get(b":path", b"").decode("latin-1"),
        protocol.decode("latin-1") if protocol is not None else None,
        tuple(headers),
        length,
        te_trailers=te_trailers,
        expects_continue=expects_continue,
    )


_REQUEST_PSEUDO: Final = frozenset({b":method", b":scheme", b":authority", b":path", b":protocol"})


def _judge_pseudo(pseudo: dict[bytes, bytes], host: bytes | None) -> str | None:
    """RFC 9113 8.3.1 and 8.5, RFC 8441 4."""
    method = pseudo.get(b":method")
    if method is None or not _is_method(method):
        return "missing or wrong :method"
    authority = pseudo.get(b":authority")
    if authority is not None and not _is_authority(authority):
        return "wrong :authority"
    if host is not None:
        if not _is_authority(host):
            return "wrong host"
        if authority is not None and authority.lower() != host.lower():
            return ":authority and host differ"
    elif authority is None:
        return "neither :authority nor host"
    scheme = pseudo.get(b":scheme")
    path = pseudo.get(b":path")
    if b":protocol" in pseudo:
        if method != b"CONNECT":
            return ":protocol without CONNECT"
        if not _is_method(pseudo[b":protocol"]):
            return "wrong :protocol"
        if authority is None:
            return "CONNECT without :authority"
    elif method == b"CONNECT":
        if scheme is not None or path is not None:
            return "CONNECT with :scheme or :path"
        return None if authority is not None else "CONNECT without :authority"
    if scheme is None or scheme.lower() not in {b"http", b"https"}:
        return "missing or wrong :scheme"
    if path is None or not _is_target(path):
        return "missing or wrong :path"
    if path[:1] != b"/" and not (path == b"*" and method == b"OPTIONS"):
        return ":path that does not begin with a slash"
    return None


def judge_response(
    fields: Iterable[Header],
) -> ResponseHead | Malformed:
    status = 0
    headers: list[Header] = []
    length = UNKNOWN_LENGTH
    for header in fields:
        name, value = header
        if name[:1] == b":":
            if name != b":status" or status or headers or length != UNKNOWN_LENGTH:
                return Malformed("pseudo-field other than one leading :status")
            if not _is_length(value) or not 100 <= int(value) <= 599:
                return Malformed("wrong :status")
            status = int(value)
            continue
        if not status:
            return Malformed("missing :status")
        fault = _fault_in(name, value)
        if fault is not None:
            return Malformed(fault)
        if name == b"content-length":
            if length != UNKNOWN_LENGTH or not _is_length(value):
                return Malformed("repeated or wrong content-length")
            length = int(value)
        elif name != b"te":
            headers.append(header)
    if not status or status == 101:
        return Malformed("missing :status, or 101")
    return ResponseHead(status, tuple(headers), length=length)


def judge_trailers(fields: Iterable[Header]) -> tuple[Header, ...] | Malformed:
    kept: list[Header] = []
    for header in fields:
        name, value = header
        if name[:1] == b":":
            return Malformed("pseudo-field in trailers")
        fault = _fault_in(name, value)
        if fault is not None:
            return Malformed(fault)
        if name not in _NOT_IN_TRAILERS:
            kept.append(header)
    return tuple(kept)
