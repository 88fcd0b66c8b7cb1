"""What stands in the place of a store and is none. It is renamed, so that one can be made there.

A folder, a pipe, or a link that leads nowhere cannot be opened, and reading a pipe would wait for
ever; a link to a file is a file. A file that is spoilt is kept for whoever wants to look at it,
with what SQLite keeps beside it; of many the oldest go.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

__all__ = ["put_odd_aside", "set_aside"]

_KEPT: Final = 3
_PARTS: Final = ("", "-wal", "-shm")


def put_odd_aside(path: Path, wall: float) -> Path | None:
    """Where it is now; None where there is a file, or nothing. Raises OSError."""
    if not os.path.lexists(path) or path.is_file():
        return None
    aside = path.with_name(f"{path.name}.spoilt-{int(wall)}")
    path.rename(aside)
    return aside


def set_aside(path: Path, wall: float) -> Path:
    """Where the spoilt file is now. Raises OSError."""
    aside = path.with_name(f"{path.name}.spoilt-{int(wall)}")
    for part in _PARTS:
        with contextlib.suppress(FileNotFoundError):
            Path(f"{path}{part}").replace(f"{aside}{part}")
    found = path.parent.glob(f"{path.name}.spoilt-*")
    names = sorted({each.name.removesuffix("-wal").removesuffix("-shm") for each in found})
    for old in names[:-_KEPT]:
        for part in _PARTS:
            with contextlib.suppress(OSError):
                path.with_name(f"{old}{part}").unlink()
    return aside
