"""Ports for servers that a test starts a little later."""

from __future__ import annotations

import contextlib
import random
import socket

_RNG = random.SystemRandom()


def free_port() -> int:
    """Not one of those that the system gives to connections: such a one would soon be somebody's,
    also while a server that had it is being started again.
    """
    while True:
        port = _RNG.randrange(12_000, 32_000)
        with contextlib.suppress(OSError), socket.socket() as sock:
            sock.bind(("127.0.0.1", port))
            return port
