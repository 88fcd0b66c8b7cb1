"""The head of a request and of a response, as every part of the data plane sees them.

Theory of operation
-------------------
A parser (HTTP/1.1 or HTTP/2) makes these once; after that they are read by routing, policies
and both rims. They are immutable by convention and **shared**: identical bytes on the wire give
the same object from a cache, so whatever depends on the connection, the time or the request's
number must never be written here.

`headers` holds end-to-end fields only. Framing (`Content-Length`, `Transfer-Encoding`),
hop-by-hop fields, those that `Connection` names, and `Host` have been judged and removed by the
parser; what they said is in `length`, `keep_alive`, `upgrade` and `authority`. A rim that sends
a message decides its own framing, so a framing header can never travel through by accident.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

Header = tuple[bytes, bytes]

UNKNOWN_LENGTH: Final = -1
"""The body has no announced length: chunked, or HTTP/2 without `content-length`."""


def find(headers: Iterable[Header], name: bytes) -> bytes | None:
    """The value of a field; several lines of one field are joined (RFC 9110 5.3)."""
    found: bytes | None = None
    for key, value in headers:
        if key == name:
            found = value if found is None else found + b", " + value
    return found


class Refusal:
    """Why a message is not taken: the status to answer with and a short, fixed reason.

    The reason is a metric label as well as text for the client, so it never contains what the
    peer sent.
    """

    __slots__ = ("reason", "status")

    def __init__(self, status: int, reason: str) -> None:
        self.status = status
        self.reason = reason

    def __repr__(self) -> str:
        return f"<Refusal {self.status} {self.reason}>"


class RequestHead:
    """What a client asked for, judged and normalised."""

    __slots__ = (
        "authority",
        "expects_continue",
        "has_query",
        "headers",
        "host",
        "keep_alive",
        "length",
        "method",
        "path",
        "query",
        "scheme",
        "te_trailers",
        "upgrade",
        "version",
    )

    def __init__(
        self,
        method: str,
        authority: str,
        host: str,
        path: str,
        query: str,
        headers: tuple[Header, ...],
        *,
        has_query: bool = False,
        scheme: str = "http",
        length: int = 0,
        version: int = 11,
        keep_alive: bool = True,
        expects_continue: bool = False,
        upgrade: str | None = None,
        te_trailers: bool = False,
    ) -> None:
        self.method = method
        self.scheme = scheme
        self.authority = authority
        self.host = host
        self.path = path
        self.query = query
        self.has_query = has_query
        self.headers = headers
        self.length = length
        self.version = version
        self.keep_alive = keep_alive
        self.expects_continue = expects_continue
        self.upgrade = upgrade
        self.te_trailers = te_trailers

    def get(self, name: bytes) -> bytes | None:
        return find(self.headers, name)

    @property
    def target(self) -> str:
        return f"{self.path}?{self.query}" if self.has_query else self.path

    def __repr__(self) -> str:
        return f"<RequestHead {self.method} {self.authority}{self.target} length={self.length}>"


class ResponseHead:
    """What an instance (or the gateway itself) answers.

    `block` is the rendered HTTP/1.1 status line and fields, kept because the same head is often
    sent many times; the HTTP/1.1 rim fills it on first use. `variants` are the heads that filters
    have made of it, by what they came out as.
    """

    __slots__ = (
        "block",
        "chunked",
        "has_date",
        "headers",
        "is_bodiless",
        "is_plain",
        "keep_alive",
        "length",
        "reason",
        "status",
        "upgrade",
        "variants",
    )

    def __init__(
        self,
        status: int,
        headers: tuple[Header, ...] = (),
        *,
        reason: bytes = b"",
        length: int = UNKNOWN_LENGTH,
        chunked: bool = False,
        keep_alive: bool = True,
        upgrade: str | None = None,
    ) -> None:
        self.status = status
        self.reason = reason
        self.headers = headers
        self.length = length
        self.chunked = chunked
        self.keep_alive = keep_alive
        self.upgrade = upgrade
        self.is_bodiless = status in (204, 304)
        self.variants: dict[object, ResponseHead] | None = None
        self.has_date = any(name == b"date" for name, _ in headers)
        self.is_plain = length >= 0 and status != 101 and self.has_date
        self.block: bytes | None = None

    def get(self, name: bytes) -> bytes | None:
        return find(self.headers, name)

    def __repr__(self) -> str:
        return f"<ResponseHead {self.status} length={self.length}>"


class Forward:
    """The request as it goes upstream: after routing, rewriting and header policy.

    Without filters on the route it depends on the head alone and is kept beside it; `block` is
    its rendered HTTP/1.1 form up to where the fields of this one request begin.
    """

    __slots__ = (
        "authority",
        "block",
        "edited",
        "expects_continue",
        "headers",
        "length",
        "method",
        "scheme",
        "target",
        "te_trailers",
        "upgrade",
    )

    def __init__(
        self,
        method: str,
        target: str,
        authority: str,
        headers: tuple[Header, ...],
        *,
        length: int = 0,
        scheme: str = "http",
        expects_continue: bool = False,
        upgrade: str | None = None,
        te_trailers: bool = False,
    ) -> None:
        self.method = method
        self.target = target
        self.authority = authority
        self.headers = headers
        self.length = length
        self.scheme = scheme
        self.expects_continue = expects_continue
        self.upgrade = upgrade
        self.te_trailers = te_trailers
        self.block: bytes | None = None
        self.edited: Forward | None = None
        """The same after filters whose hooks have only read it."""
