"""What a service manager and the kernel are told at our start."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import time

__all__ = ["notify", "raise_descriptor_limit"]


def notify(state: str) -> None:
    """Tell systemd, when it started us with Type=notify or notify-reload (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    if state == "RELOADING=1":
        state += f"\nMONOTONIC_USEC={time.monotonic_ns() // 1000}"
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(state.encode(), address)


def raise_descriptor_limit() -> None:
    """As many open files as we may have: a connection through the gateway takes two, and the
    usual soft limit of 1024 exists only for programs that use select().
    """
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
