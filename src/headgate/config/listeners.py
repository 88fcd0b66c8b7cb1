"""Where clients come in: listeners, their TLS and their limits."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import BeforeValidator, Field, PlainValidator, WithJsonSchema

from headgate.config.fields import (
    Count,
    Duration,
    FilePath,
    Flag,
    Positive,
    Size,
    Spec,
    Text,
    Wait,
    Words,
    refuse,
    text_of,
)
from headgate.config.forms import OneOrMore, Shorthand
from headgate.units import KB, MB

__all__ = [
    "Bind",
    "CertificateSpec",
    "Http2Spec",
    "LimitsSpec",
    "ListenerSpec",
    "ListenerTlsSpec",
    "parse_bind",
]

_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9-]+)*")
HOST_RULE: Final = "names no host; write 0.0.0.0:8080 for all or 127.0.0.1:8080 for this machine"
_UNIX_LONGEST: Final = 107  # sun_path holds 108 bytes with the NUL on Linux


class Bind(NamedTuple):
    """Where to listen: a host and port, or a Unix socket (``path``)."""

    host: str
    port: int
    path: str | None = None


def parse_bind(text: str) -> Bind:
    """Split "127.0.0.1:8080", "[::1]:8080" or "unix:/run/headgate.sock" into its parts.

    Raises ValueError with a rule that reads on after the value.
    """
    if text.startswith("unix:"):
        path = text[len("unix:") :]
        if not path.startswith("/") or "\0" in path:
            raise ValueError("needs an absolute path; write unix:/run/headgate/http.sock")
        if len(path.encode("utf-8", "surrogateescape")) > _UNIX_LONGEST:
            raise ValueError(f"is too long a socket path; the most is {_UNIX_LONGEST} bytes")
        return Bind("", 0, path)
    host, colon, digits = text.rpartition(":")
    if not colon or not (digits.isascii() and digits.isdigit()) or len(digits) > 5:
        raise ValueError("is not an address; write host:port, [::1]:port or unix:/path")
    port = int(digits)
    if port > 65535:
        raise ValueError("has no such port; ports go to 65535")
    if not host or host == "*":
        raise ValueError(HOST_RULE)
    if host.startswith("[") and host.endswith("]"):
        try:
            ipaddress.IPv6Address(host[1:-1])
        except ValueError:
            raise ValueError("is not an IPv6 address; write [::1]:port") from None
        return Bind(host[1:-1], port)
    if ":" in host:
        raise ValueError("has an IPv6 address without brackets; write [::1]:port")
    if not _NAME.fullmatch(host) or len(host) > 253:
        raise ValueError("is not an address; write host:port, [::1]:port or unix:/path")
    return Bind(host, port)


def _bind(value: object) -> str:
    text = text_of(value).strip()
    if text.isascii() and text.isdigit():
        raise refuse(HOST_RULE)
    try:
        parse_bind(text)
    except ValueError as error:
        raise refuse(str(error)) from None
    return text


BindText = Annotated[
    str,
    PlainValidator(_bind),
    Words("address"),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^(unix:/.+|.+:[0-9]{1,5})$",
            "examples": ["0.0.0.0:8080", "[::]:8443", "unix:/run/headgate/http.sock"],
        }
    ),
]


class CertificateSpec(Spec):
    """A certificate and its key, both PEM."""

    cert_file: FilePath
    """The certificate followed by its intermediates. Watched: a renewed file is taken up without
    a restart."""

    key_file: FilePath
    """The private key."""


class ListenerTlsSpec(Spec):
    """TLS on a listener: one certificate, several chosen by server name, or made by itself.

    Exactly one of `certificate`, `certificates`, or the pair `cert_file` and `key_file`.
    """

    certificate: Annotated[Literal["local", "acme", "mesh"], BeforeValidator(text_of)] | None = None
    """`local`: made on the spot by Headgate's own authority in the state directory, for
    development. `acme`: ordered and renewed by itself, as the top-level `acme` says; until the
    first one is there, the local one is served. `mesh`: the gateway's identity in the mesh;
    clients are services of the mesh."""

    certificates: tuple[CertificateSpec, ...] = ()
    """Several certificates; the client's server name (SNI) chooses, the first is for clients
    that send none."""

    cert_file: FilePath | None = None
    """The certificate followed by its intermediates, PEM."""

    key_file: FilePath | None = None
    """Its private key, PEM."""

    min_version: Annotated[Literal["1.2", "1.3"], BeforeValidator(text_of)] = "1.2"
    """The oldest TLS version spoken. 1.0 and 1.1 are broken (RFC 8996) and cannot be had."""

    ciphers: Text | None = None
    """OpenSSL cipher list for TLS 1.2. By default those with forward secrecy and authenticated
    encryption. TLS 1.3 has no weak ones and ignores this."""

    client_ca_file: FilePath | None = None
    """Authorities (PEM) whose certificates clients may show; with it, clients are asked for one.
    Routes that want to know who it is name an entry of `auth.certificate`."""

    client_certificate: Annotated[Literal["require", "ask"], BeforeValidator(text_of)] = "require"
    """With `client_ca_file` or `certificate: mesh`: whether a client without a certificate is
    turned away in the handshake (`require`), or let in for routes to decide (`ask`)."""

    plain: Flag = False
    """Serve connections that begin without TLS as well, on the same port. For services that join
    the mesh step by step: callers that have no identity yet come in as `anonymous`."""


class Http2Spec(Spec):
    """HTTP/2 on a listener."""

    max_streams: Positive = 128
    """Requests in flight on one connection. More are refused and the client tries again."""

    window: Annotated[Size, Field(ge=65535, le=2**31 - 1)] = 1 * MB
    """Bytes of request body a client may send ahead on one stream."""

    header_list: Size = 64 * KB
    """Size of a request's headers once decompressed (RFC 9113 section 6.5.2)."""


class LimitsSpec(Spec):
    """What one client may ask of a worker. Every limit is finite by default, so that a thousand
    slow or greedy clients do not disturb the others. A listener's `limits` replace these whole.
    """

    url: Size = 8 * KB
    """Longest request target. Answered with 414."""

    header_bytes: Size = 32 * KB
    """All request headers together. Answered with 431."""

    header_count: Positive = 100
    """Number of request headers. Answered with 431."""

    body: Size = 10 * MB
    """Largest request body where no `body_limit` says otherwise. Answered with 413."""

    connections: Positive = 10000
    """Open client connections a worker. Beyond it the oldest idle one is closed, or else the new
    one."""

    connections_per_ip: Count = 0
    """Open connections from one address, a worker; 0 is no limit. Off by default because a
    whole office may stand behind one address."""

    header_timeout: Wait = 10.0
    """From the first byte of a request to the end of its headers. Answered with 408."""

    body_timeout: Wait = 30.0
    """Longest gap between two pieces of a request body. Answered with 408."""

    idle_timeout: Wait = 75.0
    """How long a connection is kept without a request on it. Longer than the usual 60s of load
    balancers in front, so that they and not we close first."""

    write_timeout: Wait = 60.0
    """How long a client may take nothing of a response that is ready for it."""

    min_rate: Size = 100
    """Slowest allowed request body, in bytes a second, once `min_rate_grace` has passed; 0 is no
    limit. Answered with 408. Over HTTP/2 each request's body is judged by itself, and those of gRPC
    calls are not, as they may have a message to send only now and then."""

    min_rate_grace: Duration = 10.0
    """How long a body may be slower than `min_rate`."""

    requests_per_connection: Count = 0
    """Requests on one connection before it is closed politely; 0 is no limit. Over HTTP/2 that is
    GOAWAY, at the first moment without a request in flight or 2 seconds later; what the client
    sends until it has read that is still answered."""

    pipeline: Positive = 16
    """HTTP/1.1 requests a client may send ahead on one connection before it is no longer read."""


Protocol = Annotated[Literal["http1", "http2"], BeforeValidator(text_of)]
_MODE: Final = re.compile(r"(?:0o?)?([0-7]{3})")


def _mode(value: object) -> int:
    found = _MODE.fullmatch(text_of(value).strip())
    if not found:
        raise refuse("is not a file mode; write three octal digits such as 660")
    return int(found[1], 8)


def _tls(value: object) -> object:
    if value is True:
        return {"certificate": "local"}
    if isinstance(value, str) and value.strip() in ("local", "acme", "mesh"):
        return {"certificate": value.strip()}
    return value


class ListenerSpec(Spec):
    """A place where clients connect."""

    bind: BindText
    """`host:port`, `[::]:port` or `unix:/path`. Port 0 takes any free one."""

    name: Text | None = None
    """What logs and metrics call it. By default `bind`."""

    tls: (
        Annotated[
            ListenerTlsSpec,
            Shorthand(
                _tls,
                {"enum": ["local", "acme", "mesh", True]},
                "or `local`, `acme` or `mesh`, which is `certificate: local`, `acme` or `mesh`",
            ),
        ]
        | None
    ) = None
    """TLS. Without it the listener speaks plain HTTP."""

    protocols: Annotated[tuple[Protocol, ...], OneOrMore, Field(min_length=1)] = ("http1", "http2")
    """With TLS the client chooses by ALPN; without it, by starting with the HTTP/2 preface."""

    proxy_protocol: Flag = False
    """Expect a PROXY protocol header (version 1 or 2) on every connection, from senders in
    `trusted_proxies` only; any other connection is closed."""

    http2: Http2Spec = Http2Spec()
    """Settings of HTTP/2."""

    mode: (
        Annotated[
            int,
            PlainValidator(_mode),
            Words("octal digits"),
            WithJsonSchema(
                {"type": ["string", "integer"], "pattern": "^(0o?)?[0-7]{3}$", "examples": [660]}
            ),
        ]
        | None
    ) = None
    """Permissions of a Unix socket, in octal. By default 660."""

    limits: LimitsSpec | None = None
    """Limits for this listener, in place of the top-level `limits`."""

    @property
    def serves_both(self) -> bool:
        """Whether connections with TLS and without are told apart by their first byte."""
        return self.tls is not None and self.tls.plain

    @property
    def address(self) -> Bind:
        """``bind`` in its parts."""
        return parse_bind(self.bind)

    @property
    def label(self) -> str:
        """What logs and metrics call this listener."""
        return self.name or self.bind


def listener_from_text(value: Any) -> object:
    """`- 0.0.0.0:8080` alone is a plain listener there."""
    return {"bind": value} if isinstance(value, (str, int)) else value


Listener = Annotated[
    ListenerSpec,
    Shorthand(
        listener_from_text,
        {"type": "string", "examples": ["0.0.0.0:8080"]},
        "or text, which is `bind`",
    ),
]
