"""Connections to instances: names, several addresses, TLS and Unix sockets behind one call.

Theory of operation
-------------------
A name may have addresses of both families, and one family may lead nowhere without saying so.
Happy Eyeballs (RFC 8305): the addresses are tried in turn, families interleaved, the next one
starting when the last has failed or has been silent for 250 ms; the first to connect wins. The
instance with one address, which is the common one, is connected without a task of its own.

Whatever ends the attempt (success, failure, deadline, cancellation), every socket but the
winner's is closed: an attempt closes its own when it is not brought to its end, and a loser that
connected in the same turn of the loop is closed by `_discard`.

The deadline spans look-up, connection and handshake. Every failure leaves as `UpstreamFailed`:
`dns` the name has no address; `connect` refused, unreachable or silent; `tls` the handshake was
refused by either side; `timeout` connected, but the handshake was not finished in time.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Final, Literal, Protocol, TypeVar

from headgate.errors import UpstreamFailed
from headgate.wire.error_words import say
from headgate.wire.handshakes import words_of

STAGGER_S: Final = 0.25
"""The "connection attempt delay" of RFC 8305 5."""

# A peer that has vanished is noticed after about 90 s (the kernel's default is two hours).
_KEEPALIVE: Final = (
    (socket.TCP_KEEPIDLE, 60),
    (socket.TCP_KEEPINTVL, 10),
    (socket.TCP_KEEPCNT, 3),
)
_FULL_BACKLOG_S: Final = 0.005

_P = TypeVar("_P", bound=asyncio.BaseProtocol)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an instance listens: a host and port, or the path of a Unix socket."""

    host: str = ""
    """A name or an address, without brackets."""
    port: int = 0
    path: str | None = None

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Tls:
    """How to speak TLS to an instance."""

    context: ssl.SSLContext
    server_name: str
    """The name that is sent (SNI) and that the certificate must have."""


class Resolving(Protocol):
    """What names are turned into addresses by: `headgate.wire.resolve.Resolver`."""

    async def resolve(self, name: str) -> tuple[str, ...]: ...


async def connect(
    loop: asyncio.AbstractEventLoop,
    factory: Callable[[], _P],
    endpoint: Endpoint,
    tls: Tls | None,
    timeout_s: float,
    resolver: Resolving,
) -> tuple[asyncio.Transport, _P]:
    """Connect to an instance and start TLS; raise UpstreamFailed with the kind of failure."""
    stage: Literal["dns", "connect", "tls"] = "connect"
    try:
        async with asyncio.timeout(timeout_s):
            if endpoint.path is not None:
                sock = await _open_unix(endpoint.path)
            else:
                stage = "dns"
                addresses = await resolver.resolve(endpoint.host)
                stage = "connect"
                sock = await _open_tcp(loop, addresses, endpoint.port)
            stage = "tls" if tls is not None else "connect"
            return await _start(loop, factory, sock, tls)
    except TimeoutError as error:
        # ETIMEDOUT of the kernel comes by here too, and means the same.
        if stage == "tls":
            raise UpstreamFailed("timeout", f"{endpoint}: TLS not established in time") from error
        what = "its name was not found" if stage == "dns" else "no connection"
        raise UpstreamFailed(stage, f"{endpoint}: {what} within {timeout_s:g} s") from error
    except ssl.SSLError as error:
        raise UpstreamFailed("tls", f"{endpoint}: {_say_tls(error)}", words_of(error)) from error
    except OSError as error:
        if stage == "tls":
            words = "closed during the handshake"
            raise UpstreamFailed("tls", f"{endpoint}: {words}", words) from error
        raise UpstreamFailed("connect", f"{endpoint}: {say(error)}") from error


def interleaved(addresses: Sequence[str]) -> list[str]:
    """Order addresses so that families take turns, beginning with the first one's (RFC 8305 4)."""
    v6 = [address for address in addresses if ":" in address]
    v4 = [address for address in addresses if ":" not in address]
    first, second = (v6, v4) if addresses and ":" in addresses[0] else (v4, v6)
    pairs = chain.from_iterable(zip_longest(first, second))
    return [address for address in pairs if address is not None]


async def _start(
    loop: asyncio.AbstractEventLoop,
    factory: Callable[[], _P],
    sock: socket.socket,
    tls: Tls | None,
) -> tuple[asyncio.Transport, _P]:
    # From here on the socket is the loop's, which closes it also on failure and cancellation;
    # closing it here as well would confuse asyncio, which keeps its books by descriptor.
    if tls is None:
        return await loop.create_connection(factory, sock=sock)
    return await loop.create_connection(
        factory, sock=sock, ssl=tls.context, server_hostname=tls.server_name
    )


async def _open_tcp(
    loop: asyncio.AbstractEventLoop, addresses: Sequence[str], port: int
) -> socket.socket:
    if len(addresses) == 1:
        return await _attempt(loop, addresses[0], port)
    waiting = interleaved(addresses)
    waiting.reverse()
    running: set[asyncio.Task[socket.socket]] = set()
    failure: OSError | None = None
    try:
        while waiting or running:
            if waiting:
                address = waiting.pop()
                running.add(
                    loop.create_task(_attempt(loop, address, port), name=f"connect {address}")
                )
            done, _ = await asyncio.wait(
                running,
                timeout=STAGGER_S if waiting else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for attempt in done:
                running.discard(attempt)
                error = attempt.exception()
                if error is None:
                    return attempt.result()
                # The first failure is told: it is about the address that is preferred.
                if failure is None and isinstance(error, OSError):
                    failure = error
        raise failure or OSError("no address")
    finally:
        # Also one that was done together with the winner, as it was not looked at.
        for attempt in running:
            attempt.add_done_callback(_discard)
            attempt.cancel()


def _discard(attempt: asyncio.Task[socket.socket]) -> None:
    """End an attempt that has lost: close what it connected, and hear its failure."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()


async def _attempt(loop: asyncio.AbstractEventLoop, address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
        await loop.sock_connect(sock, (address, port))
    except BaseException:
        sock.close()
        raise
    return sock


async def _open_unix(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        while True:
            try:
                # Connects at once or not at all; the loop's `sock_connect` would take EAGAIN,
                # which means a full backlog here, for a connection under way.
                sock.connect(path)
                return sock
            except BlockingIOError:
                await asyncio.sleep(_FULL_BACKLOG_S)
    except BaseException:
        sock.close()
        raise


def _say_tls(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is refused: {words_of(error)}"
    return f"TLS failed: {words_of(error)}"
