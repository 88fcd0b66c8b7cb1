"""Who the client is behind other proxies, and what the next hop is told about it.

Theory of operation
-------------------
Anyone can write `X-Forwarded-For`. Each proxy appends the peer it saw on the right, so only the
right end is worth anything, and only as far as the proxies who wrote it are ours: we begin with
the peer of the connection, and while the address at hand is a trusted proxy, believe what it
said about the hop before. The first address that is not trusted is the client. An entry that is
no address (`unknown`, `_hidden`, an obfuscated identifier, rubbish) ends the walk at the last
address that was believed; nothing left of it can be told apart from a forgery.

Two families carry this: `X-Forwarded-*` and `Forwarded` (RFC 7239). A proxy that maintains one
passes the other through as the client wrote it, so a family is read only when the operator
switched it on, and where both are on, `X-Forwarded-For` wins over `Forwarded` when present.

What is sent on:
- from a peer that is not trusted, all fields of both families are dropped and ours put in place;
- from a trusted peer, `X-Forwarded-For` and `Forwarded` are appended to, while the scheme and the
  host that it reports for the client are kept if they are well-formed;
- a family that is off is dropped from everyone, since no hop vouches for it;
- a `Forwarded` that does not follow its grammar to the end is dropped whole: an open quote at its
  end would swallow the element that we append.

`Via` is not a matter of trust: our entry is added as a field line of its own after all others,
which RFC 9110 5.3 makes equal to appending to the list.

For an untrusted peer all that we send is constant for the life of the connection, except the
host, which is constant for a head. `connection_block` and `host_block` are these two halves as
bytes; joined in this order they are the rendered fields that `outgoing` lists.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network
from itertools import product
from typing import Final, Protocol

from headgate.wire.host import parse_authority

Header = tuple[bytes, bytes]
Network = IPv4Network | IPv6Network

UNIX_PEER: Final = "unix:"
"""Stands in place of the address of a peer on a Unix socket."""

# A chain of proxies is a handful; 64 leaves room for any mesh and bounds the work of a forgery.
MAX_HOPS: Final = 64
_CACHED_PEERS: Final = 4096


def _spellings(name: str) -> Iterable[bytes]:
    """Yield `name` with each hyphen also as an underscore: CGI-like servers read both alike."""
    for parts in product("-_", repeat=name.count("-")):
        words = name.split("-")
        yield "".join(w + sep for w, sep in zip(words, (*parts, ""), strict=True)).encode()


FORWARDING_NAMES: Final = frozenset(
    spelling
    for name in (
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-scheme",
        "x-forwarded-ssl",
        "x-forwarded-server",
        "x-forwarded-prefix",
        "x-real-ip",
    )
    for spelling in _spellings(name)
)
"""What an untrusted peer may not say: dropped from its requests, in any spelling."""

REPLACED_NAMES: Final = frozenset(
    spelling
    for name in ("forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host")
    for spelling in _spellings(name)
)
"""What is taken out of a trusted peer's request, because `outgoing` says it anew."""


class ForwardedOptions(Protocol):
    """What this file reads of the configuration's `ForwardedSpec`."""

    @property
    def x_forwarded(self) -> bool: ...
    @property
    def forwarded(self) -> bool: ...
    @property
    def via(self) -> str | None: ...


class TrustedNetworks:
    """The networks whose word is believed, as a lookup that does not grow with their number.

    Networks are kept as sets of prefixes, one set a prefix length; an answer is remembered per
    address, and the memory is emptied when it is full, as the addresses are the clients' choice.
    """

    def __init__(self, networks: Iterable[Network] = (), *, unix: bool = False) -> None:
        """With `unix`, peers on Unix sockets are trusted too: the file's mode guards them."""
        v4: dict[int, set[int]] = {}
        v6: dict[int, set[int]] = {}
        for network in networks:
            by_shift = v4 if network.version == 4 else v6
            shift = network.max_prefixlen - network.prefixlen
            by_shift.setdefault(shift, set()).add(int(network.network_address) >> shift)
        self._v4 = tuple(v4.items())
        self._v6 = tuple(v6.items())
        self._unix = unix
        self._known: dict[object, bool] = {}

    def __contains__(self, ip: object) -> bool:
        """Tell whether `ip` (text, as the socket or a header gave it) is trusted."""
        known = self._known.get(ip)
        if known is None:
            known = isinstance(ip, str) and self._look_up(ip)
            if len(self._known) >= _CACHED_PEERS:
                self._known.clear()
            self._known[ip] = known
        return known

    def __bool__(self) -> bool:
        return bool(self._v4 or self._v6 or self._unix)

    def _look_up(self, ip: str) -> bool:
        if ip == UNIX_PEER:
            return self._unix
        address = parse_address(ip)
        if address is None:
            return False
        number = int(address)
        by_shift = self._v4 if address.version == 4 else self._v6
        return any(number >> shift in prefixes for shift, prefixes in by_shift)


@dataclass(frozen=True, slots=True)
class Client:
    """Who asks, as far as it can be believed."""

    ip: str
    scheme: str
    """`http` or `https`: how the client spoke to the outermost trusted hop."""
    host: str | None
    """The authority the client asked that hop for, when a trusted hop reports one."""
    peer_trusted: bool


def parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """Read an address without port; an IPv4 address mapped into IPv6 is that IPv4 address.

    A zone (`fe80::1%eth0`, as sockets report it) is dropped: it names an interface, not a host.
    """
    if ":" not in text:
        try:
            return IPv4Address(text)
        except AddressValueError:
            return None
    try:
        address = IPv6Address(text.partition("%")[0])
    except AddressValueError:
        return None
    return address.ipv4_mapped or address


def client(
    peer: str,
    scheme: str,
    headers: Sequence[Header],
    trusted: TrustedNetworks,
    options: ForwardedOptions,
) -> Client:
    """Find the client behind the connection's `peer`, which spoke `scheme` to us."""
    if peer not in trusted:
        return Client(peer, scheme, None, peer_trusted=False)
    if options.x_forwarded and (chain := _joined(headers, b"x-forwarded-for")) is not None:
        hops = [_read_x_hop(entry) for entry in chain.rsplit(",", MAX_HOPS)[-MAX_HOPS:]]
        ip, index = _walk(peer, hops, trusted)
        from_end = len(hops) - index
        said_scheme = _aligned(_joined(headers, b"x-forwarded-proto"), from_end, len(hops))
        said_host = _aligned(_joined(headers, b"x-forwarded-host"), from_end, len(hops))
        return Client(ip, _scheme(said_scheme) or scheme, _host(said_host), peer_trusted=True)
    if options.forwarded and (value := _joined(headers, b"forwarded")) is not None:
        elements = parse_forwarded(value)
        if elements:
            elements = elements[-MAX_HOPS:]
            ip, index = _walk(peer, [read_node(e.get("for", "")) for e in elements], trusted)
            said = elements[min(index, len(elements) - 1)]
            return Client(
                ip,
                _scheme(said.get("proto")) or scheme,
                _host(said.get("host")),
                peer_trusted=True,
            )
    said_scheme = said_host = None
    if options.x_forwarded:
        said_scheme = _aligned(_joined(headers, b"x-forwarded-proto"), 1, 0)
        said_host = _aligned(_joined(headers, b"x-forwarded-host"), 1, 0)
    return Client(peer, _scheme(said_scheme) or scheme, _host(said_host), peer_trusted=True)


def outgoing(
    peer: str,
    scheme: str,
    authority: str,
    headers: Sequence[Header],
    trusted: TrustedNetworks,
    options: ForwardedOptions,
    protocol: bytes = b"1.1",
) -> list[Header]:
    """List the fields that tell the next hop where this request comes from.

    They stand after those of `headers` that `keep` lets pass. `protocol` is the HTTP version the
    request came in by, for `Via` (RFC 9110 7.6.3).
    """
    fields: list[Header] = []
    if options.via is not None:
        fields.append((b"via", protocol + b" " + options.via.encode("latin-1")))
    known = client(peer, scheme, headers, trusted, options) if peer in trusted else None
    if options.x_forwarded:
        chain = _joined(headers, b"x-forwarded-for") if known else None
        here = _x_node(peer)
        fields.append((b"x-forwarded-for", (f"{chain}, {here}" if chain else here).encode()))
        said = known.scheme if known else scheme
        fields.append((b"x-forwarded-proto", said.encode()))
    if options.forwarded:
        chain = _joined(headers, b"forwarded") if known else None
        if chain is not None and not parse_forwarded(chain):
            chain = None
        element = f'for={_node(peer)};proto={scheme};host="{authority}"'
        fields.append((b"forwarded", (f"{chain}, {element}" if chain else element).encode()))
    if options.x_forwarded:
        said = (known.host if known else None) or authority
        fields.append((b"x-forwarded-host", said.encode()))
    return fields


def keep(headers: Iterable[Header], *, peer_trusted: bool) -> tuple[Header, ...]:
    """Return `headers` without those that `outgoing` replaces or that the peer may not say."""
    dropped = REPLACED_NAMES if peer_trusted else FORWARDING_NAMES
    return tuple(field for field in headers if field[0] not in dropped)


def connection_block(
    ip: str, scheme: str, options: ForwardedOptions, protocol: bytes = b"1.1"
) -> bytes:
    """Render what is sent for every request of an untrusted peer's connection.

    With `Forwarded` on, the block ends inside that field: `host_block` must follow at once.
    """
    parts: list[bytes] = []
    if options.via is not None:
        parts.append(b"via: %b %b\r\n" % (protocol, options.via.encode("latin-1")))
    if options.x_forwarded:
        parts.append(b"x-forwarded-for: %b\r\n" % _x_node(ip).encode())
        parts.append(b"x-forwarded-proto: %b\r\n" % scheme.encode())
    if options.forwarded:
        parts.append(f"forwarded: for={_node(ip)};proto={scheme}".encode())
    return b"".join(parts)


def host_block(authority: str, options: ForwardedOptions) -> bytes:
    """Render what is sent after `connection_block` for every request to one authority.

    `authority` is a judged one (`headgate.wire.host`), so it cannot leave its quotes.
    """
    parts: list[bytes] = []
    if options.forwarded:
        parts.append(f';host="{authority}"\r\n'.encode())
    if options.x_forwarded:
        parts.append(f"x-forwarded-host: {authority}\r\n".encode())
    return b"".join(parts)


# RFC 7239 4: forwarded-pair = token "=" ( token / quoted-string ), parted by ";" and ",". The
# RFC has no blanks around ";" and wants addresses with a colon in quotes; both are often sent
# otherwise, and neither can be taken for another separator.
_TCHARS = r"!#$%&'*+\-.^_`|~0-9A-Za-z"
_QUOTED = r'"((?:[^"\\\x00-\x08\x0a-\x1f\x7f]|\\[\t\x20-\x7e])*)"'
_PAIR = re.compile(
    rf"[ \t]*(?:([{_TCHARS}]+)=(?:([:\[\]{_TCHARS}]+)|{_QUOTED}))?[ \t]*([;,]|\Z)"
).match
_QUOTED_PAIR = re.compile(r"\\(.)")


def parse_forwarded(value: str) -> list[dict[str, str]] | None:
    """Split a `Forwarded` value into its elements, leftmost first; None if it is malformed.

    Empty elements are skipped (RFC 9110 5.6.1); a parameter named twice in one element is
    malformed (RFC 7239 4).
    """
    elements: list[dict[str, str]] = []
    element: dict[str, str] = {}
    at = 0
    while at <= len(value):
        match = _PAIR(value, at)
        if match is None:
            return None
        name, token, quoted, end = match.groups()
        if name is not None:
            name = name.lower()
            if name in element:
                return None
            element[name] = token if token is not None else _QUOTED_PAIR.sub(r"\1", quoted)
        if end != ";" and element:
            elements.append(element)
            element = {}
        if not end:
            break
        at = match.end()
    return elements


def read_node(node: str) -> str | None:
    """Read the address of a `for` node (RFC 7239 6); None for `unknown`, `_hidden` and rubbish."""
    if node.startswith("["):
        inner, bracket, port = node[1:].partition("]")
        if not bracket or ":" not in inner or "%" in inner or not _is_port_suffix(port):
            return None
        return _canonical(inner)
    host, colon, port = node.partition(":")
    if not _is_port_suffix(colon + port):
        return None
    return _canonical(host)


_PORT_SUFFIX = re.compile(r"(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]+))?").fullmatch


def _is_port_suffix(text: str) -> bool:
    return _PORT_SUFFIX(text) is not None


def _read_x_hop(entry: str) -> str | None:
    """Read one `X-Forwarded-For` entry: as a node, or an IPv6 address without its brackets."""
    entry = entry.strip(" \t")
    if entry.count(":") > 1 and not entry.startswith("["):
        return None if "%" in entry else _canonical(entry)
    return read_node(entry)


def _canonical(text: str) -> str | None:
    address = parse_address(text)
    return None if address is None else str(address)


def _walk(peer: str, hops: Sequence[str | None], trusted: TrustedNetworks) -> tuple[str, int]:
    """Walk from the right; return the client and the index of the entry that named it.

    The index is `len(hops)` when no entry could be believed and the peer itself is the client.
    """
    ip = peer
    index = len(hops)
    while index and ip in trusted:
        hop = hops[index - 1]
        if hop is None:
            break
        ip = hop
        index -= 1
    return ip, index


def _joined(headers: Iterable[Header], name: bytes) -> str | None:
    """All lines of a field as one list; None when it is absent, empty or not plain ASCII."""
    values = [value for key, value in headers if key == name]
    if not values:
        return None
    joined = b", ".join(values)
    return joined.decode() if joined.isascii() and joined else None


def _aligned(value: str | None, from_end: int, hops: int) -> str | None:
    """Pick what was said along with the entry that named the client.

    Most proxies send one value for the client; some append one an entry. Only in lists as long
    as the chain itself do the places correspond; in any other, the right end is what our own
    peer said.
    """
    if value is None:
        return None
    entries = value.rsplit(",", MAX_HOPS)[-MAX_HOPS:]
    if len(entries) == hops and 0 < from_end <= hops:
        return entries[-from_end].strip(" \t")
    return entries[-1].strip(" \t")


_SCHEMES: Final = {"http": "http", "https": "https", "ws": "http", "wss": "https"}


def _scheme(said: str | None) -> str | None:
    return _SCHEMES.get(said.lower()) if said else None


def _host(said: str | None) -> str | None:
    if not said:
        return None
    authority = parse_authority(said.encode())
    return None if authority is None else authority.text


def _x_node(ip: str) -> str:
    return _canonical(ip) or "unknown"


def _node(ip: str) -> str:
    """Write an address as RFC 7239 6 wants it: IPv6 in brackets, and therefore in quotes."""
    text = _canonical(ip) or "unknown"
    return f'"[{text}]"' if ":" in text else text
