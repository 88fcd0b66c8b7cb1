"""The PROXY protocol, versions 1 and 2: a balancer in front tells whose connection it passes on.

Theory of operation
-------------------
The header stands before the first byte of the connection, also before TLS. `parse_proxy_header`
is pure: given what has arrived it answers with the header, with how many bytes it still needs, or
with why this is none. It never reads past the header.

`accept_with_proxy` is the rim: it takes exactly the header off an accepted socket, so that what
follows can be handed to a plain or a TLS transport alike. Both versions' shortest headers have 15
bytes, so that many can be consumed blindly. Version 2 then says its own length. Version 1 ends at
the first CRLF, which is looked for by peeking; what was peeked at without finding it is part of
the header and is consumed, so the socket falls silent again and waiting for more never spins.

The header decides who the client is, so it counts only from senders in `trusted_proxies`; any
other sender, a malformed header, silence, or no header at all closes the connection (the
specification forbids guessing whether there is one).

Where we are stricter than the specification: only stream addresses are taken, the block of a
version 2 header is at most 4 KB, unknown versions and commands are refused, and TLVs must fill
the rest of the block exactly.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections.abc import Container
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final, Literal

from headgate.wire.forwarded import UNIX_PEER

V1_MAX_BYTES: Final = 107
"""The longest header of version 1, with its CRLF."""

V2_MAX_BLOCK: Final = 4096
"""The longest address block of version 2 that is taken; the format would allow 64 KB."""

_SHORTEST: Final = 15  # b"PROXY UNKNOWN\r\n"; version 2 begins with 16 bytes
_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_V2_HEAD: Final = struct.Struct(">12sBBH")
_V2_TCP4: Final = struct.Struct(">4s4sHH")
_V2_TCP6: Final = struct.Struct(">16s16sHH")
_V2_UNIX_BYTES: Final = 216

_TLV_ALPN: Final = 0x01
_TLV_AUTHORITY: Final = 0x02
_TLV_CRC32C: Final = 0x03
_TLV_UNIQUE_ID: Final = 0x05
_UNIQUE_ID_MAX: Final = 128
_AUTHORITY_MAX: Final = 255

_PORT = r"(0|[1-9][0-9]{0,4})"
_V1 = re.compile(
    rf"PROXY (?:UNKNOWN(?: [\x20-\x7e]*)?|(TCP4|TCP6) ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+)"
    rf" {_PORT} {_PORT})\r\n"
).fullmatch


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """What the sender said. Without `source` the socket's own addresses are the right ones."""

    version: Literal[1, 2]
    size: int
    """How many bytes the header took."""
    source: tuple[str, int] | None = None
    """The client's address and port."""
    destination: tuple[str, int] | None = None
    """The address and port the client connected to."""
    authority: str | None = None
    """The host name the client asked the sender for (TLS SNI), where version 2 tells it."""
    alpn: bytes | None = None
    """The application protocol the sender agreed on with the client, likewise."""


@dataclass(frozen=True, slots=True)
class NeedMore:
    """The header is not complete: at least `size` bytes of it in all must be there."""

    size: int


@dataclass(frozen=True, slots=True)
class BadProxyHeader:
    """This is no PROXY header, and why."""

    reason: str


def parse_proxy_header(data: bytes) -> ProxyHeader | NeedMore | BadProxyHeader:
    """Read a header from the beginning of `data`, which may have more behind it."""
    if data[:12] == _SIGNATURE[: len(data)] and data:
        return _parse_v2(data)
    if data[:6] == b"PROXY "[: len(data)]:
        return _parse_v1(data)
    return BadProxyHeader("the connection does not begin with a PROXY header")


def _parse_v1(data: bytes) -> ProxyHeader | NeedMore | BadProxyHeader:
    end = data.find(b"\r\n", 0, V1_MAX_BYTES)
    if end < 0:
        if len(data) >= V1_MAX_BYTES:
            return BadProxyHeader("a version 1 header does not end within 107 bytes")
        return NeedMore(max(_SHORTEST, len(data) + 1))
    size = end + 2
    match = _V1(data[:size].decode("latin-1"))
    if match is None:
        return BadProxyHeader("a version 1 header is malformed")
    family, source, destination, source_port, destination_port = match.groups()
    if family is None:
        return ProxyHeader(1, size)
    from_port, to_port = int(source_port), int(destination_port)
    kind = IPv4Address if family == "TCP4" else IPv6Address
    try:
        source, destination = str(kind(source)), str(kind(destination))
    except AddressValueError:
        return BadProxyHeader("a version 1 header has an address that does not fit its family")
    if from_port > 65535 or to_port > 65535:
        return BadProxyHeader("a version 1 header has a port over 65535")
    return ProxyHeader(1, size, (source, from_port), (destination, to_port))


def _parse_v2(data: bytes) -> ProxyHeader | NeedMore | BadProxyHeader:
    if len(data) < _V2_HEAD.size:
        return NeedMore(_V2_HEAD.size)
    _, version_and_command, family, length = _V2_HEAD.unpack_from(data)
    if version_and_command not in {0x20, 0x21}:
        return BadProxyHeader("a version 2 header has an unknown version or command")
    if length > V2_MAX_BLOCK:
        return BadProxyHeader(f"a version 2 header is longer than {V2_MAX_BLOCK} bytes")
    size = _V2_HEAD.size + length
    if len(data) < size:
        return NeedMore(size)
    block = data[_V2_HEAD.size : size]
    if version_and_command == 0x20 or family == 0x00:
        # LOCAL: the sender speaks for itself (a health check). What follows is to be ignored.
        return ProxyHeader(2, size)
    source = destination = None
    if family in {0x11, 0x21}:
        layout = _V2_TCP4 if family == 0x11 else _V2_TCP6
        if length < layout.size:
            return BadProxyHeader("a version 2 header is shorter than its addresses")
        from_ip, to_ip, from_port, to_port = layout.unpack_from(block)
        kind = IPv4Address if family == 0x11 else IPv6Address
        source, destination = (str(kind(from_ip)), from_port), (str(kind(to_ip)), to_port)
        tlvs_at = layout.size
    elif family == 0x31:
        # Paths on the sender's machine, which mean nothing here.
        if length < _V2_UNIX_BYTES:
            return BadProxyHeader("a version 2 header is shorter than its addresses")
        tlvs_at = _V2_UNIX_BYTES
    else:
        return BadProxyHeader("a version 2 header has an address family that is no stream's")
    tlvs = _read_tlvs(data, _V2_HEAD.size + tlvs_at, size)
    if isinstance(tlvs, BadProxyHeader):
        return tlvs
    authority, alpn = tlvs
    return ProxyHeader(2, size, source, destination, authority, alpn)


def _read_tlvs(data: bytes, at: int, end: int) -> tuple[str | None, bytes | None] | BadProxyHeader:
    authority: str | None = None
    alpn: bytes | None = None
    while at < end:
        if end - at < 3:
            return BadProxyHeader("a version 2 header ends within a TLV")
        kind, length = data[at], int.from_bytes(data[at + 1 : at + 3], "big")
        at += 3
        if length > end - at:
            return BadProxyHeader("a version 2 header ends within a TLV")
        value = data[at : at + length]
        if kind == _TLV_CRC32C:
            if length != 4:
                return BadProxyHeader("a version 2 checksum is not four bytes long")
            zeroed = data[:at] + bytes(4) + data[at + 4 : end]
            if crc32c(zeroed) != int.from_bytes(value, "big"):
                return BadProxyHeader("a version 2 header does not match its checksum")
        elif kind == _TLV_AUTHORITY:
            try:
                authority = value.decode("utf-8")
            except UnicodeDecodeError:
                return BadProxyHeader("a version 2 authority is not UTF-8")
            if length > _AUTHORITY_MAX or not authority.isprintable():
                return BadProxyHeader("a version 2 authority is no host name")
        elif kind == _TLV_ALPN:
            alpn = value
        elif kind == _TLV_UNIQUE_ID and length > _UNIQUE_ID_MAX:
            return BadProxyHeader("a version 2 unique id is longer than 128 bytes")
        at += length
    return authority, alpn


def _crc32c_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return tuple(table)


_CRC32C: Final = _crc32c_table()


def crc32c(data: bytes) -> int:
    """Compute the Castagnoli CRC (RFC 9260 appendix A), which zlib does not have."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ _CRC32C[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


# --------------------------------------------------------------------------------------- the rim


@dataclass(frozen=True, slots=True)
class ProxyRefused:
    """The socket was closed, and why."""

    reason: str


async def accept_with_proxy(
    sock: socket.socket, trusted: Container[str], timeout_s: float
) -> ProxyHeader | ProxyRefused:
    """Take the header off a freshly accepted, non-blocking socket.

    With `ProxyRefused`, and with any exception, the socket has been closed; with a `ProxyHeader`
    it is the caller's, and its next byte is the first one after the header.
    """
    try:
        got = await _take_header(sock, trusted, timeout_s)
    except BaseException:
        sock.close()
        raise
    if isinstance(got, ProxyRefused):
        sock.close()
    return got


async def _take_header(
    sock: socket.socket, trusted: Container[str], timeout_s: float
) -> ProxyHeader | ProxyRefused:
    try:
        peer = UNIX_PEER if sock.family == socket.AF_UNIX else sock.getpeername()[0]
        if peer not in trusted:
            return ProxyRefused(f"{peer} is not a trusted proxy")
        async with asyncio.timeout(timeout_s):
            return await _read_header(sock)
    except TimeoutError:
        return ProxyRefused("no PROXY header in time")
    except OSError as error:
        return ProxyRefused(f"the connection broke before its PROXY header: {error.strerror}")


async def _read_header(sock: socket.socket) -> ProxyHeader | ProxyRefused:
    taken = bytearray()
    needed = _SHORTEST
    while True:
        chunk = await _receive(sock, needed - len(taken))
        if not chunk:
            return ProxyRefused("the connection ended before its PROXY header did")
        taken += chunk
        got = parse_proxy_header(bytes(taken))
        if isinstance(got, ProxyHeader):
            return got
        if isinstance(got, BadProxyHeader):
            return ProxyRefused(got.reason)
        needed = got.size
        if taken[:1] == b"P" and len(taken) >= _SHORTEST:
            needed = len(taken) + await _peek_line(sock, taken)


async def _receive(sock: socket.socket, size: int, flags: int = 0) -> bytes:
    while True:
        try:
            return sock.recv(size, flags)
        except (BlockingIOError, InterruptedError):
            await _wait_readable(sock)


async def _peek_line(sock: socket.socket, taken: bytearray) -> int:
    """How many of the waiting bytes belong to a version 1 header: up to its LF, or all."""
    ahead = await _receive(sock, V1_MAX_BYTES - len(taken), socket.MSG_PEEK)
    at = ahead.find(b"\n")
    # At least one, so that the end of the stream is met by the next read.
    return max(1, len(ahead) if at < 0 else at + 1)


async def _wait_readable(sock: socket.socket) -> None:
    # Not `loop.sock_recv`: it cannot peek, and this way the socket is only ever read here.
    loop = asyncio.get_running_loop()
    readable: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not readable.done():
            readable.set_result(None)

    descriptor = sock.fileno()
    loop.add_reader(descriptor, wake)
    try:
        await readable
    finally:
        loop.remove_reader(descriptor)
