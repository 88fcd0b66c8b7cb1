"""Syslog as RFC 5424 says it, over UDP, TCP, TLS or a Unix socket.

Theory of operation. The line as it was formed is the message of a syslog line. On streams each is
framed by its length (RFC 6587 section 3.4.1, RFC 5425 section 4.3), so that a line end within, if
there were one, could not begin another. On datagrams one that is too long is cut: RFC 5426 section
3.2 has receivers take 2048 bytes, and we send no more than 8192.

Syslog has no answer: what a peer that dies had not read is lost, and nobody can count it. Before
each batch we look whether the peer has closed, which keeps that rare.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import time
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from headgate.observe.logs.formats import Identity
from headgate.observe.logs.pump import Line, Sent
from headgate.observe.logs.rules import SinkRules, level_name

__all__ = ["FACILITIES", "SyslogCarrier", "message_of"]

DATAGRAM_MAX: Final = 8192
FACILITIES: Final = {
    "kern": 0, "user": 1, "mail": 2, "daemon": 3, "auth": 4, "syslog": 5, "cron": 9,
    "authpriv": 10, **{f"local{number}": 16 + number for number in range(8)},
}  # fmt: skip
_SEVERITY: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
_PORTS: Final = {"udp": 514, "tcp": 514, "tls": 6514}


def _word(text: str, most: int) -> str:
    """PRINTUSASCII without blanks, or the nil value (section 6)."""
    kept = "".join(char if "!" <= char <= "~" else "_" for char in text[:most])
    return kept or "-"


def message_of(line: Line, facility: int, who: Identity) -> bytes:
    wall = line.wall if 0 <= line.wall < 253402300800 else 0.0
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(wall))
    head = (
        f"<{facility * 8 + _SEVERITY[level_name(line.level)]}>1 "
        f"{stamp}.{int(wall % 1 * 1e6):06d}Z {_word(who.host, 255)} "
        f"{_word(who.service or 'headgate', 48)} {who.pid or '-'} {_word(line.logger, 32)} - "
    )
    return head.encode("ascii") + line.data


class SyslogCarrier:
    is_local = False

    def __init__(self, rules: SinkRules, who: Identity) -> None:
        self.name = rules.name
        self._who = who
        self._facility = rules.facility
        self._ca_file = rules.ca_file
        self._path = rules.path
        parts = urlsplit(rules.url)
        self._way = "unix" if rules.path else parts.scheme
        if self._way not in {*_PORTS, "unix"} or not (rules.path or parts.hostname):
            raise ValueError("syslog is udp://host:514, tcp://host, tls://host or a path")
        self._host = parts.hostname or ""
        self._port = parts.port or _PORTS.get(self._way, 0)
        self._is_stream = self._way in {"tcp", "tls"}
        self._sock: socket.socket | None = None

    def send(self, lines: Sequence[Line], deadline: float) -> Sent:
        sock = self._connected(deadline)
        sent = 0
        try:
            for line in lines:
                message = message_of(line, self._facility, self._who)
                sock.settimeout(max(0.05, deadline - time.monotonic()))
                if self._is_stream:
                    sock.sendall(b"%d %b" % (len(message), message))
                elif len(message) <= DATAGRAM_MAX:
                    sock.send(message)
                else:
                    # Not within a character.
                    cut = message[:DATAGRAM_MAX].decode("utf-8", "ignore")
                    sock.send(cut.encode())
                sent += 1
        except OSError as error:
            self.close()
            why = error.strerror or str(error) or type(error).__name__
            if self._is_stream and sent < len(lines) and isinstance(error, TimeoutError):
                why = "it does not read"
            return Sent(sent, 0, tuple(lines[sent:]), why=why)
        return Sent(len(lines))

    def _connected(self, deadline: float) -> socket.socket:
        if self._sock is not None and self._is_stream and self._has_left(self._sock):
            self.close()
        if self._sock is None:
            self._sock = self._connect(max(0.05, deadline - time.monotonic()))
        return self._sock

    def _has_left(self, sock: socket.socket) -> bool:
        """Servers of syslog say nothing (with TLS, tickets): to read is to learn of the end."""
        sock.settimeout(0)
        try:
            return not sock.recv(4096)
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        except OSError:
            return True

    def _connect(self, timeout_s: float) -> socket.socket:
        if self._way == "unix":
            kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
            sock = socket.socket(socket.AF_UNIX, kind)
            return _to(sock, os.fsencode(self._path), timeout_s)
        if self._way == "udp":
            family, _, _, _, address = socket.getaddrinfo(
                self._host, self._port, type=socket.SOCK_DGRAM
            )[0]
            return _to(socket.socket(family, socket.SOCK_DGRAM), address, timeout_s)
        sock = socket.create_connection((self._host, self._port), timeout_s)
        if self._way == "tcp":
            return sock
        context = ssl.create_default_context(cafile=self._ca_file)
        try:
            return context.wrap_socket(sock, server_hostname=self._host)
        except BaseException:
            sock.close()
            raise

    def reopen(self) -> None:
        """Connect anew."""
        self.close()

    def close(self) -> None:
        sock, self._sock = self._sock, None
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.close()


def _to(sock: socket.socket, address: Any, timeout_s: float) -> socket.socket:
    try:
        sock.settimeout(timeout_s)
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock
