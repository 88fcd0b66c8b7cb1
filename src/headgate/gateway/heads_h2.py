"""Request heads that came over HTTP/2, in the gateway's own form.

They are judged by the same rules as those of HTTP/1.1 (`wire.http1.head`): limits, target, host,
names that imitate others. A WebSocket asked for by extended CONNECT (RFC 8441) is turned into the
opening handshake that services know.
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha1
from os import urandom
from typing import TYPE_CHECKING, Final

from headgate.wire.h2 import Malformed, RequestFields, judge_request
from headgate.wire.h2.hpack_static import NeverIndexed
from headgate.wire.host import parse_authority
from headgate.wire.http1.head import (
    BAD_EXPECT,
    BAD_HOST,
    BAD_METHOD,
    HEAD_TOO_LARGE,
    TOO_MANY_FIELDS,
    TWIN_FIELD,
    URL_TOO_LONG,
    imitates,
    is_method,
)
from headgate.wire.message import Refusal, RequestHead
from headgate.wire.target import BadTarget, parse_target

if TYPE_CHECKING:
    from headgate.gateway.site import Site
    from headgate.wire.message import Header

_KEPT_HEADS: Final = 1024
_KEPT_HEAD_BYTES: Final = 4096
_WEBSOCKET_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

# Hop-by-hop fields that HTTP/2 itself does not forbid.
_HOP_BY_HOP: Final = frozenset({b"proxy-authenticate", b"proxy-authorization"})
TUNNEL_FIELDS: Final = frozenset({b"sec-websocket-key", b"sec-websocket-accept"})


class Judge:
    """`judge_request` with a memory that all connections of a listener share."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: dict[tuple[Header, ...], RequestFields | Malformed] = {}

    def __call__(self, fields: tuple[Header, ...]) -> RequestFields | Malformed:
        for _, value in fields:
            if type(value) is NeverIndexed:  # equal to the same value without its mark
                return judge_request(fields)
        judged = self._kept.get(fields)
        if judged is None:
            judged = judge_request(fields)
            if sum([len(name) + len(value) for name, value in fields]) <= _KEPT_HEAD_BYTES:
                if len(self._kept) >= _KEPT_HEADS:
                    self._kept.clear()
                self._kept[fields] = judged
        return judged


def head_of(fields: RequestFields, site: Site, *, is_tls: bool, end: bool) -> RequestHead | Refusal:
    """The gateway's own form of a request head, under the same rules as HTTP/1.1."""
    limits = site.head_limits
    method = fields.method if fields.protocol is None else "GET"
    if not is_method(method):
        return BAD_METHOD
    if len(fields.path) > limits.url_bytes:
        return URL_TOO_LONG
    headers = fields.headers
    if len(headers) > limits.field_count:
        return TOO_MANY_FIELDS
    if sum([len(name) + len(value) + 4 for name, value in headers]) > limits.head_bytes:
        return HEAD_TOO_LARGE
    for name, _ in headers:
        if imitates(name):
            return TWIN_FIELD
        if name == b"expect":
            return BAD_EXPECT
        if name in _HOP_BY_HOP:
            headers = tuple(field for field in headers if field[0] not in _HOP_BY_HOP)
    target = parse_target(method, fields.path.encode("latin-1"))
    if isinstance(target, BadTarget):
        return Refusal(target.status, target.reason)
    authority = parse_authority(fields.authority.encode("latin-1"))
    if authority is None:
        return BAD_HOST
    length = 0 if end else fields.length
    return RequestHead(
        method,
        authority.text,
        authority.host,
        target.path,
        target.query,
        headers,
        has_query=target.has_query,
        scheme="https" if is_tls else "http",
        length=length,
        version=20,
        expects_continue=fields.expects_continue and length != 0,
        te_trailers=fields.te_trailers,
    )


def as_upgrade(head: RequestHead, protocol: str) -> tuple[RequestHead, bytes]:
    """A WebSocket's opening handshake in HTTP/1.1 form, and the answer it must get."""
    key = b64encode(urandom(16))
    kept = tuple(field for field in head.headers if field[0] not in TUNNEL_FIELDS)
    upgraded = RequestHead(
        "GET",
        head.authority,
        head.host,
        head.path,
        head.query,
        (*kept, (b"sec-websocket-key", key)),
        has_query=head.has_query,
        scheme=head.scheme,
        length=0,
        version=20,
        upgrade=protocol.lower(),
    )
    return upgraded, accept_for(key)


def accept_for(key: bytes) -> bytes:
    """RFC 6455 4.2.2. SHA-1 is what the protocol says; nothing is kept secret by it."""
    return b64encode(sha1(key + _WEBSOCKET_GUID, usedforsecurity=False).digest())
