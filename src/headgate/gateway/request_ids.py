"""Request ids: 128 random bits as hex, cut from a batch; a system call for every 512."""

from __future__ import annotations

import os
from typing import Final

__all__ = ["batch", "take_id"]

_BATCH: Final = 512

batch: Final[list[bytes]] = []
"""Ids that nobody has yet; on the request path one is popped where there are any."""


def take_id() -> bytes:
    """An id, of a new batch where there is none left."""
    if not batch:
        text = os.urandom(16 * _BATCH).hex().encode()
        batch.extend(text[i : i + 32] for i in range(0, len(text), 32))
    return batch.pop()
