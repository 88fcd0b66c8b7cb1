"""Who a request is addressed to: `host[:port]`, judged strictly and written one way.

Theory of operation
-------------------
RFC 9110 7.2 takes `Host` from the URI grammar (RFC 3986 3.2.2), which is far wider than any name
in use: percent-escapes, `!$&'()*+,;=` and the empty name are all legal there. Two parsers that
read such a value differently send one request to two places, so we accept only what can be a DNS
name, an IPv4 address or a bracketed IPv6 address, and refuse the rest. That also refuses user
info, a path, a list of hosts, blanks and controls without a rule for each.

One name has one spelling afterwards, for matching and for forwarding alike, so that no route and
no policy is passed by writing the host differently: letters are lower-case, one trailing dot
(the DNS root) is dropped, an IPv6 address is in its RFC 5952 form, a port has no leading zeros,
and an empty port (`example.org:`, legal in RFC 3986) is dropped with its colon. A port that
equals the scheme's default stays as it was sent: applications build links from it.

A name whose last label is a number must be an IPv4 address in four decimal parts (as in the URL
standard, and RFC 1123 2.1): `127.1`, `0x7f.1` and `1.2.3.256` mean an address to some resolvers
and a name to others.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address
from typing import Final
from urllib.parse import urlsplit

DEFAULT_PORTS: Final = {"http": 80, "https": 443}
"""Of the schemes there are."""

MAX_HOST_BYTES: Final = 255
"""The longest DNS name in text form (RFC 1035 2.3.4), with its trailing dot."""

_MAX_BYTES: Final = MAX_HOST_BYTES + len(":65535")
_MAX_PORT: Final = 65535
_PORT_OF: Final = {scheme: f":{port}" for scheme, port in DEFAULT_PORTS.items()}
# Bounded, as the values are the clients' to choose: about 1 MB when it is full.
_MEMO_ENTRIES: Final = 2048

_NAME = re.compile(
    rb"([A-Za-z0-9_-]++(?:\.[A-Za-z0-9_-]++)*+)\.?(?::([0-9]{0,5}))?",
).fullmatch
_BRACKETED = re.compile(rb"\[([0-9A-Fa-f:.]{2,45})\](?::([0-9]{0,5}))?").fullmatch
_ENDS_IN_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0[xX][0-9A-Fa-f]*)").fullmatch
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}").fullmatch


@dataclass(frozen=True, slots=True)
class Authority:
    """A judged `host[:port]`."""

    host: str
    """Lower-case name or address, without brackets and port."""
    port: int | None
    """The port as sent, else the default the caller named."""
    text: str
    """The normalised authority, as it is forwarded: brackets and the port as sent."""

    def __str__(self) -> str:
        """Return the form that stands in a `Host` field."""
        return self.text


def parse_authority(value: bytes, default_port: int | None = None) -> Authority | None:
    """Judge a `Host` field, an `:authority` or the authority of a URI; None refuses it.

    `value` comes without surrounding white space. The answer is remembered per value: this runs
    for every head that is not known yet, and clients send few different hosts.
    """
    # Judged outside the memo, so that overlong values never take up room in it.
    if len(value) > _MAX_BYTES:
        return None
    return _parse(value, default_port)


def origin_of(scheme: str, authority: str) -> str:
    """`scheme://host[:port]`, without the port that is the scheme's own: two URLs are of one origin
    if these are equal. `authority` is a judged one.
    """
    return f"{scheme}://{authority.removesuffix(_PORT_OF.get(scheme, ' '))}"


def origin_of_url(url: str) -> str | None:
    """The same of a whole URL; None if no request can be made for it, or it names a user."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    if parts.scheme not in DEFAULT_PORTS:
        return None
    authority = parse_authority(parts.netloc.encode("utf-8", "surrogatepass"))
    return None if authority is None else origin_of(parts.scheme, authority.text)


@lru_cache(maxsize=_MEMO_ENTRIES)
def _parse(value: bytes, default_port: int | None) -> Authority | None:
    if value.startswith(b"["):
        return _parse_bracketed(value, default_port)
    match = _NAME(value)
    if match is None:
        return None
    name, digits = match.groups()
    if len(name) > MAX_HOST_BYTES:
        return None
    host = name.decode("ascii").lower()
    if _ENDS_IN_NUMBER(host) and not _IPV4(host):
        return None
    return _finish(host, host, digits, default_port)


def _parse_bracketed(value: bytes, default_port: int | None) -> Authority | None:
    # No zone (`%25eth0`): it means something on the sender's machine only (RFC 6874). No
    # IPvFuture: none was ever defined.
    match = _BRACKETED(value)
    if match is None:
        return None
    inner, digits = match.groups()
    try:
        host = IPv6Address(inner.decode("ascii")).compressed
    except AddressValueError:
        return None
    return _finish(host, f"[{host}]", digits, default_port)


def _finish(
    host: str, text: str, digits: bytes | None, default_port: int | None
) -> Authority | None:
    if not digits:
        return Authority(host, default_port, text)
    port = int(digits)
    if port > _MAX_PORT:
        return None
    return Authority(host, port, f"{text}:{port}")
