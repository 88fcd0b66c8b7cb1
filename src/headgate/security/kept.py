"""A file that is made once, by whichever process comes first, and read by all of them.

It is written beside and linked into place, so that nobody reads half of it, the first one stays,
and a crash or a full disk leaves nothing behind that looks like it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path


def kept_file(path: Path, make: Callable[[], bytes]) -> bytes:
    """What the file holds; `make` says it where there is none yet. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(make())
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(draft)  # else another process was first
    finally:
        draft.unlink(missing_ok=True)
    return path.read_bytes()
