"""Who is at the other end of the socket in the state directory.

The kernel knows the user of the process that connected. The admin server's protocol puts it into
the scope's state, as `peer`: (pid, uid); requests over TCP have none.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Final

from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["PeerProtocol"]

_CREDENTIALS: Final = struct.Struct("3i")  # pid, uid, gid: see unix(7)


class PeerProtocol(H11Protocol):
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        sock = transport.get_extra_info("socket")
        if sock is None or sock.family != socket.AF_UNIX:
            return
        try:
            raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        except (OSError, AttributeError):
            return  # no Linux
        pid, uid, _gid = _CREDENTIALS.unpack(raw)
        self.app_state = {**self.app_state, "peer": (pid, uid)}
