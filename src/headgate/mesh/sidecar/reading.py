"""Reads the gateway's file for a sidecar, in a process of its own that ends: see `children`."""

from __future__ import annotations

import json
import sys
from typing import Any

__all__ = ["main", "read"]


def read(asked: dict[str, Any]) -> dict[str, Any]:
    """The portion of a file, or its faults."""
    from headgate.config import load
    from headgate.errors import ConfigInvalid
    from headgate.mesh.sidecar.document import portion

    try:
        loaded = load(asked["file"])
    except ConfigInvalid as error:
        return {"faults": [str(fault) for fault in error.faults]}
    return {"portion": portion(loaded.document)}


def main() -> int:
    json.dump(read(json.loads(sys.stdin.buffer.read())), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
