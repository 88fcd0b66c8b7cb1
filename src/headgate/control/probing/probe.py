"""One check from its first packet to its verdict.

Theory of operation
-------------------
`probe` opens a connection of its own, asks once and closes it. It is not the request path, so it
is written for clearness; what it shares with that path are the connecting, TLS and parsing of
`headgate.wire`, so that an instance which passes here can be read there too. What an instance
may do to us is bounded: by one deadline for everything, by 64 KB of a head and as
much of a body. A body is read to its end or to that bound, since an instance that stops
in the middle of an answer is not well; a status that does not pass decides without the body.

Whatever happens comes out as `Seen`, with a reason in a few fixed words and never with bytes of
the instance, as reasons go to logs and messages.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import monotonic

from headgate.control.probing import http1, http2
from headgate.control.probing.connection import Connection
from headgate.control.probing.target import Target, Verdict
from headgate.errors import ConfigInvalid, UpstreamFailed
from headgate.units import format_duration
from headgate.wire.connect import Endpoint as Address
from headgate.wire.connect import Resolving, Tls, connect
from headgate.wire.tls import HTTP1, HTTP2_AND_1, upstream_context

__all__ = ["Seen", "probe"]


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of a check."""

    ok: bool
    why: str
    took_s: float
    timed_out: bool = False


async def probe(target: Target, resolver: Resolving) -> Seen:
    """Check an instance once. It raises nothing that an instance or its address can cause."""
    began = monotonic()
    timeout_s = target.rules.timeout_s
    connection: Connection | None = None
    ok, why, timed_out, is_answered = False, "", False, False
    try:
        try:
            async with asyncio.timeout(timeout_s):
                connection = await _open(target, resolver)
                ok, why = await _ask_of(target)(connection, target)
            is_answered = True
        except TimeoutError:
            timed_out = True
        except UpstreamFailed as failure:
            why = _say_failure(failure)
        except ConfigInvalid as error:
            why = f"TLS cannot be set up: {error.faults[0].message}"
        if timed_out:
            stage = connection.stage if connection is not None else "not connected"
            why = f"timed out after {format_duration(timeout_s)}, {stage}"
        return Seen(ok, why, monotonic() - began, timed_out)
    finally:
        if connection is not None:
            await connection.close(politely=is_answered)


async def _open(target: Target, resolver: Resolving) -> Connection:
    loop = asyncio.get_running_loop()
    address = target.address
    tls: Tls | None = None
    if address.scheme == "https":
        alpn = ("h2",) if target.is_h2 else HTTP1 if target.rules.kind == "http" else HTTP2_AND_1
        name = target.tls.server_name or address.host
        tls = Tls(upstream_context(target.tls, alpn), name)
    _, connection = await connect(
        loop,
        Connection,
        Address(address.host, address.port, address.path),
        tls,
        target.rules.timeout_s + 1.0,  # the deadline of `probe` is the one that counts
        resolver,
    )
    return connection


def _ask_of(target: Target) -> Callable[[Connection, Target], Awaitable[Verdict]]:
    match target.rules.kind:
        case "tcp":
            return _ask_nothing
        case "grpc":
            return http2.ask_grpc
        case "http":
            return http2.ask if target.is_h2 else http1.ask


async def _ask_nothing(connection: Connection, target: Target) -> Verdict:
    return True, "connected"


def _say_failure(failure: UpstreamFailed) -> str:
    detail = failure.detail.partition(": ")[2] or failure.detail
    match failure.kind:
        case "connect":
            if isinstance(failure.__cause__, ConnectionRefusedError):
                return "connect refused"
            return f"connect failed: {detail[:1].lower()}{detail[1:]}"
        case "dns":
            return f"name not found: {detail}"
        case "tls":
            return f"TLS: {detail.removeprefix('TLS failed: ')}"
        case "reset":
            return "connection reset"
        case _:
            return f"{failure.kind}: {detail}"
