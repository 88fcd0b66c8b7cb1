"""The head of a request, judged and put into bytes.

Theory of operation
-------------------
What a caller hands over is checked to the letter: a line end in a field or in the target would be
a second request (RFC 9112 11.1), so such a call is refused with `ValueError` before a byte is
written. The message names the field and never shows its value, which may be a secret.

Framing is ours. Fields that frame the message or the connection are taken out and what they ask
for is done in our own words: `Content-Length` is the body's, or, for a body of unknown length,
what the caller promises (and is then held to); `Connection: close` ends the connection after the
response; `Host` replaces the instance's own. `Upgrade` is refused, as a raw connection cannot be
had here; `Expect`, `TE` and `Trailer` are dropped, since we wait for nothing and hand on no
trailers.

Fields are mostly those of the request before, so lines are kept, by name and value.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from headgate.wire.headcache import Kept

if TYPE_CHECKING:
    from collections.abc import Iterable

    from headgate.wire.connect import Endpoint
    from headgate.wire.message import Header

CHUNKED: Final = -1
"""A body whose length nobody has told."""

_METHOD: Final = re.compile(r"[A-Z][A-Z0-9_-]{0,31}").fullmatch
_TARGET: Final = re.compile(rb"/[\x21-\x22\x24-\x7e]*+|\*").fullmatch
_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++").fullmatch
_VALUE: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*+").fullmatch
_DIGITS: Final = re.compile(rb"[0-9]{1,18}").fullmatch
_BODY_METHODS: Final = frozenset({"POST", "PUT", "PATCH"})

_DROPPED: Final = frozenset(
    {b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"expect"}
)
_READ: Final = frozenset({b"connection", b"content-length", b"host", b"upgrade"})

_lines: Final[Kept[tuple[bytes, bytes], bytes]] = Kept(4096, 1024)
_known: Final = _lines.found.get
_starts: Final[Kept[tuple[str, bytes], bytes]] = Kept(2048, 1024)
_known_starts: Final = _starts.found.get


class RequestHead:
    """A head in bytes, and how its body is framed."""

    __slots__ = ("block", "keep", "length")

    def __init__(self, block: bytes, length: int, *, keep: bool) -> None:
        self.block = block
        self.length = length
        """Of the body; CHUNKED if it is sent in chunks."""
        self.keep = keep


def host_line(endpoint: Endpoint, *, is_tls: bool) -> bytes:
    """The `Host` field of an instance, without the port that goes without saying."""
    if endpoint.path is not None:
        return b"host: localhost\r\n"
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    if endpoint.port != (443 if is_tls else 80):
        host = f"{host}:{endpoint.port}"
    if not _VALUE(raw := host.encode("idna" if not host.isascii() else "ascii")):
        raise ValueError(f"the host {host!r} cannot be sent")
    return b"host: %b\r\n" % raw


def render(
    method: str, target: bytes, host: bytes, headers: Iterable[Header], length: int
) -> RequestHead:
    """Put a head into bytes; `length` is the body's, or CHUNKED."""
    start = _known_starts((method, target))
    if start is None:
        start = _start_line(method, target)
    lines = [start, host]
    keep = True
    promised = CHUNKED
    for field in headers:
        line = _known(field)
        if line is None:
            name = field[0].lower()
            if name in _READ:
                if name == b"host":
                    lines[1] = _field_line(field)
                elif name == b"content-length":
                    promised = _length_of(field[1])
                elif name == b"upgrade":
                    raise ValueError("an upgrade of the protocol cannot be asked for here")
                else:
                    options = field[1].lower().replace(b" ", b"").split(b",")
                    keep = keep and b"close" not in options
                continue
            line = b"" if name in _DROPPED else _field_line(field)
            _lines.put(field, len(field[0]) + len(field[1]), line)
        lines.append(line)
    if length == CHUNKED:
        length = promised
        if length == CHUNKED:
            lines.append(b"transfer-encoding: chunked\r\n")
        else:
            lines.append(b"content-length: %d\r\n" % length)
    elif length or method in _BODY_METHODS:
        # RFC 9110 8.6: a method that usually has a body says so when it has none.
        lines.append(b"content-length: %d\r\n" % length)
    if not keep:
        lines.append(b"connection: close\r\n")
    lines.append(b"\r\n")
    return RequestHead(b"".join(lines), length, keep=keep)


def _start_line(method: str, target: bytes) -> bytes:
    if not _METHOD(method) or method == "CONNECT":
        raise ValueError(f"{method!r} is no method that can be sent; methods are upper-case words")
    if not _TARGET(target):
        raise ValueError(
            "the target must begin with / and hold no spaces, controls, letters beyond ASCII or #:"
            " quote it first"
        )
    line = b"%b %b HTTP/1.1\r\n" % (method.encode(), target)
    _starts.put((method, target), len(target), line)
    return line


def _field_line(field: Header) -> bytes:
    name, value = field
    if not _NAME(name):
        raise ValueError(f"{name!r} is no name of a header")
    if not _VALUE(value):
        raise ValueError(f"the value of {name.decode()} has a line end or a control character")
    return b"%b: %b\r\n" % field


def _length_of(value: bytes) -> int:
    if not _DIGITS(value):
        raise ValueError("content-length must be a number")
    return int(value)
