"""How a sidecar is handed what it is to be: in memory, past the command line and the disk."""

from __future__ import annotations

import json
import os

from headgate.mesh.sidecar.settings import Settings

__all__ = ["from_memfd", "to_memfd"]


def to_memfd(settings: Settings) -> int:
    """A descriptor that the next program inherits, with what it is to be."""
    fd = os.memfd_create("headgate-sidecar", 0)
    view = memoryview(json.dumps(settings.to_json()).encode())
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def from_memfd(fd: int) -> Settings:
    with os.fdopen(fd, "rb") as file:
        return Settings.of_json(json.loads(file.read()))
