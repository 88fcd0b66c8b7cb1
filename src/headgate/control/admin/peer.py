"""Who is at the other end of a connection to the admin API.

The admin server's protocol puts into the scope's state what a connection knows: `peer`, (pid, uid),
of the process at the other end of a unix socket, which the kernel vouches for; `certificate`, the
facts of the certificate that a client showed over TLS; `abort`, which cuts the connection; and
`push`, which sends a piece of a chunked body that has begun, at once and without a task.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Final

from uvicorn.protocols.http.h11_impl import H11Protocol

from headgate.control.admin.client_certificates import facts_of

__all__ = ["PeerProtocol"]

_PUSHED_MAX: Final = 64 * 1024
"""Bytes that wait for the client before `push` refuses."""
_CREDENTIALS: Final = struct.Struct("3i")  # pid, uid, gid: see unix(7)


class PeerProtocol(H11Protocol):
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)

        def push(part: bytes) -> bool:
            if transport.is_closing() or transport.get_write_buffer_size() > _PUSHED_MAX:
                return False
            transport.write(b"%x\r\n%b\r\n" % (len(part), part))
            return True

        self.app_state = {**self.app_state, "abort": transport.abort, "push": push}
        connection = transport.get_extra_info("ssl_object")
        if connection is not None:
            facts = facts_of(connection)
            if facts is not None:
                self.app_state["certificate"] = facts
        sock = transport.get_extra_info("socket")
        if sock is None or sock.family != socket.AF_UNIX:
            return
        try:
            raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        except (OSError, AttributeError):
            return  # no Linux
        pid, uid, _gid = _CREDENTIALS.unpack(raw)
        self.app_state["peer"] = (pid, uid)
