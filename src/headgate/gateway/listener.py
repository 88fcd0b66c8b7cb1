"""A listener at run time: its sockets, its connections and the site they serve.

It outlives reloads. What a reload changes is `site` and, for TLS, the certificates in `store`;
connections and counters stay.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING, Final

from headgate.gateway.downstream_h1 import DownstreamH1
from headgate.gateway.downstream_h2 import DownstreamH2, limits_of
from headgate.gateway.handshakes import FailedHandshakes
from headgate.gateway.heads_h2 import Judge
from headgate.gateway.problem import title_of
from headgate.security.certificate_names import read_names
from headgate.wire.acme_alpn import ACME_TLS
from headgate.wire.first_byte import begins_with_tls
from headgate.wire.forwarded import UNIX_PEER
from headgate.wire.proxy_protocol import ProxyRefused, accept_with_proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from headgate.gateway.prepared import Prepared
    from headgate.gateway.site import Site
    from headgate.observe import ListenerStats, WorkerStats
    from headgate.wire.h2 import H2Limits
    from headgate.wire.tls import CertificateStore
    from headgate.wire.wheel import Wheel

_BACKLOG: Final = 4096
_HANDSHAKE_S: Final = 10.0
_WRITE_HIGH: Final = 256 * 1024
_WRITE_LOW: Final = 64 * 1024
_USED_OF_LIFE: Final = 0.75
"""Of what is left of a caller's certificate when it connects; a new one is there at half of it."""
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
        self._ends: dict[Connection, asyncio.TimerHandle] = {}
        """When connections are closed because of their callers' certificates."""
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

        In the mesh roots follow each other by plan, and a caller's certificate ends within hours:
        what it has proved holds until its connection has ended, so that no request fails for it.
        """
        is_mesh = _is_mesh(self.site)
        for connection in list(self.connections):
            if not is_mesh:
                connection.certificate = None
            connection.drain()

    # -- sockets -------------------------------------------------------------------------------

    async def listen(self, sockets: Sequence[socket.socket]) -> None:
        """Accept from these sockets, which stay the caller's."""
        loop = asyncio.get_running_loop()
        for sock in sockets:
            own = sock.dup()
            own.setblocking(False)
            if self.site.spec.proxy_protocol or self.site.spec.serves_both:
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
        if conn.is_tls:
            self.stats.tls_ok += 1
            ssl_object = transport.get_extra_info("ssl_object")
            conn.tls_version = ssl_object.version() or ""
            if self.asks_certificate:
                # Known as bytes alone: what it means is for `auth.certificate`.
                conn.certificate = ssl_object.getpeercert(binary_form=True)
                if conn.certificate is not None and _is_mesh(self.site):
                    self._end_before(conn, conn.certificate)
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
        self._forget_end(conn)
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
        successor.is_tls = conn.is_tls
        self.connections[successor] = None
        ends_at = self._forget_end(conn)
        if ends_at is not None:
            self._end_at(successor, ends_at)
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

    # -- the end of a caller's certificate -----------------------------------------------------

    def _end_before(self, conn: Connection, certificate: bytes) -> None:
        """Callers of the mesh renew their certificates and go on with the connections they have.
        Those are closed politely while what they began with still holds, as nothing is let in by it
        afterwards (see `mesh_gate`), and no request is to fail for that.
        """
        try:
            names = read_names(certificate)
        except ValueError:
            return  # it has no identity either
        left_s = names.not_after - time.time()  # noqa: TID251 - certificates live in wall time
        loop = asyncio.get_running_loop()
        self._end_at(conn, loop.time() + max(left_s, 0.0) * _USED_OF_LIFE)

    def _end_at(self, conn: Connection, at: float) -> None:
        self._ends[conn] = asyncio.get_running_loop().call_at(at, conn.drain)

    def _forget_end(self, conn: Connection) -> float | None:
        """When it would have been closed."""
        timer = self._ends.pop(conn, None)
        if timer is None:
            return None
        timer.cancel()
        return timer.when()

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
        """Read the PROXY header in front of the first byte, look whether that begins TLS, then
        serve as any connection.
        """
        site = self.site
        source: tuple[str, int] | None = None
        if site.spec.proxy_protocol:
            got = await accept_with_proxy(sock, site.trusted, site.header_timeout_s)
            if isinstance(got, ProxyRefused):
                self.stats.refused.add("PROXY header refused")
                return
            source = got.source
        is_tls = self.is_tls
        if site.spec.serves_both:
            try:
                begins = await begins_with_tls(sock, site.header_timeout_s)
            except BaseException:
                sock.close()
                raise
            if begins is None:
                sock.close()
                self.stats.refused.add("nothing came")
                return
            is_tls = begins

        def make() -> DownstreamH1:
            conn = DownstreamH1(self)
            conn.is_tls = is_tls
            if source is not None:
                conn.peer_ip = source[0]
            return conn

        loop = asyncio.get_running_loop()
        context = self.store.context if self.store is not None and is_tls else None
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await loop.connect_accepted_socket(
                make,
                sock,
                ssl=context,
                ssl_handshake_timeout=_HANDSHAKE_S if context is not None else None,
            )


def _asks_certificate(site: Site) -> bool:
    tls = site.spec.tls
    return tls is not None and (tls.client_ca_file is not None or tls.certificate == "mesh")


def _is_mesh(site: Site) -> bool:
    tls = site.spec.tls
    return tls is not None and tls.certificate == "mesh"


def _h2_limits(site: Site) -> H2Limits:
    spec = site.spec.http2
    return limits_of(spec.max_streams, spec.window, spec.header_list)
