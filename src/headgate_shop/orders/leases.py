"""Names of leases: which process, on which machine; and whether that one can still come back.

A lease ends by itself. But a process that is started anew need not wait for the leases of the one
whose place it takes, when it can see that nobody holds them any more. Being wrong about it is no
harm: two that drive one saga repeat actions that may be repeated.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable

__all__ = ["exists", "is_over", "new_lease"]


def new_lease() -> str:
    return f"{_host()}:{os.getpid()}:{secrets.token_hex(8)}"


def is_over(lease: str, own: str, is_there: Callable[[int], bool]) -> bool:
    """Whether its process has certainly ended. `own` is the lease of whoever asks."""
    host, _, rest = lease.partition(":")
    pid, _, _ = rest.partition(":")
    own_host, _, own_rest = own.partition(":")
    if lease == own or host != own_host or not pid.isdecimal():
        return False
    # Another with our own number was before us: in a container that is always the first process.
    return pid == own_rest.partition(":")[0] or not is_there(int(pid))


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _host() -> str:
    return socket.gethostname().replace(":", "-")[:32]
