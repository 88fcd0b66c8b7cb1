"""A listener at run time: its sockets, its connections and the site they serve.

It outlives reloads. What a reload changes is `site` and, for TLS, the certificates in `store`;
connections and counters stay.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING, Final

from headgate.gateway.downstream_h1 import DownstreamH1
from headgate.gateway.downstream_h2 import DownstreamH2, limits_of
from headgate.gateway.handshakes import FailedHandshakes
from headgate.gateway.heads_h2 import Judge
from headgate.gateway.problem import title_of
from headgate.wire.acme_alpn import ACME_TLS
from headgate.wire.forwarded import UNIX_PEER
from headgate.wire.proxy_protocol import ProxyRefused, accept_with_proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from headgate.gateway.prepared import Prepared
    from headgate.gateway.site import Site
    from headgate.gateway.wheel import Wheel
    from headgate.observe import ListenerStats, WorkerStats
    from headgate.wire.h2 import H2Limits
    from headgate.wire.tls import CertificateStore

_BACKLOG: Final = 4096
_HANDSHAKE_S: Final = 10.0
_WRITE_HIGH: Final = 256 * 1024
_WRITE_LOW: Final = 64 * 1024
_LOOKED_AT: Final = 64
"""Connections looked at to make room: with more, every refusal would cost as much as a request."""

Connection = DownstreamH1 | DownstreamH2


class Listener:
    def __init__(
        self,
        bind: str,
        site: Site,
        wheel: Wheel,
        stats: ListenerStats,
        worker_stats: WorkerStats,
        store: CertificateStore | None,
        spawn: Callable[[Coroutine[object, object, None]], object],
    ) -> None:
        self.bind = bind
        self.site = site
        self.asks_certificate = _asks_certificate(site)
        self.wheel = wheel
        self.stats = stats
        self.worker_stats = worker_stats
        self.store = store
        if store is not None:
            store.watch(FailedHandshakes(bind, stats).on_fault, _HANDSHAKE_S)
        self.draining = False
        self.h2_limits = _h2_limits(site)
        self.h2_judge = Judge()
        # A dict for its order: the oldest connection comes first.
        self.connections: dict[Connection, None] = {}
        self._emptied = asyncio.Event()
        self._clients_shown = store.clients_shown if store is not None else (None, False)
        self._spawn = spawn
        self._per_ip: dict[str, int] = {}
        self._servers: list[asyncio.Server] = []
        self._accepting: dict[int, socket.socket] = {}
        self.sockets: list[socket.socket] = []

    @property
    def is_tls(self) -> bool:
        return self.store is not None

    def take_up(self, site: Site) -> None:
        """Serve a new plan from the next request on."""
        self.site = site
        self.asks_certificate = _asks_certificate(site)
        self.h2_limits = _h2_limits(site)
        self.h2_judge = Judge()
        if self.store is not None and self.store.clients_shown != self._clients_shown:
            self._clients_shown = self.store.clients_shown
            self._ask_again()

    def _ask_again(self) -> None:
        """Other authorities vouch for clients now. What the former ones said is worth nothing any
        more, and only a new handshake can show what these say.
        """
        for connection in list(self.connections):
            connection.certificate = None
            connection.drain()

    # -- sockets -------------------------------------------------------------------------------

    async def listen(self, sockets: Sequence[socket.socket]) -> None:
        """Accept from these sockets, which stay the caller's."""
        loop = asyncio.get_running_loop()
        for sock in sockets:
            own = sock.dup()
            own.setblocking(False)
            if self.site.spec.proxy_protocol:
                self._accepting[own.fileno()] = own
                loop.add_reader(own.fileno(), self._accept, own)
                continue
            self._servers.append(
                await loop.create_server(
                    lambda: DownstreamH1(self),
                    sock=own,
                    backlog=_BACKLOG,
                    ssl=self.store.context if self.store is not None else None,
                    ssl_handshake_timeout=_HANDSHAKE_S if self.store is not None else None,
                )
            )
        self.sockets = list(sockets)

    def stop_listening(self) -> None:
        """Accept nothing more; connections go on. What waits in the kernel waits there."""
        loop = asyncio.get_running_loop()
        for server in self._servers:
            server.close()
        self._servers.clear()
        for sock in self._accepting.values():
            loop.remove_reader(sock.fileno())
            sock.close()
        self._accepting.clear()
        self.sockets = []

    def drain(self) -> None:
        self.draining = True
        for connection in list(self.connections):
            connection.drain()

    async def wait_empty(self) -> None:
        """Return when a draining listener has no connection left."""
        if self.connections:
            await self._emptied.wait()

    def close_all(self) -> None:
        for connection in list(self.connections):
            connection.close()

    def shut_banned(self, now: float) -> None:
        """Close the connections of whoever is banned by now."""
        bans = self.site.bans
        if bans is None:
            return
        banned: dict[str, bool] = {}
        for connection in list(self.connections):
            ip = connection.peer_ip
            if ip not in banned:
                banned[ip] = bans.check(ip, now) is not None
            if banned[ip]:
                self.stats.refused.add("banned")
                connection.close()

    # -- connections ---------------------------------------------------------------------------

    def admit(self, conn: DownstreamH1) -> bool:
        """Take a new connection in, or turn it away when there are too many."""
        transport = conn.transport
        transport.set_write_buffer_limits(_WRITE_HIGH, _WRITE_LOW)
        if not conn.peer_ip:
            peer = transport.get_extra_info("peername")
            conn.peer_ip = peer[0].partition("%")[0] if isinstance(peer, tuple) else UNIX_PEER
        conn.client_ip = conn.peer_ip
        self.stats.accepted += 1
        self.stats.open += 1
        limits = self.site.limits
        is_full = len(self.connections) >= limits.connections and not self._make_room()
        self.connections[conn] = None
        ip = conn.peer_ip
        self._per_ip[ip] = self._per_ip.get(ip, 0) + 1
        if is_full:
            self._turn_away(conn, 503, "too many connections")
            return False
        bans = self.site.bans
        if bans is not None and (banned := bans.check(ip, monotonic())) is not None:
            # Behind a trusted proxy it is the request that tells who asks: see `doors`.
            self._turn_away(conn, banned.status, "banned", banned.retry_after_s, banned.is_cut)
            return False
        if limits.connections_per_ip and self._per_ip[ip] > limits.connections_per_ip:
            self._turn_away(conn, 429, "too many connections from this address")
            return False
        if self.is_tls:
            self.stats.tls_ok += 1
            ssl_object = transport.get_extra_info("ssl_object")
            conn.tls_version = ssl_object.version() or ""
            if self.asks_certificate:
                # Known as bytes alone: what it means is for `auth.certificate`.
                conn.certificate = ssl_object.getpeercert(binary_form=True)
            protocol = ssl_object.selected_alpn_protocol()
            if protocol == ACME_TLS:
                # It has seen the challenge's certificate, which is all there is to it (RFC 8737 3).
                conn.is_closing = True
                transport.close()
                return False
            if protocol == "h2":
                self.become_http2(conn, b"")
                return False
            if self.store is not None and len(self.store.snapshot()) > 1:
                conn.tls_context = ssl_object.context
        return True

    def gone(self, conn: Connection) -> None:
        """A connection is closed; called once for each that was admitted."""
        if conn not in self.connections:
            return
        del self.connections[conn]
        self.stats.open -= 1
        if self.draining and not self.connections:
            self._emptied.set()
        left = self._per_ip.get(conn.peer_ip, 1) - 1
        if left:
            self._per_ip[conn.peer_ip] = left
        else:
            self._per_ip.pop(conn.peer_ip, None)

    def become_http2(self, conn: DownstreamH1, data: bytes) -> None:
        """Hand a connection over to the HTTP/2 rim, with what has been read of it."""
        self.connections.pop(conn, None)
        successor = DownstreamH2(self)
        self.connections[successor] = None
        conn.transport.set_protocol(successor)
        successor.adopt(conn, data)

    def misdirected(self, conn: DownstreamH1, prep: Prepared) -> bool:
        """RFC 9110 15.5.20: the connection's certificate is for other hosts than this one."""
        store, context = self.store, conn.tls_context
        if store is None or context is None or not prep.head.host:
            return False
        return store.misdirected(context, prep.head.host)

    def refused(self, reason: str) -> None:
        self.worker_stats.refused_downstream.add(reason)

    # -- inside --------------------------------------------------------------------------------

    def _make_room(self) -> bool:
        """Close the oldest connection that is doing nothing, looking at no more than a few."""
        for conn in islice(self.connections, _LOOKED_AT):
            if isinstance(conn, DownstreamH1):
                is_idle = conn.is_idle
            else:
                is_idle = not conn.codec.streams and not conn.is_closing
            if is_idle:
                self.stats.refused.add("idle, made room for another")
                conn.close()
                return True
        return False

    def _turn_away(
        self,
        conn: DownstreamH1,
        status: int,
        reason: str,
        retry_after_s: float | None = None,
        is_cut: bool = False,
    ) -> None:
        self.stats.refused.add(reason)
        if is_cut:
            conn.is_closing = True
            conn.transport.abort()
            return
        body = json.dumps({"type": "about:blank", "status": status, "detail": reason}).encode()
        wait_s = max(1, -int(-(retry_after_s or 1.0) // 1))
        conn.transport.write(
            (
                f"HTTP/1.1 {status} {title_of(status)}\r\n"
                f"content-type: application/problem+json\r\ncontent-length: {len(body)}\r\n"
                f"retry-after: {wait_s}\r\nconnection: close\r\n\r\n"
            ).encode()
            + body
        )
        conn.is_closing = True
        conn.transport.close()

    def _accept(self, sock: socket.socket) -> None:
        for _ in range(64):
            try:
                accepted, _address = sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self.stats.refused.add(f"accept: {error.strerror}")
                return
            accepted.setblocking(False)
            self._spawn(self._introduce(accepted))

    async def _introduce(self, sock: socket.socket) -> None:
        """Read the PROXY header in front of the first byte, then serve as any connection."""
        got = await accept_with_proxy(sock, self.site.trusted, self.site.header_timeout_s)
        if isinstance(got, ProxyRefused):
            self.stats.refused.add("PROXY header refused")
            return

        def make() -> DownstreamH1:
            conn = DownstreamH1(self)
            if got.source is not None:
                conn.peer_ip = got.source[0]
            return conn

        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await loop.connect_accepted_socket(
                make,
                sock,
                ssl=self.store.context if self.store is not None else None,
                ssl_handshake_timeout=_HANDSHAKE_S if self.store is not None else None,
            )


def _asks_certificate(site: Site) -> bool:
    tls = site.spec.tls
    return tls is not None and tls.client_ca_file is not None


def _h2_limits(site: Site) -> H2Limits:
    spec = site.spec.http2
    return limits_of(spec.max_streams, spec.window, spec.header_list)
